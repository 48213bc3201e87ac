//! What is in the log and in snapshots, and what a server makes of it: the state and the watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::{self, SetWatches2};
use quorate_protocol::{
    AclEntry, EventType, Id, OpCode, Password, Perms, Request, Response, SessionId, Zxid,
};
use quorate_server::client_port::dispatch::{Route, route};
use quorate_server::replica::Ask;
use quorate_state::{
    Action, Applied, Change, ChangeKind, Command, Configuration, Connection, Origin, Query, Reader,
    Rules, SessionEvent, State, WatchKind, WatchTable, WatcherType, Write, rearm,
};

use crate::cursor::Cursor;

/// An entry of the log.
pub fn command(stored: &[u8]) {
    let Ok(command) = Command::decode(stored) else {
        return;
    };
    let again = command
        .encode(stored.len())
        .expect("what was decoded encodes");
    assert_eq!(
        Command::decode(&again).expect("what was encoded decodes"),
        command
    );
}

/// The contents of a snapshot: a state.
pub fn state_snapshot(contents: &[u8]) {
    let mut reader = contents;
    let Ok(state) = State::load(&mut reader) else {
        return;
    };
    let again = snapshot_of(&state);
    let loaded = State::load(&mut again.as_slice()).expect("what was written loads");
    assert_eq!(loaded.digest(), state.digest());
    assert_eq!(snapshot_of(&loaded), again, "equal states give equal bytes");
    check_tree(&loaded, false);
}

fn snapshot_of(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = state.view().write(&mut bytes);
    written.expect("a vector takes all");
    bytes
}

/// Requests of several sessions, applied and answered as a server does it, beside a second state that
/// is fed alike and never loaded from a snapshot, and watches kept in the plainest way.
pub fn state_machine(input: &[u8]) {
    let mut input = Cursor::new(input);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.reload();
    check_tree(&world.state, true);
}

/// Steps in one input: more say nothing that another input does not.
const STEPS_MAX: usize = 48;

const CLIENTS: usize = 3;
const PASSWORD: [u8; 16] = [7; 16];

/// Few enough for requests to meet, with all that paths are judged by.
const PATHS: [&str; 16] = [
    "/a",
    "/a/b",
    "/a/b/c",
    "/a/bb",
    "/b",
    "/b-",
    "/a/",
    "/",
    "",
    "/zookeeper/config",
    "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a",
    "/zookeeper/quota",
    "/zookeeper/quota/a/zookeeper_stats",
    "//",
    "/é",
];

#[derive(Clone, Copy, Default)]
struct Client {
    session: Option<SessionId>,
    connection: Connection,
    /// The one before, from which requests come too late.
    old: Connection,
    sequence: u64,
    attached_at: Zxid,
}

struct World {
    state: State,
    twin: State,
    table: WatchTable,
    watches: PlainWatches,
    clients: [Client; CLIENTS],
    connections: u64,
    zxid: i64,
    now_ms: i64,
}

impl World {
    fn new() -> Self {
        Self {
            state: State::new(),
            twin: State::new(),
            table: WatchTable::with_seed(5),
            watches: PlainWatches::default(),
            clients: [Client::default(); CLIENTS],
            connections: 0,
            zxid: 0,
            now_ms: 1_000,
        }
    }

    fn step(&mut self, input: &mut Cursor<'_>) {
        let (what, who) = (input.u8(), input.u8());
        let i = usize::from(who) % CLIENTS;
        match what {
            0..=23 => self.open(i, who),
            24..=39 => self.attach(i, who),
            40..=47 => self.close(i),
            48..=55 => self.expire(i, who),
            56..=63 => self.now_ms = self.now_ms.wrapping_add(input.i64() >> 20),
            64..=71 => self.reap(input),
            72..=75 => self.reload(),
            76..=79 => self.configure(input),
            80..=83 => self.admit(who),
            84..=87 => self.leave(i),
            88..=91 => self.log_entry(input),
            92..=123 => self.request(i, input),
            124..=147 => self.watch(i, input),
            _ => {
                let write = write(input);
                self.write(i, who, write);
            }
        }
    }

    fn connect(&mut self) -> Connection {
        self.connections += 1;
        Connection {
            server: 1,
            number: self.connections,
        }
    }

    fn open(&mut self, i: usize, who: u8) {
        self.leave(i);
        let connection = self.connect();
        let action = Action::OpenSession {
            timeout_ms: i32::from(who) * 1_000,
            password: Password::new(PASSWORD),
        };
        let applied = self.apply(connection, 0, Rules::default(), action);
        if let Some(SessionEvent::Attached { session, .. }) = applied.session {
            self.clients[i] = Client {
                session: Some(session),
                connection,
                old: self.clients[i].connection,
                sequence: 1,
                attached_at: Zxid(self.zxid),
            };
        }
    }

    fn attach(&mut self, i: usize, who: u8) {
        let Some(session) = self.clients[i].session else {
            return;
        };
        let password = if who < 200 { PASSWORD } else { [8; 16] };
        let connection = self.connect();
        let action = Action::AttachSession {
            session,
            password: password.to_vec().into(),
            timeout_ms: 6_000,
        };
        let applied = self.apply(connection, 0, Rules::default(), action);
        if let Some(SessionEvent::Attached { .. }) = applied.session {
            assert!(who < 200, "a wrong password attaches nobody");
            self.leave(i);
            let client = &mut self.clients[i];
            client.old = client.connection;
            client.connection = connection;
            client.sequence = 1;
            client.attached_at = Zxid(self.zxid);
        }
    }

    fn close(&mut self, i: usize) {
        if let Some(session) = self.clients[i].session {
            let (connection, sequence) = self.next_origin(i);
            let action = Action::CloseSession { session };
            self.apply(connection, sequence, Rules::default(), action);
            assert_eq!(self.state.ephemeral_count_of(session), 0);
        }
    }

    fn expire(&mut self, i: usize, who: u8) {
        let client = self.clients[i];
        if let Some(session) = client.session {
            let late = i64::from(who > 200);
            let action = Action::ExpireSession {
                session,
                attached_at: Zxid(client.attached_at.0 - late),
            };
            self.apply(Connection::default(), 0, Rules::default(), action);
        }
    }

    fn reap(&mut self, input: &mut Cursor<'_>) {
        let never_used_ms = i64::from(input.u8());
        let due = self.state.reapable(self.now_ms, never_used_ms, 100);
        let twin_due = self.twin.reapable(self.now_ms, never_used_ms, 100);
        let sorted = |mut due: Vec<String>| {
            due.sort();
            due
        };
        assert_eq!(sorted(due.clone()), sorted(twin_due));
        let mut paths = due;
        paths.push(path(input));
        let action = Action::Reap {
            paths,
            never_used_ms,
        };
        self.apply(Connection::default(), 0, Rules::default(), action);
    }

    fn configure(&mut self, input: &mut Cursor<'_>) {
        self.zxid += 1;
        let servers = BTreeSet::from([1, u64::from(input.u8())]);
        let members = servers
            .iter()
            .map(|id| format!("server.{id}=h:1:2:participant\n"));
        let configuration = Configuration {
            members: members.collect(),
            changed_ms: self.now_ms,
            servers,
        };
        let changes = self.state.configure(Zxid(self.zxid), &configuration);
        assert_eq!(
            self.twin.configure(Zxid(self.zxid), &configuration),
            changes
        );
        self.fire(&changes);
        self.check();
    }

    fn admit(&mut self, who: u8) {
        let action = Action::Admit {
            server: u64::from(who % 4),
            incarnation: u64::from(who),
        };
        self.apply(Connection::default(), 0, Rules::default(), action);
    }

    /// The connection ends, and its watches with it; the session does not.
    fn leave(&mut self, i: usize) {
        let number = self.clients[i].connection.number;
        self.table.remove_connection(number);
        self.watches
            .0
            .retain(|(connection, ..)| *connection != number);
    }

    /// Whatever decodes may be in the log.
    fn log_entry(&mut self, input: &mut Cursor<'_>) {
        if let Ok(command) = Command::decode(input.counted()) {
            self.apply_command(command);
        }
    }

    fn next_origin(&mut self, i: usize) -> (Connection, u64) {
        let client = &mut self.clients[i];
        client.sequence += 1;
        (client.connection, client.sequence - 1)
    }

    fn write(&mut self, i: usize, who: u8, write: Write) {
        let Some(session) = self.clients[i].session else {
            return;
        };
        let (connection, sequence) = match who >> 5 {
            // Too late, or out of turn: as if it were not in the log.
            7 => (self.clients[i].old, 1),
            6 => (self.clients[i].connection, self.clients[i].sequence + 1),
            _ => self.next_origin(i),
        };
        let rules = Rules {
            skip_acl: who & 4 != 0,
            enforce_quota: who & 8 != 0,
            ttl_disabled: who & 24 == 24,
            x509_enabled: false,
        };
        let action = Action::Write {
            session,
            identities: identities(i),
            write,
        };
        self.apply(connection, sequence, rules, action);
    }

    /// A request as bytes, on its way through the server.
    fn request(&mut self, i: usize, input: &mut Cursor<'_>) {
        let op = OpCode::ALL[input.below(OpCode::ALL.len())];
        let Ok(request) = Request::decode(op, input.counted()) else {
            return;
        };
        match route(request) {
            Route::Log(write) => self.write(i, 0, write),
            Route::CloseSession => self.close(i),
            Route::Local(ask) => self.answer(i, ask),
            Route::Barrier(_) | Route::Touch(_) | Route::Auth(_) | Route::WhoAmI => {}
        }
    }

    fn answer(&mut self, i: usize, ask: Ask) {
        let number = self.clients[i].connection.number;
        match ask {
            Ask::Read { query, watch } => self.read(i, &query, watch),
            Ask::AddWatch { path, kind } => self.add(number, &path, kind),
            Ask::CheckWatches { path, kind } => {
                let expected = self.watches.contains(number, &path, kind);
                assert_eq!(self.table.contains(number, &path, kind), expected);
            }
            Ask::RemoveWatches { path, kind } => {
                let expected = self.watches.remove(number, &path, kind);
                assert_eq!(self.table.remove(number, &path, kind), expected);
                self.check_watches(i);
            }
            Ask::SetWatches(watches) => self.set_watches(i, &watches),
            _ => {}
        }
    }

    fn read(&mut self, i: usize, query: &Query, watch: bool) {
        let identities = identities(i);
        let Some(session) = self.clients[i].session else {
            return;
        };
        let reader = Reader {
            identities: &identities,
            session,
            skip_acl: false,
        };
        let answer = self.state.read(query, &reader);
        assert_eq!(self.twin.read(query, &reader), answer);
        let exists = answer.is_ok();
        let number = self.clients[i].connection.number;
        let (path, kind) = match query {
            Query::Exists { path } => (path, WatchKind::Data),
            Query::GetData { path } if exists => (path, WatchKind::Data),
            Query::GetChildren { path } | Query::GetChildren2 { path } if exists => {
                (path, WatchKind::Child)
            }
            _ => return,
        };
        if watch {
            self.add(number, path, kind);
        }
    }

    fn watch(&mut self, i: usize, input: &mut Cursor<'_>) {
        let kind = match input.below(4) {
            0 => WatchKind::Data,
            1 => WatchKind::Child,
            2 => WatchKind::Persistent,
            _ => WatchKind::PersistentRecursive,
        };
        self.add(self.clients[i].connection.number, &path(input), kind);
    }

    fn add(&mut self, connection: u64, path: &str, kind: WatchKind) {
        self.table.add(connection, path, kind);
        self.watches.0.insert((connection, path.to_owned(), kind));
    }

    /// What a client brings along to a new connection: some of it fires at once, the rest is watched.
    fn set_watches(&mut self, i: usize, watches: &SetWatches2) {
        let number = self.clients[i].connection.number;
        let (state, table) = (&self.state, &mut self.table);
        let mut told = 0;
        rearm(
            table,
            number,
            watches,
            |path| state.stat(path),
            |_, _| told += 1,
        );
        let seen = watches.relative_zxid;
        let mut expected = 0;
        let mut arm = |path: &String, kind: WatchKind, fires: bool| {
            if fires {
                expected += 1;
            } else {
                self.watches.0.insert((number, path.clone(), kind));
            }
        };
        for path in &watches.data {
            let fires = state.stat(path).is_none_or(|stat| stat.mzxid > seen);
            arm(path, WatchKind::Data, fires);
        }
        for path in &watches.exist {
            arm(path, WatchKind::Data, state.stat(path).is_some());
        }
        for path in &watches.child {
            let fires = state.stat(path).is_none_or(|stat| stat.pzxid > seen);
            arm(path, WatchKind::Child, fires);
        }
        for path in &watches.persistent {
            arm(path, WatchKind::Persistent, false);
        }
        for path in &watches.persistent_recursive {
            arm(path, WatchKind::PersistentRecursive, false);
        }
        assert_eq!(told, expected);
        self.check_watches(i);
    }

    fn apply(
        &mut self,
        connection: Connection,
        sequence: u64,
        rules: Rules,
        action: Action,
    ) -> Applied {
        self.apply_command(Command {
            time_ms: self.now_ms,
            origin: Origin {
                connection,
                sequence,
            },
            rules,
            action,
        })
    }

    fn apply_command(&mut self, command: Command) -> Applied {
        self.zxid += 1;
        let before = (self.state.digest(), self.state.node_count());
        let twin_applied = self.twin.apply(Zxid(self.zxid), command.clone());
        let applied = self.state.apply(Zxid(self.zxid), command);
        assert_eq!(twin_applied, applied);
        if let quorate_state::Reply::Void = applied.reply {
            let after = (self.state.digest(), self.state.node_count());
            assert_eq!(after, before, "as if it were not in the log");
            assert!(applied.changes.is_empty());
        }
        self.fire(&applied.changes);
        self.check();
        applied
    }

    fn fire(&mut self, changes: &[Change]) {
        let mut fired = Vec::new();
        self.table.trigger(changes, &mut |event| {
            fired.push((event.connection, event.kind, event.path.to_owned()));
        });
        let mut expected = Vec::new();
        for change in changes {
            self.watches.fire(change, &mut expected);
        }
        assert_eq!(fired, expected);
    }

    fn check(&self) {
        assert_eq!(self.state.digest(), self.twin.digest());
        assert_eq!(self.state.node_count(), self.twin.node_count());
        assert_eq!(self.state.session_count(), self.twin.session_count());
        assert_eq!(
            self.state.approximate_data_size(),
            self.twin.approximate_data_size()
        );
    }

    fn check_watches(&self, i: usize) {
        let number = self.clients[i].connection.number;
        assert_eq!(self.table.watch_count(), self.watches.count());
        assert_eq!(self.table.count_of(number), self.watches.count_of(number));
    }

    /// Loading computes the digest anew and compares it with the one that was kept up to date.
    fn reload(&mut self) {
        let bytes = snapshot_of(&self.state);
        assert_eq!(snapshot_of(&self.twin), bytes, "equal states, equal bytes");
        self.state = State::load(&mut bytes.as_slice()).expect("what was written loads");
        self.check();
        (0..CLIENTS).for_each(|i| self.check_watches(i));
    }
}

/// Two of the clients are somebody; all are from somewhere.
fn identities(i: usize) -> Arc<[Id]> {
    let id = |scheme: &str, id: &str| Id {
        scheme: scheme.to_owned(),
        id: id.to_owned(),
    };
    match i {
        0 => Arc::new([id("ip", "127.0.0.1")]),
        1 => Arc::new([id("ip", "127.0.0.1"), id("digest", "u:x")]),
        _ => Arc::new([id("ip", "10.0.0.1"), id("digest", "v:y")]),
    }
}

fn path(input: &mut Cursor<'_>) -> String {
    match input.u8() {
        0xff => String::from_utf8_lossy(input.counted()).into_owned(),
        known => PATHS[usize::from(known) % PATHS.len()].to_owned(),
    }
}

fn data(input: &mut Cursor<'_>) -> Option<Bytes> {
    match input.u8() {
        0 => None,
        1 => Some(Bytes::from_static(b"count=3,bytes=20")),
        2 => Some(Bytes::from_static(
            b"count=2,bytes=-1;bytesHardLimit=9;countHardLimit=2",
        )),
        length @ 3..=40 => Some(Bytes::from(vec![b'x'; usize::from(length)])),
        _ => Some(Bytes::copy_from_slice(input.counted())),
    }
}

fn acl(input: &mut Cursor<'_>) -> Vec<AclEntry> {
    let entry = AclEntry::new;
    let some = |bits: u8| Perms(i32::from(bits));
    match input.u8() {
        0..=160 => vec![AclEntry::open()],
        161..=190 => vec![entry(some(input.u8()), "auth", "")],
        191..=210 => vec![entry(some(input.u8()), "digest", "u:x")],
        211..=225 => vec![entry(some(input.u8()), "ip", "127.0.0.0/8")],
        226..=235 => vec![
            entry(some(input.u8()), "world", "anyone"),
            entry(some(input.u8()), "digest", "v:y"),
        ],
        236..=240 => Vec::new(),
        _ => {
            let text = String::from_utf8_lossy(input.counted()).into_owned();
            let (scheme, id) = text.split_once(':').unwrap_or((&text, ""));
            vec![entry(some(input.u8()), scheme, id)]
        }
    }
}

fn version(input: &mut Cursor<'_>) -> i32 {
    match input.u8() {
        0..=150 => -1,
        small @ 151..=250 => i32::from(small) - 151,
        _ => input.u32().cast_signed(),
    }
}

fn create(input: &mut Cursor<'_>) -> request::Create {
    request::Create {
        path: path(input),
        data: data(input),
        acl: acl(input),
        flags: i32::from(input.u8() % 8),
    }
}

fn create_ttl(input: &mut Cursor<'_>) -> request::CreateTtl {
    let plain = create(input);
    request::CreateTtl {
        path: plain.path,
        data: plain.data,
        acl: plain.acl,
        flags: plain.flags,
        ttl_ms: input.i64() >> (input.u8() % 64),
    }
}

fn write(input: &mut Cursor<'_>) -> Write {
    match input.u8() {
        0..=15 => {
            let count = input.below(6);
            Write::Multi((0..count).map(|_| multi_op(input)).collect())
        }
        16..=31 => Write::SetAcl(request::SetAcl {
            path: path(input),
            acl: acl(input),
            version: version(input),
        }),
        32..=95 => Write::Create(create(input)),
        _ => match multi_op(input) {
            MultiOp::Create(r) => Write::Create(r),
            MultiOp::Create2(r) => Write::Create2(r),
            MultiOp::CreateContainer(r) => Write::CreateContainer(r),
            MultiOp::CreateTtl(r) => Write::CreateTtl(r),
            MultiOp::Delete(r) => Write::Delete(r),
            MultiOp::SetData(r) => Write::SetData(r),
            MultiOp::Check(r) => Write::Multi(vec![MultiOp::Check(r)]),
        },
    }
}

fn multi_op(input: &mut Cursor<'_>) -> MultiOp {
    match input.below(8) {
        0 => MultiOp::Create(create(input)),
        1 => MultiOp::Create2(create(input)),
        2 => MultiOp::CreateContainer(create(input)),
        3 => MultiOp::CreateTtl(create_ttl(input)),
        4 | 5 => MultiOp::Delete(request::Delete {
            path: path(input),
            version: version(input),
        }),
        6 => MultiOp::SetData(request::SetData {
            path: path(input),
            data: data(input),
            version: version(input),
        }),
        _ => MultiOp::Check(request::Check {
            path: path(input),
            version: version(input),
        }),
    }
}

/// Everything that can be read of a tree fits together. What others wrote may have any numbers.
fn check_tree(state: &State, is_ours: bool) {
    let reader = Reader {
        identities: &[],
        session: SessionId::new(1).expect("it is not zero"),
        skip_acl: true,
    };
    let mut waiting = vec!["/".to_owned()];
    // The root counts twice.
    let mut count = 1;
    let mut ephemerals: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    while let Some(path) = waiting.pop() {
        count += 1;
        let query = Query::GetChildren2 { path: path.clone() };
        let Ok(Response::Children { children, stat }) = state.read(&query, &reader) else {
            panic!("{path} is there");
        };
        assert_eq!(usize::try_from(stat.num_children), Ok(children.len()));
        let query = Query::GetData { path: path.clone() };
        let Ok(Response::Data { data, stat: same }) = state.read(&query, &reader) else {
            panic!("{path} is there");
        };
        assert_eq!(same, stat);
        assert_eq!(
            usize::try_from(stat.data_length),
            Ok(data.map_or(0, |data| data.len()))
        );
        if is_ours {
            assert!(stat.mzxid >= stat.czxid && stat.pzxid >= stat.czxid);
        }
        for child in children {
            let slash = if path == "/" { "" } else { "/" };
            waiting.push(format!("{path}{slash}{child}"));
        }
        if stat.ephemeral_owner > 0
            && let Some(owner) = SessionId::new(stat.ephemeral_owner)
            && state.session(owner).is_some()
        {
            ephemerals
                .entry(stat.ephemeral_owner)
                .or_default()
                .push(path);
        }
    }
    assert_eq!(state.node_count(), count);
    for (session, mut paths) in ephemerals {
        let session = SessionId::new(session).expect("it owns something");
        let known: Vec<String> = state.ephemerals(session).collect();
        paths.sort();
        paths.retain(|path| known.contains(path));
        assert_eq!(known, paths);
    }
}

/// Watches as a set: who waits where for what.
#[derive(Debug, Default)]
struct PlainWatches(BTreeSet<(u64, String, WatchKind)>);

impl PlainWatches {
    fn fire(&mut self, change: &Change, out: &mut Vec<(u64, EventType, String)>) {
        use WatchKind::{Child, Data, Persistent};
        let path = &*change.path;
        match change.kind {
            ChangeKind::Created => {
                self.tell(path, EventType::NodeCreated, &[Data, Persistent], true, out);
            }
            ChangeKind::Deleted => {
                let kinds = [Data, Child, Persistent];
                self.tell(path, EventType::NodeDeleted, &kinds, true, out);
            }
            ChangeKind::DataChanged => {
                let event = EventType::NodeDataChanged;
                return self.tell(path, event, &[Data, Persistent], true, out);
            }
        }
        let parent = match path.rsplit_once('/') {
            _ if path == "/" => return,
            Some(("", _)) => "/",
            Some((parent, _)) => parent,
            None => return,
        };
        let event = EventType::NodeChildrenChanged;
        self.tell(parent, event, &[Child, Persistent], false, out);
    }

    fn tell(
        &mut self,
        path: &str,
        event: EventType,
        kinds: &[WatchKind],
        below: bool,
        out: &mut Vec<(u64, EventType, String)>,
    ) {
        let mut told = BTreeSet::new();
        self.0.retain(|(connection, watched, kind)| {
            let is_above = match kind {
                WatchKind::PersistentRecursive => below && is_at_or_above(watched, path),
                kind => kinds.contains(kind) && watched == path,
            };
            if is_above {
                told.insert(*connection);
            }
            !(is_above && matches!(kind, WatchKind::Data | WatchKind::Child))
        });
        out.extend(told.into_iter().map(|to| (to, event, path.to_owned())));
    }

    fn of<'a>(
        &'a self,
        connection: u64,
        path: &'a str,
        which: WatcherType,
    ) -> impl Iterator<Item = (u64, String, WatchKind)> + 'a {
        let wanted = move |kind: WatchKind| match which {
            WatcherType::Any => true,
            WatcherType::Children => kind == WatchKind::Child,
            WatcherType::Data => kind == WatchKind::Data,
            WatcherType::Persistent => kind == WatchKind::Persistent,
            WatcherType::PersistentRecursive => kind == WatchKind::PersistentRecursive,
        };
        let here = move |(who, watched, kind): &&(u64, String, WatchKind)| {
            *who == connection && watched == path && wanted(*kind)
        };
        self.0.iter().filter(here).cloned()
    }

    fn contains(&self, connection: u64, path: &str, which: WatcherType) -> bool {
        self.of(connection, path, which).next().is_some()
    }

    fn remove(&mut self, connection: u64, path: &str, which: WatcherType) -> bool {
        let gone: Vec<_> = self.of(connection, path, which).collect();
        for watch in &gone {
            self.0.remove(watch);
        }
        !gone.is_empty()
    }

    /// As the table counts: one for each connection, path and table.
    fn count(&self) -> usize {
        let mut places = BTreeSet::new();
        for (connection, path, kind) in &self.0 {
            if *kind != WatchKind::Child {
                places.insert((connection, path, 0));
            }
            if matches!(kind, WatchKind::Child | WatchKind::Persistent) {
                places.insert((connection, path, 1));
            }
        }
        places.len()
    }

    fn count_of(&self, connection: u64) -> usize {
        let paths = self.0.iter().filter(|(who, ..)| *who == connection);
        paths
            .map(|(_, path, _)| path)
            .collect::<BTreeSet<_>>()
            .len()
    }
}

fn is_at_or_above(watched: &str, path: &str) -> bool {
    let rest = path.strip_prefix(watched).filter(|_| !watched.is_empty());
    watched == "/" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
