//! A start of a server's storage, with the code and in the order of a server's own start, and what
//! must hold of what it finds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_server::consensus::snapshot_io;
use quorate_server::offline::ZxidBase;
use quorate_server::offline::replay;
use quorate_server::storage::file::Disk;
use quorate_server::storage::log::{EntryId, FatalHook, Log, LogEntry, LogOptions, LogState};
use quorate_server::storage::snapshots::SnapshotStore;
use quorate_server::storage::{DataDir, Identity, StorageError};
use quorate_state::State;

use crate::oracle::{Oracle, Window};

/// Where everything is.
pub fn folder() -> &'static Path {
    Path::new("/data")
}

/// Who uses it.
pub const IDENTITY: Identity = Identity {
    cluster: 0x51,
    server: 1,
    incarnation: 77,
};

/// Small, so that segments are many and entries are read from disk.
pub fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 8 << 10,
        batch_bytes_max: 2 << 10,
        queue_bytes_max: 64 << 10,
        cache_bytes_max: 4 << 10,
        reserve_bytes: 4 << 10,
        space_retry: Duration::from_millis(1),
        seal_after: Duration::from_millis(100),
    }
}

/// A storage that was started.
pub struct Started {
    pub log: Arc<Log>,
    pub snapshots: SnapshotStore,
    pub folders: DataDir,
    /// Whether the folders were nobody's.
    pub is_new: bool,
    /// As the log was found.
    pub found: LogState,
    pub entries: Vec<LogEntry>,
    /// As it was loaded: after the entry `applied`.
    pub state: State,
    pub applied: Option<EntryId>,
    /// The start has dropped what comes after this entry: the snapshot says otherwise.
    pub overruled: Option<Option<EntryId>>,
}

/// Starts. `Server::start` does the same in the same order.
///
/// # Errors
///
/// Those of a start.
pub fn start(disk: Arc<dyn Disk>) -> Result<Started, StorageError> {
    let ignore: FatalHook = Arc::new(|_: &StorageError| {});
    let mut folders = DataDir::open_on(disk, folder(), folder())?;
    folders.check_server(IDENTITY.server)?;
    let is_new = folders.identity().is_none();
    if is_new {
        folders.initialize(IDENTITY, &options())?;
    }
    let snapshots = folders.open_snapshots()?;
    let load = |purged| snapshot_io::load_newest(&snapshots, purged);
    let (log, loaded) = folders.open_log_after(options(), ignore, load)?;
    let applied = loaded.last_applied.map(|id| EntryId {
        term: id.leader_id.term,
        index: id.index,
    });
    let found = log.state();
    let entries = log.find(0, u64::MAX, usize::MAX).read()?;
    snapshot_io::drop_contradicted(&log, loaded.last_applied)?;
    let last = log.state().last;
    Ok(Started {
        overruled: (last != found.last).then_some(last),
        log: Arc::new(log),
        snapshots,
        folders,
        is_new,
        found,
        entries,
        state: loaded.state,
        applied,
    })
}

/// Checks all that was found. Returns which moment of the log it is.
///
/// # Errors
///
/// What must not be.
pub fn judge(oracle: &Oracle, window: &Window, started: &mut Started) -> Result<usize, String> {
    if started.is_new {
        if window.initialized {
            return Err("the identity is gone".to_owned());
        }
        return match started.found {
            LogState {
                purged: None,
                last: None,
                vote: None,
                ..
            } => Ok(0),
            found => Err(format!("a new log holds {found:?}")),
        };
    }
    if started.folders.identity() != Some(IDENTITY) {
        return Err(format!("the identity is {:?}", started.folders.identity()));
    }
    let moment = oracle.recognise(window, &started.found, &started.entries)?;
    judge_snapshot(oracle, window, started)?;
    judge_committed(oracle, window, started)?;
    Ok(moment)
}

fn judge_snapshot(oracle: &Oracle, window: &Window, started: &Started) -> Result<(), String> {
    let applied = started.applied.map(|applied| applied.index);
    if applied < window.snapshot {
        return Err(format!(
            "the newest snapshot goes up to {applied:?}, and one up to {:?} had counted",
            window.snapshot
        ));
    }
    if let Some(applied) = started.applied {
        let (digest, term) = (
            oracle.digests.get(&applied.index),
            oracle.terms.get(&applied.index),
        );
        if digest != Some(&started.state.digest()) || term != Some(&applied.term) {
            return Err(format!(
                "the snapshot up to {applied:?} holds another state"
            ));
        }
    }
    let problems = started.state.audit(1);
    match problems.first() {
        Some(problem) => Err(format!("the snapshot's state: {problem}")),
        None => Ok(()),
    }
}

/// What is known to be committed was committed, and leads to the state it led to.
fn judge_committed(oracle: &Oracle, window: &Window, started: &mut Started) -> Result<(), String> {
    let Some(committed) = started.found.committed else {
        return Ok(());
    };
    if Some(committed.index) > window.committed {
        return Err(format!("{committed:?} counts as committed, and is not"));
    }
    if oracle.terms.get(&committed.index) != Some(&committed.term) {
        return Err(format!(
            "{committed:?} counts as committed, and another one is"
        ));
    }
    replay_committed(started)?;
    let index = Some(committed.index).max(started.applied.map(|applied| applied.index));
    let expected = index.and_then(|index| oracle.digests.get(&index));
    if expected != Some(&started.state.digest()) {
        return Err(format!(
            "the entries up to {committed:?} lead to another state"
        ));
    }
    Ok(())
}

/// Applies to the state what is known to be committed.
///
/// # Errors
///
/// An entry cannot be read.
pub fn replay_committed(started: &mut Started) -> Result<(), String> {
    let from = started.applied.map(|applied| applied.index);
    let Some(committed) = started.found.committed else {
        return Ok(());
    };
    if Some(committed.index) <= from {
        return Ok(());
    }
    // The first entry has index 0 and zxid 0.
    let (state, entries) = (&mut started.state, &started.entries);
    replay::apply_range(state, ZxidBase::new(0), entries, from, committed.index)
        .map_err(|error| error.to_string())
}
