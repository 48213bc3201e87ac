//! A number of 64 bits, as Curator's `DistributedAtomicLong` keeps it.

use quorate_client::{AclEntry, Client};

use crate::Error;
use crate::cas::Base;
use crate::integer::{Integer, Layout};

/// A number of 64 bits that any client may change, each change exactly once.
///
/// The znode's data are its 8 bytes, big-endian, as those of Curator's `DistributedAtomicLong`. That
/// one wraps around where this one refuses.
///
/// # Exactly once
///
/// Each change is a transaction which sets the number on condition that nobody else has, and with it
/// a mark of this handle, an ephemeral child of the znode. If the connection is lost before the answer,
/// the mark tells whether the change was applied, whatever others have written since; it is then
/// neither left out nor made twice. The mark goes with the session: if that ends before the mark was
/// read, an unchanged version still tells that the change was not applied. If others have changed the
/// number as well, nobody can tell, and the error's [`Error::outcome`] is unknown. So it is, too, where
/// the caller drops the future of a change that is under way.
///
/// Cheap to clone. Changes by a handle and its clones are made one after the other.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, Number};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let balance = Number::new(client, "/accounts/17");
/// balance.initialize(1_000).await?;
/// balance.subtract(250).await?;
/// assert!(balance.compare_and_set(750, 0).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Number {
    integer: Integer,
}

impl Number {
    /// Nothing is created before the first change.
    pub fn new(client: &Client, path: &str) -> Self {
        let integer = Integer::new(client, path, Layout::Bytes8);
        Self { integer }
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

    /// The number; `None` if there is no such znode.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`]: the data are not 8 bytes; those of a read.
    pub async fn get(&self) -> Result<Option<i64>, Error> {
        self.integer.get().await
    }

    /// Creates the znode with this number; `false` if there is one already.
    ///
    /// Cancel safe: dropped before it has resolved, it may have been done.
    ///
    /// # Errors
    ///
    /// Those of a write.
    pub async fn initialize(&self, value: i64) -> Result<bool, Error> {
        let data = self.integer.encode(value)?;
        let written = self.integer.cell.write(Base::Absent, &data).await?;
        Ok(written.is_some())
    }

    /// Replaces the number, whatever it is.
    ///
    /// Cancel safe, as [`Number::initialize`].
    ///
    /// # Errors
    ///
    /// Those of a write.
    pub async fn set(&self, value: i64) -> Result<(), Error> {
        self.integer.set(value).await
    }

    /// Replaces the number if it is the expected one; `false` if it is another. A znode that does not
    /// exist counts as 0.
    ///
    /// Cancel safe, as [`Number::initialize`].
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`], [`Error::Contended`]; those of a read and a write.
    pub async fn compare_and_set(&self, expected: i64, new: i64) -> Result<bool, Error> {
        let integer = &self.integer;
        let updated = integer.cell.update(|data| {
            let value = data.map_or(Ok(0), |data| integer.decode(data))?;
            let data = (value == expected)
                .then(|| integer.encode(new))
                .transpose()?;
            Ok((data, value == expected))
        });
        Ok(updated.await?.answer)
    }

    /// Adds to it; answers the number right after that. A znode that does not exist counts as 0.
    ///
    /// Cancel safe, as [`Number::initialize`].
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`], [`Error::Foreign`], [`Error::Contended`]; those of a read and a write.
    pub async fn add(&self, change: i64) -> Result<i64, Error> {
        self.integer.add(change).await
    }

    /// Subtracts from it; answers the number right after that.
    ///
    /// Cancel safe, as [`Number::initialize`].
    ///
    /// # Errors
    ///
    /// As [`Number::add`].
    pub async fn subtract(&self, change: i64) -> Result<i64, Error> {
        self.integer.subtract(change).await
    }

    /// Adds 1. See [`Number::add`].
    ///
    /// # Errors
    ///
    /// As [`Number::add`].
    pub async fn increment(&self) -> Result<i64, Error> {
        self.add(1).await
    }

    /// Subtracts 1. See [`Number::add`].
    ///
    /// # Errors
    ///
    /// As [`Number::add`].
    pub async fn decrement(&self) -> Result<i64, Error> {
        self.subtract(1).await
    }
}
