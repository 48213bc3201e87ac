//! A disk that only gives: whatever looks at a server's files through it cannot change them.
//!
//! Temporary files are not shown. A start would remove them, and what is in them does not count.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::storage::file::{Disk, File};

/// What unfinished files end in.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The operating system's files, opened to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealFiles;

/// Any other disk, of which nothing is changed.
#[derive(Clone, Debug)]
pub(crate) struct Unchanged(pub(crate) Arc<dyn Disk>);

#[derive(Debug)]
struct RealFile(fs::File);

#[derive(Debug)]
struct UnchangedFile(Arc<dyn File>);

fn refused<T>() -> io::Result<T> {
    let text = "this program only reads";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn without_temporaries(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| !name.ends_with(TEMPORARY_SUFFIX));
    names
}

impl Disk for RealFiles {
    /// Does nothing where the folder is there.
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::read_dir(path).map(|_| ())
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<dyn File>> {
        refused()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::File::open(path)?)))
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        crate::storage::file::RealDisk
            .list(folder)
            .map(without_temporaries)
    }

    /// Nothing was changed.
    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for RealFile {
    fn write_some_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        refused()
    }

    fn read_some_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn sync_all(&self) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    fn set_length(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for Unchanged {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.0.list(path).map(|_| ())
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<dyn File>> {
        refused()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnchangedFile(self.0.open(path)?)))
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.list(folder).map(without_temporaries)
    }

    /// Nothing was changed.
    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for UnchangedFile {
    fn write_some_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        refused()
    }

    fn read_some_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_some_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn sync_all(&self) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    fn set_length(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}
