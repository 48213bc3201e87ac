//! Frames: a four-byte big-endian length and that many bytes, in both directions.
//!
//! The limit (`jute.maxbuffer`) is on the frame, not on the data in it. A length that is negative
//! or above the limit cannot be skipped over, so the connection ends.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::jute;

/// The bytes of the length in front of every frame.
pub const LENGTH_BYTES: usize = 4;

/// ZooKeeper's default for `jute.maxbuffer`: 0xfffff.
pub const MAX_FRAME_BYTES_DEFAULT: usize = 0xf_ffff;

/// Room that every unfinished frame gets at once. Most frames are smaller.
const READ_AHEAD_BYTES: usize = 16 * 1024;

/// Why a stream of bytes is no stream of frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is negative or above the limit.
    #[error("a frame announces {announced} bytes, the limit (jute.maxbuffer) is {limit}")]
    BadLength {
        /// As it stood in the stream.
        announced: i32,
        /// What the codec was made with.
        limit: usize,
    },
    /// A frame to send does not fit a length.
    #[error(transparent)]
    Encode(#[from] jute::Error),
    /// Of the transport the codec is used on; the codec itself makes none.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Cuts a byte stream into frames, and puts the length in front of those to send.
#[derive(Clone, Copy, Debug)]
pub struct FrameCodec {
    max_frame_bytes: usize,
}

impl FrameCodec {
    /// Refuses incoming frames above `max_frame_bytes`. Outgoing frames have no limit, as in
    /// ZooKeeper: the receiver has its own.
    pub fn new(max_frame_bytes: usize) -> Self {
        Self { max_frame_bytes }
    }

    /// Takes the next whole frame off the front of `input`, if one is there.
    ///
    /// # Errors
    ///
    /// [`FrameError::BadLength`]; nothing sensible can be read after it.
    pub fn next_frame(&self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        let Some(prefix) = input.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let announced = i32::from_be_bytes(*prefix);
        let bad_length = FrameError::BadLength {
            announced,
            limit: self.max_frame_bytes,
        };
        let length = match usize::try_from(announced) {
            Ok(length) if length <= self.max_frame_bytes => length,
            _ => return Err(bad_length),
        };
        if input.len() - LENGTH_BYTES < length {
            // Room for the rest of this frame and no more, and no more than has really come: a
            // stranger's word alone sizes no allocation.
            let missing = LENGTH_BYTES + length - input.len();
            input.reserve(missing.min(input.len().max(READ_AHEAD_BYTES)));
            return Ok(None);
        }
        input.advance(LENGTH_BYTES);
        Ok(Some(input.split_to(length)))
    }
}

impl Decoder for FrameCodec {
    type Item = BytesMut;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        self.next_frame(input)
    }
}

impl Encoder<Bytes> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, body: Bytes, out: &mut BytesMut) -> Result<(), FrameError> {
        write_frame(out, |out| {
            out.put_slice(&body);
            Ok(())
        })?;
        Ok(())
    }
}

/// Appends one frame whose body `write_body` writes in place; its length is filled in afterwards.
///
/// # Errors
///
/// Those of `write_body`, and [`jute::Error::TooLong`]; `out` is then as it was before the call.
pub fn write_frame(
    out: &mut BytesMut,
    write_body: impl FnOnce(&mut BytesMut) -> Result<(), jute::Error>,
) -> Result<(), jute::Error> {
    let start = out.len();
    out.put_i32(0);
    let written = write_body(out).and_then(|()| {
        let length = out.len() - start - LENGTH_BYTES;
        i32::try_from(length).map_err(|_| jute::Error::TooLong(length))
    });
    match written {
        Ok(length) => {
            out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}
