//! What a holder holds: a token, a deadline, and the news that it is to stop.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_client::{Client, LeaseInstant, SessionId, Transaction};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::timing::{Phase, Schedule};

/// A number that grows with every grant of a recipe's directory, whoever gets it: the zxid of the
/// write that recorded the grant. A store that remembers the highest it has seen, and refuses lower
/// ones, is safe from holders that do not know yet that they are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub(crate) u64);

impl FencingToken {
    /// The number, for a store.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<FencingToken> for u64 {
    fn from(token: FencingToken) -> Self {
        token.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a holder has to stop, or has lost what it held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// No server has confirmed the session for so long that it may be over soon: the renew deadline
    /// is past.
    #[error("the session was not confirmed by its renew deadline")]
    Unproven,
    /// The session is over, or may be: what was held may be another's.
    #[error("the session is over, or was not confirmed for as long as it lives")]
    SessionOver,
    /// Somebody has deleted the holder's znode.
    #[error("the holder's znode was deleted")]
    NodeDeleted,
    /// The holder may no longer read its own znode: somebody has changed its ACL.
    #[error("the ACL of the holder's znode was changed")]
    NoAccess,
    /// Somebody asks for it.
    #[error("it was revoked: {reason}")]
    Revoked {
        /// In the words of whoever did it; may be empty.
        reason: String,
    },
    /// Leadership goes to another candidate.
    #[error("leadership goes to {to}")]
    Transferred {
        /// The candidate's identity.
        to: String,
    },
    /// The holder gives it up by itself.
    #[error("it is given back")]
    Released,
    /// The process is asked to end.
    #[error("the process shuts down")]
    ShutDown,
}

impl StopReason {
    /// Whether it is lost already: whoever is next may hold it now.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::SessionOver | Self::NodeDeleted)
    }
}

/// What is held, as the work that it guards sees it. Cheap to clone.
///
/// It is held until it is told to stop, and still for a while after that, so that the work can end in
/// order; then what of the work still runs is dropped, before the session can have ended.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    /// The recipe's directory.
    path: String,
    /// The path of the holder's znode.
    node: String,
    identity: String,
    session: SessionId,
    token: FencingToken,
    schedule: Schedule,
    state: Mutex<State>,
    /// Told to stop.
    stopping: CancellationToken,
    /// Held no more.
    over: CancellationToken,
    tracker: TaskTracker,
    handing_over: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// No server ends the session before.
    end: LeaseInstant,
    /// Proofs of the session no longer count: the znode may not be ours any more.
    frozen: bool,
    /// The first reason to stop.
    stop: Option<StopReason>,
    /// Why it is held no more.
    over: Option<StopReason>,
    /// How long the holder wants to stand back after it.
    hold_off: Option<Duration>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("path", &self.inner.path)
            .field("node", &self.inner.node)
            .field("token", &self.inner.token.0)
            .field("state", &*self.inner.state.lock())
            .finish_non_exhaustive()
    }
}

/// What a lease begins with.
pub(crate) struct Granted {
    pub(crate) client: Client,
    pub(crate) path: String,
    pub(crate) node: String,
    pub(crate) identity: String,
    pub(crate) session: SessionId,
    pub(crate) token: FencingToken,
    pub(crate) schedule: Schedule,
    pub(crate) end: LeaseInstant,
}

impl Lease {
    pub(crate) fn new(granted: Granted) -> Self {
        let state = State {
            end: granted.end,
            frozen: false,
            stop: None,
            over: None,
            hold_off: None,
        };
        Self {
            inner: Arc::new(Inner {
                client: granted.client,
                path: granted.path,
                node: granted.node,
                identity: granted.identity,
                session: granted.session,
                token: granted.token,
                schedule: granted.schedule,
                state: Mutex::new(state),
                stopping: CancellationToken::new(),
                over: CancellationToken::new(),
                tracker: TaskTracker::new(),
                handing_over: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Greater than that of every grant before, in this directory and by any holder.
    pub fn token(&self) -> FencingToken {
        self.inner.token
    }

    /// Who holds it, as others see it.
    pub fn identity(&self) -> &str {
        &self.inner.identity
    }

    /// The path of the lock or election.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    /// The path of the holder's znode: as long as it exists, it is held.
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// The client whose session holds it.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Until when the work may run, as things stand: a margin before the session can end. Moves on
    /// as servers answer.
    pub fn deadline(&self) -> LeaseInstant {
        self.end().before(self.inner.schedule.margin)
    }

    /// Whether it is held now, as far as this machine can tell: false as soon as the session might be
    /// over, also right after the process was stopped and goes on. Look at it before whatever must
    /// not be done by two; where that is not enough, because the write may arrive late, use
    /// [`Lease::token`].
    pub fn is_held(&self) -> bool {
        self.look() != Phase::Over
    }

    /// Whether it is held and nobody has asked to stop.
    pub fn is_good(&self) -> bool {
        matches!(self.look(), Phase::Held { .. }) && !self.inner.stopping.is_cancelled()
    }

    /// Waits until the work has to stop, and says why. Cancel safe.
    pub async fn stopping(&self) -> StopReason {
        self.inner.stopping.cancelled().await;
        self.stop_reason().unwrap_or(StopReason::Released)
    }

    /// Why the work has to stop, if it has to.
    pub fn stop_reason(&self) -> Option<StopReason> {
        let state = self.inner.state.lock();
        state.stop.clone().or_else(|| state.over.clone())
    }

    /// Waits until it is held no more, and says why. Cancel safe.
    pub async fn lost(&self) -> StopReason {
        self.inner.over.cancelled().await;
        let state = self.inner.state.lock();
        state.over.clone().unwrap_or(StopReason::Released)
    }

    /// Cancelled when the work has to stop, for code that takes such a token.
    pub fn cancellation_token(&self) -> CancellationToken {
        self.inner.stopping.child_token()
    }

    /// Does something unless, or until, the work has to stop: `None` then. What is under way is
    /// dropped.
    pub async fn until_stopping<F: Future>(&self, work: F) -> Option<F::Output> {
        if !self.is_good() {
            return None;
        }
        tokio::select! {
            biased;
            () = self.inner.stopping.cancelled() => None,
            done = self.while_held(work) => done,
        }
    }

    /// Spawns a part of the work. It belongs to the holder: what is held is given back only when it
    /// has ended, and it is dropped when it is lost. The result is `None` then.
    ///
    /// What `tokio::spawn` spawns knows nothing of this, and goes on after the loss.
    pub fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let lease = self.clone();
        let held = async move { lease.while_held(work).await };
        self.inner.tracker.spawn(held)
    }

    /// Begins a transaction that is applied only while it is held: ZooKeeper itself refuses it
    /// ([`quorate_client::Reason::NoNode`], at the first operation) once it is not, however late the
    /// request arrives.
    pub fn transaction(&self) -> Transaction {
        self.inner.client.transaction().check(&self.inner.node)
    }

    /// Does something for as long as it is held. The lease clock is looked at before each step, so
    /// that nothing is done after the end even if this process had stood still.
    pub(crate) async fn while_held<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        let mut over = pin!(self.inner.over.cancelled());
        std::future::poll_fn(|context| {
            if !self.is_held() || over.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    pub(crate) fn set_hold_off(&self, hold_off: Duration) {
        self.inner.state.lock().hold_off = Some(hold_off);
    }

    pub(crate) fn hold_off(&self) -> Option<Duration> {
        self.inner.state.lock().hold_off
    }

    /// Held by whoever hands it over.
    pub(crate) async fn handing_over(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.handing_over.lock().await
    }

    // What the task that watches over it does.

    pub(crate) fn session(&self) -> SessionId {
        self.inner.session
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.inner.schedule
    }

    pub(crate) fn is_over(&self) -> bool {
        self.inner.over.is_cancelled()
    }

    fn end(&self) -> LeaseInstant {
        let proven = self.inner.client.lease_of(self.inner.session);
        let mut state = self.inner.state.lock();
        if let Some(proven) = proven
            && !state.frozen
        {
            state.end = state.end.max(proven);
        }
        state.end
    }

    /// Looks at the lease clock, and tells whoever waits what it shows.
    pub(crate) fn look(&self) -> Phase {
        if self.is_over() {
            return Phase::Over;
        }
        // The session may have ended and a new one begun: that proves nothing for the old.
        let is_known = self.inner.client.lease_of(self.inner.session).is_some();
        let now = self.inner.client.clock().lease_now();
        match self.inner.schedule.phase(now, self.end()) {
            Phase::Over => {
                self.end_it(StopReason::SessionOver);
                Phase::Over
            }
            _ if !is_known => {
                self.end_it(StopReason::SessionOver);
                Phase::Over
            }
            Phase::Stopping { left } => {
                self.stop(StopReason::Unproven);
                Phase::Stopping { left }
            }
            held @ Phase::Held { .. } => held,
        }
    }

    /// Tells the work to stop. The first reason counts.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.inner.state.lock().stop.get_or_insert(reason);
        self.inner.stopping.cancel();
    }

    /// The end as it is known now is final: who knows whose the znode is.
    pub(crate) fn freeze(&self) {
        self.end();
        self.inner.state.lock().frozen = true;
    }

    /// It is held no more. The first reason counts.
    pub(crate) fn end_it(&self, reason: StopReason) {
        {
            let mut state = self.inner.state.lock();
            state.stop.get_or_insert_with(|| reason.clone());
            state.over.get_or_insert(reason);
        }
        self.inner.stopping.cancel();
        self.inner.over.cancel();
    }

    /// Waits for all that was spawned, and whoever holds a token of [`Lease::at_work`]. More may be
    /// spawned meanwhile, and is waited for as well.
    pub(crate) async fn work_has_ended(&self) {
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }

    /// Waits until the session may be over, with no proof of it having come meanwhile.
    pub(crate) async fn has_run_out(&self) {
        loop {
            let left = self.end().remaining();
            if left.is_zero() {
                return;
            }
            // The timers of the runtime stand still while the machine sleeps.
            tokio::time::sleep(left.min(self.inner.schedule.session_timeout / 24)).await;
        }
    }

    /// Whether some of it still runs.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.inner.tracker.is_empty()
    }

    pub(crate) fn at_work(&self) -> TaskTrackerToken {
        self.inner.tracker.token()
    }
}

/// Transactions that ZooKeeper refuses once the holder is none any more.
pub trait HeldBy {
    /// Adds the condition that `lease` is held: its holder's znode exists. The transaction must be of a
    /// client with the same chroot as the holder's.
    #[must_use = "nothing is sent before `.send()` or `.await`"]
    fn held_by(self, lease: impl AsRef<Lease>) -> Self;
}

impl HeldBy for Transaction {
    fn held_by(self, lease: impl AsRef<Lease>) -> Self {
        self.check(lease.as_ref().node())
    }
}

impl AsRef<Self> for Lease {
    fn as_ref(&self) -> &Self {
        self
    }
}
