//! From a host to a connection on which a ZooKeeper server has answered.
//!
//! An attempt is bounded as a whole by the caller's patience: resolving, connecting, TLS and the
//! answer to the ConnectRequest. Names are resolved anew each time, so that a server that moved is
//! found. Whoever answers is a stranger until its first frame makes sense: at most one small frame
//! is read, and what it is instead becomes the error. Which host is tried when, and what is made of
//! the answer, is the session's business.

mod error;
pub(crate) mod hosts;
mod stream;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use quorate_protocol::frame::{FrameCodec, LENGTH_BYTES, write_frame};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use rand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::error::is_end;
pub use self::error::{DialError, Step, Stranger, TlsFault};
pub(crate) use self::stream::Stream;
use self::stream::Transport;
use crate::connect_string::Host;
use crate::environment::Connector;
#[cfg(feature = "tls")]
use crate::tls::TlsOptions;

/// A ConnectResponse has 37 bytes; more room than it will ever need, and less than any text would
/// announce that is taken for a length.
const ANSWER_BYTES_MAX: usize = 1024;

/// Room for an answer to `isro`; the longest that matters has 24.
const WORDS_BYTES_MAX: usize = 256;

/// More addresses of one name than that share no patience sensibly.
const ADDRESSES_MAX: usize = 16;

/// No attempt is worth more, and every clock can carry it.
const PATIENCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Connects to servers of one ensemble.
#[derive(Debug)]
pub(crate) struct Dialer {
    hosts: Vec<Host>,
    /// Which address of a name has the first turn: the next one at each attempt. The resolver
    /// often gives all clients the same order, which would bring them all to the same server.
    turn: AtomicUsize,
    /// Instead of TCP.
    connector: Option<Arc<dyn Connector>>,
    #[cfg(feature = "tls")]
    tls: Option<TlsOptions>,
}

/// A connection, and what the server said on it.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: Stream,
    pub(crate) response: ConnectResponse,
    pub(crate) address: SocketAddr,
    /// What was read beyond the response.
    pub(crate) rest: BytesMut,
}

impl Dialer {
    /// By TCP, without TLS.
    pub(crate) fn new(hosts: Vec<Host>, rng: &mut impl Rng) -> Self {
        Self {
            hosts,
            turn: AtomicUsize::new(usize::from(rng.random::<u16>())),
            connector: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// By other connections than TCP's.
    #[must_use]
    pub(crate) fn with_connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// With TLS on every connection.
    #[cfg(feature = "tls")]
    #[must_use]
    pub(crate) fn with_tls(mut self, tls: TlsOptions) -> Self {
        self.tls = Some(tls);
        self
    }

    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// One attempt at one host: resolves, connects, speaks TLS, sends the request and reads the
    /// response, at all its addresses in turn. `patience` bounds the whole attempt; each address
    /// gets an equal share of what is left, so that one that swallows everything hides no other.
    ///
    /// A response is handed back whatever it grants: an expired session is no error here.
    ///
    /// Cancel safe: the connection is closed when the future is dropped.
    pub(crate) async fn dial(
        &self,
        host: &Host,
        request: &ConnectRequest,
        patience: Duration,
    ) -> Result<Dialled, DialError> {
        let mut frame = BytesMut::new();
        write_frame(&mut frame, |out| request.encode(out)).map_err(DialError::Request)?;
        let frame = &frame;
        self.each_address(host, patience, |address, progress| async move {
            let mut stream = self.open(host, address, &progress).await?;
            progress.enter(Step::Answer);
            let exchanged = exchange(&mut stream, frame, address).await;
            let (response, rest) = exchanged.map_err(|broken| self.why(host, address, broken))?;
            Ok(Dialled {
                stream,
                response,
                address,
                rest,
            })
        })
        .await
    }

    /// Asks the four-letter word `isro`: does a server that takes writes answer at this host?
    ///
    /// A server that is not serving takes none. Apache ZooKeeper answers the word only where
    /// read-only mode is enabled or `4lw.commands.whitelist` lists it; elsewhere it is
    /// [`DialError::ProbeRefused`], which proves a server but not what it does.
    pub(crate) async fn is_read_write(
        &self,
        host: &Host,
        patience: Duration,
    ) -> Result<bool, DialError> {
        self.each_address(host, patience, |address, progress| async move {
            let mut stream = self.open(host, address, &progress).await?;
            progress.enter(Step::Answer);
            let answer = probe(&mut stream, address).await;
            answer.map_err(|broken| self.why(host, address, broken))
        })
        .await
    }

    /// Resolves the name, and tries `attempt` at its addresses.
    async fn each_address<T, F: Future<Output = Result<T, DialError>>>(
        &self,
        host: &Host,
        patience: Duration,
        attempt: impl Fn(SocketAddr, Progress) -> F,
    ) -> Result<T, DialError> {
        let deadline = Instant::now() + patience.min(PATIENCE_MAX);
        let late = |step| DialError::Late {
            host: host.clone(),
            step,
            patience,
        };
        let resolved = timeout_at(deadline, self.resolve(host)).await;
        let mut addresses = resolved.map_err(|_| late(Step::Resolve))??;
        self.take_turns(&mut addresses);
        match try_each(addresses, deadline, late, attempt).await {
            Ok(done) => Ok(done),
            Err(Some(error)) => Err(error),
            Err(None) => Err(DialError::Resolve {
                host: host.clone(),
                source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
            }),
        }
    }

    /// All addresses of a name, as of now. An address needs no resolver.
    async fn resolve(&self, host: &Host) -> Result<Vec<SocketAddr>, DialError> {
        let found: io::Result<Vec<SocketAddr>> = match &self.connector {
            Some(connector) => connector.resolve(host).await.map(|mut addresses| {
                addresses.truncate(ADDRESSES_MAX);
                addresses
            }),
            None => lookup_host((host.name(), host.port()))
                .await
                .map(|addresses| addresses.take(ADDRESSES_MAX).collect()),
        };
        found.map_err(|source| DialError::Resolve {
            host: host.clone(),
            source,
        })
    }

    /// Lets another address begin than at the last attempt.
    fn take_turns(&self, addresses: &mut [SocketAddr]) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = turn % addresses.len().max(1);
        addresses.rotate_left(first);
    }

    async fn open(
        &self,
        host: &Host,
        address: SocketAddr,
        progress: &Progress,
    ) -> Result<Stream, DialError> {
        if let Some(connector) = &self.connector {
            let connected = connector.connect(host, address).await;
            let connection = connected.map_err(|source| DialError::Connect { address, source })?;
            return self.secure(host, address, connection, progress).await;
        }
        let connected = TcpStream::connect(address).await;
        let tcp = connected.map_err(|source| DialError::Connect { address, source })?;
        if is_connected_to_itself(&tcp) {
            return Err(DialError::Connect {
                address,
                source: io::ErrorKind::ConnectionRefused.into(),
            });
        }
        // Requests are small and wait for their answers. There is no TCP keepalive: the session's
        // pings show a dead peer earlier, and a living one is seen through to its server process.
        tcp.set_nodelay(true)
            .map_err(|source| DialError::Connect { address, source })?;
        self.secure(host, address, tcp, progress).await
    }

    #[cfg(feature = "tls")]
    async fn secure<T: Transport>(
        &self,
        host: &Host,
        address: SocketAddr,
        transport: T,
        progress: &Progress,
    ) -> Result<Stream, DialError> {
        let Some(tls) = &self.tls else {
            return Ok(transport.plain());
        };
        progress.enter(Step::Tls);
        match tls.connect(host, transport).await {
            Ok(stream) => Ok(T::secured(stream)),
            Err(fault) => Err(DialError::Tls {
                host: host.clone(),
                address,
                fault,
            }),
        }
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "it waits where there is TLS")]
    async fn secure<T: Transport>(
        &self,
        _: &Host,
        _: SocketAddr,
        transport: T,
        _: &Progress,
    ) -> Result<Stream, DialError> {
        Ok(transport.plain())
    }

    /// A connection that ended after it was open. With TLS 1.3 a server refuses a client's
    /// certificate only then.
    fn why(&self, host: &Host, address: SocketAddr, broken: Broken) -> DialError {
        let (source, bytes) = match broken {
            Broken::Known(error) => return error,
            Broken::Io { source, bytes } => (source, bytes),
        };
        #[cfg(feature = "tls")]
        if let Some(fault) = self.tls.as_ref().and_then(|tls| tls.fault(&source)) {
            return DialError::Tls {
                host: host.clone(),
                address,
                fault,
            };
        }
        #[cfg(not(feature = "tls"))]
        let _ = host;
        if is_end(&source) {
            DialError::Closed { address, bytes }
        } else {
            DialError::Broken { address, source }
        }
    }
}

/// What an attempt at an address is doing: known also when it is cut off. Shared and not lent,
/// because a future that borrows from its caller for any lifetime is not known to be `Send`.
#[derive(Clone)]
struct Progress(Arc<Mutex<Step>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Step::Connect)))
    }
}

impl Progress {
    fn enter(&self, step: Step) {
        *self.0.lock() = step;
    }

    fn reached(&self) -> Step {
        *self.0.lock()
    }
}

/// Tries `attempt` at one address after the other. When all fail, the error is that of the address
/// that got furthest, and of those the first: it says the most. `None` without addresses.
async fn try_each<T, F: Future<Output = Result<T, DialError>>>(
    addresses: Vec<SocketAddr>,
    deadline: Instant,
    late: impl Fn(Step) -> DialError,
    attempt: impl Fn(SocketAddr, Progress) -> F,
) -> Result<T, Option<DialError>> {
    let mut furthest: Option<(Step, DialError)> = None;
    let mut waiting = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / waiting.max(1);
        waiting = waiting.saturating_sub(1);
        let progress = Progress::default();
        let outcome = timeout_at(now + share, attempt(address, progress.clone())).await;
        let reached = progress.reached();
        let error = match outcome {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => late(reached),
        };
        tracing::debug!(%address, %error, "no connection");
        if furthest.as_ref().is_none_or(|(step, _)| reached > *step) {
            furthest = Some((reached, error));
        }
    }
    Err(furthest.map(|(_, error)| error))
}

/// TCP may choose, for a connection to this machine, the very port that it goes to, when nobody
/// listens there. The two ends are then one, and would keep the server from coming back.
fn is_connected_to_itself(tcp: &TcpStream) -> bool {
    match (tcp.local_addr(), tcp.peer_addr()) {
        (Ok(local), Ok(peer)) => local == peer,
        _ => false,
    }
}

/// Sends the first frame and reads the first one back.
async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    frame: &[u8],
    address: SocketAddr,
) -> Result<(ConnectResponse, BytesMut), Broken> {
    // A peer that closes may have said why before; so a failed write alone ends nothing.
    let written = send(stream, frame).await;
    let codec = FrameCodec::new(ANSWER_BYTES_MAX);
    let mut input = BytesMut::with_capacity(ANSWER_BYTES_MAX);
    let stranger = |what| Broken::Known(DialError::NotZooKeeper { address, what });
    loop {
        match codec.next_frame(&mut input) {
            Ok(Some(body)) => {
                let response = ConnectResponse::decode(&body)
                    .map_err(|source| stranger(Stranger::OtherFrame { source }))?;
                return Ok((response, input));
            }
            Ok(None) => {}
            Err(_) => return Err(stranger(Stranger::of(&input))),
        }
        if read_some(stream, &mut input).await? == 0 {
            if !input.is_empty() && input.len() < LENGTH_BYTES {
                return Err(stranger(Stranger::of(&input)));
            }
            written?;
            return Err(closed(address, &input));
        }
    }
}

async fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> Result<usize, Broken> {
    stream.read_buf(input).await.map_err(|source| Broken::Io {
        source,
        bytes: input.len(),
    })
}

fn closed(address: SocketAddr, input: &BytesMut) -> Broken {
    let bytes = input.len();
    Broken::Known(DialError::Closed { address, bytes })
}

/// Sends `isro` and makes sense of the answer, as soon as there is any to be made.
async fn probe(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    address: SocketAddr,
) -> Result<bool, Broken> {
    let written = send(stream, b"isro").await;
    let mut input = BytesMut::with_capacity(WORDS_BYTES_MAX);
    loop {
        if read_some(stream, &mut input).await? == 0 {
            written?;
            return Err(closed(address, &input));
        }
        match ProbeAnswer::of(&input) {
            ProbeAnswer::ReadWrite => return Ok(true),
            ProbeAnswer::NotReadWrite => return Ok(false),
            ProbeAnswer::Refused => {
                return Err(Broken::Known(DialError::ProbeRefused { address }));
            }
            ProbeAnswer::Incomplete => {}
            ProbeAnswer::Other => {
                let what = Stranger::of(&input);
                return Err(Broken::Known(DialError::NotZooKeeper { address, what }));
            }
        }
    }
}

async fn send(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    // TLS may hold back what it was given.
    stream.flush().await
}

/// Why there is no answer: TLS has to tell what is behind an I/O error.
enum Broken {
    Known(DialError),
    Io {
        source: io::Error,
        /// What had come of the answer.
        bytes: usize,
    },
}

impl From<io::Error> for Broken {
    fn from(source: io::Error) -> Self {
        Self::Io { source, bytes: 0 }
    }
}

/// What the beginning of an answer to `isro` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeAnswer {
    ReadWrite,
    NotReadWrite,
    Refused,
    /// The beginning of one of the answers.
    Incomplete,
    Other,
}

impl ProbeAnswer {
    /// The beginnings of all answers that ZooKeeper has: it serves and takes writes; it has no
    /// quorum and serves reads; it serves nothing (said in two ways); the word is not allowed.
    const ALL: [(&[u8], Self); 5] = [
        (b"rw", Self::ReadWrite),
        (b"ro", Self::NotReadWrite),
        (b"null", Self::NotReadWrite),
        (b"This ZooKeeper instance", Self::NotReadWrite),
        (b"isro is not executed", Self::Refused),
    ];

    fn of(input: &[u8]) -> Self {
        Self::ALL
            .into_iter()
            .find_map(|(answer, meaning)| {
                if input.starts_with(answer) {
                    Some(meaning)
                } else if answer.starts_with(input) {
                    Some(Self::Incomplete)
                } else {
                    None
                }
            })
            .unwrap_or(Self::Other)
    }
}
