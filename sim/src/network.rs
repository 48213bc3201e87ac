//! A network of byte streams with latency, in which ways can be blocked, slowed down and torn.
//!
//! It behaves as TCP does to those above it: bytes of one connection arrive in order, once, or the
//! connection breaks. What is lost on the way is sent again later, so loss is delay; a way that stays
//! blocked ends a connection for a sender that has asked for it ([`SimulatedStream::give_up_after`]),
//! and nobody else notices. Packets of different connections overtake each other. A host that is killed
//! has its connections reset; one whose power is cut says nothing, and whoever still talks to it finds
//! out when it is back.
//!
//! All is decided by one generator, in the order of events, and every delivery goes into the trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use quorate_server::network::{
    Listener, Network, SimulatedListener, SimulatedSocket, SimulatedStream, Stream,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::trace::Trace;

/// Who is on the network: servers by their ids, clients from [`FIRST_CLIENT`] on.
pub type Node = u32;

/// The first number of a client's host.
pub const FIRST_CLIENT: Node = 100;

/// What one direction of a connection holds before its writer has to wait.
const WINDOW: usize = 256 << 10;
/// After so long a lost segment is sent again.
const RESEND_MS: (u64, u64) = (200, 1000);

/// How the network fares, drawn for each run.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One way, in milliseconds; 0 is less than one.
    pub latency_ms: (u64, u64),
    /// How often a segment is lost, and so late.
    pub loss: f64,
}

/// The address of a node.
pub fn address_of(node: Node) -> IpAddr {
    let [_, _, high, low] = node.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

fn node_of(address: IpAddr) -> Option<Node> {
    match address {
        IpAddr::V4(address) => {
            let [ten, _, high, low] = address.octets();
            (ten == 10).then(|| u32::from_be_bytes([0, 0, high, low]))
        }
        IpAddr::V6(_) => None,
    }
}

/// All of it. Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    wires: Mutex<Wires>,
    /// Wakes the one who delivers, as something is due earlier than before.
    earlier: Notify,
}

struct Wires {
    random: SmallRng,
    trace: Trace,
    weather: Weather,
    /// Ways that let nothing through, `(from, to)`.
    blocked: BTreeSet<(Node, Node)>,
    /// Ways that are slow, with what that adds.
    slow: BTreeMap<(Node, Node), Duration>,
    listeners: BTreeMap<SocketAddr, Arc<Accepting>>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    next_port: u16,
    /// What has to be looked at, and when.
    due: BTreeMap<(Instant, u64), Due>,
    next_due: u64,
    pub(crate) delivered: u64,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    /// Segments on their way to one side of a connection.
    Arrival(u64, usize),
    /// One side may have waited too long for its bytes to be taken.
    Impatience(u64, usize),
    /// A request for a connection arrives.
    Request(u64),
}

struct Connection {
    sides: [Side; 2],
    /// Where the request for it goes, until it has been answered.
    requested: Option<SocketAddr>,
}

struct Side {
    node: Node,
    /// Arrived and not read.
    inbox: VecDeque<u8>,
    /// On their way to this side.
    flying: VecDeque<(Instant, Segment)>,
    flying_bytes: usize,
    /// The other side will send no more, and all it sent is in the inbox.
    ended: bool,
    /// This side will send no more.
    has_shut_down: bool,
    /// The program has let go of it.
    abandoned: bool,
    broken: Option<io::ErrorKind>,
    reader: Option<Waker>,
    /// Waits for room on the way to the other side.
    writer: Option<Waker>,
    /// How long its bytes may stay untaken.
    patience: Option<Duration>,
    /// Since when the oldest of its bytes is untaken.
    untaken_since: Option<Instant>,
    /// Waits for the connection to come about.
    connecting: Option<Waker>,
    established: bool,
}

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    End,
    Reset,
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::End | Self::Reset => 0,
        }
    }
}

impl Side {
    fn new(node: Node) -> Self {
        Self {
            node,
            inbox: VecDeque::new(),
            flying: VecDeque::new(),
            flying_bytes: 0,
            ended: false,
            has_shut_down: false,
            abandoned: false,
            broken: None,
            reader: None,
            writer: None,
            patience: None,
            untaken_since: None,
            connecting: None,
            established: false,
        }
    }

    fn wake(&mut self) {
        for waker in [
            self.reader.take(),
            self.writer.take(),
            self.connecting.take(),
        ]
        .into_iter()
        .flatten()
        {
            waker.wake();
        }
    }

    fn break_with(&mut self, kind: io::ErrorKind) {
        if self.broken.is_none() {
            self.broken = Some(kind);
            self.flying.clear();
            self.flying_bytes = 0;
            self.wake();
        }
    }
}

/// A listening socket and what waits at it.
struct Accepting {
    address: SocketAddr,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(SimulatedSocket, SocketAddr)>,
    acceptor: Option<Waker>,
}

struct ListeningEnd {
    accepting: Arc<Accepting>,
    shared: Arc<Shared>,
}

impl Drop for ListeningEnd {
    fn drop(&mut self) {
        let mut wires = self.shared.wires.lock();
        let address = self.accepting.address;
        let is_ours = |there: &Arc<Accepting>| Arc::ptr_eq(there, &self.accepting);
        if wires.listeners.get(&address).is_some_and(is_ours) {
            wires.listeners.remove(&address);
        }
        drop(wires);
        // Those who wait to be accepted are reset, outside of the lock.
        let waiting = std::mem::take(&mut self.accepting.queue.lock().waiting);
        drop(waiting);
    }
}

impl SimulatedListener for ListeningEnd {
    fn address(&self) -> SocketAddr {
        self.accepting.address
    }

    fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(SimulatedSocket, SocketAddr)>> {
        let mut queue = self.accepting.queue.lock();
        match queue.waiting.pop_front() {
            Some(accepted) => Poll::Ready(Ok(accepted)),
            None => {
                queue.acceptor = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// One side of a connection, as a program holds it.
struct End {
    shared: Arc<Shared>,
    connection: u64,
    side: usize,
}

impl SimNetwork {
    /// A network on which nobody is yet. Drive it with [`SimNetwork::run`].
    pub fn new(seed: u64, weather: Weather, trace: Trace) -> Self {
        Self {
            shared: Arc::new(Shared {
                wires: Mutex::new(Wires {
                    random: SmallRng::seed_from_u64(seed),
                    trace,
                    weather,
                    blocked: BTreeSet::new(),
                    slow: BTreeMap::new(),
                    listeners: BTreeMap::new(),
                    connections: BTreeMap::new(),
                    next_connection: 0,
                    next_port: 10_000,
                    due: BTreeMap::new(),
                    next_due: 0,
                    delivered: 0,
                }),
                earlier: Notify::new(),
            }),
        }
    }

    /// The network as one node sees it.
    pub fn of(&self, node: Node) -> Arc<dyn Network> {
        Arc::new(Nic {
            node,
            network: self.clone(),
        })
    }

    /// Delivers what is due, for ever.
    pub async fn run(self) {
        loop {
            let next = {
                let mut wires = self.shared.wires.lock();
                wires.deliver_due(&self.shared);
                wires.due.keys().next().map(|(at, _)| *at)
            };
            let earlier = self.shared.earlier.notified();
            match next {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = earlier => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => earlier.await,
            }
        }
    }

    /// Lets nothing through from one to the other.
    pub fn block(&self, from: Node, to: Node) {
        self.shared.wires.lock().blocked.insert((from, to));
    }

    /// Lets everything through again.
    pub fn unblock(&self, from: Node, to: Node) {
        let mut wires = self.shared.wires.lock();
        if wires.blocked.remove(&(from, to)) {
            wires.look_again();
            self.shared.earlier.notify_one();
        }
    }

    /// Adds to the latency of a way; nothing, if `None`.
    pub fn slow_down(&self, from: Node, to: Node, by: Option<Duration>) {
        let slow = &mut self.shared.wires.lock().slow;
        match by {
            Some(by) => slow.insert((from, to), by),
            None => slow.remove(&(from, to)),
        };
    }

    /// Changes how often segments are lost.
    pub fn set_loss(&self, loss: f64) {
        self.shared.wires.lock().weather.loss = loss;
    }

    /// Tears the connections between two nodes, as a middlebox that has lost its state does. Says how
    /// many.
    pub fn reset(&self, one: Node, other: Node) -> usize {
        let mut wires = self.shared.wires.lock();
        let mut torn = 0;
        for connection in wires.connections.values_mut() {
            let nodes = [connection.sides[0].node, connection.sides[1].node];
            if nodes == [one, other] || nodes == [other, one] {
                torn += 1;
                for side in &mut connection.sides {
                    side.break_with(io::ErrorKind::ConnectionReset);
                }
            }
        }
        torn
    }

    /// Takes a node off the network before its programs are dropped. `loud`: its connections are reset,
    /// as its kernel would do; otherwise nobody is told.
    pub fn take_down(&self, node: Node, loud: bool) {
        let mut wires = self.shared.wires.lock();
        wires
            .listeners
            .retain(|address, _| node_of(address.ip()) != Some(node));
        let theirs: Vec<(u64, usize)> = wires
            .connections
            .iter()
            .flat_map(|(id, connection)| {
                (0..2)
                    .filter(|side| connection.sides[*side].node == node)
                    .map(|side| (*id, side))
            })
            .collect();
        for (id, side) in theirs {
            if let Some(connection) = wires.connections.get_mut(&id) {
                connection.sides[side].break_with(io::ErrorKind::NotConnected);
            }
            if loud {
                wires.send(&self.shared, id, 1 - side, Segment::Reset);
            }
        }
    }

    /// How many segments have arrived.
    pub fn delivered(&self) -> u64 {
        self.shared.wires.lock().delivered
    }
}

impl Wires {
    fn schedule(&mut self, shared: &Shared, at: Instant, due: Due) {
        let is_earlier = self.due.keys().next().is_none_or(|(first, _)| at < *first);
        self.due.insert((at, self.next_due), due);
        self.next_due += 1;
        if is_earlier {
            shared.earlier.notify_one();
        }
    }

    /// Looks at everything that a blocked way may have held up.
    fn look_again(&mut self) {
        let now = Instant::now();
        let held: Vec<Due> = self
            .connections
            .iter()
            .flat_map(|(id, connection)| {
                let request = connection.requested.map(|_| Due::Request(*id));
                let arrivals = (0..2)
                    .filter(|side| !connection.sides[*side].flying.is_empty())
                    .map(|side| Due::Arrival(*id, side));
                request.into_iter().chain(arrivals)
            })
            .collect();
        for due in held {
            self.due.insert((now, self.next_due), due);
            self.next_due += 1;
        }
    }

    /// How long something takes from one node to another.
    fn travel_time(&mut self, from: Node, to: Node) -> Duration {
        if from == to {
            return Duration::ZERO;
        }
        let (low, high) = self.weather.latency_ms;
        let mut ms = self.random.random_range(low..=high);
        if self.weather.loss > 0.0 && self.random.random_bool(self.weather.loss) {
            ms += self.random.random_range(RESEND_MS.0..=RESEND_MS.1);
        }
        let slow = self.slow.get(&(from, to)).copied().unwrap_or_default();
        Duration::from_millis(ms) + slow
    }

    /// Sends a segment to `side` of a connection.
    fn send(&mut self, shared: &Shared, id: u64, side: usize, segment: Segment) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (from, to) = (connection.sides[1 - side].node, connection.sides[side].node);
        let now = Instant::now();
        let mut at = now + self.travel_time(from, to);
        let is_blocked = self.blocked.contains(&(from, to));
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let [one, other] = &mut connection.sides;
        let (receiver, sender) = if side == 0 {
            (one, other)
        } else {
            (other, one)
        };
        if receiver.broken.is_some() {
            return;
        }
        if let Some((last, _)) = receiver.flying.back() {
            at = at.max(*last);
        }
        receiver.flying_bytes += segment.len();
        receiver.flying.push_back((at, segment));
        let patience = sender.patience;
        if patience.is_some() && sender.untaken_since.is_none() {
            sender.untaken_since = Some(now);
        }
        if at <= now && !is_blocked {
            self.arrive(shared, id, side);
        } else {
            self.schedule(shared, at, Due::Arrival(id, side));
        }
        if let Some(patience) = patience
            && is_blocked
        {
            self.schedule(shared, now + patience, Due::Impatience(id, 1 - side));
        }
    }

    /// Hands over what has arrived at one side.
    fn arrive(&mut self, shared: &Shared, id: u64, side: usize) {
        let now = Instant::now();
        let mut answer_with_reset = false;
        {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            let [one, other] = &mut connection.sides;
            let (receiver, sender) = if side == 0 {
                (one, other)
            } else {
                (other, one)
            };
            if self.blocked.contains(&(sender.node, receiver.node)) {
                return;
            }
            while let Some((at, _)) = receiver.flying.front() {
                if *at > now {
                    break;
                }
                let Some((_, segment)) = receiver.flying.pop_front() else {
                    break;
                };
                receiver.flying_bytes -= segment.len();
                self.delivered += 1;
                match segment {
                    Segment::Bytes(bytes) => {
                        self.trace.note_delivery(sender.node, receiver.node, &bytes);
                        if receiver.abandoned || receiver.broken.is_some() {
                            answer_with_reset = true;
                        } else {
                            receiver.inbox.extend(bytes);
                        }
                    }
                    Segment::End => {
                        self.trace.note_delivery(sender.node, receiver.node, b"end");
                        receiver.ended = true;
                    }
                    Segment::Reset => {
                        self.trace
                            .note_delivery(sender.node, receiver.node, b"reset");
                        receiver.break_with(io::ErrorKind::ConnectionReset);
                    }
                }
            }
            if receiver.flying.is_empty() {
                sender.untaken_since = None;
            }
            if let Some(reader) = receiver.reader.take() {
                reader.wake();
            }
        }
        if answer_with_reset {
            self.send(shared, id, 1 - side, Segment::Reset);
        }
        self.forget_if_over(id);
    }

    /// Ends a connection whose bytes nobody has taken for too long.
    fn lose_patience(&mut self, id: u64, side: usize) {
        let now = Instant::now();
        if let Some(connection) = self.connections.get_mut(&id) {
            let side = &mut connection.sides[side];
            if let (Some(patience), Some(since)) = (side.patience, side.untaken_since)
                && now.duration_since(since) >= patience
            {
                side.break_with(io::ErrorKind::TimedOut);
            }
        }
    }

    /// A request for a connection arrives where it was sent.
    fn answer_request(&mut self, shared: &Arc<Shared>, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let Some(address) = connection.requested else {
            return;
        };
        let (from, to) = (connection.sides[0].node, connection.sides[1].node);
        if self.blocked.contains(&(from, to)) || self.blocked.contains(&(to, from)) {
            return;
        }
        connection.requested = None;
        let Some(accepting) = self.listeners.get(&address) else {
            self.trace.note_delivery(to, from, b"refused");
            connection.sides[0].break_with(io::ErrorKind::ConnectionRefused);
            return;
        };
        self.trace.note_delivery(from, to, b"connect");
        for side in &mut connection.sides {
            side.established = true;
        }
        connection.sides[1].abandoned = false;
        let socket: SimulatedSocket = Arc::new(End {
            shared: Arc::clone(shared),
            connection: id,
            side: 1,
        });
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(10_000);
        let peer = SocketAddr::new(address_of(from), port);
        let mut queue = accepting.queue.lock();
        queue.waiting.push_back((socket, peer));
        if let Some(acceptor) = queue.acceptor.take() {
            acceptor.wake();
        }
        drop(queue);
        connection.sides[0].wake();
    }

    fn deliver_due(&mut self, shared: &Arc<Shared>) {
        let now = Instant::now();
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            match entry.remove() {
                Due::Arrival(id, side) => self.arrive(shared, id, side),
                Due::Impatience(id, side) => self.lose_patience(id, side),
                Due::Request(id) => self.answer_request(shared, id),
            }
        }
    }

    fn forget_if_over(&mut self, id: u64) {
        let is_over = self.connections.get(&id).is_some_and(|connection| {
            connection
                .sides
                .iter()
                .all(|side| side.abandoned && (side.broken.is_some() || side.flying.is_empty()))
        });
        if is_over {
            self.connections.remove(&id);
        }
    }
}

/// One node's way onto the network.
struct Nic {
    node: Node,
    network: SimNetwork,
}

impl fmt::Debug for Nic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Nic({})", self.node)
    }
}

impl Network for Nic {
    fn listen(&self, address: SocketAddr, _backlog: u32) -> io::Result<Listener> {
        let address = SocketAddr::new(address_of(self.node), address.port());
        let shared = &self.network.shared;
        let mut wires = shared.wires.lock();
        if wires.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let accepting = Arc::new(Accepting {
            address,
            queue: Mutex::default(),
        });
        wires.listeners.insert(address, Arc::clone(&accepting));
        Ok(Listener::Simulated(Arc::new(ListeningEnd {
            accepting,
            shared: Arc::clone(shared),
        })))
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let parsed = address
            .parse()
            .map(|address| vec![address])
            .map_err(|_| io::ErrorKind::NotFound.into());
        Box::pin(std::future::ready(parsed))
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let Some(to) = node_of(address.ip()) else {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            };
            let shared = &self.network.shared;
            let end = {
                let mut wires = shared.wires.lock();
                let id = wires.next_connection;
                wires.next_connection += 1;
                wires.connections.insert(
                    id,
                    Connection {
                        sides: [Side::new(self.node), Side::new(to)],
                        requested: Some(address),
                    },
                );
                // Nobody holds the other side as yet.
                if let Some(connection) = wires.connections.get_mut(&id) {
                    connection.sides[1].abandoned = true;
                }
                let there = wires.travel_time(self.node, to);
                let back = wires.travel_time(to, self.node);
                wires.schedule(shared, Instant::now() + there + back, Due::Request(id));
                End {
                    shared: Arc::clone(shared),
                    connection: id,
                    side: 0,
                }
            };
            std::future::poll_fn(|context| end.poll_connected(context)).await?;
            Ok(Stream::Simulated(Arc::new(end)))
        })
    }
}

impl End {
    fn poll_connected(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|side, _| {
            if let Some(kind) = side.broken {
                return Poll::Ready(Err(kind.into()));
            }
            if side.established {
                return Poll::Ready(Ok(()));
            }
            side.connecting = Some(context.waker().clone());
            Poll::Pending
        })
        .unwrap_or_else(|| Poll::Ready(Err(io::ErrorKind::NotConnected.into())))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Side, &mut Side) -> T) -> Option<T> {
        let mut wires = self.shared.wires.lock();
        let connection = wires.connections.get_mut(&self.connection)?;
        let [one, other] = &mut connection.sides;
        Some(match self.side {
            0 => act(one, other),
            _ => act(other, one),
        })
    }
}

impl SimulatedStream for End {
    fn poll_read(&self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|side, sender| {
            if !side.inbox.is_empty() {
                while into.remaining() > 0 && !side.inbox.is_empty() {
                    let (front, _) = side.inbox.as_slices();
                    let length = front.len().min(into.remaining());
                    into.put_slice(&front[..length]);
                    side.inbox.drain(..length);
                }
                if let Some(writer) = sender.writer.take() {
                    writer.wake();
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(kind) = side.broken {
                return Poll::Ready(Err(kind.into()));
            }
            if side.ended {
                return Poll::Ready(Ok(()));
            }
            side.reader = Some(context.waker().clone());
            Poll::Pending
        })
        .unwrap_or_else(|| Poll::Ready(Err(io::ErrorKind::NotConnected.into())))
    }

    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.with(|side, _| side.writer = Some(context.waker().clone()));
                Poll::Pending
            }
            written => Poll::Ready(written),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = self
            .with(|side, receiver| match side.broken {
                Some(kind) => Err(io::Error::from(kind)),
                None if side.has_shut_down => Err(io::ErrorKind::BrokenPipe.into()),
                None => Ok(WINDOW.saturating_sub(receiver.flying_bytes + receiver.inbox.len())),
            })
            .unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))?;
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = room.min(bytes.len());
        let segment = Segment::Bytes(bytes[..length].to_vec());
        let mut wires = self.shared.wires.lock();
        wires.send(&self.shared, self.connection, 1 - self.side, segment);
        Ok(length)
    }

    fn shutdown(&self) {
        let first = self
            .with(|side, _| {
                let first = !side.has_shut_down && side.broken.is_none();
                side.has_shut_down = true;
                first
            })
            .unwrap_or(false);
        if first {
            let mut wires = self.shared.wires.lock();
            wires.send(&self.shared, self.connection, 1 - self.side, Segment::End);
        }
    }

    fn give_up_after(&self, patience: Duration) {
        self.with(|side, _| side.patience = Some(patience));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.shutdown();
        let mut wires = self.shared.wires.lock();
        let Some(connection) = wires.connections.get_mut(&self.connection) else {
            return;
        };
        // Nobody waits any more for a connection that has not come about.
        connection.requested = None;
        let side = &mut connection.sides[self.side];
        side.abandoned = true;
        // What was not read is answered with a reset, as by a kernel.
        if !side.inbox.is_empty() && side.broken.is_none() {
            side.inbox.clear();
            wires.send(&self.shared, self.connection, 1 - self.side, Segment::Reset);
        }
        wires.forget_if_over(self.connection);
    }
}
