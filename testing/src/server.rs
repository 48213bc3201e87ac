//! One server of an ensemble, as a test sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::SessionId;

use crate::Error;
use crate::board::Board;
use crate::host::Host;
use crate::port::Port;
use crate::proxy::{Action, Corruption, Fault, Proxy, Which};

/// One server of an [`crate::Ensemble`], with all that can happen to it.
///
/// Faults on connections concern those of clients to this server only, and stay in force while it is
/// stopped and started.
#[derive(Debug)]
pub struct Server {
    id: u64,
    host: Arc<Host>,
    proxy: Proxy,
    board: Board,
    /// Its peers find it there.
    _peer_ports: [Port; 2],
}

impl Server {
    pub(crate) fn new(
        id: u64,
        host: Arc<Host>,
        proxy: Proxy,
        board: Board,
        peer_ports: [Port; 2],
    ) -> Self {
        Self {
            id,
            host,
            proxy,
            board,
            _peer_ports: peer_ports,
        }
    }

    /// Its number, from 1.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where clients find it, also after a restart.
    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// [`Server::address`] as clients take it: `127.0.0.1:41234`.
    pub fn connect_string(&self) -> String {
        self.address().to_string()
    }

    /// Whether it has been started, and neither stopped nor killed since.
    pub fn is_running(&self) -> bool {
        self.board.status(self.id).is_up()
    }

    /// Stops it in order, as an operator would: it hands leadership over, disconnects its clients and
    /// closes its log. Returns when nothing of it is left.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`].
    pub async fn stop(&self) -> Result<(), Error> {
        let (host, proxy, id) = (Arc::clone(&self.host), self.proxy.clone(), self.id);
        let stopped = async move {
            host.stop().await?;
            proxy.lead_to(None).await;
            Ok(())
        };
        let what = format!("server {id} to stop");
        self.proxy.run(what, stopped).await
    }

    /// Kills it, as by `SIGKILL`: it ends where it stands, all its connections with it. What it has
    /// acknowledged is on disk; what it was about to say is never said.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`].
    pub async fn kill(&self) -> Result<(), Error> {
        let (host, proxy, id) = (Arc::clone(&self.host), self.proxy.clone(), self.id);
        let killed = async move {
            host.kill().await?;
            proxy.cut();
            proxy.lead_to(None).await;
            Ok(())
        };
        let what = format!("server {id} to end");
        self.proxy.run(what, killed).await
    }

    /// Starts it again, at the same address and with its data. Returns when it serves; or, where too
    /// few servers are up and connected to serve, when it is one of them.
    ///
    /// # Errors
    ///
    /// [`Error::Running`], or why it does not start.
    pub async fn start(&self) -> Result<(), Error> {
        let launched = self.launch();
        let (board, id) = (self.board.clone(), self.id);
        let started = async move {
            launched.await?;
            if board.has_majority(id) {
                board.ready(id).await?;
            }
            Ok(())
        };
        let what = format!("server {id} to start");
        self.proxy.run(what, started).await
    }

    /// Starts it, and has clients find it. Not to be polled on the test's own runtime.
    pub(crate) fn launch(
        &self,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> + 'static {
        let (host, proxy) = (Arc::clone(&self.host), self.proxy.clone());
        async move {
            let address = host.start().await?;
            proxy.lead_to(Some(address)).await;
            Ok(())
        }
    }

    /// Has it stand still, as by `SIGSTOP`: its connections stay, and nothing is said on them. The others
    /// go on without it. It can be stopped or killed all the same.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`].
    pub async fn freeze(&self) -> Result<(), Error> {
        let host = Arc::clone(&self.host);
        let what = format!("server {} to stand still", self.id);
        self.proxy
            .run(what, async move { host.freeze().await })
            .await
    }

    /// Lets it go on after [`Server::freeze`].
    pub fn thaw(&self) {
        self.host.thaw();
    }

    /// Waits until it has caught up with the others since it was started. A server that was cut off
    /// meanwhile counts: it was there before.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], or [`Error::Late`]: too few servers are up and connected.
    pub async fn wait_until_ready(&self) -> Result<(), Error> {
        let (board, server) = (self.board.clone(), self.id);
        if !self.is_running() {
            return Err(Error::NotRunning { server });
        }
        let what = format!("server {server} to serve");
        let ready = async move { board.ready(server).await };
        self.proxy.run(what, ready).await
    }

    /// Whether a client with this session is connected to it. A connection that was just cut may count for
    /// a moment longer.
    pub fn serves(&self, session: impl Into<i64>) -> bool {
        SessionId::new(session.into()).is_some_and(|session| self.proxy.serves(session))
    }

    /// Waits until a client with this session is connected to it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSession`] for 0, or [`Error::Late`]: it does not come.
    pub async fn wait_until_it_serves(&self, session: impl Into<i64>) -> Result<(), Error> {
        let session = SessionId::new(session.into()).ok_or(Error::NoSession)?;
        let proxy = self.proxy.clone();
        let served = async move {
            proxy.until_serving(session).await;
            Ok(())
        };
        let what = format!("session {session} to be on server {}", self.id);
        self.proxy.run(what, served).await
    }

    /// Cuts all connections of clients, in the middle of whatever was under way. They may connect
    /// again at once.
    pub fn cut_connections(&self) {
        self.proxy.cut();
    }

    /// Refuses new connections, as if nobody listened; or no longer. Those that are there stay: see
    /// [`Server::cut_connections`].
    pub async fn refuse_connections(&self, refuses: bool) {
        self.proxy.refuse(refuses).await;
    }

    /// Lets clients connect and then hear nothing: bytes are held back both ways. What was held is
    /// passed on as soon as it hangs no longer.
    pub fn hang(&self, hangs: bool) {
        self.proxy.hang(hangs);
    }

    /// Has everything take so much longer, each way. Zero for no longer.
    pub fn delay(&self, delay: Duration) {
        self.proxy.delay(delay);
    }

    /// Cuts the connection on which the next request of this kind comes, before the server sees it:
    /// the request has no effect, and the client cannot know. What came before it is answered first.
    pub fn cut_before_next(&self, which: impl Into<Which>) -> Fault {
        self.proxy.strike(which.into(), Action::CutBefore)
    }

    /// Has the server answer the next request of this kind, and cuts the connection in place of the
    /// answer: the request has its effect, and the client cannot know. What was to be said before the
    /// answer is said.
    pub fn cut_after_commit(&self, which: impl Into<Which>) -> Fault {
        self.proxy.strike(which.into(), Action::CutAfter)
    }

    /// Lets the next request of this kind through untouched: a fault that is asked for after this one
    /// strikes the request after it. So a test tries every step of a longer conversation in turn.
    pub fn pass_next(&self, which: impl Into<Which>) -> Fault {
        self.proxy.strike(which.into(), Action::Pass)
    }

    /// Has the server answer the next request of this kind, and keeps the answer back for ever. All
    /// else goes on.
    pub fn withhold_reply(&self, which: impl Into<Which>) -> Fault {
        self.proxy.strike(which.into(), Action::Withhold)
    }

    /// Spoils the answer to the next request of this kind.
    pub fn corrupt_reply(&self, which: impl Into<Which>, corruption: Corruption) -> Fault {
        self.proxy.strike(which.into(), Action::Corrupt(corruption))
    }

    /// Takes back all that was done to the connections of this server: no refusal, delay or fault is
    /// left, and nothing hangs.
    pub async fn heal_connections(&self) {
        self.proxy.disarm();
        self.proxy.delay(Duration::ZERO);
        self.proxy.hang(false);
        self.proxy.refuse(false).await;
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}
