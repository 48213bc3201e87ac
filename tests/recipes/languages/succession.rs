//! Leadership that is sent to one of ours, past a candidate of Curator's that has waited for longer.

use std::time::Duration;

use quorate_recipes::election::Compat;
use quorate_recipes::{Election, StopReason};

use super::referee::Referee;
use super::{Stage, all_there};
use crate::against_both_alone;

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, something: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, something)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

#[test]
fn a_latch_of_curator_lets_the_candidate_go_first_that_leadership_was_sent_to() {
    let test = "a_latch_of_curator_lets_the_candidate_go_first_that_leadership_was_sent_to";
    if !all_there(test) {
        return;
    }
    against_both_alone(test, |scene| async move {
        let mut stage = Stage::new(scene).await;
        let path = "/handed-over";
        let candidate = async |name: &str| {
            let client = stage.scene.client().await;
            let referee = Referee::new(&stage.referees(path), "alone", name);
            let election = Election::new(&client, path).compat(Compat::Latch);
            (election.identity(name), referee)
        };
        let (first, its_referee) = candidate("first").await;
        let (second, seconds_referee) = candidate("second").await;

        let leadership = soon("the first", first.campaign("")).await.unwrap();
        assert!(its_referee.enter().unwrap().is_empty());
        let mut latch = stage.open("curator-latch", path);
        latch.command("acquire");
        latch.ready();
        assert_eq!(stage.outcome(&mut latch, path).await, "waits");
        let (waiting, observer) = (second.clone(), first.clone());
        let waiting = tokio::spawn(async move { waiting.campaign("").await });
        soon("the second in the line", async {
            while observer.candidates().await.unwrap().len() < 3 {
                tokio::task::yield_now().await;
            }
        })
        .await;

        soon("the asking", leadership.transfer_to("second"))
            .await
            .unwrap();
        let why = soon("the end", leadership.stopping()).await;
        let to = "second".to_owned();
        assert_eq!(why, StopReason::Transferred { to });
        its_referee.leave();
        soon("the first's end", leadership.resign()).await.unwrap();
        let leadership = soon("the second", waiting).await.unwrap().unwrap();
        assert!(seconds_referee.enter().unwrap().is_empty());
        let outcome = stage.outcome(&mut latch, path).await;
        assert_eq!(outcome, "waits", "Curator's latch, for the second");

        seconds_referee.leave();
        soon("the second's end", leadership.resign()).await.unwrap();
        latch.expect("entered");
        let leader = first.leader().await.unwrap().unwrap();
        assert_eq!((leader.identity, leader.token), (latch.name.clone(), None));
        latch.must("release", "left");
    });
}
