//! Nulls, bad text, impossible lengths, announced counts that are lies.

use std::fmt;

use bytes::{BufMut as _, BytesMut};
use quorate_protocol::jute::{self, Error};
use quorate_protocol::request::{Auth, Sasl};
use quorate_protocol::{OpCode, Request, Response};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use super::{encoded, jute_of};

const NULL: [u8; 4] = [0xff; 4];

/// Operations whose record starts with a path.
const WITH_PATH: [OpCode; 18] = [
    OpCode::Create,
    OpCode::Create2,
    OpCode::CreateContainer,
    OpCode::CreateTtl,
    OpCode::Delete,
    OpCode::SetData,
    OpCode::SetAcl,
    OpCode::Check,
    OpCode::Exists,
    OpCode::GetData,
    OpCode::GetChildren,
    OpCode::GetChildren2,
    OpCode::GetAcl,
    OpCode::GetAllChildrenNumber,
    OpCode::Sync,
    OpCode::CheckWatches,
    OpCode::RemoveWatches,
    OpCode::AddWatch,
];

#[test]
fn a_null_path_does_not_decode() {
    let mut body = NULL.to_vec();
    body.extend([0; 64]);
    for op in WITH_PATH {
        assert_eq!(
            Request::decode(op, &body),
            Err(Error::UnexpectedNull),
            "{op:?}"
        );
    }
}

#[test]
fn a_length_below_minus_one_does_not_decode_even_where_null_does() {
    for body in [&(-2i32).to_be_bytes()[..], &i32::MIN.to_be_bytes()[..]] {
        let length = i32::from_be_bytes(body.try_into().unwrap());
        assert_eq!(
            Request::decode(OpCode::Sync, body),
            Err(Error::NegativeLength(length))
        );
        assert_eq!(
            Request::decode(OpCode::Sasl, body),
            Err(Error::NegativeLength(length))
        );
    }
}

#[test]
fn null_data_and_empty_data_are_different() {
    let set = |data: &[u8]| {
        let mut body = jute_of(&"/a");
        body.extend_from_slice(data);
        body.extend((-1i32).to_be_bytes());
        let Request::SetData(set) = Request::decode(OpCode::SetData, &body).unwrap() else {
            unreachable!("setData decodes to setData");
        };
        assert_eq!(
            encoded(|out| Request::SetData(set.clone()).encode(out)),
            body
        );
        set.data
    };
    assert_eq!(set(&NULL), None);
    assert_eq!(set(&[0; 4]), Some(bytes::Bytes::new()));

    let get = |data: &[u8]| {
        let body = [data, &[0; 68]].concat();
        let response = Response::decode(OpCode::GetData, &body).unwrap();
        assert_eq!(encoded(|out| response.encode(out)), body);
        matches!(response, Response::Data { data: None, .. })
    };
    assert!(get(&NULL));
    assert!(!get(&[0; 4]));
}

/// kazoo leaves the id null with the scheme `auth`; a null or negative list is an empty one.
#[test]
fn nulls_in_an_acl_decode_and_a_null_acl_is_an_empty_one() {
    let create = |acl: &[u8]| {
        let mut body = jute_of(&("/a", Option::<&str>::None));
        body.extend_from_slice(acl);
        body.extend([0; 4]);
        let Request::Create(create) = Request::decode(OpCode::Create, &body).unwrap() else {
            unreachable!("create decodes to create");
        };
        create.acl
    };
    assert_eq!(create(&NULL), []);
    assert_eq!(create(&(-2i32).to_be_bytes()), []);
    assert_eq!(create(&i32::MIN.to_be_bytes()), []);
    let entry = &create(&jute_of(&vec![(31i32, Some("auth"), Option::<&str>::None)]))[0];
    assert_eq!(
        (entry.scheme.as_deref(), entry.id.as_deref()),
        (Some("auth"), None)
    );
    let entry = &create(&jute_of(&vec![(
        31i32,
        Option::<&str>::None,
        Option::<&str>::None,
    )]))[0];
    assert_eq!((entry.scheme.as_deref(), entry.id.as_deref()), (None, None));
}

#[test]
fn null_lists_of_watches_are_empty_ones() {
    let body = [&[0; 8][..], &NULL, &NULL, &NULL, &NULL, &NULL].concat();
    let Request::SetWatches2(watches) = Request::decode(OpCode::SetWatches2, &body).unwrap() else {
        unreachable!("setWatches2 decodes to setWatches2");
    };
    assert!(watches.data.is_empty() && watches.persistent_recursive.is_empty());
}

#[test]
fn text_that_is_not_utf8_has_the_replacement_character_where_it_is_bad() {
    for (bytes, text) in [
        (&b"/a\xff"[..], "/a\u{fffd}"),
        (b"/\xe4bc", "/\u{fffd}bc"),
        (b"\xc0\x80", "\u{fffd}\u{fffd}"),
        // One character above U+FFFF as Java clients write it: two surrogates.
        (
            b"\xed\xa0\xbd\xed\xb8\x80",
            "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
        ),
        ("\u{1f600}".as_bytes(), "\u{1f600}"),
    ] {
        let body = encoded(|out| {
            out.put_i32(i32::try_from(bytes.len()).unwrap());
            out.put_slice(bytes);
            Ok::<_, Error>(())
        });
        assert_eq!(jute::decode::<String>(&body).unwrap(), text);
    }
}

#[test]
fn any_byte_but_zero_is_true() {
    for byte in 0..=255u8 {
        let body = [&jute_of(&"/a")[..], &[byte]].concat();
        let Request::Exists(exists) = Request::decode(OpCode::Exists, &body).unwrap() else {
            unreachable!("exists decodes to exists");
        };
        assert_eq!(exists.watch, byte != 0);
    }
}

/// A count is a stranger's word. It runs into the end of the body, and until then sizes nothing.
#[test]
fn a_huge_count_sizes_no_allocation() {
    struct Hint(Option<usize>);
    impl<'de> Deserialize<'de> for Hint {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Take;
            impl<'de> Visitor<'de> for Take {
                type Value = Hint;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a list")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Hint, A::Error> {
                    Ok(Hint(seq.size_hint()))
                }
            }
            deserializer.deserialize_seq(Take)
        }
    }
    let mut body = BytesMut::new();
    body.put_i32(i32::MAX);
    body.put_bytes(0, 12);
    assert_eq!(jute::decode::<Hint>(&body).unwrap().0, Some(12));
    assert!(matches!(
        jute::decode::<Vec<String>>(&body),
        Err(Error::Truncated { .. })
    ));
    // A string's length likewise.
    assert!(matches!(
        jute::decode::<String>(&body),
        Err(Error::Truncated { left: 12, .. })
    ));
}

#[test]
fn a_multi_takes_no_reads_no_set_acl_and_no_multi() {
    let with = |op: i32| {
        let mut body = encoded(|out| {
            out.put_i32(op);
            out.put_u8(0);
            out.put_i32(-1);
            Ok::<_, Error>(())
        });
        body.extend([0; 64]);
        body
    };
    let refused = |result: Result<Request, Error>| matches!(result, Err(Error::Invalid(_)));
    for op in [
        -1,
        0,
        3,
        4,
        7,
        8,
        9,
        12,
        14,
        16,
        20,
        22,
        100,
        105,
        9999,
        i32::MIN,
    ] {
        assert!(refused(Request::decode(OpCode::Multi, &with(op))), "{op}");
    }
    for op in [-1, 0, 1, 2, 3, 5, 12, 13, 14, 15, 19, 20, 21, 22, 9999] {
        assert!(
            refused(Request::decode(OpCode::MultiRead, &with(op))),
            "{op}"
        );
    }
}

#[test]
fn an_empty_multi_is_just_its_end() {
    let end = [0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff];
    for (op, request) in [
        (OpCode::Multi, Request::Multi(Vec::new())),
        (OpCode::MultiRead, Request::MultiRead(Vec::new())),
    ] {
        assert_eq!(encoded(|out| request.encode(out)), end);
        assert_eq!(Request::decode(op, &end).unwrap(), request);
    }
    let response = Response::Multi(Vec::new());
    assert_eq!(encoded(|out| response.encode(out)), end);
}

#[test]
fn no_credential_shows_in_debug_output() {
    let secret = bytes::Bytes::from_static(b"user:geheim");
    let auth = Request::Auth(Auth {
        auth_type: 0,
        scheme: Some("digest".into()),
        auth: Some(secret.clone()),
    });
    let sasl = Request::Sasl(Sasl {
        token: Some(secret),
    });
    let entry =
        quorate_protocol::AclEntry::new(quorate_protocol::Perms::ALL, "digest", "user:geheim");
    for shown in [
        format!("{auth:?}"),
        format!("{sasl:?}"),
        format!("{entry:?}"),
    ] {
        assert!(!shown.contains("geheim"), "{shown}");
    }
    assert!(format!("{entry:?}").contains("digest:user"));
}
