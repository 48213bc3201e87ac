//! What other servers send: frames, and the message in each.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use quorate_server::peer_port::wire::{
    self, Answer, Append, Appended, Forward, Frame, FrameReader, Hello, Kind, Probe, Probed,
    Question, Refusal, Rejoin, SnapshotBegin, SnapshotChunk, SnapshotTaken, Transfer, Transferred,
    VoteAsked, Voted, Welcome,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, ReadBuf};

use crate::chunks::Chunks;

/// What a connection begins with; see `peer_port/frame.rs`.
const MAGIC: &[u8] = b"QuPeers\x01";

/// One message: the first byte is the kind of frame it stands in.
pub fn peer_messages(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else {
        return;
    };
    if let Some(kind) = Kind::of(*kind) {
        check_frame(Frame {
            kind,
            call: 0,
            body: body.into(),
        });
    }
}

/// A connection in chunks, as the one who is dialled reads it. The frames are those in the bytes,
/// however these are split.
pub fn peer_stream(input: &[u8]) {
    let Some((chunks, mut expected)) = Chunks::of(input) else {
        return;
    };
    let mut reader = FrameReader::new(Arriving(chunks));
    let mut limit = HANDSHAKE_BYTES_MAX;
    match now(wire::greeted(&mut reader)) {
        Err(_) => {
            let rest = expected.strip_prefix(MAGIC);
            assert!(rest.is_none_or(|rest| plain_frame(rest, limit).is_none()));
            return;
        }
        Ok(hello) => {
            let rest = expected.strip_prefix(MAGIC).expect("it begins like that");
            expected = same_frame(&hello, rest, limit);
            check_frame(hello);
        }
    }
    reader.handshake_done();
    limit = FRAME_BYTES_MAX;
    loop {
        match now(reader.next()) {
            Ok(Some(frame)) => {
                expected = same_frame(&frame, expected, limit);
                check_frame(frame);
            }
            Ok(None) => return assert!(expected.is_empty(), "nothing is lost"),
            Err(_) => {
                return assert!(plain_frame(expected, limit).is_none(), "a frame is lost");
            }
        }
    }
}

/// Those of `peer_port/frame.rs`.
const HANDSHAKE_BYTES_MAX: usize = 4 << 10;
const FRAME_BYTES_MAX: usize = (256 << 20) + (8 << 20);

/// The frame at the front: kind, call, body and what follows. The same again, in the plainest way.
fn plain_frame(stream: &[u8], limit: usize) -> Option<(Kind, u64, &[u8], &[u8])> {
    let (length, rest) = stream.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (frame, rest) = rest.split_at_checked(length).filter(|_| length <= limit)?;
    let (kind, frame) = frame.split_first()?;
    let (call, body) = frame.split_first_chunk()?;
    Some((Kind::of(*kind)?, u64::from_be_bytes(*call), body, rest))
}

/// Checks that `frame` is the one at the front of `stream`; returns what follows it.
fn same_frame<'a>(frame: &Frame, stream: &'a [u8], limit: usize) -> &'a [u8] {
    let (kind, call, body, rest) = plain_frame(stream, limit).expect("no frame is made up");
    assert_eq!(
        (frame.kind, frame.call, &frame.body[..]),
        (kind, call, body)
    );
    rest
}

/// Bytes that are always ready, a chunk at a time.
struct Arriving<'a>(Chunks<'a>);

impl AsyncRead for Arriving<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(chunk) = self.0.next_up_to(out.remaining()) {
            out.put_slice(chunk);
        }
        Poll::Ready(Ok(()))
    }
}

/// Bytes in memory are always ready.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("nothing to wait for"),
    }
}

fn check_frame(frame: Frame) {
    match frame.kind {
        Kind::Hello => check::<Hello>(&frame),
        Kind::Welcome => check::<Welcome>(&frame),
        Kind::Refused => check::<Refusal>(&frame),
        Kind::Probe => check::<Probe>(&frame),
        Kind::Probed => check::<Probed>(&frame),
        Kind::Rejoin => check::<Rejoin>(&frame),
        Kind::Failed | Kind::ForwardEnded => check::<String>(&frame),
        Kind::Busy | Kind::SnapshotEnd => check::<()>(&frame),
        Kind::Append => check_append(frame.body),
        Kind::Appended => check::<Appended>(&frame),
        Kind::Vote | Kind::PreVote => check::<VoteAsked>(&frame),
        Kind::Voted => check::<Voted>(&frame),
        Kind::Transfer => check::<Transfer>(&frame),
        Kind::Transferred => check::<Transferred>(&frame),
        Kind::SnapshotBegin => check::<SnapshotBegin>(&frame),
        Kind::SnapshotChunk => check::<SnapshotChunk>(&frame),
        Kind::SnapshotTaken => check::<SnapshotTaken>(&frame),
        Kind::Question => check::<Question>(&frame),
        Kind::Answer => check::<Answer>(&frame),
        Kind::Forward => check_forward(frame.body),
    }
}

/// The message in a frame of its own, without the frame.
fn encoded<T: Serialize>(message: &T) -> BytesMut {
    /// Length, kind and call.
    const HEAD_BYTES: usize = 4 + 1 + 8;
    let mut frame = BytesMut::new();
    wire::encode(&mut frame, Kind::Busy, 0, message).expect("what was decoded encodes");
    frame.split_off(HEAD_BYTES)
}

fn check<T: DeserializeOwned + Serialize + PartialEq + Debug>(frame: &Frame) {
    if let Ok(message) = frame.decode::<T>() {
        let again: T = wire::decode(&encoded(&message)).expect("what was encoded decodes");
        assert_eq!(again, message);
    }
}

fn check_append(body: BytesMut) {
    if let Ok(append) = Append::decode(body) {
        let again = Append::decode(encoded(&append)).expect("what was encoded decodes");
        assert_eq!(again, append);
    }
}

fn check_forward(body: BytesMut) {
    if let Ok(commands) = wire::decode_forward(body) {
        let commands: Vec<Bytes> = commands.into_iter().map(BytesMut::freeze).collect();
        let again = wire::decode_forward(encoded(&Forward(&commands)));
        assert_eq!(again.expect("what was encoded decodes"), commands);
    }
}
