//! Snapshots under load, fault F22: servers that were away for too long to catch up from the log, and
//! are killed while they catch up.

use std::thread;
use std::time::Duration;

use quorate_tests::server::Product;
use rand::Rng;

use crate::scene::{ensemble, faults, play, product, say};

/// Far more than any server keeps of its log, with the settings below.
const BEHIND: u64 = 2_500;

/// What a server says when it has taken in another one's snapshot.
const INSTALLED: &str = "a snapshot has come from the leader";

#[test]
fn a_server_too_far_behind_for_the_log_gets_a_snapshot_however_often_it_is_killed() {
    let test = "a_server_too_far_behind_for_the_log_gets_a_snapshot_however_often_it_is_killed";
    let ensemble = ensemble(3, None)
        .with("snapCount", "200")
        .with("quorate.logSegmentBytes", "1048576");
    play(test, ensemble, |scene| {
        for _ in 0..faults(2) {
            let follower = scene.follower();
            scene.kill(&[follower]);
            scene.writes(BEHIND);
            // Any moment of starting and catching up will do, and nothing tells of them.
            for _ in 0..2 {
                scene.ensemble.spawn(follower).unwrap();
                let moment = scene.rng.random_range(0..600);
                thread::sleep(Duration::from_millis(moment));
                scene.ensemble.kill(follower);
            }
            if scene.rng.random() {
                // The one that would send the snapshot goes in the middle of it.
                scene.ensemble.spawn(follower).unwrap();
                let leader = scene.leader();
                let moment = scene.rng.random_range(0..600);
                thread::sleep(Duration::from_millis(moment));
                let all = scene.ensemble.ids();
                scene.disturb(&all);
                scene.kill(&[leader]);
            }
            scene.recover();
        }
        // Or else this tested nothing but kills.
        if product() == Product::Quorate {
            let logs = scene.ensemble.ids().into_iter();
            let installed: usize = logs
                .map(|id| scene.ensemble.log(id).matches(INSTALLED).count())
                .sum();
            say(&format!("{test}: {installed} snapshots came from a leader"));
            assert!(installed > 0, "everybody caught up from the log");
        }
    });
}
