//! A server's files, looked at while no server runs on them: what they hold, whether it is sound,
//! and what a start would make of it.
//!
//! Nothing here writes, and nothing is guessed: what a start would do is found out with the code of
//! a start. [`Folders::lock`] keeps servers out while it looks, and refuses where one runs.

pub mod check;
mod disk;
pub mod merge;
pub mod replay;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_protocol::Zxid;

use self::disk::{RealFiles, Unchanged};
use crate::storage::file::Disk;
use crate::storage::log::LogState;
use crate::storage::log::inspect::{self, Batch, Outlook, Scanned};
use crate::storage::snapshots::{SnapshotFile, SnapshotStore};
use crate::storage::{DataDir, Identity, StorageError};

/// The folders of one server.
#[derive(Debug)]
pub struct Folders {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    log: PathBuf,
    identity: Option<Identity>,
    /// Closing a file lets go of its lock.
    _locks: Vec<fs::File>,
}

impl Folders {
    /// Takes the folders for as long as the result lives: that of the snapshots and that of the log,
    /// which may be the same. Others may look at the same time; no server can start.
    ///
    /// # Errors
    ///
    /// [`StorageError`]: there is no such folder, a server uses it, or its identity is damaged.
    pub fn lock(data: &Path, log: &Path) -> Result<Self, StorageError> {
        let mut locks = Vec::new();
        for folder in [data, log] {
            check_folder(folder)?;
            locks.extend(lock_shared(folder)?);
        }
        let folders = Self::open(Arc::new(RealFiles), data, log)?;
        Ok(Self {
            _locks: locks,
            ..folders
        })
    }

    /// The same on any disk, without locks: for tests and proofs.
    ///
    /// # Errors
    ///
    /// As [`Folders::lock`].
    pub fn on(disk: Arc<dyn Disk>, data: &Path, log: &Path) -> Result<Self, StorageError> {
        Self::open(Arc::new(Unchanged(disk)), data, log)
    }

    fn open(disk: Arc<dyn Disk>, data: &Path, log: &Path) -> Result<Self, StorageError> {
        let identity = DataDir::open_on(Arc::clone(&disk), data, log)?.identity();
        Ok(Self {
            disk,
            data: data.to_owned(),
            log: log.to_owned(),
            identity,
            _locks: Vec::new(),
        })
    }

    /// Where the snapshots are.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where the log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whose folders these are; `None` if no server was ever started on them.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// The snapshots; nobody's, if these folders are nobody's.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn snapshots(&self) -> Result<SnapshotStore, StorageError> {
        let cluster = self.identity.map_or(0, |identity| identity.cluster);
        SnapshotStore::open(Arc::clone(&self.disk), &self.data, cluster)
    }

    /// What a start would find in the log. `None`: there is none.
    ///
    /// # Errors
    ///
    /// Those of a start.
    pub fn outlook(&self) -> Result<Option<Outlook>, StorageError> {
        match self.identity {
            Some(identity) => inspect::outlook(&*self.disk, &self.log, identity),
            None => Ok(None),
        }
    }

    /// What a start would find in a log that has to be there.
    ///
    /// # Errors
    ///
    /// Those of a start.
    pub fn whole_log(&self) -> Result<Outlook, StorageError> {
        self.outlook()?.ok_or_else(|| StorageError::Missing {
            path: self.log.clone(),
            what: "there is no log in this folder".to_owned(),
        })
    }

    /// Goes through all that was written to the log and is still there, damage or not.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn scan(&self, visit: impl FnMut(&Batch)) -> Result<Vec<Scanned>, StorageError> {
        match self.identity {
            Some(identity) => inspect::scan(&*self.disk, &self.log, identity, visit),
            None => Ok(Vec::new()),
        }
    }

    /// The first segment that holds something although the folders are nobody's.
    fn stray_segment(&self) -> Result<Option<PathBuf>, StorageError> {
        inspect::first_with_contents(&*self.disk, &self.log)
    }

    /// How to make zxids of indexes: `None` if that cannot be known, because the log does not begin
    /// at the beginning and no snapshot can be read.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn zxids(&self, log: &LogState) -> Result<Option<ZxidBase>, StorageError> {
        for snapshot in self.snapshots()?.list()?.into_iter().flatten() {
            if let Some(base) = ZxidBase::of_snapshot(&snapshot) {
                return Ok(Some(base));
            }
        }
        Ok(log.purged.is_none().then_some(ZxidBase(0)))
    }
}

/// What is to be added to an index to have the zxid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZxidBase(i64);

impl ZxidBase {
    fn of_snapshot(snapshot: &SnapshotFile) -> Option<Self> {
        let zxid = quorate_state::last_zxid_of_snapshot(&mut snapshot.read().ok()?).ok()?;
        let index = snapshot.info().last.map_or(0, |last| last.index);
        Some(Self(zxid.0.checked_sub_unsigned(index)?))
    }

    /// Of a log that gives index 0 this zxid.
    pub fn new(zxid_of_0: i64) -> Self {
        Self(zxid_of_0)
    }

    /// The zxid of the entry at an index.
    pub fn zxid(self, index: u64) -> Zxid {
        Zxid(self.0.saturating_add_unsigned(index))
    }
}

fn check_folder(folder: &Path) -> Result<(), StorageError> {
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(StorageError::NotAFolder {
            path: folder.to_owned(),
        }),
        Err(error) => Err(StorageError::io("read", folder, error)),
    }
}

/// Keeps servers out of a folder. `None` where no server ever was.
fn lock_shared(folder: &Path) -> Result<Option<fs::File>, StorageError> {
    let path = folder.join(crate::storage::data_dir::LOCK);
    let failed = |error| StorageError::io("lock", &path, error);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let holder = match file.take(20).read_to_string(&mut holder) {
                Ok(1..) => format!("process {}", holder.trim()),
                _ => "a server".to_owned(),
            };
            Err(StorageError::Locked {
                path: folder.to_owned(),
                holder,
            })
        }
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}
