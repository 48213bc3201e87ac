//! Unique ids, in blocks: one write for many of them.
//!
//! The znode says in JSON which id comes next (`{"recipe":"id-blocks","next":1000}`); a handle takes as
//! many as a block has and hands them out by itself. What a handle has not handed out when it is
//! dropped is lost: ids have gaps, and never come twice.

use std::ops::Range;
use std::sync::Arc;

use quorate_client::{AclEntry, Client, Outcome};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::Error;
use crate::cas::Cell;
use crate::directory::Kind;

/// As many ids as a block has, by default.
const BLOCK: u64 = 1_000;
/// How often a block is asked for whose last answer was lost.
const ATTEMPTS: u32 = 8;

/// The znode's data.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    recipe: Kind,
    next: u64,
}

/// Hands out ids of which no other handle on the same path, on any machine, hands out one as well.
///
/// They grow within a handle, not from handle to handle, and have gaps: whatever is left of a block
/// when its handle is dropped, or whose request was dropped or lost, is handed out by nobody.
///
/// Cheap to clone; clones hand out of the same block.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, IdBlocks};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let ids = IdBlocks::new(client, "/ids/orders").block(10_000);
/// let order = ids.next().await?; // 9,999 times out of 10,000 without a request
/// # Ok(())
/// # }
/// ```
///
/// # What it does not promise
///
/// Who deletes or restores the znode begins again at its first id.
#[derive(Clone, Debug)]
pub struct IdBlocks {
    cell: Cell,
    block: u64,
    first: u64,
    /// What is not handed out yet.
    left: Arc<Mutex<Range<u64>>>,
}

impl IdBlocks {
    /// Nothing is created before the first id.
    pub fn new(client: &Client, path: &str) -> Self {
        let mut cell = Cell::new(client, path);
        cell.set_kind(Kind::IdBlocks);
        Self {
            cell,
            block: BLOCK,
            first: 0,
            left: Arc::new(Mutex::new(0..0)),
        }
    }

    /// How many ids one write takes, at least 1; 1,000 by default. Handles may differ.
    #[must_use]
    pub fn block(mut self, ids: u64) -> Self {
        self.block = ids;
        self
    }

    /// The very first id, for whoever creates the znode; 0 by default.
    #[must_use]
    pub fn first(mut self, id: u64) -> Self {
        self.first = id;
        self
    }

    /// Who may do what with the znode, if this creates it. Everybody everything by default. Whoever
    /// takes a block needs the permission to create children, too.
    #[must_use]
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.cell.set_acl(acl.into());
        self
    }

    /// The next id. Waits for a server only at the end of a block.
    ///
    /// Cancel safe: what was being taken is lost as a gap.
    ///
    /// # Errors
    ///
    /// As [`IdBlocks::take_block`].
    pub async fn next(&self) -> Result<u64, Error> {
        let mut left = self.left.lock().await;
        loop {
            if let Some(id) = left.next() {
                return Ok(id);
            }
            *left = self.take_block(self.block).await?;
        }
    }

    /// Takes so many ids at once, for the caller alone.
    ///
    /// Cancel safe: what was being taken is lost as a gap.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]: none. [`Error::OtherRecipe`], [`Error::Foreign`]: the znode is not
    /// one of ids. [`Error::Overflow`]: all ids of 64 bits are used up. [`Error::Contended`]; those of
    /// a read and a write.
    pub async fn take_block(&self, ids: u64) -> Result<Range<u64>, Error> {
        if ids == 0 {
            let what = "a block has at least one id";
            return Err(Error::InvalidArgument(what.to_owned()));
        }
        let mut attempt = 1;
        loop {
            let updated = self.cell.update(|data| {
                let next = data.map_or(Ok(self.first), |data| self.decode(data))?;
                let block = next..next
                    .checked_add(ids)
                    .ok_or_else(|| self.overflow(next, ids))?;
                let recipe = Kind::IdBlocks;
                let record = Record {
                    recipe,
                    next: block.end,
                };
                let data = serde_json::json!(record).to_string();
                Ok((Some(data.into_bytes()), block))
            });
            match updated.await {
                Ok(updated) => return Ok(updated.answer),
                // If it was applied nobody has that block; the next one is as good.
                Err(error) if error.outcome() == Outcome::Unknown && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn decode(&self, data: &[u8]) -> Result<u64, Error> {
        match serde_json::from_slice(data) {
            Ok(Record {
                recipe: Kind::IdBlocks,
                next,
            }) => Ok(next),
            // Another recipe's is refused when it is read.
            _ => Err(Error::Foreign {
                path: self.cell.path().to_owned(),
                found: format!("{} bytes of something else", data.len()),
                wanted: "a record of ids",
            }),
        }
    }

    fn overflow(&self, next: u64, ids: u64) -> Error {
        let clamp = |ids: u64| i64::try_from(ids).unwrap_or(i64::MAX);
        Error::Overflow {
            path: self.cell.path().to_owned(),
            value: clamp(next),
            change: clamp(ids),
        }
    }
}
