//! Groups.

use std::time::Duration;

use quorate_client::Client;
use quorate_recipes::{Error, Group, GroupChange, GroupChanges};

use crate::persistent_node::{expire, renewing};
use crate::{Scene, against_both};

async fn next(changes: &mut GroupChanges) -> GroupChange {
    loop {
        match changes.next().await.unwrap() {
            Ok(change) => return change,
            Err(Error::Client(error)) if error.is_retryable() => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn ids(group: &Group) -> Vec<String> {
    let members = group.members().await.unwrap();
    members.into_iter().map(|member| member.id).collect()
}

/// A process that crashed: its session lives on for a while.
async fn crash(client: Client) -> quorate_client::SessionId {
    client.detach().await.unwrap().session()
}

async fn members_come_and_go(scene: Scene) {
    let (observer, client) = (scene.client().await, scene.client().await);
    let (seen, group) = (Group::new(&observer, "/g"), Group::new(&client, "/g"));
    assert_eq!(ids(&seen).await, [""; 0], "no directory");
    let b = group.join("b", "1").await.unwrap();
    let a = group.join("a", "2").await.unwrap();
    observer.sync("/").await.unwrap();
    assert_eq!(ids(&seen).await, ["b", "a"], "in the order of joining");

    let mut changes = seen.changes().await.unwrap();
    assert_eq!(changes.members().len(), 2);
    assert_eq!(&changes.members()["a"].data[..], b"2");

    a.set("3").await.unwrap();
    match next(&mut changes).await {
        GroupChange::Updated { new, old } => {
            assert_eq!((&new.data[..], &old.data[..]), (&b"3"[..], &b"2"[..]));
            assert_eq!(new.joined, old.joined);
        }
        other => panic!("{other:?}"),
    }
    // What is no member is left alone; a member of another library needs no more than a name.
    observer.create("/g/stranger", "").await.unwrap();
    let foreign = scene.client().await;
    foreign
        .create("/g/_party", "kazoo")
        .ephemeral()
        .await
        .unwrap();
    assert!(matches!(next(&mut changes).await,
        GroupChange::Joined(member) if member.id == "_party"));
    assert_eq!(ids(&seen).await, ["b", "a", "_party"]);
    assert!(!changes.members().contains_key("stranger"));

    // Whoever has the name has it.
    let taken = Group::new(&foreign, "/g").join("a", "x").await;
    assert!(matches!(taken, Err(Error::Taken { owner, .. }) if owner == client.session()));
    assert!(matches!(
        group.join("a", "x").await,
        Err(Error::Taken { .. })
    ));
    let waited = group.join("a", "x").wait_at_most(Duration::from_millis(50));
    assert!(matches!(waited.await, Err(Error::Taken { .. })));
    let foreign_group = Group::new(&foreign, "/g");
    let waiting = foreign_group
        .join("a", "4")
        .wait_at_most(Duration::from_secs(30));
    let waiting = tokio::spawn(waiting.into_future());
    a.leave().await.unwrap();
    let a = waiting.await.unwrap().unwrap();
    observer.sync("/").await.unwrap();
    // Seen as one change or as two.
    assert!(matches!(next(&mut changes).await, GroupChange::Left(old) if old.id == "a"));
    assert!(matches!(next(&mut changes).await,
        GroupChange::Joined(new) if new.id == "a" && &new.data[..] == b"4"));

    drop(b);
    assert!(matches!(next(&mut changes).await, GroupChange::Left(old) if old.id == "b"));
    for id in ["", "x/y", ".."] {
        assert!(matches!(
            group.join(id, "").await,
            Err(Error::InvalidArgument(_))
        ));
    }
    a.leave().await.unwrap();
}

async fn members_outlive_their_sessions(scene: Scene) {
    let observer = scene.client().await;
    let client = renewing(&scene).await;
    let group = Group::new(&client, "/g");
    let membership = group.join("a", "1").await.unwrap();
    let mut changes = Group::new(&observer, "/g").changes().await.unwrap();
    let old = changes.members()["a"].clone();
    expire(&scene, &client).await;
    let mut back = None;
    while back.is_none() {
        match next(&mut changes).await {
            GroupChange::Joined(member) => back = Some(member),
            GroupChange::Left(member) => assert_eq!(member, old),
            other => panic!("{other:?}"),
        }
    }
    let back = back.unwrap();
    assert_eq!((&back.id, &back.data), (&old.id, &old.data));
    assert!(back.session != old.session && back.joined > old.joined);

    // A process that comes back before its old session has ended.
    let former = crash(client).await;
    let group = Group::new(&observer, "/g");
    assert!(
        matches!(group.join("a", "2").await, Err(Error::Taken { owner, .. })
        if owner == Some(former))
    );
    let again = group.join("a", "2").former_session(former).await.unwrap();
    assert_eq!(group.members().await.unwrap()[0].data, "2");
    drop(membership);
    again.leave().await.unwrap();

    // Of another recipe.
    observer
        .create("/lock", br#"{"recipe":"lock"}"#)
        .await
        .unwrap();
    let group = Group::new(&observer, "/lock");
    assert!(matches!(
        group.join("a", "").await,
        Err(Error::OtherRecipe { .. })
    ));
    assert!(matches!(
        group.members().await,
        Err(Error::OtherRecipe { .. })
    ));
    assert!(matches!(
        group.changes().await,
        Err(Error::OtherRecipe { .. })
    ));
}

#[test]
fn members_of_a_group_are_seen_to_come_and_go() {
    against_both("members_of_a_group_come_and_go", members_come_and_go);
}

#[test]
fn members_of_a_group_outlive_their_sessions() {
    against_both("members_of_a_group_outlive", members_outlive_their_sessions);
}
