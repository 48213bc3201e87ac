//! Clients that do a bit of everything on any server, and record what they are told.
//!
//! Each is one thread with one session at a time. It sends a few requests together, waits for their
//! answers, and when its connection ends resumes its session on some other server, with its watches. It
//! judges nothing: the checker does, when all is over.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_checker::history::{
    CreateKind, Data, EventKind, Moment, Operation, Outcome, Path, Reply, Request, SessionRecord,
    SessionStep, WatchEvent,
};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{EventType, Zxid};
use quorate_tests::client::{Connection, Event, Message, Session, hello};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::board::Board;
use crate::wire;

/// Set and read by all; their watches are one-time.
pub(crate) const REGISTERS: [&str; 4] = ["/r/a", "/r/b", "/r/c", "/r/d"];
/// The same, with persistent watches and no others: a connection with both on one znode is told once.
pub(crate) const FOLLOWED: [&str; 2] = ["/p/a", "/p/b"];
/// Set together.
pub(crate) const PAIR: [&str; 2] = ["/m/x", "/m/y"];
/// Created and deleted; some watch all below.
pub(crate) const TREE: &str = "/t";
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Created and deleted, for multis to ask about; they stay among themselves, so that what ties two
/// subtrees together ties no more of them.
const FLAG: &str = "/m/flag";
const PAIR_LOG: &str = "/m/log";
/// For sequential znodes that nobody deletes.
pub(crate) const LOG: &str = "/log";
/// For ephemeral sequential ones.
pub(crate) const LINE: &str = "/line";
pub(crate) const EPHEMERALS: &str = "/e";
/// All that must be there before the clients come.
pub(crate) const FOLDERS: [&str; 8] = ["/r", "/p", "/m", PAIR_LOG, TREE, LOG, LINE, EPHEMERALS];

/// Below a server's limit for what a reply may hold, with all clients' entries in one list.
const APPENDS_MAX: u32 = 1_500;
/// How long a read of the socket waits before the client looks whether it is still worth waiting.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a client waits for a server that something happened to, before it tries another.
const SHORT_PATIENCE: Duration = Duration::from_millis(700);
/// For an answer of a server that nothing happens to.
const PATIENCE: Duration = Duration::from_secs(60);
/// To a handshake on such a server.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
const BATCH_MAX: usize = 8;
const NO_NODE: i32 = -101;

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// The server it goes to first.
    pub(crate) home: u64,
    pub(crate) timeout_ms: i32,
    /// Whether it sometimes goes to another server, closes its session, stands still, or leaves its
    /// session to expire.
    pub(crate) is_restless: bool,
    pub(crate) follows: Follows,
    /// Between two batches: a machine with two processors has to get to do all the rest, and where the
    /// order of what was done is searched for, there must not be too much of it.
    pub(crate) pause_ms_max: u64,
}

/// Which persistent watches a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    Nothing,
    Registers,
    Tree,
}

/// What a client has seen.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) operations: Vec<Operation>,
    pub(crate) events: Vec<WatchEvent>,
    pub(crate) sessions: Vec<SessionRecord>,
}

/// One client; see [`Client::run`].
pub(crate) struct Client<'a> {
    number: u32,
    board: &'a Board,
    habits: Habits,
    rng: StdRng,
    recording: Recording,
    session: Option<Session>,
    last_zxid: i64,
    values: u32,
    appends: u32,
    holds: u32,
    /// Ephemerals that this session was asked to hold.
    holds_something: bool,
    watches: Watches,
    /// Versions that were read last, to set on condition of them.
    versions: Vec<(Path, i32)>,
}

/// Those of a session that have not fired, as far as the client knows.
#[derive(Default)]
struct Watches {
    data: BTreeSet<Path>,
    exist: BTreeSet<Path>,
    child: BTreeSet<Path>,
    /// Whether its persistent ones were set.
    follows: bool,
}

/// Why a client is done with a connection.
enum End {
    /// It ended, or was given up.
    Lost,
    /// The client left it, to resume its session elsewhere.
    Left,
    /// The session is over, or left to expire.
    SessionOver,
    /// The run is.
    Released,
}

/// A connection, and what is counted on it.
struct Link {
    connection: Connection,
    server: u64,
    number: u32,
    sequence: u32,
    arrivals: u32,
    /// When the last thing came.
    heard: Moment,
}

impl<'a> Client<'a> {
    pub(crate) fn new(number: u32, seed: u64, board: &'a Board, habits: Habits) -> Self {
        let seed = seed ^ u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            number,
            board,
            habits,
            rng: StdRng::seed_from_u64(seed),
            recording: Recording::default(),
            session: None,
            last_zxid: 0,
            values: 0,
            appends: 0,
            holds: 0,
            holds_something: false,
            watches: Watches::default(),
            versions: Vec::new(),
        }
    }

    /// Works until the load is over, then keeps its session alive until it is released. Returns what
    /// it has seen.
    pub(crate) fn run(mut self) -> Recording {
        let mut server = self.habits.home;
        loop {
            if let Some(mut link) = self.attach(server) {
                match self.use_link(&mut link) {
                    End::Lost | End::Left => {}
                    End::SessionOver => self.forget_session(),
                    End::Released => return self.recording,
                }
            } else {
                if self.board.may_leave() {
                    return self.recording;
                }
                // Not at once: the servers need the processor to become one ensemble again.
                thread::sleep(Duration::from_millis(self.rng.random_range(5..50)));
            }
            server = self.other_server(server);
        }
    }

    fn other_server(&mut self, than: u64) -> u64 {
        let all = self.board.addresses.keys().copied();
        let others: Vec<u64> = all.filter(|server| *server != than).collect();
        others.choose(&mut self.rng).copied().unwrap_or(than)
    }

    fn forget_session(&mut self) {
        self.session = None;
        self.board.set_session(self.number, None);
        self.last_zxid = 0;
        self.holds_something = false;
        self.watches = Watches::default();
        self.versions.clear();
    }

    fn step(&mut self, connection: u32, server: u64, from: Moment, step: SessionStep) {
        self.recording.sessions.push(SessionRecord {
            client: self.number,
            connection,
            server,
            session: self.session.map_or(0, |session| session.id.get()),
            from,
            at: self.board.clock.now(),
            step,
        });
    }

    fn broken(&mut self, link: &Link, what: String) {
        let step = SessionStep::Broken { what };
        self.step(link.number, link.server, link.heard, step);
    }

    fn dial(&self, server: u64) -> Option<Connection> {
        let address = self.board.addresses[&server];
        let connection = Connection::dial_within(address, SHORT_PATIENCE).ok()?;
        connection.set_silence(GLANCE).ok()?;
        Some(connection)
    }

    /// Connects to a server, with the session if there is one.
    fn attach(&mut self, server: u64) -> Option<Link> {
        let connection = self.dial(server)?;
        let from = self.board.clock.now();
        let mut link = Link {
            connection,
            server,
            number: self.board.next_connection(),
            sequence: 0,
            arrivals: 0,
            heard: from,
        };
        let mut request = hello(self.habits.timeout_ms);
        if let Some(session) = self.session {
            request = resume(session, &request, self.last_zxid);
        }
        let Some(welcome) = self.shake_hands(&mut link, &request) else {
            let resuming = self.session.is_some();
            let step = SessionStep::Unanswered { resuming };
            self.step(link.number, server, from, step);
            return None;
        };
        if welcome.session_id.is_none() || welcome.timeout_ms <= 0 {
            if self.session.is_some() {
                let wrong_password = false;
                let step = SessionStep::Refused { wrong_password };
                self.step(link.number, server, from, step);
            } else {
                self.broken(&link, format!("no new session: {welcome:?}"));
            }
            self.forget_session();
            return None;
        }
        let session = link.connection.session();
        let timeout_ms = u32::try_from(session.timeout_ms).unwrap_or_default();
        let step = match self.session.replace(session) {
            None => SessionStep::Opened { timeout_ms },
            Some(old) => {
                if old.id != session.id {
                    self.broken(&link, format!("{old:?} was asked for, {session:?} came"));
                }
                SessionStep::Resumed {
                    timeout_ms,
                    seen: self.last_zxid,
                }
            }
        };
        self.step(link.number, server, from, step);
        let id = session.id.get();
        self.board.set_session(self.number, Some(id));
        link.heard = self.board.clock.now();
        Some(link)
    }

    /// `None` if there is no answer.
    fn shake_hands(
        &mut self,
        link: &mut Link,
        request: &ConnectRequest,
    ) -> Option<ConnectResponse> {
        let begun = Instant::now();
        let mut answer = link.connection.handshake(request);
        loop {
            match answer {
                Ok(answer) => return answer,
                Err(error) if is_silence(&error) => {}
                Err(error) if is_nonsense(&error) => {
                    self.broken(link, format!("handshake: {error}"));
                    return None;
                }
                Err(_) => return None,
            }
            let patience = match self.board.is_disturbed(link.server) {
                true => SHORT_PATIENCE,
                false => HANDSHAKE_PATIENCE,
            };
            if begun.elapsed() > patience || self.board.may_leave() {
                return None;
            }
            answer = link.connection.read_welcome();
        }
    }

    fn use_link(&mut self, link: &mut Link) -> End {
        let mut batch = self.first_batch();
        loop {
            let closes = batch.contains(&Request::CloseSession);
            if !self.exchange(link, batch) {
                return self.lost(link);
            }
            if closes {
                return End::SessionOver;
            }
            if self.board.may_leave() {
                return End::Released;
            }
            if self.board.is_over() {
                thread::sleep(GLANCE);
                batch = vec![Request::Ping];
                continue;
            }
            if self.habits.is_restless && self.rng.random_ratio(1, 40) {
                match self.rng.random_range(0..7) {
                    0 => {
                        self.step(link.number, link.server, link.heard, SessionStep::Abandoned);
                        return End::SessionOver;
                    }
                    1 => {
                        batch = self.next_batch();
                        batch.push(Request::CloseSession);
                        continue;
                    }
                    2 => self.try_wrong_password(),
                    // A client that stands still, for less or more than its session's timeout.
                    3 => thread::sleep(Duration::from_millis(self.rng.random_range(200..4_000))),
                    _ => {
                        self.step(link.number, link.server, link.heard, SessionStep::Dropped);
                        return End::Left;
                    }
                }
            }
            thread::sleep(Duration::from_millis(
                self.rng.random_range(0..self.habits.pause_ms_max),
            ));
            batch = self.next_batch();
        }
    }

    fn lost(&mut self, link: &Link) -> End {
        // All has been read by then, and this client waits for nothing any more.
        if self.board.may_leave() {
            return End::Released;
        }
        self.step(link.number, link.server, link.heard, SessionStep::Lost);
        End::Lost
    }

    /// Nobody may resume this session without its password.
    fn try_wrong_password(&mut self) {
        let Some(session) = self.session else {
            return;
        };
        let servers: Vec<u64> = self.board.addresses.keys().copied().collect();
        let server = servers[self.rng.random_range(0..servers.len())];
        let Some(connection) = self.dial(server) else {
            return;
        };
        let from = self.board.clock.now();
        let mut link = Link {
            connection,
            server,
            number: self.board.next_connection(),
            sequence: 0,
            arrivals: 0,
            heard: from,
        };
        let mut request = resume(session, &hello(self.habits.timeout_ms), self.last_zxid);
        let mut wrong = *session.password.as_bytes();
        wrong[self.rng.random_range(0..wrong.len())] ^= 1;
        request.password = Some(Bytes::copy_from_slice(&wrong));
        if let Some(welcome) = self.shake_hands(&mut link, &request) {
            if welcome.session_id.is_some() && welcome.timeout_ms > 0 {
                self.broken(&link, "a wrong password is taken".to_owned());
                return;
            }
            let step = SessionStep::Refused {
                wrong_password: true,
            };
            self.step(link.number, server, from, step);
        }
    }

    /// What a session that is new, or on another server, begins with.
    fn first_batch(&mut self) -> Vec<Request> {
        let mut batch = Vec::new();
        let watches = &self.watches;
        let follows = self.habits.follows;
        let once = [&watches.data, &watches.exist, &watches.child];
        if watches.follows || once.iter().any(|paths| !paths.is_empty()) {
            let (registers, tree) = match follows {
                _ if !watches.follows => (Vec::new(), Vec::new()),
                Follows::Nothing => (Vec::new(), Vec::new()),
                Follows::Registers => (FOLLOWED.map(Path::from).to_vec(), Vec::new()),
                Follows::Tree => (Vec::new(), vec![Path::from(TREE)]),
            };
            batch.push(Request::SetWatches {
                since: self.last_zxid,
                data: watches.data.iter().cloned().collect(),
                exist: watches.exist.iter().cloned().collect(),
                child: watches.child.iter().cloned().collect(),
                persistent: registers,
                recursive: tree,
            });
        }
        if !self.watches.follows {
            let (paths, recursive): (&[&str], bool) = match follows {
                Follows::Nothing => (&[], false),
                Follows::Registers => (&FOLLOWED, false),
                Follows::Tree => (&[TREE], true),
            };
            batch.extend(paths.iter().map(|path| Request::AddWatch {
                path: (*path).into(),
                recursive,
            }));
        }
        batch.push(Request::Ping);
        if !self.holds_something {
            batch.push(self.next_hold());
        }
        batch.extend(REGISTERS.map(|path| Request::GetData {
            path: path.into(),
            watch: false,
        }));
        batch
    }

    fn next_hold(&mut self) -> Request {
        self.holds += 1;
        self.holds_something = true;
        Request::Create {
            path: format!("{EPHEMERALS}/c{}-{}", self.number, self.holds).into(),
            data: Data::from(""),
            kind: CreateKind::Ephemeral,
            acl: None,
            with_stat: true,
        }
    }

    fn next_batch(&mut self) -> Vec<Request> {
        let count = self.rng.random_range(1..=BATCH_MAX);
        let mut batch = Vec::new();
        while batch.len() < count {
            self.push_request(&mut batch);
        }
        batch
    }

    fn push_request(&mut self, batch: &mut Vec<Request>) {
        match self.rng.random_range(0..100) {
            0..20 => {
                let path = self.register();
                batch.push(self.set(path, -1));
            }
            20..26 => {
                if let Some((path, version)) = self.versions.choose(&mut self.rng).cloned() {
                    batch.push(self.set(path, version));
                }
            }
            26..40 if self.appends < APPENDS_MAX => {
                self.appends += 1;
                batch.push(self.append(LOG, CreateKind::PersistentSequential));
            }
            40..42 if self.appends < APPENDS_MAX => {
                self.appends += 1;
                batch.push(self.append(LINE, CreateKind::EphemeralSequential));
            }
            42..50 => batch.push(self.multi()),
            50..58 => {
                batch.push(Request::Sync { path: "/".into() });
                let path = self.register();
                batch.push(Request::GetData { path, watch: false });
            }
            58..68 => batch.push(self.change_tree()),
            68..72 => batch.push(self.watch_tree()),
            72..78 => {
                let held = self.board.held();
                // Mostly one of the last ones: the others are long gone.
                let recent = held.len().saturating_sub(12);
                if let Some(path) = held.get(self.rng.random_range(recent..=held.len())) {
                    batch.push(Request::Exists {
                        path: Path::clone(path),
                        watch: self.rng.random(),
                    });
                }
            }
            78..80 => batch.push(Request::Ping),
            80..81 => batch.push(self.next_hold()),
            _ => {
                let path = self.register();
                // One-time watches only where there are no others.
                let watch = REGISTERS.contains(&path.as_ref()) && self.rng.random_ratio(1, 3);
                batch.push(Request::GetData { path, watch });
            }
        }
    }

    fn set(&mut self, path: Path, version: i32) -> Request {
        Request::SetData {
            path,
            data: self.value(),
            version,
        }
    }

    fn append(&mut self, folder: &str, kind: CreateKind) -> Request {
        Request::Create {
            path: format!("{folder}/n-").into(),
            data: self.value(),
            kind,
            acl: None,
            with_stat: self.rng.random(),
        }
    }

    /// Sets both of the pair, if a znode of the tree is there, or whatever there is.
    fn multi(&mut self) -> Request {
        let [x, y] = PAIR.map(Path::from);
        let mut parts = Vec::new();
        if self.rng.random_ratio(1, 4) {
            parts.push(Request::Check {
                path: FLAG.into(),
                version: -1,
            });
        }
        let data = self.value();
        for path in [x, y] {
            let data = data.clone();
            parts.push(Request::SetData {
                path,
                data,
                version: -1,
            });
        }
        if self.rng.random_ratio(1, 4) && self.appends < APPENDS_MAX {
            self.appends += 1;
            parts.push(self.append(PAIR_LOG, CreateKind::PersistentSequential));
        }
        match self.rng.random_range(0..8) {
            0 => parts.push(Request::Delete {
                path: FLAG.into(),
                version: -1,
            }),
            1 => parts.push(Request::Create {
                path: FLAG.into(),
                data: Data::from(""),
                kind: CreateKind::Persistent,
                acl: None,
                with_stat: false,
            }),
            _ => {}
        }
        Request::Multi(parts)
    }

    fn change_tree(&mut self) -> Request {
        let name = NAMES[self.rng.random_range(0..NAMES.len())];
        let path = match self.rng.random_ratio(1, 3) {
            true => format!("{TREE}/{name}/below"),
            false => format!("{TREE}/{name}"),
        };
        let path = Path::from(path);
        match self.rng.random_range(0..4) {
            0 => Request::Delete { path, version: -1 },
            1 => self.set(path, -1),
            _ => Request::Create {
                path,
                data: self.value(),
                kind: CreateKind::Persistent,
                acl: None,
                with_stat: self.rng.random(),
            },
        }
    }

    fn watch_tree(&mut self) -> Request {
        let name = NAMES[self.rng.random_range(0..NAMES.len())];
        let watch = self.habits.follows != Follows::Tree;
        match self.rng.random_range(0..3) {
            0 => Request::GetChildren {
                path: TREE.into(),
                watch,
            },
            1 => Request::GetChildren {
                path: format!("{TREE}/{name}").into(),
                watch,
            },
            _ => Request::Exists {
                path: format!("{TREE}/{name}").into(),
                watch,
            },
        }
    }

    fn register(&mut self) -> Path {
        let all = REGISTERS.iter().chain(&FOLLOWED).chain(&PAIR);
        let all: Vec<&str> = all.copied().collect();
        Path::from(all[self.rng.random_range(0..all.len())])
    }

    fn value(&mut self) -> Data {
        self.values += 1;
        Data::from(format!("c{}#{}", self.number, self.values))
    }

    /// Sends all of it and waits for all answers. False if the connection ended.
    fn exchange(&mut self, link: &mut Link, batch: Vec<Request>) -> bool {
        let Some(session) = self.session else {
            return false;
        };
        let requests: Vec<_> = batch.iter().filter_map(wire::request).collect();
        assert_eq!(requests.len(), batch.len(), "every request can be sent");
        let invoked = self.board.clock.now();
        let first = self.recording.operations.len();
        for request in batch {
            link.sequence += 1;
            self.recording.operations.push(Operation {
                client: self.number,
                connection: link.number,
                server: link.server,
                session: session.id.get(),
                sequence: link.sequence,
                invoked,
                returned: None,
                arrival: 0,
                request,
                outcome: Outcome::Unknown,
            });
        }
        // What cannot be sent any more may still have got there in part.
        let _ = link.connection.send_all(&requests);
        for index in first..self.recording.operations.len() {
            if !self.take_reply(link, index) {
                return false;
            }
        }
        true
    }

    /// Waits for the next reply, and takes down events. False if the connection is over, or is given up.
    fn take_reply(&mut self, link: &mut Link, index: usize) -> bool {
        let sent = self.recording.operations[index].invoked;
        loop {
            match link.connection.receive() {
                Ok(Message::Reply(reply)) => {
                    let at = self.board.clock.now();
                    link.heard = at;
                    link.arrivals += 1;
                    self.last_zxid = self.last_zxid.max(link.connection.last_zxid);
                    let operation = &mut self.recording.operations[index];
                    operation.returned = Some(at);
                    operation.arrival = link.arrivals;
                    let zxid = reply.zxid;
                    operation.outcome = match reply.result {
                        Err(code) => Outcome::Refused { zxid, code },
                        Ok(response) => match wire::reply(&operation.request, response) {
                            Some(reply) => Outcome::Done { zxid, reply },
                            None => {
                                let what = format!("not an answer: {operation:?}");
                                self.broken(link, what);
                                return false;
                            }
                        },
                    };
                    self.learn(index);
                    return true;
                }
                Ok(Message::Event(event)) => self.take_event(link, &event),
                Ok(Message::Closed) => return false,
                Err(error) if is_silence(&error) => {
                    if self.board.may_leave() {
                        return false;
                    }
                    let now = self.board.clock.now();
                    let disturbed = self.board.is_disturbed(link.server);
                    if disturbed && now > sent + nanoseconds(SHORT_PATIENCE) {
                        return false;
                    }
                    if now > sent.max(self.board.last_change()) + nanoseconds(PATIENCE) {
                        let asked = self.recording.operations[index].request.clone();
                        self.broken(link, format!("no answer to {asked:?}"));
                        return false;
                    }
                }
                Err(error) => {
                    if is_nonsense(&error) {
                        self.broken(link, error.to_string());
                    }
                    return false;
                }
            }
        }
    }

    fn take_event(&mut self, link: &mut Link, event: &Event) {
        link.arrivals += 1;
        let at = self.board.clock.now();
        link.heard = at;
        let path = Path::from(event.path.as_str());
        let kind = match event.kind {
            EventType::NodeCreated => EventKind::Created,
            EventType::NodeDeleted => EventKind::Deleted,
            EventType::NodeDataChanged => EventKind::DataChanged,
            EventType::NodeChildrenChanged => EventKind::ChildrenChanged,
        };
        match kind {
            EventKind::ChildrenChanged => {
                self.watches.child.remove(&path);
            }
            EventKind::Deleted => {
                self.watches.data.remove(&path);
                self.watches.exist.remove(&path);
                self.watches.child.remove(&path);
            }
            EventKind::Created | EventKind::DataChanged => {
                self.watches.data.remove(&path);
                self.watches.exist.remove(&path);
            }
        }
        self.recording.events.push(WatchEvent {
            client: self.number,
            connection: link.number,
            server: link.server,
            session: self.session.map_or(0, |session| session.id.get()),
            arrival: link.arrivals,
            at,
            kind,
            path,
            zxid: (event.zxid != -1).then_some(event.zxid),
        });
    }

    /// What the client itself makes of an answer: watches that are set, versions it knows.
    fn learn(&mut self, index: usize) {
        let operation = &self.recording.operations[index];
        let is_done = operation.outcome.is_done();
        let mut has_written = is_done && operation.request.is_write();
        match (&operation.request, &operation.outcome) {
            (
                Request::GetData { path, watch },
                Outcome::Done {
                    reply: Reply::Data { stat, .. },
                    ..
                },
            ) => {
                if *watch {
                    self.watches.data.insert(path.clone());
                }
                self.versions.retain(|(known, _)| known != path);
                self.versions.push((path.clone(), stat.version));
            }
            (Request::Exists { path, watch: true }, Outcome::Done { .. }) => {
                self.watches.data.insert(path.clone());
            }
            (Request::Exists { path, watch: true }, Outcome::Refused { code: NO_NODE, .. }) => {
                self.watches.exist.insert(path.clone());
            }
            (Request::GetChildren { path, watch: true }, Outcome::Done { .. }) => {
                self.watches.child.insert(path.clone());
            }
            (Request::AddWatch { .. }, Outcome::Done { .. }) => self.watches.follows = true,
            (
                Request::Create {
                    kind: CreateKind::Ephemeral,
                    path,
                    ..
                },
                Outcome::Done { .. },
            ) => self.board.held().push(path.clone()),
            (
                Request::Multi(_),
                Outcome::Done {
                    reply: Reply::Results(results),
                    ..
                },
            ) => {
                use quorate_checker::history::PartResult;
                has_written = results
                    .iter()
                    .all(|part| matches!(part, PartResult::Done(_)));
            }
            _ => {}
        }
        if has_written {
            self.board.on_write();
        }
    }
}

fn resume(session: Session, request: &ConnectRequest, last_zxid: i64) -> ConnectRequest {
    ConnectRequest {
        session_id: Some(session.id),
        password: Some(Bytes::copy_from_slice(session.password.as_bytes())),
        last_zxid_seen: Zxid(last_zxid),
        ..*request
    }
}

fn nanoseconds(duration: Duration) -> Moment {
    Moment::try_from(duration.as_nanos()).unwrap_or(Moment::MAX)
}

/// Nothing came within one glance.
fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn is_nonsense(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}
