//! A grant that somebody holds, and the task that watches over it.
//!
//! The task looks at the lease clock, the session and the holder's znode, tells the work what they
//! show, and in the end gives back what was held: after the work and all that it has spawned have
//! ended, and not before.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_client::operation::{Get, Watched};
use quorate_client::watch::Watcher;
use quorate_client::{EventType, Reason, SessionState, Transaction};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::contenders::{Contenders, Place};
use crate::grant::Seen;
use crate::lease::{FencingToken, Granted, Lease, StopReason};
use crate::metrics::Metrics;
use crate::options::{Options, Overrun};
use crate::timing::Phase;
use crate::{Error, revocation};

/// Something that is held: a lock, a permit. Dropping it gives it back, in the background;
/// [`Guard::release`] does the same and waits for it.
#[must_use = "it is given back at once otherwise"]
pub struct Guard {
    lease: Lease,
    orders: mpsc::UnboundedSender<Order>,
    /// The znode stays for as long as this does: whoever holds the guard may still be at work.
    at_work: Option<TaskTrackerToken>,
}

/// What was granted.
pub(crate) struct Grant {
    token: FencingToken,
    record: Option<Seen>,
}

impl Grant {
    /// Not on the directory's record.
    pub(crate) fn of(token: FencingToken) -> Self {
        Self {
            token,
            record: None,
        }
    }

    pub(crate) fn recorded(seen: Seen) -> Self {
        Self {
            token: seen.token(),
            record: Some(seen),
        }
    }
}

/// What a holder asks of the task. At most two are ever sent.
enum Order {
    /// Give it back, and say when that is done.
    Release {
        reason: StopReason,
        done: Option<oneshot::Sender<Result<(), Error>>>,
    },
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.lease).finish()
    }
}

impl AsRef<Lease> for Guard {
    fn as_ref(&self) -> &Lease {
        &self.lease
    }
}

impl Guard {
    /// Begins to watch over what was granted.
    pub(crate) fn new(
        options: &Options,
        place: Place,
        grant: Grant,
        schedule: crate::timing::Schedule,
        waited: Duration,
    ) -> Result<Self, Error> {
        let client = options.client();
        // Read before the session: of a session that is over there is none.
        let Some(end) = client.lease_of(place.session) else {
            return Err(Error::Lost {
                path: options.line.path.clone(),
                reason: StopReason::SessionOver,
            });
        };
        let lease = Lease::new(Granted {
            client: client.clone(),
            path: options.line.path.clone(),
            node: place.path().to_owned(),
            identity: place.identity.clone(),
            session: place.session,
            token: grant.token,
            schedule,
            end,
        });
        if let Some(metrics) = &options.metrics {
            metrics.on_granted(&options.line.path, waited);
        }
        // Not by the task, which may not be polled before work that blocks.
        let watchdog = Watchdog::start(&lease, options.overrun)?;
        let (orders, asked) = mpsc::unbounded_channel();
        let watch = Watch {
            lease: lease.clone(),
            line: options.line.clone(),
            options: options.clone(),
            since: Instant::now(),
            record: grant.record,
            is_told: AtomicBool::new(false),
        };
        // From here on it is the task that gives the place up.
        place.keep();
        tokio::spawn(watch.run(asked, watchdog));
        let at_work = Some(lease.at_work());
        Ok(Self {
            lease,
            orders,
            at_work,
        })
    }

    /// Its view for the work that it guards.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Greater than that of every grant before. See [`Lease::token`].
    pub fn token(&self) -> FencingToken {
        self.lease.token()
    }

    /// See [`Lease::is_held`].
    pub fn is_held(&self) -> bool {
        self.lease.is_held()
    }

    /// Waits until the work has to stop, and says why. Cancel safe.
    pub async fn stopping(&self) -> StopReason {
        self.lease.stopping().await
    }

    /// Waits until it is held no more, and says why. Cancel safe.
    pub async fn lost(&self) -> StopReason {
        self.lease.lost().await
    }

    /// Begins a transaction that is applied only while this is held. See [`Lease::transaction`].
    pub fn transaction(&self) -> Transaction {
        self.lease.transaction()
    }

    /// Gives it back, and waits until others can have it: what was spawned has ended, the znode is
    /// gone. Cancel safe: it goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: it had been lost before, perhaps without anybody having noticed: whoever was
    /// next may have held it as well. Or no server could be reached until the session may be over: it
    /// goes on in the background, and others can have it at the latest when the session has ended.
    /// Those of a server that refuses to delete the znode: it then goes with the session.
    pub async fn release(self) -> Result<(), Error> {
        self.give_back(StopReason::Released).await
    }

    pub(crate) async fn give_back(mut self, reason: StopReason) -> Result<(), Error> {
        let (done, is_done) = oneshot::channel();
        let done = Some(done);
        self.orders.send(Order::Release { reason, done }).ok();
        // After the order: the task looks for one when nobody is at work any more.
        self.at_work = None;
        let ended = is_done.await;
        // The task is gone only if the runtime is.
        ended.unwrap_or(Ok(()))
    }

    /// Runs `work` while this is held, then gives it back. The work is told to stop by the lease, and
    /// dropped where it does not.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the work was dropped.
    pub async fn run<F, W, T>(self, work: F) -> Result<T, Error>
    where
        F: FnOnce(Lease) -> W,
        W: Future<Output = T>,
    {
        let lease = self.lease.clone();
        // Not even begun if it is lost already.
        let done = lease.while_held(async { work(lease.clone()).await });
        let done = done.await;
        match done {
            Some(done) => {
                // The work is done, whatever becomes of the znode.
                if let Err(error) = self.give_back(StopReason::Released).await {
                    tracing::warn!(path = lease.path(), %error, "not given back in order");
                }
                Ok(done)
            }
            None => {
                let reason = lease.lost().await;
                drop(self);
                lease.work_has_ended().await;
                Err(Error::Lost {
                    path: lease.path().to_owned(),
                    reason,
                })
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Not heard if it was given back already.
        let reason = StopReason::Released;
        let order = Order::Release { reason, done: None };
        self.orders.send(order).ok();
    }
}

/// See the module.
struct Watch {
    lease: Lease,
    line: Contenders,
    options: Options,
    since: Instant,
    /// As the grant left it.
    record: Option<Seen>,
    /// The work was told to stop, and so were the metrics.
    is_told: AtomicBool,
}

/// What a look at the holder's znode shows.
enum Look {
    /// It is ours.
    Ours {
        /// Tells of the next change.
        watch: Option<Watcher>,
        /// Somebody asks for it.
        stop: Option<StopReason>,
    },
    /// We may not read it any more.
    NoAccess,
    End(StopReason),
    /// Nothing: there is no connection.
    Nothing,
}

impl Watch {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>, watchdog: Option<Watchdog>) {
        let mut watch = pin!(self.watch());
        let order = tokio::select! {
            biased;
            order = orders.recv() => order,
            () = &mut watch => None,
        };
        let lease = &self.lease;
        let (reason, mut done) = match order {
            Some(Order::Release { reason, done }) => (reason, done),
            // It is lost; whoever holds the guard may not know yet.
            None => (lease.stop_reason().unwrap_or(StopReason::SessionOver), None),
        };
        lease.stop(reason.clone());
        self.tell_stopping(&lease.stop_reason().unwrap_or(reason.clone()));
        // What is still at work is told to stop, and gets its time: the session is still watched.
        if lease.is_held() && lease.is_at_work() {
            tokio::select! {
                biased;
                () = lease.work_has_ended() => {}
                () = &mut watch => {}
            }
        }
        lease.end_it(reason.clone());
        lease.work_has_ended().await;
        drop(watchdog);
        if let Ok(Order::Release { done: asked, .. }) = orders.try_recv() {
            done = done.or(asked);
        }
        let ended = lease.lost().await;
        self.count(|metrics| metrics.on_ended(lease.path(), &ended, self.since.elapsed()));
        if ended.is_loss() {
            if let Some(done) = done {
                done.send(Err(self.lost(ended.clone()))).ok();
            }
            // The session may live on after all; then nobody should have to wait for its end.
            if ended == StopReason::SessionOver {
                self.release(&ended).await.ok();
            }
            return;
        }
        let mut release = pin!(self.release(&reason));
        let released = tokio::select! {
            biased;
            released = &mut release => released,
            // Nobody who waits for it has to wait for as long as no server can be reached.
            () = lease.has_run_out(), if done.is_some() => {
                if let Some(done) = done.take() {
                    done.send(Err(self.lost(StopReason::SessionOver))).ok();
                }
                release.await
            }
        };
        if let Err(error) = &released {
            tracing::warn!(path = lease.path(), %error, "not given back in order");
        }
        if let Some(done) = done {
            done.send(released).ok();
        }
    }

    /// Where the record names the holder, it says then that it was given back.
    async fn release(&self, reason: &StopReason) -> Result<(), Error> {
        match self.record.clone() {
            Some(record) => self.line.release(self.lease.node(), record, reason).await,
            None => {
                let (node, session) = (self.lease.node(), self.lease.session());
                self.line.release_shared(node, session).await
            }
        }
    }

    fn lost(&self, reason: StopReason) -> Error {
        Error::Lost {
            path: self.lease.path().to_owned(),
            reason,
        }
    }

    /// Once.
    fn tell_stopping(&self, reason: &StopReason) {
        // Who gives something back by itself knows.
        if self.is_told.swap(true, Ordering::Relaxed) || *reason == StopReason::Released {
            return;
        }
        tracing::info!(path = self.lease.path(), %reason, "told to stop");
        self.count(|metrics| metrics.on_stopping(self.lease.path(), reason));
    }

    /// A fault in what counts must not end this task, without which the znode would stay.
    fn count(&self, tell: impl FnOnce(&dyn Metrics)) {
        if let Some(metrics) = &self.options.metrics {
            let told = catch_unwind(AssertUnwindSafe(|| tell(metrics.as_ref())));
            if told.is_err() {
                tracing::error!(path = self.lease.path(), "the metrics have panicked");
            }
        }
    }

    /// Returns when it is held no more.
    async fn watch(&self) {
        let lease = &self.lease;
        let schedule = *lease.schedule();
        let mut states = lease.client().states();
        let mut watcher: Option<Watcher> = None;
        let mut next_look = Instant::now();
        // Never waited for alone: a server that says nothing must not keep the news from the work.
        let mut look: Option<Pin<Box<dyn Future<Output = Look> + Send + '_>>> = None;
        loop {
            if lease.is_over() {
                return;
            }
            let phase = lease.look();
            if let Some(reason) = lease.stop_reason() {
                self.tell_stopping(&reason);
            }
            let left = match phase {
                Phase::Held { left } | Phase::Stopping { left } => left,
                Phase::Over => return,
            };
            if look.is_none() && next_look <= Instant::now() {
                next_look = Instant::now() + schedule.retry_period;
                look = Some(Box::pin(self.look(watcher.is_none())));
            }
            // The timers of the runtime stand still while the machine sleeps, the lease clock does
            // not; so never for long.
            let nap = left.min(schedule.session_timeout / 24);
            let event = async {
                match watcher.as_mut() {
                    Some(watcher) => watcher.await,
                    None => std::future::pending().await,
                }
            };
            let looked = async {
                match look.as_mut() {
                    Some(look) => look.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(nap) => {}
                state = states.next() => match state {
                    Some(SessionState::Expired | SessionState::Closed | SessionState::AuthFailed) | None => {
                        lease.end_it(StopReason::SessionOver);
                        return;
                    }
                    Some(SessionState::Reconnected { .. }) => next_look = Instant::now(),
                    Some(_) => {}
                },
                event = event => {
                    watcher = None;
                    match event {
                        Ok(event) if event.kind == EventType::NodeDeleted => {
                            lease.end_it(StopReason::NodeDeleted);
                            return;
                        }
                        _ => next_look = Instant::now(),
                    }
                }
                seen = looked => {
                    look = None;
                    match seen {
                        Look::Ours { watch, stop } => {
                            watcher = watch.or(watcher);
                            if let Some(reason) = stop {
                                lease.stop(reason);
                            }
                        }
                        Look::NoAccess => {
                            lease.freeze();
                            lease.stop(StopReason::NoAccess);
                        }
                        Look::End(reason) => {
                            lease.end_it(reason);
                            return;
                        }
                        Look::Nothing => {}
                    }
                }
            }
        }
    }

    /// Reads the holder's znode: whether it is there and ours, and whether somebody asks for what we
    /// hold.
    async fn look(&self, watch: bool) -> Look {
        let lease = &self.lease;
        let get = lease.client().get(lease.node()).fail_fast();
        let (read, watcher) = match watch {
            false => (get.await, None),
            true => match watched(get).await {
                Ok((read, watcher)) => (Ok(read), Some(watcher)),
                Err(error) => (Err(error), None),
            },
        };
        match read {
            Ok((_, stat)) if stat.ephemeral_owner != lease.session().get() => {
                Look::End(StopReason::NodeDeleted)
            }
            Ok((data, _)) => Look::Ours {
                watch: watcher,
                stop: revocation::revoked(&data),
            },
            Err(error) if error.is(Reason::NoNode) => Look::End(StopReason::NodeDeleted),
            Err(error) if error.is(Reason::NoAuth) => Look::NoAccess,
            Err(_) => Look::Nothing,
        }
    }
}

type Read = (bytes::Bytes, quorate_client::Stat);

async fn watched(get: Get) -> Result<(Read, Watcher), quorate_client::Error> {
    let watched: Watched<Get> = get.watch();
    watched.await
}

/// Aborts the process if the work still runs when the session may end. A thread of its own, as work
/// that does not await holds up the runtime.
struct Watchdog {
    ended: CancellationToken,
    told: std::sync::mpsc::Sender<()>,
}

impl Watchdog {
    fn start(lease: &Lease, overrun: Overrun) -> Result<Option<Self>, Error> {
        if overrun == Overrun::Tolerate {
            return Ok(None);
        }
        let clock = lease.client().clock();
        if !clock.is_system() {
            return Err(Error::NoWatchdog {
                path: lease.path().to_owned(),
                why: "no thread can read the client's clock, which is not the machine's".to_owned(),
            });
        }
        let (told, asked) = std::sync::mpsc::channel();
        let ended = CancellationToken::new();
        let (path, lease) = (lease.path(), lease.clone());
        let is_ended = ended.clone();
        let watch = move || {
            let mut over_since = None;
            loop {
                // Half of the margin is left to those who end in order.
                let half = lease.schedule().margin / 2;
                let mut left = lease.deadline().after(half).remaining();
                // The session may live on when the znode is gone.
                if lease.is_over() {
                    let since = *over_since.get_or_insert_with(|| clock.lease_now());
                    left = left.min(since.after(half).remaining());
                }
                if left.is_zero() && !is_ended.is_cancelled() {
                    tracing::error!(
                        path = lease.path(),
                        "the work goes on after the lease: abort"
                    );
                    std::process::abort();
                }
                let nap = left.min(lease.schedule().session_timeout / 24);
                match asked.recv_timeout(nap) {
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    _ => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("lease-watchdog".to_owned());
        match thread.spawn(watch) {
            Ok(_) => Ok(Some(Self { ended, told })),
            Err(error) => Err(Error::NoWatchdog {
                path: path.to_owned(),
                why: error.to_string(),
            }),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.ended.cancel();
        self.told.send(()).ok();
    }
}
