//! What clients ask for: one record per operation.
//!
//! Strings are as the client sent them. Whether a path is one is decided where the request is
//! judged, because the order of checks is part of the protocol (a bad ACL beats a missing parent).

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::jute;
use crate::multi::{self, MultiOp, ReadOp};
use crate::op::OpCode;
use crate::types::{AclEntry, Zxid};

/// The body of [`Request::PingWithQuestion`]. ZooKeeper's servers read no body of a ping.
const PING_QUESTION: [u8; 4] = *b"lead";

/// create, create2 and createContainer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// With a sequential mode, the prefix of the path.
    pub path: String,
    /// `None` is null, which is kept apart from empty.
    pub data: Option<Bytes>,
    /// As sent; see [`crate::Acl::resolve`].
    pub acl: Vec<AclEntry>,
    /// See [`crate::CreateMode::from_flags`].
    pub flags: i32,
}

/// createTTL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTtl {
    /// With a sequential mode, the prefix of the path.
    pub path: String,
    /// `None` is null, which is kept apart from empty.
    pub data: Option<Bytes>,
    /// As sent; see [`crate::Acl::resolve`].
    pub acl: Vec<AclEntry>,
    /// See [`crate::CreateMode::from_flags`].
    pub flags: i32,
    /// How long the znode may go without being set.
    pub ttl_ms: i64,
}

/// delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The znode to delete.
    pub path: String,
    /// The version it must have; -1 for any.
    pub version: i32,
}

/// setData.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetData {
    /// The znode to set.
    pub path: String,
    /// `None` is null, which is kept apart from empty.
    pub data: Option<Bytes>,
    /// The version it must have; -1 for any.
    pub version: i32,
}

/// setACL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAcl {
    /// The znode whose ACL to set.
    pub path: String,
    /// As sent; see [`crate::Acl::resolve`].
    pub acl: Vec<AclEntry>,
    /// Compared with `aversion`.
    pub version: i32,
}

/// A condition in a multi: the znode exists and has this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The znode that must exist.
    pub path: String,
    /// The version it must have; -1 for any.
    pub version: i32,
}

/// exists, getData, getChildren, getChildren2: a read that may leave a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The znode to read.
    pub path: String,
    /// Whether to leave a watch.
    pub watch: bool,
}

/// getACL, getAllChildrenNumber and sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathOnly {
    /// The znode to read. sync does not look at it.
    pub path: String,
}

/// getEphemerals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetEphemerals {
    /// A string the paths must start with; null, blank and "/" mean all.
    pub prefix: Option<String>,
}

/// auth. `Debug` does not show what proves it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// Ignored; clients send 0.
    pub auth_type: i32,
    /// How the data below proves something.
    pub scheme: Option<String>,
    /// For the scheme `digest`, `user:password`.
    pub auth: Option<Bytes>,
}

/// sasl. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sasl {
    /// What the mechanism says.
    pub token: Option<Bytes>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sasl(..)")
    }
}

/// What a client watched when its last connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetWatches {
    /// The highest zxid the client saw.
    pub relative_zxid: Zxid,
    /// Left by getData, and by exists when the znode existed.
    pub data: Vec<String>,
    /// Left by exists when there was no znode.
    pub exist: Vec<String>,
    /// Left by getChildren.
    pub child: Vec<String>,
}

/// As [`SetWatches`], with the watches that addWatch left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetWatches2 {
    /// The highest zxid the client saw.
    pub relative_zxid: Zxid,
    /// Left by getData, and by exists when the znode existed.
    pub data: Vec<String>,
    /// Left by exists when there was no znode.
    pub exist: Vec<String>,
    /// Left by getChildren.
    pub child: Vec<String>,
    /// Left by addWatch with mode 0.
    pub persistent: Vec<String>,
    /// Left by addWatch with mode 1.
    pub persistent_recursive: Vec<String>,
}

impl From<SetWatches> for SetWatches2 {
    fn from(old: SetWatches) -> Self {
        Self {
            relative_zxid: old.relative_zxid,
            data: old.data,
            exist: old.exist,
            child: old.child,
            persistent: Vec::new(),
            persistent_recursive: Vec::new(),
        }
    }
}

/// addWatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddWatch {
    /// What to watch. It need not exist, nor be a valid path.
    pub path: String,
    /// 0 persistent, 1 persistent recursive.
    pub mode: i32,
}

/// checkWatches and removeWatches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchesOfType {
    /// Where the watches are: exactly this path.
    pub path: String,
    /// 1 children, 2 data, 3 any, 4 persistent, 5 persistent recursive.
    pub watcher_type: i32,
}

/// reconfig: either the first two, or the third.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconfig {
    /// Servers to add or change, separated by commas.
    pub joining: Option<String>,
    /// Ids of the servers to remove, separated by commas.
    pub leaving: Option<String>,
    /// All servers there are to be, separated by commas.
    pub new_members: Option<String>,
    /// The config version this change is meant for; -1 for any.
    pub config_version: i64,
}

/// One request, decoded by the operation code of its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Makes a znode; answered with its path.
    Create(Create),
    /// Makes a znode; answered with path and stat.
    Create2(Create),
    /// Makes a container.
    CreateContainer(Create),
    /// Makes a znode with a time to live.
    CreateTtl(CreateTtl),
    /// Removes a znode.
    Delete(Delete),
    /// Replaces a znode's data.
    SetData(SetData),
    /// Replaces a znode's ACL.
    SetAcl(SetAcl),
    /// Valid inside a multi only.
    Check(Check),
    /// Several writes, all or none.
    Multi(Vec<MultiOp>),
    /// Several reads, each with its own result.
    MultiRead(Vec<ReadOp>),
    /// A znode's stat, or a watch on its creation.
    Exists(Watched),
    /// A znode's data and stat.
    GetData(Watched),
    /// The names of a znode's children.
    GetChildren(Watched),
    /// The names of a znode's children, and its stat.
    GetChildren2(Watched),
    /// A znode's ACL and stat.
    GetAcl(PathOnly),
    /// How many descendants a znode has.
    GetAllChildrenNumber(PathOnly),
    /// The session's ephemeral znodes.
    GetEphemerals(GetEphemerals),
    /// Waits until the server has caught up with the leader.
    Sync(PathOnly),
    /// Keeps the session alive.
    Ping,
    /// A ping that asks whether its answer proves that the leader knows of it: a body that servers
    /// which do not know the question do not look at.
    PingWithQuestion,
    /// Changes the members of the ensemble.
    Reconfig(Reconfig),
    /// Whether the connection has a watch.
    CheckWatches(WatchesOfType),
    /// Takes watches of the connection away.
    RemoveWatches(WatchesOfType),
    /// Brings back the watches of the last connection.
    SetWatches(SetWatches),
    /// As `SetWatches`, with persistent watches.
    SetWatches2(SetWatches2),
    /// Adds a persistent watch.
    AddWatch(AddWatch),
    /// The connection's identities.
    WhoAmI,
    /// Adds an identity to the connection.
    Auth(Auth),
    /// One round of a SASL exchange.
    Sasl(Sasl),
    /// Ends the session.
    CloseSession,
}

impl Request {
    /// Decodes what follows the header of a request for `op`.
    ///
    /// # Errors
    ///
    /// Any [`jute::Error`]. A server answers `MarshallingError` and keeps the connection; inside an
    /// auth or sasl packet it closes instead.
    pub fn decode(op: OpCode, body: &[u8]) -> Result<Self, jute::Error> {
        Ok(match op {
            OpCode::Create => Self::Create(jute::decode(body)?),
            OpCode::Create2 => Self::Create2(jute::decode(body)?),
            OpCode::CreateContainer => Self::CreateContainer(jute::decode(body)?),
            OpCode::CreateTtl => Self::CreateTtl(jute::decode(body)?),
            OpCode::Delete => Self::Delete(jute::decode(body)?),
            OpCode::SetData => Self::SetData(jute::decode(body)?),
            OpCode::SetAcl => Self::SetAcl(jute::decode(body)?),
            OpCode::Check => Self::Check(jute::decode(body)?),
            OpCode::Multi => Self::Multi(multi::decode_writes(body)?),
            OpCode::MultiRead => Self::MultiRead(multi::decode_reads(body)?),
            OpCode::Exists => Self::Exists(jute::decode(body)?),
            OpCode::GetData => Self::GetData(jute::decode(body)?),
            OpCode::GetChildren => Self::GetChildren(jute::decode(body)?),
            OpCode::GetChildren2 => Self::GetChildren2(jute::decode(body)?),
            OpCode::GetAcl => Self::GetAcl(jute::decode(body)?),
            OpCode::GetAllChildrenNumber => Self::GetAllChildrenNumber(jute::decode(body)?),
            OpCode::GetEphemerals => Self::GetEphemerals(jute::decode(body)?),
            OpCode::Sync => Self::Sync(jute::decode(body)?),
            OpCode::Ping if body.starts_with(&PING_QUESTION) => Self::PingWithQuestion,
            OpCode::Ping => Self::Ping,
            OpCode::Reconfig => Self::Reconfig(jute::decode(body)?),
            OpCode::CheckWatches => Self::CheckWatches(jute::decode(body)?),
            OpCode::RemoveWatches => Self::RemoveWatches(jute::decode(body)?),
            OpCode::SetWatches => Self::SetWatches(jute::decode(body)?),
            OpCode::SetWatches2 => Self::SetWatches2(jute::decode(body)?),
            OpCode::AddWatch => Self::AddWatch(jute::decode(body)?),
            OpCode::WhoAmI => Self::WhoAmI,
            OpCode::Auth => Self::Auth(jute::decode(body)?),
            OpCode::Sasl => Self::Sasl(jute::decode(body)?),
            OpCode::CloseSession => Self::CloseSession,
        })
    }

    /// Appends the body; the header is the caller's.
    ///
    /// # Errors
    ///
    /// [`jute::Error::TooLong`] for a string or list no frame can carry.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), jute::Error> {
        match self {
            Self::Create(r) | Self::Create2(r) | Self::CreateContainer(r) => jute::encode(r, out),
            Self::CreateTtl(r) => jute::encode(r, out),
            Self::Delete(r) => jute::encode(r, out),
            Self::SetData(r) => jute::encode(r, out),
            Self::SetAcl(r) => jute::encode(r, out),
            Self::Check(r) => jute::encode(r, out),
            Self::Multi(ops) => multi::encode_writes(ops, out),
            Self::MultiRead(ops) => multi::encode_reads(ops, out),
            Self::Exists(r) | Self::GetData(r) | Self::GetChildren(r) | Self::GetChildren2(r) => {
                jute::encode(r, out)
            }
            Self::GetAcl(r) | Self::GetAllChildrenNumber(r) | Self::Sync(r) => jute::encode(r, out),
            Self::GetEphemerals(r) => jute::encode(r, out),
            Self::Reconfig(r) => jute::encode(r, out),
            Self::CheckWatches(r) | Self::RemoveWatches(r) => jute::encode(r, out),
            Self::SetWatches(r) => jute::encode(r, out),
            Self::SetWatches2(r) => jute::encode(r, out),
            Self::AddWatch(r) => jute::encode(r, out),
            Self::Auth(r) => jute::encode(r, out),
            Self::Sasl(r) => jute::encode(r, out),
            Self::PingWithQuestion => {
                out.extend_from_slice(&PING_QUESTION);
                Ok(())
            }
            Self::Ping | Self::WhoAmI | Self::CloseSession => Ok(()),
        }
    }

    /// The code in the header of this request.
    pub fn op(&self) -> OpCode {
        match self {
            Self::Create(_) => OpCode::Create,
            Self::Create2(_) => OpCode::Create2,
            Self::CreateContainer(_) => OpCode::CreateContainer,
            Self::CreateTtl(_) => OpCode::CreateTtl,
            Self::Delete(_) => OpCode::Delete,
            Self::SetData(_) => OpCode::SetData,
            Self::SetAcl(_) => OpCode::SetAcl,
            Self::Check(_) => OpCode::Check,
            Self::Multi(_) => OpCode::Multi,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::Exists(_) => OpCode::Exists,
            Self::GetData(_) => OpCode::GetData,
            Self::GetChildren(_) => OpCode::GetChildren,
            Self::GetChildren2(_) => OpCode::GetChildren2,
            Self::GetAcl(_) => OpCode::GetAcl,
            Self::GetAllChildrenNumber(_) => OpCode::GetAllChildrenNumber,
            Self::GetEphemerals(_) => OpCode::GetEphemerals,
            Self::Sync(_) => OpCode::Sync,
            Self::Ping | Self::PingWithQuestion => OpCode::Ping,
            Self::Reconfig(_) => OpCode::Reconfig,
            Self::CheckWatches(_) => OpCode::CheckWatches,
            Self::RemoveWatches(_) => OpCode::RemoveWatches,
            Self::SetWatches(_) => OpCode::SetWatches,
            Self::SetWatches2(_) => OpCode::SetWatches2,
            Self::AddWatch(_) => OpCode::AddWatch,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::Auth(_) => OpCode::Auth,
            Self::Sasl(_) => OpCode::Sasl,
            Self::CloseSession => OpCode::CloseSession,
        }
    }
}
