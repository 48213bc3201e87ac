//! Two-phase commit: one outcome for all, wherever connections break and whoever dies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_client::Client;
use quorate_recipes::{Decision, Error, TwoPhaseCommit, Vote};
use quorate_testing::TestServer;

use crate::every_request::{Playing, at_every_request, polled};

/// More than a test waits for anything.
const LIMIT: Duration = Duration::from_secs(20);
/// More polls than a part takes.
const POLLS: usize = 40;

/// What anybody was told of any transaction.
type Told = Arc<Mutex<Vec<(String, Decision)>>>;

/// A participant's process, from start to death.
async fn take_part(client: Client, path: String, name: &str, vote: Vote, told: Told) {
    let mut participant = TwoPhaseCommit::new(&client, &path).participant(name);
    loop {
        let ballot = participant.next().await.unwrap();
        if let Some(cast) = ballot.cast() {
            assert_eq!(cast, vote);
        }
        let decision = ballot.vote(vote).await.unwrap();
        told.lock()
            .unwrap()
            .push((ballot.id().to_owned(), decision));
        ballot.done().await.unwrap();
    }
}

/// A coordinator's process, from start to end: what was left undone, and then one more.
async fn coordinate(
    client: &Client,
    path: &str,
    id: Option<&str>,
    told: &Told,
) -> Result<(), Error> {
    let commits = TwoPhaseCommit::new(client, path).identity("coordinator");
    let mut proposals = commits.unfinished().await?;
    if let Some(id) = id {
        proposals.push(commits.begin(id, ["a", "b"], "payload").await?);
    }
    for proposal in proposals {
        let decision = proposal.decision().await?;
        told.lock()
            .unwrap()
            .push((proposal.id().to_owned(), decision));
        proposal.done().await?;
    }
    Ok(())
}

/// Waits until all are done with all, and looks at what they were told.
async fn check(client: &Client, path: &str, told: &Told, id: &str, expected: Option<Decision>) {
    let over = async {
        loop {
            let ((names, _), watcher) = client.children(path).watch().await.unwrap();
            if names.is_empty() {
                break;
            }
            watcher.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, over).await.unwrap();
    let told = told.lock().unwrap();
    let of_it: Vec<Decision> = told
        .iter()
        .filter(|(of, _)| of == id)
        .map(|(_, decision)| *decision)
        .collect();
    assert!(
        of_it.windows(2).all(|pair| pair[0] == pair[1]),
        "{id}: {of_it:?}"
    );
    if let Some(expected) = expected {
        assert!(of_it.len() >= 3, "{id}: {of_it:?}");
        assert_eq!(of_it[0], expected, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_ends_alike_for_all_wherever_a_connection_breaks() {
    at_every_request(async |playing: &Playing<'_>| {
        let path = playing.path();
        let told = Told::default();
        let client = playing.client().await;
        // Half of the cuts in one that ends well, half in one that does not.
        let (vote, expected) = match playing.request % 2 {
            0 => (Vote::Commit, Decision::Commit),
            _ => (Vote::Abort, Decision::Abort),
        };
        let take_part = |client, name, vote| {
            let part = take_part(client, path.clone(), name, vote, Arc::clone(&told));
            tokio::spawn(part)
        };
        let a = take_part(client.clone(), "a", Vote::Commit);
        let b = take_part(playing.client().await, "b", vote);
        coordinate(&client, &path, Some("1"), &told).await.unwrap();
        check(&client, &path, &told, "1", Some(expected)).await;
        a.abort();
        b.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_ends_alike_for_all_whoever_dies_at_any_step() {
    let server = TestServer::start().await.unwrap();
    let connect = || Client::builder(&server.connect_string()).connect();
    let (observer, steady) = (connect().await.unwrap(), connect().await.unwrap());
    let (path, told) = ("/commits".to_owned(), Told::default());
    observer.ensure_path(&path).await.unwrap();
    let b = take_part(steady, path.clone(), "b", Vote::Commit, Arc::clone(&told));
    let b = tokio::spawn(b);
    for polls in 0..POLLS {
        let a = || async {
            let client = connect().await.unwrap();
            take_part(client, path.clone(), "a", Vote::Commit, Arc::clone(&told)).await;
        };
        // The coordinator.
        let id = format!("c-{polls}");
        let alive = a();
        let coordinating = async {
            let dying = connect().await.unwrap();
            let part = coordinate(&dying, &path, Some(&id), &told);
            drop(polled(part, polls).await);
            dying.close().await;
            coordinate(&observer, &path, None, &told).await.unwrap();
            check(&observer, &path, &told, &id, None).await;
        };
        tokio::select! {
            () = alive => unreachable!("it goes on"),
            () = coordinating => {}
        }
        // A participant, after the transaction has begun or before.
        let id = format!("p-{polls}");
        let dying = connect().await.unwrap();
        let part = take_part(
            dying.clone(),
            path.clone(),
            "a",
            Vote::Commit,
            Arc::clone(&told),
        );
        let dies = async {
            polled(part, polls).await;
            dying.close().await;
            // Its successor.
            a().await;
        };
        let coordinating = async {
            coordinate(&observer, &path, Some(&id), &told)
                .await
                .unwrap();
            check(&observer, &path, &told, &id, Some(Decision::Commit)).await;
        };
        let limited = tokio::time::timeout(LIMIT, async {
            tokio::select! {
                () = dies => unreachable!("it goes on"),
                () = coordinating => {}
            }
        });
        limited.await.unwrap_or_else(|_| panic!("{id} hangs"));
    }
    assert!(!b.is_finished());
    b.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_last_vote_and_an_abort_at_the_same_time_one_wins_for_all() {
    let server = TestServer::start().await.unwrap();
    let connect = || Client::builder(&server.connect_string()).connect();
    let (ours, theirs) = (connect().await.unwrap(), connect().await.unwrap());
    for round in 0..30 {
        let commits = TwoPhaseCommit::new(&ours, "/commits");
        let id = round.to_string();
        let proposal = commits.begin(&id, ["a"], "").await.unwrap();
        let mut participant = TwoPhaseCommit::new(&theirs, "/commits").participant("a");
        let ballot = participant.next().await.unwrap();
        let (voted, aborted) = tokio::join!(ballot.vote(Vote::Commit), proposal.abort());
        assert_eq!(voted.unwrap(), aborted.unwrap(), "{id}");
        ballot.done().await.unwrap();
        proposal.done().await.unwrap();
    }
    assert_eq!(ours.children("/commits").await.unwrap().0, [""; 0]);
}
