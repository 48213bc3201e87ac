//! The simulated network, as the client crate's connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quorate_client::Host;
use quorate_client::environment::{Connection, Connector, Pending};
use quorate_server::network::{Network, ReadHalf, WriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A network, seen from one of its nodes.
#[derive(Debug)]
pub(super) struct Through(pub(super) Arc<dyn Network>);

impl Connector for Through {
    fn resolve<'a>(&'a self, host: &'a Host) -> Pending<'a, Vec<SocketAddr>> {
        Box::pin(async move { self.0.resolve(&host.to_string()).await })
    }

    fn connect<'a>(&'a self, _: &'a Host, address: SocketAddr) -> Pending<'a, Box<dyn Connection>> {
        Box::pin(async move {
            let (reader, writer) = self.0.connect(address).await?.into_split();
            Ok(Box::new(Both { reader, writer }) as Box<dyn Connection>)
        })
    }
}

/// The two directions together.
struct Both {
    reader: ReadHalf,
    writer: WriteHalf,
}

impl AsyncRead for Both {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for Both {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}
