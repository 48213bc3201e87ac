//! Our lock and our election beside those of other languages, in the combinations that can hold.

use super::contender::Contender;
use super::{Stage, all_there};
use crate::against_both_alone;

/// Each excludes each of its line.
const COMBINATIONS: [&[&str]; 16] = [
    &[
        "quorate-lock:curator",
        "curator-mutex",
        "go-lock",
        "kazoo-lock-curator",
    ],
    &["quorate-lock:curator", "kazoo-lock-extra"],
    &["quorate-lock:curator", "zookeeper-lock"],
    &["quorate-lock:kazoo", "kazoo-lock", "kazoo-lock-extra"],
    &["quorate-lock:kazoo", "go-lock"],
    &["quorate-lock:java", "zookeeper-lock"],
    &[
        "quorate-lock:curator",
        "quorate-lock:kazoo",
        "quorate-lock:java",
    ],
    &[
        "quorate-election:latch",
        "curator-latch",
        "curator-latch",
        "quorate-election:latch",
    ],
    &["quorate-election:native", "curator-latch"],
    &[
        "quorate-election:selector",
        "curator-selector",
        "kazoo-lock-curator",
        "quorate-election:selector",
    ],
    &["quorate-election:kazoo", "kazoo-election"],
    &["quorate-election:kazoo", "quorate-election:selector"],
    &[
        "quorate-write:curator",
        "curator-read",
        "quorate-read:curator",
        "curator-write",
    ],
    &["curator-write", "quorate-read:curator", "curator-read"],
    &[
        "quorate-write:kazoo",
        "kazoo-read",
        "quorate-read:kazoo",
        "kazoo-write",
    ],
    &["kazoo-write", "quorate-read:kazoo", "kazoo-read"],
];
/// These are inside together.
const READERS: [[&str; 2]; 2] = [
    ["quorate-read:curator", "curator-read"],
    ["quorate-read:kazoo", "kazoo-read"],
];
/// Two of them are.
const SEMAPHORES: [&str; 4] = [
    "quorate-semaphore:2",
    "curator-semaphore:2",
    "quorate-semaphore:2",
    "curator-semaphore:2",
];
const ROUNDS: &str = "rounds 20";
const ALL_DONE: &str = "done 20";

#[test]
fn ours_and_those_of_other_languages_exclude_each_other() {
    let test = "ours_and_those_of_other_languages_exclude_each_other";
    if !all_there(test) {
        return;
    }
    against_both_alone(test, |scene| async move {
        let mut stage = Stage::new(scene).await;
        let mut groups = Vec::new();
        for (number, recipes) in COMBINATIONS.iter().enumerate() {
            let path = format!("/together/{number}");
            stage.client.ensure_path(&path).await.unwrap();
            let group: Vec<Contender> = recipes
                .iter()
                .map(|recipe| stage.open(recipe, &path))
                .collect();
            groups.push((path, group));
        }
        for (path, group) in &mut groups {
            let (ours, others) = group.split_first_mut().unwrap();
            ours.ready();
            for other in others {
                other.ready();
                take_turns(&stage, path, ours, other).await;
                take_turns(&stage, path, other, ours).await;
            }
        }
        let mut all: Vec<Contender> = groups.into_iter().flat_map(|(_, group)| group).collect();
        for (number, recipes) in READERS.iter().enumerate() {
            let mut readers = recipes.map(|recipe| stage.open(recipe, &format!("/read/{number}")));
            for reader in &mut readers {
                reader.must("acquire", "entered");
            }
            for reader in &mut readers {
                reader.must("release", "left");
            }
            all.extend(readers);
        }
        all.extend(SEMAPHORES.map(|recipe| stage.open(recipe, "/permits")));
        for contender in &all {
            contender.command(ROUNDS);
        }
        for contender in &mut all {
            contender.expect(ALL_DONE);
        }
    });
}

/// The second waits for the first, and gets in when that one has left.
async fn take_turns(stage: &Stage, path: &str, first: &mut Contender, second: &mut Contender) {
    first.must("acquire", "entered");
    second.command("acquire");
    let outcome = stage.outcome(second, path).await;
    let pair = format!("{} inside, {} comes", first.name, second.name);
    assert_eq!(outcome, "waits", "{pair}");
    first.must("release", "left");
    second.expect("entered");
    second.must("release", "left");
}
