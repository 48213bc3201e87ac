//! What servers send each other: frames, the handshake, and one struct for each message.
//!
//! Frame: `length: u32 | kind: u8 | call: u64 | body`, big-endian; the length covers all that
//! follows it, the body is MessagePack. An answer repeats the call of its request. These structs are
//! our own: what the Raft engine or the state calls things may change, these may not. Which fields
//! there are is fixed by the protocol version, which the handshake settles first. Bytes from a peer
//! give errors, never panics, and no length is believed before the bytes are there.

use std::fmt;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::storage::log::ENTRY_BYTES_MAX;

/// The oldest protocol version this program speaks, and the newest.
pub const VERSIONS: (u16, u16) = (1, 1);

/// The first bytes of every connection: tells a peer from whatever else may connect.
const MAGIC: u64 = u64::from_be_bytes(*b"QuPeers\x01");

/// What follows the length in a frame's head: kind and call.
const HEAD_BYTES: usize = 1 + 8;
/// The longest frame: the longest entry, and what may stand beside it in a batch.
const FRAME_BYTES_MAX: usize = ENTRY_BYTES_MAX + (8 << 20);
/// The longest frame before the handshake is done.
const HANDSHAKE_BYTES_MAX: usize = 4 << 10;
/// Room made for what is still to come of a frame, at most: memory is given for what has arrived,
/// not for what was announced.
const READ_AHEAD_BYTES: usize = 256 << 10;
/// A batch of small entries is read with few system calls.
const READ_BYTES_MIN: usize = 16 << 10;

/// What a frame is. Sent: numbers stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Hello = 1,
    Welcome = 2,
    Refused = 3,
    Probe = 4,
    Probed = 5,
    Rejoin = 8,
    /// The answer to a request that could not be served, as text.
    Failed = 6,
    /// Not an answer yet: the request is being worked on.
    Busy = 7,

    Append = 16,
    Appended = 17,
    Vote = 18,
    PreVote = 19,
    Voted = 20,
    Transfer = 21,
    Transferred = 22,

    SnapshotBegin = 32,
    SnapshotChunk = 33,
    SnapshotEnd = 34,
    SnapshotTaken = 35,

    Question = 48,
    Answer = 49,

    Forward = 64,
    ForwardEnded = 65,
}

impl Kind {
    const ALL: [Self; 23] = [
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::Probe,
        Self::Probed,
        Self::Rejoin,
        Self::Failed,
        Self::Busy,
        Self::Append,
        Self::Appended,
        Self::Vote,
        Self::PreVote,
        Self::Voted,
        Self::Transfer,
        Self::Transferred,
        Self::SnapshotBegin,
        Self::SnapshotChunk,
        Self::SnapshotEnd,
        Self::SnapshotTaken,
        Self::Question,
        Self::Answer,
        Self::Forward,
        Self::ForwardEnded,
    ];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What a peer sent that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("a frame of {length} bytes, where at most {limit} can be")]
    TooLong { length: usize, limit: usize },
    #[error("a frame too short to be one")]
    TooShort,
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("a frame of kind {found:?}, where none can be")]
    Unexpected { found: Kind },
    #[error("not a Quorate server, or one that speaks another language")]
    Magic,
    #[error("a message that does not decode ({0})")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("a message that does not encode ({0})")]
    Encode(#[from] rmp_serde::encode::Error),
}

impl From<WireError> for io::Error {
    fn from(error: WireError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// One frame, taken apart.
#[derive(Debug)]
pub struct Frame {
    pub kind: Kind,
    /// Which request it is, or answers.
    pub call: u64,
    pub body: BytesMut,
}

impl Frame {
    /// The message in it.
    ///
    /// # Errors
    ///
    /// [`WireError`]: it is none.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        decode(&self.body)
    }

    /// A kind of frame that has no place here.
    pub fn unexpected(&self) -> WireError {
        WireError::Unexpected { found: self.kind }
    }
}

/// Appends one frame to `out`.
///
/// # Errors
///
/// [`WireError`]: it would be too long. Nothing is appended then.
pub fn encode<T: Serialize>(
    out: &mut BytesMut,
    kind: Kind,
    call: u64,
    message: &T,
) -> Result<(), WireError> {
    let start = out.len();
    let written = encode_at(out, kind, call, message);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn encode_at<T: Serialize>(
    out: &mut BytesMut,
    kind: Kind,
    call: u64,
    message: &T,
) -> Result<(), WireError> {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind as u8);
    out.put_u64(call);
    message.serialize(&mut rmp_serde::Serializer::new(out.writer()))?;
    let length = out.len() - start - 4;
    let too_long = WireError::TooLong {
        length,
        limit: FRAME_BYTES_MAX,
    };
    if length > FRAME_BYTES_MAX {
        return Err(too_long);
    }
    let announced = u32::try_from(length).map_err(|_| too_long)?;
    out[start..start + 4].copy_from_slice(&announced.to_be_bytes());
    Ok(())
}

/// Reads one message.
///
/// # Errors
///
/// [`WireError`]: it is none.
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WireError> {
    Ok(rmp_serde::from_slice(body)?)
}

/// Takes frames out of a stream of bytes.
#[derive(Debug)]
pub struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            limit: HANDSHAKE_BYTES_MAX,
        }
    }

    /// From now on frames may be as long as they need to be.
    pub fn handshake_done(&mut self) {
        self.limit = FRAME_BYTES_MAX;
    }

    /// The next frame; `None` at the end of the stream. Cancel safe: what was read is kept.
    ///
    /// # Errors
    ///
    /// The connection's, or a [`WireError`] in an [`io::Error`].
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            let missing = self.missing().min(READ_AHEAD_BYTES);
            self.buffer.reserve(missing.max(READ_BYTES_MIN));
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads the bytes that come before the first frame.
    async fn magic(&mut self) -> io::Result<()> {
        if self.io.read_u64().await? == MAGIC {
            Ok(())
        } else {
            Err(WireError::Magic.into())
        }
    }

    fn announced(&self) -> Option<usize> {
        let head = self.buffer.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*head) as usize)
    }

    fn missing(&self) -> usize {
        self.announced()
            .map_or(0, |length| (4 + length).saturating_sub(self.buffer.len()))
    }

    fn take(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(length) = self.announced() else {
            return Ok(None);
        };
        if length > self.limit {
            let limit = self.limit;
            return Err(WireError::TooLong { length, limit });
        }
        if length < HEAD_BYTES {
            return Err(WireError::TooShort);
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut body = self.buffer.split_to(length);
        let number = body.get_u8();
        let kind = Kind::of(number).ok_or(WireError::UnknownKind(number))?;
        let call = body.get_u64();
        Ok(Some(Frame { kind, call, body }))
    }
}

/// Puts frames into a stream of bytes.
#[derive(Debug)]
pub struct FrameWriter<W> {
    io: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(io: W) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
        }
    }

    /// Takes a frame to be sent by the next [`Self::flush`].
    ///
    /// # Errors
    ///
    /// [`WireError`]: it would be too long.
    pub fn queue<T: Serialize>(
        &mut self,
        kind: Kind,
        call: u64,
        message: &T,
    ) -> Result<(), WireError> {
        encode(&mut self.buffer, kind, call, message)
    }

    /// Takes a frame whose message is encoded already.
    ///
    /// # Errors
    ///
    /// [`WireError`]: it would be too long.
    pub fn queue_encoded(&mut self, kind: Kind, call: u64, body: &[u8]) -> Result<(), WireError> {
        let length = HEAD_BYTES + body.len();
        let too_long = WireError::TooLong {
            length,
            limit: FRAME_BYTES_MAX,
        };
        if length > FRAME_BYTES_MAX {
            return Err(too_long);
        }
        self.buffer
            .put_u32(u32::try_from(length).map_err(|_| too_long)?);
        self.buffer.put_u8(kind as u8);
        self.buffer.put_u64(call);
        self.buffer.put_slice(body);
        Ok(())
    }

    /// Takes whole frames.
    pub fn queue_raw(&mut self, frames: &[u8]) {
        self.buffer.put_slice(frames);
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Hands everything that was queued to the system. Cancel safe: the rest stays queued.
    ///
    /// # Errors
    ///
    /// The connection's.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            self.write_some().await?;
        }
        Ok(())
    }

    /// One write of what was queued. Cancel safe.
    ///
    /// # Errors
    ///
    /// The connection's.
    pub async fn write_some(&mut self) -> io::Result<()> {
        if self.io.write_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    fn queue_magic(&mut self) {
        self.buffer.put_u64(MAGIC);
    }
}

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

/// Starts a connection as the one who dials.
///
/// # Errors
///
/// The connection's.
pub async fn greet<W: AsyncWrite + Unpin, T: Serialize>(
    writer: &mut FrameWriter<W>,
    kind: Kind,
    message: &T,
) -> io::Result<()> {
    writer.queue_magic();
    writer.queue(kind, 0, message)?;
    writer.flush().await
}

/// Reads how a connection begins, as the one who was dialled.
///
/// # Errors
///
/// The connection's; [`WireError::Magic`] if it is no peer's.
pub async fn greeted<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> io::Result<Frame> {
    reader.magic().await?;
    reader
        .next()
        .await?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests;
