//! Proofs that a server's storage loses nothing and is never wrong, whenever the power goes and
//! whichever bit flips.
//!
//! What runs is the server's own code for its log, its snapshots and its start; only the disk is
//! another one. Everything is decided by a seed. A proof that finds nothing has to show that it would:
//! see `canaries`.

#[cfg(debug_assertions)]
pub mod canaries;
pub mod flips;
pub mod host;
pub mod oracle;
pub mod points;
pub mod start;
pub mod tape;
pub mod workload;
pub mod wreck;
