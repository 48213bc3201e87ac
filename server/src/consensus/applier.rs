//! Committed entries, on their way from the engine into the replica.
//!
//! This is the engine's state machine. It decodes entries, gives each its zxid, and hands them to
//! [`Replica::apply`] in chunks: one critical section for many entries, but not for so many that
//! readers notice. It never waits for anything but the next entry.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use quorate_protocol::Zxid;
use quorate_state::{Action, Command, Origin, State};

use super::compaction::Progress;
use super::proposals::Proposals;
use super::snapshot_io::Source;
use super::types::{
    Entry, LogId, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, TypeConfig,
};
use super::{Incarnation, Seen, membership, snapshot_io};
use crate::client_port::Disconnect;
use crate::metrics::{Metrics, Sizes};
use crate::replica::{Committed, Outcome, Replica};
use crate::storage::snapshots::SnapshotStore;

/// Entries applied under one lock: about half a millisecond of work.
const CHUNK_ENTRIES: usize = 256;

/// Turns log indexes into zxids: `zxid = base + index`.
///
/// Every entry uses up one index and one zxid, so the base is a constant of a log's history; it moves
/// up only when a state is restored or imported, so that zxids never go back.
#[derive(Debug, Default)]
pub struct Zxids {
    base: AtomicI64,
}

impl Zxids {
    /// Of a state that has applied the entry at `index` as `zxid`.
    pub fn of(zxid: Zxid, index: u64) -> Self {
        let zxids = Self::default();
        zxids.rebase(zxid, index);
        zxids
    }

    /// The state was replaced by one that has applied the entry at `index` as `zxid`.
    fn rebase(&self, zxid: Zxid, index: u64) {
        self.base.store(zxid.0 - index_as_i64(index), Relaxed);
    }

    /// The zxid of the entry at `index`.
    pub fn zxid(&self, index: u64) -> Zxid {
        Zxid(self.base.load(Relaxed) + index_as_i64(index))
    }
}

/// 2^63 entries take 300,000 years at a million a second.
fn index_as_i64(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// The engine's state machine.
pub struct Applier {
    pub(super) seen: Arc<Seen>,
    pub(super) replica: Arc<Replica>,
    pub(super) snapshots: SnapshotStore,
    pub(super) proposals: Arc<Proposals>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) incarnation: Incarnation,
    pub(super) progress: Arc<Progress>,
    pub(super) zxids: Arc<Zxids>,
    pub(super) last_applied: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = NewestSnapshot;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunk = Chunk::default();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.add(&mut chunk, entry)?;
            chunk.responders.extend(responder);
            if chunk.entries.len() >= CHUNK_ENTRIES {
                self.apply_chunk(&mut chunk);
            }
        }
        self.apply_chunk(&mut chunk);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> NewestSnapshot {
        NewestSnapshot(self.snapshots.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let state = snapshot_io::load(snapshot).await?;
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.zxids.rebase(state.last_zxid(), index);
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let members = self.membership.membership();
        let mut seen = self.seen.lock();
        seen.retain(|server, _| members.get_node(server).is_some());
        drop(seen);
        self.replica.replace(state);
        self.proposals.clear();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        snapshot_io::newest(&self.snapshots)
    }
}

/// Entries to be applied under one lock.
#[derive(Default)]
struct Chunk {
    entries: Vec<Committed>,
    /// Whom the engine wants to tell.
    responders: Vec<ApplyResponder<TypeConfig>>,
    /// Epochs of this run whose marker is among them.
    markers: Vec<u64>,
    bytes: u64,
    sizes: Option<Sizes>,
    outcome: Outcome,
}

impl Chunk {
    fn on_command(&mut self, bytes: u64) {
        self.bytes += bytes;
        let sizes = self.sizes.get_or_insert(Sizes::of(bytes));
        *sizes = Sizes {
            last: bytes,
            min: sizes.min.min(bytes),
            max: sizes.max.max(bytes),
        };
    }
}

impl Applier {
    /// What a snapshot of this moment is written from.
    pub(super) fn snapshot_source(&self) -> Source {
        Source {
            view: self.replica.view(),
            last_applied: self.last_applied,
            membership: self.membership.clone(),
        }
    }

    fn add(&mut self, chunk: &mut Chunk, entry: Entry) -> Result<(), io::Error> {
        let log_id = entry.log_id();
        let zxid = self.zxids.zxid(log_id.index);
        self.last_applied = Some(log_id);
        let mut configuration = None;
        let command = match entry.payload {
            EntryPayload::Normal(proposal) => {
                let command = Command::decode(&proposal.0).map_err(|error| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("log entry {}: {error}", log_id.index),
                    )
                })?;
                chunk.on_command(proposal.0.len() as u64);
                if let Action::Marker { run, epoch } = command.action
                    && self
                        .incarnation
                        .is_run(command.origin.connection.server, run)
                {
                    chunk.markers.push(epoch);
                }
                Some(command)
            }
            EntryPayload::Membership(membership) => {
                configuration = membership::configuration(&membership);
                if let Some(configuration) = &configuration {
                    // The state forgets those who have left, and so has this server.
                    let mut seen = self.seen.lock();
                    seen.retain(|server, _| configuration.servers.contains(server));
                }
                self.membership = StoredMembership::new(Some(log_id), membership);
                None
            }
            EntryPayload::Blank => None,
        };
        chunk.entries.push(Committed {
            zxid,
            term: log_id.committed_leader_id().term,
            command,
            configuration,
        });
        Ok(())
    }

    fn apply_chunk(&mut self, chunk: &mut Chunk) {
        let count = chunk.entries.len() as u64;
        let outcome = &mut chunk.outcome;
        self.replica.apply(chunk.entries.drain(..), outcome);
        // What an earlier run has proposed has nobody who waits.
        let is_ours = |origin: &Origin| self.incarnation.proposed(origin.connection);
        outcome.applied.retain(is_ours);
        self.proposals.on_applied(&outcome.applied);
        outcome.void.retain(is_ours);
        if !outcome.void.is_empty() {
            let hopeless = self.proposals.on_void(&outcome.void);
            self.replica.cut_those(&hopeless, Disconnect::SessionMoved);
        }
        if let Some(sizes) = chunk.sizes.take() {
            self.metrics.on_proposals(sizes);
        }
        for epoch in chunk.markers.drain(..) {
            self.proposals.on_marker(epoch);
        }
        for responder in chunk.responders.drain(..) {
            responder.send(());
        }
        self.progress.on_applied(count, chunk.bytes);
        chunk.bytes = 0;
    }
}

/// Hands the engine the newest snapshot on this disk. `compaction` has written it: there a full disk
/// is no reason to stop, here every error is.
pub struct NewestSnapshot(SnapshotStore);

impl RaftSnapshotBuilder<TypeConfig> for NewestSnapshot {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        snapshot_io::newest(&self.0)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no snapshot was taken yet"))
    }
}

/// An empty state and one that was loaded are all the same to the applier.
pub(super) fn zxids_of(state: &State, last_applied: Option<LogId>) -> Zxids {
    Zxids::of(state.last_zxid(), last_applied.map_or(0, |id| id.index))
}
