//! A lock that one at a time holds.

use std::time::Duration;

use quorate_client::Client;

use crate::acquire::Acquire;
use crate::directory::Kind;
use crate::naming::{Naming, Role};
use crate::options::{Options, options};
use crate::view::{Contender, Holder};
use crate::{Error, Lease};

/// A lock that one at a time holds, in the order of arrival. Not re-entrant: who asks for it again
/// waits for itself. Cheap to clone.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, Mutex};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let lock = Mutex::new(&client, "/locks/nightly-report").identity("pod-7");
/// lock.run(|lease| async move {
///     // Dropped before the session can end. A store that refuses old tokens is safe from the rest.
///     write_report(lease.token().get()).await;
/// })
/// .await?;
/// # Ok(())
/// # }
/// # async fn write_report(_: u64) {}
/// ```
///
/// # What it promises
///
/// - Work inside of [`Mutex::run`] is told to stop when the session was not confirmed for two thirds of
///   its timeout, and dropped a twelfth of the timeout before the session can end ([`Timing`]). No step
///   of it begins after that, also if the process or the machine had stood still.
/// - The next holder comes in after the work, and what it spawned by [`Lease::spawn`], has ended; or,
///   if this process is dead or cut off, when its session has ended.
/// - Tokens grow with every grant. [`Lease::transaction`] is refused by the server once the lock is
///   another's.
///
/// It does not promise that a request that was on its way when the lock was lost does not arrive
/// later: that is what tokens are for.
///
/// [`Timing`]: crate::Timing
#[derive(Clone, Debug)]
pub struct Mutex {
    options: Options,
}

options!(Mutex);

impl Mutex {
    /// A lock at a path, which need not exist. Nothing is sent.
    pub fn new(client: &Client, path: &str) -> Self {
        Self {
            options: Options::new(client, path, Kind::Lock),
        }
    }

    /// With which libraries it is to work. See [`Naming`].
    #[must_use]
    pub fn naming(mut self, naming: Naming) -> Self {
        self.options.naming = naming;
        self
    }

    /// How long the next holder waits if the last one was lost and did not give it back: what that one
    /// had begun may still arrive somewhere. Zero by default.
    #[must_use]
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.options.lock_delay = delay;
        self
    }

    pub(crate) fn path(&self) -> &str {
        &self.options.line.path
    }

    pub(crate) fn client(&self) -> &Client {
        self.options.client()
    }

    /// Asks for it. Resolves to a [`Guard`](crate::Guard).
    pub fn acquire(&self) -> Acquire {
        Acquire::new(&self.options, Role::Exclusive)
    }

    /// Runs `work` while it is held: the form to prefer. See [`Guard::run`](crate::Guard::run).
    ///
    /// # Errors
    ///
    /// As [`Acquire`]; [`Error::Lost`] if the work was dropped.
    pub async fn run<F, W, T>(&self, work: F) -> Result<T, Error>
    where
        F: FnOnce(Lease) -> W,
        W: Future<Output = T>,
    {
        self.acquire().run(work).await
    }

    /// Reads who holds it and who waits, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of any read.
    pub async fn contenders(&self) -> Result<Vec<Contender>, Error> {
        self.options.line.view().await
    }

    /// Reads who holds it.
    ///
    /// # Errors
    ///
    /// As [`Mutex::contenders`].
    pub async fn holder(&self) -> Result<Option<Holder>, Error> {
        self.options.line.holder().await
    }

    /// Asks the holder to give it back ([`StopReason::Revoked`](crate::StopReason::Revoked)), whatever
    /// library it uses; of Curator's holders, those that were made revocable comply. `false` if nobody
    /// holds it.
    ///
    /// # Errors
    ///
    /// As [`Mutex::contenders`], and those of any write.
    pub async fn revoke(&self, reason: &str) -> Result<bool, Error> {
        self.options.line.revoke(reason).await
    }
}
