//! A server has lost its data and is taken in again, while the leader that does so is killed.

use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::client::{Connection, get_data};
use quorate_tests::ensemble::{Ensemble, PATIENCE};
use quorate_tests::server::Product;
use rand::Rng;

use crate::members::CONFIG;
use crate::scene::{Scene, ensemble, faults, play, product, say};

/// What it says when it asks the leader.
const ASKS: &str = "asking the ensemble to take this server in again";
/// What the leader says that has taken it in.
const DONE: &str = "a server that has lost its data is taken in again";
/// Taking it in takes about so long.
const TAKEN_IN: Duration = Duration::from_millis(60);

/// What clients read of the members.
fn config(ensemble: &Ensemble, server: u64) -> Option<Vec<u8>> {
    let mut client = Connection::open(ensemble.address(server), 10_000).ok()?;
    let config = client.call(&get_data(CONFIG, false)).ok()?;
    Some(config.data()?.to_vec())
}

#[test]
fn a_server_that_lost_its_data_is_taken_in_again_though_the_leader_is_killed() {
    let test = "a_server_that_lost_its_data_is_taken_in_again_though_the_leader_is_killed";
    if product() != Product::Quorate {
        return;
    }
    play(test, ensemble(3, None), |scene| {
        let mut by_the_next = 0;
        for _ in 0..faults(2) {
            scene.load();
            let lost = scene.follower();
            let leader = scene.leader();
            let before = config(&scene.ensemble, leader).unwrap();
            scene.kill(&[lost]);
            scene.ensemble.lose_data(lost).unwrap();
            scene.ensemble.set_flags(lost, &["--rejoin"]);
            let asked = |scene: &Scene<'_>| {
                let log = scene.ensemble.log(lost);
                log.matches(ASKS).count()
            };
            let asked_before = asked(scene);
            // For a moment it takes both others to do anything.
            let all = scene.ensemble.ids();
            scene.disturb(&all);
            let leader = scene.leader();
            scene.ensemble.spawn(lost).unwrap();
            let deadline = Instant::now() + PATIENCE;
            while asked(scene) == asked_before {
                assert!(Instant::now() < deadline, "it does not ask");
                thread::sleep(Duration::from_millis(1));
            }
            let done = |scene: &Scene<'_>| scene.ensemble.log(leader).matches(DONE).count();
            let done_before = done(scene);
            thread::sleep(scene.rng.random_range(Duration::ZERO..TAKEN_IN));
            scene.kill(&[leader]);
            by_the_next += u32::from(done(scene) == done_before);
            scene.recover();
            scene.ensemble.set_flags(lost, &[]);
            let votes = |role: &Option<String>| {
                let role = role.as_deref();
                matches!(role, Some("follower" | "leader")).then_some(())
            };
            scene
                .ensemble
                .wait_for("its vote", &[lost], |roles| votes(&roles[&lost]))
                .unwrap();
            // To clients it was a member all the time.
            let after = config(&scene.ensemble, lost).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&after),
                String::from_utf8_lossy(&before)
            );
        }
        say(&format!("{test}: {by_the_next} times by the next leader"));
    });
}
