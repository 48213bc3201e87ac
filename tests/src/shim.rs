//! Faults inside a server's process: a library it loads first, built from C for one test.
//!
//! What it can do stands in `shim.c`; each fault is off unless its variable is set.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::run;

const COMPILER_LIMIT: Duration = Duration::from_secs(60);

/// Builds the library that makes writes short and clocks jump; `None` where there is no compiler.
///
/// # Errors
/// There is a compiler, and it fails.
pub fn build(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut version = Command::new("cc");
    version.arg("--version");
    if !run(version, "", COMPILER_LIMIT).is_ok_and(|done| done.success) {
        return Ok(None);
    }
    let library = folder.join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/shim.c");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-o"]);
    command.arg(&library).arg(source).arg("-ldl");
    let built = run(command, "", COMPILER_LIMIT)?;
    if built.success {
        return Ok(Some(library));
    }
    Err(io::Error::other(format!(
        "the shim does not build:\n{}",
        built.stderr
    )))
}

/// Environment variables that have a process load the library with one of its faults.
#[must_use]
pub fn variables(library: &Path, fault: &str, value: &str) -> Vec<(String, String)> {
    let library = library.to_string_lossy().into_owned();
    vec![
        ("LD_PRELOAD".to_owned(), library),
        (fault.to_owned(), value.to_owned()),
    ]
}

/// How far the wall clock of a server is ahead of the machine's: `SHIM_CLOCK`.
#[derive(Debug)]
pub struct WallClock {
    path: PathBuf,
}

impl WallClock {
    /// A clock that is right as yet.
    ///
    /// # Errors
    /// Its file cannot be written.
    pub fn new(path: &Path) -> io::Result<Self> {
        fs::write(path, 0_i64.to_ne_bytes())?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// What a process that is to go by it has in its environment.
    #[must_use]
    pub fn variables(&self, library: &Path) -> Vec<(String, String)> {
        variables(library, "SHIM_CLOCK", &self.path.to_string_lossy())
    }

    /// From now on it is so far ahead, or behind.
    ///
    /// # Errors
    /// Its file cannot be written.
    pub fn set_ahead_ms(&self, ms: i64) -> io::Result<()> {
        // In place: the server has the file mapped.
        let file = File::options().write(true).open(&self.path)?;
        file.write_all_at(&ms.to_ne_bytes(), 0)
    }
}
