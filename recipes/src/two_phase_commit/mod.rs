//! Two-phase commit: so many participants do something, or none of them does.
//!
//! As in ZooKeeper's recipes, with the decision kept where the votes are:
//!
//! ```text
//! /transfers                          marked as this recipe's
//! /transfers/<id>                     participants, timeout; and the decision, once there is one
//! /transfers/<id>/payload             what it is about
//! /transfers/<id>/coordinator         until the coordinator has said that it is done
//! /transfers/<id>/vote-<participant>  empty, then its vote; until the participant is done
//! ```
//!
//! A vote is written once: on condition of the version in which it was made. So is the decision: to
//! commit if all votes are for it, to abort at any time. Whoever needs it may make it from the votes,
//! and of all who try at once one succeeds: it is the same for everybody, and outlives everybody.

mod parties;
mod round;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::{AclEntry, Client, Outcome, Read, Reason};
use serde::{Deserialize, Serialize};

pub use self::parties::{Ballot, Participant, Proposal};
use self::round::Round;
use crate::Error;
use crate::directory::{Kind, claim_with_acl};
use crate::waiting;

/// How long is waited for votes, by default.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a write is made again whose answer was lost, or that others were faster with.
const ATTEMPTS: u32 = 16;
/// How many participants a transaction may have: all of them are created and read in one request.
const PARTICIPANTS_MAX: usize = 1_000;
/// How many transactions are looked at in one request.
const BATCH: usize = 16;

const PAYLOAD: &str = "payload";
const COORDINATOR: &str = "coordinator";

/// What a participant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vote {
    /// It can commit, and will be able to, whatever happens to it: also after a crash.
    Commit,
    /// It cannot.
    Abort,
}

impl Vote {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Commit => b"commit",
            Self::Abort => b"abort",
        }
    }

    fn parse(data: &[u8]) -> Option<Self> {
        [Self::Commit, Self::Abort]
            .into_iter()
            .find(|vote| vote.word() == data)
    }
}

/// What becomes of a transaction: the same for everybody, and for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// All have voted for it.
    Commit,
    /// Somebody has voted against it, or has not voted in time, or the coordinator has called it off.
    Abort,
}

/// The data of a transaction's znode.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    recipe: Kind,
    coordinator: String,
    /// By which the coordinator recognises what it has created.
    mark: String,
    participants: Vec<String>,
    timeout_ms: u64,
    decision: Option<Decision>,
    /// Why it was aborted, in words.
    reason: Option<String>,
}

/// Two-phase commit: so many participants do something, or none of them does.
///
/// The coordinator [begins](TwoPhaseCommit::begin) a transaction and waits for the decision. Each
/// participant [learns](Participant::next) of it, prepares, votes, waits for the decision, acts on it,
/// and says that it is done.
///
/// # What it promises
///
/// - The decision is the same for everybody who asks, and is never changed. It is to commit only if all
///   participants have voted to.
/// - It comes: whoever waits for longer than the transaction's timeout, by its own clock, has it
///   aborted, unless all votes are in. Nobody has to wait for a coordinator that has died.
/// - A participant that has died over a transaction is given it again when it is back, with the vote it
///   has cast; so is a coordinator ([`TwoPhaseCommit::unfinished`]). Nothing is deleted before all
///   have said that they are done.
///
/// # What it does not promise
///
/// - That participants act on the decision: one that has died does so when it comes back.
/// - That they act once: one that dies after it has acted and before it has said so is told again.
///   Acting has to bear that, by the transaction's id.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Decision, Error, TwoPhaseCommit, Vote};
/// # async fn prepare(_: &[u8]) -> Vote { Vote::Commit }
/// # async fn coordinator(client: &Client) -> Result<(), Error> {
/// let transfers = TwoPhaseCommit::new(client, "/transfers");
/// let transfer = transfers.begin("17", ["bank-a", "bank-b"], "a to b: 100").await?;
/// match transfer.decision().await? {
///     Decision::Commit => println!("done"),
///     Decision::Abort => println!("nothing has happened"),
/// }
/// transfer.done().await?;
/// # Ok(())
/// # }
///
/// # async fn participant(client: &Client) -> Result<(), Error> {
/// let mut bank = TwoPhaseCommit::new(client, "/transfers").participant("bank-a");
/// loop {
///     let ballot = bank.next().await?;
///     let vote = match ballot.cast() {
///         Some(vote) => vote, // before a crash
///         None => prepare(ballot.payload()).await,
///     };
///     match ballot.vote(vote).await? {
///         Decision::Commit => { /* make it so */ }
///         Decision::Abort => { /* forget it */ }
///     }
///     ballot.done().await?;
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TwoPhaseCommit {
    client: Client,
    path: String,
    identity: String,
    timeout: Duration,
    acl: Vec<AclEntry>,
}

impl TwoPhaseCommit {
    /// Nothing is created before it is used.
    pub fn new(client: &Client, path: &str) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            identity: String::new(),
            timeout: TIMEOUT,
            acl: vec![AclEntry::open()],
        }
    }

    /// Who begins transactions, to find them again. Empty by default.
    #[must_use]
    pub fn identity(mut self, identity: &str) -> Self {
        identity.clone_into(&mut self.identity);
        self
    }

    /// How long anybody waits for the votes on the transactions that this begins; 30 seconds by
    /// default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Who may do what with the znodes. Everybody everything by default; all concerned need all
    /// permissions but those of ACLs.
    #[must_use]
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.acl = acl.into();
        self
    }

    /// Begins a transaction. An id is used once and never again; ids and names have no slash.
    ///
    /// Cancel safe: dropped before it has resolved, it may have begun, and is among the
    /// [unfinished](TwoPhaseCommit::unfinished).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]: no participants, more than 1,000, one of them twice, or a name that
    /// is none. [`Reason::NodeExists`]: there is a transaction of this id. [`Error::OtherRecipe`];
    /// those of a write.
    pub async fn begin<P: Into<String>>(
        &self,
        id: &str,
        participants: impl IntoIterator<Item = P>,
        payload: impl AsRef<[u8]>,
    ) -> Result<Proposal, Error> {
        let participants: Vec<String> = participants.into_iter().map(Into::into).collect();
        check_names(id, &participants)?;
        let record = Record {
            recipe: Kind::TwoPhaseCommit,
            coordinator: self.identity.clone(),
            mark: format!("{:032x}", self.client.randomness().number()),
            participants,
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            decision: None,
            reason: None,
        };
        let round = self.round(id, &record);
        let text = serde_json::json!(record).to_string();
        for _ in 0..ATTEMPTS {
            claim_with_acl(&self.client, &self.path, Kind::TwoPhaseCommit, &self.acl).await?;
            let acl = &self.acl[..];
            let steps = self.client.transaction();
            let mut steps = steps.create(&round.path, &text).acl(acl);
            for (name, data) in [(PAYLOAD, payload.as_ref()), (COORDINATOR, b"")] {
                steps = steps.create(&round.child(name), data).acl(acl);
            }
            for participant in &record.participants {
                steps = steps.create(&round.vote_of(participant), b"").acl(acl);
            }
            match steps.await {
                Ok(_) => return Ok(Proposal { round }),
                // The directory has been taken away.
                Err(error) if error.is(Reason::NoNode) => {}
                Err(error) if error.outcome() == Outcome::Unknown && !error.needs_new_session() => {
                    waiting::read(&self.client, || self.client.sync(&round.path)).await?;
                    match waiting::read(&self.client, || self.client.get(&round.path)).await {
                        Ok((data, _)) => {
                            if decode(&round.path, &data)?.mark == record.mark {
                                return Ok(Proposal { round });
                            }
                        }
                        Err(error) if error.is(Reason::NoNode) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended {
            path: round.path,
            attempts: ATTEMPTS,
        })
    }

    /// The transactions begun under this identity whose coordinator has not said that it is done, by
    /// their ids: for a coordinator that is back after a crash.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`], [`Error::Foreign`]; those of a read.
    pub async fn unfinished(&self) -> Result<Vec<Proposal>, Error> {
        claim_with_acl(&self.client, &self.path, Kind::TwoPhaseCommit, &self.acl).await?;
        let mut ids = waiting::read(&self.client, || self.client.children(&self.path))
            .await?
            .0;
        ids.sort();
        let mut proposals = Vec::new();
        for found in self.read_all(&ids, COORDINATOR).await? {
            if found.record.coordinator == self.identity {
                let round = self.round(&found.id, &found.record);
                proposals.push(Proposal { round });
            }
        }
        Ok(proposals)
    }

    /// Who votes on transactions under this name.
    pub fn participant(&self, name: &str) -> Participant {
        Participant {
            commits: self.clone(),
            name: name.to_owned(),
            given: BTreeSet::new(),
        }
    }

    fn round(&self, id: &str, record: &Record) -> Round {
        Round {
            client: self.client.clone(),
            path: format!("{}/{id}", self.path),
            id: id.to_owned(),
            timeout: Duration::from_millis(record.timeout_ms),
        }
    }

    /// Those of the transactions that have this child.
    async fn read_all(&self, ids: &[String], child: &str) -> Result<Vec<Found>, Error> {
        let mut all = Vec::new();
        for batch in ids.chunks(BATCH) {
            let reads = || {
                let mut reads = self.client.read_many();
                for id in batch {
                    let path = format!("{}/{id}", self.path);
                    reads = reads.get(&path).get(&format!("{path}/{child}"));
                    reads = reads.get(&format!("{path}/{PAYLOAD}"));
                }
                reads
            };
            let reads = waiting::read(&self.client, reads).await?;
            for (id, reads) in batch.iter().zip(reads.chunks(3)) {
                let [
                    Read::Data(data, _),
                    Read::Data(child, _),
                    Read::Data(payload, _),
                ] = reads
                else {
                    continue;
                };
                all.push(Found {
                    id: id.clone(),
                    record: decode(&format!("{}/{id}", self.path), data)?,
                    child: child.clone(),
                    payload: payload.clone(),
                });
            }
        }
        Ok(all)
    }
}

/// A transaction that was found.
struct Found {
    id: String,
    record: Record,
    child: Bytes,
    payload: Bytes,
}

fn decode(path: &str, data: &[u8]) -> Result<Record, Error> {
    serde_json::from_slice(data).map_err(|error| Error::Foreign {
        path: path.to_owned(),
        found: format!("other data ({error})"),
        wanted: "the record of a transaction",
    })
}

/// What is read says the same when it is written again.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzing(data: &[u8]) {
    if let Some(vote) = Vote::parse(data) {
        assert_eq!(vote.word(), data);
    }
    if let Ok(record) = decode("/a", data) {
        let written = serde_json::to_vec(&record).expect("it is plain");
        let again = decode("/a", &written).expect("it was written");
        assert_eq!(serde_json::to_vec(&again).ok(), Some(written));
    }
}

fn check_names(id: &str, participants: &[String]) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::InvalidArgument(what));
    if participants.is_empty() || participants.len() > PARTICIPANTS_MAX {
        let count = participants.len();
        return refuse(format!(
            "a transaction has 1 to {PARTICIPANTS_MAX} participants, not {count}"
        ));
    }
    let mut seen = BTreeSet::new();
    for name in participants {
        if name.is_empty() || name.contains('/') {
            return refuse(format!("{name:?} is no name"));
        }
        if !seen.insert(name) {
            return refuse(format!("{name} participates twice"));
        }
    }
    if id.is_empty() || id.contains('/') {
        return refuse(format!("{id:?} is no name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_are_refused() {
        let names =
            |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
        assert!(check_names("1", &names(&["a", "b"])).is_ok());
        for (id, participants) in [
            ("1", &[][..]),
            ("1", &["a", "a"]),
            ("1", &["a/b"]),
            ("1", &[""]),
            ("", &["a"]),
            ("x/y", &["a"]),
        ] {
            assert!(
                check_names(id, &names(participants)).is_err(),
                "{id} {participants:?}"
            );
        }
    }

    #[test]
    fn a_vote_is_read_as_it_was_written() {
        for vote in [Vote::Commit, Vote::Abort] {
            assert_eq!(Vote::parse(vote.word()), Some(vote));
        }
        assert_eq!(Vote::parse(b""), None);
        assert_eq!(Vote::parse(b"committed"), None);
    }
}
