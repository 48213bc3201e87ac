//! The seam between the two ports and the operating system's sockets.
//!
//! [`Network`] names what is used of them; [`SystemNetwork`] is TCP. A simulation brings streams of its
//! own ([`SimulatedStream`]). The types are enums rather than trait objects: in production the one
//! branch is TCP, and a byte costs what it did.

use std::fmt::{self, Debug};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// Bytes that were sent and not acknowledged by the other machine for so long end a connection between
/// servers: that machine, or the way to it, is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_millis(1500);
/// An idle connection between servers is tried after so long, and again at the same interval.
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;

/// Where sockets come from.
pub trait Network: Debug + Send + Sync + 'static {
    /// Opens a listening socket.
    fn listen(&self, address: SocketAddr, backlog: u32) -> io::Result<Listener>;

    /// The addresses of `host:port`.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// Connects. Cancel safe.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>>;
}

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    fn listen(&self, address: SocketAddr, backlog: u32) -> io::Result<Listener> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart must not wait for connections of the last run to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(backlog).map(Listener::Tcp)
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(lookup_host(address).await?.collect()) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move { Ok(Stream::Tcp(TcpStream::connect(address).await?)) })
    }
}

/// A simulated listening socket.
pub trait SimulatedListener: Send + Sync + 'static {
    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// As `TcpListener::poll_accept`.
    fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(SimulatedSocket, SocketAddr)>>;
}

/// A simulated connection, shared by its two halves. As with TCP, dropping the last handle ends both
/// directions.
pub trait SimulatedStream: Send + Sync + 'static {
    /// As `AsyncRead::poll_read`.
    fn poll_read(&self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;
    /// As `AsyncWrite::poll_write`.
    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Writes what fits; [`io::ErrorKind::WouldBlock`] if nothing does.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Ends the direction in which this side sends.
    fn shutdown(&self);
    /// Ends the connection when what was sent is not acknowledged for so long.
    fn give_up_after(&self, patience: Duration);
}

/// One end of a simulated connection.
pub type SimulatedSocket = Arc<dyn SimulatedStream>;

/// A listening socket.
pub enum Listener {
    Tcp(TcpListener),
    Simulated(Arc<dyn SimulatedListener>),
}

impl Listener {
    /// Waits for a connection. Cancel safe.
    ///
    /// # Errors
    ///
    /// The operating system's; the next call may work.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Simulated(listener) => {
                let (stream, peer) =
                    std::future::poll_fn(|context| listener.poll_accept(context)).await?;
                Ok((Stream::Simulated(stream), peer))
            }
        }
    }

    /// Where it listens, with the port the system chose for port 0.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Simulated(listener) => Ok(listener.address()),
        }
    }
}

/// A connection.
pub enum Stream {
    Tcp(TcpStream),
    Simulated(SimulatedSocket),
}

impl Stream {
    /// Sets what a connection to a client needs: answers leave as soon as they are there.
    pub fn prepare_for_client(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Sets what a connection between servers needs.
    pub fn prepare_for_peer(&self) -> io::Result<()> {
        use rustix::net::sockopt;

        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Simulated(stream) => {
                stream.give_up_after(UNACKNOWLEDGED_MAX);
                return Ok(());
            }
        };
        let milliseconds = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
        stream.set_nodelay(true)?;
        let socket = stream.as_fd();
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(socket, KEEPALIVE)?;
        sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
        sockopt::set_tcp_user_timeout(socket, milliseconds)?;
        Ok(())
    }

    /// The two directions, to be used by two tasks, or at two places of one.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                (ReadHalf::Tcp(reader), WriteHalf::Tcp(writer))
            }
            Self::Simulated(stream) => (
                ReadHalf::Simulated(Arc::clone(&stream)),
                WriteHalf::Simulated(stream),
            ),
        }
    }
}

/// The receiving side of a connection.
pub enum ReadHalf {
    Tcp(OwnedReadHalf),
    Simulated(SimulatedSocket),
}

/// The sending side of a connection. Dropping it ends that direction.
pub enum WriteHalf {
    Tcp(OwnedWriteHalf),
    Simulated(SimulatedSocket),
}

impl WriteHalf {
    /// Sends what can be sent without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing can; else the connection has ended.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(writer) => writer.try_write(bytes),
            Self::Simulated(stream) => stream.try_write(bytes),
        }
    }
}

/// As TCP's half does.
impl Drop for WriteHalf {
    fn drop(&mut self) {
        if let Self::Simulated(stream) = self {
            stream.shutdown();
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(reader) => Pin::new(reader).poll_read(context, into),
            Self::Simulated(stream) => stream.poll_read(context, into),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(writer) => Pin::new(writer).poll_write(context, bytes),
            Self::Simulated(stream) => stream.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(writer) => Pin::new(writer).poll_write_vectored(context, slices),
            Self::Simulated(stream) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                stream.poll_write(context, first.map_or(&[], |slice| &**slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(writer) => Pin::new(writer).poll_flush(context),
            Self::Simulated(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(writer) => Pin::new(writer).poll_shutdown(context),
            Self::Simulated(stream) => {
                stream.shutdown();
                Poll::Ready(Ok(()))
            }
        }
    }
}

macro_rules! opaque {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Tcp(socket) => socket.fmt(formatter),
                    Self::Simulated(_) => formatter.write_str("Simulated"),
                }
            }
        }
    )*};
}

opaque!(Listener, Stream, ReadHalf, WriteHalf);
