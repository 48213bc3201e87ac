//! When to take a snapshot, and how much of the log may go then.
//!
//! A snapshot is due after so many entries or bytes of log, and only if something was applied. The
//! log is cut after a snapshot has been read back, and only up to the oldest snapshot that is kept:
//! should the newest turn out damaged, an older one and the log still lead to the same state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Raft;
use crate::storage::snapshots::SnapshotStore;

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

    fn is_due(&self) -> bool {
        self.entries.load(Relaxed) >= self.entries_max || self.bytes.load(Relaxed) >= self.bytes_max
    }

    fn restart(&self) {
        self.entries.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }
}

/// Takes snapshots when they are due, until `stop`.
pub async fn run(
    raft: Raft,
    progress: Arc<Progress>,
    snapshots: SnapshotStore,
    kept: Option<usize>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = progress.due.notified() => {}
            () = stop.cancelled() => return,
        }
        if !progress.is_due() {
            continue;
        }
        progress.restart();
        let compacted = tokio::select! {
            compacted = compact(&raft, &snapshots, kept) => compacted,
            // What is half done is of no harm: a start removes an unfinished snapshot.
            () = stop.cancelled() => return,
        };
        if let Err(error) = compacted {
            tracing::error!(%error, "no snapshot was taken; the log grows until one is");
        }
    }
}

/// Takes one snapshot and cuts what it makes superfluous.
async fn compact(
    raft: &Raft,
    snapshots: &SnapshotStore,
    kept: Option<usize>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut taken = raft.watch_snapshot_progress();
    let applied = raft.watch_apply_progress().get();
    // The last snapshot may have been taken a moment after it was due, and cover all there is. The
    // engine does not count another one of the same entries, so there would be nothing to wait for.
    if taken.get() < applied {
        raft.trigger().snapshot().await?;
        taken.wait_until(|now| *now >= applied).await?;
    }
    let Some(kept) = kept else {
        return Ok(());
    };
    let store = snapshots.clone();
    let oldest = tokio::task::spawn_blocking(move || store.purge(kept)).await??;
    if let Some(oldest) = oldest {
        raft.trigger().purge_log(oldest.index).await?;
    }
    Ok(())
}
