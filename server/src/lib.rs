//! Everything that waits: sockets, the log, the Raft engine, clocks.

pub mod consensus;
pub mod storage;
