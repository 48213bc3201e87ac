//! Who belongs to the ensemble: what clients read of it, how it changes, and who leads it.
//!
//! The engine's memberships are the truth. Not every server in them is a member as clients know it:
//! one may be on its way in (it catches up before it votes) or out. Changes
//! ([`change`]) are made by the leader, one at a time. [`Members::keep_up`] does what nobody asks for: it ends what
//! a leader has left half-done, takes in the observers of the configuration, and hands leadership
//! over when this server's disk hangs.

pub mod caller;
pub mod change;
pub mod plan;
mod returning;
mod status;
mod transfer;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use quorate_protocol::Zxid;
use quorate_state::Configuration;
use tokio::sync::watch;

use super::Raft;
use super::applier::Zxids;
use super::pump::{Leadership, leadership};
use super::types::{LogId, Membership, PeerNode, Standing, TypeConfig};
use crate::clock::Clock;
use crate::config::Config;
use crate::peer_port::Peers;
use crate::replica::Replica;
use crate::storage::log::Log;

use self::returning::returning;
pub use self::status::Followers;

type Metrics = openraft::RaftMetrics<TypeConfig>;

/// A server that has not answered for so long does not count as one that is there: twenty
/// heartbeats.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// A server so few entries behind has what the others have: it is a moment's work.
const LAG_MAX: u64 = 4096;

/// What the configuration says about changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRules {
    /// `reconfigEnabled`.
    pub reconfig_enabled: bool,
    /// This server is no ensemble, and no change makes it one.
    pub standalone: bool,
    /// Participants there have to be.
    pub voters_min: usize,
    /// The observers that the configuration names.
    pub observers: BTreeMap<u64, PeerNode>,
}

impl MemberRules {
    pub fn of(config: &Config, observers: BTreeMap<u64, PeerNode>) -> Self {
        Self {
            reconfig_enabled: config.reconfig_enabled,
            standalone: !config.is_ensemble(),
            // ZooKeeper's.
            voters_min: if config.standalone_enabled { 2 } else { 1 },
            observers,
        }
    }
}

/// Why a server that runs well does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfService {
    #[error(
        "this server was removed from the ensemble: clients find the others in their own configuration"
    )]
    Removed,
    #[error(
        "this server's state differs from that of the majority: keep its files, and start it anew with --rejoin"
    )]
    Differs,
}

/// Why a server does not stand for election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Abstention {
    SlowDisk,
    FullDisk,
    Differs,
}

/// Whether a server stands for election.
#[derive(Debug, Default)]
struct Candidacy {
    against: BTreeSet<Abstention>,
    /// There is no leader, and nobody else seems to be able to win.
    is_needed: bool,
    abstains: bool,
}

/// The members, as one server keeps them.
pub struct Members {
    pub(super) raft: Raft,
    pub(super) server: u64,
    pub(super) peers: Peers,
    pub(super) replica: Arc<Replica>,
    zxids: Arc<Zxids>,
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    metrics: Arc<crate::metrics::Metrics>,
    rules: MemberRules,
    /// A change that a client has asked for is under way.
    changing: AtomicBool,
    /// Who may ask the engine for a change.
    turn: tokio::sync::Mutex<()>,
    handing_over: tokio::sync::Mutex<()>,
    candidacy: Mutex<Candidacy>,
    /// Since when this server leads, in milliseconds of the monotonic clock; 0 while it does not.
    leads_since_ms: AtomicU64,
    service: watch::Sender<Option<OutOfService>>,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

impl Members {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, where everything is wired up"
    )]
    pub(super) fn new(
        raft: Raft,
        server: u64,
        peers: Peers,
        replica: Arc<Replica>,
        zxids: Arc<Zxids>,
        log: Arc<Log>,
        clock: Arc<dyn Clock>,
        metrics: Arc<crate::metrics::Metrics>,
        rules: MemberRules,
    ) -> Self {
        Self {
            raft,
            server,
            peers,
            replica,
            zxids,
            log,
            clock,
            metrics,
            rules,
            changing: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(()),
            handing_over: tokio::sync::Mutex::new(()),
            candidacy: Mutex::default(),
            leads_since_ms: AtomicU64::new(0),
            service: watch::Sender::new(None),
        }
    }

    /// Why this server does not serve clients, if it does not.
    pub fn out_of_service(&self) -> Option<OutOfService> {
        *self.service.borrow()
    }

    /// Tells when [`Members::out_of_service`] changes.
    pub fn service(&self) -> watch::Receiver<Option<OutOfService>> {
        self.service.subscribe()
    }

    /// Who has it may ask the engine to change the membership.
    pub(super) async fn take_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The leader, as far as it is known.
    fn leader(&self) -> Option<u64> {
        match leadership(&self.raft, self.server) {
            Leadership::Mine { .. } => Some(self.server),
            Leadership::Other { leader, .. } => Some(leader),
            Leadership::Unknown => None,
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.leader() == Some(self.server)
    }

    /// The newest membership in the log, and the entry that set it.
    fn effective(&self) -> (Option<LogId>, Membership) {
        let metrics = self.raft.server_metrics();
        let now = metrics.borrow_watched();
        let effective = &now.membership_config;
        (*effective.log_id(), effective.membership().clone())
    }

    /// Who votes, if that is settled: the newest membership in the log is committed, and no change is
    /// under way.
    pub fn voters(&self) -> Option<BTreeSet<u64>> {
        let (at, membership) = self.effective();
        let is_settled = self.is_committed(at) && membership.get_joint_config().len() == 1;
        is_settled.then(|| membership.voter_ids().collect())
    }

    /// Whether the membership that `at` has set is the newest that is committed.
    fn is_committed(&self, at: Option<LogId>) -> bool {
        let metrics = self.raft.server_metrics();
        let now = metrics.borrow_watched();
        *now.committed_membership_config.log_id() == at
    }

    /// A majority has `digest` at `zxid`. If this server has another, it stops serving. Returns
    /// whether it has.
    pub(super) fn contradict(&self, zxid: Zxid, digest: u64) -> bool {
        let own = self.replica.digests().get(&zxid).copied();
        let Some(own) = own.filter(|own| *own != digest) else {
            return false;
        };
        let is_news = self
            .service
            .send_replace(Some(OutOfService::Differs))
            .is_none_or(|before| before != OutOfService::Differs);
        if is_news {
            self.metrics.digest_mismatches.fetch_add(1, Relaxed);
            tracing::error!(
                %zxid,
                own = %format_args!("{own:#018x}"),
                majority = %format_args!("{digest:#018x}"),
                "this server's state differs from that of the majority: it stops serving"
            );
            self.abstain(Abstention::Differs, true);
        }
        true
    }

    /// Changes this server's state as no entry of the log says.
    #[cfg(test)]
    pub(crate) fn corrupt(&self) {
        self.replica.corrupt();
    }

    /// Notes a reason not to stand for election, or that it is gone.
    fn abstain(&self, reason: Abstention, abstains: bool) {
        let mut candidacy = self.candidacy.lock();
        if abstains {
            candidacy.against.insert(reason);
        } else {
            candidacy.against.remove(&reason);
        }
        self.stand(&mut candidacy);
    }

    /// With `is_needed` this server stands for election whatever there is against it.
    fn abstain_unless(&self, is_needed: bool) {
        let mut candidacy = self.candidacy.lock();
        candidacy.is_needed = is_needed;
        self.stand(&mut candidacy);
    }

    fn stand(&self, candidacy: &mut Candidacy) {
        let abstains = !candidacy.against.is_empty() && !candidacy.is_needed;
        if candidacy.abstains != abstains {
            candidacy.abstains = abstains;
            self.raft.runtime_config().elect(!abstains);
        }
    }
}

/// Whether clients are to know of this server.
fn is_member(node: &PeerNode) -> bool {
    node.standing == Standing::Member && !node.line.is_empty()
}

/// What clients are to read of a membership. `None` while two memberships are in force: one is on
/// its way out, and the other may yet be taken back.
pub(crate) fn configuration(membership: &Membership) -> Option<Configuration> {
    if membership.get_joint_config().len() != 1 {
        return None;
    }
    let mut configuration = Configuration::default();
    // One that has lost its data is one of them all the time, and so is what is known of it.
    let returning = membership.nodes().flat_map(|(_, node)| &node.returning);
    let returning = returning.map(|(id, returning)| (id, &returning.node));
    let nodes: BTreeMap<&u64, &PeerNode> = returning.chain(membership.nodes()).collect();
    for (id, node) in nodes {
        configuration.servers.insert(*id);
        configuration.changed_ms = configuration.changed_ms.max(node.changed_ms);
        if is_member(node) {
            let _ = writeln!(configuration.members, "server.{id}={}", node.line);
        }
    }
    Some(configuration)
}

/// Whether the leader, whose metrics these are, has heard from a server of late.
pub(super) fn hears(metrics: &Metrics, id: u64) -> bool {
    if id == metrics.id {
        return true;
    }
    let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(&id));
    heard
        .copied()
        .flatten()
        .is_some_and(|at| openraft::Instant::elapsed(&*at) < HEARD_WITHIN)
}

/// The last entry that the leader, whose metrics these are, knows to be on a server's disk. `None`
/// for one that was never reached.
fn matched(metrics: &Metrics, id: u64) -> Option<u64> {
    if id == metrics.id {
        return metrics.last_log_index;
    }
    let replication = metrics.replication.as_ref()?;
    replication.get(&id).copied().flatten().map(|at| at.index)
}

/// How many entries a server is behind the leader, whose metrics these are.
fn lag(metrics: &Metrics, id: u64) -> Option<u64> {
    let last = metrics.last_log_index.unwrap_or(0);
    matched(metrics, id).map(|matched| last.saturating_sub(matched))
}

/// Whether a server has, to all purposes, what the leader has, whose metrics these are.
pub(super) fn caught_up(metrics: &Metrics, id: u64) -> bool {
    lag(metrics, id).is_some_and(|entries| entries <= LAG_MAX)
}

#[cfg(test)]
mod tests;
