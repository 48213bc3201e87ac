//! How far a run is: everybody waits for the next part in the same place.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Parents are being created.
    SetUp,
    Run,
    /// Nothing new is asked for; sessions are kept.
    Calm,
    /// Everybody has to get something done.
    Settle,
    Over,
}

#[derive(Clone, Debug)]
pub(crate) struct Stage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    phase: Mutex<Phase>,
    changed: Notify,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            phase: Mutex::new(Phase::SetUp),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.0.phase.lock()
    }

    /// It never goes back.
    pub(crate) fn advance(&self, to: Phase) {
        {
            let mut phase = self.0.phase.lock();
            *phase = (*phase).max(to);
        }
        self.0.changed.notify_waiters();
    }

    /// Waits until it is at least so far. Cancel safe.
    pub(crate) async fn reached(&self, wanted: Phase) {
        loop {
            // Made before the look, so that no change between the two is missed.
            let changed = self.0.changed.notified();
            if self.phase() >= wanted {
                return;
            }
            changed.await;
        }
    }
}

impl Phase {
    pub(crate) fn next(self) -> Self {
        match self {
            Self::SetUp => Self::Run,
            Self::Run => Self::Calm,
            Self::Calm => Self::Settle,
            Self::Settle | Self::Over => Self::Over,
        }
    }
}
