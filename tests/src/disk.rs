//! A disk so small that a test can fill it.
//!
//! A file system in memory, mounted for one test and gone with it. What takes up its space is one file,
//! the ballast, so that a test gives all of it back by removing that.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::run;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A file system of its own, of some MiB; it goes with this.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Why there is none is said in words: it takes root, for example.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(mib: u32) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("quorate-disk-").tempdir();
        let folder = folder.map_err(|error| format!("no folder for a small disk: {error}"))?;
        let size = format!("size={mib}m");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, "quorate-test"]);
        command.arg(folder.path());
        match run(command, "", COMMAND_LIMIT) {
            Ok(done) if done.success => Ok(Self { folder }),
            Ok(done) => Err(format!(
                "it takes root to mount a small disk: {}",
                done.stderr.trim()
            )),
            Err(error) => Err(format!("mount is missing: {error}")),
        }
    }

    /// For what is to be on it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the space that is left.
    ///
    /// # Errors
    /// The ballast cannot be made.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        Ok(())
    }

    /// Takes so many MiB.
    ///
    /// # Errors
    /// There are not so many.
    pub fn take(&self, mib: usize) -> io::Result<()> {
        fs::write(self.ballast(), vec![1; mib << 20])
    }

    /// Gives back what was taken, if anything was.
    ///
    /// # Errors
    /// The ballast cannot be removed.
    pub fn free(&self) -> io::Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes it larger, or smaller.
    #[must_use]
    pub fn resize(&self, mib: u32) -> bool {
        let size = format!("remount,size={mib}m");
        let mut command = Command::new("mount");
        command.args(["-o", &size]).arg(self.folder());
        run(command, "", COMMAND_LIMIT).is_ok_and(|done| done.success)
    }

    fn ballast(&self) -> PathBuf {
        self.folder().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is still running must not keep it for ever.
        let mut command = Command::new("umount");
        command.arg("-l").arg(self.folder());
        let _ = run(command, "", COMMAND_LIMIT);
    }
}
