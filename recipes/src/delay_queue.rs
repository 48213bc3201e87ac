//! A queue whose items are to be taken at a time, not before.
//!
//! Items are the children `at-`, 16 hexadecimal digits of milliseconds since 1970, a hyphen and a
//! number.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quorate_client::{AclEntry, Client};

use crate::Error;
use crate::directory::Kind;
use crate::items::{Item, Items, Taken, millis};
use crate::line::Style;
use crate::queue::{Take, options};

/// A queue whose items are to be taken at a time, not before: the earliest first, and of one
/// millisecond first in, first out.
///
/// What is promised is as for [`Queue`](crate::Queue).
///
/// # Which time
///
/// That of the wall clock, since it has to mean the same on all machines: the putter's clock decides
/// for [`DelayQueue::put_in`], the taker's clock whether an item is due. Where clocks differ, items are
/// early or late by the difference. A taker that waits notices a clock that was set only when an item
/// comes, or when the time it computed before is over.
///
/// ```no_run
/// # use std::time::Duration;
/// # use quorate_client::Client;
/// # use quorate_recipes::{DelayQueue, Error};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let reminders = DelayQueue::new(client, "/reminders");
/// reminders.put_in(Duration::from_secs(3600), "renew the certificate").await?;
/// let due = reminders.take().await?; // an hour later
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DelayQueue {
    items: Items,
}

options!(DelayQueue);

impl DelayQueue {
    /// Nothing is created before it is used.
    pub fn new(client: &Client, path: &str) -> Self {
        let items = Items::new(client, path, Kind::DelayQueue, Style::Time);
        Self { items }
    }

    /// Another clock than that of the client, which is the machine's by default.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.items.clock = Arc::new(now);
        self
    }

    /// Puts an item that is due at this time, in whole milliseconds. Waits for room if the queue has a
    /// bound.
    ///
    /// Cancel safe: dropped before it has resolved, it may have been put.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`], [`Error::Contended`]; those of reads and writes.
    pub async fn put_at(&self, due: SystemTime, item: impl Into<Bytes>) -> Result<(), Error> {
        let items = &[item.into()];
        self.items.put_when_there_is_room(millis(due), items).await
    }

    /// Puts an item that is due after so long, by this machine's clock.
    ///
    /// Cancel safe, as [`DelayQueue::put_at`].
    ///
    /// # Errors
    ///
    /// As [`DelayQueue::put_at`]; [`Error::InvalidArgument`]: no clock goes so far.
    pub async fn put_in(&self, delay: Duration, item: impl Into<Bytes>) -> Result<(), Error> {
        let due = (self.items.clock)().checked_add(delay).ok_or_else(|| {
            Error::InvalidArgument(format!("{delay:?} from now is beyond all clocks"))
        })?;
        self.put_at(due, item).await
    }
}
