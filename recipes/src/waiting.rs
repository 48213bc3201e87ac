//! Waiting for a znode to change, and for a connection to come back.
//!
//! What is waited for is read again after every wake-up, and after every loss: an event is only a
//! reason to look. What is made again here are reads alone.

use std::time::Duration;

use quorate_client::environment::Randomness;
use quorate_client::{Client, Error as ClientError};
use tokio::time::Instant;

use crate::Error;
use crate::patience::Patience;

/// Makes a read again until a server answers, for as long as the session lives. Where a new session
/// follows an expired one, it is made in that one.
///
/// Cancel safe.
pub(crate) async fn read<T, F>(
    client: &Client,
    mut read: impl FnMut() -> F,
) -> Result<T, ClientError>
where
    F: IntoFuture<Output = Result<T, ClientError>>,
{
    let mut patience = Patience::new(client);
    loop {
        let session = client.session();
        match read().await {
            Err(error) if error.is_retryable() || error.needs_new_session() => {
                if !patience.outlast(client, session, &error).await {
                    return Err(error);
                }
            }
            answered => return answered,
        }
    }
}

/// Pauses between attempts that others were faster than: those who collided do not collide again.
#[derive(Debug)]
pub(crate) struct Backoff {
    randomness: Randomness,
    next: Duration,
}

impl Backoff {
    /// Between attempts, at first and at most, less up to a half at random.
    const MIN: Duration = Duration::from_millis(1);
    const MAX: Duration = Duration::from_millis(100);

    pub(crate) fn new(client: &Client) -> Self {
        Self {
            randomness: client.randomness().clone(),
            next: Self::MIN,
        }
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.randomness.shorten(self.next)).await;
        self.next = (self.next * 2).min(Self::MAX);
    }
}

/// Until when something may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    began: Instant,
    limit: Option<Duration>,
}

impl Deadline {
    /// From now on; `None` for ever.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        let began = Instant::now();
        Self { began, limit }
    }

    /// Drops what has not ended by then.
    pub(crate) async fn bound<T>(
        self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(waited) = self.limit else {
            return work.await;
        };
        // Far enough away to be never, where it does not fit.
        let Some(end) = self.began.checked_add(waited) else {
            return work.await;
        };
        match tokio::time::timeout_at(end, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::TimedOut { waited }),
        }
    }
}
