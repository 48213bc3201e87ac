//! The harness of the tests that cross crates: real processes, real clients.
//!
//! It starts servers as child processes ([`server`]), runs client programs ([`process`]), stands
//! between the two where connections have to break ([`proxy`]), and compares what was seen
//! ([`transcript`]). Everything it starts is ended by its process id when dropped, everything it
//! waits for has a deadline, and what a process printed is shown when a test fails. It knows nothing
//! of the protocol beyond the four-letter words: the tests are a second opinion on that.

pub mod process;
pub mod proxy;
pub mod server;
pub mod skip;
pub mod transcript;
