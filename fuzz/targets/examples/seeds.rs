//! Writes the seeds that are made and not found, small inputs from which the fuzzer sets out:
//! `cargo run -p quorate-fuzz-targets --example seeds`. They are checked in, so this runs again only
//! where a format changes. Beside them lies what the fuzzer has found worth keeping.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::{Bytes, BytesMut};
use quorate_fuzz_targets::disk::{IDENTITY, SECTOR, folder, segment_path};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::multi::MultiOp;
use quorate_protocol::{
    AclEntry, OpCode, Password, Perms, Request, RequestHeader, Response, SessionId, Stat, Xid,
    Zxid, frame, jute, request,
};
use quorate_server::storage::data_dir::DataDir;
use quorate_server::storage::log::{EntryId, LogEntry, LogOptions, SavedVote};
use quorate_server::storage::memory::MemoryDisk;
use quorate_server::storage::snapshots::{SnapshotInfo, SnapshotStore};
use quorate_state::{Action, Command, Connection, Origin, Rules, State, Write};

const SMALL_CFG: &str = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/var/lib/zookeeper\n\
    clientPort=2181\nmaxClientCnxns=0\nautopurge.snapRetainCount=5\n4lw.commands.whitelist=*\n\
    # a comment\n! another\nadmin.enableServer = false\nsnapCount\\\n  : 1000\n";
const ENSEMBLE_CFG: &str = "dataDir=/d\nclientPort=2181\ninitLimit=5\nsyncLimit=2\n\0\
    server.1=127.0.0.1:2888:3888:participant;0.0.0.0:2181\nserver.2=[::1]:2888:3888:observer\n\
    group.1=1:2\nweight.1=1\nversion=100000000\n";

fn main() {
    let mut state = State::new();
    let open = Action::OpenSession {
        timeout_ms: 10_000,
        password: Password::new([7; Password::BYTES]),
    };
    state.apply(Zxid(1), command(0, open));
    let (session, _) = state.sessions().next().expect("it was opened");
    for (number, (path, flags)) in [("/a", 0), ("/a/b-", 3), ("/a/c", 4)]
        .into_iter()
        .enumerate()
    {
        let number = number as u64 + 1;
        let command = command(number, create(session, path, flags));
        let encoded = command.encode(0).expect("it encodes");
        save("command", &format!("create-{flags}"), None, &encoded);
        state.apply(Zxid(i64::try_from(number).expect("few") + 1), command);
    }
    let mut contents = Vec::new();
    state
        .view()
        .write(&mut contents)
        .expect("a vector takes it");
    save("state_snapshot", "small", None, &contents);
    save_snapshot(&contents);
    save_log();
    save_client_port();
    save_texts();
    save("zoo_cfg", "alone", None, SMALL_CFG.as_bytes());
    save("zoo_cfg", "ensemble", None, ENSEMBLE_CFG.as_bytes());
}

/// Small segments: opening a log makes the next one.
fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 8 * SECTOR as u64,
        reserve_bytes: 0,
        ..LogOptions::default()
    }
}

/// Makes the disk that of a server which has never done anything.
fn new_server(disk: &MemoryDisk) -> DataDir {
    let mut dir = DataDir::open_on(Arc::new(disk.clone()), folder(), folder())
        .expect("an empty disk can be used");
    dir.initialize(IDENTITY, &options())
        .expect("an empty disk can be initialized");
    dir
}

/// The place of an operation among all: what a first byte picks it by.
fn place_of(op: OpCode) -> u8 {
    let place = OpCode::ALL.iter().position(|one| *one == op);
    u8::try_from(place.expect("it is one of them")).expect("they are few")
}

fn save_client_port() {
    let create = request::Create {
        path: "/a".to_owned(),
        data: Some(Bytes::from_static(b"data")),
        acl: vec![AclEntry::open()],
        flags: 1,
    };
    let watched = request::Watched {
        path: "/a".to_owned(),
        watch: true,
    };
    let check = request::Check {
        path: "/a".to_owned(),
        version: 1,
    };
    let requests = [
        Request::Create(create.clone()),
        Request::GetData(watched),
        Request::PingWithQuestion,
        Request::Multi(vec![MultiOp::Create2(create), MultiOp::Check(check)]),
        Request::SetWatches2(request::SetWatches2 {
            relative_zxid: Zxid(3),
            data: vec!["/a".to_owned()],
            exist: vec!["/b".to_owned()],
            child: Vec::new(),
            persistent: vec!["/".to_owned()],
            persistent_recursive: Vec::new(),
        }),
    ];
    let connect = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid(1),
        timeout_ms: 4_000,
        session_id: SessionId::new(5),
        password: Some(Bytes::from_static(&[7; Password::BYTES])),
        read_only: Some(false),
    };
    let mut body = BytesMut::new();
    connect.encode(&mut body).expect("it encodes");
    save("handshake", "request", None, &body);
    let mut stream = BytesMut::new();
    frame::write_frame(&mut stream, |out| connect.encode(out)).expect("it encodes");
    for (number, request) in (0..).zip(&requests) {
        let mut body = BytesMut::new();
        request.encode(&mut body).expect("it encodes");
        let place = place_of(request.op());
        save(
            "jute_request",
            &format!("request-{number}"),
            Some(place),
            &body,
        );
        if request.op() == OpCode::Multi {
            save("multi", "request", None, &body);
        }
        frame::write_frame(&mut stream, |out| {
            let header = RequestHeader {
                xid: Xid(number),
                op: request.op().code(),
            };
            jute::encode(&header, out)?;
            request.encode(out)
        })
        .expect("it encodes");
    }
    // Three bytes at a time, and so as it comes.
    save("frame_stream", "conversation", Some(3), &stream);
    save("four_letter", "conversation", Some(200), &stream);
    for word in [
        "ruok", "srvr", "stat", "mntr", "conf", "cons", "dump", "wchs", "wchc", "wchp", "envi",
        "isro", "srst", "crst", "dirs", "hash", "gtmk", "stmk",
    ] {
        save("four_letter", word, Some(1), word.as_bytes());
    }
    // A peer's hello, as far as it goes without a message, in varying pieces.
    save(
        "peer_stream",
        "begin",
        Some(200),
        b"QuPeers\x01\0\0\0\x0a\x01\0\0\0\0\0\0\0\x01\x90",
    );
    save("four_letter", "mask", Some(5), b"stmk\0\0\0\0\0\0\0\x02");
    body.clear();
    let granted = ConnectResponse {
        protocol_version: 0,
        timeout_ms: 4_000,
        session_id: SessionId::new(5),
        password: Password::new([7; Password::BYTES]),
        read_only: Some(true),
    };
    granted.encode(&mut body).expect("it encodes");
    save("handshake", "response", None, &body);
    let stat = Stat::default();
    let responses = [
        (OpCode::Create, Response::Path("/a".into())),
        (
            OpCode::GetData,
            Response::Data {
                data: Some(b"data".into()),
                stat,
            },
        ),
        (
            OpCode::GetChildren2,
            Response::Children {
                children: vec!["a".into(), "b".into()],
                stat,
            },
        ),
    ];
    for (op, response) in responses {
        body.clear();
        response.encode(&mut body).expect("it encodes");
        let name = format!("{op:?}").to_lowercase();
        save("response", &name, Some(place_of(op)), &body);
    }
}

fn save_texts() {
    save(
        "connect_string",
        "hosts",
        None,
        b"zk1:2181, zk2,[::1]:2182/app/x",
    );
    save(
        "dynamic_config",
        "members",
        None,
        b"server.1=a:2888:3888:participant;2181\nserver.2=[::1]:1:2:observer;b:3\nversion=1\0\
        server.3=c:1:2;[::]:4,server.2=d:1:2|e:1:2:observer;5\x001",
    );
    let records: [(u8, &str, &[u8]); 6] = [
        (
            0,
            "record",
            br#"{"recipe":"election","holderIdentity":"pod-7","leaseDurationSeconds":10,"node":"n","token":7,"released":false,"x":[1]}"#,
        ),
        (
            1,
            "instance",
            br#"{"name":"test","id":"2dfd","address":"10.20.30.40","port":1234,"sslPort":null,"payload":{"tags":["a"],"metadata":{"b":"c"}},"registrationTimeUTC":1325129459728,"serviceType":"DYNAMIC","enabled":true,"uriSpec":{"parts":[]}}"#,
        ),
        (
            2,
            "transaction",
            br#"{"recipe":"two-phase-commit","coordinator":"c","mark":"m","participants":["a"],"timeout_ms":5,"decision":"commit","reason":null}"#,
        ),
        (3, "integer", b"-12"),
        (4, "revocation", b"__TRANSFER__ pod-7"),
        (
            5,
            "names",
            b"_c_00112233445566778899aabbccddeeff-lock-0000000007/x-72-0000000007/qn--2147483648/entry-005-0000000002/at-000000000000000f-0000000001/n_-000000005",
        ),
    ];
    for (first, name, data) in records {
        save("recipe_records", name, Some(first), data);
    }
}

fn save(target: &str, name: &str, first: Option<u8>, contents: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../seeds")
        .join(target);
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let mut seed: Vec<u8> = first.into_iter().collect();
    seed.extend_from_slice(contents);
    std::fs::write(folder.join(name), seed).expect("the seed can be written");
}

fn command(sequence: u64, action: Action) -> Command {
    Command {
        time_ms: 1_000,
        origin: Origin {
            connection: Connection {
                server: 1,
                number: 1,
            },
            sequence,
        },
        rules: Rules::default(),
        action,
    }
}

fn create(session: SessionId, path: &str, flags: i32) -> Action {
    let anyone = AclEntry {
        perms: Perms::ALL,
        scheme: Some("world".to_owned()),
        id: Some("anyone".to_owned()),
    };
    Action::Write {
        session,
        identities: Arc::new([]),
        write: Write::Create(request::Create {
            path: path.to_owned(),
            data: Some(Bytes::from_static(b"data")),
            acl: vec![anyone],
            flags,
        }),
    }
}

fn save_snapshot(contents: &[u8]) {
    let disk = MemoryDisk::new();
    drop(new_server(&disk));
    let store = SnapshotStore::open(Arc::new(disk.clone()), folder(), IDENTITY.cluster)
        .expect("the folder is there");
    let info = SnapshotInfo {
        last: Some(EntryId { term: 1, index: 7 }),
        membership: Vec::new(),
    };
    let mut writer = store.begin(info).expect("there is space");
    writer.write_all(contents).expect("there is space");
    let file = writer.finish().expect("there is space");
    let bytes = disk.contents(file.path()).expect("it was written");
    // As it is, and with all checksums mended.
    save("snapshot_file", "small", Some(0), &bytes);
    save("snapshot_file", "mended", Some(3), &bytes);
}

fn save_log() {
    let disk = MemoryDisk::new();
    let dir = new_server(&disk);
    let log = dir
        .open_log(options(), Arc::new(|error| panic!("the log died: {error}")))
        .expect("an empty log opens");
    let entry = |index| LogEntry {
        id: EntryId { term: 1, index },
        kind: 1,
        payload: Bytes::from_static(b"payload"),
    };
    let vote = SavedVote {
        term: 1,
        server: 2,
        committed: true,
    };
    let (done, waiting) = mpsc::channel();
    log.save_vote(vote, Box::new(|_| {}))
        .expect("the log is open");
    for index in 0..3 {
        let done = done.clone();
        let told = Box::new(move |result| done.send(result).expect("somebody waits"));
        log.append([entry(index)], told).expect("the log is open");
        waiting.recv().expect("it is told").expect("the disk works");
    }
    log.truncate_after(Some(EntryId { term: 1, index: 1 }))
        .expect("the log is open");
    log.close().expect("the disk works");
    let file = disk.contents(&segment_path(1)).expect("it was written");
    save("log_segment", "file", Some(1), &file);
    let used = file
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    save("log_segment", "batches", Some(0), &file[SECTOR..used]);
    // A torn write: the end is missing.
    save("log_segment", "torn", Some(0), &file[SECTOR..used - 100]);
}
