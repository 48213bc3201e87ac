//! The one order that the servers of an ensemble agree on, from the logs of several of them.
//!
//! An entry is certain if a server that has it knew it to be committed, if it comes before one that
//! is certain in the same log, or if a majority has it and no leader of a later term can be without
//! it: all of that majority have voted in its own term last (Raft's leader completeness; an older
//! term's entry on a majority may yet be overruled: Raft paper, figure 8). Everything else may be or
//! may come to be. Two servers that hold different entries where both are certain, or under one
//! leader's term, contradict each other: that must never happen, and is a [`Difference`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use super::replay::{self, Contents};
use super::{Folders, ZxidBase};
use crate::consensus::log_store::to_entry;
use crate::consensus::snapshot_io;
use crate::storage::StorageError;
use crate::storage::log::{EntryId, LogEntry, LogState};

/// So many differences are told of two servers: all after the first come of it, most likely.
const DIFFERENCES_MAX: usize = 10;

/// What one server brings.
#[derive(Clone, Debug)]
pub struct Source {
    /// The server.
    pub server: u64,
    /// Where its log is.
    pub path: PathBuf,
    /// Where its log begins and ends.
    pub log: LogState,
    /// The last entry that it knows to be committed: by a mark, a snapshot or a purge.
    pub committed: Option<EntryId>,
    entries: Vec<LogEntry>,
    /// The sets of voters in its newest snapshot, if it has one.
    voters: Option<Vec<Vec<u64>>>,
    cluster: u64,
    zxids: Option<ZxidBase>,
}

/// An entry of the merged log.
#[derive(Clone, Debug)]
pub struct MergedEntry {
    /// The entry.
    pub entry: LogEntry,
    /// Whether it is committed, and not only may be.
    pub is_certain: bool,
}

/// What comes of merging.
#[derive(Debug)]
pub struct Merged {
    /// All entries, in order; certain ones first.
    pub entries: Vec<MergedEntry>,
    /// Up to here they are certain.
    pub certain_upto: Option<u64>,
    /// Committed, but in none of the logs any more: `(first, last)`.
    pub missing: Vec<(u64, u64)>,
    /// Entries that a server holds and that will be overruled: `(server, first, last)`.
    pub overruled: Vec<(u64, u64, u64)>,
    /// What must never happen.
    pub differences: Vec<Difference>,
    /// How to make zxids of indexes, if that is known.
    pub zxids: Option<ZxidBase>,
}

/// Two servers contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// One leader's entry, and it is not the same one.
    Contents {
        /// Its place.
        id: EntryId,
        /// The servers.
        servers: (u64, u64),
    },
    /// Both know it to be committed, and it is another one.
    Committed {
        /// The place.
        index: u64,
        /// The servers.
        servers: (u64, u64),
        /// The terms of their entries.
        terms: (u64, u64),
    },
    /// They agree on an entry and not on one before it.
    Before {
        /// Where they agree.
        agreed: EntryId,
        /// Where they do not.
        index: u64,
        /// The servers.
        servers: (u64, u64),
    },
    /// They make other zxids of an index.
    Zxids {
        /// The servers.
        servers: (u64, u64),
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contents {
                id,
                servers: (a, b),
            } => write!(
                f,
                "servers {a} and {b} hold different entries at index {} of term {}",
                id.index, id.term
            ),
            Self::Committed {
                index,
                servers: (a, b),
                terms,
            } => write!(
                f,
                "servers {a} and {b} have committed different entries at index {index}, of terms {} and {}",
                terms.0, terms.1
            ),
            Self::Before {
                agreed,
                index,
                servers: (a, b),
            } => write!(
                f,
                "servers {a} and {b} agree on entry {} of term {}, but not on entry {index}",
                agreed.index, agreed.term
            ),
            Self::Zxids { servers: (a, b) } => {
                write!(
                    f,
                    "servers {a} and {b} give the same entries different zxids"
                )
            }
        }
    }
}

/// Why logs cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// One of them cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Nobody's folder.
    #[error("{path} belongs to no server: name the folders of servers that have been started")]
    Nobodys {
        /// The folder.
        path: PathBuf,
    },
    /// One server twice.
    #[error("{path} is another folder of server {server}: name each server once")]
    Twice {
        /// The folder.
        path: PathBuf,
        /// The server.
        server: u64,
    },
    /// Two ensembles.
    #[error(
        "{path} belongs to ensemble {found:016x}, not to {expected:016x}: name servers of one ensemble"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its ensemble.
        found: u64,
        /// That of the first one.
        expected: u64,
    },
}

impl Source {
    /// Reads what a server has.
    ///
    /// # Errors
    ///
    /// [`MergeError`].
    pub fn read(folders: &Folders) -> Result<Self, MergeError> {
        let path = folders.log().to_owned();
        let Some(identity) = folders.identity() else {
            return Err(MergeError::Nobodys { path });
        };
        let outlook = folders.whole_log()?;
        let snapshots = folders.snapshots()?;
        let mut committed = outlook.state.committed.max(outlook.state.purged);
        let mut voters = None;
        for snapshot in snapshots.list()?.into_iter().flatten() {
            if snapshots.verify(&snapshot).is_err() {
                continue;
            }
            committed = committed.max(snapshot.info().last);
            let membership = snapshot_io::decode_membership(&snapshot)?;
            voters = Some(replay::voters(membership.membership()));
            break;
        }
        Ok(Self {
            server: identity.server,
            path,
            zxids: folders.zxids(&outlook.state)?,
            log: outlook.state,
            committed,
            entries: outlook.entries,
            voters,
            cluster: identity.cluster,
        })
    }

    /// The entry at an index.
    fn entry(&self, index: u64) -> Option<&LogEntry> {
        let first = self.entries.first()?.id.index;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        self.entries.get(at)
    }

    /// The id at an index, as far as it is known here.
    fn id(&self, index: u64) -> Option<EntryId> {
        let noted = [self.log.purged, self.committed];
        let noted = noted.into_iter().flatten().find(|id| id.index == index);
        self.entry(index).map(|entry| entry.id).or(noted)
    }

    /// All places of which the id is known, in order.
    fn known(&self) -> impl Iterator<Item = EntryId> {
        let noted = [self.log.purged, self.committed].into_iter().flatten();
        let all: BTreeMap<u64, EntryId> = noted
            .chain(self.entries.iter().map(|entry| entry.id))
            .map(|id| (id.index, id))
            .collect();
        all.into_values()
    }
}

/// Merges what several servers have.
///
/// # Errors
///
/// [`MergeError`]: they do not belong together.
pub fn merge(sources: &[Source]) -> Result<Merged, MergeError> {
    let mut seen = BTreeSet::new();
    for source in sources {
        let expected = sources
            .first()
            .map_or(source.cluster, |first| first.cluster);
        if source.cluster != expected {
            return Err(MergeError::Foreign {
                path: source.path.clone(),
                found: source.cluster,
                expected,
            });
        }
        if !seen.insert(source.server) {
            return Err(MergeError::Twice {
                path: source.path.clone(),
                server: source.server,
            });
        }
    }
    let mut differences = Vec::new();
    for (number, first) in sources.iter().enumerate() {
        for second in &sources[number + 1..] {
            compare(first, second, &mut differences);
        }
    }
    let certain = certain(sources);
    let certain_upto = certain.last_key_value().map(|(index, _)| *index);
    let (mut entries, missing) = collect(sources, &certain, certain_upto);
    let best = sources.iter().max_by_key(|source| source.log.last);
    let rest = best.into_iter().flat_map(|best| &best.entries);
    let rest = rest.filter(|entry| Some(entry.id.index) > certain_upto);
    entries.extend(rest.map(|entry| MergedEntry {
        entry: entry.clone(),
        is_certain: false,
    }));
    let overruled = sources
        .iter()
        .filter_map(|source| overruled(source, &certain, best));
    Ok(Merged {
        overruled: overruled.collect(),
        entries,
        certain_upto,
        missing,
        differences,
        zxids: sources.iter().find_map(|source| source.zxids),
    })
}

/// What two servers contradict each other in.
fn compare(first: &Source, second: &Source, differences: &mut Vec<Difference>) {
    let servers = (first.server, second.server);
    let mut found = Vec::new();
    if let (Some(a), Some(b)) = (first.zxids, second.zxids)
        && a != b
    {
        found.push(Difference::Zxids { servers });
    }
    let committed = first.committed.zip(second.committed);
    let both_committed = committed.map(|(a, b)| a.index.min(b.index));
    let mut agreed_at = None;
    // From the end: where they agree, they must agree on all before.
    let ids: Vec<EntryId> = first.known().collect();
    for id in ids.into_iter().rev() {
        let Some(other) = second.id(id.index) else {
            continue;
        };
        if other.term == id.term {
            agreed_at = agreed_at.or(Some(id));
            if let (Some(a), Some(b)) = (first.entry(id.index), second.entry(id.index))
                && !is_same(a, b)
            {
                found.push(Difference::Contents { id, servers });
            }
        } else if let Some(agreed) = agreed_at {
            found.push(Difference::Before {
                agreed,
                index: id.index,
                servers,
            });
        } else if both_committed.is_some_and(|both| id.index <= both) {
            found.push(Difference::Committed {
                index: id.index,
                servers,
                terms: (id.term, other.term),
            });
        }
    }
    // The first difference tells the most.
    found.reverse();
    differences.extend(found.into_iter().take(DIFFERENCES_MAX));
}

/// A membership may be encoded by each server in its own way.
fn is_same(a: &LogEntry, b: &LogEntry) -> bool {
    (a.kind, &a.payload) == (b.kind, &b.payload)
        || match (to_entry(a.clone()), to_entry(b.clone())) {
            (Ok(a), Ok(b)) => a.payload == b.payload,
            _ => false,
        }
}

/// The terms of all entries that are certain, as far as they are known.
fn certain(sources: &[Source]) -> BTreeMap<u64, u64> {
    let mut certain = BTreeMap::new();
    let mut add = |source: &Source, upto: u64| {
        for id in source.known().take_while(|id| id.index <= upto) {
            certain.entry(id.index).or_insert(id.term);
        }
    };
    for source in sources {
        if let Some(committed) = source.committed {
            add(source, committed.index);
        }
    }
    let best = sources.iter().max_by_key(|source| source.log.last);
    if let Some(best) = best
        && let Some(upto) = on_a_majority(best, sources)
    {
        add(best, upto);
    }
    // What comes before a certain entry in the same log is the same everywhere.
    for source in sources {
        let known: Vec<EntryId> = source.known().collect();
        let agreed = known
            .iter()
            .rev()
            .find(|id| certain.get(&id.index) == Some(&id.term));
        if let Some(agreed) = agreed {
            for id in known.iter().take_while(|id| id.index <= agreed.index) {
                certain.entry(id.index).or_insert(id.term);
            }
        }
    }
    certain
}

/// The last entry of the log that goes furthest which a majority has, in the term in which they voted
/// last.
fn on_a_majority(best: &Source, sources: &[Source]) -> Option<u64> {
    let sets = voter_sets(best, sources);
    let is_held = |id: EntryId| {
        let holds = |server: &u64| {
            sources.iter().any(|source| {
                source.server == *server
                    && source.id(id.index) == Some(id)
                    && source.log.vote.is_none_or(|vote| vote.term <= id.term)
            })
        };
        let has_majority =
            |set: &Vec<u64>| 2 * set.iter().filter(|server| holds(server)).count() > set.len();
        !sets.is_empty() && sets.iter().all(has_majority)
    };
    let ids = best.entries.iter().rev().map(|entry| entry.id);
    ids.into_iter().find(|id| is_held(*id)).map(|id| id.index)
}

/// All sets of voters that may have had to agree to what is not known to be committed.
fn voter_sets(best: &Source, sources: &[Source]) -> Vec<Vec<u64>> {
    let mut sets: Vec<Vec<u64>> = Vec::new();
    let known = sources.iter().filter(|source| source.voters.is_some());
    if let Some(voters) = known
        .max_by_key(|source| source.committed)
        .and_then(|source| source.voters.as_ref())
    {
        sets.clone_from(voters);
    }
    for entry in &best.entries {
        if let Ok(Contents::Membership { voters, .. }) = replay::read(entry) {
            if Some(entry.id) <= best.committed {
                sets = voters;
            } else {
                sets.extend(voters);
            }
        }
    }
    sets.sort();
    sets.dedup();
    sets
}

/// The certain entries, and the ranges of those that no log has any more.
fn collect(
    sources: &[Source],
    certain: &BTreeMap<u64, u64>,
    upto: Option<u64>,
) -> (Vec<MergedEntry>, Vec<(u64, u64)>) {
    let mut entries = Vec::new();
    let mut missing: Vec<(u64, u64)> = Vec::new();
    let Some(upto) = upto else {
        return (entries, missing);
    };
    let kept = sources.iter().filter_map(|source| source.entries.first());
    let first = kept.map(|entry| entry.id.index).min();
    for index in first.unwrap_or(upto + 1)..=upto {
        let term = certain.get(&index);
        let found = sources.iter().find_map(|source| {
            source
                .entry(index)
                .filter(|entry| term == Some(&entry.id.term))
        });
        match (found, missing.last_mut()) {
            (Some(entry), _) => entries.push(MergedEntry {
                entry: entry.clone(),
                is_certain: true,
            }),
            (None, Some((_, last))) if *last + 1 == index => *last = index,
            (None, _) => missing.push((index, index)),
        }
    }
    (entries, missing)
}

/// What of a server's log is not what the merged log says.
fn overruled(
    source: &Source,
    certain: &BTreeMap<u64, u64>,
    best: Option<&Source>,
) -> Option<(u64, u64, u64)> {
    let is_overruled = |id: &EntryId| match certain.get(&id.index) {
        Some(term) => *term != id.term,
        None => best
            .and_then(|best| best.id(id.index))
            .is_none_or(|other| other.term != id.term),
    };
    let ids = source.entries.iter().map(|entry| entry.id);
    let first = ids.into_iter().find(is_overruled)?;
    let last = source.entries.last()?.id.index;
    Some((source.server, first.index, last))
}
