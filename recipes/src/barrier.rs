//! A barrier: a znode that keeps others waiting for as long as it is there.
//!
//! As Curator's `DistributedBarrier` and kazoo's `Barrier`, with which it works together.

use std::time::Duration;

use quorate_client::{AclEntry, Client, Outcome, Reason};

use crate::Error;
use crate::directory::{Kind, refuse_others};
use crate::waiting::{self, Deadline};

/// A barrier: a znode that keeps others waiting for as long as it is there.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Barrier, Error};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let maintenance = Barrier::new(client, "/barriers/maintenance");
/// maintenance.set().await?;
/// // Elsewhere: goes on when `remove` is called.
/// maintenance.wait().await?;
/// # Ok(())
/// # }
/// ```
///
/// # What it does not promise
///
/// That it stays: whoever has the permission may set or remove it, and it survives whoever has set it.
/// One that is removed and set again before a waiter looks keeps that one waiting. Nor that all see at
/// once that it is set: whoever comes looks at the server that it is connected to, which may be a moment
/// behind; [`Client::sync`] first where that matters.
#[derive(Clone, Debug)]
pub struct Barrier {
    client: Client,
    path: String,
    acl: Vec<AclEntry>,
}

impl Barrier {
    /// Nothing is created before it is set.
    pub fn new(client: &Client, path: &str) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            acl: vec![AclEntry::open()],
        }
    }

    /// Who may do what with the znode, if this creates it. Everybody everything by default.
    #[must_use]
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.acl = acl.into();
        self
    }

    /// Sets it. That it is set already is success.
    ///
    /// Cancel safe: dropped before it has resolved, it may have been set.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of a write.
    pub async fn set(&self) -> Result<(), Error> {
        let mark = serde_json::json!({ "recipe": Kind::Barrier }).to_string();
        loop {
            let create = self.client.create(&self.path, &mark).acl(&self.acl[..]);
            match create.idempotent().await {
                Ok(_) => return Ok(()),
                Err(error) if error.is(Reason::NodeExists) => {
                    match self.client.get(&self.path).await {
                        Ok((data, _)) => return refuse_others(&self.path, &data, Kind::Barrier),
                        // Removed just now.
                        Err(error) if error.is(Reason::NoNode) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) if error.is(Reason::NoNode) => match self.path.rsplit_once('/') {
                    Some((parent, _)) if !parent.is_empty() => {
                        self.client.ensure_path(parent).await?;
                    }
                    // The root of a chroot.
                    _ => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes it; `false` if it was not set.
    ///
    /// Cancel safe: dropped before it has resolved, it may have been removed.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; [`Reason::NotEmpty`]; those of a write.
    pub async fn remove(&self) -> Result<bool, Error> {
        loop {
            let stat = match self.client.get(&self.path).await {
                Ok((data, stat)) => {
                    refuse_others(&self.path, &data, Kind::Barrier)?;
                    stat
                }
                Err(error) if error.is(Reason::NoNode) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            match self.client.delete(&self.path).await {
                Ok(()) => return Ok(true),
                Err(error) if error.is(Reason::NoNode) => return Ok(false),
                Err(error) if error.outcome() == Outcome::Unknown && !error.needs_new_session() => {
                    waiting::read(&self.client, || self.client.sync(&self.path)).await?;
                    let left =
                        waiting::read(&self.client, || self.client.exists(&self.path)).await?;
                    // One that was set since is another's.
                    if left.is_none_or(|left| left.czxid != stat.czxid) {
                        return Ok(true);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it is set.
    ///
    /// # Errors
    ///
    /// Those of a read.
    pub async fn is_set(&self) -> Result<bool, Error> {
        Ok(self.client.exists(&self.path).await?.is_some())
    }

    /// Waits until it is not set. Lost connections are waited out.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of a read, when the session is over.
    pub async fn wait(&self) -> Result<(), Error> {
        loop {
            let read =
                waiting::read(&self.client, || self.client.exists(&self.path).watch()).await?;
            let (Some(_), watcher) = read else {
                return Ok(());
            };
            // Whatever has happened: it is read again. After an expiry, in the next session.
            watcher.changed().await.ok();
        }
    }

    /// As [`Barrier::wait`], for so long at most.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]; as [`Barrier::wait`].
    pub async fn wait_at_most(&self, limit: Duration) -> Result<(), Error> {
        Deadline::new(Some(limit)).bound(self.wait()).await
    }
}
