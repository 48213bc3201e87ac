//! Whether servers that have applied the same have the same: by their digests, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::FinalTree;
use crate::judge::Judge;
use crate::promise::Promise;

pub(crate) fn judge(judge: &mut Judge<'_>) {
    judge_digests(judge);
    judge_trees(judge);
}

fn judge_digests(judge: &mut Judge<'_>) {
    let history = judge.history;
    let mut first: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    let in_the_end = history
        .trees
        .iter()
        .filter(|tree| tree.exact)
        .filter_map(|tree| Some((tree.server, tree.zxid, tree.digest?)));
    let on_the_way = history
        .digests
        .iter()
        .map(|it| (it.server, it.zxid, it.digest));
    for (server, zxid, digest) in on_the_way.chain(in_the_end) {
        let Some((other, expected)) = first.get(&zxid).copied() else {
            first.insert(zxid, (server, digest));
            continue;
        };
        judge.report.tally.digests_compared += 1;
        if expected != digest {
            judge.violation(Promise::ReplicasAgree, || {
                format!(
                    "at {zxid:#x} server {other} sums up to {expected:016x}, server {server} to \
                     {digest:016x}"
                )
            });
        }
    }
}

fn judge_trees(judge: &mut Judge<'_>) {
    let history = judge.history;
    let is_comparable = |one: &FinalTree, other: &FinalTree| {
        one.exact == other.exact && (!one.exact || one.zxid == other.zxid)
    };
    for (index, other) in history.trees.iter().enumerate() {
        let before = history.trees[..index].iter();
        // Each with the first it can be compared with: agreeing carries over.
        let Some(first) = before.into_iter().find(|first| is_comparable(first, other)) else {
            continue;
        };
        judge.report.tally.trees_compared += 1;
        let paths: BTreeSet<_> = first.znodes.keys().chain(other.znodes.keys()).collect();
        for path in paths {
            let (here, there) = (first.znodes.get(path), other.znodes.get(path));
            if here != there {
                judge.violation(Promise::ReplicasAgree, || {
                    format!(
                        "{path}: server {} has {here:?}, server {} {there:?}",
                        first.server, other.server
                    )
                });
            }
        }
    }
}
