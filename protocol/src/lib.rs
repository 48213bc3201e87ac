//! What crosses the client port: ZooKeeper's protocol, and nothing else.
//!
//! Jute is implemented once, as a serde format ([`jute`]); the records ([`request`], [`response`],
//! [`multi`], [`event`], [`handshake`]) are plain serde types, so the same ones travel as
//! MessagePack between servers. [`types`] holds what is valid once constructed. This crate knows no
//! runtime, socket, file, clock or random number: bytes in, values out.
//!
//! Bytes come from strangers, so decoding never panics, never trusts an announced count, and
//! reports what was wrong as [`jute::Error`].

#![warn(missing_docs)]

pub mod error_code;
pub mod event;
pub mod frame;
pub mod handshake;
pub mod header;
pub mod jute;
pub mod multi;
pub mod op;
pub mod request;
pub mod response;
pub mod types;

pub use error_code::ErrorCode;
pub use event::{EventType, WatcherEvent};
pub use header::{ReplyHeader, RequestHeader};
pub use op::OpCode;
pub use request::Request;
pub use response::Response;
pub use types::{
    Acl, AclEntry, CreateMode, Id, Password, PathError, Perms, SessionId, Stat, Xid, ZnodePath,
    Zxid, digest_id,
};
