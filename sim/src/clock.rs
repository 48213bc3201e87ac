//! The clocks of one simulated host: one that runs with the simulation, and one on the wall that may be
//! wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use quorate_server::clock::Clock;
use tokio::time::Instant;

/// The wall clock when a simulation begins, in milliseconds since 1970: some day in 2026.
pub const WALL_AT_START_MS: i64 = 1_780_000_000_000;

/// A host's clocks. The wall clock is the host's, and outlives its programs; the monotonic one is a
/// program's.
#[derive(Clone, Debug)]
pub struct SimClock {
    simulation: Instant,
    program: Instant,
    wrong_by_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// The clocks of a host in a simulation that began at `simulation`.
    pub fn new(simulation: Instant) -> Self {
        Self {
            simulation,
            program: simulation,
            wrong_by_ms: Arc::default(),
        }
    }

    /// The same host's, for a program that begins now.
    pub fn for_new_program(&self) -> Self {
        Self {
            program: Instant::now(),
            ..self.clone()
        }
    }

    /// Puts the wall clock wrong, or right again.
    pub fn set_wrong_by(&self, ms: i64) {
        self.wrong_by_ms.store(ms, Relaxed);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> i64 {
        let since = i64::try_from(self.simulation.elapsed().as_millis()).unwrap_or(i64::MAX);
        WALL_AT_START_MS + since + self.wrong_by_ms.load(Relaxed)
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.program.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
