//! Replicas prove that they agree.
//!
//! Every server notes the digest of its state at common zxids ([`Checkpoints`]). The leader gathers
//! them, at every checkpoint and when nothing was written for a while, and compares. A server that a
//! majority of the voters contradicts, the leader included, stops serving: it keeps its files, writes
//! no snapshot any more, stands for no election, and says so. Without a majority for either side
//! nobody can tell who is wrong; that is said, and nobody stops.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use quorate_protocol::Zxid;
use tokio_util::sync::CancellationToken;

use super::membership::Members;
use crate::peer_port::{Answer, Question};

/// Entries from one checkpoint to the next. A digest costs nothing to read, so this only bounds how
/// much is asked and answered.
const CHECKPOINT_ENTRIES: i64 = 4096;
/// Checkpoints kept: a server so many behind the leader is compared once it has caught up.
const CHECKPOINTS_KEPT: usize = 64;

/// How often the leader looks whether there is anything to compare.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks without a write after which the newest states are compared.
const QUIET_LOOKS: u32 = 2;
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The digests of a state at zxids that all replicas stop at.
#[derive(Debug, Default)]
pub struct Checkpoints {
    kept: VecDeque<(Zxid, u64)>,
}

impl Checkpoints {
    /// Whether the digest after this entry is to be noted.
    pub fn is_one(zxid: Zxid) -> bool {
        zxid.0 % CHECKPOINT_ENTRIES == 0
    }

    pub fn note(&mut self, zxid: Zxid, digest: u64) {
        if self.kept.len() == CHECKPOINTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((zxid, digest));
    }

    /// What was noted does not lead to the present state.
    pub fn clear(&mut self) {
        self.kept.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = (Zxid, u64)> {
        self.kept.iter().copied()
    }
}

/// Digests by zxid, of one server.
pub type Digests = BTreeMap<Zxid, u64>;

/// What a comparison has shown.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Servers that a majority contradicts, where, and what the majority has there.
    wrong: BTreeMap<u64, (Zxid, u64)>,
    /// Where there are several digests, and none of them has a majority.
    open: Option<Zxid>,
    /// The last zxid at which each server was found to agree with the majority.
    right: BTreeMap<u64, Zxid>,
}

/// Compares what servers have at common zxids.
fn compare(voters: &BTreeSet<u64>, servers: &BTreeMap<u64, Digests>) -> Verdict {
    let mut verdict = Verdict::default();
    let zxids: BTreeSet<Zxid> = servers.values().flat_map(BTreeMap::keys).copied().collect();
    for zxid in zxids {
        let found: BTreeMap<u64, u64> = servers
            .iter()
            .filter_map(|(server, digests)| Some((*server, *digests.get(&zxid)?)))
            .collect();
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        for (server, digest) in &found {
            *votes.entry(*digest).or_default() += usize::from(voters.contains(server));
        }
        let majority = votes
            .iter()
            .find(|(_, votes)| **votes > voters.len() / 2)
            .map(|(digest, _)| *digest);
        let Some(majority) = majority else {
            if votes.len() > 1 {
                verdict.open = Some(zxid);
            }
            continue;
        };
        for (server, digest) in found {
            if digest == majority {
                verdict.right.insert(server, zxid);
            } else {
                // Where it began is what an investigation needs.
                verdict.wrong.entry(server).or_insert((zxid, majority));
            }
        }
    }
    verdict
}

/// The task that compares, on whichever server leads.
pub(super) struct Agreement {
    pub(super) members: Arc<Members>,
}

/// What the leader remembers from look to look.
#[derive(Default)]
struct Seen {
    last: Zxid,
    looks: u32,
    /// Where each server was found to agree.
    right: BTreeMap<u64, Zxid>,
    /// What was said already.
    open: Option<Zxid>,
    wrong: BTreeMap<u64, (Zxid, u64)>,
}

impl Agreement {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut seen = Seen::default();
        loop {
            let look = async {
                tokio::time::sleep(INTERVAL).await;
                self.look(&mut seen).await;
            };
            tokio::select! {
                () = look => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn look(&self, seen: &mut Seen) {
        let members = &self.members;
        if !members.leads() {
            *seen = Seen::default();
            return;
        }
        let own = members.replica.digests();
        let Some((&last, _)) = own.last_key_value() else {
            return;
        };
        seen.looks = if seen.last == last { seen.looks + 1 } else { 0 };
        seen.last = last;
        let is_quiet = seen.looks >= QUIET_LOOKS;
        let (voters, heard) = self.others();
        // One that was away may have come back as another.
        seen.right.retain(|server, _| heard.contains(server));
        let newest = if is_quiet {
            Some(last)
        } else {
            own.keys()
                .rev()
                .find(|zxid| Checkpoints::is_one(**zxid))
                .copied()
        };
        let asked: Vec<u64> = heard
            .into_iter()
            .filter(|server| seen.right.get(server).copied() < newest)
            .collect();
        if newest.is_none() || asked.is_empty() {
            return;
        }
        let mut servers = self.ask(&asked).await;
        servers.insert(members.server, own);
        let verdict = compare(&voters, &servers);
        self.tell(&verdict, seen).await;
        seen.right.extend(verdict.right);
    }

    /// The voters, and the other servers that answer.
    fn others(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let metrics = self.members.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let heard = membership
            .nodes()
            .map(|(id, _)| *id)
            .filter(|id| *id != self.members.server && super::membership::hears(&metrics, *id))
            .collect();
        (membership.voter_ids().collect(), heard)
    }

    async fn ask(&self, asked: &[u64]) -> BTreeMap<u64, Digests> {
        let answers = asked.iter().map(|server| async {
            let asked = self.members.peers.ask(*server, Question::Digests, PATIENCE);
            match asked.await {
                Ok(Answer::Digests { at }) => {
                    let digests = at.into_iter().map(|(zxid, digest)| (Zxid(zxid), digest));
                    Some((*server, digests.collect()))
                }
                _ => None,
            }
        });
        join_all(answers).await.into_iter().flatten().collect()
    }

    async fn tell(&self, verdict: &Verdict, seen: &mut Seen) {
        if verdict.open.is_some() && verdict.open != seen.open {
            tracing::error!(
                zxid = %verdict.open.unwrap_or_default(),
                "the servers' states differ, and there is no majority for any of them"
            );
        }
        seen.open = verdict.open;
        for (&server, &(zxid, digest)) in &verdict.wrong {
            if seen.wrong.insert(server, (zxid, digest)) != Some((zxid, digest)) {
                tracing::error!(server, %zxid, "a server's state differs from that of the majority");
            }
            if server == self.members.server {
                self.members.contradict(zxid, digest);
            } else {
                let question = Question::Contradict {
                    zxid: zxid.0,
                    digest,
                };
                if let Err(error) = self.members.peers.ask(server, question, PATIENCE).await {
                    tracing::warn!(server, %error, "it could not be told, and is asked again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use quorate_protocol::Zxid;

    use super::{CHECKPOINTS_KEPT, Checkpoints, Digests, Verdict, compare};

    fn servers(servers: &[(u64, &[(i64, u64)])]) -> BTreeMap<u64, Digests> {
        servers
            .iter()
            .map(|(server, at)| {
                let digests = at.iter().map(|(zxid, digest)| (Zxid(*zxid), *digest));
                (*server, digests.collect())
            })
            .collect()
    }

    fn of_three(found: &[(u64, &[(i64, u64)])]) -> Verdict {
        compare(&BTreeSet::from([1, 2, 3]), &servers(found))
    }

    #[test]
    fn servers_that_agree_are_right_up_to_their_last_common_zxid() {
        let verdict = of_three(&[
            (1, &[(10, 7), (20, 8)]),
            (2, &[(10, 7), (20, 8)]),
            (3, &[(10, 7)]),
            (9, &[(20, 8)]),
        ]);
        assert!(verdict.wrong.is_empty());
        assert_eq!(verdict.open, None);
        let right = [(1, 20), (2, 20), (3, 10), (9, 20)];
        assert_eq!(verdict.right, right.map(|(s, z)| (s, Zxid(z))).into());
    }

    #[test]
    fn a_server_against_a_majority_is_wrong_from_where_it_began() {
        let verdict = of_three(&[
            (1, &[(10, 7), (20, 8), (30, 9)]),
            (2, &[(10, 7), (20, 0), (30, 0)]),
            (3, &[(10, 7), (20, 8), (30, 9)]),
        ]);
        assert_eq!(verdict.wrong, BTreeMap::from([(2, (Zxid(20), 8))]));
        assert_eq!(verdict.right[&2], Zxid(10));
    }

    #[test]
    fn an_observer_may_be_wrong_but_makes_no_majority() {
        let verdict = of_three(&[(1, &[(10, 7)]), (2, &[(10, 7)]), (9, &[(10, 6)])]);
        assert_eq!(verdict.wrong, BTreeMap::from([(9, (Zxid(10), 7))]));
        let verdict = of_three(&[(1, &[(10, 7)]), (8, &[(10, 6)]), (9, &[(10, 6)])]);
        assert_eq!(verdict.wrong, BTreeMap::new());
        assert_eq!(verdict.open, Some(Zxid(10)));
    }

    #[test]
    fn one_against_one_of_three_is_open() {
        let verdict = of_three(&[(1, &[(10, 7)]), (2, &[(10, 6)])]);
        assert_eq!(verdict.wrong, BTreeMap::new());
        assert_eq!(verdict.open, Some(Zxid(10)));
        assert!(verdict.right.is_empty(), "nobody is right yet");
    }

    #[test]
    fn one_server_alone_agrees_with_nobody() {
        let verdict = of_three(&[(1, &[(10, 7)]), (2, &[(11, 6)])]);
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn checkpoints_are_common_and_the_oldest_go_first() {
        assert!(Checkpoints::is_one(Zxid(8192)));
        assert!(!Checkpoints::is_one(Zxid(8193)));
        let mut checkpoints = Checkpoints::default();
        for zxid in 0..=CHECKPOINTS_KEPT as i64 {
            checkpoints.note(Zxid(zxid), 0);
        }
        assert_eq!(checkpoints.iter().count(), CHECKPOINTS_KEPT);
        assert_eq!(checkpoints.iter().next(), Some((Zxid(1), 0)));
        checkpoints.clear();
        assert_eq!(checkpoints.iter().count(), 0);
    }
}
