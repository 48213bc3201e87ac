//! Frames as Apache ZooKeeper 3.9.5 and its clients exchanged them, without the length in front.
//!
//! Each decodes to what it means, and what it means encodes to exactly these bytes. Fields are
//! separated by spaces; what differs from session to session is filled in.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::multi::{MultiOp, MultiResult};
use quorate_protocol::request::{
    AddWatch, Auth, Create, Delete, GetEphemerals, PathOnly, SetData, SetWatches2, Watched,
    WatchesOfType,
};
use quorate_protocol::{
    AclEntry, ErrorCode, EventType, OpCode, Password, ReplyHeader, Request, RequestHeader,
    Response, SessionId, Stat, WatcherEvent, Xid, Zxid, jute,
};

use super::encoded;

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[track_caller]
fn assert_request(hex: &str, xid: i32, request: &Request) {
    let frame = bytes_of(hex);
    let mut rest = &frame[..];
    let header: RequestHeader = jute::decode_next(&mut rest).unwrap();
    assert_eq!(header.xid, Xid(xid));
    assert_eq!(OpCode::from_code(header.op), Some(request.op()));
    assert_eq!(&Request::decode(request.op(), rest).unwrap(), request);
    let again = encoded(|out| {
        jute::encode(&header, out)?;
        request.encode(out)
    });
    assert_eq!(again, frame);
}

#[track_caller]
fn assert_reply(hex: &str, xid: i32, zxid: i64, op: OpCode, response: &Response<'_>) {
    let frame = bytes_of(hex);
    let mut rest = &frame[..];
    let header: ReplyHeader = jute::decode_next(&mut rest).unwrap();
    let expected = ReplyHeader {
        xid: Xid(xid),
        zxid: Zxid(zxid),
        err: 0,
    };
    assert_eq!(header, expected);
    assert_eq!(&Response::decode(op, rest).unwrap(), response);
    let again = encoded(|out| {
        jute::encode(&header, out)?;
        response.encode(out)
    });
    assert_eq!(again, frame);
}

/// A reply with an error has no body.
#[track_caller]
fn assert_refusal(hex: &str, xid: i32, zxid: i64, error: ErrorCode) {
    let frame = bytes_of(hex);
    let header: ReplyHeader = jute::decode(&frame).unwrap();
    let expected = ReplyHeader {
        xid: Xid(xid),
        zxid: Zxid(zxid),
        err: error.code(),
    };
    assert_eq!(header, expected);
    assert_eq!(encoded(|out| jute::encode(&header, out)), frame);
}

#[track_caller]
fn assert_notification(hex: &str, zxid: i64, kind: EventType, path: &str) {
    let frame = bytes_of(hex);
    let mut rest = &frame[..];
    let header: ReplyHeader = jute::decode_next(&mut rest).unwrap();
    let expected = ReplyHeader {
        xid: Xid::NOTIFICATION,
        zxid: Zxid(zxid),
        err: 0,
    };
    assert_eq!(header, expected);
    let event = WatcherEvent::new(kind, path);
    assert_eq!(jute::decode::<WatcherEvent<'_>>(rest).unwrap(), event);
    let again = encoded(|out| {
        jute::encode(&header, out)?;
        jute::encode(&event, out)
    });
    assert_eq!(again, frame);
}

fn text(text: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(text)
}

fn create(path: &str, data: &'static [u8], flags: i32) -> Create {
    Create {
        path: path.into(),
        data: Some(Bytes::from_static(data)),
        acl: vec![AclEntry::open()],
        flags,
    }
}

/// `/g` as it was created at zxid 0x1b5.
fn stat() -> Stat {
    Stat {
        czxid: Zxid(0x1b5),
        mzxid: Zxid(0x1b5),
        ctime: 0x01a1_fb5e_6309,
        mtime: 0x01a1_fb5e_6309,
        data_length: 2,
        pzxid: Zxid(0x1b5),
        ..Stat::default()
    }
}

const STAT: &str =
    "00000000000001b5 00000000000001b5 000001a1fb5e6309 000001a1fb5e6309 00000000 00000000 00000000
    0000000000000000 00000002 00000000 00000000000001b5";

#[test]
fn connect() {
    let hex = "00000000 0000000000000000 00002710 0000000000000000 00000010 \
               00000000000000000000000000000000 00";
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: 10_000,
        session_id: None,
        password: Some(Bytes::from_static(&[0; 16])),
        read_only: Some(false),
    };
    assert_eq!(ConnectRequest::decode(&bytes_of(hex)).unwrap(), request);
    assert_eq!(encoded(|out| request.encode(out)), bytes_of(hex));

    let hex = "00000000 00002710 0100001f06250036 00000010 000102030405060708090a0b0c0d0e0f 00";
    let response = ConnectResponse {
        protocol_version: 0,
        timeout_ms: 10_000,
        session_id: SessionId::new(0x0100_001f_0625_0036),
        password: Password::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        read_only: Some(false),
    };
    assert_eq!(ConnectResponse::decode(&bytes_of(hex)).unwrap(), response);
    assert_eq!(encoded(|out| response.encode(out)), bytes_of(hex));
}

#[test]
fn create2() {
    assert_request(
        "00000001 0000000f 00000002 2f67 00000002 6869 00000001 0000001f 00000005 776f726c64 \
         00000006 616e796f6e65 00000000",
        1,
        &Request::Create2(create("/g", b"hi", 0)),
    );
    assert_reply(
        &format!("00000001 00000000000001b5 00000000 00000002 2f67 {STAT}"),
        1,
        0x1b5,
        OpCode::Create2,
        &Response::PathStat {
            path: text("/g"),
            stat: stat(),
        },
    );
}

#[test]
fn create_sequential() {
    assert_request(
        "00000002 00000001 00000005 2f672f732d 00000000 00000001 0000001f 00000005 776f726c64 \
         00000006 616e796f6e65 00000002",
        2,
        &Request::Create(create("/g/s-", b"", 2)),
    );
    assert_reply(
        "00000002 00000000000001b6 00000000 0000000f 2f672f732d30303030303030303030",
        2,
        0x1b6,
        OpCode::Create,
        &Response::Path(text("/g/s-0000000000")),
    );
}

#[test]
fn ping_and_auth() {
    assert_request("fffffffe 0000000b", -2, &Request::Ping);
    assert_reply(
        "fffffffe 00000000000001b6 00000000",
        -2,
        0x1b6,
        OpCode::Ping,
        &Response::Empty,
    );
    assert_request(
        "fffffffc 00000064 00000000 00000006 646967657374 00000003 753a70",
        -4,
        &Request::Auth(Auth {
            auth_type: 0,
            scheme: Some("digest".into()),
            auth: Some(Bytes::from_static(b"u:p")),
        }),
    );
    assert_reply(
        "fffffffc 0000000000000000 00000000",
        -4,
        0,
        OpCode::Auth,
        &Response::Empty,
    );
}

#[test]
fn get_data_with_a_watch() {
    assert_request(
        "00000003 00000004 00000002 2f67 01",
        3,
        &Request::GetData(Watched {
            path: "/g".into(),
            watch: true,
        }),
    );
    assert_reply(
        "00000003 00000000000001b6 00000000 00000002 6869
         00000000000001b5 00000000000001b5 000001a1fb5e6309 000001a1fb5e6309 00000000 00000001 00000000
         0000000000000000 00000002 00000001 00000000000001b6",
        3,
        0x1b6,
        OpCode::GetData,
        &Response::Data {
            data: Some(Cow::Borrowed(b"hi")),
            stat: Stat {
                cversion: 1,
                num_children: 1,
                pzxid: Zxid(0x1b6),
                ..stat()
            },
        },
    );
}

#[test]
fn set_data_by_the_watcher_itself() {
    assert_request(
        "00000004 00000005 00000002 2f67 00000001 78 ffffffff",
        4,
        &Request::SetData(SetData {
            path: "/g".into(),
            data: Some(Bytes::from_static(b"x")),
            version: -1,
        }),
    );
    assert_notification(
        "ffffffff 00000000000001b7 00000000 00000003 00000003 00000002 2f67",
        0x1b7,
        EventType::NodeDataChanged,
        "/g",
    );
    assert_reply(
        "00000004 00000000000001b7 00000000
         00000000000001b5 00000000000001b7 000001a1fb5e6309 000001a1fb5e6309 00000001 00000001 00000000
         0000000000000000 00000001 00000001 00000000000001b6",
        4,
        0x1b7,
        OpCode::SetData,
        &Response::Stat(Stat {
            mzxid: Zxid(0x1b7),
            version: 1,
            cversion: 1,
            data_length: 1,
            num_children: 1,
            pzxid: Zxid(0x1b6),
            ..stat()
        }),
    );
}

#[test]
fn delete_with_a_stale_version() {
    assert_request(
        "00000005 00000002 00000002 2f67 00000007",
        5,
        &Request::Delete(Delete {
            path: "/g".into(),
            version: 7,
        }),
    );
    assert_refusal(
        "00000005 00000000000001b8 ffffff99",
        5,
        0x1b8,
        ErrorCode::BadVersion,
    );
}

#[test]
fn a_failed_multi() {
    let delete = |path: &str| {
        MultiOp::Delete(Delete {
            path: path.into(),
            version: -1,
        })
    };
    assert_request(
        "00000008 0000000e
         00000002 00 ffffffff 00000004 2f672f65 ffffffff
         00000002 00 ffffffff 00000005 2f672f7a7a ffffffff
         00000001 00 ffffffff 00000004 2f672f65 00000000 00000001 0000001f 00000005 776f726c64
             00000006 616e796f6e65 00000000
         ffffffff 01 ffffffff",
        8,
        &Request::Multi(vec![
            delete("/g/e"),
            delete("/g/zz"),
            MultiOp::Create(create("/g/e", b"", 0)),
        ]),
    );
    assert_reply(
        "00000008 00000000000001ba 00000000
         ffffffff 00 00000000 00000000
         ffffffff 00 ffffff9b ffffff9b
         ffffffff 00 fffffffe fffffffe
         ffffffff 01 ffffffff",
        8,
        0x1ba,
        OpCode::Multi,
        &Response::Multi(vec![
            MultiResult::Error(None),
            MultiResult::Error(Some(ErrorCode::NoNode)),
            MultiResult::Error(Some(ErrorCode::RuntimeInconsistency)),
        ]),
    );
}

#[test]
fn a_successful_multi() {
    assert_reply(
        &format!(
            "00000009 00000000000001ba 00000000
             0000000d 00 00000000
             00000001 00 00000000 00000002 2f67
             00000005 00 00000000 {STAT}
             0000000f 00 00000000 00000002 2f67 {STAT}
             00000002 00 00000000
             ffffffff 01 ffffffff"
        ),
        9,
        0x1ba,
        OpCode::Multi,
        &Response::Multi(vec![
            MultiResult::Check,
            MultiResult::Create { path: text("/g") },
            MultiResult::SetData(stat()),
            MultiResult::Create2 {
                path: text("/g"),
                stat: stat(),
            },
            MultiResult::Delete,
        ]),
    );
}

#[test]
fn watches() {
    assert_request(
        "0000000a 0000006a 00000002 2f67 00000001",
        10,
        &Request::AddWatch(AddWatch {
            path: "/g".into(),
            mode: 1,
        }),
    );
    assert_reply(
        "0000000a 00000000000001ba 00000000 00000000",
        10,
        0x1ba,
        OpCode::AddWatch,
        &Response::WatchAdded,
    );
    assert_request(
        "fffffff8 00000069 0000000000000000 00000001 00000002 2f67 00000000 00000000 00000000 00000000",
        -8,
        &Request::SetWatches2(SetWatches2 {
            relative_zxid: Zxid::ZERO,
            data: vec!["/g".into()],
            exist: Vec::new(),
            child: Vec::new(),
            persistent: Vec::new(),
            persistent_recursive: Vec::new(),
        }),
    );
    assert_notification(
        "ffffffff ffffffffffffffff 00000000 00000003 00000003 00000002 2f67",
        Zxid::NONE.0,
        EventType::NodeDataChanged,
        "/g",
    );
    assert_reply(
        "fffffff8 00000000000001ba 00000000",
        -8,
        0x1ba,
        OpCode::SetWatches2,
        &Response::Empty,
    );
    assert_request(
        "0000000b 00000011 00000002 2f67 00000003",
        11,
        &Request::CheckWatches(WatchesOfType {
            path: "/g".into(),
            watcher_type: 3,
        }),
    );
    assert_reply(
        "0000000b 00000000000001ba 00000000",
        11,
        0x1ba,
        OpCode::CheckWatches,
        &Response::Empty,
    );
    assert_refusal(
        "0000000c 00000000000001ba ffffff87",
        12,
        0x1ba,
        ErrorCode::NoWatcher,
    );
}

#[test]
fn smaller_operations() {
    assert_request(
        "0000000d 00000009 00000001 2f",
        13,
        &Request::Sync(PathOnly { path: "/".into() }),
    );
    assert_reply(
        "0000000d 00000000000001ba 00000000 00000001 2f",
        13,
        0x1ba,
        OpCode::Sync,
        &Response::Path(text("/")),
    );
    assert_reply(
        "0000000e 00000000000001ba 00000000 00000002 00000002 6970 00000009 3132372e302e302e31 \
         00000006 646967657374 00000001 75",
        14,
        0x1ba,
        OpCode::WhoAmI,
        &Response::Identities(vec![
            ("ip".into(), "127.0.0.1".into()),
            ("digest".into(), "u".into()),
        ]),
    );
    assert_reply(
        "0000000f 00000000000001ba 00000000 0000002f",
        15,
        0x1ba,
        OpCode::GetAllChildrenNumber,
        &Response::Count(47),
    );
    assert_request(
        "00000010 00000067 00000002 2f67",
        16,
        &Request::GetEphemerals(GetEphemerals {
            prefix: Some("/g".into()),
        }),
    );
    assert_reply(
        "00000010 00000000000001ba 00000000 00000001 00000004 2f672f65",
        16,
        0x1ba,
        OpCode::GetEphemerals,
        &Response::Strings(vec![text("/g/e")]),
    );
}

#[test]
fn close_session_by_the_owner_of_a_watched_ephemeral() {
    assert_request("00000012 fffffff5", 18, &Request::CloseSession);
    assert_notification(
        "ffffffff 00000000000001bb 00000000 00000002 00000003 00000004 2f672f65",
        0x1bb,
        EventType::NodeDeleted,
        "/g/e",
    );
    assert_reply(
        "00000012 00000000000001bb 00000000",
        18,
        0x1bb,
        OpCode::CloseSession,
        &Response::Empty,
    );
}

/// Clients send more than they used to; what this program does not know yet, it does not read.
#[test]
fn bytes_behind_a_recorded_request_change_nothing() {
    let mut body = BytesMut::from(&bytes_of("00000002 2f67 00000007")[..]);
    body.put_slice(b"more");
    let expected = Request::Delete(Delete {
        path: "/g".into(),
        version: 7,
    });
    assert_eq!(Request::decode(OpCode::Delete, &body).unwrap(), expected);
}
