//! Several locks at once, all of them or none.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quorate_client::{LeaseInstant, Transaction};

use crate::acquire::{Acquire, Patience};
use crate::{Error, FencingToken, Guard, HeldBy, Lease, Mutex, OnSessionLoss, StopReason};

/// Several locks, which are held all together or not at all. They are acquired one after the other, in
/// the order of their paths, so that two who want some of the same never wait for each other. Cheap
/// to clone.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, MultiLock, Mutex};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let accounts = ["/accounts/17", "/accounts/4"].map(|path| Mutex::new(&client, path));
/// MultiLock::new(accounts).run(|leases| transfer(leases)).await?;
/// # Ok(())
/// # }
/// # async fn transfer(_: quorate_recipes::MultiLease) {}
/// ```
///
/// What it promises of the work is what [`Mutex`] promises, of each of the locks: the work is told to
/// stop when any of them asks for that, and dropped when any of them is lost.
///
/// It does not promise fairness among those who want different locks: who waits for one of them holds
/// those before it meanwhile. If one of these is lost or revoked by then, all are given back, and where
/// the locks' policy is [`OnSessionLoss::Requeue`] it begins anew.
#[derive(Clone, Debug)]
pub struct MultiLock {
    locks: Vec<Mutex>,
}

impl MultiLock {
    /// Of these locks, each with its own options. All need the same chroot. Nothing is sent.
    pub fn new(locks: impl IntoIterator<Item = Mutex>) -> Self {
        Self {
            locks: locks.into_iter().collect(),
        }
    }

    /// Asks for all of them. Resolves to a [`MultiGuard`].
    pub fn acquire(&self) -> AcquireAll {
        AcquireAll {
            locks: self.locks.clone(),
            patience: Patience::Endless,
        }
    }

    /// Runs `work` while all are held: see [`MultiGuard::run`].
    ///
    /// # Errors
    ///
    /// As [`AcquireAll`]; [`Error::Lost`] if the work was dropped.
    pub async fn run<F, W, T>(&self, work: F) -> Result<T, Error>
    where
        F: FnOnce(MultiLease) -> W,
        W: Future<Output = T>,
    {
        self.acquire().run(work).await
    }
}

/// Several locks that are asked for, and how long to wait for them. Awaiting it resolves to a
/// [`MultiGuard`].
///
/// Cancel safe: if the future is dropped at any point, nothing stays behind.
///
/// # Errors
///
/// As [`Acquire`]; [`Error::Lost`] if one of them was lost while the others were waited for, and the
/// policy is [`OnSessionLoss::Fail`]; [`Error::InvalidArgument`] if there is none, or one twice.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked for before `.await`"]
pub struct AcquireAll {
    locks: Vec<Mutex>,
    patience: Patience,
}

impl AcquireAll {
    /// Does not wait for others: if any of the locks is held or waited for, that is an error at once.
    pub fn try_now(mut self) -> Self {
        self.patience = Patience::None;
        self
    }

    /// Waits for so long at most, for all of them together.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.patience = Patience::AtMost(limit);
        self
    }

    /// Runs `work` while all are held: see [`MultiGuard::run`].
    ///
    /// # Errors
    ///
    /// Those of acquiring them, and [`Error::Lost`] if the work was dropped.
    pub async fn run<F, W, T>(self, work: F) -> Result<T, Error>
    where
        F: FnOnce(MultiLease) -> W,
        W: Future<Output = T>,
    {
        self.await?.run(work).await
    }

    async fn acquire(self) -> Result<MultiGuard, Error> {
        let asked = in_order(self.locks)?;
        let until = match self.patience {
            Patience::AtMost(limit) => {
                // Of several clients, on the clock of the first.
                let client = &asked[0].options.line.client;
                Some((client.clock().lease_now().after(limit), limit))
            }
            Patience::Endless | Patience::None => None,
        };
        loop {
            match all_of(&asked, self.patience, until).await? {
                Ok(guard) => return Ok(guard),
                Err((lost, reason)) => {
                    tracing::info!(path = lost.path(), %reason, "lost while others were waited for; again");
                }
            }
        }
    }
}

impl IntoFuture for AcquireAll {
    type Output = Result<MultiGuard, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}

/// The order that all who use these locks keep to.
fn in_order(mut locks: Vec<Mutex>) -> Result<Vec<Acquire>, Error> {
    locks.sort_by(|one, other| one.path().cmp(other.path()));
    let invalid = |what: &str| Err(Error::InvalidArgument(what.to_owned()));
    let Some(first) = locks.first() else {
        return invalid("a lock over several paths needs at least one");
    };
    for pair in locks.windows(2) {
        if pair[0].path() == pair[1].path() {
            let twice = pair[0].path();
            return invalid(&format!(
                "{twice} is asked for twice, and would wait for itself"
            ));
        }
        if pair[1].client().chroot() != first.client().chroot() {
            return invalid("locks below different chroots cannot be put in order");
        }
    }
    Ok(locks.iter().map(Mutex::acquire).collect())
}

/// One that was lost before all were held, and why.
type LostBefore = (Lease, StopReason);

async fn all_of(
    asked: &[Acquire],
    patience: Patience,
    until: Option<(LeaseInstant, Duration)>,
) -> Result<Result<MultiGuard, LostBefore>, Error> {
    let mut held: Vec<Guard> = Vec::with_capacity(asked.len());
    for acquire in asked {
        let mut acquire = acquire.clone();
        acquire.patience = match until {
            Some((until, _)) => Patience::AtMost(until.remaining()),
            None => patience,
        };
        let leases: Vec<&Lease> = held.iter().map(Guard::lease).collect();
        let policy = acquire.options.on_session_loss;
        let acquired = tokio::select! {
            biased;
            (at, reason) = first_of(leases.iter().map(|lease| lease.stopping())) => Err((at, reason)),
            acquired = acquire => Ok(acquired),
        };
        match acquired {
            Ok(Ok(guard)) => held.push(guard),
            Ok(Err(Error::HeldByAnother { path, holder, .. })) => {
                let waited = until.map_or(Duration::ZERO, |(_, limit)| limit);
                give_back(held).await.ok();
                return Err(Error::HeldByAnother {
                    path,
                    holder,
                    waited,
                });
            }
            Ok(Err(error)) => return Err(error),
            Err((at, reason)) => {
                let lost = leases[at].clone();
                give_back(held).await.ok();
                if policy == OnSessionLoss::Fail {
                    let path = lost.path().to_owned();
                    return Err(Error::Lost { path, reason });
                }
                return Ok(Err((lost, reason)));
            }
        }
    }
    let leases = held.iter().map(|guard| guard.lease().clone()).collect();
    Ok(Ok(MultiGuard {
        lease: MultiLease { leases },
        guards: held,
    }))
}

/// In the order in which they would be waited for, the last first. The first error counts.
async fn give_back(guards: Vec<Guard>) -> Result<(), Error> {
    let releases: Vec<_> = guards
        .into_iter()
        .rev()
        // All at once: each waits for its own work only.
        .map(|guard| tokio::spawn(guard.release()))
        .collect();
    let mut result = Ok(());
    for release in releases {
        let released = release.await.unwrap_or(Ok(()));
        result = result.and(released);
    }
    result
}

/// Waits for the first of several futures; for ever if there is none.
async fn first_of<F: Future>(futures: impl IntoIterator<Item = F>) -> (usize, F::Output) {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context: &mut Context<'_>| {
        for (at, future) in futures.iter_mut().enumerate() {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready((at, output));
            }
        }
        Poll::Pending
    })
    .await
}

/// Several locks that are held together. Dropping it gives them back, in the background;
/// [`MultiGuard::release`] does the same and waits for it.
#[derive(Debug)]
#[must_use = "they are given back at once otherwise"]
pub struct MultiGuard {
    lease: MultiLease,
    guards: Vec<Guard>,
}

impl MultiGuard {
    /// Its view for the work that it guards.
    pub fn lease(&self) -> &MultiLease {
        &self.lease
    }

    /// See [`MultiLease::is_held`].
    pub fn is_held(&self) -> bool {
        self.lease.is_held()
    }

    /// See [`MultiLease::tokens`].
    pub fn tokens(&self) -> impl Iterator<Item = (&str, FencingToken)> {
        self.lease.tokens()
    }

    /// See [`MultiLease::stopping`].
    pub async fn stopping(&self) -> StopReason {
        self.lease.stopping().await
    }

    /// See [`MultiLease::lost`].
    pub async fn lost(&self) -> StopReason {
        self.lease.lost().await
    }

    /// See [`MultiLease::transaction`].
    pub fn transaction(&self) -> Transaction {
        self.lease.transaction()
    }

    /// Gives them back, and waits until others can have them. Cancel safe: it goes on.
    ///
    /// # Errors
    ///
    /// As [`Guard::release`], of the first that has one; the others are given back all the same.
    pub async fn release(self) -> Result<(), Error> {
        give_back(self.guards).await
    }

    /// Runs `work` while all are held, then gives them back. The work is told to stop by the lease, and
    /// dropped where it does not.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the work was dropped.
    pub async fn run<F, W, T>(self, work: F) -> Result<T, Error>
    where
        F: FnOnce(MultiLease) -> W,
        W: Future<Output = T>,
    {
        let lease = self.lease.clone();
        // Not even begun if one is lost already.
        let done = lease.while_held(async { work(lease.clone()).await });
        if let Some(done) = done.await {
            // The work is done, whatever becomes of the znodes.
            if let Err(error) = self.release().await {
                tracing::warn!(%error, "not given back in order");
            }
            return Ok(done);
        }
        let (at, reason) = lease.first_lost().await;
        let path = lease.leases[at].path().to_owned();
        // The others are told, and what was spawned has ended.
        self.release().await.ok();
        Err(Error::Lost { path, reason })
    }
}

/// What is held by a [`MultiGuard`], as the work that it guards sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MultiLease {
    /// In the order of their paths; at least one.
    leases: Arc<[Lease]>,
}

impl MultiLease {
    /// The single ones, in the order of their paths.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// The path and the token of each.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, FencingToken)> {
        self.leases
            .iter()
            .map(|lease| (lease.path(), lease.token()))
    }

    /// The token of the lock at a path.
    pub fn token(&self, path: &str) -> Option<FencingToken> {
        let mut tokens = self.tokens();
        tokens.find_map(|(of, token)| (of == path).then_some(token))
    }

    /// Whether all are held now: see [`Lease::is_held`].
    pub fn is_held(&self) -> bool {
        self.leases.iter().all(Lease::is_held)
    }

    /// Until when the work may run, as things stand: the earliest of [`Lease::deadline`].
    pub fn deadline(&self) -> LeaseInstant {
        let deadlines = self.leases[1..].iter().map(Lease::deadline);
        deadlines.fold(self.leases[0].deadline(), LeaseInstant::min)
    }

    /// Waits until the work has to stop because any of them asks for that, and says why. Cancel safe.
    pub async fn stopping(&self) -> StopReason {
        first_of(self.leases.iter().map(Lease::stopping)).await.1
    }

    /// Waits until any of them is held no more, and says why. Cancel safe.
    pub async fn lost(&self) -> StopReason {
        self.first_lost().await.1
    }

    async fn first_lost(&self) -> (usize, StopReason) {
        first_of(self.leases.iter().map(Lease::lost)).await
    }

    /// Spawns a part of the work: see [`Lease::spawn`]. It is dropped when any of them is lost, and
    /// none is given back before it has ended.
    pub fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let at_work: Vec<_> = self.leases.iter().map(Lease::at_work).collect();
        let lease = self.clone();
        tokio::spawn(async move {
            let done = lease.while_held(work).await;
            // Not before the work, which is gone by now.
            drop(at_work);
            done
        })
    }

    /// Begins a transaction that is applied only while all are held: see [`Lease::transaction`].
    pub fn transaction(&self) -> Transaction {
        let transaction = self.leases[0].client().transaction();
        let mut leases = self.leases.iter();
        leases.by_ref().fold(transaction, HeldBy::held_by)
    }

    /// As [`Lease::while_held`], of all of them.
    async fn while_held<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        let mut lost = pin!(self.first_lost());
        std::future::poll_fn(|context| {
            if !self.is_held() || lost.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }
}
