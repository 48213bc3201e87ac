//! The log on a disk in memory: every kind of fault, and what must hold after it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::memory::MemoryDisk;
use super::entry::{BatchBuffer, BatchHeader, Checkpoint, Place, SECTOR};
use super::*;

const IDENTITY: Identity = Identity {
    cluster: 7,
    server: 1,
    incarnation: 5,
};

fn folder() -> &'static Path {
    Path::new("/log")
}

fn segment_path(sequence: u64) -> PathBuf {
    folder().join(segment::name(sequence))
}

/// Small, and never sealing by itself, so that a test knows what is written when.
fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 8 << 10,
        batch_bytes_max: 1 << 10,
        queue_bytes_max: 64 << 10,
        cache_bytes_max: 4 << 10,
        reserve_bytes: 4 << 10,
        space_retry: Duration::from_millis(1),
        seal_after: Duration::from_secs(3600),
    }
}

fn ignore_fatal() -> FatalHook {
    Arc::new(|_: &StorageError| {})
}

fn new_disk(options: &LogOptions) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_folder(folder()).unwrap();
    Log::create(&disk, folder(), IDENTITY, options).unwrap();
    disk
}

fn try_open(disk: &MemoryDisk, options: &LogOptions) -> Result<Log, StorageError> {
    Log::open(
        Arc::new(disk.clone()),
        folder(),
        IDENTITY,
        options.clone(),
        ignore_fatal(),
    )
}

fn open(disk: &MemoryDisk) -> Log {
    try_open(disk, &small()).unwrap()
}

fn entry(term: u64, index: u64, length: usize) -> LogEntry {
    let byte = u8::try_from((term * 31 + index) % 256).unwrap();
    LogEntry {
        id: EntryId { term, index },
        kind: 1,
        payload: Bytes::from(vec![byte; length]),
    }
}

type Outcome = Result<(), StorageError>;

/// A completion, and where its result arrives.
fn waiter() -> (Box<dyn Completion>, mpsc::Receiver<Outcome>) {
    let (send, receive) = mpsc::channel();
    (
        Box::new(move |result: Outcome| send.send(result).unwrap_or_default()),
        receive,
    )
}

/// A completion that never comes is a failure, not a hang.
fn wait(receive: &mpsc::Receiver<Outcome>) -> Outcome {
    receive
        .recv_timeout(Duration::from_secs(20))
        .expect("every completion is called")
}

fn append(log: &Log, entries: impl IntoIterator<Item = LogEntry>) -> Outcome {
    let (done, receive) = waiter();
    log.append(entries, done)?;
    wait(&receive)
}

fn vote(log: &Log, term: u64) -> Outcome {
    let (done, receive) = waiter();
    log.save_vote(
        SavedVote {
            term,
            server: 1,
            committed: false,
        },
        done,
    )?;
    wait(&receive)
}

fn all(log: &Log) -> Vec<LogEntry> {
    log.find(0, u64::MAX, usize::MAX).read().unwrap()
}

/// Waits until the next segment is made, so that only the writer touches the disk.
fn wait_for_spare(log: &Log) {
    wait_until(log, |inner| inner.spare.is_some());
}

fn wait_until(log: &Log, what: impl Fn(&Inner) -> bool) {
    let Signal::Thread(work) = &log.shared.work else {
        panic!("there is no simulation here");
    };
    let mut inner = log.shared.inner.lock();
    while !what(&inner) {
        assert!(
            !work
                .wait_for(&mut inner, Duration::from_secs(20))
                .timed_out()
        );
    }
}

/// A log of several batches in one segment, not sealed; its entries and its only segment.
fn several_batches(options: &LogOptions) -> (MemoryDisk, Vec<LogEntry>) {
    let disk = new_disk(options);
    let log = try_open(&disk, options).unwrap();
    wait_for_spare(&log);
    vote(&log, 3).unwrap();
    // The last batch takes three sectors.
    let lengths = [10, 700, 0, 40, 1300];
    let entries: Vec<LogEntry> = (0..5)
        .map(|index| entry(1, index, lengths[usize::try_from(index).unwrap()]))
        .collect();
    append(&log, entries[..2].to_vec()).unwrap();
    append(&log, entries[2..3].to_vec()).unwrap();
    append(&log, entries[3..].to_vec()).unwrap();
    drop(log);
    (disk, entries)
}

/// What the log says with its first segment replaced, and that a refusal changes nothing.
fn open_damaged(
    image: &BTreeMap<PathBuf, Vec<u8>>,
    bytes: &[u8],
    options: &LogOptions,
) -> Result<(Option<SavedVote>, Vec<LogEntry>), StorageError> {
    let disk = MemoryDisk::from_image(image);
    disk.plant(&segment_path(1), bytes);
    let before = disk.image();
    match try_open(&disk, options) {
        Ok(log) => Ok((log.state().vote, all(&log))),
        Err(error) => {
            assert_eq!(disk.image(), before, "a refused start has changed the disk");
            Err(error)
        }
    }
}

#[test]
fn what_was_appended_is_there_after_a_close_a_kill_and_a_power_cut() {
    let mut disk = new_disk(&small());
    let mut expected = Vec::new();
    for round in 0..9_u64 {
        let log = open(&disk);
        assert_eq!(all(&log), expected);
        for index in round * 20..(round + 1) * 20 {
            expected.push(entry(round, index, 100));
        }
        let (done, receive) = waiter();
        log.append(expected[expected.len() - 20..].to_vec(), done)
            .unwrap();
        assert_eq!(all(&log), expected, "readable at once");
        wait(&receive).unwrap();
        vote(&log, round).unwrap();
        match round % 3 {
            0 => log.close().unwrap(),
            1 => drop(log),
            _ => disk = disk.crash(|| false),
        }
    }
    let log = open(&disk);
    assert_eq!(all(&log), expected);
    assert_eq!(log.state().vote.unwrap().term, 8);
    vote(&log, 9).unwrap();
    let stats = log.stats();
    assert_eq!(
        (stats.batches, stats.bytes, stats.queued_bytes),
        (1, 512, 0)
    );
    assert!(stats.busy_max > Duration::ZERO && stats.writing_for.is_none());
}

#[test]
fn a_log_cut_at_any_byte_is_refused_and_left_alone() {
    let options = LogOptions {
        segment_bytes: 6 << 10,
        ..small()
    };
    let (disk, entries) = several_batches(&options);
    let image = disk.image();
    let whole = image[&segment_path(1)].clone();
    for length in 0..whole.len() {
        match open_damaged(&image, &whole[..length], &options) {
            Err(StorageError::Damaged { path, .. }) => assert_eq!(path, segment_path(1)),
            other => panic!("cut at {length}: {other:?}"),
        }
    }
    assert_eq!(open_damaged(&image, &whole, &options).unwrap().1, entries);
}

#[test]
fn no_flipped_bit_loses_an_acknowledged_entry_in_silence() {
    let options = LogOptions {
        segment_bytes: 6 << 10,
        ..small()
    };
    let (disk, entries) = several_batches(&options);
    let image = disk.image();
    let whole = image[&segment_path(1)].clone();
    let used = whole
        .chunks(SECTOR)
        .rposition(|sector| sector.iter().any(|byte| *byte != 0));
    let used = (used.unwrap() + 1) * SECTOR;
    assert!(used < whole.len(), "some of the segment is unused");
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = open_damaged(&image, &flipped, &options);
        if bit / 8 < used {
            let refused = matches!(&found, Err(StorageError::Damaged { path, .. }) if *path == segment_path(1));
            assert!(refused, "bit {bit}: {found:?}");
        } else if let Ok((vote, found)) = found {
            assert_eq!((vote.unwrap().term, &found), (3, &entries), "bit {bit}");
        }
    }
}

/// With the last batch not sealed yet, a lost sector of it cannot be told from one never written.
#[test]
fn a_zeroed_sector_is_damage_anywhere_but_in_an_unsealed_last_batch() {
    let options = LogOptions {
        segment_bytes: 6 << 10,
        ..small()
    };
    for sealed in [false, true] {
        let (disk, entries) = several_batches(&options);
        if sealed {
            try_open(&disk, &options).unwrap().close().unwrap();
        }
        let image = disk.image();
        let whole = image[&segment_path(1)].clone();
        let mut cut_off = 0;
        for sector in 0..whole.len() / SECTOR {
            let mut zeroed = whole.clone();
            let sector = &mut zeroed[sector * SECTOR..(sector + 1) * SECTOR];
            if sector.iter().all(|byte| *byte == 0) {
                continue;
            }
            sector.fill(0);
            match open_damaged(&image, &zeroed, &options) {
                Err(StorageError::Damaged { .. }) => {}
                Ok((vote, found)) => {
                    cut_off += 1;
                    assert_eq!(vote.unwrap().term, 3);
                    // The batch with entries 3 and 4, or the seal after them.
                    let kept = if sealed { entries.len() } else { 3 };
                    assert_eq!(found, entries[..kept]);
                }
                Err(error) => panic!("{error}"),
            }
        }
        // The last batch has three sectors, the seal one.
        assert_eq!(cut_off, if sealed { 1 } else { 3 });
    }
}

/// Checks that the log goes on after `expected`, over whatever is there.
fn goes_on_after(disk: &MemoryDisk, mut expected: Vec<LogEntry>, what: &str) {
    let log = open(disk);
    assert_eq!(all(&log), expected, "{what}");
    let next = entry(3, expected.len() as u64, 5);
    append(&log, [next.clone()]).unwrap();
    expected.push(next);
    drop(log);
    let disk = disk.crash(|| false);
    assert_eq!(all(&open(&disk)), expected, "{what}");
}

#[test]
fn a_torn_write_is_cut_off_and_the_log_goes_on_over_it() {
    let (disk, entries) = several_batches(&small());
    let next = entry(2, 5, 1200);
    let batch = batch_at_end(&entries, next.clone());
    let sectors = batch.len() / SECTOR;
    assert_eq!(sectors, 3);
    let image = disk.image();
    let offset = last_batch_end(&image[&segment_path(1)]);
    let with = |written: &dyn Fn(usize) -> bool| {
        let mut image = image.clone();
        let bytes = image.get_mut(&segment_path(1)).unwrap();
        for position in (0..batch.len()).filter(|position| written(*position)) {
            bytes[offset + position] = batch[position];
        }
        MemoryDisk::from_image(&image)
    };
    // After a power cut: any subset of its sectors.
    for kept in 0..1_u32 << sectors {
        let disk = with(&|position| kept >> (position / SECTOR) & 1 == 1);
        let mut expected = entries.clone();
        expected.extend((kept == 7).then(|| next.clone()));
        goes_on_after(&disk, expected, &format!("sectors {kept:b}"));
    }
    // After a kill in the middle of the write: any beginning of it.
    for length in 0..batch.len() {
        let disk = with(&|position| position < length);
        goes_on_after(&disk, entries.clone(), &format!("{length} bytes"));
    }
}

/// The bytes of the batch that `several_batches` would continue with.
fn batch_at_end(entries: &[LogEntry], next: LogEntry) -> Vec<u8> {
    let (disk, same) = several_batches(&small());
    assert_eq!(same, entries);
    let log = open(&disk);
    let offset = last_batch_end(&disk.contents(&segment_path(1)).unwrap());
    append(&log, [next]).unwrap();
    drop(log);
    let bytes = disk.contents(&segment_path(1)).unwrap();
    bytes[offset..last_batch_end(&bytes)].to_vec()
}

fn last_batch_end(bytes: &[u8]) -> usize {
    let seed = checksum_seed(IDENTITY.cluster, IDENTITY.server);
    let mut offset = SECTOR;
    while let Some(header) = BatchHeader::decode(&bytes[offset..], seed) {
        offset += header.length_on_disk();
    }
    offset
}

#[test]
fn a_missing_segment_is_noticed() {
    let disk = new_disk(&small());
    let log = open(&disk);
    for index in 0..60 {
        append(&log, [entry(1, index, 500)]).unwrap();
    }
    log.close().unwrap();
    let image = disk.image();
    let names: Vec<&PathBuf> = image.keys().collect();
    assert!(names.len() > 3);
    // The last file is the spare segment, which holds nothing.
    for name in &names[..names.len() - 1] {
        let mut image = image.clone();
        image.remove(*name);
        let disk = MemoryDisk::from_image(&image);
        let found = try_open(&disk, &small());
        assert!(
            matches!(found, Err(StorageError::Missing { .. })),
            "{name:?}: {found:?}"
        );
        assert_eq!(disk.image(), image);
    }
    let mut without_any = MemoryDisk::from_image(&image).image();
    without_any.clear();
    without_any.insert(folder().join("something"), Vec::new());
    let found = try_open(&MemoryDisk::from_image(&without_any), &small());
    assert!(matches!(found, Err(StorageError::Missing { .. })));
}

#[test]
fn a_segment_under_a_wrong_name_of_another_server_or_a_later_format_is_refused() {
    let (disk, _) = several_batches(&small());
    let image = disk.image();

    let mut renamed = image.clone();
    renamed.insert(segment_path(2), image[&segment_path(1)].clone());
    let found = try_open(&MemoryDisk::from_image(&renamed), &small());
    assert!(
        matches!(found, Err(StorageError::Damaged { .. })),
        "{found:?}"
    );

    let other = Identity {
        server: 2,
        ..IDENTITY
    };
    let found = Log::open(Arc::new(disk), folder(), other, small(), ignore_fatal());
    assert!(matches!(
        found,
        Err(StorageError::Foreign {
            found_server: 1,
            server: 2,
            ..
        })
    ));

    let mut newer = image[&segment_path(1)].clone();
    newer[8] = 2;
    let checksum = crc32c::crc32c(&newer[..SECTOR - 4]);
    newer[SECTOR - 4..SECTOR].copy_from_slice(&checksum.to_le_bytes());
    let found = open_damaged(&image, &newer, &small());
    let Err(
        error @ StorageError::NewerFormat {
            found: 2,
            supported: 1,
            ..
        },
    ) = found
    else {
        panic!("{found:?}");
    };
    assert!(error.to_string().contains("run the release that wrote it"));
}

#[test]
fn a_failed_sync_kills_the_log_is_told_once_and_never_retried() {
    let (disk, entries) = several_batches(&small());
    let told = Arc::new(AtomicUsize::new(0));
    let hook: FatalHook = {
        let told = told.clone();
        Arc::new(move |_: &StorageError| {
            told.fetch_add(1, Ordering::SeqCst);
        })
    };
    let log = Log::open(Arc::new(disk.clone()), folder(), IDENTITY, small(), hook).unwrap();
    wait_for_spare(&log);
    append(&log, [entry(2, 5, 10)]).unwrap();
    disk.fail_sync(1);
    let failed = append(&log, [entry(2, 6, 10)]).unwrap_err();
    assert!(failed.to_string().contains("cannot sync /log/"), "{failed}");
    let syncs = disk.syncs();
    for _ in 0..3 {
        assert!(append(&log, [entry(2, 7, 10)]).is_err());
        assert!(vote(&log, 9).is_err());
        assert!(log.truncate_after(None).is_err());
        assert!(log.purge(EntryId { term: 1, index: 1 }).is_err());
        assert!(log.save_committed(None).is_err());
    }
    assert!(log.close().is_err());
    drop(log);
    assert_eq!((disk.syncs(), told.load(Ordering::SeqCst)), (syncs, 1));

    // The page cache still shows the batch. Once a new process has shown it, it must stay.
    let log = open(&disk);
    let shown = all(&log);
    assert_eq!(shown[..5], entries);
    assert_eq!(shown.len(), 7);
    drop(log);
    let disk = disk.crash(|| false);
    assert_eq!(all(&open(&disk)), shown);
}

#[test]
fn short_and_interrupted_writes_are_continued() {
    let disk = new_disk(&small());
    let log = open(&disk);
    wait_for_spare(&log);
    disk.set_write_bytes_max(Some(100));
    disk.interrupt_writes(5);
    append(&log, [entry(1, 0, 900)]).unwrap();
    drop(log);
    let disk = disk.crash(|| false);
    assert_eq!(all(&open(&disk)), [entry(1, 0, 900)]);
}

#[test]
fn a_write_that_cannot_be_completed_kills_the_log() {
    for fault in 0..3 {
        let (disk, entries) = several_batches(&small());
        let log = open(&disk);
        wait_for_spare(&log);
        match fault {
            0 => disk.set_write_bytes_max(Some(0)),
            1 => disk.fail_write(1, io::ErrorKind::StorageFull),
            _ => {
                // Half of it, then no more.
                disk.set_write_bytes_max(Some(600));
                disk.fail_write(2, io::ErrorKind::Other);
            }
        }
        assert!(append(&log, [entry(2, 5, 900)]).is_err());
        disk.set_write_bytes_max(None);
        assert!(append(&log, [entry(2, 5, 900)]).is_err());
        drop(log);
        assert_eq!(all(&open(&disk)), entries);
    }
}

#[test]
fn a_full_disk_is_said_before_anything_is_lost_and_passes() {
    let disk = new_disk(&small());
    disk.set_capacity(Some(disk.used() + 2000));
    let log = open(&disk);
    wait_until(&log, |inner| inner.full);
    let mut space = log.space();
    assert!(log.has_space(), "the first segment is empty still");
    let mut index = 0;
    while log.has_space() {
        append(&log, [entry(1, index, 400)]).unwrap();
        index += 1;
    }
    assert!(
        log.shared.inner.lock().remaining >= 3 << 10,
        "there is a reserve left"
    );
    // What was accepted before that fits.
    for _ in 0..3 {
        append(&log, [entry(1, index, 400)]).unwrap();
        index += 1;
    }
    // Beyond it, nothing is acknowledged, and nothing fails.
    let (done, receive) = waiter();
    let more: Vec<LogEntry> = (index..index + 10)
        .map(|index| entry(1, index, 400))
        .collect();
    log.append(more, done).unwrap();
    assert!(receive.recv_timeout(Duration::from_millis(50)).is_err());
    assert_eq!(all(&log).len() as u64, index + 10, "reads go on");
    disk.set_capacity(None);
    wait(&receive).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let passed = async { space.wait_for(|space| *space).await.map(|space| *space) };
    let passed =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), passed).await });
    assert!(passed.unwrap().unwrap());
    drop(log);
    let disk = disk.crash(|| false);
    assert_eq!(all(&open(&disk)).len() as u64, index + 10);
}

#[test]
fn purging_frees_segments_only_when_it_is_durable_and_survives() {
    let disk = new_disk(&small());
    let log = open(&disk);
    for index in 0..100 {
        append(&log, [entry(1, index, 400)]).unwrap();
    }
    // The next sync must be the writer's, not one of a segment that is being made.
    while log.shared.inner.lock().spare.is_none() {
        std::thread::yield_now();
    }
    let segments = |disk: &MemoryDisk| {
        let names = disk.list(folder()).unwrap();
        names.iter().filter(|name| name.ends_with(".log")).count()
    };
    let before = segments(&disk);
    disk.fail_sync(1);
    log.purge(EntryId { term: 1, index: 89 }).unwrap();
    assert_eq!(all(&log).len(), 10);
    while append(&log, [entry(1, log.state().last.unwrap().index + 1, 10)]).is_ok() {}
    drop(log);
    assert!(segments(&disk) >= before);
    let disk = disk.crash(|| false);
    let log = open(&disk);
    assert_eq!(all(&log)[0].id.index, 0, "the purge was never durable");
    log.purge(EntryId { term: 1, index: 89 }).unwrap();
    let next = log.state().last.unwrap().index + 1;
    append(&log, [entry(1, next, 10)]).unwrap();
    let kept = all(&log);
    assert_eq!(kept[0].id.index, 90);
    log.close().unwrap();
    assert!(segments(&disk) < before / 2);
    let disk = disk.crash(|| false);
    let log = open(&disk);
    assert_eq!(all(&log), kept);
    assert_eq!(log.state().purged, Some(EntryId { term: 1, index: 89 }));
    assert_eq!(log.id_at(89), Some(EntryId { term: 1, index: 89 }));
    assert_eq!(log.id_at(88), None);
}

/// Were folders not synced, a segment's name would be lost with all that was acknowledged in it:
/// this test's disk must show that, or the others prove nothing.
#[test]
fn a_disk_that_forgets_names_is_noticed() {
    let disk = new_disk(&small());
    disk.ignore_folder_syncs();
    let log = open(&disk);
    for index in 0..60 {
        append(&log, [entry(1, index, 500)]).unwrap();
    }
    drop(log);
    let disk = disk.crash(|| false);
    assert!(
        try_open(&disk, &small())
            .map(|log| all(&log).len())
            .is_ok_and(|left| left < 60)
    );
}

#[test]
fn a_failing_folder_sync_kills_the_log_before_anything_depends_on_it() {
    let disk = new_disk(&small());
    disk.fail_folder_syncs(true);
    let log = open(&disk);
    let mut acknowledged = 0;
    while append(&log, [entry(1, acknowledged, 500)]).is_ok() {
        acknowledged += 1;
    }
    drop(log);
    disk.fail_folder_syncs(false);
    let disk = disk.crash(|| false);
    assert!(all(&open(&disk)).len() as u64 >= acknowledged);
}

#[test]
fn callers_wait_while_the_queue_is_full() {
    let disk = new_disk(&small());
    disk.set_capacity(Some(disk.used()));
    let options = LogOptions {
        queue_bytes_max: 10_000,
        ..small()
    };
    let log = try_open(&disk, &options).unwrap();
    wait_until(&log, |inner| inner.full);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let has_room = |limit| {
        let room = async { tokio::time::timeout(limit, log.wait_for_room()).await };
        runtime.block_on(room).map(Result::unwrap).is_ok()
    };
    let mut index = 0;
    while has_room(Duration::from_millis(50)) {
        log.append([entry(1, index, 1000)], waiter().0).unwrap();
        index += 1;
        assert!(index < 100, "the queue is not bounded");
    }
    disk.set_capacity(None);
    assert!(has_room(Duration::from_secs(20)));
}

/// Written by the release that made format 1. Whoever changes the format keeps reading this.
#[test]
fn a_log_of_format_1_can_be_read() {
    let image = [(
        segment_path(1),
        include_bytes!("fixtures/format-1.log").to_vec(),
    )];
    let disk = MemoryDisk::from_image(&image.into());
    let log = open(&disk);
    let id = |term, index| Some(EntryId { term, index });
    let expected = LogState {
        purged: id(1, 0),
        last: id(3, 3),
        vote: Some(SavedVote {
            term: 3,
            server: 2,
            committed: true,
        }),
        committed: id(1, 1),
    };
    assert_eq!(log.state(), expected);
    let payload = |text: &'static [u8]| Bytes::from_static(text);
    let entries = [
        LogEntry {
            id: EntryId { term: 1, index: 1 },
            kind: 1,
            payload: payload(b"one"),
        },
        LogEntry {
            id: EntryId { term: 3, index: 2 },
            kind: 0,
            payload: payload(b""),
        },
        LogEntry {
            id: EntryId { term: 3, index: 3 },
            kind: 2,
            payload: Bytes::from(vec![0; 1500]),
        },
    ];
    assert_eq!(all(&log), entries);
}

#[test]
fn entries_must_follow_each_other() {
    let disk = new_disk(&small());
    let log = open(&disk);
    append(&log, [entry(1, 0, 1)]).unwrap();
    let gap = log.append([entry(1, 2, 1)], waiter().0);
    assert!(matches!(
        gap,
        Err(StorageError::Gap {
            expected: 1,
            found: 2
        })
    ));
    append(&log, [entry(1, 1, 1)]).unwrap();
    assert_eq!(all(&log).len(), 2);
}

#[test]
fn an_entry_longer_than_a_segment_gets_one_made_to_measure() {
    let disk = new_disk(&small());
    let log = open(&disk);
    let long = entry(1, 1, 50_000);
    append(&log, [entry(1, 0, 10), long.clone(), entry(1, 2, 10)]).unwrap();
    append(&log, [entry(1, 3, 10)]).unwrap();
    drop(log);
    let disk = disk.crash(|| false);
    let log = open(&disk);
    assert_eq!(
        all(&log),
        [entry(1, 0, 10), long, entry(1, 2, 10), entry(1, 3, 10)]
    );
}

#[test]
fn an_idle_log_seals_itself_and_notes_what_is_committed() {
    let disk = new_disk(&small());
    let log = try_open(
        &disk,
        &LogOptions {
            seal_after: Duration::ZERO,
            ..small()
        },
    )
    .unwrap();
    append(&log, [entry(1, 0, 10), entry(1, 1, 10)]).unwrap();
    log.save_committed(Some(EntryId { term: 1, index: 1 }))
        .unwrap();
    // Sealed and said: then the writer waits without a limit of time.
    let sealed = || {
        let disk = MemoryDisk::from_image(&disk.image());
        let recovered = recovery::read(&disk, folder(), IDENTITY).unwrap().unwrap();
        recovered.sealed && recovered.view.committed == Some(EntryId { term: 1, index: 1 })
    };
    let start = Instant::now();
    while !sealed() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
}

/// It is not woken for each note, but for the one that comes when nothing else would.
#[test]
fn what_is_committed_when_all_is_sealed_is_noted_as_well() {
    let disk = new_disk(&small());
    let options = LogOptions {
        seal_after: Duration::ZERO,
        ..small()
    };
    let log = try_open(&disk, &options).unwrap();
    append(&log, [entry(1, 0, 10)]).unwrap();
    let start = Instant::now();
    let until = |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
    };
    until(&|| log.shared.inner.lock().resting);
    let last = Some(EntryId { term: 1, index: 0 });
    log.save_committed(last).unwrap();
    until(&|| {
        let disk = MemoryDisk::from_image(&disk.image());
        let recovered = recovery::read(&disk, folder(), IDENTITY).unwrap().unwrap();
        recovered.sealed && recovered.view.committed == last
    });
}

#[test]
fn what_is_committed_is_never_beyond_the_recovered_log() {
    let disk = new_disk(&small());
    let log = open(&disk);
    wait_for_spare(&log);
    append(&log, [entry(1, 0, 10)]).unwrap();
    // Committed on the other servers' disks first.
    log.save_committed(Some(EntryId { term: 1, index: 7 }))
        .unwrap();
    append(&log, [entry(1, 1, 10)]).unwrap();
    drop(log);
    assert_eq!(
        open(&disk).state().committed,
        Some(EntryId { term: 1, index: 1 })
    );
}

#[test]
fn reads_stop_near_the_byte_limit_and_give_at_least_one_entry() {
    for cache_bytes_max in [0, 1 << 20] {
        let disk = new_disk(&small());
        let log = try_open(
            &disk,
            &LogOptions {
                cache_bytes_max,
                ..small()
            },
        )
        .unwrap();
        for index in 0..50 {
            append(&log, [entry(1, index, 400)]).unwrap();
        }
        assert_eq!(log.find(3, 50, 0).read().unwrap(), [entry(1, 3, 400)]);
        let some = log.find(3, 50, 4000).read().unwrap();
        assert!(some.len() > 3 && some.len() < 20, "{}", some.len());
        let indexes: Vec<u64> = some.iter().map(|entry| entry.id.index).collect();
        assert_eq!(indexes, (3..3 + some.len() as u64).collect::<Vec<u64>>());
    }
}

#[test]
fn entries_found_before_a_purge_can_be_read_after_it() {
    let disk = new_disk(&small());
    let log = try_open(
        &disk,
        &LogOptions {
            cache_bytes_max: 0,
            ..small()
        },
    )
    .unwrap();
    for index in 0..50 {
        append(&log, [entry(1, index, 400)]).unwrap();
    }
    let found = log.find(0, 50, usize::MAX);
    assert!(!found.is_in_memory());
    log.purge(EntryId { term: 1, index: 49 }).unwrap();
    append(&log, [entry(1, 50, 10)]).unwrap();
    log.close().unwrap();
    assert_eq!(found.read().unwrap().len(), 50);
}

/// What a log may be found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    entries: Vec<LogEntry>,
    purged: Option<EntryId>,
    vote: Option<SavedVote>,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.last().map(|entry| entry.id).or(self.purged);
        last.map_or(0, |last| last.index + 1)
    }

    fn of(log: &Log) -> Result<Model, StorageError> {
        let state = log.state();
        let entries = log.find(0, u64::MAX, usize::MAX).read()?;
        Ok(Model {
            entries,
            purged: state.purged,
            vote: state.vote,
        })
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Entries of these lengths, in a new term or the old one.
    Append {
        lengths: Vec<usize>,
        new_term: bool,
    },
    Vote,
    /// Drops so many entries from the end.
    Truncate(u64),
    /// Drops so many from the beginning; more than there are, as after a snapshot came in.
    Purge(u64),
    Commit,
    /// Waits for all that was asked for.
    Sync,
    Close,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = prop::collection::vec(prop_oneof![0..50_usize, 300..1500_usize], 1..6);
    let step = prop_oneof![
        8 => (lengths, prop::bool::weighted(0.2))
            .prop_map(|(lengths, new_term)| Step::Append { lengths, new_term }),
        2 => Just(Step::Vote),
        2 => (1..6_u64).prop_map(Step::Truncate),
        2 => prop_oneof![1..8_u64, 20..25_u64].prop_map(Step::Purge),
        1 => Just(Step::Commit),
        4 => Just(Step::Sync),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..40)
}

/// Runs steps and knows what each of them would leave if it were the last to reach the disk.
struct Trial {
    disk: MemoryDisk,
    options: LogOptions,
    log: Log,
    term: u64,
    /// After each change that may or may not be durable, the oldest surely so.
    possible: Vec<Model>,
    waiting: Vec<(usize, mpsc::Receiver<Outcome>)>,
    changes: usize,
}

impl Trial {
    fn new(disk: MemoryDisk, options: LogOptions) -> Result<Trial, StorageError> {
        let log = try_open(&disk, &options)?;
        let possible = vec![Model::of(&log)?];
        let term = possible[0].entries.last().map_or(1, |entry| entry.id.term);
        let waiting = Vec::new();
        Ok(Trial {
            disk,
            options,
            log,
            term,
            possible,
            waiting,
            changes: 0,
        })
    }

    fn now(&self) -> Model {
        self.possible.last().cloned().unwrap()
    }

    fn change(&mut self, model: Model) {
        self.possible.push(model);
        self.changes += 1;
    }

    /// Learns which completions have come, and forgets what is no longer possible.
    fn learn(&mut self) {
        let changes = self.changes;
        let mut durable = None;
        self.waiting
            .retain(|(change, receive)| match receive.try_recv() {
                Ok(Ok(())) => {
                    durable = Some(*change);
                    false
                }
                Ok(Err(_)) | Err(mpsc::TryRecvError::Disconnected) => false,
                Err(mpsc::TryRecvError::Empty) => true,
            });
        if let Some(durable) = durable {
            let oldest = self.possible.len() - 1 - (changes - durable);
            self.possible.drain(..oldest);
            // Offsets count from the end, so nothing else moves.
        }
    }

    fn step(&mut self, step: &Step) -> Outcome {
        let mut model = self.now();
        match step {
            Step::Append { lengths, new_term } => {
                self.term += u64::from(*new_term);
                let first = model.next();
                let entries: Vec<LogEntry> = (first..)
                    .zip(lengths)
                    .map(|(index, length)| entry(self.term, index, *length))
                    .collect();
                let (done, receive) = waiter();
                self.log.append(entries.clone(), done)?;
                for entry in entries {
                    model.entries.push(entry);
                    self.change(model.clone());
                }
                self.waiting.push((self.changes, receive));
            }
            Step::Vote => {
                self.term += 1;
                let vote = SavedVote {
                    term: self.term,
                    server: 1,
                    committed: self.term.is_multiple_of(2),
                };
                let (done, receive) = waiter();
                self.log.save_vote(vote, done)?;
                model.vote = Some(vote);
                self.change(model);
                self.waiting.push((self.changes, receive));
            }
            Step::Truncate(count) => {
                let keep = model
                    .entries
                    .len()
                    .saturating_sub(usize::try_from(*count).unwrap());
                model.entries.truncate(keep);
                let last = model.entries.last().map(|entry| entry.id).or(model.purged);
                self.log.truncate_after(last)?;
                self.change(model);
            }
            Step::Purge(count) => {
                let first = model
                    .entries
                    .first()
                    .map_or(model.next(), |entry| entry.id.index);
                let upto = first + count - 1;
                let known = model.entries.iter().find(|entry| entry.id.index == upto);
                let id = known.map_or(
                    EntryId {
                        term: self.term,
                        index: upto,
                    },
                    |entry| entry.id,
                );
                self.log.purge(id)?;
                model.entries.retain(|entry| entry.id.index > upto);
                model.purged = Some(id);
                self.change(model);
            }
            Step::Commit => {
                let last = model.entries.last().map(|entry| entry.id);
                self.log.save_committed(last)?;
            }
            Step::Sync => {
                let (done, receive) = waiter();
                self.log.append([], done)?;
                wait(&receive)?;
            }
            Step::Close => {
                self.log.close()?;
                self.restart()?;
                // A clean end leaves nothing open.
                assert_eq!(self.possible.len(), 1);
            }
            Step::Kill => {
                self.log.end(Stop::Abandon);
                self.restart()?;
            }
        }
        Ok(())
    }

    /// Opens the log again; it must hold something that was possible.
    fn restart(&mut self) -> Outcome {
        self.learn();
        let closed = self.log.shared.inner.lock().closed;
        self.log = try_open(&self.disk, &self.options)?;
        let found = Model::of(&self.log)?;
        if closed {
            assert_eq!(found, self.now(), "a clean close loses nothing");
        }
        let possible = self.possible.contains(&found);
        assert!(
            possible,
            "found {found:#?}, of these possible: {:#?}",
            self.possible
        );
        let committed = self.log.state().committed;
        assert!(committed <= self.log.state().last);
        self.term = self
            .term
            .max(found.entries.last().map_or(1, |entry| entry.id.term));
        self.possible = vec![found];
        self.waiting.clear();
        self.changes = 0;
        Ok(())
    }
}

proptest! {
    // Nothing to replay: which batches there are depends on the threads' timing as well.
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The power is cut at any change of the disk, keeping any part of what was not synced. What is
    /// found is what some prefix of the calls leaves, and that prefix has all that was completed.
    #[test]
    fn a_power_cut_at_any_moment_leaves_all_that_was_acknowledged_in_order(
        steps in steps(),
        cuts in prop::collection::vec((1..60_u64, any::<u64>()), 1..6),
        no_cache in any::<bool>(),
        seals in any::<bool>(),
    ) {
        let options = LogOptions {
            cache_bytes_max: if no_cache { 0 } else { 4 << 10 },
            seal_after: if seals { Duration::ZERO } else { Duration::from_secs(3600) },
            ..small()
        };
        let mut run = Trial::new(new_disk(&options), options).unwrap();
        let mut cuts = cuts.into_iter();
        if let Some((nth, seed)) = cuts.next() {
            run.disk.cut_power_at(nth, seed);
        }
        for step in &steps {
            if run.step(step).is_err() {
                run.log.end(Stop::Abandon);
                run.learn();
                run.disk = run.disk.power_on();
                // The next cut may hit the recovery itself.
                let next = cuts.next();
                if let Some((nth, seed)) = next {
                    run.disk.cut_power_at(nth % 10 + 1, seed);
                }
                if run.restart().is_err() {
                    run.disk = run.disk.crash(|| true);
                    run.restart().unwrap();
                }
                if let Some((nth, seed)) = cuts.next() {
                    run.disk.cut_power_at(nth, seed);
                }
            }
            run.learn();
            // What readers see is what was asked for, durable or not; unless the power is out.
            if let Ok(seen) = Model::of(&run.log) {
                prop_assert_eq!(run.now(), seen);
            }
        }
    }
}

#[test]
fn a_batch_number_that_no_other_can_follow_is_damage() {
    let options = small();
    let disk = new_disk(&options);
    let mut batch = BatchBuffer::default();
    batch.clear();
    batch.insert_checkpoint(&Checkpoint::default());
    let place = Place {
        seed: checksum_seed(IDENTITY.cluster, IDENTITY.server),
        segment: 1,
        sequence: u64::MAX,
        previous: 0,
    };
    let (bytes, _) = batch.finish(place, true);
    let mut file = disk.contents(&segment_path(1)).unwrap();
    file[SECTOR..SECTOR + bytes.len()].copy_from_slice(bytes);
    disk.plant(&segment_path(1), &file);
    let refused = try_open(&disk, &options).unwrap_err();
    assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
}
