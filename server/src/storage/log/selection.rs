//! Reading entries that were found in the log: those on disk first, then those in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::StorageError;
use super::super::file::{File, read_exact_at};
use super::entry::{BatchHeader, ENTRY_OVERHEAD, LogEntry, Record};
use super::segment;
use super::view::Run;

/// Entries found, some of them perhaps still on disk. Holds what it needs to read them: a purge
/// does not disturb it.
#[derive(Debug)]
pub struct Selection {
    on_disk: Vec<(Option<Arc<dyn File>>, Run)>,
    cached: Vec<LogEntry>,
    bytes_max: usize,
    seed: u32,
    folder: PathBuf,
}

impl Selection {
    pub(crate) fn new(
        on_disk: Vec<(Option<Arc<dyn File>>, Run)>,
        cached: Vec<LogEntry>,
        bytes_max: usize,
        seed: u32,
        folder: PathBuf,
    ) -> Selection {
        Selection {
            on_disk,
            cached,
            bytes_max,
            seed,
            folder,
        }
    }

    /// Whether [`Selection::read`] is free of disk operations.
    pub fn is_in_memory(&self) -> bool {
        self.on_disk.is_empty()
    }

    /// Reads what is on disk and returns all entries in order. Blocks unless all is in memory.
    pub fn read(self) -> Result<Vec<LogEntry>, StorageError> {
        if self.on_disk.is_empty() {
            return Ok(self.cached);
        }
        let mut entries = Vec::new();
        for (file, run) in &self.on_disk {
            let path = self.folder.join(segment::name(run.segment));
            let Some(file) = file else {
                let what = format!("entries {} to {} are in it", run.first, run.last);
                return Err(StorageError::Missing { path, what });
            };
            read_run(&**file, &path, *run, self.seed, &mut entries)?;
        }
        if self.cached.is_empty() {
            // Batches are found as a whole.
            let mut left = self.bytes_max;
            let mut within = |entry: &LogEntry| {
                let before = left;
                left = left.saturating_sub(ENTRY_OVERHEAD + entry.payload.len());
                before > 0
            };
            entries.truncate(
                entries
                    .iter()
                    .take_while(|entry| within(entry))
                    .count()
                    .max(1),
            );
        }
        entries.extend(self.cached);
        Ok(entries)
    }
}

/// Reads the batches of a run and picks its entries out of them.
fn read_run(
    file: &dyn File,
    path: &Path,
    run: Run,
    seed: u32,
    entries: &mut Vec<LogEntry>,
) -> Result<(), StorageError> {
    let length = usize::try_from(run.length)
        .map_err(|_| StorageError::damaged(path, run.offset, "too long to read"))?;
    let mut bytes = vec![0; length];
    read_exact_at(file, &mut bytes, run.offset).map_err(StorageError::during("read", path))?;
    let mut next = run.first;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let offset = run.offset + (length - rest.len()) as u64;
        let damaged = || StorageError::damaged(path, offset, "a batch has changed on disk");
        let header = BatchHeader::decode(rest, seed).ok_or_else(damaged)?;
        let (batch, after) = rest
            .split_at_checked(header.length_on_disk())
            .ok_or_else(damaged)?;
        for record in header.records(batch.to_vec()).ok_or_else(damaged)? {
            if let Record::Entry(entry) = record.map_err(|_| damaged())?
                && entry.id.index == next
                && next <= run.last
            {
                next += 1;
                entries.push(entry);
            }
        }
        rest = after;
    }
    if next <= run.last {
        return Err(StorageError::damaged(
            path,
            run.offset,
            format!("entry {next} is not there"),
        ));
    }
    Ok(())
}
