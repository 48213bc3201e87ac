//! Child processes that cannot outlive their test.
//!
//! A [`Process`] writes to a log file and is killed, by its process id, when dropped; if the test is
//! failing at that moment the end of the log is shown. [`run`] is for programs that end by
//! themselves: it returns what they printed, or kills them at the deadline.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How much of a log is shown when a test fails: enough for a Java stack trace or two.
const LOG_TAIL_BYTES: usize = 12 * 1024;

/// The pause between two looks at something that gives no notice (exit of a child, an open port).
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A running child process with its output in a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both output streams appended to `log`.
    ///
    /// # Errors
    /// The log cannot be opened, or the program cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The operating system's id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the process has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends the process at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        // Fails only if the process has been waited for already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The end of what the process has printed so far.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let Ok(bytes) = std::fs::read(&self.log) else {
            return String::new();
        };
        let from = bytes.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let _ = writeln!(
                io::stderr(),
                "--- the last lines of {} (process {}):\n{}",
                self.name,
                self.id(),
                self.log_tail()
            );
        }
    }
}

/// What a program that ended by itself has left behind.
#[derive(Debug)]
pub struct Finished {
    pub success: bool,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end, feeding it `input`.
///
/// # Errors
/// The program cannot be started, or is still running after `limit` (it is then killed, and the
/// error carries what it had printed).
pub fn run(mut command: Command, input: &str, limit: Duration) -> io::Result<Finished> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take();
    let input = input.to_owned();
    let feeder = thread::spawn(move || {
        if let Some(stdin) = stdin.as_mut() {
            // A program that does not read its input closes the pipe: not our concern.
            let _ = stdin.write_all(input.as_bytes());
        }
    });
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(POLL);
    };
    let _ = feeder.join();
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    match status {
        Some(status) => Ok(Finished {
            success: status.success(),
            code: status.code(),
            stdout,
            stderr,
        }),
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "{command:?} was still running after {limit:?}; it printed:\n{stdout}\n{stderr}"
            ),
        )),
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
