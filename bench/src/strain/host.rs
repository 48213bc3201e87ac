//! The servers of a scene: one, or three that form an ensemble, on loopback, in empty folders.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Stage;
use crate::compare::child::Child;
use crate::compare::server::write_config;
use crate::error::BenchError;
use crate::process::{self, Memory};
use crate::ready;

const START_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Host {
    pub(crate) servers: Vec<SocketAddr>,
    members: Vec<Option<Child>>,
    dir: PathBuf,
}

impl Host {
    /// Starts so many servers with `more` in their configuration; `wrapper` stands in front of their
    /// command.
    pub(crate) fn start(
        stage: &Stage<'_>,
        count: usize,
        more: &str,
        wrapper: &[&str],
    ) -> Result<Self, BenchError> {
        let subject = stage.subject();
        if !stage.programs.has(subject) {
            return Err(BenchError::Usage("the server to strain is not installed"));
        }
        let dir = stage.dir.clone();
        // What an earlier, interrupted run has left.
        let _ = fs::remove_dir_all(&dir);
        let ports = free_ports(3 * count)?;
        let (client_ports, peer_ports) = ports.split_at(count);
        let mut host = Self {
            servers: Vec::new(),
            members: Vec::new(),
            dir,
        };
        for (index, port) in client_ports.iter().enumerate() {
            let dir = host.dir.join((index + 1).to_string());
            let more = format!("{more}{}", ensemble_lines(count, peer_ports));
            write_config(&dir, *port, &more)?;
            if count > 1 {
                fs::write(dir.join("data").join("myid"), (index + 1).to_string())
                    .map_err(BenchError::io("writing a server's id"))?;
            }
            let (program, arguments) = stage.programs.command(subject, &dir, *port)?;
            let (program, arguments) = match wrapper.split_first() {
                None => (program, arguments),
                Some((first, rest)) => {
                    let mut all: Vec<String> = rest.iter().map(|&part| part.to_owned()).collect();
                    all.push(program.display().to_string());
                    all.extend(arguments);
                    (PathBuf::from(first), all)
                }
            };
            host.members.push(Some(Child::spawn(
                subject.name(),
                &dir,
                &program,
                &arguments,
            )?));
            host.servers.push(SocketAddr::from(([127, 0, 0, 1], *port)));
        }
        let since = Instant::now();
        for server in host.servers.clone() {
            ready::wait(server, since, START_PATIENCE, || host.check_running())?;
        }
        Ok(host)
    }

    pub(crate) fn server(&self) -> SocketAddr {
        self.servers[0]
    }

    pub(crate) fn pid(&self, index: usize) -> u32 {
        self.members[index].as_ref().map_or(0, Child::pid)
    }

    pub(crate) fn memory(&self, index: usize) -> Result<Memory, BenchError> {
        process::memory(self.pid(index))
    }

    pub(crate) fn resident_mib(&self) -> Result<f64, BenchError> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a number of pages is no large number"
        )]
        Ok(self.memory(0)?.rss_kib as f64 / 1024.0)
    }

    /// All that were not ended on purpose still run.
    pub(crate) fn check_running(&mut self) -> Result<(), BenchError> {
        self.members
            .iter_mut()
            .flatten()
            .try_for_each(Child::check_running)
    }

    /// Ends one of them at once.
    pub(crate) fn kill(&mut self, index: usize) {
        self.members[index] = None;
    }

    /// Asks all to end, and waits until they have.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        self.check_running()?;
        for member in &mut self.members {
            if let Some(member) = member.take() {
                member.stop()?;
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
        Ok(())
    }
}

fn ensemble_lines(count: usize, peer_ports: &[u16]) -> String {
    let mut lines = String::new();
    if count > 1 {
        lines.push_str("initLimit=10\nsyncLimit=5\n");
        for (index, ports) in peer_ports.chunks(2).enumerate() {
            let (first, second) = (ports[0], ports[1]);
            let _ = writeln!(lines, "server.{}=127.0.0.1:{first}:{second}", index + 1);
        }
    }
    lines
}

/// Ports nobody listens on now, all different.
fn free_ports(count: usize) -> Result<Vec<u16>, BenchError> {
    let doing = "finding free ports";
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()
        .map_err(BenchError::io(doing))?;
    listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()
        .map_err(BenchError::io(doing))
}
