//! One client connection, from its first bytes to its close.
//!
//! A single task owns the socket: it cuts the bytes into frames, dispatches requests in their order
//! and sends what the [`Outbox`] holds, many frames in one system call. It never touches the tree.
//! Dropping a connection does not end its session; only expiry or a close request does.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_protocol::frame::FrameCodec;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::request::SetWatches2;
use quorate_protocol::{
    ErrorCode, Id, OpCode, Password, Request, RequestHeader, Response, SessionId, Xid, jute,
    request,
};
use quorate_state::{Action, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Disconnect;
use super::dispatch::{Route, route};
use super::greeting::{self, Greeting};
use super::listener::ClientPort;
use super::outbox::{End, Local, OpenSession, Outbox, Owed};
use crate::admin::four_letter::{self, Word};
use crate::consensus::membership::caller::Change;
use crate::consensus::membership::change::Asker;
use crate::consensus::membership::plan::Wish;
use crate::consensus::rounds::Waiter;
use crate::network::{ReadHalf, Stream, WriteHalf};
use crate::replica::Ask;
use crate::session_tracker::Pulse;

/// Room made for input before a read: little for a connection that says little, since there may be
/// tens of thousands of them, and four times as much whenever it was used up.
const READ_BYTES_MIN: usize = 1024;
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long and for how much a closed connection is still read from: closing a socket with unread
/// input sends a reset, which can destroy answers the client has not read yet.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// How long a server that stops waits for the answers to what it has read from a client: with them
/// the client knows what became of all it asked for, and loses nothing but the connection.
const DRAIN: Duration = Duration::from_secs(1);

/// The longest first frame. What it has to say fits 45 bytes; a password may be of any length, which
/// it does not have to be kept for. Strangers may hold this much of the memory each.
const HANDSHAKE_BYTES_MAX: usize = 4096;

/// What one connection may prove itself to be. Each of its writes carries all of it through the log,
/// and each check of a permission compares all of it.
const IDENTITIES_MAX: usize = 32;
const IDENTITIES_BYTES_MAX: usize = 8 * 1024;

/// So many paths of a list of watches are brought back in one turn: about a millisecond's work.
const WATCHES_PER_TURN: usize = 2_000;

/// The length of a request's header on the wire.
const HEADER_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet: a four-letter word or a connect request may.
    Greeting,
    /// The session command is in the log's hands; what follows waits in the input.
    Opening,
    Open(SessionId),
    /// The client has asked to close its session; what follows is not looked at.
    Closing,
}

/// One socket and all that is known of its client.
#[derive(Debug)]
pub struct Connection {
    port: Arc<ClientPort>,
    outbox: Arc<Outbox>,
    phase: Phase,
    codec: FrameCodec,
    input: BytesMut,
    /// Room made before the next read.
    read_bytes: usize,
    /// How long the request is that is looked at.
    request_bytes: usize,
    output: BytesMut,
    /// What the client has proved; later requests carry it.
    identities: Arc<[Id]>,
    /// Requests this server answers by itself, gathered to be answered together.
    locals: Vec<Local>,
    /// How many commands this connection has proposed.
    sequence: u64,
    /// A command that waits for room in the log's queue, with its number.
    held: Option<(u64, Bytes)>,
    pulse: Option<Arc<Pulse>>,
    /// The session is this server's own: see [`Connection::open_read_only`].
    is_read_only: bool,
    end: Option<End>,
}

impl Connection {
    pub fn new(port: Arc<ClientPort>, outbox: Arc<Outbox>) -> Self {
        let identities = Arc::clone(outbox.lock().identities());
        Self {
            codec: FrameCodec::new(HANDSHAKE_BYTES_MAX.min(port.limits.frame_bytes_max)),
            port,
            outbox,
            phase: Phase::Greeting,
            input: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            request_bytes: 0,
            output: BytesMut::new(),
            identities,
            locals: Vec::new(),
            sequence: 0,
            held: None,
            pulse: None,
            is_read_only: false,
            end: None,
        }
    }

    /// Serves the client until either side ends the connection.
    pub async fn run(mut self, socket: Stream, stop: &CancellationToken) -> Disconnect {
        let (mut reader, mut writer) = socket.into_split();
        let reason = self.serve(&mut reader, &mut writer, stop).await;
        self.port.replica.unregister(self.outbox.number());
        self.linger(reader, writer).await;
        reason
    }

    async fn serve(
        &mut self,
        reader: &mut ReadHalf,
        writer: &mut WriteHalf,
        stop: &CancellationToken,
    ) -> Disconnect {
        let handshake_timeout = self.port.limits.handshake_timeout;
        let handshake = tokio::time::sleep_until(Instant::now() + handshake_timeout);
        tokio::pin!(handshake);
        let mut drain_until = None;
        loop {
            if drain_until.is_some() {
                self.answer_locals();
            } else if let Err(reason) = self.process_input().await {
                self.outbox.lock().end_with(End::AfterFlush(reason));
            }
            if let Some(reason) = self.send_ready(writer) {
                return reason;
            }
            if drain_until.is_some() && self.is_drained() {
                return Disconnect::Shutdown;
            }
            // All was sent, so there is room for answers that were parked.
            if self.output.is_empty() && self.outbox.lock().has_ready_answer() {
                // They may take long, and others have waited for this thread meanwhile.
                tokio::task::yield_now().await;
                continue;
            }
            let port = Arc::clone(&self.port);
            let room = port.admission.room();
            tokio::pin!(room);
            if self.held.is_some() {
                room.as_mut().enable();
                if self.propose_held() {
                    continue;
                }
            }
            let may_read = drain_until.is_none() && self.may_read();
            if may_read {
                self.input.reserve(self.read_bytes);
            }
            tokio::select! {
                biased;
                sent = writer.write_buf(&mut self.output), if !self.output.is_empty() => {
                    match sent {
                        Ok(bytes) => self.count_sent(bytes),
                        Err(_) => return Disconnect::Socket,
                    }
                }
                () = self.outbox.ready() => {}
                read = reader.read_buf(&mut self.input), if may_read => match read {
                    Ok(0) => return Disconnect::ByClient,
                    Ok(bytes) => self.on_input(bytes),
                    Err(_) => return Disconnect::Socket,
                },
                () = &mut room, if self.held.is_some() => {}
                () = &mut handshake, if !matches!(self.phase, Phase::Open(_) | Phase::Closing) => {
                    self.port.metrics.sessionless_expired.fetch_add(1, Relaxed);
                    return Disconnect::HandshakeTimeout;
                }
                () = stop.cancelled(), if drain_until.is_none() => {
                    drain_until = Some(Instant::now() + DRAIN);
                }
                () = sleep_until(drain_until), if drain_until.is_some() => {
                    return Disconnect::Shutdown;
                }
            }
        }
    }

    /// Whether the client has been sent all that it can be sent.
    fn is_drained(&self) -> bool {
        self.output.is_empty() && self.outbox.lock().owed_count() == 0
    }

    /// Sends what can be sent without waiting, and says whether the connection is over.
    fn send_ready(&mut self, writer: &WriteHalf) -> Option<Disconnect> {
        // Asked for apart: a socket that takes nothing keeps the output from becoming empty.
        if let Some(reason) = self.outbox.cut_for() {
            return Some(reason);
        }
        loop {
            if self.output.is_empty() {
                if let Some(end) = self.outbox.take(&mut self.output) {
                    self.end = Some(end);
                }
                match &self.end {
                    Some(End::AtOnce(reason)) => return Some(*reason),
                    Some(End::AfterFlush(reason)) if self.output.is_empty() => {
                        return Some(*reason);
                    }
                    _ => {}
                }
                if self.output.is_empty() {
                    return None;
                }
            }
            match writer.try_write(&self.output) {
                Ok(bytes) => {
                    self.count_sent(bytes);
                    bytes::Buf::advance(&mut self.output, bytes);
                }
                // The select below waits until the socket takes more, or reports the error.
                Err(_) => return None,
            }
        }
    }

    fn count_sent(&self, bytes: usize) {
        self.port
            .metrics
            .bytes_sent
            .fetch_add(bytes as u64, Relaxed);
    }

    fn on_input(&mut self, bytes: usize) {
        if self.input.len() == self.input.capacity() {
            self.read_bytes = (self.read_bytes * 4).min(READ_BYTES_MAX);
        }
        self.port
            .metrics
            .bytes_received
            .fetch_add(bytes as u64, Relaxed);
        if let Some(pulse) = &self.pulse {
            pulse.touch(self.port.clock.monotonic_ms());
        }
    }

    /// Whether there is room for what more requests would bring with them.
    fn may_read(&self) -> bool {
        if self.end.is_some() || self.held.is_some() || self.phase == Phase::Opening {
            return false;
        }
        let limits = &self.port.limits;
        let inner = self.outbox.lock();
        inner.owed_count() < limits.requests_per_connection_max
            && inner.owed_bytes() < limits.request_bytes_per_connection_max
            && !inner.is_congested()
    }

    /// Takes whole frames off the input, for as long as there is room for what they bring.
    async fn process_input(&mut self) -> Result<(), Disconnect> {
        let result = self.process_frames().await;
        self.answer_locals();
        result
    }

    async fn process_frames(&mut self) -> Result<(), Disconnect> {
        loop {
            match self.phase {
                Phase::Greeting => {
                    let greeting = greeting::next(&self.codec, &mut self.input);
                    match greeting.map_err(|_| Disconnect::BadFrame)? {
                        None => return Ok(()),
                        Some(Greeting::Word(word, number)) => {
                            return self.answer_word(word, number);
                        }
                        Some(Greeting::Frame(frame)) => {
                            self.codec = FrameCodec::new(self.port.limits.frame_bytes_max);
                            self.open_session(&frame).await?;
                        }
                    }
                }
                Phase::Opening => {
                    let Some(session) = self.port.replica.session_of(&self.outbox) else {
                        return Ok(());
                    };
                    self.pulse = self.port.sessions.pulse(session);
                    self.phase = Phase::Open(session);
                }
                Phase::Open(session) => return self.process_requests(session),
                Phase::Closing => {
                    self.input.clear();
                    return Ok(());
                }
            }
        }
    }

    fn process_requests(&mut self, session: SessionId) -> Result<(), Disconnect> {
        let (room, bytes_room) = {
            let limits = &self.port.limits;
            let inner = self.outbox.lock();
            (
                limits
                    .requests_per_connection_max
                    .saturating_sub(inner.owed_count()),
                limits
                    .request_bytes_per_connection_max
                    .saturating_sub(inner.owed_bytes()),
            )
        };
        let mut received = 0;
        let mut received_bytes = 0;
        let mut result = Ok(());
        while received < room
            && received_bytes < bytes_room
            && self.held.is_none()
            && self.end.is_none()
            && self.phase == Phase::Open(session)
        {
            let frame = match self.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(reason) => {
                    result = Err(reason);
                    break;
                }
            };
            received += 1;
            received_bytes += frame.len();
            result = self.on_request(session, &frame);
            if result.is_err() {
                break;
            }
        }
        if self.phase == Phase::Closing {
            self.input.clear();
        }
        self.port
            .metrics
            .packets_received
            .fetch_add(received as u64, Relaxed);
        result
    }

    fn next_frame(&mut self) -> Result<Option<BytesMut>, Disconnect> {
        self.codec
            .next_frame(&mut self.input)
            .map_err(|_| Disconnect::BadFrame)
    }

    /// Answers a command of the administrators', unless more of it is to come.
    fn answer_word(&mut self, word: Word, number: Option<i64>) -> Result<(), Disconnect> {
        let Some(answer) = four_letter::answer(&self.port, word, number) else {
            return Ok(());
        };
        self.output.extend_from_slice(answer.as_bytes());
        self.phase = Phase::Closing;
        Err(Disconnect::FourLetterWord)
    }

    /// Proposes to open or resume the session that the first frame asks for.
    async fn open_session(&mut self, frame: &[u8]) -> Result<(), Disconnect> {
        let connect = ConnectRequest::decode(frame).map_err(|_| Disconnect::Malformed)?;
        if let Some(why) = self.port.consensus.members().out_of_service() {
            return Err(Disconnect::OutOfService(why));
        }
        let may_serve = self.port.consensus.may_serve();
        if !may_serve && !self.may_read_only(&connect) {
            return Err(Disconnect::NoQuorum);
        }
        let patience = self.port.limits.behind_patience;
        if !self
            .port
            .replica
            .wait_applied(connect.last_zxid_seen, patience)
            .await
        {
            return Err(Disconnect::ServerBehind);
        }
        let timeout_ms = self.port.limits.grant_timeout(connect.timeout_ms);
        if !may_serve {
            self.open_read_only(timeout_ms);
            return Ok(());
        }
        let action = match connect.session_id {
            None => Action::OpenSession {
                timeout_ms,
                password: Password::new(self.port.random_bytes()),
            },
            Some(session) => Action::AttachSession {
                session,
                password: connect.password.unwrap_or_default().into(),
                timeout_ms,
            },
        };
        if !self.port.consensus.has_space() {
            return Err(Disconnect::NoSpace);
        }
        self.phase = Phase::Opening;
        self.port.metrics.connections_accepted.fetch_add(1, Relaxed);
        let owed = Owed::Handshake {
            read_only: connect.read_only,
        };
        self.propose(owed, action, frame.len())
    }

    /// Whether a client may look at what this server has, though it hears no majority. A session of
    /// the ensemble cannot be resumed here: nobody could tell whether it still lives.
    fn may_read_only(&self, connect: &ConnectRequest) -> bool {
        self.port.is_read_only() && connect.read_only == Some(true) && connect.session_id.is_none()
    }

    /// Opens a session that only this server knows, and only until a majority is heard again.
    fn open_read_only(&mut self, timeout_ms: i32) {
        // Those of the ensemble are positive.
        let session = i64::from_le_bytes(self.port.random_bytes()) | i64::MIN;
        let Some(session) = SessionId::new(session) else {
            return;
        };
        self.port.metrics.connections_accepted.fetch_add(1, Relaxed);
        self.is_read_only = true;
        self.phase = Phase::Open(session);
        let mut inner = self.outbox.lock();
        inner.set_read_only();
        inner.set_session(OpenSession {
            id: session,
            timeout_ms,
        });
        inner.push_connect_response(&ConnectResponse {
            protocol_version: 0,
            timeout_ms,
            session_id: Some(session),
            password: Password::new(self.port.random_bytes()),
            read_only: Some(true),
        });
    }

    fn on_request(&mut self, session: SessionId, frame: &[u8]) -> Result<(), Disconnect> {
        let header: RequestHeader = jute::decode(frame).map_err(|_| Disconnect::Malformed)?;
        let xid = header.xid;
        self.request_bytes = frame.len();
        let Some(op) = OpCode::from_code(header.op) else {
            self.push_local(xid, None, Ask::Refused(ErrorCode::Unimplemented));
            return Ok(());
        };
        let request = match Request::decode(op, &frame[HEADER_BYTES..]) {
            Ok(request) => request,
            // A client that cannot even say who it is gets no answer, as in ZooKeeper.
            Err(_) if matches!(op, OpCode::Auth | OpCode::Sasl) => {
                return Err(Disconnect::Malformed);
            }
            Err(_) => {
                self.push_local(xid, Some(op), Ask::Refused(ErrorCode::MarshallingError));
                return Ok(());
            }
        };
        match route(request) {
            route if self.is_read_only => self.on_read_only(xid, op, route),
            Route::Local(ask @ Ask::Read { .. }) if self.port.config.linearizable_reads => {
                self.ask_round(session, xid, op, ask, true);
            }
            Route::Local(Ask::SetWatches(request)) => self.set_watches(xid, op, *request),
            Route::Local(ask) => self.push_local(xid, Some(op), ask),
            Route::Log(write) => self.write(session, xid, op, write, frame.len())?,
            Route::CloseSession => {
                self.phase = Phase::Closing;
                self.propose_request(xid, op, Action::CloseSession { session }, 0)?;
            }
            Route::Barrier(response) => {
                self.ask_round(session, xid, op, Ask::Known(response), true);
            }
            Route::Touch(response) => {
                self.ask_round(session, xid, op, Ask::Known(response), false);
            }
            Route::Auth(auth) => {
                let ask = self.authenticate(&auth);
                self.push_local(xid, Some(op), ask);
            }
            Route::WhoAmI => {
                let identities = who_am_i(&self.identities);
                self.push_local(xid, Some(op), Ask::Known(Response::Identities(identities)));
            }
        }
        Ok(())
    }

    /// A long list takes many turns.
    fn set_watches(&mut self, xid: Xid, op: OpCode, request: SetWatches2) {
        let (parts, last) = split(request);
        // The last of them counts for all.
        let bytes = std::mem::take(&mut self.request_bytes);
        for part in parts {
            self.push_local(xid, Some(op), Ask::SetWatchesPart(Box::new(part)));
        }
        self.request_bytes = bytes;
        self.push_local(xid, Some(op), Ask::SetWatches(Box::new(last)));
    }

    /// Answers without a majority: what only needs this server's copy is given.
    fn on_read_only(&mut self, xid: Xid, op: OpCode, route: Route) {
        let ask = match route {
            Route::Local(ask) => ask,
            // There is no leader who could know.
            Route::Touch(_) => Ask::Known(Response::Empty),
            Route::Auth(auth) => self.authenticate(&auth),
            Route::WhoAmI => Ask::Known(Response::Identities(who_am_i(&self.identities))),
            Route::CloseSession => {
                self.phase = Phase::Closing;
                Ask::Closed
            }
            Route::Log(_) | Route::Barrier(_) => Ask::Refused(ErrorCode::NotReadOnly),
        };
        self.push_local(xid, Some(op), ask);
    }

    /// Puts off an answer until a majority has confirmed a round.
    fn ask_round(&mut self, session: SessionId, xid: Xid, op: OpCode, ask: Ask, sees_state: bool) {
        // Those before it are answered, or owed, before it.
        self.answer_locals();
        let local = self.local(xid, Some(op), ask);
        let ticket = {
            let mut inner = self.outbox.lock();
            inner.count_received(local.op, local.xid);
            inner.owe_round(local)
        };
        self.port.consensus.ask_round(Waiter {
            outbox: Arc::clone(&self.outbox),
            ticket,
            session,
            sees_state,
        });
    }

    fn write(
        &mut self,
        session: SessionId,
        xid: Xid,
        op: OpCode,
        write: Write,
        payload_bytes: usize,
    ) -> Result<(), Disconnect> {
        let write = match write {
            Write::Reconfig(request) if self.port.config.reconfig_enabled => {
                self.reconfigure(xid, op, request);
                return Ok(());
            }
            write => write,
        };
        if !self.port.consensus.has_space() {
            self.push_local(xid, Some(op), Ask::Refused(ErrorCode::SystemError));
            return Ok(());
        }
        let action = Action::Write {
            session,
            identities: Arc::clone(&self.identities),
            write,
        };
        self.propose_request(xid, op, action, payload_bytes)
    }

    /// Has the leader change the members. What comes after it on this connection waits for it.
    fn reconfigure(&mut self, xid: Xid, op: OpCode, request: request::Reconfig) {
        self.answer_locals();
        let local = self.local(xid, Some(op), Ask::Configuration);
        let (ticket, timeout_ms) = {
            let mut inner = self.outbox.lock();
            inner.count_received(local.op, local.xid);
            let timeout_ms = inner.session().map_or(0, |session| session.timeout_ms);
            (inner.owe_round(local), timeout_ms)
        };
        self.port.consensus.change_members(Change {
            outbox: Arc::clone(&self.outbox),
            ticket,
            wish: Wish::from(request),
            asker: Asker {
                identities: Arc::clone(&self.identities),
                skip_acl: self.port.config.skip_acl,
            },
            session_timeout: Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)),
        });
    }

    fn propose_request(
        &mut self,
        xid: Xid,
        op: OpCode,
        action: Action,
        payload_bytes: usize,
    ) -> Result<(), Disconnect> {
        let since_us = self.port.clock.monotonic_us();
        self.propose(Owed::Write { xid, op, since_us }, action, payload_bytes)
    }

    /// Puts a command on its ordered way to the log. The answer is noted as owed first: it may come
    /// before this returns.
    fn propose(
        &mut self,
        owed: Owed,
        action: Action,
        payload_bytes: usize,
    ) -> Result<(), Disconnect> {
        // Requests before this one are answered, or owed, before it.
        self.answer_locals();
        let command = self
            .port
            .consensus
            .command(self.outbox.number(), self.sequence, action);
        let proposal = command
            .encode(payload_bytes)
            .map_err(|_| Disconnect::Malformed)?;
        let sequence = self.sequence;
        self.sequence += 1;
        {
            let mut inner = self.outbox.lock();
            if let Owed::Write { xid, op, .. } = &owed {
                inner.count_received(Some(*op), *xid);
            }
            inner.owe(owed);
        }
        self.held = Some((sequence, proposal));
        self.propose_held();
        Ok(())
    }

    /// Proposes the command that waits for room, in the log's queue or for the answers before it.
    /// Returns whether there was any.
    fn propose_held(&mut self) -> bool {
        let Some((sequence, proposal)) = self.held.take() else {
            return true;
        };
        if self.outbox.lock().holds_writes() || !self.port.admission.try_take(proposal.len()) {
            self.held = Some((sequence, proposal));
            return false;
        }
        self.port
            .consensus
            .propose(self.outbox.number(), sequence, proposal);
        true
    }

    fn push_local(&mut self, xid: Xid, op: Option<OpCode>, ask: Ask) {
        let local = self.local(xid, op, ask);
        self.locals.push(local);
    }

    fn local(&self, xid: Xid, op: Option<OpCode>, ask: Ask) -> Local {
        Local {
            xid,
            op,
            since_us: self.port.clock.monotonic_us(),
            bytes: self.request_bytes,
            identities: Arc::clone(&self.identities),
            ask,
        }
    }

    fn answer_locals(&mut self) {
        self.port.replica.answer(&self.outbox, &mut self.locals);
    }

    /// Adds to what the client has proved, or refuses and ends the connection.
    fn authenticate(&mut self, auth: &request::Auth) -> Ask {
        let proved = match auth.scheme.as_deref() {
            Some("digest") => self
                .port
                .digest_identities(auth.auth.as_deref().unwrap_or_default()),
            // An address is known without proof; asking for it changes nothing.
            Some("ip") => Vec::new(),
            _ => {
                self.port.metrics.auth_failed.fetch_add(1, Relaxed);
                return Ask::RefusedFinally(ErrorCode::AuthFailed, Disconnect::AuthFailed);
            }
        };
        let mut identities = self.identities.to_vec();
        for id in proved {
            if !identities.contains(&id) {
                identities.push(id);
            }
        }
        let bytes: usize = identities
            .iter()
            .map(|id| id.scheme.len() + id.id.len())
            .sum();
        if identities.len() > IDENTITIES_MAX || bytes > IDENTITIES_BYTES_MAX {
            self.port.metrics.auth_failed.fetch_add(1, Relaxed);
            return Ask::RefusedFinally(ErrorCode::AuthFailed, Disconnect::TooManyIdentities);
        }
        self.identities = identities.into();
        // From here on events are judged by the new identities as well.
        self.outbox
            .lock()
            .set_identities(Arc::clone(&self.identities));
        Ask::Known(Response::Empty)
    }

    /// Ends the sending side and reads on for a moment, so that the client gets what was sent.
    async fn linger(&mut self, mut reader: ReadHalf, mut writer: WriteHalf) {
        if !matches!(self.end, Some(End::AfterFlush(_))) || writer.shutdown().await.is_err() {
            return;
        }
        let drain = async {
            let mut drained = 0;
            let mut scratch = BytesMut::with_capacity(READ_BYTES_MAX);
            while drained < LINGER_BYTES {
                scratch.clear();
                match reader.read_buf(&mut scratch).await {
                    Ok(bytes) if bytes > 0 => drained += bytes,
                    _ => return,
                }
            }
        };
        // Either the client has closed its side as well, or it had its chance.
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

async fn sleep_until(instant: Option<Instant>) {
    if let Some(instant) = instant {
        tokio::time::sleep_until(instant).await;
    }
}

/// Pairs of scheme and user, without what would let others impersonate.
fn who_am_i(identities: &[Id]) -> Vec<(String, String)> {
    identities
        .iter()
        .map(|id| {
            let user = match id.scheme.as_str() {
                "digest" => id.id.split(':').next().unwrap_or_default(),
                _ => &id.id,
            };
            (id.scheme.clone(), user.to_owned())
        })
        .collect()
}

/// Cuts lists of watches into parts of [`WATCHES_PER_TURN`] paths each, and what is left of them.
fn split(mut request: SetWatches2) -> (Vec<SetWatches2>, SetWatches2) {
    let relative_zxid = request.relative_zxid;
    let mut parts = Vec::new();
    let lists: [fn(&mut SetWatches2) -> &mut Vec<String>; 5] = [
        |request| &mut request.data,
        |request| &mut request.exist,
        |request| &mut request.child,
        |request| &mut request.persistent,
        |request| &mut request.persistent_recursive,
    ];
    for list in lists {
        let mut paths = std::mem::take(list(&mut request)).into_iter();
        while paths.len() > WATCHES_PER_TURN {
            let mut part = SetWatches2 {
                relative_zxid,
                data: Vec::new(),
                exist: Vec::new(),
                child: Vec::new(),
                persistent: Vec::new(),
                persistent_recursive: Vec::new(),
            };
            *list(&mut part) = paths.by_ref().take(WATCHES_PER_TURN).collect();
            parts.push(part);
        }
        *list(&mut request) = paths.collect();
    }
    (parts, request)
}

#[cfg(test)]
mod tests {
    use quorate_protocol::Zxid;
    use quorate_protocol::request::SetWatches2;

    use super::{WATCHES_PER_TURN, split};

    #[test]
    fn a_long_list_of_watches_is_cut_into_turns_and_nothing_is_lost() {
        let names = |count: usize| -> Vec<String> { (0..count).map(|n| n.to_string()).collect() };
        let whole = SetWatches2 {
            relative_zxid: Zxid(7),
            data: names(2 * WATCHES_PER_TURN + 1),
            exist: names(WATCHES_PER_TURN),
            child: names(0),
            persistent: names(3),
            persistent_recursive: names(4 * WATCHES_PER_TURN),
        };
        let (parts, last) = split(whole.clone());
        assert_eq!(parts.len(), 2 + 3);
        let mut joined = SetWatches2 {
            data: vec![],
            exist: vec![],
            child: vec![],
            persistent: vec![],
            persistent_recursive: vec![],
            ..whole.clone()
        };
        for part in parts.into_iter().chain([last]) {
            assert_eq!(part.relative_zxid, Zxid(7));
            joined.data.extend(part.data);
            joined.exist.extend(part.exist);
            joined.child.extend(part.child);
            joined.persistent.extend(part.persistent);
            joined
                .persistent_recursive
                .extend(part.persistent_recursive);
        }
        assert_eq!(joined, whole);
    }
}
