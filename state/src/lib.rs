//! The replicated state: the tree, its sessions and the rules of both, as plain synchronous
//! functions.
//!
//! [`State::apply`] is the only way to change a [`State`]; [`State::read`] is the only way to look
//! into one. [`WatchTable`] turns the [`Change`]s of an apply into events for the connections of
//! one server, and [`ExpiryQueue`] tells the leader which sessions are overdue. Nothing here knows
//! a clock, a random number, a file, a socket or Raft: times and numbers arrive as arguments.

mod applied;
mod apply;
mod audit;
pub mod canary;
mod command;
mod configure;
mod digest;
mod error;
mod expiry;
mod pages;
mod read;
mod sessions;
mod snapshot;
mod state;
mod tree;
mod watches;

pub use applied::{Applied, Change, ChangeKind, Reply, SessionEvent, SessionGrant};
pub use audit::Flaw;
pub use command::{Action, Command, CommandError, Connection, Origin, Rules, SentPassword, Write};
pub use configure::Configuration;
pub use error::OpError;
pub use expiry::ExpiryQueue;
pub use read::{Query, Reader};
pub use sessions::Session;
pub use snapshot::{SnapshotError, StateView, last_zxid_of_snapshot};
pub use state::State;
pub use tree::acl::permits;
pub use watches::{Event, WatchKind, WatchSummary, WatchTable, WatcherType, rearm};
