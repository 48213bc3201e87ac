//! A client's reconfig, on the server that the client is connected to.
//!
//! The leader does it; here the client is answered, in the order of its requests and not before this
//! server has applied the change, so that what the client reads next shows it.

use std::sync::Arc;
use std::time::Duration;

use super::Members;
use super::change::Asker;
use super::plan::{Refusal, Wish};
use crate::client_port::Disconnect;
use crate::client_port::outbox::Outbox;
use crate::replica::Ask;

/// The share of its session's timeout that a client is kept waiting: its pings wait as well, and
/// clients give a connection up after two thirds of the timeout without a word.
const TIMEOUT_SHARE: u32 = 3;
/// A session with a very long timeout is told sooner.
const PATIENCE_MAX: Duration = Duration::from_secs(15);
/// How long this server may take to apply what the leader has applied.
const APPLY_PATIENCE: Duration = Duration::from_secs(5);

/// A client's wish, and where the answer goes.
#[derive(Debug)]
pub struct Change {
    pub outbox: Arc<Outbox>,
    /// Which of the outbox's answers.
    pub ticket: u64,
    pub wish: Wish,
    pub asker: Asker,
    pub session_timeout: Duration,
}

impl Change {
    pub(in crate::consensus) async fn run(self, members: &Arc<Members>) {
        let replica = Arc::clone(&members.replica);
        let patience = (self.session_timeout / TIMEOUT_SHARE).min(PATIENCE_MAX);
        let earlier = replica.writes_applied(&self.outbox, self.ticket);
        let result = match tokio::time::timeout(patience, earlier).await {
            Ok(()) => members.ask_change(self.wish, self.asker, patience).await,
            Err(_) => Err(Refusal::NoQuorum("nothing is being written".to_owned())),
        };
        let ask = match result {
            Ok(zxid) => match replica.wait_applied(zxid, APPLY_PATIENCE).await {
                true => Some(Ask::Configuration),
                false => None,
            },
            Err(refusal) => {
                tracing::info!(client = %self.outbox.peer(), %refusal, "a reconfig was refused");
                refusal.code().map(Ask::Refused)
            }
        };
        match ask {
            Some(ask) => replica.settle(&self.outbox, self.ticket, ask),
            None => self.outbox.cut(Disconnect::OutcomeUnknown),
        }
    }
}
