//! What the services were told, and who is at work under which lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_checker::history::{Grant, GuardedWrite};
use quorate_client::Outcome;
use quorate_workload::Recorder;

use crate::trace::Trace;

/// Clones are the same ledger.
#[derive(Clone)]
pub(super) struct Ledger {
    recorder: Recorder,
    trace: Trace,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    violations: Vec<String>,
    /// Who is at work, and with which token.
    at_work: BTreeMap<&'static str, BTreeMap<u32, i64>>,
    /// Counts that were made, and those of which nobody knows.
    counted: i64,
    unknown: i64,
}

/// Somebody at work under a lock, until it is dropped.
pub(super) struct AtWork {
    ledger: Ledger,
    lock: &'static str,
    client: u32,
    grant: usize,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let now = self.ledger.recorder.now();
        let mut inner = self.ledger.inner.lock();
        if let Some(at_work) = inner.at_work.get_mut(self.lock) {
            at_work.remove(&self.client);
        }
        drop(inner);
        self.ledger.recorder.update(|history| {
            if let Some(grant) = history.grants.get_mut(self.grant) {
                grant.to = Some(now);
            }
        });
    }
}

impl Ledger {
    pub(super) fn new(recorder: Recorder, trace: Trace) -> Self {
        Self {
            recorder,
            trace,
            inner: Arc::default(),
        }
    }

    pub(super) fn violation(&self, what: String) {
        self.trace.note(&format!("violation: {what}"));
        self.inner.lock().violations.push(what);
    }

    /// That something rare was seen.
    pub(super) fn mark(&self, what: &str) {
        self.trace.note(what);
        self.count_mark(what, 1);
    }

    fn count_mark(&self, what: &str, times: u64) {
        self.recorder.update(|history| {
            *history.marks.entry(what.to_owned()).or_default() += times;
        });
    }

    /// Somebody begins to work under a lock: nobody else may.
    pub(super) fn enter(
        &self,
        lock: &'static str,
        client: u32,
        session: i64,
        token: i64,
    ) -> AtWork {
        self.mark(&format!("granted {lock}"));
        let others = {
            let mut inner = self.inner.lock();
            let at_work = inner.at_work.entry(lock).or_default();
            let others: Vec<(u32, i64)> = at_work.iter().map(|(c, t)| (*c, *t)).collect();
            at_work.insert(client, token);
            others
        };
        for (other, its) in others {
            self.violation(format!(
                "service {client} works under {lock} with token {token:#x} while service {other} \
                 still does with {its:#x}"
            ));
        }
        let from = self.recorder.now();
        let grant = self.recorder.update(|history| {
            history.grants.push(Grant {
                lock: lock.to_owned(),
                client,
                session,
                token,
                from,
                to: None,
            });
            history.grants.len() - 1
        });
        AtWork {
            ledger: self.clone(),
            lock,
            client,
            grant,
        }
    }

    /// A write that only the holder can make was made.
    pub(super) fn guarded(&self, lock: &str, token: i64, zxid: i64) {
        self.recorder.update(|history| {
            history.guarded.push(GuardedWrite {
                lock: lock.to_owned(),
                token,
                zxid,
                done: true,
            });
        });
    }

    /// A count was asked for: until more is known, nobody knows whether it is made.
    pub(super) fn asked_to_count(&self) {
        self.inner.lock().unknown += 1;
    }

    /// What came of it.
    pub(super) fn counted(&self, outcome: Outcome) {
        let mut inner = self.inner.lock();
        match outcome {
            Outcome::Applied => {
                inner.unknown -= 1;
                inner.counted += 1;
            }
            Outcome::NotApplied => inner.unknown -= 1,
            Outcome::Unknown => {}
        }
    }

    /// What the counter shows in the end.
    pub(super) fn judge_count(&self, value: i64) {
        let (counted, unknown) = {
            let inner = self.inner.lock();
            (inner.counted, inner.unknown)
        };
        if !(counted..=counted + unknown).contains(&value) {
            self.violation(format!(
                "the counter shows {value} after {counted} acknowledged counts and {unknown} of \
                 which nobody knows"
            ));
        }
    }

    pub(super) fn end(&self) -> Vec<String> {
        let inner = self.inner.lock();
        self.count_mark("recipes counted", inner.counted.unsigned_abs());
        inner.violations.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_that_were_lost_or_made_twice_are_noticed() {
        for (value, is_right) in [(1, false), (2, true), (3, true), (4, false)] {
            let ledger = Ledger::new(Recorder::new(), Trace::new(false));
            for outcome in [
                Outcome::Applied,
                Outcome::Unknown,
                Outcome::NotApplied,
                Outcome::Applied,
            ] {
                ledger.asked_to_count();
                ledger.counted(outcome);
            }
            ledger.judge_count(value);
            assert_eq!(ledger.end().is_empty(), is_right, "{value}");
        }
    }
}
