//! ZooKeeper's client protocol by hand, as a second opinion on the protocol crate.
//!
//! A [`Conversation`] talks raw frames to one server and writes down what it saw, with everything
//! left out that may differ between two correct servers: zxids become names (`z1` is the first write
//! of the conversation) once their order has been checked, sessions become numbers, times become
//! `now`. It shares no code with the server under test, and must not come to.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use quorate_tests::transcript::now_ms;

/// How long a server may stay silent before the transcript says so.
const SILENCE: Duration = Duration::from_secs(10);
/// Marks the end of a connection in place of an answer: what follows in the transcript says nothing.
pub(crate) const UNEXPECTED: &str = "instead of an answer";
/// Longer than any conversation takes.
pub(crate) const SESSION_MS: i32 = 30_000;

pub(crate) const ALL: i32 = 31;
pub(crate) const READ: i32 = 1;
pub(crate) const WRITE: i32 = 2;
pub(crate) const CREATE: i32 = 4;
pub(crate) const DELETE: i32 = 8;
pub(crate) const ADMIN: i32 = 16;

/// An access control entry: permissions, scheme, id.
pub(crate) type Entry<'a> = (i32, &'a str, &'a str);
pub(crate) const OPEN: &[Entry<'static>] = &[(ALL, "world", "anyone")];

/// Bytes being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn bool(self, value: bool) -> Self {
        self.raw(&[u8::from(value)])
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        self.int(i32::try_from(bytes.len()).expect("a test's buffer is short"))
            .raw(bytes)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn texts(mut self, texts: &[&str]) -> Self {
        self = self.int(i32::try_from(texts.len()).expect("a test's list is short"));
        for text in texts {
            self = self.text(text);
        }
        self
    }

    pub(crate) fn acl(mut self, entries: &[Entry<'_>]) -> Self {
        self = self.int(i32::try_from(entries.len()).expect("a test's list is short"));
        for (permissions, scheme, id) in entries {
            self = self.int(*permissions).text(scheme).text(id);
        }
        self
    }
}

/// What follows the header of a successful reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Nothing,
    Path,
    PathStat,
    Stat,
    DataStat,
    AclStat,
    Names,
    NamesStat,
    Number,
    Results,
    Users,
}

/// What the zxid of a reply has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbered {
    /// Its own: larger than any before.
    Write,
    /// The last one applied: not smaller than any this connection saw.
    Read,
    /// Of no interest: it is printed unless it is as for a read.
    Other,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) op: i32,
    pub(crate) body: Body,
    shape: Shape,
    numbered: Numbered,
}

impl Request {
    fn write(op: i32, shape: Shape, body: Body) -> Self {
        Self {
            op,
            body,
            shape,
            numbered: Numbered::Write,
        }
    }

    fn read(op: i32, shape: Shape, body: Body) -> Self {
        Self {
            op,
            body,
            shape,
            numbered: Numbered::Read,
        }
    }

    /// A request that is refused before it becomes a write, or is no request at all.
    pub(crate) fn odd(op: i32, body: Body) -> Self {
        Self {
            op,
            body,
            shape: Shape::Nothing,
            numbered: Numbered::Other,
        }
    }

    /// The same request with bytes behind its end.
    pub(crate) fn followed_by(mut self, bytes: &[u8]) -> Self {
        self.body = self.body.raw(bytes);
        self
    }

    /// The same operation with another body.
    pub(crate) fn with_body(mut self, body: Body) -> Self {
        self.body = body;
        self.numbered = Numbered::Other;
        self
    }
}

pub(crate) fn create_with(
    op: i32,
    path: &str,
    data: &[u8],
    acl: &[Entry<'_>],
    flags: i32,
) -> Request {
    let shape = if op == 1 {
        Shape::Path
    } else {
        Shape::PathStat
    };
    Request::write(
        op,
        shape,
        Body::default().text(path).bytes(data).acl(acl).int(flags),
    )
}

pub(crate) fn create(path: &str, flags: i32) -> Request {
    create_with(1, path, b"", OPEN, flags)
}

pub(crate) fn create2(path: &str, data: &[u8], flags: i32) -> Request {
    create_with(15, path, data, OPEN, flags)
}

pub(crate) fn create_acl(path: &str, acl: &[Entry<'_>]) -> Request {
    create_with(1, path, b"", acl, 0)
}

pub(crate) fn create_container(path: &str, flags: i32) -> Request {
    create_with(19, path, b"", OPEN, flags)
}

pub(crate) fn create_ttl(path: &str, flags: i32, ttl: i64) -> Request {
    let mut request = create_with(21, path, b"", OPEN, flags);
    request.body = request.body.long(ttl);
    request
}

pub(crate) fn delete(path: &str, version: i32) -> Request {
    Request::write(2, Shape::Nothing, Body::default().text(path).int(version))
}

pub(crate) fn exists(path: &str, watch: bool) -> Request {
    Request::read(3, Shape::Stat, Body::default().text(path).bool(watch))
}

pub(crate) fn get_data(path: &str, watch: bool) -> Request {
    Request::read(4, Shape::DataStat, Body::default().text(path).bool(watch))
}

pub(crate) fn set_data(path: &str, data: &[u8], version: i32) -> Request {
    Request::write(
        5,
        Shape::Stat,
        Body::default().text(path).bytes(data).int(version),
    )
}

pub(crate) fn get_acl(path: &str) -> Request {
    Request::read(6, Shape::AclStat, Body::default().text(path))
}

pub(crate) fn set_acl(path: &str, acl: &[Entry<'_>], version: i32) -> Request {
    Request::write(
        7,
        Shape::Stat,
        Body::default().text(path).acl(acl).int(version),
    )
}

pub(crate) fn get_children(path: &str, watch: bool) -> Request {
    Request::read(8, Shape::Names, Body::default().text(path).bool(watch))
}

pub(crate) fn get_children2(path: &str, watch: bool) -> Request {
    Request::read(12, Shape::NamesStat, Body::default().text(path).bool(watch))
}

pub(crate) fn sync(path: &str) -> Request {
    Request::read(9, Shape::Path, Body::default().text(path))
}

pub(crate) fn ping() -> Request {
    Request::read(11, Shape::Nothing, Body::default())
}

pub(crate) fn check(path: &str, version: i32) -> Request {
    Request::write(13, Shape::Nothing, Body::default().text(path).int(version))
}

pub(crate) fn check_watches(path: &str, kind: i32) -> Request {
    Request::read(17, Shape::Nothing, Body::default().text(path).int(kind))
}

pub(crate) fn remove_watches(path: &str, kind: i32) -> Request {
    Request::read(18, Shape::Nothing, Body::default().text(path).int(kind))
}

pub(crate) fn auth(scheme: &str, data: &[u8]) -> Request {
    Request::odd(100, Body::default().int(0).text(scheme).bytes(data))
}

pub(crate) fn get_ephemerals(prefix: &str) -> Request {
    Request::read(103, Shape::Names, Body::default().text(prefix))
}

pub(crate) fn get_all_children_number(path: &str) -> Request {
    Request::read(104, Shape::Number, Body::default().text(path))
}

pub(crate) fn add_watch(path: &str, mode: i32) -> Request {
    Request::read(106, Shape::Number, Body::default().text(path).int(mode))
}

pub(crate) fn who_am_i() -> Request {
    Request::read(107, Shape::Users, Body::default())
}

pub(crate) fn close_session() -> Request {
    Request::write(-11, Shape::Nothing, Body::default())
}

/// `lists`: data, exist, child and, with op 105, persistent and recursive.
pub(crate) fn set_watches(relative_zxid: i64, lists: &[&[&str]]) -> Request {
    let mut body = Body::default().long(relative_zxid);
    for list in lists {
        body = body.texts(list);
    }
    Request::read(
        if lists.len() == 3 { 101 } else { 105 },
        Shape::Nothing,
        body,
    )
}

fn transaction(requests: &[Request]) -> Body {
    let mut body = Body::default();
    for request in requests {
        body = body
            .int(request.op)
            .bool(false)
            .int(-1)
            .raw(&request.body.0);
    }
    body.int(-1).bool(true).int(-1)
}

pub(crate) fn multi(requests: &[Request]) -> Request {
    Request::write(14, Shape::Results, transaction(requests))
}

/// A multi that is refused as a whole before it becomes a write.
pub(crate) fn bad_multi(requests: &[Request]) -> Request {
    Request {
        numbered: Numbered::Other,
        ..multi(requests)
    }
}

pub(crate) fn multi_read(requests: &[Request]) -> Request {
    Request::read(22, Shape::Results, transaction(requests))
}

/// Bytes being read. Running out of them gives `None`.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn int(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// `Some(None)` is ZooKeeper's null.
    fn buffer(&mut self) -> Option<Option<&'a [u8]>> {
        match self.int()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?)),
        }
    }

    fn text(&mut self) -> Option<String> {
        Some(self.buffer()?.map_or("null".to_owned(), |bytes| {
            String::from_utf8_lossy(bytes).escape_debug().to_string()
        }))
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.int()?).map(|_| one(self)).collect()
    }
}

/// The answer to a ConnectRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) timeout_ms: i32,
    pub(crate) session: i64,
    pub(crate) password: Vec<u8>,
    pub(crate) length: usize,
    pub(crate) version: i32,
    pub(crate) read_only: Option<u8>,
}

/// A ConnectRequest; the default is what the official clients send for a new session.
#[derive(Clone, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) version: i32,
    pub(crate) last_zxid_seen: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) session: i64,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) read_only: Option<bool>,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Self {
            version: 0,
            last_zxid_seen: 0,
            timeout_ms: SESSION_MS,
            session: 0,
            password: Some(&[0; 16]),
            read_only: Some(false),
        }
    }
}

impl Hello<'_> {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut body = Body::default()
            .int(self.version)
            .long(self.last_zxid_seen)
            .int(self.timeout_ms)
            .long(self.session);
        body = match self.password {
            Some(password) => body.bytes(password),
            None => body.int(-1),
        };
        if let Some(read_only) = self.read_only {
            body = body.bool(read_only);
        }
        frame(&body.0)
    }
}

pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    Body::default().bytes(body).0
}

/// What a conversation has learned, shared by its connections.
#[derive(Debug, Default)]
struct Memory {
    lines: Vec<String>,
    zxids: HashMap<i64, String>,
    last_write: i64,
    first_zxid: Option<i64>,
    sessions: Vec<i64>,
}

impl Memory {
    fn name_write(&mut self, zxid: i64) -> Option<String> {
        if zxid <= self.last_write {
            return Some(format!(
                " zxid-does-not-grow({zxid} after {})",
                self.last_write
            ));
        }
        self.last_write = zxid;
        self.first_zxid.get_or_insert(zxid);
        let name = format!("z{}", self.zxids.len() + 1);
        self.zxids.insert(zxid, name);
        None
    }

    fn zxid(&self, zxid: i64) -> String {
        match (self.zxids.get(&zxid), self.first_zxid) {
            (Some(name), _) => name.clone(),
            (None, _) if zxid <= 0 => zxid.to_string(),
            (None, Some(first)) if zxid > first => "unseen".to_owned(),
            (None, _) => "old".to_owned(),
        }
    }

    fn session(&mut self, session: i64) -> String {
        if session == 0 {
            return "0".to_owned();
        }
        let place = self
            .sessions
            .iter()
            .position(|&known| known == session)
            .unwrap_or_else(|| {
                self.sessions.push(session);
                self.sessions.len() - 1
            });
        format!("s{}", place + 1)
    }
}

/// A script's view of one server.
#[derive(Debug)]
pub(crate) struct Conversation {
    address: SocketAddr,
    memory: Rc<RefCell<Memory>>,
}

impl Conversation {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            memory: Rc::default(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn note(&self, line: impl Into<String>) {
        self.memory.borrow_mut().lines.push(line.into());
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.memory.take().lines
    }

    /// A TCP connection on which nothing has been sent.
    pub(crate) fn dial(&self, name: &'static str) -> Connection {
        let stream = TcpStream::connect_timeout(&self.address, SILENCE).expect("a server listens");
        stream
            .set_read_timeout(Some(SILENCE))
            .expect("a socket takes a timeout");
        stream
            .set_write_timeout(Some(SILENCE))
            .expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes an option");
        Connection {
            name,
            stream,
            memory: Rc::clone(&self.memory),
            pending: VecDeque::new(),
            next_xid: 1,
            last_zxid: 0,
        }
    }

    /// A connection with a new session.
    pub(crate) fn connect(&self, name: &'static str) -> Connection {
        self.connect_as(name, &Hello::default()).0
    }

    /// A connection with the session that `hello` asks for.
    pub(crate) fn connect_as(
        &self,
        name: &'static str,
        hello: &Hello<'_>,
    ) -> (Connection, Welcome) {
        let mut connection = self.dial(name);
        connection.send_raw(&hello.frame());
        let welcome = connection
            .welcome()
            .expect("the server answers a ConnectRequest");
        (connection, welcome)
    }

    /// Sends `bytes` on a new connection and notes the ConnectResponse, or the lack of one.
    pub(crate) fn handshake(&self, label: &str, bytes: &[u8]) -> (Connection, Option<Welcome>) {
        let mut connection = self.dial("h");
        connection.send_raw(bytes);
        let welcome = connection.welcome();
        let line = match &welcome {
            None => "closed without an answer".to_owned(),
            Some(welcome) => format!(
                "version={} timeout={} session={} password={}{} readonly={:?} length={}",
                welcome.version,
                welcome.timeout_ms,
                self.memory.borrow_mut().session(welcome.session),
                welcome.password.len(),
                if welcome.password.iter().all(|&byte| byte == 0) {
                    " zeros"
                } else {
                    ""
                },
                welcome.read_only,
                welcome.length,
            ),
        };
        self.note(format!("{label}: {line}"));
        (connection, welcome)
    }
}

/// A request sent and not yet answered.
#[derive(Clone, Copy, Debug)]
struct Pending {
    xid: i32,
    op: i32,
    shape: Shape,
    numbered: Numbered,
}

/// One socket of a conversation.
#[derive(Debug)]
pub(crate) struct Connection {
    name: &'static str,
    stream: TcpStream,
    memory: Rc<RefCell<Memory>>,
    pending: VecDeque<Pending>,
    next_xid: i32,
    last_zxid: i64,
}

impl Connection {
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

    fn note_event(&mut self, body: &[u8]) {
        let mut reader = Reader(body);
        let mut describe = || {
            let (_, zxid, error) = (reader.int()?, reader.long()?, reader.int()?);
            let (kind, state, path) = (reader.int()?, reader.int()?, reader.text()?);
            let kind = match kind {
                1 => "created",
                2 => "deleted",
                3 => "data changed",
                4 => "children changed",
                _ => "unknown",
            };
            // Before 3.9 every event carries -1, since then the zxid of its transaction.
            let backwards = if zxid > 0 && zxid < self.last_zxid {
                " zxid-goes-backwards"
            } else {
                ""
            };
            self.last_zxid = self.last_zxid.max(zxid);
            let odd = if error == 0 && state == 3 && reader.0.is_empty() {
                ""
            } else {
                " odd"
            };
            Some(format!("{kind} {path}{backwards}{odd}"))
        };
        let line = describe().unwrap_or_else(|| format!("too short: {body:02x?}"));
        self.note("event", &line);
    }

    fn describe_reply(&mut self, body: &[u8]) -> String {
        let mut reader = Reader(body);
        let (Some(xid), Some(zxid), Some(error)) = (reader.int(), reader.long(), reader.int())
        else {
            return format!("a reply too short for a header: {body:02x?}");
        };
        let Some(request) = self.pending.pop_front() else {
            return format!("a reply nobody waits for: xid {xid} error {error}");
        };
        let mut line = if error == 0 {
            "ok".to_owned()
        } else {
            format!("error {error}")
        };
        let expected_xid = if request.op == 11 { -2 } else { request.xid };
        if xid != expected_xid {
            let _ = write!(line, " xid={xid}-not-{expected_xid}");
        }
        line.push_str(&self.describe_zxid(request.numbered, zxid));
        if error == 0 {
            let described = self.describe_body(request.shape, &mut reader);
            line.push_str(&described.unwrap_or_else(|| format!(" too-short {body:02x?}")));
        }
        if !reader.0.is_empty() {
            let _ = write!(line, " and {} bytes more", reader.0.len());
        }
        line
    }

    fn describe_zxid(&mut self, numbered: Numbered, zxid: i64) -> String {
        let problem = match numbered {
            Numbered::Write => self.memory.borrow_mut().name_write(zxid),
            Numbered::Read if zxid < self.last_zxid => Some(format!(
                " zxid-goes-backwards({zxid} after {})",
                self.last_zxid
            )),
            Numbered::Other if zxid <= 0 => Some(format!(" zxid={zxid}")),
            Numbered::Read | Numbered::Other => None,
        };
        if zxid > 0 {
            let mut memory = self.memory.borrow_mut();
            memory.last_write = memory.last_write.max(zxid);
        }
        self.last_zxid = self.last_zxid.max(zxid);
        problem.unwrap_or_default()
    }

    fn describe_body(&self, shape: Shape, reader: &mut Reader<'_>) -> Option<String> {
        Some(match shape {
            Shape::Nothing => String::new(),
            Shape::Path => format!(" {}", reader.text()?),
            Shape::PathStat => format!(" {} {}", reader.text()?, self.stat(reader)?),
            Shape::Stat => format!(" {}", self.stat(reader)?),
            Shape::DataStat => format!(" {} {}", data(reader)?, self.stat(reader)?),
            Shape::AclStat => {
                let entries = reader.many(|reader| {
                    Some(format!(
                        "{}:{}:{}",
                        reader.int()?,
                        reader.text()?,
                        reader.text()?
                    ))
                })?;
                format!(" {entries:?} {}", self.stat(reader)?)
            }
            Shape::Names => format!(" {}", names(reader)?),
            Shape::NamesStat => format!(" {} {}", names(reader)?, self.stat(reader)?),
            Shape::Number => format!(" {}", reader.int()?),
            Shape::Results => self.results(reader)?,
            Shape::Users => {
                let mut users =
                    reader.many(|reader| Some(format!("{}:{}", reader.text()?, reader.text()?)))?;
                // Of no promised order: 3.8 keeps them in a hash set.
                users.sort();
                format!(" {users:?}")
            }
        })
    }

    fn results(&self, reader: &mut Reader<'_>) -> Option<String> {
        let mut line = String::new();
        loop {
            let (kind, done, error) = (reader.int()?, reader.byte()?, reader.int()?);
            if done != 0 {
                let odd = if (kind, error) == (-1, -1) {
                    ""
                } else {
                    " odd end"
                };
                line.push_str(odd);
                return Some(line);
            }
            let _ = write!(line, " | {kind}");
            let shape = match kind {
                1 => Shape::Path,
                15 => Shape::PathStat,
                2 | 13 => Shape::Nothing,
                5 => Shape::Stat,
                4 => Shape::DataStat,
                8 => Shape::Names,
                -1 => Shape::Number,
                _ => return Some(format!("{line} unknown result")),
            };
            if error != 0 {
                let _ = write!(line, " error {error}");
            }
            line.push_str(&self.describe_body(shape, reader)?);
        }
    }

    fn stat(&self, reader: &mut Reader<'_>) -> Option<String> {
        let (czxid, mzxid, ctime, mtime) = (
            reader.long()?,
            reader.long()?,
            reader.long()?,
            reader.long()?,
        );
        let (version, cversion, aversion) = (reader.int()?, reader.int()?, reader.int()?);
        let (owner, length, children, pzxid) =
            (reader.long()?, reader.int()?, reader.int()?, reader.long()?);
        let mut memory = self.memory.borrow_mut();
        let owner = if owner == 0 {
            String::new()
        } else {
            format!(" owner={}", memory.session(owner))
        };
        let time = |ms: i64| match u64::try_from(ms) {
            Ok(0) => "0",
            Ok(ms) if ms.abs_diff(now_ms()) < 600_000 => "now",
            _ => "odd",
        };
        Some(format!(
            "[c={} m={} p={} times={}/{} v={version},{cversion},{aversion} length={length} \
             children={children}{owner}]",
            memory.zxid(czxid),
            memory.zxid(mzxid),
            memory.zxid(pzxid),
            time(ctime),
            time(mtime),
        ))
    }
}

fn data(reader: &mut Reader<'_>) -> Option<String> {
    Some(match reader.buffer()? {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() > 64 => format!("{} bytes", bytes.len()),
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
    })
}

fn names(reader: &mut Reader<'_>) -> Option<String> {
    let mut names = reader.many(Reader::text)?;
    names.sort();
    Some(format!("{names:?}"))
}
