//! Making a connection: resolve, connect, shake hands.
//!
//! Why a server cannot be talked to is logged when it changes, not at each attempt.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::network::{Network, ReadHalf, Stream, WriteHalf};
use crate::peer_port::wire::{
    self, Caller, Frame, FrameReader, FrameWriter, Hello, Kind, Lane, Refusal, RefusalCode,
    VERSIONS, Welcome,
};
use crate::peer_port::{Door, PeerError};

/// How long a name may take to resolve.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may take to come about: a lost packet is only sent again after a second,
/// a new attempt finds a server that has returned sooner.
const CONNECT_PATIENCE: Duration = Duration::from_millis(400);
/// How long the other side may take to say who it is: its tasks may have a lot to do.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);

/// One other server, as this one sees it.
#[derive(Debug)]
pub(crate) struct Target {
    network: Arc<dyn Network>,
    pub(super) server: u64,
    pub(super) address: Mutex<String>,
    /// What was last logged about it; `None` while all is well.
    trouble: Mutex<Option<String>>,
}

impl Target {
    pub(super) fn new(network: &Arc<dyn Network>, server: u64, address: &str) -> Arc<Self> {
        Arc::new(Self {
            network: Arc::clone(network),
            server,
            address: Mutex::new(address.to_owned()),
            trouble: Mutex::new(None),
        })
    }

    /// Logs what keeps the two from talking, once.
    pub(super) fn on_trouble(&self, error: &PeerError) {
        let text = error.to_string();
        let mut trouble = self.trouble.lock();
        if trouble.as_ref() == Some(&text) {
            return;
        }
        match error {
            PeerError::Refused { refusal, .. } if refusal.code != RefusalCode::Starting => {
                tracing::warn!(server = self.server, "{text}");
            }
            _ => tracing::info!(server = self.server, "{text}"),
        }
        *trouble = Some(text);
    }

    pub(super) fn on_reached(&self) {
        if self.trouble.lock().take().is_some() {
            tracing::info!(server = self.server, "the server can be reached again");
        }
    }
}

/// An open connection, handshake done.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) reader: FrameReader<ReadHalf>,
    pub(super) writer: FrameWriter<WriteHalf>,
}

/// Makes a connection and shakes hands.
pub(super) async fn dial(
    door: &Arc<dyn Door>,
    target: &Target,
    lane: Lane,
    term: u64,
) -> Result<Connection, PeerError> {
    let dialled = dial_once(&**door, target, lane, term).await;
    match &dialled {
        Ok(_) => target.on_reached(),
        Err(error) => target.on_trouble(error),
    }
    dialled
}

async fn dial_once(
    door: &dyn Door,
    target: &Target,
    lane: Lane,
    term: u64,
) -> Result<Connection, PeerError> {
    let server = target.server;
    let address = target.address.lock().clone();
    let unreachable = |reason: String| PeerError::Unreachable {
        server,
        address: address.clone(),
        reason,
    };
    let refused = |refusal| PeerError::Refused { server, refusal };
    let from = door
        .me()
        .ok_or_else(|| unreachable("this server has not joined an ensemble yet".to_owned()))?;
    let mut connection = connect(target).await?;
    let hello = Hello {
        versions: VERSIONS,
        lane,
        from,
        to: server,
        term,
    };
    let greeted = async {
        wire::greet(&mut connection.writer, Kind::Hello, &hello).await?;
        connection.reader.next().await
    };
    let frame = timeout(HANDSHAKE_PATIENCE, greeted)
        .await
        .map_err(|_| unreachable("it does not answer".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?
        .ok_or_else(|| unreachable("it closed the connection".to_owned()))?;
    match frame.kind {
        Kind::Welcome => {
            let welcome: Welcome = frame
                .decode()
                .map_err(|error| unreachable(error.to_string()))?;
            check_host(door, &welcome, server).map_err(refused)?;
        }
        Kind::Refused => {
            let refusal = frame
                .decode()
                .map_err(|error| unreachable(error.to_string()))?;
            return Err(refused(refusal));
        }
        _ => return Err(unreachable(frame.unexpected().to_string())),
    }
    connection.reader.handshake_done();
    Ok(connection)
}

/// Whether the one who answers is the one who was meant.
fn check_host(door: &dyn Door, welcome: &Welcome, server: u64) -> Result<(), Refusal> {
    let host: Caller = welcome.host;
    if host.server != server {
        let reason = format!(
            "server {} answers where server {server} should: check the addresses",
            host.server
        );
        return Err(Refusal::new(RefusalCode::WrongServer, reason));
    }
    door.admit(host)
}

pub(super) async fn connect(target: &Target) -> Result<Connection, PeerError> {
    let address = target.address.lock().clone();
    let stream = connect_any(&*target.network, &address)
        .await
        .map_err(|error| PeerError::Unreachable {
            server: target.server,
            address,
            reason: error.to_string(),
        })?;
    let (reader, writer) = stream.into_split();
    Ok(Connection {
        reader: FrameReader::new(reader),
        writer: FrameWriter::new(writer),
    })
}

/// Tries the addresses of a name in turn.
async fn connect_any(network: &dyn Network, address: &str) -> io::Result<Stream> {
    let resolved = timeout(RESOLVE_PATIENCE, network.resolve(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "its name does not resolve"))??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in resolved {
        match connect_one(network, address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(network: &dyn Network, address: SocketAddr) -> io::Result<Stream> {
    let stream = timeout(CONNECT_PATIENCE, network.connect(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
    stream.prepare_for_peer()?;
    Ok(stream)
}

pub(super) fn read_answer<A: DeserializeOwned>(
    server: u64,
    frame: &Frame,
    expected: Kind,
) -> Result<A, PeerError> {
    let lost = |reason: &dyn ToString| PeerError::Lost {
        server,
        reason: reason.to_string(),
    };
    match frame.kind {
        kind if kind == expected => frame.decode().map_err(|error| lost(&error)),
        Kind::Failed => Err(PeerError::Failed {
            server,
            reason: frame.decode().map_err(|error| lost(&error))?,
        }),
        _ => Err(lost(&frame.unexpected())),
    }
}

pub(super) fn lost(server: u64, reason: &str) -> PeerError {
    PeerError::Lost {
        server,
        reason: reason.to_owned(),
    }
}
