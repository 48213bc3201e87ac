//! Seven servers do without three; without four they serve nobody, until one of those is back.

use rand::seq::IndexedRandom;

use crate::scene::{Scene, ensemble, faults, play};

/// Nobody has heard of a majority for too long.
fn wait_until_nobody_serves(scene: &mut Scene<'_>) {
    let awake = scene.ensemble.awake();
    scene
        .ensemble
        .wait_for("nobody to serve", &awake, |roles| {
            roles.values().all(Option::is_none).then_some(())
        })
        .unwrap();
}

#[test]
fn seven_servers_lose_three_and_go_on_lose_a_fourth_and_wait_for_one() {
    let test = "seven_servers_lose_three_and_go_on_lose_a_fourth_and_wait_for_one";
    play(test, ensemble(7, None), |scene| {
        for _ in 0..faults(1) {
            scene.load();
            let mut lost = scene.some(3);
            scene.kill(&lost);
            scene.load();
            scene.load();
            // Without it the rest serves nobody, so their clients may notice as well.
            let all = scene.ensemble.ids();
            scene.disturb(&all);
            let awake = scene.ensemble.awake();
            let fourth = *awake.choose(&mut scene.rng).unwrap();
            scene.kill(&[fourth]);
            lost.push(fourth);
            wait_until_nobody_serves(scene);
            let one = *lost.choose(&mut scene.rng).unwrap();
            scene.ensemble.spawn(one).unwrap();
            scene.ensemble.wait_until_all_serve().unwrap();
            scene.load();
            scene.recover();
        }
    });
}
