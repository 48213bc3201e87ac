//! How a server comes into its ensemble.
//!
//! A server without data asks the others before it does anything. If an ensemble is at work, it joins
//! it, unless that knows it with data it no longer has: what it acknowledged is gone then, and
//! counting it again could lose what only it and one other had, so it has to say `--rejoin` and is
//! taken in as a newcomer. If a majority is as new as it is, they found the ensemble, all of them
//! with the same members. In between it waits.
//!
//! An ensemble's id follows from the servers it was founded with, so servers whose configurations
//! disagree do not found one together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::types::PeerNode;
use crate::clock::Clock;
use crate::config::{Member, Role};
use crate::network::Network;
use crate::peer_port::wire::{Probe, Probed, Rejoin, Standing};
use crate::peer_port::{Answer, PeerError, dialer};
use crate::random::Randomness;
use crate::storage::Identity;
use crate::tasks::on_this_host;

/// How long the others are left alone after a round of questions that decided nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a server that waits says for what.
const REPORT: Duration = Duration::from_secs(10);
/// How long all of a round of questions may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
/// How long one server may take to take this one in again.
const REJOIN_PATIENCE: Duration = Duration::from_secs(30);

/// Why a server does not start in its ensemble. One line each, saying what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormationError {
    #[error(
        "server {server} is known to its ensemble, but its data is gone (dataDir {data_dir}): put \
         the data back, or start it once with --rejoin to be taken in as a new server"
    )]
    DataLost { server: u64, data_dir: String },
    #[error(
        "another server {server} runs at {address}, where this one should be: give each its own id \
         (myid or --server-id)"
    )]
    SameId { server: u64, address: String },
    #[error(
        "the data in {data_dir} is older than what the ensemble knows of server {server}: it was \
         taken in again since then; use the newer data, or empty the folder and start with --rejoin"
    )]
    OldData { server: u64, data_dir: String },
    #[error(
        "the data in {data_dir} belongs to an ensemble of {members} servers: list them as server.N \
         lines"
    )]
    NotListed { members: usize, data_dir: String },
    #[error("the ensemble does not take server {server} in again: {reason}")]
    NotTakenIn { server: u64, reason: String },
}

/// How the engine is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// This server is all of the ensemble.
    Alone(PeerNode),
    /// With what is in the log.
    Resume,
    /// As one of the first servers. They all found it with the same members.
    Found(BTreeMap<u64, PeerNode>),
    /// With nothing, until the leader sends something.
    Join,
}

/// What is known of the configured ensemble before anybody was asked.
#[derive(Clone, Debug)]
pub struct Listed {
    members: BTreeMap<u64, (PeerNode, Role)>,
    cluster: u64,
}

impl Listed {
    pub fn new(members: &[Member]) -> Self {
        let by_id: BTreeMap<u64, &Member> = members.iter().map(|m| (m.id.into(), m)).collect();
        let lines = by_id.values().map(|member| format!("{member}\n"));
        let members = by_id
            .iter()
            .map(|(id, member)| (*id, (PeerNode::of(member), member.role)));
        Self {
            cluster: fnv1a(lines.collect::<String>().as_bytes()),
            members: members.collect(),
        }
    }

    /// The id of the ensemble that these servers found.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// Those who vote from the beginning.
    fn voters(&self) -> BTreeMap<u64, PeerNode> {
        self.with_role(Role::Participant)
    }

    /// Those who follow without a vote.
    pub fn observers(&self) -> BTreeMap<u64, PeerNode> {
        self.with_role(Role::Observer)
    }

    fn with_role(&self, role: Role) -> BTreeMap<u64, PeerNode> {
        let members = self.members.iter();
        let members = members.filter(|(_, (_, its_role))| *its_role == role);
        members.map(|(id, (node, _))| (*id, node.clone())).collect()
    }
}

/// FNV-1a: the same on every server and for ever.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Draws the number of new data: the time, so that newer is higher, and 20 random bits, so that no
/// two are the same.
pub fn draw_incarnation(clock: &dyn Clock, randomness: &dyn Randomness) -> u64 {
    const RANDOM_BITS: u32 = 20;
    let mut random = [0; 4];
    randomness.fill(&mut random);
    let time = u64::try_from(clock.wall_ms()).unwrap_or(0);
    time << RANDOM_BITS | u64::from(u32::from_le_bytes(random) >> (32 - RANDOM_BITS))
}

/// A server on its way into its ensemble.
#[derive(Debug)]
pub struct Applicant<'a> {
    pub network: Arc<dyn Network>,
    pub server: u64,
    /// Drawn at this start.
    pub run: u32,
    pub listed: &'a Listed,
    /// Of data that is there, and empty: the server was stopped while the ensemble was founded.
    pub identity: Option<Identity>,
    /// A number for new data.
    pub incarnation: u64,
    pub rejoin: bool,
    /// For messages.
    pub data_dir: String,
}

/// What the others' answers come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// A majority is new.
    Found,
    /// There is an ensemble, which does not know this server, or knows it as it is.
    Join { cluster: u64 },
    /// There is one, which knows this server with other data.
    Known { cluster: u64, incarnation: u64 },
    /// Another server has this one's id, and its place.
    SameId,
    /// Nothing can be said yet, and why.
    Wait(String),
}

impl Applicant<'_> {
    /// Asks the others until it is clear how this server is to start, and as whom.
    ///
    /// # Errors
    ///
    /// [`FormationError`].
    pub async fn decide(&self) -> Result<(Identity, Plan), FormationError> {
        let mut reported: Option<(String, Instant)> = None;
        loop {
            match self.judge(&self.probe_all().await) {
                Verdict::Found => {
                    tracing::info!("a majority is there: founding the ensemble");
                    let cluster = self.listed.cluster;
                    return Ok((self.named(cluster), Plan::Found(self.listed.voters())));
                }
                Verdict::Join { cluster } => {
                    if cluster != self.listed.cluster && self.identity.is_none() {
                        tracing::warn!(
                            "the ensemble was founded with other server.N lines than these; its own \
                             list counts"
                        );
                    }
                    tracing::info!("joining the ensemble");
                    return Ok((self.named(cluster), Plan::Join));
                }
                Verdict::Known {
                    cluster,
                    incarnation,
                } if self.rejoin => {
                    let identity = self.rejoin(cluster, incarnation).await?;
                    return Ok((identity, Plan::Join));
                }
                Verdict::Known { .. } => {
                    let data_dir = self.data_dir.clone();
                    let server = self.server;
                    return Err(match self.identity {
                        Some(_) => FormationError::OldData { server, data_dir },
                        None => FormationError::DataLost { server, data_dir },
                    });
                }
                Verdict::SameId => {
                    let own = self.addresses().find(|(server, _)| *server == self.server);
                    return Err(FormationError::SameId {
                        server: self.server,
                        address: own.map_or_else(String::new, |(_, address)| address),
                    });
                }
                Verdict::Wait(reason) => {
                    let due = reported
                        .as_ref()
                        .is_none_or(|(last, at)| *last != reason || at.elapsed() >= REPORT);
                    if due {
                        tracing::info!("waiting for the ensemble: {reason}");
                        reported = Some((reason, Instant::now()));
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn named(&self, cluster: u64) -> Identity {
        self.identity.unwrap_or(Identity {
            cluster,
            server: self.server,
            incarnation: self.incarnation,
        })
    }

    async fn probe_all(&self) -> BTreeMap<u64, Result<Probed, PeerError>> {
        let probe = Probe {
            cluster: self.listed.cluster,
            server: self.server,
        };
        let mut probes = JoinSet::new();
        // Ourselves included: somebody else may answer there.
        for (server, address) in self.addresses() {
            let network = Arc::clone(&self.network);
            probes.spawn(on_this_host(async move {
                let probed = timeout(
                    PROBE_PATIENCE,
                    dialer::probe(&network, server, &address, probe),
                )
                .await;
                let late = PeerError::Late {
                    server,
                    patience: PROBE_PATIENCE,
                };
                (server, probed.unwrap_or(Err(late)))
            }));
        }
        probes.join_all().await.into_iter().collect()
    }

    fn addresses(&self) -> impl Iterator<Item = (u64, String)> + '_ {
        let members = self.listed.members.iter();
        members.map(|(server, (node, _))| (*server, node.peer_address()))
    }

    /// What the answers come to. Whoever has data counts for more than any number of new servers.
    fn judge(&self, answers: &BTreeMap<u64, Result<Probed, PeerError>>) -> Verdict {
        let mut reasons = Vec::new();
        let mut founders = 0;
        let voters = self.listed.voters();
        let mut unsettled = false;
        let mut settled = Vec::new();
        for (server, answer) in answers {
            if *server == self.server {
                // It need not reach itself by the address the others use.
                match answer {
                    Ok(probed) if probed.server == self.server && probed.run != self.run => {
                        return Verdict::SameId;
                    }
                    _ => continue,
                }
            }
            let probed = match answer {
                Ok(probed) => probed,
                Err(error) => {
                    reasons.push(error.to_string());
                    continue;
                }
            };
            if probed.server != *server {
                reasons.push(format!(
                    "server {} answers where server {server} should: check the addresses",
                    probed.server
                ));
                continue;
            }
            match probed.standing {
                Standing::Settled => settled.push(probed),
                Standing::Unsettled => {
                    unsettled = true;
                    reasons.push(format!(
                        "server {server} has data, and looks for a majority"
                    ));
                }
                Standing::New | Standing::Founding if probed.cluster != self.cluster() => {
                    reasons.push(format!(
                        "server {server} has other server.N lines than this one: make them the same"
                    ));
                }
                Standing::New | Standing::Founding => {
                    founders += usize::from(voters.contains_key(server));
                }
            }
        }
        // Whoever knows this server counts for more than one that has not heard of it.
        if let Some(probed) = settled.into_iter().max_by_key(|probed| probed.known) {
            return self.judge_settled(probed);
        }
        let founds = voters.contains_key(&self.server);
        if founds && !unsettled && founders + 1 > voters.len() / 2 {
            return Verdict::Found;
        }
        if !founds {
            reasons.push("an observer founds no ensemble".to_owned());
        }
        Verdict::Wait(reasons.join("; "))
    }

    fn judge_settled(&self, probed: &Probed) -> Verdict {
        let cluster = probed.cluster;
        match (probed.known, self.identity) {
            (None, _) => Verdict::Join { cluster },
            (Some(known), Some(identity)) if known == identity.incarnation => {
                Verdict::Join { cluster }
            }
            (Some(incarnation), _) => Verdict::Known {
                cluster,
                incarnation,
            },
        }
    }

    /// Of the ensemble this server would found.
    fn cluster(&self) -> u64 {
        self.identity
            .map_or(self.listed.cluster, |identity| identity.cluster)
    }

    /// Asks the servers one after the other, until the leader among them has taken this one in.
    async fn rejoin(&self, cluster: u64, known: u64) -> Result<Identity, FormationError> {
        let server = self.server;
        let incarnation = self.incarnation.max(known + 1);
        let rejoin = Rejoin {
            cluster,
            server,
            incarnation,
        };
        tracing::info!("asking the ensemble to take this server in again");
        loop {
            for (other, address) in self.addresses() {
                if other == server {
                    continue;
                }
                let asked = dialer::rejoin(&self.network, other, &address, rejoin);
                match timeout(REJOIN_PATIENCE, asked).await {
                    Ok(Ok(Answer::Done)) => {
                        return Ok(Identity {
                            cluster,
                            server,
                            incarnation,
                        });
                    }
                    Ok(Ok(Answer::Refused { reason })) => {
                        return Err(FormationError::NotTakenIn { server, reason });
                    }
                    Ok(Ok(_)) | Err(_) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "not asked"),
                }
            }
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests;
