//! The state against a model of it, on random commands.
//!
//! After every command the two must agree on the reply, the changes, what became of the session, and
//! everything that can be read. A second state, never reloaded, must agree with the first to the
//! last byte of its snapshot.

mod model;
mod steps;

use std::sync::Arc;

use proptest::prelude::*;
use quorate_protocol::{Id, Password, Response, SessionId, Zxid};
use quorate_state::{
    Action, Applied, Change, ChangeKind, Command, Connection, OpError, Origin, Query, Reader,
    Reply, Rules, SessionEvent, State, StateView, Write,
};

use model::{Event, Model};
use steps::{CLIENTS, Step, steps};

const PASSWORD: [u8; 16] = [7; 16];

/// One client, as its server sees it.
#[derive(Clone, Default)]
struct Client {
    /// Kept when the session ends, to see its writes refused.
    session: Option<SessionId>,
    is_alive: bool,
    connection: Connection,
    old: Connection,
    sequence: u64,
    attached_at: Zxid,
}

struct World {
    state: State,
    /// Fed alike, and never loaded from a snapshot.
    twin: State,
    model: Model,
    clients: [Client; CLIENTS],
    connections: u64,
    zxid: i64,
    now: i64,
    views: Vec<(StateView, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        Self {
            state: State::new(),
            twin: State::new(),
            model: Model::new(),
            clients: Default::default(),
            connections: 0,
            zxid: 0,
            now: 1000,
            views: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open(i) => self.open(i),
            Step::Attach(i) => self.attach(i),
            Step::Intrude(i) => self.intrude(i),
            Step::Close(i) => self.close(i),
            Step::Expire(i, late) => self.expire(i, late),
            Step::Write(i, write) => self.write(i, write),
            Step::Late(i, write) => self.late(i, &write),
            Step::Wait(ms) => self.now += ms,
            Step::Reap(never_used_ms) => self.reap(never_used_ms),
            Step::Reload => self.reload(),
        }
        self.compare();
    }

    fn open(&mut self, i: usize) {
        let connection = self.connect();
        let applied = self.apply(
            connection,
            0,
            Action::OpenSession {
                timeout_ms: 5000,
                password: Password::new(PASSWORD),
            },
        );
        let Reply::Session(Some(grant)) = applied.reply else {
            panic!("a session opens");
        };
        self.clients[i] = Client {
            session: Some(grant.session),
            is_alive: true,
            connection,
            old: Connection::default(),
            sequence: 1,
            attached_at: Zxid(self.zxid),
        };
    }

    fn attach(&mut self, i: usize) {
        let Some(session) = self.clients[i].session else {
            return;
        };
        let connection = self.connect();
        let applied = self.apply(
            connection,
            0,
            Action::AttachSession {
                session,
                password: PASSWORD.to_vec().into(),
                timeout_ms: 6000,
            },
        );
        let zxid = Zxid(self.zxid);
        let client = &mut self.clients[i];
        if !client.is_alive {
            assert_eq!(applied, nothing(Reply::Session(None)));
            return;
        }
        assert_eq!(
            applied.session,
            Some(SessionEvent::Attached {
                session,
                connection,
                timeout_ms: 6000,
                attached_at: zxid,
                from: Some(client.connection),
            })
        );
        client.old = client.connection;
        client.connection = connection;
        client.sequence = 1;
        client.attached_at = zxid;
    }

    fn intrude(&mut self, i: usize) {
        let Some(session) = self.clients[i].session else {
            return;
        };
        let connection = self.connect();
        let digest = self.state.digest();
        let action = Action::AttachSession {
            session,
            password: vec![8; 16].into(),
            timeout_ms: 6000,
        };
        let applied = self.apply(connection, 0, action);
        assert_eq!(applied, nothing(Reply::Session(None)));
        assert_eq!(self.state.digest(), digest);
    }

    fn close(&mut self, i: usize) {
        let Some(session) = self.clients[i].session else {
            return;
        };
        let applied = self.apply_as(i, Action::CloseSession { session });
        if !self.clients[i].is_alive {
            let refusal = Reply::Write(Err(OpError::SessionExpired));
            assert_eq!(applied, nothing(refusal));
            return;
        }
        self.end(i, session, &applied, false);
        assert_eq!(applied.reply, Reply::Write(Ok(Response::Empty)));
    }

    fn expire(&mut self, i: usize, late: bool) {
        let Client {
            session: Some(session),
            attached_at,
            is_alive,
            ..
        } = self.clients[i]
        else {
            return;
        };
        let seen = if late {
            Zxid(attached_at.0 - 1)
        } else {
            attached_at
        };
        let action = Action::ExpireSession {
            session,
            attached_at: seen,
        };
        let applied = self.apply(Connection::default(), 0, action);
        if is_alive && !late {
            self.end(i, session, &applied, true);
        } else {
            assert_eq!(applied, nothing(Reply::Nobody));
        }
    }

    fn end(&mut self, i: usize, session: SessionId, applied: &Applied, expired: bool) {
        self.model.end_session(session);
        self.compare_changes(&applied.changes);
        let client = &mut self.clients[i];
        client.is_alive = false;
        let connection = client.connection;
        assert_eq!(
            applied.session,
            Some(SessionEvent::Ended {
                session,
                connection,
                expired
            })
        );
    }

    fn write(&mut self, i: usize, write: Write) {
        let Some(session) = self.clients[i].session else {
            return;
        };
        let ids = identities(i);
        let digest = self.state.digest();
        let applied = self.apply_as(i, action(session, i, write.clone()));
        if self.clients[i].is_alive {
            let expected = self.model.write(session, &ids, write);
            assert_eq!(applied.reply, Reply::Write(expected));
        } else {
            // What the request alone decides comes first.
            assert!(matches!(
                applied.reply,
                Reply::Write(Err(OpError::SessionExpired | OpError::BadArguments))
            ));
            assert_eq!(self.state.digest(), digest);
        }
        self.compare_changes(&applied.changes);
    }

    fn late(&mut self, i: usize, write: &Write) {
        let client = self.clients[i].clone();
        let (Some(session), true) = (client.session, client.is_alive) else {
            return;
        };
        let digest = self.state.digest();
        let applied = self.apply(
            client.old,
            client.sequence,
            action(session, i, write.clone()),
        );
        let refusal = Reply::Write(Err(OpError::SessionMoved));
        assert_eq!(applied, nothing(refusal));
        // After a gap, and when it comes again, it counts for nothing.
        for other in [client.sequence + 1, client.sequence.wrapping_sub(1)] {
            let applied = self.apply(client.connection, other, action(session, i, write.clone()));
            assert_eq!(applied, nothing(Reply::Void));
        }
        assert_eq!(self.state.digest(), digest);
    }

    fn reap(&mut self, never_used_ms: i64) {
        let mut paths = self.state.reapable(self.now, never_used_ms, usize::MAX);
        let due: Vec<&String> = self
            .model
            .nodes
            .keys()
            .filter(|path| self.model.is_due(path, self.now, never_used_ms))
            .collect();
        let mut listed: Vec<&String> = paths.iter().collect();
        listed.sort();
        assert_eq!(listed, due);
        // What is not due stays, whoever asks.
        paths.extend(["/a", "/b", "/a/a", "/a/b", "/nop"].map(str::to_owned));
        let action = Action::Reap {
            paths: paths.clone(),
            never_used_ms,
        };
        let applied = self.apply(Connection::default(), 0, action);
        for path in paths {
            if self.model.is_due(&path, self.now, never_used_ms) {
                self.model.remove(&path);
            }
        }
        self.compare_changes(&applied.changes);
    }

    /// Also keeps a view, which must not change any more.
    fn reload(&mut self) {
        let view = self.state.view();
        let written = written(&view);
        let loaded = State::load(&mut &written[..]).expect("a snapshot loads");
        assert_eq!(loaded.digest(), self.state.digest());
        assert_eq!(loaded.last_zxid(), self.state.last_zxid());
        self.state = loaded;
        self.views.push((self.twin.view(), written));
    }

    fn apply_as(&mut self, i: usize, action: Action) -> Applied {
        let client = &mut self.clients[i];
        client.sequence += 1;
        let (connection, sequence) = (client.connection, client.sequence - 1);
        self.apply(connection, sequence, action)
    }

    fn apply(&mut self, connection: Connection, sequence: u64, action: Action) -> Applied {
        self.zxid += 1;
        self.model.zxid = self.zxid;
        self.model.now = self.now;
        self.model.events.clear();
        let command = Command {
            time_ms: self.now,
            origin: Origin {
                connection,
                sequence,
            },
            rules: Rules::default(),
            action,
        };
        let applied = self.state.apply(Zxid(self.zxid), command.clone());
        assert_eq!(self.twin.apply(Zxid(self.zxid), command), applied);
        applied
    }

    fn connect(&mut self) -> Connection {
        self.connections += 1;
        Connection {
            server: 1,
            number: self.connections,
        }
    }

    fn compare_changes(&self, changes: &[Change]) {
        let events: Vec<Event> = changes
            .iter()
            .map(|change| {
                let parent_acl = match change.kind {
                    ChangeKind::DataChanged => Vec::new(),
                    _ => change.parent_acl.to_vec(),
                };
                let path = change.path.to_string();
                (change.kind, path, change.acl.to_vec(), parent_acl)
            })
            .collect();
        assert_eq!(events, self.model.events);
    }

    /// Everything that can be read.
    fn compare(&self) {
        let state = &self.state;
        assert_eq!(state.audit(1), []);
        let nodes = &self.model.nodes;
        assert_eq!(state.node_count(), nodes.len() as u64 + 1);
        let bytes: usize = nodes
            .iter()
            .map(|(path, node)| path.len() + node.data.as_ref().map_or(0, Vec::len))
            .sum();
        assert_eq!(state.approximate_data_size(), bytes as u64);
        let reader = Reader {
            identities: &[],
            session: SessionId::new(1).expect("not zero"),
            skip_acl: true,
        };
        for (path, node) in nodes {
            let path = path.clone();
            assert_eq!(state.node_acl(&path).as_deref(), Some(&node.acl[..]));
            assert_eq!(state.stat(&path), Some(node.stat), "{path}");
            let children = Query::GetChildren { path: path.clone() };
            let names = node.children.iter().map(|name| name.as_str().into());
            assert_eq!(
                state.read(&children, &reader),
                Ok(Response::Strings(names.collect()))
            );
            let data = node.data.as_deref().map(Into::into);
            let stat = node.stat;
            assert_eq!(
                state.read(&Query::GetData { path }, &reader),
                Ok(Response::Data { data, stat })
            );
        }
        let mut ephemerals = 0;
        for client in &self.clients {
            if let Some(session) = client.session {
                let paths = self.model.ephemerals(session);
                assert_eq!(state.ephemerals(session).collect::<Vec<_>>(), paths);
                assert_eq!(state.ephemeral_count_of(session), paths.len());
                assert_eq!(state.session(session).is_some(), client.is_alive);
                ephemerals += paths.len() as u64;
            }
        }
        assert!(state.ephemeral_count() >= ephemerals);
        assert_eq!(state.digest(), self.twin.digest());
    }

    fn finish(&self) {
        assert!(written(&self.state.view()) == written(&self.twin.view()));
        for (view, then) in &self.views {
            assert!(written(view) == *then, "a view does not change");
        }
    }
}

fn action(session: SessionId, i: usize, write: Write) -> Action {
    Action::Write {
        session,
        identities: identities(i),
        write,
    }
}

/// The first client has proved nothing, the others somebody each.
fn identities(i: usize) -> Arc<[Id]> {
    match i {
        0 => Arc::new([]),
        i => Arc::new([Id::digest(format!("user{i}:secret").as_bytes())]),
    }
}

fn nothing(reply: Reply) -> Applied {
    Applied {
        reply,
        changes: Vec::new(),
        session: None,
    }
}

fn written(view: &StateView) -> Vec<u8> {
    let mut out = Vec::new();
    view.write(&mut out).expect("a view can be written");
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_state_does_what_the_model_does(steps in steps()) {
        let mut world = World::new();
        (0..CLIENTS).for_each(|i| world.open(i));
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
