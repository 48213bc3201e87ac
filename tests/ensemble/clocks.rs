//! The wall clock of one server jumps, fault F14. Sessions live by another clock: nobody expires early
//! or late, and nobody even loses a connection.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_protocol::Request;
use quorate_tests::client::{Connection, EPHEMERAL, create, exists, set_data};
use quorate_tests::ensemble::PATIENCE;
use quorate_tests::process::run;
use quorate_tests::server::Product;
use quorate_tests::shim::{self, WallClock};

use crate::scene::{Scene, ensemble, faults, play, product, skip};

const HOUR_MS: i64 = 3_600_000;
/// How long after a jump its effect may be looked for.
const SOON_MS: i64 = 60_000;
/// The session that dies.
const TIMEOUT_MS: i32 = 1_000;
const TIMEOUT: Duration = Duration::from_millis(1_000);
/// A look for the overdue each tick, a write, and a busy machine.
const LATE_MAX: Duration = Duration::from_secs(4);
const SILENT: &str = "/silent";

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The beginning of a line of a log that is written then.
fn log_time(ms: i64) -> String {
    let mut command = Command::new("date");
    let time = format!("@{}", ms / 1_000);
    command.args(["--utc", "--date", &time, "+%FT%T"]);
    let done = run(command, "", PATIENCE).unwrap();
    assert!(done.success, "{}", done.stderr);
    done.stdout.trim().to_owned()
}

/// Waits until a server writes the jumped time into its log, or the test would prove nothing.
fn sees_in_its_log(scene: &Scene<'_>, server: u64, ahead_ms: i64) {
    let times = log_time(now_ms() + ahead_ms)..log_time(now_ms() + ahead_ms + SOON_MS);
    let deadline = Instant::now() + PATIENCE;
    loop {
        // It says whose connection it ends, and why.
        let mut nonsense = TcpStream::connect(scene.ensemble.address(server)).unwrap();
        nonsense.write_all(&[0x7f; 8]).unwrap();
        let log = scene.ensemble.log(server);
        let mut begins = log.lines().filter_map(|line| line.get(..19));
        if begins.any(|time| times.contains(&time.to_owned())) {
            return;
        }
        assert!(Instant::now() < deadline, "{times:?} is not in\n{log}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The time of a write is the leader's, which on a busy machine may be another than it was.
fn sees_in_a_write(scene: &mut Scene<'_>, server: u64, ahead_ms: i64) {
    let address = scene.ensemble.address(server);
    let mut client = Connection::open(address, 20_000).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let expected_ms = match scene.leader() == server {
            true => ahead_ms,
            false => 0,
        };
        let reply = client.call(&set_data("/registers", b"", -1)).unwrap();
        let off_ms = reply.stat().unwrap().mtime - now_ms() - expected_ms;
        if off_ms.abs() < SOON_MS {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the jump by {ahead_ms} ms did not happen: {off_ms}"
        );
    }
}

/// A session whose client is gone ends when it should.
fn expires_in_time(scene: &mut Scene<'_>, ahead_ms: i64) {
    let ids = scene.ensemble.ids();
    let leader = scene.leader();
    let follower = *ids.iter().find(|id| **id != leader).unwrap();
    let address = scene.ensemble.address(follower);
    let mut watcher = Connection::open(address, 20_000).unwrap();
    let mut silent = Connection::open(address, TIMEOUT_MS).unwrap();
    let made = silent.call(&create(SILENT, b"", EPHEMERAL)).unwrap();
    assert_eq!(made.code(), 0);
    let begun = Instant::now();
    drop(silent);
    while watcher.call(&exists(SILENT, false)).unwrap().code() == 0 {
        assert!(begun.elapsed() < PATIENCE, "{ahead_ms}: it never expires");
        thread::sleep(Duration::from_millis(10));
    }
    let took = begun.elapsed();
    // What the client did counts from when the server had it, a moment earlier.
    let early = TIMEOUT - Duration::from_millis(100);
    assert!(
        (early..TIMEOUT + LATE_MAX).contains(&took),
        "{ahead_ms}: expired after {took:?}"
    );
    watcher.call(&Request::CloseSession).unwrap();
}

fn jump(test: &str, of_leader: bool) {
    if product() != Product::Quorate {
        return;
    }
    let mut ensemble = ensemble(3, None);
    let Some(library) = shim::build(&ensemble.folder(1)).unwrap() else {
        return skip(test, "there is no C compiler (cc)");
    };
    // All of them: nobody knows yet who will lead.
    let clocks: Vec<WallClock> = (1..=3)
        .map(|id| {
            let clock = WallClock::new(&ensemble.folder(id).join("clock")).unwrap();
            ensemble.set_variables(id, clock.variables(&library));
            clock
        })
        .collect();
    play(test, ensemble, |scene| {
        for _ in 0..faults(1) {
            let server = match of_leader {
                true => scene.leader(),
                false => scene.follower(),
            };
            let clock = &clocks[usize::try_from(server).unwrap() - 1];
            for ahead_ms in [HOUR_MS, -HOUR_MS, 0] {
                scene.load();
                clock.set_ahead_ms(ahead_ms).unwrap();
                sees_in_its_log(scene, server, ahead_ms);
                sees_in_a_write(scene, server, ahead_ms);
                scene.load();
                expires_in_time(scene, ahead_ms);
            }
        }
    });
}

#[test]
fn a_leader_whose_clock_jumps_expires_nobody_early_and_keeps_nobody_alive() {
    let test = "a_leader_whose_clock_jumps_expires_nobody_early_and_keeps_nobody_alive";
    jump(test, true);
}

#[test]
fn a_follower_whose_clock_jumps_expires_nobody_early_and_keeps_nobody_alive() {
    let test = "a_follower_whose_clock_jumps_expires_nobody_early_and_keeps_nobody_alive";
    jump(test, false);
}
