//! The worker that writes: batch, write, sync, completions, and again.
//!
//! A batch is written only after the sync of the one before it has returned; recovery relies on
//! that. Nothing is retried. Completions run in the order of their operations.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use quorate_state::canary::{Canary, planted};
use tokio::time::Instant;

use super::super::StorageError;
use super::super::data_dir::Identity;
use super::super::file::{Disk, File, write_all_at};
use super::entry::{BatchBuffer, Checkpoint, LogEntry, Place, checksum_seed};
use super::preparer::Job;
use super::recovery::{self, Recovered};
use super::segment::{self, Draft, SEGMENT_HEADER, Segment};
use super::view::{Run, View};
use super::{Completion, ENTRY_OVERHEAD, Inner, Operation, Queue, Shared, Stop, free_after};

/// Where the next batch goes, and what it says it follows.
pub(crate) struct Position {
    segment: Segment,
    offset: u64,
    sequence: u64,
    previous: u32,
    /// Whether the last batch is a seal.
    sealed: bool,
    /// What all batches so far add up to.
    state: Checkpoint,
}

/// The open segments, by sequence.
pub(crate) type Files = BTreeMap<u64, Arc<dyn File>>;

impl Position {
    /// Also returns what readers start with.
    pub(crate) fn from_recovered(recovered: Recovered) -> (Position, View, Files) {
        let Recovered {
            view,
            segments,
            offset,
            next_sequence,
            previous,
            sealed,
            ..
        } = recovered;
        let files = segments
            .iter()
            .map(|(sequence, segment)| (*sequence, segment.file.clone()));
        let files = files.collect();
        let segment = segments
            .into_values()
            .next_back()
            .expect("recovery found a batch, so there is a segment that holds it");
        let state = view.checkpoint();
        let position = Position {
            segment,
            offset,
            sequence: next_sequence,
            previous,
            sealed,
            state,
        };
        (position, view, files)
    }

    pub(crate) fn remaining(&self) -> u64 {
        free_after(&self.segment, self.offset)
    }
}

/// Makes a log with nothing in it but a first seal, by which a lost log can be told from a new one.
pub(crate) fn create(
    disk: &dyn Disk,
    folder: &Path,
    identity: Identity,
    segment_bytes: u64,
) -> Result<(), StorageError> {
    refuse_existing(disk, folder)?;
    let mut draft = Draft::begin(disk, folder, identity, 1, segment_bytes)?;
    draft.zero(disk, segment_bytes)?;
    let segment = draft.finish(disk)?;
    let mut batch = BatchBuffer::default();
    batch.clear();
    batch.insert_checkpoint(&Checkpoint::default());
    let seed = checksum_seed(identity.cluster, identity.server);
    let place = Place {
        seed,
        segment: 1,
        sequence: 1,
        previous: 0,
    };
    let (bytes, _) = batch.finish(place, true);
    let failed = |operation| StorageError::during(operation, &segment.path);
    write_all_at(&*segment.file, bytes, SEGMENT_HEADER).map_err(failed("write"))?;
    segment.file.sync_data().map_err(failed("sync"))
}

/// A log without an identity is either what a first start left when it was interrupted, which has
/// one segment and one batch at most, or somebody's data.
fn refuse_existing(disk: &dyn Disk, folder: &Path) -> Result<(), StorageError> {
    let names = disk
        .list(folder)
        .map_err(StorageError::during("list", folder))?;
    for name in names {
        let Some(sequence) = segment::parse_name(&name) else {
            continue;
        };
        let path = folder.join(&name);
        if !recovery::holds_nothing(disk, &path, sequence)? {
            let what = "this log segment holds data, but the folder's identity file is missing";
            return Err(StorageError::damaged(&path, 0, what));
        }
        segment::remove_if_there(disk, &path)?;
    }
    disk.sync_folder(folder)
        .map_err(StorageError::during("sync", folder))
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    position: Position,
    batch: BatchBuffer,
    /// Taken from the callers and not written yet.
    queue: Queue,
    /// Entries left of the append at the front of the queue.
    partial: Option<(usize, Box<dyn Completion>)>,
    current: Current,
}

/// What the batch under construction stands for.
#[derive(Default)]
struct Current {
    first: Option<u64>,
    last: u64,
    bytes: usize,
    truncations: usize,
    purges: usize,
    done: Vec<Box<dyn Completion>>,
    /// The state once this batch is durable.
    state: Checkpoint,
}

/// Why the worker ends.
enum End {
    Closed,
    Abandoned,
    Failed(StorageError),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, position: Position) -> Writer {
        Writer {
            shared,
            position,
            batch: BatchBuffer::default(),
            queue: Queue::default(),
            partial: None,
            current: Current::default(),
        }
    }

    pub(crate) async fn run(mut self) {
        let end = self.write_until_the_end().await;
        {
            let mut inner = self.shared.inner.lock();
            inner.writer_ended = true;
        }
        self.shared.chores.wake();
        let error = match end {
            End::Closed => {
                self.shared.inner.lock().closed = true;
                return;
            }
            End::Abandoned => StorageError::Closed,
            End::Failed(error) => self.shared.fail(error),
        };
        self.fail_all(&error);
    }

    async fn write_until_the_end(&mut self) -> End {
        {
            let shared = self.shared.clone();
            let mut inner = shared.inner.lock();
            self.ask_for_next_segment(&mut inner);
        }
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    /// Waits for work and writes all of it.
    async fn step(&mut self) -> Result<(), End> {
        let seal = self.wait_for_work().await?;
        if let Some(close) = seal {
            self.start_batch();
            self.write_batch(true).await?;
            return if close { Err(End::Closed) } else { Ok(()) };
        }
        while self.partial.is_some() || !self.queue.operations.is_empty() {
            self.start_batch();
            self.fill_batch();
            self.write_batch(false).await?;
        }
        Ok(())
    }

    /// Takes what is queued. `Some` asks for a seal instead, and says whether it is the last.
    async fn wait_for_work(&mut self) -> Result<Option<bool>, End> {
        let shared = self.shared.clone();
        let mut nothing_came = false;
        loop {
            let wait = {
                let mut inner = shared.inner.lock();
                inner.resting = false;
                if let Some(error) = &inner.failed {
                    return Err(End::Failed(error.clone()));
                }
                if inner.stop == Some(Stop::Abandon) {
                    return Err(End::Abandoned);
                }
                if !inner.queue.operations.is_empty() {
                    std::mem::swap(&mut self.queue, &mut inner.queue);
                    return Ok(None);
                }
                let all_said =
                    self.position.sealed && inner.view.committed == self.position.state.committed;
                if inner.stop == Some(Stop::Close) {
                    return if all_said {
                        Err(End::Closed)
                    } else {
                        Ok(Some(true))
                    };
                }
                if nothing_came && !all_said {
                    return Ok(Some(false));
                }
                inner.resting = all_said;
                let patience = (!all_said).then_some(shared.options.seal_after);
                shared.work.wait(inner, patience)
            };
            nothing_came = wait.await;
        }
    }

    fn start_batch(&mut self) {
        self.batch.clear();
        self.current.first = None;
        self.current.bytes = 0;
        self.current.truncations = 0;
        self.current.purges = 0;
        self.current.state = self.position.state;
    }

    /// Encodes operations until the batch is full, or a truncation must start the next one.
    fn fill_batch(&mut self) {
        loop {
            if let Some((left, done)) = self.partial.take() {
                let left = self.fill_entries(left);
                if left > 0 {
                    self.partial = Some((left, done));
                    return;
                }
                self.current.done.push(done);
            }
            if self.batch.length() >= self.shared.options.batch_bytes_max {
                return;
            }
            // In a batch, entries ascend: a truncation comes before all of them.
            if self.current.first.is_some()
                && matches!(self.queue.operations.front(), Some(Operation::Truncate(_)))
            {
                return;
            }
            match self.queue.operations.pop_front() {
                None => return,
                Some(Operation::Append { count, done }) => self.partial = Some((count, done)),
                Some(Operation::Vote(vote, done)) => {
                    self.batch.push_vote(vote);
                    self.current.state.vote = Some(vote);
                    if planted(Canary::VoteBeforeSync) {
                        done.complete(Ok(()));
                        continue;
                    }
                    self.current.done.push(done);
                }
                Some(Operation::Truncate(last)) => {
                    self.batch.push_truncate(last);
                    self.current.state.last = last;
                    self.current.truncations += 1;
                }
                Some(Operation::Purge(upto)) => {
                    self.batch.push_purge(upto);
                    self.current.purges += 1;
                    self.current.state.purged = Some(upto);
                    if self
                        .current
                        .state
                        .last
                        .is_none_or(|last| last.index <= upto.index)
                    {
                        self.current.state.last = Some(upto);
                    }
                }
            }
        }
    }

    /// Encodes entries until the batch is full; returns how many are left.
    fn fill_entries(&mut self, mut left: usize) -> usize {
        while left > 0 {
            let Some(entry) = self.queue.entries.pop_front() else {
                return 0;
            };
            self.push_entry(&entry);
            left -= 1;
            if self.batch.length() >= self.shared.options.batch_bytes_max {
                break;
            }
        }
        left
    }

    fn push_entry(&mut self, entry: &LogEntry) {
        self.batch.push_entry(entry);
        self.current.first = self.current.first.or(Some(entry.id.index));
        self.current.last = entry.id.index;
        self.current.state.last = Some(entry.id);
        self.current.bytes += ENTRY_OVERHEAD + entry.payload.len();
    }

    /// Makes the batch durable and tells everybody.
    async fn write_batch(&mut self, seal: bool) -> Result<(), End> {
        let started = Instant::now();
        let committed = {
            let mut inner = self.shared.inner.lock();
            inner.writing_since = Some(started);
            inner.view.committed
        };
        if committed != self.current.state.committed
            && let Some(committed) = committed
        {
            self.batch.push_committed(committed);
            self.current.state.committed = Some(committed);
        }
        if self.batch.is_empty() && !seal {
            self.shared.inner.lock().writing_since = None;
            self.complete();
            return Ok(());
        }
        if self.batch.length_on_disk() > self.position.remaining() {
            self.next_segment().await?;
        }
        let offset = self.position.offset;
        let length = self.write(seal).await.map_err(End::Failed)?;
        self.position.offset += length;
        self.position.sequence += 1;
        self.position.sealed = seal;
        self.position.state = self.current.state;
        self.publish(offset, length, started.elapsed());
        Ok(())
    }

    async fn write(&mut self, seal: bool) -> Result<u64, StorageError> {
        let Position {
            segment,
            offset,
            sequence,
            previous,
            ..
        } = &mut self.position;
        let place = Place {
            seed: self.shared.seed,
            segment: segment.sequence,
            sequence: *sequence,
            previous: *previous,
        };
        let (bytes, checksum) = self.batch.finish(place, seal);
        write_all_at(&*segment.file, bytes, *offset)
            .map_err(StorageError::during("write", &segment.path))?;
        self.shared.work.sleep(self.shared.disk.sync_takes()).await;
        if !planted(Canary::AckBeforeSync) {
            let mut synced = segment.file.sync_data();
            if planted(Canary::SyncRetried) {
                synced = synced.or_else(|_| segment.file.sync_data());
            }
            synced.map_err(StorageError::during("sync", &segment.path))?;
        }
        *previous = checksum;
        Ok(bytes.len() as u64)
    }

    /// Lets readers find the batch on disk, frees what may go, and calls the completions.
    fn publish(&mut self, offset: u64, length: u64, busy: Duration) {
        let mut evicted = Vec::new();
        let shared = self.shared.clone();
        let mut inner = shared.inner.lock();
        inner.writing_since = None;
        inner.stats.batches += 1;
        inner.stats.bytes += length;
        inner.stats.busy += busy;
        inner.stats.busy_max = inner.stats.busy_max.max(busy);
        inner.truncations.drain(..self.current.truncations);
        inner.purges -= self.current.purges;
        if let Some(first) = self.current.first {
            let run = Run {
                first,
                last: self.current.last,
                segment: self.position.segment.sequence,
                offset,
                length,
            };
            let limit = inner.truncations.iter().copied().min().unwrap_or(u64::MAX);
            inner
                .view
                .add_run(run, limit, self.current.truncations == 0);
        }
        inner.queued_bytes -= self.current.bytes;
        inner.remaining = self.position.remaining();
        inner
            .view
            .evict(shared.options.cache_bytes_max, &mut evicted);
        if inner.full {
            shared.publish_space(&inner);
        }
        self.remove_purged(&mut inner);
        drop(inner);
        self.complete();
        shared.room.notify_waiters();
    }

    /// Has segments removed that no entry needs, once what made them so is durable.
    fn remove_purged(&self, inner: &mut MutexGuard<'_, Inner>) {
        if self.current.purges == 0 || inner.purges > 0 || !inner.truncations.is_empty() {
            return;
        }
        let active = self.position.segment.sequence;
        let oldest = inner.view.oldest_segment().unwrap_or(active).min(active);
        let purged: Vec<u64> = inner
            .files
            .range(..oldest)
            .map(|(sequence, _)| *sequence)
            .collect();
        if !purged.is_empty() {
            self.shared.ask(inner, Job::Remove(purged));
        }
    }

    fn complete(&mut self) {
        let mut done = self.current.done.drain(..).peekable();
        while let Some(completion) = done.next() {
            let next_says_more = done.peek().is_some_and(|next| next.is_watermark());
            if !(completion.is_watermark() && next_says_more) {
                completion.complete(Ok(()));
            }
        }
    }

    /// Goes on in the next segment, waiting for it where needed: on a full disk, until space is
    /// freed. The batch gets a checkpoint, so that earlier segments can go one day.
    async fn next_segment(&mut self) -> Result<(), End> {
        self.batch.insert_checkpoint(&self.position.state);
        let needed = SEGMENT_HEADER + self.batch.length_on_disk();
        let shared = self.shared.clone();
        let segment = loop {
            let wait = {
                let mut inner = shared.inner.lock();
                if let Some(error) = &inner.failed {
                    return Err(End::Failed(error.clone()));
                }
                if inner.stop == Some(Stop::Abandon) || (inner.stop.is_some() && inner.full) {
                    return Err(End::Abandoned);
                }
                match inner.spare.take() {
                    Some(spare) if spare.length >= needed => {
                        inner.starved = false;
                        inner.files.insert(spare.sequence, spare.file.clone());
                        break spare;
                    }
                    Some(spare) => {
                        // An entry beyond the usual size: its segment is made to measure.
                        let job = Job::Prepare {
                            sequence: spare.sequence,
                            length: needed.next_multiple_of(SEGMENT_HEADER),
                        };
                        shared.ask(&mut inner, job);
                    }
                    None => {}
                }
                inner.starved = true;
                shared.work.wait(inner, None)
            };
            wait.await;
        };
        self.position.segment = segment;
        self.position.offset = SEGMENT_HEADER;
        self.ask_for_next_segment(&mut shared.inner.lock());
        Ok(())
    }

    fn ask_for_next_segment(&self, inner: &mut Inner) {
        let job = Job::Prepare {
            sequence: self.position.segment.sequence + 1,
            length: self.shared.options.segment_bytes,
        };
        self.shared.ask(inner, job);
    }

    /// Answers everybody who waits that it will not happen.
    fn fail_all(&mut self, error: &StorageError) {
        let rest = {
            let mut inner = self.shared.inner.lock();
            inner.stop = inner.stop.or(Some(Stop::Abandon));
            std::mem::take(&mut inner.queue)
        };
        self.shared.room.notify_waiters();
        let partial = self.partial.take().map(|(_, done)| done);
        let queued = self.queue.operations.drain(..).chain(rest.operations);
        let queued = queued.filter_map(|operation| match operation {
            Operation::Append { done, .. } | Operation::Vote(_, done) => Some(done),
            Operation::Truncate(_) | Operation::Purge(_) => None,
        });
        for done in self.current.done.drain(..).chain(partial).chain(queued) {
            done.complete(Err(error.clone()));
        }
    }
}
