//! A leader hands over, and all to whom it could stand still: it ends all the same, or falls silent
//! until one of them leads.

use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::ensemble::PATIENCE;
use quorate_tests::server::Product;

use crate::members::SlowDisk;
use crate::scene::{Scene, ensemble, faults, play, product, say, skip};

/// A server that is told to stop has ended by then: a turn for each of the others, and the end of
/// its connections.
const END_MAX: Duration = Duration::from_secs(10);
/// What a leader says when nobody has taken over.
const SILENT: &str = "nobody took leadership over: falling silent";
/// Longer than it is silent without anybody having been elected.
const SILENCE: Duration = Duration::from_millis(2_500);
/// A leader hands over when a sync takes a second, to those it has heard of within a second. They
/// stand still from when the first is half over.
const HANG: Duration = Duration::from_millis(700);

fn freeze_all_but(scene: &mut Scene<'_>, leader: u64) {
    for id in scene.ensemble.awake() {
        if id != leader {
            scene.ensemble.freeze(id).unwrap();
        }
    }
}

#[test]
fn a_leader_that_is_told_to_stop_ends_though_nobody_can_take_over() {
    let test = "a_leader_that_is_told_to_stop_ends_though_nobody_can_take_over";
    if product() != Product::Quorate {
        return;
    }
    play(test, ensemble(3, None), |scene| {
        for _ in 0..faults(2) {
            scene.load();
            let all = scene.ensemble.ids();
            scene.disturb(&all);
            let leader = scene.leader();
            freeze_all_but(scene, leader);
            let begun = Instant::now();
            let status = scene.ensemble.stop(leader).unwrap();
            let took = begun.elapsed();
            say(&format!("{test}: it ended after {took:.1?}"));
            assert_eq!(status.code(), Some(0));
            assert!(took < END_MAX, "{took:?}");
            scene.recover();
        }
    });
}

/// Slows the disk of the leader, and stops all others in time for it to find that out.
fn is_silent(scene: &mut Scene<'_>, leader: u64) -> Option<bool> {
    let silences = |scene: &Scene<'_>| scene.ensemble.log(leader).matches(SILENT).count();
    let before = silences(scene);
    let disk = SlowDisk::of(&scene.ensemble, leader, Duration::from_secs(60))?;
    thread::sleep(HANG.saturating_sub(SlowDisk::STARTS_WITHIN));
    freeze_all_but(scene, leader);
    let deadline = Instant::now() + SILENCE;
    while silences(scene) == before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let is_silent = silences(scene) > before;
    if is_silent {
        thread::sleep(SILENCE);
    }
    drop(disk);
    Some(is_silent)
}

#[test]
fn a_leader_that_nobody_relieves_loses_nothing_and_is_relieved_in_the_end() {
    let test = "a_leader_that_nobody_relieves_loses_nothing_and_is_relieved_in_the_end";
    if product() != Product::Quorate {
        return;
    }
    play(test, ensemble(3, None), |scene| {
        let mut left = faults(1);
        let deadline = Instant::now() + PATIENCE * (left + 1);
        while left > 0 {
            assert!(Instant::now() < deadline, "the moment was never met");
            scene.load();
            let all = scene.ensemble.ids();
            scene.disturb(&all);
            let leader = scene.leader();
            match is_silent(scene, leader) {
                Some(true) => left -= 1,
                // A busy machine: the others were heard of too long ago, or took over.
                Some(false) => {}
                None => return skip(test, "strace is missing, or may not trace"),
            }
            // It is up, and well, and led when all others stood still.
            scene.recover();
        }
    });
}
