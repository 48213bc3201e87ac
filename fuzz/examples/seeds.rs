//! Writes the seeds, the small inputs from which the fuzzer sets out: `cargo run --example seeds`
//! in this folder. They are checked in, so this runs again only where a format changes.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use quorate_fuzz::{IDENTITY, SECTOR, folder, new_server, options, segment_path};
use quorate_protocol::{AclEntry, Password, Perms, SessionId, Zxid, request};
use quorate_server::storage::log::{EntryId, LogEntry, SavedVote};
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
    save("zoo_cfg", "alone", None, SMALL_CFG.as_bytes());
    save("zoo_cfg", "ensemble", None, ENSEMBLE_CFG.as_bytes());
}

fn save(target: &str, name: &str, first: Option<u8>, contents: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
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
