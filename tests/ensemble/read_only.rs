//! Reading without a majority, for clients that agree to it (compatibility reference, 5.9).

use std::time::{Duration, Instant};

use quorate_protocol::handshake::ConnectRequest;
use quorate_protocol::{ErrorCode, Request};
use quorate_tests::client::{
    Connection, Message, Session, create, exists, get_data, hello, set_data, sync,
};
use quorate_tests::ensemble::{Ensemble, PATIENCE};

use crate::scene::{ensemble, product};
use quorate_tests::server::Product;

const SESSION_MS: i32 = 40_000;

fn agreeing() -> ConnectRequest {
    ConnectRequest {
        read_only: Some(true),
        ..hello(SESSION_MS)
    }
}

fn wait_for_word(ensemble: &Ensemble, id: u64, word: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = ensemble.word(id, word).unwrap_or_default();
        if said.contains(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{word} says {said:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_without_a_majority_serves_readers_that_agree() {
    // Apache ZooKeeper takes the setting from the command line of Java only.
    if product() == Product::ApacheZookeeper {
        return;
    }
    let mut ensemble = ensemble(3, None).with("readonlymode.enabled", "true");
    ensemble.start().unwrap();
    let id = ensemble.follower().unwrap();
    let address = ensemble.address(id);
    let mut global = loop {
        match Connection::open(address, SESSION_MS) {
            Ok(client) => break client,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!(global.call(&create("/x", b"old", 0)).unwrap().code(), 0);
    assert_eq!(ensemble.word(id, "isro").unwrap(), "rw");
    for other in (1..=3).filter(|other| *other != id) {
        ensemble.kill(other);
    }
    wait_for_word(&ensemble, id, "isro", "ro");
    let srvr = ensemble.word(id, "srvr").unwrap();
    let second = srvr.lines().nth(1).unwrap_or_default();
    assert_eq!(second, "READ-ONLY mode; serving only read-only clients");
    assert!(srvr.contains("\nMode: read-only\n"), "{srvr}");
    let deadline = Instant::now() + PATIENCE;
    while !matches!(global.receive(), Ok(Message::Closed) | Err(_)) {
        assert!(Instant::now() < deadline, "a session of the ensemble stays");
    }

    // Who does not agree is turned away, and so is who has a session of the ensemble.
    assert!(Connection::open(address, SESSION_MS).is_err());
    let mut resumed = Connection::dial(address).unwrap();
    let with_session = ConnectRequest {
        session_id: Some(global.session().id),
        password: Some(global.session().password.as_bytes().to_vec().into()),
        ..agreeing()
    };
    assert!(resumed.handshake(&with_session).unwrap().is_none());

    let mut reader = Connection::dial(address).unwrap();
    let welcome = reader.handshake(&agreeing()).unwrap().unwrap();
    assert_eq!(welcome.read_only, Some(true));
    let local = reader.session();
    let reply = reader.call(&get_data("/x", true)).unwrap();
    assert_eq!(reply.data(), Some(&b"old"[..]));
    assert_eq!(reader.call(&exists("/y", true)).unwrap().code(), -101);
    assert_eq!(reader.call(&Request::Ping).unwrap().code(), 0);
    let refused = ErrorCode::NotReadOnly.code();
    for request in [
        create("/y", b"", 0),
        create("/y", b"", 1),
        set_data("/x", b"new", -1),
        sync("/x"),
    ] {
        assert_eq!(
            reader.call(&request).unwrap().code(),
            refused,
            "{request:?}"
        );
    }
    let mut leaving = Connection::dial(address).unwrap();
    leaving.handshake(&agreeing()).unwrap().unwrap();
    assert_eq!(leaving.call(&Request::CloseSession).unwrap().code(), 0);

    // With a majority, it is over with reading only.
    ensemble.start().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !matches!(reader.receive(), Ok(Message::Closed) | Err(_)) {
        assert!(Instant::now() < deadline, "the reader stays");
    }
    wait_for_word(&ensemble, id, "isro", "rw");
    let resume = |session: &Session| -> Option<Connection> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Connection::resume(ensemble.address(id), session, 0) {
                Ok(resumed) => return resumed,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    assert!(resume(&local).is_none(), "nobody knows it any more");
    let mut global = resume(&global.session()).expect("it lives on");
    assert_eq!(global.call(&set_data("/x", b"new", -1)).unwrap().code(), 0);
}

#[test]
fn without_the_setting_nobody_is_served_without_a_majority() {
    let mut ensemble = ensemble(3, None);
    ensemble.start().unwrap();
    let id = ensemble.follower().unwrap();
    for other in (1..=3).filter(|other| *other != id) {
        ensemble.kill(other);
    }
    wait_for_word(&ensemble, id, "srvr", "not currently serving");
    let mut reader = Connection::dial(ensemble.address(id)).unwrap();
    assert!(!matches!(reader.handshake(&agreeing()), Ok(Some(_))));
}
