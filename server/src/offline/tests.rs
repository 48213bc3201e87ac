//! Folders as servers leave them, sound and damaged, on a disk in memory and on a real one.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use quorate_protocol::request::Create;
use quorate_protocol::{AclEntry, Password, SessionId};
use quorate_state::{Action, Command, Connection, Origin, Rules, State, Write};

use super::check::{Problem, Report, Start, check};
use super::merge::{Difference, MergeError, Merged, Source, merge};
use super::*;
use crate::consensus::types::StoredMembership;
use crate::storage::log::{EntryId, Log, LogEntry, LogOptions, SavedVote};
use crate::storage::memory::MemoryDisk;
use crate::storage::snapshots::SnapshotInfo;

const DATA: &str = "/data";
/// Kinds of entries in the log.
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

fn data() -> &'static Path {
    Path::new(DATA)
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 8 << 10,
        batch_bytes_max: 1 << 10,
        seal_after: Duration::from_secs(3600),
        ..LogOptions::default()
    }
}

/// A server's folder in the making.
struct Maker {
    disk: MemoryDisk,
    folders: DataDir,
    log: Log,
    state: State,
    sequence: u64,
    next: u64,
}

impl Maker {
    fn new(server: u64) -> Self {
        let disk = MemoryDisk::new();
        let mut folders = DataDir::open_on(Arc::new(disk.clone()), data(), data()).unwrap();
        let identity = Identity {
            cluster: 7,
            server,
            incarnation: 5,
        };
        folders.initialize(identity, &options()).unwrap();
        let log = folders.open_log(options(), Arc::new(|_| {})).unwrap();
        let mut maker = Self {
            disk,
            folders,
            log,
            state: State::new(),
            sequence: 0,
            next: 0,
        };
        maker.add(1, MEMBERSHIP, members());
        maker
    }

    /// An entry, durable, that takes effect at once.
    fn add(&mut self, term: u64, kind: u8, payload: Bytes) {
        let index = self.next;
        self.next += 1;
        let id = EntryId { term, index };
        let entry = LogEntry { id, kind, payload };
        replay::apply(&mut self.state, ZxidBase(0), &entry).unwrap();
        let (done, durable) = mpsc::channel();
        let tell = move |outcome| done.send(outcome).unwrap_or_default();
        self.log.append([entry], Box::new(tell)).unwrap();
        let durable = durable.recv_timeout(Duration::from_secs(20));
        durable.expect("it is written").unwrap();
    }

    fn command(&mut self, term: u64, action: Action) {
        let command = Command {
            time_ms: 1000,
            origin: Origin {
                connection: Connection {
                    server: 1,
                    number: 1,
                },
                sequence: self.sequence,
            },
            rules: Rules::default(),
            action,
        };
        self.sequence += 1;
        self.add(term, NORMAL, command.encode(0).unwrap());
    }

    fn open_session(&mut self) -> SessionId {
        let password = Password::default();
        let timeout_ms = 4000;
        self.command(
            1,
            Action::OpenSession {
                timeout_ms,
                password,
            },
        );
        self.state.sessions().next().expect("it was opened").0
    }

    fn create(&mut self, term: u64, session: SessionId, path: &str, flags: i32) {
        let create = Create {
            path: path.to_owned(),
            data: Some("data".into()),
            acl: vec![AclEntry::open()],
            flags,
        };
        self.command(
            term,
            Action::Write {
                session,
                identities: Arc::new([]),
                write: Write::Create(create),
            },
        );
    }

    fn vote(&self, term: u64, server: u64) {
        let vote = SavedVote {
            term,
            server,
            committed: true,
        };
        let (done, durable) = mpsc::channel();
        let tell = move |outcome| done.send(outcome).unwrap_or_default();
        self.log.save_vote(vote, Box::new(tell)).unwrap();
        durable
            .recv_timeout(Duration::from_secs(20))
            .expect("it is written")
            .unwrap();
    }

    fn commit(&self, index: u64) {
        self.log.save_committed(self.log.id_at(index)).unwrap();
    }

    fn snapshot(&self) {
        let info = SnapshotInfo {
            last: self.log.state().last,
            membership: rmp_serde::to_vec(&StoredMembership::default()).unwrap(),
        };
        let store = self.folders.open_snapshots().unwrap();
        let mut writer = store.begin(info).unwrap();
        self.state.view().write(&mut writer).unwrap();
        writer.finish().unwrap();
    }

    fn close(self) -> MemoryDisk {
        self.log.close().unwrap();
        self.disk
    }

    /// What a power cut leaves of it if nothing unsynced is kept.
    fn crash(self) -> MemoryDisk {
        self.disk.crash(|| false)
    }
}

/// Three servers that vote.
fn members() -> Bytes {
    let voters: std::collections::BTreeSet<u64> = [1, 2, 3].into();
    let nodes: BTreeMap<u64, crate::consensus::types::PeerNode> =
        voters.iter().map(|id| (*id, Default::default())).collect();
    let membership = crate::consensus::types::Membership::new(vec![voters], nodes).unwrap();
    rmp_serde::to_vec_named(&membership).unwrap().into()
}

/// A session with znodes, two snapshots, and entries before, between and after them.
fn sound() -> Maker {
    let mut maker = Maker::new(1);
    maker.vote(1, 1);
    maker.add(1, BLANK, Bytes::new());
    let session = maker.open_session();
    for number in 0..20 {
        maker.create(1, session, &format!("/before{number}"), 0);
    }
    maker.snapshot();
    for number in 0..20 {
        maker.create(1, session, &format!("/between{number}"), number % 2);
    }
    maker.snapshot();
    for number in 0..20 {
        maker.create(1, session, &format!("/after{number}"), 0);
    }
    maker.commit(maker.next - 1);
    maker
}

fn folders_on(disk: &MemoryDisk) -> Folders {
    Folders::on(Arc::new(disk.clone()), data(), data()).expect("the identity is sound")
}

fn look(disk: &MemoryDisk) -> Report {
    let (before, changes) = (disk.image(), disk.changes());
    let report = check(&folders_on(disk)).expect("the folders can be read");
    assert_eq!(disk.changes(), changes, "looking changes nothing");
    assert!(disk.image() == before, "looking changes nothing");
    report
}

/// What a server says.
fn start(disk: &MemoryDisk) -> Result<(), StorageError> {
    // On a copy: a start that goes well changes what is there.
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::from_image(&disk.image()));
    let folders = DataDir::open_on(disk, data(), data())?;
    let snapshots = folders.open_snapshots()?;
    let load = |purged| crate::consensus::snapshot_io::load_newest(&snapshots, purged);
    folders.open_log_after(options(), Arc::new(|_| {}), load)?;
    Ok(())
}

fn flip(disk: &MemoryDisk, path: &Path, offset: usize) -> MemoryDisk {
    let mut image = disk.image();
    image.get_mut(path).expect("the file is there")[offset] ^= 4;
    MemoryDisk::from_image(&image)
}

#[test]
fn sound_folders_are_found_sound_and_their_state_is_that_of_the_server() {
    let maker = sound();
    let (digest, zxid) = (maker.state.digest(), maker.state.last_zxid().0);
    let entries = maker.next;
    let report = look(&maker.close());
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!(report.start, Start::Starts);
    assert_eq!(report.notes, [""; 0]);
    let state = report.state.expect("it can be replayed");
    assert_eq!((state.digest, state.zxid), (digest, zxid));
    let log = report.log.expect("there is a log");
    assert_eq!((log.entries, log.sealed), (entries, true));
    assert_eq!(report.snapshots.len(), 2);
    assert!(report.segments.len() > 1, "{:?}", report.segments);
}

#[test]
fn folders_of_no_server_are_new_and_what_lies_in_them_is_damage() {
    let disk = MemoryDisk::new();
    disk.create_folder(data()).unwrap();
    let report = look(&disk);
    assert!(report.is_sound());
    assert_eq!((report.start, report.identity), (Start::New, None));

    let disk = sound().close();
    let mut image = disk.image();
    image.remove(&data().join("identity"));
    let report = look(&MemoryDisk::from_image(&image));
    assert!(matches!(report.start, Start::Refuses { .. }), "{report:#?}");
}

#[test]
fn a_write_that_never_finished_is_no_problem_and_is_told_with_its_place() {
    let maker = sound();
    let disk = maker.crash();
    let folders = folders_on(&disk);
    let mut end = None;
    let visit = |batch: &Batch| end = Some((batch.path.clone(), batch.offset + batch.length));
    folders.scan(visit).expect("it can be read");
    let (path, end) = end.expect("there are batches");
    // As if the first sector of the next batch had been left out, and its second one not.
    let mut image = disk.image();
    let from = usize::try_from(end).unwrap() + 512;
    image.get_mut(&path).unwrap()[from..from + 512].fill(9);
    let report = look(&MemoryDisk::from_image(&image));
    assert!(report.is_sound(), "{report:#?}");
    let expected = Start::CutsOff {
        path,
        offset: end + 512,
        bytes: 512,
    };
    assert_eq!(report.start, expected);
}

/// Not every bit: that is a proof of its own.
#[test]
fn damage_is_told_with_file_and_offset_and_the_verdict_is_that_of_a_start() {
    let disk = sound().close();
    let mut refused = 0;
    for (path, contents) in disk.image() {
        for offset in (0..contents.len()).step_by(397) {
            let damaged = flip(&disk, &path, offset);
            let Ok(folders) = Folders::on(Arc::new(damaged.clone()), data(), data()) else {
                assert!(path.ends_with("identity"));
                continue;
            };
            let report = check(&folders).expect("the folders can be read");
            let refuses = match start(&damaged) {
                Ok(()) => None,
                Err(error) => Some(error.to_string()),
            };
            let said = match &report.start {
                Start::Refuses { why } => Some(why.clone()),
                _ => None,
            };
            assert_eq!(said, refuses, "{} at {offset}", path.display());
            let is_told = |problem: &Problem| problem.path == path && problem.offset.is_some();
            let is_torn = matches!(report.start, Start::CutsOff { .. });
            // In the next segment, made ahead.
            let is_noted = report
                .notes
                .iter()
                .any(|note| note.contains(path.to_str().unwrap()));
            assert!(
                report.problems.iter().any(is_told) || is_torn || is_noted,
                "{} at {offset}: {report:#?}",
                path.display()
            );
            refused += usize::from(said.is_some());
        }
    }
    assert!(refused > 10, "{refused} refusals");
}

#[test]
fn all_damage_is_told_and_not_the_first_alone() {
    let disk = sound().close();
    let segments: Vec<PathBuf> = disk
        .image()
        .into_keys()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    let disk = flip(&flip(&disk, &segments[0], 700), &segments[1], 900);
    let disk = flip(&disk, &segments[0], 3000);
    let report = look(&disk);
    let places: Vec<_> = report
        .problems
        .iter()
        .map(|problem| problem.path.clone())
        .collect();
    assert!(
        places.iter().filter(|path| **path == segments[0]).count() >= 2,
        "{report:#?}"
    );
    assert!(places.contains(&segments[1]), "{report:#?}");
}

#[test]
fn a_snapshot_that_the_log_does_not_lead_to_is_found() {
    let mut maker = sound();
    // Something that no entry says.
    let open = Action::OpenSession {
        timeout_ms: 1,
        password: Password::default(),
    };
    let command = Command {
        time_ms: 0,
        origin: Origin::default(),
        rules: Rules::default(),
        action: open,
    };
    maker.state.apply(maker.state.last_zxid(), command);
    maker.snapshot();
    let report = look(&maker.close());
    assert_eq!(report.problems.len(), 1, "{report:#?}");
    assert!(report.problems[0].what.contains("lead to"), "{report:#?}");
    assert_eq!(report.start, Start::Starts);
}

#[test]
fn a_server_and_a_look_at_its_files_keep_each_other_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    assert!(Folders::lock(&path, &path).is_err(), "there is nothing");
    let server = DataDir::open(&path, &path).unwrap();
    let refused = Folders::lock(&path, &path).map(|_| ());
    assert!(
        matches!(refused, Err(StorageError::Locked { .. })),
        "{refused:?}"
    );
    drop(server);
    let one = Folders::lock(&path, &path).unwrap();
    let another = Folders::lock(&path, &path).expect("one more may look");
    let refused = DataDir::open(&path, &path).map(|_| ());
    assert!(
        matches!(refused, Err(StorageError::Locked { .. })),
        "{refused:?}"
    );
    drop((one, another));
    DataDir::open(&path, &path).expect("nobody looks any more");
}

/// Server `server` with entries of these terms, after the one that all begin with; `committed` of
/// them are known to be.
fn with_terms(server: u64, terms: &[u64], committed: u64, voted: u64) -> MemoryDisk {
    let mut maker = Maker::new(server);
    for term in terms {
        maker.add(*term, BLANK, Bytes::new());
    }
    maker.commit(committed);
    maker.vote(voted, 1);
    maker.close()
}

fn merged(disks: &[MemoryDisk]) -> Result<Merged, MergeError> {
    let sources = disks.iter().map(|disk| Source::read(&folders_on(disk)));
    merge(&sources.collect::<Result<Vec<Source>, _>>()?)
}

#[test]
fn servers_that_agree_are_merged_up_to_what_anyone_knows_to_be_committed() {
    let disks = [
        with_terms(1, &[1, 1, 2, 2], 3, 2),
        with_terms(2, &[1, 1, 2], 2, 2),
        with_terms(3, &[1], 0, 2),
    ];
    let merged = merged(&disks).expect("they belong together");
    assert_eq!(merged.differences, []);
    assert_eq!(merged.certain_upto, Some(3));
    let entries: Vec<(u64, u64, bool)> = merged
        .entries
        .iter()
        .map(|merged| {
            (
                merged.entry.id.index,
                merged.entry.id.term,
                merged.is_certain,
            )
        })
        .collect();
    let expected = [
        (0, 1, true),
        (1, 1, true),
        (2, 1, true),
        (3, 2, true),
        (4, 2, false),
    ];
    assert_eq!(entries, expected);
    assert_eq!((merged.missing, merged.overruled), (vec![], vec![]));
}

#[test]
fn a_majority_makes_certain_only_what_nobody_can_overrule() {
    // Two of three have entry 2, in the term in which both voted last.
    let certain = [with_terms(1, &[1, 2], 0, 2), with_terms(2, &[1, 2], 0, 2)];
    assert_eq!(merged(&certain).unwrap().certain_upto, Some(2));
    // One of them has voted in a later term: whom it voted for may have another entry there.
    let in_doubt = [with_terms(1, &[1, 2], 0, 2), with_terms(2, &[1, 2], 0, 3)];
    assert_eq!(merged(&in_doubt).unwrap().certain_upto, Some(0));
    // One of three is no majority.
    let alone = [with_terms(1, &[1, 2], 1, 2)];
    let merged = merged(&alone).unwrap();
    assert_eq!(merged.certain_upto, Some(1));
    assert_eq!(
        merged
            .entries
            .iter()
            .filter(|entry| !entry.is_certain)
            .count(),
        1
    );
}

#[test]
fn entries_that_were_overruled_are_no_contradiction() {
    let disks = [
        with_terms(1, &[1, 3, 3], 3, 3),
        with_terms(2, &[1, 2, 2], 1, 3),
    ];
    let merged = merged(&disks).unwrap();
    assert_eq!(merged.differences, []);
    assert_eq!(merged.overruled, [(2, 2, 3)]);
    assert_eq!(merged.certain_upto, Some(3));
}

#[test]
fn committed_entries_that_differ_are_a_contradiction() {
    let disks = [
        with_terms(1, &[1, 3, 3], 3, 3),
        with_terms(2, &[1, 2, 2], 2, 3),
    ];
    let expected = Difference::Committed {
        index: 2,
        servers: (1, 2),
        terms: (3, 2),
    };
    assert_eq!(merged(&disks).unwrap().differences, [expected]);
}

#[test]
fn two_entries_of_one_leader_at_one_place_are_a_contradiction() {
    let with = |server, path: &str| {
        let mut maker = Maker::new(server);
        let session = maker.open_session();
        maker.create(1, session, path, 0);
        maker.create(1, session, "/same", 0);
        maker.close()
    };
    assert_eq!(
        merged(&[with(1, "/a"), with(2, "/a")]).unwrap().differences,
        []
    );
    let expected = Difference::Contents {
        id: EntryId { term: 1, index: 2 },
        servers: (1, 2),
    };
    assert_eq!(
        merged(&[with(1, "/a"), with(2, "/b")]).unwrap().differences,
        [expected]
    );
}

#[test]
fn agreement_on_an_entry_but_not_on_one_before_it_is_a_contradiction() {
    let disks = [
        with_terms(1, &[1, 2, 4], 0, 4),
        with_terms(2, &[1, 3, 4], 0, 4),
    ];
    let expected = Difference::Before {
        agreed: EntryId { term: 4, index: 3 },
        index: 2,
        servers: (1, 2),
    };
    assert_eq!(merged(&disks).unwrap().differences, [expected]);
}

#[test]
fn what_all_have_purged_is_where_the_merged_log_begins() {
    let purged = |server, upto| {
        let mut maker = Maker::new(server);
        for _ in 0..5 {
            maker.add(1, BLANK, Bytes::new());
        }
        maker.snapshot();
        maker.commit(5);
        maker
            .log
            .purge(EntryId {
                term: 1,
                index: upto,
            })
            .unwrap();
        maker.close()
    };
    let merged = merged(&[purged(1, 3), purged(2, 2)]).unwrap();
    assert_eq!(merged.differences, []);
    let first = merged
        .entries
        .first()
        .expect("some are left")
        .entry
        .id
        .index;
    assert_eq!((first, merged.certain_upto), (3, Some(5)));
    assert_eq!(merged.missing, []);
    assert_eq!(merged.zxids, Some(ZxidBase(0)));
}

#[test]
fn only_servers_of_one_ensemble_are_merged_and_each_once() {
    let twice = [with_terms(1, &[1], 1, 1), with_terms(1, &[1], 1, 1)];
    assert!(matches!(
        merged(&twice),
        Err(MergeError::Twice { server: 1, .. })
    ));
    let disk = MemoryDisk::new();
    disk.create_folder(data()).unwrap();
    assert!(matches!(merged(&[disk]), Err(MergeError::Nobodys { .. })));
}
