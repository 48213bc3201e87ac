//! Handing over a leadership, and what may go wrong with it: whatever was asked of whom, and whoever
//! gave up half-way, one leads, everybody sees who, and nobody stays behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_client::Client;
use quorate_recipes::{Election, Error, Leadership};
use quorate_testing::TestServer;
use tokio::task::JoinHandle;

use crate::every_request::polled;

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, something: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(SOON, something.into_future())
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

async fn connect(server: &TestServer) -> Client {
    Client::connect(&server.connect_string()).await.unwrap()
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    soon(what, wait).await;
}

/// A candidate that stands, in the background.
async fn standing(client: &Client, path: &str, who: &str) -> JoinHandle<Result<Leadership, Error>> {
    let election = Election::new(client, path).identity(who);
    let campaign = {
        let (election, who) = (election.clone(), who.to_owned());
        tokio::spawn(async move { election.campaign(who).await })
    };
    until("the candidate", async || {
        let candidates = election.candidates().await.unwrap();
        candidates.iter().any(|other| other.identity == who)
    })
    .await;
    campaign
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_are_asked_to_take_over_one_leads() {
    let server = TestServer::start().await.unwrap();
    let client = connect(&server).await;
    // The names of the znodes are random, and decide which of the two comes first.
    for round in 0..6 {
        let path = format!("/election{round}");
        let first = Election::new(&client, &path).identity("a");
        let leadership = first.campaign("a").await.unwrap();
        let mut second = standing(&client, &path, "b").await;
        let mut third = standing(&client, &path, "c").await;
        let candidates = first.candidates().await.unwrap();
        let asked = candidates.iter().find(|other| other.identity == "c");
        let asked = format!("{path}/{}", asked.unwrap().node);
        leadership.transfer_to("b").await.unwrap();
        let refused = leadership.transfer_to("c").await.unwrap_err();
        assert!(matches!(refused, Error::NoSuccessor { .. }), "{refused}");
        // As one that was asked by an attempt which nobody saw the end of.
        let leader = leadership.term().lease().node();
        let leader = leader.rsplit('/').next().unwrap();
        let ask = format!("__TAKE_OVER__ {leader}");
        client.set(&asked, ask).await.ok();
        until("it stands behind the leader", async || {
            client.exists(&asked).await.unwrap().is_none()
        })
        .await;
        leadership.resign().await.unwrap();
        let (next, rest) = tokio::select! {
            next = &mut second => (next, third),
            next = &mut third => (next, second),
        };
        let next = next.unwrap().unwrap();
        let none = tokio::time::timeout(Duration::from_millis(100), async {
            while !rest.is_finished() {
                tokio::task::yield_now().await;
            }
        });
        assert!(none.await.is_err(), "two lead at once");
        let token = next.token();
        next.resign().await.unwrap();
        let last = soon("the last", rest).await.unwrap().unwrap();
        assert!(last.token() > token);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_is_asked_twice_takes_over_once() {
    let server = TestServer::start().await.unwrap();
    let client = connect(&server).await;
    let first = Election::new(&client, "/election").identity("a");
    let leadership = first.campaign("a").await.unwrap();
    let second = standing(&client, "/election", "b").await;
    leadership.transfer_to("b").await.unwrap();
    let candidates = first.candidates().await.unwrap();
    let behind = candidates.iter().find(|other| other.identity == "b");
    let behind = format!("/election/{}", behind.unwrap().node);
    let leader = leadership.term().lease().node();
    let leader = leader.rsplit('/').next().unwrap();
    let again = format!("__TAKE_OVER__ {leader}");
    client.set(&behind, again).await.unwrap();
    until("it calls itself by its name again", async || {
        let (data, _) = client.get(&behind).await.unwrap();
        assert!(!second.is_finished(), "it gave up");
        data == "b"
    })
    .await;
    leadership.resign().await.unwrap();
    drop(soon("the next", second).await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_gives_up_while_it_takes_over_leaves_nothing_behind() {
    let server = TestServer::start().await.unwrap();
    let client = connect(&server).await;
    for polls in 1..200 {
        let path = format!("/election{polls}");
        let first = Election::new(&client, &path).identity("a");
        let leadership = first.campaign("a").await.unwrap();
        let second = Election::new(&client, &path).identity("b");
        let moves = async {
            until("the candidate", async || {
                let candidates = first.candidates().await.unwrap();
                candidates.iter().any(|other| other.identity == "b")
            })
            .await;
            let candidates = first.candidates().await.unwrap();
            let asked = candidates.iter().find(|other| other.identity == "b");
            let asked = format!("{path}/{}", asked.unwrap().node);
            let leader = leadership.term().lease().node();
            let leader = leader.rsplit('/').next().unwrap();
            let ask = format!("__TAKE_OVER__ {leader}");
            client.set(&asked, ask).await.ok();
            until("it stands behind the leader", async || {
                client.exists(&asked).await.unwrap().is_none()
            })
            .await;
        };
        let gives_up = polled(second.campaign("b"), polls);
        let has_moved = tokio::select! {
            biased;
            _ = gives_up => false,
            () = moves => true,
        };
        until("the candidate has gone", async || {
            first.candidates().await.unwrap().len() == 1
        })
        .await;
        leadership.resign().await.unwrap();
        if has_moved {
            return;
        }
    }
    panic!("it never stood behind the leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handover_that_failed_is_not_on_record() {
    let server = TestServer::start().await.unwrap();
    let client = connect(&server).await;
    let builder = Client::builder(&server.connect_string());
    let brief = builder.session_timeout(Duration::from_millis(1500));
    let brief = brief.connect().await.unwrap();
    let leadership = Election::new(&brief, "/election").identity("a");
    let leadership = leadership.campaign("a").await.unwrap();
    // One that uses another library, which does not know what it is asked.
    let create = client.create("/election/_c_0-latch-", "b");
    create.ephemeral().sequential().await.unwrap();
    let refused = soon("an answer", leadership.transfer_to("b")).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::NoSuccessor { .. }), "{refused}");
    let (record, _) = client.get("/election").await.unwrap();
    let record = String::from_utf8_lossy(&record);
    assert!(!record.contains("handingOverTo"), "{record}");
    assert_eq!(leadership.term().lease().stop_reason(), None);
    let seen = Election::new(&client, "/election").leader().await.unwrap();
    assert_eq!(seen.unwrap().token, Some(leadership.token()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_known_while_another_stands_behind_it() {
    let server = TestServer::start().await.unwrap();
    let client = connect(&server).await;
    for round in 0..6 {
        let path = format!("/election{round}");
        let first = Election::new(&client, &path).identity("a");
        let leadership = first.campaign("a").await.unwrap();
        let second = standing(&client, &path, "b").await;
        leadership.transfer_to("b").await.unwrap();
        let candidates = first.candidates().await.unwrap();
        assert_eq!(candidates[0].identity, "a", "the leader comes first");
        assert!(first.request_step_down("").await.unwrap());
        let (data, _) = client.get(leadership.term().lease().node()).await.unwrap();
        assert!(data.starts_with(b"__REVOKE__"), "another was asked");
        leadership.resign().await.unwrap();
        drop(soon("the next", second).await.unwrap().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preferred_candidate_leads_however_often_others_come_and_go() {
    let server = TestServer::start().await.unwrap();
    let client = connect(&server).await;
    let first = Election::new(&client, "/election").identity("a");
    let first = first.prefer_after(Duration::from_millis(300));
    let leadership = first.campaign("a").await.unwrap();
    let second = standing(&client, "/election", "b").await;
    first.prefer(Some("b")).await.unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let come_and_go = async {
        loop {
            let create = client.create("/election/_c_0-latch-", "c");
            let created = create.ephemeral().sequential().await.unwrap();
            client.delete(&created.path).await.unwrap();
            seen.fetch_add(1, Ordering::Relaxed);
        }
    };
    let handed_over = tokio::select! {
        reason = soon("the handover", leadership.stopping()) => reason,
        () = come_and_go => unreachable!(),
    };
    assert!(seen.load(Ordering::Relaxed) > 10);
    assert_eq!(handed_over.to_string(), "leadership goes to b");
    leadership.resign().await.unwrap();
    drop(soon("the next", second).await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_waits_to_lead_is_no_leader() {
    let server = TestServer::start().await.unwrap();
    let client = connect(&server).await;
    let first = Election::new(&client, "/election").identity("a");
    let leadership = first.campaign("a").await.unwrap();
    client
        .delete(leadership.term().lease().node())
        .await
        .unwrap();
    let second = Election::new(&client, "/election").identity("b");
    let second = second.lock_delay(Duration::from_secs(3600));
    let waiting = tokio::spawn(async move { second.campaign("b").await });
    until("the candidate", async || {
        first.candidates().await.unwrap().len() == 1
    })
    .await;
    assert_eq!(first.leader().await.unwrap(), None);
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_can_be_preferred_after_the_directory_was_deleted() {
    let server = TestServer::start().await.unwrap();
    let client = connect(&server).await;
    let election = Election::new(&client, "/election").identity("a");
    let leadership = election.campaign("a").await.unwrap();
    leadership.resign().await.unwrap();
    client.delete("/election").await.unwrap();
    election.prefer(Some("b")).await.unwrap();
    let (record, _) = client.get("/election").await.unwrap();
    let record = String::from_utf8_lossy(&record);
    assert!(record.contains(r#""preferredHolder":"b""#), "{record}");
}
