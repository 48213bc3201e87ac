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
    pub outstanding: AtomicU64,
    pub latency: Latency,
    pub read_latency: Latency,
    pub update_latency: Latency,
    pub last_response_bytes: AtomicU64,
    pub max_response_bytes: AtomicU64,
    /// `u64::MAX` until the first response.
    pub min_response_bytes: AtomicU64,
}

impl Metrics {
    pub fn new() -> Self {
        let metrics = Self::default();
        metrics.min_response_bytes.store(u64::MAX, Relaxed);
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

    pub fn on_response(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.last_response_bytes.store(bytes, Relaxed);
        // Most responses are neither the largest nor the smallest: a load is cheaper than a swap.
        if bytes > self.max_response_bytes.load(Relaxed) {
            self.max_response_bytes.fetch_max(bytes, Relaxed);
        }
        if bytes < self.min_response_bytes.load(Relaxed) {
            self.min_response_bytes.fetch_min(bytes, Relaxed);
        }
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
    pub fn record(&self, us: u64) {
        self.record_many(1, us, us);
    }

    /// Records `count` requests that took `sum_us` together, and none more than `max_us`.
    pub fn record_many(&self, count: u64, sum_us: u64, max_us: u64) {
        if count == 0 {
            return;
        }
        self.count.fetch_add(count, Relaxed);
        self.sum_us.fetch_add(sum_us, Relaxed);
        if max_us > self.max_us.load(Relaxed) {
            self.max_us.fetch_max(max_us, Relaxed);
        }
        let smallest = sum_us / count + 1;
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
