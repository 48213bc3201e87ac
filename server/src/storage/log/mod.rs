//! The write-ahead log: entries, votes and what goes with them, in one stream to one disk.
//!
//! Callers queue; one thread takes whatever has gathered, writes it as one batch with one write and
//! one sync, and then calls completions in order. It waits for nothing to come together: what
//! arrives during a sync is the next batch. Entries can be read as soon as they are queued. After a
//! failed write or sync the log is dead: every call fails from then on, nothing is retried, and the
//! fatal hook is told once. Segments are made ahead, so that a full disk is noticed before anything
//! is at stake: see [`Log::space`]. Format: `segment`, `entry`. After a crash: `recovery`.

mod entry;
pub mod inspect;
mod preparer;
mod recovery;
mod segment;
mod selection;
mod signal;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::StorageError;
use super::data_dir::Identity;
use super::file::Disk;
use crate::tasks;
use entry::{ENTRY_OVERHEAD, checksum_seed};
pub use entry::{EntryId, LogEntry, SavedVote};
pub(crate) use entry::{u32_at, u64_at};
use preparer::{Job, Preparer};
pub(crate) use segment::remove_if_there;
use segment::{SEGMENT_HEADER, Segment};
pub use selection::Selection;
use signal::{Signal, run_on_this_thread};
use view::{Run, View};
use writer::Writer;

/// An entry's length fits 32 bits with much to spare; client requests are far smaller.
pub const ENTRY_BYTES_MAX: usize = 256 << 20;

/// Told once, from a thread of the log, when the log has died. The server must exit.
pub type FatalHook = Arc<dyn Fn(&StorageError) + Send + Sync>;

/// Sizes and times.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Length of a segment. Larger wastes less at the end of each, smaller frees space sooner.
    pub segment_bytes: u64,
    /// A batch is closed once it has so many bytes, so that the first of its callers does not wait
    /// for the last of a long queue.
    pub batch_bytes_max: usize,
    /// Callers wait while so many bytes are queued.
    pub queue_bytes_max: usize,
    /// Durable entries beyond so many bytes are read from disk.
    pub cache_bytes_max: usize,
    /// With no next segment and less than this left in the current one, [`Log::space`] says no.
    pub reserve_bytes: u64,
    /// How long to wait before trying again to make a segment on a full disk.
    pub space_retry: Duration,
    /// How long nothing must have been written before the log seals itself: see `recovery`.
    pub seal_after: Duration,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
            batch_bytes_max: 1 << 20,
            queue_bytes_max: 32 << 20,
            cache_bytes_max: 16 << 20,
            reserve_bytes: 40 << 20,
            space_retry: Duration::from_secs(1),
            seal_after: Duration::from_millis(100),
        }
    }
}

/// Called on the log's thread once what it was given for is durable, or never will be. Must not
/// block.
pub trait Completion: Send + 'static {
    /// The outcome.
    fn complete(self: Box<Self>, result: Result<(), StorageError>);

    /// Whether success means "all up to here": of several such in a row, only the last is called.
    fn is_watermark(&self) -> bool {
        false
    }
}

impl<F: FnOnce(Result<(), StorageError>) + Send + 'static> Completion for F {
    fn complete(self: Box<Self>, result: Result<(), StorageError>) {
        self(result);
    }
}

/// Where the log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last entry that was purged.
    pub purged: Option<EntryId>,
    /// The last entry, or the last purged one if there is none.
    pub last: Option<EntryId>,
    /// The last vote.
    pub vote: Option<SavedVote>,
    /// The last entry known as committed. May be older than what was said before a crash.
    pub committed: Option<EntryId>,
}

/// How the log fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Batches made durable since the start.
    pub batches: u64,
    /// What they took on disk.
    pub bytes: u64,
    /// How long writing and syncing them took.
    pub busy: Duration,
    /// The longest that one took.
    pub busy_max: Duration,
    /// Bytes queued or being written.
    pub queued_bytes: usize,
    /// For how long the batch being written has been. A long time is a stuck disk.
    pub writing_for: Option<Duration>,
}

/// The log, open. Share it in an `Arc`; dropping it without [`Log::close`] is a crash.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    workers: Mutex<Workers>,
}

/// The writer and the preparer.
#[derive(Debug)]
enum Workers {
    Threads(Vec<std::thread::JoinHandle<()>>),
    /// In a simulation.
    Tasks(Vec<tokio::task::JoinHandle<()>>),
}

/// What callers, the writer and the preparer have in common.
struct Shared {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    identity: Identity,
    seed: u32,
    options: LogOptions,
    inner: Mutex<Inner>,
    /// The writer waits here, for work or for a segment.
    work: Signal,
    /// The preparer waits here, for jobs.
    chores: Signal,
    /// Callers wait here, for room in the queue.
    room: Notify,
    space: watch::Sender<bool>,
    on_fatal: FatalHook,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// One lock for all of it, never held across a disk operation.
#[derive(Default)]
struct Inner {
    view: View,
    /// Open segments, for readers.
    files: writer::Files,
    queue: Queue,
    /// Bytes queued or being written.
    queued_bytes: usize,
    /// For each truncation that is not durable yet: the index that came next after it.
    truncations: VecDeque<u64>,
    /// Purges that are not durable yet.
    purges: usize,
    /// What the preparer is to do.
    jobs: VecDeque<Job>,
    /// Nobody will ask the preparer for anything any more.
    writer_ended: bool,
    /// The next segment, once it is ready.
    spare: Option<Segment>,
    /// Whether the writer waits for the next segment.
    starved: bool,
    /// Whether the writer waits until it is woken: everything has been said and sealed.
    resting: bool,
    /// Whether the next segment could not be made for lack of space.
    full: bool,
    /// Free bytes in the current segment.
    remaining: u64,
    stats: LogStats,
    writing_since: Option<Instant>,
    failed: Option<StorageError>,
    stop: Option<Stop>,
    /// Whether all was written and sealed before the writer ended.
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Write what is queued, seal, end.
    Close,
    /// End.
    Abandon,
}

/// What is to be written, in order. Swapped with an empty one by the writer, so neither grows anew.
#[derive(Default)]
struct Queue {
    operations: VecDeque<Operation>,
    /// The entries of all [`Operation::Append`]s, in order.
    entries: VecDeque<LogEntry>,
}

enum Operation {
    Append {
        count: usize,
        done: Box<dyn Completion>,
    },
    Vote(SavedVote, Box<dyn Completion>),
    Truncate(Option<EntryId>),
    Purge(EntryId),
}

impl Log {
    /// Makes an empty log. The folder must not hold one.
    pub fn create(
        disk: &dyn Disk,
        folder: &Path,
        identity: Identity,
        options: &LogOptions,
    ) -> Result<(), StorageError> {
        writer::create(disk, folder, identity, options.segment_bytes)
    }

    /// Recovers the log in `folder` and starts its threads.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        identity: Identity,
        options: LogOptions,
        on_fatal: FatalHook,
    ) -> Result<Log, StorageError> {
        let (log, ()) = Log::open_after(disk, folder, identity, options, on_fatal, |_| Ok(()))?;
        Ok(log)
    }

    /// As [`Log::open`], with a last check before anything on disk is changed. It is told up to
    /// where the log was purged, and so what has to be known without it.
    pub fn open_after<T>(
        disk: Arc<dyn Disk>,
        folder: &Path,
        identity: Identity,
        options: LogOptions,
        on_fatal: FatalHook,
        check: impl FnOnce(Option<EntryId>) -> Result<T, StorageError>,
    ) -> Result<(Log, T), StorageError> {
        let (shared, position, checked) =
            Log::recover(disk, folder, identity, options, on_fatal, check)?;
        Ok((Log::start(shared, position)?, checked))
    }

    /// As [`Log::open`], without threads: nothing can be written.
    #[cfg(feature = "fuzzing")]
    pub fn open_to_read(
        disk: Arc<dyn Disk>,
        folder: &Path,
        identity: Identity,
    ) -> Result<Log, StorageError> {
        let (options, on_fatal) = (LogOptions::default(), Arc::new(|_: &StorageError| {}));
        let (shared, _, ()) = Log::recover(disk, folder, identity, options, on_fatal, |_| Ok(()))?;
        Ok(Log {
            shared,
            workers: Mutex::new(Workers::Threads(Vec::new())),
        })
    }

    fn recover<T>(
        disk: Arc<dyn Disk>,
        folder: &Path,
        identity: Identity,
        options: LogOptions,
        on_fatal: FatalHook,
        check: impl FnOnce(Option<EntryId>) -> Result<T, StorageError>,
    ) -> Result<(Arc<Shared>, writer::Position, T), StorageError> {
        let recovered = recovery::read(&*disk, folder, identity)?;
        let Some(mut recovered) = recovered else {
            return Err(StorageError::Missing {
                path: folder.join(segment::name(1)),
                what: "this server had a log here".to_owned(),
            });
        };
        let checked = check(recovered.view.purged)?;
        recovered.repair(&*disk, folder)?;
        if recovered.torn_bytes() > 0 {
            tracing::warn!(
                folder = %folder.display(),
                bytes = recovered.torn_bytes(),
                "cut off a write that never finished and was never acknowledged"
            );
        }
        let (position, view, files) = writer::Position::from_recovered(recovered);
        let inner = Inner {
            view,
            files,
            remaining: position.remaining(),
            ..Inner::default()
        };
        let shared = Arc::new(Shared {
            disk,
            folder: folder.to_owned(),
            identity,
            seed: checksum_seed(identity.cluster, identity.server),
            options,
            inner: Mutex::new(inner),
            work: Signal::new(tasks::is_simulated()),
            chores: Signal::new(tasks::is_simulated()),
            room: Notify::new(),
            space: watch::Sender::new(true),
            on_fatal,
        });
        Ok((shared, position, checked))
    }

    fn start(shared: Arc<Shared>, position: writer::Position) -> Result<Log, StorageError> {
        let preparer = Preparer::new(shared.clone());
        let writer = Writer::new(shared.clone(), position);
        let workers = if tasks::is_simulated() {
            Workers::Tasks(vec![
                tasks::spawn(writer.run()),
                tasks::spawn(preparer.run()),
            ])
        } else {
            let failed = |error| StorageError::io("start a thread for", &shared.folder, error);
            let name = |name: &str| std::thread::Builder::new().name(name.to_owned());
            let preparing = name("log-prepare").spawn(|| run_on_this_thread(preparer.run()));
            let preparing = preparing.map_err(failed)?;
            let writing = name("log-write").spawn(|| run_on_this_thread(writer.run()));
            Workers::Threads(vec![writing.map_err(failed)?, preparing])
        };
        Ok(Log {
            shared,
            workers: Mutex::new(workers),
        })
    }

    /// Queues entries, which must follow the last one without a gap. They can be read at once;
    /// `done` is called when they are durable. Not bounded: see [`Log::wait_for_room`].
    pub fn append(
        &self,
        entries: impl IntoIterator<Item = LogEntry>,
        done: Box<dyn Completion>,
    ) -> Result<(), StorageError> {
        let mut inner = self.shared.inner.lock();
        inner.check_alive()?;
        let mut count = 0;
        let mut failure = None;
        for entry in entries {
            let length = entry.payload.len();
            if length > ENTRY_BYTES_MAX {
                failure = Some(StorageError::EntryTooLarge {
                    length,
                    limit: ENTRY_BYTES_MAX,
                });
                break;
            }
            if let Err(error) = inner.view.check_next(entry.id.index) {
                failure = Some(error);
                break;
            }
            inner.queued_bytes += ENTRY_OVERHEAD + length;
            inner.queue.entries.push_back(entry.clone());
            inner.view.push(entry);
            count += 1;
        }
        // What was taken before a bad entry is in the log: it has to be written all the same.
        inner
            .queue
            .operations
            .push_back(Operation::Append { count, done });
        drop(inner);
        self.shared.work.wake();
        failure.map_or(Ok(()), Err)
    }

    /// Waits until the queue is shorter than its bound. Call it before [`Log::append`].
    pub async fn wait_for_room(&self) -> Result<(), StorageError> {
        loop {
            let notified = self.shared.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let inner = self.shared.inner.lock();
                inner.check_alive()?;
                if inner.queued_bytes < self.shared.options.queue_bytes_max {
                    return Ok(());
                }
            }
            notified.await;
        }
    }

    /// Queues a vote. `done` is called when it is durable.
    pub fn save_vote(
        &self,
        vote: SavedVote,
        done: Box<dyn Completion>,
    ) -> Result<(), StorageError> {
        self.queue(|inner| {
            inner.view.vote = Some(vote);
            inner
                .queue
                .operations
                .push_back(Operation::Vote(vote, done));
        })
    }

    /// Drops the entries after `last`, for readers at once, on disk in order with all else.
    pub fn truncate_after(&self, last: Option<EntryId>) -> Result<(), StorageError> {
        self.queue(|inner| {
            if let Some(last) = inner.view.truncate(last) {
                inner
                    .truncations
                    .push_back(last.map_or(0, |last| last.index + 1));
                inner.queue.operations.push_back(Operation::Truncate(last));
            }
        })
    }

    /// Drops the entries up to `upto`, for readers at once; their segments go when it is durable.
    pub fn purge(&self, upto: EntryId) -> Result<(), StorageError> {
        self.queue(|inner| {
            if inner.view.purge(upto) {
                inner.purges += 1;
                inner.queue.operations.push_back(Operation::Purge(upto));
            }
        })
    }

    /// Notes what is committed. Written along with the next batch or the next seal: a hint that
    /// costs no sync.
    pub fn save_committed(&self, committed: Option<EntryId>) -> Result<(), StorageError> {
        let mut inner = self.shared.inner.lock();
        inner.check_alive()?;
        inner.view.committed = committed;
        let nothing_is_due = inner.resting;
        drop(inner);
        // Comes right after each batch: a writer that will look again by itself is not woken.
        if nothing_is_due {
            self.shared.work.wake();
        }
        Ok(())
    }

    fn queue(&self, act: impl FnOnce(&mut Inner)) -> Result<(), StorageError> {
        let mut inner = self.shared.inner.lock();
        inner.check_alive()?;
        act(&mut inner);
        drop(inner);
        self.shared.work.wake();
        Ok(())
    }

    /// Where the log begins and ends, with what is queued.
    pub fn state(&self) -> LogState {
        let view = &self.shared.inner.lock().view;
        LogState {
            purged: view.purged,
            last: view.last,
            vote: view.vote,
            committed: view.committed,
        }
    }

    /// How the log fares.
    pub fn stats(&self) -> LogStats {
        let inner = self.shared.inner.lock();
        LogStats {
            queued_bytes: inner.queued_bytes,
            writing_for: inner.writing_since.map(|since| since.elapsed()),
            ..inner.stats
        }
    }

    /// The id of the entry at `index`, also of the last purged one.
    pub fn id_at(&self, index: u64) -> Option<EntryId> {
        self.shared.inner.lock().view.id_at(index)
    }

    /// The last entry of each term among those kept.
    pub fn term_ends(&self) -> Vec<EntryId> {
        self.shared.inner.lock().view.term_ends().collect()
    }

    /// Tells that apply has taken all entries below `index`, so that they may leave memory.
    pub fn note_applied(&self, index: u64) {
        self.shared.inner.lock().view.set_applied_next(index);
    }

    /// Finds the entries of `start..end`, of these at least one and then about `bytes_max` bytes.
    /// The result is what the log holds now, whatever happens before it is read.
    pub fn find(&self, start: u64, end: u64, bytes_max: usize) -> Selection {
        let inner = self.shared.inner.lock();
        let plan = inner.view.plan(start, end, bytes_max);
        let file = |run: Run| (inner.files.get(&run.segment).cloned(), run);
        let on_disk = plan.runs.into_iter().map(file).collect();
        let folder = self.shared.folder.clone();
        Selection::new(on_disk, plan.cached, bytes_max, self.shared.seed, folder)
    }

    /// Whether new writes should be accepted: `false` while the disk has no space for another
    /// segment and the current one is nearly full. What is accepted already has its place.
    pub fn has_space(&self) -> bool {
        *self.shared.space.borrow()
    }

    /// Tells when [`Log::has_space`] changes.
    pub fn space(&self) -> watch::Receiver<bool> {
        self.shared.space.subscribe()
    }

    /// Writes what is queued, seals the log and ends its threads. Blocks.
    pub fn close(&self) -> Result<(), StorageError> {
        self.end(Stop::Close);
        self.outcome()
    }

    /// As [`Log::close`], without blocking.
    pub async fn finish(self: Arc<Self>) -> Result<(), StorageError> {
        let workers = match &mut *self.workers.lock() {
            Workers::Threads(_) => None,
            Workers::Tasks(workers) => Some(std::mem::take(workers)),
        };
        let Some(workers) = workers else {
            return tasks::blocking(move || self.close())
                .await
                .unwrap_or(Err(StorageError::Closed));
        };
        self.ask_to_end(Stop::Close);
        for worker in workers {
            // One that was aborted is one that has ended.
            worker.await.ok();
        }
        self.outcome()
    }

    fn outcome(&self) -> Result<(), StorageError> {
        let inner = self.shared.inner.lock();
        match &inner.failed {
            Some(error) => Err(error.clone()),
            None if inner.closed => Ok(()),
            None => Err(StorageError::Closed),
        }
    }

    fn ask_to_end(&self, stop: Stop) {
        {
            let mut inner = self.shared.inner.lock();
            inner.stop = inner.stop.or(Some(stop));
        }
        self.shared.work.wake();
        self.shared.room.notify_waiters();
    }

    fn end(&self, stop: Stop) {
        self.ask_to_end(stop);
        let Workers::Threads(threads) = &mut *self.workers.lock() else {
            return;
        };
        // The writer ends first, and with it the preparer.
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.end(Stop::Abandon);
    }
}

impl Inner {
    fn check_alive(&self) -> Result<(), StorageError> {
        match (&self.failed, self.stop) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(_)) => Err(StorageError::Closed),
            (None, None) => Ok(()),
        }
    }
}

impl Shared {
    /// Kills the log, once. Returns the first failure.
    fn fail(&self, error: StorageError) -> StorageError {
        let first = {
            let mut inner = self.inner.lock();
            if let Some(first) = &inner.failed {
                return first.clone();
            }
            inner.failed = Some(error.clone());
            error
        };
        tracing::error!(error = %first, "the log has failed; this server must stop");
        self.work.wake();
        self.room.notify_waiters();
        (self.on_fatal)(&first);
        first
    }

    /// Gives the preparer something to do.
    fn ask(&self, inner: &mut Inner, job: Job) {
        inner.jobs.push_back(job);
        self.chores.wake();
    }

    /// Tells whether there is space, if that has changed.
    fn publish_space(&self, inner: &Inner) {
        let space = !inner.full || inner.remaining >= self.options.reserve_bytes;
        self.space
            .send_if_modified(|known| std::mem::replace(known, space) != space);
    }
}

/// Free space of a segment after `offset`.
fn free_after(segment: &Segment, offset: u64) -> u64 {
    debug_assert!(offset >= SEGMENT_HEADER);
    segment.length.saturating_sub(offset)
}
