//! Java programs of the tests: compiled once per run, started with the jars that Debian packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::run;
use crate::server::class_path;

/// Far more than a few files take on a busy machine.
const COMPILE_LIMIT: Duration = Duration::from_secs(120);

/// A set of sources, compiled once per run of the tests.
#[derive(Debug)]
pub struct Classes {
    name: &'static str,
    folder: OnceLock<PathBuf>,
}

impl Classes {
    /// The classes go to a folder of this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            folder: OnceLock::new(),
        }
    }

    /// The command that runs `main`; it still lacks its arguments. What is compiled goes to a folder
    /// in `target`.
    ///
    /// # Panics
    /// If the sources do not compile.
    pub fn program(
        &self,
        target: &Path,
        jars: &[&str],
        sources: &[PathBuf],
        main: &str,
    ) -> Command {
        let folder = self.folder.get_or_init(|| {
            let folder = target.join(self.name);
            compile(&folder, jars, sources);
            folder
        });
        let mut command = Command::new("java");
        command
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(format!("{}:{}", folder.display(), class_path(jars)))
            .arg(main);
        command
    }
}

fn compile(folder: &Path, jars: &[&str], sources: &[PathBuf]) {
    if let Err(error) = std::fs::create_dir_all(folder) {
        panic!("{}: {error}", folder.display());
    }
    let mut command = Command::new("javac");
    command
        .args(["-nowarn", "-cp"])
        .arg(class_path(jars))
        .arg("-d")
        .arg(folder)
        .args(sources);
    match run(command, "", COMPILE_LIMIT) {
        Ok(done) if done.success => {}
        Ok(done) => panic!("the programs do not compile:\n{}", done.stderr),
        Err(error) => panic!("the programs do not compile: {error}"),
    }
}
