//! Values, counters, numbers and ids.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_recipes::{Counter, CounterFormat, Error, IdBlocks, Number, SharedValue};

use crate::{Scene, against_both};

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Limits {
    rate: u32,
    name: String,
}

async fn values(scene: &Scene) {
    let (ours, theirs) = (scene.client().await, scene.client().await);
    let value = SharedValue::new(&ours, "/values/a/raw");
    assert!(value.get().await.unwrap().is_none());
    assert!(!value.remove().await.unwrap());
    let mut seen = SharedValue::new(&theirs, "/values/a/raw").watch();
    let mut next = async || {
        seen.next()
            .await
            .unwrap()
            .map(|now| now.map(|now| now.value))
    };
    assert_eq!(next().await.unwrap(), None);
    let version = value.initialize(&"one".into()).await.unwrap().unwrap();
    assert!(value.initialize(&"two".into()).await.unwrap().is_none());
    assert_eq!(next().await.unwrap(), Some(Bytes::from("one")));
    let version = value
        .try_set(&"two".into(), version)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next().await.unwrap(), Some(Bytes::from("two")));
    // By any other client, with the same data: a new version, and told.
    theirs.set("/values/a/raw", b"two").await.unwrap();
    assert!(
        value
            .try_set(&"three".into(), version)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(next().await.unwrap(), Some(Bytes::from("two")));
    let kept = value.try_update(|now| (now.unwrap() == "x").then(|| "y".into()));
    assert!(kept.await.unwrap().is_none());
    assert!(value.remove().await.unwrap());
    assert_eq!(next().await.unwrap(), None);
    // It comes back, with a mark of its own.
    value.set(&"four".into()).await.unwrap();
    value.set(&"five".into()).await.unwrap();
    ours.sync("/").await.unwrap();
    assert_eq!(value.get().await.unwrap().unwrap().value, "five");

    let limits = SharedValue::<Limits>::json(&ours, "/values/limits");
    let first = Limits {
        rate: 5,
        name: "ü".to_owned(),
    };
    limits.set(&first).await.unwrap();
    assert_eq!(limits.get().await.unwrap().unwrap().value, first);
    let doubled = limits.update(|now| Limits {
        rate: now.map_or(1, |now| now.rate * 2),
        name: String::new(),
    });
    assert_eq!(doubled.await.unwrap().value.rate, 10);
    let mut seen = limits.watch();
    ours.set("/values/limits", b"{").await.unwrap();
    assert!(matches!(
        seen.next().await,
        Some(Err(Error::Foreign { .. }))
    ));
    assert!(matches!(limits.get().await, Err(Error::Foreign { .. })));
    // The stream goes on.
    limits.set(&first).await.unwrap();
    assert_eq!(seen.next().await.unwrap().unwrap().unwrap().value, first);
    // What a recipe keeps its record in is no value.
    ours.create("/values/lock", br#"{"recipe":"lock"}"#)
        .await
        .unwrap();
    let taken = SharedValue::new(&ours, "/values/lock");
    assert!(matches!(taken.get().await, Err(Error::Foreign { .. })));
    let bad = SharedValue::new(&ours, "relative").get().await.unwrap_err();
    assert!(matches!(bad, Error::Client(_)), "{bad}");
}

async fn counters(scene: &Scene) {
    let client = scene.client().await;
    let counter = Counter::new(&client, "/counters/text");
    assert_eq!(counter.get().await.unwrap(), 0);
    assert_eq!(counter.add(12).await.unwrap(), 12);
    assert_eq!(counter.subtract(20).await.unwrap(), -8);
    assert_eq!(&client.get("/counters/text").await.unwrap().0[..], b"-8");
    // As kazoo leaves a counter before its first change.
    client.create("/counters/empty", b"").await.unwrap();
    let empty = Counter::new(&client, "/counters/empty");
    assert_eq!(empty.get().await.unwrap(), 0);
    assert_eq!(empty.add(i64::MAX).await.unwrap(), i64::MAX);
    let over = empty.add(1).await.unwrap_err();
    assert!(
        matches!(
            over,
            Error::Overflow {
                value: i64::MAX,
                change: 1,
                ..
            }
        ),
        "{over}"
    );
    empty.set(-2).await.unwrap();
    assert_eq!(empty.subtract(i64::MIN).await.unwrap(), i64::MAX - 1);

    let curators = Counter::new(&client, "/counters/curator").format(CounterFormat::SharedCount);
    curators.set(258).await.unwrap();
    assert_eq!(
        client.get("/counters/curator").await.unwrap().0[..],
        [0, 0, 1, 2]
    );
    let over = curators.add(i64::from(i32::MAX)).await.unwrap_err();
    assert!(matches!(over, Error::Overflow { value: 258, .. }), "{over}");
    assert!(matches!(
        curators.set(1 << 40).await,
        Err(Error::Unwritable { .. })
    ));
    assert_eq!(curators.get().await.unwrap(), 258);
    let mixed = Counter::new(&client, "/counters/curator").get().await;
    assert!(matches!(mixed, Err(Error::Foreign { .. })));
}

async fn numbers(scene: &Scene) {
    let client = scene.client().await;
    let number = Number::new(&client, "/numbers/one");
    assert_eq!(number.get().await.unwrap(), None);
    assert!(number.initialize(-2).await.unwrap());
    assert!(!number.initialize(3).await.unwrap());
    let data = client.get("/numbers/one").await.unwrap().0;
    assert_eq!(data[..], [255, 255, 255, 255, 255, 255, 255, 254]);
    assert_eq!(number.increment().await.unwrap(), -1);
    assert_eq!(number.decrement().await.unwrap(), -2);
    assert!(!number.compare_and_set(0, 1).await.unwrap());
    assert!(number.compare_and_set(-2, i64::MIN).await.unwrap());
    assert!(matches!(
        number.decrement().await,
        Err(Error::Overflow { .. })
    ));

    // Ten at once, each with a session of its own, and two handles of one session.
    let sum = Number::new(&client, "/numbers/sum");
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let client = scene.client().await;
        for _ in 0..2 {
            let number = Number::new(&client, "/numbers/sum").attempts(1_000);
            tasks.push(tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..20 {
                    seen.push(number.increment().await.unwrap());
                }
                seen
            }));
        }
    }
    let mut seen = BTreeSet::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    assert_eq!(
        seen,
        (1..=200).collect(),
        "each sum was answered to one caller"
    );
    client.sync("/").await.unwrap();
    assert_eq!(sum.get().await.unwrap(), Some(200));
    let bounded = Number::new(&client, "/numbers/one").attempts(0);
    assert!(bounded.add(5).await.is_ok(), "one attempt at least");
}

async fn ids(scene: &Scene) {
    let client = scene.client().await;
    let other = scene.client().await;
    let ours = IdBlocks::new(&client, "/ids").block(10).first(1);
    let theirs = IdBlocks::new(&other, "/ids").block(3);
    assert_eq!(ours.next().await.unwrap(), 1);
    assert_eq!(theirs.next().await.unwrap(), 11);
    assert_eq!(ours.clone().next().await.unwrap(), 2);
    assert_eq!(theirs.take_block(100).await.unwrap(), 14..114);
    for expected in [12, 13, 114] {
        assert_eq!(theirs.next().await.unwrap(), expected);
    }
    assert!(matches!(
        ours.take_block(0).await,
        Err(Error::InvalidArgument(_))
    ));
    assert!(matches!(
        ours.take_block(u64::MAX).await,
        Err(Error::Overflow { .. })
    ));
    client
        .create("/other", br#"{"recipe":"queue"}"#)
        .await
        .unwrap();
    let taken = IdBlocks::new(&client, "/other").next().await;
    assert!(matches!(taken, Err(Error::OtherRecipe { .. })));
    client.set("/other", b"5").await.unwrap();
    let foreign = IdBlocks::new(&client, "/other").next().await;
    assert!(matches!(foreign, Err(Error::Foreign { .. })));
}

#[test]
fn values_counters_numbers_and_ids_are_what_all_clients_see() {
    against_both("numbers", |scene| async move {
        values(&scene).await;
        counters(&scene).await;
        numbers(&scene).await;
        ids(&scene).await;
    });
}
