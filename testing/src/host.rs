//! One server, on a thread and a runtime of its own.
//!
//! To kill it is to drop that runtime: every task of the server is gone where it stood, its sockets
//! are closed, nothing is handed over or written any more. What the operating system was given stays,
//! as after a `SIGKILL`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use quorate_protocol::{SessionId, Zxid};
use quorate_server::config::Config;
use quorate_server::{Server, StartError};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::board::{Board, Status};

/// How long work that a kill cannot interrupt, a read or write of a file, is waited for.
const LAST_WORK: Duration = Duration::from_secs(10);

/// One server's place: it may be up or down.
#[derive(Debug)]
pub(crate) struct Host {
    id: u64,
    config: Config,
    board: Board,
    running: Mutex<Option<Running>>,
    /// While it stands still: its end lets it go on.
    frozen: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    /// Held while it is started or stopped.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Running {
    orders: mpsc::UnboundedSender<Order>,
    /// Resolves when nothing of the server is left but its thread's last instructions.
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// What a running server is told.
#[derive(Debug)]
enum Order {
    /// To end in order.
    Stop,
    /// To end at once.
    Kill,
    StandForElection,
    Expire(SessionId, oneshot::Sender<Option<Zxid>>),
    /// To stand still, once it has said so, until the other end is gone.
    Freeze(oneshot::Sender<()>, std::sync::mpsc::Receiver<()>),
    /// To say when it has applied so much.
    Reach(Zxid, oneshot::Sender<()>),
}

impl Host {
    pub(crate) fn new(id: u64, config: Config, board: Board) -> Arc<Self> {
        let config = Config {
            // Clients come by way of the proxy.
            client_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            ..config
        };
        Arc::new(Self {
            id,
            config,
            board,
            running: Mutex::default(),
            frozen: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Starts the server; returns where its client port is.
    pub(crate) async fn start(&self) -> Result<SocketAddr, Error> {
        let _turn = self.turn.lock().await;
        let server = self.id;
        if self.board.status(server).is_up() {
            return Err(Error::Running { server });
        }
        // It may have ended by itself.
        self.bury().await;
        let (orders, taken) = mpsc::unbounded_channel();
        let (started, has_started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (config, board) = (self.config.clone(), self.board.clone());
        let live = move || {
            // Dropped in reverse order, also by a panic.
            let _end = end;
            let _gone = Gone {
                server,
                board: board.clone(),
            };
            live(server, config, &board, started, taken);
        };
        let thread = thread::Builder::new()
            .name(format!("quorate-server-{server}"))
            .spawn(live)
            .map_err(Error::Thread)?;
        *self.running.lock() = Some(Running {
            orders,
            ended,
            thread,
        });
        let mut unless_started = Abandon(Some(self));
        match has_started.await {
            Ok(Ok(address)) => {
                unless_started.0 = None;
                Ok(address)
            }
            Ok(Err(NoStart::Start(source))) => Err(Error::Start { server, source }),
            Ok(Err(NoStart::Runtime(error))) => Err(Error::Thread(error)),
            Err(_) => Err(Error::Ended { server }),
        }
    }

    /// Stops the server in order: what it leads is handed over, clients are disconnected, the log is
    /// closed.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        self.end(Order::Stop).await
    }

    /// Ends the server where it stands.
    pub(crate) async fn kill(&self) -> Result<(), Error> {
        self.end(Order::Kill).await
    }

    async fn end(&self, order: Order) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let server = self.id;
        if !self.board.status(server).is_up() {
            return Err(Error::NotRunning { server });
        }
        self.order(order);
        self.thaw();
        self.bury().await;
        Ok(())
    }

    /// Waits for the end of the server's thread.
    async fn bury(&self) {
        // Left in its place while it is waited for, for `abandon` to find.
        let ended = match &mut *self.running.lock() {
            Some(running) => std::mem::replace(&mut running.ended, oneshot::channel().1),
            None => return,
        };
        // Nothing is ever sent.
        ended.await.ok();
        self.join();
    }

    /// Tells the server to end where it stands.
    pub(crate) fn abandon(&self) {
        self.order(Order::Kill);
        self.thaw();
    }

    /// Blocks until nothing of the server is left.
    pub(crate) fn join(&self) {
        let running = self.running.lock().take();
        if let Some(running) = running {
            join(running.thread);
        }
    }

    /// Stops the server's thread where it is: its sockets stay, and nobody reads or writes them.
    pub(crate) async fn freeze(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let server = self.id;
        if !self.board.status(server).is_up() {
            return Err(Error::NotRunning { server });
        }
        if self.frozen.lock().is_some() {
            return Ok(());
        }
        let (goes_on, waits) = std::sync::mpsc::channel();
        let (said, has_said) = oneshot::channel();
        *self.frozen.lock() = Some(goes_on);
        self.board.note(server, |status| status.frozen = true);
        self.order(Order::Freeze(said, waits));
        has_said.await.map_err(|_| Error::Ended { server })
    }

    /// Lets the server go on.
    pub(crate) fn thaw(&self) {
        if self.frozen.lock().take().is_some() {
            self.board.note(self.id, |status| status.frozen = false);
        }
    }

    /// Has the server stand for election, unless somebody leads.
    pub(crate) fn stand_for_election(&self) {
        self.order(Order::StandForElection);
    }

    /// Has the server, as leader, end a session. `None` if it does not lead, or is down.
    pub(crate) async fn expire(&self, session: SessionId) -> Option<Zxid> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Expire(session, answer));
        answered.await.ok().flatten()
    }

    /// Resolves when the server has applied `zxid`, or is down.
    pub(crate) async fn reach(&self, zxid: Zxid) {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Reach(zxid, answer));
        answered.await.ok();
    }

    /// Has no effect on a server that has ended.
    fn order(&self, order: Order) {
        if let Some(running) = &*self.running.lock() {
            running.orders.send(order).ok();
        }
    }
}

/// Says that a server is down.
struct Gone {
    server: u64,
    board: Board,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.board
            .note(self.server, |status| *status = Status::default());
    }
}

/// Ends a server whose start nobody waits for any more.
struct Abandon<'a>(Option<&'a Host>);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if let Some(host) = self.0 {
            host.abandon();
        }
    }
}

fn join(thread: JoinHandle<()>) {
    // A panic has been printed, and shows as a server that is down.
    let _ = thread.join();
}

/// Why a server is not there.
enum NoStart {
    Runtime(io::Error),
    Start(StartError),
}

/// The life of a server, on its own thread.
fn live(
    server: u64,
    config: Config,
    board: &Board,
    started: oneshot::Sender<Result<SocketAddr, NoStart>>,
    orders: mpsc::UnboundedReceiver<Order>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            started.send(Err(NoStart::Runtime(error))).ok();
            return;
        }
    };
    runtime.block_on(serve(server, config, board, started, orders));
    runtime.shutdown_timeout(LAST_WORK);
}

async fn serve(
    id: u64,
    config: Config,
    board: &Board,
    started: oneshot::Sender<Result<SocketAddr, NoStart>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let starting = Server::start_linked(config, board.links().clone());
    let server = tokio::select! {
        biased;
        // Nobody else knows of it yet, so this is the order to end.
        _ = orders.recv() => return,
        server = starting => match server {
            Ok(server) => server,
            Err(error) => {
                started.send(Err(NoStart::Start(error))).ok();
                return;
            }
        },
    };
    let address = server.client_address();
    board.note(id, |status| status.client_address = Some(address));
    started.send(Ok(address)).ok();
    if let Last::Stop = until_ordered(id, &server, board, &mut orders).await {
        // A log that does not close in order has all the same what was acknowledged.
        server.shutdown().await.ok();
    }
}

/// How a server is to end.
enum Last {
    Stop,
    AtOnce,
}

/// Keeps the board up to date and does what is ordered, until the server is to end, or has ended.
async fn until_ordered(
    id: u64,
    server: &Server,
    board: &Board,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) -> Last {
    let follow = server.follow_leadership(|term| board.note(id, |status| status.leads = term));
    let ready = async {
        server.ready().await;
        board.note(id, |status| status.ready = true);
    };
    tokio::pin!(follow, ready);
    let mut is_ready = false;
    let mut work: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Stop) => return Last::Stop,
                Some(Order::Kill) | None => return Last::AtOnce,
                Some(Order::Freeze(said, waits)) => {
                    said.send(()).ok();
                    // Blocks the only thread, as is meant. Nothing is ever sent.
                    waits.recv().ok();
                }
                Some(Order::StandForElection) => {
                    work.push(Box::pin(server.stand_for_election()));
                }
                Some(Order::Expire(session, mut answer)) => work.push(Box::pin(async move {
                    tokio::select! {
                        // Nobody waits for it any more.
                        () = answer.closed() => {}
                        expired = server.expire_session(session) => {
                            answer.send(expired.ok().flatten()).ok();
                        }
                    }
                })),
                Some(Order::Reach(zxid, mut answer)) => work.push(Box::pin(async move {
                    tokio::select! {
                        () = answer.closed() => {}
                        () = server.reach(zxid) => drop(answer.send(())),
                    }
                })),
            },
            () = &mut follow => return Last::AtOnce,
            () = &mut ready, if !is_ready => is_ready = true,
            Some(()) = work.next() => {}
        }
    }
}
