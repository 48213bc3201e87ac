//! Whether enough happened: a run in which nothing happened breaks no promise, and proves nothing.
//!
//! [`Thresholds`] are asked of one run, or of a whole set of runs added up. A mark is a rare state
//! that a test wants to have reached at least once (a snapshot was installed, an expiry came too
//! late); a set of runs that never reached one is not complete.

use std::fmt;

use crate::tally::Tally;

/// What there has to be at least.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thresholds {
    pub operations: u64,
    /// Requests a second of the run's clock.
    pub rate: f64,
    /// Of requests: how many were done or refused, from 0 to 1.
    pub answered: f64,
    /// Of requests sent while a fault was on: how many were done.
    pub done_during_faults: f64,
    pub reads_checked: u64,
    pub linearized: u64,
    pub events_checked: u64,
    pub sessions_resumed: u64,
    pub sessions_expired: u64,
    pub leader_changes: u64,
    pub digests_compared: u64,
    pub trees_compared: u64,
    pub grants: u64,
    /// How often each class of faults has to have happened.
    pub faults: Vec<(String, u64)>,
    /// States that have to have been reached.
    pub marks: Vec<String>,
}

/// Something of which there was too little.
#[derive(Clone, Debug, PartialEq)]
pub struct Shortfall {
    pub what: String,
    pub wanted: f64,
    pub got: f64,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, wanted, got } = self;
        write!(f, "{what}: {got}, at least {wanted} wanted")
    }
}

impl Thresholds {
    /// What is missing; nothing if the run counts.
    #[must_use]
    pub fn shortfalls(&self, tally: &Tally) -> Vec<Shortfall> {
        let seconds = tally.duration as f64 / 1e9;
        let answered = tally.done + tally.refused;
        let counts = [
            ("operations", self.operations, tally.operations),
            ("reads checked", self.reads_checked, tally.reads_checked),
            ("operations linearized", self.linearized, tally.linearized),
            ("events checked", self.events_checked, tally.events_checked),
            (
                "sessions resumed",
                self.sessions_resumed,
                tally.sessions_resumed,
            ),
            (
                "sessions expired",
                self.sessions_expired,
                tally.sessions_expired,
            ),
            ("leader changes", self.leader_changes, tally.leader_changes),
            (
                "digests compared",
                self.digests_compared,
                tally.digests_compared,
            ),
            ("trees compared", self.trees_compared, tally.trees_compared),
            ("grants", self.grants, tally.grants),
        ];
        let counts = counts.map(|(what, wanted, got)| (what.to_owned(), wanted as f64, got as f64));
        let shares = [
            (
                "operations a second".to_owned(),
                self.rate,
                share(tally.operations as f64, seconds),
            ),
            (
                "share of operations answered".to_owned(),
                self.answered,
                share(answered as f64, tally.operations as f64),
            ),
            (
                "share of operations done during faults".to_owned(),
                self.done_during_faults,
                share(tally.done_during_faults as f64, tally.during_faults as f64),
            ),
        ];
        let faults = self.faults.iter().map(|(what, wanted)| {
            let got = tally.faults.get(what).copied().unwrap_or_default();
            (
                format!("faults of class {what}"),
                *wanted as f64,
                got as f64,
            )
        });
        let marks = self.marks.iter().map(|mark| {
            let got = tally.marks.get(mark).copied().unwrap_or_default();
            (format!("reached {mark}"), 1.0, got as f64)
        });
        counts
            .into_iter()
            .chain(shares)
            .chain(faults)
            .chain(marks)
            .filter(|(_, wanted, got)| got < wanted)
            .map(|(what, wanted, got)| Shortfall { what, wanted, got })
            .collect()
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Thresholds {
        Thresholds {
            operations: 100,
            rate: 10.0,
            answered: 0.5,
            done_during_faults: 0.1,
            reads_checked: 1,
            linearized: 1,
            events_checked: 1,
            sessions_resumed: 1,
            sessions_expired: 1,
            leader_changes: 1,
            digests_compared: 1,
            trees_compared: 1,
            grants: 1,
            faults: vec![("kill".to_owned(), 2)],
            marks: vec!["snapshot_installed".to_owned()],
        }
    }

    #[test]
    fn a_run_in_which_nothing_happened_falls_short_of_everything() {
        let shortfalls = wanted().shortfalls(&Tally::default());
        assert_eq!(shortfalls.len(), 15, "{shortfalls:?}");
    }

    #[test]
    fn a_run_that_has_it_all_counts_and_each_lack_is_named() {
        let mut tally = Tally {
            operations: 100,
            done: 40,
            refused: 10,
            during_faults: 10,
            done_during_faults: 1,
            reads_checked: 1,
            linearized: 1,
            events_checked: 1,
            sessions_resumed: 1,
            sessions_expired: 1,
            leader_changes: 1,
            digests_compared: 1,
            trees_compared: 1,
            grants: 1,
            duration: 10_000_000_000,
            ..Tally::default()
        };
        tally.faults.insert("kill".to_owned(), 2);
        tally.marks.insert("snapshot_installed".to_owned(), 1);
        assert_eq!(wanted().shortfalls(&tally), []);
        tally.marks.clear();
        let shortfalls = wanted().shortfalls(&tally);
        assert_eq!(shortfalls.len(), 1);
        assert!(shortfalls[0].to_string().contains("snapshot_installed"));
        tally.duration *= 2;
        assert_eq!(wanted().shortfalls(&tally).len(), 2);
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally {
            operations: 3,
            ..Tally::default()
        };
        one.marks.insert("here".to_owned(), 1);
        let mut sum = Tally::default();
        sum.add(&one);
        sum.add(&one);
        assert_eq!(sum.operations, 6);
        assert_eq!(sum.marks["here"], 2);
    }
}
