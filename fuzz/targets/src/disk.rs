//! What is found on the disk, or comes from another server as a file: the log and snapshots.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_server::consensus::types::StoredMembership;
use quorate_server::storage::StorageError;
use quorate_server::storage::data_dir::Identity;
use quorate_server::storage::file::Disk;
use quorate_server::storage::log::{EntryId, Log, LogEntry, LogState};
use quorate_server::storage::memory::MemoryDisk;
use quorate_server::storage::snapshots::SnapshotStore;
use quorate_state::State;

use crate::cursor::Cursor;

/// Whose log it is.
pub const IDENTITY: Identity = Identity {
    cluster: 1,
    server: 2,
    incarnation: 3,
};

/// What disks write whole, and the length of a segment's header.
pub const SECTOR: usize = 512;

/// Batches in one input; more say nothing that fewer do not.
const BATCHES_MAX: usize = 12;

/// Records in one batch.
const RECORDS_MAX: usize = 12;

/// Where the files are.
pub fn folder() -> &'static Path {
    Path::new("/data")
}

/// The file name of a segment.
pub fn segment_path(sequence: u64) -> PathBuf {
    folder().join(format!("{sequence:016x}.log"))
}

/// The log's first segment: torn, cut, changed or made up.
///
/// The first byte says whether the rest is the whole file, or what follows a valid header: few inputs
/// would get past its checksum.
pub fn log_segment(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let file = if first & 1 == 0 {
        // Free space follows.
        let length = (SECTOR + rest.len()).next_multiple_of(SECTOR) + SECTOR;
        let mut file = segment_header(1, length as u64).to_vec();
        file.extend_from_slice(rest);
        file.resize(length, 0);
        file
    } else {
        rest.to_vec()
    };
    open_twice(&BTreeMap::from([(segment_path(1), file)]));
}

/// A segment's first sector; the layout is that of format version 1 in `storage/log/segment.rs`.
fn segment_header(sequence: u64, length: u64) -> [u8; SECTOR] {
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

/// Opens the log in these segments and reads all of it. A log that opens must say the same when it
/// is opened again: opening repairs, and what is repaired needs no repair.
fn open_twice(segments: &BTreeMap<PathBuf, Vec<u8>>) {
    let disk = MemoryDisk::from_image(segments);
    let Ok(first) = open(&disk) else {
        return;
    };
    let again = open(&MemoryDisk::from_image(&disk.image()));
    assert_eq!(again.expect("what was opened opens again"), first);
}

fn open(disk: &MemoryDisk) -> Result<(LogState, Vec<EntryId>, Vec<LogEntry>), StorageError> {
    let log = Log::open_to_read(Arc::new(disk.clone()), folder(), IDENTITY)?;
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

/// Segments whose checksums all hold, with records that a sane server may never write. The layout is
/// that of format version 1 in `storage/log/entry.rs`.
pub fn log_records(input: &[u8]) {
    let mut input = Cursor::new(input);
    let mut segments = vec![Vec::new()];
    let mut sequence = number(&mut input);
    let mut previous = 0;
    let mut needs_checkpoint = true;
    for _ in 0..BATCHES_MAX {
        // A new segment, a seal, and how many records.
        let shape = input.u8();
        if shape & 0x80 != 0 {
            segments.push(Vec::new());
            needs_checkpoint = true;
        }
        let mut records = Vec::new();
        let mut count = 0;
        if std::mem::take(&mut needs_checkpoint) {
            let present = input.u8();
            let numbers: [u64; 8] = std::array::from_fn(|_| number(&mut input));
            record(&mut records, 6, present, &numbers, &[]);
            count += 1;
        }
        for _ in 0..usize::from(shape & 0x3f) % RECORDS_MAX {
            any_record(&mut input, &mut records);
            count += 1;
        }
        let place = (sequence, segments.len() as u64, previous);
        let (bytes, checksum) = seal(&records, count, u32::from(shape >> 6 & 1), place);
        segments.last_mut().expect("there is one").extend(bytes);
        previous = checksum;
        sequence = sequence.wrapping_add(1);
        if input.is_empty() {
            break;
        }
    }
    let files = (1..).zip(segments).map(|(number, batches)| {
        let length = SECTOR + batches.len() + 2 * SECTOR;
        let mut file = segment_header(number, length as u64).to_vec();
        file.extend(batches);
        file.resize(length, 0);
        (segment_path(number), file)
    });
    open_twice(&BTreeMap::from_iter(files));
}

/// Mostly small, so that records refer to each other; also the largest.
fn number(input: &mut Cursor<'_>) -> u64 {
    match input.u8() {
        small @ 0..=0xf7 => u64::from(small % 16),
        last @ 0xf8..=0xfb => u64::MAX - u64::from(last % 4),
        _ => input.u64(),
    }
}

fn any_record(input: &mut Cursor<'_>, out: &mut Vec<u8>) {
    let what = input.u8();
    // The upper bits are a record's detail.
    let (kind, detail) = (what & 7, what >> 3);
    if kind == 7 || kind == 0 {
        let (kind, detail) = (input.u8(), input.u8());
        return record(out, kind, detail, &[], input.counted());
    }
    let numbers = [number(input), number(input)];
    let payload = if kind == 1 { input.u8() } else { 0 };
    let detail = if matches!(kind, 2 | 4) { detail } else { 0 };
    record(out, kind, detail, &numbers, &vec![7; usize::from(payload)]);
}

fn record(out: &mut Vec<u8>, kind: u8, detail: u8, numbers: &[u64], payload: &[u8]) {
    let length = u32::try_from(numbers.len() * 8 + payload.len()).expect("inputs are short");
    out.extend_from_slice(&[kind, detail, 0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(payload);
}

/// A batch with its header and its end. Zero as mask: sectors of zeros do not matter here.
fn seal(records: &[u8], count: u32, flags: u32, place: (u64, u64, u32)) -> (Vec<u8>, u32) {
    let (sequence, segment, previous) = place;
    let mut batch = vec![0; 64];
    batch.extend_from_slice(records);
    batch.resize((batch.len() + 8).next_multiple_of(SECTOR), 0);
    let end = batch.len() - 8;
    batch[end..].copy_from_slice(b"QrBatEnd");
    let length = u32::try_from(records.len()).expect("inputs are short");
    let body_checksum = crc32c::crc32c(&batch[64..]);
    batch[0..4].copy_from_slice(b"QrBa");
    batch[4..8].copy_from_slice(&flags.to_le_bytes());
    batch[8..16].copy_from_slice(&sequence.to_le_bytes());
    batch[16..24].copy_from_slice(&segment.to_le_bytes());
    batch[24..28].copy_from_slice(&length.to_le_bytes());
    batch[28..32].copy_from_slice(&count.to_le_bytes());
    batch[40..44].copy_from_slice(&previous.to_le_bytes());
    batch[44..48].copy_from_slice(&body_checksum.to_le_bytes());
    let seed = crc32c::crc32c_append(
        crc32c::crc32c(&IDENTITY.cluster.to_le_bytes()),
        &IDENTITY.server.to_le_bytes(),
    );
    let checksum = crc32c::crc32c_append(seed, &batch[..60]);
    batch[60..64].copy_from_slice(&checksum.to_le_bytes());
    (batch, checksum)
}

/// A snapshot file, found or received. The first byte says which of its checksums are set right
/// first.
pub fn snapshot_file(input: &[u8]) {
    /// Blocks may say that they are larger than any input could be.
    const CONTENTS_MAX: usize = 4 << 20;
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let mut file = rest.to_vec();
    mend(&mut file, *first);

    let disk = MemoryDisk::new();
    disk.plant(&folder().join("snapshot-00000000000000000007.snap"), &file);
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let store = SnapshotStore::open(shared, folder(), IDENTITY.cluster)
        .expect("a folder with any file opens");
    let listed = store.list().expect("a folder can be listed");
    let found = listed.into_iter().next().expect("there is one file");

    let mut receiver = store.receive().expect("there is space");
    receiver.write(&file).expect("there is space");
    let received = receiver.finish().is_ok();

    let Ok(found) = found else {
        assert!(!received, "what cannot be opened must not be received");
        return;
    };
    // What peers and the engine make of it; both may refuse.
    let _ = rmp_serde::from_slice::<StoredMembership>(&found.info().membership);
    let verified = store.verify(&found).is_ok();
    let mut contents = Vec::new();
    let mut reader = found.read().expect("its header was read before");
    let read = reader
        .by_ref()
        .take(CONTENTS_MAX as u64)
        .read_to_end(&mut contents);
    let whole = read.is_ok() && contents.len() < CONTENTS_MAX;
    assert!(!whole || verified, "what reads to its end is whole");
    if contents.len() < CONTENTS_MAX {
        assert_eq!(received, whole, "received and found, it is the same file");
    }
    if whole {
        let _ = State::load(&mut contents.as_slice());
    }
}

/// The first byte's lowest bit asks for the header's checksum to be set right, the next one for all
/// that blocks have.
fn mend(file: &mut [u8], how: u8) {
    let number = |file: &[u8], at: usize| {
        let bytes = file.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let Some(header) = number(file, 12).filter(|length| (52..=file.len()).contains(length)) else {
        return;
    };
    if how & 1 != 0 {
        let checksum = crc32c::crc32c(&file[..header - 4]);
        file[header - 4..header].copy_from_slice(&checksum.to_le_bytes());
    }
    let seed = number(file, header - 4).and_then(|seed| u32::try_from(seed).ok());
    let (Some(seed), true) = (seed, how & 2 != 0) else {
        return;
    };
    let mut start = header;
    for block in 0_u64.. {
        let Some(stored) = number(file, start + 4) else {
            return;
        };
        let Some(bytes) = file.get(start + 16..).and_then(|rest| rest.get(..stored)) else {
            return;
        };
        let checksum = crc32c::crc32c_append(seed, &block.to_le_bytes());
        let checksum = crc32c::crc32c_append(checksum, &file[start..start + 12]);
        let checksum = crc32c::crc32c_append(checksum, bytes);
        file[start + 12..start + 16].copy_from_slice(&checksum.to_le_bytes());
        start += 16 + stored;
    }
}
