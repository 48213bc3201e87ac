//! What a client takes from outside: connections, time and chance.
//!
//! By default they are the machine's. Each can be another, for one client at a time:
//!
//! - [`Connector`]: connections through a proxy, or to a server in the same process;
//! - [`Clock`]: leases in the time of a paused Tokio runtime;
//! - [`Randomness`]: pauses, marks and the order of hosts from a seed.
//!
//! With all three a run can be repeated exactly, on one thread (`current_thread`), with paused time and
//! with Tokio's own choices from a seed (`rng_seed`): the client reads no other clock, draws nothing
//! elsewhere, and does nothing in an order that a hash table has chosen.

mod clock;
mod connector;
mod randomness;

pub use self::clock::Clock;
pub use self::connector::{Connection, Connector, Pending};
pub use self::randomness::Randomness;
