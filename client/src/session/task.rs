//! The task that owns a session: makes connections, moves bytes, keeps time.
//!
//! All decisions are the core's. The task ends when the session is over for good, or when the last
//! client has let go of it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::core::{Attached, Broken, Core};
use super::lease::LeaseCell;
use super::line::{Closing, Line, Over};
use super::state::SessionState;
use super::ticket::SessionTicket;
use crate::connect_string::Host;
use crate::dial::hosts::Hosts;
use crate::dial::{DialError, Dialer, Dialled};
use crate::environment::{Clock, Randomness};
use crate::metrics::Metrics;

/// Room for what a server sends at a time.
const READ_BYTES: usize = 32 << 10;
/// The same, while little comes: most sessions are idle, and each has a buffer.
const READ_BYTES_IDLE: usize = 1 << 10;
/// The pause after all hosts were tried in vain, at first and at most. Doubled each round, and cut
/// by up to a half at random, so that clients do not come back all at once.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(50);
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The least that one attempt gets, however many hosts there are, and the most, however long the
/// session lives: a host may swallow everything.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// A connection that lasts less is as bad as none: there is a pause before the next one, so that a
/// server that takes in and turns out again is not asked without end.
const STEADY: Duration = Duration::from_secs(2);
/// After so many timeouts a read-only server is left for one that does not say whether it takes
/// writes.
const UNPROBED_TIMEOUTS: u32 = 6;
/// How long the end of a session may take that nobody waits for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How soon another server is asked whether it takes writes, at first and at most, while connected
/// to a read-only one. As ZooKeeper's clients.
const PROBE_PAUSE_MIN: Duration = Duration::from_millis(100);
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What happens when a session has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnExpiry {
    /// Nothing more: every request fails, and whoever owns the client decides.
    #[default]
    Stay,
    /// A new session begins, after the state [`SessionState::Expired`] and a pause as between
    /// attempts to connect. What was under way fails; persistent watches go on, with a gap.
    NewSession,
}

/// What others see of the task.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) line: Arc<Line>,
    pub(crate) states: watch::Receiver<SessionState>,
    pub(crate) lease: LeaseCell,
    pub(crate) ticket: parking_lot::Mutex<Option<SessionTicket>>,
    /// The negotiated timeout, or the one asked for.
    pub(crate) timeout: parking_lot::Mutex<Duration>,
    /// Why the last attempts to connect failed: the newest of each host.
    pub(crate) failures: parking_lot::Mutex<Vec<(Host, Arc<DialError>)>>,
    pub(crate) last_zxid: std::sync::atomic::AtomicI64,
    pub(crate) metrics: Option<Arc<dyn Metrics>>,
    pub(crate) clock: Clock,
    pub(crate) randomness: Randomness,
}

/// See the module.
pub(crate) struct Task {
    pub(crate) core: Core,
    /// Ends with the task: there is no state after the last.
    pub(crate) states: watch::Sender<SessionState>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) hosts: Hosts<SmallRng>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) on_expiry: OnExpiry,
    /// Of one attempt to connect; `None` for what the session's timeout leaves.
    pub(crate) attempt_patience: Option<Duration>,
    /// Decides the length of pauses.
    pub(crate) random: SmallRng,
    /// When the end of the session is given up that somebody has asked for.
    pub(crate) close_by: Option<Instant>,
}

/// Why a connection is no more.
enum Ended {
    Lost(String),
    Over(Over),
    /// The owner has asked for it.
    Closed,
    /// There is a server that takes writes.
    Better,
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Over(over) => Self::Over(over),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl Task {
    pub(crate) async fn run(mut self) {
        let mut pause = ROUND_PAUSE_MIN;
        loop {
            let mut is_steady = false;
            let ended = match self.connect(&mut pause).await {
                Ok((dialled, attached)) => {
                    self.on_attached(attached);
                    let since = Instant::now();
                    let ended = self.serve(dialled, attached == Attached::ReadOnly).await;
                    is_steady = since.elapsed() >= STEADY;
                    ended
                }
                Err(ended) => ended,
            };
            if is_steady {
                pause = ROUND_PAUSE_MIN;
            }
            self.core.lost(Instant::now());
            match ended {
                Ended::Lost(reason) => {
                    tracing::info!(%reason, "the connection is lost");
                    self.publish(SessionState::Suspended);
                }
                Ended::Better => self.publish(SessionState::Suspended),
                // However it came, it is the end that was asked for.
                Ended::Over(Over::Expired) if self.core.closing.is_some() => {
                    return self.finish(Over::Closed);
                }
                Ended::Over(Over::Expired) if self.on_expiry == OnExpiry::NewSession => {
                    tracing::warn!("the session has expired; a new one begins");
                    self.core.over(Over::Expired, true);
                    *self.shared.ticket.lock() = None;
                    self.publish(SessionState::Expired);
                    is_steady = false;
                }
                Ended::Over(over) => return self.finish(over),
                Ended::Closed => return self.finish(Over::Closed),
            }
            if self.core.closing == Some(Closing::Task) {
                return self.finish(Over::Closed);
            }
            if !is_steady {
                // What ends the pause ends the next attempt as well.
                self.back_off(&mut pause).await.ok();
            }
        }
    }

    /// Waits before the next attempt, and longer the next time.
    async fn back_off(&mut self, pause: &mut Duration) -> Result<(), Ended> {
        let random = self.random.random_range(0.5..1.0);
        // A session must not be lost to a pause.
        let max = self.core.timeout() / 6;
        let max = max.clamp(ROUND_PAUSE_MIN, ROUND_PAUSE_MAX);
        let span = (*pause).min(max);
        *pause = (span * 2).min(max);
        self.sleep_down(span.mul_f64(random)).await
    }

    fn finish(mut self, over: Over) {
        self.core.over(over, false);
        if over == Over::Expired {
            *self.shared.ticket.lock() = None;
        }
        self.publish(match over {
            Over::Expired => SessionState::Expired,
            Over::AuthFailed => SessionState::AuthFailed,
            Over::Closed => SessionState::Closed,
        });
    }

    fn publish(&self, state: SessionState) {
        self.publish_lease();
        *self.shared.timeout.lock() = self.core.timeout();
        if self.states.send_replace(state) != state
            && let Some(metrics) = &self.shared.metrics
        {
            metrics.on_state(state);
        }
    }

    fn publish_lease(&self) {
        let session = self.core.session().map(|session| session.id);
        let deadline = self.core.lease.deadline();
        self.shared.lease.set(session.zip(deadline));
        let last_zxid = self.core.last_zxid();
        let order = std::sync::atomic::Ordering::Relaxed;
        self.shared.last_zxid.store(last_zxid.0, order);
    }

    fn on_attached(&mut self, attached: Attached) {
        self.shared.failures.lock().clear();
        let session = self.core.session().cloned();
        if let Some(session) = &session {
            tracing::Span::current().record("id", tracing::field::display(session.id));
        }
        let ticket = session.as_ref().map(|session| SessionTicket {
            id: session.id,
            password: session.password,
            last_zxid: self.core.last_zxid(),
        });
        *self.shared.ticket.lock() = ticket;
        let state = match (attached, session) {
            (Attached::New, Some(session)) => SessionState::Connected {
                session: session.id,
            },
            (Attached::Resumed, Some(session)) => SessionState::Reconnected {
                session: session.id,
            },
            _ => SessionState::ReadOnly,
        };
        self.publish(state);
    }

    /// Tries the hosts in turn until one takes us in. Meanwhile what cannot wait fails.
    async fn connect(&mut self, pause: &mut Duration) -> Result<(Dialled, Attached), Ended> {
        loop {
            // There is at least one: a connect string has no empty list.
            let index = self.hosts.next().unwrap_or(0);
            let Some(host) = self.dialer.hosts().get(index).cloned() else {
                return Err(Ended::Closed);
            };
            let asked = self.shared.clock.lease_now();
            let request = self.core.connect_request();
            let dialer = Arc::clone(&self.dialer);
            let patience = self.attempt_patience();
            let attempt = {
                let host = host.clone();
                Box::pin(async move { dialer.dial(&host, &request, patience).await })
            };
            match self.meanwhile(attempt).await? {
                Ok(dialled) => {
                    let response = &dialled.response;
                    match self.core.attached(Instant::now(), asked, response) {
                        Attached::Expired => return Err(Ended::Over(Over::Expired)),
                        Attached::Refused(what) => {
                            let address = dialled.address;
                            self.on_failure(host, DialError::NoSession { address, what });
                        }
                        attached => {
                            tracing::debug!(address = %dialled.address, ?attached, "connected");
                            // When this one is lost, the others are the better guess.
                            self.hosts.leave(index);
                            return Ok((dialled, attached));
                        }
                    }
                }
                Err(error) => self.on_failure(host, error),
            }
            if self.hosts.round_is_over() {
                self.back_off(pause).await?;
            }
        }
    }

    fn attempt_patience(&self) -> Duration {
        let hosts = u32::try_from(self.dialer.hosts().len()).unwrap_or(u32::MAX);
        let share = self.core.timeout() / hosts.max(1);
        self.attempt_patience
            .unwrap_or(share.min(ATTEMPT_MAX))
            .max(ATTEMPT_MIN)
    }

    fn on_failure(&self, host: Host, error: DialError) {
        tracing::debug!(%host, %error, "no connection");
        let mut failures = self.shared.failures.lock();
        failures.retain(|(failed, _)| *failed != host);
        failures.push((host, Arc::new(error)));
        drop(failures);
        if let Some(metrics) = &self.shared.metrics {
            metrics.on_connect_failure();
        }
    }

    async fn sleep_down(&mut self, span: Duration) -> Result<(), Ended> {
        let until = Instant::now() + span;
        self.meanwhile(sleep_until(until)).await
    }

    /// Waits for something while there is no connection.
    async fn meanwhile<T>(&mut self, something: impl Future<Output = T>) -> Result<T, Ended> {
        let mut something = std::pin::pin!(something);
        let line = Arc::clone(&self.shared.line);
        // Nothing is written: there is no connection.
        let mut nothing = BytesMut::new();
        loop {
            self.core.accept(&mut nothing);
            let now = Instant::now();
            self.core.fail_late(now);
            // The end of a session that has not begun, or that nobody can be told of.
            if self.core.closing == Some(Closing::Task)
                || (self.core.closing.is_some() && self.core.session().is_none())
                || self.is_given_up(now)
            {
                return Err(Ended::Closed);
            }
            let tick = self.next_tick(now);
            tokio::select! {
                done = &mut something => return Ok(done),
                () = line.wait() => {}
                () = sleep_until(tick) => {}
            }
        }
    }

    /// Begins to count when somebody asks for the end.
    fn close_by(&mut self, now: Instant) -> Option<Instant> {
        self.core.closing?;
        let patience = self.core.timeout().max(CLOSE_PATIENCE);
        Some(*self.close_by.get_or_insert(now + patience))
    }

    /// Whether the end was asked for so long ago that it is left to the session's timeout.
    fn is_given_up(&mut self, now: Instant) -> bool {
        self.close_by(now).is_some_and(|close_by| now >= close_by)
    }

    /// When there is something to do at the latest.
    fn next_tick(&mut self, now: Instant) -> Instant {
        let tick = self.core.next_tick(now);
        self.close_by(now)
            .map_or(tick, |close_by| tick.min(close_by))
    }

    /// Moves bytes until the connection ends.
    async fn serve(&mut self, dialled: Dialled, read_only: bool) -> Ended {
        let holds_back = dialled.stream.holds_back();
        let mut is_held_back = false;
        let (mut reader, mut writer) = tokio::io::split(dialled.stream);
        let mut input = dialled.rest;
        let mut out = BytesMut::new();
        let line = Arc::clone(&self.shared.line);
        let clock = self.shared.clock;
        if let Err(error) = self.core.greet(clock.lease_now(), &mut out) {
            return Ended::Lost(error.to_string());
        }
        if let Err(broken) = self.core.read(Instant::now(), &mut input) {
            return broken.into();
        }
        // On the heap, as what makes connections: a session that has one needs no room for it.
        let mut better: Pin<Box<dyn Future<Output = ()> + Send>> = match read_only {
            true => Box::pin(wait_for_better(
                Arc::clone(&self.dialer),
                self.attempt_patience(),
                self.core.timeout() * UNPROBED_TIMEOUTS,
            )),
            false => Box::pin(std::future::pending()),
        };
        let mut room = READ_BYTES_IDLE;
        let mut close_sent = false;
        let mut tick = self.core.next_tick(Instant::now());
        let mut timer = std::pin::pin!(sleep_until(tick));
        loop {
            self.core.accept(&mut out);
            let now = Instant::now();
            self.core.write(clock.lease_now(), &mut out);
            match self.core.closing {
                Some(Closing::Task) if self.core.is_idle() && out.is_empty() && !is_held_back => {
                    return Ended::Closed;
                }
                Some(Closing::Session) if !close_sent && self.core.is_idle() => {
                    self.core.write_close(&mut out);
                    close_sent = true;
                }
                _ => {}
            }
            let next = self.next_tick(now);
            if next != tick {
                tick = next;
                timer.as_mut().reset(tick);
            }
            input.reserve(room);
            let is_writing = is_held_back || !out.is_empty();
            tokio::select! {
                // Writing comes first: what is to be written is bounded, and what a server sends is
                // not. Time comes last: what has come must not be taken for silence.
                biased;
                written = write_some(&mut writer, &mut out), if is_writing => match written {
                    // What is written may have to be flushed, once; what is flushed need not.
                    Ok(is_more) => is_held_back = holds_back && is_more,
                    Err(error) => return Ended::Lost(error.to_string()),
                },
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => return Ended::Lost("the server has closed it".to_owned()),
                    Ok(length) => {
                        room = match length {
                            READ_BYTES_IDLE.. => READ_BYTES,
                            _ => READ_BYTES_IDLE,
                        };
                        let now = Instant::now();
                        let mut read = self.core.read(now, &mut input);
                        if read.is_ok() && now >= tick {
                            // A server that never stops must not hold up the pings.
                            read = self.core.tick(now, clock.lease_now(), &mut out);
                        }
                        self.publish_lease();
                        if let Err(broken) = read {
                            return broken.into();
                        }
                        if self.is_given_up(now) {
                            return Ended::Closed;
                        }
                    }
                    Err(error) => return Ended::Lost(error.to_string()),
                },
                () = line.wait() => {}
                () = &mut timer => {
                    let now = Instant::now();
                    if self.is_given_up(now) {
                        return Ended::Closed;
                    }
                    if let Err(broken) = self.core.tick(now, clock.lease_now(), &mut out) {
                        return broken.into();
                    }
                }
                () = &mut better, if read_only => return Ended::Better,
            }
        }
    }
}

/// Writes some of what there is, or if there is nothing flushes what was written before. Whether
/// something was written. Cancel safe.
async fn write_some(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
) -> std::io::Result<bool> {
    if out.is_empty() {
        writer.flush().await?;
        return Ok(false);
    }
    writer.write_buf(out).await?;
    Ok(true)
}

impl Drop for Task {
    /// Also when the runtime is shut down under it: nobody waits for an answer that cannot come.
    fn drop(&mut self) {
        self.core.over(Over::Closed, false);
        self.publish_lease();
        self.states.send_if_modified(|state| {
            let is_news = !state.is_over();
            if is_news {
                *state = SessionState::Closed;
            }
            is_news
        });
    }
}

/// Resolves when some host takes writes, or may: of a server that refuses to say so it can only be
/// found out by connecting, which is tried now and then.
async fn wait_for_better(dialer: Arc<Dialer>, patience: Duration, unprobed: Duration) {
    let since = Instant::now();
    let mut pause = PROBE_PAUSE_MIN;
    loop {
        for host in dialer.hosts() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PROBE_PAUSE_MAX);
            match dialer.is_read_write(host, patience).await {
                Ok(true) => return,
                Err(DialError::ProbeRefused { .. }) if since.elapsed() >= unprobed => {
                    return;
                }
                _ => {}
            }
        }
    }
}
