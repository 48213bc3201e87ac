//! Any request and any response there can be.

use std::borrow::Cow;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::multi::{MultiOp, MultiResult, ReadOp};
use quorate_protocol::request::{
    AddWatch, Auth, Check, Create, CreateTtl, Delete, GetEphemerals, PathOnly, Reconfig, Sasl,
    SetAcl, SetData, SetWatches, SetWatches2, Watched, WatchesOfType,
};
use quorate_protocol::{
    AclEntry, ErrorCode, OpCode, Password, Perms, Request, Response, SessionId, Stat, Zxid,
};

/// Text as it comes, paths, and characters from every corner.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "/[a-z/]{0,12}".boxed(),
        any::<String>(),
        vec(any::<char>(), 0..6).prop_map(|chars| chars.into_iter().collect()),
    ]
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    option::of(vec(any::<u8>(), 0..20).prop_map(Bytes::from))
}

fn zxid() -> impl Strategy<Value = Zxid> {
    any::<i64>().prop_map(Zxid)
}

fn acl_entries() -> impl Strategy<Value = Vec<AclEntry>> {
    let entry = (any::<i32>(), option::of(text()), option::of(text()));
    vec(
        entry.prop_map(|(perms, scheme, id)| AclEntry {
            perms: Perms(perms),
            scheme,
            id,
        }),
        0..4,
    )
}

pub(crate) fn stat() -> impl Strategy<Value = Stat> {
    let times = (zxid(), zxid(), any::<i64>(), any::<i64>(), zxid());
    let counts = (
        any::<i32>(),
        any::<i32>(),
        any::<i32>(),
        any::<i32>(),
        any::<i32>(),
    );
    (times, counts, any::<i64>()).prop_map(|(times, counts, ephemeral_owner)| Stat {
        czxid: times.0,
        mzxid: times.1,
        ctime: times.2,
        mtime: times.3,
        version: counts.0,
        cversion: counts.1,
        aversion: counts.2,
        ephemeral_owner,
        data_length: counts.3,
        num_children: counts.4,
        pzxid: times.4,
    })
}

fn create() -> impl Strategy<Value = Create> {
    (text(), data(), acl_entries(), any::<i32>()).prop_map(|(path, data, acl, flags)| Create {
        path,
        data,
        acl,
        flags,
    })
}

fn create_ttl() -> impl Strategy<Value = CreateTtl> {
    (create(), any::<i64>()).prop_map(|(create, ttl_ms)| CreateTtl {
        path: create.path,
        data: create.data,
        acl: create.acl,
        flags: create.flags,
        ttl_ms,
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    (text(), any::<i32>()).prop_map(|(path, version)| Delete { path, version })
}

fn set_data() -> impl Strategy<Value = SetData> {
    (text(), data(), any::<i32>()).prop_map(|(path, data, version)| SetData {
        path,
        data,
        version,
    })
}

fn check() -> impl Strategy<Value = Check> {
    (text(), any::<i32>()).prop_map(|(path, version)| Check { path, version })
}

fn watched() -> impl Strategy<Value = Watched> {
    (text(), any::<bool>()).prop_map(|(path, watch)| Watched { path, watch })
}

fn path_only() -> impl Strategy<Value = PathOnly> {
    text().prop_map(|path| PathOnly { path })
}

fn watches_of_type() -> impl Strategy<Value = WatchesOfType> {
    (text(), any::<i32>()).prop_map(|(path, watcher_type)| WatchesOfType { path, watcher_type })
}

fn set_watches() -> impl Strategy<Value = SetWatches> {
    let paths = || vec(text(), 0..4);
    (zxid(), paths(), paths(), paths()).prop_map(|(relative_zxid, data, exist, child)| SetWatches {
        relative_zxid,
        data,
        exist,
        child,
    })
}

fn set_watches2() -> impl Strategy<Value = SetWatches2> {
    let paths = || vec(text(), 0..4);
    (set_watches(), paths(), paths()).prop_map(|(old, persistent, persistent_recursive)| {
        SetWatches2 {
            persistent,
            persistent_recursive,
            ..SetWatches2::from(old)
        }
    })
}

fn reconfig() -> impl Strategy<Value = Reconfig> {
    let servers = || option::of(text());
    (servers(), servers(), servers(), any::<i64>()).prop_map(
        |(joining, leaving, new_members, config_version)| Reconfig {
            joining,
            leaving,
            new_members,
            config_version,
        },
    )
}

fn multi_op() -> impl Strategy<Value = MultiOp> {
    prop_oneof![
        create().prop_map(MultiOp::Create),
        create().prop_map(MultiOp::Create2),
        create().prop_map(MultiOp::CreateContainer),
        create_ttl().prop_map(MultiOp::CreateTtl),
        delete().prop_map(MultiOp::Delete),
        set_data().prop_map(MultiOp::SetData),
        check().prop_map(MultiOp::Check),
    ]
}

fn read_op() -> impl Strategy<Value = ReadOp> {
    prop_oneof![
        watched().prop_map(ReadOp::GetData),
        watched().prop_map(ReadOp::GetChildren),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = OpCode> {
    select(OpCode::ALL.to_vec())
}

/// Any request for this operation.
pub(crate) fn request_for(op: OpCode) -> BoxedStrategy<Request> {
    match op {
        OpCode::Create => create().prop_map(Request::Create).boxed(),
        OpCode::Create2 => create().prop_map(Request::Create2).boxed(),
        OpCode::CreateContainer => create().prop_map(Request::CreateContainer).boxed(),
        OpCode::CreateTtl => create_ttl().prop_map(Request::CreateTtl).boxed(),
        OpCode::Delete => delete().prop_map(Request::Delete).boxed(),
        OpCode::SetData => set_data().prop_map(Request::SetData).boxed(),
        OpCode::SetAcl => (text(), acl_entries(), any::<i32>())
            .prop_map(|(path, acl, version)| Request::SetAcl(SetAcl { path, acl, version }))
            .boxed(),
        OpCode::Check => check().prop_map(Request::Check).boxed(),
        OpCode::Multi => vec(multi_op(), 0..5).prop_map(Request::Multi).boxed(),
        OpCode::MultiRead => vec(read_op(), 0..5).prop_map(Request::MultiRead).boxed(),
        OpCode::Exists => watched().prop_map(Request::Exists).boxed(),
        OpCode::GetData => watched().prop_map(Request::GetData).boxed(),
        OpCode::GetChildren => watched().prop_map(Request::GetChildren).boxed(),
        OpCode::GetChildren2 => watched().prop_map(Request::GetChildren2).boxed(),
        OpCode::GetAcl => path_only().prop_map(Request::GetAcl).boxed(),
        OpCode::GetAllChildrenNumber => path_only().prop_map(Request::GetAllChildrenNumber).boxed(),
        OpCode::GetEphemerals => option::of(text())
            .prop_map(|prefix| Request::GetEphemerals(GetEphemerals { prefix }))
            .boxed(),
        OpCode::Sync => path_only().prop_map(Request::Sync).boxed(),
        OpCode::Ping => Just(Request::Ping).boxed(),
        OpCode::Reconfig => reconfig().prop_map(Request::Reconfig).boxed(),
        OpCode::CheckWatches => watches_of_type().prop_map(Request::CheckWatches).boxed(),
        OpCode::RemoveWatches => watches_of_type().prop_map(Request::RemoveWatches).boxed(),
        OpCode::SetWatches => set_watches().prop_map(Request::SetWatches).boxed(),
        OpCode::SetWatches2 => set_watches2().prop_map(Request::SetWatches2).boxed(),
        OpCode::AddWatch => (text(), any::<i32>())
            .prop_map(|(path, mode)| Request::AddWatch(AddWatch { path, mode }))
            .boxed(),
        OpCode::WhoAmI => Just(Request::WhoAmI).boxed(),
        OpCode::Auth => (any::<i32>(), option::of(text()), data())
            .prop_map(|(auth_type, scheme, auth)| {
                Request::Auth(Auth {
                    auth_type,
                    scheme,
                    auth,
                })
            })
            .boxed(),
        OpCode::Sasl => data()
            .prop_map(|token| Request::Sasl(Sasl { token }))
            .boxed(),
        OpCode::CloseSession => Just(Request::CloseSession).boxed(),
    }
}

fn cow_text() -> impl Strategy<Value = Cow<'static, str>> {
    text().prop_map(Cow::Owned)
}

fn cow_data() -> impl Strategy<Value = Option<Cow<'static, [u8]>>> {
    data().prop_map(|data| data.map(|data| Cow::Owned(data.to_vec())))
}

fn multi_result() -> impl Strategy<Value = MultiResult<'static>> {
    prop_oneof![
        cow_text().prop_map(|path| MultiResult::Create { path }),
        (cow_text(), stat()).prop_map(|(path, stat)| MultiResult::Create2 { path, stat }),
        Just(MultiResult::Delete),
        stat().prop_map(MultiResult::SetData),
        Just(MultiResult::Check),
        (cow_data(), stat()).prop_map(|(data, stat)| MultiResult::GetData { data, stat }),
        vec(cow_text(), 0..4).prop_map(|children| MultiResult::GetChildren { children }),
        option::of(select(ErrorCode::ALL.to_vec())).prop_map(MultiResult::Error),
    ]
}

/// Any response to a request for this operation.
pub(crate) fn response_for(op: OpCode) -> BoxedStrategy<Response<'static>> {
    match op {
        OpCode::Delete
        | OpCode::Ping
        | OpCode::Auth
        | OpCode::CloseSession
        | OpCode::SetWatches
        | OpCode::SetWatches2
        | OpCode::CheckWatches
        | OpCode::RemoveWatches
        | OpCode::Check => Just(Response::Empty).boxed(),
        OpCode::Create | OpCode::Sync => cow_text().prop_map(Response::Path).boxed(),
        OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => (cow_text(), stat())
            .prop_map(|(path, stat)| Response::PathStat { path, stat })
            .boxed(),
        OpCode::Exists | OpCode::SetData | OpCode::SetAcl => {
            stat().prop_map(Response::Stat).boxed()
        }
        OpCode::GetData | OpCode::Reconfig => (cow_data(), stat())
            .prop_map(|(data, stat)| Response::Data { data, stat })
            .boxed(),
        OpCode::GetAcl => (acl_entries(), stat())
            .prop_map(|(acl, stat)| Response::Acl { acl, stat })
            .boxed(),
        OpCode::GetChildren | OpCode::GetEphemerals => {
            vec(cow_text(), 0..4).prop_map(Response::Strings).boxed()
        }
        OpCode::GetChildren2 => (vec(cow_text(), 0..4), stat())
            .prop_map(|(children, stat)| Response::Children { children, stat })
            .boxed(),
        OpCode::GetAllChildrenNumber => any::<i32>().prop_map(Response::Count).boxed(),
        OpCode::AddWatch => Just(Response::WatchAdded).boxed(),
        OpCode::WhoAmI => vec((text(), text()), 0..4)
            .prop_map(Response::Identities)
            .boxed(),
        OpCode::Sasl => data().prop_map(Response::Sasl).boxed(),
        OpCode::Multi | OpCode::MultiRead => {
            vec(multi_result(), 0..5).prop_map(Response::Multi).boxed()
        }
    }
}

pub(crate) fn connect_request() -> impl Strategy<Value = ConnectRequest> {
    let numbers = (any::<i32>(), zxid(), any::<i32>(), any::<i64>());
    (numbers, data(), any::<Option<bool>>()).prop_map(|(numbers, password, read_only)| {
        ConnectRequest {
            protocol_version: numbers.0,
            last_zxid_seen: numbers.1,
            timeout_ms: numbers.2,
            session_id: SessionId::new(numbers.3),
            password,
            read_only,
        }
    })
}

pub(crate) fn connect_response() -> impl Strategy<Value = ConnectResponse> {
    let numbers = (any::<i32>(), any::<i32>(), any::<i64>());
    (numbers, any::<[u8; 16]>(), any::<Option<bool>>()).prop_map(
        |(numbers, password, read_only)| ConnectResponse {
            protocol_version: numbers.0,
            timeout_ms: numbers.1,
            session_id: SessionId::new(numbers.2),
            password: Password::new(password),
            read_only,
        },
    )
}
