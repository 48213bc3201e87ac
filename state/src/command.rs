//! What one log entry says.
//!
//! A [`Command`] carries everything that decides its effect, the time included, so that replicas
//! which apply it alike become alike. It is stored as one version byte, the time in eight bytes, and
//! MessagePack: the leader sets the time of a command that another server has encoded.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request;
use quorate_protocol::{Id, Password, SessionId, Zxid};
use serde::{Deserialize, Serialize};

/// The version in front of every stored command.
const VERSION: u8 = 1;
/// The time follows the version, little-endian.
const TIME: std::ops::Range<usize> = 1..9;

/// About what a command takes beside the client's data, with one or two identities.
const OVERHEAD_BYTES: usize = 160;

/// One request, or one decision of the leader, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The leader's wall clock in milliseconds since 1970. It may go backwards between commands.
    pub time_ms: i64,
    pub origin: Origin,
    pub rules: Rules,
    pub action: Action,
}

/// A socket of one server. Numbers are never reused, not by a later run of the server either, so an
/// entry that is applied again after a restart finds nobody to answer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Connection {
    pub server: u64,
    pub number: u64,
}

/// Who proposed a command: whose connection, and the how manieth of its proposals this is.
///
/// The leader's own commands (expiry, clean-up) come from connection number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub connection: Connection,
    /// Counts from 0 (the command that opens or attaches the session) without gaps.
    pub sequence: u64,
}

/// Settings of the proposing server that decide a result: they travel with the command, because
/// replicas must not decide by their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// `skipACL`: permissions are not checked.
    pub skip_acl: bool,
    /// `enforceQuota`: hard quotas refuse.
    pub enforce_quota: bool,
    /// `extendedTypesEnabled=false`: TTL modes are not implemented.
    pub ttl_disabled: bool,
    /// Clients may prove who they are by certificate, so ACLs may name them by it.
    pub x509_enabled: bool,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Opens a session for the origin's connection. Its id is made of the origin's server and the
    /// zxid, so it is unique for ever.
    OpenSession { timeout_ms: i32, password: Password },
    /// Gives an existing session to the origin's connection, and takes it from the one that had it.
    AttachSession {
        session: SessionId,
        password: SentPassword,
        timeout_ms: i32,
    },
    /// The client ends its session.
    CloseSession { session: SessionId },
    /// The leader found the session silent for its timeout. Without effect if the session was
    /// attached after `attached_at`: the leader had not seen that yet.
    ExpireSession {
        session: SessionId,
        attached_at: Zxid,
    },
    /// A client's write.
    Write {
        session: SessionId,
        /// What the connection had proved when the request came in.
        identities: Arc<[Id]>,
        write: Write,
    },
    /// Deletes those of these containers and TTL znodes that are still due.
    Reap {
        paths: Vec<String>,
        /// `znode.container.maxNeverUsedIntervalMs`; 0 spares containers that never had a child.
        never_used_ms: i64,
    },
    /// Changes nothing. The origin's server is told when it is applied: what that server proposed
    /// before it, and has not been applied, never will be.
    Marker { run: u32, epoch: u64 },
    /// The leader has met this server for the first time, with this incarnation of its data.
    Admit { server: u64, incarnation: u64 },
}

/// A session password as a client sent it: any bytes. `Debug` does not show them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SentPassword(pub Bytes);

impl<T: Into<Bytes>> From<T> for SentPassword {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for SentPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentPassword(..)")
    }
}

/// A write as the client asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    Create(request::Create),
    Create2(request::Create),
    CreateContainer(request::Create),
    CreateTtl(request::CreateTtl),
    Delete(request::Delete),
    SetData(request::SetData),
    SetAcl(request::SetAcl),
    Multi(Vec<MultiOp>),
    Reconfig(request::Reconfig),
}

/// A log entry that is no command of this version.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the entry is empty")]
    Empty,
    #[error("the entry ends before its time does")]
    Short,
    #[error("the entry has format version {0}, this program knows {VERSION}: run a newer one")]
    Version(u8),
    #[error("the entry does not decode: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("the command does not encode: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

impl Command {
    /// The stored form. `payload_bytes` is about how much of it is the client's data: a hint, so
    /// that the buffer need not grow.
    ///
    /// # Errors
    ///
    /// [`CommandError::Encode`], which no command built from a decoded request meets.
    pub fn encode(&self, payload_bytes: usize) -> Result<Bytes, CommandError> {
        let mut out = BytesMut::with_capacity(OVERHEAD_BYTES + payload_bytes).writer();
        out.get_mut().put_u8(VERSION);
        out.get_mut().put_i64_le(self.time_ms);
        (&self.origin, &self.rules, &self.action)
            .serialize(&mut rmp_serde::Serializer::new(&mut out))?;
        Ok(out.into_inner().freeze())
    }

    /// Sets the time of a stored command.
    ///
    /// # Errors
    ///
    /// [`CommandError`]: these bytes are no command of this version.
    pub fn set_time(stored: &mut [u8], time_ms: i64) -> Result<(), CommandError> {
        split(stored)?;
        stored[TIME].copy_from_slice(&time_ms.to_le_bytes());
        Ok(())
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`CommandError`]: the entry comes from another version, or is damaged.
    pub fn decode(stored: &[u8]) -> Result<Self, CommandError> {
        let (time_ms, body) = split(stored)?;
        let (origin, rules, action) = rmp_serde::from_slice(body)?;
        Ok(Self {
            time_ms,
            origin,
            rules,
            action,
        })
    }
}

/// The time and what follows it.
fn split(stored: &[u8]) -> Result<(i64, &[u8]), CommandError> {
    match stored.split_first() {
        None => Err(CommandError::Empty),
        Some((&VERSION, rest)) => {
            let (time, body) = rest.split_first_chunk().ok_or(CommandError::Short)?;
            Ok((i64::from_le_bytes(*time), body))
        }
        Some((&version, _)) => Err(CommandError::Version(version)),
    }
}
