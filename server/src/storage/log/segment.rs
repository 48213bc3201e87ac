//! Segment files: how they are named, prepared and recognised.
//!
//! A segment is `<sequence, 16 hex digits>.log`. Its first sector says what it is; batches follow.
//! It gets its name only once it is filled with zeros, has its header, and all that is durable; the
//! name is durable before the first batch is written. So a segment is never shorter than its header
//! says, unless damaged, and what reads as zeros in it was never written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_state::canary::{Canary, planted};

use super::super::StorageError;
use super::super::data_dir::Identity;
use super::super::file::{Disk, File, read_exact_at, write_all_at, write_zeros};
use super::entry::{SECTOR, u32_at, u64_at};

/// The newest format this program reads, and the one it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes before the first batch.
pub(crate) const SEGMENT_HEADER: u64 = SECTOR as u64;
/// The name of a segment that is being prepared.
pub(crate) const PREPARING: &str = "segment.tmp";

/// The magic number, and in every format version the place of the checksum.
const MAGIC: &[u8; 8] = b"QuorLog\n";
const CHECKSUM_AT: usize = SECTOR - 4;
/// Most bytes zeroed between two syncs, so that preparing does not hold up the log's own syncs for
/// long.
const ZEROED_PER_SYNC: u64 = 8 << 20;

/// An open segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    pub(crate) length: u64,
}

/// The file name of a segment.
pub(crate) fn name(sequence: u64) -> String {
    format!("{sequence:016x}.log")
}

/// The sequence number in a file name; `None` for other files.
pub(crate) fn parse_name(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".log")?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (name(sequence) == file_name).then_some(sequence)
}

/// A segment on its way to its first batch: see the module's header. Slow; not for the writer.
pub(crate) struct Draft {
    segment: Segment,
    folder: PathBuf,
    temporary: PathBuf,
    zeroed: u64,
}

impl Draft {
    /// Begins with a file that has its length and its header. Nothing is left of one that fails for
    /// lack of space.
    pub(crate) fn begin(
        disk: &dyn Disk,
        folder: &Path,
        identity: Identity,
        sequence: u64,
        length: u64,
    ) -> Result<Draft, StorageError> {
        let temporary = folder.join(PREPARING);
        remove_if_there(disk, &temporary)?;
        let failed = |operation| StorageError::during(operation, &temporary);
        let file = disk.create(&temporary).map_err(failed("create"))?;
        let draft = Draft {
            segment: Segment {
                sequence,
                path: folder.join(name(sequence)),
                file,
                length,
            },
            folder: folder.to_owned(),
            temporary,
            zeroed: SEGMENT_HEADER,
        };
        let header = encode_header(identity, sequence, length);
        let file = &draft.segment.file;
        let begun = file
            .allocate(length)
            .map_err(draft.failed("reserve space for"))
            .and_then(|()| write_all_at(&**file, &header, 0).map_err(draft.failed("write")));
        draft.or_abandon(disk, begun)?;
        Ok(draft)
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(std::io::Error) -> StorageError {
        StorageError::during(operation, &self.temporary)
    }

    /// Up to where it holds zeros, or its header.
    pub(crate) fn zeroed(&self) -> u64 {
        self.zeroed
    }

    pub(crate) fn is_zeroed(&self) -> bool {
        self.zeroed >= self.segment.length
    }

    /// Zeroes it up to `to`, with a sync now and then.
    pub(crate) fn zero(&mut self, disk: &dyn Disk, to: u64) -> Result<(), StorageError> {
        let to = to.min(self.segment.length);
        while self.zeroed < to {
            let next = to.min(self.zeroed + ZEROED_PER_SYNC);
            let file = &*self.segment.file;
            let mut zeroed = write_zeros(file, self.zeroed, next).map_err(self.failed("write"));
            if zeroed.is_ok() && next < self.segment.length {
                zeroed = file.sync_data().map_err(self.failed("sync"));
            }
            self.or_abandon(disk, zeroed)?;
            self.zeroed = next;
        }
        Ok(())
    }

    /// Makes it durable, under its name.
    pub(crate) fn finish(self, disk: &dyn Disk) -> Result<Segment, StorageError> {
        let synced = self.segment.file.sync_all().map_err(self.failed("sync"));
        self.or_abandon(disk, synced)?;
        disk.rename(&self.temporary, &self.segment.path)
            .map_err(self.failed("rename"))?;
        if !planted(Canary::SegmentNameNotSynced) {
            disk.sync_folder(&self.folder)
                .map_err(StorageError::during("sync", &self.folder))?;
        }
        Ok(self.segment)
    }

    /// Gives back the space it takes.
    pub(crate) fn abandon(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        remove_if_there(disk, &self.temporary)
    }

    fn or_abandon(
        &self,
        disk: &dyn Disk,
        result: Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if result.as_ref().is_err_and(StorageError::is_no_space) {
            self.abandon(disk)?;
        }
        result
    }
}

/// Removes a file, if it exists.
pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    match disk.remove(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StorageError::io("remove", path, error)),
    }
}

/// Opens a segment and checks that it is whole, ours and in a known format.
pub(crate) fn open(
    disk: &dyn Disk,
    path: PathBuf,
    sequence: u64,
    identity: Identity,
) -> Result<Segment, StorageError> {
    let failed = |operation| StorageError::during(operation, &path);
    let file = disk.open(&path).map_err(failed("open"))?;
    let actual = file.length().map_err(failed("read"))?;
    if actual < SEGMENT_HEADER {
        return Err(StorageError::damaged(
            &path,
            actual,
            "the file ends inside its header",
        ));
    }
    let mut header = [0; SECTOR];
    read_exact_at(&*file, &mut header, 0).map_err(failed("read"))?;
    let length = check_header(&header, &path, sequence, identity)?;
    if actual != length {
        let what = format!("the file is {actual} bytes long, but was made with {length}");
        return Err(StorageError::damaged(&path, actual.min(length), what));
    }
    Ok(Segment {
        sequence,
        path,
        file,
        length,
    })
}

fn encode_header(identity: Identity, sequence: u64, length: u64) -> [u8; SECTOR] {
    let mut header = [0; SECTOR];
    header[0..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&identity.cluster.to_le_bytes());
    header[24..32].copy_from_slice(&identity.server.to_le_bytes());
    header[32..40].copy_from_slice(&sequence.to_le_bytes());
    header[40..48].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..CHECKSUM_AT]);
    header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The checksum is looked at first: a flipped bit must not pass for a later format.
fn check_header(
    header: &[u8; SECTOR],
    path: &Path,
    sequence: u64,
    identity: Identity,
) -> Result<u64, StorageError> {
    if &header[0..8] != MAGIC
        || crc32c::crc32c(&header[..CHECKSUM_AT]) != u32_at(header, CHECKSUM_AT)
    {
        return Err(StorageError::damaged(
            path,
            0,
            "the header is not one of a log segment",
        ));
    }
    let found = u32_at(header, 8);
    if found > FORMAT_VERSION {
        let path = path.to_owned();
        return Err(StorageError::NewerFormat {
            path,
            found,
            supported: FORMAT_VERSION,
        });
    }
    identity.check(path, u64_at(header, 16), u64_at(header, 24))?;
    if u64_at(header, 32) != sequence {
        let what = format!(
            "it is segment {:016x} under a wrong name",
            u64_at(header, 32)
        );
        return Err(StorageError::damaged(path, 32, what));
    }
    Ok(u64_at(header, 40))
}
