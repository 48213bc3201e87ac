//! What asynchronous clients on one thread count together: the phases of a run, rates, latencies.
//!
//! The same phases as [`crate::driver`] has: a warm-up, a span that is measured, and a drain, in
//! which nothing new is begun.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::driver::{Outcome, thread_cpu};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Warmup,
    Measuring,
    Draining,
}

#[derive(Debug)]
pub(crate) struct Tally {
    phase: Phase,
    started: Instant,
    warmup: Duration,
    span: Duration,
    measured_from: Instant,
    cpu_from: Duration,
    outcome: Outcome,
}

impl Tally {
    pub(crate) fn new(warmup: Duration, span: Duration) -> Self {
        let now = Instant::now();
        Self {
            phase: Phase::Warmup,
            started: now,
            warmup,
            span,
            measured_from: now,
            cpu_from: Duration::ZERO,
            outcome: Outcome::empty(),
        }
    }

    pub(crate) fn shared(self) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(self))
    }

    /// Whether nothing new is to be begun.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Draining
    }

    /// Counts what was begun at `from` and has ended `now`.
    pub(crate) fn record(&mut self, from: Instant, now: Instant) {
        self.outcome.replies += 1;
        if self.phase == Phase::Measuring {
            self.outcome.ops += 1;
            // What was begun earlier says how the warm-up was.
            if from >= self.measured_from {
                let latency_ns = u64::try_from((now - from).as_nanos()).unwrap_or(u64::MAX);
                self.outcome.latency.saturating_record(latency_ns.max(1));
            }
        }
        self.advance(now);
    }

    fn advance(&mut self, now: Instant) {
        if self.phase == Phase::Warmup && now >= self.started + self.warmup {
            self.phase = Phase::Measuring;
            self.measured_from = now;
            self.cpu_from = thread_cpu();
        } else if self.phase == Phase::Measuring && now >= self.measured_from + self.span {
            self.phase = Phase::Draining;
            self.outcome.elapsed = now - self.measured_from;
            self.outcome.cpu = thread_cpu().saturating_sub(self.cpu_from);
        }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_within_the_measured_span_counts() {
        let mut tally = Tally::new(Duration::from_secs(1), Duration::from_secs(2));
        let start = tally.started;
        let at = |ms| start + Duration::from_millis(ms);
        // The first to end after the warm-up begins the span, the first after the span ends it.
        for (from, to) in [(0, 500), (500, 1_000), (900, 1_500), (1_500, 2_500)] {
            tally.record(at(from), at(to));
            assert!(!tally.is_over());
        }
        tally.record(at(2_500), at(3_100));
        assert!(tally.is_over());
        tally.record(at(2_500), at(3_500));
        let outcome = tally.into_outcome();
        assert_eq!((outcome.ops, outcome.replies), (3, 6));
        assert_eq!(outcome.elapsed, Duration::from_millis(2_100));
        // What was begun at 900 ms is no latency of the span.
        assert_eq!(outcome.latency.len(), 2);
    }
}
