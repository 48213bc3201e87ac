//! Which sessions are overdue.
//!
//! An [`ExpiryQueue`] holds one deadline per session and gives back those that have passed, in
//! order. It knows no clock: times are milliseconds of the caller's monotonic clock. A session is
//! never due before its deadline, and at most one tick after it: deadlines are rounded up to whole
//! ticks, as in ZooKeeper, so that sessions share them and most touches move nothing.
//!
//! Touches need not pass through here. The caller notes them where it is cheapest, and
//! [schedules](ExpiryQueue::schedule) anew those sessions that came [due](ExpiryQueue::due) and
//! were touched since.

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, DefaultHasher};

use hashbrown::HashMap;
use quorate_protocol::SessionId;

/// Deadlines of sessions, in whole ticks.
#[derive(Clone, Debug)]
pub struct ExpiryQueue {
    tick_ms: u64,
    /// The tick at which each session is due, and the session; in the order of expiry.
    queue: BTreeSet<(u64, SessionId)>,
    /// Where to find a session in `queue`. Never iterated.
    ticks: HashMap<SessionId, u64, BuildHasherDefault<DefaultHasher>>,
}

impl ExpiryQueue {
    /// An empty queue that rounds deadlines up to multiples of `tick_ms` (at least 1).
    pub fn new(tick_ms: u64) -> Self {
        Self {
            tick_ms: tick_ms.max(1),
            queue: BTreeSet::new(),
            ticks: HashMap::default(),
        }
    }

    /// Has `session` expire after `deadline_ms`, whatever was scheduled for it before.
    pub fn schedule(&mut self, session: SessionId, deadline_ms: u64) {
        // The tick after the deadline, even if the deadline is a tick: a time cut to whole
        // milliseconds may lie almost one of them before the touch it stands for.
        let tick = (deadline_ms / self.tick_ms).saturating_add(1);
        match self.ticks.insert(session, tick) {
            Some(old) if old == tick => return,
            Some(old) => {
                self.queue.remove(&(old, session));
            }
            None => {}
        }
        self.queue.insert((tick, session));
    }

    /// Forgets a session. Returns whether it was scheduled.
    pub fn remove(&mut self, session: SessionId) -> bool {
        match self.ticks.remove(&session) {
            Some(tick) => self.queue.remove(&(tick, session)),
            None => false,
        }
    }

    /// Takes out the sessions that are due at `now_ms`, earliest first; those of one tick in the
    /// order of their ids.
    pub fn due(&mut self, now_ms: u64) -> Vec<SessionId> {
        let mut due = Vec::new();
        while let Some(&(tick, session)) = self.queue.first() {
            if self.time_of(tick) > now_ms {
                break;
            }
            self.queue.pop_first();
            self.ticks.remove(&session);
            due.push(session);
        }
        due
    }

    /// When [`Self::due`] next has something to give; `None` when nothing is scheduled.
    pub fn next_deadline(&self) -> Option<u64> {
        self.queue.first().map(|&(tick, _)| self.time_of(tick))
    }

    /// Forgets every session: a server that no longer leads expires nobody.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.ticks.clear();
    }

    /// How many sessions are scheduled.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no session is scheduled.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn time_of(&self, tick: u64) -> u64 {
        tick.saturating_mul(self.tick_ms)
    }
}

#[cfg(test)]
mod tests;
