//! Who excludes whom, as it stands in the documentation. This also shows that the referee sees a lock
//! that does not exclude.

use super::{Contender, Stage, all_there};
use crate::against_both_alone;

const RECIPES: [&str; 9] = [
    "curator-mutex",
    "go-lock",
    "kazoo-lock",
    "kazoo-lock-extra",
    "kazoo-lock-curator",
    "zookeeper-lock",
    "quorate-lock:curator",
    "quorate-lock:kazoo",
    "quorate-lock:java",
];

/// What becomes of the second, in the order of [`RECIPES`], while the one of the row is inside: it
/// `w`aits, it comes in so that `b`oth are inside, or it `f`ails.
const TABLE: [&str; 9] = [
    "wwbwwwwww",
    "wwbwwwwww",
    "bwwwbbwww",
    "bwwwbbwww",
    "wwbwwwwww",
    "bfbbbwwww",
    "wwbwwwwww",
    "bwwwbbwww",
    "bfbbbwwww",
];

struct Pair {
    path: String,
    first: Contender,
    second: Contender,
    outcome: char,
}

/// Libraries among themselves, which shows that the programs contend as they should. Those of one
/// line share a path.
const ALONE: [&[&str]; 8] = [
    &[
        "curator-read",
        "curator-write",
        "curator-read",
        "curator-write",
    ],
    &[
        "curator-semaphore:2",
        "curator-semaphore:2",
        "curator-semaphore:2",
    ],
    &["curator-latch", "curator-latch"],
    &["curator-selector", "curator-selector"],
    &["kazoo-read", "kazoo-write", "kazoo-read", "kazoo-write"],
    &[
        "kazoo-semaphore:2",
        "kazoo-semaphore:2",
        "kazoo-semaphore:2",
    ],
    &["kazoo-election", "kazoo-election"],
    &["zookeeper-election", "zookeeper-election"],
];

#[test]
fn locks_of_different_libraries_exclude_each_other_where_the_documentation_says_so() {
    let test = "locks_of_different_libraries_exclude_each_other_where_the_documentation_says_so";
    if !all_there(test) {
        return;
    }
    against_both_alone(test, |scene| async move {
        let mut stage = Stage::new(scene).await;
        let mut pairs = Vec::new();
        for (row, holder) in RECIPES.iter().enumerate() {
            for (column, second) in RECIPES.iter().enumerate() {
                let path = format!("/table/{row}{column}");
                stage.client.ensure_path(&path).await.unwrap();
                pairs.push(Pair {
                    first: stage.open(holder, &path),
                    second: stage.open(second, &path),
                    path,
                    outcome: ' ',
                });
            }
        }
        for pair in &pairs {
            pair.first.command("acquire");
        }
        for pair in &mut pairs {
            pair.first.expect("entered");
            pair.second.ready();
            pair.second.command("acquire");
        }
        for pair in &mut pairs {
            let outcome = stage.outcome(&mut pair.second, &pair.path).await;
            pair.outcome = match outcome.split(' ').next().unwrap() {
                "waits" => 'w',
                "violation" if outcome.ends_with(&pair.first.name) => 'b',
                "failed" => 'f',
                _ => panic!(
                    "{} while {} is inside: {outcome}",
                    pair.second.name, pair.first.name
                ),
            };
        }
        let found: Vec<char> = pairs.iter().map(|pair| pair.outcome).collect();
        let found: Vec<String> = found
            .chunks(RECIPES.len())
            .map(|row| row.iter().collect())
            .collect();
        assert_eq!(
            found, TABLE,
            "rows are those inside, columns those who come: {RECIPES:?}"
        );

        // Those who wait get in, once the others have left.
        for pair in pairs.iter_mut() {
            pair.first.must("release", "left");
        }
        for pair in pairs.iter_mut().filter(|pair| pair.outcome == 'w') {
            pair.second.expect("entered");
            pair.second.must("release", "left");
        }

        half_of_the_advice_for_kazoo_is_worse_than_none(&mut stage).await;
        libraries_among_themselves(&mut stage).await;
    });
}

/// With Curator's name for its nodes, but without that name among those that exclude it, kazoo's lock
/// finds nobody to wait for.
async fn half_of_the_advice_for_kazoo_is_worse_than_none(stage: &mut Stage) {
    let path = "/renamed";
    let mut first = stage.open("kazoo-lock-renamed", path);
    let mut second = stage.open("kazoo-lock-renamed", path);
    first.must("acquire", "entered");
    second.must("acquire", &format!("violation alone.{}", first.name));
}

async fn libraries_among_themselves(stage: &mut Stage) {
    let mut all = Vec::new();
    for (number, recipes) in ALONE.iter().enumerate() {
        let path = format!("/alone/{number}");
        if recipes[0].starts_with("zookeeper-") {
            stage.client.ensure_path(&path).await.unwrap();
        }
        for recipe in *recipes {
            all.push(stage.open(recipe, &path));
        }
    }
    for contender in &all {
        contender.command("rounds 5");
    }
    for contender in &mut all {
        contender.expect("done 5");
    }
}
