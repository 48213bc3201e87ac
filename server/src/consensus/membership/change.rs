//! Changes of the members: one at a time, by the leader.
//!
//! Servers that are to vote join as learners and catch up; then all of the change takes effect at
//! once, by the engine's joint consensus. Servers that leave are told so by the same entry, and are
//! forgotten by the upkeep ([`super::upkeep`]). What is begun goes on when whoever asked has lost
//! patience; what a leader leaves behind half-done, the next one ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use quorate_protocol::{Id, Perms, Zxid};
use quorate_state::{State, permits};
use tokio::time::Instant;

use super::plan::{Plan, Refusal, Wish, plan};
use super::{Members, Metrics, caught_up, hears, is_member, lag, matched, returning};
use crate::consensus::rounds;
use crate::consensus::types::{LogId, Membership, PeerNode, Standing, TypeConfig};
use crate::peer_port::{Answer, Question};

/// Path of the znode whose ACL says who may change the members.
const CONFIG_PATH: &str = "/zookeeper/config";

/// Between attempts to reach a leader.
const PAUSE: Duration = Duration::from_millis(50);
/// What the leader is given beyond what it was told to take: its answer has to come back.
const ANSWER_SLACK: Duration = Duration::from_millis(500);

type ChangeResult = Result<
    openraft::raft::ClientWriteResponse<TypeConfig>,
    RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
>;

/// Who asks for a change.
#[derive(Clone, Debug)]
pub struct Asker {
    pub identities: Arc<[Id]>,
    /// `skipACL` of the server the client is connected to.
    pub skip_acl: bool,
}

/// There is one at most.
pub(super) struct Claim<'a>(&'a AtomicBool);

impl<'a> Claim<'a> {
    fn take(flag: &'a AtomicBool) -> Option<Self> {
        flag.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
            .map(|_| Self(flag))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Members {
    /// Has the leader, wherever it is, change the members. The zxid of the new configuration.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; never [`Refusal::NotLeader`].
    pub async fn ask_change(
        self: &Arc<Self>,
        wish: Wish,
        asker: Asker,
        patience: Duration,
    ) -> Result<Zxid, Refusal> {
        if !self.rules.reconfig_enabled {
            return Err(Refusal::Disabled);
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let leader = self.leader();
            let result = match leader {
                Some(leader) if leader == self.server => {
                    self.change(wish.clone(), asker.clone(), left).await
                }
                Some(leader) => self.ask_leader(leader, &wish, &asker, left).await,
                None => Err(Refusal::NotLeader),
            };
            match result {
                Err(Refusal::NotLeader) if left > PAUSE => tokio::time::sleep(PAUSE).await,
                Err(Refusal::NotLeader) => {
                    return Err(Refusal::NoQuorum("there is no leader".to_owned()));
                }
                result => return result,
            }
        }
    }

    async fn ask_leader(
        &self,
        leader: u64,
        wish: &Wish,
        asker: &Asker,
        patience: Duration,
    ) -> Result<Zxid, Refusal> {
        let question = Question::Reconfig(wish.to_wire(asker, patience));
        let asked = self.peers.ask(leader, question, patience + ANSWER_SLACK);
        match asked.await {
            Ok(Answer::Reconfigured { zxid }) => Ok(Zxid(zxid)),
            Ok(Answer::NotReconfigured { code, reason }) => Err(Refusal::ByLeader { code, reason }),
            Ok(Answer::NotLeader) => Err(Refusal::NotLeader),
            Err(error) if error.is_unsent() => Err(Refusal::NotLeader),
            Ok(_) | Err(_) => Err(Refusal::Unknown),
        }
    }

    /// Answers [`Question::Reconfig`].
    pub async fn answer_change(
        self: &Arc<Self>,
        wish: Wish,
        asker: Asker,
        patience: Duration,
    ) -> Answer {
        match self.change(wish, asker, patience).await {
            Ok(zxid) => Answer::Reconfigured { zxid: zxid.0 },
            Err(Refusal::NotLeader) => Answer::NotLeader,
            Err(refusal) => match refusal.code() {
                Some(code) => Answer::NotReconfigured {
                    code: code.code(),
                    reason: refusal.to_string(),
                },
                None => Answer::Refused {
                    reason: refusal.to_string(),
                },
            },
        }
    }

    /// Changes the members, as leader. Goes on if this is no longer waited for.
    async fn change(
        self: &Arc<Self>,
        wish: Wish,
        asker: Asker,
        patience: Duration,
    ) -> Result<Zxid, Refusal> {
        let members = Arc::clone(self);
        let deadline = Instant::now() + patience;
        let work = crate::tasks::spawn(async move {
            let result = members.change_until(&wish, &asker, deadline).await;
            match &result {
                Ok(zxid) => tracing::info!(version = %zxid, "the members were changed"),
                Err(Refusal::NotLeader) => {}
                Err(refusal) => tracing::warn!(%refusal, "the members were not changed"),
            }
            result
        });
        match tokio::time::timeout(patience + ANSWER_SLACK / 2, work).await {
            Ok(Ok(result)) => result,
            _ => Err(Refusal::Unknown),
        }
    }

    async fn change_until(
        &self,
        wish: &Wish,
        asker: &Asker,
        deadline: Instant,
    ) -> Result<Zxid, Refusal> {
        if !self.rules.reconfig_enabled {
            return Err(Refusal::Disabled);
        }
        if self.rules.standalone {
            return Err(Refusal::Standalone);
        }
        if self.leader() != Some(self.server) {
            return Err(Refusal::NotLeader);
        }
        let _claim = Claim::take(&self.changing).ok_or(Refusal::InProgress)?;
        self.catch_up_as_leader(deadline).await?;
        // The upkeep's own changes take a moment, and are none of the client's business.
        let _turn = self.turn.lock().await;
        let (at, now) = self.settled()?;
        if returning(&now).is_some() {
            return Err(Refusal::InProgress);
        }
        let actual = self.replica.inspect(State::configuration_version);
        let actual = actual.ok_or(Refusal::Standalone)?;
        if wish.version != -1 && wish.version != actual {
            return Err(Refusal::BadVersion {
                expected: wish.version,
                actual,
            });
        }
        let mut plan = plan(&now, wish, self.rules.voters_min)?;
        self.check_quorum(&now, &plan)?;
        self.check_permission(asker)?;

        let at = self.admit(&now, at, &plan, deadline).await?;
        self.stamp(&now, &mut plan);
        self.commit(at, &plan).await?;
        self.replica
            .inspect(State::configuration_version)
            .map(Zxid)
            .ok_or(Refusal::Unknown)
    }

    /// What a leader decides on has to be what is committed: waits until this one has applied it.
    pub(in crate::consensus) async fn catch_up_as_leader(
        &self,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let read = rounds::confirm_leadership(&self.raft).await;
        let index = read.ok_or(Refusal::NotLeader)?;
        let zxid = self.zxids.zxid(index);
        let left = deadline.saturating_duration_since(Instant::now());
        match self.replica.wait_applied(zxid, left).await {
            true => Ok(()),
            false => Err(Refusal::NotLeader),
        }
    }

    /// The membership in force and the entry that set it.
    pub(in crate::consensus) fn settled(&self) -> Result<(Option<LogId>, Membership), Refusal> {
        let (at, membership) = self.effective();
        let is_joint = membership.get_joint_config().len() != 1;
        if is_joint || !self.is_committed(at) {
            return Err(Refusal::InProgress);
        }
        Ok((at, membership))
    }

    /// A change that leaves the ensemble without a majority that answers is not begun.
    fn check_quorum(&self, now: &Membership, plan: &Plan) -> Result<(), Refusal> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // Those to come are seen to below.
        let counts =
            |id: &&u64| !votes(now, **id) || (hears(&metrics, **id) && caught_up(&metrics, **id));
        let alive = plan.voters.iter().filter(counts).count();
        let majority = plan.voters.len() / 2 + 1;
        if alive < majority {
            return Err(Refusal::NoQuorum(format!(
                "of {} participants only {alive} answer, and {majority} have to",
                plan.voters.len()
            )));
        }
        Ok(())
    }

    fn check_permission(&self, asker: &Asker) -> Result<(), Refusal> {
        let acl = self.replica.inspect(|state| state.node_acl(CONFIG_PATH));
        let may =
            asker.skip_acl || acl.is_some_and(|acl| permits(&acl, Perms::WRITE, &asker.identities));
        may.then_some(()).ok_or(Refusal::NoAuth)
    }

    /// Takes in who is to vote and does not yet, without a vote, and waits until they have what the
    /// others have. Returns the entry that set the membership then.
    async fn admit(
        &self,
        now: &Membership,
        at: Option<LogId>,
        plan: &Plan,
        deadline: Instant,
    ) -> Result<Option<LogId>, Refusal> {
        let newcomers: BTreeSet<u64> = plan
            .voters
            .iter()
            .copied()
            .filter(|id| !votes(now, *id))
            .collect();
        let joining = |id: &u64| {
            let node = PeerNode {
                standing: Standing::Joining,
                ..plan.members[id].clone()
            };
            (*id, node)
        };
        // Observers that are to vote have what they need, and stay what they are until then.
        let is_admitted = |id: &u64| {
            now.get_node(id).is_some_and(|node| {
                let is_coming =
                    node.standing == Standing::Joining && node.line == plan.members[id].line;
                is_coming || (is_member(node) && node.observer)
            })
        };
        let nodes: BTreeMap<u64, PeerNode> = newcomers
            .iter()
            .filter(|id| !is_admitted(id))
            .map(joining)
            .collect();
        let at = match nodes.is_empty() {
            true => at,
            false => {
                let change = ChangeMembers::SetNodes(nodes);
                let written = self.change_membership(at, change).await?;
                Some(written)
            }
        };
        if newcomers.is_empty() {
            return Ok(at);
        }
        let mut metrics = self.raft.metrics();
        loop {
            let waiting: Option<(u64, String)> = {
                let now = metrics.borrow_watched();
                if now.state != openraft::ServerState::Leader {
                    return Err(Refusal::NotLeader);
                }
                let index = at.map_or(0, |at| at.index);
                newcomers
                    .iter()
                    .find(|id| !caught_up(&now, **id) || matched(&now, **id) < Some(index))
                    .map(|id| (*id, self.why_waiting(&now, *id)))
            };
            let Some((id, why)) = waiting else {
                return Ok(at);
            };
            if tokio::time::timeout_at(deadline, metrics.changed())
                .await
                .is_err()
            {
                self.forget_unreached(&newcomers).await;
                return Err(Refusal::NoQuorum(format!("server {id} {why}")));
            }
        }
    }

    fn why_waiting(&self, metrics: &Metrics, id: u64) -> String {
        match lag(metrics, id) {
            Some(entries) => {
                format!("is {entries} entries behind: it goes on catching up, so ask again later")
            }
            None => "does not answer: start it first, with the other servers in its configuration"
                .to_owned(),
        }
    }

    /// Those that never answered are not waited for any longer.
    async fn forget_unreached(&self, newcomers: &BTreeSet<u64>) {
        let unreached: BTreeSet<u64> = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let is_joining = |id: &u64| {
                membership
                    .get_node(id)
                    .is_some_and(|node| node.standing == Standing::Joining)
            };
            let unreached = |id: &&u64| is_joining(id) && matched(&metrics, **id).is_none();
            newcomers.iter().filter(unreached).copied().collect()
        };
        if !unreached.is_empty() {
            let change = ChangeMembers::RemoveNodes(unreached);
            if let Err(error) = self.raft.change_membership(change, true).await {
                tracing::warn!(%error, "a server that did not come stays on the list of those to come");
            }
        }
    }

    /// Notes the time of the change on one of the members, so that the configuration is a new one
    /// even if all members stay what they are.
    fn stamp(&self, now: &Membership, plan: &mut Plan) {
        let noted = now.nodes().map(|(_, node)| node.changed_ms).max();
        let told = self
            .replica
            .inspect(|state| state.configuration().map(|(_, stat)| stat.mtime));
        let last = noted.max(told).unwrap_or(0);
        let changed_ms = self.clock.wall_ms().max(last.saturating_add(1));
        if let Some(mut first) = plan.members.first_entry() {
            first.get_mut().changed_ms = changed_ms;
        }
    }

    /// Makes the plan the membership. Those that are not in it are marked as leaving.
    async fn commit(&self, at: Option<LogId>, plan: &Plan) -> Result<(), Refusal> {
        let (_, now) = self.effective();
        let mut nodes = plan.members.clone();
        for (id, node) in now.nodes().filter(|(id, _)| !plan.members.contains_key(id)) {
            let leaving = PeerNode {
                standing: Standing::Leaving,
                ..node.clone()
            };
            nodes.insert(*id, leaving);
        }
        nodes.retain(|id, node| now.get_node(id) != Some(node));
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::SetNodes(nodes),
            ChangeMembers::ReplaceAllVoters(plan.voters.clone()),
        ]);
        self.change_membership(at, change).await.map(|_| ())
    }

    /// Changes the membership that the entry `at` has set, and returns the entry that sets the new
    /// one. Those who lose their vote stay on as learners.
    pub(super) async fn change_membership(
        &self,
        at: Option<LogId>,
        change: ChangeMembers<u64, PeerNode>,
    ) -> Result<LogId, Refusal> {
        self.change_membership_and(at, change, true).await
    }

    /// As [`Members::change_membership`]. Those who lose their vote stay on if they are `kept`.
    pub(super) async fn change_membership_and(
        &self,
        at: Option<LogId>,
        change: ChangeMembers<u64, PeerNode>,
        kept: bool,
    ) -> Result<LogId, Refusal> {
        let precondition = Precondition::LastMembershipLogId {
            last_membership_log_id: at,
        };
        let changed = self
            .raft
            .change_membership_if(change, kept, [precondition])
            .await;
        match judge(changed) {
            // The first of two steps was done: the next leader does the second.
            Err(Refusal::NotLeader | Refusal::InProgress) if self.effective().0 != at => {
                Err(Refusal::Unknown)
            }
            judged => judged,
        }
    }
}

/// What became of a change that the engine was asked for.
fn judge(changed: ChangeResult) -> Result<LogId, Refusal> {
    match changed {
        Ok(response) => Ok(response.log_id),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Refusal::NotLeader),
        Err(RaftError::APIError(
            ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_),
        )) => Err(Refusal::InProgress),
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_)) => {
            Err(Refusal::Unknown)
        }
    }
}

fn votes(membership: &Membership, id: u64) -> bool {
    membership.voter_ids().any(|voter| voter == id)
}
