//! What a script has learned of one server, whichever connection it came by.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use super::connection::Connection;
use super::hello::{Hello, Welcome};

/// What a conversation has learned, shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) lines: Vec<String>,
    zxids: HashMap<i64, String>,
    pub(crate) last_write: i64,
    first_zxid: Option<i64>,
    sessions: Vec<i64>,
}

impl Memory {
    pub(crate) fn name_write(&mut self, zxid: i64) -> Option<String> {
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

    pub(crate) fn zxid(&self, zxid: i64) -> String {
        match (self.zxids.get(&zxid), self.first_zxid) {
            (Some(name), _) => name.clone(),
            (None, _) if zxid <= 0 => zxid.to_string(),
            (None, Some(first)) if zxid > first => "unseen".to_owned(),
            (None, _) => "old".to_owned(),
        }
    }

    pub(crate) fn session(&mut self, session: i64) -> String {
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
        Connection::dial(name, self.address, Rc::clone(&self.memory))
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
