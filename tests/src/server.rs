//! ZooKeeper-compatible servers as child processes: Apache ZooKeeper and Quorate.
//!
//! Both are started from the same `zoo.cfg`, each in a temporary folder and on a free loopback port,
//! and count as started once `srvr` reports a mode. Which of the two answers is all a test may know;
//! a difference in how they are driven belongs in here.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{POLL, Process, run};

/// Generous: a JVM on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A debug build of the whole server, from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// Another process may take a port between our choosing it and the server's binding it.
const START_ATTEMPTS: usize = 3;

/// Where Debian puts the jars of the packages `zookeeper` and `libcurator-recipes-java`.
pub const DEBIAN_JARS: &str = "/usr/share/java";

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    ApacheZookeeper,
    Quorate,
}

/// What a test may choose about a server; the rest is the same for all.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Unit of the session expiry, in milliseconds. Short, so that expiry can be waited for.
    pub tick_ms: u32,
    /// Further lines of `zoo.cfg`.
    pub extra: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick_ms: 200,
            extra: Vec::new(),
        }
    }
}

impl Settings {
    /// Adds a line to `zoo.cfg`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.extra.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// A server that is up and serving.
///
/// With `QUORATE_INTEROP_SERVERS=3` it is one of an ensemble of so many; with
/// `QUORATE_INTEROP_KILLS=5` the others are killed in turn, one every five seconds, and started
/// again. Not Apache ZooKeeper's: its clients would see it.
#[derive(Debug)]
pub struct Server {
    product: Product,
    port: u16,
    process: Process,
    /// First of all: it must not start any of them after they have ended.
    killer: Option<Killer>,
    others: Vec<Arc<Mutex<Other>>>,
    /// All of the ensemble; none of a server alone.
    peers: Vec<Peer>,
    folder: TempDir,
}

/// Another server of the ensemble, to which no client connects.
#[derive(Debug)]
struct Other {
    process: Process,
    folder: PathBuf,
    port: u16,
}

/// Kills the other servers in turn until it is dropped.
#[derive(Debug)]
struct Killer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Killer {
    fn start(others: Vec<Arc<Mutex<Other>>>, pause: Duration) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = thread::spawn(move || {
            for other in others.iter().cycle() {
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let mut other = other.lock().unwrap_or_else(PoisonError::into_inner);
                other.process.kill();
                match launch(Product::Quorate, &other.folder) {
                    Ok(process) => other.process = process,
                    Err(error) => eprintln!("a killed server does not start again: {error}"),
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How many servers of each product there are: one, or what `QUORATE_INTEROP_SERVERS` says.
#[must_use]
pub fn servers() -> u64 {
    number("QUORATE_INTEROP_SERVERS").unwrap_or(1).max(1)
}

/// A number in the environment.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

impl Server {
    /// Starts a standalone server and waits until it serves.
    ///
    /// # Errors
    /// The program is missing, ends early, or does not serve in time; the text carries its output.
    pub fn start(product: Product, settings: &Settings) -> io::Result<Self> {
        let mut last = io::Error::other("no attempt made");
        for _ in 0..START_ATTEMPTS {
            match Self::try_start(product, settings) {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn try_start(product: Product, settings: &Settings) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("quorate-interop-")
            .tempdir()?;
        let port = free_port()?;
        let servers = servers();
        let peers: Vec<Peer> = if servers == 1 {
            Vec::new()
        } else {
            (1..=servers).map(Peer::new).collect::<io::Result<_>>()?
        };
        let members = member_lines(&peers);
        // The others first, so that in an ensemble the server under test follows.
        let mut others = Vec::new();
        for id in 2..=servers {
            let (its_folder, its_port) = (folder.path().join(format!("server{id}")), free_port()?);
            std::fs::create_dir(&its_folder)?;
            prepare(&its_folder, its_port, settings, &members, id)?;
            others.push(Other {
                process: launch(product, &its_folder)?,
                folder: its_folder,
                port: its_port,
            });
        }
        for other in &mut others {
            wait_until_serving(product, &mut other.process, other.port)?;
        }
        prepare(folder.path(), port, settings, &members, 1)?;
        let mut server = Self {
            product,
            port,
            process: launch(product, folder.path())?,
            killer: None,
            others: others
                .into_iter()
                .map(|other| Arc::new(Mutex::new(other)))
                .collect(),
            peers,
            folder,
        };
        server.wait_until_serving()?;
        if let Some(seconds) = number("QUORATE_INTEROP_KILLS")
            && product == Product::Quorate
            && !server.others.is_empty()
        {
            let others = server.others.clone();
            server.killer = Some(Killer::start(others, Duration::from_secs(seconds)));
        }
        Ok(server)
    }

    /// Kills the server and starts it again on its data, its port and its settings.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.process.kill();
        self.process = launch(self.product, self.folder.path())?;
        self.wait_until_serving()
    }

    #[must_use]
    pub fn product(&self) -> Product {
        self.product
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The answer to a four-letter word.
    ///
    /// # Errors
    /// Nobody listens, or the answer does not end in time.
    pub fn four_letter_word(&self, word: &str) -> io::Result<String> {
        four_letter_word(self.address(), word.as_bytes())
    }

    /// The lines with words in the place of the ports that the servers talk to each other at.
    #[must_use]
    pub fn without_peer_ports(&self, lines: Vec<String>) -> Vec<String> {
        let hide = |line: String| {
            self.peers.iter().fold(line, |line, peer| {
                line.replace(&peer.ports(), ":quorum:election")
            })
        };
        lines.into_iter().map(hide).collect()
    }

    fn wait_until_serving(&mut self) -> io::Result<()> {
        wait_until_serving(self.product, &mut self.process, self.port)
    }
}

fn wait_until_serving(product: Product, process: &mut Process, port: u16) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if four_letter_word(address, b"srvr").is_ok_and(|text| text.contains("\nMode: ")) {
            return Ok(());
        }
        let ended = process.exit_status();
        if ended.is_some() || Instant::now() >= deadline {
            return Err(io::Error::other(format!(
                "{product:?} does not serve ({}); its output:\n{}",
                ended.map_or_else(|| "still running".to_owned(), |status| status.to_string()),
                process.log_tail()
            )));
        }
        thread::sleep(POLL);
    }
}

/// Asks one four-letter word and reads to the end of the answer.
///
/// # Errors
/// Nobody listens, or the answer does not end in time.
pub fn four_letter_word(address: SocketAddr, word: &[u8]) -> io::Result<String> {
    four_letter_word_within(address, word, Duration::from_secs(10))
}

/// As [`four_letter_word`], with another limit for each step.
///
/// # Errors
/// Nobody listens, or the answer does not end in time.
pub fn four_letter_word_within(
    address: SocketAddr,
    word: &[u8],
    limit: Duration,
) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(word)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let _ = stream.shutdown(Shutdown::Both);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A loopback port nobody listens on at the moment.
///
/// # Errors
/// The system has none left.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Where the other servers find one.
#[derive(Clone, Copy, Debug)]
struct Peer {
    id: u64,
    quorum: u16,
    election: u16,
}

impl Peer {
    fn new(id: u64) -> io::Result<Self> {
        Ok(Self {
            id,
            quorum: free_port()?,
            election: free_port()?,
        })
    }

    fn ports(&self) -> String {
        format!(":{}:{}", self.quorum, self.election)
    }
}

/// What `zoo.cfg` says of an ensemble; nothing for a server alone.
fn member_lines(peers: &[Peer]) -> String {
    let mut lines = String::new();
    if !peers.is_empty() {
        lines.push_str("initLimit=100\nsyncLimit=50\n");
    }
    for peer in peers {
        let _ = writeln!(lines, "server.{}=127.0.0.1{}", peer.id, peer.ports());
    }
    lines
}

/// Writes what server `id` reads at its start.
fn prepare(
    folder: &Path,
    port: u16,
    settings: &Settings,
    members: &str,
    id: u64,
) -> io::Result<()> {
    let text = zoo_cfg(folder, port, settings) + members;
    std::fs::write(folder.join("zoo.cfg"), text)?;
    if members.is_empty() {
        return Ok(());
    }
    let data = folder.join("data");
    std::fs::create_dir(&data)?;
    std::fs::write(data.join("myid"), format!("{id}\n"))
}

fn zoo_cfg(folder: &Path, port: u16, settings: &Settings) -> String {
    let mut text = format!(
        "tickTime={}\n\
         dataDir={}\n\
         clientPort={port}\n\
         clientPortAddress=127.0.0.1\n\
         maxClientCnxns=0\n\
         maxSessionTimeout=60000\n\
         admin.enableServer=false\n\
         4lw.commands.whitelist=*\n\
         extendedTypesEnabled=true\n\
         znode.container.checkIntervalMs={CONTAINER_CHECK_MS}\n",
        settings.tick_ms,
        folder.join("data").display()
    );
    for (key, value) in &settings.extra {
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

/// How often empty containers and overdue TTL znodes are looked for; a minute by default.
const CONTAINER_CHECK_MS: u32 = 500;

fn launch(product: Product, folder: &Path) -> io::Result<Process> {
    let (name, mut command) = match product {
        Product::ApacheZookeeper => ("Apache ZooKeeper", apache_zookeeper_command("512m")),
        Product::Quorate => ("Quorate", quorate_command()?),
    };
    command.arg("zoo.cfg").current_dir(folder);
    Process::start(name, command, &folder.join("server.log"))
}

/// Without the path of its `zoo.cfg`.
pub(crate) fn apache_zookeeper_command(heap: &str) -> Command {
    // The last two are for TLS: the manifest of the first leaves them out.
    let mut command = java(&["zookeeper", "slf4j-simple", "netty-codec", "netty-resolver"]);
    command
        .arg(format!("-Xmx{heap}"))
        // This key alone is read as a bare system property, which zoo.cfg cannot set.
        .arg(format!(
            "-Dznode.container.checkIntervalMs={CONTAINER_CHECK_MS}"
        ))
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
    command
}

/// A JVM tuned to start fast, with the named jars of Debian on its class path (their manifests name
/// the jars they need in turn).
#[must_use]
pub fn java(jars: &[&str]) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(class_path(jars));
    command
}

/// The class path of the named jars of Debian.
#[must_use]
pub fn class_path(jars: &[&str]) -> String {
    let paths: Vec<String> = jars
        .iter()
        .map(|jar| format!("{DEBIAN_JARS}/{jar}.jar"))
        .collect();
    paths.join(":")
}

fn quorate_command() -> io::Result<Command> {
    let mut command = Command::new(quorate_binary()?);
    command.arg("serve");
    Ok(command)
}

/// The `quorate` binary: the one `QUORATE_BIN` names, or the workspace's own, built once per run so
/// that a stale one is never tested.
///
/// # Errors
/// It does not build.
pub fn quorate_binary() -> io::Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| match std::env::var_os("QUORATE_BIN") {
            Some(path) => Ok(path.into()),
            None => build_quorate().map_err(|error| error.to_string()),
        })
        .clone()
        .map_err(io::Error::other)
}

fn build_quorate() -> io::Result<PathBuf> {
    // The test sits in <target>/<profile>/deps.
    let test = std::env::current_exe()?;
    let profile_folder = test
        .parent()
        .and_then(Path::parent)
        .ok_or_else(|| io::Error::other("the test binary is not in a target folder"))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--package",
        "quorate-cli",
        "--message-format",
        "short",
    ]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(target_folder) = profile_folder.parent() {
        command.arg("--target-dir").arg(target_folder);
    }
    if profile_folder.ends_with("release") {
        command.arg("--release");
    }
    let built = run(command, "", BUILD_LIMIT)?;
    if !built.success {
        return Err(io::Error::other(format!(
            "quorate does not build:\n{}",
            built.stderr
        )));
    }
    Ok(profile_folder.join("quorate"))
}
