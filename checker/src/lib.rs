//! Judges what the clients of an ensemble saw.
//!
//! Synchronous and deterministic: a [`History`] in, a [`Report`] out; no clock, no randomness, no
//! server. What is judged is a list of promises ([`Promise`]), each with a name that users find in
//! `docs/guarantees.md`; each has a spoilt history among the tests that must break it.
//!
//! | file | judges | with |
//! | --- | --- | --- |
//! | `order` | session order, no going back, one zxid each, sync | zxids and the clock |
//! | `oracle` | every write, every read, the end | the log, applied to a naive tree |
//! | `linear` | linearizability | a search, by times and answers alone |
//! | `watches` | every event | the log |
//! | `sightings` | events | answers, where there is no log |
//! | `sessions` | expiry, ends, ids | the clock, and the log if there is one |
//! | `numbers`, `fencing`, `connections`, `replicas` | what they are named after | answers |
//! | `vacuity` | whether enough happened for all of that to mean anything | counts |

mod connections;
mod fencing;
mod figure;
mod from_log;
pub mod history;
mod index;
mod judge;
pub mod linear;
mod numbers;
mod oracle;
mod order;
mod promise;
mod proofs;
pub mod replay;
mod replicas;
mod sessions;
mod sightings;
mod tally;
pub mod tree;
pub mod trust;
pub mod vacuity;
mod watches;
mod wire;

pub use figure::Figure;
pub use history::History;
pub use judge::{Report, check};
pub use promise::{Promise, Violation};
pub use tally::Tally;
pub use vacuity::{Shortfall, Thresholds};

#[cfg(test)]
mod tests;
