//! A queue: first in, first out.
//!
//! Items are the children `qn-` and a number, as those of ZooKeeper's own `DistributedQueue` and
//! Curator's `SimpleDistributedQueue`: both put for ours, and take what ours puts. While somebody is at
//! work on the first item, their takers fail ([`NotEmpty`](quorate_client::Reason::NotEmpty)): they do
//! not know how to pass it over.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::{AclEntry, Client};

use crate::Error;
use crate::directory::Kind;
use crate::items::{Item, Items, Taken};
use crate::line::Style;
use crate::waiting::Deadline;

/// A queue: first in, first out.
///
/// An item is put exactly once, wherever the connection breaks ([`Error::outcome`] is unknown only if
/// the session ends just then). It is taken in one of two ways:
///
/// - **At most once**, with [`Queue::take`]: it is off the queue before the caller has it. If the
///   caller dies over the work, the work is not done.
/// - **At least once**, with `take().locked()`: the caller gets an [`Item`], which is off the queue
///   when the caller says [`Item::done`]. If the caller dies before, somebody else gets it, and its
///   work may be done twice.
///
/// Both may be used with the same queue. Items are handed out in the order in which they were put; one
/// that is put back has its old place.
///
/// Cheap to clone. Puts of a handle and its clones are made one after the other.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, Queue};
/// # async fn work(_: &[u8]) -> Result<(), Error> { Ok(()) }
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let jobs = Queue::new(client, "/jobs").identity("worker-7");
/// jobs.put("resize 17.png").await?;
/// loop {
///     let job = jobs.take().locked().await?;
///     work(job.data()).await?; // if this fails, another worker gets it
///     job.done().await?;
/// }
/// # }
/// ```
///
/// # What it does not promise
///
/// - The order in which items are *done*: takers work at the same time.
/// - Speed: each item costs a few writes on the ensemble. Listing the directory is one answer, so there
///   is room for some ten thousand items, not millions (`jute.maxbuffer`). Every taker that waits is
///   told of every item that comes.
/// - That kazoo's `Queue` and `LockingQueue`, which have other names, take part; see
///   [`PriorityQueue`](crate::PriorityQueue).
///
/// A handle that has put keeps one ephemeral child (`own-` and 32 digits) in the directory until it is
/// dropped, by which it recognises its own writes. The libraries named above ignore it, with a warning in their logs.
#[derive(Clone, Debug)]
pub struct Queue {
    items: Items,
}

/// The options that all queues have.
macro_rules! options {
    ($name:ident) => {
        impl $name {
            /// Who takes, for others to see. Empty by default.
            #[must_use]
            pub fn identity(mut self, identity: &str) -> Self {
                self.items.identity = identity.into();
                self
            }

            /// Who may do what with the items, and with the directory if this creates it. Everybody
            /// everything by default. Whoever takes needs all permissions but those of ACLs.
            #[must_use]
            pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
                self.items.acl = acl.into();
                self
            }

            /// How many items there may be, also by others that have the same bound. Those that put wait
            /// for room.
            #[must_use]
            pub fn bound(mut self, items: usize) -> Self {
                self.items.bound = Some(items);
                self
            }

            /// Waits for an item, and takes it off the queue. See [`Take`].
            pub fn take(&self) -> Take {
                Take {
                    items: self.items.clone(),
                    limit: None,
                }
            }

            /// Takes the first item that is free off the queue; `None` if there is none.
            ///
            /// Cancel safe: an item that was taken, and that nobody waits for any more, is put back,
            /// behind the others.
            ///
            /// # Errors
            ///
            /// [`Error::OtherRecipe`]; those of reads and writes. The outcome is unknown only if the
            /// session ends just then.
            pub async fn try_take(&self) -> Result<Option<Bytes>, Error> {
                self.items.try_take().await
            }

            /// The first item that is free, for the caller to work on; `None` if there is none.
            ///
            /// Cancel safe: it stays on the queue.
            ///
            /// # Errors
            ///
            /// [`Error::OtherRecipe`]; those of reads and writes.
            pub async fn try_take_locked(&self) -> Result<Option<Item>, Error> {
                self.items.try_lock().await
            }

            /// How many items there are, those that somebody works on included.
            ///
            /// # Errors
            ///
            /// [`Error::OtherRecipe`]; those of a read.
            pub async fn count(&self) -> Result<usize, Error> {
                self.items.count().await
            }

            /// Which items somebody works on, and who. Not of one moment.
            ///
            /// # Errors
            ///
            /// [`Error::OtherRecipe`]; those of a read.
            pub async fn taken(&self) -> Result<Vec<Taken>, Error> {
                self.items.taken().await
            }
        }
    };
}

pub(crate) use options;

options!(Queue);

impl Queue {
    /// Nothing is created before it is used.
    pub fn new(client: &Client, path: &str) -> Self {
        let items = Items::new(client, path, Kind::Queue, Style::Plain);
        Self { items }
    }

    /// Puts an item at the end. Waits for room if the queue has a bound.
    ///
    /// Cancel safe: dropped before it has resolved, it may have been put.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`], [`Error::Contended`]; those of reads and writes.
    pub async fn put(&self, item: impl Into<Bytes>) -> Result<(), Error> {
        self.put_all([item]).await
    }

    /// Puts items at the end, one behind the other, all or none. As many as fit into one request.
    ///
    /// Cancel safe, as [`Queue::put`].
    ///
    /// # Errors
    ///
    /// As [`Queue::put`]; [`quorate_client::Error::TooLarge`]; [`Error::InvalidArgument`]: more than
    /// the bound.
    pub async fn put_all<I: Into<Bytes>>(
        &self,
        items: impl IntoIterator<Item = I>,
    ) -> Result<(), Error> {
        let items: Vec<Bytes> = items.into_iter().map(Into::into).collect();
        self.items.put_when_there_is_room(0, &items).await
    }

    /// Puts an item at the end; `false` if the queue is full.
    ///
    /// Cancel safe, as [`Queue::put`].
    ///
    /// # Errors
    ///
    /// As [`Queue::put`].
    pub async fn try_put(&self, item: impl Into<Bytes>) -> Result<bool, Error> {
        self.items.put(0, &[item.into()]).await
    }
}

type Running<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// Takes an item off a queue: at most once. Await it.
///
/// Cancel safe: an item that was taken, and that nobody waits for any more, is put back, behind the
/// others.
///
/// # Errors
///
/// [`Error::OtherRecipe`], [`Error::TimedOut`]; those of reads and writes. The outcome is unknown only
/// if the session ends just then.
#[derive(Clone, Debug)]
#[must_use = "nothing is taken before `.await`"]
pub struct Take {
    pub(crate) items: Items,
    pub(crate) limit: Option<Duration>,
}

impl Take {
    /// Gives up after so long.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Leaves it on the queue until the work is done: at least once. See [`Item`].
    pub fn locked(self) -> TakeLocked {
        TakeLocked(self)
    }
}

impl IntoFuture for Take {
    type Output = Result<Bytes, Error>;
    type IntoFuture = Running<Bytes>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = Deadline::new(self.limit);
        Box::pin(async move { deadline.bound(self.items.take()).await })
    }
}

/// Takes an item to work on: at least once. Await it.
///
/// Cancel safe: the item stays on the queue.
///
/// # Errors
///
/// [`Error::OtherRecipe`], [`Error::TimedOut`]; those of reads and writes.
#[derive(Clone, Debug)]
#[must_use = "nothing is taken before `.await`"]
pub struct TakeLocked(Take);

impl TakeLocked {
    /// Gives up after so long.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.0.limit = Some(limit);
        self
    }
}

impl IntoFuture for TakeLocked {
    type Output = Result<Item, Error>;
    type IntoFuture = Running<Item>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = Deadline::new(self.0.limit);
        Box::pin(async move { deadline.bound(self.0.items.lock()).await })
    }
}
