//! From "I want it" to a guard: the one way in, of all recipes that grant something.

use std::time::Duration;

use tokio::time::Instant;

use crate::contenders::{Contenders, Place, Rule, Turn, after_loss, turn};
use crate::guard::{Grant, Guard};
use crate::naming::{Naming, Role};
use crate::options::Options;
use crate::semaphore::Permits;
use crate::timing::{Phase, Schedule};
use crate::{Error, Lease};

/// How long somebody who was not served waits to hear who was.
const HOLDER_LIMIT: Duration = Duration::from_secs(1);

/// What is asked for, and how long to wait for it. Awaiting it resolves to a [`Guard`].
///
/// Cancel safe: if the future is dropped at any point, no place in the line stays behind.
///
/// # Errors
///
/// [`Error::WouldBlock`] and [`Error::HeldByAnother`] where it is not to be waited for, or for so long
/// only; [`Error::OtherRecipe`] and [`Error::Foreign`] where the path is not this recipe's;
/// [`Error::Displaced`] and those of a session that is over, where the policy is
/// [`OnSessionLoss::Fail`](crate::OnSessionLoss::Fail) or nothing can be hoped for;
/// [`Error::Timing`] if the session is now shorter than the timings allow; [`Error::NoWatchdog`]; those
/// of a server that refuses (ACL, quota), and [`quorate_client::Error::TimedOut`] where something had to
/// be asked and there was no connection for as long as a session lives without one. Who just waits
/// outlasts that.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked for before `.await`"]
pub struct Acquire {
    pub(crate) options: Options,
    pub(crate) role: Role,
    pub(crate) patience: Patience,
    /// What the record says with the grant.
    pub(crate) value: Option<String>,
    /// Of a semaphore.
    pub(crate) permits: Option<Permits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Endless,
    None,
    AtMost(Duration),
}

impl Acquire {
    pub(crate) fn new(options: &Options, role: Role) -> Self {
        Self {
            options: options.clone(),
            role,
            patience: Patience::Endless,
            value: None,
            permits: None,
        }
    }

    /// Does not wait for others: if somebody holds it or waits for it, that is an error at once.
    pub fn try_now(mut self) -> Self {
        self.patience = Patience::None;
        self
    }

    /// Waits for so long at most.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.patience = Patience::AtMost(limit);
        self
    }

    /// Runs `work` while it is held: see [`Guard::run`].
    ///
    /// # Errors
    ///
    /// Those of acquiring it, and [`Error::Lost`] if the work was dropped.
    pub async fn run<F, W, T>(self, work: F) -> Result<T, Error>
    where
        F: FnOnce(Lease) -> W,
        W: Future<Output = T>,
    {
        self.await?.run(work).await
    }

    async fn acquire(self) -> Result<Guard, Error> {
        let schedule = self.options.schedule()?;
        self.check()?;
        match self.patience {
            Patience::Endless => self.wait().await,
            Patience::None => self.try_at_once().await,
            Patience::AtMost(limit) => match tokio::time::timeout(limit, self.wait()).await {
                Ok(acquired) => acquired,
                Err(_) => Err(Error::HeldByAnother {
                    path: self.options.line.path.clone(),
                    holder: self.holder_soon(schedule).await,
                    waited: limit,
                }),
            },
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.role == Role::Shared && self.options.naming == Naming::JavaRecipe {
            let what = "ZooKeeper's Java recipes have no lock for readers: choose another naming";
            return Err(Error::InvalidArgument(what.to_owned()));
        }
        if let Some(permits) = &self.permits {
            permits.check()?;
        }
        Ok(())
    }

    /// What the holder calls itself; empty where that cannot be told soon.
    async fn holder_soon(&self, schedule: Schedule) -> String {
        if !self.options.client().state().is_connected() {
            return String::new();
        }
        let limit = HOLDER_LIMIT.min(schedule.session_timeout);
        let holder = tokio::time::timeout(limit, self.holder()).await;
        holder.unwrap_or_default()
    }

    /// Where it is waited for.
    fn line(&self) -> &Contenders {
        let locks = self.permits.as_ref().map(|permits| &permits.locks);
        locks.unwrap_or(&self.options.line)
    }

    fn rule(&self) -> Rule {
        match self.role {
            Role::Shared => Rule::Writers,
            Role::Exclusive | Role::Lead | Role::Permit => Rule::All,
        }
    }

    async fn wait(&self) -> Result<Guard, Error> {
        let (line, since) = (self.line(), Instant::now());
        loop {
            let session = line.client.session();
            match self.attempt(since).await {
                Ok(guard) => return Ok(guard),
                Err(error) => {
                    let policy = self.options.on_session_loss;
                    after_loss(&line.client, session, policy, error).await?;
                    tracing::info!(path = %line.path, "the place in the line was lost; again");
                }
            }
        }
    }

    async fn attempt(&self, since: Instant) -> Result<Guard, Error> {
        let mut place = self.join().await?;
        self.line().wait_for_turn(&mut place, self.rule()).await?;
        self.take(place, since).await
    }

    async fn join(&self) -> Result<Place, Error> {
        if let Some(permits) = &self.permits {
            permits.agree(&self.options.line).await?;
        }
        // Of a semaphore, whoever is first in line may take the next permit.
        let role = match self.role {
            Role::Permit => Role::Exclusive,
            role => role,
        };
        let identity = self.options.identity.as_deref();
        self.line().join(self.options.naming, role, identity).await
    }

    async fn try_at_once(&self) -> Result<Guard, Error> {
        let since = Instant::now();
        let has_permit = match &self.permits {
            None => true,
            Some(permits) => permits.is_free().await?,
        };
        if !has_permit || !self.is_free(None).await? {
            return Err(self.would_block().await);
        }
        let place = self.join().await?;
        if !self.is_free(Some(&place)).await? {
            drop(place);
            return Err(self.would_block().await);
        }
        self.take(place, since).await
    }

    /// Whether nobody is in the way of `place`, or of one who would come now.
    async fn is_free(&self, place: Option<&Place>) -> Result<bool, Error> {
        let candidates = self.line().read().await?;
        if let Some(place) = place {
            return match turn(&candidates, place.name(), self.rule()) {
                Turn::Ours => Ok(true),
                Turn::After(_) => Ok(false),
                Turn::Gone => Err(self.line().displaced()),
            };
        }
        let mut candidates = candidates.into_iter();
        Ok(match self.rule() {
            Rule::All => candidates.next().is_none(),
            Rule::Writers => candidates.all(|other| other.parsed.role == Role::Shared),
        })
    }

    /// It is our turn: makes us the holder.
    async fn take(&self, place: Place, since: Instant) -> Result<Guard, Error> {
        let line = &self.options.line;
        if let Some(permits) = &self.permits {
            return self.take_permit(permits, place, since).await;
        }
        self.sit_out_lock_delay(&place).await?;
        let schedule = self.prove_session(&place).await?;
        let grant = match self.role {
            Role::Shared => Grant::of(line.grant_shared(&place).await?),
            _ => {
                let grant = line.grant(&place, schedule.session_timeout, self.value.as_deref());
                Grant::recorded(grant.await?)
            }
        };
        Guard::new(&self.options, place, grant, schedule, since.elapsed())
    }

    async fn take_permit(
        &self,
        permits: &Permits,
        turn: Place,
        since: Instant,
    ) -> Result<Guard, Error> {
        let identity = self.options.identity.as_deref();
        let leases = &permits.leases;
        let place = leases
            .join(self.options.naming, Role::Permit, identity)
            .await?;
        if self.patience != Patience::None {
            permits.wait_for(&place).await?;
        } else if !permits.has(&place).await? {
            drop((place, turn));
            return Err(self.would_block().await);
        }
        let schedule = self.prove_session(&place).await?;
        let token = leases.grant_shared(&place).await?;
        // Whoever is next may look for another.
        drop(turn);
        let grant = Grant::of(token);
        Guard::new(&self.options, place, grant, schedule, since.elapsed())
    }

    /// Waits until the session is proven well before its renew deadline, so that a holder is not told to
    /// stop as soon as it begins. After a while of silence, against Apache ZooKeeper, this takes up to a
    /// quarter of the session's timeout: only what was sent that long before a `sync` is proven by it.
    async fn prove_session(&self, place: &Place) -> Result<Schedule, Error> {
        let line = &self.options.line;
        // The session that there is now may be another than when this was begun.
        let schedule = self.options.schedule()?;
        let ahead = schedule.session_timeout / 24;
        loop {
            let Some(end) = line.client.lease_of(place.session) else {
                return Err(line.displaced());
            };
            match schedule.phase(line.client.clock().lease_now(), end) {
                Phase::Held { left } if left >= ahead => return Ok(schedule),
                _ => {
                    line.client.sync(&line.path).await?;
                    tokio::time::sleep(ahead / 2).await;
                }
            }
        }
    }

    /// If the last holder was lost rather than gave it back, what it had begun may still arrive
    /// somewhere: waits as long as was asked for.
    async fn sit_out_lock_delay(&self, place: &Place) -> Result<(), Error> {
        let (line, delay) = (&self.options.line, self.options.lock_delay);
        if delay.is_zero() {
            return Ok(());
        }
        let Some(seen) = line.read_record().await? else {
            return Ok(());
        };
        let last = seen.record;
        if !last.is_taken() || last.node == place.name() {
            return Ok(());
        }
        if line.client.exists(&line.child(&last.node)).await?.is_some() {
            return Ok(());
        }
        if self.patience == Patience::None {
            return Err(Error::WouldBlock {
                path: line.path.clone(),
                holder: last.holder_identity,
            });
        }
        tracing::info!(path = %line.path, ?delay, holder = %last.holder_identity,
            "the last holder was lost: a delay before the next");
        tokio::time::sleep(delay).await;
        if self.role == Role::Shared {
            line.note_loss(place, &last.node).await?;
        }
        Ok(())
    }

    async fn would_block(&self) -> Error {
        Error::WouldBlock {
            path: self.options.line.path.clone(),
            holder: self.holder().await,
        }
    }

    /// What the holder calls itself, or who is first in line; empty if that cannot be told.
    async fn holder(&self) -> String {
        let leases = self.permits.as_ref().map(|permits| &permits.leases);
        let line = leases.unwrap_or(&self.options.line);
        let holder = line.holder().await.ok().flatten();
        holder.map_or_else(String::new, |holder| holder.identity)
    }
}

impl IntoFuture for Acquire {
    type Output = Result<Guard, Error>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}
