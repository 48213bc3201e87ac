//! Fencing tokens: what locks hand out so that a store can refuse who comes late.
//!
//! Two clients may both believe that they hold a lock; nothing here forbids that. What must hold is
//! what tokens are for: each grant has its own, and of guarded writes that were let through, none
//! follows one with a later token.

use std::collections::BTreeMap;

use crate::judge::Judge;
use crate::promise::Promise;

pub(crate) fn judge(judge: &mut Judge<'_>) {
    let history = judge.history;
    let mut granted: BTreeMap<(&str, i64), u32> = BTreeMap::new();
    let mut last_of: BTreeMap<(&str, u32), i64> = BTreeMap::new();
    let mut grants: Vec<_> = history.grants.iter().collect();
    grants.sort_by_key(|grant| grant.from);
    for grant in grants {
        let lock = grant.lock.as_str();
        if let Some(other) = granted.insert((lock, grant.token), grant.client) {
            judge.violation(Promise::TokensIncrease, || {
                format!(
                    "{lock}: client {} and then client {} got the token {:#x}",
                    other, grant.client, grant.token
                )
            });
        }
        let last = last_of.insert((lock, grant.client), grant.token);
        if let Some(last) = last.filter(|last| *last > grant.token) {
            judge.violation(Promise::TokensIncrease, || {
                format!(
                    "{lock}: client {} got {:#x} after {last:#x}",
                    grant.client, grant.token
                )
            });
        }
    }
    let mut guarded: Vec<_> = history.guarded.iter().filter(|write| write.done).collect();
    guarded.sort_by_key(|write| write.zxid);
    let mut highest: BTreeMap<&str, i64> = BTreeMap::new();
    for write in guarded {
        let highest = highest.entry(&write.lock).or_insert(write.token);
        if write.token < *highest {
            judge.violation(Promise::OldTokensAreRefused, || {
                format!(
                    "{}: a write with token {:#x} was done at {:#x}, after one with {highest:#x}",
                    write.lock, write.token, write.zxid
                )
            });
        }
        *highest = write.token.max(*highest);
    }
}
