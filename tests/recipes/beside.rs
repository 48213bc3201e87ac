//! Shared state beside Curator's, kazoo's and ZooKeeper's own recipes, in processes of their own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::{Client, Reason};
use quorate_recipes::{
    Barrier, Counter, CounterFormat, DoubleBarrier, Number, PriorityQueue, Queue, SharedValue,
};
use quorate_tests::java::Classes;
use quorate_tests::process::run;
use quorate_tests::skip::{Need, available};
use tokio::task::JoinHandle;

use crate::{Scene, against_both_alone};

const JARS: &[&str] = &[
    "zookeeper",
    "zookeeper-jute",
    "zookeeper-recipes-queue",
    "curator-client",
    "curator-framework",
    "curator-recipes",
    "guava",
    "slf4j-simple",
];
const NEEDS: &[Need] = &[Need::Jars(JARS), Need::JavaCompiler, Need::Kazoo("2.11.")];
const LIMIT: Duration = Duration::from_secs(60);

fn java() -> Command {
    static CLASSES: Classes = Classes::new("shared");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/java/Shared.java");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    CLASSES.program(target, JARS, &[source], "Shared")
}

fn python() -> Command {
    let mut command = Command::new("python3");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/python/shared.py");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script);
    command
}

/// Has a program do this, in its order; resolves to its answers.
fn have(mut program: Command, scene: &Scene, commands: &[&str]) -> JoinHandle<Vec<String>> {
    program.arg(scene.connect_string());
    let input = commands.join("\n") + "\n";
    tokio::task::spawn_blocking(move || {
        let done = run(program, &input, LIMIT).unwrap();
        assert!(done.success, "{}\n{}", done.stdout, done.stderr);
        done.stdout.lines().map(str::to_owned).collect()
    })
}

/// Waits until a znode is there.
async fn appears(client: &Client, path: &str) {
    loop {
        let (stat, watcher) = client.exists(path).watch().await.unwrap();
        if stat.is_some() {
            return;
        }
        watcher.changed().await.unwrap();
    }
}

/// A barrier of theirs, and one of ours.
async fn barriers(client: &Client) {
    let (ours, theirs) = (
        Barrier::new(client, "/ours"),
        Barrier::new(client, "/theirs"),
    );
    appears(client, "/theirs").await;
    assert!(theirs.is_set().await.unwrap());
    let waiting = tokio::spawn(async move { theirs.wait().await });
    client.sync("/").await.unwrap();
    assert!(!waiting.is_finished());
    client.create("/seen", b"").await.unwrap();
    waiting.await.unwrap().unwrap();
    assert!(ours.remove().await.unwrap());
    client.delete("/seen").await.unwrap();
}

async fn numbers_and_queues(scene: &Scene, client: &Client) {
    let text = Counter::new(client, "/text");
    let count = Counter::new(client, "/count").format(CounterFormat::SharedCount);
    let number = Number::new(client, "/number");
    let value = SharedValue::new(client, "/value");
    let queue = Queue::new(client, "/queue");
    text.add(12).await.unwrap();
    count.add(1 << 20).await.unwrap();
    number.add(-5_000_000_000).await.unwrap();
    value.set(&"ours".into()).await.unwrap();
    queue.put_all(["1", "2", "3"]).await.unwrap();
    Barrier::new(client, "/ours").set().await.unwrap();

    let python = have(
        python(),
        scene,
        &[
            "counter /text 5",
            "counter /new-text 7",
            "count /count 2",
            "put /priority 050 theirs",
            "hold /theirs",
            "wait /ours",
        ],
    );
    barriers(client).await;
    assert_eq!(
        python.await.unwrap(),
        [
            "counter 17",
            "counter 7",
            "count 1048578",
            "put put",
            "hold True",
            "wait True"
        ]
    );
    assert_eq!(text.add(1).await.unwrap(), 18);
    assert_eq!(Counter::new(client, "/new-text").add(1).await.unwrap(), 8);
    let jobs = PriorityQueue::new(client, "/priority");
    jobs.put(7, "ours").await.unwrap();
    assert_eq!(jobs.take().await.unwrap(), "ours");
    assert_eq!(jobs.take().await.unwrap(), "theirs");

    Barrier::new(client, "/ours").set().await.unwrap();
    let java = have(
        java(),
        scene,
        &[
            "count /count 2",
            "number /number -1",
            "number /new-number 9",
            "value /value theirs",
            "poll /queue",
            "offer /queue 4",
            "zk-remove /queue",
            "zk-offer /queue 5",
            "hold /theirs",
            "wait /ours",
        ],
    );
    barriers(client).await;
    assert_eq!(
        java.await.unwrap(),
        [
            "count 1048580",
            "number -5000000001",
            "number 9",
            "value ours",
            "poll 1",
            "offer true",
            "zk-remove 2",
            "zk-offer true",
            "hold removed",
            "wait true"
        ]
    );
    assert_eq!(count.add(-1).await.unwrap(), 1_048_579);
    assert_eq!(number.increment().await.unwrap(), -5_000_000_000);
    assert_eq!(
        Number::new(client, "/new-number").get().await.unwrap(),
        Some(9)
    );
    assert_eq!(
        value.get().await.unwrap().unwrap().value,
        Bytes::from("theirs")
    );
    for expected in ["3", "4", "5"] {
        assert_eq!(queue.take().await.unwrap(), expected);
    }
}

/// One member of each language, and an item that somebody works on.
async fn members(scene: &Scene, client: &Client) {
    let queue = Queue::new(client, "/locked");
    queue.put("ours").await.unwrap();
    let item = queue.take().locked().await.unwrap();
    let python = have(python(), scene, &["double /double 3"]);
    let java = have(java(), scene, &["poll /locked", "double /double 3"]);
    let inside = DoubleBarrier::new(client, "/double", 3)
        .enter()
        .await
        .unwrap();
    for theirs in ["/entered/kazoo", "/entered/curator"] {
        appears(client, theirs).await;
    }
    client.create("/leave", b"").await.unwrap();
    inside.leave().await.unwrap();
    assert_eq!(python.await.unwrap(), ["double left"]);
    // Refused, and not taken away from under its owner.
    assert_eq!(java.await.unwrap(), ["poll NOTEMPTY", "double left"]);
    item.done().await.unwrap();
    client.sync("/").await.unwrap();
    let left = client.children("/double").await;
    // Curator's containers go by themselves.
    assert!(
        left.as_ref().is_ok_and(|(names, _)| names.is_empty()) || gone(&left),
        "{left:?}"
    );
}

fn gone<T>(result: &Result<T, quorate_client::Error>) -> bool {
    result.as_ref().is_err_and(|error| error.is(Reason::NoNode))
}

#[test]
fn state_is_shared_with_curator_kazoo_and_zookeepers_own_recipes() {
    const TEST: &str = "state beside other libraries";
    if !available(TEST, NEEDS) {
        return;
    }
    against_both_alone(TEST, |scene| async move {
        let client = scene.client().await;
        numbers_and_queues(&scene, &client).await;
        members(&scene, &client).await;
    });
}
