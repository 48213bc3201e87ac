//! What a process that embeds a server may ask of it, and no client can: tests, mostly.

use std::sync::Arc;

use quorate_protocol::{SessionId, Zxid};
use quorate_state::Action;

use super::pump::{self, Leadership};
use super::{Consensus, Stopped, rounds};

impl Consensus {
    /// As leader, ends a session as if it had been silent for its timeout. Returns a point of the log at
    /// which it has ended; `None` where this server does not lead, or cannot do so yet, or no longer.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn expire_session(&self, session: SessionId) -> Result<Option<Zxid>, Stopped> {
        loop {
            let Leadership::Mine { term } = self.leadership() else {
                return Ok(None);
            };
            // A new leader may be yet to apply that the session was opened.
            let Some(index) = rounds::confirm_leadership(&self.raft).await else {
                return Ok(None);
            };
            let wait = self.raft.wait(None);
            let applied = wait.applied_index_at_least(Some(index), "expire a session");
            applied.await.map_err(|_| Stopped)?;
            let (attached_at, applied) = self.replica.inspect(|state| {
                let attached_at = state.session(session).map(|session| session.attached_at);
                (attached_at, state.last_zxid())
            });
            let Some(attached_at) = attached_at else {
                return Ok(Some(applied));
            };
            let action = Action::ExpireSession {
                session,
                attached_at,
            };
            let command = self.author.own(action).ok_or(Stopped)?;
            let refusals = Arc::default();
            pump::write(&self.raft, term, command, Some(&refusals)).await?;
            tokio::select! {
                () = self.replica.until_changed(session, attached_at) => {}
                () = refusals.first() => return Ok(None),
            }
        }
    }

    /// Has this server stand for election at once, unless somebody leads. Nobody has to vote for it.
    pub async fn stand_for_election(&self) {
        // An engine that has ended is elected by nobody.
        self.raft.trigger().elect(true).await.ok();
    }

    /// Resolves when `zxid` has been applied here. Cancel safe.
    pub async fn reach(&self, zxid: Zxid) {
        self.replica.reach(zxid).await;
    }

    /// Tells `on_change` the term in which this server leads, or that it does not, now and whenever
    /// that changes. Resolves when the engine has ended. Cancel safe.
    pub async fn follow_leadership(&self, mut on_change: impl FnMut(Option<u64>)) {
        let mut known = self.leadership();
        loop {
            on_change(match known {
                Leadership::Mine { term } => Some(term),
                Leadership::Other { .. } | Leadership::Unknown => None,
            });
            match pump::leadership_after(&self.raft, self.author.server, known).await {
                Some(now) => known = now,
                None => return,
            }
        }
    }
}
