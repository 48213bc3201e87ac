//! Refusals that every replica agrees on.

use quorate_protocol::ErrorCode;

/// Why a request was refused. It holds only what command and state determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    #[error("the znode does not exist")]
    NoNode,
    #[error("the connection has no permission")]
    NoAuth,
    #[error("the version is {actual}, not {expected}")]
    BadVersion { expected: i32, actual: i32 },
    #[error("an ephemeral znode has no children")]
    NoChildrenForEphemerals,
    #[error("the znode exists")]
    NodeExists,
    #[error("the znode has {children} children")]
    NotEmpty { children: usize },
    #[error("the session has ended")]
    SessionExpired,
    /// The session belongs to another connection now, or a command before this one was lost. Not
    /// answered: the connection is closed.
    #[error("the session belongs to another connection")]
    SessionMoved,
    #[error("the ACL is not valid")]
    InvalidAcl,
    #[error("an argument is not valid")]
    BadArguments,
    #[error("the operation is not implemented")]
    Unimplemented,
    #[error("reconfiguration is disabled")]
    ReconfigDisabled,
    #[error("no watch of that kind is registered")]
    NoWatcher,
    #[error("a hard quota is exceeded")]
    QuotaExceeded,
    /// In a failed multi: what comes after the operation that failed.
    #[error("an earlier operation failed")]
    NotAttempted,
    /// A multi with create flags that nobody knows: ZooKeeper fails to decode it.
    #[error("the request does not decode")]
    Malformed,
    /// Of a multiRead, which may ask for the same large data again and again.
    #[error("the answer would be too large: ask for less at once")]
    AnswerTooLarge,
}

impl OpError {
    pub fn code(self) -> ErrorCode {
        match self {
            Self::NoNode => ErrorCode::NoNode,
            Self::NoAuth => ErrorCode::NoAuth,
            Self::BadVersion { .. } => ErrorCode::BadVersion,
            Self::NoChildrenForEphemerals => ErrorCode::NoChildrenForEphemerals,
            Self::NodeExists => ErrorCode::NodeExists,
            Self::NotEmpty { .. } => ErrorCode::NotEmpty,
            Self::SessionExpired => ErrorCode::SessionExpired,
            Self::SessionMoved => ErrorCode::SessionMoved,
            Self::InvalidAcl => ErrorCode::InvalidAcl,
            Self::BadArguments => ErrorCode::BadArguments,
            Self::Unimplemented => ErrorCode::Unimplemented,
            Self::ReconfigDisabled => ErrorCode::ReconfigDisabled,
            Self::NoWatcher => ErrorCode::NoWatcher,
            Self::QuotaExceeded => ErrorCode::QuotaExceeded,
            Self::NotAttempted => ErrorCode::RuntimeInconsistency,
            Self::Malformed => ErrorCode::MarshallingError,
            Self::AnswerTooLarge => ErrorCode::SystemError,
        }
    }
}
