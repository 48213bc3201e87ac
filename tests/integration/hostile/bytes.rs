//! Bytes no client should send: each is answered or ends its own connection, and nobody else's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_protocol::multi::{MultiOp, ReadOp};
use quorate_protocol::request::{
    Auth, Check, CreateTtl, GetEphemerals, PathOnly, Reconfig, Sasl, SetAcl, SetWatches,
    SetWatches2, Watched, WatchesOfType,
};
use quorate_protocol::{AclEntry, OpCode, Request, Zxid};
use quorate_tests::client::{
    Connection, Message, add_watch, check, connect_frame, create, create_record, delete,
    delete_record, exists, get_children, get_data, hello, request_frame, set_data, set_record,
    sync,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::neighbour::Neighbour;
use crate::harness::{Node, seed};

const MARSHALLING_ERROR: i32 = -5;
const UNIMPLEMENTED: i32 = -6;
/// An answer or the end of the connection has to come within this, on a busy machine.
const ANSWER: Duration = Duration::from_secs(10);

/// One request of every kind, none of which changes anything that matters.
pub(super) fn every_request() -> Vec<Request> {
    let path = || PathOnly {
        path: "/x".to_owned(),
    };
    let watched = || Watched {
        path: "/x".to_owned(),
        watch: false,
    };
    let of_type = || WatchesOfType {
        path: "/x".to_owned(),
        watcher_type: 3,
    };
    let requests = vec![
        create("/x", b"data", 0),
        Request::Create2(create_record("/x", b"data", 0)),
        Request::CreateContainer(create_record("/x", b"data", 4)),
        Request::CreateTtl(CreateTtl {
            path: "/x".to_owned(),
            data: Some(Bytes::from_static(b"data")),
            acl: vec![AclEntry::open()],
            flags: 5,
            ttl_ms: 60_000,
        }),
        delete("/x", -1),
        set_data("/x", b"data", -1),
        Request::SetAcl(SetAcl {
            path: "/x".to_owned(),
            acl: vec![AclEntry::open()],
            version: -1,
        }),
        // It stands inside a multi only, and is refused here.
        Request::Check(Check {
            path: "/x".to_owned(),
            version: -1,
        }),
        Request::Multi(vec![
            MultiOp::Create(create_record("/x/y", b"data", 0)),
            MultiOp::CreateTtl(CreateTtl {
                path: "/x/z".to_owned(),
                data: None,
                acl: vec![AclEntry::open()],
                flags: 5,
                ttl_ms: 60_000,
            }),
            MultiOp::SetData(set_record("/x", b"data", -1)),
            check("/x", -1),
            MultiOp::Delete(delete_record("/x/y", -1)),
            MultiOp::Delete(delete_record("/x/z", -1)),
        ]),
        Request::MultiRead(vec![
            ReadOp::GetData(watched()),
            ReadOp::GetChildren(watched()),
        ]),
        exists("/x", false),
        get_data("/x", false),
        Request::GetChildren(watched()),
        get_children("/x", false),
        Request::GetAcl(path()),
        Request::GetAllChildrenNumber(path()),
        Request::GetEphemerals(GetEphemerals {
            prefix: Some("/x".to_owned()),
        }),
        sync("/x"),
        Request::Ping,
        Request::PingWithQuestion,
        Request::WhoAmI,
        Request::Reconfig(Reconfig {
            joining: Some("server.9=h:1:2".to_owned()),
            leaving: None,
            new_members: None,
            config_version: -1,
        }),
        Request::CheckWatches(of_type()),
        Request::RemoveWatches(of_type()),
        Request::SetWatches(SetWatches {
            relative_zxid: Zxid(1),
            data: vec!["/x".to_owned()],
            exist: vec![],
            child: vec![],
        }),
        Request::SetWatches2(SetWatches2 {
            relative_zxid: Zxid(1),
            data: vec!["/x".to_owned()],
            exist: vec![],
            child: vec![],
            persistent: vec!["/x".to_owned()],
            persistent_recursive: vec![],
        }),
        add_watch("/x", true),
        Request::Auth(Auth {
            auth_type: 0,
            scheme: Some("digest".to_owned()),
            auth: Some(Bytes::from_static(b"user:password")),
        }),
        Request::Sasl(Sasl {
            token: Some(Bytes::from_static(b"token")),
        }),
        Request::CloseSession,
    ];
    for op in OpCode::ALL {
        let is_there = requests.iter().any(|request| request.op() == op);
        assert!(is_there, "{op:?} is missing");
    }
    requests
}

/// What a server did with bytes it did not like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Code(i32),
    Closed,
}

/// Sends `bytes` on a session of their own, then a ping, and says what came for them.
fn provoke(node: &Node, op: OpCode, bytes: &[u8]) -> Answer {
    let mut client = node.connect();
    client.set_silence(ANSWER).unwrap();
    client.expect_reply(77, op);
    client.expect_reply(78, OpCode::Ping);
    let mut all = BytesMut::from(bytes);
    all.extend_from_slice(&request_frame(78, &Request::Ping));
    // The server may have closed before it has read everything.
    let _ = client.send_raw(&all);
    loop {
        match client.receive() {
            Ok(Message::Reply(reply)) if reply.xid == 77 => {
                let code = reply.code();
                return match client.receive().unwrap() {
                    Message::Reply(_) => Answer::Code(code),
                    _ => Answer::Closed,
                };
            }
            Ok(Message::Event(_)) => {}
            Ok(Message::Reply(reply)) => panic!("{op:?}: {reply:?}"),
            Ok(Message::Closed) => return Answer::Closed,
            Err(error) => panic!("{op:?} {bytes:02x?}: {error}"),
        }
    }
}

fn frame(body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&i32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Header and body of a request, to be spoilt.
fn body_of(request: &Request) -> Vec<u8> {
    request_frame(77, request)[4..].to_vec()
}

/// Whatever comes back, it comes, or the connection ends.
fn provoke_anything(node: &Node, bytes: &[u8]) {
    let mut client = Connection::dial(node.address()).unwrap();
    client.set_silence(ANSWER).unwrap();
    let mut all = connect_frame(&hello(5_000));
    all.extend_from_slice(bytes);
    all.extend_from_slice(&request_frame(78, &Request::CloseSession));
    let _ = client.send_raw(&all);
    while client.next_frame().unwrap().is_some() {}
}

#[test]
fn frames_that_cannot_be_end_the_connection_at_once() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let limit = 1_048_575_i32;
    for (name, bytes) in [
        ("length 0", frame(b"").to_vec()),
        ("length -1", (-1_i32).to_be_bytes().to_vec()),
        ("length -2^31", i32::MIN.to_be_bytes().to_vec()),
        ("length 2^31-1", i32::MAX.to_be_bytes().to_vec()),
        (
            "one more than the limit",
            (limit + 1).to_be_bytes().to_vec(),
        ),
        ("a header of 4 bytes", frame(&[0, 0, 0, 1]).to_vec()),
        (
            "a header of 7 bytes",
            frame(&[0, 0, 0, 1, 0, 0, 0]).to_vec(),
        ),
    ] {
        let mut client = node.connect();
        client.set_silence(ANSWER).unwrap();
        client.send_raw(&bytes).unwrap();
        assert!(client.read_to_close().unwrap().is_empty(), "{name}");
        neighbour.goes_on(name);
    }
}

#[test]
fn paths_that_are_none_are_refused() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let mut client = node.connect();
    let long = format!("/{}", "x".repeat(500_000));
    let deep = "/x".repeat(200_000);
    for path in [
        "",
        "x",
        "//",
        "/x/",
        "/a//b",
        "/./x",
        "/../x",
        "/x/..",
        "/\0",
        "/a\u{1}",
        "/\u{7f}",
        "/\u{fffe}",
        "/\u{f8ff}",
        &long,
        &deep,
    ] {
        let shown = path.chars().take(20).collect::<String>();
        let reply = client.call(&create(path, b"", 0)).unwrap();
        let code = reply.code();
        let is_possible = path == long;
        assert!(
            code == -8 || code == -101 || (is_possible && code == 0),
            "{shown:?}: {code}"
        );
        for read in [
            exists(path, true),
            get_data(path, true),
            get_children(path, true),
        ] {
            let code = client.call(&read).unwrap().code();
            assert!(
                code == -101 || code == -8 || is_possible || path.is_empty(),
                "{shown:?}: {code}"
            );
        }
        neighbour.goes_on(&shown);
    }
    // Bytes that are no UTF-8, in a path of two bytes.
    for bytes in [[b'/', 0xff], [b'/', 0xc0], [0xed, 0xa0]] {
        let mut body = body_of(&create("/x", b"", 0));
        let at = body.windows(2).position(|pair| pair == b"/x").unwrap();
        body[at..at + 2].copy_from_slice(&bytes);
        let answer = provoke(&node, OpCode::Create, &frame(&body));
        assert!(
            matches!(answer, Answer::Code(-8 | MARSHALLING_ERROR)),
            "{bytes:?}: {answer:?}"
        );
    }
}

#[test]
fn multis_that_cannot_be_are_refused_as_a_whole() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let header = |op: i32, done: u8, err: i32| {
        let mut bytes = op.to_be_bytes().to_vec();
        bytes.push(done);
        bytes.extend(err.to_be_bytes());
        bytes
    };
    let end = header(-1, 1, -1);
    let create_x = [&header(1, 0, -1)[..], &body_of(&create("/x", b"", 0))[8..]].concat();
    let nested = [&create_x[..], &header(14, 0, -1), &end, &end].concat();
    let with_read = [
        &create_x[..],
        &header(4, 0, -1),
        &body_of(&get_data("/", false))[8..],
        &end,
    ];
    for (name, ops) in [
        ("nested", nested),
        ("with a read", with_read.concat()),
        (
            "closing",
            [&create_x[..], &header(-11, 0, -1), &end].concat(),
        ),
        (
            "internal",
            [&create_x[..], &header(20, 0, -1), &[0, 0, 0, 0], &end].concat(),
        ),
        (
            "unknown",
            [&create_x[..], &header(999, 0, -1), &end].concat(),
        ),
        ("without an end", create_x.clone()),
        ("nothing", Vec::new()),
    ] {
        let mut body = 77_i32.to_be_bytes().to_vec();
        body.extend(OpCode::Multi.code().to_be_bytes());
        body.extend(ops);
        let answer = provoke(&node, OpCode::Multi, &frame(&body));
        assert_eq!(answer, Answer::Code(MARSHALLING_ERROR), "{name}");
        let reply = neighbour.client.call(&exists("/x", false)).unwrap();
        assert_eq!(reply.code(), -101, "{name}: nothing of it is done");
    }
    // Many small operations in the largest frame: one entry of the log.
    let ops: Vec<MultiOp> = (0..20_000).map(|_| check("/neighbour", -1)).collect();
    let mut client = node.connect();
    assert_eq!(client.call(&Request::Multi(ops)).unwrap().code(), 0);
    neighbour.goes_on("a huge multi");
}

/// A second connect request is a request like any other, and a strange one.
#[test]
fn a_second_connect_request_opens_no_second_session() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let sessions = || {
        let text = node.word("mntr");
        let line = text
            .lines()
            .find(|line| line.starts_with("zk_global_sessions"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok())
    };
    let before = sessions();
    let mut client = node.connect();
    client.set_silence(ANSWER).unwrap();
    client.send_raw(&connect_frame(&hello(5_000))).unwrap();
    // Its first eight bytes read as xid 0 and operation 0: a refusal, or the end.
    client.expect_reply(0, OpCode::Check);
    match client.receive().unwrap() {
        Message::Reply(reply) => assert_eq!(reply.code(), UNIMPLEMENTED),
        Message::Closed => {}
        Message::Event(event) => panic!("{event:?}"),
    }
    if let Some(before) = before {
        assert!(sessions().unwrap() <= before + 1);
    }
    neighbour.goes_on("a second connect request");
}

#[test]
fn data_as_large_as_a_frame_may_be_is_taken_and_one_byte_more_is_not() {
    let frame_bytes_max = 1_048_575;
    for (node, frame_bytes_max) in [
        (Node::new(), frame_bytes_max),
        // A frame is larger than a segment of the log.
        (Node::new().with_busy_storage(), frame_bytes_max),
        (
            Node::new()
                .with_busy_storage()
                .with("jute.maxbuffer", "8000000"),
            8_000_000,
        ),
    ] {
        let mut node = node.started();
        let mut neighbour = Neighbour::new(&node);
        let frame_bytes = request_frame(1, &create("/big", b"", 0)).len() - 4;
        let fits = frame_bytes_max - frame_bytes;
        let mut client = node.connect();
        let created = client.call(&create("/big", &vec![1; fits], 0)).unwrap();
        assert_eq!(created.code(), 0);
        let read = client.call(&get_data("/big", false)).unwrap();
        assert_eq!(read.data().unwrap().len(), fits);
        let _ = client.send(&create("/bog", &vec![1; fits + 1], 0));
        assert!(client.read_to_close().unwrap().is_empty());
        neighbour.goes_on("oversize data");
        let reply = neighbour.client.call(&exists("/bog", false)).unwrap();
        assert_eq!(reply.code(), -101);
        node.kill();
        node.start();
        let read = node.connect().call(&get_data("/big", false)).unwrap();
        assert_eq!(read.data().unwrap().len(), fits);
    }
}

#[test]
fn a_client_that_sends_byte_by_byte_is_served() {
    let node = Node::new().started();
    let mut client = Connection::dial(node.address()).unwrap();
    let mut bytes = connect_frame(&hello(5_000));
    bytes.extend_from_slice(&request_frame(1, &create("/slowly", b"data", 0)));
    bytes.extend_from_slice(&request_frame(2, &get_data("/slowly", false)));
    client.expect_reply(1, OpCode::Create);
    client.expect_reply(2, OpCode::GetData);
    for byte in bytes {
        client.send_raw(&[byte]).unwrap();
    }
    client.read_welcome().unwrap().expect("a session");
    assert!(matches!(client.receive().unwrap(), Message::Reply(_)));
    let Message::Reply(read) = client.receive().unwrap() else {
        panic!("no reply");
    };
    assert_eq!(read.data(), Some(&b"data"[..]));
}

#[test]
fn random_bytes_on_an_open_session_hurt_nobody() {
    let seed = seed("random_bytes_on_an_open_session_hurt_nobody");
    let mut rng = StdRng::seed_from_u64(seed);
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let valid: Vec<Vec<u8>> = every_request().iter().map(body_of).collect();
    for round in 0..400 {
        let mut bytes = BytesMut::new();
        for _ in 0..rng.random_range(1..5) {
            let mut body = valid[rng.random_range(0..valid.len())].clone();
            for _ in 0..rng.random_range(0..6) {
                let at = rng.random_range(0..body.len());
                body[at] = rng.random();
            }
            bytes.extend_from_slice(&frame(&body));
        }
        provoke_anything(&node, &bytes);
        if round % 40 == 0 {
            neighbour.goes_on(&format!("round {round}"));
        }
    }
    neighbour.goes_on("all of it");
}

#[test]
fn four_letter_words_in_any_shape_leave_the_server_alone() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    for word in [
        "ruok", "srvr", "stat", "mntr", "conf", "cons", "dump", "wchs", "wchc", "wchp", "envi",
        "isro", "dirs", "gtmk", "crst", "srst", "hash",
    ] {
        assert!(!node.word(word).is_empty(), "{word}");
        assert!(
            !node.word(&format!("{word}\n")).is_empty(),
            "{word} with a line end"
        );
        assert!(
            !node.word(&format!("{word}{word}{word}")).is_empty(),
            "{word}, again and again"
        );
        neighbour.goes_on(word);
    }
    assert_eq!(node.word("ruok"), "imok");
    // One letter after the other.
    let mut slow = TcpStream::connect(node.address()).unwrap();
    slow.set_nodelay(true).unwrap();
    slow.set_read_timeout(Some(ANSWER)).unwrap();
    for letter in b"ruok" {
        slow.write_all(&[*letter]).unwrap();
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "imok");
    // A word on an open session is the length of a frame, and much too long.
    let mut client = node.connect();
    client.send_raw(b"ruok").unwrap();
    assert!(client.read_to_close().unwrap().is_empty());
    neighbour.goes_on("words");
}
