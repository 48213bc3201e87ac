//! Random commands, out of few paths and few values, so that they meet.
//!
//! The strategies are boxed: unboxed ones nest into values too large for a test's stack.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::{Check, Create, CreateTtl, Delete, SetAcl, SetData};
use quorate_protocol::{AclEntry, Perms};
use quorate_state::Write;

/// What one client does, or the world around it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Open(usize),
    Attach(usize),
    /// With a wrong password.
    Intrude(usize),
    Close(usize),
    /// The leader's view of the session may be out of date.
    Expire(usize, bool),
    Write(usize, Write),
    /// From the connection the session had before.
    Late(usize, Write),
    Wait(i64),
    Reap(i64),
    /// The state is replaced by what its snapshot gives.
    Reload,
}

pub(crate) const CLIENTS: usize = 3;

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let step = prop_oneof![
        1 => client.clone().prop_map(Step::Open),
        1 => client.clone().prop_map(Step::Attach),
        1 => client.clone().prop_map(Step::Intrude),
        1 => client.clone().prop_map(Step::Close),
        1 => (client.clone(), any::<bool>()).prop_map(|(client, late)| Step::Expire(client, late)),
        40 => (client.clone(), write()).prop_map(|(client, write)| Step::Write(client, write)),
        1 => (client, write()).prop_map(|(client, write)| Step::Late(client, write)),
        2 => (-20..200i64).prop_map(Step::Wait),
        2 => prop_oneof![Just(0), Just(50)].prop_map(Step::Reap),
        1 => Just(Step::Reload),
    ];
    prop::collection::vec(step, 1..120)
}

fn write() -> BoxedStrategy<Write> {
    prop_oneof![
        6 => op().prop_map(|op| match op {
            MultiOp::Create(r) => Write::Create(r),
            MultiOp::Create2(r) => Write::Create2(r),
            MultiOp::CreateContainer(r) => Write::CreateContainer(r),
            MultiOp::CreateTtl(r) => Write::CreateTtl(r),
            MultiOp::Delete(r) => Write::Delete(r),
            MultiOp::SetData(r) => Write::SetData(r),
            MultiOp::Check(r) => Write::Multi(vec![MultiOp::Check(r)]),
        }),
        1 => (path(), acl(), version())
            .prop_map(|(path, acl, version)| Write::SetAcl(SetAcl { path, acl, version })),
        3 => prop::collection::vec(op(), 0..7).prop_map(Write::Multi),
    ]
    .boxed()
}

fn op() -> BoxedStrategy<MultiOp> {
    prop_oneof![
        6 => create(0..5).prop_map(MultiOp::Create),
        2 => create(0..6).prop_map(MultiOp::Create2),
        1 => create(0..5).prop_map(MultiOp::CreateContainer),
        1 => (create(0..7), -1..100i64).prop_map(|(r, ttl_ms)| MultiOp::CreateTtl(CreateTtl {
            path: r.path,
            data: r.data,
            acl: r.acl,
            flags: r.flags,
            ttl_ms,
        })),
        5 => (path(), version()).prop_map(|(path, version)| MultiOp::Delete(Delete {
            path,
            version
        })),
        3 => (path(), data(), version()).prop_map(|(path, data, version)| {
            MultiOp::SetData(SetData { path, data, version })
        }),
        2 => (path(), version()).prop_map(|(path, version)| MultiOp::Check(Check {
            path,
            version
        })),
    ]
    .boxed()
}

fn create(flags: std::ops::Range<i32>) -> BoxedStrategy<Create> {
    (path(), data(), acl(), flags)
        .prop_map(|(path, data, acl, flags)| Create {
            path,
            data,
            acl,
            flags,
        })
        .boxed()
}

fn path() -> BoxedStrategy<String> {
    let name = || prop_oneof![6 => "[ab]", 1 => "[ab]000000000[0-9]", 1 => "[abc]{20}"];
    prop_oneof![
        3 => name().prop_map(|a| format!("/{a}")),
        6 => (name(), name()).prop_map(|(a, b)| format!("/{a}/{b}")),
        4 => (name(), name(), name()).prop_map(|(a, b, c)| format!("/{a}/{b}/{c}")),
        1 => prop_oneof![
            Just("/"), Just("a"), Just("/a/"), Just("/a/."), Just("/a//b"), Just("/zookeeper"),
            Just("/a/../b"), Just("/zookeeper/a"),
        ]
        .prop_map(str::to_owned),
    ]
    .boxed()
}

/// Lengths on both sides of every border between ways to store them.
fn data() -> BoxedStrategy<Option<Bytes>> {
    prop_oneof![
        2 => Just(None),
        5 => (0..300usize).prop_map(Some),
        1 => prop_oneof![Just(Some(3000)), Just(Some(4096)), Just(Some(9000))],
    ]
    .prop_map(|len: Option<usize>| len.map(|len| vec![b'd'; len].into()))
    .boxed()
}

fn version() -> BoxedStrategy<i32> {
    prop_oneof![6 => Just(-1), 1 => 0..3].boxed()
}

fn acl() -> BoxedStrategy<Vec<AclEntry>> {
    let own = |perms| AclEntry::new(perms, "auth", "");
    prop_oneof![
        20 => Just(vec![AclEntry::open()]),
        1 => Just(vec![AclEntry::new(Perms(13), "world", "anyone")]),
        1 => Just(vec![own(Perms::ALL)]),
        1 => Just(vec![AclEntry::new(Perms::READ, "world", "anyone"), own(Perms::ALL)]),
        1 => Just(Vec::new()),
    ]
    .boxed()
}
