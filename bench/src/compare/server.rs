//! The servers that are compared: how each is started, watched and ended.
//!
//! A server is a child of this process, listens on loopback only, and is ended by its own process
//! id: when dropped, and, where `setpriv` is installed, also when this process is killed.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::BenchError;
use crate::{process, ready};

const START_PATIENCE: Duration = Duration::from_secs(180);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// The end of a server's output that is shown when it failed.
const OUTPUT_SHOWN_BYTES: usize = 2_000;
const SETPRIV: &str = "/usr/bin/setpriv";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    ZooKeeper,
    Quorate,
    Floor,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ZooKeeper => "ZooKeeper",
            Self::Quorate => "Quorate",
            Self::Floor => "floor",
        }
    }
}

/// What is needed to start them.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) java: PathBuf,
    pub(crate) zookeeper_classpath: String,
    pub(crate) quorate: PathBuf,
}

impl Programs {
    /// Whether the program is there.
    pub(crate) fn has(&self, subject: Subject) -> bool {
        match subject {
            Subject::ZooKeeper => {
                let mut parts = self.zookeeper_classpath.split(':');
                self.java.exists() && parts.all(|part| Path::new(part).exists())
            }
            Subject::Quorate => self.quorate.exists(),
            Subject::Floor => true,
        }
    }

    fn command(&self, subject: Subject, dir: &Path, port: u16) -> Result<Command, BenchError> {
        let config = dir.join("zoo.cfg");
        let mut arguments: Vec<String> = Vec::new();
        let program = match subject {
            Subject::ZooKeeper => {
                arguments.extend(zookeeper_arguments(&self.zookeeper_classpath, dir, &config));
                self.java.clone()
            }
            Subject::Quorate => {
                arguments.extend(["serve".to_owned(), config.display().to_string()]);
                self.quorate.clone()
            }
            Subject::Floor => {
                let data_dir = dir.join("data").display().to_string();
                let port = port.to_string();
                let floor = ["floor-server", "--dir", &data_dir, "--port", &port];
                arguments.extend(floor.map(str::to_owned));
                std::env::current_exe().map_err(BenchError::io("finding this program"))?
            }
        };
        let mut command = if Path::new(SETPRIV).exists() {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments);
        Ok(command)
    }
}

/// As Debian's start scripts have it: no heap size (so a quarter of the memory), JMX on, logging at
/// INFO to a file. The admin web server is off, because its port is fixed.
fn zookeeper_arguments(classpath: &str, dir: &Path, config: &Path) -> Vec<String> {
    let dir = dir.display();
    vec![
        format!("-Dzookeeper.log.dir={dir}"),
        "-Dzookeeper.root.logger=INFO,ROLLINGFILE".to_owned(),
        "-Dzookeeper.admin.enableServer=false".to_owned(),
        "-cp".to_owned(),
        classpath.to_owned(),
        "-Dcom.sun.management.jmxremote".to_owned(),
        "-Dcom.sun.management.jmxremote.local.only=true".to_owned(),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain".to_owned(),
        config.display().to_string(),
    ]
}

/// One configuration for both: everything that matters to speed is at its default, so every write
/// is fsynced before it is acknowledged.
fn write_config(dir: &Path, port: u16) -> Result<(), BenchError> {
    let data_dir = dir.join("data");
    let path = dir.join("zoo.cfg");
    let text = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n",
        data_dir.display()
    );
    fs::create_dir_all(&data_dir)
        .and_then(|()| fs::write(&path, text))
        .map_err(|source| BenchError::File {
            doing: "writing the configuration",
            path,
            source,
        })
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) subject: Subject,
    pub(crate) address: SocketAddr,
    /// From the start of the process until it answered its first read.
    pub(crate) ready_after: Duration,
    dir: PathBuf,
    child: Child,
}

impl Server {
    /// Starts a server on the data in `dir` (none yet, or those of an earlier one) and waits until
    /// it answers.
    pub(crate) fn start(
        programs: &Programs,
        subject: Subject,
        dir: &Path,
    ) -> Result<Self, BenchError> {
        let address = free_address()?;
        write_config(dir, address.port())?;
        let io = BenchError::io;
        let output = File::create(dir.join("output")).map_err(io("creating a file for output"))?;
        let output_too = output
            .try_clone()
            .map_err(io("creating a file for output"))?;
        let mut command = programs.command(subject, dir, address.port())?;
        let since = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(output_too)
            .spawn()
            .map_err(io("starting a server"))?;
        let mut server = Self {
            subject,
            address,
            ready_after: Duration::ZERO,
            dir: dir.to_owned(),
            child,
        };
        server.ready_after =
            ready::wait(address, since, START_PATIENCE, || server.check_running())?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        process::cpu(self.pid())
    }

    fn check_running(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let output = fs::read(self.dir.join("output")).unwrap_or_default();
                let from = output.len().saturating_sub(OUTPUT_SHOWN_BYTES);
                Err(BenchError::ServerEnded {
                    server: self.subject.name(),
                    status: status.to_string(),
                    output: String::from_utf8_lossy(&output[from..]).into_owned(),
                })
            }
            Err(error) => Err(BenchError::io("watching a server")(error)),
        }
    }

    /// Asks the server to end, and waits until it has.
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

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody listens on now.
fn free_address() -> Result<SocketAddr, BenchError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map_err(BenchError::io("finding a free port"))
}
