//! Links that are cut, faults F16 to F18: in both directions, in one, and so that some servers still
//! see all others.
//!
//! Each of these tests has a network of its own. Clients reach every server all the time.

use std::thread;
use std::time::Duration;

use quorate_tests::faults::{Place, enter};
use rand::Rng;

use crate::scene::{Scene, ensemble, faults, play, skip};

/// How long a cut lasts at the least: a few elections.
const CUT: Duration = Duration::from_millis(2_000);

/// Runs a test with so many servers in a network of its own, where that is possible.
fn in_own_network(test: &str, servers: u64, cut: impl Fn(&mut Scene<'_>)) {
    let whole_name = format!("partitions::{test}");
    match enter(&whole_name, servers).unwrap() {
        Place::Inside(network) => {
            play(test, ensemble(servers, Some(network)), |scene| {
                for _ in 0..faults(1) {
                    scene.load();
                    cut(scene);
                    // Whoever is connected to a majority serves, at once and when all timers are out.
                    scene.load();
                    thread::sleep(CUT);
                    scene.load();
                    scene.recover();
                }
            });
        }
        Place::Passed => {}
        Place::Impossible(reason) => skip(test, &reason),
    }
}

fn others(scene: &Scene<'_>, than: u64) -> Vec<u64> {
    let mut ids = scene.ensemble.ids();
    ids.retain(|id| *id != than);
    ids
}

/// Cuts one direction between a server and all others.
fn cut_one_way(scene: &mut Scene<'_>, server: u64, is_deaf: bool) {
    let others = others(scene, server);
    scene.disturb(&[server]);
    let network = scene.ensemble.network.as_mut().unwrap();
    for other in others {
        let (from, to) = match is_deaf {
            true => (other, server),
            false => (server, other),
        };
        network.cut(from, to).unwrap();
    }
}

#[test]
fn a_leader_cut_off_from_all_is_replaced() {
    let test = "a_leader_cut_off_from_all_is_replaced";
    in_own_network(test, 3, |scene| {
        let leader = scene.leader();
        let others = others(scene, leader);
        scene.disturb(&[leader]);
        let network = scene.ensemble.network.as_mut().unwrap();
        network.split(&[&[leader], &others]).unwrap();
    });
}

/// It is heard, so nobody else would stand for election; it hears nobody, so it commits nothing.
#[test]
fn a_leader_that_hears_nobody_is_replaced() {
    let test = "a_leader_that_hears_nobody_is_replaced";
    in_own_network(test, 3, |scene| {
        let leader = scene.leader();
        cut_one_way(scene, leader, true);
    });
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() {
    let test = "a_leader_that_nobody_hears_is_replaced";
    in_own_network(test, 3, |scene| {
        let leader = scene.leader();
        cut_one_way(scene, leader, false);
    });
}

/// It stands for election again and again, and must not bring down a leader that all others hear.
#[test]
fn a_follower_that_hears_nobody_disturbs_nobody() {
    let test = "a_follower_that_hears_nobody_disturbs_nobody";
    in_own_network(test, 3, |scene| {
        let follower = scene.follower();
        cut_one_way(scene, follower, true);
    });
}

/// Three of five on either side, one of them on both.
#[test]
fn two_halves_that_share_one_server_still_serve() {
    let test = "two_halves_that_share_one_server_still_serve";
    in_own_network(test, 5, |scene| {
        let order = scene.some(5);
        let (left, right) = (&order[0..2], &order[3..5]);
        // Half of them can have a leader at most.
        scene.disturb(&order);
        let network = scene.ensemble.network.as_mut().unwrap();
        network.split(&[left, right]).unwrap();
    });
}

/// The last link of a follower is to the leader; that of all others is to everybody but it.
#[test]
fn a_leader_that_sees_one_of_two_followers_still_serves() {
    let test = "a_leader_that_sees_one_of_two_followers_still_serves";
    in_own_network(test, 3, |scene| {
        let leader = scene.leader();
        let follower = scene.follower();
        scene.disturb(&[leader, follower]);
        let network = scene.ensemble.network.as_mut().unwrap();
        network.split(&[&[leader], &[follower]]).unwrap();
    });
}

/// Fault F19: connections between servers end in the middle of what they carry. What was forwarded is
/// done once, and clients notice nothing.
#[test]
fn connections_between_servers_that_are_reset_cost_clients_nothing() {
    let test = "connections_between_servers_that_are_reset_cost_clients_nothing";
    in_own_network(test, 3, |scene| {
        for _ in 0..10 {
            let pair = scene.some(2);
            let lasts = Duration::from_millis(scene.rng.random_range(1..80));
            let network = scene.ensemble.network.as_ref().unwrap();
            network.reset(pair[0], pair[1], lasts).unwrap();
            scene.writes(20);
        }
    });
}
