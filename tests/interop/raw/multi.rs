//! Multi and multiRead.

use super::conversation;
use crate::wire::{
    ADMIN, ALL, Body, OPEN, add_watch, auth, bad_multi, check, create, create_acl,
    create_container, create_ttl, create_with, create2, delete, exists, get_acl, get_children,
    get_children2, get_data, multi, multi_read, ping, set_acl, set_data, sync,
};

#[test]
fn a_multi_that_succeeds_shows_each_state_in_turn() {
    conversation("a_multi_that_succeeds_shows_each_state_in_turn", |talk| {
        let mut a = talk.connect("a");
        a.call("empty", &multi(&[]));
        a.quietly(&create("/m", 0));
        a.call(
            "parent then child",
            &multi(&[
                create("/m/p", 0),
                create("/m/p/c", 0),
                check("/m/p", 0),
                set_data("/m/p", b"xy", 0),
            ]),
        );
        a.call("one zxid", &exists("/m/p", false));
        a.call("and for the child", &exists("/m/p/c", false));
        a.call(
            "set twice",
            &multi(&[set_data("/m", b"a", 0), set_data("/m", b"bc", 1)]),
        );
        a.call(
            "create and delete",
            &multi(&[create("/m/t", 0), delete("/m/t", 0)]),
        );
        a.call(
            "delete and create",
            &multi(&[
                delete("/m/p/c", -1),
                create("/m/p/c", 0),
                set_data("/m/p/c", b"", 0),
            ]),
        );
        a.call(
            "children counted on the way",
            &multi(&[
                create("/m/1", 0),
                set_data("/m", b"", -1),
                create("/m/2", 1),
                set_data("/m", b"", -1),
                delete("/m/1", 0),
                set_data("/m", b"", -1),
            ]),
        );
        a.call(
            "ephemeral and sequential",
            &multi(&[create("/m/s-", 3), create("/m/s-", 2), delete("/m/2", -1)]),
        );
        a.call("container", &multi(&[create_container("/m/c", 4)]));
        a.call("TTL", &multi(&[create_ttl("/m/ttl", 5, 60_000)]));
        a.call("create2", &multi(&[create2("/m/two", b"d", 0)]));
        a.call("the parent in the end", &get_children2("/m", false));
    });
}

#[test]
fn a_multi_that_fails_changes_nothing_and_says_which_operation_failed() {
    let test = "a_multi_that_fails_changes_nothing_and_says_which_operation_failed";
    conversation(test, |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create("/m", 0));
        a.quietly(&create("/m/k", 0));
        a.quietly(&create("/m/e", 1));
        a.quietly(&create_acl("/m/shut", &[(1 | ADMIN, "world", "anyone")]));
        let before = |request| multi(&[create("/m/new", 0), request, delete("/m/k", -1)]);
        a.call("exists", &before(create("/m/k", 0)));
        a.call("no node", &before(delete("/m/nop", -1)));
        a.call("not empty", &before(delete("/m", -1)));
        a.call("bad version", &before(set_data("/m", b"", 5)));
        a.call("check", &before(check("/m", 5)));
        a.call("check the missing", &before(check("/m/nop", -1)));
        a.call("below an ephemeral", &before(create("/m/e/x", 0)));
        a.call("not allowed", &before(set_data("/m/shut", b"", -1)));
        a.call("bad path", &before(create("/m//x", 0)));
        a.call("bad acl", &before(create_acl("/m/x", &[])));
        a.call("no parent", &before(create("/m/nop/x", 0)));
        a.call(
            "twice the same",
            &multi(&[create("/m/new", 0), create("/m/new", 0)]),
        );
        a.call(
            "the first",
            &multi(&[delete("/m/nop", -1), delete("/m/k", -1)]),
        );
        a.call(
            "the last",
            &multi(&[delete("/m/k", -1), delete("/m/nop", -1)]),
        );
        a.call("alone", &multi(&[delete("/m/nop", -1)]));
        a.call(
            "shut by an earlier operation",
            &multi(&[
                create_acl("/m/own", &[(1, "world", "anyone")]),
                create("/m/own/x", 0),
            ]),
        );
        a.call("system znode", &before(delete("/zookeeper", -1)));
        a.call("nothing changed", &get_children2("/m", false));
    });
}

#[test]
fn a_multi_with_an_operation_that_does_not_belong_is_refused_as_a_whole() {
    let test = "a_multi_with_an_operation_that_does_not_belong_is_refused_as_a_whole";
    conversation(test, |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create("/m", 0));
        for (label, request) in [
            ("set acl", set_acl("/m", OPEN, -1)),
            ("get data", get_data("/m", false)),
            ("children", get_children("/m", false)),
            ("exists", exists("/m", false)),
            ("sync", sync("/m")),
            ("multi", multi(&[])),
            ("ping", ping()),
            ("auth", auth("digest", b"u:p")),
            ("add watch", add_watch("/m", 0)),
        ] {
            a.call(label, &bad_multi(&[create("/m/x", 0), request]));
        }
        let cut = multi(&[create("/m/x", 0)]).body.0;
        a.call(
            "no end",
            &multi(&[]).with_body(Body(cut[..cut.len() - 9].to_vec())),
        );
        a.call(
            "cut in the middle",
            &multi(&[]).with_body(Body(cut[..20].to_vec())),
        );
        a.call("nothing changed", &get_children("/m", false));
    });
}

#[test]
fn a_multi_read_answers_each_operation_by_itself() {
    conversation("a_multi_read_answers_each_operation_by_itself", |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create_with(1, "/r", b"data", OPEN, 0));
        a.quietly(&create("/r/k", 0));
        a.quietly(&create_acl("/r/shut", &[(ALL - 1, "world", "anyone")]));
        a.call("empty", &multi_read(&[]));
        a.call(
            "good and bad",
            &multi_read(&[
                get_data("/r", true),
                get_children("/r", true),
                get_data("/nop", false),
                get_data("/r/shut", false),
                get_children("/r/shut", false),
                get_data("/r/k", false),
            ]),
        );
        a.call("no watch was left", &set_data("/r", b"other", -1));
        a.call("nor for children", &create("/r/more", 0));
        let mut b = talk.connect("b");
        for (label, request) in [
            ("exists", exists("/r", false)),
            ("children2", get_children2("/r", false)),
            ("get acl", get_acl("/r")),
            ("create", create("/r/new", 0)),
        ] {
            b.call(
                &format!("{label} does not belong"),
                &multi_read(&[get_data("/r", false), request]),
            );
        }
        b.call("alive", &exists("/r/new", false));
    });
}
