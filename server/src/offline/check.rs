//! Whether a server's files are sound, and what a start would make of them.
//!
//! Every checksum is looked at, of every segment and snapshot, also of those that a start would pass
//! over. Then, as far as what is there allows: each snapshot loads to the state whose digest it
//! names; the log leads from each snapshot to the next; every state on the way is sound; every entry
//! can be read. [`Report::start`] is what a start would do. It is found out with the code of one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quorate_state::State;
use serde::Serialize;

use super::disk::TEMPORARY_SUFFIX;
use super::replay::{self, Contents};
use super::{Folders, ZxidBase};
use crate::consensus::log_store::to_entry_id;
use crate::consensus::snapshot_io;
use crate::storage::log::inspect::{Outlook, Scanned};
use crate::storage::log::{EntryId, LogEntry, LogState, SavedVote};
use crate::storage::snapshots::{SnapshotFile, SnapshotStore};
use crate::storage::{Identity, StorageError};

/// So many contradictions are told of one state: the first are telling enough.
const FLAWS_MAX: usize = 20;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The folder of the snapshots.
    pub data_dir: PathBuf,
    /// The folder of the log.
    pub log_dir: PathBuf,
    /// Whose they are; `None` if nobody's.
    pub identity: Option<Owner>,
    /// What the log holds; `None` if there is none, or it cannot be read.
    pub log: Option<LogSummary>,
    /// Every segment.
    pub segments: Vec<SegmentSummary>,
    /// Every snapshot, the newest first.
    pub snapshots: Vec<SnapshotSummary>,
    /// The state that a start comes to with what is known to be committed.
    pub state: Option<StateSummary>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// What is as it may be, and worth knowing.
    pub notes: Vec<String>,
    /// What a start would do.
    pub start: Start,
}

/// Whose files they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The ensemble.
    pub cluster: u64,
    /// The server.
    pub server: u64,
    /// Drawn when the folder was initialized.
    pub incarnation: u64,
}

/// An entry's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct At {
    /// Its leader's term.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ballot {
    /// The term.
    pub term: u64,
    /// Who got it.
    pub server: u64,
    /// Whether that one was elected.
    pub elected: bool,
}

/// What the log adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LogSummary {
    /// The last entry that was purged.
    pub purged: Option<At>,
    /// The last entry.
    pub last: Option<At>,
    /// The last one known to be committed.
    pub committed: Option<At>,
    /// The last vote.
    pub vote: Option<Ballot>,
    /// How many entries there are.
    pub entries: u64,
    /// Whether the server was stopped in order, or had nothing to write for a while.
    pub sealed: bool,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentSummary {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Batches that are whole.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// The first of their indexes.
    pub first: Option<u64>,
    /// The last of their indexes.
    pub last: Option<u64>,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotSummary {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The last entry in it.
    pub last: Option<At>,
    /// What is in it; `None` if it cannot be read.
    pub state: Option<StateSummary>,
}

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateSummary {
    /// Of the last command.
    pub zxid: i64,
    /// By which replicas compare.
    pub digest: u64,
    /// As ZooKeeper counts them.
    pub znodes: u64,
    /// Of these, how many end with a session.
    pub ephemerals: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Of all paths and all data.
    pub data_bytes: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where.
    pub path: PathBuf,
    /// Where in it.
    pub offset: Option<u64>,
    /// What.
    pub what: String,
}

/// What a start would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Start {
    /// Begin with nothing: no server has ever served with these folders.
    New,
    /// Start, with all there is.
    Starts,
    /// Start, without a write that never finished, of which nobody was told.
    CutsOff {
        /// The segment.
        path: PathBuf,
        /// From here.
        offset: u64,
        /// So many bytes.
        bytes: u64,
    },
    /// Refuse, and change nothing.
    Refuses {
        /// What it would say.
        why: String,
    },
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && !matches!(self.start, Start::Refuses { .. })
    }
}

/// Looks at everything.
///
/// # Errors
///
/// [`StorageError`]: the folders cannot be read at all. What is wrong in them is no error here.
pub fn check(folders: &Folders) -> Result<Report, StorageError> {
    let mut report = Report {
        data_dir: folders.data().to_owned(),
        log_dir: folders.log().to_owned(),
        identity: folders.identity().map(owner),
        log: None,
        segments: Vec::new(),
        snapshots: Vec::new(),
        state: None,
        problems: Vec::new(),
        notes: Vec::new(),
        start: Start::New,
    };
    note_temporaries(folders, &mut report.notes);
    if folders.identity().is_none() {
        check_nobodys(folders, &mut report)?;
        return Ok(report);
    }
    let scanned = folders.scan(|_| {})?;
    report.segments = scanned.iter().map(segment).collect();
    let snapshots = folders.snapshots()?;
    let states = check_snapshots(&snapshots, &mut report)?;
    match folders.outlook() {
        Ok(Some(outlook)) => {
            check_log(folders, &snapshots, &outlook, &scanned, states, &mut report);
        }
        Ok(None) => refuse(
            &mut report,
            &StorageError::Missing {
                path: folders.log().to_owned(),
                what: "this server had a log here".to_owned(),
            },
        ),
        Err(error) => {
            for error in scanned.iter().flat_map(|segment| &segment.damage) {
                report.problems.push(problem(error));
            }
            refuse(&mut report, &error);
        }
    }
    Ok(report)
}

/// Folders without an identity: a start begins with nothing, unless there is something.
fn check_nobodys(folders: &Folders, report: &mut Report) -> Result<(), StorageError> {
    if let Some(path) = folders.stray_segment()? {
        let what = "this log segment holds data, but the folder's identity file is missing";
        refuse(report, &StorageError::damaged(&path, 0, what));
    }
    Ok(())
}

/// Loads every snapshot. Returns the states of those that are whole.
fn check_snapshots(
    snapshots: &SnapshotStore,
    report: &mut Report,
) -> Result<BTreeMap<u64, (SnapshotFile, State)>, StorageError> {
    let mut states = BTreeMap::new();
    for found in snapshots.list()? {
        let file = match found {
            Ok(file) => file,
            Err(error) => {
                report.problems.push(problem(&error));
                continue;
            }
        };
        let loaded = snapshots
            .verify(&file)
            .and_then(|()| snapshot_io::decode_membership(&file))
            .and_then(|_| snapshot_io::read_state(&file));
        let mut summary = SnapshotSummary {
            path: file.path().to_owned(),
            bytes: file.length(),
            last: file.info().last.map(at),
            state: None,
        };
        match loaded {
            Ok(state) => {
                audit(&state, file.path(), report);
                summary.state = Some(summarize(&state));
                let index = file.info().last.map_or(0, |last| last.index);
                states.insert(index, (file, state));
            }
            Err(error) => report.problems.push(problem(&error)),
        }
        report.snapshots.push(summary);
    }
    Ok(states)
}

fn check_log(
    folders: &Folders,
    snapshots: &SnapshotStore,
    outlook: &Outlook,
    scanned: &[Scanned],
    states: BTreeMap<u64, (SnapshotFile, State)>,
    report: &mut Report,
) {
    let log = &outlook.state;
    report.log = Some(LogSummary {
        purged: log.purged.map(at),
        last: log.last.map(at),
        committed: log.committed.map(at),
        vote: log.vote.map(ballot),
        entries: outlook.entries.len() as u64,
        sealed: outlook.is_sealed,
    });
    report.start = match &outlook.torn {
        None => Start::Starts,
        Some((path, torn)) => Start::CutsOff {
            path: path.clone(),
            offset: torn.start,
            bytes: torn.end - torn.start,
        },
    };
    note_scan(outlook, scanned, report);
    check_entries(folders.log(), &outlook.entries, report);
    check_steps(&outlook.entries, &states, report);
    drop(states);
    match snapshot_io::load_newest(snapshots, log.purged) {
        Ok(loaded) => {
            let applied = loaded.last_applied.map(to_entry_id);
            check_overruled(log, &outlook.entries, applied, report);
            let upto = log.committed.map(|committed| committed.index);
            check_end(
                folders,
                &outlook.entries,
                loaded.state,
                applied,
                upto,
                report,
            );
        }
        Err(error) => refuse(report, &error),
    }
}

/// What the scan stumbled over is no problem where recovery has an explanation for it.
fn note_scan(outlook: &Outlook, scanned: &[Scanned], report: &mut Report) {
    for error in scanned.iter().flat_map(|segment| &segment.damage) {
        let found = problem(error);
        let is_torn = outlook.torn.as_ref().is_some_and(|(path, torn)| {
            found.path == *path && found.offset.is_some_and(|offset| torn.contains(&offset))
        });
        if is_torn || outlook.useless.contains(&found.path) {
            continue;
        }
        report.problems.push(found);
    }
    // Beside the next segment, made ahead, which is nothing to tell.
    let is_spare = |path: &PathBuf| {
        let segment = scanned.iter().find(|segment| segment.path == *path);
        segment.is_some_and(|segment| segment.batches == 0 && segment.damage.is_empty())
    };
    for path in outlook.useless.iter().filter(|path| !is_spare(path)) {
        report.notes.push(format!(
            "{} holds nothing that counts: a start removes it",
            path.display()
        ));
    }
}

fn check_entries(folder: &Path, entries: &[LogEntry], report: &mut Report) {
    let mut last_time_ms = i64::MIN;
    let mut steps_back = 0_u64;
    for entry in entries {
        match replay::read(entry) {
            Ok(Contents::Command(command)) => {
                steps_back += u64::from(command.time_ms < last_time_ms);
                last_time_ms = command.time_ms;
            }
            Ok(Contents::Blank | Contents::Membership { .. }) => {}
            Err(error) => report.problems.push(Problem {
                path: folder.to_owned(),
                offset: None,
                what: error.to_string(),
            }),
        }
    }
    if steps_back > 0 {
        report.notes.push(format!(
            "the leaders' clocks went back {steps_back} times from one entry to the next"
        ));
    }
}

/// The log has to lead from each snapshot to the next.
fn check_steps(
    entries: &[LogEntry],
    states: &BTreeMap<u64, (SnapshotFile, State)>,
    report: &mut Report,
) {
    let pairs = states.values().zip(states.values().skip(1));
    for ((older, _), (newer, expected)) in pairs {
        let (Some(from), Some(upto)) = (older.info().last, newer.info().last) else {
            continue;
        };
        if !holds(entries, from.index + 1, upto.index) {
            report.notes.push(format!(
                "the log does not reach back to {}: the next snapshot cannot be compared",
                older.path().display()
            ));
            continue;
        }
        // Loaded once more: applying changes it.
        let (Ok(mut state), Some(zxids)) =
            (snapshot_io::read_state(older), ZxidBase::of_snapshot(older))
        else {
            continue;
        };
        let applied = replay::apply_range(&mut state, zxids, entries, Some(from.index), upto.index);
        // What cannot be read was told.
        if applied.is_ok() && state.digest() != expected.digest() {
            report.problems.push(Problem {
                path: newer.path().to_owned(),
                offset: None,
                what: format!(
                    "its digest is {:#018x}, but the snapshot before it and the log lead to {:#018x}",
                    expected.digest(),
                    state.digest()
                ),
            });
        }
    }
}

/// Entries that a start drops because the newest snapshot, sent by a leader, says otherwise.
fn check_overruled(
    log: &LogState,
    entries: &[LogEntry],
    applied: Option<EntryId>,
    report: &mut Report,
) {
    let Some(applied) = applied else { return };
    let found = entries.iter().map(|entry| entry.id);
    let found = found.chain(log.purged).find(|id| id.index == applied.index);
    if let Some(keep) = snapshot_io::contradicted(log, found, applied) {
        let from = keep.map_or(0, |keep| keep.index + 1);
        report.notes.push(format!(
            "a leader has overruled the entries from {from} on with a snapshot: a start drops them"
        ));
    }
    if log.last.is_none_or(|last| last.index < applied.index) {
        report.notes.push(format!(
            "the newest snapshot goes up to entry {}, further than the log: it came from a leader",
            applied.index
        ));
    }
}

/// The state that a start comes to.
fn check_end(
    folders: &Folders,
    entries: &[LogEntry],
    mut state: State,
    applied: Option<EntryId>,
    committed: Option<u64>,
    report: &mut Report,
) {
    let index = applied.map_or(0, |applied| applied.index);
    let Some(base) = state.last_zxid().0.checked_sub_unsigned(index) else {
        return;
    };
    let from = applied.map(|applied| applied.index);
    if let Some(upto) = committed {
        let replayed = replay::apply_range(&mut state, ZxidBase(base), entries, from, upto);
        if replayed.is_err() {
            return;
        }
        audit(&state, folders.log(), report);
    }
    report.state = Some(summarize(&state));
    let known = committed.max(from);
    let unknown = entries.iter().filter(|entry| Some(entry.id.index) > known);
    let unknown = unknown.count();
    if unknown > 0 {
        report.notes.push(format!(
            "of the last {unknown} entries it does not say whether they are committed: the ensemble decides"
        ));
    }
}

/// Whether all of `first..=last` are there.
fn holds(entries: &[LogEntry], first: u64, last: u64) -> bool {
    let start = entries.partition_point(|entry| entry.id.index < first);
    let end = entries.partition_point(|entry| entry.id.index <= last);
    (end - start) as u64 == (last + 1).saturating_sub(first)
}

fn audit(state: &State, path: &Path, report: &mut Report) {
    for flaw in state.audit(FLAWS_MAX) {
        report.problems.push(Problem {
            path: path.to_owned(),
            offset: None,
            what: flaw.to_string(),
        });
    }
}

fn refuse(report: &mut Report, error: &StorageError) {
    let found = problem(error);
    if !report.problems.contains(&found) {
        report.problems.push(found);
    }
    report.start = Start::Refuses {
        why: error.to_string(),
    };
}

fn note_temporaries(folders: &Folders, notes: &mut Vec<String>) {
    for folder in [folders.data(), folders.log()] {
        let Ok(files) = std::fs::read_dir(folder) else {
            continue;
        };
        let mut names: Vec<String> = files
            .filter_map(|file| file.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(TEMPORARY_SUFFIX))
            .collect();
        names.sort();
        for name in names {
            let path = folder.join(name);
            let note = format!("{} was never finished: it does not count", path.display());
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
}

/// Without what an error says for people who start a server.
fn problem(error: &StorageError) -> Problem {
    let (path, offset, what) = match error {
        StorageError::Damaged { path, offset, what } => (path, Some(*offset), what.clone()),
        StorageError::Missing { path, what } => (path, None, format!("it is missing: {what}")),
        StorageError::NewerFormat { path, .. }
        | StorageError::Foreign { path, .. }
        | StorageError::ForeignSnapshot { path, .. }
        | StorageError::Io { path, .. }
        | StorageError::NotAFolder { path }
        | StorageError::NotWritable { path, .. }
        | StorageError::Locked { path, .. } => (path, None, error.to_string()),
        StorageError::Gap { .. } | StorageError::EntryTooLarge { .. } | StorageError::Closed => {
            (&PathBuf::new(), None, error.to_string())
        }
    };
    Problem {
        path: path.clone(),
        offset,
        what,
    }
}

fn owner(identity: Identity) -> Owner {
    Owner {
        cluster: identity.cluster,
        server: identity.server,
        incarnation: identity.incarnation,
    }
}

fn at(id: EntryId) -> At {
    At {
        term: id.term,
        index: id.index,
    }
}

fn ballot(vote: SavedVote) -> Ballot {
    Ballot {
        term: vote.term,
        server: vote.server,
        elected: vote.committed,
    }
}

fn segment(scanned: &Scanned) -> SegmentSummary {
    SegmentSummary {
        path: scanned.path.clone(),
        bytes: scanned.length,
        batches: scanned.batches,
        entries: scanned.entries,
        first: scanned.indexes.map(|(first, _)| first),
        last: scanned.indexes.map(|(_, last)| last),
    }
}

fn summarize(state: &State) -> StateSummary {
    StateSummary {
        zxid: state.last_zxid().0,
        digest: state.digest(),
        znodes: state.node_count(),
        ephemerals: state.ephemeral_count(),
        sessions: state.session_count(),
        data_bytes: state.approximate_data_size(),
    }
}
