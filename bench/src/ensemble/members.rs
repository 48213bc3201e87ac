//! Three servers of one kind: how they are configured, started, asked who leads, and ended.
//!
//! All on loopback, each with a folder of its own on the disk that is measured. What matters to
//! speed is at its default, so that every server has a write on disk before it counts.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::compare::child::Child;
use crate::compare::server::{Programs, Subject, write_config};
use crate::error::BenchError;
use crate::etcd::channel::Channel;
use crate::etcd::load::block_on;
use crate::etcd::message::{self, Method, Range};
use crate::ready;

pub(crate) const SERVERS: usize = 3;
const START_PATIENCE: Duration = Duration::from_secs(120);
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
/// etcd keeps every version of every key until it is told otherwise, and refuses writes when they
/// fill its default of 2 GiB. This is the most its manual suggests.
const ETCD_QUOTA_BYTES: u64 = 8 << 30;

/// Which kind of ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum System {
    ZooKeeper,
    Etcd,
    Quorate,
}

impl System {
    pub(crate) const ALL: [Self; 3] = [Self::ZooKeeper, Self::Etcd, Self::Quorate];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ZooKeeper => "ZooKeeper",
            Self::Etcd => "etcd",
            Self::Quorate => "Quorate",
        }
    }

    pub(crate) fn is_installed(self, programs: &Programs, etcd: &Path) -> bool {
        match self {
            Self::ZooKeeper => programs.has(Subject::ZooKeeper),
            Self::Quorate => programs.has(Subject::Quorate),
            Self::Etcd => etcd.exists(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ensemble {
    pub(crate) system: System,
    pub(crate) servers: Vec<SocketAddr>,
    members: Vec<Child>,
}

impl Ensemble {
    /// Starts three servers in empty folders below `dir`, and waits until each of them answers.
    pub(crate) fn start(
        programs: &Programs,
        etcd: &Path,
        system: System,
        dir: &Path,
    ) -> Result<Self, BenchError> {
        // Two for the servers among themselves, one for clients.
        let ports = free_ports(3 * SERVERS)?;
        let (peer_ports, client_ports) = ports.split_at(2 * SERVERS);
        let mut members = Vec::with_capacity(SERVERS);
        for (member, client_port) in client_ports.iter().copied().enumerate() {
            let dir = dir.join(format!("{}", member + 1));
            let (program, arguments) = match system {
                System::ZooKeeper | System::Quorate => {
                    configure(&dir, member, client_port, peer_ports)?;
                    let subject = match system {
                        System::Quorate => Subject::Quorate,
                        _ => Subject::ZooKeeper,
                    };
                    programs.command(subject, &dir, client_port)?
                }
                System::Etcd => {
                    fs::create_dir_all(&dir).map_err(BenchError::io("creating a folder"))?;
                    let arguments = etcd_arguments(&dir, member, client_port, peer_ports);
                    (etcd.to_owned(), arguments)
                }
            };
            members.push(Child::spawn(system.name(), &dir, &program, &arguments)?);
        }
        let servers: Vec<_> = client_ports
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
            .collect();
        let mut ensemble = Self {
            system,
            servers,
            members,
        };
        ensemble.wait_until_ready()?;
        Ok(ensemble)
    }

    /// Returns once every server serves.
    pub(crate) fn wait_until_ready(&mut self) -> Result<(), BenchError> {
        let since = Instant::now();
        for index in 0..self.servers.len() {
            match self.wait_for(self.servers[index], since) {
                Ok(()) => {}
                Err(ended @ BenchError::ServerEnded { .. }) => return Err(ended),
                Err(source) => {
                    return Err(BenchError::NotServing {
                        server: self.system.name(),
                        source: Box::new(source),
                        output: self.members[index].output_end(),
                    });
                }
            }
        }
        Ok(())
    }

    fn wait_for(&mut self, server: SocketAddr, since: Instant) -> Result<(), BenchError> {
        let mut check = || self.members.iter_mut().try_for_each(Child::check_running);
        if self.system != System::Etcd {
            return ready::wait(server, since, START_PATIENCE, check).map(|_| ());
        }
        while let Err(error) = ask_etcd_to_read(server) {
            check()?;
            if since.elapsed() > START_PATIENCE {
                return Err(error);
            }
            thread::sleep(RETRY);
        }
        Ok(())
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Child::pid).collect()
    }

    /// The servers, the leader first. Asked anew each time, because it may change.
    pub(crate) fn leader_first(&self) -> Result<Vec<SocketAddr>, BenchError> {
        let mut servers = self.servers.clone();
        for index in 0..servers.len() {
            let leads = match self.system {
                System::ZooKeeper | System::Quorate => ask_whether_it_leads(servers[index])?,
                System::Etcd => ask_etcd_whether_it_leads(servers[index])?,
            };
            if leads {
                servers.swap(0, index);
                return Ok(servers);
            }
        }
        Err(BenchError::NoLeader)
    }

    /// Asks all to end, and waits until they have.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        self.members.into_iter().try_for_each(Child::stop)
    }
}

/// zoo.cfg and myid, which ZooKeeper and Quorate read alike.
fn configure(
    dir: &Path,
    member: usize,
    client_port: u16,
    peer_ports: &[u16],
) -> Result<(), BenchError> {
    let mut more = String::from("initLimit=10\nsyncLimit=5\n");
    for (index, ports) in peer_ports.chunks(2).enumerate() {
        let _ = writeln!(
            more,
            "server.{}=127.0.0.1:{}:{}",
            index + 1,
            ports[0],
            ports[1]
        );
    }
    write_config(dir, client_port, &more)?;
    let path = dir.join("data").join("myid");
    fs::write(&path, format!("{}\n", member + 1)).map_err(|source| BenchError::File {
        doing: "writing a server's id to",
        path,
        source,
    })
}

fn etcd_arguments(dir: &Path, member: usize, client_port: u16, peer_ports: &[u16]) -> Vec<String> {
    let name = |member| format!("etcd-{}", member + 1);
    let peer = |member: usize| format!("http://127.0.0.1:{}", peer_ports[2 * member]);
    let client = format!("http://127.0.0.1:{client_port}");
    let ensemble: Vec<String> = (0..SERVERS)
        .map(|member| format!("{}={}", name(member), peer(member)))
        .collect();
    vec![
        format!("--name={}", name(member)),
        format!("--data-dir={}", dir.join("data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={}", peer(member)),
        format!("--initial-advertise-peer-urls={}", peer(member)),
        format!("--initial-cluster={}", ensemble.join(",")),
        format!("--quota-backend-bytes={ETCD_QUOTA_BYTES}"),
    ]
}

/// `srvr`, which ZooKeeper allows by default.
fn ask_whether_it_leads(server: SocketAddr) -> Result<bool, BenchError> {
    let connect = |source| BenchError::Connect { server, source };
    let io = BenchError::io;
    let mut stream = TcpStream::connect_timeout(&server, QUESTION_PATIENCE).map_err(connect)?;
    stream
        .set_read_timeout(Some(QUESTION_PATIENCE))
        .map_err(connect)?;
    stream.write_all(b"srvr").map_err(io("asking who leads"))?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(io("asking who leads"))?;
    Ok(answer.lines().any(|line| line == "Mode: leader"))
}

fn ask_etcd_whether_it_leads(server: SocketAddr) -> Result<bool, BenchError> {
    block_on(QUESTION_PATIENCE, async {
        let channel = Channel::connect(server).await?;
        let status = message::status();
        channel.ask(Method::Status, status, message::leads).await
    })
}

/// A linearizable read, which needs a leader.
fn ask_etcd_to_read(server: SocketAddr) -> Result<(), BenchError> {
    block_on(QUESTION_PATIENCE, async {
        let channel = Channel::connect(server).await?;
        let range = Range::key(b"/").encode();
        channel.ask(Method::Range, range, message::header).await?;
        Ok(())
    })
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

/// Below which all servers of one kind have their folders.
pub(crate) fn dir_of(dir: &Path, system: System) -> PathBuf {
    dir.join(format!("ensemble-{}", system.name()))
}
