//! A rolling restart: SIGTERM, one server after the other, while clients work.

use crate::scene::{ensemble, faults, play, product};
use quorate_tests::server::Product;

#[test]
fn a_rolling_restart_under_load_loses_nothing() {
    let test = "a_rolling_restart_under_load_loses_nothing";
    play(test, ensemble(3, None), |scene| {
        for _ in 0..faults(1) {
            // The leader first, so that leadership moves; it may move to one that is yet to go.
            let leader = scene.leader();
            let mut ids = scene.ensemble.ids();
            ids.sort_by_key(|id| *id != leader);
            for id in ids {
                scene.load();
                scene.disturb(&[id]);
                let status = scene.ensemble.stop(id).unwrap();
                // A Java program that is told to end by a signal says so.
                if product() == Product::Quorate {
                    assert_eq!(status.code(), Some(0), "server {id}");
                }
                scene.load();
                scene.recover();
            }
        }
    });
}
