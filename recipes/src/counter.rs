//! A counter, as kazoo's `Counter` and Curator's `SharedCount` keep theirs.

use quorate_client::{AclEntry, Client};

use crate::Error;
use crate::integer::{Integer, Layout};

/// How a [`Counter`] is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CounterFormat {
    /// Decimal digits, as kazoo's `Counter` writes integers. The default: any shell reads it.
    #[default]
    Text,
    /// 4 bytes, big-endian, from -2,147,483,648 to 2,147,483,647: as Curator's `SharedCount`, and
    /// kazoo's `Counter` with `support_curator`.
    SharedCount,
}

/// A counter that any client may change, each change exactly once.
///
/// What is promised about lost connections, and what is not, is as for
/// [`SharedValue`](crate::SharedValue). A znode that does not exist, or has no data, counts as 0.
///
/// Cheap to clone. Changes by a handle and its clones are made one after the other.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Counter, Error};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let visits = Counter::new(client, "/counters/visits");
/// println!("you are number {}", visits.add(1).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Counter {
    integer: Integer,
}

impl Counter {
    /// Nothing is created before the first change.
    pub fn new(client: &Client, path: &str) -> Self {
        let integer = Integer::new(client, path, Layout::Text);
        Self { integer }
    }

    /// How it is written down. All who use it have to agree.
    #[must_use]
    pub fn format(mut self, format: CounterFormat) -> Self {
        self.integer.layout = match format {
            CounterFormat::Text => Layout::Text,
            CounterFormat::SharedCount => Layout::Bytes4,
        };
        self
    }

    /// Who may do what with the znode, if this creates it. Everybody everything by default. Whoever
    /// changes it needs the permission to create children, too.
    #[must_use]
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.integer.cell.set_acl(acl.into());
        self
    }

    /// How often a change is tried when others are faster each time; 64 by default.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.integer.cell.set_attempts(attempts);
        self
    }

    /// What it stands at.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`]: the data is not in the format; those of a read.
    pub async fn get(&self) -> Result<i64, Error> {
        Ok(self.integer.get().await?.unwrap_or(0))
    }

    /// Has it stand at this, whatever it stood at.
    ///
    /// Cancel safe: dropped before it has resolved, it may have been done.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`]: out of the format's range; those of a write.
    pub async fn set(&self, value: i64) -> Result<(), Error> {
        self.integer.set(value).await
    }

    /// Adds to it; answers what it stands at right after that.
    ///
    /// Cancel safe, as [`Counter::set`].
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`], [`Error::Foreign`], [`Error::Contended`]; those of a read and a write.
    pub async fn add(&self, change: i64) -> Result<i64, Error> {
        self.integer.add(change).await
    }

    /// Subtracts from it; answers what it stands at right after that.
    ///
    /// Cancel safe, as [`Counter::set`].
    ///
    /// # Errors
    ///
    /// As [`Counter::add`].
    pub async fn subtract(&self, change: i64) -> Result<i64, Error> {
        self.integer.subtract(change).await
    }
}
