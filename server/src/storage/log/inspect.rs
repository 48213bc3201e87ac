//! Looking at a log without opening it: for tools that run while the server does not.
//!
//! [`scan`] goes through the segments record by record and past whatever is damaged, to say all that
//! is wrong; [`outlook`] says what a start would find and do, by the very code of a start. Neither
//! changes anything, and nothing here is used by a server that runs.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::StorageError;
use super::super::data_dir::Identity;
use super::super::file::{Disk, read_exact_at};
use super::entry::{BatchHeader, Record, SECTOR, checksum_seed, is_zero};
use super::segment::{self, SEGMENT_HEADER, Segment};
use super::{EntryId, LogEntry, LogState, SavedVote, recovery};

/// One record of the log, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An entry.
    Entry(LogEntry),
    /// A vote.
    Vote(SavedVote),
    /// All up to this entry was known to be committed.
    Committed(EntryId),
    /// All entries after this one were dropped; all there were, if `None`.
    Truncated(Option<EntryId>),
    /// All entries up to this one were dropped.
    Purged(EntryId),
    /// The state so far, repeated at the beginning of a segment.
    Repeated(LogState),
}

/// A batch whose checksums hold: one write and one sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The segment it is in.
    pub path: PathBuf,
    /// Where it begins.
    pub offset: u64,
    /// Its number in the log.
    pub sequence: u64,
    /// Bytes on disk.
    pub length: u64,
    /// Whether it says that nothing came after it for a while.
    pub is_seal: bool,
    /// What it holds.
    pub items: Vec<Item>,
}

/// One segment, as far as it can be read.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub length: u64,
    /// How many batches are whole.
    pub batches: u64,
    /// How many entries they have.
    pub entries: u64,
    /// The first and the last index among these.
    pub indexes: Option<(u64, u64)>,
    /// Everything that is wrong.
    pub damage: Vec<StorageError>,
}

/// Goes through all segments in order, and calls `visit` with each batch that is whole.
///
/// # Errors
///
/// The folder cannot be read. Damage is no error here.
pub fn scan(
    disk: &dyn Disk,
    folder: &Path,
    identity: Identity,
    mut visit: impl FnMut(&Batch),
) -> Result<Vec<Scanned>, StorageError> {
    let mut chain = None;
    let mut scanned: Vec<Scanned> = Vec::new();
    for sequence in sequences(disk, folder)? {
        let path = folder.join(segment::name(sequence));
        let mut result = Scanned {
            path: path.clone(),
            length: 0,
            batches: 0,
            entries: 0,
            indexes: None,
            damage: Vec::new(),
        };
        match segment::open(disk, path, sequence, identity) {
            Ok(segment) => {
                result.length = segment.length;
                let contents = contents(&segment)?;
                Scan {
                    segment: &segment,
                    contents: &contents,
                    seed: checksum_seed(identity.cluster, identity.server),
                    result: &mut result,
                    chain: &mut chain,
                }
                .run(&mut visit);
            }
            Err(error) => {
                chain = None;
                result.damage.push(error);
            }
        }
        scanned.push(result);
    }
    Ok(scanned)
}

/// What a start would find.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// Where the log begins and ends.
    pub state: LogState,
    /// All entries kept.
    pub entries: Vec<LogEntry>,
    /// What would be cut off: a write that never finished.
    pub torn: Option<(PathBuf, Range<u64>)>,
    /// Segments that would be removed: nothing in them counts.
    pub useless: Vec<PathBuf>,
    /// Whether the log was closed, or had fallen idle.
    pub is_sealed: bool,
}

/// Finds out what a start would find. `None`: there is no log.
///
/// # Errors
///
/// Those of a start: damage, first of all.
pub fn outlook(
    disk: &dyn Disk,
    folder: &Path,
    identity: Identity,
) -> Result<Option<Outlook>, StorageError> {
    let Some(recovered) = recovery::read(disk, folder, identity)? else {
        return Ok(None);
    };
    let view = &recovered.view;
    let state = LogState {
        purged: view.purged,
        last: view.last,
        vote: view.vote,
        committed: view.committed,
    };
    let active = recovered.segments.values().next_back();
    let torn = active
        .zip(recovered.torn())
        .map(|(active, torn)| (active.path.clone(), torn));
    Ok(Some(Outlook {
        state,
        // Recovery keeps all of them in memory.
        entries: view.plan(0, u64::MAX, usize::MAX).cached,
        torn,
        useless: recovered.useless().to_vec(),
        is_sealed: recovered.sealed,
    }))
}

/// The first segment that holds something, in a folder that has no identity.
///
/// # Errors
///
/// The folder cannot be read.
pub fn first_with_contents(
    disk: &dyn Disk,
    folder: &Path,
) -> Result<Option<PathBuf>, StorageError> {
    for sequence in sequences(disk, folder)? {
        let path = folder.join(segment::name(sequence));
        if !recovery::holds_nothing(disk, &path, sequence)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn sequences(disk: &dyn Disk, folder: &Path) -> Result<Vec<u64>, StorageError> {
    let names = disk
        .list(folder)
        .map_err(StorageError::during("list", folder))?;
    let mut sequences: Vec<u64> = names
        .iter()
        .filter_map(|name| segment::parse_name(name))
        .collect();
    sequences.sort_unstable();
    Ok(sequences)
}

fn contents(segment: &Segment) -> Result<Vec<u8>, StorageError> {
    let length = usize::try_from(segment.length).map_err(|_| {
        StorageError::damaged(&segment.path, 40, "it is longer than this machine's memory")
    })?;
    let mut contents = vec![0; length];
    read_exact_at(&*segment.file, &mut contents, 0)
        .map_err(StorageError::during("read", &segment.path))?;
    Ok(contents)
}

/// The walk through one segment.
struct Scan<'a> {
    segment: &'a Segment,
    contents: &'a [u8],
    seed: u32,
    result: &'a mut Scanned,
    /// Number and predecessor of the batch that comes next, unless damage is in between.
    chain: &'a mut Option<(u64, u32)>,
}

impl Scan<'_> {
    fn run(&mut self, visit: &mut impl FnMut(&Batch)) {
        let mut offset = usize::try_from(SEGMENT_HEADER).unwrap_or(SECTOR);
        while offset < self.contents.len() {
            match BatchHeader::decode(&self.contents[offset..], self.seed) {
                Some(header) => offset = self.batch(offset, &header, visit),
                None => offset = self.no_batch(offset),
            }
        }
    }

    /// Returns where to go on.
    fn batch(
        &mut self,
        offset: usize,
        header: &BatchHeader,
        visit: &mut impl FnMut(&Batch),
    ) -> usize {
        let end = offset.saturating_add(header.length_on_disk());
        let bytes = self.contents.get(offset..end);
        let Some(bytes) = bytes.filter(|_| header.segment == self.segment.sequence) else {
            self.damage(offset, "a batch belongs elsewhere");
            *self.chain = None;
            return offset + SECTOR;
        };
        let Some(records) = header.records(bytes.to_vec()) else {
            self.damage(offset, "a batch's checksum does not hold");
            *self.chain = None;
            return offset + SECTOR;
        };
        if self
            .chain
            .is_some_and(|expected| expected != (header.sequence, header.previous))
        {
            self.damage(offset, "a batch does not continue the one before it");
        }
        *self.chain = Some((header.sequence.saturating_add(1), header.checksum));
        let mut items = Vec::new();
        for record in records {
            match record {
                Ok(record) => items.push(self.item(record)),
                Err(_) => self.damage(offset, "a batch has a record that makes no sense"),
            }
        }
        self.result.batches += 1;
        visit(&Batch {
            path: self.segment.path.clone(),
            offset: offset as u64,
            sequence: header.sequence,
            length: (end - offset) as u64,
            is_seal: header.seal,
            items,
        });
        end
    }

    fn item(&mut self, record: Record) -> Item {
        match record {
            Record::Entry(entry) => {
                let index = entry.id.index;
                let first = self.result.indexes.map_or(index, |(first, _)| first);
                self.result.entries += 1;
                self.result.indexes = Some((first, index));
                Item::Entry(entry)
            }
            Record::Vote(vote) => Item::Vote(vote),
            Record::Committed(id) => Item::Committed(id),
            Record::Truncate(last) => Item::Truncated(last),
            Record::Purge(id) => Item::Purged(id),
            Record::Checkpoint(checkpoint) => Item::Repeated(LogState {
                purged: checkpoint.purged,
                last: checkpoint.last,
                vote: checkpoint.vote,
                committed: checkpoint.committed,
            }),
        }
    }

    /// Passes over free space; anything else there is damage, reported once for each stretch.
    fn no_batch(&mut self, offset: usize) -> usize {
        let sectors = self.contents[offset..].chunks(SECTOR).enumerate();
        let mut wrong = None;
        for (number, sector) in sectors {
            let at = offset + number * SECTOR;
            if BatchHeader::decode(sector, self.seed).is_some() {
                self.stretch(wrong);
                self.damage(offset, "the log does not go on here, but does later");
                *self.chain = None;
                return at;
            }
            if wrong.is_none() && !is_zero(sector) {
                wrong = Some(at);
            }
        }
        self.stretch(wrong);
        self.contents.len()
    }

    fn stretch(&mut self, wrong: Option<usize>) {
        if let Some(at) = wrong {
            self.damage(at, "there is neither a batch nor free space");
        }
    }

    fn damage(&mut self, offset: usize, what: &str) {
        let error = StorageError::damaged(&self.segment.path, offset as u64, what);
        self.result.damage.push(error);
    }
}
