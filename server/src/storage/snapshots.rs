//! Snapshot files.
use super::StorageError;
use super::file::Disk;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct SnapshotFile {
    pub path: PathBuf,
}
#[derive(Clone, Debug)]
pub struct SnapshotStore {}
impl SnapshotStore {
    pub fn open(
        _disk: Arc<dyn Disk>,
        _folder: &Path,
        _cluster: u64,
    ) -> Result<SnapshotStore, StorageError> {
        Ok(SnapshotStore {})
    }
}
