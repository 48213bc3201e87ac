//! The thread on which everything of an ensemble runs but its servers.
//!
//! The runtime of a test may be blocked, have one thread, a clock that jumps, or be none of tokio's:
//! nothing here depends on it. What a test awaits runs here, and bounds of time count here.

use std::io;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Error;

/// Its handle. Work goes on until the [`Stage`] is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Director {
    handle: Handle,
    patience: Duration,
}

/// The thread. Ends when it is dropped, and all that runs there with it.
#[derive(Debug)]
pub(crate) struct Stage {
    director: Director,
    /// Its end ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    /// `patience` is how long anything may take.
    pub(crate) fn open(patience: Duration) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("quorate-testing".to_owned())
            .spawn(move || {
                // The other side only ever drops its end.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            director: Director { handle, patience },
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn director(&self) -> &Director {
        &self.director
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of one of its tasks has been handed on by `run`.
            let _ = thread.join();
        }
    }
}

impl Director {
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(work);
    }

    /// Does `work`, which is abandoned when it takes too long; `what` says what was waited for. The
    /// work goes on when the caller stops waiting.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: String,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let patience = self.patience;
        let bounded = async move { timeout(patience, work).await };
        let late = || Error::Late { what, patience };
        match self.handle.spawn(bounded).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(late()),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The stage is gone while somebody still waits.
                Err(_) => Err(late()),
            },
        }
    }
}
