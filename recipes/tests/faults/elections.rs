//! Elections while connections break, sessions end and servers die: one leads at a time, each with a
//! greater token, and nobody stays behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_client::{Client, OnExpiry};
use quorate_recipes::election::{HealthState, LeaderEvent};
use quorate_recipes::{Election, Error, StopReason};
use quorate_testing::{Ensemble, TestServer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::every_request::{Playing, at_every_request};

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, something: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(SOON, something.into_future())
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

async fn stands(election: &Election, identity: &str) {
    let is_there = async |identity: &str| {
        let candidates = election.candidates().await.unwrap();
        candidates.iter().any(|other| other.identity == identity)
    };
    while !is_there(identity).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_passes_from_one_to_the_next_wherever_a_connection_breaks() {
    let requests = at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{playing:?}");
        let path = format!("{}/election", playing.path());
        let (a, b) = (playing.client().await, playing.client().await);
        let first = Election::new(&a, &path).identity("a");
        let second = Election::new(&b, &path).identity("b");

        let leadership = first.campaign("one").await.unwrap();
        leadership.proclaim("two").await.unwrap();
        let waiting = {
            let second = second.clone();
            tokio::spawn(async move { second.campaign("three").await })
        };
        stands(&first, "b").await;
        let token = leadership.token();
        leadership.transfer_to("b").await.unwrap();
        assert!(leadership.is_held(), "{context}: until the work has ended");
        leadership.resign().await.unwrap();
        let next = waiting.await.unwrap().unwrap();
        assert!(next.token() > token, "{context}");
        let seen = first.leader().await.unwrap().unwrap();
        assert_eq!(seen.identity, "b", "{context}");
        assert_eq!(seen.value.as_deref(), Some("three"), "{context}");
        assert_eq!(seen.token, Some(next.token()), "{context}");
        assert_eq!(seen.transitions, 2, "{context}");
        next.resign().await.unwrap();
        let (left, _) = a.children(&path).await.unwrap();
        assert!(left.is_empty(), "{context}: {left:?}");
        a.close().await;
        b.close().await;
    })
    .await;
    assert!(requests > 20, "{requests}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_that_is_dropped_at_any_step_leaves_no_candidate() {
    let server = TestServer::start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    let election = Election::new(&client, "/election").identity("a");
    for polls in 1.. {
        let led = crate::every_request::polled(election.campaign("v"), polls).await;
        let is_over = led.is_some();
        drop(led);
        // Whoever stands next is not held up by it.
        let again = election.clone().identity("b");
        soon("the next", again.campaign("w"))
            .await
            .map(drop)
            .unwrap_or_else(|error| {
                panic!("after {polls} polls: {error}");
            });
        while !election.candidates().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        if is_over {
            return;
        }
    }
}

/// Three candidates, each at a server of its own; whoever leads notes it, and that nobody else does at
/// the same time. The leader's server falls silent: the leader is told, its work is dropped if it does
/// not end, and only then may another lead. Or the server dies: then nothing may happen at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_at_a_time_whichever_leader_is_cut_off() {
    let builder = Ensemble::builder().servers(3);
    let ensemble = builder
        .tick(Duration::from_millis(500))
        .start()
        .await
        .unwrap();
    ensemble.wait_for_leader().await.unwrap();
    let shutdown = CancellationToken::new();
    let leading = Arc::new(AtomicUsize::new(0));
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut running = Vec::new();
    for server in ensemble.servers() {
        let builder = Client::builder(&server.connect_string());
        let builder = builder.session_timeout(Duration::from_secs(1));
        let builder = builder.on_expiry(OnExpiry::NewSession);
        let client = builder.connect().await.unwrap();
        let election = Election::new(&client, "/election")
            .identity(server.id().to_string())
            .shutdown(shutdown.clone());
        let (tell, leading, id) = (tell.clone(), Arc::clone(&leading), server.id());
        running.push(tokio::spawn(async move {
            let run = election.run(|term| {
                let (tell, leading) = (tell.clone(), Arc::clone(&leading));
                async move {
                    assert_eq!(
                        leading.fetch_add(1, Ordering::SeqCst),
                        0,
                        "two lead at once"
                    );
                    let _leaves = Leaves(leading);
                    tell.send((term.token(), id)).unwrap();
                    let reason = term.stopping().await;
                    if reason != StopReason::ShutDown {
                        // It does not end in order.
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Error>(())
                }
            });
            run.await
        }));
    }
    let (mut token, mut leader) = soon("the first leader", told.recv()).await.unwrap();
    for is_killed_first in [false, true, false] {
        let server = ensemble.server(leader);
        if is_killed_first {
            server.kill().await.unwrap();
            server.start().await.unwrap();
            server.wait_until_ready().await.unwrap();
            let client = Client::connect(&ensemble.connect_string()).await.unwrap();
            let seen = Election::new(&client, "/election").leader().await.unwrap();
            assert_eq!(seen.unwrap().token, Some(token), "its session lives on");
        }
        server.hang(true);
        let (next_token, next) = soon("the next leader", told.recv()).await.unwrap();
        assert!(next_token > token, "{next_token} after {token}");
        assert_ne!(next, leader);
        server.hang(false);
        (token, leader) = (next_token, next);
    }
    shutdown.cancel();
    for run in running {
        soon("the end", run).await.unwrap().unwrap();
    }
    assert_eq!(leading.load(Ordering::SeqCst), 0);
}

struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_says_when_it_does_not_know_and_what_is_so_afterwards() {
    let server = TestServer::start().await.unwrap();
    let candidate = Client::connect(&server.connect_string()).await.unwrap();
    let election = Election::new(&candidate, "/election").identity("a");
    let leadership = election.campaign("one").await.unwrap();
    let watching = Client::connect(&server.connect_string()).await.unwrap();
    let mut events = Election::new(&watching, "/election").observe();
    let mut next = async || soon("an event", events.next()).await.unwrap().unwrap();
    assert!(matches!(next().await, LeaderEvent::Elected(_)));
    server.refuse_connections(true).await;
    server.cut_connections();
    assert_eq!(next().await, LeaderEvent::Unknown);
    server.refuse_connections(false).await;
    match next().await {
        LeaderEvent::Elected(leader) => assert_eq!(leader.token, Some(leadership.token())),
        unexpected => panic!("{unexpected:?}"),
    }
    leadership.resign().await.unwrap();
    assert_eq!(next().await, LeaderEvent::Vacant);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_overdue_is_not_hidden_by_the_next_term() {
    let server = TestServer::start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    let election = Election::new(&client, "/election").identity("a");
    let first = election.campaign("one").await.unwrap();
    client.delete(first.term().lease().node()).await.unwrap();
    soon("the loss", first.lost()).await;
    let overdue = HealthState::Overdue {
        token: first.token(),
    };
    assert_eq!(election.health().state(), overdue);
    let next = election.campaign("two").await.unwrap();
    assert_eq!(election.health().state(), overdue);
    drop(first);
    let leads = async {
        while !matches!(election.health().state(), HealthState::Leading { token, .. } if token == next.token())
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the first", leads).await;
    next.resign().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_work_panics_is_none_any_more() {
    let server = TestServer::start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    let election = Election::new(&client, "/election").identity("a");
    for is_spawned in [false, true] {
        let panics = election.clone();
        let run = tokio::spawn(async move {
            let run = panics.run(async |term| {
                if is_spawned {
                    let part = term.spawn(async { panic!("in a part of the work") });
                    let part: Result<Option<()>, _> = part.await;
                    return part.map(drop);
                }
                panic!("in the work")
            });
            run.await.map(drop).map_err(|error| error.to_string())
        });
        let ended = soon("the end", run).await;
        assert!(!matches!(ended, Ok(Ok(()))), "{ended:?}");
        let next = soon("the next", election.campaign("next")).await.unwrap();
        next.resign().await.unwrap();
    }
}
