//! Everything that waits: sockets, the log, the Raft engine, clocks.
//!
//! [`Server::start`] builds each part and hands it its neighbours. Calls go from [`client_port`] to
//! [`consensus`] to [`storage`], and come back only through [`replica`] and the outboxes.

pub mod admin;
pub mod client_port;
pub mod clock;
pub mod config;
pub mod consensus;
pub mod environment;
pub mod metrics;
pub mod network;
pub mod offline;
pub mod peer_port;
pub mod random;
pub mod replica;
pub mod session_tracker;
mod start_up;
pub mod storage;
pub mod tasks;
mod timers;

mod server;

pub use server::{Server, StartError};
