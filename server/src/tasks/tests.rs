use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::*;

/// Counts the milliseconds it lives, also through a task that it spawns.
fn ticking(host: &Host) -> Arc<AtomicU64> {
    let ticks = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&ticks);
    host.spawn(async move {
        spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                counted.fetch_add(1, Relaxed);
            }
        });
    });
    ticks
}

#[tokio::test(start_paused = true)]
async fn a_killed_host_stops_where_it_is_with_all_it_spawned() {
    let host = Host::new(1);
    let ticks = ticking(&host);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let before = ticks.load(Relaxed);
    assert!(before > 5);
    host.kill();
    assert_eq!(Arc::strong_count(&ticks), 1, "the task was dropped at once");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(ticks.load(Relaxed), before);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_host_does_nothing_until_it_is_thawed() {
    let host = Host::new(1);
    let ticks = ticking(&host);
    tokio::time::sleep(Duration::from_millis(10)).await;
    host.freeze();
    let before = ticks.load(Relaxed);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(ticks.load(Relaxed), before);
    host.thaw();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(ticks.load(Relaxed) > before);
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_takes_no_task() {
    let host = Host::new(1);
    host.kill();
    let ticks = ticking(&host);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(ticks.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_that_have_ended_are_forgotten() {
    let host = Host::new(1);
    // From one of its own tasks, which is being polled when the others are swept out.
    let spawning = host.spawn(async {
        for _ in 0..10 * SWEEP_MIN {
            spawn(async {}).await.unwrap();
        }
    });
    spawning.await.unwrap();
    assert!(host.shared.inner.lock().tasks.len() <= SWEEP_MIN + 1);
}
