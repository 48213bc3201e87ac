//! Requests, as their callers make them.
//!
//! Each is a builder. It takes its place among all requests of the client when [`send`] is called on
//! it, or when it is awaited, and not when the future that comes of it is first polled. So what is
//! sent first is done first, and dropping the future of a request that was not sent yet leaves it
//! undone:
//!
//! ```
//! # use quorate_client::{Client, Error};
//! # async fn example(client: &Client) -> Result<(), Error> {
//! let set = client.set("/config", b"new").send();
//! let get = client.get("/config").send();
//! // In either order: the answers come in the order of sending.
//! let (data, _) = get.await?;
//! set.await?;
//! assert_eq!(&data[..], b"new");
//! # Ok(())
//! # }
//! ```
//!
//! [`send`]: Get::send

mod admin;
mod create;
mod read;
mod write;

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use quorate_protocol::{PathError, Request, Stat, ZnodePath, jute};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use self::admin::auth_bytes;
pub use self::admin::{Authenticate, Reconfigure, WhoAmI};
pub use self::create::{Create, Created};
pub(crate) use self::create::{Plan, created as seen_created};
pub use self::read::{
    Children, ChildrenCount, Ephemerals, Exists, Get, GetAcl, GetWithoutData, Sync, Watch, Watched,
};
pub use self::write::{Delete, Set, SetAcl};

use crate::client::Client;
use crate::environment::Randomness;
use crate::error::{Error, Outcome, Target};
use crate::session::line::{Answer, Call, Parked};
use crate::watch::registry::Interest;

/// How often, and after which pauses, a request is made again that failed without having been
/// applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// In all, the first time included.
    pub attempts: u32,
    /// Before the second attempt; doubled each time.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for Retry {
    /// Five attempts, 50 ms, one second.
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(50),
            pause_max: Duration::from_secs(1),
        }
    }
}

impl Retry {
    fn pauses(self) -> impl Iterator<Item = Duration> {
        let pauses = std::iter::successors(Some(self.pause), move |pause| {
            Some(pause.saturating_mul(2).min(self.pause_max))
        });
        pauses.take(self.attempts.saturating_sub(1) as usize)
    }
}

/// Pauses between attempts that go on until something decides.
#[derive(Debug)]
pub(crate) struct Backoff {
    randomness: Randomness,
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Doubles from 50 ms up to `max`.
    pub(crate) fn new(client: &Client, max: Duration) -> Self {
        Self {
            randomness: client.randomness().clone(),
            next: Retry::default().pause,
            max,
        }
    }

    pub(crate) async fn wait(&mut self) {
        pause(&self.randomness, self.next).await;
        self.next = (self.next * 2).min(self.max);
    }
}

/// Waits for so long, less up to a half at random: clients that failed together come back apart.
async fn pause(randomness: &Randomness, span: Duration) {
    tokio::time::sleep(randomness.shorten(span)).await;
}

/// What a request does when there is no connection, or no more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) wait: Wait,
    pub(crate) idempotent: bool,
    pub(crate) retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Wait {
    /// As long as the session may live without a connection.
    #[default]
    SessionTimeout,
    FailFast,
    For(Duration),
}

/// A request that can be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) target: Target,
    pub(crate) request: Request,
    pub(crate) interest: Option<Interest>,
}

pub(crate) type Decode<T> = fn(Answer, &Client) -> Result<T, String>;

/// What an operation is made of.
pub(crate) trait Prepare {
    type Output: Send + 'static;

    fn prepare(&self, client: &Client) -> Result<Prepared, Error>;

    fn decode(answer: Answer, client: &Client) -> Result<Self::Output, String>;
}

/// The methods that all operations have.
macro_rules! operation {
    ($name:ident, $output:ty) => {
        impl $name {
            fn send_plainly(self) -> $crate::operation::Sent<$output> {
                $crate::operation::send(&self, &self.client, self.policy)
            }
        }

        $crate::operation::operation!($name, send_plainly, $output);
    };
    ($name:ident, $send:ident, $output:ty) => {
        impl $name {
            /// Fails as soon as there is no connection, instead of waiting for one.
            #[must_use = "nothing is sent before `.send()` or `.await`"]
            pub fn fail_fast(mut self) -> Self {
                self.policy.wait = $crate::operation::Wait::FailFast;
                self
            }

            /// Waits for a connection for so long: from now, and again from when the one is lost on
            /// which it was sent first. By default for the session's timeout.
            #[must_use = "nothing is sent before `.send()` or `.await`"]
            pub fn wait_for_reconnect(mut self, limit: std::time::Duration) -> Self {
                self.policy.wait = $crate::operation::Wait::For(limit);
                self
            }

            /// Says that doing it twice is as good as once: it is sent again when the connection is
            /// lost before the answer. Reads always are. If it is refused then, the first time may
            /// be why: [`Error::outcome`](crate::Error::outcome) is not known.
            #[must_use = "nothing is sent before `.send()` or `.await`"]
            pub fn idempotent(mut self) -> Self {
                self.policy.idempotent = true;
                self
            }

            /// Takes its place among the client's requests, now.
            ///
            /// Cancel safe: dropping the future of a request that was not sent yet leaves it undone;
            /// of one that was sent only the answer is lost.
            pub fn send(self) -> $crate::operation::Sent<$output> {
                self.$send()
            }
        }

        impl IntoFuture for $name {
            type Output = Result<$output, $crate::error::Error>;
            type IntoFuture = $crate::operation::Sent<$output>;

            fn into_future(self) -> Self::IntoFuture {
                self.send()
            }
        }
    };
}

/// [`Retry`], for operations that can be made again.
macro_rules! retried {
    ($name:ident) => {
        impl $name {
            /// Makes it again when it failed for a reason that may pass and was not applied; with
            /// [`idempotent`](Self::idempotent) also when it may have been. A repetition takes a new
            /// place among the client's requests.
            #[must_use = "nothing is sent before `.send()` or `.await`"]
            pub fn retry(mut self, retry: $crate::operation::Retry) -> Self {
                self.policy.retry = Some(retry);
                self
            }
        }
    };
}

pub(crate) use {operation, retried};

/// A request under way: resolves to its answer.
///
/// Cancel safe; see [`Get::send`].
#[must_use = "the answer is lost otherwise"]
pub struct Sent<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    Failed(Option<Error>),
    Waiting(Box<Waiting<T>>),
    Driven(Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>),
}

struct Waiting<T> {
    client: Client,
    target: Target,
    receiver: oneshot::Receiver<Result<Answer, Error>>,
    parked: Option<Arc<Parked>>,
    made: Instant,
    decode: Decode<T>,
    output: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Sent<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sent").finish_non_exhaustive()
    }
}

impl<T> Unpin for Sent<T> {}

impl<T> Sent<T> {
    pub(crate) fn failed(error: Error) -> Self {
        Self {
            inner: Inner::Failed(Some(error)),
        }
    }

    pub(crate) fn driven(future: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self {
            inner: Inner::Driven(Box::pin(future)),
        }
    }
}

impl<T> Future for Sent<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.inner {
            Inner::Driven(future) => future.as_mut().poll(context),
            Inner::Waiting(waiting) => waiting.poll(context),
            Inner::Failed(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}

impl<T> Waiting<T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, Error>> {
        let answer = ready!(Pin::new(&mut self.receiver).poll(context));
        self.parked = None;
        let target = || self.target.clone();
        let result = match answer {
            Ok(Ok(answer)) => {
                (self.decode)(answer, &self.client).map_err(|what| Error::BadAnswer {
                    target: target(),
                    what,
                })
            }
            Ok(Err(error)) => Err(error),
            // The task ended without a word: the runtime is being shut down.
            Err(_) => Err(Error::Closed {
                target: target(),
                sent: true,
            }),
        };
        if let Err(error) = &result {
            tracing::debug!(%error, "a request has failed");
        }
        if let Some(metrics) = &self.client.shared().metrics {
            let outcome = match &result {
                Ok(_) => Outcome::Applied,
                Err(error) => error.outcome(),
            };
            metrics.on_request(self.target.operation(), outcome, self.made.elapsed());
        }
        Poll::Ready(result)
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        if let Some(parked) = self.parked.take() {
            self.client.shared().line.forget(&parked);
        }
    }
}

/// Sends an operation, and with a retry policy again.
pub(crate) fn send<P: Prepare>(operation: &P, client: &Client, policy: Policy) -> Sent<P::Output> {
    let prepared = match operation.prepare(client) {
        Ok(prepared) => prepared,
        Err(error) => return Sent::failed(error),
    };
    let Prepared {
        target,
        request,
        interest,
    } = prepared;
    let Some(retry) = policy.retry else {
        return send_once(client, target, &request, interest, policy, P::decode);
    };
    let client = client.clone();
    let first = send_once(
        &client,
        target.clone(),
        &request,
        interest,
        policy,
        P::decode,
    );
    Sent::driven(async move {
        let mut result = first.await;
        let mut is_unknown = false;
        for span in retry.pauses() {
            match &result {
                Err(error)
                    if error.is_retryable()
                        && (policy.idempotent || error.outcome() == Outcome::NotApplied) => {}
                _ => return result,
            }
            is_unknown |= is_unknown_of(&result);
            pause(client.randomness(), span).await;
            let target = target.clone();
            result = send_once(&client, target, &request, None, policy, P::decode).await;
            if is_unknown {
                result = result.map_err(Error::after_unknown);
            }
        }
        result
    })
}

pub(crate) fn is_unknown_of<T>(result: &Result<T, Error>) -> bool {
    let outcome = result.as_ref().err().map(Error::outcome);
    outcome == Some(Outcome::Unknown)
}

pub(crate) fn send_once<T>(
    client: &Client,
    target: Target,
    request: &Request,
    interest: Option<Interest>,
    policy: Policy,
    decode: Decode<T>,
) -> Sent<T> {
    let shared = client.shared();
    let mut body = BytesMut::with_capacity(128);
    if let Err(error) = request.encode(&mut body) {
        let what = error.to_string();
        return Sent::failed(Error::BadAnswer { target, what });
    }
    let limit = client.frame_bytes_max();
    // With the header in front of it.
    let length = body.len() + 8;
    if length > limit {
        return Sent::failed(Error::TooLarge {
            target,
            length,
            limit,
        });
    }
    let made = Instant::now();
    let patience = match policy.wait {
        Wait::SessionTimeout => Some(client.session_timeout()),
        Wait::FailFast => None,
        Wait::For(limit) => Some(limit),
    };
    let (reply, receiver) = oneshot::channel();
    let parked = shared.line.join(Call {
        op: request.op(),
        body: body.freeze(),
        patience,
        send_by: patience.map(|patience| made + patience),
        was_sent: false,
        may_repeat: policy.idempotent || !target.is_write(),
        interest,
        reply: Some(reply),
        target: target.clone(),
    });
    Sent {
        inner: Inner::Waiting(Box::new(Waiting {
            client: client.clone(),
            target,
            receiver,
            parked,
            made,
            decode,
            output: PhantomData,
        })),
    }
}

/// The path on the wire, or what is wrong with it.
pub(crate) fn absolute(client: &Client, target: &Target, path: &str) -> Result<String, Error> {
    ZnodePath::check(path).map_err(|source| invalid_path(target, source))?;
    Ok(client.chroot().absolute(path).into_owned())
}

pub(crate) fn invalid_path(target: &Target, source: PathError) -> Error {
    Error::InvalidPath {
        target: target.clone(),
        source,
    }
}

/// Decodes a whole answer.
pub(crate) fn decoded<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, String> {
    jute::decode(&answer.body).map_err(|error| error.to_string())
}

/// Data and stat, the data without copying.
pub(crate) fn data_and_stat(mut body: Bytes) -> Result<(Option<Bytes>, Stat), String> {
    const CUT_OFF: &str = "the answer is cut off";
    let length = body.try_get_i32().map_err(|_| CUT_OFF)?;
    let data = match usize::try_from(length) {
        Ok(length) if length <= body.len() => Some(body.split_to(length)),
        Ok(_) => return Err(CUT_OFF.to_owned()),
        Err(_) => None,
    };
    let stat = jute::decode(&body).map_err(|error| error.to_string())?;
    Ok((data, stat))
}
