//! All servers together.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use quorate_protocol::SessionId;
use tempfile::TempDir;

use crate::Error;
use crate::board::Board;
use crate::builder::Builder;
use crate::host::Host;
use crate::server::Server;
use crate::stage::Stage;

/// Between attempts at what the leader could not do.
const RETRY: Duration = Duration::from_millis(10);

/// Servers inside this process, and what is between them and their clients.
///
/// Dropping it ends all of it, and removes its files.
#[derive(Debug)]
pub struct Ensemble {
    /// By id, from 1.
    servers: Vec<Server>,
    board: Board,
    /// Dropped by hand, before the servers are.
    stage: Option<Stage>,
    /// Removed last.
    _folder: TempDir,
}

impl Ensemble {
    /// Starts so many servers, and returns when all of them serve.
    ///
    /// # Errors
    ///
    /// [`Error`]: the machine lacks something, or it takes too long.
    pub async fn start(servers: usize) -> Result<Self, Error> {
        Self::builder().servers(servers).start().await
    }

    /// Says what the ensemble is to be like.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(servers: Vec<Server>, board: Board, stage: Stage, folder: TempDir) -> Self {
        Self {
            servers,
            board,
            stage: Some(stage),
            _folder: folder,
        }
    }

    /// Starts all at once: they need each other.
    pub(crate) async fn start_all(&self) -> Result<(), Error> {
        let launches: Vec<_> = self.servers.iter().map(Server::launch).collect();
        let first = Arc::clone(self.servers[0].host());
        let board = self.board.clone();
        let ids: Vec<u64> = self.servers.iter().map(Server::id).collect();
        let started = async move {
            try_join_all(launches).await?;
            // Those that tried before found too few, and would wait for a timeout to try again.
            first.stand_for_election();
            try_join_all(ids.into_iter().map(|id| board.ready(id))).await?;
            Ok(())
        };
        self.run("the ensemble to start".to_owned(), started).await
    }

    /// Where clients find the servers: `127.0.0.1:41234,127.0.0.1:41237,...`. It stays the same
    /// whatever happens to them.
    pub fn connect_string(&self) -> String {
        let addresses: Vec<String> = self.servers.iter().map(Server::connect_string).collect();
        addresses.join(",")
    }

    /// One of the servers.
    ///
    /// # Panics
    ///
    /// If there is no server of this number; the first is 1.
    #[track_caller]
    pub fn server(&self, id: u64) -> &Server {
        let server = self.servers.iter().find(|server| server.id() == id);
        match server {
            Some(server) => server,
            None => panic!("there are servers 1 to {}, not {id}", self.servers.len()),
        }
    }

    /// All servers, those that are down as well.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter()
    }

    /// The server that leads, unless there is none at the moment. One that was cut off from the
    /// others does not count, whatever it believes.
    pub fn leader(&self) -> Option<u64> {
        self.board.leader()
    }

    /// Waits until a server leads, and says which.
    ///
    /// # Errors
    ///
    /// [`Error::Late`]: too few servers are up and connected.
    pub async fn wait_for_leader(&self) -> Result<u64, Error> {
        let board = self.board.clone();
        let led = async move { Ok(board.led().await) };
        self.run("a server to lead".to_owned(), led).await
    }

    /// The server that a client with this session is connected to.
    pub fn server_of(&self, session: impl Into<i64>) -> Option<&Server> {
        let session = session.into();
        self.servers.iter().find(|server| server.serves(session))
    }

    /// Ends a session as if its client had been silent for its timeout: its ephemeral znodes go, and
    /// its client hears that it has expired. On return it has ended on the leader, and on all servers
    /// that are connected with it. One that had ended before is left as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NoSession`] for 0, or [`Error::Late`]: too few servers are up and connected.
    pub async fn expire(&self, session: impl Into<i64>) -> Result<(), Error> {
        let session = SessionId::new(session.into()).ok_or(Error::NoSession)?;
        let board = self.board.clone();
        let hosts = self.servers.iter();
        let hosts: BTreeMap<u64, Arc<Host>> = hosts
            .map(|server| (server.id(), Arc::clone(server.host())))
            .collect();
        let expired = async move {
            let (leader, zxid) = loop {
                let leader = board.led().await;
                let expired = tokio::select! {
                    expired = hosts[&leader].expire(session) => expired,
                    () = board.led_otherwise(leader) => None,
                };
                if let Some(zxid) = expired {
                    break (leader, zxid);
                }
                // A new leader takes a round trip to be able to.
                tokio::time::sleep(RETRY).await;
            };
            let others = board.reached_from(leader);
            join_all(others.iter().map(|other| hosts[other].reach(zxid))).await;
            Ok(())
        };
        self.run(format!("session {session} to expire"), expired)
            .await
    }

    /// Cuts the ways between the servers of one group and those of the other, both ways and at once.
    /// Clients still reach all of them. Cuts add up until [`Ensemble::heal`].
    ///
    /// # Panics
    ///
    /// If there is no server of a number.
    #[track_caller]
    pub fn partition(&self, some: &[u64], others: &[u64]) {
        for id in some.iter().chain(others) {
            self.server(*id);
        }
        self.board.part(some, others);
    }

    /// Opens all ways between servers again.
    pub fn heal(&self) {
        self.board.heal();
    }

    async fn run<T: Send + 'static>(
        &self,
        what: String,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        // Any server's will do: there is one stage.
        self.servers[0].proxy().run(what, work).await
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        // Nothing is started any more, and no client is served.
        self.stage = None;
        for server in &self.servers {
            server.host().abandon();
        }
        for server in &self.servers {
            server.host().join();
        }
    }
}

/// One server, which is all of its ensemble: enough for most tests.
///
/// Everything that can happen to a [`Server`] can happen to it.
#[derive(Debug)]
pub struct TestServer {
    ensemble: Ensemble,
}

impl TestServer {
    /// Starts a server, and returns when it serves.
    ///
    /// # Errors
    ///
    /// [`Error`]: the machine lacks something, or it takes too long.
    pub async fn start() -> Result<Self, Error> {
        let ensemble = Ensemble::start(1).await?;
        Ok(Self { ensemble })
    }

    /// As [`Ensemble::expire`].
    ///
    /// # Errors
    ///
    /// As [`Ensemble::expire`].
    pub async fn expire(&self, session: impl Into<i64>) -> Result<(), Error> {
        self.ensemble.expire(session).await
    }
}

impl Deref for TestServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.ensemble.server(1)
    }
}
