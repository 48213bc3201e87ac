//! Watches: to be told when something changes.
//!
//! A one-shot watch ([`Watcher`]) comes with a read, and tells of the first change after it. A
//! [`WatchStream`] goes on until it is dropped. Both survive a lost connection; a stream says with a
//! [`Gap`] that something may have been missed meanwhile, so that nothing is missed in silence.

pub(crate) mod queue;
pub(crate) mod registry;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use quorate_protocol::{EventType, Zxid};
use tokio::sync::oneshot;

use self::queue::Queue;
use self::registry::WatcherId;
use crate::chroot::Chroot;
use crate::session::line::{Line, Work};

/// Something happened to a znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventType,
    /// To which znode, as this client names it.
    pub path: String,
    /// The write that did it, where the server says so: Quorate, and Apache ZooKeeper from 3.9 on.
    pub zxid: Option<Zxid>,
}

/// Events may be missing: the connection was lost for a while, or the reader was too slow. What was
/// watched has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// No event of a write up to this one is missing.
    pub since: Zxid,
}

/// What a [`WatchStream`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// Something happened.
    Event(Event),
    /// Something may have happened.
    Gap(Gap),
}

/// Why nothing more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The session has expired.
    #[error("the session has expired, and its watches with it")]
    Expired,
    /// Authentication was refused.
    #[error("authentication was refused, and the session is over")]
    AuthFailed,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// A one-shot watch: resolves when the first event after the read comes.
///
/// Cancel safe. Dropping it takes the watch away from the server, unless others share it.
#[derive(Debug)]
pub struct Watcher {
    receiver: oneshot::Receiver<Result<Event, End>>,
    registration: Registration,
}

impl Watcher {
    pub(crate) fn new(
        receiver: oneshot::Receiver<Result<Event, End>>,
        watcher: WatcherId,
        chroot: Chroot,
        line: Arc<Line>,
    ) -> Self {
        Self {
            receiver,
            registration: Registration {
                watcher: Some(watcher),
                chroot,
                line,
            },
        }
    }

    /// Waits for the event.
    ///
    /// # Errors
    ///
    /// [`End`]: the session is over before anything happened.
    pub async fn changed(self) -> Result<Event, End> {
        self.await
    }
}

impl Future for Watcher {
    type Output = Result<Event, End>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let told = ready!(Pin::new(&mut self.receiver).poll(context));
        // The server has forgotten it.
        self.registration.watcher = None;
        Poll::Ready(match told {
            Ok(Ok(event)) => Ok(self.registration.seen(event)),
            Ok(Err(end)) => Err(end),
            Err(_) => Err(End::Closed),
        })
    }
}

/// A persistent watch, of one znode or of a znode and all below it.
///
/// Cancel safe. Dropping it takes the watch away from the server, unless others share it.
#[derive(Debug)]
pub struct WatchStream {
    queue: Arc<Queue>,
    registration: Registration,
}

impl WatchStream {
    pub(crate) fn new(
        queue: Arc<Queue>,
        watcher: WatcherId,
        chroot: Chroot,
        line: Arc<Line>,
    ) -> Self {
        Self {
            queue,
            registration: Registration {
                watcher: Some(watcher),
                chroot,
                line,
            },
        }
    }

    /// The next event or gap. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`End`]: the session is over, and nothing more will come.
    pub async fn next(&mut self) -> Result<Item, End> {
        std::future::poll_fn(|context| self.poll_item(context)).await
    }

    /// What has come already, without waiting; `None` if nothing has.
    pub fn try_next(&mut self) -> Option<Item> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match self.poll_item(&mut context) {
            Poll::Ready(item) => item.ok(),
            Poll::Pending => None,
        }
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Result<Item, End>> {
        let item = ready!(self.queue.poll(context));
        Poll::Ready(item.map(|item| match item {
            Item::Event(event) => Item::Event(self.registration.seen(event)),
            gap @ Item::Gap(_) => gap,
        }))
    }
}

/// Yields until the session is over; [`WatchStream::next`] also says why it is.
impl Stream for WatchStream {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.poll_item(context).map(Result::ok)
    }
}

/// Takes the watch away when nobody waits for it any more.
#[derive(Debug)]
struct Registration {
    watcher: Option<WatcherId>,
    chroot: Chroot,
    line: Arc<Line>,
}

impl Registration {
    fn seen(&self, mut event: Event) -> Event {
        if let Some(seen) = self.chroot.seen(&event.path)
            && seen.len() != event.path.len()
        {
            event.path = seen.to_owned();
        }
        event
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            self.line.add(Work::Unwatch(watcher));
        }
    }
}
