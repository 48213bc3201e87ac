//! A client of Quorate and Apache ZooKeeper that services can bet on.
//!
//! # From nothing to a watched configuration
//!
//! Start a server, or use one of Apache ZooKeeper (3.6 or later): `quorate dev` serves on
//! `localhost:2181`. Then put this into a new crate's `main.rs`:
//!
//! ```no_run
//! use quorate_client::{Client, tree::Change};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // A session. It reconnects by itself, to any of the hosts there are.
//!     let client = Client::builder("localhost:2181/my-service")
//!         .create_chroot(true)
//!         .connect()
//!         .await?;
//!
//!     // Paths are below /my-service from here on.
//!     client.ensure_path("/config/color").await?;
//!     client.set("/config/color", b"green").await?;
//!
//!     // All of the configuration, and then every change of it.
//!     let mut config = client.tree("/config").await?;
//!     for (path, node) in config.nodes() {
//!         println!("{path} = {}", String::from_utf8_lossy(&node.data));
//!     }
//!     while let Some(change) = config.next().await {
//!         match change? {
//!             Change::Put { path, new, .. } => {
//!                 println!("{path} = {}", String::from_utf8_lossy(&new.data));
//!             }
//!             Change::Removed { path, .. } => println!("{path} is gone"),
//!             other => println!("after a lost connection: {other:?}"),
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Change the znode from another terminal, with `zkCli.sh set /my-service/config/color red` or any
//! other client, and see it printed. Stop the server and start it again: the program goes on.
//!
//! # What to know
//!
//! - **Order.** Requests are done in the order in which they are made: when `.send()` is called, or
//!   `.await` begins. See [`operation`].
//! - **Lost connections.** Requests wait for the next one, for as long as the session lives without
//!   (or as `wait_for_reconnect` says, or not at all with `fail_fast`). Reads that were under way are
//!   made again. A write that was under way fails, because it may have been applied: its error says so
//!   ([`Error::outcome`]). Say [`idempotent`](operation::Set::idempotent) where doing it twice does no
//!   harm, [`protected`](operation::Create::protected) where a znode is to be created once, and
//!   [`guaranteed`](operation::Delete::guaranteed) where one has to go.
//! - **Sessions.** [`Client::states`] tells what becomes of the session. When it expires, its
//!   ephemeral znodes are gone; nothing happens by itself unless [`OnExpiry::NewSession`] is chosen.
//!   [`Client::lease_deadline`] says until when it is certain to be alive: what a lock or a leader has
//!   to go by.
//! - **Watches.** [One-shot](operation::Get::watch) with a read, [for good](Client::watch) as a
//!   stream, or a whole [subtree in memory](Client::tree). Where something may have been missed, a
//!   [gap](watch::Gap) says so.
//! - **Dropping a future** at any point is safe: a request that was not sent is not made, of one that
//!   was only the answer is lost. Dropping a watch takes it away; dropping the last [`Client`] ends
//!   the session.
//! - **Bounds.** What is asked and not answered yet is bounded ([`Limits`]): beyond, callers wait in
//!   their order.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `tls`: TLS with rustls, from PEM files that may change while the client runs.
//! - `blocking`: a facade for code without `async`.
//!
//! To test a service against servers that break on purpose, see the crate `quorate-testing`.

#![warn(missing_docs)]

#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod chroot;
mod client;
mod connect_string;
mod dial;
pub mod environment;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod metrics;
pub mod operation;
mod read_many;
mod recursive;
mod session;
#[cfg(feature = "tls")]
mod tls;
mod transaction;
pub mod tree;
pub mod watch;

pub use builder::{ClientBuilder, ConnectError};
pub use chroot::Chroot;
pub use client::{Client, LeaseKeeper};
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
