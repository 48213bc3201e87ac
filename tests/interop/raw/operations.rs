//! What operations do to the Stat of a znode and of its parent, and the smaller operations.

use super::conversation;
use crate::wire::{
    Body, OPEN, auth, create, create_container, create_with, create2, delete, exists, get_acl,
    get_all_children_number, get_children, get_children2, get_data, get_ephemerals, multi, ping,
    set_acl, set_data, sync, who_am_i,
};

#[test]
fn every_operation_changes_the_stat_fields_it_should_and_no_other() {
    let test = "every_operation_changes_the_stat_fields_it_should_and_no_other";
    conversation(test, |talk| {
        let mut a = talk.connect("a");
        a.call("root", &exists("/", false));
        a.call("create", &create2("/n", b"hi", 0));
        a.call("root after", &exists("/", false));
        a.call("child", &create2("/n/k", b"", 0));
        a.call("parent of a child", &exists("/n", false));
        a.call("ephemeral child", &create2("/n/e", b"12345", 1));
        a.call("grandchild", &create2("/n/k/g", b"", 0));
        a.call("grandparent", &exists("/n", false));
        a.call("set", &set_data("/n", b"longer", 0));
        a.call("set equal", &set_data("/n", b"longer", 1));
        a.call("set child", &set_data("/n/k", b"x", -1));
        a.call("parent of a set child", &exists("/n", false));
        a.call("set acl", &set_acl("/n", &[(31, "world", "anyone")], 0));
        a.call(
            "set acl again",
            &set_acl("/n", &[(31, "world", "anyone"), (1, "ip", "10.0.0.1")], 1),
        );
        a.call("after set acl", &get_data("/n", false));
        a.call("delete child", &delete("/n/e", 0));
        a.call("parent of a deleted child", &get_children2("/n", false));
        a.call("failed create", &create("/n/k", 0));
        a.call("failed delete", &delete("/n", -1));
        a.call("after failures", &exists("/n", false));
        let null = Body::default().text("/n").int(-1).int(-1);
        a.call("set null", &set_data("/n", b"", -1).with_body(null));
        a.call("is null", &get_data("/n", false));
        a.call("set empty", &set_data("/n", b"", -1));
        a.call("is empty", &get_data("/n", false));
        a.call("container", &create_container("/c", 4));
        a.call("its data", &get_data("/c", false));
        a.call("children of an ephemeral", &get_children2("/n/k", false));
        a.call("zookeeper", &exists("/zookeeper", false));
        a.call("config", &exists("/zookeeper/config", false));
        a.call("quota", &exists("/zookeeper/quota", false));
    });
}

#[test]
fn a_version_has_to_match_exactly_or_be_minus_one() {
    conversation("a_version_has_to_match_exactly_or_be_minus_one", |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create("/v", 0));
        for version in [0, 0, 1, -1, 2, 3, -2, i32::MAX, i32::MIN] {
            a.call(&format!("set at {version}"), &set_data("/v", b"x", version));
        }
        for version in [0, 0, 1, -1, -2, 9] {
            a.call(
                &format!("set acl at {version}"),
                &set_acl("/v", OPEN, version),
            );
        }
        for version in [0, -2, i32::MAX, 4] {
            a.call(&format!("delete at {version}"), &delete("/v", version));
        }
        a.call("recreated", &create2("/v", b"", 0));
    });
}

#[test]
fn descendants_and_own_ephemerals_are_found() {
    conversation("descendants_and_own_ephemerals_are_found", |talk| {
        let mut a = talk.connect("a");
        let mut b = talk.connect("b");
        for (path, flags) in [
            ("/g", 0),
            ("/g/e1", 1),
            ("/g/x", 0),
            ("/g/x/e2", 1),
            ("/ge", 1),
        ] {
            a.quietly(&create(path, flags));
        }
        b.quietly(&create("/g/other", 1));
        for path in ["/", "/g", "/g/x", "/g/e1", "/nop", ""] {
            a.call(
                &format!("descendants of {path:?}"),
                &get_all_children_number(path),
            );
        }
        for prefix in ["/", "/g", "/g/", "/g/x", "/nop", "", " ", "g"] {
            a.call(&format!("ephemerals {prefix:?}"), &get_ephemerals(prefix));
        }
        let null = get_ephemerals("").with_body(Body::default().int(-1));
        a.call("ephemerals below null", &null);
        b.call("ephemerals of another", &get_ephemerals("/"));
    });
}

#[test]
fn small_operations_answer_what_they_should() {
    conversation("small_operations_answer_what_they_should", |talk| {
        let mut a = talk.connect("a");
        a.call("sync", &sync("/"));
        a.call("sync the missing", &sync("/nop"));
        a.call("sync nonsense", &sync("no path at all"));
        a.call("who am I", &who_am_i());
        a.call("auth", &auth("digest", b"u:p"));
        a.call("auth again", &auth("digest", b"u:p"));
        a.call("auth more", &auth("digest", b"v:p:q"));
        a.call("auth without a colon", &auth("digest", b"w"));
        a.call("who am I now", &who_am_i());
        a.call("ping", &ping());
        a.call("null sync", &sync("/").with_body(Body::default().int(-1)));
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_and_see_each_other() {
    conversation(
        "pipelined_requests_are_answered_in_order_and_see_each_other",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/q", 0));
            let requests = [
                set_data("/q", b"1", -1),
                get_data("/q", false),
                set_data("/q", b"2", 1),
                create("/q", 0),
                get_data("/q", true),
                set_data("/q", b"3", 9),
                exists("/q", false),
                create("/q/a", 0),
                get_children("/q", false),
                delete("/q/a", -1),
                get_all_children_number("/q"),
                multi(&[create("/q/b", 0), set_data("/q", b"4", -1)]),
                get_children2("/q", false),
                sync("/q"),
                set_data("/q", b"5", -1),
                ping(),
                get_acl("/q"),
                create_with(15, "/q/z", b"", OPEN, 2),
            ];
            let bytes: Vec<u8> = requests
                .iter()
                .flat_map(|request| a.encode(request))
                .collect();
            a.send_raw(&bytes);
            for number in 1..=requests.len() {
                a.reply(&format!("reply {number}"));
            }
        },
    );
}
