//! What happens to servers, and between them.

use std::io;
use std::time::Duration;

use quorate_protocol::{ErrorCode, Request};
use quorate_testing::{Ensemble, Error, TestServer};
use tokio::net::TcpStream;

use crate::SESSION_TIMEOUT;
use crate::conversation::{Conversation, EPHEMERAL, PERSISTENT, create};

async fn start(servers: usize) -> Ensemble {
    Ensemble::start(servers).await.expect("it starts")
}

async fn open(ensemble: &Ensemble, server: u64) -> Conversation {
    Conversation::open(ensemble.server(server).address(), SESSION_TIMEOUT)
        .await
        .expect("a session")
}

#[tokio::test]
async fn a_server_keeps_its_data_and_its_sessions_over_a_stop_and_over_a_kill() {
    let server = TestServer::start().await.expect("it starts");
    let address = server.address();
    let mut client = Conversation::open(address, SESSION_TIMEOUT)
        .await
        .expect("a session");
    client.create("/a").await.expect("it is created");
    for kill in [false, true] {
        match kill {
            true => server.kill().await.expect("it runs"),
            false => server.stop().await.expect("it runs"),
        }
        assert!(!server.is_running());
        client.assert_cut().await;
        let refused = TcpStream::connect(address).await;
        let refused = refused.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        server.start().await.expect("it starts again");
        assert_eq!(server.address(), address);
        client = Conversation::resume(address, client.session)
            .await
            .expect("the session goes on");
        assert!(client.has("/a").await.expect("an answer"));
    }
}

#[tokio::test]
async fn what_is_up_is_not_started_and_what_is_down_not_stopped() {
    let server = TestServer::start().await.expect("it starts");
    let error = server.start().await.expect_err("it runs");
    assert!(matches!(error, Error::Running { server: 1 }), "{error}");
    server.kill().await.expect("it runs");
    for error in [
        server.kill().await.expect_err("it is down"),
        server.stop().await.expect_err("it is down"),
        server.wait_until_ready().await.expect_err("it is down"),
    ] {
        assert!(matches!(error, Error::NotRunning { server: 1 }), "{error}");
    }
}

#[tokio::test]
async fn another_server_leads_when_the_leader_is_killed_and_it_returns_as_one_of_them() {
    let ensemble = start(3).await;
    let first = ensemble.wait_for_leader().await.expect("a leader");
    let other = first % 3 + 1;
    let mut client = open(&ensemble, other).await;
    client.create("/a").await.expect("it is created");
    ensemble.server(first).kill().await.expect("it runs");
    assert_ne!(ensemble.leader(), Some(first));
    client.create("/b").await.expect("the others go on");
    let second = ensemble.wait_for_leader().await.expect("a leader");
    assert_ne!(second, first);
    ensemble.server(first).start().await.expect("it starts");
    let mut client = open(&ensemble, first).await;
    assert!(client.has("/a").await.expect("an answer"));
    assert!(client.has("/b").await.expect("an answer"));
}

#[tokio::test]
async fn without_a_majority_nobody_leads_and_a_server_starts_all_the_same() {
    let ensemble = Ensemble::builder()
        .servers(3)
        .patience(Duration::from_secs(30))
        .start()
        .await
        .expect("it starts");
    for id in 1..=3 {
        ensemble.server(id).kill().await.expect("it runs");
    }
    ensemble.server(2).start().await.expect("it starts");
    assert_eq!(ensemble.leader(), None);
    ensemble.server(3).start().await.expect("it starts");
    ensemble.server(2).wait_until_ready().await.expect("it is");
    assert_ne!(ensemble.wait_for_leader().await.expect("a leader"), 1);
}

#[tokio::test]
async fn a_server_that_stops_hands_leadership_over() {
    let ensemble = start(3).await;
    let first = ensemble.wait_for_leader().await.expect("a leader");
    ensemble.server(first).stop().await.expect("it runs");
    // Not after an election: the next one leads before this one has gone.
    assert!(ensemble.leader().is_some());
    assert_ne!(ensemble.leader(), Some(first));
}

/// The minority is the leader, or a follower.
async fn minority_refuses(is_leader: bool) {
    let ensemble = start(3).await;
    let leader = ensemble.wait_for_leader().await.expect("a leader");
    let alone = if is_leader { leader } else { leader % 3 + 1 };
    let others: Vec<u64> = (1..=3).filter(|id| *id != alone).collect();
    let mut cut_off = open(&ensemble, alone).await;
    let mut served = open(&ensemble, others[0]).await;

    ensemble.partition(&[alone], &others);
    cut_off
        .send(&create("/minority", PERSISTENT))
        .await
        .expect("it is sent");
    // On a very busy machine an election may take so long that its clients are turned away as well.
    let address = ensemble.server(others[0]).address();
    while served.create("/majority").await.is_err() {
        served = Conversation::open_in_time(address).await;
        if served.has("/majority").await.unwrap_or(false) {
            break;
        }
    }
    let leader = ensemble.wait_for_leader().await.expect("a leader");
    assert!(others.contains(&leader));
    // It never says that it has done it, and turns its clients away.
    cut_off.assert_cut().await;
    Conversation::open(ensemble.server(alone).address(), SESSION_TIMEOUT)
        .await
        .expect_err("it takes no client either");

    ensemble.heal();
    let mut healed = Conversation::open_in_time(ensemble.server(alone).address()).await;
    assert!(healed.has("/majority").await.expect("an answer"));
    healed.create("/healed").await.expect("it is served");
    assert!(served.has("/healed").await.expect("an answer"));
}

#[tokio::test]
async fn a_follower_that_is_cut_off_refuses_until_the_ways_are_open_again() {
    minority_refuses(false).await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_refuses_until_the_ways_are_open_again() {
    minority_refuses(true).await;
}

#[tokio::test]
async fn a_session_that_is_expired_is_gone_on_all_servers_with_its_ephemerals() {
    let ensemble = start(3).await;
    let mut client = open(&ensemble, 1).await;
    let made = client.call(&create("/e", EPHEMERAL)).await;
    assert_eq!(made.expect("an answer"), 0);
    client.create("/p").await.expect("it is created");
    let mut watcher = open(&ensemble, 2).await;
    assert!(watcher.has("/e").await.expect("an answer"));

    ensemble.expire(client.session.id).await.expect("it ends");
    // No sync: it has ended on all of them.
    for id in 1..=3 {
        let mut other = open(&ensemble, id).await;
        let exists = |path: &str| {
            Request::Exists(quorate_protocol::request::Watched {
                path: path.to_owned(),
                watch: false,
            })
        };
        let code = other.call(&exists("/e")).await.expect("an answer");
        assert_eq!(code, ErrorCode::NoNode.code());
        let code = other.call(&exists("/p")).await.expect("an answer");
        assert_eq!(code, 0);
    }
    client.assert_cut().await;
    let error = Conversation::resume(ensemble.server(3).address(), client.session)
        .await
        .expect_err("it has expired");
    assert_eq!(error.to_string(), "the session has expired");
    assert!(watcher.has("/p").await.expect("others go on"));

    ensemble.expire(client.session.id).await.expect("once more");
    let error = ensemble.expire(0).await.expect_err("that is none");
    assert!(matches!(error, Error::NoSession), "{error}");
}

#[tokio::test]
async fn a_session_can_be_expired_while_its_server_is_down() {
    let ensemble = start(3).await;
    let leader = ensemble.wait_for_leader().await.expect("a leader");
    let mut client = open(&ensemble, leader).await;
    let made = client.call(&create("/e", EPHEMERAL)).await;
    assert_eq!(made.expect("an answer"), 0);
    ensemble.server(leader).kill().await.expect("it runs");
    ensemble.expire(client.session.id).await.expect("it ends");
    let mut other = open(&ensemble, leader % 3 + 1).await;
    assert!(!other.has("/e").await.expect("an answer"));
}

#[tokio::test]
async fn a_leader_that_stands_still_is_replaced_and_follows_when_it_goes_on() {
    let ensemble = start(3).await;
    let first = ensemble.wait_for_leader().await.expect("a leader");
    let other = first % 3 + 1;
    let mut client = open(&ensemble, other).await;
    ensemble.server(first).freeze().await.expect("it runs");
    assert_ne!(ensemble.leader(), Some(first));
    assert_ne!(ensemble.wait_for_leader().await.expect("another"), first);
    while client.create("/a").await.is_err() {
        client = Conversation::open_in_time(ensemble.server(other).address()).await;
        if client.has("/a").await.unwrap_or(false) {
            break;
        }
    }
    // It accepts, and says nothing.
    TcpStream::connect(ensemble.server(first).address())
        .await
        .expect("its sockets stay");
    ensemble.server(first).thaw();
    let mut client = Conversation::open_in_time(ensemble.server(first).address()).await;
    assert!(client.has("/a").await.expect("an answer"));

    ensemble.server(first).freeze().await.expect("it runs");
    ensemble.server(first).kill().await.expect("also like this");
    ensemble.server(first).start().await.expect("it starts");
    ensemble.server(first).freeze().await.expect("it runs");
    // And the end of all of them.
    drop(ensemble);
}
