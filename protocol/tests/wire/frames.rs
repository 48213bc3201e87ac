//! Cutting a stream into frames.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_protocol::frame::{FrameCodec, FrameError, MAX_FRAME_BYTES_DEFAULT, write_frame};
use quorate_protocol::jute;
use tokio_util::codec::{Decoder as _, Encoder as _};

fn stream_of(frames: &[Vec<u8>]) -> BytesMut {
    let mut codec = FrameCodec::new(0);
    let mut stream = BytesMut::new();
    for frame in frames {
        codec
            .encode(Bytes::copy_from_slice(frame), &mut stream)
            .unwrap();
    }
    stream
}

/// Feeds chunks one by one and takes every frame as soon as it is whole.
fn cut<'a>(
    limit: usize,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut codec = FrameCodec::new(limit);
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        input.extend_from_slice(chunk);
        while let Some(frame) = codec.decode(&mut input)? {
            frames.push(frame.to_vec());
        }
    }
    assert!(input.is_empty());
    Ok(frames)
}

proptest! {
    #[test]
    fn a_stream_gives_the_same_frames_however_it_is_split(
        frames in vec(vec(any::<u8>(), 0..20), 0..6),
        chunk in 1..25usize,
    ) {
        let stream = stream_of(&frames);
        prop_assert_eq!(cut(20, stream.chunks(chunk)).unwrap(), frames);
    }

    #[test]
    fn two_parts_split_at_any_byte_give_the_same_frames(
        frames in vec(vec(any::<u8>(), 0..12), 0..4),
    ) {
        let stream = stream_of(&frames);
        for at in 0..=stream.len() {
            let (front, back) = stream.split_at(at);
            prop_assert_eq!(&cut(20, [front, back].into_iter()).unwrap(), &frames);
        }
    }
}

#[test]
fn a_frame_as_long_as_the_limit_passes_and_one_byte_more_does_not() {
    let stream = stream_of(&[vec![1; 100]]);
    assert_eq!(cut(100, [&stream[..]].into_iter()).unwrap().len(), 1);
    let error = cut(99, [&stream[..]].into_iter()).unwrap_err();
    assert!(matches!(
        error,
        FrameError::BadLength {
            announced: 100,
            limit: 99
        }
    ));
}

#[test]
fn zookeepers_limit_is_0xfffff() {
    assert_eq!(MAX_FRAME_BYTES_DEFAULT, 1_048_575);
}

/// What follows cannot be found any more, so the length alone decides, before the body is there.
#[test]
fn an_impossible_length_is_refused_as_soon_as_it_is_read() {
    for announced in [-1, i32::MIN, 101, i32::MAX] {
        let mut input = BytesMut::from(&announced.to_be_bytes()[..]);
        let error = FrameCodec::new(100).next_frame(&mut input).unwrap_err();
        assert!(
            matches!(error, FrameError::BadLength { announced: a, limit: 100 } if a == announced)
        );
    }
}

#[test]
fn an_empty_frame_is_a_frame() {
    assert_eq!(
        cut(10, [&[0; 8][..]].into_iter()).unwrap(),
        [[0; 0], [0; 0]]
    );
}

#[test]
fn an_announced_length_alone_allocates_little() {
    let announced = 64 * 1024 * 1024i32;
    let limit = usize::try_from(announced).unwrap();
    let mut input = BytesMut::from(&announced.to_be_bytes()[..]);
    assert!(
        FrameCodec::new(limit)
            .next_frame(&mut input)
            .unwrap()
            .is_none()
    );
    assert!(input.capacity() <= 64 * 1024, "{}", input.capacity());
}

#[test]
fn a_frame_that_cannot_be_written_leaves_nothing_behind() {
    let mut out = BytesMut::from(&b"before"[..]);
    let failed = write_frame(&mut out, |out| {
        jute::encode(&1i32, out)?;
        Err(jute::Error::TooLong(usize::MAX))
    });
    assert_eq!(failed, Err(jute::Error::TooLong(usize::MAX)));
    assert_eq!(&out[..], b"before");
    write_frame(&mut out, |out| jute::encode(&1i32, out)).unwrap();
    assert_eq!(&out[..], b"before\0\0\0\x04\0\0\0\x01");
}
