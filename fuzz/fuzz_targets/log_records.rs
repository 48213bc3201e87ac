//! Segments of the log whose checksums all hold, with records that a sane server may never write.
//!
//! The layout is that of format version 1 in `storage/log/entry.rs`.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use quorate_fuzz::{IDENTITY, SECTOR, open_twice, segment_header, segment_path};

#[derive(Arbitrary, Debug)]
struct Input {
    /// The first batch's; the others count on from it.
    sequence: Number,
    /// What the first segment begins with.
    checkpoint: Body,
    batches: Vec<Batch>,
}

#[derive(Arbitrary, Debug)]
struct Batch {
    /// Whether it begins a new segment; the checkpoint for that.
    new_segment: Option<Body>,
    seal: bool,
    records: Vec<Record>,
}

#[derive(Arbitrary, Debug)]
enum Record {
    Entry { term: Number, index: Number, payload: u8 },
    Vote { detail: u8, term: Number, server: Number },
    Committed(Number, Number),
    Truncate { detail: u8, term: Number, index: Number },
    Purge(Number, Number),
    Raw { kind: u8, detail: u8, body: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
struct Body {
    present: u8,
    numbers: [Number; 8],
}

/// Mostly small, so that records refer to each other; also the largest.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Small(u8),
    Last(u8),
    Any(u64),
}

impl Number {
    fn get(self) -> u64 {
        match self {
            Self::Small(number) => u64::from(number % 16),
            Self::Last(below) => u64::MAX - u64::from(below % 4),
            Self::Any(number) => number,
        }
    }
}

fn record(out: &mut Vec<u8>, kind: u8, detail: u8, numbers: &[Number], payload: &[u8]) {
    let length = u32::try_from(numbers.len() * 8 + payload.len()).expect("inputs are short");
    out.extend_from_slice(&[kind, detail, 0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    for number in numbers {
        out.extend_from_slice(&number.get().to_le_bytes());
    }
    out.extend_from_slice(payload);
}

fn encode(out: &mut Vec<u8>, from: &Record) {
    match from {
        Record::Entry { term, index, payload } => {
            record(out, 1, 0, &[*term, *index], &vec![7; usize::from(*payload)]);
        }
        Record::Vote { detail, term, server } => record(out, 2, *detail, &[*term, *server], &[]),
        Record::Committed(term, index) => record(out, 3, 0, &[*term, *index], &[]),
        Record::Truncate { detail, term, index } => {
            record(out, 4, *detail, &[*term, *index], &[]);
        }
        Record::Purge(term, index) => record(out, 5, 0, &[*term, *index], &[]),
        Record::Raw { kind, detail, body } => record(out, *kind, *detail, &[], body),
    }
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

fuzz_target!(|input: Input| {
    let mut segments = vec![Vec::new()];
    let mut sequence = input.sequence.get();
    let mut previous = 0;
    let mut checkpoint = Some(&input.checkpoint);
    for batch in &input.batches {
        if let Some(next) = &batch.new_segment {
            segments.push(Vec::new());
            checkpoint = Some(next);
        }
        let mut records = Vec::new();
        let mut count = u32::try_from(batch.records.len()).expect("inputs are short");
        if let Some(body) = checkpoint.take() {
            record(&mut records, 6, body.present, &body.numbers, &[]);
            count += 1;
        }
        for one in &batch.records {
            encode(&mut records, one);
        }
        let segment = segments.len() as u64;
        let place = (sequence, segment, previous);
        let (bytes, checksum) = seal(&records, count, u32::from(batch.seal), place);
        segments.last_mut().expect("there is one").extend(bytes);
        previous = checksum;
        sequence = sequence.wrapping_add(1);
    }
    let files = (1..).zip(segments).map(|(number, batches)| {
        let length = SECTOR + batches.len() + 2 * SECTOR;
        let mut file = segment_header(number, length as u64).to_vec();
        file.extend(batches);
        file.resize(length, 0);
        (segment_path(number), file)
    });
    open_twice(BTreeMap::from_iter(files));
});
