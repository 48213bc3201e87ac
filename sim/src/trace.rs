//! What happened, in order, as one number: two runs of a seed are the same if theirs are.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A running hash of all events. Clones are the same trace.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
    begun: Instant,
}

struct Inner {
    hash: u64,
    events: u64,
    /// Whether each event is printed, to find where two runs part.
    prints: bool,
}

impl Trace {
    /// Begins now, by the virtual clock.
    pub fn new(prints: bool) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                hash: 0xcbf2_9ce4_8422_2325,
                events: 0,
                prints,
            })),
            begun: Instant::now(),
        }
    }

    /// Notes that bytes have arrived.
    pub fn note_delivery(&self, from: u32, to: u32, bytes: &[u8]) {
        let at = self.now_us();
        let mut inner = self.inner.lock();
        inner.events += 1;
        inner.mix(at);
        inner.mix(u64::from(from) << 32 | u64::from(to));
        inner.mix_bytes(bytes);
        if inner.prints {
            let hash = inner.hash;
            drop(inner);
            tracing::info!(target: "trace", at, from, to, length = bytes.len(), hash = format!("{hash:016x}"), "delivered");
        }
    }

    /// Notes anything else.
    pub fn note(&self, what: &str) {
        let at = self.now_us();
        let mut inner = self.inner.lock();
        inner.events += 1;
        inner.mix(at);
        inner.mix_bytes(what.as_bytes());
        drop(inner);
        tracing::info!(target: "nemesis", at_ms = at / 1000, "{what}");
    }

    /// The hash of all so far, and how many events there were.
    pub fn hash(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.hash, inner.events)
    }

    /// Microseconds of virtual time.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds of virtual time.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Inner {
    /// A multiplication and a fold: fast, and every bit counts.
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.hash ^ word) * 0x9e37_79b9_7f4a_7c15;
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded in")]
        let folded = product as u64 ^ (product >> 64) as u64;
        self.hash = folded.rotate_left(23) ^ word.wrapping_mul(0x2545_f491_4f6c_dd1d);
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }
}
