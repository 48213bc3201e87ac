//! A server's process.
//!
//! A child of this process, ended by its own process id: when dropped, and, where `setpriv` is
//! installed, also when this process is killed. What it prints goes to a file in its folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::BenchError;

const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// The end of a server's output that is shown when it failed.
const OUTPUT_SHOWN_BYTES: usize = 2_000;
const SETPRIV: &str = "/usr/bin/setpriv";

#[derive(Debug)]
pub(crate) struct Child {
    /// The server's, for people.
    name: &'static str,
    output: PathBuf,
    child: std::process::Child,
}

impl Child {
    /// Starts `program`; `dir` exists.
    pub(crate) fn spawn(
        name: &'static str,
        dir: &Path,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self, BenchError> {
        let io = BenchError::io;
        let path = dir.join("output");
        let output = File::create(&path).map_err(io("creating a file for output"))?;
        let output_too = output
            .try_clone()
            .map_err(io("creating a file for output"))?;
        let mut command = if Path::new(SETPRIV).exists() {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(output_too)
            .spawn()
            .map_err(io("starting a server"))?;
        Ok(Self {
            name,
            output: path,
            child,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn check_running(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(BenchError::ServerEnded {
                server: self.name,
                status: status.to_string(),
                output: self.output_end(),
            }),
            Err(error) => Err(BenchError::io("watching a server")(error)),
        }
    }

    /// The end of what it has printed.
    pub(crate) fn output_end(&self) -> String {
        let output = fs::read(&self.output).unwrap_or_default();
        let from = output.len().saturating_sub(OUTPUT_SHOWN_BYTES);
        String::from_utf8_lossy(&output[from..]).into_owned()
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        self.check_running()?;
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let since = Instant::now();
        while since.elapsed() < STOP_PATIENCE {
            let ended = self
                .child
                .try_wait()
                .map_err(BenchError::io("waiting for a server to end"))?;
            if ended.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Drop kills it.
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
