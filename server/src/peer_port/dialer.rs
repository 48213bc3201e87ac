//! The side that dials: reaches other servers, and asks them.
//!
//! Connections are made when they are needed, to an address that is resolved anew each time, by a
//! task of their own: a caller that gives up does not undo half a handshake. After a failed attempt
//! a lane pauses for [`RETRY_PAUSE`], so a server that returns is found soon. Why a server cannot
//! be talked to is logged when it changes, not at each attempt.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::wire::{
    self, Answer, Caller, Forward, Frame, FrameReader, FrameWriter, Hello, Kind, Lane, Probe,
    Probed, Question, Refusal, RefusalCode, Rejoin, VERSIONS, Welcome,
};
use super::{Door, PeerError};

/// How long a lane waits after a failed attempt before the next one.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long a name may take to resolve.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may take to come about: a lost packet is only sent again after a second,
/// a new attempt finds a server that has returned sooner.
const CONNECT_PATIENCE: Duration = Duration::from_millis(400);
/// How long the other side may take to say who it is: its tasks may have a lot to do.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);
/// A connection on which a question has been open for so long, without a sign of the other server,
/// is given up. Twice the interval at which a server says that it is still at it, and a half.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(1250);
/// How often a server says that it is still at it.
pub(super) const BUSY_INTERVAL: Duration = Duration::from_millis(500);
/// Requests on their way on one control lane; beyond it, askers wait.
const ASKS_MAX: usize = 256;
/// How long writes may wait for a leader that takes nothing.
const FORWARD_STALL_MAX: Duration = Duration::from_secs(5);

/// One other server, as this one sees it.
#[derive(Debug)]
pub(crate) struct Target {
    server: u64,
    address: Mutex<String>,
    /// What was last logged about it; `None` while all is well.
    trouble: Mutex<Option<String>>,
}

impl Target {
    fn new(server: u64, address: &str) -> Arc<Self> {
        Arc::new(Self {
            server,
            address: Mutex::new(address.to_owned()),
            trouble: Mutex::new(None),
        })
    }

    /// Logs what keeps the two from talking, once.
    fn on_trouble(&self, error: &PeerError) {
        let text = error.to_string();
        let mut trouble = self.trouble.lock();
        if trouble.as_ref() == Some(&text) {
            return;
        }
        match error {
            PeerError::Refused { refusal, .. } if refusal.code != RefusalCode::Starting => {
                tracing::warn!(server = self.server, "{text}");
            }
            _ => tracing::info!(server = self.server, "{text}"),
        }
        *trouble = Some(text);
    }

    fn on_reached(&self) {
        if self.trouble.lock().take().is_some() {
            tracing::info!(server = self.server, "the server can be reached again");
        }
    }
}

/// The other servers. Clones share them.
#[derive(Clone, Debug)]
pub struct Peers {
    door: Arc<dyn Door>,
    known: Arc<Mutex<BTreeMap<u64, Known>>>,
}

#[derive(Clone, Debug)]
struct Known {
    target: Arc<Target>,
    control: mpsc::Sender<Ask>,
}

impl Peers {
    pub fn new(door: Arc<dyn Door>) -> Self {
        Self {
            door,
            known: Arc::default(),
        }
    }

    /// Says who there is, and where (`host:port`). Whoever is left out is no longer talked to, but
    /// on the lanes that are open.
    pub fn set_members(&self, nodes: BTreeMap<u64, String>) {
        self.known
            .lock()
            .retain(|server, _| nodes.contains_key(server));
        for (server, address) in nodes {
            self.learn(server, &address);
        }
    }

    /// Says where one server is.
    fn learn(&self, server: u64, address: &str) -> Arc<Target> {
        let mut known = self.known.lock();
        if let Some(known) = known.get(&server) {
            let mut current = known.target.address.lock();
            if *current != address {
                address.clone_into(&mut current);
            }
            drop(current);
            return Arc::clone(&known.target);
        }
        let target = Target::new(server, address);
        let (control, asks) = mpsc::channel(ASKS_MAX);
        tokio::spawn(control_lane(
            Arc::clone(&self.door),
            Arc::clone(&target),
            asks,
        ));
        let entry = Known {
            target: Arc::clone(&target),
            control,
        };
        known.insert(server, entry);
        target
    }

    fn find(&self, server: u64) -> Result<Known, PeerError> {
        let known = self.known.lock().get(&server).cloned();
        known.ok_or(PeerError::Unknown(server))
    }

    /// A lane to `server`, for requests that are answered in order.
    pub fn lane(&self, server: u64, address: &str, lane: Lane) -> RpcLane {
        RpcLane {
            door: Arc::clone(&self.door),
            target: self.learn(server, address),
            lane,
            state: LaneState::Closed { retry_at: None },
            next_call: 0,
        }
    }

    /// Asks `server`, on its control lane. Questions do not wait for each other.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; after `patience` at the latest.
    pub async fn ask(
        &self,
        server: u64,
        question: Question,
        patience: Duration,
    ) -> Result<Answer, PeerError> {
        self.request(server, Kind::Question, &question, Kind::Answer, patience)
            .await
    }

    /// Sends any request on the control lane.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; after `patience` at the latest.
    pub(crate) async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        server: u64,
        kind: Kind,
        message: &Q,
        expected: Kind,
        patience: Duration,
    ) -> Result<A, PeerError> {
        let known = self.find(server)?;
        let lost = |reason: &dyn ToString| PeerError::Lost {
            server,
            reason: reason.to_string(),
        };
        let body = rmp_serde::to_vec(message).map_err(|error| lost(&error))?;
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            kind,
            body: body.into(),
            answer,
        };
        let asked = async {
            known
                .control
                .send(ask)
                .await
                .map_err(|_| PeerError::Unknown(server))?;
            answered
                .await
                .map_err(|_| lost(&"this server is stopping"))?
        };
        let frame = timeout(patience, asked)
            .await
            .map_err(|_| PeerError::Late { server, patience })??;
        read_answer(server, &frame, expected)
    }

    /// Opens the way for this server's writes to `server`, as the leader of `term`.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; after `patience` at the latest.
    pub async fn open_forward(
        &self,
        server: u64,
        term: u64,
        patience: Duration,
    ) -> Result<ForwardStream, PeerError> {
        let known = self.find(server)?;
        let dialled = dial(&self.door, &known.target, Lane::Forward, term);
        let connection = timeout(patience, dialled)
            .await
            .map_err(|_| PeerError::Late { server, patience })??;
        Ok(ForwardStream { server, connection })
    }
}

/// Asks the server at `address` what it knows, before this one has joined an ensemble.
///
/// # Errors
///
/// [`PeerError`].
pub async fn probe(server: u64, address: &str, probe: Probe) -> Result<Probed, PeerError> {
    let target = Target::new(server, address);
    let mut connection = connect(&target).await?;
    let asked = async {
        wire::greet(&mut connection.writer, Kind::Probe, &probe).await?;
        connection.reader.next().await
    };
    let unreachable = |reason: String| PeerError::Unreachable {
        server,
        address: address.to_owned(),
        reason,
    };
    let frame = timeout(HANDSHAKE_PATIENCE, asked)
        .await
        .map_err(|_| unreachable("it does not answer".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?
        .ok_or_else(|| unreachable("it closed the connection".to_owned()))?;
    match frame.kind {
        Kind::Probed => frame
            .decode()
            .map_err(|error| unreachable(error.to_string())),
        Kind::Refused => Err(PeerError::Refused {
            server,
            refusal: frame
                .decode()
                .map_err(|error| unreachable(error.to_string()))?,
        }),
        _ => Err(unreachable(frame.unexpected().to_string())),
    }
}

/// Asks the server at `address`, as the leader, to take this one in again.
///
/// # Errors
///
/// [`PeerError`].
pub async fn rejoin(server: u64, address: &str, rejoin: Rejoin) -> Result<Answer, PeerError> {
    let target = Target::new(server, address);
    let mut connection = connect(&target).await?;
    let broken = |error: io::Error| lost(server, &error.to_string());
    wire::greet(&mut connection.writer, Kind::Rejoin, &rejoin)
        .await
        .map_err(broken)?;
    loop {
        let frame = timeout(SILENCE_MAX, connection.reader.next())
            .await
            .map_err(|_| lost(server, "it does not answer"))?
            .map_err(broken)?
            .ok_or_else(|| lost(server, "it closed the connection"))?;
        if frame.kind != Kind::Busy {
            return read_answer(server, &frame, Kind::Answer);
        }
    }
}

/// An open connection, handshake done.
#[derive(Debug)]
struct Connection {
    reader: FrameReader<OwnedReadHalf>,
    writer: FrameWriter<OwnedWriteHalf>,
}

/// Makes a connection and shakes hands.
async fn dial(
    door: &Arc<dyn Door>,
    target: &Target,
    lane: Lane,
    term: u64,
) -> Result<Connection, PeerError> {
    let dialled = dial_once(&**door, target, lane, term).await;
    match &dialled {
        Ok(_) => target.on_reached(),
        Err(error) => target.on_trouble(error),
    }
    dialled
}

async fn dial_once(
    door: &dyn Door,
    target: &Target,
    lane: Lane,
    term: u64,
) -> Result<Connection, PeerError> {
    let server = target.server;
    let address = target.address.lock().clone();
    let unreachable = |reason: String| PeerError::Unreachable {
        server,
        address: address.clone(),
        reason,
    };
    let refused = |refusal| PeerError::Refused { server, refusal };
    let from = door
        .me()
        .ok_or_else(|| unreachable("this server has not joined an ensemble yet".to_owned()))?;
    let mut connection = connect(target).await?;
    let hello = Hello {
        versions: VERSIONS,
        lane,
        from,
        to: server,
        term,
    };
    let greeted = async {
        wire::greet(&mut connection.writer, Kind::Hello, &hello).await?;
        connection.reader.next().await
    };
    let frame = timeout(HANDSHAKE_PATIENCE, greeted)
        .await
        .map_err(|_| unreachable("it does not answer".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?
        .ok_or_else(|| unreachable("it closed the connection".to_owned()))?;
    match frame.kind {
        Kind::Welcome => {
            let welcome: Welcome = frame
                .decode()
                .map_err(|error| unreachable(error.to_string()))?;
            check_host(door, &welcome, server).map_err(refused)?;
        }
        Kind::Refused => {
            let refusal = frame
                .decode()
                .map_err(|error| unreachable(error.to_string()))?;
            return Err(refused(refusal));
        }
        _ => return Err(unreachable(frame.unexpected().to_string())),
    }
    connection.reader.handshake_done();
    Ok(connection)
}

/// Whether the one who answers is the one who was meant.
fn check_host(door: &dyn Door, welcome: &Welcome, server: u64) -> Result<(), Refusal> {
    let host: Caller = welcome.host;
    if host.server != server {
        let reason = format!(
            "server {} answers where server {server} should: check the addresses",
            host.server
        );
        return Err(Refusal::new(RefusalCode::WrongServer, reason));
    }
    door.admit(host)
}

async fn connect(target: &Target) -> Result<Connection, PeerError> {
    let address = target.address.lock().clone();
    let stream = connect_any(&address)
        .await
        .map_err(|error| PeerError::Unreachable {
            server: target.server,
            address,
            reason: error.to_string(),
        })?;
    let (reader, writer) = stream.into_split();
    Ok(Connection {
        reader: FrameReader::new(reader),
        writer: FrameWriter::new(writer),
    })
}

/// Tries the addresses of a name in turn.
async fn connect_any(address: &str) -> io::Result<TcpStream> {
    let resolved = timeout(RESOLVE_PATIENCE, lookup_host(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "its name does not resolve"))??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in resolved {
        match connect_one(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
    super::prepare(&stream)?;
    Ok(stream)
}

fn read_answer<A: DeserializeOwned>(
    server: u64,
    frame: &Frame,
    expected: Kind,
) -> Result<A, PeerError> {
    let lost = |reason: &dyn ToString| PeerError::Lost {
        server,
        reason: reason.to_string(),
    };
    match frame.kind {
        kind if kind == expected => frame.decode().map_err(|error| lost(&error)),
        Kind::Failed => Err(PeerError::Failed {
            server,
            reason: frame.decode().map_err(|error| lost(&error))?,
        }),
        _ => Err(lost(&frame.unexpected())),
    }
}

/// A lane whose requests are answered in order.
///
/// Any call may be dropped at any time: what it has sent stays sent, its answer is skipped.
#[derive(Debug)]
pub struct RpcLane {
    door: Arc<dyn Door>,
    target: Arc<Target>,
    lane: Lane,
    state: LaneState,
    next_call: u64,
}

#[derive(Debug)]
enum LaneState {
    Closed { retry_at: Option<Instant> },
    Dialling(Dialling),
    Open(OpenLane),
}

/// Ends the attempt when it is dropped.
#[derive(Debug)]
struct Dialling(JoinHandle<Result<Connection, PeerError>>);

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct OpenLane {
    connection: Connection,
    /// Since when an answer has been due.
    waiting_since: Option<Instant>,
    last_answered: Option<u64>,
}

impl RpcLane {
    /// Sends a request and waits for its answer, `patience` at most: for the bytes to be taken, and
    /// then for the answer. The connection is given up only when nothing at all was answered for so
    /// long, over however many calls.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        kind: Kind,
        message: &Q,
        expected: Kind,
        patience: Duration,
    ) -> Result<A, PeerError> {
        let server = self.target.server;
        self.give_up_when_silent(patience);
        self.open().await?;
        self.next_call += 1;
        let call = self.next_call;
        let LaneState::Open(open) = &mut self.state else {
            return Err(lost(server, "it was closed"));
        };
        let answered = open.call(kind, call, message, patience).await;
        match answered {
            Ok(Some(frame)) => read_answer(server, &frame, expected),
            Ok(None) => {
                self.give_up_when_silent(patience);
                Err(PeerError::Late { server, patience })
            }
            Err(error) => {
                self.close();
                Err(lost(server, &error.to_string()))
            }
        }
    }

    /// Makes sure that there is a connection. Cancel safe: an attempt goes on.
    pub(crate) async fn open(&mut self) -> Result<(), PeerError> {
        if let LaneState::Closed { retry_at } = &self.state {
            if let Some(retry_at) = retry_at
                && *retry_at > Instant::now()
            {
                sleep(retry_at.duration_since(Instant::now())).await;
            }
            let (door, target) = (Arc::clone(&self.door), Arc::clone(&self.target));
            let lane = self.lane;
            let dialling = tokio::spawn(async move { dial(&door, &target, lane, 0).await });
            self.state = LaneState::Dialling(Dialling(dialling));
        }
        if let LaneState::Dialling(dialling) = &mut self.state {
            let dialled = (&mut dialling.0)
                .await
                .unwrap_or_else(|error| Err(lost(self.target.server, &error.to_string())));
            match dialled {
                Ok(connection) => {
                    self.state = LaneState::Open(OpenLane {
                        connection,
                        waiting_since: None,
                        last_answered: None,
                    });
                }
                Err(error) => {
                    self.state = LaneState::Closed {
                        retry_at: Some(Instant::now() + RETRY_PAUSE),
                    };
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives the connection up. The next call makes another one at once.
    pub(crate) fn close(&mut self) {
        self.state = LaneState::Closed { retry_at: None };
    }

    fn give_up_when_silent(&mut self, patience: Duration) {
        if let LaneState::Open(open) = &self.state
            && let Some(since) = open.waiting_since
            && since.elapsed() >= patience.max(SILENCE_MAX / 2)
        {
            self.close();
        }
    }

    /// The connection itself, for what is more than a call.
    pub(crate) fn halves(
        &mut self,
    ) -> Option<(
        &mut FrameReader<OwnedReadHalf>,
        &mut FrameWriter<OwnedWriteHalf>,
    )> {
        match &mut self.state {
            LaneState::Open(open) => {
                let connection = &mut open.connection;
                Some((&mut connection.reader, &mut connection.writer))
            }
            _ => None,
        }
    }

    pub(crate) fn server(&self) -> u64 {
        self.target.server
    }
}

fn lost(server: u64, reason: &str) -> PeerError {
    PeerError::Lost {
        server,
        reason: reason.to_owned(),
    }
}

impl OpenLane {
    /// `None` after `patience`.
    async fn call<Q: Serialize>(
        &mut self,
        kind: Kind,
        call: u64,
        message: &Q,
        patience: Duration,
    ) -> io::Result<Option<Frame>> {
        self.connection.writer.queue(kind, call, message)?;
        self.waiting_since.get_or_insert_with(Instant::now);
        // Any progress counts: a long batch takes its time on a slow network.
        while !self.connection.writer.is_empty() {
            match timeout(patience, self.connection.writer.write_some()).await {
                Ok(written) => written?,
                Err(_) => return Ok(None),
            }
        }
        let deadline = Instant::now() + patience;
        loop {
            let Ok(frame) = timeout_at(deadline, self.connection.reader.next()).await else {
                return Ok(None);
            };
            let frame = frame?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.call > call || Some(frame.call) <= self.last_answered {
                let text = "an answer to a request that was never sent";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            self.last_answered = Some(frame.call);
            if frame.call == call {
                self.waiting_since = None;
                return Ok(Some(frame));
            }
            // Of a call that gave up: late, but a sign of life.
            self.waiting_since = Some(Instant::now());
        }
    }
}

/// A request on the control lane.
#[derive(Debug)]
struct Ask {
    kind: Kind,
    body: Bytes,
    answer: oneshot::Sender<Result<Frame, PeerError>>,
}

/// Serves one peer's control lane until nobody can ask any more.
async fn control_lane(door: Arc<dyn Door>, target: Arc<Target>, mut asks: mpsc::Receiver<Ask>) {
    let mut retry_at = Instant::now();
    while let Some(first) = asks.recv().await {
        if first.answer.is_closed() {
            continue;
        }
        tokio::time::sleep_until(retry_at).await;
        match dial(&door, &target, Lane::Control, 0).await {
            Ok(connection) => {
                let mut open = HashMap::new();
                let reason = control_connection(connection, first, &mut asks, &mut open).await;
                tracing::debug!(server = target.server, reason, "a control lane has ended");
                for (_, answer) in open {
                    answer.send(Err(lost(target.server, &reason))).ok();
                }
            }
            Err(error) => {
                retry_at = Instant::now() + RETRY_PAUSE;
                first.answer.send(Err(error.clone())).ok();
                // They have waited for the same attempt.
                while let Ok(ask) = asks.try_recv() {
                    ask.answer.send(Err(error.clone())).ok();
                }
            }
        }
    }
}

/// Questions out, answers in, on one connection; returns why it ended.
async fn control_connection(
    connection: Connection,
    first: Ask,
    asks: &mut mpsc::Receiver<Ask>,
    open: &mut HashMap<u64, oneshot::Sender<Result<Frame, PeerError>>>,
) -> String {
    let Connection {
        mut reader,
        mut writer,
    } = connection;
    let mut calls = 0;
    let mut next = Some(first);
    let mut last_sign = Instant::now();
    let mut check = interval(SILENCE_MAX / 4);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some(ask) = next.take() {
            calls += 1;
            if open.is_empty() {
                last_sign = Instant::now();
            }
            match writer.queue_encoded(ask.kind, calls, &ask.body) {
                Ok(()) => drop(open.insert(calls, ask.answer)),
                Err(error) => return error.to_string(),
            }
        }
        tokio::select! {
            ask = asks.recv(), if open.len() < ASKS_MAX => match ask {
                Some(ask) => next = Some(ask),
                None => return "nobody asks any more".to_owned(),
            },
            frame = reader.next() => match frame {
                Ok(Some(frame)) => {
                    last_sign = Instant::now();
                    if frame.kind != Kind::Busy
                        && let Some(answer) = open.remove(&frame.call)
                    {
                        answer.send(Ok(frame)).ok();
                    }
                }
                Ok(None) => return "it was closed".to_owned(),
                Err(error) => return error.to_string(),
            },
            written = writer.write_some(), if !writer.is_empty() => if let Err(error) = written {
                return error.to_string();
            },
            // Who has given up waiting counts as well: the silence is the same.
            _ = check.tick(), if !open.is_empty() => {
                if last_sign.elapsed() > SILENCE_MAX {
                    return "nothing was heard on it".to_owned();
                }
            }
        }
    }
}

/// This server's writes on their way to a leader, in order.
#[derive(Debug)]
pub struct ForwardStream {
    server: u64,
    connection: Connection,
}

impl ForwardStream {
    /// Sends commands, as one frame. Cancel safe only in that the stream must be dropped then.
    ///
    /// # Errors
    ///
    /// [`PeerError`]: whether the leader has taken any of them is unknown.
    pub async fn send(&mut self, commands: &[Bytes]) -> Result<(), PeerError> {
        let server = self.server;
        let lost = |reason: String| PeerError::Lost { server, reason };
        let writer = &mut self.connection.writer;
        writer
            .queue(Kind::Forward, 0, &Forward(commands))
            .map_err(|error| lost(error.to_string()))?;
        while !writer.is_empty() {
            timeout(FORWARD_STALL_MAX, writer.write_some())
                .await
                .map_err(|_| PeerError::Late {
                    server,
                    patience: FORWARD_STALL_MAX,
                })?
                .map_err(|error| lost(error.to_string()))?;
        }
        Ok(())
    }

    /// Resolves when the leader takes no more, and says why. Cancel safe.
    pub async fn ended(&mut self) -> PeerError {
        let server = self.server;
        let lost = |reason: String| PeerError::Lost { server, reason };
        match self.connection.reader.next().await {
            Ok(Some(frame)) if frame.kind == Kind::ForwardEnded => match frame.decode() {
                Ok(reason) => PeerError::Failed { server, reason },
                Err(error) => lost(error.to_string()),
            },
            Ok(Some(frame)) => lost(frame.unexpected().to_string()),
            Ok(None) => lost("it was closed".to_owned()),
            Err(error) => lost(error.to_string()),
        }
    }
}
