//! Hands leadership to another server, because this one stops, is removed, or cannot keep up.
//!
//! The engine takes no writes from the moment it is told to, so an attempt that comes to nothing must
//! not stay: another server is tried, and in the end this one falls silent, which makes the others
//! elect one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use super::{Members, caught_up, hears, matched};
use crate::consensus::pump::{Leadership, leadership, leadership_after};

/// One server's turn: it has to write the last entries to its disk and win an election.
const ATTEMPT: Duration = Duration::from_millis(500);
/// How long the others take to miss the leader, and to elect another, at most.
const SILENCE: Duration = Duration::from_secs(2);

impl Members {
    /// Makes another server the leader, if this one is, because this one is about to stop. Returns
    /// whether it leads no longer.
    pub async fn hand_over_to_stop(&self, patience: Duration) -> bool {
        // Two at a time would undo each other.
        let _handing = self.handing_over.lock().await;
        self.try_successors(patience).await;
        !self.leads()
    }

    /// Makes another server the leader, if this one is. Returns whether it leads no longer.
    pub(in crate::consensus) async fn hand_over(&self, patience: Duration) -> bool {
        let _handing = self.handing_over.lock().await;
        if self.try_successors(patience).await && self.leads() {
            self.fall_silent().await;
        }
        !self.leads()
    }

    /// Returns whether the engine was told to hand leadership over: then it takes no writes.
    async fn try_successors(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut tried = BTreeSet::new();
        while let now @ Leadership::Mine { .. } = leadership(&self.raft, self.server) {
            let left = deadline.saturating_duration_since(Instant::now());
            let successor = self.successor(&tried).filter(|_| !left.is_zero());
            let Some(to) = successor else { break };
            tried.insert(to);
            tracing::info!(to, "handing leadership over");
            if self.raft.trigger().transfer_leader(to).await.is_err() {
                break;
            }
            let changed = leadership_after(&self.raft, self.server, now);
            let _ = tokio::time::timeout(ATTEMPT.min(left), changed).await;
        }
        !tried.is_empty()
    }

    /// The voter that has most of the log, of those that answer and were not tried.
    fn successor(&self, tried: &BTreeSet<u64>) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership
            .voter_ids()
            .filter(|id| *id != self.server && !tried.contains(id))
            .filter(|id| hears(&metrics, *id) && caught_up(&metrics, *id))
            .max_by_key(|id| matched(&metrics, *id))
    }

    /// Lets the others miss this leader.
    async fn fall_silent(&self) {
        tracing::warn!("nobody took leadership over: falling silent, so that the others elect");
        let now = leadership(&self.raft, self.server);
        self.raft.runtime_config().heartbeat(false);
        let changed = leadership_after(&self.raft, self.server, now);
        let _ = tokio::time::timeout(SILENCE, changed).await;
        self.raft.runtime_config().heartbeat(true);
    }
}
