//! A small client of ZooKeeper's protocol for tests: one blocking connection, nothing hidden.
//!
//! It shows what came, in the order in which it came: replies, events, the end of the connection. It
//! pipelines when told to, sends any bytes when told to, and never reconnects or retries by itself.
//! A server that stays silent for [`SILENCE`] is an error, so that no test waits for ever. Records
//! come from the protocol crate; the interop tests have a second opinion on those.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_protocol::frame::{FrameCodec, write_frame};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::{AddWatch, Check, Create, Delete, PathOnly, SetData, Watched};
use quorate_protocol::{
    AclEntry, EventType, OpCode, Password, ReplyHeader, Request, RequestHeader, Response,
    SessionId, Stat, WatcherEvent, Xid, Zxid, jute,
};

/// How long a server may say nothing before that is an error: far more than any answer takes, also
/// on a busy machine.
pub const SILENCE: Duration = Duration::from_secs(30);

/// A client accepts longer frames than a server: a test asks for what it gets.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What it takes to resume a session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub id: SessionId,
    pub password: Password,
    /// As granted.
    pub timeout_ms: i32,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub xid: i32,
    pub zxid: i64,
    /// The body, or the error code.
    pub result: Result<Response<'static>, i32>,
}

/// What a watch sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub zxid: i64,
    pub kind: EventType,
    pub path: String,
}

/// What came next.
#[derive(Clone, Debug)]
pub enum Message {
    Reply(Reply),
    Event(Event),
    /// The connection is over, in order or not.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
    next_xid: i32,
    /// Requests without a reply, in their order.
    waiting: VecDeque<(i32, OpCode)>,
    /// Events that came while [`Connection::call`] waited for a reply.
    pub events: VecDeque<Event>,
    session: Option<Session>,
    /// The highest zxid in any reply so far.
    pub last_zxid: i64,
}

impl Connection {
    /// Connects and says nothing yet.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn dial(address: SocketAddr) -> io::Result<Self> {
        Self::dial_within(address, SILENCE)
    }

    /// As [`Connection::dial`], with a limit for the time that connecting takes.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn dial_within(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self {
            stream,
            input: BytesMut::new(),
            next_xid: 1,
            waiting: VecDeque::new(),
            events: VecDeque::new(),
            session: None,
            last_zxid: 0,
        })
    }

    /// Connects and opens a session.
    ///
    /// # Errors
    /// Nobody listens, or there is no session to be had.
    pub fn open(address: SocketAddr, timeout_ms: i32) -> io::Result<Self> {
        let mut connection = Self::dial(address)?;
        match connection.handshake(&hello(timeout_ms))? {
            Some(_) if connection.session.is_some() => Ok(connection),
            other => Err(io::Error::other(format!("no new session: {other:?}"))),
        }
    }

    /// Connects and resumes a session; `None` if the server says that it is no more.
    ///
    /// # Errors
    /// Nobody listens, or the connection ends without an answer.
    pub fn resume(
        address: SocketAddr,
        session: &Session,
        last_zxid: i64,
    ) -> io::Result<Option<Self>> {
        let mut connection = Self::dial(address)?;
        let request = ConnectRequest {
            session_id: Some(session.id),
            password: Some(Bytes::copy_from_slice(session.password.as_bytes())),
            last_zxid_seen: Zxid(last_zxid),
            ..hello(session.timeout_ms)
        };
        match connection.handshake(&request)? {
            Some(_) => Ok(connection.session.is_some().then_some(connection)),
            None => Err(closed()),
        }
    }

    /// Sends a connect request and waits for the answer; `None` if the connection ends instead.
    ///
    /// # Errors
    /// The server stays silent, or answers something else.
    pub fn handshake(&mut self, request: &ConnectRequest) -> io::Result<Option<ConnectResponse>> {
        self.send_raw(&connect_frame(request))?;
        self.read_welcome()
    }

    /// Waits for the answer to a connect request; `None` if the connection ends instead.
    ///
    /// # Errors
    /// The server stays silent, or answers something else.
    pub fn read_welcome(&mut self) -> io::Result<Option<ConnectResponse>> {
        let Some(frame) = self.next_frame()? else {
            return Ok(None);
        };
        let response = ConnectResponse::decode(&frame).map_err(invalid)?;
        self.session = response.session_id.map(|id| Session {
            id,
            password: response.password,
            timeout_ms: response.timeout_ms,
        });
        Ok(Some(response))
    }

    /// The session of this connection.
    ///
    /// # Panics
    /// If none was opened.
    #[must_use]
    pub fn session(&self) -> Session {
        self.session.expect("the handshake opened a session")
    }

    /// Sends one request; returns its xid.
    ///
    /// # Errors
    /// The connection is over.
    pub fn send(&mut self, request: &Request) -> io::Result<i32> {
        let xid = self.next_xid;
        self.send_all(std::slice::from_ref(request))?;
        Ok(xid)
    }

    /// Sends requests in one piece.
    ///
    /// # Errors
    /// The connection is over.
    pub fn send_all(&mut self, requests: &[Request]) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        for request in requests {
            let xid = self.next_xid;
            self.next_xid += 1;
            self.waiting.push_back((xid, request.op()));
            bytes.extend_from_slice(&request_frame(xid, request));
        }
        self.send_raw(&bytes)
    }

    /// Notes that a request sent as raw bytes will be answered.
    pub fn expect_reply(&mut self, xid: i32, op: OpCode) {
        self.waiting.push_back((xid, op));
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// The connection is over.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// How many requests have no reply yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sends a request and waits for its reply; events are kept in [`Connection::events`].
    ///
    /// # Errors
    /// The connection is over, or the server stays silent.
    pub fn call(&mut self, request: &Request) -> io::Result<Reply> {
        let xid = self.send(request)?;
        loop {
            match self.receive()? {
                Message::Reply(reply) if reply.xid == xid || request.op() == OpCode::Ping => {
                    return Ok(reply);
                }
                Message::Reply(_) => {}
                Message::Event(event) => self.events.push_back(event),
                Message::Closed => return Err(closed()),
            }
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// The connection is over, or the server stays silent.
    pub fn next_event(&mut self) -> io::Result<Event> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        loop {
            match self.receive()? {
                Message::Event(event) => return Ok(event),
                Message::Reply(_) => {}
                Message::Closed => return Err(closed()),
            }
        }
    }

    /// Waits for whatever comes next. Replies must come in the order of the requests.
    ///
    /// # Errors
    /// The server stays silent, or what it sent makes no sense.
    pub fn receive(&mut self) -> io::Result<Message> {
        let Some(frame) = self.next_frame()? else {
            return Ok(Message::Closed);
        };
        let mut body: &[u8] = &frame;
        let header: ReplyHeader = jute::decode_next(&mut body).map_err(invalid)?;
        if header.xid == Xid::NOTIFICATION {
            let event: WatcherEvent<'_> = jute::decode(body).map_err(invalid)?;
            let kind = EventType::from_code(event.event_type)
                .ok_or_else(|| invalid(format!("event type {}", event.event_type)))?;
            return Ok(Message::Event(Event {
                zxid: header.zxid.0,
                kind,
                path: event.path.into_owned(),
            }));
        }
        let Some((xid, op)) = self.waiting.pop_front() else {
            return Err(invalid(format!("a reply nobody asked for: {header:?}")));
        };
        let expected = if op == OpCode::Ping { Xid::PING.0 } else { xid };
        if header.xid.0 != expected {
            return Err(invalid(format!(
                "the reply to {expected} ({op:?}) was due, this came: {header:?}"
            )));
        }
        self.last_zxid = self.last_zxid.max(header.zxid.0);
        let result = match header.err {
            0 => Ok(Response::decode(op, body).map_err(invalid)?),
            code => Err(code),
        };
        Ok(Message::Reply(Reply {
            xid: header.xid.0,
            zxid: header.zxid.0,
            result,
        }))
    }

    /// Waits for the next frame; `None` once the connection is over.
    ///
    /// # Errors
    /// The server stays silent.
    pub fn next_frame(&mut self) -> io::Result<Option<BytesMut>> {
        let codec = FrameCodec::new(FRAME_BYTES_MAX);
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Some(frame) = codec.next_frame(&mut self.input).map_err(invalid)? {
                return Ok(Some(frame));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if is_closed(&error) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a whole frame has been read from the socket already.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        self.input.first_chunk().is_some_and(|length| {
            usize::try_from(i32::from_be_bytes(*length))
                .is_ok_and(|length| self.input.len() >= 4 + length)
        })
    }

    /// Reads to the end of the connection; returns what came.
    ///
    /// # Errors
    /// The connection stays open.
    pub fn read_to_close(&mut self) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            match self.receive()? {
                Message::Closed => return Ok(messages),
                message => messages.push(message),
            }
        }
    }

    /// Another limit than [`SILENCE`] for the time the server may stay silent.
    ///
    /// # Errors
    /// The limit is zero.
    pub fn set_silence(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Ends the sending side.
    pub fn shutdown_write(&self) {
        // A connection that is over already cannot be ended once more.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// Whether `error` says that the other side has gone.
#[must_use]
pub fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed")
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A request for a new session, in the form current clients send.
#[must_use]
pub fn hello(timeout_ms: i32) -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms,
        session_id: None,
        password: Some(Bytes::from_static(&[0; 16])),
        read_only: Some(false),
    }
}

/// The frame of a connect request.
#[must_use]
pub fn connect_frame(request: &ConnectRequest) -> BytesMut {
    let mut bytes = BytesMut::new();
    write_frame(&mut bytes, |out| request.encode(out)).expect("a test's request is short");
    bytes
}

/// The frame of a request.
#[must_use]
pub fn request_frame(xid: i32, request: &Request) -> BytesMut {
    let mut bytes = BytesMut::new();
    write_frame(&mut bytes, |out| {
        let header = RequestHeader {
            xid: Xid(xid),
            op: request.op().code(),
        };
        jute::encode(&header, out)?;
        request.encode(out)
    })
    .expect("a test's request is short");
    bytes
}

/// Flags of [`create`].
pub const PERSISTENT: i32 = 0;
pub const EPHEMERAL: i32 = 1;
pub const SEQUENTIAL: i32 = 2;

#[must_use]
pub fn create_record(path: &str, data: &[u8], flags: i32) -> Create {
    Create {
        path: path.to_owned(),
        data: Some(Bytes::copy_from_slice(data)),
        acl: vec![AclEntry::open()],
        flags,
    }
}

#[must_use]
pub fn create(path: &str, data: &[u8], flags: i32) -> Request {
    Request::Create(create_record(path, data, flags))
}

#[must_use]
pub fn set_record(path: &str, data: &[u8], version: i32) -> SetData {
    SetData {
        path: path.to_owned(),
        data: Some(Bytes::copy_from_slice(data)),
        version,
    }
}

#[must_use]
pub fn set_data(path: &str, data: &[u8], version: i32) -> Request {
    Request::SetData(set_record(path, data, version))
}

#[must_use]
pub fn delete_record(path: &str, version: i32) -> Delete {
    Delete {
        path: path.to_owned(),
        version,
    }
}

#[must_use]
pub fn delete(path: &str, version: i32) -> Request {
    Request::Delete(delete_record(path, version))
}

#[must_use]
pub fn check(path: &str, version: i32) -> MultiOp {
    MultiOp::Check(Check {
        path: path.to_owned(),
        version,
    })
}

fn watched(path: &str, watch: bool) -> Watched {
    Watched {
        path: path.to_owned(),
        watch,
    }
}

#[must_use]
pub fn exists(path: &str, watch: bool) -> Request {
    Request::Exists(watched(path, watch))
}

#[must_use]
pub fn get_data(path: &str, watch: bool) -> Request {
    Request::GetData(watched(path, watch))
}

#[must_use]
pub fn get_children(path: &str, watch: bool) -> Request {
    Request::GetChildren2(watched(path, watch))
}

#[must_use]
pub fn sync(path: &str) -> Request {
    Request::Sync(PathOnly {
        path: path.to_owned(),
    })
}

/// A persistent watch; `recursive` for all below the path as well.
#[must_use]
pub fn add_watch(path: &str, recursive: bool) -> Request {
    Request::AddWatch(AddWatch {
        path: path.to_owned(),
        mode: i32::from(recursive),
    })
}

impl Reply {
    /// The stat in a successful answer.
    #[must_use]
    pub fn stat(&self) -> Option<Stat> {
        match &self.result {
            Ok(
                Response::Stat(stat)
                | Response::PathStat { stat, .. }
                | Response::Data { stat, .. }
                | Response::Children { stat, .. },
            ) => Some(*stat),
            _ => None,
        }
    }

    /// The data in a successful answer.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        match &self.result {
            Ok(Response::Data { data, .. }) => data.as_deref(),
            _ => None,
        }
    }

    /// The path in a successful answer.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match &self.result {
            Ok(Response::Path(path) | Response::PathStat { path, .. }) => Some(path),
            _ => None,
        }
    }

    /// The names in a successful answer.
    #[must_use]
    pub fn children(&self) -> Option<&[Cow<'static, str>]> {
        match &self.result {
            Ok(Response::Children { children, .. } | Response::Strings(children)) => Some(children),
            _ => None,
        }
    }

    /// The error code; 0 for none.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.result.as_ref().err().copied().unwrap_or(0)
    }
}
