//! The side that dials: reaches other servers, and asks them.
//!
//! Connections are made when they are needed, to an address that is resolved anew each time, by a
//! task of their own: a caller that gives up does not undo half a handshake. After a failed attempt
//! a lane pauses for [`RETRY_PAUSE`], so a server that returns is found soon.

mod connection;
mod control_lane;
mod forward_stream;
mod rpc_lane;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use self::forward_stream::ForwardStream;
pub use self::rpc_lane::RpcLane;

use self::connection::{HANDSHAKE_PATIENCE, Target, connect, dial, lost, read_answer};
use self::control_lane::{ASKS_MAX, Ask, control_lane};
use super::wire::{self, Answer, Kind, Lane, Probe, Probed, Question, Rejoin};
use super::{Door, PeerError};
use crate::network::Network;

/// How long a lane waits after a failed attempt before the next one.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// A connection on which a question has been open for so long, without a sign of the other server,
/// is given up. Twice the interval at which a server says that it is still at it, and a half.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(1250);
/// How often a server says that it is still at it.
pub(super) const BUSY_INTERVAL: Duration = Duration::from_millis(500);

/// The other servers. Clones share them.
#[derive(Clone, Debug)]
pub struct Peers {
    door: Arc<dyn Door>,
    network: Arc<dyn Network>,
    known: Arc<Mutex<BTreeMap<u64, Known>>>,
}

#[derive(Clone, Debug)]
struct Known {
    target: Arc<Target>,
    control: mpsc::Sender<Ask>,
}

impl Peers {
    pub fn new(door: Arc<dyn Door>, network: Arc<dyn Network>) -> Self {
        Self {
            door,
            network,
            known: Arc::default(),
        }
    }

    /// Says who there is, and where (`host:port`). Whoever is left out is no longer talked to, but
    /// on the lanes that are open.
    pub fn set_members(&self, nodes: BTreeMap<u64, String>) {
        self.known
            .lock()
            .retain(|server, _| nodes.contains_key(server));
        for (server, address) in nodes {
            self.learn(server, &address);
        }
    }

    /// Says where one server is.
    fn learn(&self, server: u64, address: &str) -> Arc<Target> {
        let mut known = self.known.lock();
        if let Some(known) = known.get(&server) {
            let mut current = known.target.address.lock();
            if *current != address {
                address.clone_into(&mut current);
            }
            drop(current);
            return Arc::clone(&known.target);
        }
        let target = Target::new(&self.network, server, address);
        let (control, asks) = mpsc::channel(ASKS_MAX);
        crate::tasks::spawn(control_lane(
            Arc::clone(&self.door),
            Arc::clone(&target),
            asks,
        ));
        let entry = Known {
            target: Arc::clone(&target),
            control,
        };
        known.insert(server, entry);
        target
    }

    fn find(&self, server: u64) -> Result<Known, PeerError> {
        let known = self.known.lock().get(&server).cloned();
        known.ok_or(PeerError::Unknown(server))
    }

    /// A lane to `server`, for requests that are answered in order.
    pub fn lane(&self, server: u64, address: &str, lane: Lane) -> RpcLane {
        RpcLane::new(Arc::clone(&self.door), self.learn(server, address), lane)
    }

    /// Asks `server`, on its control lane. Questions do not wait for each other.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; after `patience` at the latest.
    pub async fn ask(
        &self,
        server: u64,
        question: Question,
        patience: Duration,
    ) -> Result<Answer, PeerError> {
        self.request(server, Kind::Question, &question, Kind::Answer, patience)
            .await
    }

    /// Sends any request on the control lane.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; after `patience` at the latest.
    pub(crate) async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        server: u64,
        kind: Kind,
        message: &Q,
        expected: Kind,
        patience: Duration,
    ) -> Result<A, PeerError> {
        let known = self.find(server)?;
        let lost = |reason: &dyn ToString| PeerError::Lost {
            server,
            reason: reason.to_string(),
        };
        let body = rmp_serde::to_vec(message).map_err(|error| lost(&error))?;
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            kind,
            body: body.into(),
            answer,
        };
        let asked = async {
            known
                .control
                .send(ask)
                .await
                .map_err(|_| PeerError::Unknown(server))?;
            answered
                .await
                .map_err(|_| lost(&"this server is stopping"))?
        };
        let frame = timeout(patience, asked)
            .await
            .map_err(|_| PeerError::Late { server, patience })??;
        read_answer(server, &frame, expected)
    }

    /// Opens the way for this server's writes to `server`, as the leader of `term`.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; after `patience` at the latest.
    pub async fn open_forward(
        &self,
        server: u64,
        term: u64,
        patience: Duration,
    ) -> Result<ForwardStream, PeerError> {
        let known = self.find(server)?;
        let dialled = dial(&self.door, &known.target, Lane::Forward, term);
        let connection = timeout(patience, dialled)
            .await
            .map_err(|_| PeerError::Late { server, patience })??;
        Ok(ForwardStream { server, connection })
    }
}

/// Asks the server at `address` what it knows, before this one has joined an ensemble.
///
/// # Errors
///
/// [`PeerError`].
pub async fn probe(
    network: &Arc<dyn Network>,
    server: u64,
    address: &str,
    probe: Probe,
) -> Result<Probed, PeerError> {
    let target = Target::new(network, server, address);
    let mut connection = connect(&target).await?;
    let asked = async {
        wire::greet(&mut connection.writer, Kind::Probe, &probe).await?;
        connection.reader.next().await
    };
    let unreachable = |reason: String| PeerError::Unreachable {
        server,
        address: address.to_owned(),
        reason,
    };
    let frame = timeout(HANDSHAKE_PATIENCE, asked)
        .await
        .map_err(|_| unreachable("it does not answer".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?
        .ok_or_else(|| unreachable("it closed the connection".to_owned()))?;
    match frame.kind {
        Kind::Probed => frame
            .decode()
            .map_err(|error| unreachable(error.to_string())),
        Kind::Refused => Err(PeerError::Refused {
            server,
            refusal: frame
                .decode()
                .map_err(|error| unreachable(error.to_string()))?,
        }),
        _ => Err(unreachable(frame.unexpected().to_string())),
    }
}

/// Asks the server at `address`, as the leader, to take this one in again.
///
/// # Errors
///
/// [`PeerError`].
pub async fn rejoin(
    network: &Arc<dyn Network>,
    server: u64,
    address: &str,
    rejoin: Rejoin,
) -> Result<Answer, PeerError> {
    let target = Target::new(network, server, address);
    let mut connection = connect(&target).await?;
    let broken = |error: io::Error| lost(server, &error.to_string());
    wire::greet(&mut connection.writer, Kind::Rejoin, &rejoin)
        .await
        .map_err(broken)?;
    loop {
        let frame = timeout(SILENCE_MAX, connection.reader.next())
            .await
            .map_err(|_| lost(server, "it does not answer"))?
            .map_err(broken)?
            .ok_or_else(|| lost(server, "it closed the connection"))?;
        if frame.kind != Kind::Busy {
            return read_answer(server, &frame, Kind::Answer);
        }
    }
}
