//! What clients send before anybody knows them, and what a server answers.
//!
//! Each target says more than "no panic": whatever decodes encodes to bytes that decode to the same
//! and are no longer than what came, and a stream gives the same frames however it is split.

use bytes::BytesMut;
use quorate_protocol::frame::FrameCodec;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{OpCode, Request, RequestHeader, Response, jute};
use quorate_server::admin::four_letter::Word;
use quorate_server::client_port::greeting::{self, Greeting};

use crate::chunks::Chunks;

/// As long as inputs get by default.
const FRAME_BYTES_MAX: usize = 4096;

/// What a frame may be announced as, beyond what has come, before the buffer is held to account: the
/// room that every frame gets at once, and the growth of a vector.
const BUFFER_BYTES_MAX: usize = 128 << 10;

/// A stream of frames, in chunks.
pub fn frame_stream(input: &[u8]) {
    let Some((chunks, stream)) = Chunks::of(input) else {
        return;
    };
    let codec = FrameCodec::new(FRAME_BYTES_MAX);
    let mut expected = stream;
    let mut buffer = BytesMut::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match codec.next_frame(&mut buffer) {
                Ok(Some(frame)) => {
                    let (want, rest) = plain_frame(expected).expect("no frame is made up");
                    assert_eq!(frame, want);
                    expected = rest;
                }
                Ok(None) => break,
                Err(_) => {
                    let length = expected
                        .first_chunk()
                        .map(|length| i32::from_be_bytes(*length));
                    let length = length.expect("a length was refused") as i64;
                    assert!(!(0..=FRAME_BYTES_MAX as i64).contains(&length));
                    return;
                }
            }
        }
        assert!(buffer.capacity() <= BUFFER_BYTES_MAX);
    }
    assert_eq!(plain_frame(expected), None, "a frame was held back");
    assert_eq!(buffer, expected, "nothing is lost");
}

/// The frame at the front of `stream`, and what follows it: the same again, in the plainest way.
fn plain_frame(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = stream.split_first_chunk()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
        .filter(|_| length <= FRAME_BYTES_MAX)
}

/// The first frame in each direction.
pub fn handshake(body: &[u8]) {
    let mut again = BytesMut::new();
    if let Ok(request) = ConnectRequest::decode(body) {
        request
            .encode(&mut again)
            .expect("what was decoded encodes");
        assert!(again.len() <= body.len());
        assert_eq!(ConnectRequest::decode(&again).as_ref(), Ok(&request));
        again.clear();
    }
    if let Ok(response) = ConnectResponse::decode(body) {
        response
            .encode(&mut again)
            .expect("what was decoded encodes");
        assert!(again.len() <= body.len());
        assert_eq!(ConnectResponse::decode(&again).as_ref(), Ok(&response));
    }
}

/// Any request: the first byte picks the operation, the rest is the body.
pub fn jute_request(input: &[u8]) {
    if let Some((op, body)) = operation(input) {
        check_request(op, body);
    }
}

/// Any response: the first byte picks the operation, the rest is the body.
pub fn response(input: &[u8]) {
    if let Some((op, body)) = operation(input) {
        check_response(op, body);
    }
}

/// A list of operations, or of results.
pub fn multi(body: &[u8]) {
    for op in [OpCode::Multi, OpCode::MultiRead] {
        check_request(op, body);
        check_response(op, body);
    }
}

fn operation(input: &[u8]) -> Option<(OpCode, &[u8])> {
    let (first, body) = input.split_first()?;
    Some((OpCode::ALL[usize::from(*first) % OpCode::ALL.len()], body))
}

fn check_request(op: OpCode, body: &[u8]) {
    let Ok(request) = Request::decode(op, body) else {
        return;
    };
    assert_eq!(request.op(), op);
    let mut again = BytesMut::new();
    request
        .encode(&mut again)
        .expect("what was decoded encodes");
    // Bytes that are no text become characters of three bytes.
    assert!(again.len() <= 3 * body.len());
    assert_eq!(Request::decode(op, &again).as_ref(), Ok(&request));
}

fn check_response(op: OpCode, body: &[u8]) {
    let Ok(response) = Response::decode(op, body) else {
        return;
    };
    let mut again = BytesMut::new();
    response
        .encode(&mut again)
        .expect("what was decoded encodes");
    assert_eq!(Response::decode(op, &again).as_ref(), Ok(&response));
}

/// All that a connection takes off its socket, in chunks: a four-letter word, or a handshake and
/// requests.
pub fn four_letter(input: &[u8]) {
    let Some((chunks, stream)) = Chunks::of(input) else {
        return;
    };
    let split = converse(chunks);
    let whole = converse(std::iter::once(stream));
    assert_eq!(split, whole, "how bytes were split changes nothing");
}

/// What became of a connection: a word, or how many requests there were, and whether it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conversation {
    word: Option<(Word, Option<i64>)>,
    is_greeted: bool,
    /// A hash of the operations, and whether their bodies decoded.
    requests: u64,
    is_over: bool,
}

fn converse<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Conversation {
    let codec = FrameCodec::new(FRAME_BYTES_MAX);
    let mut buffer = BytesMut::with_capacity(128);
    let mut seen = Conversation::default();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        if !seen.is_greeted {
            match greeting::next(&codec, &mut buffer) {
                Ok(None) => continue,
                Ok(Some(Greeting::Word(word, number))) => {
                    assert!(seen.word.is_none_or(|(before, _)| before == word));
                    seen.word = Some((word, number));
                    continue;
                }
                Ok(Some(Greeting::Frame(frame))) => {
                    assert!(seen.word.is_none(), "a word stays one");
                    seen.is_greeted = true;
                    seen.is_over = ConnectRequest::decode(&frame).is_err();
                }
                Err(_) => seen.is_over = true,
            }
        }
        while !seen.is_over {
            match codec.next_frame(&mut buffer) {
                Ok(Some(frame)) => seen.on_request(&frame),
                Ok(None) => break,
                Err(_) => seen.is_over = true,
            }
        }
        if seen.is_over {
            break;
        }
    }
    seen
}

impl Conversation {
    fn on_request(&mut self, frame: &[u8]) {
        let Ok(header) = jute::decode::<RequestHeader>(frame) else {
            self.is_over = true;
            return;
        };
        let known = OpCode::from_code(header.op).map(|op| Request::decode(op, &frame[8..]).is_ok());
        let word = u64::from(header.op.cast_unsigned()) << 2
            | known.map_or(0, |decoded| 1 + u64::from(decoded));
        self.requests = self.requests.wrapping_mul(31).wrapping_add(word + 1);
    }
}
