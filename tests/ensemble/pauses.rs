//! SIGSTOP and SIGCONT, fault F12: a server that stands still for longer than an election, and than
//! the sessions of some of its clients, and then goes on as if no time had passed.

use std::thread;
use std::time::Duration;

use crate::scene::{RESTLESS, Scene, ensemble, faults, play};

fn pause(scene: &mut Scene<'_>, server: u64) {
    scene.disturb(&[server]);
    scene.ensemble.freeze(server).unwrap();
    // The rest has a leader, if not the same, and serves.
    scene.load();
    // It is the fault itself that has to last.
    thread::sleep(RESTLESS + Duration::from_millis(500));
    scene.load();
    scene.recover();
}

#[test]
fn a_leader_that_stands_still_is_replaced_and_does_no_harm_when_it_goes_on() {
    let test = "a_leader_that_stands_still_is_replaced_and_does_no_harm_when_it_goes_on";
    play(test, ensemble(3, None), |scene| {
        for _ in 0..faults(1) {
            scene.load();
            let leader = scene.leader();
            pause(scene, leader);
        }
    });
}

#[test]
fn a_follower_that_stands_still_holds_nobody_up() {
    let test = "a_follower_that_stands_still_holds_nobody_up";
    play(test, ensemble(3, None), |scene| {
        for _ in 0..faults(1) {
            scene.load();
            let follower = scene.follower();
            pause(scene, follower);
        }
    });
}
