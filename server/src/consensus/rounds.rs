//! Rounds: what a majority has to confirm before it is answered, though nothing is written.
//!
//! A round asks the leader, and the leader a majority, whether it still leads. It begins after the
//! questions that it answers have come in, and it carries the sessions that showed life here, so when
//! it is confirmed
//!
//! - a ping may be acknowledged: the leader has the touch, and was the leader when it took it;
//! - a sync, or a read that must be linearizable, may be answered once what was committed then is
//!   applied here.
//!
//! One round is under way at a time, and all who come meanwhile share the next: thousands of clients
//! cost no more rounds than one. Without a question there is no round, but for the few by which a server
//! that follows makes sure that its leader still has a majority. Where no majority answers, nobody
//! is answered: clients wait, and go elsewhere when they have waited for too long.
//!
//! The bound is that of requests per connection.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::ReadPolicy;
use parking_lot::Mutex;
use quorate_protocol::SessionId;
use quorate_state::canary::{Canary, planted};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::applier::Zxids;
use super::pump::{Leadership, leadership, leadership_after};
use super::{Author, Raft};
use crate::client_port::outbox::Outbox;
use crate::clock::Clock;
use crate::peer_port::{Answer, Peers, Question};
use crate::replica::Replica;
use crate::session_tracker::SessionTracker;

/// How long one round may take. Beyond, it is begun anew, perhaps with another leader.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between rounds that fail.
const PAUSE: Duration = Duration::from_millis(20);
/// Rounds confirmed whose entries are not applied yet.
const UNAPPLIED_MAX: usize = 1024;

/// Who waits for a round.
#[derive(Debug)]
pub struct Waiter {
    pub outbox: Arc<Outbox>,
    /// Which of the outbox's answers: see [`Outbox`].
    pub ticket: u64,
    pub session: SessionId,
    /// The answer tells of the state, so what was committed has to be applied first.
    pub sees_state: bool,
}

/// The questions for the next round.
#[derive(Debug, Default)]
pub struct Rounds {
    waiting: Mutex<Vec<Waiter>>,
    asked: Notify,
}

impl Rounds {
    pub fn ask(&self, waiter: Waiter) {
        let mut waiting = self.waiting.lock();
        waiting.push(waiter);
        let is_first = waiting.len() == 1;
        drop(waiting);
        if is_first {
            self.asked.notify_one();
        }
    }
}

/// The task that runs them.
pub(super) struct Runner {
    pub(super) raft: Raft,
    pub(super) author: Author,
    pub(super) rounds: Arc<Rounds>,
    pub(super) replica: Arc<Replica>,
    pub(super) sessions: Arc<SessionTracker>,
    pub(super) zxids: Arc<Zxids>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) peers: Peers,
    /// How often touches go to the leader that nobody waits for.
    pub(super) flush: Duration,
}

impl Runner {
    pub(super) async fn run(self, stop: CancellationToken) {
        let (confirmed, unapplied) = mpsc::channel(UNAPPLIED_MAX);
        let (replica, zxids) = (Arc::clone(&self.replica), Arc::clone(&self.zxids));
        let answer = answer_when_applied(replica, zxids, unapplied);
        tokio::select! {
            () = self.turn(confirmed) => {}
            () = answer => {}
            () = stop.cancelled() => {}
        }
    }

    async fn turn(&self, confirmed: mpsc::Sender<(u64, Vec<Waiter>)>) {
        let mut flushed_ms = self.clock.monotonic_ms();
        let mut flush = tokio::time::interval(self.flush);
        // After a round that took long, one flush makes up for those that were missed.
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.rounds.asked.notified() => {}
                _ = flush.tick() => {}
            }
            let mut waiters = std::mem::take(&mut *self.rounds.waiting.lock());
            let now_ms = self.clock.monotonic_ms();
            let mut touched: Vec<SessionId> = waiters.iter().map(|w| w.session).collect();
            let flushes = now_ms.saturating_sub(flushed_ms) >= millis(self.flush);
            if flushes && !planted(Canary::FollowerReadsDoNotTouch) {
                touched.extend(self.sessions.touched_since(flushed_ms));
            }
            let leads = matches!(self.leadership(), Leadership::Mine { .. });
            if waiters.is_empty() && (leads || touched.is_empty()) {
                continue;
            }
            let touched = touched.into_iter().map(SessionId::get).collect();
            match confirm(&self.raft, self.author.server, &self.peers, touched).await {
                Some(index) => {
                    // Only now: touches that did not get through go with the next round.
                    if flushes {
                        flushed_ms = now_ms;
                    }
                    if planted(Canary::ReusedReadIndex) {
                        waiters.append(&mut self.rounds.waiting.lock());
                    }
                    if confirmed.send((index, waiters)).await.is_err() {
                        return;
                    }
                }
                None => self.put_back(waiters).await,
            }
        }
    }

    fn leadership(&self) -> Leadership {
        leadership(&self.raft, self.author.server)
    }

    /// Those whose connection still stands wait for the next round.
    async fn put_back(&self, mut waiters: Vec<Waiter>) {
        waiters.retain(|waiter| self.replica.is_connected(waiter.outbox.number()));
        let now = self.leadership();
        {
            let mut waiting = self.rounds.waiting.lock();
            waiters.append(&mut waiting);
            *waiting = waiters;
            if waiting.is_empty() {
                return;
            }
        }
        self.rounds.asked.notify_one();
        let changed = leadership_after(&self.raft, self.author.server, now);
        // Either may be what the next attempt needs.
        let _ = tokio::time::timeout(PAUSE, changed).await;
        // Of an engine that has ended there is no more news, and nothing to wait for.
        if self.leadership() == now {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Gives the answers of confirmed rounds, in the order of the rounds.
async fn answer_when_applied(
    replica: Arc<Replica>,
    zxids: Arc<Zxids>,
    mut confirmed: mpsc::Receiver<(u64, Vec<Waiter>)>,
) {
    while let Some((index, mut waiters)) = confirmed.recv().await {
        let zxid = zxids.zxid(index);
        if replica.last_zxid() < zxid {
            // What does not tell of the state need not wait for it.
            let see_state = |waiter: &mut Waiter| !waiter.sees_state;
            for waiter in waiters.extract_if(.., see_state) {
                replica.confirm(&waiter.outbox, waiter.ticket);
            }
            if waiters.is_empty() {
                continue;
            }
            replica.reach(zxid).await;
        }
        for waiter in waiters {
            replica.confirm(&waiter.outbox, waiter.ticket);
        }
    }
}

/// One round, with whoever leads: the index up to which entries were committed when it began, or
/// later. `touched` are sessions that showed life here.
pub(super) async fn confirm(
    raft: &Raft,
    server: u64,
    peers: &Peers,
    touched: Vec<i64>,
) -> Option<u64> {
    match leadership(raft, server) {
        Leadership::Mine { .. } => confirm_leadership(raft).await,
        now @ Leadership::Other { leader, .. } => {
            let question = Question::Round { touched };
            let answered = tokio::select! {
                biased;
                answered = peers.ask(leader, question, PATIENCE) => answered,
                // One that was lost without a word is not waited for when there is another.
                Some(_) = leadership_after(raft, server, now) => return None,
            };
            match answered {
                Ok(Answer::Confirmed { index }) => Some(index),
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!(%error, leader, "a round was not confirmed");
                    None
                }
            }
        }
        Leadership::Unknown => None,
    }
}

/// Asks a majority whether this server still leads; as leader it then knows what is committed.
pub(super) async fn confirm_leadership(raft: &Raft) -> Option<u64> {
    if planted(Canary::ReadIndexWithoutQuorum) {
        return Some(raft.metrics().borrow_watched().last_applied?.index);
    }
    let round = raft.get_read_linearizer(ReadPolicy::ReadIndex);
    let linearizer = tokio::time::timeout(PATIENCE, round).await.ok()?.ok()?;
    Some(linearizer.read_log_id().index())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
