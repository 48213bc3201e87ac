//! How two servers find out whether they belong together, and what one that has no data may ask.

use serde::{Deserialize, Serialize};

/// The oldest protocol version this program speaks, and the newest.
pub const VERSIONS: (u16, u16) = (1, 1);

/// What a connection is for. Each has a TCP connection of its own, so that none waits behind
/// another. Sent: numbers stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Lane {
    /// Entries of the log.
    Replication,
    /// The leader's sign of life.
    Heartbeat,
    /// Snapshot files.
    Snapshot,
    /// Votes; questions and answers.
    Control,
    /// Writes on their way to the leader.
    Forward,
}

impl From<Lane> for u8 {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Replication => 1,
            Lane::Heartbeat => 2,
            Lane::Snapshot => 3,
            Lane::Control => 4,
            Lane::Forward => 5,
        }
    }
}

impl TryFrom<u8> for Lane {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::Replication),
            2 => Ok(Self::Heartbeat),
            3 => Ok(Self::Snapshot),
            4 => Ok(Self::Control),
            5 => Ok(Self::Forward),
            _ => Err("an unknown lane"),
        }
    }
}

/// Who a server says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The ensemble.
    pub cluster: u64,
    pub server: u64,
    /// Whose data it has: drawn when its folder was made.
    pub incarnation: u64,
    /// Drawn at its start.
    pub run: u32,
}

/// The first frame of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest and the newest protocol version the caller speaks.
    pub versions: (u16, u16),
    pub lane: Lane,
    pub from: Caller,
    /// Whom it wants to reach.
    pub to: u64,
    /// Of the leader that forwarded writes are meant for; 0 on the other lanes.
    pub term: u64,
}

/// The answer to a [`Hello`] that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub host: Caller,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum RefusalCode {
    /// Protocol versions without a common one.
    Version,
    /// Another ensemble.
    Cluster,
    /// Not the server the caller wants.
    WrongServer,
    /// Another incarnation of a server that is known.
    ReusedId,
    /// No member of the ensemble.
    Stranger,
    /// Not ready to talk yet.
    Starting,
    /// The writes are meant for another leader.
    NotLeader,
    /// A reason of a later version.
    Other,
}

impl From<RefusalCode> for u8 {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Version => 1,
            RefusalCode::Cluster => 2,
            RefusalCode::WrongServer => 3,
            RefusalCode::ReusedId => 4,
            RefusalCode::Stranger => 5,
            RefusalCode::Starting => 6,
            RefusalCode::NotLeader => 7,
            RefusalCode::Other => 0,
        }
    }
}

impl From<u8> for RefusalCode {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::Cluster,
            3 => Self::WrongServer,
            4 => Self::ReusedId,
            5 => Self::Stranger,
            6 => Self::Starting,
            7 => Self::NotLeader,
            _ => Self::Other,
        }
    }
}

/// A refused connection: which kind of reason, and the reason for people, who read it in both logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    pub code: RefusalCode,
    pub reason: String,
}

impl Refusal {
    pub fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

/// A server asks another, before it has joined an ensemble, what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Of the servers in the asker's configuration.
    pub cluster: u64,
    pub server: u64,
}

/// A server that has lost its data asks the leader to take it in as a new incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoin {
    pub cluster: u64,
    pub server: u64,
    /// Above the one it was known by.
    pub incarnation: u64,
}

/// The answer to a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The ensemble it belongs to, or would found.
    pub cluster: u64,
    pub server: u64,
    /// Drawn at its start: whoever finds another one at its own address is not alone with its id.
    pub run: u32,
    pub standing: Standing,
    /// The incarnation it knows the asker by. Only one that is settled can tell.
    pub known: Option<u64>,
    /// Whether the asker is a member.
    pub member: bool,
}

/// How far a server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Standing {
    /// It has no data, and has never voted.
    New,
    /// It has founded an ensemble that has had no leader yet.
    Founding,
    /// It has data, but does not know yet what the ensemble has agreed on meanwhile.
    Unsettled,
    /// It has applied what the ensemble has agreed on.
    Settled,
}

impl From<Standing> for u8 {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::New => 1,
            Standing::Founding => 2,
            Standing::Unsettled => 3,
            Standing::Settled => 4,
        }
    }
}

impl TryFrom<u8> for Standing {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::New),
            2 => Ok(Self::Founding),
            3 => Ok(Self::Unsettled),
            4 => Ok(Self::Settled),
            _ => Err("an unknown standing"),
        }
    }
}
