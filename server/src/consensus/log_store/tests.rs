//! The engine's own storage suite, on the real log on a real disk; and what the suite leaves out.

use std::sync::Arc;

use futures_util::TryStreamExt;
use openraft::storage::{EntryResponder, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::super::types::{
    EntryPayload, PeerNode, Returning, SnapshotMeta, Standing, StoredMembership,
};
use super::*;
use crate::storage::log::LogOptions;
use crate::storage::{DataDir, Identity};

type MemorySnapshot = openraft::alias::SnapshotOf<TypeConfig, ()>;

/// As much of a state machine as the suite needs: it applies log ids and memberships.
#[derive(Clone, Default)]
struct StateMachine(Arc<Mutex<Applied>>);

#[derive(Clone, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<MemorySnapshot, io::Error> {
        let mut applied = self.0.lock();
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership.clone(),
        };
        applied.snapshot = Some(meta.clone());
        Ok(MemorySnapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = ();
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.0.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, _)) = entries.try_next().await? {
            let mut applied = self.0.lock();
            applied.last = Some(entry.log_id);
            if let Payload::Membership(membership) = entry.payload {
                applied.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _: ()) -> Result<(), io::Error> {
        let mut applied = self.0.lock();
        applied.last = meta.last_log_id;
        applied.membership = meta.last_membership.clone();
        applied.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<MemorySnapshot>, io::Error> {
        let meta = self.0.lock().snapshot.clone();
        Ok(meta.map(|meta| MemorySnapshot { meta, snapshot: () }))
    }
}

fn open(folder: &std::path::Path, options: LogOptions) -> LogStore {
    let mut folders = DataDir::open(folder, &folder.join("log")).unwrap();
    if folders.identity().is_none() {
        folders
            .initialize(
                Identity {
                    cluster: 7,
                    server: 1,
                    incarnation: 1,
                },
                &options,
            )
            .unwrap();
    }
    let on_fatal = Arc::new(|error: &StorageError| panic!("{error}"));
    LogStore::new(Arc::new(folders.open_log(options, on_fatal).unwrap()))
}

struct Builder(LogOptions);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(TempDir, LogStore, StateMachine), openraft::StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), self.0.clone());
        Ok((folder, store, StateMachine::default()))
    }
}

fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        reserve_bytes: 16 << 10,
        ..LogOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_storage_suite_passes_on_the_real_log() {
    Suite::test_all(Builder(small())).await.unwrap();
}

/// With no room in memory, every read comes from disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_storage_suite_passes_without_the_cache() {
    Suite::test_all(Builder(LogOptions {
        cache_bytes_max: 0,
        ..small()
    }))
    .await
    .unwrap();
}

fn entry(term: u64, index: u64, payload: EntryPayload) -> Entry {
    Entry {
        log_id: LogId {
            leader_id: CommittedLeaderId::from(term),
            index,
        },
        payload,
    }
}

fn proposal(length: usize) -> EntryPayload {
    Payload::Normal(Proposal(Bytes::from(vec![5; length])))
}

#[tokio::test]
async fn entries_votes_and_log_ids_come_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), small());
    let returning = Returning {
        incarnation: 3,
        node: PeerNode::default(),
    };
    let node = PeerNode {
        host: "a".to_owned(),
        quorum_port: 1,
        election_port: 2,
        client_address: "b:2".to_owned(),
        line: "a:1:2:observer;b:2".to_owned(),
        observer: true,
        standing: Standing::Leaving,
        changed_ms: 7,
        returning: [(9, returning)].into(),
    };
    let nodes = std::collections::BTreeMap::from([(1, node)]);
    let membership = Membership::new(vec![[1].into()], nodes).unwrap();
    let entries = [
        entry(1, 0, Payload::Membership(membership)),
        entry(1, 1, Payload::Blank),
        entry(2, 2, proposal(3)),
        entry(2, 3, proposal(0)),
    ];
    store.blocking_append(entries.clone()).await.unwrap();
    let vote = Vote::new_committed(4, 9);
    store.save_vote(&vote).await.unwrap();
    store.save_committed(Some(entries[2].log_id)).await.unwrap();
    store.log().close().unwrap();
    drop(store);

    let mut store = open(folder.path(), small());
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries);
    assert_eq!(store.read_vote().await.unwrap(), Some(vote));
    assert_eq!(
        store.read_committed().await.unwrap(),
        Some(entries[2].log_id)
    );
    let all = entries[0].log_id..=entries[3].log_id;
    let last_of_each_term = vec![entries[1].log_id, entries[3].log_id];
    assert_eq!(store.get_key_log_ids(all).await.unwrap(), last_of_each_term);
}

#[tokio::test]
async fn a_request_is_limited_in_bytes_and_a_stream_is_not() {
    for cache_bytes_max in [0, 64 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions {
            cache_bytes_max,
            segment_bytes: 2 << 20,
            ..small()
        };
        let mut store = open(folder.path(), options);
        let entries: Vec<Entry> = (0..12)
            .map(|index| entry(1, index, proposal(1 << 20)))
            .collect();
        store.blocking_append(entries.clone()).await.unwrap();
        let some = store.limited_get_log_entries(2, 12).await.unwrap();
        assert_eq!(some, entries[2..2 + some.len()]);
        assert!((1..=2).contains(&some.len()), "{}", some.len());
        let streamed: Vec<Entry> = store
            .entries_stream(1..=10)
            .await
            .try_collect()
            .await
            .unwrap();
        assert_eq!(streamed, entries[1..=10]);
        let beyond: Vec<Entry> = store
            .entries_stream(11..99)
            .await
            .try_collect()
            .await
            .unwrap();
        assert_eq!(beyond, entries[11..]);
    }
}

/// The leader's snapshot has its name, and then the power fails: the entries that it overrules are
/// still in the log.
#[tokio::test]
async fn entries_that_a_snapshot_contradicts_are_dropped_at_the_start() {
    use super::super::snapshot_io::drop_contradicted;

    let at = |term, index| entry(term, index, Payload::Blank).log_id;
    // Terms of the log, from index 0; what is committed; the snapshot; the last entry that stays.
    let cases = [
        // An old leader's tail beyond the snapshot, and one that ends before it.
        (vec![1, 1, 3, 3, 3], 1, at(4, 3), Some(at(1, 1))),
        (vec![1, 1, 5], 1, at(4, 3), Some(at(1, 1))),
        // What the snapshot covers, what follows it, and what only ends before it stays.
        (vec![1, 1, 4, 4, 4], 1, at(4, 3), Some(at(4, 4))),
        (vec![1, 1, 1], 1, at(4, 3), Some(at(1, 2))),
    ];
    for (terms, committed, snapshot, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), small());
        let entries: Vec<Entry> = (0..)
            .zip(&terms)
            .map(|(index, term)| entry(*term, index, Payload::Blank))
            .collect();
        let id = entries[committed].log_id;
        store.blocking_append(entries).await.unwrap();
        store.save_committed(Some(id)).await.unwrap();
        drop_contradicted(store.log(), Some(snapshot)).unwrap();
        let state = store.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, expected, "{terms:?}");
        // The engine fills the hole by purging; then the log goes on behind the snapshot.
        if state.last_log_id < Some(snapshot) {
            store.purge(snapshot).await.unwrap();
            let next = entry(6, snapshot.index + 1, Payload::Blank);
            store.blocking_append([next]).await.unwrap();
        }
    }
}
