//! The servers that are compared: how each is started, watched and ended.
//!
//! A server listens on loopback only.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::compare::child::Child;
use crate::error::BenchError;
use crate::{process, ready};

const START_PATIENCE: Duration = Duration::from_secs(180);

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

    /// The program and its arguments.
    pub(crate) fn command(
        &self,
        subject: Subject,
        dir: &Path,
        port: u16,
    ) -> Result<(PathBuf, Vec<String>), BenchError> {
        let config = dir.join("zoo.cfg");
        Ok(match subject {
            Subject::ZooKeeper => (
                self.java.clone(),
                zookeeper_arguments(&self.zookeeper_classpath, dir, &config),
            ),
            Subject::Quorate => (
                self.quorate.clone(),
                vec!["serve".to_owned(), config.display().to_string()],
            ),
            Subject::Floor => {
                let data_dir = dir.join("data").display().to_string();
                let port = port.to_string();
                let floor = ["floor-server", "--dir", &data_dir, "--port", &port];
                let this = std::env::current_exe();
                (
                    this.map_err(BenchError::io("finding this program"))?,
                    floor.map(str::to_owned).to_vec(),
                )
            }
        })
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
/// is fsynced before it is acknowledged. `more` is what an ensemble needs besides.
pub(crate) fn write_config(dir: &Path, port: u16, more: &str) -> Result<(), BenchError> {
    let data_dir = dir.join("data");
    let path = dir.join("zoo.cfg");
    let text = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n{more}",
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
        write_config(dir, address.port(), "")?;
        let (program, arguments) = programs.command(subject, dir, address.port())?;
        let since = Instant::now();
        let mut child = Child::spawn(subject.name(), dir, &program, &arguments)?;
        let ready_after = ready::wait(address, since, START_PATIENCE, || child.check_running())?;
        Ok(Self {
            subject,
            address,
            ready_after,
            child,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        process::cpu(self.pid())
    }

    /// Asks the server to end, and waits until it has.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        self.child.stop()
    }
}

/// A port nobody listens on now.
pub(crate) fn free_address() -> Result<SocketAddr, BenchError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map_err(BenchError::io("finding a free port"))
}
