//! The handle: what a service holds, clones and asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_protocol::{AclEntry, PathError, SessionId, Zxid};

use crate::builder::{ClientBuilder, ConnectError};
use crate::chroot::Chroot;
use crate::environment::{Clock, Randomness};
#[cfg(doc)]
use crate::error::Reason;
use crate::operation::{
    Authenticate, Children, ChildrenCount, Create, Delete, Ephemerals, Exists, Get, GetAcl,
    Reconfigure, Set, SetAcl, Sync, Watch, WhoAmI,
};
use crate::read_many::ReadMany;
use crate::session::lease::LeaseInstant;
use crate::session::line::{Closing, Line, Work};
use crate::session::state::{SessionState, SessionStates};
pub(crate) use crate::session::task::Shared;
use crate::session::ticket::SessionTicket;
use crate::transaction::Transaction;

/// A session with an ensemble.
///
/// Cheap to clone; all clones share the session, their requests are done in the order in which they
/// are made. The session ends when the last clone is dropped, and then its ephemeral znodes are
/// deleted; [`Client::close`] does the same and waits for it.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
    chroot: Chroot,
}

/// Ends the session with its last owner.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    frame_bytes_max: usize,
    next_number: AtomicU64,
}

/// Keeps a session's lease ahead until it is dropped. See [`Client::keep_lease`]. It does not keep
/// the session itself.
#[derive(Debug)]
pub struct LeaseKeeper(Arc<Line>);

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.0.let_lease_go();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.line.add(Work::Close(Closing::Session));
    }
}

impl Client {
    /// Connects to an ensemble: hosts separated by commas, each with a port (2181 if it has none),
    /// then, if all paths are to be below one, that path.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    ///
    /// ```no_run
    /// # use quorate_client::Client;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::connect("zk1:2181,zk2:2181,zk3:2181/app").await?;
    /// let (greeting, _) = client.get("/greeting").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(connect_string: &str) -> Result<Self, ConnectError> {
        Self::builder(connect_string).connect().await
    }

    /// Sets options before connecting.
    pub fn builder(connect_string: &str) -> ClientBuilder {
        ClientBuilder::new(connect_string)
    }

    pub(crate) fn new(shared: Arc<Shared>, chroot: Chroot, frame_bytes_max: usize) -> Self {
        Self {
            handle: Arc::new(Handle {
                shared,
                frame_bytes_max,
                next_number: AtomicU64::new(1),
            }),
            chroot,
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    pub(crate) fn frame_bytes_max(&self) -> usize {
        self.handle.frame_bytes_max
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.handle.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// The path that all others are below.
    pub fn chroot(&self) -> &Chroot {
        &self.chroot
    }

    /// The same session, with all paths below another one as well. The path need not exist.
    ///
    /// # Errors
    ///
    /// The path is none.
    pub fn with_chroot(&self, path: &str) -> Result<Self, PathError> {
        Ok(Self {
            handle: Arc::clone(&self.handle),
            chroot: self.chroot.join(path)?,
        })
    }

    pub(crate) fn at_root(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
            chroot: Chroot::default(),
        }
    }

    pub(crate) async fn wait_until_connected(&self, limit: Duration) -> Result<(), ConnectError> {
        let mut states = self.shared().states.clone();
        let reached = states.wait_for(|state| *state != SessionState::Connecting);
        let state = match tokio::time::timeout(limit, reached).await {
            Ok(state) => state.map_or(SessionState::Closed, |state| *state),
            Err(_) => SessionState::Connecting,
        };
        match state {
            SessionState::Expired => Err(ConnectError::TicketExpired),
            SessionState::AuthFailed => Err(ConnectError::AuthFailed),
            SessionState::Connecting | SessionState::Closed => Err(self.no_server(limit)),
            _ => Ok(()),
        }
    }

    pub(crate) fn no_server(&self, waited: Duration) -> ConnectError {
        ConnectError::NoServer {
            waited,
            failures: self.shared().failures.lock().clone(),
        }
    }

    // The session.

    /// Where the session stands.
    pub fn state(&self) -> SessionState {
        *self.shared().states.borrow()
    }

    /// The session's states from now on, as a stream that never drops the latest.
    pub fn states(&self) -> SessionStates {
        SessionStates::new(self.shared().states.clone())
    }

    /// The session, once a server has granted one.
    pub fn session(&self) -> Option<SessionId> {
        self.shared()
            .ticket
            .lock()
            .as_ref()
            .map(SessionTicket::session)
    }

    /// How long the session lives on without a connection: as granted, or as asked for while none
    /// is.
    pub fn session_timeout(&self) -> Duration {
        *self.shared().timeout.lock()
    }

    /// The highest zxid that this session has seen.
    pub fn last_zxid(&self) -> Zxid {
        Zxid(self.shared().last_zxid.load(Ordering::Relaxed))
    }

    /// Until when the session is certain to be alive: no server ends it before. `None` while there
    /// is none. Moves on as servers answer; when it is past, the session may have ended, and what it
    /// guarded with it.
    ///
    /// Against Quorate it follows the acknowledged pings, every third of the timeout. Against Apache
    /// ZooKeeper it moves only with [`Client::keep_lease`], or when `sync` is called.
    pub fn lease_deadline(&self) -> Option<LeaseInstant> {
        self.shared().lease.get().map(|(_, deadline)| deadline)
    }

    /// The same, for as long as this session is the current one; `None` from the moment that it is
    /// known to be over. What was obtained in one session must not outlive it in the next.
    pub fn lease_of(&self, session: SessionId) -> Option<LeaseInstant> {
        let lease = self.shared().lease.get();
        let lease = lease.filter(|(current, _)| *current == session);
        lease.map(|(_, deadline)| deadline)
    }

    /// Keeps [`Client::lease_deadline`] as far ahead as can be until what is returned is dropped, as
    /// [`ClientBuilder::keep_lease`] does for good: with a heartbeat every sixth of the timeout.
    pub fn keep_lease(&self) -> LeaseKeeper {
        let line = Arc::clone(&self.shared().line);
        line.keep_lease();
        LeaseKeeper(line)
    }

    /// Where this client reads the time.
    pub fn clock(&self) -> Clock {
        self.shared().clock
    }

    /// Where this client draws what it leaves to chance.
    pub fn randomness(&self) -> &Randomness {
        &self.shared().randomness
    }

    /// What it takes to go on with this session elsewhere. `None` while there is none.
    pub fn ticket(&self) -> Option<SessionTicket> {
        let mut ticket = self.shared().ticket.lock().clone()?;
        ticket.last_zxid = self.last_zxid();
        Some(ticket)
    }

    /// Ends the session, after all that was asked before, and waits until it is over: its ephemeral
    /// znodes are deleted. All clones are closed: what they ask from now on fails.
    ///
    /// If no server can be reached it gives up after the session's timeout or five seconds, whichever
    /// is longer; the session then ends by itself. Cancel safe: it goes on.
    pub async fn close(self) {
        self.shared().line.add(Work::Close(Closing::Session));
        self.wait_until_over().await;
    }

    /// Lets go of the session without ending it, and returns what it takes to go on with it. All
    /// clones are closed. `None` if there is no session.
    pub async fn detach(self) -> Option<SessionTicket> {
        self.shared().line.add(Work::Close(Closing::Task));
        self.wait_until_over().await;
        self.ticket()
    }

    async fn wait_until_over(&self) {
        let mut states = self.shared().states.clone();
        // It fails when there will be no other state.
        states
            .wait_for(|state| *state == SessionState::Closed)
            .await
            .ok();
    }

    /// Proves who we are, on this and every later connection: `("digest", b"user:password")`. Sent
    /// at once.
    ///
    /// # Errors
    ///
    /// [`Error::AuthFailed`](crate::Error::AuthFailed): the session is over.
    pub fn authenticate(&self, scheme: &str, proof: impl AsRef<[u8]>) -> Authenticate {
        Authenticate::new(self, scheme, proof.as_ref())
    }

    // Reads.

    /// Reads a znode's data and stat. No data (null) reads as empty; see [`Get::or_none`].
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoNode`], [`Reason::NoAuth`]; those of a lost connection or session.
    pub fn get(&self, path: &str) -> Get {
        Get::new(self, path)
    }

    /// Reads the names of a znode's children, in no particular order, and its stat.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoNode`], [`Reason::NoAuth`]; those of a lost connection or session.
    pub fn children(&self, path: &str) -> Children {
        Children::new(self, path)
    }

    /// Reads a znode's stat; `None` if there is no such znode.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of a lost connection or session.
    pub fn exists(&self, path: &str) -> Exists {
        Exists::new(self, path)
    }

    /// Reads a znode's ACL and stat.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoNode`], [`Reason::NoAuth`]; those of a lost connection or session.
    pub fn acl(&self, path: &str) -> GetAcl {
        GetAcl::new(self, path)
    }

    /// Counts a znode's descendants, at all depths.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoNode`]; those of a lost connection or session.
    pub fn count_descendants(&self, path: &str) -> ChildrenCount {
        ChildrenCount::new(self, path)
    }

    /// Lists the session's own ephemeral znodes below a path.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of a lost connection or session.
    pub fn ephemerals(&self, below: &str) -> Ephemerals {
        Ephemerals::new(self, below)
    }

    /// Several reads in one request, of one moment.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of a lost connection or session. What a single read does not find is in its own result.
    pub fn read_many(&self) -> ReadMany {
        ReadMany::new(self)
    }

    /// Waits until the server knows all writes that were acknowledged to anybody before: a read made
    /// after it sees them. Against Quorate this is proved by a majority.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of a lost connection or session.
    pub fn sync(&self, path: &str) -> Sync {
        Sync::new(self, path)
    }

    /// Watches a znode until the stream is dropped. It need not exist. See [`Watch::recursive`].
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoAuth`]; those of a lost connection or session.
    pub fn watch(&self, path: &str) -> Watch {
        Watch::new(self, path)
    }

    // Writes.

    /// Creates a znode, open to everybody and persistent unless told otherwise.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NodeExists`], [`Reason::NoNode`], [`Reason::NoAuth`],
    /// [`Reason::NoChildrenForEphemerals`], [`Reason::InvalidAcl`], [`Reason::QuotaExceeded`];
    /// those of a lost connection or session.
    pub fn create(&self, path: &str, data: impl AsRef<[u8]>) -> Create {
        Create::new(self, path, data.as_ref())
    }

    /// Replaces a znode's data; answers its new stat.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoNode`], [`Reason::BadVersion`], [`Reason::NoAuth`], [`Reason::QuotaExceeded`];
    /// those of a lost connection or session.
    pub fn set(&self, path: &str, data: impl AsRef<[u8]>) -> Set {
        Set::new(self, path, data.as_ref())
    }

    /// Deletes a znode that has no children.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoNode`], [`Reason::BadVersion`], [`Reason::NotEmpty`], [`Reason::NoAuth`]; those
    /// of a lost connection or session.
    pub fn delete(&self, path: &str) -> Delete {
        Delete::new(self, path)
    }

    /// Replaces a znode's ACL; answers its new stat.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoNode`], [`Reason::BadVersion`], [`Reason::NoAuth`], [`Reason::InvalidAcl`];
    /// those of a lost connection or session.
    pub fn set_acl(&self, path: &str, acl: impl Into<Vec<AclEntry>>) -> SetAcl {
        SetAcl::new(self, path, acl.into())
    }

    /// Begins a transaction: several writes and conditions, all or none.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of the operation that fails, with its place ([`Target::index`](crate::Target::index)).
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self)
    }

    // The rest.

    /// Lists the identities of the connection: pairs of scheme and user. Servers of Apache ZooKeeper
    /// know it from 3.7 on.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::Unimplemented`]; those of a lost connection or session.
    pub fn who_am_i(&self) -> WhoAmI {
        WhoAmI::new(self)
    }

    /// Reads the ensemble's members, as `/zookeeper/config` has them: never below the chroot.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoAuth`]; those of a lost connection or session.
    pub fn members(&self) -> Get {
        Get::new(&self.at_root(), "/zookeeper/config")
    }

    /// Changes the ensemble's members.
    ///
    /// Takes its place when it is sent or awaited. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoAuth`], [`Reason::BadVersion`], [`Reason::BadArguments`],
    /// [`Reason::ReconfigDisabled`], [`Reason::ReconfigInProgress`],
    /// [`Reason::NewConfigNoQuorum`]; those of a lost connection or session.
    pub fn reconfigure(&self) -> Reconfigure {
        Reconfigure::new(&self.at_root())
    }
}
