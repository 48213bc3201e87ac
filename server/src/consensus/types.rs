//! The types the Raft engine is instantiated with, and short names for them.
//!
//! One leader per term (`leader_id_std`), so a log id is `(term, index)` and index alone orders
//! committed entries. A [`Proposal`] is opaque: the engine and the log carry its bytes, only the
//! applier decodes them. None of these types travels between servers: `translate` has those that do.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use openraft::alias;
use serde::{Deserialize, Serialize};

use crate::config::{self, Member};

/// The engine's parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = ();
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, PeerNode>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = super::runtime::EngineRuntime;
    type Responder<T: openraft::OptionalSend + 'static> = super::pump::OnRefusal<T>;
    type Batch<T: openraft::OptionalSend + 'static> = openraft::impls::InlineBatch<T>;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// `(term, index)` of an entry.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// Whom this server voted for, and whether that vote won.
pub type Vote = alias::VoteOf<TypeConfig>;
/// `(term, server)`: a candidate or leader.
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
/// The term alone, once a quorum has granted it.
pub type CommittedLeaderId = alias::CommittedLeaderIdOf<TypeConfig>;
/// One entry of the log.
pub type Entry = alias::EntryOf<TypeConfig>;
/// What an entry says: nothing, a [`Proposal`], or a membership.
pub type EntryPayload = alias::EntryPayloadOf<TypeConfig>;
/// The servers of the ensemble.
pub type Membership = openraft::Membership<u64, PeerNode>;
/// A membership, with the entry that set it.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A finished snapshot on this disk, as the engine hands it about.
pub type SnapshotData = crate::storage::snapshots::SnapshotFile;
/// A snapshot and what it covers.
pub type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;
/// What the log store tells when an append is durable.
pub type IOFlushed = openraft::storage::IOFlushed<TypeConfig>;

/// One encoded command. The log never looks inside.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proposal(pub Bytes);

/// Length only: contents may hold what must not be logged.
impl fmt::Debug for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "proposal of {} bytes", self.0.len())
    }
}

/// How to reach a server: part of every membership, so an ensemble can move without configuration.
/// Stored with field names: fields can be added.
///
/// It holds what a `server.N` line says, so that the line can be written again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerNode {
    /// Where the other servers find it; empty on a server that was told of no ensemble.
    pub host: String,
    pub quorum_port: u16,
    /// Kept for the line; nothing listens there.
    pub election_port: u16,
    /// `host:port` for clients, with `0.0.0.0` for all of its addresses; empty if the line has none.
    pub client_address: String,
    /// It is not meant to vote.
    pub observer: bool,
    /// What stands behind `server.N=` for it, as ZooKeeper writes it, role included. Empty for a
    /// server alone, which is no ensemble.
    #[serde(default)]
    pub line: String,
    #[serde(default)]
    pub standing: Standing,
    /// When a client last changed the members, as noted on one of them; 0 on the others. See
    /// [`quorate_state::Configuration::changed_ms`].
    #[serde(default)]
    pub changed_ms: i64,
    /// Servers that are out of the membership for a moment, noted on the one that led then. Nobody
    /// but whoever leads makes anything of it: it brings them back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub returning: BTreeMap<u64, Returning>,
}

/// A server that has lost its data. It is taken out of the membership, so that the leader forgets how
/// far its old log went, and brought back as it was. The leader may be lost in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returning {
    /// Of its new data.
    pub incarnation: u64,
    pub node: PeerNode,
}

/// Whether a server is a member, or on its way in or out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    #[default]
    Member,
    /// It catches up before it votes.
    Joining,
    /// It has lost its vote, or is about to, and is told so before the others forget it.
    Leaving,
}

impl PeerNode {
    /// What a line of the configuration says.
    pub fn of(member: &Member) -> Self {
        let address = member.addresses.first();
        let text = member.to_string();
        Self {
            host: address.map_or_else(String::new, |address| address.host.clone()),
            quorum_port: address.map_or(0, |address| address.quorum_port),
            election_port: address.map_or(0, |address| address.election_port),
            client_address: member
                .client
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            observer: member.role == config::Role::Observer,
            line: text
                .split_once('=')
                .map_or_else(String::new, |(_, line)| line.to_owned()),
            standing: Standing::Member,
            changed_ms: 0,
            returning: BTreeMap::new(),
        }
    }

    /// `host:port` for the other servers.
    pub fn peer_address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.quorum_port)
        } else {
            format!("{}:{}", self.host, self.quorum_port)
        }
    }
}

impl fmt::Display for PeerNode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.peer_address())
    }
}
