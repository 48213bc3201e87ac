//! This server's copy of the state, and the one place where it meets the clients of this server.
//!
//! Applying a committed command, firing the watches it touches and answering its origin happen in
//! one critical section; so do a read, the registration of its watch and its answer. From that
//! follow read-your-writes, the order of a session's answers, and an event that always precedes an
//! answer which shows its change.
//!
//! Lock order: state, then watches, then one outbox at a time. Nothing waits under them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard, RwLock};
use quorate_protocol::handshake::ConnectResponse;
use quorate_protocol::request::SetWatches2;
use quorate_protocol::{ErrorCode, Id, OpCode, Perms, Response, SessionId, Xid, Zxid};
use quorate_state::canary::{Canary, planted};
use quorate_state::{
    Applied, Change, Command, Configuration, Connection, Event, OpError, Origin, Query, Reader,
    Reply, SessionEvent, SessionGrant, State, StateView, WatchKind, WatchTable, WatcherType,
    permits,
};
use tokio::sync::Notify;

use crate::client_port::Disconnect;
use crate::client_port::outbox::{End, Inner, Local, OpenSession, Outbox, Owed};
use crate::clock::Clock;
use crate::consensus::agreement::{Checkpoints, Digests};
use crate::metrics::{Metrics, Tally};
use crate::session_tracker::SessionTracker;

/// Paths one connection may watch. At some 300 bytes each that is a third of a gigabyte; a client
/// that wants more is disconnected rather than told a lie about what it watches.
const WATCHES_PER_CONNECTION_MAX: usize = 1_000_000;

/// How long those paths may be together: a hundred bytes each, which is more than paths are. Any string
/// can be watched, one of a megabyte as well.
const WATCHED_BYTES_PER_CONNECTION_MAX: usize = 100 * WATCHES_PER_CONNECTION_MAX;

/// So many watches of a connection that has ended are forgotten under one lock: about a millisecond's
/// work.
const FORGOTTEN_AT_ONCE: usize = 2_000;

/// How long one connection's answers may keep others from the state and from their thread: the rest is
/// parked, and follows when others have had their turn. Most batches take a tenth of it.
const TURN_MAX_US: u64 = 1_000;

/// A request that one server answers by itself.
#[derive(Debug)]
pub enum Ask {
    /// A read, and the watch it leaves behind.
    Read {
        query: Query,
        watch: bool,
    },
    /// An answer that needs nothing but its turn: ping, auth, whoAmI, sync after its barrier.
    Known(Response<'static>),
    /// The text and stat of `/zookeeper/config`, whoever may read it: what a reconfig is answered
    /// with.
    Configuration,
    /// The end of a session that only this server knows.
    Closed,
    /// A refusal that needs nothing but its turn.
    Refused(ErrorCode),
    /// As [`Ask::Refused`], and the connection ends.
    RefusedFinally(ErrorCode, Disconnect),
    AddWatch {
        path: String,
        kind: WatchKind,
    },
    CheckWatches {
        path: String,
        kind: WatcherType,
    },
    RemoveWatches {
        path: String,
        kind: WatcherType,
    },
    SetWatches(Box<SetWatches2>),
    /// A first part of [`Ask::SetWatches`], which is not answered.
    SetWatchesPart(Box<SetWatches2>),
}

impl Ask {
    /// Whether giving it can take milliseconds though little was asked and little is answered. Such an
    /// answer is never given while a command is applied: whoever waits for it would keep all others
    /// waiting.
    pub fn is_heavy(&self) -> bool {
        matches!(
            self,
            Self::SetWatches(_)
                | Self::SetWatchesPart(_)
                | Self::Read {
                    query: Query::GetEphemerals { .. }
                        | Query::GetAllChildrenNumber { .. }
                        | Query::MultiRead(_),
                    ..
                }
        )
    }

    fn touches_watches(&self) -> bool {
        match self {
            Self::Read { watch, .. } => *watch,
            Self::Known(_)
            | Self::Closed
            | Self::Configuration
            | Self::Refused(_)
            | Self::RefusedFinally(..) => false,
            Self::AddWatch { .. }
            | Self::CheckWatches { .. }
            | Self::RemoveWatches { .. }
            | Self::SetWatches(_)
            | Self::SetWatchesPart(_) => true,
        }
    }
}

/// A committed log entry on its way into the state.
#[derive(Debug)]
pub struct Committed {
    pub zxid: Zxid,
    /// Of the leader that appended it.
    pub term: u64,
    /// `None` for entries of the engine's own: they use up their zxid and change nothing.
    pub command: Option<Command>,
    /// The membership that an entry of the engine's own has set.
    pub configuration: Option<Configuration>,
}

/// Is told of every entry that a replica applies, in order: a simulation compares replicas entry by
/// entry. Called under the lock of the state, so it must not wait, nor come back to the replica.
pub trait Witness: fmt::Debug + Send + Sync + 'static {
    /// `after` is the state with the entry applied; `command` and `configuration` are as in
    /// [`Committed`].
    fn on_apply(
        &self,
        zxid: Zxid,
        term: u64,
        command: Option<Command>,
        configuration: Option<&Configuration>,
        after: &State,
    );

    /// The state was replaced by a snapshot of another server.
    fn on_replace(&self, state: &State);
}

/// What became of the commands that this server's connections have proposed, of one
/// [`Replica::apply`].
#[derive(Debug, Default)]
pub struct Outcome {
    /// They had their turn, and whoever waited has been answered.
    pub applied: Vec<Origin>,
    /// They were not the next of their connection, and have changed nothing.
    pub void: Vec<Origin>,
}

impl Outcome {
    fn clear(&mut self) {
        self.applied.clear();
        self.void.clear();
    }
}

/// The state, the watches of this server's clients, and their outboxes.
#[derive(Debug)]
pub struct Replica {
    server: u64,
    skip_acl: bool,
    state: RwLock<State>,
    watches: Mutex<WatchTable>,
    outboxes: DashMap<u64, Arc<Outbox>>,
    /// Locked under the state's lock only.
    checkpoints: Mutex<Checkpoints>,
    sessions: Arc<SessionTracker>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// Wakes those who wait for a zxid to be applied.
    applied: Notify,
    witness: Option<Arc<dyn Witness>>,
}

impl Replica {
    /// `seed` keeps clients from choosing paths that collide in the watch table: it must be random.
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, where everything is wired up"
    )]
    pub fn new(
        server: u64,
        seed: u64,
        skip_acl: bool,
        state: State,
        sessions: Arc<SessionTracker>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        witness: Option<Arc<dyn Witness>>,
    ) -> Self {
        Self {
            server,
            skip_acl,
            state: RwLock::new(state),
            watches: Mutex::new(WatchTable::with_seed(seed)),
            outboxes: DashMap::new(),
            checkpoints: Mutex::default(),
            sessions,
            metrics,
            clock,
            applied: Notify::new(),
            witness,
        }
    }

    pub fn last_zxid(&self) -> Zxid {
        self.state.read().last_zxid()
    }

    /// An immutable view of the state as it is now, for a snapshot.
    pub fn view(&self) -> StateView {
        self.state.read().view()
    }

    /// Puts another state in place of this one: a snapshot from another server. Connections end, as
    /// what happened between the two states was not seen here: clients come back, and their watches
    /// are compared with the new state then.
    pub fn replace(&self, state: State) {
        let now_ms = self.clock.monotonic_ms();
        {
            let mut current = self.state.write();
            self.sessions.clear();
            self.checkpoints.lock().clear();
            *current = state;
            if let Some(witness) = &self.witness {
                witness.on_replace(&current);
            }
            let open = current
                .sessions()
                .map(|(id, session)| (id, session.timeout_ms, session.attached_at));
            self.sessions.restart(open, now_ms);
        }
        if !planted(Canary::WatchesLostOnInstall) {
            self.cut_all(Disconnect::StateReplaced);
        }
        self.applied.notify_waiters();
    }

    /// Ends all connections without sending anything more.
    pub fn cut_all(&self, reason: Disconnect) {
        for outbox in self.connections().into_values() {
            outbox.cut(reason);
        }
    }

    /// Ends all connections with sessions of the ensemble, or all with sessions for reading without
    /// a majority.
    pub fn cut_sessions(&self, read_only: bool, reason: Disconnect) {
        for outbox in self.connections().into_values() {
            if outbox.lock().is_read_only() == read_only {
                outbox.cut(reason);
            }
        }
    }

    /// Ends these connections without sending anything more.
    pub fn cut_those(&self, numbers: &[u64], reason: Disconnect) {
        for number in numbers {
            if let Some(outbox) = self.outboxes.get(number) {
                outbox.cut(reason);
            }
        }
    }

    /// Changes the state as no entry of the log says.
    #[cfg(test)]
    pub(crate) fn corrupt(&self) {
        let mut state = self.state.write();
        let zxid = state.last_zxid();
        let wrong = Configuration {
            members: "server.7=nowhere:1:2:participant\n".to_owned(),
            changed_ms: i64::MAX,
            servers: (0..=u64::from(u8::MAX)).collect(),
        };
        state.configure(zxid, &wrong);
    }

    /// The digests of the state at the last checkpoints, and as it is now.
    pub fn digests(&self) -> Digests {
        let state = self.state.read();
        let now = (state.last_zxid(), state.digest());
        self.checkpoints.lock().iter().chain([now]).collect()
    }

    /// Looks into the state, for status pages and timers.
    pub fn inspect<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read())
    }

    /// Looks into the watches, for status pages.
    pub fn inspect_watches<T>(&self, look: impl FnOnce(&WatchTable) -> T) -> T {
        look(&self.watches.lock())
    }

    /// Waits until `zxid` has been applied here, at most for `patience`. Cancel safe.
    pub async fn wait_applied(&self, zxid: Zxid, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.reach(zxid))
            .await
            .is_ok()
    }

    /// Waits until `zxid` has been applied here. Cancel safe.
    pub async fn reach(&self, zxid: Zxid) {
        self.when(|| self.last_zxid() >= zxid).await;
    }

    /// Waits until `session` has ended, or was attached after `attached_at`. Cancel safe.
    pub async fn until_changed(&self, session: SessionId, attached_at: Zxid) {
        let is_as_it_was = |state: &State| {
            let session = state.session(session);
            session.is_some_and(|session| session.attached_at == attached_at)
        };
        self.when(|| !self.inspect(is_as_it_was)).await;
    }

    /// Waits for what only applying can bring about.
    async fn when(&self, is_so: impl Fn() -> bool) {
        loop {
            let woken = self.applied.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if is_so() {
                return;
            }
            woken.await;
        }
    }

    pub fn register(&self, outbox: Arc<Outbox>) {
        self.outboxes.insert(outbox.number(), outbox);
    }

    /// Forgets a connection that has ended, and its watches.
    pub fn unregister(&self, number: u64) {
        self.outboxes.remove(&number);
        // Nobody hears of those that are left between two turns: the outbox is gone.
        loop {
            let mut watches = self.watches.lock();
            let is_done = watches.remove_some_of(number, FORGOTTEN_AT_ONCE);
            MutexGuard::unlock_fair(watches);
            if is_done {
                return;
            }
        }
    }

    pub fn is_connected(&self, number: u64) -> bool {
        self.outboxes.contains_key(&number)
    }

    /// Every connection, in the order of their numbers.
    pub fn connections(&self) -> BTreeMap<u64, Arc<Outbox>> {
        self.outboxes
            .iter()
            .map(|entry| (*entry.key(), Arc::clone(entry.value())))
            .collect()
    }

    pub fn connection_count(&self) -> usize {
        self.outboxes.len()
    }

    /// Answers requests of one connection in their order, or parks them behind what it is still
    /// owed. Those that were parked, for want of room or time, come first; the connection calls again
    /// for as long as there are any that could be given.
    pub fn answer(&self, outbox: &Outbox, requests: &mut Vec<Local>) {
        // A parked answer may touch watches; those that come to be parked from here on wait for the
        // next time.
        let has_ready = outbox.lock().has_ready_answer();
        if requests.is_empty() && !has_ready {
            return;
        }
        let state = self.state.read();
        let touches_watches = has_ready || requests.iter().any(|local| local.ask.touches_watches());
        let mut watches = touches_watches.then(|| self.watches.lock());
        let mut tally = Tally::default();
        let now_us = self.clock.monotonic_us();
        let mut turn = Turn {
            replica: self,
            state: &state,
            watches: watches.as_deref_mut(),
            number: outbox.number(),
            inner: outbox.lock(),
            now_us,
            tally: &mut tally,
        };
        let mut is_over = false;
        while has_ready
            && !is_over
            && turn.inner.has_ready_answer()
            && let Some(local) = turn.inner.pop_local()
        {
            turn.give(local);
            is_over = self.clock.monotonic_us() - now_us > TURN_MAX_US;
        }
        for local in requests.drain(..) {
            if !matches!(local.ask, Ask::SetWatchesPart(_)) {
                turn.inner.count_received(local.op, local.xid);
            }
            if is_over || turn.inner.owed_count() > 0 || turn.inner.is_congested() {
                turn.inner.owe(Owed::Local(local));
            } else {
                turn.give(local);
                is_over = self.clock.monotonic_us() - now_us > TURN_MAX_US;
            }
        }
        drop(turn);
        drop(watches);
        drop(state);
        self.metrics.add(&tally);
    }

    /// Gives an answer that has turned out to be this one, as [`Replica::confirm`].
    pub fn settle(&self, outbox: &Outbox, ticket: u64, ask: Ask) {
        outbox.lock().replace_round(ticket, ask);
        self.confirm(outbox, ticket);
    }

    /// Waits until all writes that the connection has proposed before this answer was owed have been
    /// applied. Cancel safe.
    pub async fn writes_applied(&self, outbox: &Outbox, ticket: u64) {
        self.when(|| !outbox.lock().has_writes_before(ticket)).await;
    }

    /// Gives the answer that waited for a confirmed round, and those behind it, when their turn has
    /// come.
    pub fn confirm(&self, outbox: &Outbox, ticket: u64) {
        let mut tally = Tally::default();
        let state = self.state.read();
        let mut watches = self.watches.lock();
        let mut turn = Turn {
            replica: self,
            state: &state,
            watches: Some(&mut watches),
            number: outbox.number(),
            inner: outbox.lock(),
            now_us: self.clock.monotonic_us(),
            tally: &mut tally,
        };
        turn.inner.confirm(ticket);
        turn.give_what_is_due();
        outbox.signal(&mut turn.inner);
        drop(turn);
        drop(watches);
        drop(state);
        self.metrics.add(&tally);
    }

    /// Applies committed entries in the order of the log, and notes what became of this server's own
    /// in `outcome`.
    pub fn apply(&self, entries: impl IntoIterator<Item = Committed>, outcome: &mut Outcome) {
        outcome.clear();
        let now_us = self.clock.monotonic_us();
        let mut tally = Tally::default();
        let mut commits = 0;
        let mut state = self.state.write();
        let mut watches = self.watches.lock();
        let soft_quotas_exceeded = state.soft_quota_exceeded_count();
        for Committed {
            zxid,
            term,
            command,
            configuration,
        } in entries
        {
            commits += 1;
            let before = state.last_zxid();
            if Checkpoints::is_one(before) {
                self.checkpoints.lock().note(before, state.digest());
            }
            let Some(mut command) = command else {
                match &configuration {
                    None => state.skip(zxid),
                    Some(configuration) => {
                        let changes = state.configure(zxid, configuration);
                        self.fire(&mut watches, zxid, &changes);
                    }
                }
                if let Some(witness) = &self.witness {
                    witness.on_apply(zxid, term, None, configuration.as_ref(), &state);
                }
                continue;
            };
            let origin = command.origin;
            let witnessed = self
                .witness
                .as_ref()
                .map(|witness| (witness, command.clone()));
            if planted(Canary::ServerDependentApply) {
                command.time_ms += i64::from(self.server == 1);
            }
            let applied = state.apply(zxid, command);
            if let Some((witness, command)) = witnessed {
                witness.on_apply(zxid, term, Some(command), None, &state);
            }
            if origin.connection.server == self.server && origin.connection.number != 0 {
                if matches!(applied.reply, Reply::Void) {
                    outcome.void.push(origin);
                    continue;
                }
                outcome.applied.push(origin);
            }
            let origin = origin.connection;
            let late = planted(Canary::EventAfterData).then(|| applied.changes.clone());
            if late.is_none() {
                self.fire(&mut watches, zxid, &applied.changes);
            }
            self.reply(
                (&state, &mut watches),
                zxid,
                origin,
                applied,
                now_us,
                &mut tally,
            );
            if let Some(changes) = late {
                self.fire(&mut watches, zxid, &changes);
            }
        }
        let exceeding = state.soft_quota_exceeded_count() - soft_quotas_exceeded;
        drop(watches);
        drop(state);
        // One line for all of them: a subtree beyond its quota may be written to very often.
        if exceeding > 0 {
            tracing::warn!(writes = exceeding, "a soft quota is exceeded");
        }
        self.metrics.add(&tally);
        self.metrics.commits.fetch_add(commits, Relaxed);
        self.applied.notify_waiters();
    }

    /// Sends the events of one command to the connections that watch and may read.
    fn fire(&self, watches: &mut WatchTable, zxid: Zxid, changes: &[Change]) {
        if changes.is_empty() || watches.watch_count() == 0 {
            return;
        }
        watches.trigger(changes, &mut |event: Event<'_>| {
            let Some(outbox) = self.outboxes.get(&event.connection) else {
                return;
            };
            let mut inner = outbox.lock();
            let may_hear = self.skip_acl || planted(Canary::EventWithoutAcl);
            if may_hear || permits(event.acl, Perms::READ, inner.identities()) {
                inner.push_event(zxid, event.kind, event.path);
                outbox.signal(&mut inner);
            }
        });
    }

    /// Tells the origin, if it is a connection of this server, and those a session event concerns.
    fn reply(
        &self,
        (state, watches): (&State, &mut WatchTable),
        zxid: Zxid,
        origin: Connection,
        applied: Applied,
        now_us: u64,
        tally: &mut Tally,
    ) {
        if let Some(event) = applied.session {
            self.on_session_event(event, origin);
        }
        if origin.server != self.server || origin.number == 0 {
            return;
        }
        let Some(outbox) = self
            .outboxes
            .get(&origin.number)
            .map(|entry| Arc::clone(&entry))
        else {
            return;
        };
        let mut turn = Turn {
            replica: self,
            state,
            watches: Some(watches),
            number: origin.number,
            inner: outbox.lock(),
            now_us,
            tally,
        };
        let inner = &mut *turn.inner;
        match (inner.pop_owed(), applied.reply) {
            (Some(Owed::Handshake { read_only }), Reply::Session(grant)) => {
                greet(inner, grant.as_ref(), read_only);
            }
            (Some(Owed::Write { xid, op, since_us }), Reply::Write(result)) => {
                let bytes = reply_write(inner, xid, op, zxid, &result);
                let latency_us = inner.count_answered(since_us, now_us);
                turn.tally.on_update(latency_us, bytes);
            }
            // Answers come in the order of proposals, so this is a connection whose session was
            // taken away in between; it must not hear an answer meant for another request.
            _ => inner.end_with(End::AtOnce(Disconnect::SessionMoved)),
        }
        turn.give_what_is_due();
        outbox.signal(&mut turn.inner);
    }

    fn on_session_event(&self, event: SessionEvent, origin: Connection) {
        self.sessions.on_event(&event, self.clock.monotonic_ms());
        match event {
            SessionEvent::Attached {
                from: Some(from),
                connection,
                ..
            } if from != connection => {
                self.cut(from, Disconnect::SessionMoved);
            }
            SessionEvent::Ended {
                connection,
                expired,
                ..
            } if expired => {
                self.metrics.sessions_expired.fetch_add(1, Relaxed);
                self.cut(connection, Disconnect::SessionExpired);
            }
            // A session that its own client closes gets an answer first.
            SessionEvent::Ended { connection, .. } if connection != origin => {
                self.cut(connection, Disconnect::SessionClosed);
            }
            _ => {}
        }
    }

    fn cut(&self, connection: Connection, reason: Disconnect) {
        if connection.server == self.server
            && let Some(outbox) = self.outboxes.get(&connection.number)
        {
            outbox.cut(reason);
        }
    }

    /// Whether an event that stands for changes nobody watched may be sent: the znode is gone, or
    /// its ACL allows a read.
    fn may_hear(&self, state: &State, path: &str, identities: &[Id]) -> bool {
        self.skip_acl
            || state
                .node_acl(path)
                .is_none_or(|acl| permits(&acl, Perms::READ, identities))
    }

    /// The session a connection serves, once its handshake is done.
    pub fn session_of(&self, outbox: &Outbox) -> Option<SessionId> {
        outbox.lock().session().map(|session| session.id)
    }
}

/// One connection's turn: what its answers are made from, all of it locked.
struct Turn<'a> {
    replica: &'a Replica,
    state: &'a State,
    /// `None` where no answer touches them.
    watches: Option<&'a mut WatchTable>,
    number: u64,
    inner: MutexGuard<'a, Inner>,
    now_us: u64,
    tally: &'a mut Tally,
}

impl Turn<'_> {
    /// Gives the answers behind the one that was just given, up to one that has to wait.
    fn give_what_is_due(&mut self) {
        while let Some(local) = self.inner.pop_local_or_park() {
            self.give(local);
        }
    }

    /// Gives one answer whose turn has come.
    fn give(&mut self, local: Local) {
        let inner = &mut *self.inner;
        if local.ask.touches_watches()
            && let Some(watches) = &self.watches
            && (watches.count_of(self.number) >= WATCHES_PER_CONNECTION_MAX
                || watches.path_bytes_of(self.number) >= WATCHED_BYTES_PER_CONNECTION_MAX)
        {
            inner.end_with(End::AtOnce(Disconnect::TooManyWatches));
            return;
        }
        let zxid = self.state.last_zxid();
        let xid = match local.op {
            Some(OpCode::Ping) => Xid::PING,
            _ => local.xid,
        };
        let bytes = match local.ask {
            Ask::Known(response) => {
                // ZooKeeper answers auth with zxid 0, which no client takes for news.
                let zxid = match local.op {
                    Some(OpCode::Auth | OpCode::Sasl) => Zxid::ZERO,
                    _ => zxid,
                };
                inner.push_reply(xid, zxid, Ok(&response))
            }
            Ask::Closed => {
                let bytes = inner.push_reply(xid, zxid, Ok(&Response::Empty));
                inner.end_with(End::AfterFlush(Disconnect::SessionClosed));
                bytes
            }
            Ask::Configuration => {
                let (data, stat) = self.state.configuration().unwrap_or_default();
                let data = Some(data.into());
                inner.push_reply(xid, zxid, Ok(&Response::Data { data, stat }))
            }
            Ask::Refused(error) => inner.push_reply(xid, zxid, Err(error)),
            Ask::RefusedFinally(error, reason) => {
                let zxid = match local.op {
                    Some(OpCode::Auth | OpCode::Sasl) => Zxid::ZERO,
                    _ => zxid,
                };
                let bytes = inner.push_reply(xid, zxid, Err(error));
                inner.end_with(End::AfterFlush(reason));
                bytes
            }
            Ask::Read { query, watch } => {
                let Some(session) = inner.session() else {
                    return;
                };
                let reader = Reader {
                    identities: &local.identities,
                    session: session.id,
                    skip_acl: self.replica.skip_acl,
                };
                let result = self.state.read(&query, &reader);
                if watch && let Some(watches) = &mut self.watches {
                    leave_watch(watches, self.number, &query, result.as_ref().err());
                }
                inner.push_reply(xid, zxid, result.as_ref().map_err(|error| error.code()))
            }
            Ask::SetWatchesPart(request) => {
                self.rearm(&request);
                return;
            }
            ask => self.change_watches(xid, ask),
        };
        let latency_us = self.inner.count_answered(local.since_us, self.now_us);
        self.tally.on_read(latency_us, bytes);
    }

    fn change_watches(&mut self, xid: Xid, ask: Ask) -> usize {
        let Some(watches) = &mut self.watches else {
            return 0;
        };
        let (number, inner) = (self.number, &mut *self.inner);
        let zxid = self.state.last_zxid();
        let found = |found: bool| match found {
            true => Ok(&Response::Empty),
            false => Err(ErrorCode::NoWatcher),
        };
        match ask {
            Ask::AddWatch { path, kind } => {
                watches.add(number, &path, kind);
                inner.push_reply(xid, zxid, Ok(&Response::WatchAdded))
            }
            Ask::CheckWatches { path, kind } => {
                inner.push_reply(xid, zxid, found(watches.contains(number, &path, kind)))
            }
            Ask::RemoveWatches { path, kind } => {
                inner.push_reply(xid, zxid, found(watches.remove(number, &path, kind)))
            }
            Ask::SetWatches(request) => {
                self.rearm(&request);
                self.inner.push_reply(xid, zxid, Ok(&Response::Empty))
            }
            Ask::Read { .. }
            | Ask::Known(_)
            | Ask::Closed
            | Ask::Configuration
            | Ask::Refused(_)
            | Ask::RefusedFinally(..)
            | Ask::SetWatchesPart(_) => 0,
        }
    }

    /// Brings back what the client watched, and tells it what it has missed.
    fn rearm(&mut self, request: &SetWatches2) {
        let Some(watches) = &mut self.watches else {
            return;
        };
        let (state, inner) = (self.state, &mut *self.inner);
        let identities = Arc::clone(inner.identities());
        quorate_state::rearm(
            watches,
            self.number,
            request,
            |path: &str| state.stat(path),
            &mut |kind, path: &str| {
                if self.replica.may_hear(state, path, &identities) {
                    inner.push_event(Zxid::NONE, kind, path);
                }
            },
        );
    }
}

/// Queues the answer to a write, and returns its length in bytes.
fn reply_write(
    inner: &mut Inner,
    xid: Xid,
    op: OpCode,
    zxid: Zxid,
    result: &Result<Response<'static>, OpError>,
) -> usize {
    let bytes = match result {
        // ZooKeeper closes instead of answering: the client finds out when it reconnects.
        Err(OpError::SessionMoved) => {
            inner.end_with(End::AtOnce(Disconnect::SessionMoved));
            return 0;
        }
        Err(error) => inner.push_reply(xid, zxid, Err(error.code())),
        Ok(response) => inner.push_reply(xid, zxid, Ok(response)),
    };
    if op == OpCode::CloseSession {
        inner.end_with(End::AfterFlush(Disconnect::SessionClosed));
    }
    bytes
}

/// Answers a handshake.
fn greet(inner: &mut Inner, grant: Option<&SessionGrant>, read_only: Option<bool>) {
    match grant {
        Some(grant) => {
            inner.set_session(OpenSession {
                id: grant.session,
                timeout_ms: grant.timeout_ms,
            });
            inner.push_connect_response(&ConnectResponse {
                protocol_version: 0,
                timeout_ms: grant.timeout_ms,
                session_id: Some(grant.session),
                password: grant.password,
                read_only: read_only.map(|_| false),
            });
        }
        None => {
            inner.push_connect_response(&ConnectResponse::expired(read_only));
            inner.end_with(End::AfterFlush(Disconnect::SessionRefused));
        }
    }
}

/// Registers the watch of a read that asked for one. A read that failed leaves none, but for exists
/// on a znode that is not there, whose watch waits for it.
fn leave_watch(watches: &mut WatchTable, number: u64, query: &Query, error: Option<&OpError>) {
    match (query, error) {
        (Query::Exists { path }, None | Some(OpError::NoNode))
        | (Query::GetData { path }, None) => {
            watches.add(number, path, WatchKind::Data);
        }
        (Query::GetChildren { path } | Query::GetChildren2 { path }, None) => {
            watches.add(number, path, WatchKind::Child);
        }
        _ => {}
    }
}
