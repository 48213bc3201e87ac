//! Two-phase commit.

use std::time::Duration;

use quorate_client::{Client, Reason};
use quorate_recipes::{Decision, Error, TwoPhaseCommit, Vote};

use crate::{Scene, against_both};

const SHORT: Duration = Duration::from_millis(100);

/// Votes on the next transaction, and is done with it.
async fn take_part(client: &Client, name: &str, vote: Vote) -> Decision {
    let mut participant = TwoPhaseCommit::new(client, "/commits/two").participant(name);
    let ballot = participant.next().await.unwrap();
    assert_eq!(ballot.payload(), "payload");
    let decision = ballot.vote(vote).await.unwrap();
    ballot.done().await.unwrap();
    decision
}

async fn is_over(client: &Client) {
    client.sync("/").await.unwrap();
    assert_eq!(client.children("/commits/two").await.unwrap().0, [""; 0]);
}

async fn commit_and_abort(scene: &Scene) {
    let (ours, theirs) = (scene.client().await, scene.client().await);
    let commits = TwoPhaseCommit::new(&ours, "/commits/two").identity("coordinator");
    for (id, vote, expected) in [
        ("1", Vote::Commit, Decision::Commit),
        ("2", Vote::Abort, Decision::Abort),
    ] {
        let (a, b) = (
            take_part(&ours, "a", Vote::Commit),
            take_part(&theirs, "b", vote),
        );
        let coordinate = async {
            let proposal = commits.begin(id, ["a", "b"], "payload").await.unwrap();
            let decision = proposal.decision().await.unwrap();
            proposal.done().await.unwrap();
            decision
        };
        let (a, b, decision) = tokio::join!(a, b, coordinate);
        assert_eq!([a, b, decision], [expected; 3]);
        is_over(&ours).await;
    }
}

async fn those_who_do_not_come(scene: &Scene) {
    let (ours, theirs) = (scene.client().await, scene.client().await);
    let commits = TwoPhaseCommit::new(&ours, "/commits/two").timeout(SHORT);
    // A participant.
    let proposal = commits.begin("3", ["a", "b"], "payload").await.unwrap();
    let (a, decision) = tokio::join!(take_part(&theirs, "a", Vote::Commit), proposal.decision());
    assert_eq!([a, decision.unwrap()], [Decision::Abort; 2]);
    proposal.done().await.unwrap();
    // It learns of it when it comes.
    assert_eq!(take_part(&theirs, "b", Vote::Commit).await, Decision::Abort);
    is_over(&ours).await;

    // The coordinator: those who have voted go on without it, and it learns of it when it is back.
    let dying = scene.client().await;
    let died = TwoPhaseCommit::new(&dying, "/commits/two").identity("mortal");
    let proposal = died.begin("4", ["a", "b"], "payload").await.unwrap();
    let lost = died.begin("5", ["a", "b"], "payload").await.unwrap();
    dying.close().await;
    assert!(proposal.decision().await.is_err());
    let (a, b) = tokio::join!(
        take_part(&ours, "a", Vote::Commit),
        take_part(&theirs, "b", Vote::Commit)
    );
    assert_eq!([a, b], [Decision::Commit; 2]);
    let back = TwoPhaseCommit::new(&ours, "/commits/two").identity("mortal");
    let unfinished = back.unfinished().await.unwrap();
    let ids: Vec<&str> = unfinished
        .iter()
        .map(quorate_recipes::Proposal::id)
        .collect();
    assert_eq!(ids, ["4", lost.id()]);
    assert_eq!(unfinished[0].decision().await.unwrap(), Decision::Commit);
    assert_eq!(
        unfinished[0].abort().await.unwrap(),
        Decision::Commit,
        "it is decided"
    );
    assert_eq!(unfinished[1].abort().await.unwrap(), Decision::Abort);
    for proposal in unfinished {
        proposal.done().await.unwrap();
    }
    let (a, b) = tokio::join!(
        take_part(&ours, "a", Vote::Commit),
        take_part(&theirs, "b", Vote::Commit)
    );
    assert_eq!([a, b], [Decision::Abort; 2]);
    is_over(&ours).await;
}

async fn one_that_comes_back(scene: &Scene) {
    let (ours, theirs) = (scene.client().await, scene.client().await);
    let commits = TwoPhaseCommit::new(&ours, "/commits/two").timeout(Duration::from_secs(60));
    let proposal = commits.begin("6", ["a", "b"], "payload").await.unwrap();
    let again = commits.begin("6", ["a", "b"], "other").await.unwrap_err();
    assert!(again.is(Reason::NodeExists), "{again}");
    let mut first = TwoPhaseCommit::new(&theirs, "/commits/two").participant("b");
    let ballot = first.next().await.unwrap();
    assert_eq!(ballot.cast(), None);
    let voting = tokio::time::timeout(SHORT, ballot.vote(Vote::Commit)).await;
    assert!(voting.is_err(), "the other has not voted");
    assert!(matches!(
        ballot.done().await,
        Err(Error::InvalidArgument(_))
    ));
    theirs.close().await;
    // With its vote, by which it is bound.
    let mut second = TwoPhaseCommit::new(&ours, "/commits/two").participant("b");
    let ballot = second.next().await.unwrap();
    assert_eq!(ballot.cast(), Some(Vote::Commit));
    assert!(matches!(
        ballot.vote(Vote::Abort).await,
        Err(Error::InvalidArgument(_))
    ));
    let a = take_part(&ours, "a", Vote::Commit);
    let (a, b, decision) = tokio::join!(a, ballot.vote(Vote::Commit), proposal.decision());
    assert_eq!([a, b.unwrap(), decision.unwrap()], [Decision::Commit; 3]);
    for _ in 0..2 {
        ballot.done().await.unwrap();
        proposal.done().await.unwrap();
    }
    is_over(&ours).await;

    for (id, participants) in [("7", vec![]), ("7", vec!["a", "a"]), ("x/y", vec!["a"])] {
        let refused = commits.begin(id, participants, "").await;
        assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    }
    ours.create("/commits/queue", br#"{"recipe":"queue"}"#)
        .await
        .unwrap();
    let taken = TwoPhaseCommit::new(&ours, "/commits/queue");
    let refused = taken.begin("1", ["a"], "").await;
    assert!(matches!(refused, Err(Error::OtherRecipe { .. })));
}

#[test]
fn a_transaction_ends_alike_for_everybody() {
    against_both("two-phase commit", |scene| async move {
        commit_and_abort(&scene).await;
        those_who_do_not_come(&scene).await;
        one_that_comes_back(&scene).await;
    });
}
