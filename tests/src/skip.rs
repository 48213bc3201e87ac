//! Tests that cannot run because a program is missing say so, and are counted.
//!
//! A skipped test passes, except where `QUORATE_INTEROP=required` (as in CI): there it fails.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::process::run;
use crate::server::DEBIAN_JARS;

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Records that `test` cannot run.
///
/// # Panics
/// If every test is required to run.
pub fn skip(test: &str, reason: &str) {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // Straight to stderr: the test runner would hide what a passing test prints.
    let _ = writeln!(
        io::stderr(),
        "skipped: {test}: {reason} (skipped so far: {count})"
    );
    let required = std::env::var("QUORATE_INTEROP").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "skipped: {test}: {reason}, but QUORATE_INTEROP=required"
    );
}

/// What a test needs beyond the workspace.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// `java`, and the named jars of Debian.
    Jars(&'static [&'static str]),
    /// `javac`.
    JavaCompiler,
    /// Python with a kazoo of this minor version.
    Kazoo(&'static str),
}

/// Whether everything needed is there; if not, `test` is recorded as skipped.
#[must_use]
pub fn available(test: &str, needs: &[Need]) -> bool {
    for need in needs {
        if let Err(reason) = need.check() {
            skip(test, &reason);
            return false;
        }
    }
    true
}

impl Need {
    fn check(self) -> Result<(), String> {
        match self {
            Self::Jars(jars) => {
                answers("java", &["-version"])?;
                for jar in jars {
                    let path = format!("{DEBIAN_JARS}/{jar}.jar");
                    if !Path::new(&path).exists() {
                        return Err(format!(
                            "{path} is missing (install zookeeper and libcurator-recipes-java)"
                        ));
                    }
                }
                Ok(())
            }
            Self::JavaCompiler => answers("javac", &["-version"]).map(drop),
            Self::Kazoo(version) => {
                let found = answers("python3", &["-c", "import kazoo; print(kazoo.__version__)"])?;
                if found.trim().starts_with(version) {
                    Ok(())
                } else {
                    Err(format!("kazoo {version} is wanted, found {}", found.trim()))
                }
            }
        }
    }
}

/// Asked once per run: starting a JVM for each test would cost more than some tests do.
static ANSWERS: Mutex<BTreeMap<String, Result<String, String>>> = Mutex::new(BTreeMap::new());

fn answers(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut known = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .entry(format!("{program} {arguments:?}"))
        .or_insert_with(|| ask(program, arguments))
        .clone()
}

fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    match run(command, "", Duration::from_secs(30)) {
        Ok(done) if done.success => Ok(done.stdout),
        Ok(done) => Err(format!(
            "{program} {arguments:?} fails: {}",
            done.stderr.trim()
        )),
        Err(error) => Err(format!("{program} is missing: {error}")),
    }
}
