//! Barriers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_recipes::{Barrier, DoubleBarrier, Error};

use crate::{Scene, against_both};

async fn single(scene: &Scene) {
    let (ours, theirs) = (scene.client().await, scene.client().await);
    let barrier = Barrier::new(&ours, "/barriers/a/single");
    barrier.wait().await.unwrap();
    barrier.set().await.unwrap();
    let other = Barrier::new(&theirs, "/barriers/a/single");
    let short = other.wait_at_most(Duration::from_millis(20)).await;
    assert!(matches!(short, Err(Error::TimedOut { .. })));
    let waiting = tokio::spawn(async move { other.wait().await });
    // A change is a wake-up, and no more.
    theirs.set("/barriers/a/single", b"").await.unwrap();
    ours.sync("/").await.unwrap();
    assert!(!waiting.is_finished());
    assert!(barrier.remove().await.unwrap());
    assert!(!barrier.remove().await.unwrap());
    waiting.await.unwrap().unwrap();
    ours.create("/barriers/queue", br#"{"recipe":"queue"}"#)
        .await
        .unwrap();
    let taken = Barrier::new(&ours, "/barriers/queue");
    assert!(matches!(taken.set().await, Err(Error::OtherRecipe { .. })));
    assert!(matches!(
        taken.remove().await,
        Err(Error::OtherRecipe { .. })
    ));
}

async fn double(scene: &Scene) {
    const MEMBERS: usize = 5;
    let inside = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        let client = scene.client().await;
        let barrier = DoubleBarrier::new(&client, "/barriers/double", MEMBERS);
        let barrier = barrier.identity(&number.to_string());
        let (inside, done) = (Arc::clone(&inside), Arc::clone(&done));
        members.push(tokio::spawn(async move {
            for round in 1..=3 {
                inside.fetch_add(1, Ordering::SeqCst);
                let entered = barrier.enter().await.unwrap();
                let all = inside.load(Ordering::SeqCst);
                assert!(all >= round * MEMBERS, "{all} in round {round}");
                done.fetch_add(1, Ordering::SeqCst);
                entered.leave().await.unwrap();
                let all = done.load(Ordering::SeqCst);
                assert!(all >= round * MEMBERS, "{all} out of round {round}");
            }
            drop(client);
        }));
    }
    for member in members {
        member.await.unwrap();
    }
    let client = scene.client().await;
    client.sync("/").await.unwrap();
    assert_eq!(
        client.children("/barriers/double").await.unwrap().0,
        [""; 0]
    );

    let pair = DoubleBarrier::new(&client, "/barriers/double", 2).identity("alone");
    let late = pair.enter_at_most(Duration::from_millis(20)).await;
    assert!(matches!(late, Err(Error::TimedOut { .. })));
    assert_eq!(pair.present().await.unwrap(), [""; 0]);
    // As Curator's and kazoo's members do it: a UUID, and the last makes `ready`.
    let other = scene.client().await;
    let theirs = "/barriers/double/01234567-89ab-cdef-0123-456789abcdef";
    other.create(theirs, b"10.0.0.7").ephemeral().await.unwrap();
    let entered = pair.enter().await.unwrap();
    let mut present = pair.present().await.unwrap();
    present.sort();
    assert_eq!(present, ["10.0.0.7", "alone"]);
    assert!(
        other
            .exists("/barriers/double/ready")
            .await
            .unwrap()
            .is_some()
    );
    let waits = entered.leave_at_most(Duration::from_millis(20)).await;
    assert!(matches!(waits, Err(Error::TimedOut { .. })));
    other.close().await;
    let one = DoubleBarrier::new(&client, "/barriers/one", 1);
    assert_eq!(one.run(async || 7).await.unwrap(), 7);
    let none = DoubleBarrier::new(&client, "/barriers/none", 0)
        .enter()
        .await;
    assert!(matches!(none, Err(Error::InvalidArgument(_))));
}

#[test]
fn a_barrier_keeps_all_until_all_are_there() {
    against_both("barriers", |scene| async move {
        single(&scene).await;
        double(&scene).await;
    });
}
