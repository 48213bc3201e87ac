//! `quorate check` and `quorate log` on what three servers have left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use quorate_checker::History;
use quorate_checker::history::{LogCommand, Request};
use quorate_client::Client;
use tempfile::TempDir;

/// Three servers that have served and were stopped, and the folder of each.
struct Left {
    _folder: TempDir,
    servers: Vec<PathBuf>,
}

/// Runs an ensemble, has `work` done, and stops it.
fn leave_behind(while_it_runs: impl FnOnce(&[PathBuf])) -> Left {
    let folder = TempDir::new().expect("a temporary directory");
    let ensemble = folder.path().join("ensemble");
    let mut child = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["dev", "--client-port", &free_ports().to_string(), "--dir"])
        .arg(&ensemble)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let output = child.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let mut connect = None;
    for line in lines.by_ref() {
        if let Some(string) = line.strip_prefix("connect string: ") {
            connect = Some(string.to_owned());
        }
        if line.starts_with("leader: server ") {
            break;
        }
    }
    let servers: Vec<PathBuf> = (1..=3)
        .map(|id| ensemble.join(format!("server{id}/data")))
        .collect();
    write(&connect.expect("it says where to connect"));
    while_it_runs(&servers);
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("there is kill").success());
    for _ in lines {}
    assert!(child.wait().expect("it is our child").success());
    Left {
        _folder: folder,
        servers,
    }
}

fn free_ports() -> u16 {
    let begin = 4_000 + u16::try_from(std::process::id() % 100).expect("it is small") * 10;
    let mut starts = (begin..begin + 2_000).step_by(3);
    let is_free = |start: &u16| {
        let ports = [0, 707, 1_707].into_iter();
        let mut ports = ports.flat_map(|offset| (0..3).map(move |id| start + offset + id));
        ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    starts.find(is_free).expect("some ports are free")
}

fn write(connect: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::connect(connect).await.expect("it connects");
        client
            .create("/config", b"some data")
            .await
            .expect("it is created");
        for _ in 0..10 {
            let member = client
                .create("/config/member-", b"")
                .ephemeral()
                .sequential();
            member.await.expect("it is created");
        }
        client.set("/config", b"other").await.expect("it is set");
        client.close().await;
    });
}

fn quorate(args: &[&str], folders: &[PathBuf]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(args)
        .args(folders)
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Asserts the exit code, and returns standard output.
fn said(output: &Output, code: i32) -> &str {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{error}");
    out
}

fn segment(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).expect("it is there");
    let mut segments: Vec<PathBuf> = files
        .map(|file| file.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments.swap_remove(0)
}

/// One test, because an ensemble takes its time to come and go.
#[test]
fn what_servers_leave_behind_can_be_checked_dumped_and_merged() {
    let left = leave_behind(|servers| {
        let refused = quorate(&["check"], &servers[..1]);
        said(&refused, 3);
        let error = text(&refused.stderr);
        assert!(error.contains("is in use by process"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    });
    let all = &left.servers;
    let one = &all[..1];

    for server in all {
        let output = quorate(&["check"], std::slice::from_ref(server));
        let out = said(&output, 0);
        assert!(out.contains("a server would start with all of it"), "{out}");
        assert!(out.contains("(0 ephemeral)"), "{out}");
    }
    let output = quorate(&["check", "--format", "json"], one);
    let report: serde_json::Value = serde_json::from_str(said(&output, 0)).expect("JSON");
    assert_eq!(report["start"]["verdict"], "starts");
    assert_eq!(report["problems"], serde_json::json!([]));

    let output = quorate(&["log", "dump"], one);
    let out = said(&output, 0);
    assert!(out.contains("create /config, 9 bytes"), "{out}");
    assert!(
        out.contains("create /config/member- ephemeral sequential, 0 bytes"),
        "{out}"
    );
    assert!(out.contains("close session 0x"), "{out}");
    assert!(!out.contains("some data"), "{out}");
    let first = out.lines().next().expect("a line").trim_start();
    assert!(first.starts_with("0  0x0  term "), "{first}");
    let output = quorate(&["log", "dump", "--from", "2", "--to", "3"], one);
    assert_eq!(said(&output, 0).lines().count(), 2);
    let output = quorate(&["log", "dump", "--all"], one);
    let out = said(&output, 0);
    assert!(out.contains("vote for server "), "{out}");
    assert!(out.contains("committed up to entry "), "{out}");

    let output = quorate(&["log", "merge"], all);
    let out = said(&output, 0);
    assert!(
        out.contains("\ncommitted for certain up to entry "),
        "{out}"
    );
    let output = quorate(&["log", "merge", "--format", "json"], all);
    let history = History::read_from(said(&output, 0).as_bytes()).expect("a history's log");
    let log = history.log.expect("there is a log");
    let is_write = |command: &LogCommand| {
        matches!(
            command,
            LogCommand::Write {
                write: Request::Create { .. },
                ..
            }
        )
    };
    let writes = log.entries.iter().filter(|entry| is_write(&entry.command));
    assert_eq!(writes.count(), 11);

    let twice = [all[0].clone(), all[0].clone()];
    said(&quorate(&["log", "merge"], &twice), 2);

    // The bits of an entry.
    let path = segment(&all[0]);
    let mut bytes = fs::read(&path).expect("it is there");
    let at = bytes
        .windows(9)
        .position(|window| window == b"some data")
        .expect("it is in the log");
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("it can be written");
    let output = quorate(&["check"], one);
    let out = said(&output, 3);
    assert!(
        out.contains("PROBLEM: ") && out.contains(" at byte "),
        "{out}"
    );
    assert!(out.contains("a server would refuse to start"), "{out}");
    assert!(out.contains("--rejoin"), "{out}");
    said(&quorate(&["log", "dump"], one), 3);
    said(&quorate(&["log", "merge"], all), 3);
    let output = quorate(&["log", "dump", "--all"], one);
    let out = said(&output, 3);
    assert!(
        out.contains("DAMAGED: ") && out.contains("vote for server "),
        "{out}"
    );
    // The others do not need it.
    said(&quorate(&["log", "merge"], &all[1..]), 0);
}

#[test]
fn a_folder_that_is_not_there_is_named_in_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["check", "/nowhere/at/all"])
        .output()
        .expect("the binary runs");
    said(&output, 3);
    let error = text(&output.stderr);
    assert!(
        error.starts_with("quorate: cannot read /nowhere/at/all"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}
