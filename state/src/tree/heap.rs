//! Where the bytes of znodes live: chunks cut into slots of one size each.
//!
//! A million small records cost no allocation, no pointer and no reference count each, and a view
//! of them all is one reference count per chunk. A record is addressed by 32 bits. Those larger than
//! [`SMALL_MAX`] stand alone.
//!
//! A chunk whose last record goes is given back at once. One that keeps a few records keeps its
//! memory, as with any allocator.

use triomphe::Arc;

use crate::pages::{Indexes, Pages};

/// Bytes per chunk. The first write to a chunk that a view holds copies it, in a few microseconds.
const CHUNK: usize = 32 * 1024;

/// Slots begin at multiples of this.
const UNIT: usize = 8;

/// Bits of an id that say where in its chunk a record begins, in units.
const OFFSET_BITS: u32 = (CHUNK / UNIT).trailing_zeros();

/// Marks the id of a large record; the rest is its index.
const LARGE: u32 = 1 << 31;

/// Records up to this size share chunks.
const SMALL_MAX: usize = SIZES[SIZES.len() - 1];

/// Slot sizes: every multiple of 8 up to 256, and from there eight sizes per doubling up to 4096, so
/// that little of a slot is wasted.
const SIZES: [usize; 63] = sizes();

/// The address of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordId(u32);

/// The bytes, which is all a view needs.
#[derive(Clone, Debug)]
pub(crate) struct Chunks {
    chunks: Vec<Arc<[u8]>>,
    large: Pages<Option<Arc<Vec<u8>>>>,
}

/// Which slots are taken.
#[derive(Debug)]
pub(crate) struct Heap {
    uses: Vec<Use>,
    /// By size: the chunks with room.
    roomy: Vec<Vec<u32>>,
    /// Chunks without bytes.
    vacant: Vec<u32>,
    large: Indexes,
}

/// What one chunk is used for.
#[derive(Debug)]
struct Use {
    /// Index into [`SIZES`].
    size: usize,
    taken: usize,
    /// Slots from this one on were never taken.
    end: usize,
    /// Slots given back.
    free: Vec<u16>,
    /// Where the chunk stands among the roomy ones of its size; `None` if it is full.
    position: Option<usize>,
}

impl Chunks {
    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            large: Pages::new(),
        }
    }

    /// The record, with whatever stands behind it in its chunk: records know their own length.
    #[inline]
    pub(crate) fn get(&self, id: RecordId) -> &[u8] {
        match id.place() {
            Place::Small { chunk, offset } => &self.chunks[chunk][offset..],
            Place::Large(index) => self
                .large
                .get(index)
                .as_ref()
                .expect("a large record lives as long as its id"),
        }
    }

    fn write(&mut self, chunk: usize, offset: usize, head: &[u8], data: &[u8]) {
        let chunk = &mut self.chunks[chunk];
        if Arc::get_mut(chunk).is_none() {
            *chunk = Arc::from(&chunk[..]);
        }
        let bytes = Arc::get_mut(chunk).expect("nobody else has the copy just made");
        let (to_head, rest) = bytes[offset..].split_at_mut(head.len());
        to_head.copy_from_slice(head);
        rest[..data.len()].copy_from_slice(data);
    }
}

impl Heap {
    pub(crate) fn new() -> Self {
        Self {
            uses: Vec::new(),
            roomy: vec![Vec::new(); SIZES.len()],
            vacant: Vec::new(),
            large: Indexes::default(),
        }
    }

    /// Stores `head` and `data`, one behind the other.
    pub(crate) fn store(&mut self, chunks: &mut Chunks, head: &[u8], data: &[u8]) -> RecordId {
        let len = head.len() + data.len();
        if len > SMALL_MAX {
            let index = self.large.take();
            chunks.large.set(index, Some(large_record(head, data)));
            return RecordId::large(index);
        }
        let size = size_for(len);
        let chunk = match self.roomy[size].last() {
            Some(chunk) => *chunk as usize,
            None => self.new_chunk(chunks, size),
        };
        let offset = self.take_slot(chunk) * SIZES[size];
        chunks.write(chunk, offset, head, data);
        RecordId::small(chunk, offset)
    }

    /// Stores another record in place of one that nobody needs any more.
    pub(crate) fn replace(
        &mut self,
        chunks: &mut Chunks,
        id: RecordId,
        head: &[u8],
        data: &[u8],
    ) -> RecordId {
        let len = head.len() + data.len();
        match id.place() {
            Place::Small { chunk, offset }
                if len <= SMALL_MAX && size_for(len) == self.uses[chunk].size =>
            {
                chunks.write(chunk, offset, head, data);
                id
            }
            Place::Large(index) if len > SMALL_MAX => {
                chunks.large.set(index, Some(large_record(head, data)));
                id
            }
            _ => {
                self.free(chunks, id);
                self.store(chunks, head, data)
            }
        }
    }

    pub(crate) fn free(&mut self, chunks: &mut Chunks, id: RecordId) {
        match id.place() {
            Place::Small { chunk, offset } => self.free_slot(chunks, chunk, offset),
            Place::Large(index) => {
                chunks.large.set(index, None);
                self.large.give_back(index);
            }
        }
    }

    fn new_chunk(&mut self, chunks: &mut Chunks, size: usize) -> usize {
        let index = self.vacant.pop().map_or_else(
            || {
                chunks.chunks.push(no_bytes());
                self.uses.push(Use::new(size));
                self.uses.len() - 1
            },
            |chunk| chunk as usize,
        );
        chunks.chunks[index] = Arc::from(vec![0; CHUNK]);
        self.uses[index] = Use::new(size);
        self.add_roomy(index);
        index
    }

    fn take_slot(&mut self, chunk: usize) -> usize {
        let used = &mut self.uses[chunk];
        used.taken += 1;
        let slot = used.free.pop().map_or_else(
            || {
                used.end += 1;
                used.end - 1
            },
            usize::from,
        );
        if used.taken == used.slots() {
            self.drop_roomy(chunk);
        }
        slot
    }

    fn free_slot(&mut self, chunks: &mut Chunks, chunk: usize, offset: usize) {
        let used = &mut self.uses[chunk];
        let slot = offset / SIZES[used.size];
        used.taken -= 1;
        used.free
            .push(u16::try_from(slot).expect("a chunk has fewer than 65536 slots"));
        let is_empty = used.taken == 0;
        if used.position.is_none() {
            self.add_roomy(chunk);
        }
        if is_empty {
            self.drop_roomy(chunk);
            self.uses[chunk].free = Vec::new();
            chunks.chunks[chunk] = no_bytes();
            self.vacant.push(narrow(chunk));
        }
    }

    fn add_roomy(&mut self, chunk: usize) {
        let used = &mut self.uses[chunk];
        let roomy = &mut self.roomy[used.size];
        used.position = Some(roomy.len());
        roomy.push(narrow(chunk));
    }

    fn drop_roomy(&mut self, chunk: usize) {
        let used = &mut self.uses[chunk];
        let position = used.position.take().expect("the chunk has room");
        let roomy = &mut self.roomy[used.size];
        roomy.swap_remove(position);
        if let Some(moved) = roomy.get(position) {
            self.uses[*moved as usize].position = Some(position);
        }
    }
}

impl Use {
    fn new(size: usize) -> Self {
        Self {
            size,
            taken: 0,
            end: 0,
            free: Vec::new(),
            position: None,
        }
    }

    fn slots(&self) -> usize {
        CHUNK / SIZES[self.size]
    }
}

/// What a [`RecordId`] says.
enum Place {
    Small { chunk: usize, offset: usize },
    Large(u32),
}

impl RecordId {
    fn small(chunk: usize, offset: usize) -> Self {
        let chunk = narrow(chunk);
        // 2^19 chunks, 16 GB of small records. Replicas may differ in how they pack them, so this
        // cannot be a refusal.
        assert!(chunk < LARGE >> OFFSET_BITS, "znodes need less than 16 GB");
        Self(chunk << OFFSET_BITS | narrow(offset / UNIT))
    }

    fn large(index: u32) -> Self {
        assert!(index < LARGE, "large znodes are fewer than 2^31");
        Self(LARGE | index)
    }

    fn place(self) -> Place {
        if self.0 & LARGE != 0 {
            return Place::Large(self.0 & !LARGE);
        }
        Place::Small {
            chunk: (self.0 >> OFFSET_BITS) as usize,
            offset: (self.0 & ((1 << OFFSET_BITS) - 1)) as usize * UNIT,
        }
    }
}

fn large_record(head: &[u8], data: &[u8]) -> Arc<Vec<u8>> {
    let mut record = Vec::with_capacity(head.len() + data.len());
    record.extend_from_slice(head);
    record.extend_from_slice(data);
    Arc::new(record)
}

fn no_bytes() -> Arc<[u8]> {
    Arc::from(Vec::new())
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("chunks and slots are counted in 32 bits")
}

/// The index of the smallest size that holds `len` bytes.
fn size_for(len: usize) -> usize {
    match len {
        ..=16 => 0,
        17..=256 => len.div_ceil(8) - 2,
        _ => SIZES.partition_point(|size| *size < len),
    }
}

const fn sizes() -> [usize; 63] {
    let mut sizes = [0; 63];
    let mut size: usize = 16;
    let mut i = 0;
    while i < sizes.len() {
        sizes[i] = size;
        i += 1;
        size += match size {
            ..256 => 8,
            _ => 1 << (size.ilog2() - 3),
        };
    }
    sizes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_length_gets_the_smallest_slot_that_holds_it() {
        assert_eq!(SMALL_MAX, 4096);
        for len in 0..=SMALL_MAX {
            let size = size_for(len);
            assert!(SIZES[size] >= len && (size == 0 || SIZES[size - 1] < len));
            assert_eq!(SIZES[size] % UNIT, 0);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Store(usize),
        Replace(usize, usize),
        Free(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few sizes, so that chunks fill up and empty again.
        let len = prop_oneof![
            Just(10usize),
            Just(2000),
            Just(4000),
            Just(5000),
            0..6000usize
        ];
        prop_oneof![
            3 => len.clone().prop_map(Step::Store),
            1 => (0..100usize, len).prop_map(|(which, len)| Step::Replace(which, len)),
            2 => (0..100usize).prop_map(Step::Free),
        ]
    }

    fn pattern(seed: usize, len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| ((seed * 31 + i) % 251).to_le_bytes()[0])
            .collect()
    }

    proptest! {
        #[test]
        fn records_stay_what_they_are_until_they_are_replaced_or_freed(
            steps in prop::collection::vec(step(), 1..300)
        ) {
            let mut chunks = Chunks::new();
            let mut heap = Heap::new();
            let mut records: Vec<(RecordId, Vec<u8>)> = Vec::new();
            let view = chunks.clone();
            for (seed, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Store(len) => {
                        let record = pattern(seed, len);
                        let (head, data) = record.split_at(len / 3);
                        let id = heap.store(&mut chunks, head, data);
                        records.push((id, record));
                    }
                    Step::Replace(which, len) if which < records.len() => {
                        let record = pattern(seed, len);
                        let (head, data) = record.split_at(len / 3);
                        let id = heap.replace(&mut chunks, records[which].0, head, data);
                        records[which] = (id, record);
                    }
                    Step::Free(which) if which < records.len() => {
                        heap.free(&mut chunks, records.swap_remove(which).0);
                    }
                    Step::Replace(..) | Step::Free(_) => {}
                }
                for (id, record) in &records {
                    prop_assert!(chunks.get(*id).starts_with(record));
                }
            }
            for (id, _) in records {
                heap.free(&mut chunks, id);
            }
            prop_assert!(chunks.chunks.iter().all(|chunk| chunk.is_empty()));
            prop_assert!(view.chunks.is_empty());
        }
    }

    #[test]
    fn a_view_keeps_its_records_when_they_are_overwritten() {
        let mut chunks = Chunks::new();
        let mut heap = Heap::new();
        let small = heap.store(&mut chunks, b"head", b"data");
        let large = heap.store(&mut chunks, b"head", &[1; 5000]);
        let view = chunks.clone();
        assert_eq!(heap.replace(&mut chunks, small, b"HEAD", b"DATA"), small);
        assert_eq!(heap.replace(&mut chunks, large, b"HEAD", &[2; 6000]), large);
        heap.free(&mut chunks, large);
        assert!(view.get(small).starts_with(b"headdata"));
        assert_eq!(view.get(large).len(), 5004);
        assert!(chunks.get(small).starts_with(b"HEADDATA"));
    }
}
