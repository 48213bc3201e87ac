//! Several servers that are one ensemble: Apache ZooKeeper's or Quorate's.
//!
//! Each server has a folder, an address and a process of its own, all made from one `zoo.cfg`. A test
//! kills, freezes and stops single servers, and waits for what they say about themselves (`srvr`),
//! never for time to pass. Processes are ended by their own ids, when the ensemble is dropped or
//! when the thread that made it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::faults::{Network, dying_with_its_parent};
use crate::process::{POLL, Process, run};
use crate::server::{Product, apache_zookeeper_command, four_letter_word_within, quorate_binary};

/// For anything that must come about in the end, on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// One question to one server; a frozen one takes the connection and never answers.
const WORD_LIMIT: Duration = Duration::from_secs(2);
const CLIENT_PORT: u16 = 2181;
const PEER_PORT: u16 = 2888;
const ELECTION_PORT: u16 = 3888;

/// The role a server says it has; `None` if it does not serve, or says nothing.
pub type Roles = BTreeMap<u64, Option<String>>;

/// Servers 1 to n.
#[derive(Debug)]
pub struct Ensemble {
    product: Product,
    /// Before the folder: their logs are shown when a test fails.
    servers: BTreeMap<u64, Server>,
    /// The lines of all servers' `zoo.cfg` that are alike.
    settings: BTreeMap<String, String>,
    pub network: Option<Network>,
    folder: TempDir,
}

#[derive(Debug)]
struct Server {
    ip: IpAddr,
    process: Option<Process>,
    is_frozen: bool,
    /// Not in the others' configuration: it is to join later.
    is_stranger: bool,
    is_observer: bool,
    /// Elsewhere than in its folder.
    data_dir: Option<PathBuf>,
    /// Of its processes' environment.
    variables: Vec<(String, String)>,
    /// Beside the path of its configuration.
    flags: Vec<String>,
    /// What its command is the argument of.
    wrapper: Vec<String>,
}

impl Ensemble {
    /// Servers that are not started yet, with short ticks and all four-letter words; in `network`,
    /// or on loopback.
    ///
    /// # Errors
    /// There is no place for their files.
    pub fn new(product: Product, servers: u64, network: Option<Network>) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("quorate-ensemble-")
            .tempdir()?;
        let mut ensemble = Self {
            product,
            servers: BTreeMap::new(),
            settings: BTreeMap::new(),
            network,
            folder,
        };
        for (key, value) in [
            ("tickTime", "200"),
            // 20 seconds to join and 4 seconds to fall behind: a busy machine needs the former.
            ("initLimit", "100"),
            ("syncLimit", "20"),
            ("maxClientCnxns", "0"),
            ("minSessionTimeout", "400"),
            ("maxSessionTimeout", "60000"),
            ("4lw.commands.whitelist", "*"),
            ("admin.enableServer", "false"),
        ] {
            ensemble.set(key, value);
        }
        for id in 1..=servers {
            ensemble.add(id, false, false)?;
        }
        Ok(ensemble)
    }

    /// Another server, which all know as an observer; not started.
    ///
    /// # Errors
    /// There is no place for its files.
    pub fn add_observer(&mut self, id: u64) -> io::Result<()> {
        self.add(id, false, true)
    }

    /// Another server, which the others do not know; not started.
    ///
    /// # Errors
    /// There is no place for its files.
    pub fn add_stranger(&mut self, id: u64) -> io::Result<()> {
        self.add(id, true, false)
    }

    /// Whether the others are to know `id` when they are next started: it has joined, or left. A
    /// stranger is not started with the others.
    pub fn set_stranger(&mut self, id: u64, is_stranger: bool) {
        self.server_mut(id).is_stranger = is_stranger;
    }

    fn add(&mut self, id: u64, is_stranger: bool, is_observer: bool) -> io::Result<()> {
        let ip = match &self.network {
            Some(network) => network.address(id),
            None => own_address(),
        };
        let server = Server {
            ip,
            process: None,
            is_frozen: false,
            is_stranger,
            is_observer,
            data_dir: None,
            variables: Vec::new(),
            flags: Vec::new(),
            wrapper: Vec::new(),
        };
        self.servers.insert(id, server);
        self.make_data_dir(id)
    }

    fn make_data_dir(&self, id: u64) -> io::Result<()> {
        fs::create_dir_all(self.data_dir(id))?;
        fs::write(self.data_dir(id).join("myid"), format!("{id}\n"))
    }

    /// From its first start on, the data of `id` is elsewhere.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn set_data_dir(&mut self, id: u64, path: &Path) -> io::Result<()> {
        self.server_mut(id).data_dir = Some(path.to_owned());
        self.make_data_dir(id)
    }

    /// All that a server that does not run has stored is gone.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn lose_data(&mut self, id: u64) -> io::Result<()> {
        fs::remove_dir_all(self.data_dir(id))?;
        self.make_data_dir(id)
    }

    /// What the next processes of `id` have in their environment.
    pub fn set_variables(&mut self, id: u64, variables: Vec<(String, String)>) {
        self.server_mut(id).variables = variables;
    }

    /// What the next processes of `id` are told beside their configuration.
    pub fn set_flags(&mut self, id: u64, flags: &[&str]) {
        self.server_mut(id).flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// A program and its arguments that the next processes of `id` are begun by, and that becomes the
    /// server.
    pub fn set_wrapper(&mut self, id: u64, wrapper: Vec<String>) {
        self.server_mut(id).wrapper = wrapper;
    }

    /// Adds or replaces a line of every `zoo.cfg`; counts from a server's next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    /// As [`Ensemble::set`].
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.set(key, value);
        self
    }

    #[must_use]
    pub fn product(&self) -> Product {
        self.product
    }

    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.servers.keys().copied().collect()
    }

    /// Servers whose process runs and is not frozen.
    #[must_use]
    pub fn awake(&self) -> Vec<u64> {
        let awake = |server: &Server| server.process.is_some() && !server.is_frozen;
        let servers = self.servers.iter();
        servers
            .filter(|(_, server)| awake(server))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whether its process is there, frozen or not.
    #[must_use]
    pub fn runs(&self, id: u64) -> bool {
        self.server(id).process.is_some()
    }

    /// The id of its process.
    #[must_use]
    pub fn process_id(&self, id: u64) -> Option<u32> {
        self.server(id).process.as_ref().map(Process::id)
    }

    /// Where clients connect to `id`.
    #[must_use]
    pub fn address(&self, id: u64) -> SocketAddr {
        SocketAddr::new(self.server(id).ip, CLIENT_PORT)
    }

    /// Where clients connect to `id` that are to be cut off from it; see [`Network::client_address`].
    #[must_use]
    pub fn client_address(&self, id: u64) -> SocketAddr {
        match &self.network {
            Some(network) => SocketAddr::new(network.client_address(id), CLIENT_PORT),
            None => self.address(id),
        }
    }

    #[must_use]
    pub fn addresses(&self) -> Vec<(u64, SocketAddr)> {
        self.ids()
            .into_iter()
            .map(|id| (id, self.address(id)))
            .collect()
    }

    /// As clients take it: `host:port,host:port`.
    #[must_use]
    pub fn connect_string(&self) -> String {
        let addresses: Vec<String> = self
            .addresses()
            .iter()
            .map(|(_, address)| address.to_string())
            .collect();
        addresses.join(",")
    }

    /// The line that names `id` to the others, in the form of reconfig.
    #[must_use]
    pub fn member_line(&self, id: u64) -> String {
        format!("server.{id}={}", self.member(id))
    }

    fn member(&self, id: u64) -> String {
        let server = self.server(id);
        let (ip, role) = match server.is_observer {
            true => (server.ip, "observer"),
            false => (server.ip, "participant"),
        };
        // In a network of its own a server has a second address for clients.
        let clients = match &self.network {
            Some(_) => CLIENT_PORT.to_string(),
            None => format!("{ip}:{CLIENT_PORT}"),
        };
        format!("{ip}:{PEER_PORT}:{ELECTION_PORT}:{role};{clients}")
    }

    #[must_use]
    pub fn folder(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("server{id}"))
    }

    #[must_use]
    pub fn data_dir(&self, id: u64) -> PathBuf {
        let set = self.servers.get(&id).and_then(|s| s.data_dir.clone());
        set.unwrap_or_else(|| self.folder(id).join("data"))
    }

    /// All that `id` has printed, by all its processes.
    #[must_use]
    pub fn log(&self, id: u64) -> String {
        let bytes = fs::read(self.folder(id).join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn server(&self, id: u64) -> &Server {
        &self.servers[&id]
    }

    fn server_mut(&mut self, id: u64) -> &mut Server {
        self.servers
            .get_mut(&id)
            .expect("a test names the servers it has made")
    }

    fn zoo_cfg(&self, id: u64) -> String {
        let mut text = format!("dataDir={}\n", self.data_dir(id).display());
        for (key, value) in &self.settings {
            let _ = writeln!(text, "{key}={value}");
        }
        for (other, server) in &self.servers {
            if *other == id || !server.is_stranger {
                let _ = writeln!(text, "server.{other}={}", self.member(*other));
            }
        }
        text
    }

    /// Starts a server and waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    ///
    /// # Panics
    /// If it runs.
    pub fn spawn(&mut self, id: u64) -> io::Result<()> {
        assert!(self.server(id).process.is_none(), "server {id} runs");
        let folder = self.folder(id);
        let config = folder.join("zoo.cfg");
        // Apache ZooKeeper writes to its configuration, once, and to a file beside it.
        if self.product == Product::Quorate || !config.exists() {
            fs::write(&config, self.zoo_cfg(id))?;
        }
        let command = self.command(id, &config)?;
        let name = format!("server {id}");
        let process = Process::start(&name, command, &folder.join("server.log"))?;
        self.server_mut(id).process = Some(process);
        Ok(())
    }

    fn command(&self, id: u64, config: &Path) -> io::Result<Command> {
        let program = match self.product {
            Product::ApacheZookeeper => {
                let mut command = apache_zookeeper_command("256m");
                command.arg("zoo.cfg");
                command
            }
            Product::Quorate => {
                let mut command = Command::new(quorate_binary()?);
                command.arg("serve").arg(config);
                command.args(&self.server(id).flags);
                command
            }
        };
        let mut words = self.server(id).wrapper.iter().map(OsString::from);
        let mut command = match (&self.network, words.next()) {
            (Some(network), first) => {
                let mut command = network.command(id);
                command.args(first);
                command.args(words).arg(program.get_program());
                command
            }
            (None, Some(first)) => {
                let mut command = dying_with_its_parent(first);
                command.args(words).arg(program.get_program());
                command
            }
            (None, None) => dying_with_its_parent(program.get_program()),
        };
        command
            .args(program.get_args())
            .envs(self.server(id).variables.iter().cloned())
            .current_dir(self.folder(id));
        Ok(command)
    }

    /// Starts all servers that do not run and waits until all serve and one leads.
    ///
    /// # Errors
    /// One cannot be started, ends, or does not serve in time; the text carries what it printed.
    pub fn start(&mut self) -> io::Result<u64> {
        for id in self.ids() {
            if self.server(id).process.is_none() && !self.server(id).is_stranger {
                self.spawn(id)?;
            }
        }
        self.wait_until_all_serve()
    }

    /// Waits until every server that runs serves, and one of them leads; returns which.
    ///
    /// # Errors
    /// As [`Ensemble::start`].
    pub fn wait_until_all_serve(&mut self) -> io::Result<u64> {
        let awake = self.awake();
        self.wait_for("all servers to serve", &awake, |roles| {
            let all = roles.values().all(Option::is_some);
            leader_of(roles).filter(|_| all)
        })
    }

    /// Waits until one of `among` leads; returns which.
    ///
    /// # Errors
    /// Nobody does in time, or a server has ended.
    pub fn wait_for_leader(&mut self, among: &[u64]) -> io::Result<u64> {
        self.wait_for("a leader", among, leader_of)
    }

    /// Waits until what `among` say about themselves makes `reached` return something.
    ///
    /// # Errors
    /// That takes too long, or a server has ended.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        among: &[u64],
        reached: impl Fn(&Roles) -> Option<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let roles = self.roles(among);
            if let Some(found) = reached(&roles) {
                return Ok(found);
            }
            self.check_running()?;
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!(
                    "waited {PATIENCE:?} for {what}; roles: {roles:?}\n{}",
                    self.log_tails()
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// What each of `among` says about itself now.
    #[must_use]
    pub fn roles(&self, among: &[u64]) -> Roles {
        thread::scope(|scope| {
            let asked: Vec<_> = among
                .iter()
                .map(|id| {
                    let address = self.address(*id);
                    (*id, scope.spawn(move || role(address)))
                })
                .collect();
            asked
                .into_iter()
                .map(|(id, answer)| (id, answer.join().unwrap_or(None)))
                .collect()
        })
    }

    /// Who leads, of those that are awake; waits until somebody does.
    ///
    /// # Errors
    /// As [`Ensemble::wait_for_leader`].
    pub fn leader(&mut self) -> io::Result<u64> {
        let awake = self.awake();
        self.wait_for_leader(&awake)
    }

    /// A server that is awake and does not lead.
    ///
    /// # Errors
    /// As [`Ensemble::wait_for_leader`].
    pub fn follower(&mut self) -> io::Result<u64> {
        let leader = self.leader()?;
        let awake = self.awake();
        let follower = awake.into_iter().find(|id| *id != leader);
        follower.ok_or_else(|| io::Error::other("there is nobody but the leader"))
    }

    /// A server that ended by itself is an error.
    ///
    /// # Errors
    /// One has.
    pub fn check_running(&mut self) -> io::Result<()> {
        for (id, server) in &mut self.servers {
            let ended = server.process.as_mut().and_then(Process::exit_status);
            if let Some(status) = ended {
                let tail = server.process.as_ref().map(Process::log_tail);
                return Err(io::Error::other(format!(
                    "server {id} has ended ({status}):\n{}",
                    tail.unwrap_or_default()
                )));
            }
        }
        Ok(())
    }

    fn log_tails(&self) -> String {
        let mut text = String::new();
        for (id, server) in &self.servers {
            if let Some(process) = &server.process {
                let _ = writeln!(text, "--- server {id}:\n{}", process.log_tail());
            }
        }
        text
    }

    /// How a server ended that did so by itself; from then on it does not run. `None` if it does, or if
    /// this is known already.
    pub fn take_exit(&mut self, id: u64) -> Option<ExitStatus> {
        let server = self.server_mut(id);
        let status = server.process.as_mut()?.exit_status()?;
        server.process = None;
        server.is_frozen = false;
        Some(status)
    }

    /// The role that `id` says it has; `None` if it does not serve.
    #[must_use]
    pub fn role(&self, id: u64) -> Option<String> {
        role(self.address(id))
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self, id: u64) {
        let server = self.server_mut(id);
        server.is_frozen = false;
        if let Some(mut process) = server.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&mut self, id: u64) -> io::Result<()> {
        self.signal(id, "STOP")?;
        self.server_mut(id).is_frozen = true;
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&mut self, id: u64) -> io::Result<()> {
        self.signal(id, "CONT")?;
        self.server_mut(id).is_frozen = false;
        Ok(())
    }

    /// SIGTERM; waits until the process has ended.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(&mut self, id: u64) -> io::Result<ExitStatus> {
        self.signal(id, "TERM")?;
        self.wait_exit(id)
    }

    /// Waits until a server has ended by itself.
    ///
    /// # Errors
    /// It does not.
    pub fn wait_exit(&mut self, id: u64) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let server = self.server_mut(id);
            let process = server.process.as_mut();
            let process = process.ok_or_else(|| io::Error::other("it does not run"))?;
            if let Some(status) = process.exit_status() {
                server.process = None;
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!(
                    "server {id} has not ended after {PATIENCE:?}:\n{}",
                    process.log_tail()
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// The process of a server.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self, id: u64) -> u32 {
        let process = self.server(id).process.as_ref();
        process.expect("a test knows which servers run").id()
    }

    /// Sends a signal by name.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, id: u64, name: &str) -> io::Result<()> {
        let process = self.server(id).process.as_ref();
        let process = process.ok_or_else(|| io::Error::other("it does not run"))?;
        let mut command = Command::new("sh");
        command.args(["-c", &format!("kill -{name} {}", process.id())]);
        let done = run(command, "", WORD_LIMIT * 5)?;
        if done.success {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "kill -{name} {}: {}",
            process.id(),
            done.stderr
        )))
    }

    /// The answer of `id` to a four-letter word.
    ///
    /// # Errors
    /// It does not answer.
    pub fn word(&self, id: u64, word: &str) -> io::Result<String> {
        four_letter_word_within(self.address(id), word.as_bytes(), WORD_LIMIT)
    }
}

/// The one that leads. Of two that say so, one has not heard of its end yet.
fn leader_of(roles: &Roles) -> Option<u64> {
    let leads = |role: &Option<String>| matches!(role.as_deref(), Some("leader" | "standalone"));
    let leaders: BTreeSet<u64> = roles
        .iter()
        .filter(|(_, role)| leads(role))
        .map(|(id, _)| *id)
        .collect();
    leaders.first().copied().filter(|_| leaders.len() == 1)
}

fn role(address: SocketAddr) -> Option<String> {
    let text = four_letter_word_within(address, b"srvr", WORD_LIMIT).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Mode: "))?;
    Some(line.to_owned())
}

/// A loopback address that no other test of this machine uses.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    loop {
        // The upper half of 127.0.0.0/8.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < u8::MAX, "more servers than addresses");
        let ip = Ipv4Addr::new(127, 128 | (high & 0x7f), low, number);
        if TcpStream::connect_timeout(&(ip, CLIENT_PORT).into(), POLL).is_err() {
            return ip.into();
        }
    }
}
