//! When a holder is told to stop, and when its work is taken from it.
//!
//! ```text
//!  proof of the session                                                    the session may end
//!  |------------------- session timeout ------------------------------------------|
//!  |-------- renew deadline --------|                                    |-margin-|
//!  held                             told to stop                         work is dropped
//! ```
//!
//! The proof is the sending of the last request of which the leader is known to have heard
//! ([`quorate_client::Client::lease_deadline`]). Every moment is on the lease clock, which goes on
//! while the machine sleeps and does not jump when the wall clock is set.

use std::time::Duration;

use quorate_client::LeaseInstant;

/// How the session's timeout is divided. The default divides it by itself: told to stop at two thirds,
/// work dropped a twelfth before the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    renew_deadline: Option<Duration>,
    margin: Option<Duration>,
    retry_period: Option<Duration>,
}

/// Why timings cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimingError {
    /// The session would end before its work is told to stop and has time to.
    #[error(
        "a renew deadline of {renew_deadline:?} and a margin of {margin:?} do not fit into a session \
         timeout of {session_timeout:?}: make the two shorter, or ask for a longer session"
    )]
    DeadlineTooLate {
        /// As asked for.
        renew_deadline: Duration,
        /// As asked for.
        margin: Duration,
        /// As granted.
        session_timeout: Duration,
    },
    /// A deadline that passes between two heartbeats passes without a fault. They are a sixth of
    /// the session's timeout apart, and against Apache ZooKeeper one proves only what was sent two
    /// before.
    #[error(
        "a renew deadline of {renew_deadline:?} is less than half of the session timeout of \
         {session_timeout:?}, so it would pass between heartbeats: make it longer"
    )]
    DeadlineTooSoon {
        /// As asked for.
        renew_deadline: Duration,
        /// As granted.
        session_timeout: Duration,
    },
    /// There would be no second attempt before the renew deadline.
    #[error(
        "a retry period of {retry_period:?} is not shorter than the renew deadline of \
         {renew_deadline:?}: make it shorter"
    )]
    RetryTooLate {
        /// As asked for.
        retry_period: Duration,
        /// As asked for.
        renew_deadline: Duration,
    },
    /// A margin or period of nothing.
    #[error("the {what} is zero: leave it out for the default")]
    Zero {
        /// Which.
        what: &'static str,
    },
}

impl Timing {
    /// How long after the last proof of the session a holder is told to stop.
    pub fn renew_deadline(mut self, deadline: Duration) -> Self {
        self.renew_deadline = Some(deadline);
        self
    }

    /// How long before the session may end the work is dropped: room for clocks that run at
    /// different rates, and for what a dropped future still has to put away.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// How often a holder looks after its own znode.
    pub fn retry_period(mut self, period: Duration) -> Self {
        self.retry_period = Some(period);
        self
    }

    /// Divides a session's timeout.
    pub(crate) fn of(self, session_timeout: Duration) -> Result<Schedule, TimingError> {
        let renew_deadline = self.renew_deadline.unwrap_or(session_timeout / 3 * 2);
        let margin = self.margin.unwrap_or(session_timeout / 12);
        let retry_period = self.retry_period.unwrap_or(session_timeout / 3);
        for (what, span) in [("margin", margin), ("retry period", retry_period)] {
            if span.is_zero() {
                return Err(TimingError::Zero { what });
            }
        }
        if renew_deadline.saturating_add(margin) >= session_timeout {
            return Err(TimingError::DeadlineTooLate {
                renew_deadline,
                margin,
                session_timeout,
            });
        }
        if renew_deadline < session_timeout / 2 {
            return Err(TimingError::DeadlineTooSoon {
                renew_deadline,
                session_timeout,
            });
        }
        if retry_period >= renew_deadline {
            return Err(TimingError::RetryTooLate {
                retry_period,
                renew_deadline,
            });
        }
        Ok(Schedule {
            grace: session_timeout.saturating_sub(renew_deadline),
            margin,
            retry_period,
            session_timeout,
        })
    }
}

/// Timings that fit a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// From the renew deadline to the end of the session.
    pub(crate) grace: Duration,
    pub(crate) margin: Duration,
    pub(crate) retry_period: Duration,
    pub(crate) session_timeout: Duration,
}

/// What the lease clock says of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The session is proven.
    Held {
        /// How long this holds without another proof.
        left: Duration,
    },
    /// The renew deadline is past.
    Stopping {
        /// How long the work may still take.
        left: Duration,
    },
    /// The session may end any moment.
    Over,
}

impl Schedule {
    /// What to think of a session that cannot end before `lease_end`.
    pub(crate) fn phase(&self, now: LeaseInstant, lease_end: LeaseInstant) -> Phase {
        let left = lease_end.since(now);
        if left > self.grace {
            Phase::Held {
                left: left.saturating_sub(self.grace),
            }
        } else if left > self.margin {
            Phase::Stopping {
                left: left.saturating_sub(self.margin),
            }
        } else {
            Phase::Over
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(12);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_holder_is_told_at_the_renew_deadline_and_dropped_a_margin_before_the_end() {
        let schedule = Timing::default().of(TIMEOUT).expect("the default fits");
        let proven = LeaseInstant::now();
        let end = proven.after(TIMEOUT);
        let phase = |after| schedule.phase(proven.after(after), end);
        assert_eq!(phase(seconds(0)), Phase::Held { left: seconds(8) });
        assert_eq!(phase(seconds(7)), Phase::Held { left: seconds(1) });
        assert_eq!(phase(seconds(8)), Phase::Stopping { left: seconds(3) });
        assert_eq!(phase(seconds(10)), Phase::Stopping { left: seconds(1) });
        assert_eq!(phase(seconds(11)), Phase::Over);
        assert_eq!(phase(seconds(100)), Phase::Over);
    }

    #[test]
    fn the_default_fits_every_session_that_servers_grant() {
        for ms in [40, 200, 4000, 40_000, 600_000] {
            Timing::default()
                .of(Duration::from_millis(ms))
                .expect("it is divided by itself");
        }
    }

    #[test]
    fn timings_that_contradict_each_other_are_refused() {
        let refused = |timing: Timing| timing.of(TIMEOUT).expect_err("they contradict");
        assert!(matches!(
            refused(Timing::default().renew_deadline(seconds(12))),
            TimingError::DeadlineTooLate { .. }
        ));
        assert!(matches!(
            refused(
                Timing::default()
                    .renew_deadline(seconds(10))
                    .margin(seconds(2))
            ),
            TimingError::DeadlineTooLate { .. }
        ));
        assert!(matches!(
            refused(Timing::default().margin(Duration::MAX)),
            TimingError::DeadlineTooLate { .. }
        ));
        assert!(matches!(
            refused(Timing::default().renew_deadline(seconds(5))),
            TimingError::DeadlineTooSoon { .. }
        ));
        assert!(matches!(
            refused(Timing::default().retry_period(seconds(8))),
            TimingError::RetryTooLate { .. }
        ));
        assert!(matches!(
            refused(Timing::default().margin(Duration::ZERO)),
            TimingError::Zero { what: "margin" }
        ));
    }
}
