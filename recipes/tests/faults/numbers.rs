//! Values, counters, numbers and ids: what was asked is done once, wherever the connection breaks.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::{Client, OnExpiry, Outcome};
use quorate_recipes::{Counter, IdBlocks, Number, SharedValue};
use quorate_testing::{OpCode, TestServer};

use crate::every_request::{Playing, at_every_request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_a_number_is_made_once_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let client = playing.client().await;
        let path = format!("{}/deep/number", playing.path());
        let number = Number::new(&client, &path);
        let other = Number::new(&client, &path);
        // Both write the same numbers in turn: the data alone does not tell whose they are.
        assert_eq!(number.add(5).await.unwrap(), 5, "{context}");
        assert_eq!(other.increment().await.unwrap(), 6, "{context}");
        assert_eq!(number.decrement().await.unwrap(), 5, "{context}");
        assert_eq!(other.increment().await.unwrap(), 6, "{context}");
        assert!(number.compare_and_set(6, 40).await.unwrap(), "{context}");
        assert!(!other.compare_and_set(6, 50).await.unwrap(), "{context}");
        assert!(!number.initialize(1).await.unwrap(), "{context}");
        number.set(7).await.unwrap();
        assert_eq!(number.get().await.unwrap(), Some(7), "{context}");
        let stat = client.exists(&path).await.unwrap().unwrap();
        assert_eq!(stat.version, 5, "{context}: one version for each change");
        assert_eq!(stat.num_children, 2, "{context}: one mark for each handle");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_written_once_and_a_counter_counts_once_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let client = playing.client().await;
        let value = SharedValue::new(&client, &format!("{}/value", playing.path()));
        let first = value.set(&Bytes::from("a")).await.unwrap();
        assert_eq!(first.number(), 0, "{context}");
        let second = value.try_set(&"b".into(), first).await.unwrap();
        assert_eq!(second.unwrap().number(), 1, "{context}");
        assert!(value.try_set(&"c".into(), first).await.unwrap().is_none());
        let now = value.update(|now| [now.unwrap(), "d".into()].concat().into());
        assert_eq!(now.await.unwrap().version.number(), 2, "{context}");
        assert_eq!(value.get().await.unwrap().unwrap().value, "bd", "{context}");
        assert!(value.remove().await.unwrap(), "{context}");
        assert!(value.get().await.unwrap().is_none(), "{context}");
        let counter = Counter::new(&client, &format!("{}/counter", playing.path()));
        assert_eq!(counter.add(3).await.unwrap(), 3, "{context}");
        assert_eq!(counter.subtract(5).await.unwrap(), -2, "{context}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_value_is_told_once_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let client = playing.client().await;
        let path = playing.path();
        let value = SharedValue::<u32>::json(&client, &path);
        let mut values = value.watch();
        let mut next = async || values.next().await.unwrap().unwrap().map(|now| now.value);
        assert_eq!(next().await, None, "{context}");
        value.set(&1).await.unwrap();
        assert_eq!(next().await, Some(1), "{context}");
        value.set(&2).await.unwrap();
        assert_eq!(next().await, Some(2), "{context}");
        value.remove().await.unwrap();
        assert_eq!(next().await, None, "{context}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_come_once_wherever_the_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let client = playing.client().await;
        let handles = [(); 2].map(|()| IdBlocks::new(&client, &playing.path()).block(2));
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            for handle in &handles {
                assert!(seen.insert(handle.next().await.unwrap()), "{playing:?}");
            }
        }
        client.close().await;
    })
    .await;
}

/// The mark goes with the session; the version still tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_in_the_middle_of_a_change_leaves_no_doubt_that_can_be_cleared() {
    let server = TestServer::start().await.unwrap();
    let builder = Client::builder(&server.connect_string()).session_timeout(Duration::from_secs(1));
    let client = builder.on_expiry(OnExpiry::NewSession).connect();
    let client = client.await.unwrap();
    let number = Number::new(&client, "/number");
    number.set(10).await.unwrap();

    // Never seen by the server: made again in the next session.
    let session = client.session().unwrap();
    server.refuse_connections(true).await;
    let fault = server.cut_before_next(OpCode::Multi);
    let (number_too, server_too) = (number.clone(), &server);
    let (added, ()) = tokio::join!(number_too.add(1), async {
        fault.happened().await.unwrap();
        server_too.expire(session).await.unwrap();
        server_too.refuse_connections(false).await;
    });
    // The client gives the request up with the session, and the caller learns it; nothing was done.
    match added {
        Ok(sum) => assert_eq!(sum, 11),
        Err(error) => {
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            assert_eq!(number.get().await.unwrap(), Some(10));
            number.add(1).await.unwrap();
        }
    }
    assert_eq!(number.get().await.unwrap(), Some(11));

    // Applied, and the mark gone with the session: nobody can tell, and the error says so.
    let session = client.session().unwrap();
    server.refuse_connections(true).await;
    let fault = server.cut_after_commit(OpCode::Multi);
    let (added, ()) = tokio::join!(number_too.add(1), async {
        fault.happened().await.unwrap();
        server_too.expire(session).await.unwrap();
        server_too.refuse_connections(false).await;
    });
    assert_eq!(added.unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(number.get().await.unwrap(), Some(12));
    // So with a write that relies on nothing.
    let session = client.session().unwrap();
    server.refuse_connections(true).await;
    let fault = server.cut_after_commit(OpCode::Multi);
    let (set, ()) = tokio::join!(number_too.set(20), async {
        fault.happened().await.unwrap();
        server_too.expire(session).await.unwrap();
        server_too.refuse_connections(false).await;
    });
    assert_eq!(set.unwrap_err().outcome(), Outcome::Unknown);
    // And it goes on.
    assert_eq!(number.add(1).await.unwrap(), 21);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_dropped_leaves_nothing_that_stays() {
    let server = TestServer::start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    let number = Number::new(&client, "/number");
    for _ in 0..20 {
        // Dropped after its first poll, with its first request on the way.
        let add = number.add(1);
        tokio::pin!(add);
        std::future::poll_fn(|context| {
            let _ = add.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    let fault = server.withhold_reply(OpCode::Multi);
    let waited = tokio::select! {
        added = number.add(1) => Some(added),
        happened = fault.happened() => { happened.unwrap(); None }
    };
    assert!(waited.is_none(), "the answer was withheld");
    // The mark it has made is found to be ours.
    assert_eq!(number.add(1).await.unwrap(), 2);
    let stat = client.exists("/number").await.unwrap().unwrap();
    assert_eq!(stat.num_children, 1);
    client.close().await;
    let observer = Client::connect(&server.connect_string()).await.unwrap();
    assert_eq!(observer.children("/number").await.unwrap().0.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_value_is_told_in_the_next_session_and_ends_where_there_is_none() {
    let server = TestServer::start().await.unwrap();
    let connect = |policy| {
        let builder = Client::builder(&server.connect_string());
        builder.on_expiry(policy).connect()
    };
    let staying = connect(OnExpiry::Stay).await.unwrap();
    let renewed = connect(OnExpiry::NewSession).await.unwrap();
    let other = connect(OnExpiry::Stay).await.unwrap();
    let value = SharedValue::new(&other, "/value");
    value.set(&"1".into()).await.unwrap();
    let mut ends = SharedValue::new(&staying, "/value").watch();
    let mut goes_on = SharedValue::new(&renewed, "/value").watch();
    for values in [&mut ends, &mut goes_on] {
        assert_eq!(values.next().await.unwrap().unwrap().unwrap().value, "1");
    }
    server.expire(staying.session().unwrap()).await.unwrap();
    server.expire(renewed.session().unwrap()).await.unwrap();
    value.set(&"2".into()).await.unwrap();
    assert_eq!(goes_on.next().await.unwrap().unwrap().unwrap().value, "2");
    assert!(ends.next().await.unwrap().is_err());
    assert!(ends.next().await.is_none());
}
