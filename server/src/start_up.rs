//! The part of a start that a server alone has no use for: its peer port, and the way into its
//! ensemble.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{Config, PeerAddress};
use crate::consensus::Consensus;
use crate::consensus::formation::{Applicant, FormationError, Listed, Plan};
use crate::consensus::gate::{Gate, View};
use crate::consensus::types::PeerNode;
use crate::network::{Listener, Network};
use crate::peer_port::listener::{BACKLOG, PeerPort};
use crate::peer_port::{Door, Links, Peers};
use crate::server::StartError;
use crate::storage::Identity;

/// What connects this server with the others.
#[derive(Debug)]
pub(crate) struct PeerSide {
    pub(crate) listed: Listed,
    pub(crate) peers: Peers,
    server: u64,
    run: u32,
    gate: Arc<Gate>,
    network: Arc<dyn Network>,
    port: Arc<PeerPort<Consensus>>,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    /// A start that comes to nothing leaves nobody listening.
    _stop_with_us: DropGuard,
}

impl PeerSide {
    /// Begins to answer the other servers, if there is a `listener`.
    pub(crate) fn new(
        config: &Config,
        run: u32,
        identity: Option<Identity>,
        listener: Option<Listener>,
        links: Links,
        network: Arc<dyn Network>,
    ) -> Self {
        let listed = Listed::new(if listener.is_some() {
            &config.members
        } else {
            &[]
        });
        let server = u64::from(config.server_id);
        let cluster = identity.map_or(listed.cluster(), |identity| identity.cluster);
        let gate = Arc::new(Gate::new(server, run, cluster, identity.is_some()));
        let door: Arc<dyn Door> = Arc::<Gate>::clone(&gate);
        let port = Arc::new(PeerPort::new(Arc::clone(&door), server, links));
        let stop = CancellationToken::new();
        let serving = listener.map(|listener| {
            let serving = Arc::clone(&port).serve(listener, stop.clone());
            crate::tasks::spawn(serving)
        });
        Self {
            listed,
            peers: Peers::new(door, Arc::clone(&network)),
            network,
            server,
            run,
            gate,
            port,
            _stop_with_us: stop.clone().drop_guard(),
            stop,
            serving,
        }
    }

    pub(crate) fn is_ensemble(&self) -> bool {
        self.serving.is_some()
    }

    /// Who a server alone is.
    pub(crate) fn identity_alone(&self, cluster: u64, incarnation: u64) -> Identity {
        Identity {
            cluster,
            server: self.server,
            incarnation,
        }
    }

    /// How a server alone starts.
    pub(crate) fn plan_alone(config: &Config) -> Plan {
        let mut node = config.this_member().map(PeerNode::of).unwrap_or_default();
        // ZooKeeper does not tell clients of a server that is no ensemble.
        if !config.is_ensemble() {
            node.line.clear();
        }
        Plan::Alone(node)
    }

    /// Finds out, together with the others, how to start with an empty log. `found` is whose it is,
    /// if it is anybody's.
    pub(crate) async fn decide(
        &mut self,
        config: &Config,
        found: Option<Identity>,
        incarnation: u64,
    ) -> Result<(Identity, Plan), FormationError> {
        self.gate.set_new();
        let applicant = Applicant {
            server: self.server,
            run: self.run,
            listed: &self.listed,
            identity: found,
            incarnation,
            network: Arc::clone(&self.network),
            rejoin: config.rejoin,
            data_dir: config.data_dir.display().to_string(),
        };
        let decided = applicant.decide().await;
        if decided.is_err() {
            self.close().await;
        }
        decided
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        self.gate.set_identity(identity);
    }

    /// Begins to serve the other servers.
    pub(crate) fn open(&self, consensus: &Arc<Consensus>) {
        let view: Weak<Consensus> = Arc::downgrade(consensus);
        let view: Weak<dyn View> = view;
        self.gate.set_view(view);
        self.port.open(Arc::clone(consensus));
    }

    /// Ends all connections of other servers.
    pub(crate) async fn close(&mut self) {
        self.stop.cancel();
        if let Some(serving) = self.serving.take()
            && serving.await.is_err()
        {
            tracing::warn!("the peer port did not end by itself");
        }
    }
}

/// Opens the port for the other servers: on the address they find this one at, if that is one of
/// this machine. `None` on a server that was told of no others.
pub(crate) async fn bind_peer_port(
    network: &dyn Network,
    config: &Config,
) -> Result<Option<Listener>, StartError> {
    if !config.is_ensemble() {
        return Ok(None);
    }
    let Some(address) = config.this_member().and_then(|m| m.addresses.first()) else {
        return Ok(None);
    };
    let failed = |source| StartError::BindPeers {
        address: format!("{}:{}", address.host, address.quorum_port),
        source,
    };
    let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.quorum_port);
    if config.quorum_listen_on_all_ips {
        return network
            .listen(everywhere, BACKLOG)
            .map(Some)
            .map_err(failed);
    }
    match bind_own(network, address).await {
        Ok(listener) => Ok(Some(listener)),
        // Behind an address translation, or before the name service knows it.
        Err(error) if is_elsewhere(&error) => {
            tracing::warn!(
                host = address.host,
                port = address.quorum_port,
                "the host of this server's own line is none of this machine ({error}): listening \
                 for the other servers on all addresses"
            );
            network
                .listen(everywhere, BACKLOG)
                .map(Some)
                .map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

async fn bind_own(network: &dyn Network, address: &PeerAddress) -> io::Result<Listener> {
    let name = format!("{}:{}", address.host, address.quorum_port);
    let resolved = network.resolve(&name).await;
    let resolved = resolved.map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in resolved {
        match network.listen(address, BACKLOG) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn is_elsewhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::NotFound
    )
}
