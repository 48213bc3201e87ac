//! `quorate dev`: an ensemble on this machine, for trying things out and for tests.
//!
//! Every server is a process of its own, this same binary: so one of them can be killed or stopped
//! as it would happen, and it is seen what the others do. One that ends is started again. They all
//! end with this process, however it ends: a server stops when its standard input does, and only we
//! hold the other end. What was asked for goes to standard output: where to connect, and who leads.

use std::fmt::{self, Write as _};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::commands::serve::{STOP_WITH_STDIN, Signals};
use crate::{Exit, Failure};

const SERVERS: &str = "servers";
const DIR: &str = "dir";
const CLIENT_PORT: &str = "client-port";

/// With ZooKeeper's usual 2181, 2888 and 3888 come of these.
const PEER_PORT_OFFSET: u16 = 707;
const ELECTION_PORT_OFFSET: u16 = 1_707;
/// So that all ports are ports.
const CLIENT_PORT_MAX: i64 = 63_000;

/// What each server has of its own; other settings in the environment are for all of them.
const OWN_VARIABLES: [&str; 4] = [
    "QUORATE_DATA_DIR",
    "QUORATE_DATA_LOG_DIR",
    "QUORATE_CLIENT_ADDRESS",
    "QUORATE_CLIENT_PORT_NUMBER",
];

/// Between two looks at the servers.
const LOOK: Duration = Duration::from_millis(200);
/// For one question to one server, which may be stopped (SIGSTOP).
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// A server that ended is started again after this, so that the others are seen without it.
const RESTART_AFTER: Duration = Duration::from_secs(3);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const STOP_LOOK: Duration = Duration::from_millis(10);

pub(crate) fn command() -> Command {
    Command::new("dev")
        .about("Run an ensemble on this machine, for development")
        .arg(
            Arg::new(SERVERS)
                .long(SERVERS)
                .value_name("N")
                .value_parser(value_parser!(u16).range(1..=7))
                .default_value("3")
                .help("How many servers"),
        )
        .arg(
            Arg::new(DIR)
                .long(DIR)
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Keep the data here, for a later run to go on with [default: a temporary folder]"),
        )
        .arg(
            Arg::new(CLIENT_PORT)
                .long(CLIENT_PORT)
                .value_name("PORT")
                .value_parser(value_parser!(u16).range(1..=CLIENT_PORT_MAX))
                .default_value("2181")
                .help("Client port of the first server; the others have the next ones"),
        )
        .after_help(
            "Examples:\n  \
             quorate dev                 three servers until Ctrl-C, and no trace of them after it\n  \
             quorate dev --dir ./ensemble --servers 5\n\n\
             A server that is killed is started again after 3 seconds.",
        )
}

pub(crate) fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let count: u16 = matches.get_one(SERVERS).copied().unwrap_or(3);
    let client_port: u16 = matches.get_one(CLIENT_PORT).copied().unwrap_or(2181);
    let folder = Folder::open(matches.get_one(DIR).cloned())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Other, format!("no runtime: {error}")))?;
    runtime.block_on(watch(&folder, count, client_port))
}

/// Starts the servers, tells who leads, and stops them at a signal.
async fn watch(folder: &Folder, count: u16, client_port: u16) -> Result<Exit, Failure> {
    let mut stop = Signals::new(false)?;
    let servers: Vec<Server> = (1..=count)
        .map(|id| Server::new(&folder.path, id, client_port))
        .collect();
    for server in &servers {
        server.check_ports()?;
        server.configure(&servers)?;
    }
    let mut ensemble = Ensemble {
        servers,
        leader: None,
    };
    let started = ensemble.start(folder);
    let ended = match started {
        Ok(()) => loop {
            tokio::select! {
                looked = ensemble.look() => if let Err(failure) = looked {
                    break Err(failure);
                },
                _ = stop.next() => break Ok(Exit::Graceful),
            }
        },
        Err(failure) => Err(failure),
    };
    say(format_args!("stopping"));
    ensemble.stop(&mut stop).await;
    ended
}

/// A line of what was asked for. Whoever reads it may have gone; the servers stay.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn failure(doing: &str, path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::new(
        Exit::DataDirectory,
        format!("{path}: {doing}: {error}: check path and permissions, or use another --dir"),
    )
}

/// Where everything is kept; removed in the end, if it is ours alone.
struct Folder {
    path: PathBuf,
    is_temporary: bool,
}

impl Folder {
    fn open(given: Option<PathBuf>) -> Result<Self, Failure> {
        let is_temporary = given.is_none();
        let path = given.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("quorate-dev-{}", std::process::id()))
        });
        // For this user's eyes only. A temporary folder that is there already is somebody else's.
        let made = DirBuilder::new()
            .mode(0o700)
            .recursive(!is_temporary)
            .create(&path);
        made.map_err(|error| failure("cannot be created", &path, &error))?;
        let path = path
            .canonicalize()
            .map_err(|error| failure("cannot be found", &path, &error))?;
        Ok(Self { path, is_temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_temporary {
            // What cannot be removed is in the system's folder for such things.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

struct Ensemble {
    servers: Vec<Server>,
    /// As it was last said.
    leader: Option<u16>,
}

impl Ensemble {
    fn start(&mut self, folder: &Folder) -> Result<(), Failure> {
        for server in &mut self.servers {
            server.start()?;
        }
        let fate = match folder.is_temporary {
            true => "removed in the end",
            false => "kept",
        };
        say(format_args!("data: {} ({fate})", folder.path.display()));
        for server in &self.servers {
            say(format_args!(
                "server {}: {}, process {}, log {}",
                server.id,
                server.client_address(),
                server.pid(),
                server.log().display()
            ));
        }
        let addresses = self.servers.iter().map(|s| s.client_address().to_string());
        let addresses: Vec<String> = addresses.collect();
        say(format_args!("connect string: {}", addresses.join(",")));
        say(format_args!("Ctrl-C stops them all"));
        Ok(())
    }

    /// Starts again what has ended, and tells of a new leader. Can be dropped at any time.
    async fn look(&mut self) -> Result<(), Failure> {
        sleep(LOOK).await;
        for server in &mut self.servers {
            server.look_after()?;
        }
        let mut leader = None;
        for server in &self.servers {
            if server.leads().await {
                leader = Some(server.id);
            }
        }
        if leader != self.leader {
            match leader {
                Some(id) => say(format_args!("leader: server {id}")),
                None => say(format_args!("leader: none")),
            }
            self.leader = leader;
        }
        Ok(())
    }

    /// Asks all to stop, and waits; kills them at a second signal, or when they take too long.
    async fn stop(&mut self, signals: &mut Signals) {
        for server in &mut self.servers {
            server.ask_to_stop();
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while self.servers.iter_mut().any(Server::is_running) && Instant::now() < deadline {
            tokio::select! {
                () = sleep(STOP_LOOK) => {}
                _ = signals.next() => break,
            }
        }
        for server in &mut self.servers {
            server.kill();
        }
    }
}

/// One server: its folder, its ports, its process.
struct Server {
    id: u16,
    folder: PathBuf,
    client_port: u16,
    process: Option<Child>,
    /// It has ended, and is started again at this time.
    restart_at: Option<Instant>,
}

impl Server {
    fn new(folder: &Path, id: u16, first_client_port: u16) -> Self {
        Self {
            id,
            folder: folder.join(format!("server{id}")),
            // Both are bounded: see CLIENT_PORT_MAX.
            client_port: first_client_port + (id - 1),
            process: None,
            restart_at: None,
        }
    }

    fn client_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.client_port).into()
    }

    fn peer_ports(&self) -> [u16; 2] {
        [PEER_PORT_OFFSET, ELECTION_PORT_OFFSET].map(|offset| self.client_port + offset)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// Before anything is started: three servers that fail to start, one by one, explain less.
    fn check_ports(&self) -> Result<(), Failure> {
        let [peer, election] = self.peer_ports();
        for port in [self.client_port, peer, election] {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
                let message = format!(
                    "server {} needs 127.0.0.1:{port}: {error}: choose other ports with --client-port",
                    self.id
                );
                Failure::new(Exit::Bind, message)
            })?;
        }
        Ok(())
    }

    /// Writes what the server is started with. Data of other servers or ports would not fit it.
    fn configure(&self, all: &[Self]) -> Result<(), Failure> {
        let mut text = format!(
            "dataDir=data\nclientPortAddress=127.0.0.1\nclientPort={}\n\
             4lw.commands.whitelist=*\ninitLimit=10\nsyncLimit=5\n",
            self.client_port
        );
        for server in all {
            let [peer, election] = server.peer_ports();
            // Writing to a string does not fail.
            let _ = writeln!(text, "server.{}=127.0.0.1:{peer}:{election}", server.id);
        }
        let path = self.folder.join("zoo.cfg");
        match fs::read_to_string(&path) {
            Ok(known) if known == text => return Ok(()),
            Ok(_) => {
                let message = format!(
                    "{}: is of an ensemble with other servers or ports: use the --servers and \
                     --client-port of that time, or another --dir",
                    path.display()
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failure("cannot be read", &path, &error)),
        }
        let data = self.folder.join("data");
        let write = || -> io::Result<()> {
            fs::create_dir_all(&data)?;
            fs::write(data.join("myid"), format!("{}\n", self.id))?;
            fs::write(&path, text)
        };
        write().map_err(|error| failure("cannot be written", &self.folder, &error))
    }

    fn start(&mut self) -> Result<(), Failure> {
        let log = self.log();
        let spawn = || -> io::Result<Child> {
            let output = File::options().create(true).append(true).open(&log)?;
            let mut command = Process::new(std::env::current_exe()?);
            for variable in OWN_VARIABLES {
                command.env_remove(variable);
            }
            command
                .args(["serve", "zoo.cfg", STOP_WITH_STDIN])
                .current_dir(&self.folder)
                .stdin(Stdio::piped())
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()
        };
        let process = spawn().map_err(|error| failure("server cannot be started", &log, &error))?;
        self.process = Some(process);
        self.restart_at = None;
        Ok(())
    }

    /// Starts it again if it has ended, a little later; unless that would not help.
    fn look_after(&mut self) -> Result<(), Failure> {
        if let Some(status) = self.ended() {
            self.process = None;
            let hopeless = [Exit::Usage, Exit::DataDirectory, Exit::Bind]
                .into_iter()
                .find(|exit| status.code() == Some(i32::from(*exit as u8)));
            if let Some(exit) = hopeless {
                let message = format!("server {} has ended: {}", self.id, self.last_words());
                return Err(Failure::new(exit, message));
            }
            say(format_args!(
                "server {}: ended ({status}), is started again in {} s",
                self.id,
                RESTART_AFTER.as_secs()
            ));
            self.restart_at = Some(Instant::now() + RESTART_AFTER);
        }
        if self.restart_at.is_some_and(|at| at <= Instant::now()) {
            self.start()?;
            say(format_args!("server {}: process {}", self.id, self.pid()));
        }
        Ok(())
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.try_wait().ok().flatten()
    }

    fn is_running(&mut self) -> bool {
        self.process.is_some() && self.ended().is_none()
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let line = log.lines().last().unwrap_or("without a word");
        line.strip_prefix("quorate: ").unwrap_or(line).to_owned()
    }

    fn ask_to_stop(&mut self) {
        if let Some(process) = &mut self.process {
            drop(process.stdin.take());
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Fails only if it has ended, which is what we want.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    async fn leads(&self) -> bool {
        let asked = timeout(ANSWER_LIMIT, ask(self.client_address())).await;
        let leads = |line: &str| matches!(line, "Mode: leader" | "Mode: standalone");
        matches!(asked, Ok(Ok(answer)) if answer.lines().any(leads))
    }
}

async fn ask(server: SocketAddr) -> io::Result<String> {
    /// Far more than `srvr` has to say.
    const BYTES_MAX: u64 = 64 << 10;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = String::new();
    stream.take(BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}
