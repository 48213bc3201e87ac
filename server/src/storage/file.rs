//! The seam between storage and the operating system: the few file operations used, and no more.
//!
//! [`Disk`] and [`File`] name them; [`RealDisk`] is the operating system, and `memory` a disk that
//! loses what was not synced. No method hides a failure and none retries a sync: after a failed
//! fsync the kernel may have dropped the data and call the next one a success (Rebello et al.,
//! "Can Applications Recover from fsync Failures?", ATC 2020).

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Folders and names. Paths are whole; a name becomes durable with [`Disk::sync_folder`] only.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates a folder for its owner alone, and the folders above it, durably.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Creates a file that must not exist yet, for its owner alone.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file to read and write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, replacing what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away. Open handles keep reading.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a folder, in ascending order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// How long the log's next sync is to take. A disk takes the time it takes; one that is simulated
    /// cannot block, so it says so.
    fn sync_takes(&self) -> Duration {
        Duration::ZERO
    }
}

/// An open file. Positions are explicit, so handles can be shared.
pub trait File: Debug + Send + Sync + 'static {
    /// Writes some of `bytes` at `offset`; says how many. One system call: see [`write_all_at`].
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reads some bytes at `offset`; 0 is the end. One system call: see [`read_exact_at`].
    fn read_some_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes contents and length durable, not times and permissions.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes everything about the file durable, except for its name.
    fn sync_all(&self) -> io::Result<()>;
    /// Reserves disk space for the first `length` bytes, which read as zeros where never written.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// The file's length.
    fn length(&self) -> io::Result<u64>;
    /// Asks that later reads come from the disk itself. A hint: without effect on dirty pages.
    fn forget_cached(&self) -> io::Result<()>;
}

/// Writes all of `bytes`. An interrupted call is repeated and a short write is continued; one that
/// makes no progress is an error.
pub fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_some_at(bytes, offset) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    "the disk took no bytes",
                ));
            }
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `bytes`; the end of the file before that is an error.
pub fn read_exact_at(file: &dyn File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_some_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes zeros over `from..to`.
pub fn write_zeros(file: &dyn File, mut from: u64, to: u64) -> io::Result<()> {
    /// Large enough to be one request to most disks, small enough to sit in the binary.
    static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
    while from < to {
        let length = usize::try_from(to - from)
            .unwrap_or(usize::MAX)
            .min(ZEROS.len());
        write_all_at(file, &ZEROS[..length], from)?;
        from += length as u64;
    }
    Ok(())
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(fs::File);

impl Disk for RealDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let missing = path.ancestors().take_while(|folder| !folder.exists());
        let missing: Vec<&Path> = missing.filter(|folder| *folder != Path::new("")).collect();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path)?;
        for folder in missing {
            match folder.parent() {
                Some(parent) if parent != Path::new("") => self.sync_folder(parent)?,
                Some(_) => self.sync_folder(Path::new("."))?,
                None => {}
            }
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(
            fs::OpenOptions::new().read(true).write(true).open(path)?,
        )))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }
}

impl File for RealFile {
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn read_some_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        rustix::fs::fdatasync(&self.0).map_err(Into::into)
    }

    fn sync_all(&self) -> io::Result<()> {
        rustix::fs::fsync(&self.0).map_err(Into::into)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.0, flags, 0, length)) {
            Ok(()) => Ok(()),
            // Not every file system can; the zeros written next take the space then.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                self.set_length(length.max(self.length()?))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn forget_cached(&self) -> io::Result<()> {
        rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed).map_err(Into::into)
    }
}
