//! The headers in front of every request and reply.

use serde::{Deserialize, Serialize};

use crate::types::{Xid, Zxid};

/// In front of every request but the first (see [`crate::handshake`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHeader {
    pub xid: Xid,
    /// An operation code; see [`crate::OpCode::from_code`].
    pub op: i32,
}

/// In front of every reply and notification. A body follows only when `err` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHeader {
    pub xid: Xid,
    pub zxid: Zxid,
    /// 0, or an [`crate::ErrorCode`].
    pub err: i32,
}
