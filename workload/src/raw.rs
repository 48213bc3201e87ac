//! A client with one session at a time, as ZooKeeper's own libraries are one: it keeps the session
//! alive with pings, takes it to another server when a connection is lost, sets its watches again and
//! learns that it has expired from nobody but a server.
//!
//! It also does what libraries do not: two connections for one session, wrong passwords, going away
//! without a word. No wait in here is without an end.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_checker::history::{
    EventKind, Outcome, Path, Request, SessionRecord, SessionStep, WatchList,
};
use quorate_protocol::{ErrorCode, Id, Request as Wire, request};
use quorate_server::network::Network;
use tokio::time::{Instant, sleep_until, timeout};

use crate::dice::Dice;
use crate::link::{Answer, Ended, Heard, Hello, Link, Opening, Place, Session};
use crate::recorder::Recorder;
use crate::watches::Watches;
use crate::wire::to_wire;

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(4);
/// How long a connection whose session has gone elsewhere is listened to.
const LATE: Duration = Duration::from_secs(1);

/// Where the servers are, in a fixed order.
pub type Servers = Arc<[(u64, SocketAddr)]>;

/// How a client behaves whatever it asks for.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Asked for; the server has the last word.
    pub session_timeout: Duration,
    /// `user:password`, proved on every connection.
    pub credentials: Vec<String>,
    /// Pings also while other requests go out, not only when it has nothing else to say.
    pub always_pings: bool,
    /// How many paths it sets watches again for in one request.
    pub watches_at_once: usize,
    /// Uses the older form where a request has two.
    pub is_old: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(5),
            credentials: Vec::new(),
            always_pings: true,
            watches_at_once: 64,
            is_old: false,
        }
    }
}

/// What came of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected {
    Yes,
    /// The session has ended: the next attempt asks for a new one.
    Expired,
    No,
}

/// What happened next.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and nobody keeps it"
)]
#[derive(Debug)]
pub enum Pumped {
    Answer(Answer),
    Event(EventKind, Path),
    /// Nothing, until the moment that was named.
    Due,
    /// The connection is over.
    Ended,
}

/// See the module.
pub struct Raw {
    client: u32,
    network: Arc<dyn Network>,
    servers: Servers,
    recorder: Recorder,
    manners: Manners,
    session: Option<Session>,
    /// The highest zxid in any answer.
    seen: i64,
    watches: Watches,
    /// From where watches have to be set again, if the last time was not answered in full.
    watched_since: Option<i64>,
    rearms: usize,
    link: Option<Box<Link>>,
    last_server: Option<u64>,
    pinged_at: Instant,
    /// On this connection.
    has_resumed: bool,
}

impl Raw {
    #[must_use]
    pub fn new(
        client: u32,
        network: Arc<dyn Network>,
        servers: Servers,
        recorder: Recorder,
        manners: Manners,
    ) -> Self {
        Self {
            client,
            network,
            servers,
            recorder,
            manners,
            session: None,
            seen: 0,
            watches: Watches::default(),
            watched_since: None,
            rearms: 0,
            link: None,
            last_server: None,
            pinged_at: Instant::now(),
            has_resumed: false,
        }
    }

    #[must_use]
    pub fn client(&self) -> u32 {
        self.client
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// The server it is connected to.
    #[must_use]
    pub fn server(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.server())
    }

    /// The session's id, and whether there is one.
    #[must_use]
    pub fn session(&self) -> Option<i64> {
        self.session.map(|session| session.id.get())
    }

    /// As granted; as asked for while there is none.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        let granted = self.session.map(|session| session.timeout);
        granted.unwrap_or(self.manners.session_timeout)
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.pending())
    }

    /// Whether this connection took over a session.
    #[must_use]
    pub fn has_resumed(&self) -> bool {
        self.has_resumed
    }

    pub(crate) fn watch(&self, index: usize) -> Option<(WatchList, &Path)> {
        self.watches.nth(index)
    }

    /// Any of the servers but the one of the last connection, if there is another.
    pub fn another_server(&self, dice: &mut Dice) -> u64 {
        let others: Vec<u64> = self
            .servers
            .iter()
            .map(|(server, _)| *server)
            .filter(|server| Some(*server) != self.last_server)
            .collect();
        let first = self.servers.first().map_or(0, |(server, _)| *server);
        dice.pick(&others).copied().unwrap_or(first)
    }

    fn place(&self, server: u64) -> Option<Place> {
        let mut servers = self.servers.iter();
        let (server, address) = servers.find(|(id, _)| *id == server)?;
        Some(Place {
            client: self.client,
            server: *server,
            address: *address,
        })
    }

    fn hello(&self) -> Hello {
        let password = |session: Session| Bytes::copy_from_slice(session.password.as_bytes());
        Hello {
            session: self.session.map(|session| (session.id, password(session))),
            is_lie: false,
            seen: self.seen,
            timeout_ms: i32::try_from(self.manners.session_timeout.as_millis()).unwrap_or(i32::MAX),
        }
    }

    /// Connects to a server, with the session if there is one. A connection it has is dropped first.
    pub async fn connect(&mut self, server: u64) -> Connected {
        self.leave();
        let (connected, link) = self.open(server).await;
        if let Some(link) = link {
            self.take_up(link);
        }
        connected
    }

    async fn open(&mut self, server: u64) -> (Connected, Option<Box<Link>>) {
        let Some(place) = self.place(server) else {
            return (Connected::No, None);
        };
        let hello = self.hello();
        let patience = (self.session_timeout() * 2 / 3).min(HANDSHAKE_MAX);
        let opening = Link::open(&*self.network, place, &hello, patience, &self.recorder).await;
        let is_resuming = self.session.is_some();
        match opening {
            Opening::Granted(link, session) => {
                if is_resuming {
                    self.recorder.mark(match self.last_server == Some(server) {
                        true => "session resumed on the same server",
                        false => "session resumed elsewhere",
                    });
                }
                self.session = Some(session);
                self.last_server = Some(server);
                self.has_resumed = is_resuming;
                (Connected::Yes, Some(link))
            }
            Opening::Refused if is_resuming => {
                self.recorder.mark("session found expired");
                self.forget_session();
                (Connected::Expired, None)
            }
            Opening::Unanswered if is_resuming => {
                self.recorder.mark("resumption not answered");
                (Connected::No, None)
            }
            _ => (Connected::No, None),
        }
    }

    /// First of all the client says who it is, then what it watches.
    fn take_up(&mut self, link: Box<Link>) {
        self.link = Some(link);
        self.pinged_at = Instant::now();
        self.rearms = 0;
        for credentials in self.manners.credentials.clone() {
            self.authenticate(&credentials);
        }
        if self.watches.is_empty() {
            self.watched_since = None;
            return;
        }
        let since = self.watched_since.unwrap_or(self.seen);
        let pieces = self
            .watches
            .to_set_again(since, self.manners.watches_at_once);
        self.recorder.mark("watches set again");
        if pieces.len() > 1 {
            self.recorder.mark("watches set again in pieces");
        }
        // Should the connection be lost half-way, what was not set again is still of that zxid.
        self.watched_since = Some(since);
        self.rearms = pieces.len();
        for piece in pieces {
            self.send(piece);
        }
    }

    fn authenticate(&mut self, credentials: &str) {
        let wire = Wire::Auth(request::Auth {
            auth_type: 0,
            scheme: Some("digest".to_owned()),
            auth: Some(Bytes::copy_from_slice(credentials.as_bytes())),
        });
        let identity = Id::digest(credentials.as_bytes());
        if let Some(link) = &mut self.link {
            link.send(Request::Authenticate { identity }, &wire);
        }
    }

    /// Puts a request on its way, and returns its number on the connection. `None` if there is no
    /// connection, or no such request.
    pub fn send(&mut self, request: Request) -> Option<u32> {
        let wire = to_wire(&request, self.manners.is_old)?;
        let link = self.link.as_mut()?;
        if request == Request::Ping {
            self.pinged_at = Instant::now();
        }
        Some(link.send(request, &wire))
    }

    /// As [`Raw::send`], for what changes nothing and a history has no word for.
    pub fn send_other(&mut self, name: &str, wire: &Wire) -> Option<u32> {
        let name = name.to_owned();
        Some(self.link.as_mut()?.send(Request::Other { name }, wire))
    }

    /// Sends, listens and pings until something comes in, or until that moment. Cancel safe.
    pub async fn pump(&mut self, until: Instant) -> Pumped {
        loop {
            let patience = self.session_timeout() * 2 / 3;
            let ping_after = self.session_timeout() / 3;
            let Some(link) = &mut self.link else {
                return Pumped::Ended;
            };
            let mut ping_at = self.pinged_at + ping_after;
            if !self.manners.always_pings {
                ping_at = ping_at.max(link.said_at() + ping_after);
            }
            let now = Instant::now();
            if now >= ping_at {
                self.send(Request::Ping);
                continue;
            }
            let give_up_at = link.silent_since().map(|since| since + patience);
            if give_up_at.is_some_and(|at| now >= at) {
                // It may have been this client that was away.
                if let Ok(heard) = timeout(Duration::ZERO, link.next()).await {
                    return self.on_heard(heard);
                }
                self.recorder.mark("silent server given up");
                self.leave();
                return Pumped::Ended;
            }
            let wake_at = until.min(ping_at).min(give_up_at.unwrap_or(until));
            tokio::select! {
                biased;
                heard = link.next() => return self.on_heard(heard),
                () = sleep_until(wake_at) => if Instant::now() >= until {
                    return Pumped::Due;
                },
            }
        }
    }

    fn on_heard(&mut self, heard: Result<Heard, Ended>) -> Pumped {
        match heard {
            Ok(Heard::Answer(answer)) => {
                self.on_answer(&answer);
                Pumped::Answer(answer)
            }
            Ok(Heard::Event(kind, path)) => {
                if self.has_resumed {
                    self.recorder.mark("event on a resumed connection");
                }
                self.watches.on_event(kind, &path);
                Pumped::Event(kind, path)
            }
            Err(ended) => {
                self.finish(match ended {
                    Ended::ByServer => SessionStep::Lost,
                    Ended::Nonsense(what) => SessionStep::Broken { what },
                });
                Pumped::Ended
            }
        }
    }

    fn on_answer(&mut self, answer: &Answer) {
        let Answer {
            request, outcome, ..
        } = answer;
        self.seen = self.seen.max(outcome.zxid().unwrap_or(0));
        self.watches.on_answer(request, outcome);
        if let Request::SetWatches { .. } = request {
            self.rearms = self.rearms.saturating_sub(1);
            if self.rearms == 0 {
                self.watched_since = None;
            }
        }
        let expired = ErrorCode::SessionExpired.code();
        if matches!(outcome, Outcome::Refused { code, .. } if *code == expired) {
            // The next handshake will say so as well.
            self.recorder.mark("session found expired by a request");
            self.leave();
        }
    }

    /// Sends one request and waits for its answer, for at most so long. What else comes in
    /// meanwhile counts, and is not returned. `None`: no answer, no connection.
    pub async fn call(&mut self, request: Request, within: Duration) -> Option<Outcome> {
        let until = Instant::now() + within;
        let sequence = self.send(request)?;
        loop {
            match self.pump(until).await {
                Pumped::Answer(answer) if answer.sequence == sequence => {
                    return Some(answer.outcome);
                }
                Pumped::Answer(_) | Pumped::Event(..) if Instant::now() < until => {}
                Pumped::Answer(_) | Pumped::Event(..) | Pumped::Due | Pumped::Ended => {
                    return None;
                }
            }
        }
    }

    /// Listens until that moment, or until the connection is over.
    pub async fn listen(&mut self, until: Instant) {
        while Instant::now() < until {
            if let Pumped::Due | Pumped::Ended = self.pump(until).await {
                return;
            }
        }
    }

    fn finish(&mut self, step: SessionStep) {
        if let Some(link) = self.link.take() {
            link.finish(Some(step));
        }
    }

    /// Drops the connection and keeps the session.
    pub fn leave(&mut self) {
        self.finish(SessionStep::Dropped);
    }

    /// Drops the connection, and leaves the session to expire.
    pub fn abandon(&mut self) {
        self.leave();
        let Some(session) = self.session else { return };
        self.recorder.mark("session abandoned");
        let now = self.recorder.now();
        self.recorder.session(SessionRecord {
            client: self.client,
            connection: 0,
            server: self.last_server.unwrap_or(0),
            session: session.id.get(),
            from: now,
            at: now,
            step: SessionStep::Abandoned,
        });
        self.forget_session();
    }

    /// Closes the session. Without an answer it is left to expire, if it still lives.
    pub async fn close(&mut self, within: Duration) {
        let outcome = self.call(Request::CloseSession, within).await;
        if outcome.is_some_and(|outcome| outcome.is_done()) {
            self.recorder.mark("session closed");
            if let Some(link) = self.link.take() {
                link.finish(None);
            }
            self.forget_session();
        } else {
            self.abandon();
        }
    }

    fn forget_session(&mut self) {
        self.leave();
        self.session = None;
        self.seen = 0;
        self.watches = Watches::default();
        self.watched_since = None;
    }

    /// Takes the session to another server while the connection it has still stands, then says
    /// `late` on the old one, and listens to that for a moment.
    pub async fn duplicate(&mut self, server: u64, late: Vec<Request>) -> Connected {
        let Some(mut old) = self.link.take() else {
            return self.connect(server).await;
        };
        let (connected, link) = self.open(server).await;
        match (connected, link) {
            (Connected::Yes, Some(link)) => {
                self.recorder.mark("second connection for a session");
                self.take_up(link);
                self.say_late(old, late).await;
            }
            (Connected::No, _) => {
                // It may be taken away later, or never.
                self.last_server = Some(old.server());
                self.link = Some(old);
            }
            _ => {
                old.push(LATE).await;
                old.finish(Some(SessionStep::Dropped));
            }
        }
        connected
    }

    async fn say_late(&mut self, mut old: Box<Link>, late: Vec<Request>) {
        for request in late {
            if let Some(wire) = to_wire(&request, self.manners.is_old) {
                old.send(request, &wire);
            }
        }
        let until = Instant::now() + LATE;
        loop {
            tokio::select! {
                biased;
                heard = old.next() => match heard {
                    Ok(Heard::Answer(answer)) => {
                        self.recorder.mark("answer on an old connection");
                        self.seen = self.seen.max(answer.outcome.zxid().unwrap_or(0));
                    }
                    Ok(Heard::Event(..)) => {}
                    Err(Ended::ByServer) => break,
                    Err(Ended::Nonsense(what)) => {
                        return old.finish(Some(SessionStep::Broken { what }));
                    }
                },
                () = sleep_until(until) => break,
            }
        }
        // That it ends is to be expected.
        old.finish(Some(SessionStep::Dropped));
    }

    /// Asks for the session with a wrong password, on a connection of its own.
    pub async fn lie(&mut self, server: u64, dice: &mut Dice) {
        let (Some(session), Some(place)) = (self.session, self.place(server)) else {
            return;
        };
        let mut password = session.password.as_bytes().to_vec();
        match dice.below(3) {
            0 => password.clear(),
            1 => password.truncate(8),
            _ => {
                if let Some(byte) = password.get_mut(dice.index(16)) {
                    *byte ^= 1;
                }
            }
        }
        let hello = Hello {
            session: Some((session.id, password.into())),
            is_lie: true,
            ..self.hello()
        };
        let opening = Link::open(&*self.network, place, &hello, LATE, &self.recorder).await;
        if let Opening::Refused = opening {
            self.recorder.mark("wrong password refused");
        }
    }

    /// Sends the first part of a handshake for the session, or all of it, and goes away.
    pub async fn break_off_handshake(&mut self, server: u64, dice: &mut Dice) {
        use tokio::io::AsyncWriteExt;

        let Some(place) = self.place(server) else {
            return;
        };
        let frame = self.hello().frame();
        let is_whole = dice.permille(300);
        let bytes = match is_whole {
            true => frame.len(),
            false => dice.index(frame.len()),
        };
        let connect = timeout(LATE, self.network.connect(place.address));
        let Ok(Ok(stream)) = connect.await else {
            return;
        };
        self.recorder.mark("handshake broken off");
        let (_reader, mut writer) = stream.into_split();
        let from = self.recorder.now();
        let connection = self.recorder.connection();
        let sent = timeout(LATE, writer.write_all(&frame[..bytes])).await;
        drop(writer);
        if is_whole && sent.is_ok() {
            self.recorder.session(SessionRecord {
                client: self.client,
                connection,
                server,
                session: self.session().unwrap_or(0),
                from,
                at: self.recorder.now(),
                step: SessionStep::Unanswered {
                    resuming: self.session.is_some(),
                },
            });
        }
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw")
            .field("client", &self.client)
            .field("session", &self.session())
            .field("server", &self.server())
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
