//! Holders that die, or are cut off, and those of another language who wait for them.

use std::time::{Duration, Instant};

use quorate_client::Client;
use quorate_tests::proxy::Proxy;

use super::{Stage, all_there};
use crate::against_both_alone;

/// Of those who die or are cut off: short, but a machine may well stand still for a second.
const SHORT_MS: u32 = 4_000;
/// What servers and a busy machine may add to the timeout of a session.
const SLACK: Duration = Duration::from_secs(8);

#[test]
fn a_holder_that_dies_or_is_cut_off_keeps_nobody_out_for_longer_than_its_session_lasts() {
    let test =
        "a_holder_that_dies_or_is_cut_off_keeps_nobody_out_for_longer_than_its_session_lasts";
    if !all_there(test) {
        return;
    }
    against_both_alone(test, |scene| async move {
        let mut stage = Stage::new(scene).await;
        let pairs = [
            ("quorate-lock:curator", "curator-mutex"),
            ("quorate-lock:curator", "kazoo-lock-curator"),
            ("quorate-lock:kazoo", "kazoo-lock"),
            ("quorate-lock:java", "zookeeper-lock"),
            ("quorate-write:curator", "curator-read"),
            ("quorate-read:kazoo", "kazoo-write"),
            ("quorate-election:latch", "curator-latch"),
            ("quorate-election:selector", "curator-selector"),
            ("quorate-election:kazoo", "kazoo-election"),
        ];

        // Ours is cut off: it has to leave by itself, and the others come in after that.
        let proxy = Proxy::start(stage.scene.server.address()).unwrap();
        let mut cut_off = Vec::new();
        for (number, (ours, theirs)) in pairs.iter().enumerate() {
            let path = format!("/cut/{number}");
            stage.client.ensure_path(&path).await.unwrap();
            let builder = Client::builder(&proxy.address().to_string())
                .session_timeout(Duration::from_millis(SHORT_MS.into()));
            let mut ours = stage.open_by(builder, ours, &path, SHORT_MS);
            let mut theirs = stage.open(theirs, &path);
            theirs.ready();
            ours.must("acquire", "entered");
            theirs.command("acquire");
            assert_eq!(stage.outcome(&mut theirs, &path).await, "waits");
            cut_off.push((ours, theirs));
        }
        let since = Instant::now();
        proxy.hold();
        for (ours, theirs) in &mut cut_off {
            let answer = ours.answer();
            assert!(answer.starts_with("stopped "), "{answer}");
            theirs.expect("entered");
        }
        in_time(since);

        // Theirs are killed.
        let mut killed = Vec::new();
        for (number, (ours, theirs)) in pairs.iter().enumerate() {
            let path = format!("/killed/{number}");
            stage.client.ensure_path(&path).await.unwrap();
            let mut theirs = stage.open_with(theirs, &path, SHORT_MS);
            let mut ours = stage.open(ours, &path);
            ours.ready();
            theirs.must("acquire", "entered");
            ours.command("acquire");
            assert_eq!(stage.outcome(&mut ours, &path).await, "waits");
            killed.push((ours, theirs));
        }
        let since = Instant::now();
        stage.java.kill();
        stage.python.kill();
        for (_, theirs) in &killed {
            theirs.has_died();
        }
        for (ours, _) in &mut killed {
            ours.expect("entered");
        }
        in_time(since);
    });
}

fn in_time(since: Instant) {
    let took = since.elapsed();
    let most = Duration::from_millis(SHORT_MS.into()) + SLACK;
    assert!(took < most, "{took:?}");
}
