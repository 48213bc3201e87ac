//! From "I want it" to a guard: the one way in, of all recipes that grant something.

use std::time::{Duration, Instant};

use quorate_client::{LeaseInstant, Reason};

use crate::contenders::{Place, Rule, after_loss, in_order};
use crate::guard::Guard;
use crate::naming::Role;
use crate::options::Options;
use crate::timing::{Phase, Schedule};
use crate::{Error, Lease};

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
/// [`Error::Timing`] if the session is now shorter than the timings allow; those of a server that
/// refuses (ACL, quota).
#[derive(Clone, Debug)]
#[must_use = "nothing is asked for before `.await`"]
pub struct Acquire {
    pub(crate) options: Options,
    pub(crate) role: Role,
    pub(crate) patience: Patience,
    /// What the record says with the grant.
    pub(crate) value: Option<String>,
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
        match self.patience {
            Patience::Endless => self.wait(schedule).await,
            Patience::None => self.try_at_once(schedule).await,
            Patience::AtMost(limit) => match tokio::time::timeout(limit, self.wait(schedule)).await
            {
                Ok(acquired) => acquired,
                Err(_) => Err(Error::HeldByAnother {
                    path: self.options.line.path.clone(),
                    // Of no use where nobody answers.
                    holder: tokio::time::timeout(schedule.session_timeout, self.holder())
                        .await
                        .unwrap_or_default(),
                    waited: limit,
                }),
            },
        }
    }

    fn rule(&self) -> Rule {
        match self.role {
            Role::Shared => Rule::Writers,
            Role::Exclusive | Role::Lead => Rule::All,
        }
    }

    async fn wait(&self, schedule: Schedule) -> Result<Guard, Error> {
        let (line, since) = (&self.options.line, Instant::now());
        loop {
            let session = line.client.session();
            match self.attempt(schedule, since).await {
                Ok(guard) => return Ok(guard),
                Err(error) => {
                    let policy = self.options.on_session_loss;
                    after_loss(&line.client, session, policy, error).await?;
                    tracing::info!(path = %line.path, "the place in the line was lost; again");
                }
            }
        }
    }

    async fn attempt(&self, schedule: Schedule, since: Instant) -> Result<Guard, Error> {
        let (line, identity) = (&self.options.line, self.options.identity());
        let join = line.join(self.options.naming, self.role, &identity);
        let mut place = join.await?;
        line.wait_for_turn(&mut place, self.rule()).await?;
        self.take(place, schedule, since).await
    }

    async fn try_at_once(&self, schedule: Schedule) -> Result<Guard, Error> {
        let line = &self.options.line;
        let since = Instant::now();
        if !self.is_free(None).await? {
            return Err(self.would_block().await);
        }
        let identity = self.options.identity();
        let place = line.join(self.options.naming, self.role, &identity).await?;
        if !self.is_free(Some(&place)).await? {
            drop(place);
            return Err(self.would_block().await);
        }
        self.take(place, schedule, since).await
    }

    /// Whether nobody is in the way of `place`, or of one who would come now.
    async fn is_free(&self, place: Option<&Place>) -> Result<bool, Error> {
        let candidates = self.options.line.read().await?;
        if let Some(place) = place {
            use crate::contenders::{Turn, turn};
            return match turn(&candidates, place.name(), self.rule()) {
                Turn::Ours => Ok(true),
                Turn::After(_) => Ok(false),
                Turn::Gone => Err(self.options.line.displaced()),
            };
        }
        let mut candidates = candidates.into_iter();
        Ok(match self.rule() {
            Rule::All => candidates.next().is_none(),
            Rule::Writers => candidates.all(|other| other.parsed.role == Role::Shared),
        })
    }

    /// It is our turn: makes us the holder.
    async fn take(&self, place: Place, schedule: Schedule, since: Instant) -> Result<Guard, Error> {
        let line = &self.options.line;
        self.sit_out_lock_delay(&place).await?;
        self.prove_session(&place, &schedule).await?;
        let seen = line
            .grant(&place, schedule.session_timeout, self.value.as_deref())
            .await?;
        Guard::new(
            &self.options,
            place,
            seen.token(),
            schedule,
            since.elapsed(),
        )
    }

    /// If the last holder was lost rather than gave it back, what it had begun may still arrive
    /// somewhere: waits as long as was asked for.
    async fn sit_out_lock_delay(&self, place: &Place) -> Result<(), Error> {
        let (line, delay) = (&self.options.line, self.options.lock_delay);
        if delay.is_zero() {
            return Ok(());
        }
        if let Some(seen) = line.read_record().await?
            && seen.record.is_taken()
            && seen.record.node != place.name()
        {
            let lost = line.client.exists(&line.child(&seen.record.node)).await?;
            if lost.is_none() {
                tracing::info!(path = %line.path, ?delay, holder = %seen.record.holder_identity,
                    "the last holder was lost: a delay before the next");
                tokio::time::sleep(delay).await;
            }
        }
        Ok(())
    }

    /// Waits until the session is proven well before its renew deadline, so that a holder is not told to
    /// stop as soon as it begins. After a while of silence, against Apache ZooKeeper, this takes up to a
    /// quarter of the session's timeout: only what was sent that long before a `sync` is proven by it.
    async fn prove_session(&self, place: &Place, schedule: &Schedule) -> Result<(), Error> {
        let line = &self.options.line;
        let ahead = schedule.session_timeout / 24;
        loop {
            let Some(end) = line.client.lease_of(place.session) else {
                return Err(line.displaced());
            };
            match schedule.phase(LeaseInstant::now(), end) {
                Phase::Held { left } if left >= ahead => return Ok(()),
                _ => {
                    line.client.sync(&line.path).await?;
                    tokio::time::sleep(ahead / 2).await;
                }
            }
        }
    }

    async fn would_block(&self) -> Error {
        Error::WouldBlock {
            path: self.options.line.path.clone(),
            holder: self.holder().await,
        }
    }

    /// What the first in line calls itself; empty if that cannot be told.
    async fn holder(&self) -> String {
        let line = &self.options.line;
        let Ok(candidates) = line.read().await else {
            return String::new();
        };
        let Some(first) = in_order(candidates).into_iter().next() else {
            return String::new();
        };
        match line.client.get(&line.child(&first.name)).await {
            Ok((data, _)) => String::from_utf8_lossy(&data).into_owned(),
            Err(error) if error.is(Reason::NoNode) => String::new(),
            Err(_) => String::new(),
        }
    }
}

impl IntoFuture for Acquire {
    type Output = Result<Guard, Error>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}
