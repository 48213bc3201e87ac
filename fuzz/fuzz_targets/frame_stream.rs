//! A stream of frames, fed in chunks: the first byte is the size of the chunks.
//!
//! However the stream is split, it gives the same frames and ends in the same error, and the buffer
//! never has more room than what has come explains.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use quorate_protocol::frame::FrameCodec;

/// As many bytes as the fuzzer makes by default.
const LIMIT: usize = 4096;

/// The frames of the stream, and whether it ended in an error.
fn cut<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<BytesMut>, bool) {
    let codec = FrameCodec::new(LIMIT);
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        input.extend_from_slice(chunk);
        loop {
            match codec.next_frame(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(input.capacity() <= 128 * 1024);
    }
    (frames, false)
}

fuzz_target!(|input: &[u8]| {
    let Some((first, stream)) = input.split_first() else {
        return;
    };
    let chunk = usize::from(*first).max(1);
    assert_eq!(cut(stream.chunks(chunk)), cut(std::iter::once(stream)));
});
