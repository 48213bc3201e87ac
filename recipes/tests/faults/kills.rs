//! Shared state while servers of an ensemble are killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_client::Client;
use quorate_recipes::{Number, Queue};
use quorate_testing::Ensemble;
use tokio::sync::watch;

const WORKERS: usize = 4;

/// How much work is done before the next kill.
const ROUND: usize = 40;

/// Kills the leader, twice, and brings it back, while work goes on; then says that it is enough.
async fn kill_leaders(ensemble: &Ensemble, is_over: &AtomicBool, work: &watch::Sender<usize>) {
    let mut done = work.subscribe();
    for round in 1..=2 {
        done.wait_for(|done| *done >= round * ROUND).await.unwrap();
        let leader = ensemble.wait_for_leader().await.unwrap();
        ensemble.server(leader).kill().await.unwrap();
        ensemble.wait_for_leader().await.unwrap();
        ensemble.server(leader).start().await.unwrap();
    }
    done.wait_for(|done| *done >= 3 * ROUND).await.unwrap();
    is_over.store(true, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_queues_count_right_while_leaders_are_killed() {
    let ensemble = Ensemble::start(3).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let connect = || Client::builder(&ensemble.connect_string()).connect();
    let work = watch::Sender::new(0);
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let client = connect().await.unwrap();
        let (is_over, work) = (Arc::clone(&is_over), work.clone());
        workers.push(tokio::spawn(async move {
            let (number, queue) = (
                Number::new(&client, "/number"),
                Queue::new(&client, "/queue"),
            );
            let (mut sums, mut put, mut taken) = (Vec::new(), Vec::new(), Vec::new());
            while !is_over.load(Ordering::SeqCst) {
                sums.push(number.increment().await.unwrap());
                work.send_modify(|done| *done += 1);
                let item = format!("{worker}-{}", put.len());
                queue.put(item.clone()).await.unwrap();
                put.push(item);
                if put.len() % 2 == 0 {
                    taken.push(queue.take().await.unwrap());
                } else if let Some(item) = queue.try_take_locked().await.unwrap() {
                    taken.push(item.data().clone());
                    item.done().await.unwrap();
                }
            }
            (sums, put, taken)
        }));
    }
    kill_leaders(&ensemble, &is_over, &work).await;
    let (mut sums, mut items) = (Vec::new(), BTreeMap::new());
    for worker in workers {
        let (theirs, put, taken) = worker.await.unwrap();
        sums.extend(theirs);
        for item in put {
            *items.entry(item).or_insert(0) += 1;
        }
        for item in taken {
            let item = String::from_utf8(item.to_vec()).unwrap();
            *items.entry(item).or_insert(0) -= 1;
        }
    }
    let client = connect().await.unwrap();
    let queue = Queue::new(&client, "/queue");
    while let Some(item) = queue.try_take().await.unwrap() {
        let item = String::from_utf8(item.to_vec()).unwrap();
        *items.entry(item).or_insert(0) -= 1;
    }
    items.retain(|_, left| *left != 0);
    assert!(
        items.is_empty(),
        "put more often than taken, or less: {items:?}"
    );
    sums.sort_unstable();
    let expected: Vec<i64> = (1..).take(sums.len()).collect();
    assert_eq!(sums, expected, "each increment once");
}
