//! One socket: frames out, frames in, each reply matched with its request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use super::Body;
use super::conversation::Memory;
use super::describe::Reader;
use super::frame;
use super::hello::Welcome;
use super::request::{Numbered, Request, Shape, ping};

/// How long a server may stay silent before the transcript says so.
const SILENCE: Duration = Duration::from_secs(10);
/// Marks the end of a connection in place of an answer: what follows in the transcript says nothing.
pub(crate) const UNEXPECTED: &str = "instead of an answer";

/// A request sent and not yet answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) xid: i32,
    pub(super) op: i32,
    pub(super) shape: Shape,
    pub(super) numbered: Numbered,
}

/// One socket of a conversation.
#[derive(Debug)]
pub(crate) struct Connection {
    name: &'static str,
    stream: TcpStream,
    pub(super) memory: Rc<RefCell<Memory>>,
    pub(super) pending: VecDeque<Pending>,
    next_xid: i32,
    pub(super) last_zxid: i64,
}

impl Connection {
    pub(super) fn dial(
        name: &'static str,
        address: SocketAddr,
        memory: Rc<RefCell<Memory>>,
    ) -> Self {
        let stream = TcpStream::connect_timeout(&address, SILENCE).expect("a server listens");
        stream
            .set_read_timeout(Some(SILENCE))
            .expect("a socket takes a timeout");
        stream
            .set_write_timeout(Some(SILENCE))
            .expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes an option");
        let pending = VecDeque::new();
        Self {
            name,
            stream,
            memory,
            pending,
            next_xid: 1,
            last_zxid: 0,
        }
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        // A server that has closed already shows at the next read.
        let _ = self.stream.write_all(bytes);
    }

    fn read_frame(&mut self) -> Result<Vec<u8>, &'static str> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = i32::from_be_bytes(length);
        let Ok(length) = usize::try_from(length) else {
            return Err("negative length");
        };
        if length > 16 << 20 {
            return Err("absurd length");
        }
        let mut body = vec![0; length];
        self.read_exact(&mut body)?;
        Ok(body)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), &'static str> {
        self.stream
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "silence",
                _ => "closed",
            })
    }

    pub(crate) fn welcome(&mut self) -> Option<Welcome> {
        let body = self.read_frame().ok()?;
        let mut reader = Reader(&body);
        let welcome = Welcome {
            version: reader.int()?,
            timeout_ms: reader.int()?,
            session: reader.long()?,
            password: reader.buffer()??.to_vec(),
            read_only: reader.byte(),
            length: body.len(),
        };
        self.memory.borrow_mut().session(welcome.session);
        Some(welcome)
    }

    /// The bytes of `request` under the next xid, which is then waited for.
    pub(crate) fn encode(&mut self, request: &Request) -> Vec<u8> {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.encode_as(xid, request)
    }

    pub(crate) fn encode_as(&mut self, xid: i32, request: &Request) -> Vec<u8> {
        self.pending.push_back(Pending {
            xid,
            op: request.op,
            shape: request.shape,
            numbered: request.numbered,
        });
        frame(
            &Body::default()
                .int(xid)
                .int(request.op)
                .raw(&request.body.0)
                .0,
        )
    }

    /// Sends without waiting.
    pub(crate) fn send(&mut self, request: &Request) {
        let bytes = self.encode(request);
        self.send_raw(&bytes);
    }

    /// Sends, waits, and notes the events and the reply.
    pub(crate) fn call(&mut self, label: &str, request: &Request) {
        self.send(request);
        self.reply(label);
    }

    /// Sends and waits, noting only events and failure: for setting the scene.
    pub(crate) fn quietly(&mut self, request: &Request) {
        self.send(request);
        self.reply("setting the scene");
        let mut memory = self.memory.borrow_mut();
        if memory
            .lines
            .last()
            .is_some_and(|line| line.contains(": ok"))
        {
            memory.lines.pop();
        }
    }

    /// Waits for the next reply and notes it, and the events that come before it.
    pub(crate) fn reply(&mut self, label: &str) {
        loop {
            match self.read_frame() {
                Ok(body) if body.starts_with(&(-1_i32).to_be_bytes()) => self.note_event(&body),
                Ok(body) => {
                    let line = self.describe_reply(&body);
                    return self.note(label, &line);
                }
                Err(why) => return self.note(label, &format!("{why} {UNEXPECTED}")),
            }
        }
    }

    /// Notes all events that are on their way: what precedes the answer to a ping.
    pub(crate) fn settle(&mut self) {
        self.quietly(&ping());
    }

    /// Waits for an event and notes it.
    pub(crate) fn event(&mut self) {
        match self.read_frame() {
            Ok(body) => self.note_event(&body),
            Err(why) => self.note("event", why),
        }
    }

    /// Notes whatever still comes, up to the server's closing the connection.
    pub(crate) fn until_closed(&mut self, label: &str) {
        loop {
            match self.read_frame() {
                Ok(body) if body.starts_with(&(-1_i32).to_be_bytes()) => self.note_event(&body),
                Ok(body) => {
                    let line = self.describe_reply(&body);
                    self.note(label, &line);
                }
                Err(why) => return self.note(label, why),
            }
        }
    }

    /// The zxid in the header of the next frame, event or reply.
    pub(crate) fn zxid_of_next_frame(&mut self) -> Option<i64> {
        let body = self.read_frame().ok()?;
        Reader(body.get(4..)?).long()
    }

    /// The error in the header of the next frame.
    pub(crate) fn error_of_next_frame(&mut self) -> Option<i32> {
        let body = self.read_frame().ok()?;
        self.pending.pop_front();
        Reader(body.get(12..)?).int()
    }

    pub(crate) fn note(&self, label: &str, what: &str) {
        self.memory
            .borrow_mut()
            .lines
            .push(format!("{} {label}: {what}", self.name));
    }

    pub(crate) fn last_zxid(&self) -> i64 {
        self.last_zxid
    }
}
