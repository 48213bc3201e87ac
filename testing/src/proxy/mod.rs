//! What stands between the clients and one server, and breaks their connections when told to.
//!
//! It listens exactly while the server is up and clients are not to be refused, so that they see what
//! the operating system does then. It forwards frames, and knows which reply belongs to which request,
//! so that a fault strikes the request it was meant for. What is not ZooKeeper's protocol, or a
//! four-letter word, passes as it is.

mod connection;
mod faults;
mod talk;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::SessionId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use self::faults::Action;
pub use self::faults::{Corruption, Fault, Which};

use self::faults::Faults;
use crate::Error;
use crate::port::Port;
use crate::stage::Director;

/// What the proxy is to do with all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Settings {
    /// The server's own client port; `None` while it is down.
    upstream: Option<SocketAddr>,
    refuses: bool,
    hangs: bool,
    delay: Duration,
    /// Counts the cuts: a connection from before the last one is to end.
    cuts: u64,
}

impl Settings {
    /// Where to, if clients are to get through.
    fn way(&self) -> Option<SocketAddr> {
        self.upstream.filter(|_| !self.refuses)
    }
}

/// The client port that a test sees. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    director: Director,
}

#[derive(Debug)]
struct Shared {
    port: Port,
    settings: watch::Sender<Settings>,
    /// The settings by which it now listens, or does not.
    obeyed: watch::Sender<Settings>,
    faults: Faults,
    /// The sessions of the clients that are connected, one for each connection.
    sessions: watch::Sender<Vec<SessionId>>,
}

impl Proxy {
    /// Begins, with a server that is down.
    pub(crate) fn start(port: Port, director: &Director) -> Self {
        let shared = Arc::new(Shared {
            port,
            settings: watch::Sender::default(),
            obeyed: watch::Sender::default(),
            faults: Faults::default(),
            sessions: watch::Sender::default(),
        });
        director.spawn(accept(Arc::clone(&shared)));
        Self {
            shared,
            director: director.clone(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.port.address()
    }

    /// Says where the server is, or that it is down.
    pub(crate) async fn lead_to(&self, upstream: Option<SocketAddr>) {
        self.listen(|settings| settings.upstream = upstream).await;
    }

    pub(crate) async fn refuse(&self, refuses: bool) {
        self.listen(|settings| settings.refuses = refuses).await;
    }

    /// Changes what decides whether it listens, and waits until it does so.
    async fn listen(&self, change: impl FnOnce(&mut Settings)) {
        self.shared.settings.send_modify(change);
        let wanted = self.shared.settings.borrow().way();
        let mut obeyed = self.shared.obeyed.subscribe();
        // The sender is ours.
        obeyed.wait_for(|now| now.way() == wanted).await.ok();
    }

    pub(crate) fn hang(&self, hangs: bool) {
        let change = |settings: &mut Settings| settings.hangs = hangs;
        self.shared.settings.send_modify(change);
    }

    pub(crate) fn delay(&self, delay: Duration) {
        let change = |settings: &mut Settings| settings.delay = delay;
        self.shared.settings.send_modify(change);
    }

    pub(crate) fn cut(&self) {
        self.shared
            .settings
            .send_modify(|settings| settings.cuts += 1);
    }

    pub(crate) fn strike(&self, which: Which, action: Action) -> Fault {
        self.shared.faults.arm(which, action, self.director.clone())
    }

    pub(crate) fn serves(&self, session: SessionId) -> bool {
        self.shared.sessions.borrow().contains(&session)
    }

    /// Resolves when a client with this session is connected. Cancel safe.
    pub(crate) async fn until_serving(&self, session: SessionId) {
        let mut sessions = self.shared.sessions.subscribe();
        // The sender is ours.
        sessions
            .wait_for(|sessions| sessions.contains(&session))
            .await
            .ok();
    }

    pub(crate) fn disarm(&self) {
        self.shared.faults.clear();
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: String,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.director.run(what, work).await
    }
}

/// Listens whenever clients are to get through, and serves them.
async fn accept(shared: Arc<Shared>) {
    let mut settings = shared.settings.subscribe();
    let mut connections = JoinSet::new();
    let mut listener: Option<TcpListener> = None;
    loop {
        let now = *settings.borrow_and_update();
        if now.way().is_none() {
            listener = None;
        } else if listener.is_none() {
            // The port is ours: nobody else can listen there.
            listener = shared.port.listen().ok();
        }
        shared.obeyed.send_replace(now);
        tokio::select! {
            biased;
            // The sender is in `shared`.
            _ = settings.changed() => {}
            Some(_) = connections.join_next() => {}
            client = accept_from(listener.as_ref()) => if let Some(client) = client {
                // As it stands now: a later cut is to end it.
                let serving = connection::serve(Arc::clone(&shared), client);
                connections.spawn(serving);
            },
        }
    }
}

/// The next client, if anybody listens; pauses when the process has run out of file descriptors.
async fn accept_from(listener: Option<&TcpListener>) -> Option<TcpStream> {
    const PAUSE: Duration = Duration::from_millis(10);
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    match listener.accept().await {
        Ok((client, _)) => Some(client),
        Err(_) => {
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}
