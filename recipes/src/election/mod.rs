//! Leader election.

mod health;
mod observe;
mod steward;
mod succession;
mod term;

use std::time::Duration;

use quorate_client::Client;
use tokio_util::sync::CancellationToken;

pub use self::health::{Health, HealthState};
pub use self::observe::{Leader, LeaderEvent, LeaderEvents};
pub use self::term::{Leadership, Term};

use crate::acquire::{Acquire, Patience};
use crate::directory::Kind;
use crate::lease::StopReason;
use crate::naming::{Naming, Role};
use crate::options::{Options, options};
use crate::patience::Patience as Persistence;
use crate::record::Record;
use crate::revocation;
use crate::view::Contender;
use crate::{Error, Guard};

/// How often the directory may be deleted while a preference is written to it.
const PREFER_ATTEMPTS_MAX: u32 = 8;

/// With whose candidates an election is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compat {
    /// Candidates of this crate only. Curator's `LeaderLatch` is waited for as well, and waits for us;
    /// but who observes does not see it lead.
    #[default]
    Native,
    /// Those of Curator's `LeaderLatch` as well.
    Latch,
    /// Those of Curator's `LeaderSelector`.
    Selector,
    /// Those of kazoo's `Election`.
    Kazoo,
}

/// An election: of all candidates at a path one leads, for a term. Cheap to clone.
///
/// ```no_run
/// # use quorate_client::{Client, OnExpiry};
/// # use quorate_recipes::Election;
/// # struct Db;
/// # impl Db {
/// #     async fn open_fenced(_: u64) -> Result<Self, std::io::Error> { Ok(Self) }
/// #     async fn next_job(&mut self) -> u64 { 1 }
/// #     async fn apply(&mut self, _: u64) -> Result<(), std::io::Error> { Ok(()) }
/// # }
/// # async fn example(client: Client, pod_name: String) -> Result<(), Box<dyn std::error::Error>> {
/// let election = Election::new(&client, "/election/billing").identity(pod_name);
/// election
///     .run(|term| async move {
///         let mut db = Db::open_fenced(term.token().get()).await?;
///         while let Some(job) = term.until_stopping(db.next_job()).await {
///             db.apply(job).await?;
///         }
///         Ok::<_, std::io::Error>(())
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// # What it promises
///
/// What [`Mutex`](crate::Mutex) promises, of a term:
/// - The closure starts after the term is on record, with a token greater than that of every term
///   before.
/// - It is told to stop when the session was not confirmed for two thirds of its timeout, when somebody
///   asks, or when leadership goes elsewhere; it is dropped before the session can end.
/// - The next leader comes in when the closure, and what it spawned by [`Term::spawn`], has ended.
/// - [`Election::run`] stands for election again, for ever, until the closure returns without having
///   been told to stop, or it is shut down. Use a client with
///   [`OnExpiry::NewSession`](quorate_client::OnExpiry::NewSession), so that there is a session to do it
///   with.
#[derive(Clone, Debug)]
pub struct Election {
    options: Options,
    role: Role,
    /// Candidates of other libraries, which write no record, may lead.
    is_mixed: bool,
    value: Option<String>,
    hold_off: Duration,
    prefer_after: Duration,
    shutdown: CancellationToken,
    health: Health,
}

options!(Election);

/// Why [`Election::run`] has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E> {
    /// It cannot go on: a server refuses for good (ACL, quota), the path is not an election's, or the
    /// session is over and the client begins no other.
    #[error(transparent)]
    Election(#[from] Error),
    /// The closure has failed while it led.
    #[error("the leader's work has failed: {0}")]
    Work(E),
}

/// How a closure has ended.
enum Ended<T> {
    /// By itself.
    Done(T),
    /// After it was told to stop.
    Stopped(T),
    /// It was dropped.
    Dropped,
}

impl Election {
    /// An election at a path, which need not exist. Nothing is sent.
    pub fn new(client: &Client, path: &str) -> Self {
        Self {
            options: Options::new(client, path, Kind::Election),
            role: Role::Lead,
            is_mixed: false,
            value: None,
            hold_off: Duration::ZERO,
            prefer_after: Duration::from_secs(5),
            shutdown: CancellationToken::new(),
            health: Health::default(),
        }
    }

    /// Whose candidates we stand with.
    #[must_use]
    pub fn compat(mut self, compat: Compat) -> Self {
        self.is_mixed = compat != Compat::Native;
        (self.options.naming, self.role) = match compat {
            Compat::Native | Compat::Latch => (Naming::Curator, Role::Lead),
            Compat::Selector => (Naming::Curator, Role::Exclusive),
            Compat::Kazoo => (Naming::Kazoo, Role::Exclusive),
        };
        self
    }

    /// What is proclaimed with the grant by [`Election::run`]: an address, say.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// How long [`Election::run`] stands back after it gave up leadership because it was asked to:
    /// zero by default, that is behind all who stand now.
    #[must_use]
    pub fn hold_off(mut self, hold_off: Duration) -> Self {
        self.hold_off = hold_off;
        self
    }

    /// How long the preferred candidate must have stood before a leader hands over to it. Five
    /// seconds by default.
    #[must_use]
    pub fn prefer_after(mut self, stable_for: Duration) -> Self {
        self.prefer_after = stable_for;
        self
    }

    /// How long the next leader waits if the last one was lost and did not resign. Zero by default.
    #[must_use]
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.options.lock_delay = delay;
        self
    }

    /// What ends [`Election::run`]: the closure is told to stop, and then it returns.
    #[must_use]
    pub fn shutdown(mut self, shutdown: CancellationToken) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// How this candidate is, for a liveness probe.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Stands for election and waits until it leads, with `value` proclaimed. The result is the
    /// leadership: it lasts until it is given back, dropped or lost.
    ///
    /// Cancel safe: nothing stays behind.
    ///
    /// # Errors
    ///
    /// As [`Acquire`].
    pub async fn campaign(&self, value: impl Into<String>) -> Result<Leadership, Error> {
        self.stand(Some(value.into()), Patience::Endless).await
    }

    /// Leads if nobody else stands.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`]; as [`Acquire`].
    pub async fn try_campaign(&self, value: impl Into<String>) -> Result<Leadership, Error> {
        self.stand(Some(value.into()), Patience::None).await
    }

    /// As [`Election::campaign`], for so long at most.
    ///
    /// # Errors
    ///
    /// [`Error::HeldByAnother`]; as [`Acquire`].
    pub async fn campaign_at_most(
        &self,
        limit: Duration,
        value: impl Into<String>,
    ) -> Result<Leadership, Error> {
        self.stand(Some(value.into()), Patience::AtMost(limit))
            .await
    }

    async fn stand(&self, value: Option<String>, patience: Patience) -> Result<Leadership, Error> {
        let standing = self.health.stands();
        let mut acquire = Acquire::new(&self.options, self.role);
        acquire.patience = patience;
        acquire.value = value;
        let guard: Guard = acquire.await?;
        drop(standing);
        self.health.leads(guard.lease());
        Ok(Leadership::new(self, guard))
    }

    /// Leads whenever it can: `work` is called for each term. Returns what `work` returned when it ended
    /// without having been told to stop; `None` if it was shut down without leading.
    ///
    /// If `work` ends after it was told to stop, its result is dropped, an error noted in the log, and
    /// it stands again.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub async fn run<F, W, T, E>(&self, mut work: F) -> Result<Option<T>, RunError<E>>
    where
        F: FnMut(Term) -> W,
        W: Future<Output = Result<T, E>>,
        E: std::fmt::Display,
    {
        let client = &self.options.line.client;
        let mut patience = Persistence::new(client);
        loop {
            let session = client.session();
            let stood = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(None),
                stood = self.stand(self.value.clone(), Patience::Endless) => stood,
            };
            let leadership = match stood {
                Ok(leadership) => leadership,
                Err(error) => {
                    if !may_pass(&error) {
                        return Err(error.into());
                    }
                    tracing::warn!(path = %self.path(), %error, "the election is tried again");
                    let is_hopeful = tokio::select! {
                        biased;
                        () = self.shutdown.cancelled() => return Ok(None),
                        is_hopeful = patience.outlast_any(client, session, &error) => is_hopeful,
                    };
                    if !is_hopeful {
                        return Err(error.into());
                    }
                    continue;
                }
            };
            patience.reset();
            let lease = leadership.term().lease().clone();
            let ended = self.lead(leadership, &mut work).await;
            let reason = lease.stop_reason();
            match ended {
                Ended::Done(done) => return done.map(Some).map_err(RunError::Work),
                Ended::Stopped(done) if self.shutdown.is_cancelled() => {
                    return done.map(Some).map_err(RunError::Work);
                }
                Ended::Stopped(Err(error)) => {
                    tracing::warn!(path = %self.path(), %error, "the work has failed on its way out");
                }
                Ended::Stopped(Ok(_)) => {}
                Ended::Dropped => {
                    tracing::warn!(path = %self.path(), "the work was dropped: it did not stop in time");
                }
            }
            if matches!(
                reason,
                Some(
                    StopReason::Revoked { .. }
                        | StopReason::Transferred { .. }
                        | StopReason::Released
                )
            ) {
                let hold_off = lease.hold_off().unwrap_or(self.hold_off);
                self.pause(hold_off).await;
            }
        }
    }

    /// As [`Election::run`], for one term only, however it ends.
    ///
    /// # Errors
    ///
    /// [`RunError`]; [`Error::Lost`] in it if the work was dropped.
    pub async fn run_once<F, W, T, E>(&self, work: F) -> Result<Option<T>, RunError<E>>
    where
        F: FnOnce(Term) -> W,
        W: Future<Output = Result<T, E>>,
    {
        let leadership = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(None),
            stood = self.stand(self.value.clone(), Patience::Endless) => stood?,
        };
        let lease = leadership.term().lease().clone();
        match self.lead(leadership, work).await {
            Ended::Done(done) | Ended::Stopped(done) => done.map(Some).map_err(RunError::Work),
            Ended::Dropped => Err(RunError::Election(Error::Lost {
                path: self.path().to_owned(),
                reason: lease.lost().await,
            })),
        }
    }

    /// Does the work of one term, and gives the term back when it has ended.
    async fn lead<F, W, T>(&self, leadership: Leadership, work: F) -> Ended<T>
    where
        F: FnOnce(Term) -> W,
        W: Future<Output = T>,
    {
        let term = leadership.term().clone();
        let lease = term.lease().clone();
        let stop = async {
            self.shutdown.cancelled().await;
            lease.stop(StopReason::ShutDown);
            std::future::pending::<()>().await;
        };
        let done = tokio::select! {
            // Not even begun if it is lost already.
            done = lease.while_held(async { work(term).await }) => done,
            () = stop => None,
        };
        // The task that watches over it may not have noticed yet what the clock shows.
        lease.look();
        let was_told = lease.stop_reason();
        let reason = was_told.clone().unwrap_or(StopReason::Released);
        if let Err(error) = leadership.give_back(reason).await
            && done.is_some()
        {
            tracing::info!(path = %self.path(), %error, "the term was lost before it was given back");
        }
        match (done, was_told) {
            (Some(done), None) => Ended::Done(done),
            (Some(done), Some(_)) => Ended::Stopped(done),
            (None, _) => Ended::Dropped,
        }
    }

    async fn pause(&self, span: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(span) => {}
        }
    }

    fn path(&self) -> &str {
        &self.options.line.path
    }

    /// Reads who leads; `None` if nobody does, also while the next candidate only waits to. Leaders of
    /// other libraries are seen as far as [`Election::compat`] says.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of any read.
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        observe::leader(&self.options.line, self.is_mixed).await
    }

    /// Follows who leads.
    pub fn observe(&self) -> LeaderEvents {
        LeaderEvents::new(&self.options.line, self.is_mixed)
    }

    /// Reads who stands for election, the leader first.
    ///
    /// # Errors
    ///
    /// As [`Election::leader`].
    pub async fn candidates(&self) -> Result<Vec<Contender>, Error> {
        self.options.line.view().await
    }

    /// Asks the leader to step down, whichever library it uses. `false` if nobody leads.
    ///
    /// # Errors
    ///
    /// As [`Election::leader`], and those of any write.
    pub async fn request_step_down(&self, reason: &str) -> Result<bool, Error> {
        match self.options.line.holder().await? {
            Some(leader) => {
                self.options
                    .line
                    .tell(&leader.node, revocation::revoke(&leader.node, reason))
                    .await
            }
            None => Ok(false),
        }
    }

    /// Asks the leader to hand over to a candidate. `false` if nobody leads. Whether it does is for
    /// those to see who [`observe`](Election::observe).
    ///
    /// # Errors
    ///
    /// As [`Election::leader`], and those of any write.
    pub async fn request_transfer(&self, to: &str) -> Result<bool, Error> {
        match self.options.line.holder().await? {
            Some(leader) => {
                let line = &self.options.line;
                line.tell(&leader.node, revocation::transfer(to)).await
            }
            None => Ok(false),
        }
    }

    /// Says who is to lead whenever it can, or that nobody is preferred: a leader hands over to that
    /// candidate when it has stood for a while ([`Election::prefer_after`]).
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`], [`Error::Contended`]; those of any write.
    pub async fn prefer(&self, candidate: Option<&str>) -> Result<(), Error> {
        let line = &self.options.line;
        let wanted = candidate.map(str::to_owned);
        let is_done = |record: &Record| record.preferred_holder == wanted;
        let change = |record: &mut Record| record.preferred_holder.clone_from(&wanted);
        for _ in 0..PREFER_ATTEMPTS_MAX {
            line.claim().await?;
            // The directory itself has to exist, that is all.
            match line.write_record(&line.path, is_done, change).await {
                Ok(_) => return Ok(()),
                // Somebody has taken it away.
                Err(Error::Displaced { .. }) => line.disclaim(),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended {
            path: line.path.clone(),
            attempts: PREFER_ATTEMPTS_MAX,
        })
    }
}

/// Whether the same may succeed a moment later.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Client(error) => error.is_retryable(),
        Error::Displaced { .. } | Error::Contended { .. } => true,
        Error::Lost { .. } => true,
        _ => false,
    }
}
