//! A client of Quorate and Apache ZooKeeper.

#![warn(missing_docs)]

mod chroot;
mod connect_string;

pub use chroot::Chroot;
pub use connect_string::{ConnectString, ConnectStringError, Host};
pub use quorate_protocol::types::PathError;
