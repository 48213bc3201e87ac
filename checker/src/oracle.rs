//! The log as oracle: applies it once more, and compares every answer with it.
//!
//! A write's answer must be what its entry makes of it; a read's, the state at exactly the zxid in
//! the reply. What has no answer is found in the log or not, so from here on its outcome is known
//! ([`Oracle::fate`]). An oracle that cannot be right (it has entries nobody can read) judges nothing.

use std::collections::BTreeMap;

use quorate_protocol::{AclEntry, ErrorCode, Id, Perms, Stat};

use crate::history::{
    Data, FinalTree, LogCommand, Operation, Outcome, PartResult, Path, Reply, Request,
};
use crate::index::is_same_write;
use crate::judge::{Judge, describe};
use crate::promise::Promise;
use crate::replay::{Effect, Replay};
use crate::tree::{Change, Kind, Tree, Znode, permits};

/// Codes that a server answers with before a request gets to the log.
const LOCAL_REFUSALS: [ErrorCode; 10] = [
    ErrorCode::SystemError,
    ErrorCode::MarshallingError,
    ErrorCode::Unimplemented,
    ErrorCode::BadArguments,
    ErrorCode::AuthFailed,
    ErrorCode::NotReadOnly,
    ErrorCode::ReconfigDisabled,
    ErrorCode::SessionClosedRequireSaslAuth,
    ErrorCode::SessionExpired,
    ErrorCode::ThrottledOp,
];

/// What the log says.
pub(crate) struct Oracle {
    pub(crate) effects: Vec<Effect>,
    /// In the order of the log.
    pub(crate) changes: Vec<(i64, Change)>,
    /// For each operation of the history: its entry.
    entries: Vec<Option<usize>>,
    /// When each session ended, and whether it expired.
    pub(crate) ends: BTreeMap<i64, (i64, bool)>,
    /// How often each session was opened and given to another connection.
    pub(crate) opened: BTreeMap<i64, usize>,
    pub(crate) attached: BTreeMap<i64, usize>,
    /// What the paths of each request to set watches were at its zxid, list by list.
    pub(crate) rearmed: BTreeMap<usize, Vec<Rearmed>>,
    pub(crate) last: Replay,
    pub(crate) last_zxid: i64,
}

/// What a watch that is set again finds.
#[derive(Clone, Debug)]
pub(crate) struct Rearmed {
    /// `None`: no such znode.
    pub(crate) stat: Option<Stat>,
    pub(crate) acl: Option<std::sync::Arc<[quorate_protocol::Acl]>>,
}

/// What is known of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in the log.
    Entry(usize),
    /// It is not in the log.
    NotDone,
}

/// What is compared with the state at one zxid.
#[derive(Clone, Copy)]
enum Sight {
    Operation(usize),
    Tree(usize),
}

impl Oracle {
    /// `None` if there is no log, or one that cannot be applied.
    pub(crate) fn of(judge: &mut Judge<'_>) -> Option<Self> {
        let history = judge.history;
        let log = history.log.as_ref()?;
        judge_log(judge);
        let mut oracle = Self {
            effects: Vec::with_capacity(log.entries.len()),
            changes: Vec::new(),
            entries: vec![None; history.operations.len()],
            ends: BTreeMap::new(),
            opened: BTreeMap::new(),
            attached: BTreeMap::new(),
            rearmed: BTreeMap::new(),
            last: Replay::default(),
            last_zxid: log.entries.last().map_or(0, |entry| entry.zxid),
        };
        let mut sights = sights_of(judge).into_iter().peekable();
        let mut replay = Replay::default();
        let mut changes = Vec::new();
        for entry in &log.entries {
            while let Some((_, sight)) = sights.next_if(|(zxid, _)| *zxid < entry.zxid) {
                oracle.compare(judge, &replay.tree, sight);
            }
            let effect = replay.apply(entry, &mut changes);
            match effect {
                Effect::Ended { session, expired } => {
                    oracle.ends.insert(session, (entry.zxid, expired));
                    let tally = &mut judge.report.tally;
                    match expired {
                        true => tally.sessions_expired += 1,
                        false => tally.sessions_closed += 1,
                    }
                }
                Effect::Opened { session } => *oracle.opened.entry(session).or_default() += 1,
                Effect::Attached { session } => *oracle.attached.entry(session).or_default() += 1,
                _ => {}
            }
            if let LogCommand::Write { session, .. } | LogCommand::Close { session } =
                &entry.command
                && !oracle.opened.contains_key(session)
            {
                judge.undecided(format!(
                    "the log has {:#x} of session {session:#x}, and does not open it: it has to begin \
                     where the ensemble began",
                    entry.zxid
                ));
                return None;
            }
            if replay.is_lost {
                judge.undecided(format!(
                    "the log cannot be applied from {:#x} on: {:?}",
                    entry.zxid, entry.command
                ));
                return None;
            }
            let enforces = matches!(
                &entry.command,
                LogCommand::Write { rules, .. } if rules.enforce_quota
            );
            if enforces && replay.tree.has_quotas() {
                judge.undecided("hard quotas are enforced, which cannot be judged".to_owned());
                return None;
            }
            oracle
                .changes
                .extend(changes.drain(..).map(|change| (entry.zxid, change)));
            oracle.effects.push(effect);
        }
        for (_, sight) in sights {
            oracle.compare(judge, &replay.tree, sight);
        }
        oracle.last = replay;
        oracle.compare_trees_of_no_zxid(judge);
        oracle.judge_writes(judge);
        oracle.judge_unanswered(judge);
        Some(oracle)
    }

    pub(crate) fn fate(&self, operation: usize) -> Fate {
        self.entries[operation].map_or(Fate::NotDone, Fate::Entry)
    }

    /// Paths that sessions changed of whose requests nothing was recorded.
    pub(crate) fn changes_by_strangers<'o>(&'o self, judge: &Judge<'_>) -> Vec<&'o Path> {
        let entries = judge.history.log.as_ref().map(|log| &log.entries[..]);
        let entries = entries.unwrap_or_default();
        let is_known = |zxid: i64| {
            let Ok(at) = entries.binary_search_by_key(&zxid, |entry| entry.zxid) else {
                return true;
            };
            match &entries[at].command {
                LogCommand::Write { session, .. }
                | LogCommand::Close { session }
                | LogCommand::Expire { session, .. } => {
                    judge.index.operations_of(*session).next().is_some()
                }
                _ => true,
            }
        };
        let mut last = (0, true);
        let changes = self.changes.iter().filter(|(zxid, _)| {
            if last.0 != *zxid {
                last = (*zxid, is_known(*zxid));
            }
            !last.1
        });
        changes.map(|(_, change)| &change.path).collect()
    }

    /// Writes that were answered.
    fn judge_writes(&mut self, judge: &mut Judge<'_>) {
        let history = judge.history;
        let Some(log) = &history.log else { return };
        let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
        for (index, operation) in history.operations.iter().enumerate() {
            if !operation.request.is_write() {
                continue;
            }
            let Some(zxid) = operation.outcome.zxid() else {
                continue;
            };
            let refusal = match operation.outcome {
                Outcome::Refused { code, .. } => Some(code),
                _ => None,
            };
            let found = log.entries.binary_search_by_key(&zxid, |entry| entry.zxid);
            let entry = found
                .ok()
                .filter(|entry| asks_for(&log.entries[*entry].command, operation));
            let is_local = refusal
                .and_then(ErrorCode::from_code)
                .is_some_and(|code| LOCAL_REFUSALS.contains(&code));
            // Its zxid is then that of whatever was applied last, perhaps of a write just like it.
            let entry = entry.filter(|entry| {
                !is_local
                    || (!taken.contains_key(entry)
                        && matches!(self.effects[*entry], Effect::Written(Err(_))))
            });
            let Some(entry) = entry else {
                let named = history.header.promises.replies_name_their_state;
                if refusal.is_none() {
                    judge.violation(Promise::AcknowledgedWritesSurvive, || {
                        format!(
                            "the log has {:?} there: {}",
                            found.ok().map(|entry| &log.entries[entry].command),
                            describe(operation)
                        )
                    });
                } else if named && !is_local {
                    judge.violation(Promise::WritesAnswerTruly, || {
                        format!("the log does not have it: {}", describe(operation))
                    });
                }
                continue;
            };
            if let Some(other) = taken.insert(entry, index) {
                let other = judge.operation(other);
                judge.violation(Promise::AcknowledgedWritesSurvive, || {
                    format!(
                        "one entry for two writes: {}; {}",
                        describe(operation),
                        describe(other)
                    )
                });
                continue;
            }
            self.entries[index] = Some(entry);
            self.judge_answer(judge, operation, &self.effects[entry], is_local);
        }
    }

    /// The answer of a write whose entry is known.
    fn judge_answer(
        &self,
        judge: &mut Judge<'_>,
        operation: &Operation,
        effect: &Effect,
        is_local: bool,
    ) {
        let is_true = match (effect, &operation.outcome) {
            (Effect::Written(Ok(expected)), Outcome::Done { reply, .. }) => {
                is_same_reply(expected, reply)
            }
            (Effect::Written(Err(expected)), Outcome::Refused { code, .. }) => {
                expected.code() == *code
            }
            (Effect::Ended { .. }, Outcome::Done { .. }) => true,
            (Effect::Void | Effect::Moved, Outcome::Refused { .. }) => is_local,
            _ => false,
        };
        if is_true {
            return;
        }
        let promise = match (effect, &operation.outcome) {
            (
                Effect::Written(Err(ErrorCode::SessionExpired)) | Effect::Moved,
                Outcome::Done { .. },
            ) => Promise::EndedIsEnded,
            (Effect::Void, Outcome::Done { .. }) => Promise::SessionOrder,
            (_, Outcome::Done { reply, .. }) if is_partial(reply) => Promise::MultiIsAtomic,
            (Effect::Written(Ok(Reply::Results(_))), _) => Promise::MultiIsAtomic,
            _ if is_sequential(&operation.request) => Promise::NumbersNeverRepeat,
            _ => Promise::WritesAnswerTruly,
        };
        judge.violation(promise, || {
            format!("the log makes {effect:?} of it: {}", describe(operation))
        });
    }

    /// Finds the entries of writes that were not answered, and entries that nobody asked for.
    fn judge_unanswered(&mut self, judge: &mut Judge<'_>) {
        let history = judge.history;
        let Some(log) = &history.log else { return };
        // Of each session, the entries that took effect, and whose answers did not come.
        let mut open: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        let is_matched: std::collections::BTreeSet<usize> =
            self.entries.iter().flatten().copied().collect();
        for (index, entry) in log.entries.iter().enumerate() {
            let session = match (&entry.command, &self.effects[index]) {
                (LogCommand::Write { session, .. }, Effect::Written(_))
                | (LogCommand::Close { session }, Effect::Ended { .. }) => *session,
                _ => continue,
            };
            // An entry of a session that had ended changes nothing, whoever sent it.
            let is_dead = self.effects[index] == Effect::Written(Err(ErrorCode::SessionExpired));
            if is_matched.contains(&index) || !is_dead {
                open.entry(session).or_default().push(index);
            }
        }
        for (session, entries) in open {
            if !judge.index.sessions.contains_key(&session) {
                continue;
            }
            let writes: Vec<usize> = judge
                .index
                .operations_of(session)
                .filter(|index| judge.operation(*index).request.is_write())
                .collect();
            if writes.is_empty() && entries.iter().all(|entry| !is_matched.contains(entry)) {
                // A client whose requests were not recorded.
                continue;
            }
            let place: BTreeMap<usize, usize> = writes
                .iter()
                .enumerate()
                .filter_map(|(place, index)| Some((self.entries[*index]?, place)))
                .collect();
            let mut next = 0;
            for (at, entry) in entries.iter().enumerate() {
                if let Some(place) = place.get(entry) {
                    next = next.max(place + 1);
                    continue;
                }
                let bound = entries[at + 1..]
                    .iter()
                    .find_map(|later| place.get(later))
                    .copied()
                    .unwrap_or(writes.len());
                let command = &log.entries[*entry].command;
                let found = (next..bound.max(next)).find(|place| {
                    let operation = judge.operation(writes[*place]);
                    operation.outcome == Outcome::Unknown && asks_for(command, operation)
                });
                if let Some(found) = found {
                    self.entries[writes[found]] = Some(*entry);
                    next = found + 1;
                } else {
                    let zxid = log.entries[*entry].zxid;
                    judge.violation(Promise::NothingIsDoneTwice, || {
                        format!(
                            "session {session:#x} has sent nothing that could be the entry at \
                             {zxid:#x}: {command:?}"
                        )
                    });
                }
            }
            self.judge_first_parts(judge, &writes);
        }
    }

    /// Of what was under way when a connection ended, a first part is done.
    fn judge_first_parts(&self, judge: &mut Judge<'_>, writes: &[usize]) {
        let mut skipped: Option<usize> = None;
        for index in writes {
            let operation = judge.operation(*index);
            if skipped
                .is_some_and(|skipped| judge.operation(skipped).connection != operation.connection)
            {
                skipped = None;
            }
            match (self.entries[*index], &operation.outcome) {
                (None, Outcome::Unknown) => skipped = skipped.or(Some(*index)),
                (Some(_), _) => {
                    if let Some(skipped) = skipped.take() {
                        let skipped = judge.operation(skipped);
                        judge.violation(Promise::SessionOrder, || {
                            format!(
                                "this was done: {}; but not what was sent before it: {}",
                                describe(operation),
                                describe(skipped)
                            )
                        });
                    }
                }
                _ => {}
            }
        }
    }

    fn compare(&mut self, judge: &mut Judge<'_>, tree: &Tree, sight: Sight) {
        match sight {
            Sight::Operation(index) => {
                let operation = judge.operation(index);
                if let Some(zxid) = operation.outcome.zxid()
                    && zxid > self.last_zxid
                {
                    let last = self.last_zxid;
                    judge.violation(Promise::ReadsShowTheirZxid, || {
                        format!("the log ends at {last:#x}: {}", describe(operation))
                    });
                    return;
                }
                if let Request::SetWatches { .. } = &operation.request {
                    let paths = paths_of(&operation.request);
                    let rearmed = paths.into_iter().map(|path| {
                        let znode = tree.znode(path);
                        Rearmed {
                            stat: znode.map(|znode| znode.stat),
                            acl: znode.and_then(|znode| znode.acl.clone()),
                        }
                    });
                    self.rearmed.insert(index, rearmed.collect());
                } else {
                    judge.report.tally.reads_checked += 1;
                    self.judge_read(judge, tree, index);
                }
            }
            Sight::Tree(index) => {
                let seen = &judge.history.trees[index];
                self.judge_tree(judge, tree, seen);
            }
        }
    }

    fn judge_read(&self, judge: &mut Judge<'_>, tree: &Tree, index: usize) {
        let operation = judge.operation(index);
        let identities = identities_at(judge, index);
        let reader = Reader {
            tree,
            identities: &identities,
            session: operation.session,
        };
        let difference = match &operation.outcome {
            Outcome::Done { reply, .. } => reader.differs(&operation.request, Ok(reply)),
            Outcome::Refused { code, .. } => {
                let is_local = ErrorCode::from_code(*code).is_some_and(|code| {
                    LOCAL_REFUSALS.contains(&code) && code != ErrorCode::BadArguments
                });
                match is_local {
                    true => None,
                    false => reader.differs(&operation.request, Err(*code)),
                }
            }
            _ => None,
        };
        let Some(Difference { path, expected }) = difference else {
            return;
        };
        let znode = tree.znode(&path);
        let promise = self.promise_of_sight(judge, znode, stat_in(&operation.outcome));
        judge.violation(promise, || {
            format!("the log makes it {expected}: {}", describe(operation))
        });
    }

    /// What is at stake when a znode was shown as it was not.
    fn promise_of_sight(
        &self,
        judge: &Judge<'_>,
        expected: Option<&Znode>,
        seen: Option<Stat>,
    ) -> Promise {
        let is_ephemeral = expected
            .is_some_and(|znode| matches!(znode.kind, Kind::Ephemeral { .. }))
            || seen.is_some_and(|stat| stat.ephemeral_owner != 0);
        let stats = expected.map(|znode| znode.stat).into_iter().chain(seen);
        let mut zxids = stats.flat_map(|stat| [stat.czxid.0, stat.mzxid.0]);
        let entries = judge.history.log.as_ref().map(|log| &log.entries[..]);
        let entries = entries.unwrap_or_default();
        let is_multi = zxids.any(|zxid| {
            let found = entries.binary_search_by_key(&zxid, |entry| entry.zxid);
            found.is_ok_and(|index| {
                matches!(
                    &entries[index].command,
                    LogCommand::Write {
                        write: Request::Multi(_),
                        ..
                    }
                )
            })
        });
        match (is_multi, is_ephemeral) {
            (true, _) => Promise::MultiIsAtomic,
            (_, true) => Promise::EphemeralsLiveWithTheirSession,
            _ => Promise::ReadsShowTheirZxid,
        }
    }

    /// Trees that were read znode by znode when all was quiet.
    fn compare_trees_of_no_zxid(&self, judge: &mut Judge<'_>) {
        let history = judge.history;
        for seen in history.trees.iter().filter(|tree| !tree.exact) {
            self.judge_tree(judge, &self.last.tree, seen);
        }
    }

    fn judge_tree(&self, judge: &mut Judge<'_>, tree: &Tree, seen: &FinalTree) {
        judge.report.tally.trees_compared += 1;
        let server = seen.server;
        for (path, znode) in tree.znodes() {
            let found = seen.znodes.get(path);
            let is_same =
                found.is_some_and(|found| found.data == znode.data && found.stat == znode.stat);
            if is_same {
                continue;
            }
            // The system's own znodes may be left out of what was read.
            if found.is_none() && (&**path == "/" || path.starts_with("/zookeeper")) {
                continue;
            }
            let promise = match self.promise_of_sight(judge, Some(znode), None) {
                Promise::ReadsShowTheirZxid => Promise::AcknowledgedWritesSurvive,
                other => other,
            };
            judge.violation(promise, || {
                format!(
                    "{path}: the log makes it {znode:?}, server {server} has {found:?} in the end"
                )
            });
        }
        for (path, found) in &seen.znodes {
            if tree.znode(path).is_none() {
                let promise = match found.stat.ephemeral_owner {
                    0 => Promise::NothingIsDoneTwice,
                    _ => Promise::EphemeralsLiveWithTheirSession,
                };
                judge.violation(promise, || {
                    format!("{path}: the log has no such znode, server {server} has {found:?}")
                });
            }
        }
    }
}

/// What can be seen of the log without applying it.
fn judge_log(judge: &mut Judge<'_>) {
    let history = judge.history;
    let Some(log) = &history.log else { return };
    for pair in log.entries.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if after.zxid <= before.zxid || after.term < before.term {
            judge.violation(Promise::OneOrder, || {
                format!(
                    "{:#x} in term {} stands behind {:#x} in term {}",
                    after.zxid, after.term, before.zxid, before.term
                )
            });
        }
    }
}

/// Reads that were answered, and trees, by their zxids.
fn sights_of(judge: &Judge<'_>) -> Vec<(i64, Sight)> {
    let history = judge.history;
    if !history.header.promises.replies_name_their_state {
        return Vec::new();
    }
    let operations = history.operations.iter().enumerate();
    let mut sights: Vec<(i64, Sight)> = operations
        .filter(|(_, it)| {
            it.request.is_read()
                || (it.outcome.is_done() && matches!(it.request, Request::SetWatches { .. }))
        })
        .filter_map(|(index, it)| Some((it.outcome.zxid()?, Sight::Operation(index))))
        .collect();
    let trees = history.trees.iter().enumerate();
    sights.extend(
        trees
            .filter(|(_, tree)| tree.exact)
            .map(|(index, tree)| (tree.zxid, Sight::Tree(index))),
    );
    sights.sort_by_key(|(zxid, _)| *zxid);
    sights
}

/// Whether an entry is what an operation asked for.
fn asks_for(command: &LogCommand, operation: &Operation) -> bool {
    match command {
        LogCommand::Write { session, write, .. } => {
            *session == operation.session && is_same_write(&operation.request, write)
        }
        LogCommand::Close { session } => {
            *session == operation.session && operation.request == Request::CloseSession
        }
        _ => false,
    }
}

/// Whether some parts of a multi were done and some were not.
fn is_partial(reply: &Reply) -> bool {
    let Reply::Results(results) = reply else {
        return false;
    };
    let done = |result: &&PartResult| matches!(result, PartResult::Done(_));
    let done = results.iter().filter(done).count();
    done != 0 && done != results.len()
}

fn is_sequential(request: &Request) -> bool {
    matches!(request, Request::Create { kind, .. } if kind.is_sequential())
}

/// Whether an answer says what is expected; one with a stat may be recorded without.
fn is_same_reply(expected: &Reply, seen: &Reply) -> bool {
    match (expected, seen) {
        (Reply::Created { path, .. }, Reply::Path(seen)) => path == seen,
        (Reply::Results(expected), Reply::Results(seen)) => {
            expected.len() == seen.len()
                && expected.iter().zip(seen).all(|pair| match pair {
                    (PartResult::Done(expected), PartResult::Done(seen)) => {
                        is_same_reply(expected, seen)
                    }
                    (expected, seen) => expected == seen,
                })
        }
        (expected, seen) => expected == seen,
    }
}

/// The stat that an answer shows.
fn stat_in(outcome: &Outcome) -> Option<Stat> {
    match outcome {
        Outcome::Done { reply, .. } => reply.stat(),
        _ => None,
    }
}

impl Reply {
    pub(crate) fn stat(&self) -> Option<Stat> {
        match self {
            Self::Stat(stat)
            | Self::Data { stat, .. }
            | Self::Created { stat, .. }
            | Self::Acl { stat, .. } => Some(*stat),
            Self::Children { stat, .. } => *stat,
            _ => None,
        }
    }
}

/// All paths of a request to set watches, list by list.
pub(crate) fn paths_of(request: &Request) -> Vec<&Path> {
    match request {
        Request::SetWatches {
            data, exist, child, ..
        } => data.iter().chain(exist).chain(child).collect(),
        _ => Vec::new(),
    }
}

/// What a connection had proved when it sent an operation. Its address is not known here.
pub(crate) fn identities_at(judge: &Judge<'_>, index: usize) -> Vec<Id> {
    let operation = judge.operation(index);
    let connection = &judge.index.connections[&operation.connection];
    if !connection.proves_anything {
        return Vec::new();
    }
    let before = connection.operations.iter().map(|at| judge.operation(*at));
    before
        .take_while(|other| other.sequence < operation.sequence)
        .filter_map(|other| match (&other.request, other.outcome.is_done()) {
            (Request::Authenticate { identity }, true) => Some(identity.clone()),
            _ => None,
        })
        .collect()
}

/// Whether somebody may read, as far as it is known who that is.
pub(crate) fn may_read(
    acl: Option<&[quorate_protocol::Acl]>,
    wanted: Perms,
    identities: &[Id],
) -> Option<bool> {
    let acl = acl?;
    if permits(Some(acl), wanted, identities) {
        return Some(true);
    }
    let is_sure = acl.iter().all(|entry| entry.id().scheme == "digest");
    is_sure.then_some(false)
}

/// Somebody who reads a tree.
struct Reader<'a> {
    tree: &'a Tree,
    identities: &'a [Id],
    session: i64,
}

/// What should have been answered.
struct Difference {
    path: Path,
    expected: String,
}

impl Reader<'_> {
    /// Whether the answer is another one than the tree gives.
    fn differs(&self, request: &Request, seen: Result<&Reply, i32>) -> Option<Difference> {
        let difference = |path: &Path, expected: String| {
            Some(Difference {
                path: Path::clone(path),
                expected,
            })
        };
        if let Request::MultiRead(parts) = request {
            let Ok(Reply::Results(results)) = seen else {
                return difference(&"".into(), "a list of results".to_owned());
            };
            if results.len() != parts.len() {
                return difference(&"".into(), format!("{} results", parts.len()));
            }
            return parts.iter().zip(results).find_map(|(part, result)| {
                let seen = match result {
                    PartResult::Done(reply) => Ok(reply),
                    PartResult::Failed(code) => Err(*code),
                };
                self.differs(part, seen)
            });
        }
        if let Request::GetEphemerals { prefix } = request {
            let owned = self.tree.ephemerals_of(self.session);
            let any = prefix.trim().is_empty() || &**prefix == "/";
            let expected: Vec<&Path> = owned
                .into_iter()
                .flatten()
                .filter(|path| any || path.starts_with(&**prefix))
                .collect();
            let Ok(Reply::Children { names, .. }) = seen else {
                return difference(prefix, format!("{expected:?}"));
            };
            return match is_same_set(expected.iter().copied(), names) {
                true => None,
                false => difference(
                    expected.first().copied().unwrap_or(prefix),
                    format!("{expected:?}"),
                ),
            };
        }
        let path = path_of(request)?;
        let alias = if path.is_empty() { "/" } else { path };
        let Some(znode) = self.tree.znode(alias) else {
            return match seen {
                Err(code) if code == ErrorCode::NoNode.code() => None,
                _ => difference(path, "no znode".to_owned()),
            };
        };
        let wanted = match request {
            Request::GetAcl { .. } => Perms::READ.union(Perms::ADMIN),
            _ => Perms::READ,
        };
        let acl = znode.acl.as_deref();
        let is_readable = match acl {
            None => Some(true),
            Some(_) => may_read(acl, wanted, self.identities),
        };
        let no_auth = seen == Err(ErrorCode::NoAuth.code());
        match (is_readable, no_auth) {
            (Some(true), true) => return difference(path, format!("{znode:?}")),
            (Some(false), false) => return difference(path, "not readable".to_owned()),
            (_, true) => return None,
            _ => {}
        }
        let Ok(seen) = seen else {
            return difference(path, format!("{znode:?}"));
        };
        match self.is_shown(request, path, znode, seen) {
            true => None,
            false => difference(path, format!("{znode:?}")),
        }
    }

    fn is_shown(&self, request: &Request, path: &Path, znode: &Znode, seen: &Reply) -> bool {
        match (request, seen) {
            (Request::GetData { .. }, Reply::Data { data, stat }) => {
                is_same_data(data, &znode.data) && *stat == znode.stat
            }
            (Request::Exists { .. }, Reply::Stat(stat)) => *stat == znode.stat,
            (Request::GetChildren { .. }, Reply::Children { names, stat }) => {
                let expected = self.tree.children(path);
                is_same_set(expected.iter(), names) && stat.is_none_or(|stat| stat == znode.stat)
            }
            (Request::CountDescendants { .. }, Reply::Count(count)) => {
                i64::try_from(self.tree.descendants(path).count()) == Ok(i64::from(*count))
            }
            (Request::GetAcl { .. }, Reply::Acl { acl, stat }) => {
                // Who may not administer sees no hashes, so their ids are not compared.
                let open = [AclEntry::open()];
                let expected: Vec<AclEntry> = match &znode.acl {
                    Some(acl) => acl.iter().cloned().map(AclEntry::from).collect(),
                    None => open.to_vec(),
                };
                let is_same = |(one, other): (&AclEntry, &AclEntry)| {
                    one.perms == other.perms
                        && one.scheme == other.scheme
                        && (one.id == other.id || one.scheme.as_deref() == Some("digest"))
                };
                *stat == znode.stat
                    && expected.len() == acl.len()
                    && expected.iter().zip(acl).all(is_same)
            }
            _ => false,
        }
    }
}

fn is_same_data(seen: &Data, expected: &Data) -> bool {
    seen == expected
}

fn is_same_set<'a>(expected: impl Iterator<Item = &'a Path>, seen: &[Path]) -> bool {
    let mut seen: Vec<&Path> = seen.iter().collect();
    seen.sort_unstable();
    expected.eq(seen)
}

/// The path that a read is about.
pub(crate) fn path_of(request: &Request) -> Option<&Path> {
    match request {
        Request::GetData { path, .. }
        | Request::Exists { path, .. }
        | Request::GetChildren { path, .. }
        | Request::GetAcl { path }
        | Request::CountDescendants { path } => Some(path),
        _ => None,
    }
}
