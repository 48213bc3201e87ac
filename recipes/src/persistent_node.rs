//! An ephemeral znode that is there for as long as somebody wants it to be.
//!
//! A task of its own, which the handle owns, creates it, and creates it again whenever it is gone:
//! after the session has expired, when somebody has deleted it or a znode above it. It never writes
//! to, and never deletes, a znode that it has not created itself: what is there is known as its own
//! by the session that owns it, and by the zxid of its creation.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quorate_client::watch::WatchStream;
use quorate_client::{AclEntry, Client, Outcome, Reason, SessionId, Stat, Zxid};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Error;
use crate::patience::Patience;

/// Earlier sessions of our own that are remembered. Each is gone moments after the next began.
const FORMER_MAX: usize = 8;
/// Attempts in a row at a znode that others change each time, before there is a pause.
const ATTEMPTS_MAX: u32 = 16;

/// An ephemeral znode that is created again whenever it is gone: its options.
///
/// ```no_run
/// # use quorate_client::{Client, OnExpiry};
/// # use quorate_recipes::PersistentNode;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = Client::builder("localhost:2181").on_expiry(OnExpiry::NewSession);
/// let client = builder.connect().await?;
///
/// let node = PersistentNode::new(&client, "/workers/7").data("idle").keep();
/// node.present().await?;
/// node.set("busy").await?;
/// node.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is created before `.keep()`"]
pub struct PersistentNode {
    client: Client,
    path: String,
    data: Bytes,
    acl: Vec<AclEntry>,
    former: Vec<SessionId>,
}

impl PersistentNode {
    /// At this path. What is above it is created where it is missing.
    pub fn new(client: &Client, path: &str) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            data: Bytes::new(),
            acl: vec![AclEntry::open()],
            former: Vec::new(),
        }
    }

    /// Its data. Empty by default.
    pub fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data = Bytes::copy_from_slice(data.as_ref());
        self
    }

    /// Who may do what with it. Everybody everything, by default. Who creates it has to be among those
    /// who may read and write it.
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.acl = acl.into();
        self
    }

    /// A session that was ours before this process began, as it was written down then: if it still owns
    /// the znode, that one is deleted instead of waited for. Sessions of this client are remembered
    /// without it.
    pub fn former_session(mut self, session: SessionId) -> Self {
        self.former.push(session);
        self
    }

    /// Has it there from now on, until the handle is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn keep(self) -> KeptNode {
        let stop = CancellationToken::new();
        let (wanted, wanted_seen) = watch::channel(Wanted {
            data: self.data,
            number: 1,
        });
        let (status, status_seen) = watch::channel(Status {
            state: NodeState::Absent(Absent::Starting),
            tried: 0,
            unclean: None,
        });
        let keeper = Keeper {
            client: self.client,
            path: self.path.clone(),
            acl: self.acl,
            stop: stop.clone(),
            wanted: wanted_seen,
            status,
            session: None,
            former: Vec::new(),
            given: self.former,
            mine: None,
            unsure: false,
            done: 0,
        };
        tokio::spawn(keeper.run());
        KeptNode {
            path: self.path.into(),
            shared: Arc::new(Shared {
                wanted,
                status: status_seen,
                _stop: stop.clone().drop_guard(),
            }),
            stop,
        }
    }
}

/// Whether the znode is there, as far as its keeper knows. While the client is not connected nobody
/// can know; then this is what was known last.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NodeState {
    /// It is.
    Present {
        /// The session that owns it.
        session: SessionId,
        /// The write that created it: another one each time.
        created: Zxid,
    },
    /// It is not, and why.
    Absent(Absent),
}

impl NodeState {
    /// Whether it is there.
    pub fn is_present(&self) -> bool {
        matches!(self, Self::Present { .. })
    }
}

/// Why a znode that ought to be there is not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Absent {
    /// It has not been created yet.
    Starting,
    /// Somebody has deleted it. It is being created again.
    Deleted,
    /// The session has expired. It is created again in the next one.
    SessionExpired,
    /// The one that is there is from an earlier session of ours, and about to go.
    FormerSession(SessionId),
    /// A znode of somebody else is there. Ours is created when that one has gone.
    Taken {
        /// The session that owns it; `None` if it is not ephemeral.
        owner: Option<SessionId>,
    },
    /// It cannot be created, or its data not be set. Tried again from time to time.
    Failed(quorate_client::Error),
    /// The client has no session any more, and begins no other. The end.
    SessionOver(quorate_client::Error),
    /// The handle was closed or dropped. The end.
    Closed,
}

impl Absent {
    /// Whether it will pass without anybody else doing anything.
    fn passes(&self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Deleted | Self::SessionExpired | Self::FormerSession(_)
        )
    }

    fn into_error(self, path: &str) -> Error {
        match self {
            Self::Failed(error) | Self::SessionOver(error) => Error::Client(error),
            Self::Taken { owner } => Error::Taken {
                path: path.to_owned(),
                owner,
            },
            _ => Error::Closed {
                path: path.to_owned(),
            },
        }
    }
}

/// A znode that is there for as long as this handle, or a clone of it, is.
///
/// When the last clone is dropped the znode is deleted in the background; [`KeptNode::close`] does the
/// same and waits for it.
///
/// It does not promise that the znode is there at any moment: between its going and its being created
/// again there is at least a round trip, and as long as no server is reached nothing happens. Others
/// may change its data: that is left as it is until the next [`KeptNode::set`], or until it is created
/// again.
///
/// Two handles for one path on one client get in each other's way: the second sees
/// [`Absent::Taken`].
#[derive(Clone)]
pub struct KeptNode {
    path: Arc<str>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl fmt::Debug for KeptNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptNode")
            .field("path", &self.path)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

struct Shared {
    wanted: watch::Sender<Wanted>,
    status: watch::Receiver<Status>,
    _stop: DropGuard,
}

#[derive(Clone)]
struct Wanted {
    data: Bytes,
    /// Counts the calls of `set`.
    number: u64,
}

#[derive(Clone)]
struct Status {
    state: NodeState,
    /// The number of what was wanted when this was found out.
    tried: u64,
    /// Why it could not be deleted in the end.
    unclean: Option<quorate_client::Error>,
}

impl KeptNode {
    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is there.
    pub fn state(&self) -> NodeState {
        self.shared.status.borrow().state.clone()
    }

    /// What becomes of it from now on.
    pub fn states(&self) -> NodeStates {
        let mut receiver = self.shared.status.clone();
        receiver.mark_unchanged();
        NodeStates { receiver }
    }

    /// Waits until it is there; answers the write that created it.
    ///
    /// Cancel safe: what has begun goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`]: somebody else has it, and the keeper waits until that one has gone. Those of
    /// any request, that the keeper tries again if it makes sense. [`Error::Closed`].
    pub async fn present(&self) -> Result<Zxid, Error> {
        self.reached(0).await
    }

    /// Has it hold other data: now, and each time that it is created again. Returns when it does.
    ///
    /// Cancel safe: the data is set all the same.
    ///
    /// # Errors
    ///
    /// As [`KeptNode::present`]. The new data is kept, and used when it is there again.
    pub async fn set(&self, data: impl AsRef<[u8]>) -> Result<(), Error> {
        let mut number = 0;
        self.shared.wanted.send_modify(|wanted| {
            wanted.data = Bytes::copy_from_slice(data.as_ref());
            wanted.number += 1;
            number = wanted.number;
        });
        self.reached(number).await.map(drop)
    }

    async fn reached(&self, number: u64) -> Result<Zxid, Error> {
        let mut status = self.shared.status.clone();
        loop {
            let now = status.borrow_and_update().clone();
            match now.state {
                NodeState::Present { created, .. } if now.tried >= number => return Ok(created),
                NodeState::Absent(reason)
                    if !reason.passes()
                        && (now.tried >= number
                            || matches!(reason, Absent::Closed | Absent::SessionOver(_))) =>
                {
                    return Err(reason.into_error(&self.path));
                }
                _ => {}
            }
            if status.changed().await.is_err() {
                return Err(Absent::Closed.into_error(&self.path));
            }
        }
    }

    /// Deletes it, and waits until it is gone: also for all clones. If no server is reached for the
    /// session's timeout it goes with the session.
    ///
    /// Cancel safe: it goes on.
    ///
    /// # Errors
    ///
    /// It may not be deleted (an ACL). It goes with the session.
    pub async fn close(self) -> Result<(), Error> {
        self.stop.cancel();
        let mut status = self.shared.status.clone();
        // It ends when the keeper does.
        while status.changed().await.is_ok() {}
        let unclean = status.borrow().unclean.clone();
        unclean.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// What becomes of a kept znode, as it comes. A slow reader misses states in between, never the latest.
#[derive(Clone)]
pub struct NodeStates {
    receiver: watch::Receiver<Status>,
}

impl fmt::Debug for NodeStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeStates").field(&self.current()).finish()
    }
}

impl NodeStates {
    /// The state now.
    pub fn current(&self) -> NodeState {
        self.receiver.borrow().state.clone()
    }

    /// Waits for the next state; `None` once there will be no other. Cancel safe.
    pub async fn next(&mut self) -> Option<NodeState> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().state.clone())
    }
}

/// The task.
struct Keeper {
    client: Client,
    path: String,
    acl: Vec<AclEntry>,
    stop: CancellationToken,
    wanted: watch::Receiver<Wanted>,
    status: watch::Sender<Status>,
    /// The one that the last attempt was made with.
    session: Option<SessionId>,
    /// Those of this client before it.
    former: Vec<SessionId>,
    /// Those that we were told of.
    given: Vec<SessionId>,
    /// The write that created it.
    mine: Option<Zxid>,
    /// A create was sent, and what became of it is not known.
    unsure: bool,
    /// The number of what its data is.
    done: u64,
}

/// What an attempt has come to.
enum Found {
    /// It is there, or has to be waited for: the watch tells when that changes.
    Settled,
    /// Look again, now.
    Again,
}

impl Keeper {
    async fn run(mut self) {
        let mut patience = Patience::new(&self.client);
        let mut watch = None;
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            // Not cancelled in the middle: what was sent has to be known before it can be undone.
            let Err(error) = self.settle(&mut watch).await else {
                patience.reset();
                let Some(events) = watch.as_mut() else {
                    continue;
                };
                tokio::select! {
                    () = stop.cancelled() => break,
                    // A change of what is wanted. The sender goes with the handle.
                    _ = self.wanted.changed() => {}
                    // Whatever it is: look. When the session is over, a request says so.
                    event = events.next() => if event.is_err() {
                        watch = None;
                    },
                }
                continue;
            };
            self.on_error(&error);
            if error.needs_new_session() {
                watch = None;
            }
            let session = self.session;
            tokio::select! {
                () = stop.cancelled() => break,
                goes_on = patience.outlast(&self.client, session, &error) => {
                    if !goes_on {
                        self.publish(NodeState::Absent(Absent::SessionOver(error)));
                        return;
                    }
                }
                _ = self.wanted.changed() => {}
            }
        }
        let unclean = self.retire().await.err();
        if let Some(error) = &unclean {
            tracing::warn!(path = self.path, %error, "a kept znode is left to its session");
        }
        self.finish(unclean);
    }

    /// Tells whoever listens the last that there is to tell.
    fn finish(&mut self, unclean: Option<quorate_client::Error>) {
        let status = Status {
            state: NodeState::Absent(Absent::Closed),
            tried: self.status.borrow().tried,
            unclean,
        };
        // The end of the channel is what they wait for.
        let (silent, _) = watch::channel(status.clone());
        std::mem::replace(&mut self.status, silent).send_replace(status);
    }

    fn publish(&self, state: NodeState) {
        let tried = self.wanted.borrow().number;
        self.status.send_modify(|status| {
            status.state = state;
            status.tried = tried;
        });
    }

    fn on_error(&mut self, error: &quorate_client::Error) {
        tracing::debug!(path = self.path, %error, "a kept znode: an attempt has failed");
        if error.needs_new_session() {
            self.publish(NodeState::Absent(Absent::SessionExpired));
        } else if !error.is_retryable() && error.outcome() != Outcome::Unknown {
            self.publish(NodeState::Absent(Absent::Failed(error.clone())));
        }
    }

    /// Does what can be done, until there is something to wait for.
    async fn settle(
        &mut self,
        watch: &mut Option<WatchStream>,
    ) -> Result<(), quorate_client::Error> {
        if watch.is_none() {
            *watch = Some(self.client.watch(&self.path).await?);
        }
        let mut patience = Patience::new(&self.client);
        loop {
            for _ in 0..ATTEMPTS_MAX {
                if self.stop.is_cancelled() {
                    return Ok(());
                }
                match self.attempt().await? {
                    Found::Settled => return Ok(()),
                    Found::Again => {}
                }
            }
            patience.pause().await;
        }
    }

    async fn attempt(&mut self) -> Result<Found, quorate_client::Error> {
        self.note_session();
        let Some((data, stat)) = self.look().await? else {
            return self.create().await;
        };
        if !self.is_mine(&stat) {
            return self.wait_or_remove(&stat).await;
        }
        let wanted = self.wanted.borrow().clone();
        if self.done != wanted.number && data != wanted.data {
            let set = self.client.set(&self.path, &wanted.data);
            match set.if_version(stat.version).await {
                Ok(_) => {}
                // Others were faster.
                Err(error) if error.is(Reason::BadVersion) || error.is(Reason::NoNode) => {
                    return Ok(Found::Again);
                }
                Err(error) => return Err(error),
            }
        }
        self.done = wanted.number;
        self.publish_present(&stat);
        Ok(self.settled())
    }

    fn publish_present(&self, stat: &Stat) {
        if let Some(session) = SessionId::new(stat.ephemeral_owner) {
            let state = NodeState::Present {
                session,
                created: stat.czxid,
            };
            let tried = self.done;
            self.status.send_if_modified(|status| {
                let is_known = matches!(status.state, NodeState::Present { created, .. }
                    if created == stat.czxid);
                let is_news = !is_known || status.tried != tried;
                status.state = state;
                status.tried = tried;
                is_news
            });
        }
    }

    /// Unless something else has been asked for meanwhile.
    fn settled(&self) -> Found {
        if self.wanted.borrow().number == self.done {
            Found::Settled
        } else {
            Found::Again
        }
    }

    fn note_session(&mut self) {
        let session = self.client.session();
        if session == self.session {
            return;
        }
        if let Some(former) = self.session {
            if self.former.len() == FORMER_MAX {
                self.former.remove(0);
            }
            self.former.push(former);
            self.mine = None;
            self.unsure = false;
        }
        self.session = session;
    }

    async fn look(&mut self) -> Result<Option<(Bytes, Stat)>, quorate_client::Error> {
        if self.unsure {
            // The server may be behind the one that was lost.
            self.client.sync(&self.path).await?;
        }
        match self.client.get(&self.path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is(Reason::NoNode) => {
                self.unsure = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn is_mine(&mut self, stat: &Stat) -> bool {
        let owner = SessionId::new(stat.ephemeral_owner);
        if owner.is_none() || owner != self.session {
            return false;
        }
        if self.unsure {
            // It was not there before we sent the create, and our session's is there now.
            self.unsure = false;
            self.mine = Some(stat.czxid);
        }
        self.mine == Some(stat.czxid)
    }

    /// What is there is not ours, or no longer.
    async fn wait_or_remove(&mut self, stat: &Stat) -> Result<Found, quorate_client::Error> {
        let owner = SessionId::new(stat.ephemeral_owner);
        match owner {
            Some(owner) if self.former.contains(&owner) => {
                // It is over, and about to be cleaned up.
                self.publish(NodeState::Absent(Absent::FormerSession(owner)));
            }
            Some(owner) if self.given.contains(&owner) && Some(owner) != self.session => {
                self.publish(NodeState::Absent(Absent::FormerSession(owner)));
                let delete = self.client.delete(&self.path).if_version(stat.version);
                match delete.await {
                    Err(error) if !error.is(Reason::NoNode) && !error.is(Reason::BadVersion) => {
                        return Err(error);
                    }
                    _ => return Ok(Found::Again),
                }
            }
            _ => self.publish(NodeState::Absent(Absent::Taken { owner })),
        }
        Ok(Found::Settled)
    }

    async fn create(&mut self) -> Result<Found, quorate_client::Error> {
        if self.mine.take().is_some() {
            self.publish(NodeState::Absent(Absent::Deleted));
        }
        let wanted = self.wanted.borrow().clone();
        let create = self.client.create(&self.path, &wanted.data).ephemeral();
        match create.acl(self.acl.clone()).await {
            Ok(created) => {
                // Known better than the client's present session.
                self.session = SessionId::new(created.stat.ephemeral_owner);
                self.mine = Some(created.stat.czxid);
                self.done = wanted.number;
                self.publish_present(&created.stat);
                Ok(self.settled())
            }
            Err(error) if error.is(Reason::NodeExists) => Ok(Found::Again),
            Err(error) if error.is(Reason::NoNode) => {
                match self.path.rsplit_once('/') {
                    Some((parent, _)) if !parent.is_empty() => {
                        self.client.ensure_path(parent).await?;
                    }
                    _ => return Err(error),
                }
                Ok(Found::Again)
            }
            Err(error) => {
                self.unsure |= error.outcome() == Outcome::Unknown;
                Err(error)
            }
        }
    }

    /// Deletes what is ours. Goes on until it is gone, or its session is.
    async fn retire(&mut self) -> Result<(), quorate_client::Error> {
        let mut patience = Patience::new(&self.client);
        loop {
            self.note_session();
            if self.mine.is_none() && !self.unsure {
                return Ok(());
            }
            match self.remove().await {
                Ok(()) => return Ok(()),
                Err(error) if error.is(Reason::BadVersion) => {}
                Err(error) if error.needs_new_session() => return Ok(()),
                // No server for the session's timeout: it is gone, or it goes. Unless all servers
                // stood still meanwhile: who closes it waits no longer, and this goes on.
                Err(quorate_client::Error::TimedOut { .. }) => self.finish(None),
                Err(error) if error.is_retryable() || error.outcome() == Outcome::Unknown => {
                    let session = self.session;
                    if !patience.outlast(&self.client, session, &error).await {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn remove(&mut self) -> Result<(), quorate_client::Error> {
        let Some((_, stat)) = self.look().await? else {
            return Ok(());
        };
        if !self.is_mine(&stat) {
            return Ok(());
        }
        let delete = self.client.delete(&self.path).if_version(stat.version);
        match delete.await {
            Err(error) if error.is(Reason::NoNode) => Ok(()),
            other => other,
        }
    }
}
