//! What has to be seen to without anybody asking.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Abstention, Members, OutOfService, caught_up, hears, matched, returning};
use crate::consensus::types::{LogId, Membership, PeerNode, Standing};

/// How often to look when nothing has changed: for the disk, and for waits that have an end.
const INTERVAL: Duration = Duration::from_millis(250);
/// A membership in two parts that has not changed for so long was left behind by another leader.
const HALF_DONE: Duration = Duration::from_secs(2);
/// How long a server that leaves is told so, if it does not answer.
const FAREWELL_MAX: Duration = Duration::from_secs(3);
/// Ten heartbeats: by then it knows that its leaving is committed.
const FAREWELL_AFTER: Duration = Duration::from_millis(500);
/// A removed server's clients have so long to read who is left.
const REMOVED_GRACE: Duration = Duration::from_secs(1);
/// A write to this server's disk that takes so long is one too many for a leader.
const DISK_PATIENCE: Duration = Duration::from_secs(1);
/// After handing leadership over for its disk, this server does not stand for election for so long,
/// and does not hand over again for as long.
const HOLD_OFF: Duration = Duration::from_secs(30);
/// Without a leader for so long, any leader is better than none: several elections have failed.
const LEADERLESS_MAX: Duration = Duration::from_secs(2);
/// A hand-over that takes longer has failed.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);

/// What the upkeep remembers from look to look.
#[derive(Default)]
struct Seen {
    /// The newest membership, and since when it is that.
    at: Option<LogId>,
    since: Option<Instant>,
    /// Since when all who leave have been told, or cannot be.
    told_since: Option<Instant>,
    removed_since: Option<Instant>,
    /// When leadership was last handed over for the disk.
    handed_over: Option<Instant>,
    /// The same, since the disk has been full.
    handed_over_full: Option<Instant>,
    leaderless_since: Option<Instant>,
}

impl Members {
    /// Sees to the members until `stop`.
    pub(in crate::consensus) async fn keep_up(self: Arc<Self>, stop: CancellationToken) {
        let mut metrics = self.raft.server_metrics();
        let mut seen = Seen::default();
        loop {
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(INTERVAL) => {}
                () = stop.cancelled() => return,
            }
            let look = self.look(&mut seen);
            tokio::select! {
                () = look => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn look(&self, seen: &mut Seen) {
        let (at, membership) = self.effective();
        if seen.at != at || seen.since.is_none() {
            *seen = Seen {
                at,
                since: Some(Instant::now()),
                removed_since: seen.removed_since,
                handed_over: seen.handed_over,
                handed_over_full: seen.handed_over_full,
                leaderless_since: seen.leaderless_since,
                told_since: None,
            };
        }
        if self.is_committed(at) {
            self.notice_own_standing(seen, &membership);
        }
        let is_full = !self.log.has_space();
        self.abstain(Abstention::FullDisk, is_full);
        seen.handed_over_full.take_if(|_| !is_full);
        self.stand_again(seen);
        if !self.leads() {
            self.leads_since_ms.store(0, Relaxed);
            return;
        }
        if self.leads_since_ms.load(Relaxed) == 0 {
            self.leads_since_ms
                .store(self.clock.monotonic_ms().max(1), Relaxed);
        }
        self.watch_disk(seen).await;
        if self.out_of_service() == Some(OutOfService::Differs) {
            self.hand_over(HAND_OVER_PATIENCE).await;
            return;
        }
        // A change that was asked for sees to all of this itself.
        let Ok(_turn) = self.turn.try_lock() else {
            return;
        };
        if !self.is_committed(at) || !self.leads() {
            return;
        }
        if membership.get_joint_config().len() != 1 {
            self.end_half_done(seen, at).await;
        } else if !membership.voter_ids().any(|id| id == self.server) {
            self.hand_over(HAND_OVER_PATIENCE).await;
        } else if returning(&membership).is_none() {
            self.forget_leaving(seen, at, &membership).await;
            self.admit_observers(at, &membership).await;
        }
    }

    /// A server that was removed says so, and stops serving; one that was taken in again serves.
    fn notice_own_standing(&self, seen: &mut Seen, membership: &Membership) {
        let Some(node) = membership.get_node(&self.server) else {
            return;
        };
        if membership.get_joint_config().len() != 1 {
            return;
        }
        if node.standing != Standing::Leaving {
            seen.removed_since = None;
            self.service.send_if_modified(|service| {
                let was_removed = *service == Some(OutOfService::Removed);
                if was_removed {
                    tracing::info!("this server is on the list of members again");
                    *service = None;
                }
                was_removed
            });
            return;
        }
        let since = *seen.removed_since.get_or_insert_with(|| {
            tracing::warn!("this server was removed from the ensemble, and stops serving");
            Instant::now()
        });
        if since.elapsed() >= REMOVED_GRACE {
            self.service.send_if_modified(|service| {
                let is_new = service.is_none();
                service.get_or_insert(OutOfService::Removed);
                is_new
            });
        }
    }

    /// The leader that began a change is gone: this one ends it.
    async fn end_half_done(&self, seen: &Seen, at: Option<LogId>) {
        if seen.since.is_some_and(|since| since.elapsed() >= HALF_DONE) {
            tracing::info!("ending a change of the members that another leader has begun");
            self.try_change(at, ChangeMembers::AddVoterIds(BTreeSet::new()))
                .await;
        }
    }

    /// Those who leave, and know it, are no longer replicated to.
    async fn forget_leaving(&self, seen: &mut Seen, at: Option<LogId>, membership: &Membership) {
        let leaving: BTreeSet<u64> = membership
            .nodes()
            .filter(|(_, node)| node.standing == Standing::Leaving)
            .map(|(id, _)| *id)
            .collect();
        if leaving.is_empty() {
            return;
        }
        let is_late = seen
            .since
            .is_some_and(|since| since.elapsed() >= FAREWELL_MAX);
        let knows_all = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let index = at.map(|at| at.index);
            leaving
                .iter()
                .all(|id| matched(&metrics, *id) >= index || !hears(&metrics, *id))
        };
        if !knows_all && !is_late {
            seen.told_since = None;
            return;
        }
        let told_since = *seen.told_since.get_or_insert_with(Instant::now);
        if told_since.elapsed() >= FAREWELL_AFTER {
            let change = ChangeMembers::RemoveNodes(leaving.clone());
            if self.try_change(at, change).await {
                tracing::info!(?leaving, "servers that were removed are forgotten");
            }
        }
    }

    /// The observers of the configuration belong to the ensemble, until a client has changed the
    /// members: from then on the log alone says who does.
    async fn admit_observers(&self, at: Option<LogId>, membership: &Membership) {
        if membership.nodes().any(|(_, node)| node.changed_ms != 0) {
            return;
        }
        let missing: BTreeMap<u64, PeerNode> = self
            .rules
            .observers
            .iter()
            .filter(|(id, _)| membership.get_node(id).is_none())
            .map(|(id, node)| (*id, node.clone()))
            .collect();
        if !missing.is_empty() {
            tracing::info!(observers = ?missing.keys(), "taking in the observers of the configuration");
            self.try_change(at, ChangeMembers::AddNodes(missing)).await;
        }
    }

    async fn try_change(&self, at: Option<LogId>, change: ChangeMembers<u64, PeerNode>) -> bool {
        let changed = self.change_membership(at, change).await;
        if let Err(refusal) = &changed {
            tracing::debug!(%refusal, "the upkeep of the members has to wait");
        }
        changed.is_ok()
    }

    /// A leader whose disk hangs while the others write holds everybody up: votes and snapshots of
    /// its own wait, and should another server fail, so does every write. One whose disk is full lets
    /// no session expire, and soon hangs as well.
    async fn watch_disk(&self, seen: &mut Seen) {
        let is_full = !self.log.has_space();
        let hangs = self
            .log
            .stats()
            .writing_for
            .is_some_and(|d| d >= DISK_PATIENCE);
        let last = match is_full {
            true => &mut seen.handed_over_full,
            false => &mut seen.handed_over,
        };
        if !hangs && !is_full || is_within(*last, HOLD_OFF) || !self.others_keep_up() {
            return;
        }
        *last = Some(Instant::now());
        if is_full {
            tracing::warn!("this server's disk is full: handing leadership over");
        } else {
            tracing::warn!("this server's disk takes too long: handing leadership over");
            self.abstain(Abstention::SlowDisk, true);
        }
        self.hand_over(HAND_OVER_PATIENCE).await;
    }

    /// Whether a majority can do without this server.
    fn others_keep_up(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters = membership.voter_ids().count();
        let others = membership
            .voter_ids()
            .filter(|id| *id != self.server && hears(&metrics, *id) && caught_up(&metrics, *id))
            .count();
        others > voters / 2
    }

    /// Stands for election again when the reason not to is gone, or nobody else can be elected.
    fn stand_again(&self, seen: &mut Seen) {
        if seen.handed_over.is_some() && !is_within(seen.handed_over, HOLD_OFF) {
            self.abstain(Abstention::SlowDisk, false);
        }
        let is_needed = match self.leader() {
            Some(_) => {
                seen.leaderless_since = None;
                false
            }
            None => {
                let since = *seen.leaderless_since.get_or_insert_with(Instant::now);
                since.elapsed() >= LEADERLESS_MAX
            }
        };
        self.abstain_unless(is_needed);
    }
}

fn is_within(at: Option<Instant>, duration: Duration) -> bool {
    at.is_some_and(|at| at.elapsed() < duration)
}
