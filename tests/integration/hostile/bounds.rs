//! Requests that are small to send and could be large to answer, to keep or to carry out: each has a
//! bound, and a client that behaves goes on while others try them.

use std::time::{Duration, Instant};

use quorate_protocol::multi::{MultiOp, ReadOp};
use quorate_protocol::request::{
    Auth, GetEphemerals, PathOnly, SetAcl, SetWatches, SetWatches2, Watched,
};
use quorate_protocol::{AclEntry, OpCode, Perms, Request, Zxid};
use quorate_tests::client::{
    EPHEMERAL, Message, SEQUENTIAL, add_watch, check, create, create_record, exists, get_children,
    get_data, request_frame, set_data, set_record,
};

use super::neighbour::Neighbour;
use crate::harness::{Node, say};

const MIB: u64 = 1 << 20;
const SYSTEM_ERROR: i32 = -1;
const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;
const INVALID_ACL: i32 = -114;
const AUTH_FAILED: i32 = -115;

/// Sends all of it, and lets the neighbour go on until the last answer has come.
fn endure(node: &Node, neighbour: &mut Neighbour, requests: &[Request], what: &str) -> Vec<i32> {
    let mut client = node.connect();
    let begun = Instant::now();
    let answers = std::thread::scope(|scope| {
        let hostile = scope.spawn(move || {
            if client.send_all(requests).is_err() {
                return Vec::new();
            }
            let mut codes = Vec::new();
            while codes.len() < requests.len() {
                match client.receive().unwrap() {
                    Message::Reply(reply) => codes.push(reply.code()),
                    Message::Event(_) => {}
                    Message::Closed => break,
                }
            }
            codes
        });
        while !hostile.is_finished() {
            neighbour.goes_on(what);
        }
        hostile.join().unwrap()
    });
    say(&format!(
        "{what}: {} of {} answered in {:.1?}; a neighbour's slowest so far {:.1?}",
        answers.len(),
        requests.len(),
        begun.elapsed(),
        neighbour.slowest
    ));
    answers
}

fn set_acl(path: &str, acl: Vec<AclEntry>) -> Request {
    Request::SetAcl(SetAcl {
        path: path.to_owned(),
        acl,
        version: -1,
    })
}

/// So many different entries, each as short as one can be.
fn entries(count: i32) -> Vec<AclEntry> {
    (1..=count)
        .map(|perms| AclEntry::new(Perms(perms), "world", "anyone"))
        .collect()
}

#[test]
fn acls_with_tens_of_thousands_of_entries_are_refused_at_once() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    neighbour.client.call(&create("/acl", b"", 0)).unwrap();
    let requests = vec![set_acl("/acl", entries(43_000)); 5];
    let codes = endure(&node, &mut neighbour, &requests, "43,000 entries, 5 times");
    assert_eq!(codes, [INVALID_ACL; 5]);
    // The longest that is taken, checked once for each of the operations of the longest multi.
    let hosts = |number: u32| {
        let ip = format!("10.{}.{}.1", number / 256, number % 256);
        AclEntry::new(Perms::ALL, "ip", &ip)
    };
    let mut long: Vec<AclEntry> = (1..1_000).map(hosts).collect();
    long.push(AclEntry::open());
    assert_eq!(
        neighbour
            .client
            .call(&set_acl("/acl", long))
            .unwrap()
            .code(),
        0
    );
    let checks: Vec<MultiOp> = (0..40_000).map(|_| check("/acl", -1)).collect();
    let requests = vec![Request::Multi(checks); 2];
    let codes = endure(
        &node,
        &mut neighbour,
        &requests,
        "40,000 checks of 1,000 entries",
    );
    assert_eq!(codes, [0; 2]);
}

/// What a connection has proved goes into the log with each of its writes.
#[test]
fn identities_of_one_connection_are_bounded() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let auth = |user: &str| {
        Request::Auth(Auth {
            auth_type: 0,
            scheme: Some("digest".to_owned()),
            auth: Some(format!("{user}:secret").into_bytes().into()),
        })
    };
    let many: Vec<Request> = (0..5_000).map(|user| auth(&format!("u{user}"))).collect();
    let codes = endure(&node, &mut neighbour, &many, "5,000 identities");
    let (last, taken) = codes.split_last().unwrap();
    assert_eq!(*last, AUTH_FAILED);
    assert!((10..100).contains(&taken.len()), "{}", taken.len());
    assert!(taken.iter().all(|code| *code == 0));
    let long = [auth(&"u".repeat(100_000))];
    let codes = endure(&node, &mut neighbour, &long, "a long identity");
    assert_eq!(codes, [AUTH_FAILED]);
    // One and the same, again and again, is one.
    let same = vec![auth("me"); 2_000];
    let codes = endure(&node, &mut neighbour, &same, "one identity 2,000 times");
    assert_eq!(codes, [0; 2_000]);
    // Each entry stands for all of them: still not more than an ACL may have.
    let mut requests: Vec<Request> = (0..30).map(|user| auth(&format!("u{user}"))).collect();
    let own = (1..900)
        .map(|perms| AclEntry::new(Perms(perms), "auth", ""))
        .collect();
    requests.push(create("/own", b"", 0));
    requests.push(set_acl("/own", own));
    let codes = endure(&node, &mut neighbour, &requests, "900 times 30 identities");
    assert_eq!(codes.last(), Some(&INVALID_ACL));
}

/// 60,000 times a megabyte, for a request of one.
#[test]
fn a_multi_read_of_everything_many_times_over_is_refused() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let large = vec![7; 1_000_000];
    neighbour.client.call(&create("/big", &large, 0)).unwrap();
    let before = node.resident_bytes();
    let big = || Watched {
        path: "/big".to_owned(),
        watch: false,
    };
    let all = |count| Request::MultiRead((0..count).map(|_| ReadOp::GetData(big())).collect());
    let codes = endure(&node, &mut neighbour, &[all(50_000), all(17)], "multiRead");
    assert_eq!(codes, [SYSTEM_ERROR; 2]);
    let codes = endure(&node, &mut neighbour, &[all(15)], "a multiRead of 15 MB");
    assert_eq!(codes, [0]);
    let folder = || Watched {
        path: "/neighbour".to_owned(),
        watch: false,
    };
    let lists = (0..40_000).map(|_| ReadOp::GetChildren(folder())).collect();
    let codes = endure(&node, &mut neighbour, &[Request::MultiRead(lists)], "lists");
    assert_eq!(codes, [SYSTEM_ERROR]);
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 200 * MIB, "{} MiB more", grown / MIB);
}

/// Thousands of reads that each walk a large list and answer little, with and without a write in front
/// of them.
#[test]
fn reads_that_take_long_and_answer_little_keep_nobody_from_writing() {
    const EPHEMERALS: usize = 4_000;
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    neighbour.client.call(&create("/e", b"", 0)).unwrap();
    let mut requests = vec![create("/e/x-", b"", EPHEMERAL | SEQUENTIAL); EPHEMERALS];
    let none = Request::GetEphemerals(GetEphemerals {
        prefix: Some("/nothing".to_owned()),
    });
    let count = Request::GetAllChildrenNumber(PathOnly {
        path: "/e".to_owned(),
    });
    let heavy = [vec![none; 300], vec![count; 300]].concat();
    requests.extend(heavy.clone());
    requests.push(set_data("/e", b"", -1));
    requests.extend(heavy);
    requests.push(set_data("/e", b"", -1));
    let codes = endure(&node, &mut neighbour, &requests, "heavy reads");
    assert_eq!(codes, vec![0; requests.len()]);
}

#[test]
fn lists_of_watches_as_long_as_a_frame_are_registered_without_a_pause() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let before = node.resident_bytes();
    let names = |count: usize| -> Vec<String> { (0..count).map(|n| format!("/w{n}")).collect() };
    let set = Request::SetWatches(SetWatches {
        relative_zxid: Zxid(i64::MAX),
        data: vec![],
        exist: names(80_000),
        child: vec![],
    });
    let set2 = |relative_zxid| {
        Request::SetWatches2(SetWatches2 {
            relative_zxid: Zxid(relative_zxid),
            data: names(15_000),
            exist: names(15_000),
            child: names(15_000),
            persistent: names(15_000),
            persistent_recursive: names(15_000),
        })
    };
    let empty = Request::SetWatches(SetWatches {
        relative_zxid: Zxid(0),
        data: vec![],
        exist: vec![String::new(); 250_000],
        child: vec![],
    });
    let requests = [set.clone(), set2(i64::MIN), set2(0), empty, set];
    let codes = endure(&node, &mut neighbour, &requests, "long lists of watches");
    assert_eq!(codes, [0; 5]);
    neighbour.goes_on("their end");
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 200 * MIB, "{} MiB more", grown / MIB);
}

/// Any string can be watched, and what is watched is kept.
#[test]
fn watches_on_very_long_paths_are_bounded_by_their_bytes() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let before = node.resident_bytes();
    let mut client = node.connect();
    let mut taken = 0;
    while taken < 1_000 {
        let path = format!("/{taken}/{}", "x".repeat(900_000));
        match client.call(&add_watch(&path, true)) {
            Ok(reply) => assert_eq!(reply.code(), 0),
            Err(_) => break,
        }
        taken += 1;
        if taken % 20 == 0 {
            neighbour.goes_on("a watch on a very long path");
        }
    }
    let grown = node.resident_bytes().saturating_sub(before);
    say(&format!(
        "{taken} watches on paths of 900 KB: {} MiB more",
        grown / MIB
    ));
    assert!((50..200).contains(&taken), "{taken}");
    assert!(grown < 250 * MIB, "{} MiB more", grown / MIB);
    neighbour.goes_on("its end");
}

#[test]
fn a_multi_of_as_many_writes_as_fit_is_done_whole_or_not_at_all_and_nobody_waits_for_it() {
    const OPS: usize = 18_000;
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    neighbour.client.call(&create("/m", b"", 0)).unwrap();
    let creates = || -> Vec<MultiOp> {
        (0..OPS)
            .map(|number| {
                let path = format!("/m/{number}");
                let mut record = create_record(&path, b"", 0);
                // Null, to fit the frame.
                record.data = None;
                MultiOp::Create(record)
            })
            .collect()
    };
    let children = |neighbour: &mut Neighbour| {
        let reply = neighbour.client.call(&exists("/m", false)).unwrap();
        reply.stat().unwrap().num_children
    };
    let mut failing = creates();
    failing.push(check("/none", -1));
    let codes = endure(
        &node,
        &mut neighbour,
        &[Request::Multi(failing)],
        "all but one",
    );
    assert_eq!(codes, [0], "what failed is in the results");
    assert_eq!(children(&mut neighbour), 0);
    let codes = endure(
        &node,
        &mut neighbour,
        &[Request::Multi(creates())],
        "18,000 creates",
    );
    assert_eq!(codes, [0]);
    assert_eq!(children(&mut neighbour), 18_000);
    let sets: Vec<MultiOp> = (0..OPS)
        .map(|_| MultiOp::SetData(set_record("/m", b"", -1)))
        .collect();
    let codes = endure(
        &node,
        &mut neighbour,
        &[Request::Multi(sets)],
        "18,000 sets",
    );
    assert_eq!(codes, [0]);
    neighbour.has_everything();
}

/// Requests that wait for a write are kept until it is done: so many bytes and no more.
#[test]
fn long_requests_behind_a_write_are_answered_in_their_order() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let long = format!("/{}", "x".repeat(700_000));
    let mut requests = vec![create("/w", b"", 0)];
    for _ in 0..5 {
        requests.push(set_data("/w", b"", -1));
        requests.extend(vec![exists(&long, false); 10]);
    }
    let codes = endure(&node, &mut neighbour, &requests, "35 MB of requests");
    let expected: Vec<i32> = (0..requests.len())
        .map(|number| match number {
            0 => 0,
            number if number % 11 == 1 => 0,
            _ => NO_NODE,
        })
        .collect();
    assert_eq!(codes, expected);
}

/// Names as deep as they come: looked up, watched, created, deleted.
#[test]
fn paths_of_thousands_of_components_are_like_any_other() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let depth = 500;
    let mut client = node.connect();
    client.call(&add_watch("/", true)).unwrap();
    let mut path = String::new();
    let mut requests = Vec::new();
    for _ in 0..depth {
        path.push_str("/d");
        requests.push(create(&path, b"", 0));
    }
    requests.push(get_data(&path, true));
    requests.push(get_children(&path, true));
    requests.push(create(&path, b"", 0));
    let codes = endure(&node, &mut neighbour, &requests, "a path of 500 components");
    assert_eq!(codes.len(), requests.len());
    assert!(codes[..depth + 2].iter().all(|code| *code == 0));
    assert_eq!(codes.last(), Some(&NODE_EXISTS));
    let mut events = 0;
    client.set_silence(Duration::from_secs(5)).unwrap();
    while events < depth {
        let event = client.next_event().unwrap();
        events += usize::from(event.path.starts_with("/d"));
    }
}

/// Quotas are znodes that anyone may write: what makes no sense in them means nothing.
#[test]
fn limits_that_make_no_sense_are_no_limits() {
    let node = Node::new().with("enforceQuota", "true").started();
    let mut neighbour = Neighbour::new(&node);
    let mut client = node.connect();
    for path in ["/q", "/zookeeper/quota/q"] {
        assert_eq!(client.call(&create(path, b"", 0)).unwrap().code(), 0);
    }
    let limits = "/zookeeper/quota/q/zookeeper_limits";
    assert_eq!(client.call(&create(limits, b"", 0)).unwrap().code(), 0);
    for text in [
        &b""[..],
        b"count",
        b"count=,bytes=",
        b"count=99999999999999999999999,bytes=-99999999999999999999",
        b"count=-9223372036854775808,bytes=9223372036854775807",
        b"\xff\xfe\x00",
        b"=,=,=,=",
        &[b','; 100_000],
    ] {
        assert_eq!(client.call(&set_data(limits, text, -1)).unwrap().code(), 0);
        let set = client.call(&set_data("/q", b"data", -1)).unwrap();
        assert!([0, -125].contains(&set.code()), "{text:?}: {}", set.code());
        neighbour.goes_on("a strange limit");
    }
}

/// Whatever has come of it.
#[test]
fn a_connection_that_ends_in_the_middle_of_a_request_has_done_nothing() {
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let frame = request_frame(1, &create("/half", &[7; 10_000], 0));
    for sent in [1, 4, 5, 12, 100, 9_000, frame.len() - 1] {
        let mut client = node.connect();
        client.expect_reply(1, OpCode::Create);
        client.send_raw(&frame[..sent]).unwrap();
        client.shutdown_write();
        let _: Vec<Message> = client.read_to_close().unwrap();
        let gone = neighbour.client.call(&exists("/half", false)).unwrap();
        assert_eq!(gone.code(), NO_NODE, "{sent} bytes");
    }
}
