//! A real file system on a file: one whose power can be cut, and that can be full.
//!
//! What was not synced when the power is cut is gone after [`LoopDisk::restore_power`]: the file
//! system itself is shut down without flushing its journal, so folders and file sizes are subject to
//! it as well as data. It takes root, loop devices and a C compiler. Mount it in a namespace that ends
//! with the test, and no trace of it remains but the image.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::process::{POLL, run};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How often unmounting is tried: a killed process may hold on to its files for a moment.
const UNMOUNT_ATTEMPTS: u32 = 250;
/// The least that mkfs.xfs makes; the image is sparse.
const XFS_MIB_MIN: u64 = 320;

/// Of what kind a disk's file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    fn program(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }

    /// Whether it can be made here.
    #[must_use]
    pub fn is_there(self) -> bool {
        let mut command = Command::new(self.program());
        command.arg("-V");
        run(command, "", COMMAND_LIMIT).is_ok_and(|done| done.success)
    }
}

/// The program that shuts file systems down; see `power_cut.c`.
#[derive(Clone, Debug)]
pub struct PowerCutter(PathBuf);

impl PowerCutter {
    /// Builds it.
    ///
    /// # Errors
    /// There is no C compiler, or it fails.
    pub fn build(folder: &Path) -> io::Result<Self> {
        let program = folder.join("power_cut");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/power_cut.c");
        let mut command = Command::new("cc");
        command.args(["-O1", "-o"]).arg(&program).arg(source);
        succeed(command)?;
        Ok(Self(program))
    }
}

/// A mounted file system of some MiB.
#[derive(Debug)]
pub struct LoopDisk {
    image: PathBuf,
    folder: PathBuf,
    cutter: PowerCutter,
}

impl LoopDisk {
    /// Makes an image beside `folder` and mounts it there.
    ///
    /// # Errors
    /// It takes root and a loop device.
    pub fn mount(
        kind: FileSystem,
        mib: u64,
        folder: &Path,
        cutter: &PowerCutter,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let disk = Self {
            image: folder.with_extension("image"),
            folder: folder.to_owned(),
            cutter: cutter.clone(),
        };
        let mib = match kind {
            FileSystem::Ext4 => mib,
            FileSystem::Xfs => mib.max(XFS_MIB_MIN),
        };
        File::create(&disk.image)?.set_len(mib << 20)?;
        let mut command = Command::new(kind.program());
        match kind {
            // No blocks for root alone: whoever fills it is root.
            FileSystem::Ext4 => command.args(["-q", "-F", "-m", "0"]),
            FileSystem::Xfs => command.args(["-q", "-f"]),
        };
        succeed({
            command.arg(&disk.image);
            command
        })?;
        disk.attach()?;
        Ok(disk)
    }

    fn attach(&self) -> io::Result<()> {
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&self.image);
        succeed({
            command.arg(&self.folder);
            command
        })
    }

    /// For what is to be on it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All that is on it survives a power cut from now on: what a test puts there itself.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.folder)?)?)
    }

    /// From now on every write fails, and what was not synced is gone after
    /// [`LoopDisk::restore_power`].
    ///
    /// # Errors
    /// The file system does not have this.
    pub fn cut_power(&self) -> io::Result<()> {
        let mut command = Command::new(&self.cutter.0);
        command.arg(&self.folder);
        succeed(command)
    }

    /// Mounts it again. No process may have a file of it open.
    ///
    /// # Errors
    /// One has, or the file system does not recover.
    pub fn restore_power(&self) -> io::Result<()> {
        let mut attempts = 0;
        loop {
            let mut command = Command::new("umount");
            command.arg(&self.folder);
            match succeed(command) {
                Ok(()) => return self.attach(),
                Err(error) if attempts == UNMOUNT_ATTEMPTS => return Err(error),
                Err(_) => attempts += 1,
            }
            thread::sleep(POLL);
        }
    }

    /// Takes all the space that is left.
    ///
    /// # Errors
    /// The ballast cannot be made.
    pub fn fill(&self) -> io::Result<()> {
        let ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        for shift in [24, 20, 16, 12] {
            loop {
                let length = ballast.metadata()?.len();
                let flags = rustix::fs::FallocateFlags::empty();
                match rustix::fs::fallocate(&ballast, flags, length, 1 << shift) {
                    Ok(()) => {}
                    Err(rustix::io::Errno::NOSPC) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
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

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Lazily: a server that is still running must not keep it for ever.
        let mut command = Command::new("umount");
        command.arg("-l").arg(&self.folder);
        let _ = run(command, "", COMMAND_LIMIT);
        let _ = fs::remove_file(&self.image);
    }
}

fn succeed(command: Command) -> io::Result<()> {
    let name = format!("{command:?}");
    let done = run(command, "", COMMAND_LIMIT)?;
    match done.success {
        true => Ok(()),
        false => Err(io::Error::other(format!("{name}: {}", done.stderr.trim()))),
    }
}
