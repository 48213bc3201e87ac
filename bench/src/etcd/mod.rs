//! A client for etcd, no more than measuring needs.
//!
//! gRPC is done by hand on top of HTTP/2: a message is a length and Protocol Buffers fields, and
//! the few messages used are in [`message`]. So what an operation costs here stays near what it
//! costs with ZooKeeper's protocol, and no code is generated.

pub(crate) mod channel;
pub(crate) mod load;
pub(crate) mod lock;
pub(crate) mod message;
mod protobuf;
