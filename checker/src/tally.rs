//! How much there was to judge: a history in which nothing happened breaks no promise.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::history::{History, Outcome, SessionStep};

/// Counts of one history, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub histories: u64,
    /// Requests that were sent.
    pub operations: u64,
    pub done: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Requests that were sent while a fault was on, and those of them that were done.
    pub during_faults: u64,
    pub done_during_faults: u64,
    /// Reads whose answer was compared with the log's state.
    pub reads_checked: u64,
    /// Operations of which a search found that there is an order for them.
    pub linearized: u64,
    /// Operations left out of the search, because they cannot be put into it.
    pub not_searched: u64,
    pub events: u64,
    /// Events that were compared with the log.
    pub events_checked: u64,
    pub sessions_opened: u64,
    pub sessions_resumed: u64,
    pub sessions_expired: u64,
    pub sessions_closed: u64,
    pub connections_lost: u64,
    pub grants: u64,
    pub digests_compared: u64,
    pub trees_compared: u64,
    pub log_entries: u64,
    /// Terms in the log beyond the first.
    pub leader_changes: u64,
    /// By class.
    pub faults: BTreeMap<String, u64>,
    pub marks: BTreeMap<String, u64>,
    /// Of the runs' clocks, in nanoseconds.
    pub duration: u64,
}

impl Tally {
    pub(crate) fn of(history: &History) -> Self {
        let mut tally = Self {
            histories: 1,
            events: history.events.len() as u64,
            grants: history.grants.len() as u64,
            marks: history.marks.clone(),
            duration: history.header.duration,
            ..Self::default()
        };
        let faults: Vec<(u64, u64)> = history
            .faults
            .iter()
            .map(|fault| (fault.from, fault.to.unwrap_or(u64::MAX)))
            .collect();
        for operation in &history.operations {
            let is_done = operation.outcome.is_done();
            match operation.outcome {
                Outcome::NotSent => continue,
                Outcome::Done { .. } => tally.done += 1,
                Outcome::Refused { .. } => tally.refused += 1,
                Outcome::Unknown => tally.unknown += 1,
            }
            tally.operations += 1;
            let is_disturbed = |(from, to): &(u64, u64)| (*from..=*to).contains(&operation.invoked);
            if faults.iter().any(is_disturbed) {
                tally.during_faults += 1;
                tally.done_during_faults += u64::from(is_done);
            }
        }
        for record in &history.sessions {
            let count = match record.step {
                SessionStep::Opened { .. } => &mut tally.sessions_opened,
                SessionStep::Resumed { .. } => &mut tally.sessions_resumed,
                SessionStep::Lost => &mut tally.connections_lost,
                _ => continue,
            };
            *count += 1;
        }
        for fault in &history.faults {
            *tally.faults.entry(fault.what.clone()).or_default() += 1;
        }
        if let Some(log) = &history.log {
            let terms: BTreeSet<u64> = log.entries.iter().map(|entry| entry.term).collect();
            tally.log_entries = log.entries.len() as u64;
            tally.leader_changes = (terms.len() as u64).saturating_sub(1);
        }
        tally
    }

    /// Counts another one in.
    pub fn add(&mut self, other: &Self) {
        let Self {
            histories,
            operations,
            done,
            refused,
            unknown,
            during_faults,
            done_during_faults,
            reads_checked,
            linearized,
            not_searched,
            events,
            events_checked,
            sessions_opened,
            sessions_resumed,
            sessions_expired,
            sessions_closed,
            connections_lost,
            grants,
            digests_compared,
            trees_compared,
            log_entries,
            leader_changes,
            faults,
            marks,
            duration,
        } = other;
        self.histories += histories;
        self.operations += operations;
        self.done += done;
        self.refused += refused;
        self.unknown += unknown;
        self.during_faults += during_faults;
        self.done_during_faults += done_during_faults;
        self.reads_checked += reads_checked;
        self.linearized += linearized;
        self.not_searched += not_searched;
        self.events += events;
        self.events_checked += events_checked;
        self.sessions_opened += sessions_opened;
        self.sessions_resumed += sessions_resumed;
        self.sessions_expired += sessions_expired;
        self.sessions_closed += sessions_closed;
        self.connections_lost += connections_lost;
        self.grants += grants;
        self.digests_compared += digests_compared;
        self.trees_compared += trees_compared;
        self.log_entries += log_entries;
        self.leader_changes += leader_changes;
        self.duration += duration;
        for (mine, theirs) in [(&mut self.faults, faults), (&mut self.marks, marks)] {
            for (name, count) in theirs {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }
}
