//! When to take a snapshot, and how much of the log may go then.
//!
//! A snapshot is due after so many entries or bytes of log, or so much time. The log is cut after a
//! snapshot has been read back, and only up to the oldest snapshot that is kept: should the newest
//! turn out damaged, an older one and the log still lead to the same state.
//!
//! Writing a large state costs more than keeping a small log, so no snapshot is due before the log
//! has grown by as much as the state holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use openraft::errors::Fatal;
use quorate_state::canary::{Canary, planted};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::membership::{Members, OutOfService};
use super::snapshot_io::{self, WriteError};
use super::types::TypeConfig;
use super::{Applier, Raft};
use crate::metrics::Metrics;
use crate::replica::Replica;
use crate::storage::StorageError;
use crate::storage::snapshots::SnapshotStore;

/// How long a full disk is left alone before the next attempt.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(5);

/// What was applied since the last snapshot.
#[derive(Debug)]
pub struct Progress {
    entries_max: u64,
    bytes_max: u64,
    entries: AtomicU64,
    bytes: AtomicU64,
    due: Notify,
}

impl Progress {
    pub fn new(entries_max: u64, bytes_max: u64) -> Self {
        Self {
            entries_max,
            bytes_max,
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            due: Notify::new(),
        }
    }

    pub fn on_applied(&self, entries: u64, bytes: u64) {
        let entries = self.entries.fetch_add(entries, Relaxed) + entries;
        let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        if entries >= self.entries_max || bytes >= self.bytes_max {
            self.due.notify_one();
        }
    }

    /// Whether a state of `state_bytes` should be written out now.
    fn is_due(&self, state_bytes: u64) -> bool {
        self.entries.load(Relaxed) >= self.entries_max
            || self.bytes.load(Relaxed) >= self.bytes_max.max(state_bytes)
    }

    /// Whether anything was applied since the last snapshot.
    fn has_begun(&self) -> bool {
        self.entries.load(Relaxed) > 0
    }

    fn restart(&self) {
        self.entries.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }
}

/// Takes snapshots and cuts the log.
pub struct Compaction {
    pub(super) raft: Raft,
    pub(super) members: Arc<Members>,
    pub(super) replica: Arc<Replica>,
    pub(super) progress: Arc<Progress>,
    /// A snapshot is due after so long as well, if anything was applied since.
    pub(super) interval: Option<Duration>,
    pub(super) snapshots: SnapshotStore,
    /// How many snapshots stay; `None` keeps all, and all of the log.
    pub(super) kept: Option<usize>,
    pub(super) metrics: Arc<Metrics>,
    /// Why the server must stop, once that is so.
    pub(super) failed: watch::Sender<Option<String>>,
}

/// Why a round of compaction came to nothing.
#[derive(Debug, thiserror::Error)]
enum CompactError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Engine(#[from] Fatal<TypeConfig>),
    #[error("the server is stopping")]
    Stopping,
}

impl Compaction {
    /// Takes snapshots when they are due, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let overdue = tokio::select! {
                () = self.progress.due.notified() => false,
                () = after(self.interval) => self.progress.has_begun(),
                () = stop.cancelled() => return,
            };
            let state_bytes = self
                .replica
                .inspect(quorate_state::State::approximate_data_size);
            // What is written of a state that is wrong would take the place of what is right.
            let is_wrong = self.members.out_of_service() == Some(OutOfService::Differs);
            if is_wrong || !(overdue || self.progress.is_due(state_bytes)) {
                continue;
            }
            self.progress.restart();
            match self.compact().await {
                Ok(()) => {}
                Err(CompactError::Write(error @ WriteError::NoSpace(_))) => {
                    tracing::error!(%error, "the log grows until there is");
                    tokio::select! {
                        () = tokio::time::sleep(NO_SPACE_PAUSE) => {}
                        () = stop.cancelled() => return,
                    }
                    self.progress.on_applied(self.progress.entries_max, 0);
                }
                Err(CompactError::Engine(_) | CompactError::Stopping) => return,
                Err(error) => {
                    self.failed.send_replace(Some(error.to_string()));
                    return;
                }
            }
        }
    }

    /// Takes one snapshot and cuts what it makes superfluous.
    async fn compact(&self) -> Result<(), CompactError> {
        let mut source = self
            .raft
            .with_state_machine(|applier: &mut Applier| {
                let source = applier.snapshot_source();
                Box::pin(async move { source })
            })
            .await?;
        if planted(Canary::FuzzySnapshot) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            source.view = self.replica.view();
        }
        let covered = source.last_applied;
        snapshot_io::write(source, self.snapshots.clone()).await?;
        self.metrics.snapshots.fetch_add(1, Relaxed);

        // The engine cuts no log that it does not know to be in a snapshot.
        let mut known = self.raft.watch_snapshot_progress();
        self.raft.trigger().snapshot().await?;
        known
            .wait_until_ge(&covered)
            .await
            .map_err(|_| CompactError::Stopping)?;
        let Some(kept) = self.kept else {
            return Ok(());
        };
        let store = self.snapshots.clone();
        let oldest = crate::tasks::blocking(move || store.purge(kept))
            .await
            .map_err(|_| CompactError::Stopping)??;
        if let Some(oldest) = oldest {
            self.raft.trigger().purge_log(oldest.index).await?;
        }
        Ok(())
    }
}

/// Resolves after so long, or never.
async fn after(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn a_snapshot_is_due_after_enough_entries_or_bytes() {
        let progress = Progress::new(10, 1000);
        progress.on_applied(9, 999);
        assert!(!progress.is_due(0));
        progress.on_applied(1, 0);
        assert!(progress.is_due(0), "entries");
        progress.restart();
        progress.on_applied(1, 1000);
        assert!(progress.is_due(0), "bytes");
        assert!(!progress.is_due(1001), "the state is larger than the log");
    }
}
