//! What servers answer: the body behind a [`crate::ReplyHeader`] whose `err` is 0.
//!
//! A response borrows what it can, so that a read is encoded straight from the tree.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use crate::jute;
use crate::multi::{self, Buffer, MultiResult};
use crate::op::OpCode;
use crate::types::{AclEntry, Stat};

/// The body of a reply, by shape: several operations share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// delete, ping, auth, closeSession, setWatches, checkWatches, removeWatches, check.
    Empty,
    /// ping, where the request asked: the leader knows that the session is alive. Decoded as
    /// [`Response::Empty`]: that there is a body at all is the answer.
    Proof,
    /// create and sync.
    Path(Cow<'a, str>),
    /// create2, createContainer, createTTL. The stat comes last: some clients read the path only.
    PathStat {
        /// The path created, sequence number included.
        path: Cow<'a, str>,
        /// The znode as it was created.
        stat: Stat,
    },
    /// exists, setData, setACL.
    Stat(Stat),
    /// getData and reconfig.
    Data {
        /// `None` is null, which is not the same as empty.
        data: Option<Cow<'a, [u8]>>,
        /// The znode's stat.
        stat: Stat,
    },
    /// getACL.
    Acl {
        /// With the hashes of digests masked, unless the reader may change it.
        acl: Vec<AclEntry>,
        /// The znode's stat.
        stat: Stat,
    },
    /// getChildren and getEphemerals.
    Strings(Vec<Cow<'a, str>>),
    /// getChildren2.
    Children {
        /// Names without the parent's path, in no particular order.
        children: Vec<Cow<'a, str>>,
        /// The znode's stat.
        stat: Stat,
    },
    /// getAllChildrenNumber.
    Count(i32),
    /// addWatch, whose body is an error code that is always 0.
    WatchAdded,
    /// whoAmI: pairs of scheme and user.
    Identities(Vec<(String, String)>),
    /// sasl: what the mechanism answers.
    Sasl(Option<Bytes>),
    /// multi and multiRead: one result per operation.
    Multi(Vec<MultiResult<'a>>),
}

impl Response<'_> {
    /// Appends the body.
    ///
    /// # Errors
    ///
    /// [`jute::Error::TooLong`] for what no frame can carry.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), jute::Error> {
        match self {
            Self::Empty => Ok(()),
            Self::Proof => jute::encode(&1i32, out),
            Self::Path(path) => jute::encode(path, out),
            Self::PathStat { path, stat } => jute::encode(&(path, stat), out),
            Self::Stat(stat) => jute::encode(stat, out),
            Self::Data { data, stat } => jute::encode(&(Buffer(data.as_deref()), stat), out),
            Self::Acl { acl, stat } => jute::encode(&(acl, stat), out),
            Self::Strings(strings) => jute::encode(strings, out),
            Self::Children { children, stat } => jute::encode(&(children, stat), out),
            Self::Count(count) => jute::encode(count, out),
            Self::WatchAdded => jute::encode(&0i32, out),
            Self::Identities(identities) => jute::encode(identities, out),
            Self::Sasl(token) => jute::encode(token, out),
            Self::Multi(results) => multi::encode_results(results, out),
        }
    }
}

impl Response<'static> {
    /// Decodes the body of the reply to a request for `op`.
    ///
    /// # Errors
    ///
    /// Any [`jute::Error`].
    pub fn decode(op: OpCode, body: &[u8]) -> Result<Self, jute::Error> {
        Ok(match op {
            OpCode::Delete
            | OpCode::Ping
            | OpCode::Auth
            | OpCode::CloseSession
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::Check => Self::Empty,
            OpCode::Create | OpCode::Sync => Self::Path(Cow::Owned(jute::decode(body)?)),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                let (path, stat): (String, Stat) = jute::decode(body)?;
                Self::PathStat {
                    path: Cow::Owned(path),
                    stat,
                }
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Self::Stat(jute::decode(body)?),
            OpCode::GetData | OpCode::Reconfig => {
                let (data, stat): (Option<Bytes>, Stat) = jute::decode(body)?;
                Self::Data {
                    data: data.map(|data| Cow::Owned(data.to_vec())),
                    stat,
                }
            }
            OpCode::GetAcl => {
                let (acl, stat) = jute::decode(body)?;
                Self::Acl { acl, stat }
            }
            OpCode::GetChildren | OpCode::GetEphemerals => {
                Self::Strings(owned(jute::decode(body)?))
            }
            OpCode::GetChildren2 => {
                let (children, stat): (Vec<String>, Stat) = jute::decode(body)?;
                Self::Children {
                    children: owned(children),
                    stat,
                }
            }
            OpCode::GetAllChildrenNumber => Self::Count(jute::decode(body)?),
            OpCode::AddWatch => {
                let _: i32 = jute::decode(body)?;
                Self::WatchAdded
            }
            OpCode::WhoAmI => Self::Identities(jute::decode(body)?),
            OpCode::Sasl => Self::Sasl(jute::decode(body)?),
            OpCode::Multi | OpCode::MultiRead => Self::Multi(multi::decode_results(body)?),
        })
    }
}

fn owned(strings: Vec<String>) -> Vec<Cow<'static, str>> {
    strings.into_iter().map(Cow::Owned).collect()
}
