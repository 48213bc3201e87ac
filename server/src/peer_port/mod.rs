//! The peer port: how servers of an ensemble talk to each other.
//!
//! Each server dials each other one, on a connection ("lane") for each kind of traffic, so that a
//! snapshot delays no heartbeat. A handshake comes first: both sides say who they are, and either
//! may refuse ([`Door`]), with a reason that both write into their logs once. Nothing here knows
//! Raft, or what is in a command: it carries the structs of [`wire`] from one [`Service`] to
//! another. Every wait has an end: a peer that hangs costs a deadline, not a task.

pub mod dialer;
mod frame;
mod handshake;
pub mod links;
pub mod listener;
#[cfg(test)]
mod tests;
pub mod wire;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

pub use self::dialer::{ForwardStream, Peers, RpcLane};
pub use self::links::Links;
pub use self::wire::{Answer, Caller, Lane, Question, Refusal, RefusalCode};

use self::wire::{
    Append, Appended, Ballot, Place, Probe, Probed, Rejoin, SnapshotTaken, Transfer, Transferred,
    VoteAsked, Voted,
};

/// Decides with whom this server talks. Asked at every handshake, on both sides, so it must not wait.
pub trait Door: Debug + Send + Sync + 'static {
    /// Who this server is; `None` before it has joined an ensemble.
    fn me(&self) -> Option<Caller>;

    /// Whether to talk with `other`, which wants to talk to us, or answers where we dialled.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: why not.
    fn admit(&self, other: Caller) -> Result<(), Refusal>;

    /// What this server knows, for one that has not joined yet.
    fn probed(&self, probe: Probe) -> Probed;
}

/// Serves what other servers ask. Whoever asks has been admitted.
pub trait Service: Send + Sync + 'static {
    /// A snapshot file under way to this server.
    type Incoming: Incoming;
    /// A stream of another server's writes.
    type Forwarded: Forwarded;

    fn append(
        &self,
        from: u64,
        append: Append,
    ) -> impl Future<Output = Result<Appended, ServiceError>> + Send;

    fn vote(&self, asked: VoteAsked) -> impl Future<Output = Result<Voted, ServiceError>> + Send;

    fn pre_vote(
        &self,
        asked: VoteAsked,
    ) -> impl Future<Output = Result<Voted, ServiceError>> + Send;

    fn transfer(
        &self,
        transfer: Transfer,
    ) -> impl Future<Output = Result<Transferred, ServiceError>> + Send;

    /// Begins to take a snapshot in; or says at once whom this server follows instead.
    fn begin_snapshot(
        &self,
        leader: Ballot,
        last: Option<Place>,
    ) -> impl Future<Output = Result<Result<Self::Incoming, SnapshotTaken>, ServiceError>> + Send;

    fn answer(&self, from: u64, question: Question) -> impl Future<Output = Answer> + Send;

    /// A server that was not admitted wants to be, with its data gone.
    fn rejoin(&self, rejoin: Rejoin) -> impl Future<Output = Answer> + Send;

    /// Begins to take writes of `from`'s clients, meant for this server as the leader of `term`.
    fn open_forwarded(self: &Arc<Self>, from: u64, term: u64) -> Self::Forwarded;
}

/// Takes the writes of another server's clients.
pub trait Forwarded: Send + 'static {
    /// The next ones, in their order.
    ///
    /// # Errors
    ///
    /// Why the stream ends: none of what follows may be taken.
    fn take(&mut self, commands: Vec<BytesMut>) -> impl Future<Output = Result<(), String>> + Send;

    /// Resolves when one that was taken has been refused after all: the stream ends. Cancel safe.
    fn refused(&self) -> impl Future<Output = ()> + Send;
}

/// Takes the bytes of a snapshot file.
pub trait Incoming: Send + 'static {
    fn write(self, bytes: BytesMut) -> impl Future<Output = Result<Self, ServiceError>> + Send
    where
        Self: Sized;

    /// All bytes are there: checks the file and installs it.
    fn finish(self) -> impl Future<Output = Result<SnapshotTaken, ServiceError>> + Send;
}

/// A request could not be served, which says nothing about the next one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(pub String);

/// Why another server did not do what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nothing was sent.
    #[error("server {0} is not a member")]
    Unknown(u64),
    /// Nothing was sent.
    #[error("server {server} cannot be reached at {address} ({reason})")]
    Unreachable {
        server: u64,
        address: String,
        reason: String,
    },
    /// Nothing was sent.
    #[error("server {server} and this one do not talk: {refusal}")]
    Refused { server: u64, refusal: Refusal },
    /// It may have been served all the same.
    #[error("server {server} did not answer within {} ms", patience.as_millis())]
    Late { server: u64, patience: Duration },
    /// It may have been served all the same.
    #[error("the connection to server {server} was lost ({reason})")]
    Lost { server: u64, reason: String },
    /// It was not served.
    #[error("server {server} could not serve it ({reason})")]
    Failed { server: u64, reason: String },
}

impl PeerError {
    /// Whether it is certain that the other server has not seen the request.
    pub fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Unknown(_) | Self::Unreachable { .. } | Self::Refused { .. }
        )
    }
}
