//! What the server counts about itself.
//!
//! Counters are relaxed atomics: each is exact, but two of them read together may be a moment apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the start, or since the `srst` command for those it resets.
#[derive(Debug, Default)]
pub struct Metrics {
    pub packets_received: AtomicU64,
    pub packets_sent: AtomicU64,
    pub bytes_received: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub connections_accepted: AtomicU64,
    pub connections_rejected: AtomicU64,
    pub connections_dropped: AtomicU64,
    pub sessionless_expired: AtomicU64,
    pub sessions_expired: AtomicU64,
    pub auth_failed: AtomicU64,
    pub slow_readers: AtomicU64,
    pub commits: AtomicU64,
    pub proposals: AtomicU64,
    pub snapshots: AtomicU64,
    pub digest_mismatches: AtomicU64,
    pub outstanding: AtomicU64,
    pub latency: Latency,
    pub read_latency: Latency,
    pub update_latency: Latency,
    pub last_response_bytes: AtomicU64,
    pub max_response_bytes: AtomicU64,
    /// `u64::MAX` until the first response.
    pub min_response_bytes: AtomicU64,
    pub last_proposal_bytes: AtomicU64,
    pub max_proposal_bytes: AtomicU64,
    /// `u64::MAX` until the first command is applied.
    pub min_proposal_bytes: AtomicU64,
}

/// The sizes of some commands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub last: u64,
    pub min: u64,
    pub max: u64,
}

impl Sizes {
    /// Of one command.
    pub fn of(bytes: u64) -> Self {
        Self {
            last: bytes,
            min: bytes,
            max: bytes,
        }
    }
}

impl Metrics {
    pub fn new() -> Self {
        let metrics = Self::default();
        metrics.min_response_bytes.store(u64::MAX, Relaxed);
        metrics.min_proposal_bytes.store(u64::MAX, Relaxed);
        metrics
    }

    /// What the `srst` command sets back to nothing.
    pub fn reset(&self) {
        self.packets_received.store(0, Relaxed);
        self.packets_sent.store(0, Relaxed);
        self.latency.reset();
        self.read_latency.reset();
        self.update_latency.reset();
    }

    /// Takes note of commands that were applied, whoever has proposed them.
    pub fn on_proposals(&self, sizes: Sizes) {
        self.last_proposal_bytes.store(sizes.last, Relaxed);
        self.max_proposal_bytes.fetch_max(sizes.max, Relaxed);
        self.min_proposal_bytes.fetch_min(sizes.min, Relaxed);
    }

    /// Adds what was counted on the side.
    pub fn add(&self, tally: &Tally) {
        let answers = tally.reads.count + tally.updates.count;
        if answers == 0 {
            return;
        }
        self.packets_sent.fetch_add(answers, Relaxed);
        self.latency.add(&tally.reads);
        self.latency.add(&tally.updates);
        self.read_latency.add(&tally.reads);
        self.update_latency.add(&tally.updates);
        self.last_response_bytes
            .store(tally.last_response_bytes, Relaxed);
        self.max_response_bytes
            .fetch_max(tally.max_response_bytes, Relaxed);
        self.min_response_bytes
            .fetch_min(tally.min_response_bytes, Relaxed);
    }
}

/// Answers given in one critical section, counted without touching what other threads count in.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    reads: Span,
    updates: Span,
    last_response_bytes: u64,
    max_response_bytes: u64,
    min_response_bytes: u64,
}

/// The times some answers took.
#[derive(Clone, Copy, Debug)]
struct Span {
    count: u64,
    sum_us: u64,
    min_us: u64,
    max_us: u64,
}

impl Span {
    const NONE: Self = Self {
        count: 0,
        sum_us: 0,
        min_us: u64::MAX,
        max_us: 0,
    };

    fn record(&mut self, us: u64) {
        self.count += 1;
        self.sum_us += us;
        self.min_us = self.min_us.min(us);
        self.max_us = self.max_us.max(us);
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            reads: Span::NONE,
            updates: Span::NONE,
            last_response_bytes: 0,
            max_response_bytes: 0,
            min_response_bytes: u64::MAX,
        }
    }
}

impl Tally {
    /// A request that this server answered by itself.
    pub fn on_read(&mut self, us: u64, bytes: usize) {
        self.reads.record(us);
        self.on_response(bytes);
    }

    /// A request that went through the log.
    pub fn on_update(&mut self, us: u64, bytes: usize) {
        self.updates.record(us);
        self.on_response(bytes);
    }

    fn on_response(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.last_response_bytes = bytes;
        self.max_response_bytes = self.max_response_bytes.max(bytes);
        self.min_response_bytes = self.min_response_bytes.min(bytes);
    }
}

/// Times from the arrival of a request to its answer, in microseconds.
#[derive(Debug, Default)]
pub struct Latency {
    count: AtomicU64,
    sum_us: AtomicU64,
    max_us: AtomicU64,
    /// One more than the smallest, so that 0 means "none yet".
    min_us_plus_one: AtomicU64,
}

/// A [`Latency`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyReading {
    pub count: u64,
    pub sum_us: u64,
    pub min_us: u64,
    pub max_us: u64,
}

impl LatencyReading {
    /// Mean in milliseconds; 0 when nothing was measured.
    pub fn mean_ms(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean for people to read")]
        let mean = self.sum_us as f64 / self.count as f64 / 1000.0;
        mean
    }
}

impl Latency {
    fn add(&self, span: &Span) {
        if span.count == 0 {
            return;
        }
        self.count.fetch_add(span.count, Relaxed);
        self.sum_us.fetch_add(span.sum_us, Relaxed);
        self.max_us.fetch_max(span.max_us, Relaxed);
        let smallest = span.min_us.saturating_add(1);
        let known = self.min_us_plus_one.load(Relaxed);
        if known == 0 || smallest < known {
            self.min_us_plus_one.store(smallest, Relaxed);
        }
    }

    pub fn read(&self) -> LatencyReading {
        LatencyReading {
            count: self.count.load(Relaxed),
            sum_us: self.sum_us.load(Relaxed),
            min_us: self.min_us_plus_one.load(Relaxed).saturating_sub(1),
            max_us: self.max_us.load(Relaxed),
        }
    }

    fn reset(&self) {
        for counter in [
            &self.count,
            &self.sum_us,
            &self.max_us,
            &self.min_us_plus_one,
        ] {
            counter.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::{LatencyReading, Metrics, Tally};

    #[test]
    fn tallies_add_up() {
        let metrics = Metrics::new();
        let mut tally = Tally::default();
        tally.on_read(10, 100);
        tally.on_update(30, 20);
        metrics.add(&tally);
        metrics.add(&Tally::default());
        let mut tally = Tally::default();
        tally.on_read(50, 60);
        metrics.add(&tally);
        let all = LatencyReading {
            count: 3,
            sum_us: 90,
            min_us: 10,
            max_us: 50,
        };
        assert_eq!(metrics.latency.read(), all);
        assert_eq!(metrics.read_latency.read().count, 2);
        assert_eq!(metrics.update_latency.read().sum_us, 30);
        assert_eq!(metrics.packets_sent.load(Relaxed), 3);
        assert_eq!(metrics.min_response_bytes.load(Relaxed), 20);
        assert_eq!(metrics.max_response_bytes.load(Relaxed), 100);
        assert_eq!(metrics.last_response_bytes.load(Relaxed), 60);
    }

    #[test]
    fn a_reset_forgets_latencies() {
        let metrics = Metrics::new();
        let mut tally = Tally::default();
        tally.on_read(10, 100);
        metrics.add(&tally);
        metrics.reset();
        assert_eq!(metrics.latency.read(), LatencyReading::default());
    }
}
