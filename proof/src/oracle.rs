//! What a log and its snapshots may be found to hold, worked out from what was asked for.
//!
//! The log is one stream: whatever is found must be what it was after some change that was asked for,
//! not before the last one of which somebody was told that it is durable. So a vote never goes back,
//! nothing acknowledged is missing, and what was dropped does not come back. A state of the log is kept
//! as a few numbers: a hash that chains all entries from the first one on stands for the entries.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use quorate_server::storage::log::{EntryId, LogEntry, LogState, SavedVote};

use crate::tape::Note;

/// The log after one change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub vote: Option<SavedVote>,
    pub purged: Option<EntryId>,
    pub last: Option<EntryId>,
    /// Of all entries up to the last purged one.
    pub chain_purged: u64,
    /// Of all entries up to the last one.
    pub chain: u64,
}

/// The hash of a chain with one more entry.
pub fn link(chain: u64, entry: &LogEntry) -> u64 {
    let mut hasher = DefaultHasher::new();
    chain.hash(&mut hasher);
    entry.id.hash(&mut hasher);
    entry.kind.hash(&mut hasher);
    entry.payload.hash(&mut hasher);
    hasher.finish()
}

/// All that was ever asked for.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// In order. After a restart the one that was found comes again.
    pub moments: Vec<Moment>,
    /// Of the state after each committed entry.
    pub digests: BTreeMap<u64, u64>,
    /// The term of each committed entry.
    pub terms: BTreeMap<u64, u64>,
}

/// What may be found at one place of the tape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub initialized: bool,
    /// The first and the last of the moments that may be found.
    pub first: usize,
    pub last: usize,
    /// The newest snapshot that counts.
    pub snapshot: Option<u64>,
    /// The highest index that the log was told is committed.
    pub committed: Option<u64>,
}

impl Window {
    /// Takes in what is known from here on.
    pub fn note(&mut self, note: Note) {
        match note {
            Note::Initialized => self.initialized = true,
            Note::Asked(moment) => self.last = self.last.max(moment),
            Note::Durable(moment) => self.first = self.first.max(moment),
            Note::Found(moment) => {
                self.first = moment;
                self.last = moment;
            }
            Note::Snapshot(index) => self.snapshot = self.snapshot.max(Some(index)),
            Note::Committed(index) => self.committed = self.committed.max(Some(index)),
        }
    }
}

impl Oracle {
    /// Which moment it is that was found: the first that it can be.
    ///
    /// # Errors
    ///
    /// What was found instead.
    pub fn recognise(
        &self,
        window: &Window,
        found: &LogState,
        entries: &[LogEntry],
    ) -> Result<usize, String> {
        let mut reasons = Vec::new();
        for number in window.first..=window.last {
            let moment = &self.moments[number];
            let mismatch = if found.vote != moment.vote {
                Some(format!(
                    "vote {:?} instead of {:?}",
                    found.vote, moment.vote
                ))
            } else if found.purged != moment.purged {
                Some(format!(
                    "purged {:?} instead of {:?}",
                    found.purged, moment.purged
                ))
            } else if found.last != moment.last {
                Some(format!(
                    "last {:?} instead of {:?}",
                    found.last, moment.last
                ))
            } else {
                check_entries(moment, entries).err()
            };
            match mismatch {
                None => return Ok(number),
                Some(mismatch) => reasons.push(format!("{number}: {mismatch}")),
            }
        }
        let many = reasons.len();
        reasons.truncate(3);
        Err(format!(
            "the log is as it never was in {} to {} ({many} possible): {}",
            window.first,
            window.last,
            reasons.join("; ")
        ))
    }
}

fn check_entries(moment: &Moment, entries: &[LogEntry]) -> Result<(), String> {
    let mut chain = moment.chain_purged;
    let mut next = moment.purged.map_or(0, |purged| purged.index + 1);
    for entry in entries {
        if entry.id.index != next {
            return Err(format!(
                "entry {} comes where {next} should",
                entry.id.index
            ));
        }
        next += 1;
        chain = link(chain, entry);
    }
    let expected = moment.last.map_or(0, |last| last.index + 1);
    if next != expected {
        return Err(format!("entries end before {next} instead of {expected}"));
    }
    if chain != moment.chain {
        return Err("entries differ from those that were appended".to_owned());
    }
    Ok(())
}
