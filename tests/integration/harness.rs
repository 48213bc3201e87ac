//! One server under test: its configuration, its process, its folder.
//!
//! A [`Node`] outlives its processes: it can be killed, stopped and started again on the same data.
//! Each has a loopback address of its own, so that no connection of another test can be given the
//! port of a server that is down for a moment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::client::Connection;
use quorate_tests::process::{Process, run};
use quorate_tests::server::{four_letter_word, quorate_binary};
use quorate_tests::shim;
use tempfile::TempDir;

/// Any start and any stop, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what gives no notice: a port that opens, a child that ends.
const POLL: Duration = Duration::from_millis(5);
const PORT: u16 = 2181;

/// How the process ends, as scripts know it.
pub(crate) const EXIT_USAGE: i32 = 2;
pub(crate) const EXIT_DATA_DIRECTORY: i32 = 3;
pub(crate) const EXIT_BIND: i32 = 4;
pub(crate) const EXIT_STORAGE: i32 = 5;

/// A server that can be started again and again on the same data.
#[derive(Debug)]
pub(crate) struct Node {
    /// Before the folder: its log is shown when a test fails.
    process: Option<Process>,
    folder: TempDir,
    data: PathBuf,
    ip: Ipv4Addr,
    settings: BTreeMap<String, String>,
    wrapper: Option<Wrapper>,
}

/// What stands in front of the server's command: a program and its arguments, and variables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wrapper {
    pub(crate) program: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
}

impl Node {
    /// A server with short ticks and all four-letter words, not started yet.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("quorate-integration-")
            .tempdir()
            .unwrap();
        let mut node = Self {
            data: folder.path().join("data"),
            folder,
            ip: own_address(),
            settings: BTreeMap::new(),
            wrapper: None,
            process: None,
        };
        for (key, value) in [
            ("tickTime", "200"),
            ("maxClientCnxns", "0"),
            ("minSessionTimeout", "200"),
            ("maxSessionTimeout", "60000"),
            ("4lw.commands.whitelist", "*"),
            ("admin.enableServer", "false"),
        ] {
            node.set(key, value);
        }
        node
    }

    /// Adds or replaces a line of `zoo.cfg`.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.set(key, value);
        self
    }

    /// Small segments and frequent snapshots, so that kills hit those, too.
    pub(crate) fn with_busy_storage(self) -> Self {
        self.with("quorate.logSegmentBytes", "1048576")
            .with("snapCount", "300")
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    pub(crate) fn set_wrapper(&mut self, wrapper: Option<Wrapper>) {
        self.wrapper = wrapper;
    }

    pub(crate) fn set_data_dir(&mut self, data: &Path) {
        data.clone_into(&mut self.data);
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The folder that holds everything of this server; for a test's own files as well.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.ip, PORT))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn log_tail(&self) -> String {
        self.process
            .as_ref()
            .map_or_else(String::new, Process::log_tail)
    }

    /// The command that starts the server; `zoo.cfg` is written.
    pub(crate) fn command(&self) -> Command {
        let path = self.folder().join("zoo.cfg");
        let mut text = format!(
            "dataDir={}\nclientPortAddress={}\nclientPort={PORT}\n",
            self.data.display(),
            self.ip
        );
        for (key, value) in &self.settings {
            writeln!(text, "{key}={value}").unwrap();
        }
        fs::write(&path, text).unwrap();
        self.command_with(&path)
    }

    pub(crate) fn command_with(&self, config: &Path) -> Command {
        let binary = quorate_binary().unwrap();
        let wrapper = self.wrapper.clone().unwrap_or_default();
        let mut command = match wrapper.program.split_first() {
            None => Command::new(binary),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        command.envs(wrapper.variables).arg("serve").arg(config);
        command.current_dir(self.folder());
        command
    }

    /// Starts the process and does not wait for anything.
    pub(crate) fn spawn(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = self.folder().join("server.log");
        self.process = Some(Process::start("quorate", self.command(), &log).unwrap());
    }

    /// Starts the process and waits until it serves. Returns how long that took.
    pub(crate) fn start(&mut self) -> Duration {
        let begun = Instant::now();
        self.spawn();
        self.wait_until_serving();
        begun.elapsed()
    }

    pub(crate) fn started(mut self) -> Self {
        self.start();
        self
    }

    pub(crate) fn wait_until_serving(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let address = self.address();
        let process = self.process.as_mut().unwrap();
        loop {
            if four_letter_word(address, b"srvr").is_ok_and(|text| text.contains("\nMode: ")) {
                return;
            }
            let ended = process.exit_status();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "it does not serve ({ended:?}); its output:\n{}",
                process.log_tail()
            );
            thread::sleep(POLL);
        }
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("kill -{name} {pid}")]);
        assert!(
            run(command, "", PATIENCE).unwrap().success,
            "kill -{name} {pid}"
        );
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        let process = self.process.as_mut().unwrap();
        loop {
            if let Some(status) = process.exit_status() {
                self.process = None;
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running after {limit:?}; its output:\n{}",
                process.log_tail()
            );
            thread::sleep(POLL);
        }
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process
            .as_mut()
            .is_none_or(|process| process.exit_status().is_some())
    }

    /// Opens a session of 20 seconds.
    pub(crate) fn connect(&self) -> Connection {
        self.connect_for(20_000)
    }

    pub(crate) fn connect_for(&self, timeout_ms: i32) -> Connection {
        Connection::open(self.address(), timeout_ms)
            .unwrap_or_else(|error| panic!("no session ({error}); output:\n{}", self.log_tail()))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    pub(crate) fn word(&self, word: &str) -> String {
        four_letter_word(self.address(), word.as_bytes()).unwrap()
    }
}

/// A loopback address that no other test of this machine uses.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    loop {
        // Half of 127.0.0.0/8, without the part everybody uses.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < u8::MAX, "more servers than addresses");
        let ip = Ipv4Addr::new(127, 64 | (high & 0x3f), low, number);
        if TcpStream::connect_timeout(&(ip, PORT).into(), POLL).is_err() {
            return ip;
        }
    }
}

/// Everything below `folder`: names, and lengths and hashes of contents.
pub(crate) fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    use std::hash::{DefaultHasher, Hasher};

    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), (0, 0));
            found.extend(fingerprint(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes);
            found.insert(path, (bytes.len() as u64, hasher.finish()));
        }
    }
    found
}

/// The seed of a random test: the one `QUORATE_SEED` names, or a new one. Printed, to be used again.
pub(crate) fn seed(test: &str) -> u64 {
    let seed = match std::env::var("QUORATE_SEED") {
        Ok(text) => text.parse().expect("QUORATE_SEED is a number"),
        Err(_) => rand::random(),
    };
    say(&format!("{test}: QUORATE_SEED={seed}"));
    seed
}

/// A line for whoever runs the tests; the runner would hide what a passing test prints.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Records that `test` cannot run here.
pub(crate) fn skip(test: &str, reason: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    say(&format!(
        "skipped: {test}: {reason} (skipped so far: {count})"
    ));
    let required = std::env::var("QUORATE_INTEGRATION").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "skipped: {test}: {reason}, but QUORATE_INTEGRATION=required"
    );
}

/// Whether a command runs and succeeds.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, "", PATIENCE).is_ok_and(|done| done.success)
}

/// Builds the library that makes writes short and clocks jump; `None` where there is no compiler.
pub(crate) fn build_shim(folder: &Path) -> Option<PathBuf> {
    shim::build(folder).unwrap()
}

/// A wrapper that loads the shim with one of its faults.
pub(crate) fn shimmed(library: &Path, fault: &str, value: &str) -> Wrapper {
    Wrapper {
        program: Vec::new(),
        variables: shim::variables(library, fault, value),
    }
}
