//! What status pages tell of the ensemble.

use std::sync::atomic::Ordering::Relaxed;

use openraft::async_runtime::watch::WatchReceiver;

use super::{Members, caught_up, hears};

/// What a leader knows of those who follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followers {
    /// Servers that answer, but for the leader.
    pub connected: usize,
    /// Of those: voters that have what the leader has.
    pub synced_voters: usize,
    /// Observers that have.
    pub synced_observers: usize,
    /// Those on their way in, or out, that have.
    pub synced_others: usize,
    /// Since when this server leads.
    pub leader_uptime_ms: u64,
}

impl Members {
    /// How many servers vote.
    pub fn quorum_size(&self) -> usize {
        self.effective().1.voter_ids().count()
    }

    /// Who follows this server; `None` if it does not lead.
    pub fn followers(&self) -> Option<Followers> {
        if !self.leads() {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let since_ms = self.leads_since_ms.load(Relaxed);
        let mut followers = Followers {
            leader_uptime_ms: match since_ms {
                0 => 0,
                since_ms => self.clock.monotonic_ms().saturating_sub(since_ms),
            },
            ..Followers::default()
        };
        for (id, node) in membership.nodes() {
            if *id == self.server || !hears(&metrics, *id) {
                continue;
            }
            followers.connected += 1;
            if !caught_up(&metrics, *id) {
                continue;
            }
            if membership.voter_ids().any(|voter| voter == *id) {
                followers.synced_voters += 1;
            } else if node.observer {
                followers.synced_observers += 1;
            } else {
                followers.synced_others += 1;
            }
        }
        Some(followers)
    }
}
