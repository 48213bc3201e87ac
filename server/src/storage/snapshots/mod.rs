//! Snapshot files: written once, read back before they count, removed only when newer ones do.
//!
//! A snapshot is written under a temporary name, synced, read back from the disk, and only then
//! renamed; the folder is synced last. So a file with a snapshot's name was whole once, and one that
//! is empty, cut or changed is damaged: it is reported with the offset, never skipped in silence,
//! and never removed. Format: `format`. Contents and membership mean nothing here.

mod format;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_state::canary::{Canary, planted};

use super::StorageError;
use super::file::{Disk, File, write_all_at};
use super::log::EntryId;
pub use format::SnapshotReader;
use format::{BlockWriter, Summary, check_blocks};

/// How many snapshots to keep, the newest included: with one bad file there is still another.
pub const SNAPSHOTS_KEPT: usize = 3;

const PREFIX: &str = "snapshot-";
const SUFFIX: &str = ".snap";
const TEMPORARY_SUFFIX: &str = ".snap.tmp";
/// Bytes written between two syncs: one sync of everything at the end would hold up the log's.
const BYTES_PER_SYNC: u64 = 32 << 20;

/// What a snapshot covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The last entry whose effect is in it.
    pub last: Option<EntryId>,
    /// The membership as of then, encoded by the caller.
    pub membership: Vec<u8>,
}

/// The snapshots in a folder. Clones share it.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    cluster: u64,
    /// Makes temporary names unique.
    next_temporary: Arc<AtomicU64>,
    /// Snapshots that this process has read from end to end.
    verified: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// A finished snapshot. Stays readable when it is purged meanwhile.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    file: Arc<dyn File>,
    cluster: u64,
    info: SnapshotInfo,
    length: u64,
}

impl SnapshotStore {
    /// Opens the snapshots in `folder` and removes what an interrupted write left.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        cluster: u64,
    ) -> Result<SnapshotStore, StorageError> {
        for name in disk
            .list(folder)
            .map_err(StorageError::during("list", folder))?
        {
            if name.starts_with(PREFIX) && name.ends_with(TEMPORARY_SUFFIX) {
                super::log::remove_if_there(&*disk, &folder.join(name))?;
            }
        }
        Ok(SnapshotStore {
            disk,
            folder: folder.to_owned(),
            cluster,
            next_temporary: Arc::default(),
            verified: Arc::default(),
        })
    }

    /// Starts a snapshot. It counts once [`SnapshotWriter::finish`] has returned.
    pub fn begin(&self, info: SnapshotInfo) -> Result<SnapshotWriter, StorageError> {
        let mut temporary = self.temporary()?;
        let (blocks, header) = BlockWriter::new(self.cluster, &info)?;
        temporary.write(&header)?;
        Ok(SnapshotWriter {
            temporary,
            blocks,
            info,
            failed: None,
        })
    }

    /// Starts a copy of another server's snapshot file, byte by byte.
    pub fn receive(&self) -> Result<SnapshotReceiver, StorageError> {
        Ok(SnapshotReceiver {
            temporary: self.temporary()?,
        })
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All snapshots, the newest first; for one whose header cannot be read, why.
    pub fn list(&self) -> Result<Vec<Result<SnapshotFile, StorageError>>, StorageError> {
        let names = self.disk.list(&self.folder);
        let mut names = names.map_err(StorageError::during("list", &self.folder))?;
        names.retain(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        // Indexes have a fixed width, so names sort like them.
        names.sort_unstable_by(|first, second| second.cmp(first));
        Ok(names
            .iter()
            .map(|name| self.open_file(self.folder.join(name)))
            .collect())
    }

    /// The newest snapshot, checked from end to end. If it is damaged, an older one will do only if
    /// `covered` says that the log goes on from there (`None`: from the very beginning); otherwise
    /// the damage is the error.
    pub fn open_latest(
        &self,
        covered: impl Fn(Option<EntryId>) -> bool,
    ) -> Result<Option<SnapshotFile>, StorageError> {
        let mut damage = None;
        for candidate in self.list()? {
            let checked = candidate.and_then(|snapshot| {
                self.verify(&snapshot)?;
                Ok(snapshot)
            });
            match checked {
                Ok(snapshot)
                    if damage.is_none()
                        || covered(snapshot.info.last)
                        || planted(Canary::OlderSnapshotAnyway) =>
                {
                    return Ok(Some(snapshot));
                }
                Ok(_) => {}
                Err(error @ StorageError::Damaged { .. }) => {
                    tracing::error!(%error, "a snapshot cannot be used");
                    damage = damage.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        match damage {
            Some(error) if !covered(None) => Err(error),
            _ => Ok(None),
        }
    }

    /// The newest of the snapshots that this process has written, or read from end to end.
    pub fn newest_verified(&self) -> Result<Option<SnapshotFile>, StorageError> {
        for snapshot in self.list()?.into_iter().filter_map(Result::ok) {
            if self.verified.lock().contains(&snapshot.path) {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }

    /// Reads a snapshot from end to end and checks every checksum.
    pub fn verify(&self, snapshot: &SnapshotFile) -> Result<(), StorageError> {
        check_blocks(snapshot)?;
        self.verified.lock().insert(snapshot.path.clone());
        Ok(())
    }

    /// Removes all but the newest `keep` snapshots, at least one, once the newest is known to be
    /// whole. Returns the last entry of the oldest that is left: the log from there on must stay.
    pub fn purge(&self, keep: usize) -> Result<Option<EntryId>, StorageError> {
        let all = self.list()?;
        if let Some(newest) = all.first() {
            let newest = newest.as_ref().map_err(StorageError::clone)?;
            if !self.verified.lock().contains(&newest.path) {
                self.verify(newest)?;
            }
        }
        let whole: Vec<SnapshotFile> = all.into_iter().filter_map(Result::ok).collect();
        let (kept, purged) = whole.split_at(keep.max(1).min(whole.len()));
        for snapshot in purged {
            super::log::remove_if_there(&*self.disk, &snapshot.path)?;
            self.verified.lock().remove(&snapshot.path);
        }
        if !purged.is_empty() {
            let synced = self.disk.sync_folder(&self.folder);
            synced.map_err(StorageError::during("sync", &self.folder))?;
        }
        Ok(kept.last().and_then(|snapshot| snapshot.info.last))
    }

    fn temporary(&self) -> Result<Temporary, StorageError> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self
            .folder
            .join(format!("{PREFIX}{number}{TEMPORARY_SUFFIX}"));
        let file = self
            .disk
            .create(&path)
            .map_err(StorageError::during("create", &path))?;
        Ok(Temporary {
            store: self.clone(),
            path,
            file,
            length: 0,
            unsynced: 0,
            done: false,
        })
    }

    fn open_file(&self, path: PathBuf) -> Result<SnapshotFile, StorageError> {
        let file = self
            .disk
            .open(&path)
            .map_err(StorageError::during("open", &path))?;
        SnapshotFile::open(path, file, self.cluster)
    }
}

impl SnapshotFile {
    fn open(
        path: PathBuf,
        file: Arc<dyn File>,
        cluster: u64,
    ) -> Result<SnapshotFile, StorageError> {
        let length = file.length().map_err(StorageError::during("read", &path))?;
        let (info, _) = format::read_header(&*file, &path, length, cluster)?;
        Ok(SnapshotFile {
            path,
            file,
            cluster,
            info,
            length,
        })
    }

    /// What it covers.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length on disk: what [`SnapshotFile::read_at`] can read and a receiver will write.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads the contents. Every block is checked before any byte of it comes out.
    pub fn read(&self) -> Result<SnapshotReader, StorageError> {
        SnapshotReader::new(self)
    }

    /// Reads the file as it is, to send it to another server. 0 is the end.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        loop {
            match self.file.read_some_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(StorageError::during("read", &self.path)),
            }
        }
    }
}

/// A file under a temporary name, removed unless it is finished.
#[derive(Debug)]
struct Temporary {
    store: SnapshotStore,
    path: PathBuf,
    file: Arc<dyn File>,
    length: u64,
    unsynced: u64,
    done: bool,
}

impl Temporary {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let written = write_all_at(&*self.file, bytes, self.length);
        written.map_err(StorageError::during("write", &self.path))?;
        self.length += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= BYTES_PER_SYNC {
            self.file
                .sync_data()
                .map_err(StorageError::during("sync", &self.path))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Sync, read back, rename, sync the folder: in this order, each only if the one before went
    /// well.
    fn finish(mut self, expected: Option<Summary>) -> Result<SnapshotFile, StorageError> {
        if !planted(Canary::SnapshotNotSynced) {
            let synced = self.file.sync_all();
            synced.map_err(StorageError::during("sync", &self.path))?;
        }
        // Without effect where the file system has no such thing: then the cache is what is read.
        self.file.forget_cached().ok();
        let store = self.store.clone();
        let written = SnapshotFile::open(self.path.clone(), self.file.clone(), store.cluster)?;
        let mut reader = written.read()?;
        if !planted(Canary::SnapshotNotReadBack) {
            reader.skip_to_end()?;
        }
        if expected
            .filter(|_| !planted(Canary::SnapshotNotReadBack))
            .is_some_and(|expected| expected != reader.summary())
        {
            let what = "it reads back differently from what was written";
            return Err(StorageError::damaged(&self.path, 0, what));
        }
        let index = written.info.last.map_or(0, |last| last.index);
        let path = store.folder.join(format!("{PREFIX}{index:020}{SUFFIX}"));
        let renamed = store.disk.rename(&self.path, &path);
        renamed.map_err(StorageError::during("rename", &self.path))?;
        self.done = true;
        if !planted(Canary::SnapshotNameNotSynced) {
            let synced = store.disk.sync_folder(&store.folder);
            synced.map_err(StorageError::during("sync", &store.folder))?;
        }
        store.verified.lock().insert(path.clone());
        Ok(SnapshotFile { path, ..written })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = self.store.disk.remove(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a temporary file stays behind");
        }
    }
}

/// Takes the contents of a snapshot, in pieces of any size.
#[derive(Debug)]
pub struct SnapshotWriter {
    temporary: Temporary,
    blocks: BlockWriter,
    info: SnapshotInfo,
    /// After a failure nothing more is taken: the file would have a hole.
    failed: Option<StorageError>,
}

impl SnapshotWriter {
    /// What it will cover.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// What the disk refused, if it did.
    pub fn failure(&self) -> Option<&StorageError> {
        self.failed.as_ref()
    }

    /// Makes the snapshot durable, reads it back, and gives it its name.
    pub fn finish(mut self) -> Result<SnapshotFile, StorageError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let temporary = &mut self.temporary;
        let summary = self.blocks.finish(|bytes| temporary.write(bytes))?;
        self.temporary.finish(Some(summary))
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        let temporary = &mut self.temporary;
        match self.blocks.write(bytes, |block| temporary.write(block)) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error.into())
            }
        }
    }

    /// Does nothing: a block is written when it is full, all of it made durable at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the bytes of another server's snapshot file.
#[derive(Debug)]
pub struct SnapshotReceiver {
    temporary: Temporary,
}

impl SnapshotReceiver {
    /// Takes the next bytes of the file.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.temporary.write(bytes)
    }

    /// Checks the file from end to end, makes it durable and gives it its name.
    pub fn finish(self) -> Result<SnapshotFile, StorageError> {
        self.temporary.finish(None)
    }
}

impl Read for SnapshotReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_some(bytes)?)
    }
}
