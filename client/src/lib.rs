//! A client of Quorate and Apache ZooKeeper that services can bet on.

#![warn(missing_docs)]

mod builder;
mod chroot;
mod client;
mod connect_string;
mod dial;
mod error;
pub mod metrics;
pub mod operation;
mod read_many;
mod recursive;
mod session;
#[cfg(feature = "tls")]
mod tls;
mod transaction;
pub mod watch;

pub use builder::{ClientBuilder, ConnectError};
pub use chroot::Chroot;
pub use client::Client;
pub use connect_string::{ConnectString, ConnectStringError, Host};
pub use dial::{DialError, Step, Stranger, TlsFault};
pub use error::{Error, Outcome, Reason, Target};
pub use quorate_protocol::types::PathError;
pub use quorate_protocol::{AclEntry, EventType, Perms, SessionId, Stat, Zxid, digest_id};
pub use read_many::{Read, ReadMany};
pub use session::lease::LeaseInstant;
pub use session::line::Limits;
pub use session::state::{SessionState, SessionStates};
pub use session::task::OnExpiry;
pub use session::ticket::{InvalidTicket, SessionTicket};
#[cfg(feature = "tls")]
pub use tls::{
    PemFault, PemRole, PemSource, PemText, TlsOptions, TlsOptionsBuilder, TlsOptionsError,
};
pub use transaction::{Committed, Done, Transaction};
