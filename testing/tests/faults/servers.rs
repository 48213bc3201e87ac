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
    let other = ensemble.server(first % 3 + 1).address();
    Conversation::make(other, "/a").await;
    ensemble.server(first).kill().await.expect("it runs");
    assert_ne!(ensemble.leader(), Some(first));
    Conversation::make(other, "/b").await;
    let second = ensemble.wait_for_leader().await.expect("a leader");
    assert_ne!(second, first);
    ensemble.server(first).start().await.expect("it starts");
    let first = ensemble.server(first).address();
    assert!(Conversation::look(first, "/a").await);
    assert!(Conversation::look(first, "/b").await);
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
async fn another_server_leads_when_the_leader_has_stopped() {
    let ensemble = start(3).await;
    let first = ensemble.wait_for_leader().await.expect("a leader");
    ensemble.server(first).stop().await.expect("it runs");
    let second = ensemble.wait_for_leader().await.expect("a leader");
    assert_ne!(second, first);
}

/// The minority is the leader, or a follower.
async fn minority_refuses(is_leader: bool) {
    let ensemble = start(3).await;
    let leader = ensemble.wait_for_leader().await.expect("a leader");
    let alone = if is_leader { leader } else { leader % 3 + 1 };
    let others: Vec<u64> = (1..=3).filter(|id| *id != alone).collect();
    let minority = ensemble.server(alone).address();
    let majority = ensemble.server(others[0]).address();
    let mut cut_off = Conversation::open_in_time(minority).await;

    ensemble.partition(&[alone], &others);
    // It may be cut off already, and say so.
    cut_off.send(&create("/minority", PERSISTENT)).await.ok();
    Conversation::make(majority, "/majority").await;
    let leader = ensemble.wait_for_leader().await.expect("a leader");
    assert!(others.contains(&leader));
    // It never says that it has done it, and turns its clients away.
    cut_off.assert_cut().await;
    Conversation::open(minority, SESSION_TIMEOUT)
        .await
        .expect_err("it takes no client either");

    ensemble.heal();
    assert!(Conversation::look(minority, "/majority").await);
    Conversation::make(minority, "/healed").await;
    assert!(Conversation::look(majority, "/healed").await);
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
    let other = ensemble.server(first % 3 + 1).address();
    ensemble.server(first).freeze().await.expect("it runs");
    assert_ne!(ensemble.leader(), Some(first));
    assert_ne!(ensemble.wait_for_leader().await.expect("another"), first);
    Conversation::make(other, "/a").await;
    // It accepts, and says nothing.
    let address = ensemble.server(first).address();
    TcpStream::connect(address).await.expect("its sockets stay");
    ensemble.server(first).thaw();
    assert!(Conversation::look(address, "/a").await);

    ensemble.server(first).freeze().await.expect("it runs");
    ensemble.server(first).kill().await.expect("also like this");
    ensemble.server(first).start().await.expect("it starts");
    ensemble.server(first).freeze().await.expect("it runs");
    // And the end of all of them.
    drop(ensemble);
}
