//! How the log's two workers wait: on threads of their own, or, in a simulation, as tasks.
//!
//! The workers are written once, as futures. On a thread nothing in them is ever pending: waiting
//! blocks, and [`run_on_this_thread`] polls once.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, MutexGuard};
use tokio::sync::Notify;

/// Wakes one worker. A wake-up that comes before the wait is not lost, as what is waited for is looked
/// at under the lock, or, for tasks, kept.
pub(super) enum Signal {
    Thread(Condvar),
    Task(Notify),
}

impl Signal {
    pub(super) fn new(simulated: bool) -> Signal {
        if simulated {
            Signal::Task(Notify::new())
        } else {
            Signal::Thread(Condvar::new())
        }
    }

    /// Has the worker look again.
    pub(super) fn wake(&self) {
        match self {
            Signal::Thread(condvar) => {
                condvar.notify_all();
            }
            Signal::Task(notify) => notify.notify_one(),
        }
    }

    /// Lets go of the lock and waits to be woken, `patience` at most; says whether that ran out.
    pub(super) fn wait<'a, T>(
        &'a self,
        mut guard: MutexGuard<'_, T>,
        patience: Option<Duration>,
    ) -> impl Future<Output = bool> + Send + use<'a, T> {
        let waited = match (self, patience) {
            (Signal::Thread(condvar), None) => {
                condvar.wait(&mut guard);
                Some(false)
            }
            (Signal::Thread(condvar), Some(patience)) => {
                Some(condvar.wait_for(&mut guard, patience).timed_out())
            }
            (Signal::Task(_), _) => None,
        };
        drop(guard);
        async move {
            match (self, waited, patience) {
                (_, Some(timed_out), _) => timed_out,
                (Signal::Task(notify), None, Some(patience)) => {
                    tokio::time::timeout(patience, notify.notified())
                        .await
                        .is_err()
                }
                (Signal::Task(notify), None, None) => {
                    notify.notified().await;
                    false
                }
                (Signal::Thread(_), None, _) => false,
            }
        }
    }

    /// Waits for so long, whatever happens.
    pub(super) async fn sleep(&self, span: Duration) {
        match self {
            Signal::Thread(_) if span.is_zero() => {}
            Signal::Thread(_) => std::thread::sleep(span),
            Signal::Task(_) => tokio::time::sleep(span).await,
        }
    }
}

/// Runs a worker whose signals are [`Signal::Thread`] to its end.
pub(super) fn run_on_this_thread(worker: impl Future<Output = ()>) {
    let mut worker = pin!(worker);
    let mut context = Context::from_waker(Waker::noop());
    let polled = worker.as_mut().poll(&mut context);
    debug_assert_eq!(polled, Poll::Ready(()), "a thread's worker blocks instead");
}
