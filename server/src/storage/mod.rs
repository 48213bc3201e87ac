//! Everything on this server's disks: the log, the snapshots, and who owns the folders.
//!
//! Sees ids and bytes, never a znode and never the Raft engine. What it promises: a completion is
//! called only when data *and* directory entries are on stable storage; nothing that was
//! acknowledged is dropped by recovery; whatever cannot be explained stops the server with the
//! path, the offset and what to do. It never deletes what it does not understand.

pub mod data_dir;
pub mod error;
pub mod file;
pub mod log;
pub mod memory;
pub mod snapshots;

pub use data_dir::{DataDir, Identity};
pub use error::StorageError;
