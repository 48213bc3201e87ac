//! Clients that write as fast as they are answered, and know what must be there afterwards.
//!
//! Each [`Worker`] owns a subtree and one session, and pipelines. Its writes get into the log in
//! their order, so of those without an answer a server that crashed has a first part, and no more.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use quorate_protocol::multi::MultiOp;
use quorate_protocol::{Request, Response};
use quorate_tests::client::{
    Connection, EPHEMERAL, Message, PERSISTENT, Reply, SEQUENTIAL, Session, check, create,
    create_record, delete_record, get_children, get_data, set_record, sync,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::PATIENCE;
use crate::model::{Model, NO_NODE, Outcome, Tree, agree};

/// Sessions of the load; longer than any server is down.
const SESSION_MS: i32 = 30_000;
/// Sessions that nobody resumes.
const ABANDONED_MS: i32 = 1_000;
/// So many at a time: what they own is in the way, and every start gives them their time anew.
const ABANDONED_MAX: usize = 2;
/// Above so many znodes a worker rather deletes.
const ENTRIES_MAX: usize = 150;
const WINDOW_MAX: usize = 64;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Progress {
    acknowledged: AtomicU64,
    target: AtomicU64,
    reached: Sender<()>,
    /// Zxids of all writes: no two have the same.
    zxids: Mutex<HashSet<i64>>,
    highest: Mutex<i64>,
}

impl Progress {
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (reached, receiver) = channel();
        let progress = Self {
            acknowledged: AtomicU64::new(0),
            target: AtomicU64::new(u64::MAX),
            reached,
            zxids: Mutex::default(),
            highest: Mutex::default(),
        };
        (progress, receiver)
    }

    /// Tells the receiver once so many more writes are acknowledged.
    pub(crate) fn set_target(&self, more: u64) {
        let target = self.acknowledged.load(Ordering::SeqCst) + more;
        self.target.store(target, Ordering::SeqCst);
    }

    fn on_write(&self, zxid: i64) {
        let fresh = self
            .zxids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(zxid);
        assert!(fresh, "two writes have the zxid {zxid:#x}");
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        *highest = zxid.max(*highest);
        let count = self.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        if count == self.target.load(Ordering::SeqCst) {
            let _ = self.reached.send(());
        }
    }

    /// The highest zxid any client was told.
    pub(crate) fn highest(&self) -> i64 {
        *self.highest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happened, for the line at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) reads: u64,
    pub(crate) unanswered: u64,
    pub(crate) unanswered_but_done: u64,
    pub(crate) resumed: u64,
    pub(crate) closed: u64,
    pub(crate) abandoned: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.reads += other.reads;
        self.unanswered += other.unanswered;
        self.unanswered_but_done += other.unanswered_but_done;
        self.resumed += other.resumed;
        self.closed += other.closed;
        self.abandoned += other.abandoned;
    }
}

#[derive(Clone, Debug)]
enum Action {
    Write {
        ops: Vec<MultiOp>,
        multi: bool,
    },
    Read {
        path: String,
        expected: Option<(Vec<u8>, i32)>,
    },
    Close,
}

impl Action {
    fn request(&self) -> Request {
        match self {
            Self::Write { ops, multi: true } => Request::Multi(ops.clone()),
            Self::Write { ops, multi: false } => match ops[0].clone() {
                MultiOp::Create(r) => Request::Create(r),
                MultiOp::SetData(r) => Request::SetData(r),
                MultiOp::Delete(r) => Request::Delete(r),
                other => unreachable!("the load has no {other:?}"),
            },
            Self::Read { path, .. } => get_data(path, false),
            Self::Close => Request::CloseSession,
        }
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Worker {
    root: String,
    rng: StdRng,
    connection: Option<Connection>,
    session: Session,
    /// The session was closed, and that was acknowledged; there is no other yet.
    is_closed: bool,
    last_zxid: i64,
    values: u64,
    /// What is known to be there: all that was acknowledged.
    known: Model,
    /// Sent and not answered, in order.
    unanswered: Vec<Action>,
    /// Sessions that were left to expire and may still be there.
    abandoned: Vec<i64>,
    pub(crate) counts: Counts,
}

impl Worker {
    /// Connects, and creates its folders below `/load`.
    pub(crate) fn new(address: SocketAddr, number: u64, seed: u64) -> Self {
        let mut connection = Connection::open(address, SESSION_MS).unwrap();
        let root = format!("/load/w{number}");
        for path in ["/load".to_owned(), root.clone(), format!("{root}/s")] {
            connection.call(&create(&path, b"", PERSISTENT)).unwrap();
        }
        Self {
            rng: StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            session: connection.session(),
            is_closed: false,
            last_zxid: connection.last_zxid,
            connection: Some(connection),
            values: 0,
            known: Model::default()
                .with_folder(&root, 1)
                .with_folder(&format!("{root}/s"), 0),
            root,
            unanswered: Vec::new(),
            abandoned: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Writes until the connection ends. With `may_close`, sometimes closes its session and opens
    /// another.
    pub(crate) fn run(&mut self, address: SocketAddr, progress: &Progress, may_close: bool) {
        while let Some(connection) = self.connection.take() {
            if !self.run_connection(connection, progress, may_close) {
                return;
            }
            // The session is closed; go on in a new one, if the server is still there.
            let Ok(connection) = Connection::open(address, SESSION_MS) else {
                return;
            };
            self.begin(connection);
        }
    }

    fn begin(&mut self, connection: Connection) {
        self.session = connection.session();
        self.is_closed = false;
        self.connection = Some(connection);
    }

    /// Returns whether the session was closed, and that was acknowledged.
    fn run_connection(
        &mut self,
        mut connection: Connection,
        progress: &Progress,
        may_close: bool,
    ) -> bool {
        let mut ahead = self.known.clone();
        let window = self.rng.random_range(1..=WINDOW_MAX);
        let mut left = match may_close && self.rng.random_ratio(1, 4) {
            true => self.rng.random_range(1..500),
            false => u64::MAX,
        };
        assert!(
            self.unanswered.is_empty(),
            "they were settled after the last round"
        );
        loop {
            let mut batch = Vec::new();
            while self.unanswered.len() < window && left > 0 {
                left -= 1;
                let action = match left {
                    0 => Action::Close,
                    _ => self.next_action(&mut ahead),
                };
                batch.push(action.request());
                self.unanswered.push(action);
            }
            // What cannot be sent any more may still have got there.
            let _ = connection.send_all(&batch);
            loop {
                match connection.receive().unwrap() {
                    Message::Reply(reply) => {
                        if self.on_reply(&reply, progress) {
                            return true;
                        }
                    }
                    Message::Event(event) => panic!("nobody watches, and there is {event:?}"),
                    Message::Closed => return false,
                }
                if !connection.has_frame() {
                    break;
                }
            }
        }
    }

    /// Returns whether this was the answer to closing the session.
    fn on_reply(&mut self, reply: &Reply, progress: &Progress) -> bool {
        let root = self.root.clone();
        match self.unanswered.remove(0) {
            Action::Read { path, expected } => {
                let found = reply
                    .stat()
                    .map(|stat| (reply.data().unwrap_or_default().to_vec(), stat.version));
                assert_eq!(found, expected, "{root}: own writes are read: {path}");
                self.counts.reads += 1;
                false
            }
            Action::Write { ops, multi } => {
                let session = self.session.id.get();
                let outcome = self.known.apply(&ops, session, Some(reply.zxid));
                if let Err(difference) = agree(&outcome, multi, reply) {
                    panic!("{root}: {ops:?}: {difference}");
                }
                match outcome {
                    Outcome::Done(_) => self.counts.acknowledged += 1,
                    Outcome::Refused(..) => self.counts.refused += 1,
                }
                self.on_zxid(reply.zxid, progress);
                false
            }
            Action::Close => {
                assert!(
                    matches!(reply.result, Ok(Response::Empty)),
                    "{root}: {reply:?}"
                );
                self.known.end_session(self.session.id.get());
                self.counts.closed += 1;
                self.is_closed = true;
                self.on_zxid(reply.zxid, progress);
                true
            }
        }
    }

    fn on_zxid(&mut self, zxid: i64, progress: &Progress) {
        assert!(
            zxid > self.last_zxid,
            "{}: zxid {zxid:#x} after {:#x}",
            self.root,
            self.last_zxid
        );
        self.last_zxid = zxid;
        progress.on_write(zxid);
    }

    fn next_action(&mut self, ahead: &mut Model) -> Action {
        let session = self.session.id.get();
        if self.rng.random_ratio(1, 10) {
            let path = self.some_path(ahead);
            let entry = ahead.entries.get(&path);
            let expected = entry.map(|entry| (entry.data.clone(), entry.version));
            return Action::Read { path, expected };
        }
        let multi = self.rng.random_ratio(1, 6);
        let count = if multi {
            self.rng.random_range(1..6)
        } else {
            1
        };
        let ops: Vec<MultiOp> = (0..count).map(|_| self.next_op(ahead, multi)).collect();
        ahead.apply(&ops, session, None);
        Action::Write { ops, multi }
    }

    fn next_op(&mut self, ahead: &Model, multi: bool) -> MultiOp {
        let version = |rng: &mut StdRng, path: &str| match rng.random_range(0..10) {
            0..6 => -1,
            6..9 => ahead.entries.get(path).map_or(0, |entry| entry.version),
            // Stale, so refused.
            _ => 1_000_000,
        };
        let full = ahead.entries.len() >= ENTRIES_MAX;
        match self.rng.random_range(0..100) {
            0..30 if !full => {
                let path = format!("{}/n{}", self.root, self.values);
                let ephemeral = self.rng.random_ratio(1, 5);
                let flags = if ephemeral { EPHEMERAL } else { PERSISTENT };
                MultiOp::Create(create_record(&path, &self.value(), flags))
            }
            30..45 if !full => {
                let path = format!("{}/s/q-", self.root);
                let flags = match self.rng.random_ratio(1, 3) {
                    true => SEQUENTIAL | EPHEMERAL,
                    false => SEQUENTIAL,
                };
                MultiOp::Create(create_record(&path, &self.value(), flags))
            }
            // Mostly there already, so refused.
            45..50 => {
                let path = self.some_path(ahead);
                MultiOp::Create(create_record(&path, &self.value(), PERSISTENT))
            }
            50..60 if multi => {
                let path = self.some_path(ahead);
                check(&path, version(&mut self.rng, &path))
            }
            60..80 => {
                let path = self.some_path(ahead);
                let version = version(&mut self.rng, &path);
                MultiOp::Delete(delete_record(&path, version))
            }
            _ => {
                let path = self.some_path(ahead);
                let version = version(&mut self.rng, &path);
                MultiOp::SetData(set_record(&path, &self.value(), version))
            }
        }
    }

    /// A znode that is there, or now and then one that is not. Those of sessions that may expire
    /// at any moment are left alone.
    fn some_path(&mut self, ahead: &Model) -> String {
        let own = self.session.id.get();
        let paths: Vec<&String> = ahead
            .entries
            .iter()
            .filter(|(_, entry)| entry.owner == 0 || entry.owner == own)
            .map(|(path, _)| path)
            .collect();
        if paths.is_empty() || self.rng.random_ratio(1, 20) {
            return format!("{}/none{}", self.root, self.rng.random_range(0..1000));
        }
        paths[self.rng.random_range(0..paths.len())].clone()
    }

    /// Bytes nobody has written before.
    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let mut value = format!("{}#{}.", self.root, self.values).into_bytes();
        let length = match self.rng.random_range(0..40) {
            0 => self.rng.random_range(4_096..20_000),
            1..10 => self.rng.random_range(200..2_000),
            _ => 0,
        };
        let filler = self.rng.random();
        if value.len() < length {
            value.resize(length, filler);
        }
        value
    }

    /// Makes the worker judge by contents alone, not by how far the zxids are.
    pub(crate) fn forget_zxids(&mut self) {
        self.last_zxid = 0;
    }

    /// After a restart: compares what is there with what must be, and gets ready to go on.
    pub(crate) fn settle(&mut self, address: SocketAddr, progress: &Progress) {
        let root = self.root.clone();
        let resumed = Connection::resume(address, &self.session, self.last_zxid)
            .unwrap_or_else(|error| panic!("{root}: {:?}: {error}", self.session));
        let mut reader = match resumed {
            Some(connection) => {
                self.counts.resumed += 1;
                self.connection = Some(connection);
                Connection::open(address, SESSION_MS).unwrap()
            }
            None => Connection::open(address, SESSION_MS).unwrap(),
        };
        let reply = reader.call(&sync("/")).unwrap();
        assert!(
            reply.zxid >= progress.highest(),
            "zxids went back to {:#x}",
            reply.zxid
        );
        let actual = self.read_tree(&mut reader);
        reader.call(&Request::CloseSession).unwrap();
        for session in std::mem::take(&mut self.abandoned) {
            let is_there = |path: &String| actual.entries.contains_key(path);
            let mut owned = self
                .known
                .entries
                .iter()
                .filter(|(_, e)| e.owner == session);
            if owned.any(|(path, _)| is_there(path)) {
                self.abandoned.push(session);
            } else {
                self.known.end_session(session);
            }
        }
        self.settle_unanswered(&actual);
        if self.connection.is_none() {
            self.begin(Connection::open(address, SESSION_MS).unwrap());
        } else if self.abandoned.len() < ABANDONED_MAX && self.rng.random_ratio(1, 6) {
            self.abandon(address);
        }
    }

    /// Finds out how many of the unanswered writes were done: any first part of them may.
    fn settle_unanswered(&mut self, actual: &Tree) {
        let root = &self.root;
        let unanswered = std::mem::take(&mut self.unanswered);
        let session = self.session.id.get();
        let is_write = |action: &&Action| !matches!(action, Action::Read { .. });
        let writes: Vec<&Action> = unanswered.iter().filter(is_write).collect();
        self.counts.unanswered += writes.len() as u64;
        let mut candidate = self.known.clone();
        let mut closed = self.is_closed;
        let mut first_difference = None;
        for done in 0..=writes.len() {
            let mut checked = candidate.clone();
            match checked.check(actual) {
                // Whether a close was done shows in the session: a later candidate has it.
                Ok(()) if closed == self.connection.is_none() => {
                    self.known = checked;
                    self.counts.unanswered_but_done += done as u64;
                    return;
                }
                Ok(()) => {}
                Err(difference) => {
                    first_difference.get_or_insert(difference);
                }
            }
            match writes.get(done) {
                Some(Action::Write { ops, .. }) => {
                    candidate.apply(ops, session, None);
                }
                Some(Action::Close) => {
                    candidate.end_session(session);
                    closed = true;
                }
                Some(Action::Read { .. }) | None => {}
            }
        }
        panic!(
            "{root}: session resumed: {}; no first part of {} unanswered writes explains what is \
             there. Against what was acknowledged: {first_difference:?}\nunanswered: {writes:?}",
            self.connection.is_some(),
            writes.len()
        );
    }

    /// Leaves the session to expire soon, and opens another.
    fn abandon(&mut self, address: SocketAddr) {
        let short = Session {
            timeout_ms: ABANDONED_MS,
            ..self.session
        };
        let resumed = Connection::resume(address, &short, self.last_zxid).unwrap();
        assert!(
            resumed.is_some(),
            "{}: a live session resumes again",
            self.root
        );
        drop(resumed);
        self.abandoned.push(self.session.id.get());
        self.counts.abandoned += 1;
        self.begin(Connection::open(address, SESSION_MS).unwrap());
    }

    /// Reads everything in the worker's folders. Sessions may expire meanwhile, so what is read twice
    /// alike counts.
    fn read_tree(&self, connection: &mut Connection) -> Tree {
        let mut last = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tree = self.try_read_tree(connection);
            if tree.is_some() && tree == last {
                return tree.unwrap_or_default();
            }
            assert!(
                Instant::now() < deadline,
                "{}: the tree does not come to rest",
                self.root
            );
            last = tree;
        }
    }

    /// `None` if a znode went away in between.
    fn try_read_tree(&self, connection: &mut Connection) -> Option<Tree> {
        let mut tree = Tree::default();
        let mut paths = Vec::new();
        for folder in self.known.folders() {
            let reply = connection.call(&get_children(folder, false)).unwrap();
            let Some(children) = reply.children() else {
                panic!("{folder}: {reply:?}");
            };
            let stat = reply.stat().unwrap();
            assert_eq!(
                usize::try_from(stat.num_children),
                Ok(children.len()),
                "{folder}"
            );
            tree.folders.insert(folder.clone(), stat);
            paths.extend(children.iter().map(|name| format!("{folder}/{name}")));
        }
        paths.retain(|path| !tree.folders.contains_key(path));
        let reads: Vec<Request> = paths.iter().map(|path| get_data(path, false)).collect();
        connection.send_all(&reads).unwrap();
        let mut whole = true;
        for path in paths {
            let Message::Reply(reply) = connection.receive().unwrap() else {
                panic!("{path}: no reply");
            };
            let Some(stat) = reply.stat() else {
                assert_eq!(reply.code(), NO_NODE, "{path}: {reply:?}");
                whole = false;
                continue;
            };
            let data = reply.data().unwrap_or_default().to_vec();
            tree.entries.insert(path, (data, stat));
        }
        whole.then_some(tree)
    }

    /// Waits until what abandoned sessions had is gone, and checks that nothing else is.
    pub(crate) fn outlast_abandoned(&mut self, address: SocketAddr) {
        let mut reader = Connection::open(address, SESSION_MS).unwrap();
        let abandoned = std::mem::take(&mut self.abandoned);
        let leftover: Vec<String> = self
            .known
            .entries
            .iter()
            .filter(|(_, entry)| abandoned.contains(&entry.owner))
            .map(|(path, _)| path.clone())
            .collect();
        for path in leftover {
            let watched = reader.call(&get_data(&path, true)).unwrap();
            if watched.code() == 0 {
                reader.set_silence(PATIENCE).unwrap();
                reader.next_event().unwrap();
            }
        }
        for session in abandoned {
            self.known.end_session(session);
        }
        let actual = self.read_tree(&mut reader);
        if let Err(difference) = self.known.check(&actual) {
            panic!("{}: after expiry: {difference}", self.root);
        }
        reader.call(&Request::CloseSession).unwrap();
    }
}

/// Runs all workers until their connections end, and `end` beside them, which ends the server.
pub(crate) fn run_all<T>(
    workers: &mut [Worker],
    address: SocketAddr,
    progress: &Progress,
    may_close: bool,
    end: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        for worker in workers {
            scope.spawn(move || worker.run(address, progress, may_close));
        }
        end()
    })
}
