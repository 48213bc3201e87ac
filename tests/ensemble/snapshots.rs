//! Snapshots under load, fault F22: servers that were away for too long to catch up from the log, and
//! are killed while they catch up.

use std::thread;
use std::time::Duration;

use rand::Rng;

use crate::scene::{ensemble, faults, play};

/// Far more than any server keeps of its log, with the settings below.
const BEHIND: u64 = 1_500;

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
    });
}
