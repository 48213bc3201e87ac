//! What a session's owner has to know about it.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use quorate_protocol::SessionId;
use tokio::sync::watch;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// No server has been reached yet.
    Connecting,
    /// A new session, connected.
    Connected {
        /// The session.
        session: SessionId,
    },
    /// Connected to a server that is cut off from the majority: it answers reads, perhaps with what
    /// is no longer true. Only where the client was told that this will do.
    ReadOnly,
    /// The connection is lost. The session, its ephemeral znodes and watches may live on; whether
    /// they do, only a server can tell.
    Suspended,
    /// Connected again, with the same session.
    Reconnected {
        /// The session.
        session: SessionId,
    },
    /// The session has ended, and its ephemeral znodes and one-shot watches with it. Depending on
    /// [`OnExpiry`](crate::OnExpiry) this is the last state, or a new session follows.
    Expired,
    /// Authentication was refused. The last state.
    AuthFailed,
    /// The client was closed. The last state.
    Closed,
}

impl SessionState {
    /// Whether requests are answered now.
    pub fn is_connected(self) -> bool {
        matches!(
            self,
            Self::Connected { .. } | Self::Reconnected { .. } | Self::ReadOnly
        )
    }

    /// Whether this is the last state, with a policy that does not begin a new session.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Expired | Self::AuthFailed | Self::Closed)
    }
}

/// The states of a session, as they come.
///
/// A reader that is slow misses states in between, never the latest. Ends when the session is over
/// for good.
#[derive(Debug)]
pub struct SessionStates {
    receiver: watch::Receiver<SessionState>,
    changed: ChangedFuture,
}

type ChangedFuture = tokio_util::sync::ReusableBoxFuture<
    'static,
    (
        Result<(), watch::error::RecvError>,
        watch::Receiver<SessionState>,
    ),
>;

async fn changed(
    mut receiver: watch::Receiver<SessionState>,
) -> (
    Result<(), watch::error::RecvError>,
    watch::Receiver<SessionState>,
) {
    let result = receiver.changed().await;
    (result, receiver)
}

impl SessionStates {
    pub(crate) fn new(mut receiver: watch::Receiver<SessionState>) -> Self {
        receiver.mark_unchanged();
        let changed = ChangedFuture::new(changed(receiver.clone()));
        Self { receiver, changed }
    }

    /// The state now.
    pub fn current(&self) -> SessionState {
        *self.receiver.borrow()
    }

    /// Waits for the next state; `None` once there will be no other. Cancel safe.
    pub async fn next(&mut self) -> Option<SessionState> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for SessionStates {
    type Item = SessionState;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (result, mut receiver) = std::task::ready!(self.changed.poll(context));
        let state = result.ok().map(|()| *receiver.borrow_and_update());
        self.changed.set(changed(receiver));
        Poll::Ready(state)
    }
}
