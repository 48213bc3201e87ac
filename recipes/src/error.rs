//! Why a recipe failed.

use std::time::Duration;

use quorate_client::{Outcome, Reason};

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
    /// The number would leave its range. Nothing was done.
    #[error("{path} holds {value}, and {change} more is out of range")]
    Overflow {
        /// The znode.
        path: String,
        /// What it holds.
        value: i64,
        /// What was to be added.
        change: i64,
    },
    /// The value cannot be written in its format. Nothing was done.
    #[error("{path}: the value cannot be written: {what}")]
    Unwritable {
        /// The znode.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The session has ended over the work on an item of a queue, and somebody else gets it. What was
    /// done so far may be done again.
    #[error("{path}: the session has ended meanwhile, and the item is another's")]
    ItemLost {
        /// The item.
        path: String,
    },
    /// The options contradict each other, or the server's.
    #[error("{0}")]
    InvalidArgument(String),
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
