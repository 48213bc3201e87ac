//! The seam between a client and what carries its bytes.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connect_string::Host;

/// What a [`Connector`] is asked for. Dropped when it takes too long, or when the client is closed.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A stream of bytes to a server and back.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl fmt::Debug for dyn Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Makes connections, instead of TCP to the hosts of the connect string. See
/// [`ClientBuilder::connector`](crate::ClientBuilder::connector).
///
/// The client sees to the rest: which host is tried when and for how long, TLS inside of the connection
/// where it is asked for, the session. It flushes what it has written.
///
/// Here all hosts are servers in the same process:
///
/// ```
/// use std::io;
/// use std::net::SocketAddr;
///
/// use quorate_client::environment::{Connection, Connector, Pending};
/// use quorate_client::{Client, Host};
/// use tokio::io::{DuplexStream, duplex};
/// use tokio::sync::mpsc;
///
/// /// Gives one end to the client and the other to whoever serves.
/// #[derive(Debug)]
/// struct InProcess(mpsc::Sender<DuplexStream>);
///
/// impl Connector for InProcess {
///     fn resolve<'a>(&'a self, host: &'a Host) -> Pending<'a, Vec<SocketAddr>> {
///         // Names are not looked up. The address is what errors are reported with.
///         Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], host.port()))]) })
///     }
///
///     fn connect<'a>(&'a self, _: &'a Host, _: SocketAddr) -> Pending<'a, Box<dyn Connection>> {
///         Box::pin(async move {
///             let (ours, theirs) = duplex(64 << 10);
///             match self.0.send(theirs).await {
///                 Ok(()) => Ok(Box::new(ours) as Box<dyn Connection>),
///                 Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
///             }
///         })
///     }
/// }
///
/// # async fn serve(_: DuplexStream) {}
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let (accepting, mut accepted) = mpsc::channel(1);
/// tokio::spawn(async move {
///     while let Some(connection) = accepted.recv().await {
///         tokio::spawn(serve(connection));
///     }
/// });
/// let client = Client::builder("one:2181,two:2181")
///     .connector(InProcess(accepting))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Where to connect to for a host: all addresses, each of which is given to
    /// [`Connector::connect`] in turn. Asked at every attempt; 16 are heeded.
    ///
    /// As the operating system has it, unless it is replaced. Behind a proxy that looks names up by
    /// itself this is the proxy's own address.
    fn resolve<'a>(&'a self, host: &'a Host) -> Pending<'a, Vec<SocketAddr>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.name(), host.port())).await?;
            Ok(found.collect())
        })
    }

    /// Connects to one of the host's addresses. The connection is closed when it is dropped.
    fn connect<'a>(
        &'a self,
        host: &'a Host,
        address: SocketAddr,
    ) -> Pending<'a, Box<dyn Connection>>;
}
