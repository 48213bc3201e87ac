//! Watches: what fires, to whom, in which order, and what a reconnect brings back.

use super::conversation;
use crate::wire::{
    ALL, Body, READ, WRITE, add_watch, check_watches, create, create_acl, delete, exists,
    get_children, get_children2, get_data, multi, remove_watches, set_acl, set_data, set_watches,
};

#[test]
fn a_change_fires_the_watches_it_should_once_and_before_its_own_answer() {
    let test = "a_change_fires_the_watches_it_should_once_and_before_its_own_answer";
    conversation(test, |talk| {
        let mut a = talk.connect("a");
        let mut b = talk.connect("b");
        a.call("exists on the missing", &exists("/w", true));
        a.call("get on the missing", &get_data("/w", true));
        a.call("children of the missing", &get_children("/w", true));
        b.call("create by another", &create("/w", 0));
        a.settle();
        a.call("set: nothing is left", &set_data("/w", b"", -1));
        a.call("get", &get_data("/w", true));
        a.call("exists too", &exists("/w", true));
        a.call("own set: one event", &set_data("/w", b"1", -1));
        a.call("own set: no event", &set_data("/w", b"2", -1));
        a.call("get", &get_data("/w", true));
        a.call(
            "set acl: no event",
            &set_acl("/w", &[(31, "world", "anyone")], -1),
        );
        a.call("failed set: no event", &set_data("/w", b"", 77));
        a.call(
            "failed multi: no event",
            &multi(&[set_data("/w", b"", -1), delete("/nop", -1)]),
        );
        a.call("children", &get_children("/w", true));
        a.call("child: children event", &create("/w/k", 0));
        a.call("children", &get_children2("/w", true));
        a.call("child's data: no event", &set_data("/w/k", b"", -1));
        a.call("grandchild: no event", &create("/w/k/g", 0));
        a.call("grandchild goes: no event", &delete("/w/k/g", -1));
        a.call("watch the child's data", &get_data("/w/k", true));
        a.call("watch the child's children", &get_children("/w/k", true));
        a.call(
            "child goes: one for it, one for its parent",
            &delete("/w/k", -1),
        );
        a.call("child comes back: nothing is left", &create("/w/k", 0));
        a.call("only its children", &get_children("/w/k", true));
        a.call("goes", &delete("/w/k", -1));
        a.call("exists on the missing", &exists("/w/k", true));
        a.call(
            "created and deleted in one",
            &multi(&[create("/w/k", 0), delete("/w/k", -1)]),
        );
        a.call("data watch on /w", &get_data("/w", true));
        a.call("children watch on /w", &get_children("/w", true));
        a.call(
            "multi in its order",
            &multi(&[
                create("/w/1", 0),
                set_data("/w", b"", -1),
                create("/w/2", 0),
                delete("/w/1", -1),
            ]),
        );
        b.settle();
        a.settle();
    });
}

#[test]
fn watches_of_several_connections_fire_each_for_itself() {
    conversation(
        "watches_of_several_connections_fire_each_for_itself",
        |talk| {
            let mut a = talk.connect("a");
            let mut b = talk.connect("b");
            a.quietly(&create("/t", 0));
            for _ in 0..3 {
                a.call("get", &get_data("/t", true));
            }
            b.call("get", &get_data("/t", true));
            b.call("children", &get_children("/t", true));
            a.call("set", &set_data("/t", b"", -1));
            b.settle();
            a.call("child", &create("/t/k", 0));
            b.settle();
            a.call("exists", &exists("/t/k", true));
            b.call("children", &get_children("/t", true));
            b.call("delete", &delete("/t/k", -1));
            a.settle();
            b.settle();
        },
    );
}

#[test]
fn persistent_watches_stay_and_recursive_ones_cover_what_is_below() {
    let test = "persistent_watches_stay_and_recursive_ones_cover_what_is_below";
    conversation(test, |talk| {
        let mut p = talk.connect("p");
        let mut r = talk.connect("r");
        let mut w = talk.connect("w");
        p.call("persistent", &add_watch("/a", 0));
        r.call("recursive", &add_watch("/a", 1));
        for (label, request) in [
            ("create", create("/a", 0)),
            ("set", set_data("/a", b"", -1)),
            ("set again", set_data("/a", b"", -1)),
            ("child", create("/a/b", 0)),
            ("grandchild", create("/a/b/c", 0)),
            ("set grandchild", set_data("/a/b/c", b"", -1)),
            ("delete grandchild", delete("/a/b/c", -1)),
            ("neighbour", create("/ab", 0)),
            ("set acl", set_acl("/a", &[(31, "world", "anyone")], -1)),
            (
                "multi",
                multi(&[
                    create("/a/m", 0),
                    set_data("/a/m", b"", -1),
                    delete("/a/m", -1),
                ]),
            ),
            ("delete child", delete("/a/b", -1)),
            ("delete", delete("/a", -1)),
            ("create again", create("/a", 0)),
        ] {
            w.call(label, &request);
            p.settle();
            r.settle();
        }
        for mode in [-1, 2, 7] {
            p.call(&format!("mode {mode}"), &add_watch("/a", mode));
        }
        p.call("on nonsense", &add_watch("no path", 0));
        p.call("on an ill-formed path", &add_watch("/a//b/", 1));
        r.call("recursive on the root", &add_watch("/", 1));
        w.call("anywhere", &create("/else", 0));
        r.settle();
        w.call("below /zookeeper", &create("/zookeeper/else", 0));
        r.settle();
    });
}

#[test]
fn a_recursive_watch_and_a_child_watch_on_one_path_both_fire() {
    conversation(
        "a_recursive_watch_and_a_child_watch_on_one_path_both_fire",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/b", 0));
            a.call("recursive above", &add_watch("/", 1));
            a.call("children", &get_children("/b", true));
            a.call("child", &create("/b/k", 0));
            a.call("second child", &create("/b/l", 0));
            a.call("data", &get_data("/b/k", true));
            a.call("set", &set_data("/b/k", b"", -1));
            a.call("set again", &set_data("/b/k", b"", -1));
        },
    );
}

#[test]
fn a_watch_can_be_looked_for_and_removed() {
    conversation("a_watch_can_be_looked_for_and_removed", |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create("/k", 0));
        let probe = |a: &mut crate::wire::Connection, label: &str| {
            for kind in 1..=3 {
                a.call(&format!("{label}: kind {kind}"), &check_watches("/k", kind));
            }
        };
        probe(&mut a, "nothing");
        a.call("data", &get_data("/k", true));
        probe(&mut a, "data");
        a.call("remove children", &remove_watches("/k", 1));
        a.call("remove data", &remove_watches("/k", 2));
        probe(&mut a, "removed");
        a.call("children", &get_children("/k", true));
        probe(&mut a, "children");
        a.call("remove any", &remove_watches("/k", 3));
        probe(&mut a, "removed");
        a.call("exists on the missing", &exists("/gone", true));
        a.call("check", &check_watches("/gone", 2));
        a.call("remove", &remove_watches("/gone", 2));
        a.call("created: no event", &create("/gone", 0));
        a.call("persistent", &add_watch("/k", 0));
        a.call("persistent: any", &check_watches("/k", 3));
        a.call("remove any", &remove_watches("/k", 3));
        a.call("set: no event", &set_data("/k", b"", -1));
        a.call("recursive", &add_watch("/k", 1));
        a.call("recursive: any", &check_watches("/k", 3));
        a.call("recursive: below", &check_watches("/k/x", 3));
        a.call("remove any", &remove_watches("/k", 3));
        a.call("child: no event", &create("/k/x", 0));
        for kind in [0, 6, -1, 99] {
            a.call(&format!("kind {kind}"), &check_watches("/k", kind));
            a.call(&format!("remove kind {kind}"), &remove_watches("/k", kind));
        }
        let mut b = talk.connect("b");
        b.call("another's", &get_data("/k", true));
        a.call("is not mine", &check_watches("/k", 3));
        a.call("nor can I remove it", &remove_watches("/k", 3));
        a.call("set", &set_data("/k", b"", -1));
        b.settle();
    });
}

#[test]
fn set_watches_tells_what_was_missed_and_registers_the_rest() {
    let test = "set_watches_tells_what_was_missed_and_registers_the_rest";
    conversation(test, |talk| {
        let mut w = talk.connect("w");
        for path in ["/same", "/changed", "/kids", "/here", "/late"] {
            w.quietly(&create(path, 0));
        }
        w.quietly(&set_data("/same", b"1", -1));
        let seen = w.last_zxid();
        w.quietly(&set_data("/changed", b"1", -1));
        w.quietly(&create("/kids/k", 0));
        w.quietly(&create("/late/k", 0));
        w.quietly(&delete("/late/k", -1));
        for (name, lists) in [("101", 3), ("105", 5)] {
            let mut a = talk.connect("a");
            let watches: [(&str, Vec<&str>); 5] = [
                ("data", vec!["/same", "/changed", "/kids", "/gone"]),
                ("exist", vec!["/never", "/here", "/changed"]),
                ("child", vec!["/same", "/kids", "/late", "/gone2"]),
                ("persistent", vec!["/same", "/gone", "/never"]),
                ("recursive", vec!["/kids", "/gone"]),
            ];
            for only in 0..lists {
                let mut chosen: Vec<&[&str]> = vec![&[]; lists];
                chosen[only] = &watches[only].1;
                a.call(
                    &format!("{name} {}", watches[only].0),
                    &set_watches(seen, &chosen),
                );
            }
            w.quietly(&set_data("/same", b"2", -1));
            a.settle();
            w.quietly(&create("/same/kid", 0));
            a.settle();
            w.quietly(&create("/never", 0));
            a.settle();
            w.quietly(&set_data("/kids", b"2", -1));
            a.settle();
            w.quietly(&delete("/same/kid", -1));
            w.quietly(&delete("/never", -1));
            a.settle();
        }
        let mut a = talk.connect("a");
        a.call("from zero", &set_watches(0, &[&["/same"], &[], &["/same"]]));
        a.call(
            "from the future",
            &set_watches(i64::MAX, &[&["/same"], &[], &["/same"]]),
        );
        a.call(
            "one event for each",
            &multi(&[set_data("/same", b"", -1), create("/same/x", 0)]),
        );
        a.call("none", &set_watches(0, &[&[], &[], &[], &[], &[]]));
        let short = Body::default().long(0).texts(&[]).texts(&[]).texts(&[]);
        a.call(
            "105 with the body of 101",
            &set_watches(0, &[&[], &[], &[], &[], &[]]).with_body(short),
        );
    });
}

#[test]
fn an_event_reaches_only_those_who_may_read() {
    conversation("an_event_reaches_only_those_who_may_read", |talk| {
        let mut a = talk.connect("a");
        let mut w = talk.connect("w");
        w.quietly(&create("/top", 0));
        a.call("recursive", &add_watch("/top", 1));
        w.call(
            "secret",
            &create_acl("/top/secret", &[(ALL - READ, "world", "anyone")]),
        );
        a.settle();
        w.call("set", &set_data("/top/secret", b"", -1));
        a.settle();
        w.call("plain", &create("/top/plain", 0));
        a.settle();
        a.call("watch plain", &get_data("/top/plain", true));
        w.call(
            "close it",
            &set_acl("/top/plain", &[(WRITE, "world", "anyone")], -1),
        );
        w.call("set", &set_data("/top/plain", b"", -1));
        a.settle();
        w.call("delete", &delete("/top/plain", -1));
        w.call("delete the secret", &delete("/top/secret", -1));
        a.settle();
    });
}
