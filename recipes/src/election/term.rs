//! A term: what the leader holds, and what it can do with it.

use std::fmt;
use std::time::Duration;

use quorate_client::{LeaseInstant, Transaction};

use super::Election;
use crate::contenders::Contenders;
use crate::lease::{FencingToken, Lease, StopReason};
use crate::{Error, Guard};

/// A leadership, held until it is given back, dropped or lost: what [`Election::campaign`] resolves to.
#[must_use = "it is given back at once otherwise"]
#[derive(Debug)]
pub struct Leadership {
    guard: Guard,
    term: Term,
}

/// A term as the work of the leader sees it. Cheap to clone.
#[derive(Clone)]
pub struct Term {
    lease: Lease,
    line: Contenders,
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Term").field(&self.lease).finish()
    }
}

impl AsRef<Lease> for Term {
    fn as_ref(&self) -> &Lease {
        &self.lease
    }
}

impl AsRef<Lease> for Leadership {
    fn as_ref(&self) -> &Lease {
        &self.term.lease
    }
}

impl Leadership {
    pub(super) fn new(election: &Election, guard: Guard) -> Self {
        let term = Term {
            lease: guard.lease().clone(),
            line: election.options.line.clone(),
        };
        super::steward::start(&term, election.prefer_after);
        Self { guard, term }
    }

    /// Its view for the work of the leader.
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// See [`Lease::token`].
    pub fn token(&self) -> FencingToken {
        self.term.token()
    }

    /// See [`Lease::is_held`].
    pub fn is_held(&self) -> bool {
        self.term.is_held()
    }

    /// Waits until the work has to stop, and says why. Cancel safe.
    pub async fn stopping(&self) -> StopReason {
        self.term.stopping().await
    }

    /// Waits until it leads no more, and says why. Cancel safe.
    pub async fn lost(&self) -> StopReason {
        self.term.lease.lost().await
    }

    /// See [`Term::proclaim`].
    ///
    /// # Errors
    ///
    /// As [`Term::proclaim`].
    pub async fn proclaim(&self, value: impl Into<String>) -> Result<(), Error> {
        self.term.proclaim(value).await
    }

    /// See [`Term::transfer_to`].
    ///
    /// # Errors
    ///
    /// As [`Term::transfer_to`].
    pub async fn transfer_to(&self, candidate: &str) -> Result<(), Error> {
        self.term.transfer_to(candidate).await
    }

    /// Gives it back, and waits until another may lead. Cancel safe: it goes on.
    ///
    /// # Errors
    ///
    /// As [`Guard::release`].
    pub async fn resign(self) -> Result<(), Error> {
        let reason = self.term.lease.stop_reason();
        self.guard
            .give_back(reason.unwrap_or(StopReason::Released))
            .await
    }

    pub(super) async fn give_back(self, reason: StopReason) -> Result<(), Error> {
        self.guard.give_back(reason).await
    }
}

impl Term {
    /// What it holds, with everything that a lock's holder can do.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Greater than that of every term before. See [`Lease::token`].
    pub fn token(&self) -> FencingToken {
        self.lease.token()
    }

    /// See [`Lease::identity`].
    pub fn identity(&self) -> &str {
        self.lease.identity()
    }

    /// See [`Lease::deadline`].
    pub fn deadline(&self) -> LeaseInstant {
        self.lease.deadline()
    }

    /// See [`Lease::is_held`].
    pub fn is_held(&self) -> bool {
        self.lease.is_held()
    }

    /// Waits until the work has to stop, and says why. Cancel safe.
    pub async fn stopping(&self) -> StopReason {
        self.lease.stopping().await
    }

    /// See [`Lease::until_stopping`].
    pub async fn until_stopping<F: Future>(&self, work: F) -> Option<F::Output> {
        self.lease.until_stopping(work).await
    }

    /// See [`Lease::spawn`].
    pub fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.lease.spawn(work)
    }

    /// See [`Lease::transaction`].
    pub fn transaction(&self) -> Transaction {
        self.lease.transaction()
    }

    /// Tells everybody something: an address, an epoch. Refused by the server once another leads.
    ///
    /// # Errors
    ///
    /// [`Error::Displaced`]: it leads no more. Those of any write.
    pub async fn proclaim(&self, value: impl Into<String>) -> Result<(), Error> {
        let value = Some(value.into());
        let name = self.name().to_owned();
        let is_done = |record: &crate::record::Record| record.node == name && record.value == value;
        let change = |record: &mut crate::record::Record| {
            record.value.clone_from(&value);
            record.renew_time = Some(crate::record::wall_time(&self.line.client));
        };
        self.line
            .write_record(self.lease.node(), is_done, change)
            .await?;
        Ok(())
    }

    /// Tells the work to stop: leadership is given back when it has. [`Election::run`] then stands back
    /// for `hold_off` before it stands again.
    pub fn step_down(&self, hold_off: Duration) {
        self.lease.set_hold_off(hold_off);
        self.lease.stop(StopReason::Released);
    }

    /// Hands over to a candidate: it takes the place right behind this leader, before all others; then
    /// the work is told to stop ([`StopReason::Transferred`]), and when it has ended the candidate
    /// leads. Returns when the work is told to stop. If the candidate dies meanwhile, the next in line
    /// leads. Of several with that identity, one that stands.
    ///
    /// If the future is dropped, the candidate may have been asked already: the leader goes on, and the
    /// candidate is the next.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuccessor`]: the leader goes on, or is told to stop for another reason.
    /// [`Error::Displaced`]: it leads no more. Those of any request: the leader goes on.
    pub async fn transfer_to(&self, candidate: &str) -> Result<(), Error> {
        super::succession::hand_over(&self.line, &self.lease, candidate).await
    }

    pub(super) fn line(&self) -> &Contenders {
        &self.line
    }

    fn name(&self) -> &str {
        self.lease.node().rsplit('/').next().unwrap_or_default()
    }
}
