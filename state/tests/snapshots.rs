//! Snapshots: what is refused, what views promise, and what every release has to read.

use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::{Create, CreateTtl, Delete, SetAcl, SetData};
use quorate_protocol::{AclEntry, Id, Password, Perms, SessionId, Zxid};
use quorate_state::{
    Action, Applied, Command, Connection, Origin, Reply, Rules, SnapshotError, State, StateView,
    Write,
};

/// The session opened by this zxid on server 1.
fn session(zxid: i64) -> SessionId {
    SessionId::new((1 << 56) | zxid).expect("not zero")
}

fn apply(state: &mut State, connection: u64, sequence: u64, action: Action) -> Applied {
    let zxid = state.last_zxid().0 + 1;
    let command = Command {
        time_ms: 1_700_000_000_000 + zxid,
        origin: Origin {
            connection: Connection {
                server: 1,
                number: connection,
            },
            sequence,
        },
        rules: Rules::default(),
        action,
    };
    state.apply(Zxid(zxid), command)
}

fn write(state: &mut State, sequence: u64, write: Write) -> Applied {
    let action = Action::Write {
        session: session(1),
        identities: Arc::new([Id::digest(b"user:secret")]),
        write,
    };
    apply(state, 1, sequence, action)
}

fn create(path: &str, data: Option<Vec<u8>>, flags: i32, acl: &str) -> Create {
    Create {
        path: path.to_owned(),
        data: data.map(Bytes::from),
        acl: vec![
            AclEntry::new(Perms::ALL, acl, "anyone"),
            AclEntry::new(Perms::READ, "ip", "10.0.0.0/8"),
        ],
        flags,
    }
}

/// A bit of everything. Sequence numbers up to 11 are used up.
fn rich_state() -> State {
    let mut state = State::new();
    for connection in [1, 2] {
        let action = Action::OpenSession {
            timeout_ms: 4000,
            password: Password::new([connection; 16]),
        };
        apply(&mut state, connection.into(), 0, action);
    }
    let admit = Action::Admit {
        server: 1,
        incarnation: u64::MAX,
    };
    apply(&mut state, 0, 0, admit);
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let limits = text("count=10,bytes=-1=;byteHardLimit=-1;countHardLimit=-1");
    let ttl = create("/p/t", None, 5, "world");
    let writes = [
        Write::Create(create("/p", text("data"), 0, "world")),
        Write::Create(create("/p/e", None, 1, "world")),
        Write::Create(create("/p/s", text(""), 2, "auth")),
        Write::CreateContainer(create("/c", None, 4, "auth")),
        Write::CreateTtl(CreateTtl {
            path: ttl.path,
            data: ttl.data,
            acl: ttl.acl,
            flags: 5,
            ttl_ms: 1000,
        }),
        Write::Create(create("/large", Some(vec![b'x'; 4500]), 0, "world")),
        Write::SetData(SetData {
            path: "/p".to_owned(),
            data: None,
            version: 0,
        }),
        Write::SetAcl(SetAcl {
            path: "/p/e".to_owned(),
            acl: vec![AclEntry::new(Perms::ALL, "digest", "a:b")],
            version: 0,
        }),
        Write::Multi(vec![
            MultiOp::Create(create("/zookeeper/quota/p", None, 0, "world")),
            MultiOp::Create(create(
                "/zookeeper/quota/p/zookeeper_limits",
                limits,
                0,
                "world",
            )),
        ]),
        Write::Create(create(
            "/zookeeper/quota/p/zookeeper_stats",
            None,
            0,
            "world",
        )),
        Write::Create(create("/p/last", text("1"), 0, "world")),
    ];
    for (sequence, action) in (1..).zip(writes) {
        let applied = write(&mut state, sequence, action);
        assert!(matches!(applied.reply, Reply::Write(Ok(_))), "{applied:?}");
    }
    state
}

fn bytes_of(view: &StateView) -> Vec<u8> {
    let mut out = Vec::new();
    view.write(&mut out).expect("a view can be written");
    out
}

fn load(mut bytes: &[u8]) -> Result<State, SnapshotError> {
    State::load(&mut bytes)
}

#[test]
fn a_loaded_state_is_the_one_that_was_written() {
    let state = rich_state();
    let written = bytes_of(&state.view());
    let loaded = load(&written).expect("it loads");
    assert_eq!(loaded.digest(), state.digest());
    assert_eq!(loaded.last_zxid(), state.last_zxid());
    assert_eq!(loaded.node_count(), state.node_count());
    assert_eq!(loaded.ephemeral_count(), 1);
    assert_eq!(
        loaded.approximate_data_size(),
        state.approximate_data_size()
    );
    assert_eq!(loaded.session_count(), 2);
    assert_eq!(loaded.session(session(2)), state.session(session(2)));
    assert!(bytes_of(&loaded.view()) == written);
}

#[test]
fn a_snapshot_cut_anywhere_is_refused() {
    let written = bytes_of(&rich_state().view());
    for len in 0..written.len() {
        assert!(load(&written[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_snapshot_with_something_behind_it_is_refused() {
    let mut written = bytes_of(&rich_state().view());
    written.push(0);
    assert!(matches!(
        load(&written),
        Err(SnapshotError::Contradiction(_))
    ));
}

#[test]
fn a_snapshot_of_another_version_is_refused() {
    let mut written = bytes_of(&rich_state().view());
    written[0] += 1;
    assert!(matches!(load(&written), Err(SnapshotError::Version(2))));
}

#[test]
fn a_changed_byte_is_refused_or_changes_no_fact() {
    let state = rich_state();
    let written = bytes_of(&state.view());
    let mut refused = 0;
    for i in 0..written.len() {
        for flip in [1, 0x80] {
            let mut changed = written.clone();
            changed[i] ^= flip;
            match load(&changed) {
                Ok(loaded) => assert_eq!(loaded.digest(), state.digest(), "byte {i}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > written.len() * 2 * 99 / 100);
}

#[test]
fn a_view_can_be_written_elsewhere_and_does_not_change() {
    fn travels<T: Send + 'static>(_: &T) {}
    fn is_shared<T: Send + Sync>(_: &T) {}
    let mut state = rich_state();
    let view = state.view();
    travels(&view);
    is_shared(&state);
    let then = bytes_of(&view);
    for (sequence, path) in (12..).zip(["/p/last", "/large"]) {
        let delete = Delete {
            path: path.to_owned(),
            version: -1,
        };
        write(&mut state, sequence, Write::Delete(delete));
    }
    apply(
        &mut state,
        2,
        1,
        Action::CloseSession {
            session: session(2),
        },
    );
    assert!(bytes_of(&view) == then);
    assert_eq!(view.last_zxid(), Zxid(14));
    assert_ne!(view.digest(), state.digest());
}

#[test]
fn a_failed_multi_leaves_no_trace() {
    let delete = |path: &str| Delete {
        path: path.to_owned(),
        version: -1,
    };
    let mut state = rich_state();
    let mut other = rich_state();
    let ops = vec![
        MultiOp::Delete(delete("/p/e")),
        MultiOp::Delete(delete("/p/t")),
        MultiOp::Delete(delete("/zookeeper/quota/p/zookeeper_limits")),
        MultiOp::Delete(delete("/large")),
        MultiOp::Create(create("/p/e", Some(vec![1; 9000]), 1, "auth")),
        MultiOp::Create(create("/c/x", None, 0, "world")),
        MultiOp::Create(create("/c/x/y", None, 2, "world")),
        MultiOp::SetData(SetData {
            path: "/p".to_owned(),
            data: Some(Bytes::from_static(b"other")),
            version: -1,
        }),
        MultiOp::Delete(delete("/nop")),
    ];
    write(&mut state, 12, Write::Multi(ops));
    // Takes a zxid and a place in the sequence as well, and does nothing.
    write(&mut other, 12, Write::Delete(delete("/nop")));
    assert_eq!(state.digest(), other.digest());
    assert!(bytes_of(&state.view()) == bytes_of(&other.view()));
}

/// Replicas of different releases compare digests, and read each other's snapshots. If this fails,
/// the format needs a new version.
#[test]
fn version_1_is_read_and_gives_the_digest_it_always_had() {
    let stored = include_bytes!("formats/snapshot-1.bin");
    let loaded = load(stored).expect("it loads");
    let state = rich_state();
    assert_eq!(loaded.digest(), state.digest());
    assert!(bytes_of(&state.view()) == stored);
}
