//! Judges a history by all promises, and says how much there was to judge.

use std::collections::BTreeMap;

use crate::history::{History, Operation, Outcome};
use crate::index::Index;
use crate::oracle::Oracle;
use crate::promise::{Promise, Violation};
use crate::tally::Tally;
use crate::{connections, fencing, linear, numbers, order, replicas, sessions, sightings, watches};

/// How many violations of one promise are told; the rest of them are only counted. The first few
/// say what is wrong, and a history can be long.
const TOLD_PER_PROMISE_MAX: usize = 8;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// At most a few of each promise.
    pub violations: Vec<Violation>,
    /// How often each promise was broken.
    pub broken: BTreeMap<Promise, u64>,
    /// What could not be judged although it should: never a pass.
    pub undecided: Vec<String>,
    pub tally: Tally,
}

impl Report {
    /// Whether everything was judged, and nothing broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty() && self.undecided.is_empty()
    }
}

/// Judges a history.
#[must_use]
pub fn check(history: &History) -> Report {
    let mut judge = Judge::new(history);
    order::judge(&mut judge);
    let oracle = Oracle::of(&mut judge);
    sessions::judge(&mut judge, oracle.as_ref());
    numbers::judge(&mut judge, oracle.as_ref());
    match &oracle {
        Some(oracle) => watches::judge(&mut judge, oracle),
        None => sightings::judge(&mut judge),
    }
    connections::judge(&mut judge);
    fencing::judge(&mut judge);
    replicas::judge(&mut judge);
    linear::judge(&mut judge, oracle.as_ref());
    judge.report
}

/// A history under judgement.
pub(crate) struct Judge<'h> {
    pub(crate) history: &'h History,
    pub(crate) index: Index<'h>,
    pub(crate) report: Report,
}

impl<'h> Judge<'h> {
    pub(crate) fn new(history: &'h History) -> Self {
        Self {
            history,
            index: Index::of(history),
            report: Report {
                tally: Tally::of(history),
                ..Report::default()
            },
        }
    }

    /// The description is made only if it is told.
    pub(crate) fn violation(&mut self, promise: Promise, what: impl FnOnce() -> String) {
        let count = self.report.broken.entry(promise).or_default();
        *count += 1;
        if *count <= TOLD_PER_PROMISE_MAX as u64 {
            self.report.violations.push(Violation {
                promise,
                what: what(),
            });
        }
    }

    pub(crate) fn undecided(&mut self, what: String) {
        if self.report.undecided.len() < TOLD_PER_PROMISE_MAX {
            self.report.undecided.push(what);
        }
    }

    pub(crate) fn operation(&self, index: usize) -> &'h Operation {
        &self.history.operations[index]
    }
}

/// An operation, in short.
pub(crate) fn describe(operation: &Operation) -> String {
    let Operation {
        client,
        connection,
        server,
        session,
        sequence,
        request,
        outcome,
        ..
    } = operation;
    let outcome = match outcome {
        Outcome::Done { zxid, reply } => format!("done at {zxid:#x}: {reply:?}"),
        Outcome::Refused { zxid, code } => format!("refused with {code} at {zxid:#x}"),
        other => format!("{other:?}"),
    };
    format!(
        "client {client}, session {session:#x}, connection {connection} to server {server}, request \
         {sequence}: {request:?}, {outcome}"
    )
}
