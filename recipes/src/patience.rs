//! What a background task does when a request has failed: wait for what would let the next one
//! succeed, or know that there is no next one.
//!
//! The events are the session's states. Only where a connected server refuses ("not now", an ACL, a
//! quota), which nothing announces the end of, is there a pause, doubled each time.

use std::time::Duration;

use quorate_client::environment::Randomness;
use quorate_client::{Client, Error, SessionId, SessionState};

/// Before the second attempt.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause: an operator who has repaired an ACL or a quota does not wait longer.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Pauses between attempts.
#[derive(Debug)]
pub(crate) struct Patience {
    randomness: Randomness,
    next: Duration,
}

impl Patience {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            randomness: client.randomness().clone(),
            next: PAUSE,
        }
    }

    /// An attempt has succeeded.
    pub(crate) fn reset(&mut self) {
        self.next = PAUSE;
    }

    /// Waits until another attempt makes sense, after `error` from a request made with `session`.
    /// `false` if the client has no session any more, and never will.
    ///
    /// Cancel safe.
    pub(crate) async fn outlast(
        &mut self,
        client: &Client,
        session: Option<SessionId>,
        error: &Error,
    ) -> bool {
        if error.needs_new_session() {
            return renewed(client, session).await;
        }
        let mut states = client.states();
        if !states.current().is_connected() {
            // Any other state is worth an attempt, which then waits for the connection.
            return states.next().await.is_some() || !client.state().is_over();
        }
        self.pause().await;
        true
    }

    /// As [`Patience::outlast`], after any error.
    pub(crate) async fn outlast_any(
        &mut self,
        client: &Client,
        session: Option<SessionId>,
        error: &crate::Error,
    ) -> bool {
        match error {
            crate::Error::Client(error) => self.outlast(client, session, error).await,
            _ => {
                self.pause().await;
                true
            }
        }
    }

    /// Waits, and longer the next time.
    pub(crate) async fn pause(&mut self) {
        // Those that failed together come back apart.
        let pause = self.randomness.shorten(self.next);
        self.next = (self.next * 2).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
    }
}

/// Waits for a session other than this one, which has ended. `false` if there will be none.
///
/// Cancel safe.
pub(crate) async fn renewed(client: &Client, ended: Option<SessionId>) -> bool {
    let mut states = client.states();
    loop {
        match states.current() {
            SessionState::Connected { session } | SessionState::Reconnected { session }
                if Some(session) != ended =>
            {
                return true;
            }
            SessionState::AuthFailed | SessionState::Closed => return false,
            _ => {}
        }
        if states.next().await.is_none() {
            return false;
        }
    }
}
