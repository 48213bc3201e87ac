//! What the clients of a run and the one who makes its faults tell each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_checker::history::{Moment, Path};
use rustix::time::{ClockId, clock_gettime};

/// The machine's monotonic clock, from a moment that all processes of a run agree on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) begun_ns: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            begun_ns: monotonic_ns(),
        }
    }

    pub(crate) fn now(self) -> Moment {
        monotonic_ns() - self.begun_ns
    }
}

fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

pub(crate) struct Board {
    pub(crate) clock: Clock,
    pub(crate) addresses: BTreeMap<u64, SocketAddr>,
    is_over: AtomicBool,
    may_leave: AtomicBool,
    acknowledged: AtomicU64,
    connections: AtomicU32,
    disturbed: Mutex<BTreeSet<u64>>,
    /// When something last happened to any server, or ended.
    changed: AtomicU64,
    /// Ephemerals that were created once.
    held: Mutex<Vec<Path>>,
    /// The session that each client has now.
    sessions: Mutex<BTreeMap<u32, i64>>,
}

impl Board {
    pub(crate) fn new(clock: Clock, addresses: BTreeMap<u64, SocketAddr>) -> Self {
        Self {
            clock,
            addresses,
            is_over: AtomicBool::new(false),
            may_leave: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            connections: AtomicU32::new(0),
            disturbed: Mutex::default(),
            changed: AtomicU64::new(0),
            held: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    /// A number that no other connection has.
    pub(crate) fn next_connection(&self) -> u32 {
        self.connections.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Something may be wrong with these servers, and with no others.
    pub(crate) fn set_disturbed(&self, servers: &BTreeSet<u64>) {
        servers.clone_into(&mut lock(&self.disturbed));
        self.changed.store(self.clock.now(), Ordering::SeqCst);
    }

    pub(crate) fn is_disturbed(&self, server: u64) -> bool {
        lock(&self.disturbed).contains(&server)
    }

    pub(crate) fn last_change(&self) -> Moment {
        self.changed.load(Ordering::SeqCst)
    }

    pub(crate) fn on_write(&self) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// Writes acknowledged so far.
    pub(crate) fn writes(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// From now on clients only keep their sessions alive.
    pub(crate) fn end_load(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// From now on clients may go, and take their ephemerals with them.
    pub(crate) fn release(&self) {
        self.may_leave.store(true, Ordering::SeqCst);
    }

    pub(crate) fn may_leave(&self) -> bool {
        self.may_leave.load(Ordering::SeqCst)
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Vec<Path>> {
        lock(&self.held)
    }

    pub(crate) fn set_session(&self, client: u32, session: Option<i64>) {
        match session {
            Some(session) => lock(&self.sessions).insert(client, session),
            None => lock(&self.sessions).remove(&client),
        };
    }

    /// The sessions that clients have now.
    pub(crate) fn sessions(&self) -> BTreeSet<i64> {
        lock(&self.sessions).values().copied().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
