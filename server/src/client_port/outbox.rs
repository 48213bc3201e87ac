//! What a connection is owed and what it is yet to be sent, in order.
//!
//! Everything a client sees goes through here. Answers leave in the order of the requests: one that
//! cannot be given yet (a write before its commit) holds back those behind it, reads included, and
//! whoever gives it gives those as well, in the same critical section. Events are not owed but
//! happen: they go out at once, so they come before any answer that shows their change.
//!
//! It is bounded: a client that does not read is disconnected at `bytes_max`. Reading requests and
//! giving answers that can wait pause well before that ([`Outbox::is_congested`]), so that a client
//! which merely asks for more than it reads is slowed and not cut off. The rest is for what cannot
//! wait: events, the answers to writes, and to reads that have a write under way behind them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};
use quorate_protocol::event::WatcherEvent;
use quorate_protocol::frame::write_frame;
use quorate_protocol::handshake::ConnectResponse;
use quorate_protocol::{
    ErrorCode, EventType, Id, OpCode, ReplyHeader, Response, SessionId, Xid, Zxid, jute,
};
use tokio::sync::Notify;

use super::Disconnect;
use crate::replica::Ask;

/// A buffer that a large answer made bigger than this is not kept for the next ones.
const BUFFER_KEPT_BYTES: usize = 256 * 1024;

/// Reading pauses while this share of the bound is waiting to be sent.
const CONGESTED_SHARE: usize = 4;

/// One connection's side of the server that others may touch.
#[derive(Debug)]
pub struct Outbox {
    /// Unique for ever: see [`quorate_state::Connection`].
    number: u64,
    peer: SocketAddr,
    established_ms: i64,
    inner: Mutex<Inner>,
    ready: Notify,
}

/// The part under the lock. Held for a few microseconds and never across a wait.
#[derive(Debug)]
pub struct Inner {
    frames: BytesMut,
    owed: VecDeque<Owed>,
    /// How many of them wait for a round.
    rounds_owed: usize,
    /// How many of them wait for the connection's own task: see [`Ask::is_heavy`].
    heavy_owed: usize,
    /// How many bytes the requests had that they keep.
    owed_bytes: usize,
    /// The last round's ticket.
    ticket: u64,
    identities: Arc<[Id]>,
    session: Option<OpenSession>,
    /// The session is this server's own, for reading without a majority.
    is_read_only: bool,
    /// Someone has been told that there is something to send.
    signalled: bool,
    end: Option<End>,
    stats: ConnectionStats,
    bytes_max: usize,
}

/// The session a connection serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSession {
    pub id: SessionId,
    pub timeout_ms: i32,
}

/// An answer that is due.
#[derive(Debug)]
pub enum Owed {
    /// The handshake's, when its session command is applied. `read_only` is the request's byte,
    /// which the answer mirrors.
    Handshake { read_only: Option<bool> },
    /// A write's, when it is applied.
    Write { xid: Xid, op: OpCode, since_us: u64 },
    /// One that this server gives by itself once a round with this ticket is confirmed.
    Round { ticket: u64, local: Local },
    /// One that this server gives by itself, as soon as its turn comes.
    Local(Local),
}

impl Owed {
    /// How many bytes it keeps, and whether it is heavy, as a number.
    fn weight(&self) -> (usize, usize) {
        match self {
            Self::Handshake { .. } | Self::Write { .. } => (0, 0),
            Self::Round { local, .. } => (local.bytes, 0),
            Self::Local(local) => (local.bytes, usize::from(local.ask.is_heavy())),
        }
    }
}

/// A request that is answered here, without the log.
#[derive(Debug)]
pub struct Local {
    pub xid: Xid,
    /// `None` for an operation that is not known.
    pub op: Option<OpCode>,
    pub since_us: u64,
    /// How long the request was: about what it takes to keep it.
    pub bytes: usize,
    /// What the connection had proved when the request came in.
    pub identities: Arc<[Id]>,
    pub ask: Ask,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Once everything queued so far has been sent.
    AfterFlush(Disconnect),
    AtOnce(Disconnect),
}

/// What the `cons` command tells of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    pub received: u64,
    pub sent: u64,
    pub last_op: Option<OpCode>,
    pub last_xid: i32,
    pub last_zxid: i64,
    pub last_response_us: u64,
    pub last_latency_us: u64,
    pub min_latency_us: u64,
    pub max_latency_us: u64,
    pub sum_latency_us: u64,
    pub answered: u64,
}

impl Outbox {
    pub fn new(number: u64, peer: SocketAddr, bytes_max: usize, established_ms: i64) -> Self {
        let identities = vec![Id::ip(peer.ip())].into();
        Self {
            number,
            peer,
            established_ms,
            ready: Notify::new(),
            inner: Mutex::new(Inner {
                frames: BytesMut::new(),
                owed: VecDeque::new(),
                rounds_owed: 0,
                heavy_owed: 0,
                owed_bytes: 0,
                ticket: 0,
                identities,
                session: None,
                is_read_only: false,
                signalled: false,
                end: None,
                stats: ConnectionStats::default(),
                bytes_max,
            }),
        }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub fn established_ms(&self) -> i64 {
        self.established_ms
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Waits until there is something to send or the connection is to end. Cancel safe.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Tells the connection's task that there is something for it, if it does not know yet.
    pub fn signal(&self, inner: &mut Inner) {
        if !inner.signalled {
            inner.signalled = true;
            self.ready.notify_one();
        }
    }

    /// Ends the connection without sending anything more.
    pub fn cut(&self, reason: Disconnect) {
        let mut inner = self.lock();
        inner.end_with(End::AtOnce(reason));
        self.signal(&mut inner);
    }

    /// Moves what is to be sent into `out`, which must be empty, and returns whether and how the
    /// connection is to end.
    pub fn take(&self, out: &mut BytesMut) -> Option<End> {
        debug_assert!(out.is_empty(), "frames already taken go out first");
        if out.capacity() > BUFFER_KEPT_BYTES {
            *out = BytesMut::new();
        }
        let mut inner = self.lock();
        inner.signalled = false;
        std::mem::swap(&mut inner.frames, out);
        inner.end
    }

    /// Whether so much waits to be sent that no more requests should be read for now.
    pub fn is_congested(&self) -> bool {
        self.lock().is_congested()
    }

    /// Why the connection is to end without sending what is left, if it is.
    pub fn cut_for(&self) -> Option<Disconnect> {
        match self.lock().end {
            Some(End::AtOnce(reason)) => Some(reason),
            _ => None,
        }
    }
}

impl Inner {
    pub fn identities(&self) -> &Arc<[Id]> {
        &self.identities
    }

    pub fn set_identities(&mut self, identities: Arc<[Id]>) {
        self.identities = identities;
    }

    pub fn session(&self) -> Option<OpenSession> {
        self.session
    }

    pub fn set_session(&mut self, session: OpenSession) {
        self.session = Some(session);
    }

    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    pub fn set_read_only(&mut self) {
        self.is_read_only = true;
    }

    pub fn stats(&self) -> &ConnectionStats {
        &self.stats
    }

    pub fn reset_stats(&mut self) {
        self.stats = ConnectionStats::default();
    }

    /// Whether so much waits to be sent that answers which can wait should.
    pub fn is_congested(&self) -> bool {
        self.frames.len() > self.bytes_max / CONGESTED_SHARE
    }

    /// Whether the answer whose turn it is waits for nothing but room.
    fn has_parked(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Local(_)))
    }

    /// Whether no write may be proposed for now: an answer that is due before it would show it.
    pub fn holds_writes(&self) -> bool {
        self.rounds_owed > 0 || self.heavy_owed > 0 || self.has_parked()
    }

    /// Adds an answer that waits for a round, and returns the ticket for it.
    pub fn owe_round(&mut self, local: Local) -> u64 {
        self.ticket += 1;
        self.rounds_owed += 1;
        let ticket = self.ticket;
        self.owe(Owed::Round { ticket, local });
        ticket
    }

    /// The answer with this ticket is to be another.
    pub fn replace_round(&mut self, replaced: u64, ask: Ask) {
        let found = self.owed.iter_mut().find_map(|owed| match owed {
            Owed::Round { ticket, local } if *ticket == replaced => Some(local),
            _ => None,
        });
        if let Some(local) = found {
            local.ask = ask;
        }
    }

    /// Whether a write is owed an answer before the one with this ticket.
    pub fn has_writes_before(&self, before: u64) -> bool {
        self.owed
            .iter()
            .take_while(|owed| !matches!(owed, Owed::Round { ticket, .. } if *ticket == before))
            .any(|owed| matches!(owed, Owed::Write { .. }))
    }

    /// The answer with this ticket waits for nothing but its turn.
    pub fn confirm(&mut self, confirmed: u64) {
        let is =
            |owed: &&mut Owed| matches!(owed, Owed::Round { ticket, .. } if *ticket == confirmed);
        let Some(found) = self.owed.iter_mut().find(is) else {
            return;
        };
        let placeholder = Owed::Handshake { read_only: None };
        if let Owed::Round { local, .. } = std::mem::replace(found, placeholder) {
            self.heavy_owed += usize::from(local.ask.is_heavy());
            *found = Owed::Local(local);
            self.rounds_owed -= 1;
        }
    }

    /// Whether a parked answer can be given now.
    pub fn has_ready_answer(&self) -> bool {
        self.has_parked() && !self.is_congested()
    }

    /// Takes the answer whose turn it is, as [`Inner::pop_local`], unless it is heavy, or can wait for
    /// room: not if a write is under way behind it.
    pub fn pop_local_or_park(&mut self) -> Option<Local> {
        if matches!(self.owed.front(), Some(Owed::Local(local)) if local.ask.is_heavy()) {
            return None;
        }
        if self.is_congested()
            && !self
                .owed
                .iter()
                .any(|owed| matches!(owed, Owed::Write { .. }))
        {
            return None;
        }
        self.pop_local()
    }

    /// Answers that are due and not given.
    pub fn owed_count(&self) -> usize {
        self.owed.len()
    }

    /// How many bytes the requests had to which these answers are due.
    pub fn owed_bytes(&self) -> usize {
        self.owed_bytes
    }

    /// Adds an answer that cannot be given yet.
    pub fn owe(&mut self, owed: Owed) {
        let (bytes, heavy) = owed.weight();
        self.owed_bytes += bytes;
        self.heavy_owed += heavy;
        self.owed.push_back(owed);
    }

    /// Takes the answer whose turn it is.
    pub fn pop_owed(&mut self) -> Option<Owed> {
        let owed = self.owed.pop_front()?;
        let (bytes, heavy) = owed.weight();
        self.owed_bytes -= bytes;
        self.heavy_owed -= heavy;
        Some(owed)
    }

    /// Takes the answer whose turn it is if this server gives it by itself.
    pub fn pop_local(&mut self) -> Option<Local> {
        if !self.has_parked() {
            return None;
        }
        match self.pop_owed() {
            Some(Owed::Local(local)) => Some(local),
            _ => None,
        }
    }

    pub fn count_received(&mut self, op: Option<OpCode>, xid: Xid) {
        self.stats.received += 1;
        self.stats.last_op = op;
        self.stats.last_xid = xid.0;
    }

    /// Ends the connection. The first reason stays: what comes later follows from it.
    pub fn end_with(&mut self, end: End) {
        match (&self.end, end) {
            (None, end) => self.end = Some(end),
            (Some(End::AfterFlush(_)), End::AtOnce(reason)) => {
                self.end = Some(End::AtOnce(reason));
            }
            _ => {}
        }
    }

    pub fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    pub fn push_connect_response(&mut self, response: &ConnectResponse) -> usize {
        self.push(|out| response.encode(out))
    }

    /// Queues an answer and returns its length in bytes. A ping's xid is always -2.
    pub fn push_reply(
        &mut self,
        xid: Xid,
        zxid: Zxid,
        result: Result<&Response<'_>, ErrorCode>,
    ) -> usize {
        self.stats.last_zxid = self.stats.last_zxid.max(zxid.0);
        self.push(|out| {
            let err = result.err().map_or(0, ErrorCode::code);
            jute::encode(&ReplyHeader { xid, zxid, err }, out)?;
            match result {
                Ok(response) => response.encode(out),
                Err(_) => Ok(()),
            }
        })
    }

    pub fn push_event(&mut self, zxid: Zxid, kind: EventType, path: &str) -> usize {
        self.push(|out| {
            let header = ReplyHeader {
                xid: Xid::NOTIFICATION,
                zxid,
                err: 0,
            };
            jute::encode(&header, out)?;
            jute::encode(&WatcherEvent::new(kind, path), out)
        })
    }

    pub fn count_answered(&mut self, since_us: u64, now_us: u64) -> u64 {
        let latency = now_us.saturating_sub(since_us);
        let stats = &mut self.stats;
        stats.last_response_us = now_us;
        stats.last_latency_us = latency;
        stats.max_latency_us = stats.max_latency_us.max(latency);
        stats.min_latency_us = match stats.answered {
            0 => latency,
            _ => stats.min_latency_us.min(latency),
        };
        stats.sum_latency_us += latency;
        stats.answered += 1;
        latency
    }

    fn push(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<(), jute::Error>) -> usize {
        if self.end.is_some() {
            return 0;
        }
        let before = self.frames.len();
        if write_frame(&mut self.frames, write).is_err() {
            // Only an answer of more than 2 GiB does not encode.
            self.end_with(End::AtOnce(Disconnect::ResponseTooLarge));
            return 0;
        }
        self.stats.sent += 1;
        // The frame that crosses the bound is still allowed in: it may be the first and only one.
        if before > self.bytes_max {
            self.end_with(End::AtOnce(Disconnect::SlowReader));
        }
        self.frames.len() - before
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use quorate_protocol::{ErrorCode, EventType, OpCode, Response, Xid, Zxid};
    use quorate_state::Query;

    use super::{End, Local, Outbox, Owed};
    use crate::client_port::Disconnect;
    use crate::replica::Ask;

    const BYTES_MAX: usize = 1000;

    fn outbox() -> Outbox {
        Outbox::new(1, ([127, 0, 0, 1], 4000).into(), BYTES_MAX, 0)
    }

    fn local(outbox: &Outbox, xid: i32) -> Owed {
        Owed::Local(Local {
            xid: Xid(xid),
            op: Some(OpCode::Ping),
            since_us: 0,
            bytes: 100,
            identities: outbox.lock().identities().clone(),
            ask: Ask::Known(Response::Empty),
        })
    }

    #[test]
    fn what_follows_a_write_waits_for_it() {
        let outbox = outbox();
        let mut inner = outbox.inner.lock();
        inner.owe(Owed::Write {
            xid: Xid(1),
            op: OpCode::Create,
            since_us: 0,
        });
        drop(inner);
        let behind = local(&outbox, 2);
        let mut inner = outbox.lock();
        inner.owe(behind);
        assert!(inner.pop_local().is_none(), "the write comes first");
        assert!(matches!(
            inner.pop_owed(),
            Some(Owed::Write { xid: Xid(1), .. })
        ));
        assert_eq!(inner.pop_local().map(|local| local.xid), Some(Xid(2)));
        assert!(inner.pop_local().is_none());
    }

    #[test]
    fn an_answer_that_is_found_out_later_takes_its_turn_behind_the_writes_before_it() {
        let outbox = outbox();
        let write = |xid| Owed::Write {
            xid: Xid(xid),
            op: OpCode::Create,
            since_us: 0,
        };
        let Owed::Local(asked) = local(&outbox, 2) else {
            unreachable!("it is one");
        };
        let mut inner = outbox.lock();
        inner.owe(write(1));
        let ticket = inner.owe_round(asked);
        inner.owe(write(3));
        assert!(inner.has_writes_before(ticket));
        inner.pop_owed();
        assert!(
            !inner.has_writes_before(ticket),
            "the one behind it does not count"
        );
        inner.replace_round(ticket, Ask::Configuration);
        assert!(inner.pop_local().is_none(), "it is not confirmed");
        inner.confirm(ticket);
        let given = inner.pop_local().expect("it is confirmed");
        assert!(matches!(given.ask, Ask::Configuration));
        assert_eq!(given.xid, Xid(2));
    }

    #[test]
    fn a_heavy_answer_waits_for_the_connections_task_and_holds_the_writes_behind_it() {
        let outbox = outbox();
        let Owed::Local(mut heavy) = local(&outbox, 2) else {
            unreachable!("it is one");
        };
        heavy.ask = Ask::Read {
            query: Query::GetEphemerals { prefix: None },
            watch: false,
        };
        let behind = local(&outbox, 3);
        let mut inner = outbox.lock();
        inner.owe(Owed::Write {
            xid: Xid(1),
            op: OpCode::Create,
            since_us: 0,
        });
        assert!(!inner.holds_writes());
        inner.owe(Owed::Local(heavy));
        inner.owe(behind);
        assert_eq!(inner.owed_bytes(), 200);
        assert!(inner.holds_writes(), "what it shows is not changed");
        inner.pop_owed();
        assert!(inner.pop_local_or_park().is_none(), "not while applying");
        assert!(inner.has_ready_answer());
        assert_eq!(inner.pop_local().map(|local| local.xid), Some(Xid(2)));
        assert_eq!(
            inner.pop_local_or_park().map(|local| local.xid),
            Some(Xid(3))
        );
        assert!(!inner.holds_writes());
        assert_eq!(inner.owed_bytes(), 0);
    }

    #[test]
    fn a_client_that_does_not_read_is_cut_off_at_the_bound() {
        let outbox = outbox();
        let mut inner = outbox.lock();
        let event = "/p".repeat(200);
        inner.push_event(Zxid(1), EventType::NodeCreated, &event);
        inner.push_event(Zxid(1), EventType::NodeCreated, &event);
        inner.push_event(Zxid(1), EventType::NodeCreated, &event);
        assert!(
            !inner.is_ending(),
            "the frame that crosses the bound is still sent"
        );
        inner.push_event(Zxid(1), EventType::NodeCreated, &event);
        assert!(inner.is_ending());
        let sent = inner.frames.len();
        inner.push_event(Zxid(1), EventType::NodeCreated, &event);
        assert_eq!(inner.frames.len(), sent, "nothing is added after the end");
        drop(inner);
        let end = outbox.take(&mut BytesMut::new());
        assert_eq!(end, Some(End::AtOnce(Disconnect::SlowReader)));
    }

    #[test]
    fn one_answer_larger_than_the_bound_is_sent() {
        let outbox = outbox();
        let mut inner = outbox.lock();
        let data = vec![7; 2 * BYTES_MAX];
        let response = Response::Data {
            data: Some(data.into()),
            stat: quorate_protocol::Stat::default(),
        };
        let bytes = inner.push_reply(Xid(1), Zxid(1), Ok(&response));
        assert!(bytes > 2 * BYTES_MAX);
        assert!(!inner.is_ending());
    }

    #[test]
    fn a_refusal_has_no_body() {
        let outbox = outbox();
        let bytes = outbox
            .lock()
            .push_reply(Xid(5), Zxid(9), Err(ErrorCode::NoNode));
        assert_eq!(bytes, 4 + 16);
        let mut sent = BytesMut::new();
        outbox.take(&mut sent);
        let expected = [
            0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0x9b,
        ];
        assert_eq!(&sent[..], expected);
    }

    #[test]
    fn an_orderly_end_does_not_undo_an_abrupt_one() {
        let outbox = outbox();
        let mut inner = outbox.lock();
        inner.end_with(End::AfterFlush(Disconnect::SessionClosed));
        inner.end_with(End::AtOnce(Disconnect::SlowReader));
        inner.end_with(End::AfterFlush(Disconnect::SessionRefused));
        assert_eq!(inner.end, Some(End::AtOnce(Disconnect::SlowReader)));
    }
}
