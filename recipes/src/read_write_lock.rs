//! A lock that readers share and a writer has alone.

use std::time::Duration;

use quorate_client::Client;

use crate::Error;
use crate::acquire::Acquire;
use crate::directory::Kind;
use crate::naming::{Naming, Role};
use crate::options::{Options, options};
use crate::view::{Contender, Holder};

/// A lock that any number of readers hold together, or one writer alone. Fair, in the order of
/// arrival: a reader waits for the nearest writer before it, a writer for whoever came right before
/// it, so that neither starves the other. Not re-entrant, and a reader does not become a writer:
/// who holds one and asks for the other waits for itself. Cheap to clone.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, ReadWriteLock};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let lock = ReadWriteLock::new(&client, "/locks/catalog");
/// lock.read().run(|_| async { /* look something up */ }).await?;
/// lock.write().run(|lease| publish(lease.token().get())).await?;
/// # Ok(())
/// # }
/// # async fn publish(_: u64) {}
/// ```
///
/// What it promises of a holder's work, session and token is what [`Mutex`](crate::Mutex) promises.
/// Readers have tokens as well, each its own; they grow across readers and writers. Readers do not
/// wait for each other's writes.
#[derive(Clone, Debug)]
pub struct ReadWriteLock {
    options: Options,
}

options!(ReadWriteLock);

impl ReadWriteLock {
    /// A lock at a path, which need not exist. Nothing is sent.
    pub fn new(client: &Client, path: &str) -> Self {
        Self {
            options: Options::new(client, path, Kind::ReadWriteLock),
        }
    }

    /// With which libraries it is to work: [`Naming::Curator`] names readers `__READ__` and writers
    /// `__WRIT__` as its `InterProcessReadWriteLock`, [`Naming::Kazoo`] `__rlock__` and `__lock__` as
    /// its `ReadLock` and `WriteLock`. [`Naming::JavaRecipe`] has no readers.
    #[must_use]
    pub fn naming(mut self, naming: Naming) -> Self {
        self.options.naming = naming;
        self
    }

    /// How long whoever is next waits if the last writer was lost and did not give it back: what that
    /// one had begun may still arrive somewhere. Zero by default. Readers that were lost delay nobody.
    #[must_use]
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.options.lock_delay = delay;
        self
    }

    /// Asks for it beside other readers. Resolves to a [`Guard`](crate::Guard).
    ///
    /// [`Acquire::try_now`] also fails if a writer only waits: readers would starve it otherwise.
    pub fn read(&self) -> Acquire {
        Acquire::new(&self.options, Role::Shared)
    }

    /// Asks for it alone. Resolves to a [`Guard`](crate::Guard).
    pub fn write(&self) -> Acquire {
        Acquire::new(&self.options, Role::Exclusive)
    }

    /// Reads who holds it and who waits, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of any read.
    pub async fn contenders(&self) -> Result<Vec<Contender>, Error> {
        self.options.line.view().await
    }

    /// Reads who holds it: one writer, or readers in the order of their arrival.
    ///
    /// # Errors
    ///
    /// As [`ReadWriteLock::contenders`].
    pub async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let line = &self.options.line;
        let readers = line.readers_in_front().await?;
        if readers.is_empty() {
            return Ok(line.holder().await?.into_iter().collect());
        }
        line.shared_holders(readers).await
    }

    /// Asks all who hold it to give it back ([`StopReason::Revoked`](crate::StopReason::Revoked)).
    /// `false` if nobody does.
    ///
    /// # Errors
    ///
    /// As [`ReadWriteLock::contenders`], and those of any write.
    pub async fn revoke(&self, reason: &str) -> Result<bool, Error> {
        let line = &self.options.line;
        let readers = line.readers_in_front().await?;
        if readers.is_empty() {
            return line.revoke(reason).await;
        }
        line.revoke_all(readers, reason).await?;
        Ok(true)
    }
}
