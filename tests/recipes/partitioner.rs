//! Partitions, divided among members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::{Client, Zxid};
use quorate_recipes::{Error, Partition, Partitioner, PartitionerState, Partitions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::persistent_node::{expire, renewing};
use crate::{Scene, against_both};

const PARTITIONS: usize = 7;

/// Who works on what, and the newest token of each.
#[derive(Default)]
struct Ledger {
    workers: BTreeMap<String, String>,
    tokens: BTreeMap<String, Zxid>,
}

type Book = Arc<watch::Sender<Ledger>>;

fn begin(book: &Book, worker: &str, partition: &Partition) {
    book.send_modify(|ledger| {
        let name = partition.name().to_owned();
        let before = ledger.workers.insert(name.clone(), worker.to_owned());
        assert_eq!(before, None, "{name} has two owners");
        let token = ledger.tokens.insert(name, partition.token());
        assert!(token.is_none_or(|token| token < partition.token()));
    });
}

fn end(book: &Book, partition: &str) {
    book.send_modify(|ledger| drop(ledger.workers.remove(partition)));
}

/// Waits until each of these has so many, and nobody else any.
async fn until(book: &Book, expected: &[(&str, usize)]) {
    let mut seen = book.subscribe();
    let is_as_expected = |ledger: &Ledger| {
        let count = |worker| ledger.workers.values().filter(|one| *one == worker).count();
        let all: usize = expected.iter().map(|(_, count)| count).sum();
        ledger.workers.len() == all && expected.iter().all(|(worker, n)| count(worker) == *n)
    };
    seen.wait_for(is_as_expected).await.unwrap();
}

fn partitioner(client: &Client, identity: &str) -> Partitioner {
    let names = (0..PARTITIONS).map(|number| format!("p{number}"));
    Partitioner::new(client, "/parts", names)
        .identity(identity)
        .hold_off(Duration::from_millis(100))
}

/// Works on what it is given until it is told to stop.
fn work(
    mut partitions: Partitions,
    name: &str,
    book: &Book,
    stop: tokio::sync::oneshot::Receiver<()>,
) -> JoinHandle<()> {
    let (name, book) = (name.to_owned(), Arc::clone(book));
    tokio::spawn(async move {
        let mut guards: BTreeMap<String, Partition> = BTreeMap::new();
        let mut stop = stop;
        loop {
            let assignment = tokio::select! {
                _ = &mut stop => break,
                assignment = partitions.next() => assignment.unwrap(),
            };
            for name in assignment.lost.iter().chain(&assignment.revoked) {
                let guard = guards.remove(name).unwrap();
                assert!(guard.is_revoked());
                end(&book, name);
            }
            for partition in assignment.acquired {
                begin(&book, &name, &partition);
                let before = guards.insert(partition.name().to_owned(), partition);
                assert!(before.is_none());
            }
        }
        for name in guards.keys() {
            end(&book, name);
        }
        drop(guards);
        partitions.leave().await;
    })
}

async fn members_share(scene: Scene) {
    let book = Book::default();
    let mut workers = BTreeMap::new();
    let mut begin = async |name: &'static str| {
        let client = scene.client().await;
        let partitions = partitioner(&client, name).join().await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        workers.insert(name, (stop, work(partitions, name, &book, stopped)));
    };
    begin("a").await;
    until(&book, &[("a", 7)]).await;
    begin("b").await;
    until(&book, &[("a", 4), ("b", 3)]).await;
    begin("c").await;
    until(&book, &[("a", 3), ("b", 2), ("c", 2)]).await;
    let kept: Vec<String> = book
        .borrow()
        .workers
        .iter()
        .filter(|(_, one)| *one == "c")
        .map(|(name, _)| name.clone())
        .collect();
    let (stop, worker) = workers.remove("a").unwrap();
    stop.send(()).unwrap();
    worker.await.unwrap();
    until(&book, &[("b", 4), ("c", 3)]).await;
    for name in kept {
        assert_eq!(
            book.borrow().workers[&name],
            "c",
            "what need not move stays"
        );
    }
    for (_, (stop, worker)) in workers {
        stop.send(()).unwrap();
        worker.await.unwrap();
    }
    let observer = scene.client().await;
    observer.sync("/").await.unwrap();
    for directory in ["/parts/owners", "/parts/members"] {
        assert_eq!(observer.children(directory).await.unwrap().0, [""; 0]);
    }
}

async fn nothing_moves_before_it_is_let_go(scene: Scene) {
    let (one, two) = (renewing(&scene).await, scene.client().await);
    let mut a = partitioner(&one, "a").join().await.unwrap();
    let mut guards = a.next().await.unwrap().acquired;
    while guards.len() < PARTITIONS {
        guards.extend(a.next().await.unwrap().acquired);
    }
    a.settled().await.unwrap();
    let taken = partitioner(&two, "a").join().await.map(drop);
    assert!(matches!(taken, Err(Error::Taken { .. })), "{taken:?}");
    let mut b = partitioner(&two, "b").join().await.unwrap();
    let told = a.next().await.unwrap();
    assert!(told.acquired.is_empty() && told.lost.is_empty());
    assert_eq!(told.revoked.len(), 3);
    assert_eq!(a.state(), PartitionerState::Release);
    // One is let go: that one can be had, and no other.
    let at = guards
        .iter()
        .position(|guard| guard.name() == told.revoked[1]);
    let first = guards.swap_remove(at.unwrap());
    let (name, token) = (first.name().to_owned(), first.token());
    first.release().await;
    let got = b.next().await.unwrap().acquired;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].name(), name);
    assert!(got[0].token() > token);
    assert_eq!(b.state(), PartitionerState::Allocating);
    assert_eq!(b.held(), [name]);
    guards.retain(|guard| !guard.is_revoked());
    assert_eq!(guards.len(), 4);
    let mut more = Vec::new();
    while more.len() < 2 {
        more.extend(b.next().await.unwrap().acquired);
    }
    a.settled().await.unwrap();
    b.settled().await.unwrap();

    // A session that expires for good loses everything.
    expire(&scene, &two).await;
    let mut lost = Vec::new();
    while let Some(told) = b.next().await {
        lost.extend(told.lost);
    }
    assert_eq!(lost.len(), 3);
    assert_eq!(b.state(), PartitionerState::Failed);
    assert!(more.iter().chain(&got).all(Partition::is_lost));
    while guards.len() < PARTITIONS {
        guards.extend(a.next().await.unwrap().acquired);
    }

    // A client that begins another session begins again.
    expire(&scene, &one).await;
    let (mut lost, mut again) = (Vec::new(), Vec::new());
    while again.len() < PARTITIONS {
        let told = a.next().await.unwrap();
        lost.extend(told.lost);
        again.extend(told.acquired);
    }
    assert_eq!(lost.len(), PARTITIONS);
    assert!(guards.iter().all(Partition::is_lost));
    // What is dropped now frees nothing that is held anew.
    drop(guards);
    a.settled().await.unwrap();
    assert_eq!(a.held().len(), PARTITIONS);
    assert!(!again.iter().any(Partition::is_revoked));

    let odd = Partitioner::new(&one, "/parts", ["a/b"])
        .join()
        .await
        .map(drop);
    assert!(matches!(odd, Err(Error::InvalidArgument(_))), "{odd:?}");
}

async fn what_is_foreign_is_left_alone(scene: Scene) {
    let client = scene.client().await;
    client.ensure_path("/parts/owners/stranger").await.unwrap();
    client.create("/parts/owners/p3", "?").await.unwrap();
    let mut a = partitioner(&client, "a")
        .assign_with(|view| {
            let all = view
                .partitions
                .iter()
                .map(|name| (name.clone(), view.members[0].clone()));
            all.chain([("unknown".to_owned(), "a".to_owned())])
                .collect()
        })
        .join()
        .await
        .unwrap();
    let mut guards = Vec::new();
    while guards.len() < PARTITIONS - 1 {
        guards.extend(a.next().await.unwrap().acquired);
    }
    assert!(guards.iter().all(|guard| guard.name() != "p3"));
    assert_eq!(a.state(), PartitionerState::Allocating);
    client.delete("/parts/owners/p3").await.unwrap();
    guards.extend(a.next().await.unwrap().acquired);
    assert_eq!(guards.last().unwrap().name(), "p3");

    // Somebody deletes what is ours: it is lost, and taken again.
    client.delete("/parts/owners/p3").await.unwrap();
    let mut told = a.next().await.unwrap();
    assert_eq!(told.lost, ["p3"]);
    while told.acquired.is_empty() {
        told = a.next().await.unwrap();
    }
    assert!(told.acquired[0].token() > guards.last().unwrap().token());
    // What was not taken from `next`, and guards that are gone, hold nothing up.
    drop((guards, told));
    a.leave().await;
    let (left, _) = client.children("/parts/owners").await.unwrap();
    assert_eq!(left, ["stranger"]);
}

#[test]
fn members_share_partitions_evenly_as_they_come_and_go() {
    against_both("members_share_partitions", members_share);
}

#[test]
fn no_partition_moves_before_its_owner_has_let_go_of_it() {
    against_both("no_partition_moves", nothing_moves_before_it_is_let_go);
}

#[test]
fn znodes_of_others_among_the_partitions_are_left_alone() {
    against_both("znodes_of_others_among", what_is_foreign_is_left_alone);
}
