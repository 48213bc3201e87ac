//! The Raft engine, kept behind one seam: nothing outside this folder knows its types.

pub mod log_store;
pub mod types;
