//! Runs the commands of one script.
//!
//! Every applied command takes the next zxid, from 1, and happens one millisecond after the one
//! before, from 1000. Clients are capital letters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_protocol::multi::ReadOp;
use quorate_protocol::request::Watched;
use quorate_protocol::{Id, Password, SessionId, Zxid};
use quorate_state::{
    Action, Applied, Command, Configuration, Connection, Origin, Query, Reader, Reply, Rules,
    SessionEvent, State,
};

use crate::parse::{self, Words};
use crate::print;

pub(crate) struct Runner {
    state: State,
    zxid: i64,
    time_ms: i64,
    rules: Rules,
    clients: BTreeMap<String, Client>,
    connections: u64,
}

struct Client {
    session: SessionId,
    connection: Connection,
    /// Of the connection before.
    old: Option<(Connection, u64)>,
    sequence: u64,
    attached_at: Zxid,
    identities: Arc<[Id]>,
}

const PASSWORD: [u8; 16] = *b"sixteen letters!";

impl Runner {
    pub(crate) fn new() -> Self {
        Self {
            state: State::new(),
            zxid: 0,
            time_ms: 999,
            rules: Rules::default(),
            clients: BTreeMap::new(),
            connections: 0,
        }
    }

    pub(crate) fn run(&mut self, command: &str) -> Vec<String> {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let lines = match verb {
            "open" => self.open(rest),
            "attach" => self.attach(rest),
            "close" => self.close(rest),
            "expire" => self.expire(rest),
            "skip" => {
                self.zxid += 1;
                self.state.skip(Zxid(self.zxid));
                Vec::new()
            }
            "admit" => self.admit(rest),
            "configure" => self.configure(rest),
            "wait" => {
                self.time_ms += rest.parse::<i64>().expect("milliseconds to wait");
                Vec::new()
            }
            "rules" => self.set_rules(rest),
            "auth" => self.auth(rest),
            "sessions" => self.sessions(),
            "totals" => vec![format!(
                "znodes {} ephemerals {} sessions {} bytes {} zxid {} soft {}",
                self.state.node_count(),
                self.state.ephemeral_count(),
                self.state.session_count(),
                self.state.approximate_data_size(),
                self.state.last_zxid().0,
                self.state.soft_quota_exceeded_count(),
            )],
            "reapable" => self.reapable(rest),
            "reap" => self.reap(rest),
            client => self.request(client, rest),
        };
        self.check_snapshot();
        lines
    }

    fn open(&mut self, rest: &str) -> Vec<String> {
        let mut words = Words::new(rest);
        let timeout_ms = words.number("timeout").unwrap_or(4000);
        let server = words.number("server").unwrap_or(1);
        let name = words.next();
        let connection = self.connect(server);
        let action = Action::OpenSession {
            timeout_ms,
            password: Password::new(PASSWORD),
        };
        let applied = self.apply(connection, 0, action);
        if let Reply::Session(Some(grant)) = &applied.reply {
            let client = Client {
                session: grant.session,
                connection,
                old: None,
                sequence: 1,
                attached_at: Zxid(self.zxid),
                identities: Arc::new([]),
            };
            self.clients.insert(name.to_owned(), client);
        }
        print::applied(&applied)
    }

    fn attach(&mut self, rest: &str) -> Vec<String> {
        let mut words = Words::new(rest);
        let timeout_ms = words.number("timeout").unwrap_or(4000);
        let server = words.number("server").unwrap_or(1);
        let password = words.named("password").map_or(PASSWORD.to_vec(), Vec::from);
        let name = words.next();
        let connection = self.connect(server);
        let action = Action::AttachSession {
            session: self.clients[name].session,
            password: password.into(),
            timeout_ms,
        };
        let applied = self.apply(connection, 0, action);
        if let Some(SessionEvent::Attached { attached_at, .. }) = applied.session {
            let client = self.clients.get_mut(name).expect("a known client");
            client.old = Some((client.connection, client.sequence));
            client.connection = connection;
            client.sequence = 1;
            client.attached_at = attached_at;
        }
        print::applied(&applied)
    }

    fn close(&mut self, rest: &str) -> Vec<String> {
        let (connection, sequence, name) = self.origin(rest);
        let session = self.clients[&name].session;
        let applied = self.apply(connection, sequence, Action::CloseSession { session });
        print::applied(&applied)
    }

    fn expire(&mut self, rest: &str) -> Vec<String> {
        let mut words = Words::new(rest);
        let attached_at = words.number("attached");
        let client = &self.clients[words.next()];
        let action = Action::ExpireSession {
            session: client.session,
            attached_at: attached_at.map_or(client.attached_at, Zxid),
        };
        let applied = self.apply(Connection::default(), 0, action);
        print::applied(&applied)
    }

    fn reap(&mut self, rest: &str) -> Vec<String> {
        let mut words = Words::new(rest);
        let never_used_ms = words.number("never_used").unwrap_or(0);
        let action = Action::Reap {
            paths: rest
                .split_whitespace()
                .filter(|word| word.starts_with('/'))
                .map(str::to_owned)
                .collect(),
            never_used_ms,
        };
        let applied = self.apply(Connection::default(), 0, action);
        print::applied(&applied)
    }

    fn admit(&mut self, rest: &str) -> Vec<String> {
        let mut words = Words::new(rest);
        let incarnation = words.number("incarnation").unwrap_or(1);
        let server = words.next().parse().expect("the id of a server");
        let action = Action::Admit {
            server,
            incarnation,
        };
        let applied = self.apply(Connection::default(), 0, action);
        print::applied(&applied)
    }

    /// Each word after the time is a member's line.
    fn configure(&mut self, rest: &str) -> Vec<String> {
        let mut words = Words::new(rest);
        let changed_ms = words.number("changed").unwrap_or(0);
        let mut members = String::new();
        let mut servers = BTreeSet::new();
        while let Some(member) = words.rest() {
            let id = member
                .trim_start_matches("server.")
                .split('=')
                .next()
                .unwrap_or_default();
            servers.insert(id.parse().expect("server.N=..."));
            members.push_str(member);
            members.push('\n');
        }
        self.zxid += 1;
        let configuration = Configuration {
            members,
            changed_ms,
            servers,
        };
        let changes = self.state.configure(Zxid(self.zxid), &configuration);
        let version = self.state.configuration_version();
        let mut lines: Vec<String> = changes.iter().map(print::change).collect();
        let admitted = (0..10).filter_map(|server| {
            let incarnation = self.state.incarnation_of(server)?;
            Some(format!("server {server} has incarnation {incarnation}"))
        });
        lines.extend(admitted);
        lines.push(format!("version {version:?}"));
        lines
    }

    fn reapable(&mut self, rest: &str) -> Vec<String> {
        let mut words = Words::new(rest);
        let never_used_ms = words.number("never_used").unwrap_or(0);
        let max = words.number("max").unwrap_or(100);
        vec![format!(
            "{:?}",
            self.state.reapable(self.time_ms, never_used_ms, max)
        )]
    }

    fn set_rules(&mut self, rest: &str) -> Vec<String> {
        self.rules = Rules::default();
        for rule in rest.split_whitespace() {
            match rule {
                "skip_acl" => self.rules.skip_acl = true,
                "enforce_quota" => self.rules.enforce_quota = true,
                "ttl_disabled" => self.rules.ttl_disabled = true,
                _ => panic!("{rule} is no rule"),
            }
        }
        Vec::new()
    }

    fn auth(&mut self, rest: &str) -> Vec<String> {
        let mut words = Words::new(rest);
        let name = words.next();
        let mut identities = Vec::new();
        while let Some(identity) = words.rest() {
            identities.push(parse::identity(identity));
        }
        let client = self.clients.get_mut(name).expect("a known client");
        client.identities = identities.into();
        Vec::new()
    }

    fn sessions(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .state
            .sessions()
            .map(|(id, session)| {
                let Connection { server, number } = session.connection();
                format!(
                    "{id} timeout {} connection {server}/{number} attached at {} ephemerals {:?}",
                    session.timeout_ms,
                    session.attached_at.0,
                    self.state.ephemerals(id).collect::<Vec<_>>()
                )
            })
            .collect();
        lines.sort();
        lines
    }

    fn request(&mut self, who: &str, rest: &str) -> Vec<String> {
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some(write) = parse::write(verb, rest) {
            let (connection, sequence, name) = self.origin(who);
            let client = &self.clients[&name];
            let action = Action::Write {
                session: client.session,
                identities: Arc::clone(&client.identities),
                write,
            };
            return print::applied(&self.apply(connection, sequence, action));
        }
        let client = &self.clients[who];
        let reader = Reader {
            identities: &client.identities,
            session: client.session,
            skip_acl: self.rules.skip_acl,
        };
        print::result(&self.state.read(&query(verb, rest), &reader))
    }

    /// `A` is client A as it should be; `A@old` writes from its connection before, `A@gap` leaves a
    /// proposal out.
    fn origin(&mut self, who: &str) -> (Connection, u64, String) {
        let (name, how) = who.split_once('@').unwrap_or((who, ""));
        let client = self.clients.get_mut(name).expect("a known client");
        let (connection, sequence) = match how {
            "" => {
                client.sequence += 1;
                (client.connection, client.sequence - 1)
            }
            "old" => client.old.expect("a client that was attached again"),
            "gap" => (client.connection, client.sequence + 1),
            _ => panic!("{how} is no way to write"),
        };
        (connection, sequence, name.to_owned())
    }

    fn connect(&mut self, server: u64) -> Connection {
        self.connections += 1;
        Connection {
            server,
            number: self.connections,
        }
    }

    fn apply(&mut self, connection: Connection, sequence: u64, action: Action) -> Applied {
        self.zxid += 1;
        self.time_ms += 1;
        let command = Command {
            time_ms: self.time_ms,
            origin: Origin {
                connection,
                sequence,
            },
            rules: self.rules,
            action,
        };
        let stored = command.encode(0).expect("a command encodes");
        let command = Command::decode(&stored).expect("a stored command decodes");
        let applied = self.state.apply(Zxid(self.zxid), command);
        assert_eq!(self.state.last_zxid(), Zxid(self.zxid));
        applied
    }

    fn check_snapshot(&self) {
        let written = snapshot(&self.state);
        let copy = State::load(&mut &written[..]).expect("a snapshot loads");
        assert_eq!(copy.digest(), self.state.digest());
        assert!(
            snapshot(&copy) == written,
            "a loaded state is written alike"
        );
    }
}

fn snapshot(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    state.view().write(&mut out).expect("a view can be written");
    out
}

fn query(verb: &str, rest: &str) -> Query {
    let path = || parse::unescape(rest);
    match verb {
        "exists" => Query::Exists { path: path() },
        "get" => Query::GetData { path: path() },
        "acl" => Query::GetAcl { path: path() },
        "ls" => Query::GetChildren { path: path() },
        "ls2" => Query::GetChildren2 { path: path() },
        "count" => Query::GetAllChildrenNumber { path: path() },
        "ephemerals" => Query::GetEphemerals {
            prefix: (rest != "null").then(path),
        },
        "multiread" => Query::MultiRead(
            rest.split(';')
                .map(|op| {
                    let (verb, path) = op.trim().split_once(' ').expect("an operation and a path");
                    let read = Watched {
                        path: parse::unescape(path),
                        watch: false,
                    };
                    match verb {
                        "get" => ReadOp::GetData(read),
                        "ls" => ReadOp::GetChildren(read),
                        _ => panic!("{verb} is no operation of a multiRead"),
                    }
                })
                .collect(),
        ),
        _ => panic!("{verb} is no request"),
    }
}
