//! The folders of one server: who may use them, and whose they are.
//!
//! [`DataDir::open`] takes the lock that keeps a second process out, in both folders. `identity`
//! names ensemble and server; every file repeats them, so a file in the wrong folder is noticed. A
//! folder with an identity must have its log: emptiness that cannot be explained is an error, as
//! this server may have voted and acknowledged what is no longer there.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_state::canary::{Canary, planted};

use super::StorageError;
use super::error::is_no_space;
use super::file::{Disk, RealDisk, read_exact_at, write_all_at};
use super::log::{EntryId, FatalHook, Log, LogOptions};
use super::snapshots::SnapshotStore;

const IDENTITY_FILE: &str = "identity";
const IDENTITY_FILE_TEMPORARY: &str = "identity.tmp";
/// Whoever uses the folder holds a lock on this file.
pub(crate) const LOCK: &str = "lock";
/// The newest identity format this program reads, and the one it writes.
const FORMAT_VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"QuorumId";
const LENGTH: usize = 64;

/// Whose files these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The ensemble: a server alone draws it at random, several derive it from who they are.
    pub cluster: u64,
    /// The server.
    pub server: u64,
    /// Drawn when the folder was initialized: tells this data from any that the server had before.
    pub incarnation: u64,
}

impl Identity {
    /// Refuses a file of somebody else.
    pub(crate) fn check(
        &self,
        path: &Path,
        found_cluster: u64,
        found_server: u64,
    ) -> Result<(), StorageError> {
        if (found_cluster, found_server) == (self.cluster, self.server) {
            return Ok(());
        }
        Err(StorageError::Foreign {
            path: path.to_owned(),
            found_cluster,
            found_server,
            cluster: self.cluster,
            server: self.server,
        })
    }
}

/// The folders of this server, locked.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    log: PathBuf,
    identity: Option<Identity>,
    /// Closing a file lets go of its lock.
    _locks: Vec<fs::File>,
}

impl DataDir {
    /// Opens, and where needed creates, the folder for snapshots and the one for the log, which
    /// may be the same.
    pub fn open(data: &Path, log: &Path) -> Result<DataDir, StorageError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let mut locks = Vec::new();
        for folder in [data, log] {
            create_folder(&*disk, folder)?;
            // The same folder twice, perhaps by another path, is locked once: by inode.
            if !locks.iter().any(|held| is_same_folder(data, folder, held)) {
                locks.push(lock(folder)?);
            }
        }
        Self::with_disk(disk, data, log, locks)
    }

    /// The same on any disk, and without locks: for tests and simulation.
    pub fn open_on(disk: Arc<dyn Disk>, data: &Path, log: &Path) -> Result<DataDir, StorageError> {
        for folder in [data, log] {
            create_folder(&*disk, folder)?;
        }
        Self::with_disk(disk, data, log, Vec::new())
    }

    fn with_disk(
        disk: Arc<dyn Disk>,
        data: &Path,
        log: &Path,
        locks: Vec<fs::File>,
    ) -> Result<DataDir, StorageError> {
        let identity = read_identity(&*disk, data)?;
        if identity.is_some() {
            // Names that are seen here may be known to the cache alone, if a sync has failed and nothing
            // but the process was started again.
            for folder in [data, log] {
                disk.sync_folder(folder)
                    .map_err(StorageError::during("sync", folder))?;
            }
        }
        Ok(DataDir {
            disk,
            data: data.into(),
            log: log.into(),
            identity,
            _locks: locks,
        })
    }

    /// Whose folders these are; `None` before [`DataDir::initialize`].
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Refuses folders that another server has used.
    pub fn check_server(&self, server: u64) -> Result<(), StorageError> {
        let Some(found) = self.identity else {
            return Ok(());
        };
        let ours = Identity { server, ..found };
        ours.check(&self.data.join(IDENTITY_FILE), found.cluster, found.server)
    }

    /// Makes new folders this server's: an empty log, then the identity.
    pub fn initialize(
        &mut self,
        identity: Identity,
        options: &LogOptions,
    ) -> Result<(), StorageError> {
        let path = self.data.join(IDENTITY_FILE);
        if let Some(found) = self.identity {
            return identity.check(&path, found.cluster, found.server);
        }
        // The log first: an identity says that there is one.
        Log::create(&*self.disk, &self.log, identity, options)?;
        let temporary = self.data.join(IDENTITY_FILE_TEMPORARY);
        super::log::remove_if_there(&*self.disk, &temporary)?;
        let file = self
            .disk
            .create(&temporary)
            .map_err(StorageError::during("create", &path))?;
        write_all_at(&*file, &encode(identity), 0).map_err(StorageError::during("write", &path))?;
        file.sync_all()
            .map_err(StorageError::during("sync", &path))?;
        self.disk
            .rename(&temporary, &path)
            .map_err(StorageError::during("rename", &path))?;
        if !planted(Canary::IdentityNameNotSynced) {
            self.disk
                .sync_folder(&self.data)
                .map_err(StorageError::during("sync", &path))?;
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// Recovers the log and starts its threads.
    pub fn open_log(&self, options: LogOptions, on_fatal: FatalHook) -> Result<Log, StorageError> {
        Log::open(
            self.disk.clone(),
            &self.log,
            self.known_identity()?,
            options,
            on_fatal,
        )
    }

    /// As [`DataDir::open_log`], with a last check before anything is changed: see
    /// [`Log::open_after`].
    pub fn open_log_after<T>(
        &self,
        options: LogOptions,
        on_fatal: FatalHook,
        check: impl FnOnce(Option<EntryId>) -> Result<T, StorageError>,
    ) -> Result<(Log, T), StorageError> {
        Log::open_after(
            self.disk.clone(),
            &self.log,
            self.known_identity()?,
            options,
            on_fatal,
            check,
        )
    }

    /// Opens the snapshots.
    pub fn open_snapshots(&self) -> Result<SnapshotStore, StorageError> {
        SnapshotStore::open(
            self.disk.clone(),
            &self.data,
            self.known_identity()?.cluster,
        )
    }

    /// Whose folders these are, once that is settled.
    pub fn known_identity(&self) -> Result<Identity, StorageError> {
        self.identity.ok_or_else(|| StorageError::Missing {
            path: self.data.join(IDENTITY_FILE),
            what: "the folder was never initialized".to_owned(),
        })
    }
}

fn create_folder(disk: &dyn Disk, folder: &Path) -> Result<(), StorageError> {
    let created = disk.create_folder(folder).and_then(|()| disk.list(folder));
    match created {
        Ok(_) => Ok(()),
        Err(error) if fs::metadata(folder).is_ok_and(|found| !found.is_dir()) => {
            tracing::debug!(%error, "not a folder");
            Err(StorageError::NotAFolder {
                path: folder.to_owned(),
            })
        }
        Err(error) => Err(StorageError::NotWritable {
            path: folder.to_owned(),
            source: Arc::new(error),
        }),
    }
}

fn is_same_folder(first: &Path, second: &Path, _held: &fs::File) -> bool {
    match (fs::canonicalize(first), fs::canonicalize(second)) {
        (Ok(first), Ok(second)) => first == second,
        _ => false,
    }
}

/// Over what the last holder wrote, so that it takes no more space.
fn write_holder(file: &mut fs::File) -> io::Result<()> {
    let holder = std::process::id().to_string();
    file.write_all(holder.as_bytes())?;
    file.set_len(holder.len() as u64)
}

/// Locks a folder and writes this process's id into the lock file, for the message of the next one.
fn lock(folder: &Path) -> Result<fs::File, StorageError> {
    let not_writable = |error| StorageError::NotWritable {
        path: folder.to_owned(),
        source: Arc::new(error),
    };
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options.open(folder.join(LOCK)).map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => {
            match write_holder(&mut file) {
                // A server whose disk is full must start all the same: it has its log's space, and may
                // be needed for a majority.
                Err(error) if !is_no_space(&error) => Err(not_writable(error)),
                _ => Ok(file),
            }
        }
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let read = file
                .rewind()
                .and_then(|()| file.take(20).read_to_string(&mut holder));
            let holder = match read {
                Ok(1..) => format!("process {}", holder.trim()),
                _ => "another process".to_owned(),
            };
            Err(StorageError::Locked {
                path: folder.to_owned(),
                holder,
            })
        }
        Err(fs::TryLockError::Error(error)) => Err(not_writable(error)),
    }
}

/// `magic | version u32 | zero u32 | cluster u64 | server u64 | incarnation u64 | zeros | checksum u32`
fn encode(identity: Identity) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&identity.cluster.to_le_bytes());
    bytes[24..32].copy_from_slice(&identity.server.to_le_bytes());
    bytes[32..40].copy_from_slice(&identity.incarnation.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..LENGTH - 4]);
    bytes[LENGTH - 4..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn read_identity(disk: &dyn Disk, folder: &Path) -> Result<Option<Identity>, StorageError> {
    use super::log::{u32_at, u64_at};
    let path = folder.join(IDENTITY_FILE);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("open", &path, error)),
    };
    let mut bytes = [0; LENGTH];
    match read_exact_at(&*file, &mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(StorageError::damaged(&path, 0, "the file is cut short"));
        }
        Err(error) => return Err(StorageError::io("read", &path, error)),
    }
    if &bytes[0..8] != MAGIC || crc32c::crc32c(&bytes[..LENGTH - 4]) != u32_at(&bytes, LENGTH - 4) {
        return Err(StorageError::damaged(&path, 0, "this is no identity"));
    }
    let found = u32_at(&bytes, 8);
    if found > FORMAT_VERSION {
        return Err(StorageError::NewerFormat {
            path,
            found,
            supported: FORMAT_VERSION,
        });
    }
    Ok(Some(Identity {
        cluster: u64_at(&bytes, 16),
        server: u64_at(&bytes, 24),
        incarnation: u64_at(&bytes, 32),
    }))
}

#[cfg(test)]
mod tests;
