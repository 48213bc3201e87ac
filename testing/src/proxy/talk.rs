//! What is said on one connection: frames, and which reply belongs to which request.
//!
//! Requests and replies pass through here in turn; sockets and time are the connection's business.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};
use quorate_protocol::frame::FrameCodec;
use quorate_protocol::handshake::ConnectResponse;
use quorate_protocol::{OpCode, ReplyHeader, RequestHeader, SessionId, Xid, jute};

use super::faults::{Action, Armed, Corruption, Faults, Kind};

/// No request or reply of a sane test is longer; what announces more is not of the protocol. The
/// four-letter words announce more than 1.6 GB.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// One connection's talk.
#[derive(Debug)]
pub(super) struct Talk {
    codec: FrameCodec,
    /// Not ZooKeeper's protocol: passed on as it is, both ways.
    is_raw: bool,
    has_asked: bool,
    has_answered: bool,
    /// What the answer to the handshake granted.
    session: Option<SessionId>,
    /// Requests that were passed on and not answered, in their order.
    open: VecDeque<Open>,
}

#[derive(Debug)]
struct Open {
    /// `None` for the handshake.
    xid: Option<Xid>,
    fault: Option<Armed>,
}

/// What is to be done after passing on what there is.
#[derive(Debug)]
pub(super) enum Next {
    /// To read more.
    Read,
    /// To cut the connection, and then to say that this has struck.
    Cut(Armed),
    /// The same, as soon as all that was passed on is answered.
    CutWhenAnswered(Armed),
}

impl Default for Talk {
    fn default() -> Self {
        Self {
            codec: FrameCodec::new(FRAME_BYTES_MAX),
            is_raw: false,
            has_asked: false,
            has_answered: false,
            session: None,
            open: VecDeque::new(),
        }
    }
}

impl Talk {
    /// The session that is served on this connection, once the client is told of it.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// How many requests that were passed on have no answer yet.
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Moves from `input` to `output` what may be passed on to the server.
    pub(super) fn requests(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
        faults: &Faults,
    ) -> Next {
        while let Some(frame) = self.next_frame(input, output) {
            let (xid, kind) = if self.has_asked {
                match jute::decode_next::<RequestHeader>(&mut &frame[..]) {
                    Ok(header) => {
                        let op = OpCode::from_code(header.op);
                        // Pings are answered under a number of their own, whatever they had.
                        let is_ping = op == Some(OpCode::Ping);
                        let xid = if is_ping { Xid::PING } else { header.xid };
                        (Some(xid), Kind::Request(op))
                    }
                    // The server closes the connection for this.
                    Err(_) => {
                        pass_on(output, &frame);
                        continue;
                    }
                }
            } else {
                self.has_asked = true;
                (None, Kind::Handshake)
            };
            let fault = match faults.take(kind) {
                Some(armed) if armed.action == Action::CutBefore => {
                    return Next::CutWhenAnswered(armed);
                }
                Some(armed) if armed.action == Action::Pass => {
                    armed.happened();
                    None
                }
                fault => fault,
            };
            self.open.push_back(Open { xid, fault });
            pass_on(output, &frame);
        }
        Next::Read
    }

    /// Moves from `input` to `output` what may be passed on to the client.
    pub(super) fn replies(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Next {
        while let Some(frame) = self.next_frame(input, output) {
            let is_greeting = !std::mem::replace(&mut self.has_answered, true);
            let xid = if is_greeting {
                None
            } else {
                match jute::decode_next::<ReplyHeader>(&mut &frame[..]) {
                    Ok(header) => Some(header.xid),
                    // For the client to judge.
                    Err(_) => {
                        pass_on(output, &frame);
                        continue;
                    }
                }
            };
            let fault = self.close(xid).and_then(|open| open.fault);
            match fault {
                None => {
                    if is_greeting {
                        self.note_session(&frame);
                    }
                    pass_on(output, &frame);
                }
                Some(fault) => match fault.action {
                    Action::CutBefore | Action::CutAfter => return Next::Cut(fault),
                    Action::Withhold | Action::Pass => fault.happened(),
                    Action::Corrupt(corruption) => {
                        corrupt(output, frame, corruption);
                        fault.happened();
                    }
                },
            }
        }
        Next::Read
    }

    fn note_session(&mut self, greeting: &[u8]) {
        let response = ConnectResponse::decode(greeting).ok();
        self.session = response.and_then(|response| response.session_id);
    }

    /// The request that a reply answers. Notifications answer none. Replies to pings and auth packets
    /// may come out of turn.
    fn close(&mut self, xid: Option<Xid>) -> Option<Open> {
        if xid == Some(Xid::NOTIFICATION) {
            return None;
        }
        let at = self.open.iter().position(|open| open.xid == xid)?;
        self.open.remove(at)
    }

    /// The next whole frame. What is not of the protocol is moved to `output`.
    fn next_frame(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Option<BytesMut> {
        if !self.is_raw {
            match self.codec.next_frame(input) {
                Ok(frame) => return frame,
                Err(_) => self.is_raw = true,
            }
        }
        output.unsplit(input.split());
        None
    }
}

fn pass_on(output: &mut BytesMut, frame: &[u8]) {
    // The codec has taken it for a frame because it is shorter than 2 GiB.
    output.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
    output.put_slice(frame);
}

fn corrupt(output: &mut BytesMut, mut frame: BytesMut, corruption: Corruption) {
    match corruption {
        Corruption::WrongXid => {
            if let Some(xid) = frame.first_chunk_mut::<4>() {
                // Far from any that a client is at.
                *xid = (i32::from_be_bytes(*xid) ^ 0x4000_0000).to_be_bytes();
            }
            pass_on(output, &frame);
        }
        Corruption::Truncated => {
            // Less than a header, and more than nothing.
            frame.truncate(frame.len() / 2);
            pass_on(output, &frame);
        }
        Corruption::BadLength => {
            output.put_i32(-1);
            output.put_slice(&frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use quorate_protocol::OpCode;

    use super::{Faults, Next, Talk};

    fn frame(words: &[i32]) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(words.len() * 4).expect("short"));
        for word in words {
            frame.put_i32(*word);
        }
        frame
    }

    /// A request's or a reply's first words.
    fn request(xid: i32, op: OpCode) -> BytesMut {
        frame(&[xid, op.code(), 7, 7])
    }

    fn reply(xid: i32) -> BytesMut {
        frame(&[xid, 0, 1, 0, 9])
    }

    /// Passes `bytes` on one by one.
    fn trickle(
        bytes: &BytesMut,
        mut pass: impl FnMut(&mut BytesMut, &mut BytesMut) -> Next,
    ) -> BytesMut {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        for byte in bytes {
            input.put_u8(*byte);
            assert!(matches!(pass(&mut input, &mut output), Next::Read));
        }
        output
    }

    fn joined(frames: &[BytesMut]) -> BytesMut {
        frames.concat().as_slice().into()
    }

    #[test]
    fn what_no_fault_strikes_is_passed_on_as_it_is_whatever_pieces_it_comes_in() {
        let faults = Faults::default();
        let mut talk = Talk::default();
        let asked = joined(&[
            frame(&[0, 0, 0, 0]),
            request(1, OpCode::Create),
            request(7, OpCode::Ping),
            request(-4, OpCode::Auth),
            request(-8, OpCode::SetWatches),
            frame(&[5]),
            frame(&[]),
        ]);
        let passed = trickle(&asked, |input, output| {
            talk.requests(input, output, &faults)
        });
        assert_eq!(passed, asked);
        // The two that are no requests are owed no answer.
        assert_eq!(talk.open_count(), 5);
        let answers = [
            reply(0),
            reply(-4),
            reply(-1),
            reply(1),
            reply(-2),
            reply(-8),
        ];
        let answers = joined(&answers);
        let passed = trickle(&answers, |input, output| talk.replies(input, output));
        assert_eq!(passed, answers);
        assert_eq!(talk.open_count(), 0);
    }

    #[test]
    fn what_is_not_of_the_protocol_is_passed_on_both_ways() {
        for word in ["ruok", "GET / HTTP/1.1\r\n\r\n", "\u{ff}\u{fe}\u{fd}"] {
            let mut talk = Talk::default();
            let faults = Faults::default();
            let asked = BytesMut::from(word.as_bytes());
            let passed = trickle(&asked, |input, output| {
                talk.requests(input, output, &faults)
            });
            assert_eq!(passed, asked);
            // Would be a frame, if it were of the protocol.
            let answer = BytesMut::from(&b"\0\0\x01\0no"[..]);
            let passed = trickle(&answer, |input, output| talk.replies(input, output));
            assert_eq!(passed, answer);
            assert_eq!(talk.open_count(), 0);
        }
    }
}
