//! Sessions that others reach for: wrong passwords, takeovers, packets that come too late.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{Password, Request, SessionId, Zxid};
use quorate_tests::client::{
    Connection, EPHEMERAL, Message, Session, create, exists, get_data, hello, request_frame,
    set_data,
};

use super::neighbour::Neighbour;
use crate::harness::Node;

const NO_NODE: i32 = -101;

fn resume_with(
    address: SocketAddr,
    id: i64,
    password: Option<Bytes>,
) -> std::io::Result<Option<ConnectResponse>> {
    let mut stranger = Connection::dial(address)?;
    stranger.handshake(&ConnectRequest {
        session_id: SessionId::new(id),
        password,
        ..hello(5_000)
    })
}

/// A session with an ephemeral of its own.
fn owner(node: &Node, path: &str) -> Connection {
    let mut client = node.connect_for(10_000);
    let made = client.call(&create(path, b"", EPHEMERAL)).unwrap();
    assert_eq!(made.code(), 0);
    client
}

#[test]
fn whoever_does_not_know_the_password_is_refused_and_the_session_does_not_notice() {
    let node = Node::new().started();
    let mut victim = owner(&node, "/mine");
    let Session { id, password, .. } = victim.session();
    let right = password.as_bytes().to_vec();
    let mut wrong: Vec<Option<Vec<u8>>> = vec![
        None,
        Some(Vec::new()),
        Some(vec![0; 16]),
        Some(vec![0xff; 16]),
        Some(right[..15].to_vec()),
        Some([&right[..], &[0]].concat()),
        Some([&right[..], &right[..]].concat()),
        Some(vec![7; 2_000]),
    ];
    for bit in (0..128).step_by(11) {
        let mut flipped = right.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        wrong.push(Some(flipped));
    }
    let mut refused = 0;
    for password in wrong {
        let answer = resume_with(node.address(), id.get(), password.clone().map(Bytes::from));
        let answer = answer.unwrap().expect("an answer");
        assert_eq!(
            answer,
            ConnectResponse::expired(Some(false)),
            "{password:?}"
        );
        assert_eq!(victim.call(&Request::Ping).unwrap().code(), 0);
        refused += 1;
    }
    // The right password of another session.
    let id = id.get();
    for other in [id + 1, id - 1, -id, !id, 1, i64::MAX, i64::MIN] {
        let answer = resume_with(node.address(), other, Some(right.clone().into()));
        let answer = answer.unwrap().expect("an answer");
        assert_eq!(answer, ConnectResponse::expired(Some(false)), "{other:#x}");
        refused += 1;
    }
    assert_eq!(refused, 27);
    let mine = victim.call(&exists("/mine", false)).unwrap();
    assert_eq!(mine.stat().unwrap().ephemeral_owner, id);
}

#[test]
fn a_client_from_the_future_is_turned_away_and_its_session_lives_on() {
    let node = Node::new().started();
    let mut victim = owner(&node, "/mine");
    let session = victim.session();
    for zxid in [i64::MAX, i64::MAX - 1, 1 << 40] {
        let begun = Instant::now();
        let mut early = Connection::dial(node.address()).unwrap();
        let request = ConnectRequest {
            last_zxid_seen: Zxid(zxid),
            session_id: Some(session.id),
            password: Some(Bytes::copy_from_slice(session.password.as_bytes())),
            ..hello(5_000)
        };
        assert_eq!(early.handshake(&request).unwrap(), None, "{zxid:#x}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{zxid:#x}");
        assert_eq!(victim.call(&Request::Ping).unwrap().code(), 0);
    }
    // A client from before all time has missed nothing that matters.
    for zxid in [i64::MIN, -1, 0] {
        let mut late = Connection::dial(node.address()).unwrap();
        let request = ConnectRequest {
            last_zxid_seen: Zxid(zxid),
            ..hello(5_000)
        };
        let welcome = late.handshake(&request).unwrap().expect("a session");
        assert!(welcome.session_id.is_some(), "{zxid}");
    }
    assert_eq!(victim.call(&exists("/mine", false)).unwrap().code(), 0);
}

#[test]
fn session_timeouts_out_of_bounds_are_moved_into_them() {
    let node = Node::new().started();
    for (asked, granted) in [
        (i32::MIN, 200),
        (-1, 200),
        (0, 200),
        (199, 200),
        (60_001, 60_000),
        (i32::MAX, 60_000),
    ] {
        let mut client = Connection::dial(node.address()).unwrap();
        let welcome = client.handshake(&hello(asked)).unwrap().expect("a session");
        assert_eq!(welcome.timeout_ms, granted, "{asked}");
    }
}

/// Fault F23. From the moment a session has moved on, nothing that its old connection sends counts,
/// however early it was sent.
#[test]
fn a_session_that_moves_from_connection_to_connection_leaves_the_late_packets_of_each_behind() {
    const ROUNDS: usize = 40;
    const WRITES: usize = 100;
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let mut current = owner(&node, "/mine");
    let session = current.session();
    current.call(&create("/counter", b"", 0)).unwrap();
    let mut version = 0;
    let mut before: Vec<Connection> = Vec::new();
    for round in 0..ROUNDS {
        // These are under way while the session moves; some first part of them counts.
        current
            .send_all(&vec![set_data("/counter", b"old", -1); WRITES])
            .unwrap();
        let mut next = Connection::resume(node.address(), &session, 0)
            .unwrap()
            .expect("the session lives");
        let moved = next.call(&get_data("/counter", false)).unwrap();
        let done = moved.stat().unwrap().version - version;
        assert!((0..=100).contains(&done), "round {round}: {done}");
        version += done;
        // These come too late, from each connection it ever had.
        let late = request_frame(9_999, &set_data("/counter", b"late", -1));
        for old in before.iter_mut().chain([&mut current]) {
            // Most are closed already.
            let _ = old.send_raw(&late);
            let _ = old.send_raw(&request_frame(9_999, &Request::CloseSession));
        }
        current.expect_reply(9_999, late_op());
        current.expect_reply(9_999, close_op());
        let answers = current.read_to_close().unwrap();
        let acknowledged = answers
            .iter()
            .filter(|answer| matches!(answer, Message::Reply(reply) if reply.code() == 0))
            .count();
        assert!(
            acknowledged <= usize::try_from(done).unwrap(),
            "round {round}: {acknowledged} acknowledged, {done} done"
        );
        let set = next.call(&set_data("/counter", b"new", version)).unwrap();
        assert_eq!(set.code(), 0, "round {round}: nobody else has written");
        version += 1;
        before.push(std::mem::replace(&mut current, next));
        neighbour.goes_on("a takeover");
    }
    let mine = current.call(&exists("/mine", false)).unwrap();
    assert_eq!(mine.stat().unwrap().ephemeral_owner, session.id.get());
    let closed = current.call(&Request::CloseSession).unwrap();
    assert_eq!(closed.code(), 0);
    let gone = neighbour.client.call(&exists("/mine", false)).unwrap();
    assert_eq!(gone.code(), NO_NODE);
    let read = neighbour.client.call(&get_data("/counter", false)).unwrap();
    assert_eq!(read.stat().unwrap().version, version);
}

fn late_op() -> quorate_protocol::OpCode {
    quorate_protocol::OpCode::SetData
}

fn close_op() -> quorate_protocol::OpCode {
    quorate_protocol::OpCode::CloseSession
}

#[test]
fn many_who_fight_for_one_session_end_with_one_of_them_having_it() {
    const WINS: usize = 50;
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let first = owner(&node, "/mine");
    let session = first.session();
    let address = node.address();
    let won = AtomicUsize::new(0);
    let fight = || {
        while won.load(Ordering::Relaxed) < WINS {
            // Somebody else may take it before the answer has come.
            match Connection::resume(address, &session, 0) {
                Ok(Some(mut connection)) => {
                    won.fetch_add(1, Ordering::Relaxed);
                    let _ = connection.call(&Request::Ping);
                }
                Ok(None) => panic!("the session is said to have ended"),
                Err(_) => {}
            }
        }
    };
    thread::scope(|scope| {
        let fighters: Vec<_> = (0..8).map(|_| scope.spawn(fight)).collect();
        while fighters.iter().any(|fighter| !fighter.is_finished()) {
            neighbour.goes_on("a fight for a session");
        }
    });
    let mut last = Connection::resume(address, &session, 0).unwrap().unwrap();
    let mine = last.call(&exists("/mine", false)).unwrap();
    assert_eq!(mine.stat().unwrap().ephemeral_owner, session.id.get());
}

/// A session that is closed stays closed: its password opens nothing, its packets do nothing.
#[test]
fn a_closed_session_cannot_be_brought_back() {
    let node = Node::new().started();
    let mut client = owner(&node, "/mine");
    let session = client.session();
    // What is sent behind a close is not looked at.
    client.send(&Request::CloseSession).unwrap();
    let _ = client.send_raw(&request_frame(5, &create("/after", b"", 0)));
    let answers = client.read_to_close().unwrap();
    assert_eq!(answers.len(), 1);
    let resumed = Connection::resume(node.address(), &session, 0).unwrap();
    assert!(resumed.is_none());
    let mut other = node.connect();
    for path in ["/mine", "/after"] {
        let gone = other.call(&exists(path, false)).unwrap();
        assert_eq!(gone.code(), NO_NODE, "{path}");
    }
    let unknown = Session {
        password: Password::new([7; 16]),
        ..session
    };
    let resumed = Connection::resume(node.address(), &unknown, 0).unwrap();
    assert!(resumed.is_none());
}
