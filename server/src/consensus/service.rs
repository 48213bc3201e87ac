//! What the other servers ask of this one's engine.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use openraft::async_runtime::watch::WatchReceiver;
use quorate_state::Command;
use quorate_state::canary::{Canary, planted};
use tokio::sync::OwnedSemaphorePermit;

use super::pump::{self, Leadership, Refusals};
use super::types::Vote;
use super::{Consensus, Raft, snapshot_io, translate};
use crate::peer_port::wire::{
    Append, Appended, Ballot, Place, Rejoin, SnapshotTaken, Transfer, Transferred, VoteAsked, Voted,
};
use crate::peer_port::{Answer, Forwarded, Incoming, Question, Service, ServiceError};
use crate::storage::StorageError;
use crate::storage::snapshots::SnapshotReceiver;

/// How long the place for a snapshot stays taken after one was not taken in: it would fail again,
/// and each attempt costs the leader the whole file.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(2);

fn failed(error: impl std::fmt::Display) -> ServiceError {
    ServiceError(error.to_string())
}

/// Takes every candidate's log for the longest, if that mistake is planted.
fn overrate(asked: &mut VoteAsked) {
    if planted(Canary::VoteForShorterLog) {
        asked.last = Some(Place {
            term: asked.candidate.term,
            index: u64::MAX,
        });
    }
}

impl Service for Consensus {
    type Incoming = IncomingSnapshot;
    type Forwarded = ForwardedWrites;

    async fn append(&self, _from: u64, append: Append) -> Result<Appended, ServiceError> {
        let request = translate::append_request(append)?;
        let response = self.raft.append_entries(request).await.map_err(failed)?;
        let appended = translate::appended(&response);
        if !matches!(appended, Appended::Outvoted(_)) {
            self.leader_heard_ms
                .fetch_max(self.clock.monotonic_ms(), Relaxed);
        }
        Ok(appended)
    }

    async fn vote(&self, mut asked: VoteAsked) -> Result<Voted, ServiceError> {
        overrate(&mut asked);
        let response = self.raft.vote(translate::vote_request(asked)).await;
        Ok(translate::voted(&response.map_err(failed)?))
    }

    async fn pre_vote(&self, mut asked: VoteAsked) -> Result<Voted, ServiceError> {
        overrate(&mut asked);
        let response = self.raft.pre_vote(translate::vote_request(asked)).await;
        Ok(translate::voted(&response.map_err(failed)?))
    }

    async fn transfer(&self, transfer: Transfer) -> Result<Transferred, ServiceError> {
        let request = translate::transfer_request(transfer);
        let response = self.raft.handle_transfer_leader(request).await;
        Ok(translate::transferred(&response.map_err(failed)?))
    }

    async fn begin_snapshot(
        &self,
        leader: Ballot,
        last: Option<Place>,
    ) -> Result<Result<IncomingSnapshot, SnapshotTaken>, ServiceError> {
        let vote = translate::leader_vote(leader)?;
        // The engine aborts on a snapshot that its leader cannot have.
        let Some(last) = last.filter(|last| last.term <= leader.term) else {
            return Err(ServiceError(
                "the snapshot is newer than its leader".to_owned(),
            ));
        };
        let ours = self.raft.server_metrics().borrow_watched().vote;
        if ours > vote {
            let ballot = translate::ballot(&ours);
            return Ok(Err(SnapshotTaken { ballot }));
        }
        let permit = Arc::clone(&self.snapshot_room)
            .acquire_owned()
            .await
            .map_err(failed)?;
        let receiver = self.snapshots.receive().map_err(failed)?;
        Ok(Ok(IncomingSnapshot {
            raft: self.raft.clone(),
            leader: vote,
            last,
            receiver,
            permit,
        }))
    }

    async fn answer(&self, _from: u64, question: Question) -> Answer {
        // The inherent method: it knows what the questions mean.
        Self::answer(self, question).await
    }

    async fn rejoin(&self, rejoin: Rejoin) -> Answer {
        self.take_in_again(rejoin).await
    }

    fn open_forwarded(self: &Arc<Self>, _from: u64, term: u64) -> ForwardedWrites {
        ForwardedWrites {
            consensus: Arc::clone(self),
            term,
            refusals: Arc::default(),
        }
    }
}

/// Writes of another server's clients, on their way into the log of the leader of `term`.
pub struct ForwardedWrites {
    consensus: Arc<Consensus>,
    term: u64,
    refusals: Arc<Refusals>,
}

impl Forwarded for ForwardedWrites {
    async fn take(&mut self, commands: Vec<BytesMut>) -> Result<(), String> {
        let term = self.term;
        if self.consensus.leadership() != (Leadership::Mine { term }) {
            return Err(format!("this server does not lead in term {term}"));
        }
        let time_ms = self.consensus.clock.wall_ms();
        let last = commands.len().saturating_sub(1);
        for (index, mut command) in commands.into_iter().enumerate() {
            Command::set_time(&mut command, time_ms).map_err(|error| error.to_string())?;
            // One tells for all: see the pump.
            let told = (index == last).then_some(&self.refusals);
            pump::write(&self.consensus.raft, term, command.freeze(), told)
                .await
                .map_err(|stopped| stopped.to_string())?;
        }
        Ok(())
    }

    async fn refused(&self) {
        self.refusals.first().await;
    }
}

/// A snapshot file under way to this server.
pub struct IncomingSnapshot {
    raft: Raft,
    leader: Vote,
    last: Place,
    receiver: SnapshotReceiver,
    /// One at a time.
    permit: OwnedSemaphorePermit,
}

/// Lets go of the place for a snapshot, but not at once.
fn keep_for_a_while(permit: OwnedSemaphorePermit) {
    crate::tasks::spawn(async move {
        tokio::time::sleep(SNAPSHOT_PAUSE).await;
        drop(permit);
    });
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let done = crate::tasks::blocking(work).await;
    done.unwrap_or(Err(StorageError::Closed))
}

impl Incoming for IncomingSnapshot {
    async fn write(self, bytes: BytesMut) -> Result<Self, ServiceError> {
        let Self {
            mut receiver,
            permit,
            ..
        } = self;
        let written = blocking(move || {
            receiver.write(&bytes)?;
            Ok(receiver)
        });
        match written.await {
            Ok(receiver) => Ok(Self {
                receiver,
                permit,
                ..self
            }),
            Err(error) => {
                tracing::error!(%error, "a snapshot from the leader cannot be stored");
                keep_for_a_while(permit);
                Err(failed(error))
            }
        }
    }

    async fn finish(self) -> Result<SnapshotTaken, ServiceError> {
        let Self {
            raft,
            leader,
            last,
            receiver,
            permit,
        } = self;
        let file = match blocking(move || receiver.finish()).await {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, "a snapshot from the leader cannot be used");
                keep_for_a_while(permit);
                return Err(failed(error));
            }
        };
        let snapshot = snapshot_io::describe(file).map_err(failed)?;
        if snapshot.meta.last_log_id.map(translate::place) != Some(last) {
            return Err(ServiceError("the file covers something else".to_owned()));
        }
        tracing::info!(index = last.index, "a snapshot has come from the leader");
        let response = raft
            .install_full_snapshot(leader, snapshot)
            .await
            .map_err(failed)?;
        Ok(SnapshotTaken {
            ballot: translate::ballot(&response.vote),
        })
    }
}
