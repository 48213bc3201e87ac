//! Closing, expiry, and what becomes of a session's znodes.

use std::time::{Duration, Instant};

use super::conversation;
use crate::wire::{
    Hello, add_watch, close_session, create, create2, exists, get_children, get_data,
    get_ephemerals, multi, ping,
};

#[test]
fn closing_a_session_deletes_its_ephemerals_before_the_answer() {
    conversation(
        "closing_a_session_deletes_its_ephemerals_before_the_answer",
        |talk| {
            let mut a = talk.connect("a");
            let mut b = talk.connect("b");
            a.quietly(&create("/c", 0));
            a.call("ephemeral", &create2("/c/e", b"", 1));
            b.call("the other's ephemeral", &exists("/c/e", true));
            b.call("watched children", &get_children("/c", true));
            a.call("own watch", &get_data("/c/e", true));
            a.send(&close_session());
            a.until_closed("close");
            b.settle();
            b.call("gone", &exists("/c/e", false));
            b.call("the parent", &exists("/c", false));
        },
    );
}

#[test]
fn a_persistent_watcher_sees_its_own_session_end() {
    conversation("a_persistent_watcher_sees_its_own_session_end", |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create("/w", 0));
        a.call("watch", &add_watch("/w", 1));
        a.call("ephemeral", &create("/w/e", 1));
        a.send(&close_session());
        a.until_closed("close");
    });
}

#[test]
fn a_session_expires_between_its_timeout_and_two_ticks_later() {
    conversation(
        "a_session_expires_between_its_timeout_and_two_ticks_later",
        |talk| {
            let mut watcher = talk.connect("w");
            let hello = Hello {
                timeout_ms: 1_000,
                ..Hello::default()
            };
            let (mut a, welcome) = talk.connect_as("a", &hello);
            a.quietly(&create("/x", 0));
            a.call("one", &create("/x/one", 1));
            a.call("two", &multi(&[create("/x/two", 1)]));
            watcher.call("watch", &exists("/x/one", true));
            a.quietly(&ping());
            let last_touch = Instant::now();
            // The connection stays open: silence alone ends a session, without a word.
            a.until_closed("silence");
            let lived = last_touch.elapsed();
            talk.note(format!(
                "not before the timeout: {}",
                lived >= Duration::from_millis(1_000)
            ));
            talk.note(format!(
                "soon after: {}",
                lived < Duration::from_millis(2_500)
            ));
            // In an ensemble of ZooKeeper the connection may end before the session.
            watcher.event();
            watcher.call("gone", &get_children("/x", false));
            watcher.call("pzxid and cversion", &exists("/x", false).clone());
            let resume = Hello {
                session: welcome.session,
                password: Some(&welcome.password),
                ..hello
            };
            let (mut refused, _) = talk.handshake("resume", &resume.frame());
            refused.until_closed("then");
        },
    );
}

#[test]
fn any_request_keeps_a_session_alive() {
    conversation("any_request_keeps_a_session_alive", |talk| {
        let (mut a, _) = talk.connect_as(
            "a",
            &Hello {
                timeout_ms: 600,
                ..Hello::default()
            },
        );
        let (mut b, _) = talk.connect_as(
            "b",
            &Hello {
                timeout_ms: 600,
                ..Hello::default()
            },
        );
        a.call("ephemeral", &create("/alive", 1));
        let until = Instant::now() + Duration::from_millis(2_000);
        while Instant::now() < until {
            a.quietly(&exists("/", false));
            b.quietly(&ping());
            std::thread::sleep(Duration::from_millis(100));
        }
        a.call("alive", &get_ephemerals("/"));
        b.call("alive", &exists("/alive", false));
    });
}

#[test]
fn a_resumed_connection_starts_without_the_watches_of_the_last() {
    conversation(
        "a_resumed_connection_starts_without_the_watches_of_the_last",
        |talk| {
            let (mut a, welcome) = talk.connect_as("a", &Hello::default());
            a.quietly(&create("/r", 0));
            a.call("watch", &get_data("/r", true));
            a.call("persistent", &add_watch("/r", 1));
            let resume = Hello {
                session: welcome.session,
                password: Some(&welcome.password),
                ..Hello::default()
            };
            let (mut again, _) = talk.connect_as("again", &resume);
            again.call("set", &crate::wire::set_data("/r", b"", -1));
            again.settle();
            a.until_closed("the old one");
        },
    );
}
