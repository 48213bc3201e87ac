//! Watches: once, for good, for a whole subtree.

use quorate_client::EventType;
use quorate_client::watch::Item;

use crate::against_both;

#[test]
fn a_one_shot_watch_tells_of_the_first_change_only() {
    against_both(
        "a_one_shot_watch_tells_of_the_first_change_only",
        |scene| async move {
            let (client, other) = (scene.client().await, scene.client().await);
            client.create("/a", b"").await.unwrap();
            let ((_, _), data) = client.get("/a").watch().await.unwrap();
            let (_, children) = client.children("/a").watch().await.unwrap();
            let (stat, exists) = client.exists("/b").watch().await.unwrap();
            assert_eq!(stat, None);
            let shared = client.get("/a").watch().await.unwrap().1;
            other.set("/a", b"1").await.unwrap();
            other.set("/a", b"2").await.unwrap();
            other.create("/a/c", b"").await.unwrap();
            other.create("/b", b"").await.unwrap();
            for (watcher, kind, path) in [
                (data, EventType::NodeDataChanged, "/a"),
                (shared, EventType::NodeDataChanged, "/a"),
                (children, EventType::NodeChildrenChanged, "/a"),
                (exists, EventType::NodeCreated, "/b"),
            ] {
                let event = watcher.await.unwrap();
                assert_eq!((event.kind, event.path.as_str()), (kind, path));
            }
            let error = client.get("/none").watch().await.unwrap_err();
            assert!(error.is(quorate_client::Reason::NoNode), "{error}");
        },
    );
}

#[test]
fn a_stream_tells_of_every_change_until_it_is_dropped() {
    against_both(
        "a_stream_tells_of_every_change_until_it_is_dropped",
        |scene| async move {
            let (client, other) = (scene.client().await, scene.client().await);
            client.ensure_path("/app/config").await.unwrap();
            let client = client.with_chroot("/app").unwrap();
            let other = other.with_chroot("/app").unwrap();
            let mut all = client.watch("/").recursive().await.unwrap();
            let mut one = client.watch("/config").await.unwrap();
            other.set("/config", b"1").await.unwrap();
            other.set("/config", b"2").await.unwrap();
            other.create("/config/x", b"").await.unwrap();
            other.delete("/config/x").await.unwrap();
            let mut seen = Vec::new();
            for _ in 0..4 {
                match all.next().await.unwrap() {
                    Item::Event(event) => seen.push((event.kind, event.path)),
                    other => panic!("{other:?}"),
                }
            }
            let expected = [
                (EventType::NodeDataChanged, "/config".to_owned()),
                (EventType::NodeDataChanged, "/config".to_owned()),
                (EventType::NodeCreated, "/config/x".to_owned()),
                (EventType::NodeDeleted, "/config/x".to_owned()),
            ];
            assert_eq!(seen, expected);
            for kind in [
                EventType::NodeDataChanged,
                EventType::NodeDataChanged,
                EventType::NodeChildrenChanged,
                EventType::NodeChildrenChanged,
            ] {
                assert!(
                    matches!(one.next().await.unwrap(), Item::Event(event) if event.kind == kind)
                );
            }
        },
    );
}

#[test]
fn a_dropped_watch_is_taken_away_from_the_server() {
    against_both(
        "a_dropped_watch_is_taken_away_from_the_server",
        |scene| async move {
            let client = scene.client().await;
            client.create("/a", b"").await.unwrap();
            let watches = || {
                let text = scene.server.four_letter_word("wchs").unwrap();
                let total = text
                    .lines()
                    .find_map(|line| line.strip_prefix("Total watches:"));
                total.unwrap().trim().parse::<u32>().unwrap()
            };
            let first = client.get("/a").watch().await.unwrap().1;
            let second = client.get("/a").watch().await.unwrap().1;
            assert_eq!(watches(), 1);
            drop(first);
            client.sync("/").await.unwrap();
            assert_eq!(watches(), 1);
            drop(second);
            // What was sent before it is done before it.
            client.sync("/").await.unwrap();
            client.sync("/").await.unwrap();
            assert_eq!(watches(), 0);
        },
    );
}

#[test]
fn watches_live_on_over_a_lost_connection_and_streams_say_so() {
    against_both(
        "watches_live_on_over_a_lost_connection_and_streams_say_so",
        |scene| async move {
            let proxy = quorate_tests::proxy::Proxy::start(scene.server.address()).unwrap();
            let address = proxy.address().to_string();
            let client = quorate_client::Client::connect(&address).await.unwrap();
            let other = scene.client().await;
            client.create("/a", b"").await.unwrap();
            let (_, changed) = client.get("/a").watch().await.unwrap();
            let (_, later) = client.exists("/later").watch().await.unwrap();
            let mut stream = client.watch("/").recursive().await.unwrap();
            let mut states = client.states();
            proxy.hold();
            while states.current().is_connected() {
                states.next().await.unwrap();
            }
            other.set("/a", b"missed").await.unwrap();
            proxy.release();
            assert_eq!(changed.await.unwrap().kind, EventType::NodeDataChanged);
            assert!(matches!(stream.next().await.unwrap(), Item::Gap(_)));
            other.create("/later", b"").await.unwrap();
            assert_eq!(later.await.unwrap().kind, EventType::NodeCreated);
            loop {
                // What the one-shot watch was told of what was missed is seen by all.
                match stream.next().await.unwrap() {
                    Item::Event(event) if event.path == "/later" => break,
                    Item::Event(event) => assert_eq!(event.path, "/a"),
                    other => panic!("{other:?}"),
                }
            }
        },
    );
}
