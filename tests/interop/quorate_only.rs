//! What Quorate promises beyond, or other than, Apache ZooKeeper 3.8: nothing to compare with.
//!
//! Mostly what 3.9 does and 3.8.0 does not, and holes of ZooKeeper that Quorate does not have.

use quorate_tests::server::{Product, Server, Settings};
use quorate_tests::skip::skip;

use crate::subject;
use crate::wire::{
    ALL, Body, Conversation, Hello, OPEN, READ, Request, add_watch, check, check_watches, create,
    create_acl, create_container, create_with, exists, get_children, get_data, ping,
    remove_watches, set_data,
};

/// Runs `script` against a fresh Quorate and expects exactly these lines.
fn expect(test: &str, script: impl FnOnce(&Conversation), lines: &[&str]) {
    if subject() != Product::Quorate {
        skip(test, "another server is under test");
        return;
    }
    let server = Server::start(Product::Quorate, &Settings::default()).unwrap();
    let conversation = Conversation::new(server.address());
    script(&conversation);
    let seen = conversation.into_lines();
    assert_eq!(seen, lines, "{test}");
}

#[test]
fn a_wrong_password_does_not_hurt_the_live_connection_of_the_session() {
    expect(
        "a_wrong_password_does_not_hurt_the_live_connection_of_the_session",
        |talk| {
            let (mut a, welcome) = talk.connect_as("a", &Hello::default());
            let wrong = Hello {
                session: welcome.session,
                ..Hello::default()
            };
            let (mut refused, _) = talk.handshake("wrong", &wrong.frame());
            refused.until_closed("then");
            a.call("alive", &create("/alive", 1));
        },
        &[
            "wrong: version=0 timeout=0 session=0 password=16 zeros readonly=Some(0) length=37",
            "h then: closed",
            "a alive: ok /alive",
        ],
    );
}

#[test]
fn an_event_carries_the_zxid_of_its_transaction() {
    expect(
        "an_event_carries_the_zxid_of_its_transaction",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/e", 0));
            a.quietly(&get_data("/e", true));
            a.send(&set_data("/e", b"", -1));
            let event = a.zxid_of_next_frame();
            let reply = a.zxid_of_next_frame();
            talk.note(format!("the same: {}", event == reply && event > Some(0)));
        },
        &["the same: true"],
    );
}

#[test]
fn operations_meant_for_servers_are_unknown_to_clients() {
    expect(
        "operations_meant_for_servers_are_unknown_to_clients",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/kept", 0));
            a.quietly(&create_container("/container", 4));
            for (name, op, body) in [
                ("delete container", 20, Body::default().text("/kept")),
                ("delete container", 20, Body::default().text("/container")),
                ("create session", -10, Body::default().int(1_000)),
                ("check", 13, check("/kept", 0).body),
                ("error", -1, Body::default()),
            ] {
                let mut b = talk.connect("b");
                b.send(&Request::odd(op, body));
                let error = b.error_of_next_frame();
                talk.note(format!("{name}: {error:?}"));
            }
            a.call("nothing happened", &get_children("/", false));
        },
        &[
            "delete container: Some(-6)",
            "delete container: Some(-6)",
            "create session: Some(-6)",
            "check: Some(-6)",
            "error: Some(-6)",
            "a nothing happened: ok [\"container\", \"kept\", \"zookeeper\"]",
        ],
    );
}

#[test]
fn an_unknown_operation_costs_nobody_the_connection() {
    expect(
        "an_unknown_operation_costs_nobody_the_connection",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&get_data("/", true));
            a.call("unknown", &Request::odd(999, Body::default()));
            a.call("alive", &create("/alive", 1));
            a.call("watching", &set_data("/", b"", -1));
        },
        &[
            "a unknown: error -6",
            "a alive: ok /alive",
            "a event: data changed /",
            "a watching: ok [c=0 m=z2 p=z1 times=0/now v=1,0,0 length=0 children=2]",
        ],
    );
}

#[test]
fn a_negative_ttl_in_a_mode_without_one_is_survived() {
    expect(
        "a_negative_ttl_in_a_mode_without_one_is_survived",
        |talk| {
            let mut a = talk.connect("a");
            for flags in 0..=4 {
                let request = create_with(21, &format!("/t{flags}"), b"", OPEN, flags);
                let body = request.body.clone().long(-1);
                a.send(&request.with_body(body));
                // Refused or created: ZooKeeper 3.8.0 offers no answer to copy, it stops serving.
                talk.note(format!("answered: {}", a.error_of_next_frame().is_some()));
            }
            let mut b = talk.connect("b");
            b.call("alive", &ping());
        },
        &[
            "answered: true",
            "answered: true",
            "answered: true",
            "answered: true",
            "answered: true",
            "b alive: ok",
        ],
    );
}

#[test]
fn watches_of_different_modes_live_side_by_side() {
    expect(
        "watches_of_different_modes_live_side_by_side",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/w", 0));
            a.quietly(&add_watch("/w", 0));
            a.quietly(&add_watch("/w", 1));
            a.quietly(&get_data("/w", true));
            a.quietly(&get_children("/w", true));
            for kind in 1..=5 {
                a.call(&format!("kind {kind}"), &check_watches("/w", kind));
            }
            a.call("set: one event", &set_data("/w", b"", -1));
            a.call(
                "set again: the persistent ones stay",
                &set_data("/w", b"", -1),
            );
            a.call("child: for itself, and for its parent", &create("/w/k", 0));
            a.call("remove persistent", &remove_watches("/w", 4));
            a.call("set: the recursive one", &set_data("/w", b"", -1));
            a.call("remove recursive", &remove_watches("/w", 5));
            a.call("set: none", &set_data("/w", b"", -1));
            a.call("none left", &check_watches("/w", 3));
        },
        &[
            "a kind 1: ok",
            "a kind 2: ok",
            "a kind 3: ok",
            "a kind 4: ok",
            "a kind 5: ok",
            "a event: data changed /w",
            "a set: one event: ok [c=z1 m=z2 p=z1 times=now/now v=1,0,0 length=0 children=0]",
            "a event: data changed /w",
            "a set again: the persistent ones stay: ok [c=z1 m=z3 p=z1 times=now/now v=2,0,0 length=0 children=0]",
            "a event: created /w/k",
            "a event: children changed /w",
            "a child: for itself, and for its parent: ok /w/k",
            "a remove persistent: ok",
            "a event: data changed /w",
            "a set: the recursive one: ok [c=z1 m=z5 p=z4 times=now/now v=3,1,0 length=0 children=1]",
            "a remove recursive: ok",
            "a set: none: ok [c=z1 m=z6 p=z4 times=now/now v=4,1,0 length=0 children=1]",
            "a none left: error -121",
        ],
    );
}

#[test]
fn whether_a_closed_znode_exists_is_for_readers_only() {
    expect(
        "whether_a_closed_znode_exists_is_for_readers_only",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create_acl("/shut", &[(ALL - READ, "world", "anyone")]));
            a.call("exists", &exists("/shut", false));
            a.call("missing", &exists("/shut/nothing", false));
        },
        &["a exists: error -102", "a missing: error -101"],
    );
}

#[test]
fn sessions_and_data_survive_a_kill() {
    let test = "sessions_and_data_survive_a_kill";
    if subject() != Product::Quorate {
        skip(test, "another server is under test");
        return;
    }
    let mut server = Server::start(Product::Quorate, &Settings::default()).unwrap();
    let talk = Conversation::new(server.address());
    let (mut a, welcome) = talk.connect_as("a", &Hello::default());
    a.quietly(&create_with(1, "/kept", b"data", OPEN, 0));
    a.quietly(&create("/kept/e", 1));
    server.restart().unwrap();
    a.until_closed("killed");
    let resume = Hello {
        session: welcome.session,
        password: Some(&welcome.password),
        last_zxid_seen: a.last_zxid(),
        ..Hello::default()
    };
    let (mut again, _) = talk.handshake("resumed", &resume.frame());
    again.call("data", &get_data("/kept", false));
    again.call("ephemeral", &exists("/kept/e", false));
    again.call("write", &set_data("/kept", b"more", 0));
    assert_eq!(
        talk.into_lines(),
        [
            "a killed: closed",
            "resumed: version=0 timeout=30000 session=s1 password=16 readonly=Some(0) length=37",
            "h data: ok \"data\" [c=z1 m=z1 p=z2 times=now/now v=0,1,0 length=4 children=1]",
            "h ephemeral: ok [c=z2 m=z2 p=z2 times=now/now v=0,0,0 length=0 children=0 owner=s1]",
            "h write: ok [c=z1 m=z3 p=z2 times=now/now v=1,1,0 length=4 children=1]",
        ]
    );
}
