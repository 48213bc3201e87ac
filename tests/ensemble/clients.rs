//! Clients that write, read and hold ephemerals on any server, and record what they are told.
//!
//! Each is one thread with one session at a time. It sends a few requests together, waits for their
//! answers, and when its connection ends resumes its session on some other server. It judges nothing:
//! the checker does, when all is over.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::request::SetWatches;
use quorate_protocol::{EventType, Request, Zxid};
use quorate_tests::checker::LOG;
use quorate_tests::client::{
    Connection, EPHEMERAL, Message, Reply, SEQUENTIAL, Session, add_watch, create, exists,
    get_data, hello, set_data, sync,
};
use quorate_tests::ensemble::PATIENCE;
use quorate_tests::history::{Answer, Ask, Asked, Disturbance, Entry, Found, Moment, Watch};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// All clients write to all of them. The last one has one-time watches, the others persistent ones: a
/// connection with both on one znode is told once.
pub(crate) const REGISTERS: [&str; 3] = ["/registers/a", "/registers/b", "/registers/c"];
const WATCHED_ONCE: usize = 2;
pub(crate) const EPHEMERALS: &str = "/ephemerals";
/// Below a server's limit for what a reply may hold, with all clients' entries in one list.
const APPENDS_MAX: u32 = 1_500;
/// How long a read of the socket waits before the client looks whether it is still worth waiting.
const GLANCE: Duration = Duration::from_millis(100);
/// How long a client waits for a server that something happened to, before it tries another.
const SHORT_PATIENCE: Duration = Duration::from_millis(700);
/// To a handshake on a server that nothing is known to have happened to.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
const BATCH_MAX: usize = 12;
const NO_NODE: i32 = -101;

/// What the clients and the one who makes the faults tell each other.
pub(crate) struct Board {
    pub(crate) addresses: Vec<(u64, SocketAddr)>,
    begun: Instant,
    is_over: AtomicBool,
    may_leave: AtomicBool,
    acknowledged: AtomicU64,
    target: AtomicU64,
    reached: Sender<()>,
    disturbances: Mutex<Vec<Disturbance>>,
    /// Paths of ephemerals that were created once.
    held: Mutex<Vec<String>>,
    /// The session that each client has now.
    sessions: Mutex<BTreeMap<u64, i64>>,
}

impl Board {
    pub(crate) fn new(addresses: Vec<(u64, SocketAddr)>) -> (Self, Receiver<()>) {
        let (reached, receiver) = channel();
        let board = Self {
            addresses,
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            may_leave: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            target: AtomicU64::new(u64::MAX),
            reached,
            disturbances: Mutex::default(),
            held: Mutex::default(),
            sessions: Mutex::default(),
        };
        (board, receiver)
    }

    fn now(&self) -> Moment {
        self.begun.elapsed()
    }

    /// Something is about to happen to these servers.
    pub(crate) fn disturb(&self, servers: &[u64]) {
        let from = self.now();
        let mut disturbances = lock(&self.disturbances);
        disturbances.extend(servers.iter().map(|server| Disturbance {
            server: *server,
            from,
            to: None,
        }));
    }

    /// Nothing is in the way of any server any more.
    pub(crate) fn settle(&self) {
        let now = self.now();
        for disturbance in lock(&self.disturbances).iter_mut() {
            disturbance.to.get_or_insert(now);
        }
    }

    fn is_disturbed(&self, server: u64) -> bool {
        let disturbances = lock(&self.disturbances);
        let mut open = disturbances.iter().filter(|d| d.to.is_none());
        open.any(|d| d.server == server)
    }

    /// When something last happened to any server, or ended.
    fn last_change(&self) -> Moment {
        let disturbances = lock(&self.disturbances);
        let changes = disturbances.iter().map(|d| d.to.unwrap_or(d.from));
        changes.max().unwrap_or_default()
    }

    pub(crate) fn disturbances(&self) -> Vec<Disturbance> {
        lock(&self.disturbances).clone()
    }

    /// The sessions that clients have now.
    pub(crate) fn sessions(&self) -> BTreeSet<i64> {
        lock(&self.sessions).values().copied().collect()
    }

    /// Tells the receiver once so many more writes are acknowledged.
    pub(crate) fn set_target(&self, more: u64) {
        let target = self.acknowledged.load(Ordering::SeqCst) + more;
        self.target.store(target, Ordering::SeqCst);
    }

    fn on_write(&self) {
        let count = self.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        if count == self.target.load(Ordering::SeqCst) {
            // The one who waits may have given up.
            let _ = self.reached.send(());
        }
    }

    /// From now on clients only keep their sessions alive.
    pub(crate) fn end_load(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// From now on clients may go, and take their ephemerals with them.
    pub(crate) fn release(&self) {
        self.may_leave.store(true, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// The server it goes to first.
    pub(crate) home: u64,
    pub(crate) timeout_ms: i32,
    /// Whether it sometimes goes to another server, closes its session, or leaves it to expire.
    pub(crate) is_restless: bool,
}

/// One client; see [`Client::run`].
pub(crate) struct Client<'a> {
    number: u64,
    board: &'a Board,
    habits: Habits,
    rng: StdRng,
    entries: Vec<Entry>,
    session: Option<Session>,
    last_zxid: i64,
    connections: u32,
    values: u32,
    appends: u32,
    holds: u32,
    /// Ephemerals that this session was asked to hold.
    holds_something: bool,
    /// Of the session, on [`WATCHED_ONCE`].
    watch: Watch,
}

/// Why a client is done with a connection.
enum End {
    /// It ended, or was given up.
    Lost,
    /// The client left it, to resume its session elsewhere.
    Left,
    /// The session is over, or left to expire.
    SessionOver,
    /// The test is.
    Released,
}

/// A connection, and what the client counts on it.
struct Link {
    connection: Connection,
    server: u64,
    number: u32,
    /// When the last answer came.
    heard: Moment,
    is_watching: bool,
    events: [i32; REGISTERS.len()],
}

impl<'a> Client<'a> {
    pub(crate) fn new(number: u64, seed: u64, board: &'a Board, habits: Habits) -> Self {
        Self {
            number,
            board,
            habits,
            rng: StdRng::seed_from_u64(seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            entries: Vec::new(),
            session: None,
            last_zxid: 0,
            connections: 0,
            values: 0,
            appends: 0,
            holds: 0,
            holds_something: false,
            watch: Watch::Never,
        }
    }

    /// Works until the load is over, then keeps its session alive until it is released. Returns what
    /// it has seen.
    pub(crate) fn run(mut self) -> Vec<Entry> {
        let mut server = self.habits.home;
        loop {
            if let Some(mut link) = self.attach(server) {
                match self.use_link(&mut link) {
                    End::Lost | End::Left => {}
                    End::SessionOver => self.forget_session(),
                    End::Released => return self.entries,
                }
            } else {
                if self.board.may_leave.load(Ordering::SeqCst) {
                    return self.entries;
                }
                // Not at once: the other servers need the processor to become one ensemble again.
                thread::sleep(Duration::from_millis(self.rng.random_range(5..50)));
            }
            server = self.other_server(server);
        }
    }

    fn other_server(&mut self, than: u64) -> u64 {
        let others = self.board.addresses.iter().map(|(server, _)| *server);
        let others: Vec<u64> = others.filter(|server| *server != than).collect();
        match others.len() {
            0 => than,
            count => others[self.rng.random_range(0..count)],
        }
    }

    fn forget_session(&mut self) {
        self.session = None;
        lock(&self.board.sessions).remove(&self.number);
        self.last_zxid = 0;
        self.holds_something = false;
        self.watch = Watch::Never;
    }

    fn broken(&mut self, server: u64, what: String) {
        self.entries.push(Entry::Broken { server, what });
    }

    /// Connects to a server, with the session if there is one.
    fn attach(&mut self, server: u64) -> Option<Link> {
        let (_, address) = *self
            .board
            .addresses
            .iter()
            .find(|(id, _)| *id == server)
            .unwrap();
        let mut connection = Connection::dial_within(address, SHORT_PATIENCE).ok()?;
        connection.set_silence(GLANCE).unwrap();
        let mut request = hello(self.habits.timeout_ms);
        if let Some(session) = self.session {
            request = ConnectRequest {
                session_id: Some(session.id),
                password: Some(Bytes::copy_from_slice(session.password.as_bytes())),
                last_zxid_seen: Zxid(self.last_zxid),
                ..request
            };
        }
        let welcome = self.shake_hands(&mut connection, server, &request);
        let Some(welcome) = welcome else {
            if let Some(session) = self.session {
                let session = session.id.get();
                self.entries.push(Entry::Attempted { session });
            }
            return None;
        };
        if welcome.session_id.is_none() || welcome.timeout_ms <= 0 {
            match self.session {
                Some(session) => self.entries.push(Entry::Expired {
                    session: session.id.get(),
                    at: self.board.now(),
                }),
                None => self.broken(server, format!("no new session: {welcome:?}")),
            }
            self.forget_session();
            return None;
        }
        let session = connection.session();
        if let Some(old) = self.session.filter(|old| old.id != session.id) {
            self.broken(server, format!("{old:?} was asked for, {session:?} came"));
        }
        self.session = Some(session);
        lock(&self.board.sessions).insert(self.number, session.id.get());
        self.connections += 1;
        self.entries.push(Entry::Attached {
            session: session.id.get(),
            server,
            timeout: Duration::from_millis(u64::try_from(session.timeout_ms).unwrap_or(0)),
        });
        Some(Link {
            connection,
            server,
            number: self.connections,
            heard: self.board.now(),
            is_watching: false,
            events: [0; REGISTERS.len()],
        })
    }

    /// `None` if there is no answer.
    fn shake_hands(
        &mut self,
        connection: &mut Connection,
        server: u64,
        request: &ConnectRequest,
    ) -> Option<ConnectResponse> {
        let begun = Instant::now();
        let mut answer = connection.handshake(request);
        loop {
            match answer {
                Ok(answer) => return answer,
                Err(error) if is_silence(&error) => {}
                Err(error) if is_nonsense(&error) => {
                    self.broken(server, format!("handshake: {error}"));
                    return None;
                }
                Err(_) => return None,
            }
            let patience = match self.board.is_disturbed(server) {
                true => SHORT_PATIENCE,
                false => HANDSHAKE_PATIENCE,
            };
            if begun.elapsed() > patience {
                return None;
            }
            answer = connection.read_welcome();
        }
    }

    fn use_link(&mut self, link: &mut Link) -> End {
        if !self.register_watches(link) {
            return self.lost(link);
        }
        // With the session that the connection just got, or with one that has its ephemeral.
        let mut batch = vec![Ask::Ping];
        if !self.holds_something {
            batch.push(self.next_hold());
        }
        batch.extend(REGISTERS.map(|register| Ask::Read {
            register: register.to_owned(),
        }));
        loop {
            let closes = batch.contains(&Ask::Close);
            if !self.exchange(link, &batch) {
                return self.lost(link);
            }
            if closes {
                return End::SessionOver;
            }
            if self.board.may_leave.load(Ordering::SeqCst) {
                return End::Released;
            }
            if self.board.is_over.load(Ordering::SeqCst) {
                thread::sleep(GLANCE);
                batch = vec![Ask::Ping];
                continue;
            }
            if self.habits.is_restless && self.rng.random_ratio(1, 60) {
                match self.rng.random_range(0..5) {
                    0 => {
                        let session = self.session.unwrap().id.get();
                        self.entries.push(Entry::Abandoned { session });
                        return End::SessionOver;
                    }
                    1 => {
                        batch = self.next_batch();
                        batch.push(Ask::Close);
                        continue;
                    }
                    _ => return End::Left,
                }
            }
            // The point of the pause is that a machine with two processors gets to do all the rest.
            thread::sleep(Duration::from_millis(self.rng.random_range(0..8)));
            batch = self.next_batch();
        }
    }

    fn lost(&mut self, link: &Link) -> End {
        // All has been read by then, and this client waits for nothing any more.
        if self.board.may_leave.load(Ordering::SeqCst) {
            return End::Released;
        }
        if let Some(session) = self.session {
            self.entries.push(Entry::Lost {
                session: session.id.get(),
                server: link.server,
                since: link.heard,
                at: self.board.now(),
            });
        }
        End::Lost
    }

    fn next_hold(&mut self) -> Ask {
        self.holds += 1;
        self.holds_something = true;
        Ask::Hold {
            path: format!("{EPHEMERALS}/c{}-{}", self.number, self.holds),
        }
    }

    fn next_batch(&mut self) -> Vec<Ask> {
        let count = self.rng.random_range(1..=BATCH_MAX);
        let mut batch = Vec::new();
        while batch.len() < count {
            match self.rng.random_range(0..100) {
                0..30 => batch.push(Ask::Set {
                    register: self.register(),
                    value: self.value(),
                }),
                30..60 if self.appends < APPENDS_MAX => {
                    self.appends += 1;
                    batch.push(Ask::Append {
                        value: self.value(),
                    });
                }
                60..70 => {
                    batch.push(Ask::Sync);
                    batch.push(Ask::Read {
                        register: self.register(),
                    });
                }
                70..80 => {
                    let held = lock(&self.board.held);
                    // Mostly one of the last ones: the others are long gone.
                    let recent = held.len().saturating_sub(12);
                    if let Some(path) = held.get(self.rng.random_range(recent..=held.len())) {
                        batch.push(Ask::Look { path: path.clone() });
                    }
                }
                80..82 => batch.push(Ask::Ping),
                82..83 => batch.push(self.next_hold()),
                _ => batch.push(Ask::Read {
                    register: self.register(),
                }),
            }
        }
        batch
    }

    fn register(&mut self) -> String {
        REGISTERS[self.rng.random_range(0..REGISTERS.len())].to_owned()
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("c{}#{}", self.number, self.values)
    }

    fn register_watches(&mut self, link: &mut Link) -> bool {
        let session = self.session.unwrap().id.get();
        let mut requests: Vec<Request> = REGISTERS[..WATCHED_ONCE]
            .iter()
            .map(|path| add_watch(path, false))
            .collect();
        if let Watch::SetAt(_) = self.watch {
            // What clients do after a reconnect: the server tells of what changed meanwhile.
            requests.push(Request::SetWatches(SetWatches {
                relative_zxid: Zxid(self.last_zxid),
                data: vec![REGISTERS[WATCHED_ONCE].to_owned()],
                exist: Vec::new(),
                child: Vec::new(),
            }));
        }
        if link.connection.send_all(&requests).is_err() {
            return false;
        }
        for _ in &requests {
            match self.next_reply(link, session, self.board.now()) {
                Some(reply) if reply.code() == 0 => {}
                Some(reply) => self.broken(link.server, format!("watches: {reply:?}")),
                None => return false,
            }
        }
        link.is_watching = true;
        // Those that came before all were registered are not counted in full.
        link.events = [0; REGISTERS.len()];
        true
    }

    /// Sends all of it and waits for all answers. False if the connection ended.
    fn exchange(&mut self, link: &mut Link, batch: &[Ask]) -> bool {
        let session = self.session.unwrap().id.get();
        let requests: Vec<Request> = batch.iter().map(request).collect();
        let sent = self.board.now();
        let first = self.entries.len();
        self.entries.extend(batch.iter().map(|ask| {
            Entry::Asked(Asked {
                session,
                server: link.server,
                connection: link.number,
                sent,
                request: ask.clone(),
                answer: Answer::Unknown,
            })
        }));
        // What cannot be sent any more may still have got there in part.
        let _ = link.connection.send_all(&requests);
        for (number, ask) in batch.iter().enumerate() {
            let Some(reply) = self.next_reply(link, session, sent) else {
                return false;
            };
            let at = self.board.now();
            link.heard = at;
            let answer = self.judge(link, ask, &reply, at);
            if let Entry::Asked(asked) = &mut self.entries[first + number] {
                asked.answer = answer;
            }
        }
        true
    }

    /// Waits for the next reply, and counts events. `None` if the connection is over, or is given up.
    fn next_reply(&mut self, link: &mut Link, session: i64, sent: Moment) -> Option<Reply> {
        loop {
            match link.connection.receive() {
                Ok(Message::Reply(reply)) => {
                    self.last_zxid = self.last_zxid.max(link.connection.last_zxid);
                    return Some(reply);
                }
                Ok(Message::Event(event)) => {
                    let register = REGISTERS.iter().position(|path| *path == event.path);
                    match (event.kind, register, self.watch) {
                        (EventType::NodeDataChanged, Some(WATCHED_ONCE), Watch::SetAt(at)) => {
                            self.watch = Watch::FiredAfter(at);
                        }
                        (EventType::NodeDataChanged, Some(register), _)
                            if register != WATCHED_ONCE =>
                        {
                            link.events[register] += 1;
                        }
                        _ => self.broken(link.server, format!("nobody watches for {event:?}")),
                    }
                }
                Ok(Message::Closed) => return None,
                Err(error) if is_silence(&error) => {
                    if self.board.may_leave.load(Ordering::SeqCst) {
                        return None;
                    }
                    let now = self.board.now();
                    let disturbed = self.board.is_disturbed(link.server);
                    if disturbed && now > sent + SHORT_PATIENCE {
                        return None;
                    }
                    if now > sent.max(self.board.last_change()) + PATIENCE {
                        self.broken(
                            link.server,
                            format!("session {session:#x}: no answer to what was sent at {sent:?}"),
                        );
                        return None;
                    }
                }
                Err(error) => {
                    if is_nonsense(&error) {
                        self.broken(link.server, format!("session {session:#x}: {error}"));
                    }
                    return None;
                }
            }
        }
    }

    /// What an answer says, as the history has it.
    fn judge(&mut self, link: &Link, ask: &Ask, reply: &Reply, at: Moment) -> Answer {
        let zxid = reply.zxid;
        let code = reply.code();
        if let Ask::Look { .. } = ask
            && code == NO_NODE
        {
            let found = Found::Absent;
            return Answer::Done { at, zxid, found };
        }
        if code != 0 {
            return Answer::Refused { at, zxid, code };
        }
        if ask.is_write() {
            self.board.on_write();
        }
        let events = |register: &str| {
            let position = REGISTERS.iter().position(|path| *path == register);
            position
                .filter(|position| link.is_watching && *position != WATCHED_ONCE)
                .map(|position| link.events[position])
        };
        let once = REGISTERS[WATCHED_ONCE];
        let known = self.watch;
        let watch = |register: &str| match register == once {
            true => known,
            false => Watch::Never,
        };
        let stat = reply.stat().unwrap_or_default();
        if let Ask::Read { register } = ask
            && register == once
        {
            // Every read of it sets the watch, if it is not set.
            self.watch = Watch::SetAt(stat.version);
        }
        let found = match ask {
            Ask::Set { register, value } => Found::Value {
                value: value.clone(),
                version: stat.version,
                mzxid: stat.mzxid.0,
                events: events(register),
                watch: watch(register),
            },
            Ask::Read { register } => Found::Value {
                value: String::from_utf8_lossy(reply.data().unwrap_or_default()).into_owned(),
                version: stat.version,
                mzxid: stat.mzxid.0,
                events: events(register),
                watch: watch(register),
            },
            Ask::Look { .. } => Found::Present {
                owner: stat.ephemeral_owner,
            },
            Ask::Append { .. } => Found::Path(reply.path().unwrap_or_default().to_owned()),
            Ask::Hold { path } => {
                lock(&self.board.held).push(path.clone());
                Found::Path(path.clone())
            }
            Ask::Sync | Ask::Ping | Ask::Close => Found::Nothing,
        };
        Answer::Done { at, zxid, found }
    }
}

fn request(ask: &Ask) -> Request {
    match ask {
        Ask::Set { register, value } => set_data(register, value.as_bytes(), -1),
        Ask::Append { value } => create(&format!("{LOG}/n-"), value.as_bytes(), SEQUENTIAL),
        Ask::Hold { path } => create(path, b"", EPHEMERAL),
        Ask::Read { register } => get_data(register, register == REGISTERS[WATCHED_ONCE]),
        Ask::Look { path } => exists(path, false),
        Ask::Sync => sync("/"),
        Ask::Ping => Request::Ping,
        Ask::Close => Request::CloseSession,
    }
}

/// Nothing came within one glance.
pub(crate) fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn is_nonsense(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}
