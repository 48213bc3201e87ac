//! One connection: its handshake, requests in their order, and what comes back.
//!
//! Everything that was asked for ends up in the history exactly once: with its answer, or, when the
//! connection is over (or dropped), as unknown, or as never sent if not all of its bytes had left.
//! It must not judge answers beyond what it needs to tell which request they are for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_checker::history::{
    EventKind, Moment, Operation, Outcome, Path, Request, SessionRecord, SessionStep, WatchEvent,
};
use quorate_protocol::frame::{FrameCodec, write_frame};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{
    OpCode, Password, ReplyHeader, Request as Wire, RequestHeader, SessionId, WatcherEvent, Xid,
    Zxid, jute,
};
use quorate_server::network::{Network, ReadHalf, WriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::recorder::Recorder;
use crate::wire::reply_of;

/// Above what any server is configured to send.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
const READ_BYTES: usize = 4096;
const REPLY_HEADER_BYTES: usize = 16;

/// Whose connection it is to be, and to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) client: u32,
    pub(crate) server: u64,
    pub(crate) address: SocketAddr,
}

/// What a client says first.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// To resume, with what is sent as its password.
    pub(crate) session: Option<(SessionId, Bytes)>,
    /// The password is wrong, and meant to be.
    pub(crate) is_lie: bool,
    pub(crate) seen: i64,
    pub(crate) timeout_ms: i32,
}

impl Hello {
    fn to_wire(&self) -> ConnectRequest {
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(self.seen),
            timeout_ms: self.timeout_ms,
            session_id: self.session.as_ref().map(|(id, _)| *id),
            password: match &self.session {
                Some((_, password)) => Some(password.clone()),
                None => Some(Bytes::from_static(&[0; Password::BYTES])),
            },
            read_only: Some(false),
        }
    }

    /// The frame that says it.
    pub(crate) fn frame(&self) -> BytesMut {
        let mut frame = BytesMut::new();
        let written = write_frame(&mut frame, |out| self.to_wire().encode(out));
        debug_assert!(written.is_ok(), "a password is no longer than a frame");
        frame
    }
}

/// A session, as it was granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) password: Password,
    pub(crate) timeout: Duration,
}

/// What came of a handshake.
pub(crate) enum Opening {
    Granted(Box<Link>, Session),
    /// The session has ended, or the password was wrong.
    Refused,
    /// The server may have got the question.
    Unanswered,
    /// It has not.
    Unreachable,
}

/// Something that came in.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and nobody keeps it"
)]
#[derive(Debug)]
pub(crate) enum Heard {
    Answer(Answer),
    Event(EventKind, Path),
}

/// What a request came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As [`crate::Raw::send`] gave it.
    pub sequence: u32,
    pub request: Request,
    pub outcome: Outcome,
}

/// Why nothing comes in any more.
#[derive(Debug)]
pub(crate) enum Ended {
    ByServer,
    Nonsense(String),
}

#[derive(Debug)]
struct Pending {
    sequence: u32,
    xid: Xid,
    op: Option<OpCode>,
    request: Request,
    invoked: Moment,
    asked: Instant,
    /// How many bytes of the connection have to leave for it to be complete.
    ends_at: u64,
}

pub(crate) struct Link {
    place: Place,
    number: u32,
    session: i64,
    recorder: Recorder,
    reader: ReadHalf,
    writer: WriteHalf,
    codec: FrameCodec,
    input: BytesMut,
    output: BytesMut,
    /// Bytes of requests: given to the output, and gone from it.
    queued: u64,
    gone: u64,
    pending: VecDeque<Pending>,
    sequence: u32,
    arrival: u32,
    last_xid: i32,
    /// When the last thing came in.
    heard: Moment,
    heard_at: Instant,
    said_at: Instant,
}

impl Link {
    /// Connects and shakes hands, and records what came of it. Not to be cancelled: what was sent and
    /// not recorded would be a lie.
    pub(crate) async fn open(
        network: &dyn Network,
        place: Place,
        hello: &Hello,
        patience: Duration,
        recorder: &Recorder,
    ) -> Opening {
        let deadline = Instant::now() + patience;
        let connect = timeout_at(deadline, network.connect(place.address));
        let Ok(Ok(stream)) = connect.await else {
            return Opening::Unreachable;
        };
        // Only slower without.
        stream.prepare_for_client().ok();
        let (reader, writer) = stream.into_split();
        let from = recorder.now();
        let number = recorder.connection();
        let asked = hello.session.as_ref().map(|(id, _)| *id);
        let record = |session: i64, step| {
            recorder.session(SessionRecord {
                client: place.client,
                connection: number,
                server: place.server,
                session,
                from,
                at: recorder.now(),
                step,
            });
        };
        let mut shaking = Shaking {
            reader,
            writer,
            codec: FrameCodec::new(FRAME_BYTES_MAX),
            input: BytesMut::new(),
        };
        let exchange = timeout_at(deadline, shaking.exchange(hello.frame()));
        let answer = match exchange.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Shaken::NotSent)) => return Opening::Unreachable,
            Ok(Err(Shaken::Ended)) | Err(_) => {
                let resuming = asked.is_some() && !hello.is_lie;
                let session = asked.map_or(0, SessionId::get);
                record(session, SessionStep::Unanswered { resuming });
                return Opening::Unanswered;
            }
            Ok(Err(Shaken::Nonsense(what))) => {
                record(
                    asked.map_or(0, SessionId::get),
                    SessionStep::Broken { what },
                );
                return Opening::Unanswered;
            }
        };
        let granted = answer.session_id.filter(|_| answer.timeout_ms > 0);
        let Some(id) = granted else {
            match asked {
                Some(asked) => record(
                    asked.get(),
                    SessionStep::Refused {
                        wrong_password: hello.is_lie,
                    },
                ),
                None => record(
                    0,
                    SessionStep::Broken {
                        what: "a new session was refused".to_owned(),
                    },
                ),
            }
            return Opening::Refused;
        };
        if hello.is_lie || asked.is_some_and(|asked| asked != id) {
            let what = match hello.is_lie {
                true => format!("{id} was granted for a wrong password"),
                false => format!("{asked:?} was asked for, {id} was granted"),
            };
            record(id.get(), SessionStep::Broken { what });
            return Opening::Refused;
        }
        let timeout_ms = u32::try_from(answer.timeout_ms).unwrap_or(0);
        record(
            id.get(),
            match asked {
                Some(_) => SessionStep::Resumed {
                    timeout_ms,
                    seen: hello.seen,
                },
                None => SessionStep::Opened { timeout_ms },
            },
        );
        let session = Session {
            id,
            password: answer.password,
            timeout: Duration::from_millis(u64::from(timeout_ms)),
        };
        let now = Instant::now();
        let Shaking {
            reader,
            writer,
            codec,
            input,
        } = shaking;
        let link = Self {
            place,
            number,
            session: id.get(),
            recorder: recorder.clone(),
            reader,
            writer,
            codec,
            input,
            output: BytesMut::new(),
            queued: 0,
            gone: 0,
            pending: VecDeque::new(),
            sequence: 0,
            arrival: 0,
            last_xid: 0,
            heard: recorder.now(),
            heard_at: now,
            said_at: now,
        };
        Opening::Granted(Box::new(link), session)
    }

    pub(crate) fn server(&self) -> u64 {
        self.place.server
    }

    /// How many requests wait for their answer.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Since when something could have come and has not; `None` if nothing is to come.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        let oldest = self.pending.front()?;
        Some(oldest.asked.max(self.heard_at))
    }

    /// When something was last sent.
    pub(crate) fn said_at(&self) -> Instant {
        self.said_at
    }

    /// Puts a request on its way; it leaves while [`Link::next`] is awaited. Returns its number.
    pub(crate) fn send(&mut self, request: Request, wire: &Wire) -> u32 {
        let op = wire.op();
        let mut body = BytesMut::new();
        let is_encoded = wire.encode(&mut body).is_ok();
        debug_assert!(is_encoded, "no request is longer than a frame");
        let xid = match op {
            OpCode::Ping => Xid::PING,
            OpCode::Auth => Xid::AUTH,
            OpCode::SetWatches | OpCode::SetWatches2 => Xid::SET_WATCHES,
            _ => {
                self.last_xid = self.last_xid.wrapping_add(1) & i32::MAX;
                Xid(self.last_xid)
            }
        };
        self.send_bytes(request, xid, op.code(), &body)
    }

    /// As [`Link::send`], for what is no request.
    pub(crate) fn send_bytes(&mut self, request: Request, xid: Xid, op: i32, body: &[u8]) -> u32 {
        let before = self.output.len();
        let header = RequestHeader { xid, op };
        let written = write_frame(&mut self.output, |out| {
            jute::encode(&header, out)?;
            out.extend_from_slice(body);
            Ok(())
        });
        debug_assert!(written.is_ok(), "no request is longer than a frame");
        self.queued += (self.output.len() - before) as u64;
        self.sequence += 1;
        self.said_at = Instant::now();
        self.pending.push_back(Pending {
            sequence: self.sequence,
            xid,
            op: OpCode::from_code(op),
            request,
            invoked: self.recorder.now(),
            asked: self.said_at,
            ends_at: self.queued,
        });
        self.sequence
    }

    /// Sends what waits, and returns the next thing that comes in. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Ended`]: nothing will come any more.
    pub(crate) async fn next(&mut self) -> Result<Heard, Ended> {
        loop {
            if let Some(heard) = self.take_heard()? {
                return Ok(heard);
            }
            self.input.reserve(READ_BYTES);
            tokio::select! {
                biased;
                sent = self.writer.write_buf(&mut self.output), if !self.output.is_empty() => {
                    match sent {
                        Ok(bytes @ 1..) => self.gone += bytes as u64,
                        _ => return Err(Ended::ByServer),
                    }
                }
                read = self.reader.read_buf(&mut self.input) => match read {
                    Ok(1..) => self.heard_at = Instant::now(),
                    _ => return Err(Ended::ByServer),
                },
            }
        }
    }

    /// Sends all that waits without looking at what comes in, for at most so long.
    pub(crate) async fn push(&mut self, patience: Duration) {
        let all = async {
            while !self.output.is_empty() {
                match self.writer.write_buf(&mut self.output).await {
                    Ok(bytes @ 1..) => self.gone += bytes as u64,
                    _ => return,
                }
            }
        };
        // What has not left by then is recorded as such.
        timeout(patience, all).await.ok();
    }

    fn take_heard(&mut self) -> Result<Option<Heard>, Ended> {
        let frame = match self.codec.next_frame(&mut self.input) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(error) => return Err(Ended::Nonsense(error.to_string())),
        };
        let nonsense = |what: &str| Err(Ended::Nonsense(what.to_owned()));
        let Ok(header) = jute::decode::<ReplyHeader>(&frame) else {
            return nonsense("a frame that is too short for a header");
        };
        let body = &frame[REPLY_HEADER_BYTES.min(frame.len())..];
        self.arrival += 1;
        self.heard = self.recorder.now();
        if header.xid == Xid::NOTIFICATION {
            return match jute::decode::<WatcherEvent<'_>>(body) {
                Ok(event) => match EventKind::from_code(event.event_type) {
                    Some(kind) => Ok(Some(self.on_event(header.zxid, kind, (*event.path).into()))),
                    None => nonsense("an event of a type that no server sends"),
                },
                Err(error) => Err(Ended::Nonsense(format!("an event: {error}"))),
            };
        }
        let Some(pending) = self.pending.front() else {
            return Err(Ended::Nonsense(format!("an answer to nothing: {header:?}")));
        };
        if header.xid != pending.xid {
            let what = format!("{header:?} in place of the answer to {:?}", pending.request);
            return Err(Ended::Nonsense(what));
        }
        let zxid = header.zxid.0;
        let outcome = match (header.err, pending.op) {
            (0, Some(op)) => match reply_of(op, body) {
                Ok(reply) => Outcome::Done { zxid, reply },
                Err(error) => {
                    let what = format!("the answer to {:?}: {error}", pending.request);
                    return Err(Ended::Nonsense(what));
                }
            },
            (0, None) => return nonsense("an unknown operation was done"),
            (code, _) => Outcome::Refused { zxid, code },
        };
        let Some(pending) = self.pending.pop_front() else {
            return Ok(None);
        };
        Ok(Some(self.on_answer(pending, outcome)))
    }

    fn on_event(&mut self, zxid: Zxid, kind: EventKind, path: Path) -> Heard {
        self.recorder.event(WatchEvent {
            client: self.place.client,
            connection: self.number,
            server: self.place.server,
            session: self.session,
            arrival: self.arrival,
            at: self.heard,
            kind,
            path: Path::clone(&path),
            zxid: (zxid != Zxid::NONE).then_some(zxid.0),
        });
        Heard::Event(kind, path)
    }

    fn on_answer(&mut self, pending: Pending, outcome: Outcome) -> Heard {
        let answer = Answer {
            sequence: pending.sequence,
            request: pending.request.clone(),
            outcome: outcome.clone(),
        };
        let (returned, arrival) = (Some(self.heard), self.arrival);
        self.record(pending, outcome, returned, arrival);
        Heard::Answer(answer)
    }

    fn record(&self, pending: Pending, outcome: Outcome, returned: Option<Moment>, arrival: u32) {
        self.recorder.operation(Operation {
            client: self.place.client,
            connection: self.number,
            server: self.place.server,
            session: self.session,
            sequence: pending.sequence,
            invoked: pending.invoked,
            returned,
            arrival,
            request: pending.request,
            outcome,
        });
    }

    /// Records that the connection is over, and how; `None` if that goes without saying.
    pub(crate) fn finish(self: Box<Self>, step: Option<SessionStep>) {
        if let Some(step) = step {
            self.recorder.session(SessionRecord {
                client: self.place.client,
                connection: self.number,
                server: self.place.server,
                session: self.session,
                from: self.heard,
                at: self.recorder.now(),
                step,
            });
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            let outcome = match pending.ends_at <= self.gone {
                true => Outcome::Unknown,
                // The server cannot have the whole of it.
                false => Outcome::NotSent,
            };
            self.record(pending, outcome, None, 0);
        }
    }
}

struct Shaking {
    reader: ReadHalf,
    writer: WriteHalf,
    codec: FrameCodec,
    input: BytesMut,
}

enum Shaken {
    NotSent,
    Ended,
    Nonsense(String),
}

impl Shaking {
    async fn exchange(&mut self, mut frame: BytesMut) -> Result<ConnectResponse, Shaken> {
        while !frame.is_empty() {
            match self.writer.write_buf(&mut frame).await {
                Ok(1..) => {}
                _ => return Err(Shaken::NotSent),
            }
        }
        loop {
            match self.codec.next_frame(&mut self.input) {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    return ConnectResponse::decode(&frame)
                        .map_err(|error| Shaken::Nonsense(format!("a handshake: {error}")));
                }
                Err(error) => return Err(Shaken::Nonsense(error.to_string())),
            }
            match self.reader.read_buf(&mut self.input).await {
                Ok(1..) => {}
                _ => return Err(Shaken::Ended),
            }
        }
    }
}
