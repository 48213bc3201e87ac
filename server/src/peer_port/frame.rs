//! Frames, the units of what servers send each other.
//!
//! `length: u32 | kind: u8 | call: u64 | body`, big-endian; the length covers all that follows it,
//! the body is MessagePack. An answer repeats the call of its request. No length is believed before
//! the bytes are there.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::storage::log::ENTRY_BYTES_MAX;

/// The first bytes of every connection: tells a peer from whatever else may connect.
const MAGIC: u64 = u64::from_be_bytes(*b"QuPeers\x01");

/// What follows the length in a frame's head: kind and call.
pub(super) const HEAD_BYTES: usize = 1 + 8;
/// The longest frame: the longest entry, and what may stand beside it in a batch.
pub(super) const FRAME_BYTES_MAX: usize = ENTRY_BYTES_MAX + (8 << 20);
/// The longest frame before the handshake is done.
pub(super) const HANDSHAKE_BYTES_MAX: usize = 4 << 10;
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

    /// The kind with this number, if there is one.
    pub fn of(number: u8) -> Option<Self> {
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
