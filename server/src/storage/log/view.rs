//! What the log holds at this moment, as readers see it: ahead of the disk by what is queued.
//!
//! Plain data under the log's one lock. The newest entries are in memory (`cache`, without a gap up
//! to the last entry); where older ones are on disk is in `runs`. An entry leaves memory only once
//! it is durable, so every entry is in at least one of the two.

use std::collections::VecDeque;

use super::super::StorageError;
use super::entry::{Checkpoint, ENTRY_OVERHEAD, EntryId, LogEntry, SavedVote};

/// Consecutive batches that are read together, up to this many bytes: one small write each must not
/// cost memory for ever.
const RUN_BYTES_MAX: u64 = 64 << 10;
/// An apply that lags holds entries in memory up to this multiple of the cache's bound; beyond it,
/// it reads from disk.
const LAG_FACTOR: usize = 4;

/// Entries `first..=last` are in the batches at `offset..offset + length` of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) vote: Option<SavedVote>,
    pub(crate) committed: Option<EntryId>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) last: Option<EntryId>,
    /// Where each term begins among the entries: `(term, first index)`.
    terms: VecDeque<(u64, u64)>,
    runs: VecDeque<Run>,
    cache: VecDeque<LogEntry>,
    cache_bytes: usize,
    /// Entries below this index are durable.
    durable_next: u64,
    /// Entries below this index have been streamed to apply.
    applied_next: u64,
}

/// Where the entries of a range are.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Read these first, and of them only `first..=last`.
    pub(crate) runs: Vec<Run>,
    /// Then these follow.
    pub(crate) cached: Vec<LogEntry>,
}

fn next_index(id: Option<EntryId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

impl View {
    /// Starts from what the segments before the first one left to say.
    pub(crate) fn from_checkpoint(checkpoint: &Checkpoint) -> View {
        let mut view = View {
            vote: checkpoint.vote,
            committed: checkpoint.committed,
            purged: checkpoint.purged,
            last: checkpoint.last,
            ..View::default()
        };
        if let Some(last) = checkpoint.last
            && checkpoint.purged != Some(last)
        {
            view.terms
                .push_back((last.term, next_index(checkpoint.purged)));
        }
        view.durable_next = next_index(view.last);
        view
    }

    /// The same facts in the form in which the next segment repeats them.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            vote: self.vote,
            committed: self.committed,
            purged: self.purged,
            last: self.last,
        }
    }

    /// The index of the oldest entry that is kept, or will be.
    pub(crate) fn first_index(&self) -> u64 {
        let oldest = self.terms.front().map(|(_, first)| *first);
        oldest.unwrap_or_else(|| next_index(self.last))
    }

    /// The index that comes next. An empty log that was never purged may begin anywhere.
    pub(crate) fn check_next(&self, index: u64) -> Result<(), StorageError> {
        match self.last {
            Some(last) if last.index + 1 != index => Err(StorageError::Gap {
                expected: last.index + 1,
                found: index,
            }),
            _ => Ok(()),
        }
    }

    /// Adds an entry, which [`View::check_next`] accepted.
    pub(crate) fn push(&mut self, entry: LogEntry) {
        let id = entry.id;
        if self.terms.back().is_none_or(|(term, _)| *term != id.term) {
            self.terms.push_back((id.term, id.index));
        }
        self.last = Some(id);
        self.cache_bytes += ENTRY_OVERHEAD + entry.payload.len();
        self.cache.push_back(entry);
    }

    /// Whether there can be a record of this truncation: neither does one reach below what was
    /// purged, nor does one add entries.
    pub(crate) fn may_truncate(&self, keep: Option<EntryId>) -> bool {
        (next_index(self.purged)..=next_index(self.last)).contains(&next_index(keep))
    }

    /// Whether the last entry is where it can be: not before what was purged.
    pub(crate) fn is_possible(&self) -> bool {
        next_index(self.purged) <= next_index(self.last)
    }

    /// Drops the entries after `last`; returns what is the last entry then, and `None` if there was
    /// nothing to drop.
    pub(crate) fn truncate(&mut self, keep: Option<EntryId>) -> Option<Option<EntryId>> {
        let next = next_index(keep).max(next_index(self.purged));
        if next_index(self.last) <= next {
            return None;
        }
        self.durable_next = self.durable_next.min(next);
        self.applied_next = self.applied_next.min(next);
        while let Some(entry) = self.cache.pop_back_if(|entry| entry.id.index >= next) {
            self.cache_bytes -= ENTRY_OVERHEAD + entry.payload.len();
        }
        while self.runs.pop_back_if(|run| run.first >= next).is_some() {}
        if let Some(run) = self.runs.back_mut() {
            run.last = run.last.min(next - 1);
        }
        while self
            .terms
            .pop_back_if(|(_, first)| *first >= next)
            .is_some()
        {}
        self.last = match self.terms.back() {
            Some((term, _)) => Some(EntryId {
                term: *term,
                index: next - 1,
            }),
            None => self.purged,
        };
        Some(self.last)
    }

    /// Drops the entries up to `upto`. Returns whether that changed anything.
    pub(crate) fn purge(&mut self, upto: EntryId) -> bool {
        let next = upto.index + 1;
        if next <= next_index(self.purged) {
            return false;
        }
        self.purged = Some(upto);
        while let Some(entry) = self.cache.pop_front_if(|entry| entry.id.index < next) {
            self.cache_bytes -= ENTRY_OVERHEAD + entry.payload.len();
        }
        while self.runs.pop_front_if(|run| run.last < next).is_some() {}
        if let Some(run) = self.runs.front_mut() {
            run.first = run.first.max(next);
        }
        if next_index(self.last) <= next {
            self.last = Some(upto);
            self.terms.clear();
            self.durable_next = next;
        } else {
            while self.terms.get(1).is_some_and(|(_, first)| *first <= next) {
                self.terms.pop_front();
            }
            if let Some((_, first)) = self.terms.front_mut() {
                *first = (*first).max(next);
            }
        }
        true
    }

    /// Notes where a durable batch put its entries. `limit` is the next index after the deepest
    /// truncation that is queued behind it.
    pub(crate) fn add_run(&mut self, mut run: Run, limit: u64, may_merge: bool) {
        run.first = run.first.max(next_index(self.purged));
        if run.last >= limit {
            if limit == 0 {
                return;
            }
            run.last = limit - 1;
        }
        if run.first > run.last {
            return;
        }
        self.durable_next = self.durable_next.max(run.last + 1);
        if let Some(before) = self.runs.back_mut()
            && may_merge
            && before.segment == run.segment
            && before.last + 1 == run.first
            && before.offset + before.length == run.offset
            && before.length + run.length <= RUN_BYTES_MAX
        {
            before.last = run.last;
            before.length += run.length;
        } else {
            self.runs.push_back(run);
        }
    }

    /// The segment with the oldest entry that is kept.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.runs.front().map(|run| run.segment)
    }

    /// Notes how far apply has read.
    pub(crate) fn set_applied_next(&mut self, index: u64) {
        self.applied_next = self.applied_next.max(index);
    }

    /// Takes entries out of memory until `bytes_max` holds. The caller frees them outside the lock.
    pub(crate) fn evict(&mut self, bytes_max: usize, evicted: &mut Vec<LogEntry>) {
        while self.cache_bytes > bytes_max {
            let lagging = self.cache_bytes > LAG_FACTOR.saturating_mul(bytes_max);
            let next = if lagging {
                self.durable_next
            } else {
                self.durable_next.min(self.applied_next)
            };
            let Some(entry) = self.cache.pop_front_if(|entry| entry.id.index < next) else {
                break;
            };
            self.cache_bytes -= ENTRY_OVERHEAD + entry.payload.len();
            evicted.push(entry);
        }
    }

    /// The id of the entry at an index that is in the log.
    pub(crate) fn id_at(&self, index: u64) -> Option<EntryId> {
        if self.purged.is_some_and(|purged| purged.index == index) {
            return self.purged;
        }
        if index >= next_index(self.last) || index < self.first_index() {
            return None;
        }
        let after = self.terms.partition_point(|(_, first)| *first <= index);
        let (term, _) = self.terms.get(after.checked_sub(1)?)?;
        Some(EntryId { term: *term, index })
    }

    /// The last entry of each term among the entries kept.
    pub(crate) fn term_ends(&self) -> impl Iterator<Item = EntryId> {
        let nexts = self.terms.iter().skip(1).map(|(_, first)| *first);
        let nexts = nexts.chain([next_index(self.last)]);
        self.terms
            .iter()
            .zip(nexts)
            .map(|((term, _), next)| EntryId {
                term: *term,
                index: next - 1,
            })
    }

    /// Where to find the entries of `start..end`, as far as the log has them, and of those at least
    /// one and otherwise about `bytes_max` bytes.
    pub(crate) fn plan(&self, start: u64, end: u64, bytes_max: usize) -> Plan {
        let mut plan = Plan::default();
        let start = start.max(self.first_index());
        let end = end.min(next_index(self.last));
        if start >= end {
            return plan;
        }
        let mut left = bytes_max as u64;
        let cached_from = self.cache.front().map_or(end, |entry| entry.id.index);
        let mut next = start;
        let skip = self.runs.partition_point(|run| run.last < start);
        for run in self.runs.range(skip..) {
            if next >= end.min(cached_from) || (left == 0 && next > start) {
                break;
            }
            let last = run.last.min(end.min(cached_from) - 1);
            plan.runs.push(Run {
                first: next,
                last,
                ..*run
            });
            next = last + 1;
            left = left.saturating_sub(run.length);
        }
        if next < cached_from {
            return plan;
        }
        let skip = usize::try_from(next - cached_from).unwrap_or(usize::MAX);
        for entry in self.cache.range(skip.min(self.cache.len())..) {
            if entry.id.index >= end || (left == 0 && entry.id.index > start) {
                break;
            }
            left = left.saturating_sub((ENTRY_OVERHEAD + entry.payload.len()) as u64);
            plan.cached.push(entry.clone());
        }
        plan
    }
}
