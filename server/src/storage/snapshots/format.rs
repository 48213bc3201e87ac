//! The bytes of a snapshot file: a header, compressed blocks, an end.
//!
//! All numbers little-endian, checksums CRC32C:
//!
//! ```text
//! header  magic 8 | version u32 | header length u32 | ensemble u64 | has last u32 |
//!         membership length u32 | term u64 | index u64 | membership | checksum u32
//! block   raw length u32 | stored length u32 | method u32 | checksum u32 | stored bytes
//! end     a block of method 2, with: blocks u64 | raw bytes u64 | file bytes u64 |
//!         checksum of all raw bytes u32 | checksum of all block checksums u32
//! ```
//!
//! A block's checksum starts from the header's and covers its number, its lengths, its method and
//! its stored bytes: a block of another file or from another place does not pass. The file ends
//! with the end block; without it, it is damaged, whatever else it holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::StorageError;
use super::super::file::{File, read_exact_at};
use super::super::log::{EntryId, u32_at, u64_at};
use super::{SnapshotFile, SnapshotInfo};

/// The newest format this program reads, and the one it writes.
const FORMAT_VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"QuorSnap";
const HEADER_FIXED: usize = 48;
/// With an empty membership.
const HEADER_BYTES_MIN: u32 = 52;
/// A header longer than this is damage, not a reason to reserve memory.
const HEADER_BYTES_MAX: u32 = 64 << 20;
const BLOCK_HEADER: usize = 16;
/// Bytes in a block before compression: large enough that neither system calls nor zstd's set-up
/// count, small enough to stay in a processor's cache.
const BLOCK_BYTES: usize = 512 << 10;
/// What a reader accepts, so that a later release may choose larger blocks.
const BLOCK_BYTES_MAX: usize = 16 << 20;
/// zstd's fastest regular level: a snapshot must not take a core from the log for long.
const LEVEL: i32 = 1;

const METHOD_RAW: u32 = 0;
const METHOD_ZSTD: u32 = 1;
const METHOD_END: u32 = 2;
const END_LENGTH: usize = 32;

/// What all blocks add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    blocks: u64,
    raw_bytes: u64,
    raw_checksum: u32,
    blocks_checksum: u32,
}

impl Summary {
    fn add_block(&mut self, raw_length: usize, checksum: u32) {
        self.blocks += 1;
        self.raw_bytes += raw_length as u64;
        self.blocks_checksum = crc32c::crc32c_append(self.blocks_checksum, &checksum.to_le_bytes());
    }

    fn add_raw(&mut self, raw: &[u8]) {
        self.raw_checksum = crc32c::crc32c_append(self.raw_checksum, raw);
    }
}

fn block_checksum(seed: u32, number: u64, header: &[u8], stored: &[u8]) -> u32 {
    let checksum = crc32c::crc32c_append(seed, &number.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(checksum, &header[..12]), stored)
}

/// Cuts contents into blocks. Where the bytes go is the caller's business.
pub(crate) struct BlockWriter {
    seed: u32,
    raw: Vec<u8>,
    block: Vec<u8>,
    compressor: zstd::bulk::Compressor<'static>,
    file_bytes: u64,
    summary: Summary,
}

impl std::fmt::Debug for BlockWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BlockWriter")
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

impl BlockWriter {
    /// Also returns the header, to be written first.
    pub(crate) fn new(
        cluster: u64,
        info: &SnapshotInfo,
    ) -> Result<(BlockWriter, Vec<u8>), StorageError> {
        let compressor = zstd::bulk::Compressor::new(LEVEL)
            .map_err(|error| StorageError::io("compress", Path::new("a snapshot"), error))?;
        let header = encode_header(cluster, info);
        let writer = BlockWriter {
            seed: u32_at(&header, header.len() - 4),
            raw: Vec::with_capacity(BLOCK_BYTES),
            block: Vec::with_capacity(BLOCK_HEADER + zstd::zstd_safe::compress_bound(BLOCK_BYTES)),
            compressor,
            file_bytes: header.len() as u64,
            summary: Summary::default(),
        };
        Ok((writer, header))
    }

    /// Adds contents; writes the blocks that are full.
    pub(crate) fn write(
        &mut self,
        mut bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.raw.len()));
            self.raw.extend_from_slice(now);
            bytes = rest;
            if self.raw.len() == BLOCK_BYTES {
                self.write_block(&mut write)?;
            }
        }
        Ok(())
    }

    /// Writes the rest and the end.
    pub(crate) fn finish(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<Summary, StorageError> {
        if !self.raw.is_empty() {
            self.write_block(&mut write)?;
        }
        let file_bytes = self.file_bytes + (BLOCK_HEADER + END_LENGTH) as u64;
        self.block.clear();
        self.block.resize(BLOCK_HEADER, 0);
        for number in [self.summary.blocks, self.summary.raw_bytes, file_bytes] {
            self.block.extend_from_slice(&number.to_le_bytes());
        }
        for checksum in [self.summary.raw_checksum, self.summary.blocks_checksum] {
            self.block.extend_from_slice(&checksum.to_le_bytes());
        }
        seal_block(
            &mut self.block,
            self.seed,
            self.summary.blocks,
            0,
            METHOD_END,
        );
        write(&self.block)?;
        Ok(self.summary)
    }

    fn write_block(
        &mut self,
        write: &mut impl FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.block.clear();
        self.block.resize(
            BLOCK_HEADER + zstd::zstd_safe::compress_bound(self.raw.len()),
            0,
        );
        let compressed = self
            .compressor
            .compress_to_buffer(&self.raw, &mut self.block[BLOCK_HEADER..]);
        let method = match compressed {
            Ok(length) if length < self.raw.len() => {
                self.block.truncate(BLOCK_HEADER + length);
                METHOD_ZSTD
            }
            // Not compressible: as it is.
            _ => {
                self.block.truncate(BLOCK_HEADER);
                self.block.extend_from_slice(&self.raw);
                METHOD_RAW
            }
        };
        let number = self.summary.blocks;
        let checksum = seal_block(&mut self.block, self.seed, number, self.raw.len(), method);
        write(&self.block)?;
        self.file_bytes += self.block.len() as u64;
        self.summary.add_block(self.raw.len(), checksum);
        self.summary.add_raw(&self.raw);
        self.raw.clear();
        Ok(())
    }
}

/// Fills in a block's header.
fn seal_block(block: &mut [u8], seed: u32, number: u64, raw_length: usize, method: u32) -> u32 {
    let (header, stored) = block.split_at_mut(BLOCK_HEADER);
    let length = |length: usize| u32::try_from(length).expect("a block is shorter than 4 GiB");
    header[0..4].copy_from_slice(&length(raw_length).to_le_bytes());
    header[4..8].copy_from_slice(&length(stored.len()).to_le_bytes());
    header[8..12].copy_from_slice(&method.to_le_bytes());
    let checksum = block_checksum(seed, number, header, stored);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

fn encode_header(cluster: u64, info: &SnapshotInfo) -> Vec<u8> {
    let length = HEADER_FIXED + info.membership.len() + 4;
    let short = |length: usize| u32::try_from(length).expect("a membership is shorter than 4 GiB");
    let last = info.last.unwrap_or_default();
    let mut header = Vec::with_capacity(length);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&short(length).to_le_bytes());
    header.extend_from_slice(&cluster.to_le_bytes());
    header.extend_from_slice(&u32::from(info.last.is_some()).to_le_bytes());
    header.extend_from_slice(&short(info.membership.len()).to_le_bytes());
    header.extend_from_slice(&last.term.to_le_bytes());
    header.extend_from_slice(&last.index.to_le_bytes());
    header.extend_from_slice(&info.membership);
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}

/// Reads and checks the header; also returns its bytes.
pub(crate) fn read_header(
    file: &dyn File,
    path: &Path,
    file_length: u64,
    cluster: u64,
) -> Result<(SnapshotInfo, Vec<u8>), StorageError> {
    let damaged = |what: &str| StorageError::damaged(path, 0, what);
    let cut = || damaged("the file ends inside its header");
    let mut header = vec![0; HEADER_FIXED];
    if file_length < HEADER_FIXED as u64 {
        return Err(cut());
    }
    read_exact_at(file, &mut header, 0).map_err(StorageError::during("read", path))?;
    let length = u32_at(&header, 12);
    if &header[0..8] != MAGIC || !(HEADER_BYTES_MIN..=HEADER_BYTES_MAX).contains(&length) {
        return Err(damaged("the header is not one of a snapshot"));
    }
    if file_length < u64::from(length) {
        return Err(cut());
    }
    let length = length as usize;
    header.resize(length, 0);
    read_exact_at(file, &mut header, 0).map_err(StorageError::during("read", path))?;
    if crc32c::crc32c(&header[..length - 4]) != u32_at(&header, length - 4) {
        return Err(damaged("the header's checksum does not hold"));
    }
    let found = u32_at(&header, 8);
    if found > FORMAT_VERSION {
        let path = path.to_owned();
        return Err(StorageError::NewerFormat {
            path,
            found,
            supported: FORMAT_VERSION,
        });
    }
    if u64_at(&header, 16) != cluster {
        return Err(StorageError::ForeignSnapshot {
            path: path.to_owned(),
            found_cluster: u64_at(&header, 16),
            cluster,
        });
    }
    let membership = header.get(HEADER_FIXED..HEADER_FIXED + u32_at(&header, 28) as usize);
    let membership = membership
        .ok_or_else(|| damaged("the header contradicts itself"))?
        .to_vec();
    let last = EntryId {
        term: u64_at(&header, 32),
        index: u64_at(&header, 40),
    };
    let last = (u32_at(&header, 24) != 0).then_some(last);
    Ok((SnapshotInfo { last, membership }, header))
}

/// Reads a snapshot's contents, block by block.
pub struct SnapshotReader {
    path: PathBuf,
    file: Arc<dyn File>,
    length: u64,
    seed: u32,
    offset: u64,
    stored: Vec<u8>,
    raw: Vec<u8>,
    /// Bytes of `raw` given out.
    taken: usize,
    decompressor: zstd::bulk::Decompressor<'static>,
    summary: Summary,
    at_end: bool,
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SnapshotReader")
            .field("path", &self.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// A block as it stands in the file.
struct Block {
    raw_length: usize,
    method: u32,
    checksum: u32,
}

impl SnapshotReader {
    pub(crate) fn new(snapshot: &SnapshotFile) -> Result<SnapshotReader, StorageError> {
        let SnapshotFile {
            path,
            file,
            length,
            cluster,
            ..
        } = snapshot;
        let (_, header) = read_header(&**file, path, *length, *cluster)?;
        let decompressor = zstd::bulk::Decompressor::new()
            .map_err(|error| StorageError::io("decompress", path, error))?;
        Ok(SnapshotReader {
            path: path.clone(),
            file: file.clone(),
            length: *length,
            seed: u32_at(&header, header.len() - 4),
            offset: header.len() as u64,
            stored: Vec::new(),
            raw: Vec::new(),
            taken: 0,
            decompressor,
            summary: Summary::default(),
            at_end: false,
        })
    }

    /// Reads some bytes; 0 only at the end, with everything checked.
    pub(crate) fn read_some(&mut self, bytes: &mut [u8]) -> Result<usize, StorageError> {
        while self.taken == self.raw.len() && !self.at_end {
            self.next_block()?;
        }
        let left = &self.raw[self.taken..];
        let length = left.len().min(bytes.len());
        bytes[..length].copy_from_slice(&left[..length]);
        self.taken += length;
        Ok(length)
    }

    /// Checks what is left without giving it out.
    pub(crate) fn skip_to_end(&mut self) -> Result<(), StorageError> {
        while !self.at_end {
            self.next_block()?;
        }
        self.taken = self.raw.len();
        Ok(())
    }

    /// What has been read so far.
    pub(crate) fn summary(&self) -> Summary {
        self.summary
    }

    fn next_block(&mut self) -> Result<(), StorageError> {
        let start = self.offset;
        let block = self.read_stored()?;
        self.taken = 0;
        self.raw.clear();
        match block.method {
            METHOD_RAW => std::mem::swap(&mut self.raw, &mut self.stored),
            METHOD_ZSTD => {
                self.raw.resize(block.raw_length, 0);
                let length = self
                    .decompressor
                    .decompress_to_buffer(&self.stored, &mut self.raw[..])
                    .map_err(|_| self.damaged(start, "a block cannot be decompressed"))?;
                self.raw.truncate(length);
            }
            _ => return self.check_end(start, true),
        }
        if self.raw.len() != block.raw_length {
            return Err(self.damaged(start, "a block has not the length it says"));
        }
        self.summary.add_block(block.raw_length, block.checksum);
        self.summary.add_raw(&self.raw);
        Ok(())
    }

    /// Reads a block's stored bytes and checks them.
    fn read_stored(&mut self) -> Result<Block, StorageError> {
        let start = self.offset;
        let cut = || StorageError::damaged(&self.path, start, "the file ends before its end block");
        let mut header = [0; BLOCK_HEADER];
        let left = self.length.saturating_sub(start);
        if left < BLOCK_HEADER as u64 {
            return Err(cut());
        }
        read_exact_at(&*self.file, &mut header, start)
            .map_err(StorageError::during("read", &self.path))?;
        let raw_length = u32_at(&header, 0) as usize;
        let stored_length = u32_at(&header, 4) as usize;
        let method = u32_at(&header, 8);
        let checksum = u32_at(&header, 12);
        let possible = match method {
            METHOD_RAW => stored_length == raw_length && raw_length <= BLOCK_BYTES_MAX,
            METHOD_ZSTD => stored_length < raw_length && raw_length <= BLOCK_BYTES_MAX,
            METHOD_END => stored_length == END_LENGTH && raw_length == 0,
            _ => false,
        };
        if !possible {
            return Err(self.damaged(start, "there is no block"));
        }
        if left < (BLOCK_HEADER + stored_length) as u64 {
            return Err(cut());
        }
        self.stored.resize(stored_length, 0);
        self.offset += BLOCK_HEADER as u64;
        read_exact_at(&*self.file, &mut self.stored, self.offset)
            .map_err(StorageError::during("read", &self.path))?;
        self.offset += stored_length as u64;
        if block_checksum(self.seed, self.summary.blocks, &header, &self.stored) != checksum {
            return Err(self.damaged(start, "a block's checksum does not hold"));
        }
        Ok(Block {
            raw_length,
            method,
            checksum,
        })
    }

    fn check_end(&mut self, start: u64, raw_was_read: bool) -> Result<(), StorageError> {
        let expected = Summary {
            blocks: u64_at(&self.stored, 0),
            raw_bytes: u64_at(&self.stored, 8),
            raw_checksum: if raw_was_read {
                u32_at(&self.stored, 24)
            } else {
                0
            },
            blocks_checksum: u32_at(&self.stored, 28),
        };
        if expected != self.summary
            || u64_at(&self.stored, 16) != self.length
            || self.offset != self.length
        {
            return Err(self.damaged(start, "the end block does not fit what is before it"));
        }
        self.at_end = true;
        Ok(())
    }

    fn damaged(&self, offset: u64, what: &str) -> StorageError {
        StorageError::damaged(&self.path, offset, what)
    }
}

/// Checks all checksums over stored bytes, without decompressing.
pub(crate) fn check_blocks(snapshot: &SnapshotFile) -> Result<(), StorageError> {
    let mut reader = SnapshotReader::new(snapshot)?;
    loop {
        let start = reader.offset;
        let block = reader.read_stored()?;
        if block.method == METHOD_END {
            return reader.check_end(start, false);
        }
        reader.summary.add_block(block.raw_length, block.checksum);
    }
}
