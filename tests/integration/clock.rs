//! The wall clock may jump; sessions live by another one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_protocol::{EventType, Request};
use quorate_tests::client::{EPHEMERAL, create, exists, set_data};
use quorate_tests::shim::WallClock;

use crate::harness::{Node, Wrapper, build_shim, skip};

const HOUR_MS: i64 = 3_600_000;

/// Fault F14.
#[test]
fn a_wall_clock_that_jumps_expires_nobody_early_and_keeps_nobody_alive() {
    let test = "a_wall_clock_that_jumps_expires_nobody_early_and_keeps_nobody_alive";
    let mut node = Node::new();
    let Some(shim) = build_shim(node.folder()) else {
        skip(test, "there is no C compiler (cc)");
        return;
    };
    let clock = WallClock::new(&node.folder().join("clock")).unwrap();
    node.set_wrapper(Some(Wrapper {
        program: Vec::new(),
        variables: clock.variables(&shim),
    }));
    node.start();
    let mut alive = node.connect_for(1_000);
    alive.call(&create("/alive", b"", EPHEMERAL)).unwrap();
    for jump_ms in [
        HOUR_MS,
        -HOUR_MS,
        24 * HOUR_MS,
        -24 * HOUR_MS,
        365 * 24 * HOUR_MS,
        0,
    ] {
        let mut silent = node.connect_for(600);
        silent.call(&create("/silent", b"", EPHEMERAL)).unwrap();
        alive.call(&exists("/silent", true)).unwrap();
        clock.set_ahead_ms(jump_ms).unwrap();
        let begun = Instant::now();
        // Shown by the time of a write: the server does live by the new time.
        let reply = alive.call(&set_data("/alive", b"", -1)).unwrap();
        let skew_ms = reply.stat().unwrap().mtime - now_ms() - jump_ms;
        assert!(
            skew_ms.abs() < 60_000,
            "the jump by {jump_ms} ms did not happen: {skew_ms}"
        );
        silent.call(&Request::Ping).unwrap();
        let event = loop {
            alive.call(&Request::Ping).unwrap();
            if let Some(event) = alive.events.pop_front() {
                break event;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{jump_ms}: it never expires"
            );
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(event.kind, EventType::NodeDeleted);
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(600),
            "{jump_ms}: expired after {took:?}"
        );
        assert!(
            took < Duration::from_secs(4),
            "{jump_ms}: expired after {took:?}"
        );
    }
    assert_eq!(alive.call(&exists("/alive", false)).unwrap().code(), 0);
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
