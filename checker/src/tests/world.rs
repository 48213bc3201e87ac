//! An ensemble in one variable: the server's state and watches, without network and disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_protocol::{ErrorCode, Id, Password, Request as Wire, Response, SessionId, Zxid};
use quorate_state::{
    Action, Applied, Command, Connection, Event, Origin, Query, Reader, Rules, State, WatchKind,
    WatchTable, WatcherType, Write, rearm,
};

use crate::History;
use crate::history::{
    DigestAt, EventKind, FinalTree, FinalZnode, Header, LogEntry, Operation, Outcome, Path, Reply,
    Request, SessionRecord, SessionStep, WatchEvent,
};

/// The time of one step.
pub(super) const STEP: u64 = 1_000_000;
pub(super) const TIMEOUT_MS: u32 = 4_000;

struct Line {
    client: u32,
    server: u64,
    session: SessionId,
    sequence: u32,
    proposals: u64,
    arrival: u32,
    identities: Arc<[Id]>,
    last_invoked: u64,
    last_returned: u64,
    seen: i64,
}

/// A server whose state may be behind.
struct Server {
    state: State,
    watches: WatchTable,
    behind: VecDeque<(Zxid, Option<Command>)>,
}

pub(super) struct World {
    /// What is committed.
    state: State,
    servers: BTreeMap<u64, Server>,
    pub(super) history: History,
    lines: BTreeMap<u32, Line>,
    zxid: i64,
    pub(super) now: u64,
    pub(super) term: u64,
    /// How far before and after its effect an operation begins and ends at the most.
    pub(super) spread: (u64, u64),
}

impl World {
    pub(super) fn new() -> Self {
        let server = || Server {
            state: State::new(),
            watches: WatchTable::new(),
            behind: VecDeque::new(),
        };
        Self {
            state: State::new(),
            servers: (1..=3).map(|number| (number, server())).collect(),
            history: History {
                header: Header {
                    servers: vec![1, 2, 3],
                    election: 100 * STEP,
                    tick: 100 * STEP,
                    ..Header::default()
                },
                log: Some(crate::history::Log::default()),
                ..History::default()
            },
            lines: BTreeMap::new(),
            zxid: 0,
            now: 1_000 * STEP,
            term: 1,
            spread: (STEP / 4, STEP / 4),
        }
    }

    /// Commits a command and applies it where the origin is; the others are behind.
    fn commit(&mut self, server: u64, origin: Origin, action: Action) -> (i64, Applied) {
        self.zxid += 1;
        let zxid = Zxid(self.zxid);
        let command = Command {
            time_ms: (self.now / STEP).cast_signed(),
            origin,
            rules: Rules::default(),
            action,
        };
        let entry = LogEntry::of_command(zxid, self.term, command.clone());
        self.history.log.as_mut().unwrap().entries.push(entry);
        let applied = self.state.apply(zxid, command.clone());
        for server in self.servers.values_mut() {
            server.behind.push_back((zxid, Some(command.clone())));
        }
        self.catch_up(server);
        (self.zxid, applied)
    }

    /// Lets a server apply all that is committed.
    pub(super) fn catch_up(&mut self, number: u64) {
        let Server {
            state,
            watches,
            behind,
        } = self.servers.get_mut(&number).unwrap();
        while let Some((zxid, command)) = behind.pop_front() {
            let Some(command) = command else {
                state.skip(zxid);
                continue;
            };
            let applied = state.apply(zxid, command);
            let lines = &mut self.lines;
            let events = &mut self.history.events;
            let now = self.now;
            watches.trigger(&applied.changes, &mut |event: Event<'_>| {
                let connection = u32::try_from(event.connection).unwrap();
                let line = lines.get_mut(&connection).unwrap();
                if !quorate_state::permits(
                    event.acl,
                    quorate_protocol::Perms::READ,
                    &line.identities,
                ) {
                    return;
                }
                line.arrival += 1;
                events.push(WatchEvent {
                    client: line.client,
                    connection,
                    server: number,
                    session: line.session.get(),
                    arrival: line.arrival,
                    at: now.max(line.last_returned),
                    kind: EventKind::from_code(event.kind.code()).unwrap(),
                    path: event.path.into(),
                    zxid: Some(zxid.0),
                });
            });
            self.history.digests.push(DigestAt {
                server: number,
                zxid: zxid.0,
                digest: state.digest(),
            });
        }
    }

    fn next_connection(&self) -> u32 {
        self.lines.keys().last().map_or(1, |last| last + 1)
    }

    fn greet(
        &mut self,
        client: u32,
        server: u64,
        session: Option<(SessionId, i64)>,
    ) -> Option<u32> {
        let number = self.next_connection();
        let from = self.now;
        self.now += STEP;
        let origin = Origin {
            connection: Connection {
                server,
                number: number.into(),
            },
            sequence: 0,
        };
        let timeout_ms = TIMEOUT_MS.cast_signed();
        let action = match session {
            None => Action::OpenSession {
                timeout_ms,
                password: password(),
            },
            Some((session, _)) => Action::AttachSession {
                session,
                password: password().as_bytes().to_vec().into(),
                timeout_ms,
            },
        };
        let (zxid, applied) = self.commit(server, origin, action);
        let quorate_state::Reply::Session(grant) = applied.reply else {
            panic!("{applied:?} is no answer to a handshake");
        };
        let step = match (session, &grant) {
            (None, Some(_)) => SessionStep::Opened {
                timeout_ms: TIMEOUT_MS,
            },
            (Some((_, seen)), Some(_)) => SessionStep::Resumed {
                timeout_ms: TIMEOUT_MS,
                seen,
            },
            (_, None) => SessionStep::Refused {
                wrong_password: false,
            },
        };
        let granted = grant.map(|grant| grant.session);
        let named = granted.or(session.map(|(session, _)| session));
        self.history.sessions.push(SessionRecord {
            client,
            connection: number,
            server,
            session: named.map_or(0, SessionId::get),
            from,
            at: self.now,
            step,
        });
        let line = Line {
            client,
            server,
            session: granted?,
            sequence: 0,
            proposals: 1,
            arrival: 0,
            identities: Arc::new([Id::new("world", "anyone")]),
            last_invoked: self.now,
            last_returned: self.now,
            seen: zxid,
        };
        self.lines.insert(number, line);
        self.now += STEP;
        Some(number)
    }

    /// A new session.
    pub(super) fn open(&mut self, client: u32, server: u64) -> u32 {
        self.greet(client, server, None).unwrap()
    }

    /// The client goes to another server with its session, if that lives.
    pub(super) fn resume(&mut self, connection: u32, server: u64) -> Option<u32> {
        let line = &self.lines[&connection];
        let (client, session, seen) = (line.client, line.session, line.seen);
        let watches = &mut self.servers.get_mut(&line.server).unwrap().watches;
        watches.remove_connection(connection.into());
        self.greet(client, server, Some((session, seen)))
    }

    /// The leader finds the session silent.
    pub(super) fn expire(&mut self, connection: u32) {
        let session = self.lines[&connection].session;
        let attached_at = self.attached_at(session);
        let action = Action::ExpireSession {
            session,
            attached_at,
        };
        self.commit(1, Origin::default(), action);
        self.now += STEP;
    }

    fn attached_at(&self, session: SessionId) -> Zxid {
        let log = self.history.log.as_ref().unwrap();
        let attached = log.entries.iter().rev().find(|entry| {
            matches!(
                entry.command,
                crate::history::LogCommand::Open { session: id, .. }
                | crate::history::LogCommand::Attach { session: id, .. } if id == session.get()
            )
        });
        Zxid(attached.unwrap().zxid)
    }

    pub(super) fn seen(&self, connection: u32) -> i64 {
        self.lines[&connection].seen
    }

    /// Asks, is answered, and says where in the history that is.
    pub(super) fn ask(&mut self, connection: u32, request: Request) -> usize {
        self.ask_with(connection, request, true, true)
    }

    /// Asks, and the connection ends before the answer: it was done or not.
    pub(super) fn ask_in_vain(
        &mut self,
        connection: u32,
        request: Request,
        is_done: bool,
    ) -> usize {
        self.ask_with(connection, request, is_done, false)
    }

    fn ask_with(
        &mut self,
        connection: u32,
        request: Request,
        is_done: bool,
        is_answered: bool,
    ) -> usize {
        let now = self.now;
        let (before, after) = self.spread;
        let line = self.lines.get_mut(&connection).unwrap();
        let invoked = (now - before).max(line.last_invoked);
        let returned = (now + after).max(line.last_returned);
        line.last_invoked = invoked;
        line.last_returned = returned;
        let (client, server, session) = (line.client, line.server, line.session);
        let sequence = line.sequence;
        line.sequence += 1;
        let mut outcome = Outcome::Unknown;
        if is_done {
            outcome = self.serve(connection, &request);
        }
        let line = self.lines.get_mut(&connection).unwrap();
        let mut arrival = 0;
        if is_answered {
            line.arrival += 1;
            arrival = line.arrival;
            line.seen = line.seen.max(outcome.zxid().unwrap());
        } else {
            outcome = Outcome::Unknown;
        }
        self.history.operations.push(Operation {
            client,
            connection,
            server,
            session: session.get(),
            sequence,
            invoked,
            returned: is_answered.then_some(returned),
            arrival,
            request,
            outcome,
        });
        self.now += STEP;
        self.history.header.duration = self.now;
        self.history.operations.len() - 1
    }

    fn serve(&mut self, connection: u32, request: &Request) -> Outcome {
        if let Request::Authenticate { identity } = request {
            let line = self.lines.get_mut(&connection).unwrap();
            let known = line.identities.iter().cloned();
            line.identities = known.chain([identity.clone()]).collect();
            return Outcome::Done {
                zxid: 0,
                reply: Reply::Nothing,
            };
        }
        let wire = request.to_wire().unwrap();
        let line = self.lines.get_mut(&connection).unwrap();
        let (server, session) = (line.server, line.session);
        if let Some(action) = action_of(&wire, session, &line.identities) {
            let origin = Origin {
                connection: Connection {
                    server,
                    number: connection.into(),
                },
                sequence: line.proposals,
            };
            line.proposals += 1;
            let (zxid, applied) = self.commit(server, origin, action);
            let quorate_state::Reply::Write(result) = applied.reply else {
                panic!("{applied:?} is no answer to a write");
            };
            return outcome_of(zxid, result.map_err(quorate_state::OpError::code));
        }
        if let Wire::Sync(_) | Wire::Ping = &wire {
            self.catch_up(server);
        }
        let line = &self.lines[&connection];
        let identities = Arc::clone(&line.identities);
        let Server { state, watches, .. } = self.servers.get_mut(&server).unwrap();
        let zxid = state.last_zxid().0;
        let number = u64::from(connection);
        let found = |found: bool| match found {
            true => Ok(Response::Empty),
            false => Err(ErrorCode::NoWatcher),
        };
        let result = match wire {
            Wire::Sync(sync) => Ok(Response::Path(sync.path.into())),
            Wire::Ping => Ok(Response::Empty),
            Wire::AddWatch(add) => {
                let kind = WatchKind::from_add_watch_mode(add.mode).unwrap();
                watches.add(number, &add.path, kind);
                Ok(Response::WatchAdded)
            }
            Wire::RemoveWatches(remove) => {
                let kind = WatcherType::from_code(remove.watcher_type).unwrap();
                found(watches.remove(number, &remove.path, kind))
            }
            Wire::SetWatches2(set) => {
                let mut made_up = Vec::new();
                rearm(
                    watches,
                    number,
                    &set,
                    |path| state.stat(path),
                    |kind, path| {
                        let acl = state.node_acl(path).unwrap_or_default();
                        let read = quorate_protocol::Perms::READ;
                        if quorate_state::permits(&acl, read, &identities) {
                            made_up.push((kind, Path::from(path)));
                        }
                    },
                );
                for (kind, path) in made_up {
                    let line = self.lines.get_mut(&connection).unwrap();
                    line.arrival += 1;
                    self.history.events.push(WatchEvent {
                        client: line.client,
                        connection,
                        server,
                        session: session.get(),
                        arrival: line.arrival,
                        at: self.now,
                        kind: EventKind::from_code(kind.code()).unwrap(),
                        path,
                        zxid: None,
                    });
                }
                return outcome_of(zxid, Ok(Response::Empty));
            }
            wire => {
                let reader = Reader {
                    identities: &identities,
                    session,
                    skip_acl: false,
                };
                let result = state.read(&query_of(&wire), &reader);
                let code = result.as_ref().err().map(|error| error.code());
                leave_watch(watches, number, request, code);
                result.map_err(quorate_state::OpError::code)
            }
        };
        outcome_of(zxid, result)
    }

    /// What every server has in the end.
    pub(super) fn finish(mut self) -> History {
        for number in [1, 2, 3] {
            self.catch_up(number);
            let state = &self.servers[&number].state;
            let mut tree = FinalTree {
                server: number,
                zxid: state.last_zxid().0,
                exact: number != 3,
                digest: Some(state.digest()),
                znodes: BTreeMap::new(),
            };
            walk(state, "/", &mut tree);
            self.history.trees.push(tree);
        }
        self.history.header.duration = self.now;
        self.history
    }
}

fn walk(state: &State, path: &str, tree: &mut FinalTree) {
    let identities = [Id::superuser()];
    let reader = Reader {
        identities: &identities,
        session: SessionId::new(1).unwrap(),
        skip_acl: true,
    };
    let path_of = || path.to_owned();
    let data = state.read(&Query::GetData { path: path_of() }, &reader);
    let Ok(Response::Data { data, stat }) = data else {
        panic!("{path}: {data:?}");
    };
    let data = data.map(|data| data.into_owned());
    tree.znodes.insert(
        path.into(),
        FinalZnode {
            data: data.map_or(crate::history::Data::NULL, Into::into),
            stat,
        },
    );
    let names = state.read(&Query::GetChildren { path: path_of() }, &reader);
    let Ok(Response::Strings(names)) = names else {
        panic!("{path}: {names:?}");
    };
    for name in names {
        let below = match path {
            "/" => format!("/{name}"),
            path => format!("{path}/{name}"),
        };
        walk(state, &below, tree);
    }
}

fn password() -> Password {
    Password::new([7; 16])
}

fn outcome_of(zxid: i64, result: Result<Response<'_>, ErrorCode>) -> Outcome {
    match result {
        Ok(response) => Outcome::Done {
            zxid,
            reply: Reply::of_wire(response),
        },
        Err(code) => Outcome::Refused {
            zxid,
            code: code.code(),
        },
    }
}

fn leave_watch(watches: &mut WatchTable, number: u64, request: &Request, code: Option<ErrorCode>) {
    match (request, code) {
        (Request::Exists { path, watch: true }, None | Some(ErrorCode::NoNode))
        | (Request::GetData { path, watch: true }, None) => {
            watches.add(number, path, WatchKind::Data);
        }
        (Request::GetChildren { path, watch: true }, None) => {
            watches.add(number, path, WatchKind::Child);
        }
        _ => {}
    }
}

fn action_of(wire: &Wire, session: SessionId, identities: &Arc<[Id]>) -> Option<Action> {
    let write = match wire.clone() {
        Wire::Create(it) => Write::Create(it),
        Wire::Create2(it) => Write::Create2(it),
        Wire::CreateContainer(it) => Write::CreateContainer(it),
        Wire::CreateTtl(it) => Write::CreateTtl(it),
        Wire::Delete(it) => Write::Delete(it),
        Wire::SetData(it) => Write::SetData(it),
        Wire::SetAcl(it) => Write::SetAcl(it),
        Wire::Multi(it) => Write::Multi(it),
        Wire::CloseSession => return Some(Action::CloseSession { session }),
        _ => return None,
    };
    Some(Action::Write {
        session,
        identities: Arc::clone(identities),
        write,
    })
}

fn query_of(wire: &Wire) -> Query {
    match wire.clone() {
        Wire::Exists(it) => Query::Exists { path: it.path },
        Wire::GetData(it) => Query::GetData { path: it.path },
        Wire::GetAcl(it) => Query::GetAcl { path: it.path },
        Wire::GetChildren2(it) => Query::GetChildren2 { path: it.path },
        Wire::GetAllChildrenNumber(it) => Query::GetAllChildrenNumber { path: it.path },
        Wire::GetEphemerals(it) => Query::GetEphemerals { prefix: it.prefix },
        Wire::MultiRead(it) => Query::MultiRead(it),
        other => panic!("{other:?} is no read"),
    }
}
