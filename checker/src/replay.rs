//! The log, applied again: a naive tree and a table of sessions, by the rules that every replica
//! follows.
//!
//! [`Replay::apply`] says what an entry did. Whether anyone was told the truth about it is for
//! others to judge.

use std::collections::BTreeMap;

use quorate_protocol::ErrorCode;

use crate::history::{LogCommand, LogEntry, Origin, Reply};
use crate::tree::{Author, Change, Tree};

/// A session, as the log has it.
#[derive(Clone, Debug)]
pub struct Session {
    pub timeout_ms: i32,
    password: u64,
    /// Server and number of the connection that it belongs to.
    connection: (u64, u64),
    next_sequence: u64,
    attached_at: i64,
}

/// What an entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that a client could be told of.
    Nothing,
    /// It was not the next of its connection: as if it were not in the log.
    Void,
    /// It came from a connection that has lost its session, and did nothing.
    Moved,
    Opened {
        session: i64,
    },
    Attached {
        session: i64,
    },
    AttachRefused {
        session: i64,
    },
    Written(Result<Reply, ErrorCode>),
    Ended {
        session: i64,
        expired: bool,
    },
    /// A session was to expire that has been attached since.
    NotExpired {
        session: i64,
    },
    /// Nobody here knows what it did: from here on nothing can be judged.
    Unknown,
}

/// The state that all entries so far make.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    pub tree: Tree,
    pub sessions: BTreeMap<i64, Session>,
    /// An entry was met that nobody here understands.
    pub is_lost: bool,
}

enum Inadmissible {
    Expired,
    Moved,
    OutOfOrder,
}

impl Replay {
    /// Applies one entry, and adds what it did to the tree to `changes`.
    pub fn apply(&mut self, entry: &LogEntry, changes: &mut Vec<Change>) -> Effect {
        let zxid = entry.zxid;
        match &entry.command {
            LogCommand::Blank => Effect::Nothing,
            LogCommand::Open {
                session,
                timeout_ms,
                password,
            } => {
                let opened = session_of(entry.origin, *timeout_ms, *password, zxid);
                self.sessions.insert(*session, opened);
                Effect::Opened { session: *session }
            }
            LogCommand::Attach {
                session,
                timeout_ms,
                password,
            } => match self.sessions.get(session) {
                Some(known) if known.password == *password => {
                    if known.connection == connection_of(entry.origin) {
                        return Effect::Void;
                    }
                    let attached = session_of(entry.origin, *timeout_ms, *password, zxid);
                    self.sessions.insert(*session, attached);
                    Effect::Attached { session: *session }
                }
                _ => Effect::AttachRefused { session: *session },
            },
            LogCommand::Close { session } => match self.admit(*session, entry.origin) {
                Ok(()) => self.end(*session, zxid, false, changes),
                Err(Inadmissible::OutOfOrder) => Effect::Void,
                Err(Inadmissible::Moved) => Effect::Moved,
                Err(Inadmissible::Expired) => Effect::Written(Err(ErrorCode::SessionExpired)),
            },
            LogCommand::Expire {
                session,
                attached_at,
            } => match self.sessions.get(session) {
                Some(known) if known.attached_at == *attached_at => {
                    self.end(*session, zxid, true, changes)
                }
                _ => Effect::NotExpired { session: *session },
            },
            LogCommand::Write {
                session,
                identities,
                rules,
                write,
            } => {
                match self.admit(*session, entry.origin) {
                    Ok(()) => {}
                    Err(Inadmissible::OutOfOrder) => return Effect::Void,
                    Err(Inadmissible::Moved) => return Effect::Moved,
                    Err(Inadmissible::Expired) => {
                        return Effect::Written(Err(ErrorCode::SessionExpired));
                    }
                }
                let author = Author {
                    zxid,
                    time_ms: entry.time_ms,
                    session: *session,
                    identities,
                    rules: *rules,
                };
                Effect::Written(self.tree.write(&author, write, changes))
            }
            LogCommand::Reap {
                paths,
                never_used_ms,
            } => {
                let when = (zxid, entry.time_ms);
                self.tree.reap(when, paths, *never_used_ms, changes);
                Effect::Nothing
            }
            LogCommand::Configure {
                members,
                changed_ms,
            } => {
                self.tree.configure(zxid, members, *changed_ms, changes);
                Effect::Nothing
            }
            LogCommand::Unknown { .. } => {
                self.is_lost = true;
                Effect::Unknown
            }
        }
    }

    /// Whether an entry is the next of the connection that the session belongs to.
    fn admit(&mut self, session: i64, origin: Origin) -> Result<(), Inadmissible> {
        let known = self
            .sessions
            .get_mut(&session)
            .ok_or(Inadmissible::Expired)?;
        if known.connection != connection_of(origin) {
            return Err(Inadmissible::Moved);
        }
        if known.next_sequence != origin.sequence {
            return Err(Inadmissible::OutOfOrder);
        }
        known.next_sequence += 1;
        Ok(())
    }

    fn end(&mut self, session: i64, zxid: i64, expired: bool, changes: &mut Vec<Change>) -> Effect {
        self.tree.end_session(session, zxid, changes);
        self.sessions.remove(&session);
        Effect::Ended { session, expired }
    }
}

fn connection_of(origin: Origin) -> (u64, u64) {
    (origin.server, origin.connection)
}

fn session_of(origin: Origin, timeout_ms: i32, password: u64, attached_at: i64) -> Session {
    Session {
        timeout_ms,
        password,
        connection: connection_of(origin),
        next_sequence: origin.sequence + 1,
        attached_at,
    }
}
