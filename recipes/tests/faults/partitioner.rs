//! Partitions while connections break, sessions end and members die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_client::{Client, OnExpiry, Zxid};
use quorate_recipes::{Partition, Partitioner, PartitionerState, Partitions};
use quorate_testing::{Ensemble, Server};
use tokio::sync::watch;

use crate::one_client::{at_every_request, within};

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

fn partitioner(client: &Client, identity: &str, partitions: usize) -> Partitioner {
    let names = (0..partitions).map(|number| format!("p{number}"));
    Partitioner::new(client, "/parts", names)
        .identity(identity)
        .hold_off(Duration::from_millis(10))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_free_is_had_and_given_back_wherever_the_connection_breaks() {
    let play = async |client: Client| {
        let mut partitions = partitioner(&client, "a", 2).join().await.unwrap();
        let mut guards: Vec<Partition> = Vec::new();
        while guards.len() < 2 {
            let told = partitions.next().await.unwrap();
            guards.retain(|guard| !told.lost.contains(&guard.name().to_owned()));
            guards.extend(told.acquired);
        }
        let first = guards.pop().unwrap();
        let (name, token) = (first.name().to_owned(), first.token());
        first.release().await;
        // It is nobody else's turn.
        let again = loop {
            let told = partitions.next().await.unwrap();
            if let Some(again) = told.acquired.into_iter().find(|one| one.name() == name) {
                break again;
            }
        };
        assert!(again.token() > token);
        drop((again, guards));
        partitions.leave().await;
        client
    };
    at_every_request(play, async |observer, client, context| {
        observer.sync("/").await.unwrap();
        for directory in ["/parts/owners", "/parts/members"] {
            let (left, _) = observer.children(directory).await.unwrap();
            assert_eq!(left, [""; 0], "{context}");
        }
        client.close().await;
    })
    .await;
}

/// Who works on what, and the newest token of each.
#[derive(Default)]
struct Ledger {
    workers: BTreeMap<String, &'static str>,
    tokens: BTreeMap<String, Zxid>,
    /// Two at a time.
    broken: Vec<String>,
}

/// Works on what it is given, until the session is over or this is dropped.
async fn work(mut partitions: Partitions, me: &'static str, book: Arc<watch::Sender<Ledger>>) {
    let mut guards: BTreeMap<String, Partition> = BTreeMap::new();
    while let Some(told) = partitions.next().await {
        for name in told.lost.iter().chain(&told.revoked) {
            book.send_modify(|ledger| {
                if ledger.workers.get(name) == Some(&me) {
                    ledger.workers.remove(name);
                }
            });
            guards.remove(name);
        }
        for partition in told.acquired {
            let name = partition.name().to_owned();
            book.send_modify(|ledger| {
                if let Some(before) = ledger.workers.insert(name.clone(), me) {
                    ledger
                        .broken
                        .push(format!("{name} of {before} and of {me}"));
                }
                let token = ledger.tokens.insert(name.clone(), partition.token());
                assert!(token.is_none_or(|token| token < partition.token()));
            });
            guards.insert(name, partition);
        }
    }
}

async fn until(book: &watch::Sender<Ledger>, what: &str, reached: impl Fn(&Ledger) -> bool) {
    let mut seen = book.subscribe();
    let reached = tokio::time::timeout(Duration::from_secs(30), seen.wait_for(reached)).await;
    if reached.is_err() {
        panic!("{what}: {:?}", book.borrow().workers);
    }
}

fn count(ledger: &Ledger, worker: &str) -> usize {
    ledger
        .workers
        .values()
        .filter(|one| **one == worker)
        .count()
}

async fn client_of(server: &Server) -> Client {
    let builder = Client::builder(&server.connect_string()).on_expiry(OnExpiry::NewSession);
    let builder = builder.session_timeout(SESSION_TIMEOUT);
    builder.connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_stops_before_another_begins() {
    within(async {
        let ensemble = Ensemble::start(3).await.unwrap();
        let book = Arc::new(watch::Sender::new(Ledger::default()));
        let (cut, other) = (ensemble.server(1), ensemble.server(2));
        let (one, two) = (client_of(cut).await, client_of(other).await);
        let a = partitioner(&one, "a", 4).join().await.unwrap();
        let a = tokio::spawn(work(a, "a", Arc::clone(&book)));
        until(&book, "the first has all", |ledger| count(ledger, "a") == 4).await;
        let b = partitioner(&two, "b", 4).join().await.unwrap();
        let b = tokio::spawn(work(b, "b", Arc::clone(&book)));
        let shared = |ledger: &Ledger| count(ledger, "a") == 2 && count(ledger, "b") == 2;
        until(&book, "they share", shared).await;

        cut.refuse_connections(true).await;
        cut.cut_connections();
        until(&book, "the first has lost its own", |ledger| {
            count(ledger, "a") == 0
        })
        .await;
        until(&book, "the other has them", |ledger| {
            count(ledger, "b") == 4
        })
        .await;
        cut.refuse_connections(false).await;
        until(&book, "they share again", shared).await;
        assert_eq!(book.borrow().broken, [""; 0]);
        a.abort();
        b.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_owned_twice_while_connections_break_and_members_come_and_go() {
    within(async {
        let ensemble = Ensemble::start(1).await.unwrap();
        let server = ensemble.server(1);
        let book = Arc::new(watch::Sender::new(Ledger::default()));
        let (one, two) = (client_of(server).await, client_of(server).await);
        let a = partitioner(&one, "a", 6).join().await.unwrap();
        let a = tokio::spawn(work(a, "a", Arc::clone(&book)));
        for round in 0..6 {
            until(&book, "one has all", |ledger| count(ledger, "a") == 6).await;
            let joining = partitioner(&two, "b", 6).join();
            // In the middle of whatever they do.
            let fault = match round % 2 {
                0 => server.cut_after_commit(quorate_testing::Which::Write),
                _ => server.cut_before_next(quorate_testing::Which::Write),
            };
            let mut b = joining.await.unwrap();
            server.cut_connections();
            let mut guards: Vec<Partition> = Vec::new();
            let seen = Mutex::new(Vec::new());
            while guards.len() < 3 {
                let told = b.next().await.unwrap();
                guards.retain(|guard| !told.lost.contains(&guard.name().to_owned()));
                for partition in &told.acquired {
                    // Its former owner was told, and has let go.
                    seen.lock().push(partition.name().to_owned());
                    let ledger = book.borrow();
                    assert_eq!(ledger.workers.get(partition.name()), None, "round {round}");
                    assert!(ledger.tokens[partition.name()] < partition.token());
                }
                guards.extend(told.acquired);
            }
            assert!(seen.into_inner().len() >= 3);
            fault.happened().await.unwrap();
            drop(guards);
            b.leave().await;
        }
        assert_eq!(book.borrow().broken, [""; 0]);
        a.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_member_had_others_have_and_tokens_grow() {
    within(async {
        let ensemble = Ensemble::start(1).await.unwrap();
        let server = ensemble.server(1);
        let book = Arc::new(watch::Sender::new(Ledger::default()));
        let two = client_of(server).await;
        let mut dies = None;
        for name in ["a", "b"] {
            let builder = Client::builder(&server.connect_string());
            let client = match name {
                "a" => builder.connect().await.unwrap(),
                _ => two.clone(),
            };
            let partitions = partitioner(&client, name, 5).join().await.unwrap();
            if name == "a" {
                dies = Some((client, partitions));
            } else {
                tokio::spawn(work(partitions, "b", Arc::clone(&book)));
            }
        }
        let (client, mut partitions) = dies.unwrap();
        let mut guards = Vec::new();
        let mut seen = book.subscribe();
        while guards.is_empty() || count(&book.borrow(), "b") < 2 {
            tokio::select! {
                told = partitions.next() => guards.extend(told.unwrap().acquired),
                changed = seen.changed() => changed.unwrap(),
            }
            guards.retain(|guard: &Partition| !guard.is_revoked());
        }
        ensemble.expire(client.session().unwrap()).await.unwrap();
        until(&book, "the other has all", |ledger| count(ledger, "b") == 5).await;
        while partitions.next().await.is_some() {}
        assert_eq!(partitions.state(), PartitionerState::Failed);
        for guard in &guards {
            assert!(guard.is_lost());
            assert!(book.borrow().tokens[guard.name()] > guard.token());
        }
    })
    .await;
}

/// Whoever leaves takes along what it does not know to be its own, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_leaves_no_znode_of_a_create_whose_answer_was_lost_or_of_what_was_lost() {
    within(async {
        let ensemble = Ensemble::start(1).await.unwrap();
        let server = ensemble.server(1);
        let observer = Client::connect(&server.connect_string()).await.unwrap();
        let client = client_of(server).await;
        let session = client.session();
        let left = async || {
            observer.sync("/parts/owners").await.unwrap();
            observer.children("/parts/owners").await.unwrap().0
        };

        let slow = partitioner(&client, "a", 3).hold_off(Duration::from_millis(100));
        let partitions = slow.join().await.unwrap();
        // The next that is written are the owners' znodes.
        let fault = server.cut_after_commit(quorate_testing::Which::Write);
        server.refuse_connections(true).await;
        fault.happened().await.unwrap();
        let leaving = tokio::spawn(partitions.leave());
        server.refuse_connections(false).await;
        leaving.await.unwrap();
        assert_eq!(left().await, [""; 0], "of a create without an answer");

        let mut partitions = partitioner(&client, "a", 3).join().await.unwrap();
        let mut guards = Vec::new();
        while guards.len() < 3 {
            guards.extend(partitions.next().await.unwrap().acquired);
        }
        // Sessions do not end while there is no server.
        server.kill().await.unwrap();
        while partitions.next().await.unwrap().lost.is_empty() {}
        let leaving = tokio::spawn(partitions.leave());
        server.start().await.unwrap();
        leaving.await.unwrap();
        assert_eq!(client.session(), session, "the session lives");
        assert_eq!(left().await, [""; 0], "of what was told to be lost");
    })
    .await;
}
