//! An ensemble inside your test process, and the faults to try your service with.
#![warn(missing_docs)]

mod board;
mod builder;
mod ensemble;
mod error;
mod host;
mod port;
mod proxy;
mod server;
mod stage;

pub use quorate_protocol::{OpCode, SessionId};

pub use self::builder::Builder;
pub use self::ensemble::{Ensemble, TestServer};
pub use self::error::Error;
pub use self::proxy::{Corruption, Fault, Which};
pub use self::server::Server;
