//! What comes out of applying one command.

use std::sync::Arc;

use quorate_protocol::{Acl, Password, Response, SessionId, Zxid};

use crate::command::Connection;
use crate::error::OpError;

/// The result of one command: what to tell its origin, what changed in the tree, and what became of
/// a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub reply: Reply,
    /// In the order in which watches fire. Empty when the command was refused.
    pub changes: Vec<Change>,
    pub session: Option<SessionEvent>,
}

/// What the origin is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Of `OpenSession` and `AttachSession`; `None` when there is no such session, or the password
    /// is wrong.
    Session(Option<SessionGrant>),
    /// Of a write and of `CloseSession`.
    Write(Result<Response<'static>, OpError>),
    /// The leader's own commands have nobody to tell.
    Nobody,
    /// The command was not the next of its connection, and so it has not been looked at: it is as if
    /// it were not in the log.
    Void,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionGrant {
    pub session: SessionId,
    pub password: Password,
    pub timeout_ms: i32,
}

/// One change of the tree, with the ACL that decides who may hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: Arc<str>,
    /// The znode's ACL: the new one for a create, the last one for a delete. Empty allows everyone.
    pub acl: Arc<[Acl]>,
    /// The parent's ACL, for the event about its children; for `DataChanged` it is not used.
    pub parent_acl: Arc<[Acl]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Created,
    Deleted,
    DataChanged,
}

/// What became of a session: for those who keep its timer and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Opened, or attached to a connection: its timer starts anew with this timeout.
    Attached {
        session: SessionId,
        connection: Connection,
        timeout_ms: i32,
        /// The command that attached it, which an expiry has to name.
        attached_at: Zxid,
        /// The connection that lost it, which is to be closed.
        from: Option<Connection>,
    },
    /// Closed by its client, or expired.
    Ended {
        session: SessionId,
        connection: Connection,
        expired: bool,
    },
}
