//! What is known of a znode besides its data.

use serde::{Deserialize, Serialize};

use super::Zxid;

/// The fields of `Stat`, letter for letter and in the order of `zookeeper.jute`: 68 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// The write that created the znode.
    pub czxid: Zxid,
    /// The write that last set its data.
    pub mzxid: Zxid,
    /// Milliseconds since 1970, by the leader's clock.
    pub ctime: i64,
    /// When its data was last set; likewise.
    pub mtime: i64,
    /// How often the data was set.
    pub version: i32,
    /// How often a child came or went.
    pub cversion: i32,
    /// How often the ACL was set.
    pub aversion: i32,
    /// The session an ephemeral belongs to; 0 for every other kind, containers and TTL included.
    pub ephemeral_owner: i64,
    /// In bytes; 0 for null, too.
    pub data_length: i32,
    /// How many children it has now.
    pub num_children: i32,
    /// The write that last added or removed a child.
    pub pzxid: Zxid,
}

impl Stat {
    /// The length of its jute encoding.
    pub const JUTE_BYTES: usize = 68;
}
