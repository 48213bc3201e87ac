//! `quorate dev` as its user sees it: what it says, what survives a killed server, and that nothing is
//! left when it ends, however it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// For anything that must come about in the end, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what gives no notice.
const POLL: Duration = Duration::from_millis(20);

struct Dev {
    child: Child,
    lines: Receiver<String>,
    /// All that it has said.
    said: Vec<String>,
    /// Where temporary folders are made.
    temporary: TempDir,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        Self::start_at(arguments, &free_ports().to_string())
    }

    fn start_at(arguments: &[&str], client_port: &str) -> Self {
        let temporary = TempDir::new().expect("a temporary directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command
            .arg("dev")
            .args(arguments)
            .args(["--client-port", client_port])
            .env("TMPDIR", temporary.path())
            // Each server has one of its own.
            .env("QUORATE_DATA_DIR", "nowhere")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the binary runs");
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            said: Vec::new(),
            temporary,
        }
    }

    /// Waits for a line for which `wanted` has something.
    fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{what} does not come; it said: {:#?}", self.said);
            };
            let found = wanted(&line);
            self.said.push(line);
            if let Some(found) = found {
                return found;
            }
        }
    }

    fn wait_for_start(&mut self) -> Started {
        let connect = self.wait_for("the connect string", |line| {
            Some(line.strip_prefix("connect string: ")?.to_owned())
        });
        let servers = self.said.iter().filter_map(|line| {
            let (id, rest) = line.strip_prefix("server ")?.split_once(": ")?;
            let (_, rest) = rest.split_once("process ")?;
            let (pid, _) = rest.split_once(',')?;
            Some((id.parse().ok()?, pid.parse().ok()?))
        });
        let servers = servers.collect();
        let leader = self.wait_for("a leader", leader_in);
        Started {
            addresses: connect.split(',').map(str::to_owned).collect(),
            servers,
            leader,
        }
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    fn wait_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(POLL);
        }
    }

    fn temporary_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.temporary.path()).expect("it is there");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its servers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Started {
    addresses: Vec<String>,
    /// With their processes.
    servers: Vec<(u64, u32)>,
    leader: u64,
}

fn leader_in(line: &str) -> Option<u64> {
    line.strip_prefix("leader: server ")?.parse().ok()
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .expect("there is a shell");
    assert!(status.success(), "kill -{name} {pid}");
}

/// Gone, or nothing but an entry for its parent to read.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ") {
        Some((_, rest)) => rest.starts_with('Z'),
        None => true,
    }
}

fn wait_until_ended(started: &Started) {
    let deadline = Instant::now() + PATIENCE;
    while !started.servers.iter().all(|(_, pid)| has_ended(*pid)) {
        assert!(Instant::now() < deadline, "servers are left behind");
        thread::sleep(POLL);
    }
}

fn ask(address: &str, word: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(word.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// A client port, with which all ports of three servers are free. Not one of those the system gives
/// to outgoing connections, and another one for each test and process.
fn free_ports() -> u16 {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let begin = 10_000 + u16::try_from(std::process::id() % 500).expect("it is small") * 40;
    loop {
        let next = NEXT.fetch_add(5, std::sync::atomic::Ordering::Relaxed);
        let port = begin + next;
        let ports = [0, 707, 1_707].into_iter();
        let mut ports = ports.flat_map(|offset| (0..3).map(move |id| port + offset + id));
        if ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
}

fn folder_of(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn three_servers_come_up_and_outlive_a_killed_leader_and_leave_nothing() {
    let mut dev = Dev::start(&[]);
    let started = dev.wait_for_start();
    assert_eq!(started.addresses.len(), 3, "{:?}", dev.said);
    assert_eq!(started.servers.len(), 3, "{:?}", dev.said);
    for address in &started.addresses {
        assert_eq!(ask(address, "ruok"), "imok");
    }
    let (_, pid) = *started
        .servers
        .iter()
        .find(|(id, _)| *id == started.leader)
        .expect("it is one of them");
    signal(pid, "KILL");
    let next = dev.wait_for("another leader", |line| {
        leader_in(line).filter(|id| *id != started.leader)
    });
    assert_ne!(next, started.leader);
    let again = format!("server {}: process ", started.leader);
    let said = |dev: &Dev| dev.said.iter().any(|line| line.starts_with(&again));
    if !said(&dev) {
        dev.wait_for("its restart", |line| line.starts_with(&again).then_some(()));
    }
    assert_eq!(dev.temporary_files().len(), 1);
    dev.signal("INT");
    assert_eq!(dev.wait_exit().code(), Some(0));
    wait_until_ended(&started);
    assert_eq!(dev.temporary_files(), [] as [PathBuf; 0]);
}

#[test]
fn servers_end_when_their_parent_is_killed() {
    let mut dev = Dev::start(&[]);
    let started = dev.wait_for_start();
    dev.signal("KILL");
    dev.wait_exit();
    wait_until_ended(&started);
}

#[test]
fn a_folder_that_was_named_is_kept_and_gone_on_with() {
    let kept = TempDir::new().expect("a temporary directory");
    let folder = folder_of(&kept.path().join("ensemble"));
    let ports = free_ports().to_string();
    for _ in 0..2 {
        let mut dev = Dev::start_at(&["--servers", "1", "--dir", &folder], &ports);
        dev.wait_for_start();
        dev.signal("TERM");
        assert_eq!(dev.wait_exit().code(), Some(0));
        assert_eq!(dev.temporary_files(), [] as [PathBuf; 0]);
    }
    // Another ensemble than the one whose data it is.
    let mut dev = Dev::start_at(&["--servers", "2", "--dir", &folder], &ports);
    assert_eq!(dev.wait_exit().code(), Some(2));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let ports = free_ports();
    let _taken = TcpListener::bind(("127.0.0.1", ports + 708)).expect("it is free");
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["dev", "--client-port", &ports.to_string()])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(4));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = format!("quorate: server 2 needs 127.0.0.1:{}: ", ports + 708);
    assert!(error.starts_with(&words), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
