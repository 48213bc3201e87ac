//! What several targets share: a log on a disk in memory, opened and looked at from every side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use quorate_server::storage::StorageError;
use quorate_server::storage::data_dir::{DataDir, Identity};
use quorate_server::storage::log::{EntryId, LogEntry, LogOptions, LogState};
use quorate_server::storage::memory::MemoryDisk;

/// Whose log it is.
pub const IDENTITY: Identity = Identity {
    cluster: 1,
    server: 2,
    incarnation: 3,
};

/// What disks write whole, and the length of a segment's header.
pub const SECTOR: usize = 512;

/// Where the files are.
pub fn folder() -> &'static Path {
    Path::new("/data")
}

/// Small segments: opening a log makes the next one.
pub fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 8 * SECTOR as u64,
        reserve_bytes: 0,
        ..LogOptions::default()
    }
}

/// The file name of a segment.
pub fn segment_path(sequence: u64) -> PathBuf {
    folder().join(format!("{sequence:016x}.log"))
}

/// A segment's first sector; the layout is that of format version 1 in `storage/log/segment.rs`.
pub fn segment_header(sequence: u64, length: u64) -> [u8; SECTOR] {
    let mut header = [0; SECTOR];
    header[0..8].copy_from_slice(b"QuorLog\n");
    header[8..12].copy_from_slice(&1_u32.to_le_bytes());
    header[16..24].copy_from_slice(&IDENTITY.cluster.to_le_bytes());
    header[24..32].copy_from_slice(&IDENTITY.server.to_le_bytes());
    header[32..40].copy_from_slice(&sequence.to_le_bytes());
    header[40..48].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..SECTOR - 4]);
    header[SECTOR - 4..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The files of a new server, without its log.
static IDENTITY_FILES: LazyLock<BTreeMap<PathBuf, Vec<u8>>> = LazyLock::new(|| {
    let disk = MemoryDisk::new();
    new_server(&disk);
    let mut image = disk.image();
    image.retain(|path, _| path.extension().is_none());
    image
});

/// Makes the disk that of a server which has never done anything.
pub fn new_server(disk: &MemoryDisk) -> DataDir {
    let mut dir = DataDir::open_on(Arc::new(disk.clone()), folder(), folder())
        .expect("an empty disk can be used");
    dir.initialize(IDENTITY, &options())
        .expect("an empty disk can be initialized");
    dir
}

/// Opens the log in these segments and reads all of it. A log that opens must say the same when it
/// is opened again: opening repairs, and what is repaired needs no repair.
pub fn open_twice(segments: BTreeMap<PathBuf, Vec<u8>>) {
    let mut image = IDENTITY_FILES.clone();
    image.extend(segments);
    let disk = MemoryDisk::from_image(&image);
    let Ok(first) = open(&disk) else {
        return;
    };
    let again = open(&MemoryDisk::from_image(&disk.image()));
    assert_eq!(again.expect("what was opened opens again"), first);
}

fn open(disk: &MemoryDisk) -> Result<(LogState, Vec<EntryId>, Vec<LogEntry>), StorageError> {
    let dir = DataDir::open_on(Arc::new(disk.clone()), folder(), folder())?;
    let log = dir.open_log(options(), Arc::new(|error| panic!("the log died: {error}")))?;
    let state = log.state();
    let first = state.purged.map_or(0, |id| id.index.saturating_add(1));
    let next = state.last.map_or(0, |id| id.index.saturating_add(1));
    let mut entries = Vec::new();
    let mut from = first;
    while from < next {
        let some = log.find(from, next, 1 << 20).read()?;
        let Some(last) = some.last() else { break };
        from = last.id.index.saturating_add(1);
        entries.extend(some);
    }
    for entry in &entries {
        assert_eq!(log.id_at(entry.id.index), Some(entry.id));
    }
    Ok((state, log.term_ends(), entries))
}
