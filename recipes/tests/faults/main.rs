//! The recipes while connections break at any step, sessions expire, and servers are killed.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod barriers;
mod elections;
mod every_request;
mod numbers;
mod queues;
mod two_phase_commit;
