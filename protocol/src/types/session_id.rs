//! Session ids and passwords.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of a session: never 0, and never used twice.
///
/// Servers hand out positive ids whose top byte is a server id. Clients print them in hexadecimal
/// and some build znode names from them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct SessionId(i64);

impl SessionId {
    /// `None` for 0, which on the wire means "no session".
    pub fn new(id: i64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// The number on the wire.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// Zero is not a session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("0 is no session id")]
pub struct ZeroSessionId;

impl TryFrom<i64> for SessionId {
    type Error = ZeroSessionId;

    fn try_from(id: i64) -> Result<Self, ZeroSessionId> {
        Self::new(id).ok_or(ZeroSessionId)
    }
}

impl From<SessionId> for i64 {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// What proves that a session is one's own: 16 bytes, because the C client reads a fixed structure.
/// `Debug` does not show them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Password([u8; Self::BYTES]);

impl Password {
    /// The length of every password.
    pub const BYTES: usize = 16;

    /// The server draws the bytes; nothing here can.
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// For the wire and for storage only.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Compares with what a client sent, in a time that does not depend on where they differ.
    pub fn matches(&self, sent: &[u8]) -> bool {
        sent.len() == Self::BYTES
            && self
                .0
                .iter()
                .zip(sent)
                .fold(0, |difference, (a, b)| difference | (a ^ b))
                == 0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Password;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a password of {} bytes", Password::BYTES)
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Password, E> {
                bytes
                    .try_into()
                    .map(Password)
                    .map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
