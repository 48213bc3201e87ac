//! How a client is set up. What contradicts itself is refused here, before anything is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::Zxid;
use quorate_protocol::frame::MAX_FRAME_BYTES_DEFAULT;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use crate::chroot::Chroot;
use crate::client::{Client, Shared};
use crate::connect_string::{ConnectString, ConnectStringError, Host};
use crate::dial::hosts::Hosts;
use crate::dial::{DialError, Dialer};
use crate::environment::{Clock, Connector, Randomness};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::operation::auth_bytes;
use crate::session::core::{Core, Granted, Terms};
use crate::session::lease::LeaseCell;
use crate::session::line::{Limits, Line};
use crate::session::state::SessionState;
use crate::session::task::{OnExpiry, Task};
use crate::session::ticket::SessionTicket;
#[cfg(feature = "tls")]
use crate::tls::TlsOptions;

/// Asked of the server, which may grant another one (between 2 and 20 of its ticks).
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Below this, a lost packet costs the session.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// What the protocol has room for.
const SESSION_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);
/// For the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The least a frame limit can be: a name, an ACL and their headers.
const FRAME_BYTES_MIN: usize = 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The connect string is none.
    #[error(transparent)]
    ConnectString(#[from] ConnectStringError),
    /// Options contradict each other, or are out of range.
    #[error("{option}: {what}")]
    InvalidOption {
        /// Which.
        option: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// No server could be reached in time.
    #[error("no server within {} ms{}", waited.as_millis(), failures_text(.failures))]
    NoServer {
        /// How long it was tried.
        waited: Duration,
        /// The last failure of each host that was tried.
        failures: Vec<(Host, Arc<DialError>)>,
    },
    /// The session of the ticket has ended.
    #[error("the session of the ticket has expired")]
    TicketExpired,
    /// A server does not accept what was to prove who we are.
    #[error("authentication was refused")]
    AuthFailed,
    /// The chroot could not be created.
    #[error("the chroot cannot be created: {0}")]
    Chroot(#[source] Error),
}

/// What has to be done before a client is of use.
async fn prepare(
    client: &Client,
    proves_something: bool,
    create_chroot: bool,
) -> Result<(), ConnectError> {
    let root = client.at_root();
    if proves_something {
        // Whatever comes of it comes after the answer to what we prove.
        let asked = root.exists("/").await;
        if let Err(Error::AuthFailed { .. }) = asked {
            return Err(ConnectError::AuthFailed);
        }
    }
    let chroot = client.chroot().as_str();
    if create_chroot && !chroot.is_empty() {
        let ensured = root.ensure_path(chroot).await;
        ensured.map_err(ConnectError::Chroot)?;
    }
    Ok(())
}

fn failures_text(failures: &[(Host, Arc<DialError>)]) -> String {
    let mut text = String::new();
    for (host, error) in failures {
        text.push_str(&format!("; {host}: {error}"));
    }
    text
}

/// Options of a [`Client`]. See [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "no connection is made before `.connect()`"]
pub struct ClientBuilder {
    connect_string: Result<ConnectString, ConnectStringError>,
    session_timeout: Duration,
    connect_timeout: Duration,
    attempt_timeout: Option<Duration>,
    allow_read_only: bool,
    create_chroot: bool,
    on_expiry: OnExpiry,
    keep_lease: bool,
    limits: Limits,
    frame_bytes_max: usize,
    identities: Vec<Identity>,
    ticket: Option<SessionTicket>,
    metrics: Option<Arc<dyn Metrics>>,
    connector: Option<Arc<dyn Connector>>,
    clock: Clock,
    randomness: Randomness,
    #[cfg(feature = "tls")]
    tls: Option<TlsOptions>,
}

/// What proves who we are. `Debug` does not show it.
#[derive(Clone)]
struct Identity {
    scheme: String,
    proof: Bytes,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(crate) fn new(connect_string: &str) -> Self {
        Self {
            connect_string: connect_string.parse(),
            session_timeout: SESSION_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            attempt_timeout: None,
            allow_read_only: false,
            create_chroot: false,
            on_expiry: OnExpiry::default(),
            keep_lease: false,
            limits: Limits::default(),
            frame_bytes_max: MAX_FRAME_BYTES_DEFAULT,
            identities: Vec::new(),
            ticket: None,
            metrics: None,
            connector: None,
            clock: Clock::system(),
            randomness: Randomness::system(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// How long the session lives on without a connection. 10 seconds by default; the server may
    /// grant another: [`Client::session_timeout`] says which.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How long [`ClientBuilder::connect`] tries. 15 seconds by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one attempt at one host may take. By default the session's timeout, divided by the
    /// number of hosts, and 30 seconds at most.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Makes do with a server that is cut off from the majority, until another one is found.
    pub fn allow_read_only(mut self, allow: bool) -> Self {
        self.allow_read_only = allow;
        self
    }

    /// Creates the chroot, and what is above it, once connected.
    pub fn create_chroot(mut self, create: bool) -> Self {
        self.create_chroot = create;
        self
    }

    /// What happens when the session has expired.
    pub fn on_expiry(mut self, policy: OnExpiry) -> Self {
        self.on_expiry = policy;
        self
    }

    /// Keeps [`Client::lease_deadline`] as far ahead as can be, against Apache ZooKeeper as well,
    /// whose answers to pings prove nothing: a sixth of the session's timeout apart, a `sync` asks
    /// whether the leader can be reached.
    pub fn keep_lease(mut self, keep: bool) -> Self {
        self.keep_lease = keep;
        self
    }

    /// How much may be asked and not answered yet. Beyond it callers wait.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What the servers take in one frame (their `jute.maxbuffer`): a larger request is refused here,
    /// because a server would close the connection. 1,048,575 by default.
    pub fn frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    /// Proves who we are on every connection: `("digest", b"user:password")`. May be called again.
    pub fn authenticate(mut self, scheme: &str, proof: impl AsRef<[u8]>) -> Self {
        self.identities.push(Identity {
            scheme: scheme.to_owned(),
            proof: Bytes::copy_from_slice(proof.as_ref()),
        });
        self
    }

    /// Goes on with a session instead of beginning one.
    pub fn ticket(mut self, ticket: SessionTicket) -> Self {
        self.ticket = Some(ticket);
        self
    }

    /// Is told what happens.
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Makes connections otherwise than by TCP to the hosts: through a proxy, say. With TLS, that is
    /// spoken inside of them.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(Arc::new(connector));
        self
    }

    /// Where the client and the recipes on it read the time: for tests in paused time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Has the client and the recipes on it draw from this seed what they leave to chance: for tests
    /// that are to be replayed. No two clients may have the same. See
    /// [`environment`](crate::environment) for what else that takes.
    pub fn seed(mut self, seed: u64) -> Self {
        self.randomness = Randomness::seeded(seed);
        self
    }

    /// Speaks TLS on every connection.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.tls = Some(options);
        self
    }

    /// Connects, and waits until a server has granted or resumed a session.
    ///
    /// Cancel safe: the session ends, if there is one yet.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let (timeout, create_chroot) = (self.connect_timeout, self.create_chroot);
        let proves_something = !self.identities.is_empty();
        let began = Instant::now();
        let client = self.start()?;
        client.wait_until_connected(timeout).await?;
        // A server may have let us in and then say nothing.
        let prepared = prepare(&client, proves_something, create_chroot);
        let rest = timeout.saturating_sub(began.elapsed());
        match tokio::time::timeout(rest, prepared).await {
            Ok(prepared) => prepared.map(|()| client),
            Err(_) => Err(client.no_server(timeout)),
        }
    }

    /// Begins to connect, and does not wait: what is asked meanwhile waits for the connection.
    /// [`ClientBuilder::create_chroot`] has no effect.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], for what can be known without a server.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn start(self) -> Result<Client, ConnectError> {
        self.check()?;
        let connect_string = self.connect_string?;
        let hosts = connect_string.hosts().to_vec();
        let chroot: Chroot = connect_string.chroot().clone();
        let mut random = self.randomness.generator();
        let order = Hosts::new(hosts.len(), self.randomness.generator());
        let mut dialer = Dialer::new(hosts, &mut random);
        if let Some(connector) = self.connector {
            dialer = dialer.with_connector(connector);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls {
            dialer = dialer.with_tls(tls);
        }
        let line = Arc::new(Line::new(self.limits));
        if self.keep_lease {
            line.keep_lease();
        }
        let terms = Terms {
            timeout: self.session_timeout,
            allow_read_only: self.allow_read_only,
            frame_bytes_max: self.frame_bytes_max,
        };
        let last_zxid = self
            .ticket
            .as_ref()
            .map_or(Zxid::ZERO, |ticket| ticket.last_zxid);
        let resume = self.ticket.as_ref().map(|ticket| Granted {
            id: ticket.id,
            password: ticket.password,
            timeout: self.session_timeout,
        });
        let identities = self.identities.into_iter();
        let identities = identities.map(|identity| (identity.scheme, identity.proof));
        let core = Core::new(
            terms,
            Arc::clone(&line),
            resume,
            last_zxid,
            identities.collect(),
        );
        let (states, seen_states) = watch::channel(SessionState::Connecting);
        let shared = Arc::new(Shared {
            line,
            states: seen_states,
            lease: LeaseCell::default(),
            ticket: Mutex::new(self.ticket),
            timeout: Mutex::new(self.session_timeout),
            failures: Mutex::default(),
            last_zxid: last_zxid.0.into(),
            metrics: self.metrics,
            clock: self.clock,
            randomness: self.randomness,
        });
        let task = Task {
            core,
            states,
            dialer: Arc::new(dialer),
            hosts: order,
            shared: Arc::clone(&shared),
            on_expiry: self.on_expiry,
            attempt_patience: self.attempt_timeout,
            random,
            close_by: None,
        };
        let span = tracing::info_span!("session", id = tracing::field::Empty);
        tokio::spawn(task.run().instrument(span));
        Ok(Client::new(shared, chroot, self.frame_bytes_max))
    }

    fn check(&self) -> Result<(), ConnectError> {
        let invalid = |option, what: String| Err(ConnectError::InvalidOption { option, what });
        let timeout = self.session_timeout;
        if !(SESSION_TIMEOUT_MIN..=SESSION_TIMEOUT_MAX).contains(&timeout) {
            let (min, max) = (
                SESSION_TIMEOUT_MIN.as_millis(),
                SESSION_TIMEOUT_MAX.as_millis(),
            );
            return invalid(
                "session_timeout",
                format!(
                    "{} ms is not between {min} and {max} ms",
                    timeout.as_millis()
                ),
            );
        }
        if self.connect_timeout.is_zero() {
            return invalid("connect_timeout", "no server answers in no time".to_owned());
        }
        if let Some(attempt) = self.attempt_timeout {
            if attempt.is_zero() {
                return invalid("attempt_timeout", "no server answers in no time".to_owned());
            }
            if attempt >= timeout {
                return invalid(
                    "attempt_timeout",
                    format!(
                        "one attempt of {} ms may outlive the session's {} ms: no other server \
                         would be tried in time",
                        attempt.as_millis(),
                        timeout.as_millis()
                    ),
                );
            }
        }
        if self.limits.requests == 0 || self.limits.bytes == 0 {
            return invalid("limits", "nothing could ever be asked".to_owned());
        }
        if self.frame_bytes_max < FRAME_BYTES_MIN {
            return invalid(
                "frame_bytes_max",
                format!("below {FRAME_BYTES_MIN} bytes hardly any request fits"),
            );
        }
        if let Some(identity) = self.identities.iter().find(|i| i.scheme.is_empty()) {
            return invalid("authenticate", format!("{identity:?} names no scheme"));
        }
        for identity in &self.identities {
            let length = auth_bytes(&identity.scheme, &identity.proof);
            if length > self.frame_bytes_max {
                let limit = self.frame_bytes_max;
                let what = format!("{identity:?} takes {length} bytes, servers take {limit}");
                return invalid("authenticate", what);
            }
        }
        Ok(())
    }
}
