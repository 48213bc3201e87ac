//! Locks, leader election and shared state, on any server that speaks ZooKeeper's protocol.

#![warn(missing_docs)]

mod cas;
mod counter;
mod directory;
mod error;
mod id_blocks;
mod integer;
mod number;
mod value;
mod waiting;

pub use cas::Version;
pub use counter::{Counter, CounterFormat};
pub use directory::Kind;
pub use error::Error;
pub use id_blocks::IdBlocks;
pub use number::Number;
pub use value::{Format, SharedValue, Values, Versioned};
