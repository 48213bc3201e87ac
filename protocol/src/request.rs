//! What clients ask for: one record per operation.
//!
//! Strings are as the client sent them. Whether a path is one is decided where the request is
//! judged, because the order of checks is part of the protocol (a bad ACL beats a missing parent).

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::jute;
use crate::multi::{self, MultiOp, ReadOp};
use crate::op::OpCode;
use crate::types::{AclEntry, Zxid};

/// create, create2 and createContainer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    pub path: String,
    pub data: Option<Bytes>,
    pub acl: Vec<AclEntry>,
    pub flags: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTtl {
    pub path: String,
    pub data: Option<Bytes>,
    pub acl: Vec<AclEntry>,
    pub flags: i32,
    pub ttl_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    pub path: String,
    pub version: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetData {
    pub path: String,
    pub data: Option<Bytes>,
    pub version: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAcl {
    pub path: String,
    pub acl: Vec<AclEntry>,
    /// Compared with `aversion`.
    pub version: i32,
}

/// A condition in a multi: the znode exists and has this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub path: String,
    pub version: i32,
}

/// exists, getData, getChildren, getChildren2: a read that may leave a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    pub path: String,
    pub watch: bool,
}

/// getACL, getAllChildrenNumber and sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathOnly {
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetEphemerals {
    /// A string the paths must start with; null, blank and "/" mean all.
    pub prefix: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// Ignored; clients send 0.
    pub auth_type: i32,
    pub scheme: Option<String>,
    pub auth: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sasl {
    pub token: Option<Bytes>,
}

/// What a client watched when its last connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetWatches {
    /// The highest zxid the client saw.
    pub relative_zxid: Zxid,
    pub data: Vec<String>,
    pub exist: Vec<String>,
    pub child: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetWatches2 {
    pub relative_zxid: Zxid,
    pub data: Vec<String>,
    pub exist: Vec<String>,
    pub child: Vec<String>,
    pub persistent: Vec<String>,
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddWatch {
    pub path: String,
    /// 0 persistent, 1 persistent recursive.
    pub mode: i32,
}

/// checkWatches and removeWatches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchesOfType {
    pub path: String,
    /// 1 children, 2 data, 3 any, 4 persistent, 5 persistent recursive.
    pub watcher_type: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconfig {
    pub joining: Option<String>,
    pub leaving: Option<String>,
    pub new_members: Option<String>,
    /// The config version this change is meant for; -1 for any.
    pub config_version: i64,
}

/// One request, decoded by the operation code of its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Create(Create),
    Create2(Create),
    CreateContainer(Create),
    CreateTtl(CreateTtl),
    Delete(Delete),
    SetData(SetData),
    SetAcl(SetAcl),
    /// Valid inside a multi only.
    Check(Check),
    Multi(Vec<MultiOp>),
    MultiRead(Vec<ReadOp>),
    Exists(Watched),
    GetData(Watched),
    GetChildren(Watched),
    GetChildren2(Watched),
    GetAcl(PathOnly),
    GetAllChildrenNumber(PathOnly),
    GetEphemerals(GetEphemerals),
    Sync(PathOnly),
    Ping,
    Reconfig(Reconfig),
    CheckWatches(WatchesOfType),
    RemoveWatches(WatchesOfType),
    SetWatches(SetWatches),
    SetWatches2(SetWatches2),
    AddWatch(AddWatch),
    WhoAmI,
    Auth(Auth),
    Sasl(Sasl),
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
            Self::Ping | Self::WhoAmI | Self::CloseSession => Ok(()),
        }
    }

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
            Self::Ping => OpCode::Ping,
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
