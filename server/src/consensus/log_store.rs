//! The Raft engine's view of the log: [`RaftLogStorage`] and [`RaftLogReader`] on [`Log`].
//!
//! Translates entries and never decides anything: what is durable when, and in which order, is the
//! log's business. Appending returns once entries can be read; the engine is told when they are
//! durable. Only a vote is waited for. Truncating, purging and noting what is committed are queued
//! in the same order. Entries that are still in memory are read without leaving the task; others
//! are read on a thread that may block.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::storage::{LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload as Payload, OptionalSend};
use quorate_state::canary::{Canary, planted};
use tokio::sync::oneshot;

use super::types::{
    CommittedLeaderId, Entry, IOFlushed, LeaderId, LogId, Membership, Proposal, TypeConfig, Vote,
};
use crate::storage::StorageError;
use crate::storage::log::{Completion, EntryId, Log, LogEntry, SavedVote, Selection};

/// What one append request to a follower may carry. Requests are also limited by number in the
/// engine's configuration, which alone would allow hundreds of megabytes.
const REPLICATION_BYTES_MAX: usize = 1 << 20;
/// What the apply path takes from the log at a time, so that the lock is held briefly.
const STREAM_BYTES_MAX: usize = 256 << 10;

/// Payload kinds in the log. Stored: numbers stay.
const KIND_BLANK: u8 = 0;
const KIND_NORMAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// The log, as the engine uses it. Clones share it.
#[derive(Clone, Debug)]
pub struct LogStore {
    log: Arc<Log>,
}

impl LogStore {
    /// Gives the engine a log.
    pub fn new(log: Arc<Log>) -> LogStore {
        LogStore { log }
    }

    /// The log itself.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }
}

/// Tells the engine. Its notifications are watermarks.
struct Flushed(IOFlushed);

impl Completion for Flushed {
    fn complete(self: Box<Self>, result: Result<(), StorageError>) {
        self.0.io_completed(result.map_err(Into::into));
    }

    fn is_watermark(&self) -> bool {
        matches!(self.0, IOFlushed::Notify(_))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(to_log_id),
            last_log_id: state.last.map(to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = SavedVote {
            term: vote.leader_id.term,
            server: vote.leader_id.voted_for,
            committed: vote.committed,
        };
        let (done, durable) = oneshot::channel();
        let completion = move |result| {
            // The engine may have been dropped meanwhile.
            done.send(result).ok();
        };
        self.log.save_vote(vote, Box::new(completion))?;
        durable.await.unwrap_or(Err(StorageError::Closed))?;
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        Ok(self.log.save_committed(committed.map(to_entry_id))?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.state().committed.map(to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.log.wait_for_room().await?;
        let mut failure = None;
        let kept = match planted(Canary::ConflictNotTruncated) {
            true => self.log.state().last.map_or(0, |last| last.index + 1),
            false => 0,
        };
        let entries = entries
            .into_iter()
            .filter(|entry| entry.log_id.index >= kept)
            .map_while(|entry| match to_log_entry(entry) {
                Ok(entry) => Some(entry),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            });
        self.log.append(entries, Box::new(Flushed(callback)))?;
        failure.map_or(Ok(()), Err)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        if planted(Canary::ConflictNotTruncated) {
            return Ok(());
        }
        Ok(self.log.truncate_after(last_log_id.map(to_entry_id))?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        Ok(self.log.purge(to_entry_id(log_id))?)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        read(self.log.find(start, end, usize::MAX)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.state().vote.map(to_vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        read(self.log.find(start, end, REPLICATION_BYTES_MAX)).await
    }

    /// Yields what is in the log at the time it is asked for; stops where the log ends, or where
    /// an entry is gone. What has been yielded counts as applied.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let cursor = Cursor {
            log: self.log.clone(),
            next: start,
            end,
            fetched: Vec::new().into_iter(),
        };
        Box::pin(stream::unfold(Some(cursor), Cursor::advance))
    }

    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> Result<Vec<LogId>, io::Error> {
        // The last id of each term within the range, as the default implementation has it and the
        // engine's suite expects; the trait's own description says the first.
        let (first, last) = range.into_inner();
        let ends = self.log.term_ends().into_iter().map(to_log_id);
        let mut ids: Vec<LogId> = ends
            .filter(|id| id.index >= first.index && id.index < last.index)
            .collect();
        ids.push(last);
        Ok(ids)
    }
}

/// A stream's place in the log.
struct Cursor {
    log: Arc<Log>,
    next: u64,
    end: u64,
    fetched: std::vec::IntoIter<Entry>,
}

impl Cursor {
    async fn advance(cursor: Option<Cursor>) -> Option<(Result<Entry, io::Error>, Option<Cursor>)> {
        let mut cursor = cursor?;
        let mut entry = cursor.fetched.next();
        if entry.is_none() && cursor.next < cursor.end {
            cursor.log.note_applied(cursor.next);
            let selection = cursor.log.find(cursor.next, cursor.end, STREAM_BYTES_MAX);
            match read(selection).await {
                Ok(entries) => cursor.fetched = entries.into_iter(),
                Err(error) => return Some((Err(error), None)),
            }
            entry = cursor.fetched.next();
        }
        let entry = entry?;
        cursor.next = entry.log_id.index + 1;
        Some((Ok(entry), Some(cursor)))
    }
}

/// Reads a selection without blocking the task.
async fn read(selection: Selection) -> Result<Vec<Entry>, io::Error> {
    let entries = if selection.is_in_memory() {
        selection.read()?
    } else {
        let read = crate::tasks::blocking(move || selection.read());
        read.await??
    };
    entries.into_iter().map(to_entry).collect()
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

pub(super) fn to_log_id(id: EntryId) -> LogId {
    LogId {
        leader_id: CommittedLeaderId::from(id.term),
        index: id.index,
    }
}

pub(crate) fn to_entry_id(id: LogId) -> EntryId {
    EntryId {
        term: id.leader_id.term,
        index: id.index,
    }
}

fn to_vote(vote: SavedVote) -> Vote {
    let leader_id = LeaderId {
        term: vote.term,
        voted_for: vote.server,
    };
    Vote {
        leader_id,
        committed: vote.committed,
    }
}

pub(super) fn to_log_entry(entry: Entry) -> Result<LogEntry, io::Error> {
    let id = to_entry_id(entry.log_id);
    let (kind, payload) = match entry.payload {
        Payload::Blank => (KIND_BLANK, Bytes::new()),
        Payload::Normal(Proposal(bytes)) => (KIND_NORMAL, bytes),
        Payload::Membership(membership) => {
            // With names: the engine may give its memberships another field one day.
            let bytes = rmp_serde::to_vec_named(&membership).map_err(io::Error::other)?;
            (KIND_MEMBERSHIP, bytes.into())
        }
    };
    Ok(LogEntry { id, kind, payload })
}

pub(crate) fn to_entry(entry: LogEntry) -> Result<Entry, io::Error> {
    let payload = match entry.kind {
        KIND_BLANK => Payload::Blank,
        KIND_NORMAL => Payload::Normal(Proposal(entry.payload)),
        KIND_MEMBERSHIP => {
            let membership: Membership = rmp_serde::from_slice(&entry.payload)
                .map_err(|error| unreadable(entry.id, &error.to_string()))?;
            Payload::Membership(membership)
        }
        kind => return Err(unreadable(entry.id, &format!("unknown kind {kind}"))),
    };
    Ok(Entry {
        log_id: to_log_id(entry.id),
        payload,
    })
}

fn unreadable(id: EntryId, what: &str) -> io::Error {
    let text = format!(
        "entry {} of the log cannot be read: {what}; was it written by a later release?",
        id.index
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests;
