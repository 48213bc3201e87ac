//! A port that is ours for as long as the ensemble lives, whether anybody listens on it or not.
//!
//! A socket that is bound and never listens keeps the port from everybody who asks the system for a
//! free one, while a server that names it, with `SO_REUSEADDR` as ours do, may listen on it. So a
//! server finds its port again after a restart, its peers are refused while it is down, and ensembles
//! of many processes do not meet.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections waiting to be accepted: more than one test opens at once.
const BACKLOG: u32 = 1024;

#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _holds: TcpSocket,
}

impl Port {
    pub(crate) fn reserve() -> io::Result<Self> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self {
            address: socket.local_addr()?,
            _holds: socket,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to listen. Needs the runtime that is to accept.
    pub(crate) fn listen(&self) -> io::Result<TcpListener> {
        bind(self.address)?.listen(BACKLOG)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
