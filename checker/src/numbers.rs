//! Numbers of sequential znodes: under one parent they never repeat and never go back.
//!
//! By the answers alone. Parents that may have been deleted and created anew begin at 0 again, and
//! are passed over; where there is a log, it has the last word on each number anyway.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{CreateKind, Outcome, PartResult, Reply, Request};
use crate::judge::Judge;
use crate::oracle::Oracle;
use crate::promise::Promise;
use crate::tree::parent_of;

pub(crate) fn judge(judge: &mut Judge<'_>, oracle: Option<&Oracle>) {
    // The log's replay has compared each number already.
    if oracle.is_some() {
        return;
    }
    let history = judge.history;
    let mut volatile: BTreeSet<&str> = BTreeSet::new();
    // By parent: zxid, place in a multi, number, path.
    let mut numbers: BTreeMap<&str, Vec<(i64, usize, i64, &str)>> = BTreeMap::new();
    for operation in &history.operations {
        if operation.outcome != Outcome::NotSent {
            for part in parts_of(&operation.request) {
                match part {
                    Request::Delete { path, .. } => {
                        volatile.insert(path);
                    }
                    Request::Create {
                        path,
                        kind: CreateKind::Container | CreateKind::Ttl { .. },
                        ..
                    } => {
                        volatile.insert(path);
                    }
                    _ => {}
                }
            }
        }
        let Outcome::Done { zxid, reply } = &operation.outcome else {
            continue;
        };
        let replies: Vec<&Reply> = match reply {
            Reply::Results(results) => results
                .iter()
                .filter_map(|result| match result {
                    PartResult::Done(reply) => Some(reply),
                    PartResult::Failed(_) => None,
                })
                .collect(),
            reply => vec![reply],
        };
        for (place, (part, reply)) in parts_of(&operation.request).zip(replies).enumerate() {
            let (
                Request::Create { path, kind, .. },
                Reply::Path(created) | Reply::Created { path: created, .. },
            ) = (part, reply)
            else {
                continue;
            };
            if !kind.is_sequential() {
                continue;
            }
            let number = created
                .strip_prefix(&**path)
                .and_then(|number| number.parse().ok());
            let Some((number, parent)) = number.zip(parent_of(created)) else {
                judge.violation(Promise::NumbersNeverRepeat, || {
                    format!("{created} is no number behind {path}")
                });
                continue;
            };
            let of_parent = numbers.entry(parent).or_default();
            of_parent.push((*zxid, place, number, created));
        }
    }
    for (parent, mut numbers) in numbers {
        if volatile.contains(parent) {
            continue;
        }
        numbers.sort_unstable();
        for pair in numbers.windows(2) {
            let ((before_zxid, _, before, first), (zxid, _, number, second)) = (pair[0], pair[1]);
            if number <= before {
                judge.violation(Promise::NumbersNeverRepeat, || {
                    format!("{second} at {zxid:#x} after {first} at {before_zxid:#x}")
                });
            }
        }
    }
}

fn parts_of(request: &Request) -> impl Iterator<Item = &Request> {
    match request {
        Request::Multi(parts) => parts.iter(),
        request => std::slice::from_ref(request).iter(),
    }
}
