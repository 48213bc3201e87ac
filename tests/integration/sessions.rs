//! Sessions, as clients meet them: expiry, resuming, order of answers and events.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::handshake::ConnectRequest;
use quorate_protocol::{EventType, Request, Response, Zxid};
use quorate_tests::client::{
    Connection, EPHEMERAL, Message, connect_frame, create, delete, exists, get_children, get_data,
    hello, request_frame, set_data, sync,
};

use crate::harness::Node;
use crate::model::NO_NODE;

const TICK: Duration = Duration::from_millis(200);
/// A busy machine's own delays.
const SLACK: Duration = Duration::from_millis(1_500);

/// Never earlier than the timeout; later by a tick for rounding and half a tick for looking.
#[test]
fn a_silent_session_expires_after_its_timeout_and_not_much_later() {
    let node = Node::new().started();
    for timeout in [Duration::from_millis(400), Duration::from_millis(1_000)] {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap();
        let mut witness = node.connect();
        let mut silent = node.connect_for(timeout_ms);
        assert_eq!(silent.session().timeout_ms, timeout_ms);
        silent.call(&create("/e", b"", EPHEMERAL)).unwrap();
        witness.call(&exists("/e", true)).unwrap();
        witness.call(&get_children("/", true)).unwrap();
        // The last touch comes after the moment this is sent, and before its answer is here.
        let before = Instant::now();
        silent.call(&Request::Ping).unwrap();
        let after = Instant::now();
        let mut events = [witness.next_event().unwrap(), witness.next_event().unwrap()];
        let expired = Instant::now();
        events.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(
            (events[0].kind, &*events[0].path),
            (EventType::NodeChildrenChanged, "/")
        );
        assert_eq!(
            (events[1].kind, &*events[1].path),
            (EventType::NodeDeleted, "/e")
        );
        assert_eq!(events[0].zxid, events[1].zxid, "one entry ends a session");
        assert!(
            expired - before >= timeout,
            "{:?} is too early",
            expired - before
        );
        let latest = timeout + TICK + TICK / 2 + SLACK;
        assert!(
            expired - after <= latest,
            "{:?} is too late",
            expired - after
        );
        // The socket closes, and nothing is said.
        assert!(silent.read_to_close().unwrap().is_empty());
        let session = silent.session();
        assert!(
            Connection::resume(node.address(), &session, 0)
                .unwrap()
                .is_none()
        );
        assert_eq!(witness.call(&exists("/e", false)).unwrap().code(), NO_NODE);
    }
}

#[test]
fn any_request_keeps_a_session_alive() {
    let node = Node::new().started();
    let timeout = Duration::from_millis(600);
    let requests: Vec<(&str, Request)> = vec![
        ("ping", Request::Ping),
        ("read", get_data("/", false)),
        ("failed read", get_data("/none", false)),
        ("write", set_data("/", b"", -1)),
        ("refused write", delete("/none", -1)),
        ("sync", sync("/")),
        ("who am I", Request::WhoAmI),
    ];
    std::thread::scope(|scope| {
        for (name, request) in requests {
            let mut client = node.connect_for(600);
            scope.spawn(move || {
                let begun = Instant::now();
                while begun.elapsed() < timeout * 4 {
                    // No event to wait for: the point is to be silent for a part of the timeout.
                    std::thread::sleep(timeout / 4);
                    client
                        .call(&request)
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                }
            });
        }
    });
}

#[test]
fn resuming_closes_the_first_connection_and_its_late_writes_are_not_applied() {
    let node = Node::new().started();
    let mut first = node.connect();
    first.call(&create("/late", b"0", 0)).unwrap();
    first.call(&create("/e", b"", EPHEMERAL)).unwrap();
    let session = first.session();
    for round in 0..20 {
        // Half of them race with the resuming; the rest come when it is over.
        let racing: Vec<Request> = (0..50).map(|_| set_data("/late", b"old", -1)).collect();
        let _ = first.send_all(&racing);
        let mut second = Connection::resume(node.address(), &session, first.last_zxid)
            .unwrap()
            .expect("the session is alive");
        let mine = second.call(&set_data("/late", b"new", -1)).unwrap();
        let stat = mine.stat().unwrap();
        let _ = first.send_all(&racing);
        let answered = first.read_to_close().unwrap().len();
        let now = second.call(&get_data("/late", false)).unwrap();
        assert_eq!(now.data(), Some(&b"new"[..]), "round {round}");
        assert_eq!(now.stat().unwrap().version, stat.version, "round {round}");
        assert!(answered <= 50, "late writes were answered");
        assert_eq!(
            second
                .call(&exists("/e", false))
                .unwrap()
                .stat()
                .unwrap()
                .ephemeral_owner,
            session.id.get()
        );
        first = second;
    }
}

#[test]
fn a_wrong_password_is_refused_and_leaves_the_live_connection_alone() {
    let node = Node::new().started();
    let mut client = node.connect();
    client.call(&create("/e", b"", EPHEMERAL)).unwrap();
    let session = client.session();
    let right = session.password.as_bytes();
    let mut almost = *right;
    almost[15] ^= 1;
    for password in [
        Some(Bytes::copy_from_slice(&almost)),
        Some(Bytes::copy_from_slice(&right[..15])),
        Some(Bytes::from_static(&[0; 16])),
        Some(Bytes::new()),
        None,
    ] {
        let mut other = Connection::dial(node.address()).unwrap();
        let request = ConnectRequest {
            session_id: Some(session.id),
            password: password.clone(),
            ..hello(5_000)
        };
        let answer = other.handshake(&request).unwrap().expect("it says no");
        assert_eq!(
            (answer.timeout_ms, answer.session_id),
            (0, None),
            "{password:?}"
        );
        assert_eq!(answer.password.as_bytes(), &[0; 16]);
        assert!(other.read_to_close().unwrap().is_empty());
        assert_eq!(client.call(&set_data("/e", b"", -1)).unwrap().code(), 0);
    }
}

#[test]
fn a_client_that_has_seen_the_future_is_closed_without_a_word() {
    let node = Node::new().started();
    let mut client = node.connect();
    client.call(&create("/a", b"", 0)).unwrap();
    for (zxid, session) in [
        (client.last_zxid + 1_000_000, None),
        (i64::MAX, None),
        (i64::MAX, Some(client.session().id)),
    ] {
        let mut other = Connection::dial(node.address()).unwrap();
        let request = ConnectRequest {
            last_zxid_seen: Zxid(zxid),
            session_id: session,
            password: Some(Bytes::copy_from_slice(client.session().password.as_bytes())),
            ..hello(5_000)
        };
        assert_eq!(other.handshake(&request).unwrap(), None, "{zxid:#x}");
        assert_eq!(client.call(&Request::Ping).unwrap().code(), 0);
    }
    // As new as the server is new enough.
    let again = Connection::resume(node.address(), &client.session(), client.last_zxid).unwrap();
    assert!(again.is_some());
}

#[test]
fn the_read_only_byte_is_answered_when_it_was_sent_and_only_then() {
    let node = Node::new().started();
    for (read_only, sent, answered) in [(None, 44, 36), (Some(false), 45, 37), (Some(true), 45, 37)]
    {
        let request = ConnectRequest {
            read_only,
            ..hello(5_000)
        };
        let frame = connect_frame(&request);
        assert_eq!(frame.len(), 4 + sent);
        let mut connection = Connection::dial(node.address()).unwrap();
        connection.send_raw(&frame).unwrap();
        let answer = connection.next_frame().unwrap().expect("a session");
        assert_eq!(answer.len(), answered, "{read_only:?}");
        if answered == 37 {
            assert_eq!(answer[36], 0, "this server takes writes");
        }
        // The session works either way.
        let bytes = request_frame(7, &Request::Ping);
        connection.expect_reply(7, quorate_protocol::OpCode::Ping);
        connection.send_raw(&bytes).unwrap();
        assert!(matches!(connection.receive().unwrap(), Message::Reply(_)));
    }
}

#[test]
fn requests_behind_the_connect_request_wait_for_the_session_and_are_answered_in_order() {
    let node = Node::new().started();
    let mut connection = Connection::dial(node.address()).unwrap();
    let mut bytes = connect_frame(&hello(5_000));
    let requests = [
        create("/behind", b"1", EPHEMERAL),
        get_data("/behind", false),
        set_data("/behind", b"2", 0),
        get_data("/behind", false),
        Request::Ping,
    ];
    for (xid, request) in (1..).zip(&requests) {
        bytes.extend_from_slice(&request_frame(xid, request));
        connection.expect_reply(xid, request.op());
    }
    connection.send_raw(&bytes).unwrap();
    connection.read_welcome().unwrap().expect("a session");
    let mut replies = Vec::new();
    while replies.len() < requests.len() {
        match connection.receive().unwrap() {
            Message::Reply(reply) => replies.push(reply),
            other => panic!("{other:?}"),
        }
    }
    assert!(replies.iter().all(|reply| reply.code() == 0), "{replies:?}");
    assert_eq!(replies[1].data(), Some(&b"1"[..]));
    assert_eq!(replies[3].data(), Some(&b"2"[..]));
    let owner = replies[3].stat().unwrap().ephemeral_owner;
    assert_eq!(owner, connection.session().id.get());
}

/// Compatibility 1.6 and invariants I8 and I9.
#[test]
fn pipelined_reads_see_own_writes_and_zxids_rise() {
    let node = Node::new().started();
    let mut client = node.connect();
    client.call(&create("/own", b"", 0)).unwrap();
    let values: Vec<Vec<u8>> = (0..200)
        .map(|n| format!("value {n}").into_bytes())
        .collect();
    let requests: Vec<Request> = values
        .iter()
        .flat_map(|value| [set_data("/own", value, -1), get_data("/own", false)])
        .collect();
    client.send_all(&requests).unwrap();
    let mut last = 0;
    for value in &values {
        for kind in ["set", "get"] {
            let Message::Reply(reply) = client.receive().unwrap() else {
                panic!("no reply");
            };
            assert!(
                reply.zxid > last || kind == "get" && reply.zxid == last,
                "{reply:?}"
            );
            last = reply.zxid;
            if kind == "get" {
                assert_eq!(reply.data(), Some(&value[..]));
            }
        }
    }
}

/// Compatibility 3.4: one stream of frames, in which no reply shows what an event has yet to tell.
#[test]
fn events_come_before_any_reply_that_shows_their_change() {
    let node = Node::new().started();
    let mut writer = node.connect();
    let mut reader = node.connect();
    writer.call(&create("/w", b"", 0)).unwrap();
    reader.call(&get_data("/w", true)).unwrap();
    let mut known_version = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..500 {
                writer.call(&set_data("/w", b"", -1)).unwrap();
            }
        });
        while known_version < 500 {
            // The watch is set while known_version is current; the event must come first.
            reader
                .send_all(&[get_data("/w", false), get_data("/w", true)])
                .unwrap();
            let mut armed = true;
            let mut replies = 0;
            while replies < 2 {
                match reader.receive().unwrap() {
                    Message::Event(event) => {
                        assert!(armed, "one event for one watch");
                        assert_eq!(event.kind, EventType::NodeDataChanged);
                        armed = false;
                    }
                    Message::Reply(reply) => {
                        replies += 1;
                        let version = reply.stat().unwrap().version;
                        assert!(version >= known_version, "a read goes back");
                        assert!(
                            version == known_version || !armed,
                            "version {version} was shown before the event of {known_version}"
                        );
                        known_version = version;
                        if replies == 2 {
                            armed = true;
                        }
                    }
                    Message::Closed => panic!("closed"),
                }
            }
        }
    });
}

#[test]
fn events_of_own_writes_come_before_the_reply() {
    let node = Node::new().started();
    let mut client = node.connect();
    client.call(&exists("/own", true)).unwrap();
    client.call(&get_children("/", true)).unwrap();
    client.send(&create("/own", b"", 0)).unwrap();
    let mut seen = Vec::new();
    loop {
        match client.receive().unwrap() {
            Message::Event(event) => seen.push((event.kind, event.path, event.zxid)),
            Message::Reply(reply) => {
                assert!(
                    seen.iter().all(|(_, _, zxid)| *zxid == reply.zxid),
                    "{seen:?}"
                );
                break;
            }
            Message::Closed => panic!("closed"),
        }
    }
    seen.sort_by(|a, b| a.1.cmp(&b.1));
    let seen: Vec<(EventType, &str)> = seen.iter().map(|(k, p, _)| (*k, &**p)).collect();
    assert_eq!(
        seen,
        [
            (EventType::NodeChildrenChanged, "/"),
            (EventType::NodeCreated, "/own")
        ]
    );
}

/// Compatibility 5.6: the reply comes, then the end; what was pipelined behind it is not looked at.
#[test]
fn closing_answers_ends_and_ignores_what_follows() {
    let node = Node::new().started();
    let mut witness = node.connect();
    let mut client = node.connect();
    client.call(&create("/mine", b"", EPHEMERAL)).unwrap();
    client.call(&exists("/mine", true)).unwrap();
    witness.call(&exists("/mine", true)).unwrap();
    client
        .send_all(&[
            set_data("/mine", b"x", -1),
            Request::CloseSession,
            create("/after", b"", 0),
            Request::Ping,
        ])
        .unwrap();
    let seen = client.read_to_close().unwrap();
    let shown: Vec<String> = seen
        .iter()
        .map(|message| match message {
            Message::Event(event) => format!("{:?}", event.kind),
            Message::Reply(reply) => match &reply.result {
                Ok(Response::Empty) => "closed".to_owned(),
                Ok(_) => "answer".to_owned(),
                Err(code) => code.to_string(),
            },
            Message::Closed => "end".to_owned(),
        })
        .collect();
    assert_eq!(shown, ["NodeDataChanged", "answer", "closed"]);
    assert_eq!(
        witness.next_event().unwrap().kind,
        EventType::NodeDataChanged
    );
    assert_eq!(
        witness.call(&exists("/mine", false)).unwrap().code(),
        NO_NODE
    );
    assert_eq!(
        witness.call(&exists("/after", false)).unwrap().code(),
        NO_NODE
    );
    let session = client.session();
    assert!(
        Connection::resume(node.address(), &session, 0)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_client_that_watches_its_own_ephemerals_hears_of_them_before_the_close_is_answered() {
    let node = Node::new().started();
    let mut client = node.connect();
    for path in ["/e1", "/e2", "/e3"] {
        client.call(&create(path, b"", EPHEMERAL)).unwrap();
        client.call(&exists(path, true)).unwrap();
    }
    client.send(&Request::CloseSession).unwrap();
    let seen = client.read_to_close().unwrap();
    let (last, events) = seen.split_last().unwrap();
    assert!(
        matches!(last, Message::Reply(reply) if reply.code() == 0),
        "{seen:?}"
    );
    assert_eq!(events.len(), 3);
    for event in events {
        assert!(
            matches!(event, Message::Event(event) if event.kind == EventType::NodeDeleted),
            "{event:?}"
        );
    }
}

#[test]
fn a_session_that_others_close_while_it_is_idle_keeps_none_of_its_ephemerals() {
    let node = Node::new().started();
    let mut witness = node.connect();
    for round in 0..30 {
        let mut client = node.connect();
        let path = format!("/r{round}");
        client
            .send_all(&[create(&path, b"", EPHEMERAL), Request::CloseSession])
            .unwrap();
        // Resuming while the close is on its way either comes first or finds no session.
        let resumed = Connection::resume(node.address(), &client.session(), 0).unwrap();
        if let Some(mut resumed) = resumed {
            let reply = resumed.call(&Request::CloseSession);
            assert!(reply.is_ok_and(|reply| reply.code() == 0) || resumed.waiting() > 0);
        }
        witness.call(&sync("/")).unwrap();
        assert_eq!(
            witness.call(&exists(&path, false)).unwrap().code(),
            NO_NODE,
            "{round}"
        );
    }
}

#[test]
fn sync_answers_its_path_and_what_follows_is_as_new() {
    let node = Node::new().started();
    let mut writer = node.connect();
    let mut reader = node.connect();
    writer.call(&create("/s", b"", 0)).unwrap();
    for _ in 0..100 {
        let written = writer.call(&set_data("/s", b"", -1)).unwrap();
        reader
            .send_all(&[sync("/anything"), get_data("/s", false)])
            .unwrap();
        let Message::Reply(synced) = reader.receive().unwrap() else {
            panic!("no reply");
        };
        assert_eq!(synced.path(), Some("/anything"));
        assert!(synced.zxid >= written.zxid);
        let Message::Reply(read) = reader.receive().unwrap() else {
            panic!("no reply");
        };
        assert_eq!(
            read.stat().unwrap().version,
            written.stat().unwrap().version
        );
    }
}

#[test]
fn timeouts_are_granted_within_bounds_and_anew_when_resuming() {
    let node = Node::new().with("maxSessionTimeout", "9000").started();
    for (asked, granted) in [
        (0, 200),
        (-5, 200),
        (199, 200),
        (5_000, 5_000),
        (i32::MAX, 9_000),
    ] {
        assert_eq!(
            node.connect_for(asked).session().timeout_ms,
            granted,
            "{asked}"
        );
    }
    let client = node.connect_for(4_000);
    let longer = quorate_tests::client::Session {
        timeout_ms: 8_000,
        ..client.session()
    };
    let again = Connection::resume(node.address(), &longer, 0)
        .unwrap()
        .unwrap();
    assert_eq!(again.session().timeout_ms, 8_000);
    assert_eq!(again.session().id, client.session().id);
}

/// Fault F12: a server that was stopped itself cannot tell who was silent meanwhile.
#[test]
fn a_server_that_was_paused_expires_nobody_who_went_on_talking() {
    let node = Node::new().started();
    let mut clients: Vec<Connection> = (0..40).map(|_| node.connect_for(600)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let path = format!("/paused{number}");
        client.call(&create(&path, b"", EPHEMERAL)).unwrap();
    }
    for _ in 0..3 {
        node.signal("STOP");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1_500) {
            for client in &mut clients {
                client.send(&Request::Ping).unwrap();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        node.signal("CONT");
        for client in &mut clients {
            while client.waiting() > 0 {
                let message = client.receive().unwrap();
                assert!(matches!(message, Message::Reply(_)), "{message:?}");
            }
        }
    }
    let mut witness = node.connect();
    let children = witness.call(&get_children("/", false)).unwrap();
    let count = children
        .children()
        .unwrap()
        .iter()
        .filter(|name| name.starts_with("paused"));
    assert_eq!(count.count(), 40);
    // Those who really are silent expire all the same.
    drop(clients);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let reply = witness.call(&get_children("/", true)).unwrap();
        if !reply
            .children()
            .unwrap()
            .iter()
            .any(|name| name.starts_with("paused"))
        {
            break;
        }
        assert!(Instant::now() < deadline, "immortal sessions");
        witness.next_event().unwrap();
    }
}
