//! Until when the session is certain to be alive.
//!
//! A session ends when the leader has heard nothing of it for its timeout. So it is alive for one
//! timeout after a moment of which we know that the leader heard of us then or later. Such a moment
//! is the sending of a request whose answer proves that:
//!
//! - Quorate acknowledges a ping only when the leader has counted it, so the ping's own sending.
//! - A server of Apache ZooKeeper answers pings by itself, and tells its leader at the leader's next
//!   ping, every half tick. The answer to a `sync` shows that the leader could be reached after it
//!   was sent, so what was sent half a tick or more before that has been told. A timeout is two ticks
//!   or more, so a quarter of it is enough: what counts is the last request sent that much earlier.
//!
//! Moments are on a clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`): a laptop's lid
//! must not make a lease longer. A client may have another clock ([`crate::environment::Clock`]).

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_protocol::SessionId;
use tokio::time::Instant;

/// Sendings remembered until a proof covers them: two thirds of a timeout, however busy the client
/// is. Only one that is a quarter older than a proof counts.
const SENT_MAX: usize = 16;
/// What is sent within this part of the timeout after what is remembered adds nothing to it.
const SENT_PARTS: u32 = 24;

/// A moment on the lease clock of a client. Those of different clocks cannot be compared in any useful
/// way; [`Clock::lease_now`](crate::environment::Clock::lease_now) is the present on any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseInstant(Moment);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// Since the machine was started.
    Boot(Duration),
    Tokio(Instant),
}

/// What is added to a moment where no clock has room for more.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl LeaseInstant {
    /// The present, on the machine's clock: that of every client that was not given another.
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Moment::Boot(Duration::new(seconds, nanoseconds)))
    }

    pub(crate) fn tokio_now() -> Self {
        Self(Moment::Tokio(Instant::now()))
    }

    /// How long until then; zero once it is past.
    pub fn remaining(self) -> Duration {
        self.since(match self.0 {
            Moment::Boot(_) => Self::now(),
            Moment::Tokio(_) => Self::tokio_now(),
        })
    }

    /// How long it is from `earlier` until then; zero if that comes later.
    pub fn since(self, earlier: Self) -> Duration {
        match (self.0, earlier.0) {
            (Moment::Boot(this), Moment::Boot(earlier)) => this.saturating_sub(earlier),
            (Moment::Tokio(this), Moment::Tokio(earlier)) => {
                this.saturating_duration_since(earlier)
            }
            // Of two clocks: nothing is certain.
            _ => Duration::ZERO,
        }
    }

    /// A moment later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(match self.0 {
            Moment::Boot(this) => Moment::Boot(this.saturating_add(span)),
            Moment::Tokio(this) => Moment::Tokio(this.checked_add(span).unwrap_or(this + FAR)),
        })
    }

    /// A moment earlier.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(match self.0 {
            Moment::Boot(this) => Moment::Boot(this.saturating_sub(span)),
            Moment::Tokio(this) => {
                Moment::Tokio(this.checked_sub(span).unwrap_or_else(|| this - FAR))
            }
        })
    }
}

/// What the session's task tells everybody else. The session is in it: whoever holds something in
/// one session must not take the lease of the next for its own.
#[derive(Debug, Default)]
pub(crate) struct LeaseCell(Mutex<Option<(SessionId, LeaseInstant)>>);

impl LeaseCell {
    pub(crate) fn get(&self) -> Option<(SessionId, LeaseInstant)> {
        *self.0.lock()
    }

    pub(crate) fn set(&self, lease: Option<(SessionId, LeaseInstant)>) {
        *self.0.lock() = lease;
    }
}

/// Works the deadline out.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    timeout: Duration,
    /// When requests were sent, in order.
    sent: VecDeque<LeaseInstant>,
    proven: Option<LeaseInstant>,
}

impl Lease {
    /// A session was granted or resumed: the leader took part in it, after the request was sent.
    pub(crate) fn attached(&mut self, timeout: Duration, sent: LeaseInstant) {
        self.timeout = timeout;
        self.sent.clear();
        self.prove(sent);
    }

    pub(crate) fn end(&mut self) {
        self.proven = None;
        self.sent.clear();
    }

    /// The server counts something sent now as a sign of life.
    pub(crate) fn sent(&mut self, now: LeaseInstant) {
        let is_covered = |last: &LeaseInstant| now.since(*last) < self.timeout / SENT_PARTS;
        if self.sent.back().is_some_and(is_covered) {
            return;
        }
        if self.sent.len() == SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
    }

    /// The leader has counted what was sent then.
    pub(crate) fn prove(&mut self, sent: LeaseInstant) {
        self.proven = Some(self.proven.map_or(sent, |proven| proven.max(sent)));
    }

    /// The leader could be reached after this was sent: see the module.
    pub(crate) fn prove_reached(&mut self, sent: LeaseInstant) {
        let told = sent.before(self.timeout / 4);
        let counted = self.sent.iter().rev().find(|&&sent| sent <= told).copied();
        if let Some(counted) = counted {
            self.prove(counted);
        }
    }

    pub(crate) fn deadline(&self) -> Option<LeaseInstant> {
        Some(self.proven?.after(self.timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> LeaseInstant {
        LeaseInstant(Moment::Boot(Duration::from_millis(ms)))
    }

    fn lease() -> Lease {
        let mut lease = Lease::default();
        lease.attached(Duration::from_millis(1000), at(10_000));
        lease
    }

    #[test]
    fn a_lease_counts_from_the_sending_not_from_the_answer() {
        let mut lease = lease();
        assert_eq!(lease.deadline(), Some(at(11_000)));
        lease.prove(at(10_400));
        assert_eq!(lease.deadline(), Some(at(11_400)));
        lease.prove(at(10_200));
        assert_eq!(lease.deadline(), Some(at(11_400)), "it never gets shorter");
    }

    #[test]
    fn a_sync_proves_only_what_was_sent_a_quarter_of_the_timeout_before() {
        let mut lease = lease();
        for ms in [10_100, 10_300, 10_500] {
            lease.sent(at(ms));
        }
        lease.prove_reached(at(10_500));
        assert_eq!(
            lease.deadline(),
            Some(at(11_100)),
            "10,250 and before are told"
        );
        lease.prove_reached(at(10_550));
        assert_eq!(lease.deadline(), Some(at(11_300)));
    }

    #[test]
    fn a_client_that_is_busy_proves_as_much_as_one_that_is_idle() {
        let mut lease = lease();
        for ms in 10_000..11_000 {
            lease.sent(at(ms));
        }
        lease.prove_reached(at(11_000));
        let deadline = lease.deadline().expect("it was proven");
        assert!(deadline <= at(11_750), "no more than was told");
        assert!(deadline > at(11_700), "{deadline:?}");
    }

    #[test]
    fn a_session_that_is_over_has_no_lease() {
        let mut lease = lease();
        lease.end();
        assert_eq!(lease.deadline(), None);
        lease.prove_reached(at(20_000));
        assert_eq!(lease.deadline(), None);
    }
}
