//! A session between callers and a server that may say anything: what fuzzing drives.
//!
//! As the session's task does it, without the task: bytes and moments go in, and what callers are told
//! comes out. No part of the interface.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{OpCode, Zxid};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;

use crate::error::{Error, Target};
use crate::session::core::{Attached, Broken, Core, Terms};
use crate::session::lease::LeaseInstant;
use crate::session::line::{Answer, Call, Closing, Limits, Line, Over, Work};
use crate::watch::registry::{Interest, Kind, Sink, WatcherId};
use crate::watch::{End, Event};

type Reply = oneshot::Receiver<Result<Answer, Error>>;
type Told = oneshot::Receiver<Result<Event, End>>;

/// A session, its callers and its clocks.
#[derive(Debug)]
pub struct Bench {
    core: Core,
    line: Arc<Line>,
    start: (Instant, LeaseInstant),
    elapsed: Duration,
    is_up: bool,
    is_over: bool,
    input: BytesMut,
    out: BytesMut,
    replies: Vec<Reply>,
    watchers: Vec<(WatcherId, Told)>,
    proofs: Vec<oneshot::Receiver<Result<(), Error>>>,
    seen: Zxid,
}

/// What a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A read, made again on another connection.
    Read,
    /// A write, which is not.
    Write,
    /// A read that leaves a watch.
    Watch,
    /// A watch on what may not be there.
    WatchExists,
    /// A request that proves whether the leader can be reached.
    Sync,
}

impl Bench {
    /// A client that has said nothing yet, with room for a few requests only.
    #[must_use]
    pub fn new() -> Self {
        let line = Arc::new(Line::new(Limits {
            requests: 4,
            bytes: 1 << 11,
        }));
        let terms = Terms {
            timeout: Duration::from_secs(3),
            allow_read_only: true,
            frame_bytes_max: 1 << 10,
        };
        Self {
            core: Core::new(terms, Arc::clone(&line), None, Zxid::ZERO, Vec::new()),
            line,
            start: (Instant::now(), LeaseInstant::now()),
            elapsed: Duration::ZERO,
            is_up: false,
            is_over: false,
            input: BytesMut::new(),
            out: BytesMut::new(),
            replies: Vec::new(),
            watchers: Vec::new(),
            proofs: Vec::new(),
            seen: Zxid::ZERO,
        }
    }

    fn now(&self) -> Instant {
        self.start.0 + self.elapsed
    }

    fn lease_now(&self) -> LeaseInstant {
        self.start.1.after(self.elapsed)
    }

    /// What is said first on a connection.
    #[must_use]
    pub fn connect_request(&self) -> ConnectRequest {
        self.core.connect_request()
    }

    /// A server answers it, unless one has.
    ///
    /// # Panics
    ///
    /// What is promised does not hold.
    pub fn connected(&mut self, response: &ConnectResponse) {
        if self.is_up || self.is_over {
            return;
        }
        let before = self.core.session().map(|session| session.id);
        let asked = self.lease_now();
        match self.core.attached(self.now(), asked, response) {
            Attached::Expired => {
                assert!(before.is_some(), "no session expires that never was");
                self.core.over(Over::Expired, true);
            }
            Attached::Refused(_) => {
                assert_eq!(self.core.session().map(|session| session.id), before);
            }
            Attached::New | Attached::Resumed | Attached::ReadOnly => {
                self.is_up = true;
                self.input.clear();
                if self.core.greet(asked, &mut self.out).is_err() {
                    self.lose();
                }
            }
        }
        self.send();
    }

    /// A caller asks for something.
    pub fn ask(&mut self, wish: Wish, path: &str, body: &[u8]) {
        let (reply, answer) = oneshot::channel();
        let number = self.watchers.len() as u64;
        let (target, op) = match wish {
            Wish::Read => (Target::read("get", path), OpCode::GetData),
            Wish::Write => (Target::write("set", path), OpCode::SetData),
            Wish::Watch => (Target::read("children", path), OpCode::GetChildren2),
            Wish::WatchExists => (Target::read("exists", path), OpCode::Exists),
            Wish::Sync => (Target::read("sync", path), OpCode::Sync),
        };
        let kind = match wish {
            Wish::Watch => Some(Kind::Children),
            Wish::WatchExists => Some(Kind::Data),
            Wish::Read | Wish::Write | Wish::Sync => None,
        };
        let interest = kind.map(|kind| {
            let watcher = WatcherId {
                kind,
                path: path.into(),
                number,
            };
            let (sink, told) = oneshot::channel();
            self.watchers.push((watcher.clone(), told));
            Interest {
                watcher,
                sink: Sink::Once(sink),
                is_cancelled: false,
            }
        });
        let patience = Some(Duration::from_secs(2)).filter(|_| !body.len().is_multiple_of(5));
        self.line.join(Call {
            may_repeat: !target.is_write(),
            target,
            op,
            body: Bytes::copy_from_slice(body),
            patience,
            send_by: patience.map(|patience| self.now() + patience),
            was_sent: false,
            interest,
            reply: Some(reply),
        });
        self.replies.push(answer);
        self.send();
    }

    /// A caller proves who it is.
    pub fn authenticate(&mut self, proof: &[u8]) {
        let (reply, answer) = oneshot::channel();
        self.line.add(Work::Authenticate {
            scheme: "digest".to_owned(),
            proof: Bytes::copy_from_slice(proof),
            reply,
        });
        self.proofs.push(answer);
        self.send();
    }

    /// A caller does not wait any more.
    pub fn abandon(&mut self, nth: usize) {
        if !self.replies.is_empty() {
            self.replies.swap_remove(nth % self.replies.len());
        }
        self.send();
    }

    /// Somebody does not watch any more.
    pub fn unwatch(&mut self, nth: usize) {
        if !self.watchers.is_empty() {
            let (watcher, _) = self.watchers.swap_remove(nth % self.watchers.len());
            self.line.add(Work::Unwatch(watcher));
        }
        self.send();
    }

    /// Somebody asks for the end of the session.
    pub fn close(&mut self) {
        self.line.add(Work::Close(Closing::Session));
        self.send();
    }

    /// Bytes come from the server.
    ///
    /// # Panics
    ///
    /// What is promised does not hold.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.is_up {
            return;
        }
        self.input.extend_from_slice(bytes);
        let read = self.core.read(self.now(), &mut self.input);
        assert!(self.core.last_zxid() >= self.seen, "zxids never go back");
        self.seen = self.core.last_zxid();
        match read {
            Ok(()) => {}
            Err(Broken::Over(over)) => {
                let goes_on = over == Over::Expired;
                self.core.over(over, goes_on);
                self.is_up = false;
                self.is_over = !goes_on;
            }
            Err(_) => self.lose(),
        }
        self.send();
    }

    /// The number that the answer to the first request under way has to carry.
    #[must_use]
    pub fn due_xid(&self) -> Option<i32> {
        self.core.due_xid()
    }

    /// The connection breaks.
    pub fn lose(&mut self) {
        if self.is_up {
            self.is_up = false;
            self.core.lost(self.now());
        }
    }

    /// Time passes, with what has to be done in time.
    ///
    /// # Panics
    ///
    /// What is promised does not hold.
    pub fn wait(&mut self, span: Duration) {
        self.elapsed += span;
        let (now, sent) = (self.now(), self.lease_now());
        match self.core.tick(now, sent, &mut self.out) {
            Ok(()) => {
                if self.is_up {
                    assert!(
                        self.core.next_tick(now) > now,
                        "it is not done again and again"
                    );
                }
            }
            Err(Broken::Over(_)) => unreachable!("time ends no session"),
            Err(_) => self.lose(),
        }
        if let Some(deadline) = self.core.lease.deadline() {
            let timeout = self.core.timeout();
            assert!(
                deadline <= sent.after(timeout),
                "no lease outlives its session"
            );
        }
        self.send();
    }

    fn send(&mut self) {
        if !self.is_over {
            self.core.accept(&mut self.out);
            let now = self.lease_now();
            self.core.write(now, &mut self.out);
            if self.core.closing.is_some() && self.core.is_idle() {
                self.core.write_close(&mut self.out);
            }
        }
        // Whatever is sent is a frame, and so is all of it.
        let mut rest = &self.out[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length =
                usize::try_from(i32::from_be_bytes(*length)).expect("lengths are positive");
            rest = after.get(length..).expect("frames are whole");
        }
        assert!(rest.is_empty());
        self.out.clear();
    }

    /// The client ends. Everybody who waits is told.
    ///
    /// # Panics
    ///
    /// Somebody is not, or the line still holds room for those who are gone.
    pub fn finish(mut self) {
        self.core.over(Over::Closed, false);
        self.send();
        // Neither forgotten nor dropped without an answer.
        for mut reply in self.replies {
            reply.try_recv().expect("callers are told").ok();
        }
        // Who proves who it is while the connection breaks does so on the next one; and what was never
        // watched is not told of.
        for mut proof in self.proofs {
            assert_ne!(proof.try_recv().err(), Some(TryRecvError::Empty));
        }
        for (_, mut told) in self.watchers {
            assert_ne!(told.try_recv().err(), Some(TryRecvError::Empty));
        }
        assert!(self.line.is_empty(), "all room is given back");
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}
