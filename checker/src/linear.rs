//! Linearizability, by search: is there an order of what was done, in which each operation stands at
//! one moment between its question and its answer, and which gives the answers that were given?
//!
//! It looks at no zxid, no log and no version but those in the answers, so it would notice a server
//! that lies consistently. Writes are searched for, and reads that must not be old: those behind a
//! sync or a write of their own connection. A read may show any state since that one was asked for.
//! What nobody answered may be done at any later time, or never, unless the log knows; then it only
//! says whether, and by when.
//!
//! The paths are split into groups that nothing ties together ([`groups`]): linearizability of each
//! is that of the whole. A search that takes too long is reported, never passed.

use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::ErrorCode;

use crate::history::{Moment, Outcome, PartResult, Path, Reply, Request};
use crate::judge::{Judge, describe};
use crate::oracle::{Fate, Oracle, path_of};
use crate::promise::Promise;
use crate::proofs::Proofs;
use crate::replay::Effect;

mod groups;
mod model;
pub mod search;

use groups::{Groups, Use};
use model::{Expected, Step, Trees};
use search::{Interval, Verdict, search};

/// How many steps of the model one group may take: some ten seconds. Histories that a server made
/// need about one step for each operation.
const STEPS_MAX: u64 = 20_000_000;

pub(crate) fn judge(judge: &mut Judge<'_>, oracle: Option<&Oracle>) {
    let proofs = Proofs::of(judge.history);
    let candidates = candidates_of(judge, oracle, &proofs);
    let uses = candidates.iter().filter_map(|it| {
        let operation = judge.operation(it.operation?);
        Some(Use {
            request: &operation.request,
            outcome: &operation.outcome,
            call: it.interval.call,
            back: operation.returned,
        })
    });
    let groups = Groups::of(uses);
    let mut parts: BTreeMap<usize, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let Some(index) = candidate.operation else {
            continue;
        };
        let request = &judge.operation(index).request;
        // A read of several groups is one of each; its parts are judged alone.
        for group in groups.of_request(request) {
            parts.entry(group).or_default().push(candidate.clone());
        }
    }
    // Where others wrote who were not recorded, nothing adds up.
    let strangers: BTreeSet<usize> = oracle
        .into_iter()
        .flat_map(|oracle| oracle.changes_by_strangers(judge))
        .flat_map(|path| groups.that_see(path))
        .collect();
    let ends = ends_of(judge, oracle, &proofs);
    for (group, mut candidates) in parts {
        let count = candidates.len() as u64;
        if groups.is_reaped(group) || strangers.contains(&group) {
            judge.report.tally.not_searched += count;
            continue;
        }
        add_ends(judge, &groups, group, &ends, &mut candidates);
        add_final_reads(judge, &groups, group, &mut candidates);
        let steps: Vec<Step<'_>> = candidates.iter().map(|it| it.step(judge)).collect();
        let intervals: Vec<Interval> = candidates.iter().map(|it| it.interval).collect();
        let model = Trees::new(&groups, group);
        match search(&model, &steps, &intervals, STEPS_MAX) {
            Verdict::Linearizable => judge.report.tally.linearized += count,
            Verdict::Undecided => judge.undecided(format!(
                "whether {count} operations on {} are linearizable: too many possible orders",
                groups.name(group)
            )),
            Verdict::Not { stuck } => {
                let culprit = stuck.and_then(|index| candidates[index].operation);
                let promise = promise_of(judge, culprit, &candidates);
                judge.violation(promise, || {
                    let culprit = culprit.map(|index| describe(judge_operation(judge.history, index)));
                    format!(
                        "no order explains the {count} operations on {}; the longest one found ends \
                         before {}",
                        groups.name(group),
                        culprit.unwrap_or_else(|| "what the servers had in the end".to_owned())
                    )
                });
            }
        }
    }
}

fn judge_operation(history: &crate::history::History, index: usize) -> &crate::history::Operation {
    &history.operations[index]
}

/// What is at stake: a read that only a sync made recent, something lost in the end, or the rest.
fn promise_of(judge: &Judge<'_>, culprit: Option<usize>, candidates: &[Candidate]) -> Promise {
    let Some(index) = culprit else {
        return Promise::AcknowledgedWritesSurvive;
    };
    let behind_sync = candidates
        .iter()
        .any(|it| it.operation == Some(index) && it.is_behind_sync);
    match (behind_sync, &judge.operation(index).request) {
        (true, _) => Promise::SyncIsABarrier,
        (_, Request::Multi(_)) => Promise::MultiIsAtomic,
        _ => Promise::WritesAreLinearizable,
    }
}

/// Something to find a place for.
#[derive(Clone)]
struct Candidate {
    /// `None`: not an operation of the history.
    operation: Option<usize>,
    /// The end of a session, which takes its ephemerals along.
    ends: Option<i64>,
    /// A znode as it was in the end, or that it was not there.
    final_read: Option<Path>,
    interval: Interval,
    is_behind_sync: bool,
}

impl Candidate {
    fn step<'h>(&self, judge: &Judge<'h>) -> Step<'h> {
        if let Some(session) = self.ends {
            return Step::End {
                session,
                must: self.interval.back.is_some(),
            };
        }
        if let Some(path) = &self.final_read {
            let tree = judge.history.trees.first();
            return Step::Final {
                path: Path::clone(path),
                seen: tree.and_then(|tree| tree.znodes.get(path)),
            };
        }
        let operation = judge.operation(self.operation.unwrap_or_default());
        let expected = match &operation.outcome {
            Outcome::Done { reply, .. } => Expected::Done(reply),
            Outcome::Refused { code, .. } => Expected::Refused(*code),
            Outcome::Unknown | Outcome::NotSent => Expected::Anything,
        };
        match operation.request.is_write() {
            true => Step::Write {
                session: operation.session,
                request: &operation.request,
                expected,
            },
            false => Step::Read {
                request: &operation.request,
                expected,
            },
        }
    }
}

/// The operations that have to stand somewhere, or may.
fn candidates_of(
    judge: &mut Judge<'_>,
    oracle: Option<&Oracle>,
    proofs: &Proofs,
) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let mut not_searched = 0;
    for connection in judge.index.connections.values() {
        // Since when what this connection reads is not old, and whether a sync made it so.
        let mut since: Option<(Moment, bool)> = None;
        for index in &connection.operations {
            let operation = judge.operation(*index);
            let back = operation.returned;
            let is_answered = back.is_some() && operation.outcome.zxid().is_some();
            if let Request::Sync { .. } = operation.request {
                if operation.outcome.is_done() && judge.history.header.promises.sync_is_a_barrier {
                    since = Some((operation.invoked, true));
                }
                continue;
            }
            let is_write = operation.request.is_write();
            if operation.request == Request::CloseSession || operation.outcome == Outcome::NotSent {
                continue;
            }
            if !is_write && !operation.request.is_read() {
                continue;
            }
            if !is_searchable(&operation.request, &operation.outcome) {
                not_searched += 1;
                continue;
            }
            if is_write {
                let interval = match (is_answered, back) {
                    (true, Some(back)) => Interval::closed(operation.invoked, back),
                    _ => match unanswered(judge, *index, oracle, proofs) {
                        Some(interval) => interval,
                        None => continue,
                    },
                };
                candidates.push(Candidate {
                    operation: Some(*index),
                    ends: None,
                    final_read: None,
                    interval,
                    is_behind_sync: false,
                });
                if operation.outcome.is_done() {
                    since = Some((operation.invoked, false));
                }
            } else if let (Some((since, is_behind_sync)), Some(back), true) =
                (since, back, is_answered)
            {
                candidates.push(Candidate {
                    operation: Some(*index),
                    ends: None,
                    final_read: None,
                    interval: Interval::closed(since, back),
                    is_behind_sync,
                });
            }
        }
    }
    judge.report.tally.not_searched += not_searched;
    candidates
}

/// When a write that was not answered may have taken effect; `None` if the log knows that it did
/// not. If it did, whoever saw a later zxid proves by when.
fn unanswered(
    judge: &Judge<'_>,
    index: usize,
    oracle: Option<&Oracle>,
    proofs: &Proofs,
) -> Option<Interval> {
    let invoked = judge.operation(index).invoked;
    let Some(oracle) = oracle else {
        return Some(Interval::open(invoked));
    };
    let Fate::Entry(entry) = oracle.fate(index) else {
        return None;
    };
    let is_done = match &oracle.effects[entry] {
        Effect::Written(Ok(Reply::Results(results))) => {
            !results.iter().any(|it| matches!(it, PartResult::Failed(_)))
        }
        Effect::Written(Ok(_)) => true,
        _ => false,
    };
    let zxid = judge.history.log.as_ref()?.entries[entry].zxid;
    is_done.then(|| match proofs.first_at_or_after(zxid) {
        Some(proof) => Interval::closed(invoked, proof),
        None => Interval::open(invoked),
    })
}

/// Whether the model knows what makes such an answer.
fn is_searchable(request: &Request, outcome: &Outcome) -> bool {
    let is_known = match request {
        Request::Create { .. } | Request::Delete { .. } | Request::SetData { .. } => true,
        Request::Multi(parts) => parts
            .iter()
            .all(|part| !path_in(part).starts_with("/zookeeper")),
        Request::GetData { .. } | Request::Exists { .. } | Request::GetChildren { .. } => true,
        _ => false,
    };
    if !is_known || path_in(request).starts_with("/zookeeper") {
        return false;
    }
    let is_known = |code: &i32| {
        matches!(
            ErrorCode::from_code(*code),
            Some(
                ErrorCode::NoNode
                    | ErrorCode::NodeExists
                    | ErrorCode::BadVersion
                    | ErrorCode::NotEmpty
                    | ErrorCode::NoChildrenForEphemerals
            )
        )
    };
    match outcome {
        Outcome::Refused { code, .. } => is_known(code),
        Outcome::Done {
            reply: Reply::Results(results),
            ..
        } => {
            let first = results.iter().find_map(|result| match result {
                PartResult::Failed(code) if *code != 0 => Some(code),
                _ => None,
            });
            first.is_none_or(is_known)
        }
        _ => true,
    }
}

fn path_in(request: &Request) -> &str {
    match request {
        Request::Create { path, .. }
        | Request::Delete { path, .. }
        | Request::SetData { path, .. }
        | Request::Check { path, .. } => path,
        request => path_of(request).map_or("", |path| path),
    }
}

/// When each session may have ended, or has to have.
fn ends_of(judge: &Judge<'_>, oracle: Option<&Oracle>, proofs: &Proofs) -> BTreeMap<i64, Interval> {
    let mut ends: BTreeMap<i64, Interval> = BTreeMap::new();
    for session in judge.index.sessions.keys() {
        let end = oracle.map(|oracle| oracle.ends.get(session));
        if end == Some(None) {
            continue;
        }
        let mut interval = Interval::open(0);
        for index in judge.index.operations_of(*session) {
            let operation = judge.operation(index);
            let is_done = operation.outcome.is_done();
            if operation.request == Request::CloseSession {
                if let (true, Some(back)) = (is_done, operation.returned) {
                    interval = Interval::closed(operation.invoked, back);
                }
            } else if operation.request.is_write() && is_done {
                // Its writes come before its end, so it ends after the last one was sent.
                interval.call = interval.call.max(operation.invoked);
            }
        }
        let proof = end
            .flatten()
            .and_then(|(zxid, _)| proofs.first_at_or_after(*zxid));
        if let Some(proof) = proof {
            let back = interval.back.unwrap_or(proof).min(proof);
            interval = Interval::closed(interval.call, back);
        }
        ends.insert(*session, interval);
    }
    ends
}

/// Sessions that own ephemerals of the group end somewhere.
fn add_ends(
    judge: &Judge<'_>,
    groups: &Groups<'_>,
    group: usize,
    ends: &BTreeMap<i64, Interval>,
    candidates: &mut Vec<Candidate>,
) {
    if !groups.has_ephemerals(group) {
        return;
    }
    let owners: BTreeSet<i64> = candidates
        .iter()
        .filter_map(|it| Some(judge.operation(it.operation?)))
        .filter(|operation| groups::creates_ephemerals(&operation.request))
        .map(|operation| operation.session)
        .collect();
    for owner in owners {
        if let Some(interval) = ends.get(&owner) {
            candidates.push(Candidate {
                operation: None,
                ends: Some(owner),
                final_read: None,
                interval: *interval,
                is_behind_sync: false,
            });
        }
    }
}

/// What the first server has in the end; the others have the same, or it is told elsewhere.
fn add_final_reads(
    judge: &Judge<'_>,
    groups: &Groups<'_>,
    group: usize,
    candidates: &mut Vec<Candidate>,
) {
    if judge.history.trees.is_empty() {
        return;
    }
    for path in groups.paths(group) {
        candidates.push(Candidate {
            operation: None,
            ends: None,
            final_read: Some(Path::from(path)),
            interval: Interval::closed(Moment::MAX - 1, Moment::MAX - 1),
            is_behind_sync: false,
        });
    }
}
