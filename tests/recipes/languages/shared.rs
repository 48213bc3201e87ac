//! Counters and barriers that we share with Curator and kazoo.

use std::time::{Duration, Instant};

use quorate_recipes::{Barrier, Counter, CounterFormat, DoubleBarrier, Number};

use super::contender::{Contender, STEP_LIMIT};
use super::{POLL, Stage, all_there};
use crate::against_both_alone;

const CHANGES: i64 = 20;
const ALL_DONE: &str = "done 20";

async fn soon<T>(what: &str, something: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), something)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

#[test]
fn counters_and_barriers_are_shared_with_curator_and_kazoo() {
    let test = "counters_and_barriers_are_shared_with_curator_and_kazoo";
    if !all_there(test) {
        return;
    }
    against_both_alone(test, |scene| async move {
        let mut stage = Stage::new(scene).await;
        numbers(&mut stage).await;
        barriers(&mut stage).await;
        double_barriers(&mut stage).await;
    });
}

async fn numbers(stage: &mut Stage) {
    let client = stage.client.clone();
    let text = Counter::new(&client, "/numbers/text").attempts(1000);
    let count = Counter::new(&client, "/numbers/count")
        .format(CounterFormat::SharedCount)
        .attempts(1000);
    let long = Number::new(&client, "/numbers/long").attempts(1000);
    // Curator cannot read what kazoo leaves between its creation and its first value.
    count.set(0).await.unwrap();
    let mut others: Vec<Contender> = [
        ("kazoo-counter", "/numbers/text"),
        ("kazoo-count", "/numbers/count"),
        ("curator-count", "/numbers/count"),
        ("curator-number", "/numbers/long"),
    ]
    .map(|(recipe, path)| stage.open(recipe, path))
    .into();
    for other in &mut others {
        other.ready();
        other.command("rounds 20");
    }
    for _ in 0..CHANGES {
        soon("an addition", text.add(1)).await.unwrap();
        soon("an addition", count.add(1)).await.unwrap();
        soon("an addition", long.add(1)).await.unwrap();
    }
    for other in &mut others {
        other.expect(ALL_DONE);
    }
    assert_eq!(text.get().await.unwrap(), 2 * CHANGES);
    assert_eq!(count.get().await.unwrap(), 3 * CHANGES);
    assert_eq!(long.get().await.unwrap(), Some(2 * CHANGES));
}

async fn barriers(stage: &mut Stage) {
    let path = "/barrier";
    let ours = Barrier::new(&stage.client, path);
    ours.set().await.unwrap();
    let mut others = ["curator-barrier", "kazoo-barrier"].map(|recipe| stage.open(recipe, path));
    for other in &mut others {
        other.ready();
        other.command("acquire");
    }
    let deadline = Instant::now() + STEP_LIMIT;
    let both_wait =
        |(watched, sessions): &(String, Vec<String>)| watched == path && sessions.len() == 2;
    while !stage.watches().iter().any(both_wait) {
        assert!(Instant::now() < deadline, "they do not wait");
        tokio::time::sleep(POLL).await;
    }
    for other in &mut others {
        assert_eq!(other.answer_so_far(), None);
    }
    ours.remove().await.unwrap();
    for other in &mut others {
        other.expect("entered");
    }

    // The other way round: each of them removes it.
    for other in &mut others {
        ours.set().await.unwrap();
        other.command("release");
        soon("the barrier", ours.wait()).await.unwrap();
        other.expect("left");
    }
}

async fn double_barriers(stage: &mut Stage) {
    let path = "/together";
    let mut others =
        ["curator-together:3", "kazoo-together:3"].map(|recipe| stage.open(recipe, path));
    let ours = DoubleBarrier::new(&stage.client, path, 3);
    for other in &mut others {
        other.ready();
        other.command("acquire");
    }
    soon("the other two", async {
        while ours.present().await.map_or(0, |present| present.len()) < 2 {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    for other in &mut others {
        assert_eq!(other.answer_so_far(), None);
    }
    let inside = soon("the barrier", ours.enter()).await.unwrap();
    for other in &mut others {
        other.expect("entered");
        other.command("release");
    }
    soon("the end", inside.leave()).await.unwrap();
    for other in &mut others {
        other.expect("left");
    }
}
