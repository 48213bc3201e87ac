//! The core alone: bytes and moments in, bytes and answers out.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_protocol::handshake::ConnectResponse;
use quorate_protocol::{ErrorCode, OpCode, Password, ReplyHeader, SessionId, Xid, Zxid, jute};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Attached, Broken, Core, Terms};
use crate::error::{Error, Outcome, Reason, Target};
use crate::session::lease::LeaseInstant;
use crate::session::line::{Answer, Call, Closing, Limits, Line, Over, Work};
use crate::watch::registry::{Interest, Kind, Sink, WatcherId};

const TIMEOUT: Duration = Duration::from_secs(3);

struct Bench {
    core: Core,
    line: Arc<Line>,
    now: Instant,
    out: BytesMut,
}

type Reply = oneshot::Receiver<Result<Answer, Error>>;

impl Bench {
    fn new() -> Self {
        let line = Arc::new(Line::new(Limits::default()));
        let terms = Terms {
            timeout: TIMEOUT,
            allow_read_only: false,
            frame_bytes_max: 1 << 20,
        };
        let core = Core::new(terms, Arc::clone(&line), None, Zxid::ZERO, Vec::new());
        Self {
            core,
            line,
            now: Instant::now(),
            out: BytesMut::new(),
        }
    }

    fn connected() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.connect(7), Attached::New);
        bench
    }

    fn connect(&mut self, session: i64) -> Attached {
        let attached = self.attach(session, 3000, false);
        self.out.clear();
        self.core
            .greet(LeaseInstant::now(), &mut self.out)
            .expect("it can be encoded");
        self.out.clear();
        attached
    }

    fn attach(&mut self, session: i64, timeout_ms: i32, read_only: bool) -> Attached {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms,
            session_id: SessionId::new(session),
            password: Password::default(),
            read_only: Some(read_only),
        };
        self.core.attached(self.now, LeaseInstant::now(), &response)
    }

    fn call(&mut self, target: Target, op: OpCode, interest: Option<Interest>) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.line.join(Call {
            may_repeat: !target.is_write(),
            target,
            op,
            body: Bytes::from_static(b"body"),
            patience: Some(TIMEOUT),
            send_by: Some(self.now + TIMEOUT),
            was_sent: false,
            interest,
            reply: Some(reply),
        });
        answer
    }

    fn write(&mut self) -> Reply {
        self.call(Target::write("set", "/a"), OpCode::SetData, None)
    }

    fn read(&mut self) -> Reply {
        self.call(Target::read("get", "/a"), OpCode::GetData, None)
    }

    /// Sends what waits; returns the xids.
    fn send(&mut self) -> Vec<i32> {
        self.send_ops().into_iter().map(|(xid, _)| xid).collect()
    }

    /// Sends what waits; returns the xids and operation codes.
    fn send_ops(&mut self) -> Vec<(i32, i32)> {
        self.core.accept(&mut self.out);
        self.core.write(LeaseInstant::now(), &mut self.out);
        let mut sent = Vec::new();
        let mut rest = &self.out[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).expect("a length");
            let (xid, op) = after.split_first_chunk::<4>().expect("a header");
            let op = op.first_chunk::<4>().expect("a header");
            sent.push((i32::from_be_bytes(*xid), i32::from_be_bytes(*op)));
            rest = &after[length..];
        }
        self.out.clear();
        sent
    }

    /// A read that leaves a watch of this number on `/a`.
    fn watched(&mut self, number: u64) -> (Reply, WatcherId) {
        let watcher = WatcherId {
            kind: Kind::Data,
            path: "/a".into(),
            number,
        };
        let interest = Interest {
            watcher: watcher.clone(),
            sink: Sink::Once(oneshot::channel().0),
            is_cancelled: false,
        };
        let target = Target::read("get", "/a");
        (self.call(target, OpCode::GetData, Some(interest)), watcher)
    }

    fn reply(&mut self, xid: i32, err: i32, body: &[u8]) -> Result<(), Broken> {
        let mut input = BytesMut::new();
        input.put_i32(i32::try_from(16 + body.len()).expect("short"));
        let header = ReplyHeader {
            xid: Xid(xid),
            zxid: Zxid(100),
            err,
        };
        jute::encode(&header, &mut input).expect("a header");
        input.put_slice(body);
        self.core.read(self.now, &mut input)
    }
}

fn failed(mut reply: Reply) -> Error {
    let answer = reply.try_recv().expect("it is answered");
    answer.expect_err("it fails")
}

#[test]
fn answers_reach_their_callers_in_the_order_of_sending() {
    let mut bench = Bench::connected();
    let mut replies = [bench.write(), bench.read(), bench.write()];
    assert_eq!(bench.send(), [1, 2, 3]);
    for (index, xid) in [(0, 1), (1, 2)] {
        bench.reply(xid, 0, b"ok").expect("it is due");
        let answer = replies[index].try_recv().expect("it is answered");
        assert_eq!(&answer.expect("it succeeds").body[..], b"ok");
    }
    assert!(replies[2].try_recv().is_err());
    assert_eq!(bench.core.last_zxid(), Zxid(100));
}

#[test]
fn an_answer_that_is_not_due_ends_the_connection_and_answers_nobody() {
    let mut bench = Bench::connected();
    let (mut first, second) = (bench.write(), bench.write());
    bench.send();
    assert!(matches!(bench.reply(2, 0, b""), Err(Broken::Protocol(_))));
    assert!(first.try_recv().is_err());
    bench.core.lost(bench.now);
    for reply in [first, second] {
        assert_eq!(failed(reply).outcome(), Outcome::Unknown);
    }
    assert!(
        matches!(bench.reply(1, 0, b""), Ok(())),
        "nothing is read while there is none"
    );
}

#[test]
fn a_lost_connection_fails_writes_that_were_sent_and_repeats_reads_before_what_waited() {
    let mut bench = Bench::connected();
    let (sent_write, mut sent_read) = (bench.write(), bench.read());
    bench.send();
    let mut waiting_write = bench.write();
    bench.core.accept(&mut BytesMut::new());
    bench.core.lost(bench.now);
    let error = failed(sent_write);
    assert!(
        matches!(error, Error::Disconnected { sent: true, .. }),
        "{error}"
    );
    assert!(sent_read.try_recv().is_err() && waiting_write.try_recv().is_err());
    assert_eq!(bench.connect(7), Attached::Resumed);
    assert_eq!(bench.send(), [1, 2]);
    bench.reply(1, 0, b"read").expect("it is due");
    let answer = sent_read
        .try_recv()
        .expect("it is answered")
        .expect("it succeeds");
    assert_eq!(&answer.body[..], b"read");
    bench.reply(2, 0, b"").expect("it is due");
    assert!(waiting_write.try_recv().expect("it is answered").is_ok());
}

#[test]
fn what_was_sent_once_is_never_said_to_be_unsent() {
    let mut bench = Bench::connected();
    let mut reply = bench.call(Target::write("set", "/a"), OpCode::SetData, None);
    // As `idempotent` makes it.
    bench.core.accept(&mut BytesMut::new());
    bench.core.waiting[0].may_repeat = true;
    bench.send();
    bench.core.lost(bench.now);
    assert!(reply.try_recv().is_err(), "it is sent again");
    bench.core.fail_late(bench.now + TIMEOUT);
    assert_eq!(failed(reply).outcome(), Outcome::Unknown);
}

#[test]
fn what_waits_for_a_connection_fails_when_its_time_is_up() {
    let mut bench = Bench::new();
    let reply = bench.write();
    bench.core.accept(&mut BytesMut::new());
    assert_eq!(bench.core.next_tick(bench.now), bench.now + TIMEOUT);
    bench.core.fail_late(bench.now + TIMEOUT);
    let error = failed(reply);
    assert!(
        matches!(error, Error::TimedOut { waited, .. } if waited == TIMEOUT),
        "{error}"
    );
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[test]
fn a_call_whose_caller_has_gone_is_not_sent() {
    let mut bench = Bench::connected();
    drop(bench.write());
    let _kept = bench.write();
    assert_eq!(bench.send(), [1]);
    bench.reply(1, 0, b"").expect("it is due");
    assert!(bench.core.is_idle());
}

#[test]
fn a_silent_server_is_asked_and_then_given_up() {
    let mut bench = Bench::connected();
    bench.now += TIMEOUT / 3;
    bench
        .core
        .tick(bench.now, LeaseInstant::now(), &mut bench.out)
        .expect("it is early");
    assert!(!bench.out.is_empty(), "a ping");
    bench.now += TIMEOUT / 3;
    let silent = bench
        .core
        .tick(bench.now, LeaseInstant::now(), &mut bench.out);
    assert!(matches!(silent, Err(Broken::Silent(_))), "{silent:?}");
}

#[test]
fn a_request_that_is_passed_over_ends_the_connection() {
    let mut bench = Bench::connected();
    bench.reply(Xid::PING.0, 0, b"").expect("the first ping");
    let _reply = bench.write();
    bench.send();
    bench.now += TIMEOUT / 3;
    bench
        .core
        .tick(bench.now, LeaseInstant::now(), &mut bench.out)
        .expect("it is early");
    let _later = bench.write();
    bench.send();
    let pong = bench.reply(Xid::PING.0, 0, b"");
    assert!(matches!(pong, Err(Broken::Protocol(_))), "{pong:?}");
}

#[test]
fn a_ping_may_be_answered_before_what_was_sent_after_it() {
    let mut bench = Bench::connected();
    let _reply = bench.write();
    bench.send();
    bench
        .reply(Xid::PING.0, 0, b"")
        .expect("it was sent before");
}

#[test]
fn an_answer_to_a_ping_moves_the_lease_only_where_it_proves_something() {
    for (body, moves) in [(&b""[..], false), (&1_i32.to_be_bytes()[..], true)] {
        let mut bench = Bench::connected();
        let first = bench.core.lease.deadline();
        bench.reply(Xid::PING.0, 0, body).expect("the first ping");
        assert_eq!(bench.core.lease.deadline() > first, moves);
        assert!(matches!(
            bench.reply(Xid::PING.0, 0, body),
            Err(Broken::Protocol(_))
        ));
    }
}

#[test]
fn while_somebody_keeps_the_lease_heartbeats_are_due_twice_as_often() {
    let bench = Bench::connected();
    let plain = bench.core.next_tick(bench.now) - bench.now;
    bench.line.keep_lease();
    let kept = bench.core.next_tick(bench.now) - bench.now;
    assert_eq!((plain, kept), (TIMEOUT / 3, TIMEOUT / 6));
    bench.line.let_lease_go();
    assert_eq!(bench.core.next_tick(bench.now) - bench.now, plain);
}

#[test]
fn an_exists_without_a_znode_watches_for_its_creation() {
    let mut bench = Bench::connected();
    let (sender, _event) = oneshot::channel();
    let interest = Interest {
        watcher: WatcherId {
            kind: Kind::Data,
            path: "/a".into(),
            number: 1,
        },
        sink: Sink::Once(sender),
        is_cancelled: false,
    };
    let reply = bench.call(Target::read("exists", "/a"), OpCode::Exists, Some(interest));
    bench.send();
    bench
        .reply(1, ErrorCode::NoNode.code(), b"")
        .expect("it is due");
    assert!(failed(reply).is(Reason::NoNode));
    let again = bench.core.registry.requests(Zxid(0), usize::MAX);
    assert_eq!(again[0].exist, ["/a"]);
}

#[test]
fn an_expired_session_fails_everything_and_the_line_with_it() {
    let mut bench = Bench::connected();
    let (sent, waits) = (bench.write(), bench.write());
    bench.core.accept(&mut BytesMut::new());
    bench.core.write(LeaseInstant::now(), &mut bench.out);
    let expired = bench.reply(1, ErrorCode::SessionExpired.code(), b"");
    assert!(matches!(expired, Err(Broken::Over(Over::Expired))));
    bench.core.over(Over::Expired, false);
    for reply in [sent, waits] {
        assert!(failed(reply).needs_new_session());
    }
    assert!(failed(bench.write()).needs_new_session());
    assert_eq!(bench.core.lease.deadline(), None);
}

#[test]
fn a_server_that_does_something_else_than_asked_for_is_refused() {
    let mut bench = Bench::new();
    assert!(matches!(bench.attach(0, 0, false), Attached::Refused(_)));
    assert!(matches!(bench.attach(0, 3000, false), Attached::Refused(_)));
    assert!(matches!(bench.attach(7, -1, false), Attached::Refused(_)));
    assert_eq!(bench.connect(7), Attached::New);
    bench.core.lost(bench.now);
    assert!(matches!(bench.attach(8, 3000, false), Attached::Refused(_)));
    assert!(matches!(bench.attach(0, 0, true), Attached::Refused(_)));
    assert_eq!(bench.attach(9, 3000, true), Attached::ReadOnly);
    bench.core.lost(bench.now);
    assert_eq!(bench.connect(7), Attached::Resumed);
    bench.core.lost(bench.now);
    assert_eq!(bench.attach(0, 0, false), Attached::Expired);
}

#[test]
fn a_request_that_no_connection_survives_is_not_repeated_for_ever() {
    let mut bench = Bench::connected();
    let reply = bench.read();
    let mut sent = 0;
    for _ in 0..100 {
        sent += bench.send().len();
        bench.core.lost(bench.now);
        bench.now += TIMEOUT / 4;
        bench.core.fail_late(bench.now);
        bench.connect(7);
    }
    assert_eq!(sent, 4, "once, and then for one timeout");
    assert_eq!(failed(reply).outcome(), Outcome::NotApplied);
}

#[test]
fn a_refusal_of_what_was_sent_twice_does_not_say_that_it_was_not_applied() {
    let mut bench = Bench::connected();
    let reply = bench.write();
    bench.core.accept(&mut BytesMut::new());
    bench.core.waiting[0].may_repeat = true;
    bench.send();
    bench.core.lost(bench.now);
    bench.connect(7);
    assert_eq!(bench.send(), [1]);
    let exists = ErrorCode::NodeExists.code();
    bench.reply(1, exists, b"").expect("it is due");
    let error = failed(reply);
    assert!(error.is(Reason::NodeExists), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[test]
fn nothing_is_sent_behind_the_end_of_the_session() {
    let mut bench = Bench::connected();
    let before = bench.write();
    bench.line.add(Work::Close(Closing::Session));
    let after = bench.write();
    assert_eq!(failed(after).outcome(), Outcome::NotApplied);
    assert_eq!(bench.send(), [1], "what was asked before is done");
    bench.reply(1, 0, b"").expect("it is due");
    drop(before);
    let (_reply, watcher) = bench.watched(1);
    bench.core.write_close(&mut bench.out);
    bench.out.clear();
    bench.line.add(Work::Unwatch(watcher));
    assert_eq!(bench.send_ops(), []);
    let closed = bench.reply(2, 0, b"");
    assert!(
        matches!(closed, Err(Broken::Over(Over::Closed))),
        "{closed:?}"
    );
}

#[test]
fn a_watch_whose_caller_goes_before_the_answer_is_taken_away_after_it() {
    let remove = OpCode::RemoveWatches.code();
    for says_so_first in [false, true] {
        let mut bench = Bench::connected();
        let (reply, watcher) = bench.watched(1);
        bench.send();
        if says_so_first {
            // The word may come before the answer's receiver is gone.
            bench.line.add(Work::Unwatch(watcher.clone()));
            bench.core.accept(&mut BytesMut::new());
        } else {
            drop(reply);
        }
        bench.reply(1, 0, b"").expect("it is due");
        assert_eq!(bench.send_ops(), [(2, remove)]);
        assert!(!bench.core.registry.watches("/a"));
        bench.line.add(Work::Unwatch(watcher));
        assert_eq!(bench.send_ops(), [], "once");
    }
}

#[test]
fn a_watch_that_another_one_under_way_has_kept_goes_when_that_fails() {
    let mut bench = Bench::connected();
    let (_first, watcher) = bench.watched(1);
    bench.send();
    bench.reply(1, 0, b"").expect("it is due");
    let (_second, _) = bench.watched(2);
    bench.send();
    bench.line.add(Work::Unwatch(watcher));
    assert_eq!(bench.send_ops(), [], "it would take the second away");
    bench
        .reply(2, ErrorCode::NoNode.code(), b"")
        .expect("it is due");
    assert_eq!(bench.send_ops(), [(3, OpCode::RemoveWatches.code())]);
}

#[test]
fn a_server_that_never_ends_a_frame_is_given_up() {
    let mut bench = Bench::connected();
    // The header of a frame, and then a byte now and then.
    let mut drip = BytesMut::from(&1000_i32.to_be_bytes()[..]);
    let broken = (0..100).find_map(|_| {
        bench.now += TIMEOUT / 3;
        drip.put_u8(0);
        bench.core.read(bench.now, &mut drip).expect("no frame yet");
        bench
            .core
            .tick(bench.now, LeaseInstant::now(), &mut bench.out)
            .err()
    });
    assert!(matches!(broken, Some(Broken::Protocol(_))), "{broken:?}");
}

#[test]
fn what_waits_for_room_has_all_its_time_when_the_connection_is_lost() {
    let mut bench = Bench::new();
    bench.line = Arc::new(Line::new(Limits {
        requests: 1,
        bytes: 1000,
    }));
    bench.core.line = Arc::clone(&bench.line);
    bench.connect(7);
    let first = bench.write();
    let mut parked = bench.write();
    bench.send();
    bench.now += TIMEOUT * 2;
    bench.core.lost(bench.now);
    assert_eq!(failed(first).outcome(), Outcome::Unknown);
    bench.core.fail_late(bench.now + TIMEOUT / 2);
    assert!(parked.try_recv().is_err(), "it has time yet");
    bench.core.accept(&mut BytesMut::new());
    bench.core.fail_late(bench.now + TIMEOUT);
    assert_eq!(failed(parked).outcome(), Outcome::NotApplied);
}
