//! The worker that makes the next segment and removes purged ones, so that the writer never waits
//! for either.
//!
//! A disk without space is not a failure here: nothing depends on a segment that is not made yet.
//! It is tried again after a while and after each removal. Any other failure ends the log.

use std::sync::Arc;
use std::time::Duration;

use super::super::StorageError;
use super::segment::{self, Draft, Segment};
use super::{Shared, Stop};

/// The next segment is zeroed twice as fast as the current one fills, so it is ready in time, and in
/// pieces of at least this many bytes: one takes the disk less than a millisecond, and delays few of
/// the log's own syncs.
const PIECE: u64 = 256 << 10;
/// How long to wait for the current segment to fill by enough for a piece, before zeroing one all the
/// same: 64 MiB are ready within half a minute where nothing happens.
const PIECE_PATIENCE: Duration = Duration::from_millis(100);
/// How often to look.
const PIECE_LOOK: Duration = Duration::from_millis(20);

impl Shared {
    /// How far to zero the next segment of `length` bytes now, where `zeroed` bytes are done; `None`
    /// when nobody will need it.
    async fn pace(&self, zeroed: u64, length: u64) -> Option<u64> {
        let mut waited = Duration::ZERO;
        loop {
            let used = {
                let inner = self.inner.lock();
                // The last piece, too: there is nothing to spread any more.
                if inner.starved || length.saturating_sub(zeroed) <= PIECE {
                    return Some(length);
                }
                if inner.stop.is_some() || inner.failed.is_some() {
                    return None;
                }
                self.options.segment_bytes.saturating_sub(inner.remaining)
            };
            let target = used.saturating_mul(2).min(length);
            let is_enough = target >= zeroed.saturating_add(PIECE).min(length);
            // Not at the first look: under load the piece has grown by the second, and a few large
            // ones disturb the log less than many small ones.
            if is_enough && !waited.is_zero() {
                return Some(target);
            }
            if waited >= PIECE_PATIENCE {
                return Some(zeroed + PIECE);
            }
            self.chores.sleep(PIECE_LOOK).await;
            waited += PIECE_LOOK;
        }
    }
}

/// What the writer asks for. The preparer ends when the writer is gone.
#[derive(Debug)]
pub(crate) enum Job {
    /// Make this segment, replacing a spare one of that sequence.
    Prepare { sequence: u64, length: u64 },
    /// Remove these segments; the lowest sequence first, so that a crash leaves no gap.
    Remove(Vec<u64>),
}

pub(crate) struct Preparer {
    shared: Arc<Shared>,
    /// The segment that could not be made so far.
    wanted: Option<(u64, u64)>,
}

impl Preparer {
    pub(crate) fn new(shared: Arc<Shared>) -> Preparer {
        Preparer {
            shared,
            wanted: None,
        }
    }

    pub(crate) async fn run(mut self) {
        while let Some(job) = self.next_job().await {
            let done = match job {
                Some(Job::Prepare { sequence, length }) => {
                    self.wanted = Some((sequence, length));
                    self.prepare().await
                }
                Some(Job::Remove(sequences)) => match self.remove(&sequences) {
                    Ok(()) => self.prepare().await,
                    Err(error) => Err(error),
                },
                None => self.prepare().await,
            };
            if let Err(error) = done {
                self.shared.fail(error);
                return;
            }
        }
    }

    /// The next job; `Some(None)` is to try again what could not be done, `None` is the end.
    async fn next_job(&self) -> Option<Option<Job>> {
        let shared = &self.shared;
        let mut timed_out = false;
        loop {
            let wait = {
                let mut inner = shared.inner.lock();
                if let Some(job) = inner.jobs.pop_front() {
                    return Some(Some(job));
                }
                if inner.writer_ended {
                    return None;
                }
                if timed_out {
                    return Some(None);
                }
                let patience = self.wanted.map(|_| shared.options.space_retry);
                shared.chores.wait(inner, patience)
            };
            timed_out = wait.await;
        }
    }

    async fn prepare(&mut self) -> Result<(), StorageError> {
        let Some((sequence, length)) = self.wanted else {
            return Ok(());
        };
        if self.shared.inner.lock().stop == Some(Stop::Abandon) {
            return Ok(());
        }
        let shared = &self.shared;
        let made = self.make(sequence, length).await;
        let mut inner = shared.inner.lock();
        match made {
            Ok(segment) => {
                self.wanted = None;
                inner.spare = Some(segment);
                if std::mem::take(&mut inner.full) {
                    tracing::info!("there is space for the log again");
                }
            }
            Err(StorageError::Closed) => return Ok(()),
            Err(error) if error.is_no_space() || error.is_out_of_descriptors() => {
                if !std::mem::replace(&mut inner.full, true) {
                    tracing::error!(%error, "no space for the next log segment; free some");
                }
            }
            Err(error) => return Err(error),
        }
        shared.publish_space(&inner);
        drop(inner);
        shared.work.wake();
        Ok(())
    }

    async fn make(&self, sequence: u64, length: u64) -> Result<Segment, StorageError> {
        let shared = &self.shared;
        let mut draft = Draft::begin(
            &*shared.disk,
            &shared.folder,
            shared.identity,
            sequence,
            length,
        )?;
        while !draft.is_zeroed() {
            let Some(to) = shared.pace(draft.zeroed(), length).await else {
                draft.abandon(&*shared.disk)?;
                return Err(StorageError::Closed);
            };
            draft.zero(&*shared.disk, to)?;
        }
        draft.finish(&*shared.disk)
    }

    fn remove(&self, sequences: &[u64]) -> Result<(), StorageError> {
        let shared = &self.shared;
        for sequence in sequences {
            shared.inner.lock().files.remove(sequence);
            let path = shared.folder.join(segment::name(*sequence));
            segment::remove_if_there(&*shared.disk, &path)?;
        }
        let synced = shared.disk.sync_folder(&shared.folder);
        synced.map_err(StorageError::during("sync", &shared.folder))
    }
}
