//! The state to and from snapshot files.
//!
//! Writing and reading are done on threads that may block, from a view that later entries do not
//! change. The membership stands beside the state, in MessagePack.

use std::error::Error;
use std::io;

use quorate_state::canary::{Canary, planted};
use quorate_state::{State, StateView};

use super::log_store::{to_entry_id, to_log_id};
use super::types::{LogId, Snapshot, SnapshotData, SnapshotMeta, StoredMembership};
use crate::storage::StorageError;
use crate::storage::log::{EntryId, Log, LogState};
use crate::storage::snapshots::{SnapshotFile, SnapshotInfo, SnapshotStore};

/// What a server starts from.
pub struct Loaded {
    pub state: State,
    /// `None` without a snapshot: all of the log is to be applied.
    pub last_applied: Option<LogId>,
    pub membership: StoredMembership,
}

/// Loads the newest snapshot that can be used with a log that was purged up to `purged`, or an empty
/// state if there is none.
///
/// # Errors
///
/// [`StorageError`]: the newest snapshot is damaged and the log does not reach back far enough to
/// do without, or it is not one of this version's.
pub fn load_newest(
    snapshots: &SnapshotStore,
    purged: Option<EntryId>,
) -> Result<Loaded, StorageError> {
    let purged = purged.map(|id| id.index);
    let newest = snapshots.open_latest(|last| last.map(|id| id.index) >= purged)?;
    let Some(file) = newest else {
        if let Some(purged) = purged {
            return Err(StorageError::Missing {
                path: snapshots.folder().to_owned(),
                what: format!("the log begins after entry {purged}, but no snapshot covers it"),
            });
        }
        return Ok(Loaded {
            state: State::new(),
            last_applied: None,
            membership: StoredMembership::default(),
        });
    };
    tracing::info!(path = %file.path().display(), "loading a snapshot");
    Ok(Loaded {
        state: read_state(&file)?,
        last_applied: file.info().last.map(to_log_id),
        membership: decode_membership(&file)?,
    })
}

/// Drops the entries of the log that the snapshot up to `applied` contradicts. A snapshot that the
/// leader has sent gets its name before such entries go: a crash in between leaves both.
///
/// What a snapshot holds is committed, so what contradicts it never was, nor was what follows that.
///
/// # Errors
///
/// The log's.
pub fn drop_contradicted(log: &Log, applied: Option<LogId>) -> Result<(), StorageError> {
    let Some(applied) = applied.map(to_entry_id) else {
        return Ok(());
    };
    let Some(keep) = contradicted(&log.state(), log.id_at(applied.index), applied) else {
        return Ok(());
    };
    tracing::info!(
        index = applied.index,
        "dropping entries that the newest snapshot has overruled"
    );
    log.truncate_after(keep)
}

/// Whether a snapshot up to `applied` contradicts a log, which has `found` at that index. If so:
/// the entry that is to be the last one.
pub(crate) fn contradicted(
    state: &LogState,
    found: Option<EntryId>,
    applied: EntryId,
) -> Option<Option<EntryId>> {
    let keep = state.committed.max(state.purged);
    let contradicted = match found {
        Some(found) => found.term != applied.term,
        // The log ends before, in a term that came after: an entry that was overruled.
        None => state.last.is_some_and(|last| last.term > applied.term),
    };
    // Committed entries that are contradicted are damage, for the engine to report.
    let may_go = keep.is_none_or(|keep| keep.index < applied.index);
    (contradicted && may_go).then_some(keep)
}

/// Loads the state of one snapshot.
///
/// # Errors
///
/// As the engine wants them; they stop the server.
pub async fn load(file: SnapshotData) -> Result<State, io::Error> {
    crate::tasks::blocking(move || read_state(&file))
        .await
        .and_then(|read| read.map_err(Into::into))
}

/// The newest snapshot that is whole, as the engine knows it. A damaged one was reported when the
/// server started from an older one, and must not come up again as the newest.
///
/// # Errors
///
/// The folder cannot be read.
pub fn newest(snapshots: &SnapshotStore) -> Result<Option<Snapshot>, io::Error> {
    snapshots.newest_verified()?.map(describe).transpose()
}

/// Why no snapshot was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Passes when there is room again; the snapshots there are stay.
    #[error("no room for a snapshot: {0}")]
    NoSpace(String),
    /// The disk can no longer be trusted.
    #[error("a snapshot could not be written: {0}")]
    Failed(String),
}

/// What a snapshot is written from: the state after the entry `last_applied`, and who was a member
/// then.
pub struct Source {
    pub view: StateView,
    pub last_applied: Option<LogId>,
    pub membership: StoredMembership,
}

/// Writes a snapshot and reads it back. It counts once this has returned.
///
/// # Errors
///
/// [`WriteError`].
pub async fn write(source: Source, snapshots: SnapshotStore) -> Result<(), WriteError> {
    let write = move || -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut info = SnapshotInfo {
            last: source.last_applied.map(to_entry_id),
            membership: rmp_serde::to_vec(&source.membership)?,
        };
        if planted(Canary::SnapshotClaimsMore)
            && let Some(last) = &mut info.last
        {
            last.index += 1;
        }
        let mut writer = snapshots.begin(info)?;
        source
            .view
            .write(&mut writer)
            .map_err(|error| match writer.failure() {
                // It tells a full disk, which passes, from what does not.
                Some(failure) => failure.clone().into(),
                None => Box::<dyn Error + Send + Sync>::from(error),
            })?;
        writer.finish()?;
        Ok(())
    };
    let written = crate::tasks::blocking(write)
        .await
        .unwrap_or_else(|error| Err(error.into()));
    written.map_err(|error| match is_no_space(&*error) {
        true => WriteError::NoSpace(error.to_string()),
        false => WriteError::Failed(error.to_string()),
    })
}

/// Whether the disk said that it is full.
fn is_no_space(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error
        .downcast_ref::<StorageError>()
        .is_some_and(|error| error.is_no_space() || error.is_out_of_descriptors())
}

/// A snapshot file, as the engine knows it.
pub(super) fn describe(file: SnapshotFile) -> Result<Snapshot, io::Error> {
    Ok(Snapshot {
        meta: SnapshotMeta {
            last_log_id: file.info().last.map(to_log_id),
            last_membership: decode_membership(&file)?,
        },
        snapshot: file,
    })
}

pub(crate) fn read_state(file: &SnapshotFile) -> Result<State, StorageError> {
    State::load(&mut file.read()?).map_err(|error| damaged(file, &error))
}

pub(crate) fn decode_membership(file: &SnapshotFile) -> Result<StoredMembership, StorageError> {
    rmp_serde::from_slice(&file.info().membership).map_err(|error| damaged(file, &error))
}

fn damaged(file: &SnapshotFile, error: &dyn std::fmt::Display) -> StorageError {
    StorageError::Damaged {
        path: file.path().to_owned(),
        offset: 0,
        what: format!("its contents do not decode ({error})"),
    }
}
