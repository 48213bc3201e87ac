//! Which paths and modes a create takes, and which check of several comes first.

use super::conversation;
use crate::wire::{
    Body, OPEN, bad_multi, check, create, create_acl, create_container, create_ttl, create_with,
    create2, delete, exists, get_acl, get_children, get_data, multi, set_acl, set_data, sync,
};

#[test]
fn a_path_is_checked_where_something_is_written() {
    conversation("a_path_is_checked_where_something_is_written", |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create("/a", 0));
        for path in [
            "",
            "/",
            "a",
            "a/b",
            "//",
            "/a/",
            "/a//b",
            "/.",
            "/..",
            "/a/.",
            "/a/..",
            "/a/./b",
            "/a/../b",
            "/nop/..",
            "/nop/.",
            "/nop/",
            "/nop//x",
            "/...",
            "/.a",
            "/a.",
            "/a/...",
            "/ ",
            "/a b",
            "/\u{0}",
            "/a/\u{0}b",
            "/\u{1}",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{a0}",
            "/\u{d7ff}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{f900}",
            "/\u{ffef}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/\u{ffff}",
            "/\u{1f600}",
            "/\u{e4}",
            "/zookeeper/mine",
        ] {
            let shown = path.escape_unicode_controls();
            a.call(&format!("create {shown}"), &create(path, 0));
            a.call(&format!("set {shown}"), &set_data(path, b"x", -1));
            a.call(&format!("set acl {shown}"), &set_acl(path, OPEN, -1));
            a.call(&format!("check {shown}"), &multi(&[check(path, -1)]));
            a.call(&format!("sequential {shown}"), &create(path, 2));
            a.call(&format!("exists {shown}"), &exists(path, false));
            a.call(&format!("get {shown}"), &get_data(path, false));
            a.call(&format!("children {shown}"), &get_children(path, false));
            a.call(&format!("get acl {shown}"), &get_acl(path));
            a.call(&format!("sync {shown}"), &sync(path));
            if path != "/" {
                a.call(&format!("delete {shown}"), &delete(path, -1));
            }
        }
        let broken = Body::default()
            .bytes(b"/\xff\xfe")
            .bytes(b"")
            .acl(OPEN)
            .int(0);
        a.call(
            "create of bytes that are no UTF-8",
            &create("/", 0).with_body(broken),
        );
    });
}

trait Shown {
    fn escape_unicode_controls(&self) -> String;
}

impl Shown for str {
    fn escape_unicode_controls(&self) -> String {
        self.escape_default().to_string()
    }
}

#[test]
fn the_built_in_znodes_cannot_be_deleted_or_created() {
    conversation("the_built_in_znodes_cannot_be_deleted_or_created", |talk| {
        let mut a = talk.connect("a");
        for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            a.call(&format!("get {path}"), &get_data(path, false));
            a.call(&format!("acl of {path}"), &get_acl(path));
            a.call(&format!("delete {path}"), &delete(path, -1));
            a.call(&format!("delete {path} at a version"), &delete(path, 7));
            a.call(&format!("create {path}"), &create(path, 0));
        }
        a.call("set /", &set_data("/", b"root", -1));
        a.call("get /", &get_data("/", false));
        a.call("set acl /", &set_acl("/", &[(31, "world", "anyone")], 0));
        a.call("children /", &get_children("/", false));
        a.call("children /zookeeper", &get_children("/zookeeper", false));
        a.call("set config", &set_data("/zookeeper/config", b"x", -1));
    });
}

#[test]
fn the_first_check_that_fails_decides_the_error_of_a_create() {
    conversation(
        "the_first_check_that_fails_decides_the_error_of_a_create",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/p", 0));
            a.quietly(&create("/p/there", 0));
            a.quietly(&create("/eph", 1));
            a.quietly(&create_acl("/shut", &[(1, "world", "anyone")]));
            let bad: &[(i32, &str, &str)] = &[(31, "digest", "nocolon")];
            for (label, path, acl, flags) in [
                ("bad flags and bad path", "x", OPEN, 99),
                ("negative flags", "/p/x", OPEN, -1),
                ("no slash and bad acl", "x", bad, 0),
                ("bad acl and no parent", "/nop/x", bad, 0),
                ("bad acl and exists", "/p/there", bad, 0),
                ("bad acl below an ephemeral", "/eph/x", bad, 0),
                ("empty acl and no parent", "/nop/x", &[], 0),
                ("no parent and bad component", "/nop/..", OPEN, 0),
                ("shut parent and bad component", "/shut/..", OPEN, 0),
                ("shut parent and sequential", "/shut/s-", OPEN, 2),
                ("exists", "/p/there", OPEN, 0),
                ("exists, ephemeral wanted", "/p/there", OPEN, 1),
                ("below an ephemeral", "/eph/x", OPEN, 0),
                ("ephemeral below an ephemeral", "/eph/x", OPEN, 1),
                ("sequential below an ephemeral", "/eph/x", OPEN, 2),
                ("ephemeral exists", "/eph", OPEN, 0),
            ] {
                for op in [1, 15] {
                    a.call(
                        &format!("{label}, op {op}"),
                        &create_with(op, path, b"", acl, flags),
                    );
                }
            }
        },
    );
}

#[test]
fn the_first_check_that_fails_decides_the_error_of_other_writes() {
    conversation(
        "the_first_check_that_fails_decides_the_error_of_other_writes",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create_acl("/shut", &[(16 | 4, "world", "anyone")]));
            a.quietly(&create("/shut/kid", 0));
            a.quietly(&create("/open", 0));
            a.quietly(&create("/open/kid", 0));
            a.quietly(&create_acl("/open/noadmin", &[(1, "world", "anyone")]));
            let bad: &[(i32, &str, &str)] = &[(31, "digest", "nocolon")];
            a.call("delete in a missing parent", &delete("/nop/x", -1));
            a.call("delete in a shut parent", &delete("/shut/kid", -1));
            a.call(
                "delete the missing in a shut parent",
                &delete("/shut/nop", -1),
            );
            a.call(
                "delete at a wrong version in a shut parent",
                &delete("/shut/kid", 9),
            );
            a.call("delete the missing at a version", &delete("/open/nop", 9));
            a.call(
                "delete with children at a wrong version",
                &delete("/open", 9),
            );
            a.call("delete with children", &delete("/open", -1));
            a.call("delete ill-formed", &delete("/open/../x", -1));
            a.call("delete with a trailing slash", &delete("/open/kid/", -1));
            a.call(
                "set the shut at a wrong version",
                &set_data("/shut", b"", 9),
            );
            a.call("set the shut", &set_data("/shut", b"", -1));
            a.call("set the missing", &set_data("/nop", b"", 9));
            a.call("set at a wrong version", &set_data("/open", b"", 9));
            a.call("set acl bad on the missing", &set_acl("/nop", bad, -1));
            a.call(
                "set acl bad on an ill-formed path",
                &set_acl("/nop/", bad, -1),
            );
            a.call("set acl on the missing", &set_acl("/nop", OPEN, 9));
            a.call(
                "set acl without admin at a wrong version",
                &set_acl("/open/noadmin", OPEN, 9),
            );
            a.call("set acl at a wrong version", &set_acl("/open", OPEN, 9));
            a.call(
                "check the shut at a wrong version",
                &multi(&[check("/shut", 9)]),
            );
            a.call("check the missing", &multi(&[check("/nop", 0)]));
            a.call("check at a wrong version", &multi(&[check("/open", 9)]));
            a.call("check", &multi(&[check("/open", 0)]));
            a.call("get the shut", &get_data("/shut", false));
            a.call("children of the shut", &get_children("/shut", false));
            a.call("acl of the shut", &get_acl("/shut"));
            a.call("get the missing", &get_data("/nop", false));
        },
    );
}

#[test]
fn each_create_takes_the_modes_it_knows() {
    conversation("each_create_takes_the_modes_it_knows", |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create("/m", 0));
        for flags in -1..=8 {
            for op in [1, 15, 19] {
                let path = format!("/m/{op}x{flags}");
                a.call(
                    &format!("op {op} flags {flags}"),
                    &create_with(op, &path, b"d", OPEN, flags),
                );
            }
            // A negative TTL in a mode without one stops Apache ZooKeeper 3.8.0: see quorate_only.
            for ttl in [0, 1_000_000] {
                let path = format!("/m/21x{flags}x{ttl}");
                a.call(
                    &format!("op 21 flags {flags} ttl {ttl}"),
                    &create_ttl(&path, flags, ttl),
                );
            }
        }
        a.call("all of them", &get_children("/m", false));
        a.call("a container's stat", &exists("/m/19x4", false));
        a.call("a child of a container", &create2("/m/19x4/kid", b"", 0));
        a.call(
            "a child of a TTL znode",
            &create2("/m/21x5x1000000/kid", b"", 0),
        );
        a.call("container mode in a multi", &multi(&[create("/m/c", 4)]));
        a.call(
            "create container in a multi",
            &multi(&[create_container("/m/d", 4)]),
        );
        a.call("TTL in a multi", &multi(&[create_ttl("/m/e", 5, 100_000)]));
        a.call(
            "TTL in a multi, too long",
            &multi(&[create_ttl("/m/f", 5, i64::MAX)]),
        );
        // From here on the znode of a millisecond may go away: nothing looks at its parent.
        for ttl in [i64::MIN, 1, (1 << 40) - 1, 1 << 40, i64::MAX] {
            a.call(
                &format!("ttl {ttl}"),
                &create_ttl(&format!("/m/ttl{ttl}"), 5, ttl),
            );
        }
        a.call(
            "TTL mode without TTL in a multi",
            &bad_multi(&[create("/m/g", 5)]),
        );
    });
}

#[test]
fn sequential_names_count_the_children_ever_created() {
    conversation("sequential_names_count_the_children_ever_created", |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create("/s", 0));
        a.call("first", &create("/s/n-", 2));
        a.call("plain", &create("/s/plain", 0));
        a.call("after a plain one", &create("/s/n-", 2));
        a.call("delete", &delete("/s/plain", -1));
        a.call("after a delete", &create("/s/other-", 3));
        a.call("refused", &create("/s/n-0000000000", 0));
        a.call("after a refused one", &create("/s/n-", 2));
        a.call("no name but the number", &create("/s/", 2));
        a.call(
            "multi",
            &multi(&[
                create("/s/m-", 2),
                create("/s/m-", 2),
                create("/s/p", 0),
                create("/s/m-", 3),
            ]),
        );
        a.call(
            "failed multi",
            &multi(&[create("/s/m-", 2), delete("/s/nop", -1)]),
        );
        a.call("after a failed multi", &create2("/s/n-", b"", 2));
        a.call("failed by ACL", &create_acl("/s/n-", &[]));
        a.call("sequential TTL", &create_ttl("/s/t-", 6, 60_000));
        a.call("sequential at the root", &create("/r-", 2));
        a.call("the parent", &exists("/s", false));
        a.call("children", &get_children("/s", false));
        a.quietly(&create("/t", 0));
        a.quietly(&create("/t/n-", 2));
        a.quietly(&delete("/t/n-0000000000", -1));
        a.quietly(&delete("/t", -1));
        a.quietly(&create("/t", 0));
        a.call("after the parent was created anew", &create("/t/n-", 2));
    });
}
