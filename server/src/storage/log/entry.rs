//! What the log writes: records, gathered in batches. One batch is one write and one sync.
//!
//! All numbers little-endian. A batch starts at a multiple of 512 bytes and fills whole sectors:
//!
//! ```text
//! magic u32 | flags u32 | sequence u64 | segment u64 | length u32 | records u32 | mask u64
//! previous u32 | body checksum u32 | zero x 12 | header checksum u32     (64 bytes)
//! records (`length` bytes), zeros                                        (xor mask, repeated)
//! end mark u64, the last bytes of the last sector
//! ```
//!
//! `sequence` counts batches without a gap over the whole log; `previous` is the header checksum of
//! the batch before, so batches form a chain. Both checksums are CRC32C; the header's starts from
//! ensemble and server id, the body's covers the masked bytes up to the end of the last sector.
//! The mask is chosen so that every sector of a batch has at least two bits set: a sector of zeros
//! inside a batch was never written, and no single flipped bit can make it look so. Likewise a zero in
//! place of the end mark's last byte: the write ended before.
//!
//! Record: `kind u8 | detail u8 | zero u16 | length u32 | body`. Unknown kinds are damage: a new
//! kind is a new format version.

use bytes::Bytes;
use quorate_state::canary::{Canary, planted};

/// What disks write whole or not at all, and the unit of recovery.
pub(crate) const SECTOR: usize = 512;
/// Bytes before the first record of a batch.
pub(crate) const BATCH_HEADER: usize = 64;
/// Bytes that an entry takes in a batch beside its payload: record header, term, index.
pub(crate) const ENTRY_OVERHEAD: usize = RECORD_HEADER + 16;

const RECORD_HEADER: usize = 8;
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"QrBa");
const END_MARK: [u8; 8] = *b"QrBatEnd";
/// Flag of the batch that a graceful close leaves, and of one written when the log falls idle.
const FLAG_SEAL: u32 = 1;

const KIND_ENTRY: u8 = 1;
const KIND_VOTE: u8 = 2;
const KIND_COMMITTED: u8 = 3;
const KIND_TRUNCATE: u8 = 4;
const KIND_PURGE: u8 = 5;
const KIND_STATE: u8 = 6;

/// Which entry: the term of the leader that made it, and its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Term of the leader.
    pub term: u64,
    /// Place in the log.
    pub index: u64,
}

/// One entry. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Which entry.
    pub id: EntryId,
    /// What the payload is; means nothing here.
    pub kind: u8,
    /// The contents; mean nothing here.
    pub payload: Bytes,
}

/// Whom this server voted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedVote {
    /// The term.
    pub term: u64,
    /// The candidate.
    pub server: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// What the records before a segment add up to, so that those segments can go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) vote: Option<SavedVote>,
    pub(crate) committed: Option<EntryId>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) last: Option<EntryId>,
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Entry(LogEntry),
    Vote(SavedVote),
    Committed(EntryId),
    /// The entry that is the last one from here on; `None` leaves no entry.
    Truncate(Option<EntryId>),
    Purge(EntryId),
    Checkpoint(Checkpoint),
}

/// Where a batch stands; part of its header, so that a batch in a wrong place is not taken for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Derived from ensemble and server: see [`checksum_seed`].
    pub(crate) seed: u32,
    pub(crate) segment: u64,
    pub(crate) sequence: u64,
    pub(crate) previous: u32,
}

/// A batch header whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) seal: bool,
    pub(crate) sequence: u64,
    pub(crate) segment: u64,
    /// Bytes of records.
    pub(crate) length: u32,
    pub(crate) records: u32,
    pub(crate) mask: u64,
    pub(crate) previous: u32,
    pub(crate) body_checksum: u32,
    /// The header's own checksum: the next batch's `previous`.
    pub(crate) checksum: u32,
}

/// What header checksums start from: bytes of another server's log never pass for ours.
pub(crate) fn checksum_seed(cluster: u64, server: u64) -> u32 {
    crc32c::crc32c_append(
        crc32c::crc32c(&cluster.to_le_bytes()),
        &server.to_le_bytes(),
    )
}

/// A batch under construction. Its buffer is used again and again.
#[derive(Debug, Default)]
pub(crate) struct BatchBuffer {
    bytes: Vec<u8>,
    records: u32,
}

impl BatchBuffer {
    /// Starts an empty batch.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BATCH_HEADER, 0);
        self.records = 0;
    }

    /// Whether it has no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes so far, header included.
    pub(crate) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// What the batch will take on disk.
    pub(crate) fn length_on_disk(&self) -> u64 {
        on_disk(self.bytes.len()) as u64
    }

    pub(crate) fn push_entry(&mut self, entry: &LogEntry) {
        self.record(KIND_ENTRY, entry.kind, 16 + entry.payload.len());
        self.id(entry.id);
        self.bytes.extend_from_slice(&entry.payload);
    }

    pub(crate) fn push_vote(&mut self, vote: SavedVote) {
        self.record(KIND_VOTE, u8::from(vote.committed), 16);
        self.number(vote.term);
        self.number(vote.server);
    }

    pub(crate) fn push_committed(&mut self, id: EntryId) {
        self.record(KIND_COMMITTED, 0, 16);
        self.id(id);
    }

    pub(crate) fn push_truncate(&mut self, last: Option<EntryId>) {
        self.record(KIND_TRUNCATE, u8::from(last.is_some()), 16);
        self.id(last.unwrap_or_default());
    }

    pub(crate) fn push_purge(&mut self, id: EntryId) {
        self.record(KIND_PURGE, 0, 16);
        self.id(id);
    }

    /// Puts the state before this batch in front of its other records.
    pub(crate) fn insert_checkpoint(&mut self, checkpoint: &Checkpoint) {
        let rest = self.bytes.split_off(BATCH_HEADER);
        let present = u8::from(checkpoint.vote.is_some())
            | u8::from(checkpoint.vote.is_some_and(|vote| vote.committed)) << 1
            | u8::from(checkpoint.committed.is_some()) << 2
            | u8::from(checkpoint.purged.is_some()) << 3
            | u8::from(checkpoint.last.is_some()) << 4;
        self.record(KIND_STATE, present, 64);
        let vote = checkpoint
            .vote
            .map_or((0, 0), |vote| (vote.term, vote.server));
        self.number(vote.0);
        self.number(vote.1);
        self.id(checkpoint.committed.unwrap_or_default());
        self.id(checkpoint.purged.unwrap_or_default());
        self.id(checkpoint.last.unwrap_or_default());
        self.bytes.extend_from_slice(&rest);
    }

    /// Completes the batch. Returns the bytes to write and the header checksum.
    pub(crate) fn finish(&mut self, place: Place, seal: bool) -> (&[u8], u32) {
        let length = u32::try_from(self.bytes.len() - BATCH_HEADER)
            .expect("a batch is shorter than 4 GiB: entries are limited");
        self.bytes.resize(on_disk(self.bytes.len()), 0);
        let end_mark = self.bytes.len() - END_MARK.len();
        self.bytes[end_mark..].copy_from_slice(&END_MARK);
        let mask = choose_mask(&self.bytes, place);
        apply_mask(&mut self.bytes[BATCH_HEADER..end_mark], mask);
        let body_checksum = crc32c::crc32c(&self.bytes[BATCH_HEADER..]);
        let mut header = [0; BATCH_HEADER];
        header[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&(if seal { FLAG_SEAL } else { 0 }).to_le_bytes());
        header[8..16].copy_from_slice(&place.sequence.to_le_bytes());
        header[16..24].copy_from_slice(&place.segment.to_le_bytes());
        header[24..28].copy_from_slice(&length.to_le_bytes());
        header[28..32].copy_from_slice(&self.records.to_le_bytes());
        header[32..40].copy_from_slice(&mask.to_le_bytes());
        header[40..44].copy_from_slice(&place.previous.to_le_bytes());
        header[44..48].copy_from_slice(&body_checksum.to_le_bytes());
        let checksum = crc32c::crc32c_append(place.seed, &header[..60]);
        header[60..64].copy_from_slice(&checksum.to_le_bytes());
        self.bytes[..BATCH_HEADER].copy_from_slice(&header);
        (&self.bytes, checksum)
    }

    fn record(&mut self, kind: u8, detail: u8, length: usize) {
        let length = u32::try_from(length).expect("an entry is shorter than 4 GiB: it is limited");
        self.bytes.extend_from_slice(&[kind, detail, 0, 0]);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.records += 1;
    }

    fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn id(&mut self, id: EntryId) {
        self.number(id.term);
        self.number(id.index);
    }
}

/// What a batch of so many bytes takes on disk.
fn on_disk(length: usize) -> usize {
    (length + END_MARK.len()).next_multiple_of(SECTOR)
}

/// The first mask that leaves at least two bits set in each sector: 0 nearly always. Whoever
/// chooses the payload cannot exclude them all, as the masks depend on ensemble and server ids.
fn choose_mask(bytes: &[u8], place: Place) -> u64 {
    let mut mask = 0;
    let mut state = u64::from(place.seed) << 32 ^ place.sequence;
    // The first sector holds the magic number, the last one the end mark.
    let between = bytes.get(SECTOR..bytes.len() - SECTOR).unwrap_or_default();
    while !planted(Canary::ZerosNotMasked)
        && !between
            .chunks_exact(SECTOR)
            .all(|sector| has_two_bits(sector, mask))
    {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mask = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mask = (mask ^ (mask >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mask ^= mask >> 31;
    }
    mask
}

fn has_two_bits(sector: &[u8], mask: u64) -> bool {
    let mut ones = 0;
    for word in sector.as_chunks().0 {
        ones += (u64::from_le_bytes(*word) ^ mask).count_ones();
        if ones >= 2 {
            return true;
        }
    }
    false
}

/// Both masks and unmasks. `bytes` is what is between a batch header and the end mark.
pub(crate) fn apply_mask(bytes: &mut [u8], mask: u64) {
    if mask == 0 {
        return;
    }
    for word in bytes.as_chunks_mut().0 {
        *word = (u64::from_le_bytes(*word) ^ mask).to_le_bytes();
    }
}

impl BatchHeader {
    /// Reads a header; `None` if these bytes are none of this server's log.
    pub(crate) fn decode(bytes: &[u8], seed: u32) -> Option<BatchHeader> {
        let bytes = bytes.get(..BATCH_HEADER)?;
        let checksum = u32_at(bytes, 60);
        if u32_at(bytes, 0) != BATCH_MAGIC || crc32c::crc32c_append(seed, &bytes[..60]) != checksum
        {
            return None;
        }
        Some(BatchHeader {
            seal: u32_at(bytes, 4) & FLAG_SEAL != 0,
            sequence: u64_at(bytes, 8),
            segment: u64_at(bytes, 16),
            length: u32_at(bytes, 24),
            records: u32_at(bytes, 28),
            mask: u64_at(bytes, 32),
            previous: u32_at(bytes, 40),
            body_checksum: u32_at(bytes, 44),
            checksum,
        })
    }

    /// What the batch takes on disk.
    pub(crate) fn length_on_disk(&self) -> usize {
        on_disk(BATCH_HEADER + self.length as usize)
    }

    /// Checks and unmasks `batch`, all the bytes on disk, and returns its records.
    pub(crate) fn records(&self, mut batch: Vec<u8>) -> Option<Records> {
        let body = batch.get_mut(BATCH_HEADER..self.length_on_disk())?;
        if crc32c::crc32c(body) != self.body_checksum && !planted(Canary::ChecksumIgnored) {
            return None;
        }
        let (records, _) = body.split_at_mut(body.len() - END_MARK.len());
        apply_mask(records, self.mask);
        batch.truncate(BATCH_HEADER + self.length as usize);
        Some(Records {
            rest: Bytes::from(batch).slice(BATCH_HEADER..),
            left: self.records,
        })
    }
}

/// Whether a batch, all its bytes on disk, shows that its write was never completed: see `recovery`.
pub(crate) fn is_incomplete(batch: &[u8]) -> bool {
    batch.last() == Some(&0) || batch.chunks(SECTOR).any(is_zero)
}

/// Whether a sector shows that a write ended within a batch header.
pub(crate) fn is_incomplete_header(sector: &[u8]) -> bool {
    sector.get(BATCH_HEADER..).is_some_and(is_zero)
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| *word == [0; 8]) && rest.iter().all(|byte| *byte == 0)
}

/// The records of one batch, in order. Payloads share the batch's memory.
#[derive(Debug)]
pub(crate) struct Records {
    rest: Bytes,
    left: u32,
}

/// A record whose checksum holds but which makes no sense here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRecord;

impl Iterator for Records {
    type Item = Result<Record, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return if self.rest.is_empty() {
                None
            } else {
                self.rest.clear();
                Some(Err(BadRecord))
            };
        }
        self.left -= 1;
        let record = decode_record(&mut self.rest);
        if record.is_err() {
            self.left = 0;
            self.rest.clear();
        }
        Some(record)
    }
}

fn decode_record(rest: &mut Bytes) -> Result<Record, BadRecord> {
    if rest.len() < RECORD_HEADER {
        return Err(BadRecord);
    }
    let header = rest.split_to(RECORD_HEADER);
    let length = u32_at(&header, 4) as usize;
    if rest.len() < length {
        return Err(BadRecord);
    }
    let mut body = rest.split_to(length);
    let detail = header[1];
    // Every index has a next one: no log gets as far as the last number there is.
    let id_at = |offset| match u64_at(&body, offset + 8) {
        u64::MAX => Err(BadRecord),
        index => Ok(EntryId {
            term: u64_at(&body, offset),
            index,
        }),
    };
    let id_if = |present: bool, offset| present.then(|| id_at(offset)).transpose();
    match (header[0], length) {
        (KIND_ENTRY, 16..) => {
            let id = id_at(0)?;
            Ok(Record::Entry(LogEntry {
                id,
                kind: detail,
                payload: body.split_off(16),
            }))
        }
        (KIND_VOTE, 16) => Ok(Record::Vote(SavedVote {
            term: u64_at(&body, 0),
            server: u64_at(&body, 8),
            committed: detail & 1 != 0,
        })),
        (KIND_COMMITTED, 16) => Ok(Record::Committed(id_at(0)?)),
        (KIND_TRUNCATE, 16) => Ok(Record::Truncate(id_if(detail & 1 != 0, 0)?)),
        (KIND_PURGE, 16) => Ok(Record::Purge(id_at(0)?)),
        (KIND_STATE, 64) => Ok(Record::Checkpoint(Checkpoint {
            vote: (detail & 1 != 0).then(|| SavedVote {
                term: u64_at(&body, 0),
                server: u64_at(&body, 8),
                committed: detail & 2 != 0,
            }),
            committed: id_if(detail & 4 != 0, 16)?,
            purged: id_if(detail & 8 != 0, 32)?,
            last: id_if(detail & 16 != 0, 48)?,
        })),
        _ => Err(BadRecord),
    }
}

/// Reads a number whose place the caller has checked.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

/// Reads a number whose place the caller has checked.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        seed: 7,
        segment: 3,
        sequence: 9,
        previous: 11,
    };

    fn finish(buffer: &mut BatchBuffer) -> Vec<u8> {
        buffer.finish(PLACE, false).0.to_vec()
    }

    #[test]
    fn records_come_back_as_they_were_pushed() {
        let id = EntryId { term: 2, index: 5 };
        let vote = SavedVote {
            term: 4,
            server: 2,
            committed: true,
        };
        let entry = LogEntry {
            id,
            kind: 1,
            payload: Bytes::from_static(b"payload"),
        };
        let checkpoint = Checkpoint {
            vote: Some(vote),
            committed: None,
            purged: Some(id),
            last: Some(id),
        };
        let mut buffer = BatchBuffer::default();
        buffer.clear();
        buffer.push_entry(&entry);
        buffer.push_vote(vote);
        buffer.push_committed(id);
        buffer.push_truncate(None);
        buffer.push_truncate(Some(id));
        buffer.push_purge(id);
        buffer.insert_checkpoint(&checkpoint);
        let bytes = finish(&mut buffer);
        let header = BatchHeader::decode(&bytes, PLACE.seed).unwrap();
        assert_eq!(
            (header.sequence, header.segment, header.previous),
            (9, 3, 11)
        );
        let records: Vec<_> = header.records(bytes).unwrap().map(Result::unwrap).collect();
        let expected = vec![
            Record::Checkpoint(checkpoint),
            Record::Entry(entry),
            Record::Vote(vote),
            Record::Committed(id),
            Record::Truncate(None),
            Record::Truncate(Some(id)),
            Record::Purge(id),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn an_index_that_no_other_can_follow_is_no_record() {
        let id = EntryId {
            term: 2,
            index: u64::MAX,
        };
        let checkpoint = Checkpoint {
            last: Some(id),
            ..Checkpoint::default()
        };
        let pushes: [&dyn Fn(&mut BatchBuffer); 4] = [
            &|buffer| buffer.push_committed(id),
            &|buffer| buffer.push_truncate(Some(id)),
            &|buffer| buffer.push_purge(id),
            &|buffer| buffer.insert_checkpoint(&checkpoint),
        ];
        for push in pushes {
            let mut buffer = BatchBuffer::default();
            buffer.clear();
            push(&mut buffer);
            let bytes = finish(&mut buffer);
            let header = BatchHeader::decode(&bytes, PLACE.seed).unwrap();
            let records: Vec<_> = header.records(bytes).unwrap().collect();
            assert_eq!(records, vec![Err(BadRecord)]);
        }
    }

    #[test]
    fn no_sector_of_a_batch_can_be_taken_for_an_unwritten_one() {
        // Zeros, a single bit in a sector, and constants that a one-byte mask could not avoid.
        let mut single_bit = vec![0; 4 * SECTOR];
        single_bit[1000] = 8;
        let constants: Vec<u8> = (0..=255).flat_map(|byte| [byte; 2 * SECTOR]).collect();
        for payload in [vec![0; 10 * SECTOR], single_bit, constants] {
            let mut buffer = BatchBuffer::default();
            buffer.clear();
            let id = EntryId { term: 1, index: 1 };
            let entry = LogEntry {
                id,
                kind: 0,
                payload: Bytes::from(payload),
            };
            buffer.push_entry(&entry);
            let bytes = finish(&mut buffer);
            for sector in bytes.chunks_exact(SECTOR) {
                let ones: u32 = sector.iter().map(|byte| byte.count_ones()).sum();
                assert!(ones >= 2);
            }
            let header = BatchHeader::decode(&bytes, PLACE.seed).unwrap();
            let mut records = header.records(bytes).unwrap();
            assert_eq!(records.next(), Some(Ok(Record::Entry(entry))));
        }
    }

    #[test]
    fn a_batch_of_another_server_or_with_a_flipped_bit_is_not_taken() {
        let mut buffer = BatchBuffer::default();
        buffer.clear();
        buffer.push_committed(EntryId { term: 1, index: 1 });
        let bytes = finish(&mut buffer);
        assert_eq!(BatchHeader::decode(&bytes, PLACE.seed + 1), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let header = BatchHeader::decode(&flipped, PLACE.seed);
            assert!(
                header.and_then(|header| header.records(flipped)).is_none(),
                "bit {bit}"
            );
        }
    }
}
