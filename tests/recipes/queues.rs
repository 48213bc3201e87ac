//! Queues.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quorate_recipes::{DelayQueue, Error, PriorityQueue, Queue};

use crate::{Scene, against_both};

const LIMIT: Duration = Duration::from_secs(30);

async fn plain(scene: &Scene) {
    let (client, other) = (scene.client().await, scene.client().await);
    let queue = Queue::new(&client, "/queues/plain").identity("ours");
    let theirs = Queue::new(&other, "/queues/plain").identity("theirs");
    assert_eq!(queue.try_take().await.unwrap(), None);
    queue.put_all(["1", "2"]).await.unwrap();
    theirs.put("3").await.unwrap();
    queue.put_all(Vec::<Bytes>::new()).await.unwrap();
    // As ZooKeeper's DistributedQueue and Curator's SimpleDistributedQueue put theirs.
    let put = client.create("/queues/plain/qn-", b"4").sequential();
    put.await.unwrap();
    client.create("/queues/plain/stranger", b"x").await.unwrap();
    assert_eq!(queue.count().await.unwrap(), 4);
    let first = theirs.take().locked().await.unwrap();
    assert_eq!(first.data(), "1");
    let taken = queue.taken().await.unwrap();
    assert_eq!(taken[0].by, "theirs");
    assert!(first.path().ends_with(&taken[0].name));
    // Not to be deleted by those who know nothing of locks.
    assert!(client.delete(first.path()).await.is_err());
    for expected in ["2", "3", "4"] {
        assert_eq!(queue.take().await.unwrap(), expected);
    }
    assert_eq!(queue.try_take().await.unwrap(), None);
    // A taker that waits gets what is put back.
    let waiting = tokio::spawn(queue.take().wait_at_most(LIMIT).into_future());
    let short = queue
        .take()
        .locked()
        .wait_at_most(Duration::from_millis(20));
    assert!(matches!(short.await, Err(Error::TimedOut { .. })));
    drop(first);
    assert_eq!(waiting.await.unwrap().unwrap(), "1");
    // The owner's session ends.
    queue.put("5").await.unwrap();
    let lost = theirs.take().locked().await.unwrap();
    let waiting = tokio::spawn(queue.take().locked().wait_at_most(LIMIT).into_future());
    drop(theirs);
    other.close().await;
    let item = waiting.await.unwrap().unwrap();
    assert_eq!((item.data(), item.path()), (lost.data(), lost.path()));
    item.done().await.unwrap();
    assert_eq!(
        client.children("/queues/plain").await.unwrap().0.len(),
        2,
        "stranger and mark"
    );

    let bounded = Queue::new(&client, "/queues/bounded").bound(2);
    bounded.put_all(["a", "b"]).await.unwrap();
    assert!(!bounded.try_put("c").await.unwrap());
    assert!(matches!(
        bounded.put_all(["c", "d", "e"]).await,
        Err(Error::InvalidArgument(_))
    ));
    let putter = bounded.clone();
    let putting = tokio::spawn(async move { putter.put("c").await });
    for expected in ["a", "b", "c"] {
        assert_eq!(bounded.take().wait_at_most(LIMIT).await.unwrap(), expected);
    }
    putting.await.unwrap().unwrap();

    client
        .create("/queues/other", br#"{"recipe":"barrier"}"#)
        .await
        .unwrap();
    let taken = Queue::new(&client, "/queues/other");
    assert!(matches!(
        taken.put("x").await,
        Err(Error::OtherRecipe { .. })
    ));
    assert!(matches!(
        taken.try_take().await,
        Err(Error::OtherRecipe { .. })
    ));
    // The directory goes, and comes back.
    for name in client.children("/queues/bounded").await.unwrap().0 {
        client
            .delete(&format!("/queues/bounded/{name}"))
            .await
            .unwrap();
    }
    client.delete("/queues/bounded").await.unwrap();
    assert_eq!(bounded.try_take().await.unwrap(), None);
    bounded.put("again").await.unwrap();
    assert_eq!(bounded.take().await.unwrap(), "again");
}

async fn crowd(scene: &Scene) {
    let mut tasks = Vec::new();
    for taker in 0..4 {
        let queue = Queue::new(&scene.client().await, "/queues/crowd");
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                let item = if taker % 2 == 0 {
                    queue.take().await.unwrap()
                } else {
                    let item = queue.take().locked().await.unwrap();
                    let data = item.data().clone();
                    item.done().await.unwrap();
                    data
                };
                if item.is_empty() {
                    return seen;
                }
                seen.push(item);
            }
        }));
    }
    let mut putters = Vec::new();
    for putter in 0..2 {
        let queue = Queue::new(&scene.client().await, "/queues/crowd");
        putters.push(tokio::spawn(async move {
            for number in 0..15 {
                queue.put(format!("{putter}-{number}")).await.unwrap();
            }
        }));
    }
    for putter in putters {
        putter.await.unwrap();
    }
    // One for each taker: no more will come.
    let queue = Queue::new(&scene.client().await, "/queues/crowd");
    queue.put_all([""; 4]).await.unwrap();
    let mut seen = Vec::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    assert_eq!(seen.len(), 30);
    assert_eq!(
        seen.into_iter().collect::<BTreeSet<_>>().len(),
        30,
        "each once"
    );
}

async fn by_priority(scene: &Scene) {
    let client = scene.client().await;
    let queue = PriorityQueue::new(&client, "/queues/priority");
    queue.put_all(100, ["c", "d"]).await.unwrap();
    queue.put(999, "e").await.unwrap();
    queue.put(0, "a").await.unwrap();
    // As kazoo's Queue puts its own.
    let put = client
        .create("/queues/priority/entry-050-", b"b")
        .sequential();
    put.await.unwrap();
    assert!(matches!(
        queue.put(1_000, "x").await,
        Err(Error::InvalidArgument(_))
    ));
    let a = queue.take().locked().await.unwrap();
    assert_eq!(queue.take().await.unwrap(), "b");
    a.put_back().await.unwrap();
    for expected in ["a", "c", "d", "e"] {
        assert_eq!(queue.take().await.unwrap(), expected);
    }
    let wrong = Queue::new(&client, "/queues/priority").try_take().await;
    assert!(matches!(wrong, Err(Error::OtherRecipe { .. })));
}

async fn by_time(scene: &Scene) {
    let client = scene.client().await;
    let now_ms = Arc::new(AtomicU64::new(1_000_000));
    let clock = Arc::clone(&now_ms);
    let clock = move || UNIX_EPOCH + Duration::from_millis(clock.load(Ordering::SeqCst));
    let queue = DelayQueue::new(&client, "/queues/delay").clock(clock);
    queue
        .put_in(Duration::from_secs(100), "late")
        .await
        .unwrap();
    queue.put_in(Duration::from_secs(10), "soon").await.unwrap();
    queue.put_at(UNIX_EPOCH, "first").await.unwrap();
    queue.put_at(UNIX_EPOCH, "second").await.unwrap();
    assert_eq!(queue.take().await.unwrap(), "first");
    assert_eq!(queue.try_take().await.unwrap().unwrap(), "second");
    assert_eq!(queue.try_take().await.unwrap(), None);
    now_ms.fetch_add(9_999, Ordering::SeqCst);
    assert_eq!(
        queue.try_take().await.unwrap(),
        None,
        "a millisecond too early"
    );
    now_ms.fetch_add(1, Ordering::SeqCst);
    assert_eq!(queue.try_take().await.unwrap().unwrap(), "soon");
    assert_eq!(queue.count().await.unwrap(), 1);
    // By the machine's clock: it waits for as long as it takes, and one that is earlier comes first.
    let real = DelayQueue::new(&client, "/queues/delay-real");
    let began = SystemTime::now();
    real.put_at(began + Duration::from_secs(600), "never")
        .await
        .unwrap();
    let taking = tokio::spawn(real.take().wait_at_most(LIMIT).into_future());
    let due = began + Duration::from_millis(300);
    real.put_at(due, "due").await.unwrap();
    assert_eq!(taking.await.unwrap().unwrap(), "due");
    // A millisecond is the unit.
    assert!(SystemTime::now() + Duration::from_millis(1) > due);
}

#[test]
fn what_is_put_into_a_queue_is_taken_once_and_in_order() {
    against_both("queues", |scene| async move {
        plain(&scene).await;
        crowd(&scene).await;
        by_priority(&scene).await;
        by_time(&scene).await;
    });
}
