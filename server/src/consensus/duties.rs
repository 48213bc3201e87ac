//! What the engine's host does beside it: keeps the addresses of the members, finds out when this
//! server knows all that was agreed on, and, as the leader, writes down who has come.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, Instant as _, ServerState};
use tokio::time::sleep;

use super::gate::View;
use super::membership::plan::Refusal;
use super::types;
use super::{Consensus, Role, membership, rounds};
use crate::peer_port::Answer;
use crate::peer_port::wire::{Rejoin, Standing};
use crate::tasks::on_this_host;

/// How long a leader that was not heard from still counts as one.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);
/// How often what was left undone is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// Rounds that a server which follows asks for while it may go without a majority: one or two of them
/// may fail.
const ROUNDS_PER_LIMIT: u32 = 4;
/// How often the leader looks whether a newcomer has caught up.
const PROMOTION_INTERVAL: Duration = Duration::from_millis(500);
/// How long a new leader may take to apply what it has, before it takes a server in again.
const RETURN_PATIENCE: Duration = Duration::from_secs(5);

impl Consensus {
    /// When the leader of this server was last heard from, on the monotonic clock. 0: never.
    pub fn last_heard_from_leader_ms(&self) -> u64 {
        self.leader_heard_ms.load(Relaxed)
    }

    /// Resolves when this server has applied all that was agreed on before it started, so that what
    /// it serves is not older than what it served before. Cancel safe.
    pub async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        // The sender is ours.
        settled.wait_for(|settled| *settled).await.ok();
    }

    /// Begins the duties of a server among others.
    pub(super) fn take_up_duties(self: &Arc<Self>) {
        self.tasks.spawn(on_this_host(until_stopped(
            Arc::clone(self),
            Arc::clone(self).follow_members(),
        )));
        self.tasks.spawn(on_this_host(until_stopped(
            Arc::clone(self),
            Arc::clone(self).hear_majority(),
        )));
        self.tasks.spawn(on_this_host(until_stopped(
            Arc::clone(self),
            Arc::clone(self).lead_newcomers(),
        )));
    }

    /// Tells the dialling side who is where, as the membership changes.
    async fn follow_members(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        let mut led_by = None;
        loop {
            let (membership, leader) = {
                let now = metrics.borrow_watched();
                let leader = now
                    .current_leader
                    .map(|leader| (leader, now.vote.leader_id.term));
                (now.membership_config.clone(), leader)
            };
            if leader != led_by {
                match leader {
                    Some((leader, term)) => tracing::info!(leader, term, "there is a leader"),
                    None => tracing::info!("there is no leader"),
                }
                led_by = leader;
            }
            let nodes: BTreeMap<u64, String> = membership
                .nodes()
                .filter(|(server, _)| **server != self.author.server)
                .map(|(server, node)| (*server, node.peer_address()))
                .collect();
            // A server that has left may come back with other data.
            self.seen
                .lock()
                .retain(|server, _| nodes.contains_key(server));
            // Before the first membership there is nobody to talk to.
            if !nodes.is_empty() {
                self.peers.set_members(nodes);
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reads what a majority has agreed on by now, and applies it, again and again.
    ///
    /// The first time it is what this server has to have before it serves. Looking at our own log alone
    /// would not do: it may have applied, and shown, what was not yet on its own disk. Later it is so
    /// that what is served is never older than the limit. Hearing from the leader would not do: that
    /// one may have been left by the majority, and goes on telling so to whom it reaches.
    async fn hear_majority(self: Arc<Self>) {
        let interval = self.isolation_limit / ROUNDS_PER_LIMIT;
        loop {
            let begun_ms = self.clock.monotonic_ms();
            let server = self.author.server;
            // It hears who acknowledges what it sends.
            let leads = *self.settled.borrow() && self.role() == Role::Leader;
            let confirmed = match leads {
                true => None,
                false => rounds::confirm(&self.raft, server, &self.peers, Vec::new()).await,
            };
            let is_heard = match confirmed {
                Some(index) => {
                    let wait = self.raft.wait(None);
                    let applied = wait.applied_index_at_least(Some(index), "hear");
                    applied.await.is_ok()
                }
                None => false,
            };
            if is_heard {
                self.note_majority(begun_ms);
                self.settled
                    .send_if_modified(|settled| !std::mem::replace(settled, true));
            }
            let is_settled = *self.settled.borrow();
            let took_ms = self.clock.monotonic_ms().saturating_sub(begun_ms);
            let pause = match is_heard || leads {
                // It counts from its beginning, and applying what it told of may have taken long.
                true => interval.saturating_sub(Duration::from_millis(took_ms)),
                // Nobody waits for it any more, and a server that was removed never hears of one.
                false if is_settled => interval / ROUNDS_PER_LIMIT,
                false => RETRY,
            };
            self.pause_under_one_leader(pause).await;
        }
    }

    /// Waits, but not beyond a change of leader: a server that has just found its way back hears of a
    /// majority at once, not when its time is up.
    async fn pause_under_one_leader(&self, pause: Duration) {
        let mut metrics = self.raft.server_metrics();
        let led_by = metrics.borrow_watched().current_leader;
        let led_by_another = async {
            while metrics.changed().await.is_ok() {
                let leader = metrics.borrow_watched().current_leader;
                if leader.is_some() && leader != led_by {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = led_by_another => {}
        }
    }

    /// As the leader: writes down the incarnation of every server that has presented itself, and gives
    /// those that were taken in again, and have caught up, their vote.
    async fn lead_newcomers(self: Arc<Self>) {
        let mut roles = self.raft.server_metrics();
        loop {
            if self.role() != Role::Leader {
                if roles.changed().await.is_err() {
                    return;
                }
                continue;
            }
            self.admit_seen().await;
            self.take_in_returning().await;
            self.promote_newcomers().await;
            tokio::select! {
                () = self.newcomer.notified() => {}
                () = sleep(PROMOTION_INTERVAL) => {}
            }
        }
    }

    async fn admit_seen(&self) {
        let seen = self.seen.lock().clone();
        for (server, incarnation) in seen {
            if self.known_incarnation(server).is_none() {
                self.admit_incarnation(server, incarnation).await;
            }
        }
    }

    /// Servers that are to vote and do not yet: they were taken in again. Those that a client adds or
    /// removes are none of these: see [`super::membership`].
    async fn promote_newcomers(&self) {
        let newcomers = self.caught_up_newcomers();
        if newcomers.is_empty() {
            return;
        }
        let _turn = self.members.take_turn().await;
        for server in newcomers {
            let change = ChangeMembers::AddVoterIds([server].into());
            match self.raft.change_membership(change, true).await {
                Ok(_) => tracing::info!(server, "a server has caught up, and votes from now on"),
                Err(error) => tracing::debug!(%error, server, "no vote yet"),
            }
        }
    }

    fn caught_up_newcomers(&self) -> Vec<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let voters: Vec<u64> = members.voter_ids().collect();
        let is_returning = |server| {
            let mut nodes = members.nodes();
            nodes.any(|(_, node)| node.returning.contains_key(server))
        };
        members
            .nodes()
            .filter(|(server, _)| !is_returning(*server))
            .filter(|(server, node)| !voters.contains(server) && !node.observer)
            .filter(|(_, node)| node.standing == types::Standing::Member)
            .map(|(server, _)| *server)
            .filter(|server| membership::caught_up(&metrics, *server))
            .collect()
    }

    /// Takes a server in whose data is gone: without a vote first, as it has forgotten what it voted
    /// and acknowledged. It may ask again, as long as it has not been told.
    pub(super) async fn take_in_again(&self, rejoin: Rejoin) -> Answer {
        let refuse = |reason: &str| Answer::Refused {
            reason: reason.to_owned(),
        };
        if self.role() != Role::Leader {
            return Answer::NotLeader;
        }
        let server = rejoin.server;
        if rejoin.cluster != self.cluster {
            return refuse("it asks for another ensemble");
        }
        if server == self.author.server {
            return refuse("another server has its id, and leads: give each its own id");
        }
        let _turn = self.members.take_turn().await;
        // It, or another, may have been taken out before.
        if let Err(refusal) = self.bring_back_returning().await {
            tracing::debug!(%refusal, server, "a server is not taken in again yet");
            return Answer::NotLeader;
        }
        let is_member = self.members.has(server);
        match self.known_incarnation(server) {
            Some(known) if known == rejoin.incarnation && is_member => return Answer::Done,
            Some(known) if known >= rejoin.incarnation => {
                return refuse("its new data would be older than the one it is known by");
            }
            _ if !is_member => return refuse("it is no member: add it as a new server"),
            _ => {}
        }
        let taken_in = match self.members.take_out(server, rejoin.incarnation).await {
            Ok(()) => self.bring_back_returning().await,
            refused => refused,
        };
        match taken_in {
            Ok(()) => Answer::Done,
            Err(refusal) => {
                tracing::warn!(%refusal, server, "a server was not taken in again");
                Answer::NotLeader
            }
        }
    }

    /// Goes on with what the leader before has begun.
    async fn take_in_returning(&self) {
        if self.members.returning().is_none() {
            return;
        }
        let _turn = self.members.take_turn().await;
        if let Err(refusal) = self.bring_back_returning().await {
            tracing::debug!(%refusal, "a server is not taken in again yet");
        }
    }

    /// As the leader, with the turn: brings all back in that were taken out.
    async fn bring_back_returning(&self) -> Result<(), Refusal> {
        let deadline = tokio::time::Instant::now() + RETURN_PATIENCE;
        self.members.catch_up_as_leader(deadline).await?;
        while let Some((server, incarnation)) = self.members.returning() {
            // Another leader may have got half-way.
            self.members.take_out(server, incarnation).await?;
            let is_known = self.known_incarnation(server) >= Some(incarnation);
            if !is_known && !self.admit_incarnation(server, incarnation).await {
                return Err(Refusal::NotLeader);
            }
            self.members.put_back(server).await?;
            tracing::info!(server, "a server that has lost its data is taken in again");
        }
        Ok(())
    }
}

/// Runs `duty` until the server stops.
async fn until_stopped(consensus: Arc<Consensus>, duty: impl Future<Output = ()>) {
    tokio::select! {
        () = duty => {}
        () = consensus.stop.cancelled() => {}
    }
}

impl fmt::Debug for Consensus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Consensus");
        debug
            .field("server", &self.author.server)
            .finish_non_exhaustive()
    }
}

impl View for Consensus {
    fn standing(&self) -> Standing {
        if *self.settled.borrow() {
            return Standing::Settled;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // The membership that a server is founded with is entry 0, and stands there before any vote.
        match (metrics.last_log_index, metrics.vote.committed) {
            (None, false) => Standing::New,
            (Some(0), false) => Standing::Founding,
            _ => Standing::Unsettled,
        }
    }

    fn incarnation_of(&self, server: u64) -> Option<u64> {
        // Until the log has it, what this server has seen counts: that one may have voted already.
        self.known_incarnation(server)
            .or_else(|| self.seen.lock().get(&server).copied())
    }

    fn is_member(&self, server: u64) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let mut nodes = metrics.membership_config.nodes();
        nodes.any(|(member, _)| *member == server)
    }

    fn is_current(&self, server: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == ServerState::Leader {
            // One that a majority has left does not know it by itself.
            let is_alone = metrics
                .membership_config
                .voter_ids()
                .eq([self.author.server]);
            let acknowledged = metrics.last_quorum_acked.as_ref();
            return is_alone || acknowledged.is_some_and(|at| at.elapsed() < LEADER_PATIENCE);
        }
        let now_ms = self.clock.monotonic_ms();
        let silence = Duration::from_millis(now_ms - self.last_heard_from_leader_ms().min(now_ms));
        let follows = metrics
            .current_leader
            .is_some_and(|leader| leader != server);
        *self.settled.borrow() && follows && silence < LEADER_PATIENCE
    }

    fn on_seen(&self, server: u64, incarnation: u64) -> bool {
        // A server that has left is forgotten: it may come back with other data.
        if !self.is_member(server) {
            return true;
        }
        match self.seen.lock().entry(server) {
            Entry::Occupied(seen) => *seen.get() == incarnation,
            Entry::Vacant(new) => {
                new.insert(incarnation);
                self.newcomer.notify_one();
                true
            }
        }
    }
}
