//! One server, from its configuration to its last fsync.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::{SessionId, Zxid};
use quorate_state::{Rules, State};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client_port::listener::ClientPort;
use crate::config::Config;
use crate::consensus::formation::{FormationError, Plan, draw_incarnation};
use crate::consensus::membership::MemberRules;
use crate::consensus::{
    Admission, Consensus, ConsensusError, Incarnation, Parts, Role, Stopped, log_store::LogStore,
    snapshot_io,
};
use crate::environment::Environment;
use crate::metrics::Metrics;
use crate::peer_port::Links;
use crate::random::Randomness;
use crate::replica::Replica;
use crate::session_tracker::SessionTracker;
use crate::start_up::{self, PeerSide};
use crate::storage::log::{Log, LogOptions};
use crate::storage::{DataDir, StorageError};
use crate::tasks::{self, on_this_host};
use crate::timers;

/// How long handing leadership over may hold up a stop.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);

/// Why a server does not start. Nothing on disk was changed by the attempt, but for what a first
/// start creates.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address} ({source}): stop what uses it, or set another client port")]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "cannot listen on {address} for the other servers ({source}): stop what uses it, or set \
         another port in the server.N line"
    )]
    BindPeers { address: String, source: io::Error },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Formation(#[from] FormationError),
    #[error(transparent)]
    Consensus(ConsensusError),
}

impl From<ConsensusError> for StartError {
    fn from(error: ConsensusError) -> Self {
        match error {
            ConsensusError::Storage(error) => Self::Storage(error),
            ConsensusError::Formation(error) => Self::Formation(error),
            error @ ConsensusError::Engine(_) => Self::Consensus(error),
        }
    }
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    consensus: Arc<Consensus>,
    replica: Arc<Replica>,
    log: Arc<Log>,
    /// Stops the tasks below.
    stop: CancellationToken,
    client_port: JoinHandle<()>,
    peer_side: PeerSide,
    timers: TaskTracker,
    storage_failed: watch::Receiver<Option<StorageError>>,
    /// Holds the lock on the folders until everything else has ended.
    _data_dir: DataDir,
}

impl Server {
    /// Starts a server: recovers what is on disk, then serves clients.
    ///
    /// The port is taken first: a server that cannot be reached must not touch the data of one that
    /// can.
    ///
    /// # Errors
    ///
    /// [`StartError`], one line each, saying what to do.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_linked(config, Links::default()).await
    }

    /// As [`Server::start`], with ways to the other servers that whoever embeds it can cut.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub async fn start_linked(config: Config, links: Links) -> Result<Self, StartError> {
        Self::start_in(Environment::system(), config, links).await
    }

    /// As [`Server::start_linked`], with time, randomness, network and disk from outside.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub async fn start_in(
        environment: Environment,
        config: Config,
        links: Links,
    ) -> Result<Self, StartError> {
        let Environment {
            clock,
            randomness,
            network,
            disk,
            witness,
        } = environment;
        let listener =
            crate::client_port::listener::bind(&*network, &config).map_err(|source| {
                StartError::Bind {
                    address: config.client_address,
                    source,
                }
            })?;
        let address = listener.local_addr().map_err(|source| StartError::Bind {
            address: config.client_address,
            source,
        })?;

        let peer_listener = start_up::bind_peer_port(&*network, &config).await?;

        let server_id = u64::from(config.server_id);
        let mut data_dir = match disk {
            None => DataDir::open(&config.data_dir, &config.log_dir)?,
            Some(disk) => DataDir::open_on(disk, &config.data_dir, &config.log_dir)?,
        };
        data_dir.check_server(server_id)?;
        let options = LogOptions {
            segment_bytes: config.log_segment_bytes,
            ..LogOptions::default()
        };
        let run = u32::from_le_bytes(random(&*randomness));
        let mut peer_side = PeerSide::new(
            &config,
            run,
            data_dir.identity(),
            peer_listener,
            links,
            network,
        );
        let incarnation = draw_incarnation(&*clock, &*randomness);
        let mut plan = None;
        if data_dir.identity().is_none() {
            let (identity, decided) = if peer_side.is_ensemble() {
                peer_side.decide(&config, None, incarnation).await?
            } else {
                let cluster = u64::from_le_bytes(random(&*randomness));
                (
                    peer_side.identity_alone(cluster, incarnation),
                    PeerSide::plan_alone(&config),
                )
            };
            data_dir.initialize(identity, &options)?;
            plan = Some(decided);
        }
        let (failed, storage_failed) = watch::channel(None);
        let snapshots = data_dir.open_snapshots()?;
        // Damage has to show before the log is written to: a refusal leaves the disk as it was.
        let (log, loaded) = data_dir.open_log_after(
            options,
            Arc::new(move |error: &StorageError| {
                failed.send_replace(Some(error.clone()));
            }),
            |purged| snapshot_io::load_newest(&snapshots, purged),
        )?;
        snapshot_io::drop_contradicted(&log, loaded.last_applied)?;
        let log = Arc::new(log);
        let identity = data_dir.known_identity()?;
        let plan = match plan {
            Some(plan) => plan,
            None if !peer_side.is_ensemble() => PeerSide::plan_alone(&config),
            // It was stopped before it took part in anything.
            None if log.state().last.is_none() && log.state().vote.is_none() => {
                let found = Some(identity);
                peer_side.decide(&config, found, incarnation).await?.1
            }
            None => Plan::Resume,
        };
        peer_side.set_identity(identity);

        let metrics = Arc::new(Metrics::new());
        let sessions = Arc::new(SessionTracker::new(config.tick_ms.into()));
        let replica = Arc::new(Replica::new(
            server_id,
            u64::from_le_bytes(random(&*randomness)),
            config.skip_acl,
            loaded.state,
            Arc::clone(&sessions),
            Arc::clone(&metrics),
            Arc::clone(&clock),
            witness,
        ));
        let admission = Arc::new(Admission::new(
            config.requests_outstanding_max as usize,
            usize::try_from(config.request_bytes_outstanding_max).unwrap_or(usize::MAX),
        ));
        let consensus = Consensus::start(Parts {
            server: server_id,
            incarnation: Incarnation::new(server_id, run),
            cluster: identity.cluster,
            plan,
            peers: peer_side.peers.clone(),
            rules: Rules {
                skip_acl: config.skip_acl,
                enforce_quota: config.enforce_quota,
                ttl_disabled: !config.ttl_nodes_enabled,
                // Certificates come with TLS, which is not served yet.
                x509_enabled: false,
            },
            log: LogStore::new(Arc::clone(&log)),
            space: log.space(),
            snapshots,
            last_applied: loaded.last_applied,
            membership: loaded.membership,
            replica: Arc::clone(&replica),
            sessions: Arc::clone(&sessions),
            admission: Arc::clone(&admission),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock),
            snapshot_entries: config.snapshot_entries,
            snapshot_log_bytes: config.snapshot_log_bytes.unwrap_or(u64::MAX),
            snapshot_interval: config.snapshot_interval_ms.map(Duration::from_millis),
            snapshots_kept: config.snapshots_kept.map(|kept| u32::from(kept) as usize),
            touch_interval: Duration::from_millis(u64::from(config.tick_ms).div_ceil(4)),
            isolation_limit: Duration::from_millis(
                u64::from(config.tick_ms) * u64::from(config.sync_limit_ticks),
            ),
            member_rules: MemberRules::of(&config, peer_side.listed.observers()),
        })
        .await?;
        peer_side.open(&consensus);
        replica.inspect(|state| {
            let open = state
                .sessions()
                .map(|(id, session)| (id, session.timeout_ms, session.attached_at));
            sessions.restart(open, clock.monotonic_ms());
        });

        let stop = CancellationToken::new();
        let timers = TaskTracker::new();
        timers.spawn(on_this_host(timers::leave_when_isolated(
            Arc::clone(&replica),
            Arc::clone(&consensus),
            Duration::from_millis(config.tick_ms.into()),
            config.read_only_mode_enabled,
            stop.clone(),
        )));
        timers.spawn(on_this_host(timers::leave_when_out_of_service(
            Arc::clone(&replica),
            Arc::clone(&consensus),
            stop.clone(),
        )));
        timers.spawn(on_this_host(timers::expire_sessions(
            Arc::clone(&sessions),
            Arc::clone(&consensus),
            Arc::clone(&clock),
            Duration::from_millis(config.tick_ms.into()),
            stop.clone(),
        )));
        timers.spawn(on_this_host(timers::reap(
            Arc::clone(&replica),
            Arc::clone(&consensus),
            Arc::clone(&clock),
            config.clone(),
            stop.clone(),
        )));
        let port = Arc::new(ClientPort::new(
            config,
            Arc::clone(&replica),
            Arc::clone(&consensus),
            admission,
            sessions,
            metrics,
            clock,
            randomness,
        ));
        // At once, also where the others are yet to be found: four-letter words are answered, and
        // clients are sent elsewhere.
        let client_port = tasks::spawn(port.serve(listener, stop.clone()));
        Ok(Self {
            address,
            consensus,
            replica,
            log,
            stop,
            client_port,
            peer_side,
            timers,
            storage_failed,
            _data_dir: data_dir,
        })
    }

    /// Where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.address
    }

    /// The engine, for tests of several servers in one process.
    #[cfg(test)]
    pub(crate) fn consensus(&self) -> &Arc<Consensus> {
        &self.consensus
    }

    /// Resolves when clients are served: a server of several has to find the others first. Cancel
    /// safe.
    pub async fn ready(&self) {
        self.consensus.settled().await;
    }

    /// Tells `on_change` the term in which this server leads, or that it does not, now and whenever
    /// that changes. Resolves when the engine has ended. Cancel safe.
    pub async fn follow_leadership(&self, on_change: impl FnMut(Option<u64>)) {
        self.consensus.follow_leadership(on_change).await;
    }

    /// Has this server stand for election at once, unless somebody leads: for one that knows the others
    /// to be there, and need not wait for a timeout. Nobody has to vote for it.
    pub async fn stand_for_election(&self) {
        self.consensus.stand_for_election().await;
    }

    /// Ends a session as if it had been silent for its timeout. Returns a point of the log at which it
    /// has ended, or `None` if this server does not lead.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn expire_session(&self, session: SessionId) -> Result<Option<Zxid>, Stopped> {
        self.consensus.expire_session(session).await
    }

    /// Resolves when this server has applied `zxid`. Cancel safe.
    pub async fn reach(&self, zxid: Zxid) {
        self.consensus.reach(zxid).await;
    }

    /// Looks at this server's copy of the state, which stands still for as long.
    pub fn inspect<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.replica.inspect(look)
    }

    /// What this server is in the ensemble just now.
    pub fn role(&self) -> Role {
        self.consensus.role()
    }

    /// Who votes in the ensemble, if that is settled as far as this server knows.
    pub fn voters(&self) -> Option<BTreeSet<u64>> {
        self.consensus.members().voters()
    }

    /// Resolves when the server cannot go on: its storage has failed. Nothing was acknowledged that
    /// is not on disk. Cancel safe.
    pub async fn failed(&self) -> String {
        let mut storage_failed = self.storage_failed.clone();
        tokio::select! {
            Ok(error) = storage_failed.wait_for(Option::is_some) => {
                error.as_ref().map_or_else(String::new, ToString::to_string)
            }
            error = self.consensus.failed() => error,
        }
    }

    /// Stops in order: leadership goes to another server first, so that no client waits for an
    /// election; then no more clients, no more proposals, everything in the log on disk.
    ///
    /// # Errors
    ///
    /// [`StorageError`]: the log could not be closed cleanly. What was acknowledged is on disk all
    /// the same.
    pub async fn shutdown(mut self) -> Result<(), StorageError> {
        let members = self.consensus.members();
        members.hand_over_to_stop(HAND_OVER_PATIENCE).await;
        self.stop.cancel();
        self.timers.close();
        self.timers.wait().await;
        if self.client_port.await.is_err() {
            tracing::warn!("the client port did not end by itself");
        }
        self.peer_side.close().await;
        self.consensus.shutdown().await;
        self.log.finish().await
    }
}

fn random<const N: usize>(randomness: &dyn Randomness) -> [u8; N] {
    let mut bytes = [0; N];
    randomness.fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
