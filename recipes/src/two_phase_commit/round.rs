//! One transaction from its votes to its decision, and to its end: what coordinator and participants
//! do alike.
//!
//! Every write is made on condition of a version, so that it does not matter who makes it, nor how
//! often it is tried.

use std::time::Duration;

use quorate_client::watch::{WatchStream, Watcher};
use quorate_client::{Client, Error as ClientError, Outcome, Read, Reason};
use tokio::time::Instant;

use super::{ATTEMPTS, Decision, PAYLOAD, Record, Vote, decode};
use crate::Error;
use crate::waiting;

/// How often is tried what all participants do at once.
const FINISH_ATTEMPTS: u32 = 100;

/// One transaction.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) client: Client,
    pub(super) path: String,
    pub(super) id: String,
    pub(super) timeout: Duration,
}

/// Who waits for a decision, and so what there is to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It makes the decision when the votes are there: it watches them all.
    Coordinator,
    /// It watches the decision only.
    Participant,
}

/// That something has changed, or may have been missed.
#[derive(Debug, Default)]
struct Signs {
    all: Option<WatchStream>,
    first: Option<Watcher>,
}

impl Signs {
    fn is_empty(&self) -> bool {
        self.all.is_none() && self.first.is_none()
    }

    /// Waits for one. Whatever it is, all is read again. Cancel safe.
    async fn next(&mut self) {
        if let Some(events) = &mut self.all
            && events.next().await.is_err()
        {
            // In the next session, if there is one.
            self.all = None;
        }
        if let Some(watcher) = &mut self.first {
            watcher.await.ok();
            self.first = None;
        }
    }
}

impl Round {
    pub(super) fn child(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    pub(super) fn vote_of(&self, participant: &str) -> String {
        format!("{}/vote-{participant}", self.path)
    }

    /// The decision, made now if the votes allow it, or to abort if that is what is wanted.
    ///
    /// Cancel safe, and safe to repeat.
    pub(super) async fn settle(&self, abort: Option<&str>) -> Result<Option<Decision>, Error> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                // This server may be behind the one that knows why.
                waiting::read(&self.client, || self.client.sync(&self.path)).await?;
            }
            let (data, stat) = waiting::read(&self.client, || self.client.get(&self.path)).await?;
            let mut record = decode(&self.path, &data)?;
            if record.decision.is_some() {
                return Ok(record.decision);
            }
            let Some((decision, reason)) = self.count(&record).await?.or_else(|| {
                let reason = abort?.to_owned();
                Some((Decision::Abort, Some(reason)))
            }) else {
                return Ok(None);
            };
            record.decision = Some(decision);
            record.reason = reason;
            let text = serde_json::json!(record).to_string();
            let set = self.client.set(&self.path, text).if_version(stat.version);
            match set.await {
                Ok(_) => return Ok(Some(decision)),
                // Somebody else was faster, or nobody knows: it is read.
                Err(error) if error.is(Reason::BadVersion) => {}
                Err(error) if is_worth_another(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended {
            path: self.path.clone(),
            attempts: ATTEMPTS,
        })
    }

    /// What the votes say so far. They do not change, so it does not matter if some came since.
    async fn count(&self, record: &Record) -> Result<Option<(Decision, Option<String>)>, Error> {
        let reads = || {
            let reads = self.client.read_many();
            let names = record.participants.iter();
            names.fold(reads, |reads, name| reads.get(&self.vote_of(name)))
        };
        let votes = waiting::read(&self.client, reads).await?;
        let mut all = true;
        for (name, vote) in record.participants.iter().zip(votes) {
            let vote = match vote {
                Read::Data(data, _) => Vote::parse(&data),
                // Not before there is a decision, which the next attempt will see.
                _ => None,
            };
            match vote {
                Some(Vote::Abort) => {
                    let reason = format!("{name} has voted against it");
                    return Ok(Some((Decision::Abort, Some(reason))));
                }
                Some(Vote::Commit) => {}
                None => all = false,
            }
        }
        Ok(all.then_some((Decision::Commit, None)))
    }

    /// Waits for the decision, and aborts after the timeout.
    pub(super) async fn decision(&self, role: Role) -> Result<Decision, Error> {
        let began = Instant::now();
        let mut signs = Signs::default();
        loop {
            // What comes from here on is told of.
            if signs.is_empty() {
                signs = self.watch(role).await?;
            }
            if let Some(decision) = self.settle(None).await? {
                return Ok(decision);
            }
            let is_late = match self.timeout.checked_sub(began.elapsed()) {
                None => true,
                Some(left) => tokio::time::timeout(left, signs.next()).await.is_err(),
            };
            if is_late {
                let reason = Some("not all have voted in time");
                if let Some(decision) = self.settle(reason).await? {
                    return Ok(decision);
                }
            }
        }
    }

    async fn watch(&self, role: Role) -> Result<Signs, ClientError> {
        Ok(match role {
            Role::Coordinator => {
                let watch = || self.client.watch(&self.path).recursive();
                Signs {
                    all: Some(waiting::read(&self.client, watch).await?),
                    first: None,
                }
            }
            Role::Participant => {
                let watch = || self.client.exists(&self.path).watch();
                Signs {
                    all: None,
                    first: Some(waiting::read(&self.client, watch).await?.1),
                }
            }
        })
    }

    /// Deletes this one's child, and with the last one all the rest. Those who do so at once are told
    /// by the version, so that one of them knows that it is the last.
    pub(super) async fn finish(&self, child: &str) -> Result<(), Error> {
        let (payload, own) = (self.child(PAYLOAD), self.child(child));
        let mut backoff = waiting::Backoff::new(&self.client);
        for attempt in 0..FINISH_ATTEMPTS {
            if attempt > 0 {
                backoff.wait().await;
                waiting::read(&self.client, || self.client.sync(&self.path)).await?;
            }
            let reads = || {
                let reads = self.client.read_many();
                reads.get(&self.path).children(&self.path)
            };
            let reads = waiting::read(&self.client, reads).await?;
            let [Read::Data(data, stat), Read::Children(names)] = &reads[..] else {
                match waiting::read(&self.client, || self.client.get(&self.path)).await {
                    Ok(_) => continue,
                    // All are done, this one before.
                    Err(error) if error.is(Reason::NoNode) => return Ok(()),
                    // It may not be read, say.
                    Err(error) => return Err(error.into()),
                }
            };
            if decode(&self.path, data)?.decision.is_none() {
                let what = format!("{} is not decided yet", self.path);
                return Err(Error::InvalidArgument(what));
            }
            if !names.iter().any(|name| name == child) {
                return Ok(());
            }
            let steps = self.client.transaction();
            let is_last = names.iter().all(|name| name == child || name == PAYLOAD);
            let finished = if is_last {
                let steps = steps.delete(&own).delete(&payload);
                steps.delete(&self.path).if_version(stat.version)
            } else {
                let steps = steps.set(&self.path, data).if_version(stat.version);
                steps.delete(&own)
            };
            match finished.await {
                Ok(_) => return Ok(()),
                // Others were faster, or nobody knows: it is read.
                Err(error) if error.is(Reason::BadVersion) || error.is(Reason::NoNode) => {}
                Err(error) if is_worth_another(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended {
            path: self.path.clone(),
            attempts: FINISH_ATTEMPTS,
        })
    }
}

/// Whether what was asked may have been done or not, and to ask again does no harm.
pub(super) fn is_worth_another(error: &ClientError) -> bool {
    !error.needs_new_session() && (error.is_retryable() || error.outcome() == Outcome::Unknown)
}
