//! What the clients of an ensemble saw: each client's own entries in its own order, the faults they
//! lived through, and what every server had in the end.
//!
//! A history is plain data: whoever records it decides nothing, and [`crate::checker`] judges it
//! without a server. So a test can spoil a good history and see whether that is noticed.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_protocol::Stat;

/// Since the history began, by the monotonic clock that all clients of one process share.
pub type Moment = Duration;

/// Everything there is to judge.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The entries of each client, in the order in which they came about; requests in the order in
    /// which they were sent.
    pub clients: Vec<Vec<Entry>>,
    pub disturbances: Vec<Disturbance>,
    /// What each server had when all was quiet.
    pub trees: Vec<Tree>,
}

/// From the moment before a fault was made on a server, to the moment after the server was known to
/// be well again.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance {
    pub server: u64,
    pub from: Moment,
    pub to: Option<Moment>,
}

/// All znodes of one server, read after a sync.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub server: u64,
    /// In the reply to the sync.
    pub zxid: i64,
    pub znodes: BTreeMap<String, (Vec<u8>, Stat)>,
}

/// One thing that a client did or met.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A handshake was answered with a session.
    Attached {
        session: i64,
        server: u64,
        timeout: Duration,
    },
    /// A request to resume a session was sent and not answered. It may still be done, later, and
    /// then takes the session away from the connection it has by that time.
    Attempted {
        session: i64,
    },
    Asked(Asked),
    /// The connection ended, and the client had not asked for it. `since` is when the last answer
    /// came.
    Lost {
        session: i64,
        server: u64,
        since: Moment,
        at: Moment,
    },
    /// The client leaves the session to expire.
    Abandoned {
        session: i64,
    },
    /// The session cannot be resumed: a server said so.
    Expired {
        session: i64,
        at: Moment,
    },
    /// A server sent what makes no sense, or nothing although nothing was in its way.
    Broken {
        server: u64,
        what: String,
    },
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub session: i64,
    pub server: u64,
    /// Numbered by the client.
    pub connection: u32,
    pub sent: Moment,
    pub request: Ask,
    pub answer: Answer,
}

/// What was asked for. All values, and all paths of [`Ask::Hold`], are unique in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Set a register, whatever its version.
    Set {
        register: String,
        value: String,
    },
    /// Create a sequential znode in the log.
    Append {
        value: String,
    },
    /// Create an ephemeral.
    Hold {
        path: String,
    },
    /// Read a register.
    Read {
        register: String,
    },
    /// Whether an ephemeral is there.
    Look {
        path: String,
    },
    Sync,
    Ping,
    /// Close the session.
    Close,
}

impl Ask {
    /// Whether it changes anything.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Set { .. } | Self::Append { .. } | Self::Hold { .. } | Self::Close
        )
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing came: a write may have been done or not.
    Unknown,
    Done {
        at: Moment,
        zxid: i64,
        found: Found,
    },
    /// An error code: it was not done.
    Refused {
        at: Moment,
        zxid: i64,
        code: i32,
    },
}

/// What a successful answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// The path of what was created.
    Path(String),
    /// A register as it was after the write or at the read.
    Value {
        value: String,
        version: i32,
        mzxid: i64,
        /// How many events about this register had come on this connection before this answer, if
        /// it is watched persistently.
        events: Option<i32>,
        /// What the session's one-time watch on it had done before this answer, on any connection.
        watch: Watch,
    },
    /// The ephemeral is there.
    Present {
        owner: i64,
    },
    Absent,
}

/// A session's one-time watch on a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// There is none.
    Never,
    /// Set by an answer that showed this version; no event has come since.
    SetAt(i32),
    /// The event has come; the answer that set it had shown this version.
    FiredAfter(i32),
}

impl Asked {
    /// When and at which zxid it was done.
    #[must_use]
    pub fn done(&self) -> Option<(Moment, i64, &Found)> {
        match &self.answer {
            Answer::Done { at, zxid, found } => Some((*at, *zxid, found)),
            _ => None,
        }
    }

    /// When and with which zxid it was answered, well or not. A ping's answer has none that counts.
    #[must_use]
    pub fn answered(&self) -> Option<(Moment, i64)> {
        match self.answer {
            Answer::Unknown => None,
            Answer::Done { at, zxid, .. } | Answer::Refused { at, zxid, .. } => Some((at, zxid)),
        }
    }
}

impl History {
    /// All requests, client by client.
    pub fn asked(&self) -> impl Iterator<Item = (usize, &Asked)> {
        let entries = self.clients.iter().enumerate();
        entries.flat_map(|(client, entries)| {
            entries.iter().filter_map(move |entry| match entry {
                Entry::Asked(asked) => Some((client, asked)),
                _ => None,
            })
        })
    }
}
