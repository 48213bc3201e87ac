//! A znode that is kept.

use quorate_client::{Client, OnExpiry, Reason};
use quorate_recipes::{Absent, Error, KeptNode, NodeState, PersistentNode};

use crate::{Scene, against_both};

/// Ends a client's session, as if by its expiry: another connection takes it over and closes it.
pub(crate) async fn expire(scene: &Scene, client: &Client) {
    let ticket = client.ticket().unwrap();
    let other = scene.builder().ticket(ticket).connect().await.unwrap();
    other.close().await;
}

pub(crate) async fn renewing(scene: &Scene) -> Client {
    let builder = scene.builder().on_expiry(OnExpiry::NewSession);
    builder.connect().await.unwrap()
}

/// Waits until it was created by another write than this one.
async fn created_after(node: &KeptNode, before: quorate_client::Zxid) -> quorate_client::Zxid {
    let mut states = node.states();
    loop {
        if let NodeState::Present { created, .. } = states.current()
            && created != before
        {
            assert!(created > before);
            return created;
        }
        states.next().await.unwrap();
    }
}

#[test]
fn a_kept_znode_comes_back_whatever_takes_it_away() {
    against_both("a_kept_znode_comes_back", |scene| async move {
        let observer = scene.client().await;
        let client = renewing(&scene).await;
        let first_session = client.session();
        let node = PersistentNode::new(&client, "/a/b/node").data("1").keep();
        let mut created = node.present().await.unwrap();

        observer.delete("/a/b/node").await.unwrap();
        created = created_after(&node, created).await;

        node.set("2").await.unwrap();
        assert_eq!(&observer.get("/a/b/node").await.unwrap().0[..], b"2");

        // With its parents. Whatever comes first: a parent that is not empty again cannot be deleted.
        loop {
            let done = observer
                .transaction()
                .delete("/a/b/node")
                .delete("/a/b")
                .delete("/a");
            match done.await {
                Ok(_) => break,
                Err(error) => assert!(error.is(Reason::NotEmpty), "{error}"),
            }
        }
        created = created_after(&node, created).await;

        expire(&scene, &client).await;
        created_after(&node, created).await;
        assert_ne!(client.session(), first_session);
        observer.sync("/").await.unwrap();
        let (data, stat) = observer.get("/a/b/node").await.unwrap();
        assert_eq!(&data[..], b"2");
        assert_eq!(stat.ephemeral_owner, client.session().unwrap().get());

        // What others write stays until the next set.
        let mut watch = observer.watch("/a/b/node").await.unwrap();
        observer.set("/a/b/node", "theirs").await.unwrap();
        node.set("3").await.unwrap();
        assert_eq!(&observer.get("/a/b/node").await.unwrap().0[..], b"3");
        node.close().await.unwrap();
        assert!(observer.exists("/a/b/node").await.unwrap().is_none());
        while watch.try_next().is_some() {}

        // Dropped, it goes in the background.
        let node = PersistentNode::new(&client, "/a/b/node").keep();
        node.present().await.unwrap();
        let (_, gone) = observer.exists("/a/b/node").watch().await.unwrap();
        drop(node);
        gone.changed().await.unwrap();
        assert!(observer.exists("/a/b/node").await.unwrap().is_none());
    });
}

#[test]
fn a_kept_znode_never_touches_that_of_somebody_else() {
    against_both("a_kept_znode_never_touches", |scene| async move {
        let other = scene.client().await;
        let client = scene.client().await;
        other.create("/node", "theirs").ephemeral().await.unwrap();
        let node = PersistentNode::new(&client, "/node").data("ours").keep();
        let owner = other.session();
        match node.present().await {
            Err(Error::Taken { owner: told, .. }) => assert_eq!(told, owner),
            unexpected => panic!("{unexpected:?}"),
        }
        assert!(matches!(
            node.set("ours, too").await,
            Err(Error::Taken { .. })
        ));
        assert_eq!(&other.get("/node").await.unwrap().0[..], b"theirs");

        // Its turn comes, with what was wanted last.
        let mut states = node.states();
        other.delete("/node").await.unwrap();
        while !states.next().await.unwrap().is_present() {}
        other.sync("/").await.unwrap();
        assert_eq!(&other.get("/node").await.unwrap().0[..], b"ours, too");

        // A second handle of the same session is somebody else, too.
        let second = PersistentNode::new(&client, "/node").keep();
        assert!(matches!(second.present().await, Err(Error::Taken { .. })));
        second.close().await.unwrap();
        assert!(client.exists("/node").await.unwrap().is_some());
        node.close().await.unwrap();

        // Nor is one that will stay.
        other.create("/node", "persistent").await.unwrap();
        let node = PersistentNode::new(&client, "/node").keep();
        match node.present().await {
            Err(Error::Taken { owner: None, .. }) => {}
            unexpected => panic!("{unexpected:?}"),
        }
        drop(node);
        assert_eq!(&other.get("/node").await.unwrap().0[..], b"persistent");
    });
}

#[test]
fn a_former_session_gives_way_if_we_can_name_it() {
    against_both("a_former_session_gives_way", |scene| async move {
        let crashed = scene.client().await;
        crashed.create("/node", "old").ephemeral().await.unwrap();
        let former = crashed.detach().await.unwrap().session();
        let client = scene.client().await;
        let node = PersistentNode::new(&client, "/node").data("new");
        let node = node.former_session(former).keep();
        node.present().await.unwrap();
        assert_eq!(&client.get("/node").await.unwrap().0[..], b"new");
        node.close().await.unwrap();
    });
}

#[test]
fn a_session_that_is_over_for_good_and_what_may_not_be_are_told() {
    against_both("a_session_that_is_over", |scene| async move {
        let client = scene.client().await;
        let node = PersistentNode::new(&client, "/node").keep();
        node.present().await.unwrap();
        let mut states = node.states();
        expire(&scene, &client).await;
        let mut last = None;
        while let Some(state) = states.next().await {
            last = Some(state);
        }
        assert!(
            matches!(&last, Some(NodeState::Absent(Absent::SessionOver(error)))
                if error.needs_new_session()),
            "{last:?}"
        );
        assert!(node.set("x").await.is_err());
        node.close().await.unwrap();

        let client = scene.client().await;
        client.create("/ephemeral", "").ephemeral().await.unwrap();
        let node = PersistentNode::new(&client, "/ephemeral/child").keep();
        match node.present().await {
            Err(error) => assert!(error.is(Reason::NoChildrenForEphemerals), "{error}"),
            Ok(_) => panic!("an ephemeral znode has a child"),
        }
        let node = PersistentNode::new(&client, "no path").keep();
        assert!(node.present().await.is_err());
        // Too large at first, and small enough then.
        let node = PersistentNode::new(&client, "/large")
            .data(vec![0; 2 << 20])
            .keep();
        assert!(node.present().await.is_err());
        node.set("small").await.unwrap();
        node.close().await.unwrap();
    });
}
