//! A session, as the client sees it: requests under way, watches, what to say and when.
//!
//! No I/O and no clock: bytes and moments come in, bytes and deadlines come out. The task in
//! `task.rs` moves them. One request is answered for each that is sent, in the order of sending;
//! anything else ends the connection.

mod replies;
mod requests;
mod unwatch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_protocol::frame::{FrameCodec, FrameError};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{OpCode, Password, Request, SessionId, Xid, Zxid, jute};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::requests::{put_request, write_auth, write_ping, write_request};
use super::lease::{Lease, LeaseInstant};
use super::line::{Call, Closing, Line, Over, Released, Work};
use crate::error::{Error, Target};
use crate::watch::End;
use crate::watch::registry::{Registry, WatcherId};

/// Bytes put into one write. More is sent when these are gone.
const WRITE_BYTES: usize = 64 << 10;
/// Requests under way on one connection. A server has bounds of its own, and stops reading there.
const IN_FLIGHT_MAX: usize = 4096;
/// Timeouts for which a server may leave all pings without an answer, however much else it sends.
const UNANSWERED_TIMEOUTS: u32 = 3;

/// What a session is started with.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) timeout: Duration,
    pub(crate) allow_read_only: bool,
    /// What servers take in one frame.
    pub(crate) frame_bytes_max: usize,
}

/// A session that a server has granted.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) id: SessionId,
    pub(crate) password: Password,
    pub(crate) timeout: Duration,
}

/// Why a connection has to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("nothing was heard from the server for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the server breaks the protocol: {0}")]
    Protocol(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Not the connection only.
    #[error("the session is over")]
    Over(Over),
}

/// What became of an attempt to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    New,
    Resumed,
    ReadOnly,
    /// The server knows no such session.
    Expired,
    /// The server does something else than it was asked for: nothing has changed.
    Refused(&'static str),
}

/// While there is a connection.
#[derive(Debug)]
struct Up {
    /// As granted on this connection, also by a read-only server.
    timeout: Duration,
    last_heard: Instant,
    /// Those that are not answered yet.
    pings: VecDeque<Ping>,
    auths: VecDeque<Option<oneshot::Sender<Result<(), Error>>>>,
    set_watches: usize,
    last_ping: Instant,
    /// Whether this server's answers to pings prove that the leader knows of them.
    proves_pings: bool,
    next_xid: i32,
    /// Requests sent on this connection.
    requests: u64,
}

/// A ping that was sent.
#[derive(Clone, Copy, Debug)]
struct Ping {
    sent: LeaseInstant,
    /// How many requests were sent before it.
    behind: u64,
}

/// A request that was sent.
#[derive(Debug)]
struct Flight {
    xid: Xid,
    /// Counts those sent on this connection, from 1.
    number: u64,
    call: Call,
    sent: LeaseInstant,
    /// Whether its answer proves that the leader could be reached.
    proves: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    terms: Terms,
    line: Arc<Line>,
    codec: FrameCodec,
    inbox: VecDeque<Work>,
    waiting: VecDeque<Call>,
    in_flight: VecDeque<Flight>,
    session: Option<Granted>,
    last_zxid: Zxid,
    pub(crate) registry: Registry,
    identities: Vec<(String, Bytes)>,
    up: Option<Up>,
    pub(crate) lease: Lease,
    /// What the answer to closeSession will carry, once that was sent on this connection.
    close_xid: Option<Xid>,
    /// Somebody has asked to end the session, or the task.
    pub(crate) closing: Option<Closing>,
    /// Nobody needs these any more, and the server watches for them as long as another watch of the
    /// same path is under way.
    stale: Vec<WatcherId>,
}

impl Core {
    pub(crate) fn new(
        terms: Terms,
        line: Arc<Line>,
        resume: Option<Granted>,
        last_zxid: Zxid,
        identities: Vec<(String, Bytes)>,
    ) -> Self {
        Self {
            codec: FrameCodec::new(terms.frame_bytes_max.saturating_mul(8).max(1 << 20)),
            terms,
            line,
            inbox: VecDeque::new(),
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            session: resume,
            last_zxid,
            registry: Registry::default(),
            identities,
            up: None,
            lease: Lease::default(),
            close_xid: None,
            closing: None,
            stale: Vec::new(),
        }
    }

    pub(crate) fn session(&self) -> Option<&Granted> {
        self.session.as_ref()
    }

    pub(crate) fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// The granted timeout, or the one asked for.
    pub(crate) fn timeout(&self) -> Duration {
        let granted = self.session.as_ref().map(|session| session.timeout);
        granted.unwrap_or(self.terms.timeout)
    }

    /// What to say first on a connection.
    pub(crate) fn connect_request(&self) -> ConnectRequest {
        let session = self.session.as_ref();
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: i32::try_from(self.terms.timeout.as_millis()).unwrap_or(i32::MAX),
            session_id: session.map(|session| session.id),
            password: session.map(|s| Bytes::copy_from_slice(s.password.as_bytes())),
            read_only: Some(self.terms.allow_read_only),
        }
    }

    /// The server's answer: connected, unless the session is gone.
    pub(crate) fn attached(
        &mut self,
        now: Instant,
        asked: LeaseInstant,
        response: &ConnectResponse,
    ) -> Attached {
        let timeout = u64::try_from(response.timeout_ms).unwrap_or(0);
        let read_only = response.read_only == Some(true);
        let asked_for = self.session.as_ref().map(|session| session.id);
        let Some(id) = response.session_id.filter(|_| timeout > 0) else {
            return match asked_for {
                None => Attached::Refused("the server grants no session"),
                // Only a majority ends sessions.
                Some(_) if read_only => {
                    Attached::Refused("the server is read-only and does not know the session")
                }
                Some(_) => Attached::Expired,
            };
        };
        if !read_only && asked_for.is_some_and(|asked_for| asked_for != id) {
            return Attached::Refused("the server grants another session than the one asked for");
        }
        let timeout = Duration::from_millis(timeout);
        let resumed = asked_for == Some(id);
        // What a read-only server grants is nothing that another server would know.
        if !read_only {
            self.session = Some(Granted {
                id,
                password: response.password,
                timeout,
            });
            self.lease.attached(timeout, asked);
        }
        self.close_xid = None;
        self.up = Some(Up {
            timeout,
            last_heard: now,
            pings: VecDeque::new(),
            auths: VecDeque::new(),
            set_watches: 0,
            last_ping: now,
            proves_pings: false,
            next_xid: 1,
            requests: 0,
        });
        match (read_only, resumed) {
            (true, _) => Attached::ReadOnly,
            (false, true) => Attached::Resumed,
            (false, false) => Attached::New,
        }
    }

    /// What comes before all else on a new connection: who we are, and what we watch.
    pub(crate) fn greet(&mut self, now: LeaseInstant, out: &mut BytesMut) -> Result<(), Error> {
        let target = Target::write("connect", "");
        let Some(up) = &mut self.up else {
            return Ok(());
        };
        for (scheme, proof) in &self.identities {
            up.auths.push_back(None);
            write_auth(out, scheme, proof).map_err(|error| bad_request(&target, &error))?;
        }
        // Before anything that the server tells us on this connection.
        self.registry.note_gap(self.last_zxid);
        let bytes_max = self.terms.frame_bytes_max / 2;
        for request in self.registry.requests(self.last_zxid, bytes_max) {
            // The older request is known to older servers as well.
            let is_new =
                !(request.persistent.is_empty() && request.persistent_recursive.is_empty());
            let request = if is_new {
                Request::SetWatches2(request)
            } else {
                Request::SetWatches(quorate_protocol::request::SetWatches {
                    relative_zxid: request.relative_zxid,
                    data: request.data,
                    exist: request.exist,
                    child: request.child,
                })
            };
            up.set_watches += 1;
            write_request(out, Xid::SET_WATCHES, &request)
                .map_err(|error| bad_request(&target, &error))?;
        }
        // Whether answers to pings prove anything is known from the first on.
        up.pings.push_back(Ping {
            sent: now,
            behind: 0,
        });
        write_ping(out).map_err(|error| bad_request(&target, &error))
    }

    /// Takes in what the line has.
    pub(crate) fn accept(&mut self, out: &mut BytesMut) {
        let mut inbox = std::mem::take(&mut self.inbox);
        self.line.take(&mut inbox);
        for work in inbox.drain(..) {
            match work {
                Work::Call(call) => self.waiting.push_back(call),
                Work::Unwatch(watcher) => self.unwatch(&watcher),
                Work::Authenticate {
                    scheme,
                    proof,
                    reply,
                } => {
                    match &mut self.up {
                        Some(up) => {
                            up.auths.push_back(Some(reply));
                            // Its length was checked when it was made.
                            write_auth(out, &scheme, &proof).ok();
                        }
                        // Said first of all on the next connection.
                        None => drop(reply.send(Ok(()))),
                    }
                    self.remember(scheme, proof);
                }
                Work::Close(closing) => self.closing = self.closing.max(Some(closing)),
            }
        }
        self.inbox = inbox;
    }

    /// Keeps who we are for later connections. Said twice it is the same.
    fn remember(&mut self, scheme: String, proof: Bytes) {
        let identity = (scheme, proof);
        if !self.identities.contains(&identity) {
            self.identities.push(identity);
        }
    }

    /// Puts requests into `out`, as many as make one write.
    pub(crate) fn write(&mut self, sent: LeaseInstant, out: &mut BytesMut) {
        let Some(up) = &mut self.up else { return };
        // Nothing is answered behind the end of the session.
        if self.waiting.is_empty() || out.len() >= WRITE_BYTES || self.close_xid.is_some() {
            return;
        }
        let mut released = Released::default();
        let mut unwanted = Vec::new();
        while out.len() < WRITE_BYTES && self.in_flight.len() < IN_FLIGHT_MAX {
            let Some(call) = self.waiting.pop_front() else {
                break;
            };
            if call.is_abandoned() {
                released.add(&call);
                unwanted.extend(call.interest.map(|interest| interest.watcher.path));
                continue;
            }
            let xid = Xid(up.next_xid);
            // Negative numbers mean other things.
            up.next_xid = up.next_xid.checked_add(1).unwrap_or(1);
            put_request(out, xid, call.op, &call.body);
            let proves = call.op == OpCode::Sync;
            up.requests += 1;
            self.in_flight.push_back(Flight {
                xid,
                number: up.requests,
                call,
                sent,
                proves,
            });
        }
        self.lease.sent(sent);
        self.line.release(released);
        for path in unwanted {
            self.unwatch_stale(&path);
        }
    }

    /// What the next answer has to carry.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn due_xid(&self) -> Option<i32> {
        self.in_flight.front().map(|flight| flight.xid.0)
    }

    /// Whether there is nothing to wait for any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Reads what has come.
    pub(crate) fn read(&mut self, now: Instant, input: &mut BytesMut) -> Result<(), Broken> {
        let Some(up) = &mut self.up else {
            return Ok(());
        };
        up.last_heard = now;
        let mut released = Released::default();
        let read = loop {
            match self.codec.next_frame(input) {
                Ok(None) => break Ok(()),
                Ok(Some(frame)) => match self.frame(frame.freeze(), &mut released) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error.into()),
            }
        };
        self.line.release(released);
        read
    }

    /// Says when [`Core::tick`] has to be called at the latest.
    pub(crate) fn next_tick(&self, now: Instant) -> Instant {
        match &self.up {
            Some(up) => {
                let ping = up.last_ping + self.ping_interval(up);
                let silent = up.last_heard + silence_max(up);
                ping.min(silent)
            }
            None => {
                let late = self.waiting.iter().filter_map(|call| call.send_by).min();
                let parked = self.line.next_late();
                late.into_iter()
                    .chain(parked)
                    .min()
                    .unwrap_or(now + Duration::from_secs(3600))
            }
        }
    }

    /// A third of the timeout, as ZooKeeper's clients: one may get lost. A sixth, where a lease hangs
    /// on it.
    fn ping_interval(&self, up: &Up) -> Duration {
        up.timeout / self.pings_per_timeout()
    }

    fn pings_per_timeout(&self) -> u32 {
        if self.line.is_lease_kept() { 6 } else { 3 }
    }

    /// Does what time asks for.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        sent: LeaseInstant,
        out: &mut BytesMut,
    ) -> Result<(), Broken> {
        let Some(up) = &self.up else {
            self.fail_late(now);
            return Ok(());
        };
        let (interval, silence_max) = (self.ping_interval(up), silence_max(up));
        let pings_max = (self.pings_per_timeout() * UNANSWERED_TIMEOUTS) as usize;
        let Some(up) = &mut self.up else {
            return Ok(());
        };
        if now >= up.last_heard + silence_max {
            return Err(Broken::Silent(silence_max));
        }
        if now >= up.last_ping + interval {
            // Bytes alone are no life: a frame may never end.
            if up.pings.len() >= pings_max {
                return Err(Broken::Protocol("no ping is answered".to_owned()));
            }
            up.last_ping = now;
            let behind = up.requests;
            up.pings.push_back(Ping { sent, behind });
            // It has no field that could be too long.
            write_ping(out).ok();
            self.lease.sent(sent);
            if self.line.is_lease_kept() && !self.up.as_ref().is_some_and(|up| up.proves_pings) {
                self.heartbeat();
            }
        }
        Ok(())
    }

    /// A `sync`, to prove what a ping does not.
    fn heartbeat(&mut self) {
        let request = Request::Sync(quorate_protocol::request::PathOnly {
            path: "/".to_owned(),
        });
        let mut body = BytesMut::new();
        if request.encode(&mut body).is_err() {
            return;
        }
        let target = Target::read("heartbeat", "/");
        let call = Call::in_background(target, OpCode::Sync, body.freeze());
        self.line.count(&call);
        // Before what waits: it must not be late because there is much to do.
        self.waiting.push_front(call);
    }

    /// Fails what was to be sent by now.
    pub(crate) fn fail_late(&mut self, now: Instant) {
        let mut released = Released::default();
        if self.waiting.iter().any(|call| call.is_late(now)) {
            let (late, rest): (VecDeque<Call>, VecDeque<Call>) =
                self.waiting.drain(..).partition(|call| call.is_late(now));
            self.waiting = rest;
            for call in late {
                released.add(&call);
                call.answer_late();
            }
        }
        let mut late = Vec::new();
        self.line.take_late(now, &mut late);
        for call in late {
            call.answer_late();
        }
        self.line.release(released);
    }

    /// The connection is gone. What may be asked again will be; of the rest the outcome is unknown.
    pub(crate) fn lost(&mut self, now: Instant) {
        if self.up.take().is_none() {
            return;
        }
        self.stale.clear();
        let mut again = VecDeque::new();
        let mut released = Released::default();
        for flight in self.in_flight.drain(..) {
            let mut call = flight.call;
            if let Some(patience) = call.patience
                && call.may_repeat
                && !call.is_abandoned()
            {
                // Its time counts from the first loss on: it may be the request itself that servers
                // do not survive, or do not answer.
                if !call.was_sent {
                    call.send_by = Some(now + patience);
                }
                call.was_sent = true;
                again.push_back(call);
                continue;
            }
            released.add(&call);
            let target = call.target.clone();
            call.answer(Err(Error::Disconnected { target, sent: true }));
        }
        for mut call in self.waiting.drain(..) {
            call.wait_from(now);
            again.push_back(call);
        }
        self.waiting = again;
        self.line.wait_from(now);
        self.line.release(released);
        self.fail_late(now);
    }

    /// The session is over: everything under way fails. With `goes_on` there will be another one.
    pub(crate) fn over(&mut self, over: Over, goes_on: bool) {
        self.up = None;
        self.stale.clear();
        let mut released = Released::default();
        for flight in self.in_flight.drain(..) {
            released.add(&flight.call);
            flight.call.answer_over(over);
        }
        let mut rest: Vec<Call> = self.waiting.drain(..).collect();
        for call in &rest {
            released.add(call);
        }
        self.line.release(released);
        let work = if goes_on {
            self.line.clear()
        } else {
            self.line.end(over)
        };
        for work in work {
            match work {
                Work::Call(call) => rest.push(call),
                Work::Unwatch(watcher) => {
                    self.registry.remove(&watcher);
                }
                Work::Authenticate {
                    scheme,
                    proof,
                    reply,
                } => {
                    self.remember(scheme, proof);
                    let target = Target::write("authenticate", "");
                    let answer = if goes_on {
                        Ok(())
                    } else {
                        Err(over.error(target, false))
                    };
                    reply.send(answer).ok();
                }
                Work::Close(closing) => self.closing = self.closing.max(Some(closing)),
            }
        }
        for call in rest {
            let (target, sent) = (call.target.clone(), call.was_sent);
            call.answer(Err(over.error(target, sent)));
        }
        let end = match over {
            Over::Expired => End::Expired,
            Over::AuthFailed => End::AuthFailed,
            Over::Closed => End::Closed,
        };
        self.registry.end(end, goes_on);
        self.lease.end();
        self.session = None;
    }

    /// Ends the session, after all that was asked before.
    pub(crate) fn write_close(&mut self, out: &mut BytesMut) {
        if let Some(up) = &mut self.up {
            let xid = Xid(up.next_xid);
            put_request(out, xid, OpCode::CloseSession, &[]);
            self.close_xid = Some(xid);
        }
    }
}

impl Call {
    /// One that nobody waits for, and that means nothing on another connection.
    fn in_background(target: Target, op: OpCode, body: Bytes) -> Self {
        Self {
            target,
            op,
            body,
            patience: None,
            send_by: None,
            was_sent: false,
            may_repeat: false,
            interest: None,
            reply: None,
        }
    }

    /// The connection was lost now. Of a call that was sent already the time goes on.
    pub(crate) fn wait_from(&mut self, now: Instant) {
        if !self.was_sent {
            self.send_by = self.patience.map(|patience| now + patience);
        }
    }

    fn answer_over(self, over: Over) {
        let target = self.target.clone();
        self.answer(Err(over.error(target, true)));
    }

    fn answer_late(self) {
        let target = self.target.clone();
        let error = match self.patience {
            Some(waited) if !self.was_sent => Error::TimedOut { target, waited },
            _ => Error::Disconnected {
                target,
                sent: self.was_sent,
            },
        };
        self.answer(Err(error));
    }
}

/// Two thirds of the timeout, as ZooKeeper's clients: what is left is for another server.
fn silence_max(up: &Up) -> Duration {
    up.timeout * 2 / 3
}

fn bad_request(target: &Target, error: &jute::Error) -> Error {
    Error::BadAnswer {
        target: target.clone(),
        what: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
