//! Barriers: nobody passes too early, and nobody is kept, wherever the connection breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_client::{Client, OnExpiry};
use quorate_recipes::{Barrier, DoubleBarrier, Error};
use quorate_testing::{OpCode, TestServer};

use crate::every_request::{Playing, at_every_request, polled};

/// More than a test waits for anything.
const LIMIT: Duration = Duration::from_secs(20);

async fn names(client: &Client, path: &str) -> Vec<String> {
    client.sync(path).await.unwrap();
    client.children(path).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_holds_and_falls_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let client = playing.client().await;
        let barrier = Barrier::new(&client, &format!("{}/deep", playing.path()));
        assert!(!barrier.remove().await.unwrap(), "{context}");
        barrier.wait().await.unwrap();
        barrier.set().await.unwrap();
        barrier.set().await.unwrap();
        assert!(barrier.is_set().await.unwrap(), "{context}");
        let waiter = barrier.clone();
        let waiting = tokio::spawn(async move { waiter.wait().await });
        assert!(barrier.remove().await.unwrap(), "{context}");
        waiting.await.unwrap().unwrap();
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_enter_together_and_leave_together_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let path = playing.path();
        let mut members = Vec::new();
        for number in 0..3 {
            let client = playing.client().await;
            let barrier = DoubleBarrier::new(&client, &path, 3).identity(&number.to_string());
            members.push(tokio::spawn(async move {
                // Twice: nothing is left of the first round.
                for _ in 0..2 {
                    let inside = barrier.enter().await.unwrap();
                    inside.leave().await.unwrap();
                }
                client.close().await;
            }));
        }
        for member in members {
            member.await.unwrap();
        }
        let client = playing.client().await;
        assert_eq!(names(&client, &path).await, [""; 0], "{context}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_gives_up_leaves_no_node_at_any_await() {
    let server = TestServer::start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    let barrier = DoubleBarrier::new(&client, "/barrier", 2);
    for polls in 0..30 {
        let entered = polled(barrier.enter(), polls);
        let entered = tokio::time::timeout(Duration::from_millis(100), entered).await;
        assert!(matches!(entered, Ok(None) | Err(_)), "alone");
        if client.exists("/barrier").await.unwrap().is_some() {
            assert_eq!(
                names(&client, "/barrier").await,
                [""; 0],
                "after {polls} polls"
            );
        }
    }
    let late = barrier.enter_at_most(Duration::from_millis(20)).await;
    assert!(matches!(late, Err(Error::TimedOut { .. })));
    assert_eq!(names(&client, "/barrier").await, [""; 0]);
}

/// Curator's issue 1290: a wake-up is not what lets one in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_lets_a_member_pass() {
    let server = TestServer::start().await.unwrap();
    let connect = || Client::builder(&server.connect_string()).connect();
    let (ours, theirs) = (connect().await.unwrap(), connect().await.unwrap());
    theirs.create("/barrier", b"").await.unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let (barrier, full) = (
        DoubleBarrier::new(&ours, "/barrier", 2),
        Arc::clone(&is_full),
    );
    let children = theirs.children("/barrier").watch().await.unwrap().1;
    let waiting = tokio::spawn(async move {
        let inside = barrier.enter().await.unwrap();
        assert!(full.load(Ordering::SeqCst), "it passed alone");
        inside.leave().await.unwrap();
    });
    // It is there.
    children.changed().await.unwrap();
    for _ in 0..5 {
        // A stranger, the directory's data, a lost connection.
        theirs.create("/barrier/stranger", b"").await.unwrap();
        theirs.delete("/barrier/stranger").await.unwrap();
        theirs.set("/barrier", b"").await.unwrap();
        server.cut_connections();
        theirs.sync("/").await.unwrap();
        ours.sync("/").await.unwrap();
        assert!(!waiting.is_finished());
    }
    let other = DoubleBarrier::new(&theirs, "/barrier", 2);
    is_full.store(true, Ordering::SeqCst);
    other.enter().await.unwrap().leave().await.unwrap();
    waiting.await.unwrap();
    // Of members that have died.
    let roll = r#"{"members":["0123456789abcdef0123456789abcdef"]}"#;
    theirs.create("/barrier/ready", roll).await.unwrap();
    let late = other.enter_at_most(Duration::from_millis(100)).await;
    assert!(matches!(late, Err(Error::TimedOut { .. })));
    assert_eq!(names(&theirs, "/barrier").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_session_ends_enters_again_and_keeps_nobody() {
    let server = TestServer::start().await.unwrap();
    let builder = || Client::builder(&server.connect_string()).on_expiry(OnExpiry::NewSession);
    let (ours, theirs) = (builder().connect(), builder().connect());
    let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
    let barrier = DoubleBarrier::new(&ours, "/barrier", 2);
    let created = server.pass_next(OpCode::MultiRead);
    let entering = tokio::spawn(async move { barrier.enter().await });
    created.happened().await.unwrap();
    server.expire(ours.session().unwrap()).await.unwrap();
    let other = DoubleBarrier::new(&theirs, "/barrier", 2);
    let theirs_inside = tokio::time::timeout(LIMIT, other.enter()).await;
    let theirs_inside = theirs_inside.unwrap().unwrap();
    let inside = entering.await.unwrap().unwrap();
    // It dies over the work: the other leaves.
    server.expire(ours.session().unwrap()).await.unwrap();
    let left = tokio::time::timeout(LIMIT, theirs_inside.leave()).await;
    left.unwrap().unwrap();
    inside.leave().await.unwrap();
    assert_eq!(names(&theirs, "/barrier").await, [""; 0]);
}
