//! Identities, access control lists and what they allow.

use super::conversation;
use crate::wire::{
    ADMIN, ALL, CREATE, Conversation, DELETE, Entry, READ, WRITE, auth, check, create, create_acl,
    delete, get_acl, get_all_children_number, get_children, get_data, multi, set_acl, set_data,
};

/// The digest of `u:p` (compatibility reference, 6.3).
const U_P: &str = "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=";

#[test]
fn ids_are_valid_or_not_by_the_rules_of_their_scheme() {
    conversation(
        "ids_are_valid_or_not_by_the_rules_of_their_scheme",
        |talk| {
            let mut a = talk.connect("a");
            a.quietly(&create("/i", 0));
            let ids: &[(&str, &[&str])] = &[
                ("world", &["anyone", "", "Anyone", "any one"]),
                (
                    "ip",
                    &[
                        "127.0.0.1",
                        "10.0.0.0/8",
                        "10.1.2.3/32",
                        "10.1.2.3/33",
                        "10.1.2.3/0",
                        "10.1.2.3/-1",
                        "10.1.2.3/",
                        "/8",
                        "10.1.2",
                        "10.1.2.3.4",
                        "256.1.1.1",
                        "localhost",
                        "",
                        "a",
                        "10.1.2.3/8/8",
                        "10.1.2.3/x",
                        "1.2.3.4 ",
                    ],
                ),
                (
                    "digest",
                    &["a:b", ":b", "a:b:", "a", "a:", ":", "a:b:c", "", "a b:c d"],
                ),
                ("auth", &["", "x"]),
                ("super", &["", "x:y"]),
                ("host", &["example.com"]),
                ("sasl", &["x"]),
                ("x509", &["CN=x"]),
                ("", &["", "x"]),
                ("World", &["anyone"]),
                ("nonsense", &["x"]),
            ];
            for (scheme, ids) in ids {
                for (number, id) in ids.iter().enumerate() {
                    let path = format!("/i/{scheme}{number}");
                    a.call(
                        &format!("{scheme}:{id:?}"),
                        &create_acl(&path, &[(ALL, scheme, id)]),
                    );
                    a.call("as stored", &get_acl(&path));
                }
            }
            for permissions in [0, 31, 32, 0x7fff_ffff, -1, i32::MIN] {
                let path = format!("/i/p{permissions}");
                a.call(
                    &format!("permissions {permissions}"),
                    &create_acl(&path, &[(permissions, "world", "anyone")]),
                );
                a.call("as stored", &get_acl(&path));
            }
        },
    );
}

#[test]
fn lists_are_completed_and_freed_of_duplicates() {
    conversation("lists_are_completed_and_freed_of_duplicates", |talk| {
        let mut a = talk.connect("a");
        let lists: &[(&str, &[Entry<'_>])] = &[
            ("none", &[]),
            (
                "twice",
                &[(ALL, "world", "anyone"), (ALL, "world", "anyone")],
            ),
            (
                "twice apart",
                &[
                    (ALL, "world", "anyone"),
                    (1, "ip", "1.2.3.4"),
                    (ALL, "world", "anyone"),
                ],
            ),
            (
                "same id, other permissions",
                &[(1, "world", "anyone"), (2, "world", "anyone")],
            ),
            ("auth", &[(ALL, "auth", "")]),
            (
                "auth and world",
                &[(1, "world", "anyone"), (ALL, "auth", "ignored")],
            ),
            ("auth twice", &[(1, "auth", ""), (2, "auth", "")]),
            (
                "one bad of two",
                &[(ALL, "world", "anyone"), (ALL, "digest", "bad")],
            ),
            (
                "own digest and auth",
                &[(ALL, "digest", U_P), (ALL, "auth", "")],
            ),
        ];
        let try_all = |connection: &mut crate::wire::Connection, round: &str| {
            for (number, (label, list)) in lists.iter().enumerate() {
                let path = format!("/{round}{number}");
                connection.call(&format!("{label}: create"), &create_acl(&path, list));
                connection.quietly_or_not(&path);
                connection.call(&format!("{label}: set"), &set_acl(&path, list, -1));
                // Of several identities the expansion of `auth` has no order.
                connection.call("as stored", &get_acl(&path).unordered());
            }
        };
        try_all(&mut a, "nobody");
        a.call("auth u", &auth("digest", b"u:p"));
        try_all(&mut a, "u");
        a.call("auth v", &auth("digest", b"v:p"));
        a.call("auth u again", &auth("digest", b"u:p"));
        try_all(&mut a, "uv");
    });
}

impl crate::wire::Connection {
    /// Creates the znode if the create before was refused, so that there is something to set.
    fn quietly_or_not(&mut self, path: &str) {
        self.call("make sure", &create(path, 0));
    }
}

fn permission_table(talk: &Conversation, permissions: i32) {
    let mut owner = talk.connect("owner");
    owner.quietly(&auth("digest", b"u:p"));
    let mut other = talk.connect("other");
    let root = format!("/p{permissions}");
    let path = format!("{root}/n");
    owner.quietly(&create(&root, 0));
    owner.quietly(&create_acl(
        &path,
        &[(permissions, "world", "anyone"), (ALL, "digest", U_P)],
    ));
    owner.quietly(&create(&format!("{path}/kid"), 0));
    other.call("get", &get_data(&path, false));
    other.call("children", &get_children(&path, false));
    other.call("count", &get_all_children_number(&path));
    other.call("acl", &get_acl(&path));
    other.call("set", &set_data(&path, b"x", -1));
    other.call("check", &multi(&[check(&path, -1)]));
    other.call("create", &create(&format!("{path}/mine"), 0));
    other.call("delete", &delete(&format!("{path}/kid"), -1));
    other.call(
        "set acl",
        &set_acl(
            &path,
            &[(permissions, "world", "anyone"), (ALL, "digest", U_P)],
            -1,
        ),
    );
    owner.call("owner's acl", &get_acl(&path));
}

#[test]
fn each_permission_allows_what_it_should() {
    conversation("each_permission_allows_what_it_should", |talk| {
        for permissions in [0, READ, WRITE, CREATE, DELETE, ADMIN, READ | ADMIN, ALL] {
            talk.note(format!("permissions {permissions}"));
            permission_table(talk, permissions);
        }
    });
}

#[test]
fn the_digest_of_another_is_masked_from_those_who_may_not_administer() {
    let test = "the_digest_of_another_is_masked_from_those_who_may_not_administer";
    conversation(test, |talk| {
        let mut a = talk.connect("a");
        for (path, permissions) in [
            ("/read", READ),
            ("/admin", ADMIN),
            ("/both", READ | ADMIN),
            ("/none", WRITE),
        ] {
            a.call(
                path,
                &create_acl(
                    path,
                    &[
                        (permissions, "world", "anyone"),
                        (ALL, "digest", U_P),
                        (ALL, "digest", "a:b"),
                        (ALL, "digest", ":b"),
                        (ALL, "ip", "10.0.0.0/8"),
                    ],
                ),
            );
            a.call("as seen", &get_acl(path));
        }
        a.quietly(&auth("digest", b"u:p"));
        for path in ["/read", "/admin", "/both", "/none"] {
            a.call("as its owner sees it", &get_acl(path));
        }
    });
}

#[test]
fn an_address_in_the_list_is_matched_against_the_peer() {
    conversation(
        "an_address_in_the_list_is_matched_against_the_peer",
        |talk| {
            let mut a = talk.connect("a");
            for (number, id) in [
                "127.0.0.1",
                "127.0.0.0/8",
                "127.0.0.1/32",
                "0.0.0.0/0",
                "128.0.0.0/1",
                "10.0.0.1",
                "127.0.0.2/31",
                "::1",
                "::/0",
            ]
            .iter()
            .enumerate()
            {
                let path = format!("/ip{number}");
                a.call(
                    &format!("{id}: create"),
                    &create_acl(&path, &[(READ, "ip", id)]),
                );
                a.call(&format!("{id}: get"), &get_data(&path, false));
            }
        },
    );
}
