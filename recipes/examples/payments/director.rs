//! Starts the workers, continues the one that was stopped, and looks whether the promise was kept.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{CUSTOMERS, Failure, UNLUCKY, store};

const WORKERS: usize = 5;
/// For the next line of any worker. More than a session lasts.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn direct(address: &str, is_fenced: bool) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let database = store::create(folder.path(), CUSTOMERS)?;
    std::fs::write(folder.path().join("stop"), "")?;

    let mut workers = Workers::start(address, folder.path(), is_fenced)?;
    let stopped = workers.wait_for("is stopped")?;
    let successor = workers.wait_for(&format!("has charged customer {UNLUCKY}"))?;
    println!("-- worker {successor} has taken over; worker {stopped} is continued");
    kill_process(Pid::from_child(&workers.children[stopped]), Signal::CONT)?;
    workers.wait_for_the_end()?;

    let mut promise = Ok(());
    for customer in 1..=CUSTOMERS {
        let count = "SELECT count(*) FROM charges WHERE customer = ?1";
        let charges: i64 = database.query_row(count, [customer], |row| row.get(0))?;
        println!("-- customer {customer} was charged {charges} times");
        if charges != 1 {
            promise = Err(format!("customer {customer} was charged {charges} times").into());
        }
    }
    promise
}

/// Processes. They end when this is dropped, at the latest.
struct Workers {
    children: Vec<Child>,
    /// What they say, and which of them.
    lines: Receiver<(usize, String)>,
}

impl Workers {
    fn start(address: &str, folder: &Path, is_fenced: bool) -> Result<Self, Failure> {
        let (tell, lines) = channel();
        let children = Vec::new();
        let mut workers = Self { children, lines };
        for number in 0..WORKERS {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--worker", &format!("worker-{number}"), address]);
            command.arg(folder);
            if !is_fenced {
                command.arg("--without-fencing");
            }
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            let output = child.stdout.take();
            workers.children.push(child);
            let output = output.ok_or("it has no output")?;
            let tell = tell.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    println!("worker {number} {line}");
                    tell.send((number, line)).ok();
                }
            });
        }
        Ok(workers)
    }

    /// Which worker says so.
    fn wait_for(&self, wanted: &str) -> Result<usize, Failure> {
        loop {
            let (worker, line) = self.lines.recv_timeout(PATIENCE)?;
            if line == wanted {
                return Ok(worker);
            }
        }
    }

    fn wait_for_the_end(&mut self) -> Result<(), Failure> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                // All have closed their output.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err("a worker does not end".into()),
            }
        }
        for child in &mut self.children {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("a worker has failed: {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
