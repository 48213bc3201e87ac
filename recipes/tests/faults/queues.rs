//! Queues: nothing is lost, and nothing comes twice, wherever the connection breaks.

use std::task::Poll;
use std::time::{Duration, SystemTime};

use quorate_client::{Client, OnExpiry};
use quorate_recipes::{DelayQueue, Error, PriorityQueue, Queue};
use quorate_testing::{OpCode, TestServer};

use crate::every_request::{Playing, at_every_request, polled};

/// More than a test waits for anything.
const LIMIT: Duration = Duration::from_secs(20);
/// More polls than any future takes that does not wait for another.
const POLLS: usize = 40;

/// Whatever is in the directory but the marks of handles.
async fn left(client: &Client, path: &str) -> Vec<String> {
    client.sync(path).await.unwrap();
    let mut left = client.list_recursive(path).await.unwrap();
    left.retain(|found| found != path && !found.contains("/own-"));
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_put_once_and_taken_once_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let client = playing.client().await;
        let path = format!("{}/deep/queue", playing.path());
        let queue = Queue::new(&client, &path).identity("one");
        assert_eq!(queue.try_take().await.unwrap(), None, "{context}");
        queue.put("a").await.unwrap();
        queue.put_all(["b", "c", "d"]).await.unwrap();
        assert_eq!(queue.count().await.unwrap(), 4, "{context}");
        assert_eq!(queue.take().await.unwrap(), "a", "{context}");
        let b = queue.take().locked().await.unwrap();
        let c = queue.try_take_locked().await.unwrap().unwrap();
        assert_eq!(
            (&b.data()[..], &c.data()[..]),
            (&b"b"[..], &b"c"[..]),
            "{context}"
        );
        let taken = queue.taken().await.unwrap();
        assert!(taken.iter().all(|taken| taken.by == "one"), "{context}");
        assert_eq!(taken.len(), 2, "{context}");
        assert_eq!(queue.try_take().await.unwrap().unwrap(), "d", "{context}");
        assert_eq!(queue.try_take().await.unwrap(), None, "{context}");
        b.put_back().await.unwrap();
        c.done().await.unwrap();
        assert_eq!(queue.take().await.unwrap(), "b", "{context}");
        assert_eq!(left(&client, &path).await, [""; 0], "{context}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_keep_their_rank_and_come_once_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let client = playing.client().await;
        let path = format!("{}/ranked", playing.path());
        let queue = PriorityQueue::new(&client, &path);
        queue.put(500, "c").await.unwrap();
        queue.put_all(1, ["a", "b"]).await.unwrap();
        let first = queue.take().locked().await.unwrap();
        assert_eq!(first.data(), "a", "{context}");
        first.put_back().await.unwrap();
        for expected in ["a", "b", "c"] {
            assert_eq!(queue.take().await.unwrap(), expected, "{context}");
        }
        assert_eq!(queue.try_take().await.unwrap(), None, "{context}");
        assert_eq!(left(&client, &path).await, [""; 0], "{context}");
        client.close().await;
    })
    .await;
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let client = playing.client().await;
        let path = format!("{}/timed", playing.path());
        let queue = DelayQueue::new(&client, &path);
        let (now, soon) = (SystemTime::now(), Duration::from_millis(20));
        queue.put_at(now + soon * 5, "second").await.unwrap();
        queue.put_at(now + soon, "first").await.unwrap();
        queue.put_in(LIMIT * 9, "never").await.unwrap();
        // One of them is waited for.
        assert_eq!(queue.take().await.unwrap(), "first", "{context}");
        let second = queue.take().locked().await.unwrap();
        assert_eq!(second.data(), "second", "{context}");
        second.done().await.unwrap();
        assert_eq!(queue.try_take().await.unwrap(), None, "{context}");
        assert_eq!(left(&client, &path).await.len(), 1, "{context}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taker_that_waits_is_served_once_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let client = playing.client().await;
        let queue = Queue::new(&client, &playing.path()).bound(1);
        let first = tokio::spawn(queue.take().into_future());
        let (_, second) = tokio::join!(queue.put("a"), queue.put("b"));
        second.unwrap();
        let mut seen = [first.await.unwrap().unwrap(), queue.take().await.unwrap()];
        seen.sort();
        assert_eq!(seen, ["a", "b"], "{context}");
        assert_eq!(left(&client, &playing.path()).await, [""; 0], "{context}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_is_not_lost_when_its_taker_is_dropped_at_any_await() {
    let server = TestServer::start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    let queue = Queue::new(&client, "/queue");
    let mut was_dropped = 0;
    for polls in 0..POLLS {
        queue.put(polls.to_string()).await.unwrap();
        let taken = match polled(queue.take().into_future(), polls).await {
            Some(taken) => taken.unwrap(),
            None => {
                was_dropped += 1;
                // It was never gone, or comes back.
                queue.take().wait_at_most(LIMIT).await.unwrap()
            }
        };
        assert_eq!(taken, polls.to_string());
        assert_eq!(
            left(&client, "/queue").await,
            [""; 0],
            "after {polls} polls"
        );
    }
    assert!(was_dropped > 2, "it takes one step");
    for polls in 0..POLLS {
        queue.put(polls.to_string()).await.unwrap();
        drop(polled(queue.take().locked().into_future(), polls).await);
        // Put back by whoever was dropped: before the next request of this session.
        let item = queue.try_take_locked().await.unwrap();
        item.unwrap().done().await.unwrap();
        assert_eq!(
            left(&client, "/queue").await,
            [""; 0],
            "after {polls} polls"
        );
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_item_of_one_whose_session_ends_is_the_next_ones() {
    let server = TestServer::start().await.unwrap();
    let connect = || Client::builder(&server.connect_string()).connect();
    let (other, observer) = (connect().await.unwrap(), connect().await.unwrap());
    let builder = Client::builder(&server.connect_string());
    let dying = builder.on_expiry(OnExpiry::NewSession).connect();
    let dying = dying.await.unwrap();
    let (first, second) = (Queue::new(&dying, "/queue"), Queue::new(&other, "/queue"));
    first.put("job").await.unwrap();
    let item = first.take().locked().await.unwrap();
    let waiting = tokio::spawn(second.take().locked().into_future());
    assert!(matches!(
        second.take().wait_at_most(Duration::from_millis(50)).await,
        Err(Error::TimedOut { .. })
    ));
    server.expire(dying.session().unwrap()).await.unwrap();
    let theirs = waiting.await.unwrap().unwrap();
    assert_eq!(theirs.path(), item.path());
    // The former owner, in its next session, has no power over it, by no way to end.
    assert!(matches!(item.done().await, Err(Error::ItemLost { .. })));
    assert_eq!(observer.children(theirs.path()).await.unwrap().0.len(), 2);
    theirs.done().await.unwrap();
    assert_eq!(left(&observer, "/queue").await, [""; 0]);
    // And it can go on.
    first.put("next").await.unwrap();
    assert_eq!(first.take().await.unwrap(), "next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taker_goes_on_in_its_next_session() {
    let server = TestServer::start().await.unwrap();
    let builder = Client::builder(&server.connect_string());
    let client = builder.on_expiry(OnExpiry::NewSession).connect();
    let client = client.await.unwrap();
    let other = Client::connect(&server.connect_string()).await.unwrap();
    let queue = Queue::new(&client, "/queue");
    let watched = server.pass_next(OpCode::AddWatch);
    let taking = tokio::spawn(queue.take().into_future());
    watched.happened().await.unwrap();
    server.expire(client.session().unwrap()).await.unwrap();
    Queue::new(&other, "/queue").put("late").await.unwrap();
    let taken = tokio::time::timeout(LIMIT, taking).await.unwrap();
    assert_eq!(taken.unwrap().unwrap(), "late");
}

#[tokio::test]
async fn a_future_that_is_polled_so_often_is_dropped() {
    let mut count = 0;
    let counting = std::future::poll_fn(|context| {
        count += 1;
        context.waker().wake_by_ref();
        if count > 3 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    assert_eq!(polled(counting, 3).await, None);
    assert_eq!(count, 3);
}
