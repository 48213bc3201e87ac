//! Why a recipe failed.

use std::time::Duration;

use quorate_client::{Outcome, Reason, SessionId};

use crate::directory::Kind;

/// Why a recipe failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request failed. [`quorate_client::Error::outcome`] says whether it was done.
    #[error(transparent)]
    Client(#[from] quorate_client::Error),
    /// The znode belongs to another recipe, and using it would break that one. Choose another path.
    #[error("{path} belongs to {found}, not to {wanted}: choose another path")]
    OtherRecipe {
        /// The znode.
        path: String,
        /// What was asked for.
        wanted: Kind,
        /// Whose it is.
        found: Kind,
    },
    /// The znode holds something that this recipe has not written. Choose another path, or delete it.
    #[error("{path} holds {found} where {wanted} was expected")]
    Foreign {
        /// The znode.
        path: String,
        /// What is there.
        found: String,
        /// What should be.
        wanted: &'static str,
    },
    /// It took longer than it was allowed to. Nothing is left behind.
    #[error("not done within {waited:?}")]
    TimedOut {
        /// How long that was.
        waited: Duration,
    },
    /// Others changed the znode each time before this one could. Nothing was done; try again later.
    #[error("{path} was changed by others at each of {attempts} attempts")]
    Contended {
        /// The znode.
        path: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// Somebody else's znode is where ours is to be. Choose another name, or wait until it has gone.
    #[error("{path} is taken by {}", owner_text(*.owner))]
    Taken {
        /// The znode.
        path: String,
        /// The session that owns it; `None` if it is not ephemeral.
        owner: Option<SessionId>,
    },
    /// What was to keep the znode was closed, here or by another owner of the handle.
    #[error("{path} is not kept any more: the handle was closed")]
    Closed {
        /// The znode.
        path: String,
    },
    /// The options contradict each other, or the server's.
    #[error("{0}")]
    InvalidArgument(String),
}

fn owner_text(owner: Option<SessionId>) -> String {
    owner.map_or_else(
        || "a znode that is not ephemeral".to_owned(),
        |owner| format!("session {owner}"),
    )
}

impl Error {
    /// Whether a server refused for this reason.
    pub fn is(&self, reason: Reason) -> bool {
        matches!(self, Self::Client(error) if error.is(reason))
    }

    /// Whether what was asked took place.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Client(error) => error.outcome(),
            _ => Outcome::NotApplied,
        }
    }
}
