//! What a connection begins with: a four-letter word, or the frame that opens a session.
//!
//! Plain bytes in, a decision out: how the bytes were split on their way changes nothing. The four
//! bytes of a word, read as the length of a frame, are far above any sane `jute.maxbuffer`; a word
//! therefore goes first, as in ZooKeeper. A word is not taken off the input, since nothing is read
//! after it.

use bytes::BytesMut;
use quorate_protocol::frame::{FrameCodec, FrameError, LENGTH_BYTES};

use crate::admin::four_letter::Word;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// A command, and the number behind it once all of its bytes are there: `stmk` has one.
    Word(Word, Option<i64>),
    /// The body of the first frame.
    Frame(BytesMut),
}

/// The greeting at the front of `input`; `None` while too little of it has come.
///
/// # Errors
///
/// [`FrameError`]: neither a word nor the length of a frame.
pub fn next(codec: &FrameCodec, input: &mut BytesMut) -> Result<Option<Greeting>, FrameError> {
    if let Some(word) = input.first_chunk::<LENGTH_BYTES>().and_then(Word::parse) {
        let number = input[LENGTH_BYTES..].first_chunk();
        let number = number.map(|number| i64::from_be_bytes(*number));
        return Ok(Some(Greeting::Word(word, number)));
    }
    Ok(codec.next_frame(input)?.map(Greeting::Frame))
}
