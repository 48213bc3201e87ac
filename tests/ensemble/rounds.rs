//! What is not answered without a majority, so that it means something when it is.

use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_tests::client::{Connection, Message, create, get_data, is_closed, set_data, sync};
use quorate_tests::ensemble::PATIENCE;
use quorate_tests::server::Product;

use crate::clients::is_silence;
use crate::scene::{ensemble, product};

/// Longer than everything here takes.
const SESSION_MS: i32 = 40_000;
/// Far longer than an answer takes that waits for nobody.
const SILENCE: Duration = Duration::from_secs(2);

/// Whether there is an answer while all other servers stand still. It must come when they go on.
fn is_answered_by_one_server_alone(setting: Option<&str>, request: &Request) -> bool {
    // The server must not give the client up meanwhile.
    let mut ensemble = ensemble(3, None).with("syncLimit", "100");
    if let Some(key) = setting {
        ensemble = ensemble.with(key, "true");
    }
    ensemble.start().unwrap();
    let id = ensemble.follower().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut client = loop {
        match Connection::open(ensemble.address(id), SESSION_MS) {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(client.call(&create("/x", b"old", 0)).unwrap().code(), 0);
    assert_eq!(client.call(&set_data("/x", b"new", -1)).unwrap().code(), 0);
    let others = ensemble.ids().into_iter().filter(|other| *other != id);
    for other in others.clone() {
        ensemble.freeze(other).unwrap();
    }
    client.set_silence(SILENCE).unwrap();
    client.send(request).unwrap();
    let first = client.receive();
    for other in others {
        ensemble.thaw(other).unwrap();
    }
    let is_answered = match &first {
        Ok(Message::Reply(_)) => true,
        Err(error) if is_silence(error) => false,
        other => panic!("{other:?}"),
    };
    client.set_silence(PATIENCE).unwrap();
    let reply = match first {
        Ok(reply) => reply,
        Err(_) => client.receive().unwrap(),
    };
    assert!(matches!(reply, Message::Reply(reply) if reply.code() == 0));
    is_answered
}

#[test]
fn a_read_is_answered_by_one_server_alone_unless_reads_are_linearizable() {
    assert!(is_answered_by_one_server_alone(
        None,
        &get_data("/x", false)
    ));
    if product() == Product::Quorate {
        let setting = Some("quorate.linearizableReads");
        assert!(!is_answered_by_one_server_alone(
            setting,
            &get_data("/x", false)
        ));
    }
}

/// Apache ZooKeeper's followers answer pings by themselves.
#[test]
fn neither_a_ping_nor_a_sync_is_answered_without_a_majority() {
    if product() == Product::Quorate {
        assert!(!is_answered_by_one_server_alone(None, &Request::Ping));
        assert!(!is_answered_by_one_server_alone(None, &sync("/x")));
    }
}

/// A read on a follower is no business of the leader, but that the session lives is.
#[test]
fn a_session_that_only_reads_from_a_follower_does_not_expire() {
    const SHORT_MS: i32 = 1_000;
    let mut ensemble = ensemble(3, None);
    ensemble.start().unwrap();
    let id = ensemble.follower().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut client = loop {
        match Connection::open(ensemble.address(id), SHORT_MS) {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(client.session().timeout_ms, SHORT_MS);
    let until = Instant::now() + 5 * Duration::from_millis(SHORT_MS.unsigned_abs().into());
    while Instant::now() < until {
        let reply = client.call(&get_data("/", false)).unwrap();
        assert_eq!(reply.code(), 0);
    }
    // Through the log, which knows whether the session has ended.
    assert_eq!(client.call(&create("/alive", b"", 1)).unwrap().code(), 0);
}

/// It hears from its leader all the time, and neither knows what the others have agreed on since.
#[test]
fn a_follower_whose_leader_has_lost_the_majority_stops_serving() {
    if product() != Product::Quorate {
        return;
    }
    let mut ensemble = ensemble(5, None);
    let leader = ensemble.start().unwrap();
    let id = ensemble.follower().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut client = loop {
        match Connection::open(ensemble.address(id), SESSION_MS) {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    let others = ensemble.ids().into_iter();
    let others: Vec<u64> = others
        .filter(|other| *other != id && *other != leader)
        .collect();
    for other in &others {
        ensemble.freeze(*other).unwrap();
    }
    client.set_silence(PATIENCE).unwrap();
    // Reads are answered for a while, and then the connection ends.
    let ended = loop {
        assert!(Instant::now() < deadline, "it serves on");
        match client.call(&get_data("/", false)) {
            Ok(reply) => assert_eq!(reply.code(), 0),
            Err(error) => break error,
        }
    };
    assert!(is_closed(&ended), "{ended}");
    ensemble
        .wait_for("it to say so", &[id, leader], |roles| {
            roles.values().all(Option::is_none).then_some(())
        })
        .unwrap();
    for other in others {
        ensemble.thaw(other).unwrap();
    }
    ensemble.wait_until_all_serve().unwrap();
}
