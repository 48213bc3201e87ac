//! One server's disk gets slow, fault F11: every sync takes longer than an election.

use std::process::Command;
use std::thread;
use std::time::Duration;

use quorate_tests::process::Process;

use crate::scene::{Scene, ensemble, faults, play, skip};

/// How long each sync takes. Far more than any timer of an ensemble.
const SYNC_MS: u64 = 2_000;
/// How long the disk stays like that.
const SLOW: Duration = Duration::from_millis(4_500);

/// Slows down the syncs of a running server until dropped.
fn slow_disk(scene: &Scene<'_>, server: u64) -> Process {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]);
    command.args(["-e", "trace=fdatasync", "-e"]);
    command.arg(format!("inject=fdatasync:delay_enter={}", SYNC_MS * 1_000));
    command.args(["-p", &scene.ensemble.pid(server).to_string()]);
    let log = scene.ensemble.folder(server).join("strace.log");
    Process::start("strace", command, &log).unwrap()
}

fn may_trace() -> bool {
    let mut command = Command::new("strace");
    command.args(["-e", "trace=none", "true"]);
    quorate_tests::process::run(command, "", SLOW * 5).is_ok_and(|done| done.success)
}

fn slow_down(test: &str, choose: impl Fn(&mut Scene<'_>) -> u64) {
    if !may_trace() {
        skip(test, "strace is missing, or may not trace");
        return;
    }
    play(test, ensemble(3, None), |scene| {
        for _ in 0..faults(1) {
            scene.load();
            let server = choose(scene);
            scene.disturb(&[server]);
            let mut tracer = slow_disk(scene, server);
            // The other two are a majority with good disks.
            scene.load();
            thread::sleep(SLOW);
            scene.load();
            assert!(tracer.exit_status().is_none(), "{}", tracer.log_tail());
            drop(tracer);
            scene.recover();
        }
    });
}

#[test]
fn a_slow_disk_of_the_leader_holds_nobody_up() {
    slow_down("a_slow_disk_of_the_leader_holds_nobody_up", |scene| {
        scene.leader()
    });
}

#[test]
fn a_slow_disk_of_a_follower_holds_nobody_up() {
    slow_down("a_slow_disk_of_a_follower_holds_nobody_up", |scene| {
        scene.follower()
    });
}
