//! Transaction and request numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The place of a write in the order of all writes. Clients only compare them and keep the highest
/// they saw; 0 stands for "none yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Zxid(pub i64);

impl Zxid {
    /// Before the first write.
    pub const ZERO: Self = Self(0);
    /// In notifications that stand for no single transaction, and in replies to what the server
    /// does not implement.
    pub const NONE: Self = Self(-1);
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number by which a client recognises the reply to a request. It means nothing to the server,
/// which echoes it, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xid(pub i32);

impl Xid {
    /// In every notification.
    pub const NOTIFICATION: Self = Self(-1);
    /// In every reply to a ping, whatever xid the ping had.
    pub const PING: Self = Self(-2);
    /// Of auth packets, in most clients.
    pub const AUTH: Self = Self(-4);
    /// Of setWatches, in the C client.
    pub const SET_WATCHES: Self = Self(-8);
}
