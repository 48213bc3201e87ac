//! The recipes while connections break at any step, sessions expire, and servers are killed.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod barriers;
mod elections;
mod every_request;
mod kills;
mod leases;
mod locks;
mod numbers;
mod one_client;
mod partitioner;
mod persistent_node;
mod queues;
mod refusals;
mod registry;
mod replay;
mod transfers;
mod two_phase_commit;
