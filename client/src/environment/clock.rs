//! The clocks of leases and of the calendar. Timers are Tokio's, and are not here.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::session::lease::LeaseInstant;

/// Where a client, and the recipes on it, read the time. See
/// [`ClientBuilder::clock`](crate::ClientBuilder::clock).
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Copy, Debug, Default)]
enum Source {
    #[default]
    System,
    Tokio {
        began: Instant,
        /// What the calendar showed then.
        calendar: SystemTime,
    },
}

impl Clock {
    /// The machine's. Leases are on the clock that goes on while the machine sleeps.
    pub fn system() -> Self {
        Self::default()
    }

    /// Tokio's: it stands still, and jumps, in a runtime with paused time. From now on the calendar
    /// shows `calendar` and what has passed since.
    ///
    /// For tests and simulations: this clock stops while a machine sleeps, and so a lease on it can
    /// be believed for too long. It can be read on threads of the runtime only.
    pub fn tokio(calendar: SystemTime) -> Self {
        Self(Source::Tokio {
            began: Instant::now(),
            calendar,
        })
    }

    /// Whether any thread can read it.
    pub fn is_system(self) -> bool {
        matches!(self.0, Source::System)
    }

    /// The present, for leases.
    pub fn lease_now(self) -> LeaseInstant {
        match self.0 {
            Source::System => LeaseInstant::now(),
            Source::Tokio { .. } => LeaseInstant::tokio_now(),
        }
    }

    /// The present, by the calendar.
    pub fn wall(self) -> SystemTime {
        match self.0 {
            Source::System => SystemTime::now(),
            // What no calendar has room for shows the beginning.
            Source::Tokio { began, calendar } => {
                calendar.checked_add(began.elapsed()).unwrap_or(calendar)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_a_paused_runtime_shows_what_its_timers_have_waited() {
        let clock = Clock::tokio(UNIX_EPOCH);
        let (end, system) = (clock.lease_now().after(HOUR * 2), Clock::system());
        let system_end = system.lease_now().after(HOUR);
        tokio::time::sleep(HOUR).await;
        assert_eq!(clock.wall(), UNIX_EPOCH + HOUR);
        assert_eq!(end.since(clock.lease_now()), HOUR);
        assert_eq!(end.remaining(), HOUR, "a moment knows its clock");
        assert!(
            system_end.remaining() > Duration::ZERO,
            "no hour has passed"
        );
        tokio::time::sleep(HOUR * 2).await;
        assert_eq!(end.remaining(), Duration::ZERO);
    }
}
