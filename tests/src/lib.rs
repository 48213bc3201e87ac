//! The harness of the tests that cross crates: real processes, real clients.
//!
//! It starts servers as child processes ([`server`]), runs client programs ([`process`]), stands
//! between the two where connections have to break ([`proxy`]), and compares what was seen
//! ([`transcript`]). Everything it starts is ended by its process id when dropped, everything it
//! waits for has a deadline, and what a process printed is shown when a test fails. Of the protocol
//! only [`client`] knows more than the four-letter words; the interop tests do without it, as they
//! are a second opinion on that.

pub mod checker;
pub mod client;
pub mod disk;
pub mod ensemble;
pub mod faults;
pub mod history;
pub mod java;
pub mod loop_disk;
pub mod process;
pub mod proxy;
pub mod server;
pub mod shim;
pub mod skip;
pub mod subjects;
pub mod transcript;
