//! What another server sends: a stream of frames, and the message in each.

#![no_main]

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use quorate_server::peer_port::wire::{
    self, Answer, Append, Appended, Forward, Frame, FrameReader, Hello, Kind, Probe, Probed,
    Question, Refusal, Rejoin, SnapshotBegin, SnapshotChunk, SnapshotTaken, Transfer, Transferred,
    VoteAsked, Voted, Welcome,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|stream: &[u8]| {
    let mut reader = FrameReader::new(stream);
    reader.handshake_done();
    while let Ok(Some(frame)) = now(reader.next()) {
        check_frame(frame);
    }
});

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
