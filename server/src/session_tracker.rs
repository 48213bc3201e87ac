//! Which sessions showed life, and which are overdue.
//!
//! Every request of a session is a touch: one relaxed store into the session's [`Pulse`]. The leader
//! alone decides on expiry, on its monotonic clock, and proposes it as a log entry; applying that
//! entry is what ends a session. A timer that runs out while the pulse is younger than the timeout
//! is merely wound again, so a touch costs no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;
use parking_lot::Mutex;
use quorate_protocol::{SessionId, Zxid};
use quorate_state::{ExpiryQueue, SessionEvent};

/// When a session last showed life, in milliseconds of the monotonic clock.
#[derive(Debug)]
pub struct Pulse(AtomicU64);

impl Pulse {
    pub fn touch(&self, now_ms: u64) {
        self.0.fetch_max(now_ms, Relaxed);
    }

    fn last_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Clone, Debug)]
struct Timer {
    pulse: Arc<Pulse>,
    timeout_ms: u64,
    attached_at: Zxid,
}

/// A session that has been silent for its timeout, as far as this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    pub session: SessionId,
    /// The attach this server saw: if there was a later one, the expiry is void.
    pub attached_at: Zxid,
}

/// The timers of all sessions.
#[derive(Debug)]
pub struct SessionTracker {
    timers: DashMap<SessionId, Timer>,
    queue: Mutex<ExpiryQueue>,
}

impl SessionTracker {
    /// Deadlines are rounded up to `tick_ms`, so a session ends between its timeout and one tick
    /// more after its last touch, as in ZooKeeper.
    pub fn new(tick_ms: u64) -> Self {
        Self {
            timers: DashMap::new(),
            queue: Mutex::new(ExpiryQueue::new(tick_ms)),
        }
    }

    /// Gives every session its full timeout from now on: after a start or a change of leader nobody
    /// can tell for how long it was silent.
    pub fn restart(&self, sessions: impl Iterator<Item = (SessionId, i32, Zxid)>, now_ms: u64) {
        for (session, timeout_ms, attached_at) in sessions {
            self.wind(session, timeout_ms, attached_at, now_ms);
        }
    }

    /// Gives every session its full timeout from now on, as after a start: this server stood still
    /// (paused, starved, its machine suspended), and what clients sent meanwhile is yet to be read.
    pub fn pardon(&self, now_ms: u64) {
        for timer in &self.timers {
            timer.pulse.touch(now_ms);
        }
    }

    /// Takes note that these sessions showed life, on whatever server their clients are.
    pub fn touch(&self, sessions: &[SessionId], now_ms: u64) {
        for session in sessions {
            if let Some(timer) = self.timers.get(session) {
                timer.pulse.touch(now_ms);
            }
        }
    }

    /// The sessions that showed life at `since_ms` or later, in ascending order.
    pub fn touched_since(&self, since_ms: u64) -> Vec<SessionId> {
        let mut touched: Vec<_> = self
            .timers
            .iter()
            .filter(|timer| timer.pulse.last_ms() >= since_ms)
            .map(|timer| *timer.key())
            .collect();
        touched.sort_unstable();
        touched
    }

    /// Forgets all sessions.
    pub fn clear(&self) {
        let mut queue = self.queue.lock();
        for timer in &self.timers {
            queue.remove(*timer.key());
        }
        self.timers.clear();
    }

    /// Follows what an applied command did to a session.
    pub fn on_event(&self, event: &SessionEvent, now_ms: u64) {
        match *event {
            SessionEvent::Attached {
                session,
                timeout_ms,
                attached_at,
                ..
            } => self.wind(session, timeout_ms, attached_at, now_ms),
            SessionEvent::Ended { session, .. } => {
                self.timers.remove(&session);
                self.queue.lock().remove(session);
            }
        }
    }

    /// The pulse a connection touches for its session; `None` once that has ended.
    pub fn pulse(&self, session: SessionId) -> Option<Arc<Pulse>> {
        self.timers
            .get(&session)
            .map(|timer| Arc::clone(&timer.pulse))
    }

    pub fn session_count(&self) -> usize {
        self.timers.len()
    }

    /// Milliseconds until the next timer runs out.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.queue.lock().next_deadline()
    }

    /// The sessions that are overdue at `now_ms`. Each is looked at again after another timeout, in
    /// case its expiry does not make it into the log.
    pub fn overdue(&self, now_ms: u64) -> Vec<Overdue> {
        let mut queue = self.queue.lock();
        let mut overdue = Vec::new();
        for session in queue.due(now_ms) {
            let Some(timer) = self.timers.get(&session) else {
                continue;
            };
            let deadline_ms = timer.pulse.last_ms() + timer.timeout_ms;
            if deadline_ms > now_ms {
                queue.schedule(session, deadline_ms);
            } else {
                overdue.push(Overdue {
                    session,
                    attached_at: timer.attached_at,
                });
                queue.schedule(session, now_ms + timer.timeout_ms);
            }
        }
        overdue
    }

    /// When each session's timer runs out, as far as is known: for the `dump` command.
    pub fn deadlines(&self) -> Vec<(u64, SessionId)> {
        let mut deadlines: Vec<_> = self
            .timers
            .iter()
            .map(|timer| (timer.pulse.last_ms() + timer.timeout_ms, *timer.key()))
            .collect();
        deadlines.sort_unstable();
        deadlines
    }

    fn wind(&self, session: SessionId, timeout_ms: i32, attached_at: Zxid, now_ms: u64) {
        let timeout_ms = u64::try_from(timeout_ms).unwrap_or(0);
        let pulse = match self.timers.get(&session) {
            Some(timer) => Arc::clone(&timer.pulse),
            None => Arc::new(Pulse(AtomicU64::new(now_ms))),
        };
        pulse.touch(now_ms);
        let timer = Timer {
            pulse,
            timeout_ms,
            attached_at,
        };
        self.timers.insert(session, timer);
        self.queue.lock().schedule(session, now_ms + timeout_ms);
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::{SessionId, Zxid};
    use quorate_state::{Connection, SessionEvent};

    use super::{Overdue, SessionTracker};

    const TICK_MS: u64 = 100;

    fn id(id: i64) -> SessionId {
        SessionId::new(id).expect("not zero")
    }

    fn attached(session: SessionId, timeout_ms: i32, at: i64) -> SessionEvent {
        SessionEvent::Attached {
            session,
            connection: Connection::default(),
            timeout_ms,
            attached_at: Zxid(at),
            from: None,
        }
    }

    #[test]
    fn a_silent_session_is_overdue_after_its_timeout_and_within_a_tick_more() {
        let tracker = SessionTracker::new(TICK_MS);
        tracker.on_event(&attached(id(1), 1000, 7), 50);
        assert_eq!(tracker.overdue(1049), []);
        let overdue = Overdue {
            session: id(1),
            attached_at: Zxid(7),
        };
        assert_eq!(tracker.overdue(1050 + TICK_MS), [overdue]);
    }

    #[test]
    fn a_touch_gives_the_whole_timeout_again() {
        let tracker = SessionTracker::new(TICK_MS);
        tracker.on_event(&attached(id(1), 1000, 7), 0);
        tracker.pulse(id(1)).expect("it is tracked").touch(900);
        assert_eq!(tracker.overdue(1899), []);
        assert_eq!(tracker.overdue(1900 + TICK_MS).len(), 1);
    }

    #[test]
    fn an_expiry_that_does_not_come_about_is_found_overdue_again() {
        let tracker = SessionTracker::new(TICK_MS);
        tracker.on_event(&attached(id(1), 1000, 7), 0);
        assert_eq!(tracker.overdue(2000).len(), 1);
        assert_eq!(tracker.overdue(2000 + 1000 + TICK_MS).len(), 1);
    }

    #[test]
    fn an_attach_keeps_the_pulse_that_an_older_connection_touches() {
        let tracker = SessionTracker::new(TICK_MS);
        tracker.on_event(&attached(id(1), 1000, 7), 0);
        let pulse = tracker.pulse(id(1)).expect("it is tracked");
        tracker.on_event(&attached(id(1), 2000, 8), 500);
        pulse.touch(600);
        assert_eq!(tracker.overdue(2599), []);
        let overdue = tracker.overdue(2600 + TICK_MS);
        assert_eq!(overdue[0].attached_at, Zxid(8));
    }

    #[test]
    fn a_touch_by_way_of_another_server_counts_as_well() {
        let tracker = SessionTracker::new(TICK_MS);
        for session in [1, 2] {
            tracker.on_event(&attached(id(session), 1000, 7), 0);
        }
        assert_eq!(tracker.touched_since(1), []);
        tracker.touch(&[id(1), id(99)], 900);
        assert_eq!(tracker.touched_since(900), [id(1)]);
        let overdue: Vec<_> = tracker.overdue(1800).iter().map(|o| o.session).collect();
        assert_eq!(overdue, [id(2)]);
    }

    #[test]
    fn a_session_that_has_ended_is_never_overdue() {
        let tracker = SessionTracker::new(TICK_MS);
        tracker.on_event(&attached(id(1), 1000, 7), 0);
        tracker.on_event(
            &SessionEvent::Ended {
                session: id(1),
                connection: Connection::default(),
                expired: false,
            },
            10,
        );
        assert_eq!(tracker.overdue(1_000_000), []);
        assert!(tracker.pulse(id(1)).is_none());
    }
}
