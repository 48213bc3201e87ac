//! A client of Quorate and Apache ZooKeeper.

#![warn(missing_docs)]

mod chroot;
mod connect_string;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "its user, the session's task, comes next")
)]
mod dial;
#[cfg(feature = "tls")]
mod tls;

pub use chroot::Chroot;
pub use connect_string::{ConnectString, ConnectStringError, Host};
pub use dial::{DialError, Step, Stranger, TlsFault};
pub use quorate_protocol::types::PathError;
#[cfg(feature = "tls")]
pub use tls::{
    PemFault, PemRole, PemSource, PemText, TlsOptions, TlsOptionsBuilder, TlsOptionsError,
};
