//! Error codes, as in ZooKeeper's `KeeperException.Code`.

/// The `err` field of a reply. Zero (no error) is the absence of one.
///
/// Only codes that a server sends are here. Clients break on codes they do not know, so this list
/// does not grow by invention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ErrorCode {
    /// The server is at fault.
    SystemError = -1,
    /// In a failed multi: not attempted, because an earlier operation failed.
    RuntimeInconsistency = -2,
    /// The request does not decode, or holds an operation, mode or type that does not exist.
    MarshallingError = -5,
    /// The server does not offer this operation.
    Unimplemented = -6,
    /// A path, create flag, TTL or reconfiguration is not valid, or the znode may not be deleted.
    BadArguments = -8,
    /// No quorum of the proposed configuration is connected and in sync.
    NewConfigNoQuorum = -13,
    /// Another reconfiguration has not ended yet.
    ReconfigInProgress = -14,
    /// The znode, or the parent of one to create, does not exist.
    NoNode = -101,
    /// The connection's identities do not have the permission.
    NoAuth = -102,
    /// The znode has another version than the request names.
    BadVersion = -103,
    /// An ephemeral znode cannot have children.
    NoChildrenForEphemerals = -108,
    /// The znode to create exists.
    NodeExists = -110,
    /// The znode to delete has children.
    NotEmpty = -111,
    /// The session has ended. Clients give it up on any reply with this code.
    SessionExpired = -112,
    /// The ACL is empty, or has an entry that no znode can have.
    InvalidAcl = -114,
    /// Authentication was refused; the connection is closed. Clients never try again.
    AuthFailed = -115,
    /// Never on the wire: the connection is closed instead.
    SessionMoved = -118,
    /// A write came to a read-only server.
    NotReadOnly = -119,
    /// The connection has no watch of that type on the path.
    NoWatcher = -121,
    /// Reconfiguration is switched off.
    ReconfigDisabled = -123,
    /// The server demands authentication first; the connection is closed.
    SessionClosedRequireSaslAuth = -124,
    /// A hard quota would be exceeded.
    QuotaExceeded = -125,
    /// The request waited too long to be looked at.
    ThrottledOp = -127,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 23] = [
        Self::SystemError,
        Self::RuntimeInconsistency,
        Self::MarshallingError,
        Self::Unimplemented,
        Self::BadArguments,
        Self::NewConfigNoQuorum,
        Self::ReconfigInProgress,
        Self::NoNode,
        Self::NoAuth,
        Self::BadVersion,
        Self::NoChildrenForEphemerals,
        Self::NodeExists,
        Self::NotEmpty,
        Self::SessionExpired,
        Self::InvalidAcl,
        Self::AuthFailed,
        Self::SessionMoved,
        Self::NotReadOnly,
        Self::NoWatcher,
        Self::ReconfigDisabled,
        Self::SessionClosedRequireSaslAuth,
        Self::QuotaExceeded,
        Self::ThrottledOp,
    ];

    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The error with this number; `None` for 0 and for codes that no server sends.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.code() == code)
    }
}
