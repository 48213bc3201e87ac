//! SIGKILL, fault F1: of the leader, of a follower, of a majority, of all.

use crate::scene::{ensemble, faults, play};

/// Design decision 5: clients of the survivors notice a pause, and nothing else.
#[test]
fn a_killed_leader_costs_clients_of_the_others_nothing() {
    let test = "a_killed_leader_costs_clients_of_the_others_nothing";
    play(test, ensemble(3, None), |scene| {
        for _ in 0..faults(3) {
            scene.load();
            let leader = scene.leader();
            scene.kill(&[leader]);
            // Before it is back.
            scene.load();
            scene.recover();
        }
    });
}

#[test]
fn a_killed_follower_costs_clients_of_the_others_nothing() {
    let test = "a_killed_follower_costs_clients_of_the_others_nothing";
    play(test, ensemble(3, None), |scene| {
        for _ in 0..faults(2) {
            scene.load();
            let follower = scene.follower();
            scene.kill(&[follower]);
            scene.load();
            scene.recover();
        }
    });
}

/// Nobody is served meanwhile, and nothing acknowledged is lost.
#[test]
fn a_killed_majority_loses_nothing() {
    let test = "a_killed_majority_loses_nothing";
    play(test, ensemble(5, None), |scene| {
        for _ in 0..faults(1) {
            scene.load();
            // Without them the rest serves nobody, so their clients may notice as well.
            let all = scene.ensemble.ids();
            scene.disturb(&all);
            let most = scene.some(3);
            scene.kill(&most);
            scene.recover();
        }
    });
}

#[test]
fn killing_all_at_once_loses_nothing() {
    let test = "killing_all_at_once_loses_nothing";
    play(test, ensemble(3, None), |scene| {
        for _ in 0..faults(2) {
            scene.load();
            let all = scene.ensemble.ids();
            scene.kill(&all);
            scene.recover();
        }
    });
}
