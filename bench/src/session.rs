//! A blocking session: for setting a run up, cleaning up after it, and simple questions.
//!
//! It sends many requests in one write and then reads as many replies, which is fast enough to fill
//! a tree. The measuring itself is done by [`crate::driver`], to which a session hands its socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use quorate_protocol::frame::write_frame;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::multi::MultiResult;
use quorate_protocol::request::PathOnly;
use quorate_protocol::{OpCode, Request, Response, Xid, Zxid};

use crate::error::BenchError;
use crate::wire::{REPLY_BYTES_MAX, encode_request, next_reply};

/// Asked for; a measured run never leaves a connection silent for nearly this long.
const SESSION_TIMEOUT_MS: i32 = 30_000;
/// A server that is silent for longer is stuck.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes written before the replies to them are read. Well below what socket buffers take on both
/// sides, or server and client could wait for each other.
const BATCH_BYTES: usize = 128 << 10;

#[derive(Debug)]
pub(crate) struct Session {
    stream: TcpStream,
    input: BytesMut,
    next_xid: i32,
}

impl Session {
    /// Connects and opens a session.
    pub(crate) fn open(server: SocketAddr) -> Result<Self, BenchError> {
        let mut session = Self::start(server, SILENCE_MAX)?;
        session.finish_handshake()?;
        Ok(session)
    }

    /// Opens many sessions, spread evenly over `servers`, with the servers' work overlapping.
    pub(crate) fn open_many(servers: &[SocketAddr], count: usize) -> Result<Vec<Self>, BenchError> {
        let mut sessions = servers
            .iter()
            .cycle()
            .take(count)
            .map(|server| Self::start(*server, SILENCE_MAX))
            .collect::<Result<Vec<_>, _>>()?;
        for session in &mut sessions {
            session.finish_handshake()?;
        }
        Ok(sessions)
    }

    /// Connects and asks for a session, without waiting for the answer.
    pub(crate) fn start(server: SocketAddr, silence_max: Duration) -> Result<Self, BenchError> {
        let connect = |source| BenchError::Connect { server, source };
        let stream = TcpStream::connect_timeout(&server, silence_max).map_err(connect)?;
        Self::over(stream, server, SESSION_TIMEOUT_MS, silence_max)
    }

    /// As [`Self::start`], on a connection that is there already and for a session of so long.
    pub(crate) fn over(
        stream: TcpStream,
        server: SocketAddr,
        timeout_ms: i32,
        silence_max: Duration,
    ) -> Result<Self, BenchError> {
        let connect = |source| BenchError::Connect { server, source };
        stream.set_nodelay(true).map_err(connect)?;
        stream
            .set_read_timeout(Some(silence_max))
            .map_err(connect)?;
        stream
            .set_write_timeout(Some(silence_max))
            .map_err(connect)?;
        let mut session = Self {
            stream,
            input: BytesMut::new(),
            next_xid: 1,
        };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms,
            session_id: None,
            password: Some(vec![0; 16].into()),
            read_only: Some(false),
        };
        let mut out = BytesMut::new();
        write_frame(&mut out, |out| request.encode(out))?;
        session.write(&out)?;
        Ok(session)
    }

    pub(crate) fn finish_handshake(&mut self) -> Result<(), BenchError> {
        let body = loop {
            if let Some(length) = self.input.first_chunk::<4>() {
                let announced = i32::from_be_bytes(*length);
                // 36 or 37 in every known server.
                let Ok(length @ 0..=1024) = usize::try_from(announced) else {
                    let limit = 1024;
                    return Err(BenchError::FrameLength { announced, limit });
                };
                if self.input.len() >= 4 + length {
                    self.input.advance(4);
                    break self.input.split_to(length);
                }
            }
            self.fill()?;
        };
        let response = ConnectResponse::decode(&body)?;
        if response.timeout_ms <= 0 || response.session_id.is_none() {
            return Err(BenchError::NoSession);
        }
        Ok(())
    }

    /// One request and its reply's error code.
    pub(crate) fn call(&mut self, request: &Request) -> Result<i32, BenchError> {
        let mut out = BytesMut::new();
        self.encode(request, &mut out)?;
        self.write(&out)?;
        Ok(self.reply(request.op())?.0)
    }

    /// Returns once this server has applied whatever the ensemble had acknowledged before.
    pub(crate) fn sync(&mut self) -> Result<(), BenchError> {
        let doing = "sync";
        let request = Request::Sync(PathOnly {
            path: "/".to_owned(),
        });
        match self.call(&request)? {
            0 => Ok(()),
            code => Err(BenchError::Refused { doing, code }),
        }
    }

    /// Sends all requests in order, many at a time.
    pub(crate) fn pipeline(
        &mut self,
        doing: &'static str,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<(), BenchError> {
        let mut out = BytesMut::with_capacity(2 * BATCH_BYTES);
        let mut outstanding = Vec::new();
        let mut requests = requests.into_iter();
        loop {
            let request = requests.next();
            let ended = request.is_none();
            if let Some(request) = request {
                self.encode(&request, &mut out)?;
                outstanding.push(request.op());
            }
            if ended || out.len() >= BATCH_BYTES {
                self.write(&out)?;
                out.clear();
                for op in outstanding.drain(..) {
                    let (code, multi_code) = self.reply(op)?;
                    let code = if code == 0 { multi_code } else { code };
                    if code != 0 {
                        return Err(BenchError::Refused { doing, code });
                    }
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The names of a znode's children; none if it does not exist.
    pub(crate) fn children(&mut self, path: &str) -> Result<Vec<String>, BenchError> {
        let request = Request::GetChildren(quorate_protocol::request::Watched {
            path: path.to_owned(),
            watch: false,
        });
        let mut out = BytesMut::new();
        self.encode(&request, &mut out)?;
        self.write(&out)?;
        let (code, body) = self.reply_body()?;
        if code != 0 {
            return Ok(Vec::new());
        }
        match Response::decode(OpCode::GetChildren, &body)? {
            Response::Strings(names) => Ok(names.into_iter().map(Into::into).collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// Ends the session.
    pub(crate) fn close(mut self) -> Result<(), BenchError> {
        self.call(&Request::CloseSession)?;
        Ok(())
    }

    /// Ends many sessions with the server's work overlapping.
    pub(crate) fn close_many(mut sessions: Vec<Self>) -> Result<(), BenchError> {
        for session in &mut sessions {
            let mut out = BytesMut::new();
            session.encode(&Request::CloseSession, &mut out)?;
            session.write(&out)?;
        }
        for session in &mut sessions {
            session.reply(OpCode::CloseSession)?;
        }
        Ok(())
    }

    /// Hands out the socket and the next xid, for a driver. Nothing is outstanding.
    pub(crate) fn into_parts(self) -> (TcpStream, i32) {
        (self.stream, self.next_xid)
    }

    /// Takes a socket back from a driver.
    pub(crate) fn from_parts(stream: TcpStream, next_xid: i32) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            next_xid,
        }
    }

    fn encode(&mut self, request: &Request, out: &mut BytesMut) -> Result<(), BenchError> {
        encode_request(Xid(self.next_xid), request, out)?;
        self.next_xid = self.next_xid.wrapping_add(1).max(1);
        Ok(())
    }

    /// The reply's error code, and the first error inside a multi's results.
    fn reply(&mut self, op: OpCode) -> Result<(i32, i32), BenchError> {
        let (code, body) = self.reply_body()?;
        if code != 0 || op != OpCode::Multi {
            return Ok((code, 0));
        }
        let Response::Multi(results) = Response::decode(op, &body)? else {
            return Ok((code, 0));
        };
        let multi_code = results.iter().find_map(|result| match result {
            MultiResult::Error(Some(code)) => Some(code.code()),
            _ => None,
        });
        Ok((code, multi_code.unwrap_or(0)))
    }

    fn reply_body(&mut self) -> Result<(i32, BytesMut), BenchError> {
        loop {
            if let Some(reply) = next_reply(&self.input)? {
                let mut frame = self.input.split_to(reply.frame_bytes());
                let body = frame.split_off(frame.len() - reply.body_bytes);
                return Ok((reply.err, body));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), BenchError> {
        let mut chunk = [0; 16 << 10];
        let read = self
            .stream
            .read(&mut chunk)
            .map_err(BenchError::io("reading a reply"))?;
        if read == 0 || self.input.len() > REPLY_BYTES_MAX {
            return Err(BenchError::Closed);
        }
        self.input.extend_from_slice(&chunk[..read]);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        self.stream
            .write_all(bytes)
            .map_err(BenchError::io("sending a request"))
    }
}
