//! The seam for everything that runs beside something else.
//!
//! In production a task is tokio's, and work that blocks goes to its threads. A simulation gives each
//! server a [`Host`]: all that the server spawns, the Raft engine's own tasks included, then belongs to
//! that host, which can be frozen (nothing of it runs, as after SIGSTOP) and killed (everything of it is
//! dropped where it stands, as after SIGKILL), and nothing leaves the one thread of the simulation.
//!
//! Membership is inherited: what a task of a host spawns through this module is of the same host.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinHandle;

tokio::task_local! {
    static HOST: Host;
}

/// The tasks of one simulated server. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
}

struct Inner {
    /// What draws the engine's election timeouts on this host.
    seeds: SmallRng,
    state: State,
    /// Tasks that were to run while the host was frozen.
    parked: Vec<Waker>,
    /// All tasks, for the one who kills them; those that have ended are swept out now and then.
    tasks: Vec<Arc<dyn Kill>>,
    /// How many tasks there may be before the next sweep.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Frozen,
    Dead,
}

/// Sweeping costs one look at each task, so it waits until there are this many.
const SWEEP_MIN: usize = 64;

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Host")
            .field("state", &self.shared.inner.lock().state)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// A host that runs. `seed` decides what its engine draws.
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                inner: Mutex::new(Inner {
                    seeds: SmallRng::seed_from_u64(seed),
                    state: State::Running,
                    parked: Vec::new(),
                    tasks: Vec::new(),
                    sweep_at: SWEEP_MIN,
                }),
            }),
        }
    }

    /// Runs `future` as a task of this host.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(self.adopt(future))
    }

    /// Nothing of this host runs until [`Host::thaw`]. Its timers go on, and have all fired by then.
    pub fn freeze(&self) {
        let mut inner = self.shared.inner.lock();
        if inner.state == State::Running {
            inner.state = State::Frozen;
        }
    }

    /// Lets a frozen host run again.
    pub fn thaw(&self) {
        let parked = {
            let mut inner = self.shared.inner.lock();
            if inner.state == State::Frozen {
                inner.state = State::Running;
            }
            std::mem::take(&mut inner.parked)
        };
        for waker in parked {
            waker.wake();
        }
    }

    /// Drops everything that runs on this host, where it stands. Must not be called from one of its
    /// own tasks. Whoever waits for one of them waits for ever.
    pub fn kill(&self) {
        let tasks = {
            let mut inner = self.shared.inner.lock();
            inner.state = State::Dead;
            inner.parked.clear();
            std::mem::take(&mut inner.tasks)
        };
        for task in tasks {
            HOST.sync_scope(self.clone(), || task.kill());
        }
    }

    fn adopt<F>(&self, future: F) -> Hosted<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let slot = Arc::new(Slot(Mutex::new(Some(Box::pin(future)))));
        let mut inner = self.shared.inner.lock();
        if inner.state != State::Dead {
            if inner.tasks.len() >= inner.sweep_at {
                inner.tasks.retain(|task| !task.has_ended());
                inner.sweep_at = SWEEP_MIN.max(inner.tasks.len() * 2);
            }
            inner.tasks.push(Arc::<Slot<F>>::clone(&slot));
        }
        Hosted {
            host: self.clone(),
            slot,
        }
    }
}

/// Where a host keeps a task's future, so that it can be dropped from outside.
struct Slot<F>(Mutex<Option<Pin<Box<F>>>>);

trait Kill: Send + Sync {
    fn kill(&self);
    fn has_ended(&self) -> bool;
}

impl<F: Send> Kill for Slot<F> {
    fn kill(&self) {
        // Dropped after the lock is let go: what it owns may look at other tasks.
        let future = self.0.lock().take();
        drop(future);
    }

    fn has_ended(&self) -> bool {
        // One that is being polled just now holds the lock, and may be who asks.
        self.0.try_lock().is_some_and(|future| future.is_none())
    }
}

/// A task of a host: polled only while the host runs.
struct Hosted<F> {
    host: Host,
    slot: Arc<Slot<F>>,
}

impl<F: Future> Future for Hosted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut inner = self.host.shared.inner.lock();
            match inner.state {
                State::Running => {}
                State::Frozen => {
                    inner.parked.push(context.waker().clone());
                    return Poll::Pending;
                }
                State::Dead => return Poll::Pending,
            }
        }
        let mut slot = self.slot.0.lock();
        let Some(future) = slot.as_mut() else {
            return Poll::Pending;
        };
        let polled = HOST.sync_scope(self.host.clone(), || future.as_mut().poll(context));
        if polled.is_ready() {
            *slot = None;
        }
        polled
    }
}

/// A task that is aborted takes its future with it.
impl<F> Drop for Hosted<F> {
    fn drop(&mut self) {
        if let Some(future) = self.slot.0.lock().take() {
            HOST.sync_scope(self.host.clone(), || drop(future));
        }
    }
}

/// Makes `future` a task of the host that calls this, if there is one. For those that spawn by other
/// means than [`spawn`].
pub fn on_this_host<F>(future: F) -> impl Future<Output = F::Output> + Send + 'static
where
    F: Future<Output: Send> + Send + 'static,
{
    let on_host = match HOST.try_with(Host::clone) {
        Ok(host) => Ok(host.adopt(future)),
        Err(_) => Err(future),
    };
    async move {
        match on_host {
            Ok(hosted) => hosted.await,
            Err(plain) => plain.await,
        }
    }
}

/// Spawns a task, of the host that calls this if there is one.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(on_this_host(future))
}

/// Runs work that blocks where it holds up nobody; on a simulated host, at once.
///
/// # Errors
///
/// The work panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if is_simulated() {
        // Others may run in between, as they would.
        tokio::task::yield_now().await;
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Whether the caller is a task of a simulated host.
pub fn is_simulated() -> bool {
    HOST.try_with(|_| ()).is_ok()
}

/// A generator for the engine: the host's next one, or this thread's.
pub fn generator() -> SmallRng {
    HOST.try_with(|host| SmallRng::from_rng(&mut host.shared.inner.lock().seeds))
        .unwrap_or_else(|_| SmallRng::from_rng(&mut rand::rng()))
}

#[cfg(test)]
mod tests;
