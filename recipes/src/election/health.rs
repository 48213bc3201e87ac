//! How a candidate is, for a liveness probe.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_client::LeaseInstant;

use crate::lease::{FencingToken, Lease};

/// How a candidate is. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    standing: usize,
    /// The last term, and those before whose work has not ended.
    terms: Vec<Lease>,
}

/// What a candidate is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthState {
    /// It does not stand for election.
    Idle,
    /// It stands, and another leads, or nobody.
    Standing,
    /// It leads.
    Leading {
        /// The term's token.
        token: FencingToken,
        /// Until when its work may run, as things stand.
        until: LeaseInstant,
    },
    /// Its lease is over, and its work has not ended: the process should be restarted.
    Overdue {
        /// The term's token.
        token: FencingToken,
    },
}

impl Health {
    /// What it is doing now.
    pub fn state(&self) -> HealthState {
        let state = self.0.lock();
        let is_overdue = |lease: &&Lease| !lease.is_held() && lease.is_at_work();
        if let Some(lease) = state.terms.iter().find(is_overdue) {
            return HealthState::Overdue {
                token: lease.token(),
            };
        }
        match state.terms.last() {
            Some(lease) if lease.is_held() => HealthState::Leading {
                token: lease.token(),
                until: lease.deadline(),
            },
            _ if state.standing > 0 => HealthState::Standing,
            _ => HealthState::Idle,
        }
    }

    /// What a liveness probe should answer: false if work goes on that should have ended.
    pub fn is_live(&self) -> bool {
        !matches!(self.state(), HealthState::Overdue { .. })
    }

    pub(super) fn stands(&self) -> Standing {
        self.0.lock().standing += 1;
        Standing(self.clone())
    }

    pub(super) fn leads(&self, lease: &Lease) {
        let terms = &mut self.0.lock().terms;
        terms.retain(Lease::is_at_work);
        terms.push(lease.clone());
    }
}

/// Stands for election until it is dropped.
pub(super) struct Standing(Health);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.0.lock().standing -= 1;
    }
}
