//! Why storage cannot go on. Every variant is one line that says what is wrong and what to do.
//!
//! Cloneable, because one failure answers every caller that waits. A [`StorageError`] ends the
//! server or keeps it from starting; there is none that a client ever sees.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// A failure of storage.
#[derive(Clone, Debug, Error)]
pub enum StorageError {
    /// The path of a folder names something else.
    #[error("{path} is not a folder; name a folder, or move the file away")]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder cannot be written.
    #[error("cannot write in {path} ({source}); {}", advice(source))]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process uses the folder.
    #[error("{path} is in use by {holder}; stop that server, or use another folder")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that holds the lock, as far as it told.
        holder: String,
    },
    /// Written by a later release.
    #[error(
        "{path} has format version {found}, this program reads up to {supported}; \
         run the release that wrote it, or a later one"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The bytes are not what was written.
    #[error(
        "{path} is damaged at byte {offset}: {what}; nothing was changed. Keep the files, \
         and rebuild this server from its peers or restore a backup"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// A file that must be there is not.
    #[error(
        "{path} is missing: {what}; nothing was changed. Put it back, or rebuild this server \
         from its peers or a backup"
    )]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// How that is known.
        what: String,
    },
    /// The file belongs to another server or ensemble.
    #[error(
        "{path} belongs to server {found_server} of ensemble {found_cluster:016x}, not to server \
         {server} of {cluster:016x}; check the configured folders and server id"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Ensemble id in the file.
        found_cluster: u64,
        /// Server id in the file.
        found_server: u64,
        /// Ensemble id of this server.
        cluster: u64,
        /// Id of this server.
        server: u64,
    },
    /// The snapshot belongs to another ensemble.
    #[error(
        "{path} belongs to ensemble {found_cluster:016x}, not to {cluster:016x}; move it away, or \
         check the configured folder"
    )]
    ForeignSnapshot {
        /// The file.
        path: PathBuf,
        /// Ensemble id in the file.
        found_cluster: u64,
        /// Ensemble id of this server.
        cluster: u64,
    },
    /// The disk refused an operation. After a write or sync of the log this is for ever: what the
    /// page cache holds can no longer be told from what the disk holds.
    #[error("cannot {operation} {path} ({source}); check the disk, then start the server again")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Entries must follow each other without a gap: a bug of the caller.
    #[error(
        "the log continues at index {expected}, but index {found} was appended; report this bug"
    )]
    Gap {
        /// The index that comes next.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// A single entry beyond what a segment may hold.
    #[error("an entry of {length} bytes exceeds the limit of {limit}; lower the request limit")]
    EntryTooLarge {
        /// Its length.
        length: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// The log was closed.
    #[error("the log is closed; start the server again to use it")]
    Closed,
}

impl StorageError {
    /// Says what was tried on which path.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> StorageError {
        StorageError::Io {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// The same, for `map_err`.
    pub(crate) fn during(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> StorageError {
        move |source| StorageError::io(operation, path, source)
    }

    /// Says where the bytes are wrong.
    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> StorageError {
        StorageError::Damaged {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }

    /// Whether the cause is a full disk or an exhausted quota, which passes by itself.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if is_no_space(source))
    }

    /// Whether the cause is that a file could not be opened for want of file descriptors, which
    /// passes by itself, too.
    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if is_out_of_descriptors(source))
    }
}

/// Whether `error` says that the disk or the quota is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What to do about a folder that cannot be written.
fn advice(error: &io::Error) -> &'static str {
    match is_no_space(error) {
        true => "free some space on its disk",
        false => "give the server's user access to it",
    }
}

/// Whether `error` says that the process, or the system, has too many files open.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> io::Error {
        let kind = match &error {
            StorageError::Io { source, .. } => source.kind(),
            StorageError::Damaged { .. } | StorageError::Missing { .. } => {
                io::ErrorKind::InvalidData
            }
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
