//! Locks, leader election and shared state, on any server that speaks ZooKeeper's protocol.

#![warn(missing_docs)]

mod barrier;
mod cas;
mod counter;
mod delay_queue;
mod directory;
mod double_barrier;
mod error;
mod id_blocks;
mod integer;
mod items;
mod line;
mod mark;
mod number;
mod priority_queue;
mod queue;
mod two_phase_commit;
mod value;
mod waiting;

pub use barrier::Barrier;
pub use cas::Version;
pub use counter::{Counter, CounterFormat};
pub use delay_queue::DelayQueue;
pub use directory::Kind;
pub use double_barrier::{DoubleBarrier, Inside};
pub use error::Error;
pub use id_blocks::IdBlocks;
pub use items::{Item, Taken};
pub use number::Number;
pub use priority_queue::PriorityQueue;
pub use queue::{Queue, Take, TakeLocked};
pub use two_phase_commit::{Ballot, Decision, Participant, Proposal, TwoPhaseCommit, Vote};
pub use value::{Format, SharedValue, Values, Versioned};
