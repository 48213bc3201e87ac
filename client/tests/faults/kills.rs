//! Servers are killed one after the other, whichever the client is connected to, and started again:
//! what it reports stays true, its session and its ephemeral znode stay, and a tree it follows ends up
//! as the servers have it.
//!
//! And sessions end: a tree goes on with the next one.
//!
//! Three kills by default; `QUORATE_FAULTS=50` for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_client::tree::Change;
use quorate_client::{Client, OnExpiry, Outcome};
use quorate_testing::{Ensemble, OpCode, TestServer};

const LIMIT: Duration = Duration::from_secs(20);

fn kills() -> u64 {
    let faults = std::env::var("QUORATE_FAULTS").ok();
    faults.and_then(|faults| faults.parse().ok()).unwrap_or(3)
}

/// Writes until told to stop; what became of each write, by its number.
async fn write(client: Client, stop: Arc<AtomicBool>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let create = client.create(&format!("/w/{}", outcomes.len()), b"x");
        outcomes.push(match create.await {
            Ok(_) => Outcome::Applied,
            Err(error) => error.outcome(),
        });
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_reports_is_true_while_servers_are_killed() {
    let ensemble = Ensemble::start(3).await.unwrap();
    ensemble.wait_for_leader().await.unwrap();
    let client = Client::connect(&ensemble.connect_string()).await.unwrap();
    let session = client.session();
    client.create("/w", b"").await.unwrap();
    client.create("/mine", b"").ephemeral().await.unwrap();
    let mut tree = client.tree("/w").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write(client.clone(), Arc::clone(&stop)));

    for kill in 0..kills() {
        // The one that the client uses, every other time.
        let connected = client
            .session()
            .and_then(|session| ensemble.server_of(session.get()));
        let server = match connected {
            Some(server) if kill % 2 == 0 => server,
            _ => ensemble.server(kill % 3 + 1),
        };
        server.kill().await.unwrap();
        // It goes on without that server.
        tokio::time::timeout(LIMIT, client.set("/w", b"").idempotent().into_future())
            .await
            .expect("it goes on")
            .unwrap();
        server.start().await.unwrap();
        server.wait_until_ready().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let outcomes = writing.await.unwrap();

    client.sync("/").await.unwrap();
    let (mut names, _) = client.children("/w").await.unwrap();
    for (number, outcome) in outcomes.iter().enumerate() {
        let is_there = names.contains(&number.to_string());
        match outcome {
            Outcome::Applied => assert!(is_there, "write {number} is lost"),
            Outcome::NotApplied => assert!(!is_there, "write {number} was made after all"),
            Outcome::Unknown => {}
        }
    }
    let applied = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Applied)
        .count();
    assert!(applied > 10, "{applied} of {} writes", outcomes.len());
    assert_eq!(client.session(), session, "the session has survived");
    assert_eq!(client.ephemerals("/").await.unwrap(), ["/mine"]);

    client.create("/w/z", b"last").await.unwrap();
    names.push("z".to_owned());
    while tree.get("/w/z").is_none() {
        let change = tokio::time::timeout(LIMIT, tree.next())
            .await
            .expect("it follows");
        change.expect("the session lives").unwrap();
    }
    // What came in one go with the last may still be told.
    let mut expected: Vec<String> = names.iter().map(|name| format!("/w/{name}")).collect();
    expected.push("/w".to_owned());
    expected.sort();
    assert_eq!(tree.nodes().keys().cloned().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_goes_on_with_the_next_session_though_a_read_of_it_was_under_way() {
    let server = TestServer::start().await.unwrap();
    let writer = Client::connect(&server.connect_string()).await.unwrap();
    writer.create("/t", b"").await.unwrap();
    let builder = Client::builder(&server.connect_string());
    let builder = builder.on_expiry(OnExpiry::NewSession);
    let client = builder.connect().await.unwrap();
    let mut tree = client.tree("/t").await.unwrap();

    let withheld = server.withhold_reply(OpCode::GetData);
    writer.set("/t", b"one").await.unwrap();
    let next = tokio::time::timeout(LIMIT, async {
        let expire = async {
            withheld.happened().await.unwrap();
            server.expire(client.session().unwrap()).await.unwrap();
        };
        tokio::join!(tree.next(), expire).0
    });
    let error = next.await.expect("it says so").unwrap().unwrap_err();
    assert!(error.needs_new_session(), "{error}");
    writer.set("/t", b"two").await.unwrap();
    while &tree.get("/t").unwrap().data[..] != b"two" {
        let change = tokio::time::timeout(LIMIT, tree.next()).await;
        let change = change.expect("it follows").expect("it goes on");
        assert!(!matches!(change, Ok(Change::Removed { .. })));
    }
}
