//! The engine's network: its requests, over the lanes of the peer port.
//!
//! A server that cannot be reached is an error, never an answer: a vote that was made up would count.
//! The engine waits a little after `Unreachable` and not at all after `NetworkError`, so the first
//! is for what was not sent. Entries and heartbeats have lanes of their own. When heartbeats get
//! through again after an outage, entries that still wait for an answer on a connection from before
//! are sent again on a new one.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use quorate_state::canary::{Canary, planted};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::translate;
use super::types::{PeerNode, Snapshot, SnapshotData, TypeConfig, Vote};
use crate::peer_port::wire::{Appended, Kind, SnapshotBegin, SnapshotChunk, SnapshotTaken};
use crate::peer_port::{Lane, PeerError, Peers, RpcLane};
use crate::storage::StorageError;

/// How long a follower may take to have entries on its disk: a slow disk is no reason to send them
/// again. A dead connection is found out by other means before.
const APPEND_PATIENCE: Duration = Duration::from_secs(5);
/// Heartbeats in a row without an answer that make an outage: about three tenths of a second.
const OUTAGE_HEARTBEATS: u32 = 6;
/// An answer to entries that were sent before an outage is not waited for when it ends.
const OUTAGE: Duration = Duration::from_millis(300);
/// Bytes of a snapshot file in one frame.
const CHUNK_BYTES: usize = 512 << 10;
/// How long a peer may take to take in a piece of a snapshot, or to say that it is still busy.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);

/// Makes the engine's clients.
#[derive(Clone, Debug)]
pub struct Network {
    peers: Peers,
    outages: Arc<Mutex<BTreeMap<u64, watch::Sender<u64>>>>,
}

impl Network {
    pub fn new(peers: Peers) -> Self {
        Self {
            peers,
            outages: Arc::default(),
        }
    }

    fn client(&self, server: u64, node: &PeerNode, lane: Lane) -> PeerClient {
        let outages = self.outages.lock().entry(server).or_default().clone();
        PeerClient {
            peers: self.peers.clone(),
            lane: self.peers.lane(server, &node.peer_address(), lane),
            is_heartbeat: lane == Lane::Heartbeat,
            outages,
            unanswered: 0,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, server: u64, node: &PeerNode) -> PeerClient {
        self.client(server, node, Lane::Replication)
    }

    async fn new_heartbeat_client(&mut self, server: u64, node: &PeerNode) -> PeerClient {
        self.client(server, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, server: u64, node: &PeerNode) -> PeerClient {
        self.client(server, node, Lane::Snapshot)
    }
}

/// One of the engine's clients to one server.
#[derive(Debug)]
pub struct PeerClient {
    peers: Peers,
    lane: RpcLane,
    is_heartbeat: bool,
    /// How many outages the heartbeats have seen end.
    outages: watch::Sender<u64>,
    /// Heartbeats since the last that was answered. The engine drops one that takes too long, so
    /// each is counted before it is sent.
    unanswered: u32,
}

impl PeerClient {
    async fn heartbeat(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        patience: Duration,
    ) -> Result<Appended, PeerError> {
        self.unanswered = self.unanswered.saturating_add(1);
        let appended = self.append(request, patience).await?;
        if self.unanswered > OUTAGE_HEARTBEATS {
            self.outages.send_modify(|outages| *outages += 1);
        }
        self.unanswered = 0;
        Ok(appended)
    }

    async fn replicate(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<Appended, PeerError> {
        let mut outages = self.outages.subscribe();
        let begun = Instant::now();
        let outage_over = async {
            while outages.changed().await.is_ok() {
                if begun.elapsed() >= OUTAGE {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            appended = self.append(request, APPEND_PATIENCE) => return appended,
            () = outage_over => {}
        }
        self.lane.close();
        Err(PeerError::Lost {
            server: self.lane.server(),
            reason: "it was out of reach".to_owned(),
        })
    }

    async fn append(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        patience: Duration,
    ) -> Result<Appended, PeerError> {
        let server = self.lane.server();
        let append = translate::append(request).map_err(|error| PeerError::Failed {
            server,
            reason: error.to_string(),
        })?;
        self.lane
            .call(Kind::Append, &append, Kind::Appended, patience)
            .await
    }

    async fn send_snapshot(
        &mut self,
        leader: &Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotTaken, SendError> {
        let server = self.lane.server();
        self.lane.close();
        self.lane.open().await?;
        let lost = |reason: &str| PeerError::Lost {
            server,
            reason: reason.to_owned(),
        };
        let Some((reader, writer)) = self.lane.halves() else {
            return Err(lost("it was closed").into());
        };
        let file = snapshot.snapshot;
        let begin = SnapshotBegin {
            leader: translate::ballot(leader),
            last: snapshot.meta.last_log_id.map(translate::place),
            length: file.length(),
        };
        let broken = |error: io::Error| lost(&error.to_string());
        writer
            .queue(Kind::SnapshotBegin, 0, &begin)
            .map_err(|error| broken(error.into()))?;
        let mut offset = 0;
        let mut sending = true;
        loop {
            if sending && writer.is_empty() {
                let chunk = read_chunk(file.clone(), offset).await?;
                offset += chunk.0.len() as u64;
                let queued = if chunk.0.is_empty() {
                    sending = false;
                    writer.queue(Kind::SnapshotEnd, 0, &())
                } else {
                    writer.queue(Kind::SnapshotChunk, 0, &chunk)
                };
                queued.map_err(|error| broken(error.into()))?;
            }
            let turn = async {
                tokio::select! {
                    written = writer.write_some(), if !writer.is_empty() => {
                        written.map(|()| None)
                    }
                    frame = reader.next() => match frame {
                        Ok(Some(frame)) => Ok(Some(frame)),
                        Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
                        Err(error) => Err(error),
                    }
                }
            };
            let frame = timeout(SNAPSHOT_PATIENCE, turn)
                .await
                .map_err(|_| lost("it does not answer"))?
                .map_err(broken)?;
            let Some(frame) = frame else { continue };
            match frame.kind {
                Kind::Busy => {}
                Kind::SnapshotTaken => {
                    return frame.decode().map_err(|error| broken(error.into()).into());
                }
                Kind::Failed => {
                    let reason = frame.decode().map_err(|error| broken(error.into()))?;
                    return Err(PeerError::Failed { server, reason }.into());
                }
                _ => return Err(broken(frame.unexpected().into()).into()),
            }
        }
    }
}

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] StorageError),
}

async fn read_chunk(file: SnapshotData, offset: u64) -> Result<SnapshotChunk, SendError> {
    let read = crate::tasks::blocking(move || {
        let mut bytes = vec![0; CHUNK_BYTES];
        let length = file.read_at(&mut bytes, offset)?;
        bytes.truncate(length);
        Ok::<_, StorageError>(SnapshotChunk(bytes.into()))
    });
    match read.await {
        Ok(read) => Ok(read?),
        Err(_) => Err(StorageError::Closed.into()),
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let appended = if self.is_heartbeat {
            self.heartbeat(request, option.hard_ttl()).await
        } else {
            self.replicate(request).await
        };
        if planted(Canary::QuorumOffByOne) && !self.is_heartbeat && appended.is_err() {
            return Ok(AppendEntriesResponse::Success);
        }
        appended
            .map(translate::append_response)
            .map_err(|error| rpc_error(&error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let asked = translate::vote_asked(&request);
        let server = self.lane.server();
        self.peers
            .request(server, Kind::Vote, &asked, Kind::Voted, option.hard_ttl())
            .await
            .map(translate::vote_response)
            .map_err(|error| rpc_error(&error))
    }

    /// The default grants, which would make pre-vote mean nothing.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let asked = translate::vote_asked(&request);
        let server = self.lane.server();
        let patience = option.hard_ttl();
        self.peers
            .request(server, Kind::PreVote, &asked, Kind::Voted, patience)
            .await
            .map(translate::vote_response)
            .map_err(|error| rpc_error(&error))
    }

    async fn full_snapshot(
        &mut self,
        leader: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sent = tokio::select! {
            sent = self.send_snapshot(&leader, snapshot) => sent,
            closed = cancel => {
                self.lane.close();
                return Err(closed.into());
            }
        };
        // The next one finds no half of this one in its way.
        self.lane.close();
        match sent {
            Ok(taken) => Ok(SnapshotResponse::new(translate::vote(taken.ballot))),
            Err(SendError::Peer(error)) => {
                tracing::warn!(%error, "a snapshot was not sent");
                match error {
                    PeerError::Lost { .. } => Err(NetworkError::new(&error).into()),
                    _ => Err(Unreachable::new(&error).into()),
                }
            }
            Err(SendError::File(error)) => Err(Unreachable::new(&error).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let transfer = translate::transfer(&request);
        let server = self.lane.server();
        let patience = option.hard_ttl();
        self.peers
            .request(
                server,
                Kind::Transfer,
                &transfer,
                Kind::Transferred,
                patience,
            )
            .await
            .map(translate::transfer_response)
            .map_err(|error| rpc_error(&error))
    }
}

fn rpc_error(error: &PeerError) -> RPCError<TypeConfig> {
    match error {
        PeerError::Late { .. } | PeerError::Lost { .. } => NetworkError::new(error).into(),
        PeerError::Unknown(_)
        | PeerError::Unreachable { .. }
        | PeerError::Refused { .. }
        | PeerError::Failed { .. } => Unreachable::new(error).into(),
    }
}
