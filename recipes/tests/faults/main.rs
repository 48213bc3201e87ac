//! The recipes while connections break at any step, sessions expire, and servers are killed.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod every_request;
mod partitioner;
mod persistent_node;
mod registry;
