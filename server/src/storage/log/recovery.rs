//! Reading the log back at start, and telling a torn write from damage.
//!
//! What is known: a segment is zeroed, and that is durable, before it gets its name. A batch is
//! written only after the sync of the batch before it returned. No sector of a batch is all zeros.
//! So, with `B` the first batch in the chain that is not there or not whole:
//!
//! - A later batch exists (a header with a higher sequence number): `B` was durable once, and may
//!   have been acknowledged. Damage: refuse.
//! - `B`'s header holds, and some sector of `B` or its last byte is all zeros: the write was cut short
//!   and never acknowledged. Torn: cut it off.
//! - `B`'s header holds, every sector has something, and the checksum fails: every sector was
//!   written and one has changed since. Damage: refuse.
//! - Where `B` would begin is all zeros: nothing was written, or a torn write missed its first
//!   sector. Cut off what follows, if anything does.
//! - There, all is zeros from the end of the header's place on: the write ended within the header.
//!   Torn.
//! - Anything else is there: sectors are written whole. Damage: refuse.
//!
//! What this cannot see: the disk loses a whole sector of the very last batch, back to zeros, after
//! having called it durable. That is why the log, once idle, seals itself with an empty batch, and
//! does so when it is closed: from then on the first rule holds for all that was acknowledged.
//!
//! [`read`] changes nothing. [`Recovered::repair`] zeroes what was torn, and writes the last batch
//! once more: should its sync have failed, the page cache may show what the disk does not hold
//! (Rebello et al., ATC 2020). No earlier batch can be in that doubt.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use quorate_state::canary::{Canary, planted};

use super::super::StorageError;
use super::super::data_dir::Identity;
use super::super::file::{Disk, read_exact_at, write_all_at, write_zeros};
use super::entry::{
    BATCH_HEADER, BatchHeader, Record, Records, SECTOR, checksum_seed, is_incomplete,
    is_incomplete_header, is_zero,
};
use super::segment::{self, SEGMENT_HEADER, Segment};
use super::view::{Run, View};

/// What the segments hold, and where the next batch goes.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) view: View,
    /// All segments with batches, by sequence.
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// Where in the last of them the next batch goes.
    pub(crate) offset: u64,
    pub(crate) next_sequence: u64,
    pub(crate) previous: u32,
    /// Whether the last batch is a seal.
    pub(crate) sealed: bool,
    /// Bytes of a torn write in the last segment.
    torn: Option<Range<u64>>,
    /// The last batch.
    last_batch: Option<(u64, Vec<u8>)>,
    /// Files that hold nothing of the log: before a gap of purged segments, or without a batch.
    /// In the order in which to remove them.
    useless: Vec<PathBuf>,
}

/// The walk along the chain of batches.
struct Walk {
    seed: u32,
    view: View,
    /// `(sequence, previous)` of the batch that comes next; `None` before the first.
    expected: Option<(u64, u32)>,
    /// Entries up to this index are said to be in segments that are no longer there.
    missing_upto: Option<u64>,
    last_batch: Option<LastBatch>,
    /// Where the chain stopped: see [`Stop`].
    stop: Option<Stop>,
}

struct LastBatch {
    segment: u64,
    offset: u64,
    bytes: Vec<u8>,
    sealed: bool,
}

/// Where the next batch is not.
struct Stop {
    path: PathBuf,
    segment: u64,
    offset: u64,
    found: Found,
}

enum Found {
    /// Zeros, up to this offset; there, something again.
    Zeros { upto: Option<u64>, end: u64 },
    /// A header that fits, and a body that does not; the bytes it covers.
    BadBody {
        covered: Range<u64>,
        is_incomplete: bool,
    },
    /// A batch that does not continue the chain.
    OutOfTurn,
    /// Something that cannot be.
    Nonsense(&'static str),
}

const OUT_OF_TURN: &str = "a batch does not continue the one before it";

/// Reads all segments in `folder`. `None` if there is no batch at all.
pub(crate) fn read(
    disk: &dyn Disk,
    folder: &Path,
    identity: Identity,
) -> Result<Option<Recovered>, StorageError> {
    let names = disk
        .list(folder)
        .map_err(StorageError::during("list", folder))?;
    let mut sequences: Vec<u64> = names
        .iter()
        .filter_map(|name| segment::parse_name(name))
        .collect();
    sequences.sort_unstable();
    let mut found = Vec::new();
    for sequence in sequences {
        let path = folder.join(segment::name(sequence));
        found.push(segment::open(disk, path, sequence, identity)?);
    }
    // Only what follows the last gap can be the log. Segments before it are what a crash left of a
    // purge, or else some are missing: `check_start` tells.
    let gap = found
        .windows(2)
        .rposition(|pair| pair[0].sequence + 1 != pair[1].sequence);
    let log = found.split_off(gap.map_or(0, |gap| gap + 1));
    let mut useless: Vec<PathBuf> = found.into_iter().map(|segment| segment.path).collect();

    let mut walk = Walk::new(identity);
    let mut contents = Vec::new();
    for segment in &log {
        read_contents(segment, &mut contents)?;
        walk.segment(segment, &contents)?;
    }
    let Some(last) = walk.last_batch.take() else {
        return if useless.is_empty() {
            walk.check_stop(0)?;
            Ok(None)
        } else {
            Err(walk.missing(folder, &log))
        };
    };
    let torn = walk.check_stop(last.segment)?;
    if walk.missing_upto > walk.view.purged.map(|purged| purged.index) {
        return Err(walk.missing(folder, &log));
    }
    let mut segments = BTreeMap::new();
    // The highest first: at no moment may a gap show.
    for segment in log.into_iter().rev() {
        if segment.sequence > last.segment {
            useless.push(segment.path);
        } else {
            segments.insert(segment.sequence, segment);
        }
    }
    let (next_sequence, previous) = walk.expected.unwrap_or_default();
    let mut view = walk.view;
    // A leader may commit on its followers' disks before its own holds the entry.
    if view.committed > view.last {
        view.committed = view.last;
    }
    Ok(Some(Recovered {
        view,
        segments,
        offset: last.offset + last.bytes.len() as u64,
        next_sequence,
        previous,
        sealed: last.sealed,
        torn,
        last_batch: Some((last.offset, last.bytes)),
        useless,
    }))
}

/// Whether a segment is as [`Log::create`](super::Log::create) leaves it, or a spare one.
pub(crate) fn holds_nothing(
    disk: &dyn Disk,
    path: &Path,
    sequence: u64,
) -> Result<bool, StorageError> {
    let failed = |operation| StorageError::during(operation, path);
    let file = disk.open(path).map_err(failed("open"))?;
    let length = file.length().map_err(failed("read"))?;
    let mut contents = vec![0; usize::try_from(length).unwrap_or(0)];
    read_exact_at(&*file, &mut contents, 0).map_err(failed("read"))?;
    let first_seal = if sequence == 1 { SECTOR } else { 0 };
    let from = (sector_size(SEGMENT_HEADER) + first_seal).min(contents.len());
    Ok(is_zero(&contents[from..]))
}

fn read_contents(segment: &Segment, contents: &mut Vec<u8>) -> Result<(), StorageError> {
    let length = usize::try_from(segment.length).map_err(|_| {
        StorageError::damaged(
            &segment.path,
            40,
            "the length is beyond this machine's memory",
        )
    })?;
    contents.resize(length, 0);
    read_exact_at(&*segment.file, contents, 0).map_err(StorageError::during("read", &segment.path))
}

impl Walk {
    fn new(identity: Identity) -> Walk {
        Walk {
            seed: checksum_seed(identity.cluster, identity.server),
            view: View::default(),
            expected: None,
            missing_upto: None,
            last_batch: None,
            stop: None,
        }
    }

    /// Walks through one segment. If the chain had stopped before, this one may continue it.
    fn segment(&mut self, segment: &Segment, contents: &[u8]) -> Result<(), StorageError> {
        let mut offset = sector_size(SEGMENT_HEADER);
        let mut bad = None;
        while offset < contents.len() {
            match self.batch_at(segment, contents, offset) {
                Ok(Some((header, records))) => {
                    // Nothing is missing in between, so nothing before matters any more.
                    self.stop = None;
                    offset = self.take(segment, contents, offset, &header, records)?;
                }
                Ok(None) => break,
                Err(found) => {
                    bad = Some(found);
                    break;
                }
            }
        }
        let found = match bad {
            Some(found) => found,
            None => zeros_from(contents, offset),
        };
        self.check_nothing_later(segment, contents, offset, &found)?;
        let Some(stop) = &self.stop else {
            let path = segment.path.clone();
            let (segment, offset) = (segment.sequence, offset as u64);
            self.stop = Some(Stop {
                path,
                segment,
                offset,
                found,
            });
            return Ok(());
        };
        // The chain stopped in an earlier segment and does not go on here either. A torn write may
        // be in one of the two, as a write that did not fit went to the next segment.
        match (&stop.found, &found) {
            (_, Found::Zeros { upto: None, .. }) => Ok(()),
            (Found::Zeros { upto: None, .. }, _) => {
                let path = segment.path.clone();
                let (segment, offset) = (segment.sequence, offset as u64);
                self.stop = Some(Stop {
                    path,
                    segment,
                    offset,
                    found,
                });
                Ok(())
            }
            _ => Err(self.damaged_at_stop()),
        }
    }

    /// The batch that comes next, if it is here; `Ok(None)` if nothing or not even its header is.
    fn batch_at(
        &self,
        segment: &Segment,
        contents: &[u8],
        offset: usize,
    ) -> Result<Option<(BatchHeader, Records)>, Found> {
        let first_sector = &contents[offset..(offset + SECTOR).min(contents.len())];
        let Some(header) = BatchHeader::decode(first_sector, self.seed) else {
            return if is_zero(first_sector) || is_incomplete_header(first_sector) {
                Ok(None)
            } else {
                Err(Found::Nonsense("there is neither a batch nor free space"))
            };
        };
        let end = offset + header.length_on_disk();
        if header.segment != segment.sequence || end > contents.len() {
            return Err(Found::Nonsense("a batch belongs elsewhere"));
        }
        match self.expected {
            Some(expected) if expected != (header.sequence, header.previous) => {
                Err(Found::OutOfTurn)
            }
            _ => match header.records(contents[offset..end].to_vec()) {
                Some(records) => Ok(Some((header, records))),
                None => {
                    let is_incomplete = is_incomplete(&contents[offset..end]);
                    let covered = offset as u64..end as u64;
                    Err(Found::BadBody {
                        covered,
                        is_incomplete,
                    })
                }
            },
        }
    }

    /// Replays a batch; returns where it ends.
    fn take(
        &mut self,
        segment: &Segment,
        contents: &[u8],
        offset: usize,
        header: &BatchHeader,
        records: Records,
    ) -> Result<usize, StorageError> {
        let end = offset + header.length_on_disk();
        let bytes = contents[offset..end].to_vec();
        let damaged = |what: &str| StorageError::damaged(&segment.path, offset as u64, what);
        let mut entries: Option<(u64, u64)> = None;
        let mut truncates = false;
        let first_in_segment = offset as u64 == SEGMENT_HEADER;
        for (number, record) in records.enumerate() {
            let record = record.map_err(|_| damaged("a batch has a record that makes no sense"))?;
            if first_in_segment && number == 0 && !matches!(record, Record::Checkpoint(_)) {
                return Err(damaged("a segment does not begin with its checkpoint"));
            }
            match record {
                Record::Entry(entry) => {
                    self.view
                        .check_next(entry.id.index)
                        .map_err(|_| damaged("a gap"))?;
                    let first = entries.map_or(entry.id.index, |(first, _)| first);
                    entries = Some((first, entry.id.index));
                    self.view.push(entry);
                }
                Record::Vote(_) if self.view.vote.is_some() && planted(Canary::VoteRolledBack) => {}
                Record::Vote(vote) => self.view.vote = Some(vote),
                Record::Committed(id) => self.view.committed = Some(id),
                Record::Truncate(last) => {
                    truncates = true;
                    if entries.is_some() {
                        return Err(damaged("a truncation follows entries in one batch"));
                    }
                    if !self.view.may_truncate(last) {
                        return Err(damaged("a truncation to where the log does not reach"));
                    }
                    let next = last.map_or(0, |last| last.index + 1);
                    self.missing_upto = match next.checked_sub(1) {
                        Some(last) => self.missing_upto.map(|missing| missing.min(last)),
                        None => None,
                    };
                    self.view.truncate(last);
                    // The record knows better where entries are missing that will turn out purged.
                    self.view.last = last;
                }
                Record::Purge(id) => {
                    self.view.purge(id);
                }
                Record::Checkpoint(checkpoint) if self.last_batch.is_none() => {
                    self.view = View::from_checkpoint(&checkpoint);
                    if !self.view.is_possible() {
                        return Err(damaged("a checkpoint ends before what was purged"));
                    }
                    self.missing_upto = (checkpoint.last != checkpoint.purged)
                        .then_some(checkpoint.last)
                        .flatten()
                        .map(|last| last.index);
                }
                Record::Checkpoint(mut checkpoint) => {
                    self.view.committed = checkpoint.committed;
                    checkpoint.committed = None;
                    let mut replayed = self.view.checkpoint();
                    replayed.committed = None;
                    if checkpoint != replayed {
                        return Err(damaged("a checkpoint contradicts the records before it"));
                    }
                }
            }
        }
        if let Some((first, last)) = entries {
            let run = Run {
                first,
                last,
                segment: segment.sequence,
                offset: offset as u64,
                length: (end - offset) as u64,
            };
            self.view.add_run(run, u64::MAX, !truncates);
        }
        let next = header.sequence.checked_add(1);
        let next = next.ok_or_else(|| damaged("a batch has a number that is never reached"))?;
        self.expected = Some((next, header.checksum));
        self.last_batch = Some(LastBatch {
            segment: segment.sequence,
            offset: offset as u64,
            bytes,
            sealed: header.seal,
        });
        Ok(end)
    }

    /// A header with a higher sequence number proves that what should be here was durable.
    fn check_nothing_later(
        &self,
        segment: &Segment,
        contents: &[u8],
        offset: usize,
        found: &Found,
    ) -> Result<(), StorageError> {
        let expected = self.expected.map_or(0, |(sequence, _)| sequence);
        let later = contents[offset.min(contents.len())..]
            .chunks(SECTOR)
            .any(|sector| {
                BatchHeader::decode(sector, self.seed).is_some_and(|header| {
                    header.segment == segment.sequence
                        && (header.sequence > expected || self.expected.is_none())
                })
            });
        if !later {
            return Ok(());
        }
        let before = self.stop.as_ref().map(|stop| &stop.found);
        match (before, found) {
            // The segment before ends well, and the next batch, which is to be here, is not one. If
            // there is a whole one that comes later in the chain, the missing one was there.
            (None, _)
            | (
                Some(Found::Zeros { upto: None, .. }),
                Found::Zeros { .. } | Found::BadBody { .. } | Found::Nonsense(_),
            ) => {
                let what = "a batch is missing or changed, and later ones exist";
                Err(StorageError::damaged(&segment.path, offset as u64, what))
            }
            _ => Err(self.damaged_at_stop()),
        }
    }

    fn damaged_at_stop(&self) -> StorageError {
        let what = "the log does not go on here, but does later";
        match &self.stop {
            Some(stop) => StorageError::damaged(&stop.path, stop.offset, what),
            None => StorageError::damaged(Path::new("log"), 0, what),
        }
    }

    /// Judges the place where the chain ends. Returns what to zero in the last segment.
    fn check_stop(&self, last_segment: u64) -> Result<Option<Range<u64>>, StorageError> {
        let Some(stop) = &self.stop else {
            return Ok(None);
        };
        let damaged = |what: &str| Err(StorageError::damaged(&stop.path, stop.offset, what));
        let torn = match &stop.found {
            Found::Zeros { upto: None, .. } => None,
            Found::Zeros {
                upto: Some(from),
                end,
            } => Some(*from..*end),
            Found::BadBody {
                covered,
                is_incomplete: true,
            } => Some(covered.clone()),
            Found::BadBody { covered, .. } if planted(Canary::DamageCutOff) => {
                Some(covered.clone())
            }
            Found::BadBody { .. } => {
                return damaged("a batch was written whole and has changed since");
            }
            Found::OutOfTurn => return damaged(OUT_OF_TURN),
            Found::Nonsense(what) => return damaged(what),
        };
        // A torn first batch of a segment goes together with that segment.
        Ok(torn.filter(|_| stop.segment == last_segment))
    }

    fn missing(&self, folder: &Path, log: &[Segment]) -> StorageError {
        let first = log.first().map_or(0, |segment| segment.sequence);
        let what = match self.missing_upto {
            Some(upto) => format!("it held entries up to {upto} that were not purged"),
            None => "there are segments before and after it".to_owned(),
        };
        StorageError::Missing {
            path: folder.join(segment::name(first.saturating_sub(1))),
            what,
        }
    }
}

impl Recovered {
    /// Brings the disk to what [`read`] found, so that new batches can follow.
    ///
    /// A power cut in the middle of it must not look like damage. So a torn batch loses its header last,
    /// and by itself: what is left of it on the way shows, as before, that its write never finished.
    pub(crate) fn repair(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), StorageError> {
        if let Some(active) = self.segments.values().next_back() {
            let failed = |operation| StorageError::during(operation, &active.path);
            let zero = |from, to| -> Result<(), StorageError> {
                write_zeros(&*active.file, from, to).map_err(failed("write"))?;
                active.file.sync_data().map_err(failed("sync"))
            };
            if let Some(torn) = &self.torn {
                let header_end = torn.start + BATCH_HEADER as u64;
                zero(header_end, torn.end)?;
                zero(torn.start, header_end)?;
            }
            // Seals as well: the sync of one may have failed, or never returned, and what is read now
            // may be in memory only. What follows it must not outlive it.
            if let Some((offset, bytes)) = self.last_batch.take()
                && !planted(Canary::LastBatchNotRewritten)
            {
                write_all_at(&*active.file, &bytes, offset).map_err(failed("write"))?;
                active.file.sync_data().map_err(failed("sync"))?;
            }
        }
        if planted(Canary::StaleSegmentsLeft) {
            self.useless.clear();
        }
        for path in std::mem::take(&mut self.useless) {
            segment::remove_if_there(disk, &path)?;
            disk.sync_folder(folder)
                .map_err(StorageError::during("sync", folder))?;
        }
        Ok(())
    }

    /// The bytes of a write that never finished, in the last segment.
    pub(crate) fn torn(&self) -> Option<Range<u64>> {
        self.torn.clone()
    }

    /// The files that [`Recovered::repair`] removes.
    pub(crate) fn useless(&self) -> &[PathBuf] {
        &self.useless
    }

    /// How many bytes of a write that never finished were cut off.
    pub(crate) fn torn_bytes(&self) -> u64 {
        self.torn.as_ref().map_or(0, |torn| torn.end - torn.start)
    }
}

/// Where, after `offset`, something begins and where it ends, by sectors.
fn zeros_from(contents: &[u8], offset: usize) -> Found {
    let rest = &contents[offset.min(contents.len())..];
    let first = rest.chunks(SECTOR).position(|sector| !is_zero(sector));
    let end = rest.chunks(SECTOR).rposition(|sector| !is_zero(sector));
    Found::Zeros {
        upto: first.map(|sector| (offset + sector * SECTOR) as u64),
        end: end.map_or(0, |sector| {
            (offset + (sector + 1) * SECTOR).min(contents.len()) as u64
        }),
    }
}

/// Header sizes fit.
fn sector_size(length: u64) -> usize {
    usize::try_from(length).expect("a header is shorter than the address space")
}
