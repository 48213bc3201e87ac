//! Why a recipe failed.

use std::time::Duration;

use quorate_client::{Outcome, Reason, SessionId};

use crate::directory::Kind;
use crate::lease::StopReason;
use crate::timing::TimingError;

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
    /// It is held by another. Nothing is left behind.
    #[error("{path} is held by {holder:?}")]
    WouldBlock {
        /// The recipe's directory.
        path: String,
        /// What the holder calls itself; empty if it does not say.
        holder: String,
    },
    /// It was not obtained in time. Nothing is left behind.
    #[error("{path} was not obtained within {waited:?}; {holder:?} holds it")]
    HeldByAnother {
        /// The recipe's directory.
        path: String,
        /// What the holder calls itself; empty if it does not say, or nobody can be asked.
        holder: String,
        /// How long that was.
        waited: Duration,
    },
    /// Others use the semaphore with another number of permits. Name the same, or delete its znode
    /// while nobody uses it.
    #[error("{path} has {theirs} permits, not {ours}")]
    LimitMismatch {
        /// The semaphore.
        path: String,
        /// What we were told.
        ours: u32,
        /// What all others were told.
        theirs: u32,
    },
    /// The znode that stands for us in the line was deleted by somebody else.
    #[error("somebody has deleted our place in the line at {path}")]
    Displaced {
        /// The recipe's directory.
        path: String,
    },
    /// Nobody of that name stands for election, or it cannot be made to lead: it uses another library,
    /// does not answer, or another was asked before. The leader goes on, unless it is to stop anyway.
    #[error("{candidate:?} does not take over at {path}: {why}")]
    NoSuccessor {
        /// The election.
        path: String,
        /// The identity that was to lead.
        candidate: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The work was dropped before it had ended, because what guarded it was lost.
    #[error("{path} was lost, and the work with it: {reason}")]
    Lost {
        /// The recipe's directory.
        path: String,
        /// Why.
        reason: StopReason,
    },
    /// There is no thread to watch over work that is to be aborted
    /// ([`Overrun::Abort`](crate::Overrun::Abort)), so it does not begin.
    #[error("{path}: no thread to watch over the work: {why}")]
    NoWatchdog {
        /// The recipe's directory.
        path: String,
        /// In the words of the operating system.
        why: String,
    },
    /// Timings that cannot be kept.
    #[error(transparent)]
    Timing(#[from] TimingError),
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
