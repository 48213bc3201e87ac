//! Settings of `zoo.cfg` that change what a client is answered.

use quorate_tests::server::Settings;

use super::conversation_with;
use crate::wire::{
    ALL, Body, OPEN, Request, WRITE, auth, create, create_acl, create_ttl, create_with, delete,
    exists, get_acl, get_children, get_data, multi, set_acl, set_data, who_am_i,
};

#[test]
fn a_hard_quota_is_enforced_where_asked_for() {
    let test = "a_hard_quota_is_enforced_where_asked_for";
    let settings = Settings::default().with("enforceQuota", "true");
    conversation_with(test, &settings, |talk| {
        let mut a = talk.connect("a");
        a.quietly(&create_with(1, "/q", b"123", OPEN, 0));
        a.quietly(&create("/zookeeper/quota/q", 0));
        let limits = b"count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=3";
        a.call(
            "limit",
            &create_with(1, "/zookeeper/quota/q/zookeeper_limits", limits, OPEN, 0),
        );
        // Clients create this one too; ZooKeeper enforces nothing before they have.
        let usage = b"count=0,bytes=0";
        a.call(
            "usage node",
            &create_with(1, "/zookeeper/quota/q/zookeeper_stats", usage, OPEN, 0),
        );
        a.call(
            "usage",
            &get_data("/zookeeper/quota/q/zookeeper_stats", false),
        );
        a.call("second", &create("/q/2", 0));
        a.call("third", &create("/q/2/3", 0));
        a.call("fourth", &create("/q/4", 0));
        a.call("fourth, missing parent", &create("/q/nop/4", 0));
        a.call("fourth, exists", &create("/q/2", 0));
        a.call("fourth in a multi", &multi(&[create("/q/4", 0)]));
        a.call("to the limit", &set_data("/q/2", b"1234567", -1));
        a.call("beyond", &set_data("/q/2", b"12345678", -1));
        a.call(
            "beyond at a wrong version",
            &set_data("/q/2", b"12345678", 9),
        );
        a.call("less", &set_data("/q/2", b"1", -1));
        a.call("one gone", &delete("/q/2/3", -1));
        a.call(
            "too many bytes",
            &create_with(1, "/q/5", b"12345678", OPEN, 0),
        );
        a.call("few enough", &create_with(1, "/q/5", b"123456", OPEN, 0));
        a.call(
            "usage",
            &get_data("/zookeeper/quota/q/zookeeper_stats", false),
        );
        a.call("outside", &create("/outside", 0));
    });
}

#[test]
fn a_superuser_may_do_everything() {
    let test = "a_superuser_may_do_everything";
    // The digest of `super:test` (compatibility reference, 6.3).
    let settings = Settings::default().with(
        "DigestAuthenticationProvider.superDigest",
        "super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
    );
    conversation_with(test, &settings, |talk| {
        let mut a = talk.connect("a");
        let mut other = talk.connect("o");
        a.quietly(&create_acl("/shut", &[(0, "world", "anyone")]));
        a.call("nobody reads", &get_data("/shut", false));
        a.call("wrong", &auth("digest", b"super:wrong"));
        a.call("still", &get_data("/shut", false));
        a.call("super", &auth("digest", b"super:test"));
        a.call("reads", &get_data("/shut", false));
        a.call("writes", &set_data("/shut", b"x", -1));
        a.call("creates", &create("/shut/kid", 0));
        a.call("lists", &get_children("/shut", false));
        a.call("acl", &get_acl("/shut"));
        a.call(
            "sets the acl",
            &set_acl("/shut", &[(WRITE, "world", "anyone")], -1),
        );
        a.call("who", &who_am_i());
        a.call("its own", &create_acl("/own", &[(ALL, "auth", "")]));
        a.call("as stored", &get_acl("/own").unordered());
        a.call("system znode", &delete("/zookeeper/quota", -1));
        other.call("another", &get_data("/own", false));
    });
}

#[test]
fn lists_are_not_looked_at_where_they_are_switched_off() {
    let test = "lists_are_not_looked_at_where_they_are_switched_off";
    conversation_with(test, &Settings::default().with("skipACL", "yes"), |talk| {
        let mut a = talk.connect("a");
        a.call("create", &create_acl("/shut", &[(0, "world", "anyone")]));
        a.call("read", &get_data("/shut", false));
        a.call("write", &set_data("/shut", b"x", -1));
        a.call("child", &create("/shut/kid", 0));
        a.call("exists", &exists("/shut", false));
        a.call("acl", &get_acl("/shut"));
        a.call("invalid", &create_acl("/bad", &[(ALL, "digest", "bad")]));
        a.call("delete", &delete("/shut/kid", -1));
    });
}

#[test]
fn znodes_that_end_by_themselves_can_be_switched_off() {
    let test = "znodes_that_end_by_themselves_can_be_switched_off";
    let settings = Settings::default().with("extendedTypesEnabled", "false");
    conversation_with(test, &settings, |talk| {
        let mut a = talk.connect("a");
        for (flags, ttl) in [
            (5, 1_000),
            (6, 1_000),
            (5, -1),
            (5, i64::MAX),
            (0, 1_000),
            (9, 1_000),
        ] {
            a.call(
                &format!("flags {flags} ttl {ttl}"),
                &create_ttl("/t", flags, ttl),
            );
        }
        a.call("mode without a TTL", &create("/t", 5));
        a.call("container", &create_with(19, "/c", b"", OPEN, 4));
    });
}

#[test]
fn a_lone_server_has_no_members_to_change() {
    let reconfig = |joining: &str| {
        let body = Body::default().text(joining).int(-1).int(-1).long(-1);
        Request::odd(16, body)
    };
    conversation_with(
        "a_lone_server_has_no_members_to_change",
        &Settings::default(),
        |talk| {
            let mut a = talk.connect("a");
            a.call(
                "switched off",
                &reconfig("server.2=127.0.0.1:1:2:participant;127.0.0.1:3"),
            );
        },
    );
}
