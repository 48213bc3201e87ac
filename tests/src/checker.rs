//! Judges a [`History`]: was what clients were told true?
//!
//! Each rule is one function, one [`Rule`] and at least one spoilt history that it must notice (below).
//! Writes to a register get its versions, in order, so the order of all writes needs no search: the
//! checks are linear in the history, but for sorting. An unknown outcome may be either, for ever, and
//! nothing more: it excuses one write, not any difference.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use crate::history::{Answer, Ask, Asked, Entry, Found, History, Moment, Watch};

/// Where [`Ask::Append`] creates.
pub const LOG: &str = "/log";

/// What a history may violate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An acknowledged write is there in the end.
    NothingIsLost,
    /// No write is done twice, and none that was refused or never sent.
    NothingIsDoneTwice,
    /// Two answers about one version of a register agree.
    OneHistory,
    /// Writes that come after each other in time do so in zxid; each has a zxid of its own.
    WritesAreLinearizable,
    /// A sync, and so what is read after it, is not older than what was acknowledged before.
    SyncIsABarrier,
    /// What a session sent in order is done in order; of what was under way when a connection ended,
    /// a first part is done.
    SessionOrder,
    /// No session sees the past after it saw the present, on any server.
    NoGoingBack,
    /// A reply shows the state of its zxid.
    RepliesShowTheirZxid,
    /// Each change is announced once to a persistent watch, and the first one to a one-time watch,
    /// before an answer shows it; the latter on another server as well.
    OneEventPerChange,
    /// An ephemeral is there as long as its session, no longer and no shorter.
    EphemeralsLiveWithTheirSession,
    /// No session expires within its timeout after it was touched.
    NoLivingSessionExpires,
    /// In the end all servers have the same.
    ReplicasAgree,
    /// Nobody loses a connection to a server that nothing happened to.
    SurvivorsKeepTheirClients,
    /// Answers make sense, and come.
    AnswersComeAndMakeSense,
}

/// A rule that was broken, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// What is promised: not every product promises everything.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// Sync is confirmed by a majority.
    pub sync_is_a_barrier: bool,
    /// An acknowledged ping, sync or write counts for the session's whole timeout.
    pub acknowledged_touches_count: bool,
    /// Connections to surviving servers outlive a leader.
    pub survivors_keep_their_clients: bool,
}

impl Promises {
    pub const ALL: Self = Self {
        sync_is_a_barrier: true,
        acknowledged_touches_count: true,
        survivors_keep_their_clients: true,
    };
    /// What Apache ZooKeeper promises.
    pub const ZOOKEEPER: Self = Self {
        sync_is_a_barrier: false,
        acknowledged_touches_count: false,
        survivors_keep_their_clients: false,
    };
}

/// How much there was to judge: a history in which nothing happened violates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub writes: usize,
    pub reads: usize,
    pub syncs: usize,
    pub pings: usize,
    pub refused: usize,
    pub unknown: usize,
    pub unknown_but_done: usize,
    pub looks: usize,
    pub sessions: usize,
    pub resumed: usize,
    pub expired: usize,
    pub lost: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes, {} refused, {} of unknown outcome ({} of them done), {} reads, {} looks at \
             ephemerals, {} syncs, {} pings; {} sessions, {} resumed, {} expired, {} connections lost",
            self.writes,
            self.refused,
            self.unknown,
            self.unknown_but_done,
            self.reads,
            self.looks,
            self.syncs,
            self.pings,
            self.sessions,
            self.resumed,
            self.expired,
            self.lost
        )
    }
}

/// The verdict: what was violated, and how much was looked at.
#[must_use]
pub fn check(history: &History, promises: Promises) -> (Vec<Violation>, Counts) {
    let mut judge = Judge {
        history,
        promises,
        violations: Vec::new(),
        counts: Counts::default(),
    };
    judge.count();
    judge.check_log();
    judge.check_registers();
    judge.check_writes_in_time();
    judge.check_sessions();
    judge.check_ephemerals();
    judge.check_expiry();
    judge.check_trees();
    judge.check_connections();
    (judge.violations, judge.counts)
}

struct Judge<'a> {
    history: &'a History,
    promises: Promises,
    violations: Vec<Violation>,
    counts: Counts,
}

/// What is known of one version of a register.
#[derive(Clone, Debug)]
struct Version {
    value: String,
    mzxid: i64,
}

/// What is known of one ephemeral.
#[derive(Clone, Debug, Default)]
struct Held {
    session: i64,
    created: Option<i64>,
    /// The create was refused.
    refused: bool,
}

impl<'a> Judge<'a> {
    fn violation(&mut self, rule: Rule, what: impl Into<String>) {
        let what = what.into();
        self.violations.push(Violation { rule, what });
    }

    fn count(&mut self) {
        let counts = &mut self.counts;
        for (_, asked) in self.history.asked() {
            match (&asked.request, &asked.answer) {
                (request, Answer::Unknown) => counts.unknown += usize::from(request.is_write()),
                (Ask::Read { .. }, _) => counts.reads += 1,
                (Ask::Look { .. }, _) => counts.looks += 1,
                (Ask::Sync, _) => counts.syncs += 1,
                (Ask::Ping, _) => counts.pings += 1,
                (_, Answer::Refused { .. }) => counts.refused += 1,
                (_, Answer::Done { .. }) => counts.writes += 1,
            }
        }
        for entries in &self.history.clients {
            let mut known = BTreeSet::new();
            for entry in entries {
                match entry {
                    Entry::Attached { session, .. } if known.insert(*session) => {
                        counts.sessions += 1;
                    }
                    Entry::Attached { .. } => counts.resumed += 1,
                    Entry::Lost { .. } => counts.lost += 1,
                    Entry::Expired { .. } => counts.expired += 1,
                    _ => {}
                }
            }
        }
    }

    /// I1, I2, I12 on znodes that nobody deletes; each says who wrote it.
    fn check_log(&mut self) {
        let history = self.history;
        let Some(tree) = history.trees.first() else {
            self.violation(Rule::ReplicasAgree, "no tree was read");
            return;
        };
        let prefix = format!("{LOG}/");
        let mut there: HashMap<&str, Vec<&str>> = HashMap::new();
        for (path, (data, _)) in &tree.znodes {
            if path.starts_with(&prefix) {
                let value = std::str::from_utf8(data).unwrap_or("(no text)");
                there.entry(value).or_default().push(path);
            }
        }
        // By client: in the order of sending, with the path, if it is there.
        for (client, entries) in history.clients.iter().enumerate() {
            let mut last: Option<(&str, &str)> = None;
            // The first of the connection's appends that was not done.
            let mut missing: Option<(u32, &str)> = None;
            for asked in entries.iter().filter_map(as_asked) {
                let Ask::Append { value } = &asked.request else {
                    continue;
                };
                let paths = there.remove(value.as_str()).unwrap_or_default();
                if paths.len() > 1 {
                    self.violation(
                        Rule::NothingIsDoneTwice,
                        format!("{value} was appended once and is there as {paths:?}"),
                    );
                }
                match (&asked.answer, paths.first()) {
                    (Answer::Done { found, .. }, None) => self.violation(
                        Rule::NothingIsLost,
                        format!("{value} was acknowledged as {found:?} and is not there"),
                    ),
                    (Answer::Done { found, .. }, Some(path)) => {
                        if *found != Found::Path((*path).to_owned()) {
                            self.violation(
                                Rule::OneHistory,
                                format!("{value} was acknowledged as {found:?} and is {path}"),
                            );
                        }
                    }
                    (Answer::Refused { code, .. }, Some(path)) => self.violation(
                        Rule::NothingIsDoneTwice,
                        format!("{value} was refused ({code}) and is there as {path}"),
                    ),
                    (Answer::Unknown, Some(_)) => self.counts.unknown_but_done += 1,
                    (Answer::Refused { .. } | Answer::Unknown, None) => {}
                }
                match paths.first() {
                    None if asked.answer == Answer::Unknown
                        && missing.is_none_or(|(in_, _)| in_ != asked.connection) =>
                    {
                        missing = Some((asked.connection, value));
                    }
                    None => {}
                    Some(path) => {
                        if let Some((connection, first)) = missing
                            && connection == asked.connection
                        {
                            self.violation(
                                Rule::SessionOrder,
                                format!(
                                    "client {client}: {value} was done, {first}, sent before, not"
                                ),
                            );
                        }
                        // Suffixes have ten digits, so the order of paths is that of numbers.
                        if let Some((before, before_path)) = last
                            && *path <= before_path
                        {
                            self.violation(
                                Rule::SessionOrder,
                                format!(
                                    "client {client}: {before} is {before_path}, {value} {path}"
                                ),
                            );
                        }
                        last = Some((value, path));
                    }
                }
            }
        }
        for (value, paths) in there {
            self.violation(
                Rule::NothingIsDoneTwice,
                format!("{value} at {paths:?} was never sent"),
            );
        }
    }

    /// I1, I2, I6, I9, I11 on registers: their versions are their history.
    fn check_registers(&mut self) {
        let history = self.history;
        let mut sets: BTreeMap<&str, Vec<&Asked>> = BTreeMap::new();
        let mut seen: BTreeMap<&str, Vec<&Asked>> = BTreeMap::new();
        for (_, asked) in history.asked() {
            if let Ask::Set { register, .. } = &asked.request {
                sets.entry(register).or_default().push(asked);
            }
            if let Ask::Set { register, .. } | Ask::Read { register } = &asked.request {
                seen.entry(register).or_default().push(asked);
            }
        }
        for (register, asked) in &seen {
            let sets = sets.get(register).map_or(&[][..], Vec::as_slice);
            let versions = self.register_versions(register, asked);
            self.check_register_writes(register, sets, &versions);
            self.check_register_reads(register, asked, &versions);
        }
    }

    /// All that any answer, and the end, says about the versions of a register.
    fn register_versions(&mut self, register: &str, seen: &[&'a Asked]) -> BTreeMap<i32, Version> {
        let mut versions: BTreeMap<i32, Version> = BTreeMap::new();
        let mut note = |judge: &mut Self, number: i32, version: Version| match versions.get(&number)
        {
            None => {
                versions.insert(number, version);
            }
            Some(known) if known.value == version.value && known.mzxid == version.mzxid => {}
            Some(known) => judge.violation(
                Rule::OneHistory,
                format!("{register}: version {number} is {known:?}, and {version:?}"),
            ),
        };
        for asked in seen {
            let Some((
                _,
                _,
                Found::Value {
                    value,
                    version,
                    mzxid,
                    ..
                },
            )) = asked.done()
            else {
                continue;
            };
            let found = Version {
                value: value.clone(),
                mzxid: *mzxid,
            };
            note(self, *version, found);
        }
        for tree in &self.history.trees {
            let Some((data, stat)) = tree.znodes.get(register) else {
                self.violation(
                    Rule::NothingIsLost,
                    format!("{register} is not there on server {}", tree.server),
                );
                continue;
            };
            let found = Version {
                value: String::from_utf8_lossy(data).into_owned(),
                mzxid: stat.mzxid.0,
            };
            note(self, stat.version, found);
        }
        let pairs: Vec<(&i32, &Version)> = versions.iter().collect();
        let disordered: Vec<String> = pairs
            .windows(2)
            .filter(|pair| pair[0].1.mzxid >= pair[1].1.mzxid)
            .map(|pair| format!("{register}: {:?} before {:?}", pair[0], pair[1]))
            .collect();
        for what in disordered {
            self.violation(Rule::OneHistory, what);
        }
        versions
    }

    fn check_register_writes(
        &mut self,
        register: &str,
        sets: &[&'a Asked],
        versions: &BTreeMap<i32, Version>,
    ) {
        let mut by_value: HashMap<&str, Vec<i32>> = HashMap::new();
        for (number, version) in versions {
            by_value.entry(&version.value).or_default().push(*number);
        }
        let last = self
            .history
            .trees
            .iter()
            .filter_map(|tree| tree.znodes.get(register))
            .map(|(_, stat)| stat.version)
            .max()
            .unwrap_or(0);
        let mut acknowledged: i32 = 0;
        let mut unknown: i32 = 0;
        // Version 0 is as it was created, before the history.
        by_value.retain(|_, numbers| *numbers != [0]);
        for asked in sets {
            let Ask::Set { value, .. } = &asked.request else {
                continue;
            };
            let numbers = by_value.remove(value.as_str()).unwrap_or_default();
            if numbers.len() > 1 {
                self.violation(
                    Rule::NothingIsDoneTwice,
                    format!("{register}: {value} is at versions {numbers:?}"),
                );
            }
            match &asked.answer {
                Answer::Done { .. } => {
                    acknowledged += 1;
                    if numbers.iter().any(|number| *number > last) {
                        self.violation(
                            Rule::NothingIsLost,
                            format!("{register}: {value} had version {numbers:?}, {last} is last"),
                        );
                    }
                }
                Answer::Refused { code, .. } if !numbers.is_empty() => self.violation(
                    Rule::NothingIsDoneTwice,
                    format!("{register}: {value} was refused ({code}), and done: {numbers:?}"),
                ),
                Answer::Refused { .. } => {}
                Answer::Unknown => unknown += 1,
            }
        }
        for (value, numbers) in by_value {
            self.violation(
                Rule::NothingIsDoneTwice,
                format!("{register}: {value} at versions {numbers:?} was never sent"),
            );
        }
        if last < acknowledged {
            self.violation(
                Rule::NothingIsLost,
                format!("{register}: {acknowledged} acknowledged writes, last version {last}"),
            );
        }
        if last > acknowledged + unknown {
            self.violation(
                Rule::NothingIsDoneTwice,
                format!(
                    "{register}: {acknowledged} acknowledged writes and {unknown} unknown ones make \
                     {last} versions"
                ),
            );
        }
        self.counts.unknown_but_done += usize::try_from(last - acknowledged).unwrap_or(0);
    }

    fn check_register_reads(
        &mut self,
        register: &str,
        seen: &[&'a Asked],
        versions: &BTreeMap<i32, Version>,
    ) {
        for asked in seen {
            let Some((_, zxid, Found::Value { version, mzxid, .. })) = asked.done() else {
                continue;
            };
            let later = versions.get(&(version + 1));
            if *mzxid > zxid || later.is_some_and(|later| later.mzxid <= zxid) {
                self.violation(
                    Rule::RepliesShowTheirZxid,
                    format!(
                        "{register}: at {zxid:#x} server {} showed version {version} of {mzxid:#x}; \
                         the next one is {later:?}",
                        asked.server
                    ),
                );
            }
        }
    }

    /// I6, I7: writes take effect in one order, the order of zxids, and that fits the time.
    fn check_writes_in_time(&mut self) {
        let history = self.history;
        let mut zxids: HashMap<i64, &Asked> = HashMap::new();
        // When a write was acknowledged, and its zxid.
        let mut acknowledged: Vec<(Moment, i64)> = Vec::new();
        // What may not be older than what was acknowledged before it was sent.
        let mut bounded: Vec<(Moment, i64, &Asked)> = Vec::new();
        for (_, asked) in history.asked() {
            let Some((at, zxid, _)) = asked.done() else {
                continue;
            };
            if asked.request.is_write() {
                if let Some(other) = zxids.insert(zxid, asked) {
                    self.violation(
                        Rule::WritesAreLinearizable,
                        format!(
                            "{:?} and {:?} have both the zxid {zxid:#x}",
                            other.request, asked.request
                        ),
                    );
                }
                acknowledged.push((at, zxid));
                bounded.push((asked.sent, zxid, asked));
            } else if asked.request == Ask::Sync && self.promises.sync_is_a_barrier {
                bounded.push((asked.sent, zxid, asked));
            }
        }
        acknowledged.sort_unstable();
        bounded.sort_by_key(|(sent, ..)| *sent);
        let mut before = acknowledged.into_iter().peekable();
        let mut highest = i64::MIN;
        for (sent, zxid, asked) in bounded {
            while let Some((_, zxid)) = before.next_if(|(at, _)| *at < sent) {
                highest = highest.max(zxid);
            }
            let rule = match asked.request {
                Ask::Sync => Rule::SyncIsABarrier,
                _ => Rule::WritesAreLinearizable,
            };
            // A sync's zxid is that of the last write, not one of its own.
            let is_old = match asked.request {
                Ask::Sync => zxid < highest,
                _ => zxid <= highest,
            };
            if is_old {
                self.violation(
                    rule,
                    format!(
                        "{:?} on server {} got {zxid:#x}; {highest:#x} was acknowledged before",
                        asked.request, asked.server
                    ),
                );
            }
        }
    }

    /// I8, I9, I23: what one session sees, in its order, on whatever servers.
    fn check_sessions(&mut self) {
        let history = self.history;
        for (client, entries) in history.clients.iter().enumerate() {
            let mut session = 0;
            let mut last_zxid = i64::MIN;
            let mut last_write = i64::MIN;
            let mut versions: HashMap<&str, i32> = HashMap::new();
            // Version minus events, for each connection and register.
            let mut offsets: HashMap<(u32, &str), i32> = HashMap::new();
            for asked in entries.iter().filter_map(as_asked) {
                if asked.session != session {
                    session = asked.session;
                    last_zxid = i64::MIN;
                    last_write = i64::MIN;
                    versions.clear();
                }
                let Some((_, zxid)) = asked.answered() else {
                    continue;
                };
                let place = format!(
                    "client {client}, session {session:#x}, server {}: {:?}",
                    asked.server, asked.request
                );
                if asked.request != Ask::Ping {
                    if zxid < last_zxid {
                        self.violation(
                            Rule::NoGoingBack,
                            format!("{place} at {zxid:#x} after {last_zxid:#x}"),
                        );
                    }
                    last_zxid = last_zxid.max(zxid);
                }
                if asked.request.is_write() && asked.done().is_some() {
                    if zxid <= last_write {
                        self.violation(
                            Rule::SessionOrder,
                            format!("{place} at {zxid:#x} after a write at {last_write:#x}"),
                        );
                    }
                    last_write = zxid;
                }
                let (
                    Ask::Set { register, .. } | Ask::Read { register },
                    Some((
                        _,
                        _,
                        Found::Value {
                            version,
                            events,
                            watch,
                            ..
                        },
                    )),
                ) = (&asked.request, asked.done())
                else {
                    continue;
                };
                let before = versions.insert(register, *version);
                if let Some(before) = before.filter(|before| before > version) {
                    self.violation(
                        Rule::NoGoingBack,
                        format!("{place}: version {version} after {before}"),
                    );
                }
                let is_told = match watch {
                    Watch::Never => true,
                    Watch::SetAt(set_at) => set_at == version,
                    Watch::FiredAfter(set_at) => set_at < version,
                };
                if !is_told {
                    self.violation(
                        Rule::OneEventPerChange,
                        format!("{place}: version {version}, and its watch is {watch:?}"),
                    );
                }
                if let Some(events) = events {
                    let offset = version - events;
                    let first = *offsets
                        .entry((asked.connection, register))
                        .or_insert(offset);
                    if first != offset {
                        self.violation(
                            Rule::OneEventPerChange,
                            format!(
                                "{place}: version {version} after {events} events; it began at {first}"
                            ),
                        );
                    }
                }
            }
        }
    }

    /// I13.
    fn check_ephemerals(&mut self) {
        let history = self.history;
        let mut held: HashMap<&str, Held> = HashMap::new();
        // Of sessions: the zxid of the close, if it is known; whether they ended in any way.
        let mut closed: HashMap<i64, i64> = HashMap::new();
        let mut may_have_ended: BTreeSet<i64> = BTreeSet::new();
        for entries in &history.clients {
            for entry in entries {
                match entry {
                    Entry::Asked(asked) => match (&asked.request, asked.done()) {
                        (Ask::Hold { path }, done) => {
                            let known = Held {
                                session: asked.session,
                                created: done.map(|(_, zxid, _)| zxid),
                                refused: matches!(asked.answer, Answer::Refused { .. }),
                            };
                            held.insert(path, known);
                        }
                        (Ask::Close, Some((_, zxid, _))) => {
                            closed.insert(asked.session, zxid);
                            may_have_ended.insert(asked.session);
                        }
                        (Ask::Close, None) => {
                            may_have_ended.insert(asked.session);
                        }
                        _ => {}
                    },
                    Entry::Expired { session, .. } | Entry::Abandoned { session } => {
                        may_have_ended.insert(*session);
                    }
                    _ => {}
                }
            }
        }
        // What was seen of each: at which zxid, and the owner, if it was there.
        let mut seen: HashMap<&str, Vec<(i64, Option<i64>)>> = HashMap::new();
        for (_, asked) in history.asked() {
            if let (Ask::Look { path }, Some((_, zxid, found))) = (&asked.request, asked.done()) {
                let owner = match found {
                    Found::Present { owner } => Some(*owner),
                    _ => None,
                };
                seen.entry(path).or_default().push((zxid, owner));
            }
        }
        for tree in &history.trees {
            for path in held.keys() {
                // What was created after the sync may be in the tree; what was there before it must.
                let found = match tree.znodes.get(*path) {
                    Some((_, stat)) => (tree.zxid.max(stat.czxid.0), Some(stat.ephemeral_owner)),
                    None => (tree.zxid, None),
                };
                seen.entry(path).or_default().push(found);
            }
            for (path, (_, stat)) in &tree.znodes {
                if stat.ephemeral_owner != 0 && !held.contains_key(path.as_str()) {
                    self.violation(
                        Rule::EphemeralsLiveWithTheirSession,
                        format!("{path} on server {} is nobody's", tree.server),
                    );
                }
            }
        }
        let rule = Rule::EphemeralsLiveWithTheirSession;
        for (path, seen) in seen {
            let Some(known) = held.get(path) else {
                continue;
            };
            let session = known.session;
            let end = closed.get(&session);
            let mut last_present = i64::MIN;
            let mut first_absent = i64::MAX;
            for (zxid, owner) in seen {
                if let Some(owner) = owner {
                    last_present = last_present.max(zxid);
                    if owner != session || known.refused {
                        self.violation(
                            rule,
                            format!("{path} of {session:#x} belongs to {owner:#x} ({known:?})"),
                        );
                    }
                    if known.created.is_some_and(|created| zxid < created) {
                        self.violation(rule, format!("{path} was there at {zxid:#x}: {known:?}"));
                    }
                    if let Some(end) = end.filter(|end| zxid >= **end) {
                        self.violation(
                            rule,
                            format!(
                                "{path} was there at {zxid:#x}; {session:#x} was closed at {end:#x}"
                            ),
                        );
                    }
                } else if let Some(created) = known.created.filter(|created| zxid >= *created) {
                    first_absent = first_absent.min(zxid);
                    if !may_have_ended.contains(&session) || end.is_some_and(|end| zxid < *end) {
                        self.violation(
                            rule,
                            format!(
                                "{path} of {session:#x}, created at {created:#x}, was gone at \
                                 {zxid:#x}; the session ended at {end:x?}"
                            ),
                        );
                    }
                }
            }
            if first_absent <= last_present {
                self.violation(
                    rule,
                    format!("{path} was gone at {first_absent:#x} and there at {last_present:#x}"),
                );
            }
        }
    }

    /// I14: a touch that a server acknowledged, and only the leader can, counts from when it was
    /// sent, at the least.
    fn check_expiry(&mut self) {
        if !self.promises.acknowledged_touches_count {
            return;
        }
        let history = self.history;
        for (client, entries) in history.clients.iter().enumerate() {
            let mut timeouts: HashMap<i64, Duration> = HashMap::new();
            let mut touched: HashMap<i64, Moment> = HashMap::new();
            for entry in entries {
                match entry {
                    // It may have been closed, not expired.
                    Entry::Asked(asked) if asked.request == Ask::Close => {
                        timeouts.remove(&asked.session);
                    }
                    Entry::Attached {
                        session, timeout, ..
                    } => {
                        timeouts.insert(*session, *timeout);
                    }
                    Entry::Asked(asked) if asked.answered().is_some() => {
                        let local = matches!(asked.request, Ask::Read { .. } | Ask::Look { .. });
                        if !local {
                            touched.insert(asked.session, asked.sent);
                        }
                    }
                    Entry::Expired { session, at } => {
                        let (Some(timeout), Some(touch)) =
                            (timeouts.get(session), touched.get(session))
                        else {
                            continue;
                        };
                        if *at < *touch + *timeout {
                            self.violation(
                                Rule::NoLivingSessionExpires,
                                format!(
                                    "client {client}: {session:#x}, touched at {touch:?}, had expired \
                                     at {at:?}; its timeout is {timeout:?}"
                                ),
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// I26, as far as clients can see.
    fn check_trees(&mut self) {
        let Some((first, rest)) = self.history.trees.split_first() else {
            return;
        };
        for other in rest {
            let paths: BTreeSet<&String> = first.znodes.keys().chain(other.znodes.keys()).collect();
            for path in paths {
                let (here, there) = (first.znodes.get(path), other.znodes.get(path));
                if here != there {
                    self.violation(
                        Rule::ReplicasAgree,
                        format!(
                            "{path}: server {} has {here:?}, server {} {there:?}",
                            first.server, other.server
                        ),
                    );
                }
            }
        }
    }

    /// Design decision 5, and that everybody is answered.
    fn check_connections(&mut self) {
        let history = self.history;
        for (client, entries) in history.clients.iter().enumerate() {
            // Resumptions without an answer, by session: each may take one connection away.
            let mut attempts: HashMap<i64, u32> = HashMap::new();
            for entry in entries {
                match entry {
                    Entry::Broken { server, what } => self.violation(
                        Rule::AnswersComeAndMakeSense,
                        format!("client {client}, server {server}: {what}"),
                    ),
                    Entry::Attempted { session } => *attempts.entry(*session).or_default() += 1,
                    Entry::Lost {
                        session,
                        server,
                        since,
                        at,
                    } if self.promises.survivors_keep_their_clients => {
                        let disturbed = history.disturbances.iter().any(|disturbance| {
                            disturbance.server == *server
                                && disturbance.from <= *at
                                && disturbance.to.is_none_or(|to| to >= *since)
                        });
                        let attempts = attempts.entry(*session).or_default();
                        if !disturbed && *attempts > 0 {
                            *attempts -= 1;
                        } else if !disturbed {
                            self.violation(
                                Rule::SurvivorsKeepTheirClients,
                                format!(
                                    "client {client} ({session:#x}) lost server {server} between \
                                     {since:?} and {at:?}"
                                ),
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn as_asked(entry: &Entry) -> Option<&Asked> {
    match entry {
        Entry::Asked(asked) => Some(asked),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
