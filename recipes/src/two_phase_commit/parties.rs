//! Those who take part in a transaction: its coordinator and its participants.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_client::Reason;

use super::round::{Role, Round, is_worth_another};
use super::{ATTEMPTS, BATCH, COORDINATOR, Decision, TwoPhaseCommit, Vote};
use crate::Error;
use crate::directory::{Kind, claim_with_acl};
use crate::waiting;

/// A transaction, as its coordinator sees it.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub(super) round: Round,
}

impl Proposal {
    /// As it was given.
    pub fn id(&self) -> &str {
        &self.round.id
    }

    /// Waits for the decision, and makes it when the votes are there. After the timeout it is to abort,
    /// unless all have voted by then.
    ///
    /// Cancel safe, and safe to repeat.
    ///
    /// # Errors
    ///
    /// Those of reads and writes, when the session is over. Ask again: the decision is the same.
    pub async fn decision(&self) -> Result<Decision, Error> {
        self.round.decision(Role::Coordinator).await
    }

    /// Calls it off, unless it is decided; answers the decision.
    ///
    /// Cancel safe, and safe to repeat.
    ///
    /// # Errors
    ///
    /// As [`Proposal::decision`].
    pub async fn abort(&self) -> Result<Decision, Error> {
        loop {
            let settled = self.round.settle(Some("called off")).await?;
            if let Some(decision) = settled {
                return Ok(decision);
            }
        }
    }

    /// The coordinator knows the decision. When all participants are done as well, the transaction is
    /// deleted.
    ///
    /// Cancel safe, and safe to repeat.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]: there is no decision yet. Those of reads and writes.
    pub async fn done(&self) -> Result<(), Error> {
        self.round.finish(COORDINATOR).await
    }
}

/// Who votes on transactions. See [`TwoPhaseCommit::participant`].
#[derive(Debug)]
pub struct Participant {
    pub(super) commits: TwoPhaseCommit,
    pub(super) name: String,
    /// Ids of those that were handed out, or are none of ours, while they are there.
    pub(super) given: BTreeSet<String>,
}

impl Participant {
    /// The next transaction that this participant is not done with, those first that are there already:
    /// each once for each [`Participant`]. Lost connections are waited out.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`], [`Error::Foreign`]; those of a read, when the session is over.
    pub async fn next(&mut self) -> Result<Ballot, Error> {
        let TwoPhaseCommit {
            client, path, acl, ..
        } = &self.commits;
        let child = format!("vote-{}", self.name);
        loop {
            claim_with_acl(client, path, Kind::TwoPhaseCommit, acl).await?;
            let read = waiting::read(client, || client.children(path).watch()).await;
            let ((mut ids, _), watcher) = match read {
                // Taken away since.
                Err(error) if error.is(Reason::NoNode) => continue,
                read => read?,
            };
            ids.sort();
            self.given.retain(|id| ids.binary_search(id).is_ok());
            ids.retain(|id| !self.given.contains(id));
            for batch in ids.chunks(BATCH) {
                let found = self.commits.read_all(batch, &child).await?;
                let mut found = found.into_iter();
                let first = found.next();
                // A vote's znode is made with its transaction, and never again.
                let rest: BTreeSet<String> = found.map(|found| found.id).collect();
                let others = batch.iter().filter(|&id| !rest.contains(id));
                self.given.extend(others.cloned());
                if let Some(found) = first {
                    return Ok(Ballot {
                        round: self.commits.round(&found.id, &found.record),
                        cast: Vote::parse(&found.child),
                        payload: found.payload,
                        child,
                    });
                }
            }
            // Whatever has happened: the list is read again.
            watcher.changed().await.ok();
        }
    }
}

/// A transaction, as a participant sees it.
#[derive(Clone, Debug)]
pub struct Ballot {
    round: Round,
    payload: Bytes,
    cast: Option<Vote>,
    child: String,
}

impl Ballot {
    /// The transaction's id.
    pub fn id(&self) -> &str {
        &self.round.id
    }

    /// What it is about.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// What this participant had voted when the ballot was handed out: before a crash, say.
    pub fn cast(&self) -> Option<Vote> {
        self.cast
    }

    /// Votes, and waits for the decision. After the timeout that is to abort, unless all have voted by
    /// then.
    ///
    /// Cancel safe, and safe to repeat.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]: it has voted otherwise before. [`Reason::NoNode`]: it has said that
    /// it is done. Those of reads and writes, when the session is over: the vote may be cast, and the
    /// participant bound by it; ask again.
    pub async fn vote(&self, vote: Vote) -> Result<Decision, Error> {
        self.cast_vote(vote).await?;
        self.decision().await
    }

    /// Waits for the decision without a vote.
    ///
    /// Cancel safe, and safe to repeat.
    ///
    /// # Errors
    ///
    /// Those of reads and writes, when the session is over. Ask again: the decision is the same.
    pub async fn decision(&self) -> Result<Decision, Error> {
        self.round.decision(Role::Participant).await
    }

    async fn cast_vote(&self, vote: Vote) -> Result<(), Error> {
        let client = &self.round.client;
        let path = self.round.child(&self.child);
        for _ in 0..ATTEMPTS {
            // It was created empty, and is written once.
            let Err(error) = client.set(&path, vote.word()).if_version(0).await else {
                return Ok(());
            };
            if !error.is(Reason::BadVersion) && !is_worth_another(&error) {
                return Err(error.into());
            }
            waiting::read(client, || client.sync(&path)).await?;
            let (data, _) = waiting::read(client, || client.get(&path)).await?;
            match Vote::parse(&data) {
                Some(cast) if cast == vote => return Ok(()),
                Some(cast) => {
                    let what = format!("{path}: the vote was {cast:?}, and is not changed");
                    return Err(Error::InvalidArgument(what));
                }
                None => {}
            }
        }
        Err(Error::Contended {
            path,
            attempts: ATTEMPTS,
        })
    }

    /// The participant has acted on the decision, and is not told of the transaction again.
    ///
    /// Cancel safe, and safe to repeat.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]: there is no decision yet. Those of reads and writes.
    pub async fn done(&self) -> Result<(), Error> {
        self.round.finish(&self.child).await
    }
}
