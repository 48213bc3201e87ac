//! What servers send each other: one struct for each message.
//!
//! These structs are our own: what the Raft engine or the state calls things may change, these may
//! not. Which fields there are is fixed by the protocol version, which the handshake settles first.
//! Bytes from a peer give errors, never panics.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub use super::frame::{
    Frame, FrameReader, FrameWriter, Kind, WireError, decode, encode, greet, greeted,
};
pub use super::handshake::{
    Caller, Hello, Lane, Probe, Probed, Refusal, RefusalCode, Rejoin, Standing, VERSIONS, Welcome,
};

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub term: u64,
    pub index: u64,
}

/// A candidate, or, once it has won, a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    pub term: u64,
    pub server: u64,
    /// It has won.
    pub won: bool,
}

/// One entry; its index follows from its place in the batch.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct SentEntry {
    pub term: u64,
    /// As in the log.
    pub kind: u8,
    pub payload: Bytes,
}

/// Length only: contents may hold what must not be logged.
impl fmt::Debug for SentEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (term, kind, bytes) = (self.term, self.kind, self.payload.len());
        write!(
            formatter,
            "SentEntry(term {term}, kind {kind}, {bytes} bytes)"
        )
    }
}

/// Entries from the leader, or none: a sign of life, and how far the log is committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Append {
    pub leader: Ballot,
    /// The entry before the first; `None` before the first of all.
    pub previous: Option<Place>,
    pub committed: Option<Place>,
    pub entries: Vec<SentEntry>,
}

impl Append {
    /// Reads it from a frame. Payloads are not copied: they share the frame's memory.
    ///
    /// # Errors
    ///
    /// [`WireError`]: there is none in it.
    pub fn decode(body: BytesMut) -> Result<Self, WireError> {
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            leader: Ballot,
            previous: Option<Place>,
            committed: Option<Place>,
            #[serde(borrow)]
            entries: Vec<BorrowedEntry<'a>>,
        }
        #[derive(Deserialize)]
        struct BorrowedEntry<'a>(u64, u8, &'a [u8]);

        let body = body.freeze();
        let read: Borrowed<'_> = decode(&body)?;
        let own = |&BorrowedEntry(term, kind, payload): &BorrowedEntry<'_>| SentEntry {
            term,
            kind,
            payload: body.slice_ref(payload),
        };
        Ok(Self {
            leader: read.leader,
            previous: read.previous,
            committed: read.committed,
            entries: read.entries.iter().map(own).collect(),
        })
    }
}

/// What became of an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    All,
    UpTo(Option<Place>),
    /// The previous entry is not there.
    Conflict,
    /// Somebody newer leads, or wants to.
    Outvoted(Ballot),
}

/// A candidate asks for a vote, or whether it would get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteAsked {
    pub candidate: Ballot,
    pub last: Option<Place>,
    /// The leader has asked it to stand.
    pub transfer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voted {
    pub ballot: Ballot,
    pub granted: bool,
    pub last: Option<Place>,
}

/// The leader asks a server to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    pub leader: Ballot,
    pub to: u64,
    pub last: Option<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transferred {
    Accepted,
    VoteChanged {
        expected: Ballot,
        actual: Ballot,
    },
    NotFlushed {
        expected: Option<Place>,
        actual: Option<Place>,
    },
}

/// The file that follows covers the log up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegin {
    pub leader: Ballot,
    pub last: Option<Place>,
    pub length: u64,
}

/// A piece of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk(pub Bytes);

/// Whom the receiver of a snapshot follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTaken {
    pub ballot: Ballot,
}

/// What one server may ask another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// To the leader: record that these sessions showed life, then confirm that you still lead, and
    /// say up to where the log was committed before.
    Round { touched: Vec<i64> },
    /// The digests of your state, at the last checkpoints and now.
    Digests,
    /// A majority has this digest at `zxid`. Stop serving if you have another.
    Contradict { zxid: i64, digest: u64 },
    /// To the leader: change the members.
    Reconfig(Reconfig),
}

/// A client's wish to change the members, and who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconfig {
    pub joining: Option<String>,
    pub leaving: Option<String>,
    pub members: Option<String>,
    /// The configuration it is meant for; -1 for any.
    pub version: i64,
    /// What the client has proved: pairs of scheme and id.
    pub identities: Vec<(String, String)>,
    /// Permissions are not checked on the server it is connected to.
    pub skip_acl: bool,
    pub patience_ms: u32,
}

/// What it may answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A majority has confirmed the leader; all that was committed before stands up to `index`.
    Confirmed {
        index: u64,
    },
    /// Pairs of zxid and digest.
    Digests {
        at: Vec<(i64, u64)>,
    },
    /// The members were changed by the entry of this zxid.
    Reconfigured {
        zxid: i64,
    },
    /// They were not, and this is what the client is to be told.
    NotReconfigured {
        code: i32,
        reason: String,
    },
    /// It is done.
    Done,
    /// Ask the leader.
    NotLeader,
    Refused {
        reason: String,
    },
}

/// Writes on their way to the leader, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forward<'a>(pub &'a [Bytes]);

/// Takes the commands out of a [`Forward`]. They are not copied: each is a piece of the frame.
///
/// # Errors
///
/// [`WireError`]: there are none in it.
pub fn decode_forward(mut body: BytesMut) -> Result<Vec<BytesMut>, WireError> {
    // A newtype around a sequence is the sequence.
    let borrowed: Vec<&[u8]> = decode(&body)?;
    let start = body.as_ptr() as usize;
    // Offsets within the frame: borrowing ends before the frame is cut up.
    let ranges: Vec<(usize, usize)> = borrowed
        .iter()
        .map(|command| (command.as_ptr() as usize - start, command.len()))
        .collect();
    let mut taken = 0;
    let mut commands = Vec::with_capacity(ranges.len());
    for (offset, length) in ranges {
        // Of an empty command only the length counts.
        if length == 0 {
            commands.push(BytesMut::new());
            continue;
        }
        body.advance(offset - taken);
        commands.push(body.split_to(length));
        taken = offset + length;
    }
    Ok(commands)
}

#[cfg(test)]
mod tests;
