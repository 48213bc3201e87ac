//! What the clients of an ensemble did and were told, what was done to the ensemble meanwhile, and
//! what the servers had in the end.
//!
//! A history is plain data: whoever records it decides nothing, and whoever judges it needs no
//! server. So a good history can be spoilt to see whether that is noticed, and one that was bad can
//! be kept as a file ([`History::read_from`]: JSON, one record a line). A recorder pushes records in
//! any order; the numbers in them (connection, sequence, arrival) say what came before what.
//! It must not guess: what it does not know has a value that says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_protocol::{AclEntry, Id, Stat};
use serde::{Deserialize, Serialize};

mod data;
mod lines;

pub use data::Data;
pub use lines::ReadError;

/// Nanoseconds on the one clock of the run: virtual in a simulation, monotonic otherwise.
pub type Moment = u64;

/// A full path, or a child's name. Shared, because a history names the same few very often.
pub type Path = Arc<str>;

/// Everything there is to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub header: Header,
    pub operations: Vec<Operation>,
    pub events: Vec<WatchEvent>,
    pub sessions: Vec<SessionRecord>,
    pub faults: Vec<Fault>,
    /// How often each rare state was reached, by name.
    pub marks: BTreeMap<String, u64>,
    pub grants: Vec<Grant>,
    pub guarded: Vec<GuardedWrite>,
    pub digests: Vec<DigestAt>,
    pub trees: Vec<FinalTree>,
    /// The oracle, if the servers' logs could be read: what was committed, in order, without gaps.
    pub log: Option<Log>,
}

/// Which run this is, and what its servers promise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Of a simulation.
    pub seed: Option<u64>,
    /// What ran, for people.
    pub name: String,
    pub servers: Vec<u64>,
    pub promises: Promises,
    /// How long the run took on its clock, in nanoseconds.
    pub duration: u64,
    /// The longest that the ensemble may be without a leader after the last fault ended, in
    /// nanoseconds; 0: unknown, so nothing that depends on it is judged.
    pub election: u64,
    /// The leader's tick, by which it counts sessions out, in nanoseconds; 0: unknown.
    pub tick: u64,
}

/// What is promised: not every product promises everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    /// Sync is confirmed by a majority.
    pub sync_is_a_barrier: bool,
    /// An acknowledged ping, sync or write counts for the session's whole timeout.
    pub acknowledged_touches_count: bool,
    /// Connections to surviving servers outlive a leader.
    pub survivors_keep_their_clients: bool,
    /// Every reply's zxid is that of the state it shows; every refused write has one of its own.
    pub replies_name_their_state: bool,
}

impl Promises {
    pub const ALL: Self = Self {
        sync_is_a_barrier: true,
        acknowledged_touches_count: true,
        survivors_keep_their_clients: true,
        replies_name_their_state: true,
    };
    /// What Apache ZooKeeper promises.
    pub const ZOOKEEPER: Self = Self {
        sync_is_a_barrier: false,
        acknowledged_touches_count: false,
        survivors_keep_their_clients: false,
        replies_name_their_state: false,
    };
}

impl Default for Promises {
    fn default() -> Self {
        Self::ALL
    }
}

/// One request of a client, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: u32,
    /// Unique in the history; a client's later connections have higher numbers.
    pub connection: u32,
    pub server: u64,
    pub session: i64,
    /// The order in which requests were sent on the connection; pings, syncs and the rest count too.
    pub sequence: u32,
    pub invoked: Moment,
    /// When the answer came; `None` with [`Outcome::Unknown`] and [`Outcome::NotSent`].
    pub returned: Option<Moment>,
    /// The order in which replies and events arrived on the connection, from 1; 0: unknown, or none
    /// came.
    pub arrival: u32,
    pub request: Request,
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// `zxid` is the one in the reply's header, in every variant that has one.
    Done { zxid: i64, reply: Reply },
    /// An error code in the header: it was not done.
    Refused { zxid: i64, code: i32 },
    /// No answer came: it was done or not, or will be.
    Unknown,
    /// It never left the client: it was certainly not done.
    NotSent,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Create {
        path: Path,
        #[serde(default)]
        data: Data,
        kind: CreateKind,
        /// `None`: everybody may do everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        acl: Option<Vec<AclEntry>>,
        /// Whether the reply brings the stat (create2 and all later kinds of create).
        #[serde(default)]
        with_stat: bool,
    },
    Delete {
        path: Path,
        /// -1: any.
        version: i32,
    },
    SetData {
        path: Path,
        data: Data,
        /// -1: any.
        version: i32,
    },
    SetAcl {
        path: Path,
        acl: Vec<AclEntry>,
        /// Of the ACL; -1: any.
        version: i32,
    },
    /// Only inside of a multi.
    Check {
        path: Path,
        version: i32,
    },
    /// Of creates, deletes, sets and checks.
    Multi(Vec<Request>),
    GetData {
        path: Path,
        watch: bool,
    },
    Exists {
        path: Path,
        watch: bool,
    },
    GetChildren {
        path: Path,
        watch: bool,
    },
    GetAcl {
        path: Path,
    },
    /// How many descendants there are.
    CountDescendants {
        path: Path,
    },
    /// The session's own.
    GetEphemerals {
        prefix: Path,
    },
    /// Of [`Request::GetData`] and [`Request::GetChildren`].
    MultiRead(Vec<Request>),
    Sync {
        path: Path,
    },
    Ping,
    /// A persistent watch.
    AddWatch {
        path: Path,
        recursive: bool,
    },
    RemoveWatches {
        path: Path,
        which: WatchList,
    },
    /// What a client that reconnects asks for: its watches, and the last zxid it saw.
    SetWatches {
        since: i64,
        #[serde(default)]
        data: Vec<Path>,
        #[serde(default)]
        exist: Vec<Path>,
        #[serde(default)]
        child: Vec<Path>,
        #[serde(default)]
        persistent: Vec<Path>,
        #[serde(default)]
        recursive: Vec<Path>,
    },
    /// The connection proves one more identity.
    Authenticate {
        identity: Id,
    },
    CloseSession,
    /// Anything else: judged for its answer's place and zxid only. It must not change anything.
    Other {
        name: String,
    },
}

/// Which of a connection's watches on a path are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchList {
    /// Of exists and getData.
    Data,
    /// Of getChildren.
    Children,
    Persistent,
    Recursive,
    /// Every one.
    Any,
}

/// What a znode is when it is created, and whether the server numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateKind {
    Persistent,
    PersistentSequential,
    Ephemeral,
    EphemeralSequential,
    Container,
    Ttl { ms: i64 },
    TtlSequential { ms: i64 },
}

/// What a successful answer says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Nothing,
    Path(Path),
    Created {
        path: Path,
        stat: Stat,
    },
    Stat(Stat),
    Data {
        data: Data,
        stat: Stat,
    },
    /// In any order. The stat is missing from the replies of the older getChildren.
    Children {
        names: Vec<Path>,
        stat: Option<Stat>,
    },
    Acl {
        acl: Vec<AclEntry>,
        stat: Stat,
    },
    Count(i32),
    /// Of a multi, done or failed, and of a multi of reads.
    Results(Vec<PartResult>),
}

/// What came of one part of a multi.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartResult {
    Done(Reply),
    /// Its own error code, 0 for what was rolled back before the part that failed.
    Failed(i32),
}

/// A notification, as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    pub client: u32,
    pub connection: u32,
    pub server: u64,
    pub session: i64,
    /// In one count with the replies of the connection; 0: unknown.
    pub arrival: u32,
    pub at: Moment,
    pub kind: EventKind,
    pub path: Path,
    /// In the header; `None` where the server sends none (-1).
    pub zxid: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
}

/// One step in the life of a session, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub client: u32,
    /// The number that the connection of this handshake has in [`Operation::connection`].
    pub connection: u32,
    pub server: u64,
    /// 0 where there is none yet.
    pub session: i64,
    /// When the client sent its handshake; for what is no handshake, when the last thing came in.
    pub from: Moment,
    /// When it happened.
    pub at: Moment,
    pub step: SessionStep,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStep {
    /// A new session was asked for and granted.
    Opened { timeout_ms: u32 },
    /// An existing one was asked for and granted. `seen` is the last zxid that the client named.
    Resumed { timeout_ms: u32, seen: i64 },
    /// An existing one was asked for, and the server said that it has ended, or that the password
    /// is wrong: which one the client means to have asked for is `wrong_password`.
    Refused { wrong_password: bool },
    /// The handshake was sent and not answered. A request to resume may still be done, later, and
    /// then takes the session away from the connection it has by that time.
    Unanswered { resuming: bool },
    /// A touch that a server acknowledged and that is no [`Operation`] here (a client library's own
    /// ping): sent at `from`, answered at `at`.
    Touched,
    /// The connection ended, and the client had not asked for it.
    Lost,
    /// The client itself ended the connection and keeps the session.
    Dropped,
    /// The client leaves the session to expire.
    Abandoned,
    /// A server sent what makes no sense, or nothing although nothing was in its way.
    Broken { what: String },
}

/// Something done to the ensemble, from the moment before it was made to the moment after all was
/// known to be well again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its class: `kill`, `pause`, `partition`, `power_cut`, ...
    pub what: String,
    pub servers: Vec<u64>,
    pub from: Moment,
    pub to: Option<Moment>,
}

/// A lock or leadership, as one holder had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub lock: String,
    pub client: u32,
    pub session: i64,
    /// The fencing token: the mzxid of the write that granted it.
    pub token: i64,
    /// When the holder was told that it holds.
    pub from: Moment,
    /// When its work ended, or it was told to stop, if that was seen.
    pub to: Option<Moment>,
}

/// A write that was guarded by a token. `done` at `zxid`, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedWrite {
    pub lock: String,
    pub token: i64,
    pub zxid: i64,
    pub done: bool,
}

/// What one server's state summed up to when it had applied everything up to `zxid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestAt {
    pub server: u64,
    pub zxid: i64,
    pub digest: u64,
}

/// All that one server has when all is quiet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalTree {
    pub server: u64,
    /// The last zxid applied, or that of a sync before the tree was read.
    pub zxid: i64,
    /// Whether the tree was taken at exactly `zxid`; otherwise it may hold what came later.
    pub exact: bool,
    pub digest: Option<u64>,
    pub znodes: BTreeMap<Path, FinalZnode>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalZnode {
    pub data: Data,
    pub stat: Stat,
}

/// What was committed, merged from the logs of all servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// In the order of their zxids.
    pub entries: Vec<LogEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    pub zxid: i64,
    pub term: u64,
    /// The leader's wall clock in milliseconds since 1970.
    pub time_ms: i64,
    pub origin: Origin,
    pub command: LogCommand,
}

/// Who proposed an entry: which of a server's connections, and the how manieth of its proposals.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Origin {
    pub server: u64,
    /// 0: the leader itself.
    pub connection: u64,
    pub sequence: u64,
}

/// What an entry asks for. Passwords are fingerprints: equal if they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogCommand {
    /// Nothing: consensus' own entries.
    Blank,
    Open {
        /// The id that the session gets.
        session: i64,
        timeout_ms: i32,
        password: u64,
    },
    Attach {
        session: i64,
        timeout_ms: i32,
        password: u64,
    },
    Close {
        session: i64,
    },
    /// Of a session that was silent since it was attached at that zxid.
    Expire {
        session: i64,
        attached_at: i64,
    },
    Write {
        session: i64,
        identities: Arc<[Id]>,
        rules: Rules,
        write: Request,
    },
    /// Deletes those containers and TTL znodes that are still due.
    Reap {
        paths: Vec<Path>,
        never_used_ms: i64,
    },
    /// The ensemble's members, as `server.N=...` lines, each with its line end. Empty: a server alone.
    Configure {
        members: String,
        changed_ms: i64,
    },
    /// A write that this vocabulary has no words for: what comes after it cannot be judged.
    Unknown {
        what: String,
    },
}

/// Settings that travel with a write and decide its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    pub skip_acl: bool,
    pub enforce_quota: bool,
    pub ttl_disabled: bool,
    pub x509_enabled: bool,
}

impl Request {
    /// Whether it becomes a log entry.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Create { .. }
                | Self::Delete { .. }
                | Self::SetData { .. }
                | Self::SetAcl { .. }
                | Self::Multi(_)
                | Self::CloseSession
        )
    }

    /// Whether a server answers it from its own state.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::GetData { .. }
                | Self::Exists { .. }
                | Self::GetChildren { .. }
                | Self::GetAcl { .. }
                | Self::CountDescendants { .. }
                | Self::GetEphemerals { .. }
                | Self::MultiRead(_)
        )
    }
}

impl Outcome {
    /// The zxid in the answer's header, if one came.
    #[must_use]
    pub fn zxid(&self) -> Option<i64> {
        match self {
            Self::Done { zxid, .. } | Self::Refused { zxid, .. } => Some(*zxid),
            Self::Unknown | Self::NotSent => None,
        }
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}

impl CreateKind {
    #[must_use]
    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential | Self::EphemeralSequential | Self::TtlSequential { .. }
        )
    }

    #[must_use]
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// The mode that create flags and a TTL stand for, if any.
    #[must_use]
    pub fn from_flags(flags: i32, ttl_ms: Option<i64>) -> Option<Self> {
        use quorate_protocol::CreateMode as Mode;
        Some(match Mode::from_flags(flags, ttl_ms).ok()? {
            Mode::Persistent => Self::Persistent,
            Mode::PersistentSequential => Self::PersistentSequential,
            Mode::Ephemeral => Self::Ephemeral,
            Mode::EphemeralSequential => Self::EphemeralSequential,
            Mode::Container => Self::Container,
            Mode::PersistentWithTtl { ttl_ms } => Self::Ttl { ms: ttl_ms },
            Mode::PersistentSequentialWithTtl { ttl_ms } => Self::TtlSequential { ms: ttl_ms },
        })
    }
}

impl EventKind {
    /// The kind with this number on the wire, if a server sends it.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        use quorate_protocol::EventType as Type;
        Some(match Type::from_code(code)? {
            Type::NodeCreated => Self::Created,
            Type::NodeDeleted => Self::Deleted,
            Type::NodeDataChanged => Self::DataChanged,
            Type::NodeChildrenChanged => Self::ChildrenChanged,
        })
    }
}

#[cfg(test)]
mod tests;
