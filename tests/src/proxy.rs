//! A TCP proxy between a client and a server, for breaking connections and for recording bytes.
//!
//! The client program steers it at the right step of its script through a control port: one command a
//! line, answered with `done`. `cut` closes all connections; `hold` does the same and refuses new
//! ones until `release`. It forwards bytes and never looks into them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Who sent a recorded piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Some bytes in the order the proxy saw them; not necessarily a whole frame.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Counts the connections of this proxy.
    pub connection: usize,
    pub direction: Direction,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shared {
    held: AtomicBool,
    stopped: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    pieces: Mutex<Vec<Piece>>,
}

/// A running proxy; it stops when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    control: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts forwarding to `upstream`.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let control_listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let proxy = Self {
            address: listener.local_addr()?,
            control: control_listener.local_addr()?,
            shared: Arc::clone(&shared),
        };
        let for_control = Arc::clone(&shared);
        thread::spawn(move || accept_clients(&listener, upstream, &shared));
        thread::spawn(move || accept_control(&control_listener, &for_control));
        Ok(proxy)
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the script sends its commands.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        self.control
    }

    /// Closes all connections, and refuses new ones until [`Proxy::release`].
    pub fn hold(&self) {
        self.shared.held.store(true, Ordering::SeqCst);
        self.shared.cut();
    }

    /// Lets clients connect again.
    pub fn release(&self) {
        self.shared.held.store(false, Ordering::SeqCst);
    }

    /// All bytes forwarded so far.
    #[must_use]
    pub fn recording(&self) -> Vec<Piece> {
        lock(&self.shared.pieces).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.cut();
        // Each connection wakes one accept loop, which then sees that it is to stop.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        let _ = TcpStream::connect_timeout(&self.control, Duration::from_secs(1));
    }
}

impl Shared {
    fn cut(&self) {
        for stream in lock(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept_clients(listener: &TcpListener, upstream: SocketAddr, shared: &Arc<Shared>) {
    for (connection, client) in listener.incoming().enumerate() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        if shared.held.load(Ordering::SeqCst) {
            let _ = client.shutdown(Shutdown::Both);
            continue;
        }
        // A server that refuses shows as a connection closed at once, as it would without us.
        let _ = forward(&client, upstream, connection, shared);
    }
}

fn forward(
    client: &TcpStream,
    upstream: SocketAddr,
    connection: usize,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&upstream, Duration::from_secs(5))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    lock(&shared.open).extend([client.try_clone()?, server.try_clone()?]);
    for (from, to, direction) in [
        (
            client.try_clone()?,
            server.try_clone()?,
            Direction::ToServer,
        ),
        (server, client.try_clone()?, Direction::ToClient),
    ] {
        let shared = Arc::clone(shared);
        thread::spawn(move || pump(from, to, connection, direction, &shared));
    }
    Ok(())
}

fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    connection: usize,
    direction: Direction,
    shared: &Shared,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = buffer[..count].to_vec();
        lock(&shared.pieces).push(Piece {
            connection,
            direction,
            bytes,
        });
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

fn accept_control(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || obey(&stream, &shared));
    }
}

fn obey(stream: &TcpStream, shared: &Shared) {
    let Ok(mut answers) = stream.try_clone() else {
        return;
    };
    for command in BufReader::new(stream).lines().map_while(Result::ok) {
        match command.trim() {
            "cut" => shared.cut(),
            "hold" => {
                shared.held.store(true, Ordering::SeqCst);
                shared.cut();
            }
            "release" => shared.held.store(false, Ordering::SeqCst),
            _ => return,
        }
        if answers.write_all(b"done\n").is_err() {
            return;
        }
    }
}
