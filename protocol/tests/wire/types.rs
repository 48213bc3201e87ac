//! Which paths, ACLs and create flags are valid, by ZooKeeper's own answers.

use std::net::IpAddr;

use proptest::prelude::*;
use quorate_protocol::types::{
    ACL_ENTRIES_MAX, BadFlags, InvalidAcl, PathError, TTL_MAX_MS, digest_id, ip_matches,
};
use quorate_protocol::{Acl, AclEntry, CreateMode, Id, Perms, ZnodePath};

use super::strategies::text;

#[test]
fn paths_that_zookeeper_accepts_are_accepted() {
    for path in [
        "/",
        "/a",
        "/a/b",
        "/...",
        "/.a",
        "/a.",
        "/a/..b",
        "/a b",
        "/ ",
        "/a\u{a0}",
        "/\u{d7ff}",
        "/\u{f900}",
        "/\u{ffef}",
        "/grün/日本",
        "/zookeeper/quota/a/zookeeper_limits",
    ] {
        assert_eq!(ZnodePath::check(path), Ok(()), "{path:?}");
        assert_eq!(ZnodePath::parse(path).unwrap().as_str(), path);
    }
}

#[test]
fn paths_that_zookeeper_refuses_are_refused() {
    for (path, error) in [
        ("", PathError::Empty),
        ("a", PathError::NotAbsolute),
        ("a/b", PathError::NotAbsolute),
        (".", PathError::NotAbsolute),
        ("/a/", PathError::TrailingSlash),
        ("//", PathError::TrailingSlash),
        ("/a//b", PathError::EmptyComponent),
        ("//a", PathError::EmptyComponent),
        ("/.", PathError::RelativeComponent),
        ("/..", PathError::RelativeComponent),
        ("/a/./b", PathError::RelativeComponent),
        ("/a/../b", PathError::RelativeComponent),
        ("/a/..", PathError::RelativeComponent),
    ] {
        assert_eq!(ZnodePath::check(path), Err(error), "{path:?}");
        assert_eq!(ZnodePath::parse(path), Err(error), "{path:?}");
    }
    for c in [
        '\0',
        '\u{1}',
        '\n',
        '\u{1f}',
        '\u{7f}',
        '\u{9f}',
        '\u{e000}',
        '\u{f8ff}',
        '\u{fff0}',
        '\u{fffd}',
        '\u{ffff}',
        '\u{10000}',
        '\u{1f600}',
        '\u{10ffff}',
    ] {
        let path = format!("/a{c}b");
        assert_eq!(
            ZnodePath::check(&path),
            Err(PathError::Character(c)),
            "{path:?}"
        );
    }
}

#[test]
fn paths_know_their_names_and_parents() {
    for (path, name, parent) in [
        ("/", "", None),
        ("/a", "a", Some("/")),
        ("/a/b", "b", Some("/a")),
        ("/a/b/c", "c", Some("/a/b")),
    ] {
        let parsed = ZnodePath::parse(path).unwrap();
        assert_eq!(parsed.name(), name);
        assert_eq!(parsed.parent(), parent);
        assert_eq!(parsed.is_root(), parent.is_none());
    }
}

proptest! {
    #[test]
    fn a_path_is_valid_exactly_when_zookeepers_loop_over_utf16_says_so(
        path in prop_oneof![text(), "/[/.a\u{7f}\u{e000}\u{1f600}]{0,7}".boxed()],
    ) {
        // The rules as ZooKeeper's validatePath walks them, one UTF-16 unit after another.
        let units: Vec<u16> = path.encode_utf16().collect();
        let slash = u16::from(b'/');
        let valid = match units[..] {
            [first] if first == slash => true,
            [first, .., last] if first == slash && last != slash => {
                units[1..].split(|unit| *unit == slash).all(|component| {
                    let dots = component.iter().all(|unit| *unit == u16::from(b'.'));
                    let forbidden = |unit: &u16| {
                        matches!(unit, 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff)
                    };
                    // Nothing at all counts as dots, too.
                    let refused = (dots && component.len() <= 2) || component.iter().any(forbidden);
                    !refused
                })
            }
            _ => false,
        };
        prop_assert_eq!(ZnodePath::check(&path).is_ok(), valid);
    }
}

#[track_caller]
fn assert_ids(scheme: &str, good: &[&str], bad: &[&str]) {
    for id in good {
        let acl = Acl::new(Perms::ALL, scheme, id).unwrap();
        assert_eq!(acl.id(), &Id::new(scheme, *id));
    }
    for id in bad {
        assert_eq!(
            Acl::new(Perms::ALL, scheme, id),
            Err(InvalidAcl::BadId),
            "{scheme}:{id}"
        );
    }
}

#[test]
fn each_scheme_accepts_the_ids_that_zookeeper_accepts() {
    assert_ids("world", &["anyone"], &["", "someone", "anyone "]);
    assert_ids(
        "digest",
        &[
            "a:b",
            ":b",
            "a:b:",
            "a:b::",
            "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=",
        ],
        &["", "a", "a:", ":", "::", "a:b:c", "a::b"],
    );
    assert_ids(
        "ip",
        &[
            "127.0.0.1",
            "10.0.0.0/8",
            "10.0.0.0/0",
            "1.2.3.4/32",
            "::1",
            "fe80::/10",
            "::/0",
            "::1/128",
        ],
        &[
            "",
            "/",
            "localhost",
            "10.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "::1/129",
            "1.2.3.4/8/8",
            "/8",
        ],
    );
    assert_ids(
        "x509",
        &[
            "CN=client",
            "CN=a b,OU=x, O=y",
            "1.2.3=x",
            "CN=a\\,b,O=c",
            "CN=a+OU=b",
        ],
        &["", "client", "CN=a,client", "=x", "C N=x"],
    );
}

#[test]
fn schemes_that_no_acl_may_name_are_unknown() {
    for scheme in ["", "super", "host", "auth", "sasl", "Digest", "world "] {
        assert_eq!(
            Acl::new(Perms::ALL, scheme, "anyone"),
            Err(InvalidAcl::UnknownScheme),
            "{scheme}"
        );
    }
}

#[test]
fn digests_are_those_of_zookeeper() {
    for (credentials, id) in [
        ("u:p", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="),
        ("super:test", "super:D/InIHSb7yEEbrWz8b9l71RjZJU="),
    ] {
        assert_eq!(digest_id(credentials.as_bytes()), id);
        assert_eq!(Id::digest(credentials.as_bytes()), Id::new("digest", id));
    }
    // The user ends at the first colon; all of it is hashed. Without a colon all of it is the user.
    assert!(digest_id(b"u:p:q").starts_with("u:"));
    assert_ne!(digest_id(b"u:p:q"), digest_id(b"u:p"));
    assert!(digest_id(b"nocolon").starts_with("nocolon:"));
    // Each is an id that an ACL may have.
    for credentials in [&b"u:p"[..], b"u:p:q", b"nocolon", b":p", b""] {
        assert!(Acl::new(Perms::ALL, "digest", &digest_id(credentials)).is_ok());
    }
}

fn digest(id: &str) -> Id {
    Id::new("digest", id)
}

fn resolve(entries: &[AclEntry], identities: &[Id]) -> Result<Vec<Acl>, InvalidAcl> {
    Acl::resolve(entries, identities)
}

#[test]
fn the_scheme_auth_stands_for_every_proved_identity() {
    let identities = [
        Id::ip("127.0.0.1".parse().unwrap()),
        digest("a:x"),
        Id::new("x509", "CN=b"),
        Id::superuser(),
        digest("super:y"),
        Id::new("sasl", "c"),
    ];
    let expected = [
        ("digest", "a:x"),
        ("x509", "CN=b"),
        ("digest", "super:y"),
        ("sasl", "c"),
    ];
    // Clients send "", "x" or null for the id; it does not matter.
    for id in [Some(""), Some("x"), None] {
        let entry = AclEntry {
            perms: Perms(3),
            scheme: Some("auth".into()),
            id: id.map(str::to_owned),
        };
        let resolved = resolve(&[entry], &identities).unwrap();
        assert!(resolved.iter().all(|acl| acl.perms == Perms(3)));
        let ids: Vec<&Id> = resolved.iter().map(Acl::id).collect();
        assert_eq!(
            ids,
            expected
                .map(|(scheme, id)| Id::new(scheme, id))
                .iter()
                .collect::<Vec<_>>()
        );
    }
}

/// Every check of a permission walks the list: it is as long as anybody needs, and no longer.
#[test]
fn an_acl_has_a_bounded_number_of_entries_as_sent_and_as_resolved() {
    let entries = |count: usize, scheme: &str, id: &str| -> Vec<AclEntry> {
        let perms = 1..=i32::try_from(count).unwrap();
        perms
            .map(|perms| AclEntry::new(Perms(perms), scheme, id))
            .collect()
    };
    let longest = entries(ACL_ENTRIES_MAX, "world", "anyone");
    let resolved = Acl::resolve(&longest, &[]).unwrap();
    assert_eq!(resolved.len(), ACL_ENTRIES_MAX);
    let too_long = entries(ACL_ENTRIES_MAX + 1, "world", "anyone");
    assert_eq!(Acl::resolve(&too_long, &[]), Err(InvalidAcl::TooLong));
    // Each of these stands for three.
    let identities = ["a:b", "c:d", "e:f"].map(|id| Id::digest(id.as_bytes()));
    let auth = entries(ACL_ENTRIES_MAX / 3, "auth", "");
    let resolved = Acl::resolve(&auth, &identities).unwrap();
    assert_eq!(resolved.len(), ACL_ENTRIES_MAX / 3 * 3);
    let auth = entries(ACL_ENTRIES_MAX / 3 + 1, "auth", "");
    assert_eq!(Acl::resolve(&auth, &identities), Err(InvalidAcl::TooLong));
    // Duplicates do not count twice, near or far.
    let twice = [&longest[..500], &longest[..500]].concat();
    assert_eq!(Acl::resolve(&twice, &[]).unwrap().len(), 500);
}

#[test]
fn the_scheme_auth_needs_an_identity_that_was_proved() {
    let auth = [AclEntry::new(Perms::ALL, "auth", "")];
    let address = Id::ip("::1".parse().unwrap());
    for identities in [&[][..], &[address][..], &[Id::superuser()][..]] {
        assert_eq!(
            resolve(&auth, identities),
            Err(InvalidAcl::NotAuthenticated)
        );
    }
}

#[test]
fn an_acl_needs_entries_and_each_of_them_must_be_valid() {
    let world = || AclEntry::open();
    let entry = |scheme: Option<&str>, id: Option<&str>| AclEntry {
        perms: Perms::ALL,
        scheme: scheme.map(str::to_owned),
        id: id.map(str::to_owned),
    };
    assert_eq!(resolve(&[], &[]), Err(InvalidAcl::Empty));
    for (bad, error) in [
        (entry(None, Some("anyone")), InvalidAcl::UnknownScheme),
        (entry(Some("super"), Some("")), InvalidAcl::UnknownScheme),
        (entry(Some("world"), None), InvalidAcl::BadId),
        (entry(Some("world"), Some("x")), InvalidAcl::BadId),
        (entry(Some("digest"), Some("a:b:c")), InvalidAcl::BadId),
    ] {
        assert_eq!(resolve(&[world(), bad], &[]), Err(error));
    }
}

#[test]
fn exact_duplicates_go_and_the_order_stays() {
    let world = |perms| AclEntry::new(Perms(perms), "world", "anyone");
    let resolved = resolve(&[world(1), world(2), world(1)], &[]).unwrap();
    assert_eq!(resolved, [Acl::world(Perms(1)), Acl::world(Perms(2))]);
    // What auth expands to counts, too.
    let entries = [
        AclEntry::new(Perms::ALL, "digest", "a:x"),
        AclEntry::new(Perms::ALL, "auth", ""),
    ];
    assert_eq!(
        resolve(&entries, &[digest("a:x"), digest("a:x")])
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn permissions_are_kept_as_they_came() {
    for perms in [0, 0x7fff_ffff, -1] {
        let resolved = resolve(&[AclEntry::new(Perms(perms), "world", "anyone")], &[]).unwrap();
        assert_eq!(resolved[0].perms, Perms(perms));
        assert_eq!(AclEntry::from(resolved[0].clone()).perms, Perms(perms));
    }
}

#[test]
fn an_entry_grants_what_it_names_to_whom_it_names() {
    let me = [Id::ip("10.1.2.3".parse().unwrap()), digest("a:x")];
    let grants =
        |scheme, id, perms, wanted| Acl::new(perms, scheme, id).unwrap().grants(wanted, &me);
    assert!(grants("world", "anyone", Perms::READ, Perms::READ));
    assert!(!grants("world", "anyone", Perms::READ, Perms::WRITE));
    assert!(grants(
        "world",
        "anyone",
        Perms::READ,
        Perms::READ.union(Perms::ADMIN)
    ));
    assert!(grants("digest", "a:x", Perms::ALL, Perms::WRITE));
    assert!(!grants("digest", "a:y", Perms::ALL, Perms::WRITE));
    assert!(grants("ip", "10.0.0.0/8", Perms::ALL, Perms::WRITE));
    assert!(!grants("ip", "10.0.0.0/16", Perms::ALL, Perms::WRITE));
    assert!(!Acl::world(Perms(0)).grants(Perms::ALL, &me));
}

#[test]
fn addresses_match_by_their_leading_bits() {
    for (network, address, matches) in [
        ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3", "10.1.2.4", false),
        ("10.1.2.3/31", "10.1.2.2", true),
        ("10.1.2.3/32", "10.1.2.2", false),
        ("10.1.2.3/0", "255.255.255.255", true),
        ("128.0.0.0/1", "127.0.0.1", false),
        ("fe80::/10", "fe80::1", true),
        ("fe80::/10", "fec0::1", false),
        ("::/0", "fe80::1", true),
        ("::/0", "1.2.3.4", false),
        ("1.2.3.4/0", "::1", false),
        ("::1", "::1", true),
        ("::1/128", "::2", false),
        ("nonsense", "10.1.2.3", false),
        ("10.1.2.3", "nonsense", false),
    ] {
        assert_eq!(ip_matches(network, address), matches, "{network} {address}");
    }
}

/// A client of an IPv6 socket may come from a mapped IPv4 address; ACLs name the latter.
#[test]
fn a_mapped_address_is_the_one_it_stands_for() {
    let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
    assert_eq!(Id::ip(mapped), Id::new("ip", "10.1.2.3"));
}

#[test]
fn flags_stand_for_the_modes_of_zookeeper() {
    let ttl_ms = 5;
    for (flags, mode, sequential, ephemeral) in [
        (0, CreateMode::Persistent, false, false),
        (1, CreateMode::Ephemeral, false, true),
        (2, CreateMode::PersistentSequential, true, false),
        (3, CreateMode::EphemeralSequential, true, true),
        (4, CreateMode::Container, false, false),
    ] {
        assert_eq!(CreateMode::from_flags(flags, None), Ok(mode));
        assert_eq!(
            (mode.is_sequential(), mode.is_ephemeral()),
            (sequential, ephemeral)
        );
        assert_eq!((mode.flags(), mode.ttl_ms()), (flags, None));
        // createTTL with such flags: only a negative TTL counts as none.
        assert_eq!(CreateMode::from_flags(flags, Some(-1)), Ok(mode));
        for ttl_ms in [0, 1, i64::MAX] {
            let refused = CreateMode::from_flags(flags, Some(ttl_ms));
            assert_eq!(refused, Err(BadFlags::UnexpectedTtl));
        }
    }
    for (flags, mode, sequential) in [
        (5, CreateMode::PersistentWithTtl { ttl_ms }, false),
        (6, CreateMode::PersistentSequentialWithTtl { ttl_ms }, true),
    ] {
        assert_eq!(CreateMode::from_flags(flags, Some(ttl_ms)), Ok(mode));
        assert_eq!(
            (mode.is_sequential(), mode.is_ephemeral()),
            (sequential, false)
        );
        assert_eq!((mode.flags(), mode.ttl_ms()), (flags, Some(ttl_ms)));
        assert_eq!(
            CreateMode::from_flags(flags, None),
            Err(BadFlags::MissingTtl)
        );
        assert!(CreateMode::from_flags(flags, Some(1)).is_ok());
        assert!(CreateMode::from_flags(flags, Some(TTL_MAX_MS)).is_ok());
        for bad in [0, -1, TTL_MAX_MS + 1, i64::MIN, i64::MAX] {
            let refused = CreateMode::from_flags(flags, Some(bad));
            assert_eq!(refused, Err(BadFlags::TtlOutOfRange(bad)));
        }
    }
    assert_eq!(TTL_MAX_MS, 1_099_511_627_775);
    for flags in [-1, 7, 8, i32::MIN, i32::MAX] {
        for ttl_ms in [None, Some(1)] {
            assert_eq!(
                CreateMode::from_flags(flags, ttl_ms),
                Err(BadFlags::Unknown(flags))
            );
        }
    }
}
