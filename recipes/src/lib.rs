//! Locks, leader election and shared state, on any server that speaks ZooKeeper's protocol.

#![warn(missing_docs)]

mod acquire;
mod barrier;
mod cas;
mod contenders;
mod counter;
mod delay_queue;
mod directory;
mod double_barrier;
pub mod election;
mod error;
mod follow;
mod grant;
mod group;
mod guard;
mod id_blocks;
mod integer;
mod items;
mod lease;
mod line;
mod mark;
mod metrics;
mod multi_lock;
mod mutex;
mod naming;
mod number;
mod options;
mod patience;
mod persistent_node;
mod priority_queue;
mod queue;
mod read_write_lock;
mod record;
mod registry;
mod revocation;
mod semaphore;
mod timing;
mod two_phase_commit;
mod value;
mod view;
mod waiting;

pub use acquire::Acquire;
pub use barrier::Barrier;
pub use cas::Version;
pub use counter::{Counter, CounterFormat};
pub use delay_queue::DelayQueue;
pub use directory::Kind;
pub use double_barrier::{DoubleBarrier, Inside};
pub use election::{Election, Leadership, Term};
pub use error::Error;
pub use group::{Group, GroupChange, GroupChanges, Join, Member, Membership};
pub use guard::Guard;
pub use id_blocks::IdBlocks;
pub use items::{Item, Taken};
pub use lease::{FencingToken, HeldBy, Lease, StopReason};
pub use metrics::Metrics;
pub use multi_lock::{AcquireAll, MultiGuard, MultiLease, MultiLock};
pub use mutex::Mutex;
pub use naming::Naming;
pub use number::Number;
pub use options::{OnSessionLoss, Overrun};
pub use persistent_node::{Absent, KeptNode, NodeState, NodeStates, PersistentNode};
pub use priority_queue::PriorityQueue;
pub use queue::{Queue, Take, TakeLocked};
pub use read_write_lock::ReadWriteLock;
pub use registry::{
    DownPolicy, Instance, Registration, Registry, RegistryChange, RegistryChanges, Selector,
    Service, Strategy,
};
pub use semaphore::Semaphore;
pub use timing::{Timing, TimingError};
pub use two_phase_commit::{Ballot, Decision, Participant, Proposal, TwoPhaseCommit, Vote};
pub use value::{Format, SharedValue, Values, Versioned};
pub use view::{Contender, Holder};
