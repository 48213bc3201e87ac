//! Judges what the clients of an ensemble saw.
//!
//! Synchronous and deterministic: a [`History`] in, verdicts out; no clock, no randomness, no server.

pub mod history;

pub use history::History;
