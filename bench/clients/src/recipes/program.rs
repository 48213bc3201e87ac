//! A process that contends by one library.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::library::Failure;

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recipes");
/// Where Debian puts jars.
const JARS_FOLDER: &str = "/usr/share/java";
const JARS: [&str; 9] = [
    "zookeeper",
    "zookeeper-jute",
    "zookeeper-recipes-lock",
    "zookeeper-recipes-election",
    "curator-client",
    "curator-framework",
    "curator-recipes",
    "guava",
    "slf4j-nop",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Rust,
    Java,
    Python,
}

impl Language {
    fn command(self) -> Result<Command, Failure> {
        Ok(match self {
            Self::Rust => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("contend");
                command
            }
            Self::Java => {
                let jars: Vec<String> = JARS
                    .iter()
                    .map(|jar| format!("{JARS_FOLDER}/{jar}.jar"))
                    .collect();
                let mut command = Command::new("java");
                command
                    .args(["-cp", &jars.join(":")])
                    .arg(format!("{PROGRAMS}/java/Contender.java"));
                command
            }
            Self::Python => {
                let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
                let mut command = Command::new(python);
                command.arg(format!("{PROGRAMS}/python/contender.py"));
                command
            }
        })
    }
}

/// It is killed, by its process id, when dropped.
pub(super) struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Program {
    pub(super) fn start(language: Language, server: &str) -> Result<Self, Failure> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("quorate-bench-recipes-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder)?;
        let mut child = language
            .command()?
            .arg(server)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a program without pipes".into());
        };
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
            folder,
        })
    }

    /// A folder of its own, for as long as it lives.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn tell(&mut self, command: &str) -> Result<(), Failure> {
        writeln!(self.input, "{command}")?;
        Ok(self.input.flush()?)
    }

    /// The next answer, without the name of whose it is.
    pub(super) fn answer(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a program has ended".into());
        }
        let (_, answer) = line.trim_end().split_once(' ').ok_or("half an answer")?;
        Ok(answer.to_owned())
    }

    pub(super) fn ask(&mut self, command: &str) -> Result<String, Failure> {
        self.tell(command)?;
        self.answer()
    }

    /// At once (SIGKILL).
    pub(super) fn kill(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        // What stays behind is small, and in the folder for such things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
