//! Locks, leader election and shared state, on any server that speaks ZooKeeper's protocol.

#![warn(missing_docs)]

mod acquire;
mod cas;
mod contenders;
mod counter;
mod directory;
pub mod election;
mod error;
mod grant;
mod group;
mod guard;
mod id_blocks;
mod integer;
mod lease;
mod metrics;
mod multi_lock;
mod mutex;
mod naming;
mod number;
mod options;
mod patience;
mod persistent_node;
mod read_write_lock;
mod record;
mod revocation;
mod semaphore;
mod timing;
mod value;
mod view;
mod waiting;

pub use acquire::Acquire;
pub use cas::Version;
pub use counter::{Counter, CounterFormat};
pub use directory::Kind;
pub use election::{Election, Leadership, Term};
pub use error::Error;
pub use group::{Group, GroupChange, GroupChanges, Join, Member, Membership};
pub use guard::Guard;
pub use id_blocks::IdBlocks;
pub use lease::{FencingToken, HeldBy, Lease, StopReason};
pub use metrics::Metrics;
pub use multi_lock::{AcquireAll, MultiGuard, MultiLease, MultiLock};
pub use mutex::Mutex;
pub use naming::Naming;
pub use number::Number;
pub use options::{OnSessionLoss, Overrun};
pub use persistent_node::{Absent, KeptNode, NodeState, NodeStates, PersistentNode};
pub use read_write_lock::ReadWriteLock;
pub use semaphore::Semaphore;
pub use timing::{Timing, TimingError};
pub use value::{Format, SharedValue, Values, Versioned};
pub use view::{Contender, Holder};
