//! What was acknowledged survives SIGKILL, at any moment.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::{Node, PATIENCE, say, seed};
use crate::load::{Counts, Progress, Worker, run_all};

/// For every run of the tests; `QUORATE_KILLS=200` for a long one.
const KILLS: u32 = 10;
const WORKERS: u64 = 4;

/// Reliability: I1, I2, I4, I5, I12, I13, I17 under F1.
#[test]
fn every_acknowledged_write_survives_sigkill() {
    kill_again_and_again(
        "every_acknowledged_write_survives_sigkill",
        Node::new(),
        "plain",
    );
}

/// The same, while snapshots are being written and the log is being cut.
#[test]
fn every_acknowledged_write_survives_sigkill_during_snapshots() {
    kill_again_and_again(
        "every_acknowledged_write_survives_sigkill_during_snapshots",
        Node::new().with_busy_storage(),
        "busy storage",
    );
}

fn kill_again_and_again(test: &str, mut node: Node, kind: &str) {
    let begun = Instant::now();
    let kills = std::env::var("QUORATE_KILLS").map_or(KILLS, |text| {
        text.parse().expect("QUORATE_KILLS is a number")
    });
    let seed = seed(test);
    let mut rng = StdRng::seed_from_u64(seed);
    node.start();
    let address = node.address();
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|number| Worker::new(address, number, seed))
        .collect();
    let (progress, reached) = Progress::new();
    let mut interrupted_starts = 0;
    let mut slowest_start = Duration::ZERO;
    for _ in 0..kills {
        // Some kills come before anything was acknowledged, and some after many snapshots.
        let writes = match rng.random_range(0..4) {
            0 => rng.random_range(1..50),
            _ => rng.random_range(50..3_000),
        };
        progress.set_target(writes);
        // Acknowledgements come right after a sync: move the moment within what comes next.
        let later = Duration::from_micros(rng.random_range(0..10_000));
        run_all(&mut workers, address, &progress, true, || {
            let waited = reached.recv_timeout(PATIENCE);
            thread::sleep(later);
            node.kill();
            waited.unwrap_or_else(|_| panic!("{writes} writes in {PATIENCE:?}"));
        });
        if rng.random_ratio(1, 4) {
            // Any moment of a start will do, and nothing tells of them.
            node.spawn();
            thread::sleep(Duration::from_millis(rng.random_range(0..80)));
            node.kill();
            interrupted_starts += 1;
        }
        slowest_start = slowest_start.max(node.start());
        for worker in &mut workers {
            worker.settle(address, &progress);
        }
    }
    for worker in &mut workers {
        worker.outlast_abandoned(address);
    }
    let mut counts = Counts::default();
    for worker in &workers {
        counts.add(&worker.counts);
    }
    let snapshots = snapshots_taken(&node);
    say(&format!(
        "{test} ({kind}): {kills} kills and {interrupted_starts} during start-up, 0 lost: {} writes \
         acknowledged, {} refused, {} unanswered ({} of them done), {} own reads; sessions: {} \
         resumed, {} closed, {} left to expire; {snapshots} snapshots; slowest start \
         {slowest_start:.0?}; {:.0?}; seed {seed}",
        counts.acknowledged,
        counts.refused,
        counts.unanswered,
        counts.unanswered_but_done,
        counts.reads,
        counts.resumed,
        counts.closed,
        counts.abandoned,
        begun.elapsed()
    ));
    let least = u64::from(kills) * 100;
    assert!(
        counts.acknowledged > least,
        "too little was written to say anything: {counts:?}"
    );
    assert!(counts.resumed > 0 && counts.unanswered > 0, "{counts:?}");
    if kind == "busy storage" {
        assert!(snapshots > 0, "no snapshot was taken");
    }
}

/// The tests above are worth as much as their checker: it must notice when an older state is put in
/// place of the newest one.
#[test]
fn the_checker_notices_that_acknowledged_writes_are_gone() {
    let seed = seed("the_checker_notices_that_acknowledged_writes_are_gone");
    let mut node = Node::new().with_busy_storage().started();
    let address = node.address();
    let mut workers = vec![Worker::new(address, 0, seed)];
    let (progress, reached) = Progress::new();
    let older = node.folder().join("older");
    for round in 0..2 {
        progress.set_target(200);
        run_all(&mut workers, address, &progress, false, || {
            let waited = reached.recv_timeout(PATIENCE);
            node.kill();
            waited.expect("writes go on");
        });
        if round == 0 {
            copy_files(node.data_dir(), &older);
            node.start();
            workers[0].settle(address, &progress);
        }
    }
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    copy_files(&older, node.data_dir());
    node.start();
    let (forgiving, _) = Progress::new();
    workers[0].forget_zxids();
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        workers[0].settle(address, &forgiving);
    }));
    assert!(judged.is_err(), "200 lost writes went unnoticed");
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Snapshots in the folder, old ones being removed.
fn snapshots_taken(node: &Node) -> usize {
    std::fs::read_dir(node.data_dir())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".snap")
        })
        .count()
}
