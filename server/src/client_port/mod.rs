//! The port clients connect to: accepting, reading requests, sending what they are owed.
//!
//! Nothing here touches the tree. A request goes from [`connection`] through [`dispatch`] either to
//! the replica (reads) or into the log (writes); what a client is to be sent comes back through its
//! [`outbox`] only.

pub mod connection;
pub mod dispatch;
pub mod greeting;
pub mod listener;
pub mod outbox;

use crate::consensus::membership::OutOfService;

/// Why a connection ended. The client sees a closed socket; this is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    #[error("the client closed the connection")]
    ByClient,
    #[error("the client closed its session")]
    SessionClosed,
    #[error("the session expired")]
    SessionExpired,
    #[error("the session is unknown, has expired, or the password is wrong")]
    SessionRefused,
    #[error("the session moved to another connection")]
    SessionMoved,
    #[error("the client has seen a later zxid than this server")]
    ServerBehind,
    #[error("no session was opened in time")]
    HandshakeTimeout,
    #[error("the request is malformed")]
    Malformed,
    #[error("a frame's length is negative or above jute.maxbuffer")]
    BadFrame,
    #[error("authentication failed")]
    AuthFailed,
    #[error("the client has proved more identities than one connection may have")]
    TooManyIdentities,
    #[error("the client does not read what it is sent")]
    SlowReader,
    #[error("the client watches more paths than one connection may")]
    TooManyWatches,
    #[error("an answer does not fit a frame")]
    ResponseTooLarge,
    #[error("the socket failed")]
    Socket,
    #[error("a four-letter word was answered")]
    FourLetterWord,
    #[error("the disk is full, no session can be opened")]
    NoSpace,
    #[error("this server has heard of no majority for too long")]
    NoQuorum,
    #[error("the state was replaced by a snapshot from another server")]
    StateReplaced,
    #[error("a majority is heard again, and the session was for reading without one")]
    QuorumBack,
    #[error("the leader was lost while it changed the members: nobody knows what became of it")]
    OutcomeUnknown,
    #[error(transparent)]
    OutOfService(OutOfService),
    #[error("the server is shutting down")]
    Shutdown,
}
