//! Snapshots on a disk in memory: nothing but a whole one is ever taken for one.

use std::collections::BTreeMap;

use super::super::memory::MemoryDisk;
use super::*;

const CLUSTER: u64 = 77;

fn folder() -> &'static Path {
    Path::new("/data")
}

fn open(disk: &MemoryDisk) -> SnapshotStore {
    disk.create_folder(folder()).unwrap();
    SnapshotStore::open(Arc::new(disk.clone()), folder(), CLUSTER).unwrap()
}

fn info(index: u64) -> SnapshotInfo {
    SnapshotInfo {
        last: Some(EntryId { term: 2, index }),
        membership: vec![1, 2, 3],
    }
}

/// Neither constant nor random: some blocks compress, some do not.
fn contents(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = |position: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if position.is_multiple_of(3) {
            state.to_le_bytes()[3]
        } else {
            7
        }
    };
    (0..length).map(&mut next).collect()
}

fn write(store: &SnapshotStore, index: u64, contents: &[u8]) -> Result<SnapshotFile, StorageError> {
    let mut writer = store.begin(info(index))?;
    for piece in contents.chunks(7001) {
        if writer.write_all(piece).is_err() {
            break;
        }
    }
    writer.finish()
}

fn read(snapshot: &SnapshotFile) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    snapshot.read()?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn never(_: Option<EntryId>) -> bool {
    false
}

fn latest_index(store: &SnapshotStore) -> Option<u64> {
    let latest = store.open_latest(never).unwrap();
    latest.map(|snapshot| snapshot.info.last.unwrap().index)
}

#[test]
fn a_snapshot_reads_back_as_it_was_written_also_after_a_power_cut() {
    for length in [0, 1, 100_000, 3 << 20] {
        let disk = MemoryDisk::new();
        let contents = contents(length);
        write(&open(&disk), 5, &contents).unwrap();
        let disk = disk.crash(|| false);
        let latest = open(&disk).open_latest(never).unwrap().unwrap();
        assert_eq!(latest.info(), &info(5));
        assert!(read(&latest).unwrap() == contents);
    }
}

#[test]
fn incompressible_contents_are_stored_as_they_are() {
    let disk = MemoryDisk::new();
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()[7]
    };
    let contents: Vec<u8> = (0..1 << 20).map(|_| random()).collect();
    let snapshot = write(&open(&disk), 5, &contents).unwrap();
    assert!(snapshot.length() < contents.len() as u64 + 1000);
    assert!(read(&snapshot).unwrap() == contents);
}

#[test]
fn a_snapshot_with_any_bit_flipped_or_cut_anywhere_is_refused() {
    let disk = MemoryDisk::new();
    let snapshot = write(&open(&disk), 5, &contents(300)).unwrap();
    let path = snapshot.path().to_owned();
    let whole = disk.contents(&path).unwrap();
    let refuses = |bytes: &[u8], what: &str| {
        let disk = MemoryDisk::new();
        disk.plant(&path, bytes);
        let store = open(&disk);
        assert!(store.open_latest(never).is_err(), "{what}");
        // Also when read without the check before it.
        if let Ok(snapshot) = &store.list().unwrap()[0] {
            assert!(read(snapshot).is_err(), "{what}");
        }
        assert!(store.purge(1).is_err(), "{what}");
        assert!(disk.contents(&path).is_some(), "{what}");
    };
    for length in 0..whole.len() {
        refuses(&whole[..length], &format!("cut at {length}"));
    }
    refuses(&[&whole[..], &[0]].concat(), "one byte longer");
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refuses(&flipped, &format!("bit {bit}"));
    }
}

#[test]
fn blocks_in_another_order_or_from_another_snapshot_are_refused() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    // Blocks of one length, stored raw or not.
    let constant = |byte: u8| vec![byte; 2 * (512 << 10)];
    let first = write(&store, 5, &constant(1)).unwrap();
    let second = write(&store, 6, &constant(2)).unwrap();
    let bytes = disk.contents(first.path()).unwrap();
    let other = disk.contents(second.path()).unwrap();
    assert_eq!(bytes.len(), other.len());
    let end = bytes.len() - 48;
    let start = 48 + 3 + 4;
    let middle = start + (end - start) / 2;
    let swapped = [
        &bytes[..start],
        &bytes[middle..end],
        &bytes[start..middle],
        &bytes[end..],
    ]
    .concat();
    let mixed = [&bytes[..start], &other[start..]].concat();
    for wrong in [swapped, mixed] {
        disk.plant(first.path(), &wrong);
        let planted = store.list().unwrap().remove(1).unwrap();
        assert!(store.verify(&planted).is_err());
        assert!(read(&planted).is_err());
    }
}

#[test]
fn an_older_snapshot_serves_only_if_the_log_covers_it() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    write(&store, 5, &contents(10)).unwrap();
    let newest = write(&store, 9, &contents(20)).unwrap();
    disk.plant(newest.path(), b"");
    let Err(StorageError::Damaged { path, offset, .. }) = store.open_latest(never) else {
        panic!("the damage must be told");
    };
    assert_eq!((path.as_path(), offset), (newest.path(), 0));
    let older = store.open_latest(|last| last.is_some()).unwrap().unwrap();
    assert_eq!(older.info(), &info(5));
    assert!(store.open_latest(|last| last.is_none()).unwrap().is_none());
}

#[test]
fn purging_keeps_the_newest_and_says_from_where_the_log_is_needed() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    for index in [1, 2, 30, 4, 50] {
        write(&store, index, &contents(10)).unwrap();
    }
    assert_eq!(store.purge(3).unwrap().unwrap().index, 4);
    let left: Vec<u64> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|file| file.unwrap().info.last.unwrap().index)
        .collect();
    assert_eq!(left, [50, 30, 4]);
}

#[test]
fn nothing_is_purged_while_the_newest_snapshot_is_damaged() {
    let disk = MemoryDisk::new();
    for index in 1..=5 {
        write(&open(&disk), index, &contents(1000)).unwrap();
    }
    let newest = open(&disk).open_latest(never).unwrap().unwrap();
    let mut bytes = disk.contents(newest.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    disk.plant(newest.path(), &bytes);
    // A new process: it must look for itself.
    let store = open(&disk);
    assert!(store.purge(1).is_err());
    assert_eq!(store.list().unwrap().len(), 5);
}

#[test]
fn a_snapshot_that_cannot_be_finished_leaves_the_old_ones_and_nothing_else() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    write(&store, 5, &contents(1000)).unwrap();
    let before = disk.image();
    disk.fail_sync(1);
    assert!(write(&store, 9, &contents(1000)).is_err());
    assert_eq!(disk.image(), before, "failed sync");
    disk.set_capacity(Some(disk.used() + 100));
    assert!(
        write(&store, 9, &contents(1 << 20))
            .unwrap_err()
            .is_no_space()
    );
    disk.set_capacity(None);
    assert_eq!(disk.image(), before, "disk full");
    disk.fail_write(2, io::ErrorKind::Other);
    assert!(write(&store, 9, &contents(1 << 20)).is_err());
    assert_eq!(disk.image(), before, "failed write");
    disk.corrupt_next_write();
    let failed = write(&store, 9, &contents(1 << 20));
    assert!(
        matches!(failed, Err(StorageError::Damaged { .. })),
        "{failed:?}"
    );
    assert_eq!(disk.image(), before, "failed read-back");
    assert_eq!(latest_index(&store), Some(5));
}

#[test]
fn a_power_cut_at_any_moment_leaves_the_old_snapshot_or_the_new_one() {
    let before = {
        let disk = MemoryDisk::new();
        write(&open(&disk), 5, &contents(1000)).unwrap();
        disk.image()
    };
    let mut seen = BTreeMap::new();
    for seed in 0..200_u64 {
        let disk = MemoryDisk::from_image(&before);
        let store = open(&disk);
        let mut writer = store.begin(info(9)).unwrap();
        writer.write_all(&contents(5000)).unwrap();
        if seed % 3 > 0 {
            disk.fail_folder_syncs(seed % 3 == 1);
            let finished = writer.finish();
            assert_eq!(finished.is_ok(), seed % 3 == 2);
        }
        let mut state = seed;
        let disk = disk.crash(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            state >> 63 == 0
        });
        disk.fail_folder_syncs(false);
        let index = latest_index(&open(&disk)).unwrap();
        assert!(
            index == 9 || seed % 3 != 2,
            "a finished snapshot is gone, seed {seed}"
        );
        *seen.entry((seed % 3, index)).or_insert(0) += 1;
        let names = disk.list(folder()).unwrap();
        assert!(
            names.iter().all(|name| !name.ends_with(".tmp")),
            "{names:?}"
        );
    }
    assert!(
        seen.contains_key(&(1, 5)) && seen.contains_key(&(2, 9)),
        "{seen:?}"
    );
}

#[test]
fn a_snapshot_sent_to_another_server_is_checked_there() {
    let disk = MemoryDisk::new();
    let snapshot = write(&open(&disk), 5, &contents(2 << 20)).unwrap();
    let send = |change: Option<u64>| {
        let there = open(&MemoryDisk::new());
        let mut receiver = there.receive().unwrap();
        let mut bytes = vec![0; 10_000];
        let mut offset = 0;
        loop {
            let read = snapshot.read_at(&mut bytes, offset).unwrap();
            if read == 0 {
                break;
            }
            if change.is_some_and(|at| (offset..offset + read as u64).contains(&at)) {
                bytes[0] ^= 1;
            }
            receiver.write(&bytes[..read]).unwrap();
            offset += read as u64;
        }
        receiver.finish().map(|_| latest_index(&there))
    };
    assert_eq!(send(None).unwrap(), Some(5));
    assert!(send(Some(snapshot.length() / 2)).is_err());
}

#[test]
fn snapshots_of_another_ensemble_or_a_later_format_are_refused() {
    let disk = MemoryDisk::new();
    let snapshot = write(&open(&disk), 5, &contents(10)).unwrap();
    let store = SnapshotStore::open(Arc::new(disk.clone()), folder(), CLUSTER + 1).unwrap();
    let found = store.open_latest(|_| true);
    assert!(matches!(found, Err(StorageError::ForeignSnapshot { .. })));

    let mut bytes = disk.contents(snapshot.path()).unwrap();
    bytes[8] = 2;
    let header = 48 + 3;
    let checksum = crc32c::crc32c(&bytes[..header]);
    bytes[header..header + 4].copy_from_slice(&checksum.to_le_bytes());
    disk.plant(snapshot.path(), &bytes);
    let found = open(&disk).open_latest(|_| true);
    assert!(matches!(
        found,
        Err(StorageError::NewerFormat {
            found: 2,
            supported: 1,
            ..
        })
    ));
}

/// More than one block, one of them of random bytes only.
fn fixture_contents() -> Vec<u8> {
    [vec![7; 512 << 10], contents(300)].concat()
}

/// Written by the release that made format 1. Whoever changes the format keeps reading this.
#[test]
fn a_snapshot_of_format_1_can_be_read() {
    let disk = MemoryDisk::new();
    let bytes = include_bytes!("fixtures/format-1.snap");
    disk.plant(&folder().join("snapshot-00000000000000000005.snap"), bytes);
    let snapshot = open(&disk).open_latest(never).unwrap().unwrap();
    assert_eq!(snapshot.info(), &info(5));
    assert!(read(&snapshot).unwrap() == fixture_contents());
}
