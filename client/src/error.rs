//! What can go wrong with a request, and what each failure says about it.
//!
//! Every error names the operation and the path, and inside a transaction the place of the
//! operation that failed. [`Error::outcome`] is the question that matters after a failed write: was
//! it applied?

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::{ErrorCode, PathError};

/// What a request was about.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    operation: &'static str,
    path: Arc<str>,
    index: Option<usize>,
    /// Whether it changes anything.
    is_write: bool,
}

impl Target {
    pub(crate) fn read(operation: &'static str, path: &str) -> Self {
        Self {
            operation,
            path: path.into(),
            index: None,
            is_write: false,
        }
    }

    pub(crate) fn write(operation: &'static str, path: &str) -> Self {
        Self {
            is_write: true,
            ..Self::read(operation, path)
        }
    }

    pub(crate) fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// The operation, in one word: `create`, `get`, `commit`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The path, as the caller gave it. Empty for operations that have none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Inside a transaction, the place of the operation that failed, from 0.
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    pub(crate) fn is_write(&self) -> bool {
        self.is_write
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if !self.path.is_empty() {
            write!(f, " {}", self.path)?;
        }
        if let Some(index) = self.index {
            write!(f, " (operation {index} of the transaction)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether a write took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not, and it will not.
    NotApplied,
    /// It did.
    Applied,
    /// It may have: the connection was lost before the answer. Read before you decide, or see
    /// [`Create::protected`](crate::operation::Create::protected) and `idempotent`.
    Unknown,
}

/// Why a server refused a request. Nothing was applied, except where the text says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The znode, or the parent of one to create, does not exist.
    #[error("no such znode")]
    NoNode,
    /// The znode to create exists.
    #[error("the znode exists already")]
    NodeExists,
    /// The znode has another version than the request names.
    #[error("the znode has another version")]
    BadVersion,
    /// The znode to delete has children.
    #[error("the znode has children")]
    NotEmpty,
    /// The connection's identities do not have the permission.
    #[error("not permitted by the znode's ACL: authenticate, or ask for other permissions")]
    NoAuth,
    /// An ephemeral znode cannot have children.
    #[error("the parent is ephemeral, and cannot have children")]
    NoChildrenForEphemerals,
    /// The ACL is empty, or has an entry that no znode can have.
    #[error("the ACL is empty or has an invalid entry")]
    InvalidAcl,
    /// A path, mode, TTL or reconfiguration is not valid, or the znode may not be deleted.
    #[error("the server finds the arguments invalid")]
    BadArguments,
    /// A hard quota would be exceeded.
    #[error("a quota of the tree would be exceeded")]
    QuotaExceeded,
    /// A write came to a read-only server.
    #[error("the server is read-only, cut off from the majority")]
    NotReadOnly,
    /// The connection has no watch of that type on the path.
    #[error("there is no such watch")]
    NoWatcher,
    /// Reconfiguration is switched off.
    #[error("reconfiguration is switched off (reconfigEnabled)")]
    ReconfigDisabled,
    /// Another reconfiguration has not ended yet.
    #[error("another reconfiguration has not ended yet")]
    ReconfigInProgress,
    /// No quorum of the proposed configuration is connected and in sync.
    #[error("no quorum of the new configuration is in sync")]
    NewConfigNoQuorum,
    /// The server does not know this operation.
    #[error("the server does not know this operation")]
    Unimplemented,
    /// The server could not read the request.
    #[error("the server could not read the request")]
    Unreadable,
    /// The request waited too long to be looked at.
    #[error("the server is too busy: try again later")]
    Throttled,
    /// In a transaction: undone or not attempted, because another operation failed.
    #[error("undone, because another operation of the transaction failed")]
    RolledBack,
    /// The server is at fault, and does not say whether the request was applied.
    #[error("the server failed")]
    ServerFault,
    /// A code this crate does not know, which does not say whether the request was applied.
    #[error("the server answers with the unknown code {0}")]
    Other(i32),
}

impl Reason {
    pub(crate) fn from_code(code: i32) -> Self {
        let Some(code) = ErrorCode::from_code(code) else {
            return Self::Other(code);
        };
        match code {
            ErrorCode::NoNode => Self::NoNode,
            ErrorCode::NodeExists => Self::NodeExists,
            ErrorCode::BadVersion => Self::BadVersion,
            ErrorCode::NotEmpty => Self::NotEmpty,
            ErrorCode::NoAuth => Self::NoAuth,
            ErrorCode::NoChildrenForEphemerals => Self::NoChildrenForEphemerals,
            ErrorCode::InvalidAcl => Self::InvalidAcl,
            ErrorCode::BadArguments => Self::BadArguments,
            ErrorCode::QuotaExceeded => Self::QuotaExceeded,
            ErrorCode::NotReadOnly => Self::NotReadOnly,
            ErrorCode::NoWatcher => Self::NoWatcher,
            ErrorCode::ReconfigDisabled => Self::ReconfigDisabled,
            ErrorCode::ReconfigInProgress => Self::ReconfigInProgress,
            ErrorCode::NewConfigNoQuorum => Self::NewConfigNoQuorum,
            ErrorCode::Unimplemented => Self::Unimplemented,
            ErrorCode::MarshallingError => Self::Unreadable,
            ErrorCode::ThrottledOp => Self::Throttled,
            ErrorCode::RuntimeInconsistency => Self::RolledBack,
            ErrorCode::SystemError => Self::ServerFault,
            ErrorCode::SessionExpired
            | ErrorCode::AuthFailed
            | ErrorCode::SessionMoved
            | ErrorCode::SessionClosedRequireSaslAuth => Self::Other(code.code()),
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A server answered, and refused.
    #[error("{target}: {reason}{}", repeated_text(*.repeated))]
    Refused {
        /// What was asked.
        target: Target,
        /// Why not.
        reason: Reason,
        /// Whether it had been made before, without an answer: it may have been applied then, and
        /// be refused for that very reason.
        repeated: bool,
    },
    /// The path is no path of a znode. Nothing was sent.
    #[error("{target}: {source}")]
    InvalidPath {
        /// What was asked.
        target: Target,
        /// What is wrong with it.
        source: PathError,
    },
    /// Arguments that contradict each other, or that the protocol has no room for. Nothing was sent.
    #[error("{target}: {what}")]
    InvalidArgument {
        /// What was asked.
        target: Target,
        /// What is wrong.
        what: &'static str,
    },
    /// The request is larger than what servers take (`jute.maxbuffer`). Nothing was sent.
    #[error("{target}: {length} bytes in one request, servers take {limit} (jute.maxbuffer)")]
    TooLarge {
        /// What was asked.
        target: Target,
        /// Its length on the wire.
        length: usize,
        /// What the client was told servers take.
        limit: usize,
    },
    /// The connection was lost, or there was none.
    #[error("{target}: no connection{}", sent_text(*.sent))]
    Disconnected {
        /// What was asked.
        target: Target,
        /// Whether it had been sent before.
        sent: bool,
    },
    /// There was no connection for as long as the request was to wait for one. It was not sent.
    #[error("{target}: no connection within {} ms", waited.as_millis())]
    TimedOut {
        /// What was asked.
        target: Target,
        /// How long it waited.
        waited: Duration,
    },
    /// The session has ended, and its ephemeral znodes with it.
    #[error("{target}: the session has expired{}", sent_text(*.sent))]
    SessionExpired {
        /// What was asked.
        target: Target,
        /// Whether it had been sent before.
        sent: bool,
    },
    /// A server does not accept what was to prove who we are. The session is over.
    #[error("{target}: authentication was refused{}", sent_text(*.sent))]
    AuthFailed {
        /// What was asked.
        target: Target,
        /// Whether it had been sent before.
        sent: bool,
    },
    /// The client was closed.
    #[error("{target}: the client is closed{}", sent_text(*.sent))]
    Closed {
        /// What was asked.
        target: Target,
        /// Whether it had been sent before.
        sent: bool,
    },
    /// The server answered something that is no answer to this request. Report it.
    #[error("{target}: the answer makes no sense ({what})")]
    BadAnswer {
        /// What was asked.
        target: Target,
        /// What does not fit.
        what: String,
    },
}

fn repeated_text(repeated: bool) -> &'static str {
    if repeated {
        "; it had been sent before, and may have been applied then"
    } else {
        ""
    }
}

fn sent_text(sent: bool) -> &'static str {
    if sent {
        "; it had been sent before"
    } else {
        "; it was not sent"
    }
}

impl Error {
    /// What was asked.
    pub fn target(&self) -> &Target {
        match self {
            Self::Refused { target, .. }
            | Self::InvalidPath { target, .. }
            | Self::InvalidArgument { target, .. }
            | Self::TooLarge { target, .. }
            | Self::Disconnected { target, .. }
            | Self::TimedOut { target, .. }
            | Self::SessionExpired { target, .. }
            | Self::AuthFailed { target, .. }
            | Self::Closed { target, .. }
            | Self::BadAnswer { target, .. } => target,
        }
    }

    /// Why a server refused, if one did.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// Whether a server refused for this reason.
    ///
    /// ```
    /// # use quorate_client::{Client, Error, Reason};
    /// # async fn example(client: &Client) -> Result<(), Error> {
    /// match client.create("/app", b"").await {
    ///     Err(error) if error.is(Reason::NodeExists) => {}
    ///     other => drop(other?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is(&self, reason: Reason) -> bool {
        self.reason() == Some(reason)
    }

    /// Whether what was asked took place. A read changes nothing: of one that failed this is
    /// [`Outcome::NotApplied`].
    pub fn outcome(&self) -> Outcome {
        let unknown = match self {
            Self::Refused {
                reason, repeated, ..
            } => *repeated || matches!(reason, Reason::ServerFault | Reason::Other(_)),
            Self::InvalidPath { .. }
            | Self::InvalidArgument { .. }
            | Self::TooLarge { .. }
            | Self::TimedOut { .. } => false,
            Self::Disconnected { sent, .. }
            | Self::SessionExpired { sent, .. }
            | Self::AuthFailed { sent, .. }
            | Self::Closed { sent, .. } => *sent,
            // An answer without an error came.
            Self::BadAnswer { .. } => return Outcome::Applied,
        };
        if unknown && self.target().is_write() {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        }
    }

    /// Whether the same request may succeed if it is made again on the same client. Look at
    /// [`Error::outcome`] first: a write that may have been applied is not made twice lightly.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Disconnected { .. } | Self::TimedOut { .. } => true,
            Self::Refused { reason, .. } => matches!(
                reason,
                Reason::Throttled | Reason::NotReadOnly | Reason::ReconfigInProgress
            ),
            _ => false,
        }
    }

    /// The same, of a request that had been made before with an outcome that is unknown.
    pub(crate) fn after_unknown(mut self) -> Self {
        match &mut self {
            Self::Refused { repeated, .. } => *repeated = true,
            Self::Disconnected { sent, .. }
            | Self::SessionExpired { sent, .. }
            | Self::AuthFailed { sent, .. }
            | Self::Closed { sent, .. } => *sent = true,
            Self::TimedOut { target, .. } => {
                let target = target.clone();
                return Self::Disconnected { target, sent: true };
            }
            Self::InvalidPath { .. }
            | Self::InvalidArgument { .. }
            | Self::TooLarge { .. }
            | Self::BadAnswer { .. } => {}
        }
        self
    }

    /// Whether only a new session can go on: this one is over.
    pub fn needs_new_session(&self) -> bool {
        matches!(
            self,
            Self::SessionExpired { .. } | Self::AuthFailed { .. } | Self::Closed { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: Reason) -> Error {
        Error::Refused {
            target: Target::write("set", "/a"),
            reason,
            repeated: false,
        }
    }

    #[test]
    fn only_a_write_that_was_sent_may_have_been_applied() {
        for is_write in [false, true] {
            for sent in [false, true] {
                let target = if is_write {
                    Target::write("set", "/a")
                } else {
                    Target::read("get", "/a")
                };
                let expected = if is_write && sent {
                    Outcome::Unknown
                } else {
                    Outcome::NotApplied
                };
                let errors = [
                    Error::Disconnected {
                        target: target.clone(),
                        sent,
                    },
                    Error::SessionExpired {
                        target: target.clone(),
                        sent,
                    },
                    Error::AuthFailed {
                        target: target.clone(),
                        sent,
                    },
                    Error::Closed { target, sent },
                ];
                for error in errors {
                    assert_eq!(error.outcome(), expected, "{error}");
                }
            }
        }
    }

    #[test]
    fn a_refusal_says_that_nothing_happened_unless_the_server_does_not_know() {
        assert_eq!(refused(Reason::BadVersion).outcome(), Outcome::NotApplied);
        assert_eq!(refused(Reason::ServerFault).outcome(), Outcome::Unknown);
        assert_eq!(refused(Reason::Other(-4)).outcome(), Outcome::Unknown);
    }

    #[test]
    fn what_is_not_known_of_the_first_time_is_not_known_by_the_second() {
        let target = Target::write("set", "/a");
        let waited = Duration::from_secs(1);
        let errors = [
            refused(Reason::BadVersion),
            Error::TimedOut {
                target: target.clone(),
                waited,
            },
            Error::Disconnected {
                target: target.clone(),
                sent: false,
            },
            Error::Closed {
                target,
                sent: false,
            },
        ];
        for error in errors {
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            let error = error.after_unknown();
            assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        }
    }

    #[test]
    fn the_text_names_operation_path_and_place() {
        let error = Error::Refused {
            target: Target::write("set", "/a").at(2),
            reason: Reason::BadVersion,
            repeated: false,
        };
        assert_eq!(
            error.to_string(),
            "set /a (operation 2 of the transaction): the znode has another version"
        );
    }
}
