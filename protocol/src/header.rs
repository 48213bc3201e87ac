//! The headers in front of every request and reply.

use serde::{Deserialize, Serialize};

use crate::types::{Xid, Zxid};

/// In front of every request but the first (see [`crate::handshake`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHeader {
    /// Comes back in the reply.
    pub xid: Xid,
    /// An operation code; see [`crate::OpCode::from_code`].
    pub op: i32,
}

/// In front of every reply and notification. A body follows only when `err` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHeader {
    /// The request's, or one of the reserved [`Xid`]s.
    pub xid: Xid,
    /// Of a write, its own; of a read, the last one applied on the server.
    pub zxid: Zxid,
    /// 0, or an [`crate::ErrorCode`].
    pub err: i32,
}
