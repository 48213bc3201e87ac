//! Locks, leader election and shared state, on any server that speaks ZooKeeper's protocol.

#![warn(missing_docs)]

mod acquire;
mod contenders;
mod directory;
pub mod election;
mod error;
mod grant;
mod guard;
mod lease;
mod metrics;
mod mutex;
mod naming;
mod options;
mod record;
mod revocation;
mod timing;
mod view;

pub use acquire::Acquire;
pub use directory::Kind;
pub use election::{Election, Leadership, Term};
pub use error::Error;
pub use guard::Guard;
pub use lease::{FencingToken, HeldBy, Lease, StopReason};
pub use metrics::Metrics;
pub use mutex::Mutex;
pub use naming::Naming;
pub use options::{OnSessionLoss, Overrun};
pub use timing::{Timing, TimingError};
pub use view::{Contender, Holder};
