//! The one seam to the Raft engine: propose, applied entries, read barrier, status.
//!
//! Nothing outside this folder knows the engine. A proposal is on its ordered way to the log when
//! [`Consensus::propose`] returns; its answer comes from the replica, when the entry is applied on
//! the server whose connection it came from. A single server is an ensemble of one, by the same
//! code.

pub mod admission;
pub mod agreement;
pub mod applier;
pub mod compaction;
mod duties;
pub mod formation;
pub mod gate;
pub mod log_store;
pub mod membership;
pub mod network;
pub mod proposals;
pub mod pump;
pub mod rounds;
pub mod runtime;
mod service;
pub mod snapshot_io;
mod steering;
#[cfg(test)]
mod tests;
mod translate;
pub mod types;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use openraft::{ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use quorate_protocol::{SessionId, Zxid};
use quorate_state::{Action, Command, Connection, Origin, Rules, State};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use admission::Admission;

use self::agreement::Agreement;
use self::applier::Applier;
use self::compaction::{Compaction, Progress};
use self::formation::{FormationError, Plan};
use self::log_store::LogStore;
use self::membership::caller::Change;
use self::membership::plan::Wish;
use self::membership::{MemberRules, Members};
use self::proposals::Proposals;
use self::pump::{Leadership, Pump};
use self::rounds::{Rounds, Waiter};
use self::types::{LogId, PeerNode, Proposal, StoredMembership, TypeConfig};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::peer_port::{Answer, Peers, Question};
use crate::replica::Replica;
use crate::session_tracker::SessionTracker;
use crate::storage::StorageError;
use crate::storage::snapshots::SnapshotStore;
use crate::tasks::on_this_host;

type Raft = openraft::Raft<TypeConfig, Applier>;

/// How long an ensemble of one may take to apply its log at start-up before it says so again.
const RECOVERY_REPORT: Duration = Duration::from_secs(10);

/// What tells the connections of this run of the server from those of any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    server: u64,
    run: u32,
}

impl Incarnation {
    /// `run` is drawn at random at every start: entries that an earlier run proposed and this one
    /// applies must find nobody to answer.
    pub fn new(server: u64, run: u32) -> Self {
        Self { server, run }
    }

    /// The first of this run's connection numbers. 0 is never one: it stands for the server itself.
    pub fn first_connection(self) -> u64 {
        u64::from(self.run) << 32 | 1
    }

    /// Whether it is this run of this server.
    fn is_run(self, server: u64, run: u32) -> bool {
        (self.server, self.run) == (server, run)
    }

    /// Whether a connection of this run has proposed it.
    fn proposed(self, connection: Connection) -> bool {
        connection.server == self.server
            && connection.number >> 32 == u64::from(self.run)
            && connection.number != 0
    }
}

/// The engine could not be started, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the Raft engine does not start: {0}")]
    Engine(String),
    #[error(transparent)]
    Formation(#[from] FormationError),
}

/// The engine has stopped: the server is shutting down, or its storage has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct Stopped;

/// What the engine is started with.
pub struct Parts {
    pub server: u64,
    pub incarnation: Incarnation,
    pub cluster: u64,
    /// How to begin.
    pub plan: Plan,
    pub peers: Peers,
    pub rules: Rules,
    pub log: LogStore,
    /// Whether the log has room for more.
    pub space: watch::Receiver<bool>,
    pub snapshots: SnapshotStore,
    /// What the newest snapshot covers; `None` without one.
    pub last_applied: Option<LogId>,
    pub membership: StoredMembership,
    pub replica: Arc<Replica>,
    pub sessions: Arc<SessionTracker>,
    pub admission: Arc<Admission>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub snapshot_entries: u64,
    pub snapshot_log_bytes: u64,
    pub snapshot_interval: Option<Duration>,
    pub snapshots_kept: Option<usize>,
    /// How often a server tells the leader which of its sessions showed life.
    pub touch_interval: Duration,
    /// How long a server may hear of no majority before it stops serving.
    pub isolation_limit: Duration,
    pub member_rules: MemberRules,
}

/// Writes the commands of this server.
#[derive(Clone)]
pub(crate) struct Author {
    server: u64,
    incarnation: Incarnation,
    rules: Rules,
    clock: Arc<dyn Clock>,
}

impl Author {
    fn command(&self, connection: u64, sequence: u64, action: Action) -> Command {
        Command {
            time_ms: self.clock.wall_ms(),
            origin: Origin {
                connection: Connection {
                    server: self.server,
                    number: connection,
                },
                sequence,
            },
            rules: self.rules,
            action,
        }
    }

    /// A decision of this server's own, encoded. `None` if it does not encode, which all of ours do.
    fn own(&self, action: Action) -> Option<Bytes> {
        self.command(0, 0, action).encode(0).ok()
    }
}

/// The engine, running.
pub struct Consensus {
    raft: Raft,
    author: Author,
    space: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    proposals: Arc<Proposals>,
    rounds: Arc<Rounds>,
    sessions: Arc<SessionTracker>,
    members: Arc<Members>,
    isolation_limit: Duration,
    compaction_failed: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    cluster: u64,
    peers: Peers,
    snapshots: SnapshotStore,
    /// For one snapshot on its way to this server.
    snapshot_room: Arc<Semaphore>,
    /// When the leader was last heard, in milliseconds of the monotonic clock; 0 is never.
    leader_heard_ms: AtomicU64,
    /// When a majority was last known to be there, by the same clock. A change of role forgets neither
    /// of the two.
    majority_heard_ms: AtomicU64,
    /// All that was agreed on before the start has been applied.
    settled: watch::Sender<bool>,
    /// Servers that have presented themselves, with the incarnations they said.
    seen: Arc<Seen>,
    /// Somebody new is among them.
    newcomer: Notify,
    replica: Arc<Replica>,
}

/// Servers that have presented themselves, with the incarnations they said, until the log has them.
type Seen = Mutex<BTreeMap<u64, u64>>;

/// What this server is in the ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    Observer,
    Stopped,
}

impl Consensus {
    /// Starts the engine. A server that is alone in its ensemble leads it, and has applied all that
    /// was ever acknowledged, when this returns; one of several is on its way there: see
    /// [`Consensus::settled`].
    ///
    /// # Errors
    ///
    /// [`ConsensusError`]: the log cannot be read, or an entry in it not be applied.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, ConsensusError> {
        let progress = Arc::new(Progress::new(
            parts.snapshot_entries,
            parts.snapshot_log_bytes,
        ));
        let author = Author {
            server: parts.server,
            incarnation: parts.incarnation,
            rules: parts.rules,
            clock: Arc::clone(&parts.clock),
        };
        let proposals = Arc::new(Proposals::new(parts.admission));
        let rounds = Arc::new(Rounds::default());
        let zxids = parts
            .replica
            .inspect(|state: &State| applier::zxids_of(state, parts.last_applied));
        let zxids = Arc::new(zxids);
        let seen = Arc::new(Seen::default());
        let applier = Applier {
            seen: Arc::clone(&seen),
            zxids: Arc::clone(&zxids),
            replica: Arc::clone(&parts.replica),
            snapshots: parts.snapshots.clone(),
            proposals: Arc::clone(&proposals),
            metrics: Arc::clone(&parts.metrics),
            incarnation: parts.incarnation,
            progress: Arc::clone(&progress),
            last_applied: parts.last_applied,
            membership: parts.membership,
        };
        let config = settings().validate().map_err(engine)?;
        let log = Arc::clone(parts.log.log());
        let raft = Raft::new(
            parts.server,
            Arc::new(config),
            network::Network::new(parts.peers.clone()),
            parts.log,
            applier,
        )
        .await
        .map_err(engine)?;
        let data_dir = parts.snapshots.folder().display().to_string();
        let alone = begin(&raft, parts.server, parts.plan, data_dir).await?;

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let pump = Pump {
            raft: raft.clone(),
            author: author.clone(),
            proposals: Arc::clone(&proposals),
            peers: parts.peers.clone(),
        };
        tasks.spawn(on_this_host(pump.run(stop.clone())));
        let members = Arc::new(Members::new(
            raft.clone(),
            parts.server,
            parts.peers.clone(),
            Arc::clone(&parts.replica),
            Arc::clone(&zxids),
            log,
            Arc::clone(&parts.clock),
            Arc::clone(&parts.metrics),
            parts.member_rules,
        ));
        tasks.spawn(on_this_host(Arc::clone(&members).keep_up(stop.clone())));
        let agreement = Agreement {
            members: Arc::clone(&members),
        };
        tasks.spawn(on_this_host(agreement.run(stop.clone())));
        let runner = rounds::Runner {
            raft: raft.clone(),
            author: author.clone(),
            rounds: Arc::clone(&rounds),
            replica: Arc::clone(&parts.replica),
            sessions: Arc::clone(&parts.sessions),
            zxids,
            clock: Arc::clone(&parts.clock),
            peers: parts.peers.clone(),
            flush: parts.touch_interval,
        };
        tasks.spawn(on_this_host(runner.run(stop.clone())));
        let (failed, compaction_failed) = watch::channel(None);
        let compaction = Compaction {
            raft: raft.clone(),
            members: Arc::clone(&members),
            replica: Arc::clone(&parts.replica),
            progress,
            interval: parts.snapshot_interval,
            snapshots: parts.snapshots.clone(),
            kept: parts.snapshots_kept,
            metrics: Arc::clone(&parts.metrics),
            failed,
        };
        tasks.spawn(on_this_host(compaction.run(stop.clone())));
        let consensus = Arc::new(Self {
            raft,
            author,
            space: parts.space,
            metrics: parts.metrics,
            proposals,
            rounds,
            sessions: parts.sessions,
            members,
            isolation_limit: parts.isolation_limit,
            clock: parts.clock,
            compaction_failed,
            stop,
            tasks,
            cluster: parts.cluster,
            peers: parts.peers,
            snapshots: parts.snapshots,
            snapshot_room: Arc::new(Semaphore::new(1)),
            leader_heard_ms: AtomicU64::new(0),
            majority_heard_ms: AtomicU64::new(0),
            settled: watch::Sender::new(alone),
            seen,
            newcomer: Notify::new(),
            replica: parts.replica,
        });
        consensus.take_up_duties();
        Ok(consensus)
    }

    pub fn incarnation(&self) -> Incarnation {
        self.author.incarnation
    }

    /// A command of one of this server's connections, stamped with the time.
    pub fn command(&self, connection: u64, sequence: u64, action: Action) -> Command {
        self.author.command(connection, sequence, action)
    }

    /// Puts an encoded command that was admitted on its way to the log, wherever the leader is. Those
    /// of one connection get there in the order of the calls, each once. The answer comes from the
    /// replica, after a pause if there is no leader for now.
    pub fn propose(&self, connection: u64, sequence: u64, command: Bytes) {
        self.metrics.proposals.fetch_add(1, Relaxed);
        self.proposals.push(connection, sequence, command);
    }

    /// Proposes a decision that this server has made as leader of `term`. It gets into the log in that
    /// term or not at all.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn propose_own(&self, term: u64, action: Action) -> Result<(), Stopped> {
        let command = self.author.own(action).ok_or(Stopped)?;
        self.metrics.proposals.fetch_add(1, Relaxed);
        pump::write(&self.raft, term, command, None).await
    }

    /// Has an answer given once a majority has confirmed a round that begins from now on.
    pub fn ask_round(&self, waiter: Waiter) {
        self.rounds.ask(waiter);
    }

    /// Has the leader change the members as a client wishes, and the client answered in its turn.
    pub fn change_members(&self, change: Change) {
        let members = Arc::clone(&self.members);
        let stop = self.stop.clone();
        self.tasks.spawn(on_this_host(async move {
            tokio::select! {
                () = change.run(&members) => {}
                () = stop.cancelled() => {}
            }
        }));
    }

    /// Who belongs to the ensemble.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Who leads, as far as this server knows.
    pub fn leadership(&self) -> Leadership {
        pump::leadership(&self.raft, self.author.server)
    }

    /// Whether this server may serve clients: it is not behind what it served before it was started,
    /// and it hears a majority.
    pub fn may_serve(&self) -> bool {
        *self.settled.borrow() && self.hears_majority()
    }

    /// Whether this server has heard of no majority for too long, since its start at least: it is no
    /// longer just looking for one.
    pub fn is_cut_off(&self) -> bool {
        let up_ms = u128::from(self.clock.monotonic_ms());
        up_ms >= self.isolation_limit.as_millis() && !self.hears_majority()
    }

    /// Whether, within the limit, a majority has answered this server as the leader, or has confirmed
    /// to it that the leader leads. Who has just won or lost an election has heard either before it:
    /// that counts, or every election would cost the clients of these servers their connections.
    fn hears_majority(&self) -> bool {
        use openraft::Instant;
        use openraft::async_runtime::watch::WatchReceiver;

        let now_ms = self.clock.monotonic_ms();
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        if now.state == ServerState::Leader {
            let membership = now.membership_config.membership();
            if membership.voter_ids().nth(1).is_none() {
                return true;
            }
            if let Some(at) = now.last_quorum_acked {
                let ago_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.note_majority(now_ms.saturating_sub(ago_ms));
            }
        }
        drop(now);
        let heard_ms = self.majority_heard_ms.load(Relaxed);
        let silent_ms = now_ms.saturating_sub(heard_ms);
        heard_ms != 0 && u128::from(silent_ms) < self.isolation_limit.as_millis()
    }

    /// Takes note that a majority was there at `at_ms`, by the monotonic clock.
    fn note_majority(&self, at_ms: u64) {
        self.majority_heard_ms.fetch_max(at_ms, Relaxed);
    }

    /// Answers another server.
    async fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Round { touched } => self.confirm_round(touched).await,
            Question::Digests => {
                let digests = self.members.replica.digests().into_iter();
                let at = digests.map(|(zxid, digest)| (zxid.0, digest)).collect();
                Answer::Digests { at }
            }
            Question::Contradict { zxid, digest } => {
                self.members.contradict(Zxid(zxid), digest);
                Answer::Done
            }
            Question::Reconfig(asked) => {
                let (wish, asker, patience) = Wish::from_wire(asked);
                self.members.answer_change(wish, asker, patience).await
            }
        }
    }

    /// Takes note of the sessions that showed life on another server, and confirms that this one
    /// leads.
    async fn confirm_round(&self, touched: Vec<i64>) -> Answer {
        if !matches!(self.leadership(), Leadership::Mine { .. }) {
            return Answer::NotLeader;
        }
        let touched: Vec<SessionId> = touched.into_iter().filter_map(SessionId::new).collect();
        // Before the round begins: its confirmation stands for these.
        self.sessions.touch(&touched, self.clock.monotonic_ms());
        match rounds::confirm_leadership(&self.raft).await {
            Some(index) => Answer::Confirmed { index },
            None => Answer::NotLeader,
        }
    }

    /// The incarnation the ensemble has agreed on for `server`.
    fn known_incarnation(&self, server: u64) -> Option<u64> {
        self.replica.inspect(|state| state.incarnation_of(server))
    }

    /// Has the ensemble agree on it; whether it has.
    async fn admit_incarnation(&self, server: u64, incarnation: u64) -> bool {
        let action = Action::Admit {
            server,
            incarnation,
        };
        match self.author.own(action) {
            Some(command) => self.raft.client_write(Proposal(command)).await.is_ok(),
            None => false,
        }
    }

    /// Whether the log has room for more. While it has not, writes are refused and reads go on.
    pub fn has_space(&self) -> bool {
        *self.space.borrow()
    }

    pub fn role(&self) -> Role {
        use openraft::async_runtime::watch::WatchReceiver;

        match self.raft.server_metrics().borrow_watched().state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Observer,
            ServerState::Shutdown => Role::Stopped,
        }
    }

    /// Resolves when the engine has stopped by itself: its storage failed, or an entry could not be
    /// applied. Cancel safe.
    pub async fn failed(&self) -> String {
        use openraft::async_runtime::watch::WatchReceiver;

        let metrics = self.raft.metrics();
        // All metrics change with every batch; these change only with a role, or end with the engine.
        let mut roles = self.raft.server_metrics();
        let mut compaction_failed = self.compaction_failed.clone();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            tokio::select! {
                changed = roles.changed() => if changed.is_err() {
                    let last = metrics.borrow_watched();
                    return match &last.running_state {
                        Err(fatal) => fatal.to_string(),
                        Ok(()) => "the Raft engine has ended".to_owned(),
                    };
                },
                Ok(error) = compaction_failed.wait_for(Option::is_some) => {
                    return error.clone().unwrap_or_default();
                }
            }
        }
    }

    /// Stops proposing and applying. What is in the log stays there.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if self.raft.shutdown().await.is_err() {
            tracing::warn!("the Raft engine did not end by itself");
        }
    }
}

/// The engine's settings; `docs/decisions` has the reasons. Times are in milliseconds.
fn settings() -> openraft::Config {
    openraft::Config {
        cluster_name: "quorate".to_owned(),
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        enable_pre_vote: Some(true),
        // A leader that restarts as leader, with a state in memory that is behind its log, would
        // serve the past.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(700),
        // Snapshots and the cutting of the log are decided in `compaction`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 10_000,
        replication_lag_threshold: 1_000_000,
        // Bytes are bounded by the log reader.
        max_payload_entries: 4096,
        install_snapshot_timeout: 60_000,
        backoff: "20ms 40ms 80ms 160ms 200ms".to_owned(),
        ..openraft::Config::default()
    }
}

/// Begins as planned; whether this server is alone.
async fn begin(
    raft: &Raft,
    server: u64,
    plan: Plan,
    data_dir: String,
) -> Result<bool, ConsensusError> {
    let is_alone = || raft.voter_ids().eq([server]);
    match plan {
        Plan::Alone(_) if raft.is_initialized().await.map_err(engine)? && !is_alone() => {
            return Err(FormationError::NotListed {
                members: raft.voter_ids().count() + raft.learner_ids().count(),
                data_dir,
            }
            .into());
        }
        Plan::Alone(node) => {
            lead_alone(raft, server, node).await?;
            return Ok(true);
        }
        Plan::Found(members) => raft.initialize(members).await.map_err(engine)?,
        Plan::Resume if is_alone() => {
            // It has always been alone, or is again.
            lead_alone(raft, server, PeerNode::default()).await?;
            return Ok(true);
        }
        Plan::Resume | Plan::Join => {}
    }
    Ok(false)
}

/// Makes this server the leader of itself, and waits until all of its log is applied.
async fn lead_alone(raft: &Raft, server: u64, node: PeerNode) -> Result<(), ConsensusError> {
    use openraft::async_runtime::watch::WatchReceiver;

    if raft.is_initialized().await.map_err(engine)? {
        // Nobody else can lead: there is no election timeout to wait for.
        raft.trigger().elect(false).await.map_err(engine)?;
    } else {
        raft.initialize(BTreeMap::from([(server, node)]))
            .await
            .map_err(engine)?;
    }
    let mut metrics = raft.metrics();
    loop {
        {
            let now = metrics.borrow_watched();
            if let Err(fatal) = &now.running_state {
                return Err(engine(fatal));
            }
            // A leader's first own entry follows all older ones.
            let applied = now.last_applied.as_ref().map(|id| id.index);
            if now.state == ServerState::Leader
                && now.last_applied.as_ref().map(|id| id.leader_id.term) == Some(now.current_term)
                && applied == now.last_log_index
            {
                return Ok(());
            }
        }
        match tokio::time::timeout(RECOVERY_REPORT, metrics.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(engine("it has ended")),
            Err(_) => tracing::info!("still applying the log"),
        }
    }
}

fn engine(error: impl std::fmt::Display) -> ConsensusError {
    ConsensusError::Engine(error.to_string())
}
