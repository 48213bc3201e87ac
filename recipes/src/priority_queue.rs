//! A queue by priority.
//!
//! Items are the children `entry-`, three digits of priority, a hyphen and a number, as those of kazoo's
//! `Queue`, which puts for ours.

use bytes::Bytes;
use quorate_client::{AclEntry, Client};

use crate::Error;
use crate::directory::Kind;
use crate::items::{Item, Items, Taken};
use crate::line::Style;
use crate::queue::{Take, options};

/// The last to be served.
const PRIORITY_MAX: u16 = 999;

/// A queue by priority: the lowest number first, and of one number first in, first out.
///
/// What is promised is as for [`Queue`](crate::Queue). An item of a low number that comes while others
/// are being worked on does not interrupt them.
///
/// kazoo's `Queue` may put items (its default priority is 100), and should not take them: it does not
/// know of items that somebody works on, and takes every child for an item.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, PriorityQueue};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let jobs = PriorityQueue::new(client, "/jobs");
/// jobs.put(500, "some time").await?;
/// jobs.put(1, "soon").await?;
/// assert_eq!(jobs.take().await?, "soon");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PriorityQueue {
    items: Items,
}

options!(PriorityQueue);

impl PriorityQueue {
    /// Nothing is created before it is used.
    pub fn new(client: &Client, path: &str) -> Self {
        let items = Items::new(client, path, Kind::PriorityQueue, Style::Priority);
        Self { items }
    }

    /// Puts an item behind those of its priority, 0 to 999. Waits for room if the queue has a bound.
    ///
    /// Cancel safe: dropped before it has resolved, it may have been put.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]: no such priority. [`Error::OtherRecipe`], [`Error::Contended`];
    /// those of reads and writes.
    pub async fn put(&self, priority: u16, item: impl Into<Bytes>) -> Result<(), Error> {
        self.put_all(priority, [item]).await
    }

    /// Puts items behind those of their priority, all or none. As many as fit into one request.
    ///
    /// Cancel safe, as [`PriorityQueue::put`].
    ///
    /// # Errors
    ///
    /// As [`PriorityQueue::put`]; [`quorate_client::Error::TooLarge`].
    pub async fn put_all<I: Into<Bytes>>(
        &self,
        priority: u16,
        items: impl IntoIterator<Item = I>,
    ) -> Result<(), Error> {
        let rank = rank(priority)?;
        let items: Vec<Bytes> = items.into_iter().map(Into::into).collect();
        self.items.put_when_there_is_room(rank, &items).await
    }

    /// Puts an item; `false` if the queue is full.
    ///
    /// Cancel safe, as [`PriorityQueue::put`].
    ///
    /// # Errors
    ///
    /// As [`PriorityQueue::put`].
    pub async fn try_put(&self, priority: u16, item: impl Into<Bytes>) -> Result<bool, Error> {
        self.items.put(rank(priority)?, &[item.into()]).await
    }
}

fn rank(priority: u16) -> Result<u64, Error> {
    if priority > PRIORITY_MAX {
        let what = format!("a priority is from 0 to {PRIORITY_MAX}, not {priority}");
        return Err(Error::InvalidArgument(what));
    }
    Ok(priority.into())
}
