//! A connection, whether inside TLS or not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;

use crate::environment::Connection;

/// Bytes to and from a server. One list, not one inside the other: a byte over TCP meets one branch.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    /// Made by a connector.
    Custom(Box<dyn Connection>),
    /// In a box: it is a kilobyte, and most streams have none.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(feature = "tls")]
    CustomTls(Box<TlsStream<Box<dyn Connection>>>),
}

/// What carries the bytes, as the kinds of streams that it becomes.
pub(crate) trait Transport: Connection + Sized {
    fn plain(self) -> Stream;

    #[cfg(feature = "tls")]
    fn secured(stream: TlsStream<Self>) -> Stream;
}

impl Transport for TcpStream {
    fn plain(self) -> Stream {
        Stream::Plain(self)
    }

    #[cfg(feature = "tls")]
    fn secured(stream: TlsStream<Self>) -> Stream {
        Stream::Tls(Box::new(stream))
    }
}

impl Transport for Box<dyn Connection> {
    fn plain(self) -> Stream {
        Stream::Custom(self)
    }

    #[cfg(feature = "tls")]
    fn secured(stream: TlsStream<Self>) -> Stream {
        Stream::CustomTls(Box::new(stream))
    }
}

impl Stream {
    /// Whether what was written may stay on this side until it is flushed: TLS takes in more than the
    /// connection has room for, and of a connector's nothing is known.
    pub(crate) fn holds_back(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

/// Calls the same function of whichever stream it is.
macro_rules! forward {
    ($stream:expr, $call:ident $(, $argument:expr)*) => {
        match $stream {
            Stream::Plain(stream) => Pin::new(stream).$call($($argument),*),
            Stream::Custom(stream) => Pin::new(stream).$call($($argument),*),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).$call($($argument),*),
            #[cfg(feature = "tls")]
            Stream::CustomTls(stream) => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), poll_read, context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self.get_mut(), poll_write, context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), poll_flush, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.get_mut(), poll_shutdown, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self.get_mut(), poll_write_vectored, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Custom(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::CustomTls(stream) => stream.is_write_vectored(),
        }
    }
}
