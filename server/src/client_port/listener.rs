//! Accepts client connections, within limits.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_protocol::Id;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Disconnect;
use super::connection::Connection;
use super::outbox::Outbox;
use crate::admin::four_letter::TRACE_MASK_DEFAULT;
use crate::clock::Clock;
use crate::config::{Config, Secret};
use crate::consensus::{Admission, Consensus};
use crate::metrics::Metrics;
use crate::network::{Listener, Network, Stream};
use crate::random::Randomness;
use crate::replica::Replica;
use crate::session_tracker::SessionTracker;
use crate::tasks::on_this_host;

/// Connections waiting to be accepted when the configuration does not say: ZooKeeper's 50 makes a
/// reconnect storm of thousands of clients slow.
const BACKLOG_DEFAULT: u32 = 1024;

/// Of the file descriptors a process may have, these are left to the log, snapshots and the rest: a
/// quarter, within these bounds. Without a descriptor for its next segment the log takes no writes.
const DESCRIPTORS_KEPT_MIN: u64 = 48;
const DESCRIPTORS_KEPT_MAX: u64 = 1024;

/// So many of the longest requests of one connection may be under way.
const FRAMES_UNDER_WAY: usize = 4;

/// How long accepting pauses when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection may ask for and hold.
#[derive(Clone, Debug)]
pub struct Limits {
    pub frame_bytes_max: usize,
    pub requests_per_connection_max: usize,
    /// How many bytes of requests one connection may have under way that are answered here: those for
    /// the log are admitted for all connections together.
    pub request_bytes_per_connection_max: usize,
    pub outbox_bytes_max: usize,
    pub handshake_timeout: Duration,
    /// How long a client that has seen more than this server waits for it to catch up.
    pub behind_patience: Duration,
    pub session_timeout_min_ms: i32,
    pub session_timeout_max_ms: i32,
    pub connections_per_address_max: Option<u32>,
    pub connections_max: Option<u32>,
    /// How many the operating system has file descriptors for.
    pub connections_possible: u64,
}

fn connections_possible() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(u64::MAX, |limit| {
        let kept = (limit / 4).clamp(DESCRIPTORS_KEPT_MIN, DESCRIPTORS_KEPT_MAX);
        limit.saturating_sub(kept).max(1)
    })
}

impl Limits {
    pub fn new(config: &Config) -> Self {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        let i32_of = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        Self {
            frame_bytes_max: config.frame_bytes_max as usize,
            requests_per_connection_max: config.requests_per_connection_max as usize,
            request_bytes_per_connection_max: FRAMES_UNDER_WAY * config.frame_bytes_max as usize,
            outbox_bytes_max: usize::try_from(config.outbox_bytes_max).unwrap_or(usize::MAX),
            handshake_timeout: ms(config.client_handshake_timeout_ms),
            behind_patience: ms(config.tick_ms),
            session_timeout_min_ms: i32_of(config.session_timeout_min_ms),
            session_timeout_max_ms: i32_of(config.session_timeout_max_ms),
            connections_per_address_max: config.connections_per_address_max.map(Into::into),
            connections_max: config.connections_max.map(Into::into),
            connections_possible: connections_possible(),
        }
    }

    /// The session timeout a client gets: what it asked for, within the server's bounds.
    pub fn grant_timeout(&self, asked_ms: i32) -> i32 {
        asked_ms.clamp(self.session_timeout_min_ms, self.session_timeout_max_ms)
    }
}

/// Opens the socket clients connect to.
///
/// # Errors
///
/// The operating system's, a port in use for one.
pub fn bind(network: &dyn Network, config: &Config) -> io::Result<Listener> {
    let backlog = config.client_listen_backlog;
    network.listen(
        config.client_address,
        backlog.map_or(BACKLOG_DEFAULT, Into::into),
    )
}

/// What all client connections share.
pub struct ClientPort {
    pub config: Config,
    pub limits: Limits,
    pub replica: Arc<Replica>,
    pub consensus: Arc<Consensus>,
    pub admission: Arc<Admission>,
    pub sessions: Arc<SessionTracker>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub randomness: Arc<dyn Randomness>,
    /// What the `gtmk` and `stmk` commands show and set.
    pub trace_mask: AtomicI64,
    super_digest: Option<Secret>,
    connection_numbers: AtomicU64,
    addresses: Mutex<HashMap<IpAddr, u32>>,
}

impl fmt::Debug for ClientPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPort").finish_non_exhaustive()
    }
}

impl ClientPort {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, where everything is wired up"
    )]
    pub fn new(
        config: Config,
        replica: Arc<Replica>,
        consensus: Arc<Consensus>,
        admission: Arc<Admission>,
        sessions: Arc<SessionTracker>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        randomness: Arc<dyn Randomness>,
    ) -> Self {
        Self {
            limits: Limits::new(&config),
            super_digest: config.super_digest.clone(),
            connection_numbers: AtomicU64::new(consensus.incarnation().first_connection()),
            trace_mask: AtomicI64::new(TRACE_MASK_DEFAULT),
            config,
            replica,
            consensus,
            admission,
            sessions,
            metrics,
            clock,
            randomness,
            addresses: Mutex::new(HashMap::new()),
        }
    }

    /// Accepts and serves clients until `stop`, then until every connection has ended.
    pub async fn serve(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((socket, peer)) => self.admit(socket, peer, &connections, &stop),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    /// Whether clients that agree to it may read here, though no majority is heard.
    pub fn is_read_only(&self) -> bool {
        self.config.read_only_mode_enabled && self.consensus.is_cut_off()
    }

    /// Who presented `credentials`, and the superuser if they are its.
    pub fn digest_identities(&self, credentials: &[u8]) -> Vec<Id> {
        let id = Id::digest(credentials);
        let is_super = self
            .super_digest
            .as_ref()
            .is_some_and(|secret| secret.expose() == id.id);
        match is_super {
            true => vec![Id::superuser(), id],
            false => vec![id],
        }
    }

    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.randomness.fill(&mut bytes);
        bytes
    }

    fn admit(
        self: &Arc<Self>,
        socket: Stream,
        peer: SocketAddr,
        connections: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let Some(place) = Place::take(self, peer.ip()) else {
            self.metrics.connections_rejected.fetch_add(1, Relaxed);
            tracing::warn!(%peer, "too many connections (maxClientCnxns, maxCnxns, or the limit on open files)");
            return;
        };
        if let Err(error) = socket.prepare_for_client() {
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        let number = self.connection_numbers.fetch_add(1, Relaxed);
        let now_ms = self.clock.wall_ms();
        let outbox = Arc::new(Outbox::new(
            number,
            peer,
            self.limits.outbox_bytes_max,
            now_ms,
        ));
        self.replica.register(Arc::clone(&outbox));
        let connection = Connection::new(Arc::clone(self), outbox);
        let stop = stop.clone();
        connections.spawn(on_this_host(async move {
            let reason = connection.run(socket, &stop).await;
            log_end(peer, reason);
            place.port.metrics.connections_dropped.fetch_add(1, Relaxed);
            drop(place);
        }));
    }
}

fn log_end(peer: SocketAddr, reason: Disconnect) {
    match reason {
        // What clients, probes and balancers do all day.
        Disconnect::ByClient
        | Disconnect::SessionClosed
        | Disconnect::FourLetterWord
        | Disconnect::HandshakeTimeout
        | Disconnect::Shutdown
        | Disconnect::Socket => tracing::debug!(%peer, %reason, "connection ended"),
        _ => tracing::info!(%peer, %reason, "connection ended"),
    }
}

/// A connection's place among those its address, and all together, may have.
struct Place {
    port: Arc<ClientPort>,
    address: IpAddr,
}

impl Place {
    fn take(port: &Arc<ClientPort>, address: IpAddr) -> Option<Self> {
        let limits = &port.limits;
        let mut addresses = port.addresses.lock();
        let taken = addresses.get(&address).copied().unwrap_or(0);
        if limits
            .connections_per_address_max
            .is_some_and(|max| taken >= max)
        {
            return None;
        }
        let all: u64 = addresses.values().map(|count| u64::from(*count)).sum();
        let max = limits.connections_max.map_or(u64::MAX, u64::from);
        if all >= max.min(limits.connections_possible) {
            return None;
        }
        addresses.insert(address, taken + 1);
        Some(Self {
            port: Arc::clone(port),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.port.addresses.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}
