//! Was what clients were told true, and did enough happen for that to mean something?

use std::collections::BTreeSet;

use quorate_checker::{History, Tally, check};
use quorate_tests::ensemble::Ensemble;

use crate::plan::Plan;
use crate::run::Report;

/// Acknowledged writes in a second of faults, at the least: a run in which servers are down all the
/// time says nothing about those that are not.
const WRITES_PER_SECOND: f64 = 5.0;
/// A run has a dozen faults or so; some find nobody whom they can hit.
const FAULTS_MIN: u64 = 2;
/// What a server says when it stops serving because its state is not that of the majority.
const DIFFERS: &str = "differs from that of the majority";
const PANICKED: &str = "panicked at";
/// Before the term, when a server hears of a leader.
const LEADER: &str = "there is a leader";

/// What the checker finds.
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    pub(crate) undecided: Vec<String>,
    pub(crate) tally: Tally,
}

pub(crate) fn history(history: &History) -> Verdict {
    let report = check(history);
    Verdict {
        violations: report.violations.iter().map(ToString::to_string).collect(),
        undecided: report.undecided,
        tally: report.tally,
    }
}

/// What servers say about themselves that none should ever say.
pub(crate) fn logs(ensemble: &Ensemble) -> Vec<String> {
    let mut found = Vec::new();
    for id in ensemble.ids() {
        let log = ensemble.log(id);
        let lines = log
            .lines()
            .filter(|line| line.contains(DIFFERS) || line.contains(PANICKED));
        found.extend(lines.map(|line| format!("server {id} says: {line}")));
    }
    found
}

/// How many terms had a leader, but for the first.
pub(crate) fn leader_changes(ensemble: &Ensemble) -> u64 {
    let mut terms = BTreeSet::new();
    for id in ensemble.ids() {
        let log = ensemble.log(id);
        let lines = log.lines().filter(|line| line.contains(LEADER));
        terms.extend(lines.filter_map(|line| {
            let (_, rest) = line.split_once("term=")?;
            let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok()
        }));
    }
    u64::try_from(terms.len().saturating_sub(1)).unwrap_or_default()
}

/// Why a run says too little, if it does.
pub(crate) fn vacuous(report: &Report, plan: &Plan) -> Option<String> {
    if report.vacuous.is_some() {
        return report.vacuous.clone();
    }
    let least = WRITES_PER_SECOND * plan.faults_last.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "thousands of writes")]
    let writes = report.writes as f64;
    if writes < least {
        return Some(format!("{writes} writes, {least:.0} are wanted"));
    }
    let happened: u64 = report.happened.values().sum();
    (happened < FAULTS_MIN).then(|| format!("{happened} faults happened"))
}
