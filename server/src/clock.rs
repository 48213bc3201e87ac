//! The two clocks, and the only place that reads them.
//!
//! Wall time goes into log entries (ctime, mtime, TTL). Monotonic time decides who is overdue: a
//! wall clock that jumps must not expire anyone. Both are behind a trait, so that a simulation can
//! supply its own.

use std::fmt::Debug;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since 1970. It may jump, backwards too.
    fn wall_ms(&self) -> i64;

    /// Microseconds since some fixed moment in this process. It never goes backwards.
    fn monotonic_us(&self) -> u64;

    /// Milliseconds since the same moment.
    fn monotonic_ms(&self) -> u64 {
        self.monotonic_us() / 1000
    }
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        // A clock before 1970 or after the year 292 million tells nothing useful either way.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            })
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
