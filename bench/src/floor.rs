//! The floor: a server that does nothing but what no durable server can leave out.
//!
//! It speaks just enough of the protocol to be driven like any other server. Writes are appended to
//! one log file with group commit: it reads what has arrived on all connections, writes it to the
//! log with one call, calls fdatasync once, and only then replies. It keeps no tree, checks nothing
//! and answers reads with fixed data. So its figures are the ceiling that this machine, this disk
//! and this load generator allow; it is no server to keep anything in.
//!
//! The log is written in advance and used round and round, as servers that recycle their log
//! segments do: no block is allocated while measuring.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::{Buf, BufMut, BytesMut};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use quorate_protocol::frame::{FrameCodec, MAX_FRAME_BYTES_DEFAULT, write_frame};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{OpCode, Password, SessionId, Stat};

use crate::error::BenchError;

pub(crate) const LOG_BYTES: u64 = 256 << 20;
const LISTENER: Token = Token(usize::MAX);
const INPUT_BYTES: usize = 64 << 10;
/// A client that leaves so much unread is cut off.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
const CONNECTIONS_MAX: usize = 10_000;

struct Connection {
    socket: TcpStream,
    input: BytesMut,
    output: BytesMut,
    open: bool,
}

/// Why a connection ends.
struct Disconnect;

/// A floor that listens, and does not serve yet.
pub(crate) struct FloorServer {
    floor: Floor,
    poll: Poll,
    listener: TcpListener,
}

impl FloorServer {
    /// `data_bytes` is the length of the data every get returns.
    pub(crate) fn bind(
        dir: &Path,
        address: SocketAddr,
        data_bytes: usize,
        log_bytes: u64,
    ) -> Result<Self, BenchError> {
        let floor = Floor {
            log: Log::create(dir, log_bytes)?,
            data: vec![b'd'; data_bytes],
            zxid: 0,
            sessions: 0,
        };
        let io = BenchError::io;
        let poll = Poll::new().map_err(io("preparing to poll"))?;
        let mut listener = TcpListener::bind(address).map_err(io("listening"))?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(io("listening"))?;
        Ok(Self {
            floor,
            poll,
            listener,
        })
    }

    #[cfg(test)]
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Serves until the process is ended.
    pub(crate) fn serve(self) -> Result<(), BenchError> {
        let Self {
            mut floor,
            mut poll,
            listener,
        } = self;
        let mut connections: BTreeMap<usize, Connection> = BTreeMap::new();
        let mut next_token = 0;
        let mut events = Events::with_capacity(1024);
        let mut chunk = vec![0; INPUT_BYTES];
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(BenchError::io("polling")(error));
                }
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    accept(&listener, &poll, &mut connections, &mut next_token)?;
                } else if let Some(connection) = connections.get_mut(&event.token().0) {
                    let read = floor.receive(connection, &mut chunk);
                    connection.open &= read.is_ok();
                }
            }
            floor.log.commit()?;
            for event in &events {
                let token = event.token().0;
                let Some(connection) = connections.get_mut(&token) else {
                    continue;
                };
                let flushed = connection.flush();
                if flushed.is_err() || !connection.open {
                    connections.remove(&token);
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut BTreeMap<usize, Connection>,
    next_token: &mut usize,
) -> Result<(), BenchError> {
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) if connections.len() < CONNECTIONS_MAX => socket,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(BenchError::io("accepting a connection")(error)),
        };
        let doing = "preparing a connection";
        socket.set_nodelay(true).map_err(BenchError::io(doing))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut socket, Token(*next_token), interest)
            .map_err(BenchError::io(doing))?;
        let connection = Connection {
            socket,
            input: BytesMut::with_capacity(INPUT_BYTES),
            output: BytesMut::with_capacity(INPUT_BYTES),
            open: true,
        };
        connections.insert(*next_token, connection);
        *next_token += 1;
    }
}

impl Connection {
    fn flush(&mut self) -> Result<(), Disconnect> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(written) => self.output.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Disconnect),
            }
        }
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err(Disconnect);
        }
        Ok(())
    }
}

struct Floor {
    log: Log,
    data: Vec<u8>,
    zxid: i64,
    sessions: i64,
}

impl Floor {
    fn receive(&mut self, connection: &mut Connection, chunk: &mut [u8]) -> Result<(), Disconnect> {
        loop {
            match connection.socket.read(chunk) {
                Ok(0) => return Err(Disconnect),
                Ok(read) => {
                    connection.input.extend_from_slice(&chunk[..read]);
                    if read < chunk.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Disconnect),
            }
        }
        let codec = FrameCodec::new(MAX_FRAME_BYTES_DEFAULT);
        while let Some(frame) = codec
            .next_frame(&mut connection.input)
            .map_err(|_| Disconnect)?
        {
            self.answer(&frame, &mut connection.output)?;
        }
        Ok(())
    }

    fn answer(&mut self, frame: &[u8], out: &mut BytesMut) -> Result<(), Disconnect> {
        // A connect request starts with protocol version 0 and an 8-byte zxid; no request of ours
        // has xid 0.
        if frame.starts_with(&[0; 4]) {
            return self.open_session(frame, out);
        }
        let (Some(xid), Some(op)) = (frame.first_chunk::<4>(), frame.get(4..8)) else {
            return Err(Disconnect);
        };
        let op = i32::from_be_bytes([op[0], op[1], op[2], op[3]]);
        let op = OpCode::from_code(op).ok_or(Disconnect)?;
        let body = &frame[8..];
        if matches!(
            op,
            OpCode::Create | OpCode::SetData | OpCode::Delete | OpCode::Multi
        ) {
            self.log.append(frame);
            self.zxid += 1;
        }
        let start = out.len();
        out.put_i32(0);
        out.put_slice(xid);
        out.put_i64(self.zxid);
        out.put_i32(0);
        match op {
            OpCode::Create => out.put_slice(path_of(body)?),
            OpCode::SetData | OpCode::Exists => out.put_slice(&[0; Stat::JUTE_BYTES]),
            OpCode::GetData => {
                out.put_u32(u32::try_from(self.data.len()).map_err(|_| Disconnect)?);
                out.put_slice(&self.data);
                out.put_slice(&[0; Stat::JUTE_BYTES]);
            }
            // An empty list.
            OpCode::GetChildren => out.put_i32(0),
            // The end marker of a list of results.
            OpCode::Multi => out.put_slice(&[255, 255, 255, 255, 1, 255, 255, 255, 255]),
            _ => {}
        }
        let length = u32::try_from(out.len() - start - 4).map_err(|_| Disconnect)?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn open_session(&mut self, frame: &[u8], out: &mut BytesMut) -> Result<(), Disconnect> {
        let request = ConnectRequest::decode(frame).map_err(|_| Disconnect)?;
        self.sessions += 1;
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: request.timeout_ms,
            session_id: SessionId::new(self.sessions),
            password: Password::default(),
            read_only: request.read_only,
        };
        self.log.append(frame);
        write_frame(out, |out| response.encode(out)).map_err(|_| Disconnect)
    }
}

/// The path a body starts with, its length included.
fn path_of(body: &[u8]) -> Result<&[u8], Disconnect> {
    let length = body.first_chunk::<4>().ok_or(Disconnect)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Disconnect)?;
    body.get(..4 + length).ok_or(Disconnect)
}

struct Log {
    file: File,
    at: u64,
    /// Where it starts again at the front.
    bytes: u64,
    uncommitted: Vec<u8>,
}

impl Log {
    fn create(dir: &Path, log_bytes: u64) -> Result<Self, BenchError> {
        let path = dir.join("floor.log");
        let io = |doing| {
            let path = path.clone();
            move |source| BenchError::File {
                doing,
                path,
                source,
            }
        };
        std::fs::create_dir_all(dir).map_err(io("creating the folder of"))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(io("creating"))?;
        let zeros = vec![0; 1 << 20];
        for chunk in 0..log_bytes >> 20 {
            file.write_all_at(&zeros, chunk << 20)
                .map_err(io("writing"))?;
        }
        file.sync_all().map_err(io("syncing"))?;
        Ok(Self {
            file,
            at: 0,
            bytes: log_bytes,
            uncommitted: Vec::with_capacity(4 << 20),
        })
    }

    fn append(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.uncommitted.extend_from_slice(&length.to_be_bytes());
        self.uncommitted.extend_from_slice(frame);
    }

    fn commit(&mut self) -> Result<(), BenchError> {
        if self.uncommitted.is_empty() {
            return Ok(());
        }
        let length = self.uncommitted.len() as u64;
        if self.at + length > self.bytes {
            self.at = 0;
        }
        self.file
            .write_all_at(&self.uncommitted, self.at)
            .and_then(|()| self.file.sync_data())
            .map_err(BenchError::io("writing the log"))?;
        self.at += length;
        self.uncommitted.clear();
        Ok(())
    }
}
