//! Locks, leader election and shared state, on any server that speaks ZooKeeper's protocol.

#![warn(missing_docs)]

mod directory;
mod error;

pub use directory::Kind;
pub use error::Error;
