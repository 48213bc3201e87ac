//! Subtrees kept in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::tree::{Change, Tree};
use quorate_client::{Client, Error};

use crate::against_both;

/// The tree as the changes leave it, worked out by somebody who only sees the changes.
fn follow(seen: &mut BTreeMap<String, Vec<u8>>, change: Change) {
    match change {
        Change::Put { path, new, old } => {
            let before = seen.insert(path.clone(), new.data.to_vec());
            assert_eq!(before, old.map(|old| old.data.to_vec()), "{path}");
        }
        Change::Removed { path, .. } => assert!(seen.remove(&path).is_some(), "{path}"),
        Change::Resynced(changes) => {
            for change in changes {
                follow(seen, change);
            }
        }
        other => panic!("{other:?}"),
    }
}

async fn until(tree: &mut Tree, seen: &mut BTreeMap<String, Vec<u8>>, last: (&str, &[u8])) {
    while seen.get(last.0).map(Vec::as_slice) != Some(last.1) {
        let change = tree.next().await.expect("the session lives").unwrap();
        follow(seen, change);
    }
    let kept = tree.nodes().iter();
    let kept: BTreeMap<_, _> = kept
        .map(|(path, node)| (path.clone(), node.data.to_vec()))
        .collect();
    assert_eq!(*seen, kept);
}

async fn churn(client: &Client, rounds: u32) {
    for round in 0..rounds {
        let name = format!("/t/{}", round % 7);
        if round % 3 == 2 {
            drop(client.delete_recursive(&name).await);
        } else {
            drop(client.create(&name, b"").await);
            drop(client.create(&format!("{name}/below"), b"").await);
            client.set(&name, round.to_be_bytes()).await.unwrap();
        }
    }
}

#[test]
fn a_tree_ends_up_as_the_servers_have_it() {
    against_both(
        "a_tree_ends_up_as_the_servers_have_it",
        |scene| async move {
            let (client, writer) = (scene.client().await, scene.client().await);
            let mut tree = client.tree("/t").await.unwrap();
            assert!(tree.nodes().is_empty());
            let mut seen = BTreeMap::new();
            writer.create("/t", b"root").await.unwrap();
            churn(&writer, 60).await;
            // Of changes that are seen together, those further down the alphabet come last.
            writer.create("/t/z", b"end").await.unwrap();
            until(&mut tree, &mut seen, ("/t/z", b"end")).await;
            let mut all = writer.list_recursive("/t").await.unwrap();
            all.sort();
            let kept: Vec<_> = tree.nodes().keys().cloned().collect();
            assert_eq!(kept, all);
        },
    );
}

#[test]
fn a_tree_catches_up_after_a_lost_connection() {
    against_both(
        "a_tree_catches_up_after_a_lost_connection",
        |scene| async move {
            let proxy = quorate_tests::proxy::Proxy::start(scene.server.address()).unwrap();
            let address = proxy.address().to_string();
            let (client, writer) = (
                Client::connect(&address).await.unwrap(),
                scene.client().await,
            );
            writer.create("/t", b"root").await.unwrap();
            churn(&writer, 20).await;
            let mut tree = client.tree("/t").await.unwrap();
            let nodes = tree.nodes().iter();
            let mut seen: BTreeMap<_, _> = nodes
                .map(|(path, node)| (path.clone(), node.data.to_vec()))
                .collect();
            let mut states = client.states();
            proxy.hold();
            while states.current().is_connected() {
                states.next().await.unwrap();
            }
            churn(&writer, 20).await;
            writer.set("/t", b"meanwhile").await.unwrap();
            proxy.release();
            until(&mut tree, &mut seen, ("/t", b"meanwhile")).await;
            writer.set("/t", b"afterwards").await.unwrap();
            until(&mut tree, &mut seen, ("/t", b"afterwards")).await;
        },
    );
}

#[test]
fn a_tree_is_bounded() {
    against_both("a_tree_is_bounded", |scene| async move {
        let client = scene.client().await;
        for path in ["/t", "/t/1", "/t/2"] {
            client.create(path, b"").await.unwrap();
        }
        let error = client.tree("/t").limit(2).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        let mut tree = client.tree("/t").limit(3).await.unwrap();
        client.create("/t/3", b"").await.unwrap();
        let error = loop {
            match tokio::time::timeout(Duration::from_secs(20), tree.next())
                .await
                .unwrap()
            {
                Some(Err(error)) => break error,
                Some(Ok(_)) => {}
                None => panic!("the session lives"),
            }
        };
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    });
}
