//! Grants: the one write that makes the first in line the holder, and the one that gives it back.
//!
//! A grant is `multi[ check(my znode), setData(directory, record) ]`, and its zxid is the fencing token:
//! it grows with every grant whatever the order in which the contenders' znodes were created. A
//! zombie cannot write one: once its session is over its znode is gone, and the check fails.

use std::time::Duration;

use bytes::Bytes;
use quorate_client::{Committed, Outcome, Reason, SessionId, Stat};

use crate::contenders::{Contenders, Place};
use crate::directory::refuse_strangers;
use crate::lease::FencingToken;
use crate::record::{Record, wall_time};
use crate::{Error, StopReason};

/// How often the record may change under a write before it is given up. Only holders and operators
/// write it.
const ATTEMPTS_MAX: u32 = 64;
/// The pause after a failure that may pass.
const PAUSE: Duration = Duration::from_millis(50);

/// A record as it was read or written.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) record: Record,
    pub(crate) stat: Stat,
}

impl Seen {
    pub(crate) fn token(&self) -> FencingToken {
        FencingToken(self.record.token(self.stat.mzxid.0))
    }
}

/// Where in a transaction the check of the znode and the write of the record are.
const CHECK: usize = 0;
const SET: usize = 1;

impl Contenders {
    /// Reads the directory's record. `None` if there is no directory.
    pub(crate) async fn read_record(&self) -> Result<Option<Seen>, Error> {
        self.seen(self.client.get(&self.path).await)
    }

    /// What a read of the directory shows.
    pub(crate) fn seen(
        &self,
        read: Result<(Bytes, Stat), quorate_client::Error>,
    ) -> Result<Option<Seen>, Error> {
        match read {
            Ok((data, stat)) => {
                refuse_strangers(&self.path, &data, self.kind)?;
                let record = Record::parse(self.kind, &data);
                Ok(Some(Seen { record, stat }))
            }
            Err(error) if error.is(Reason::NoNode) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Records that `place` holds it now.
    ///
    /// Cancel safe: the place, if it is dropped, takes the znode away, and with it what was granted.
    pub(crate) async fn grant(
        &self,
        place: &Place,
        lease_duration: Duration,
        value: Option<&str>,
    ) -> Result<Seen, Error> {
        let (node, identity) = (place.name(), place.identity.as_str());
        let now = wall_time(&self.client);
        let granted = |record: &Record| record.node == node && !record.released;
        let known = place.record.clone();
        self.write_record_from(known, place.path(), granted, |record| {
            if record.holder_identity != identity {
                record.leader_transitions += 1;
            }
            identity.clone_into(&mut record.holder_identity);
            record.lease_duration_seconds = Some(rounded_up(lease_duration));
            record.acquire_time = Some(now.clone());
            record.renew_time = Some(now.clone());
            node.clone_into(&mut record.node);
            record.token = None;
            record.value = value.map(str::to_owned);
            record.handing_over_to = None;
            record.released = false;
            record.reason = None;
        })
        .await
    }

    /// Grants it to one of several who may hold it together: they must not wait for each other's write
    /// of the record. The grant is a write of the contender's own znode, and its zxid the token. Nobody
    /// is granted anything behind it before it has gone, so tokens grow all the same; and once the
    /// session is over there is nothing to write.
    ///
    /// Cancel safe.
    pub(crate) async fn grant_shared(&self, place: &Place) -> Result<FencingToken, Error> {
        let (mut data, mut version) = (Bytes::from(place.identity.clone()), 0);
        for _ in 0..ATTEMPTS_MAX {
            let set = self.client.set(place.path(), &data).if_version(version);
            match set.await {
                Ok(stat) => return Ok(FencingToken(stat.mzxid.0.unsigned_abs())),
                Err(error) if error.is(Reason::NoNode) => return Err(self.displaced()),
                // It was applied, or somebody asks for it already; what is asked stays.
                Err(error) if error.is(Reason::BadVersion) => {}
                Err(error) if error.is_retryable() => pause_if_refused(&error).await,
                Err(error) => return Err(error.into()),
            }
            match self.client.get(place.path()).await {
                Ok((read, stat)) => (data, version) = (read, stat.version),
                Err(error) if error.is(Reason::NoNode) => return Err(self.displaced()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.contended(place.path()))
    }

    /// Notes that the holder whose znode that was did not give it back, and that this was sat out.
    pub(crate) async fn note_loss(&self, place: &Place, node: &str) -> Result<(), Error> {
        let is_noted = |record: &Record| record.node != node || record.released;
        self.write_record(place.path(), is_noted, |record| {
            if record.node == node {
                record.released = true;
                record.reason = Some("it was lost".to_owned());
            }
        })
        .await?;
        Ok(())
    }

    fn contended(&self, path: &str) -> Error {
        Error::Contended {
            path: path.to_owned(),
            attempts: ATTEMPTS_MAX,
        }
    }

    /// Changes the record for as long as the znode `node` exists. If the outcome of a write is lost
    /// with the connection, `is_done` says whether the record shows it.
    ///
    /// # Errors
    ///
    /// [`Error::Displaced`]: the znode does not exist. [`Error::Contended`].
    pub(crate) async fn write_record(
        &self,
        node: &str,
        is_done: impl Fn(&Record) -> bool,
        change: impl Fn(&mut Record),
    ) -> Result<Seen, Error> {
        self.write_record_from(None, node, is_done, change).await
    }

    /// The same, where the record is known: if it has changed since, its version tells.
    async fn write_record_from(
        &self,
        mut known: Option<Seen>,
        node: &str,
        is_done: impl Fn(&Record) -> bool,
        change: impl Fn(&mut Record),
    ) -> Result<Seen, Error> {
        let mut may_be_done = false;
        for _ in 0..ATTEMPTS_MAX {
            let read = match known.take() {
                Some(known) => Some(known),
                None => self.read_record().await?,
            };
            let Some(mut seen) = read else {
                return Err(self.displaced());
            };
            if may_be_done && is_done(&seen.record) {
                return Ok(seen);
            }
            if seen.record.is_taken() {
                // What is written now hides the zxid that was the token.
                seen.record.token = Some(seen.token().get());
            }
            change(&mut seen.record);
            let transaction = self.client.transaction().check(node);
            let transaction = transaction.set(&self.path, seen.record.to_bytes());
            match transaction.if_version(seen.stat.version).await {
                Ok(committed) => {
                    seen.stat = set_stat(&committed).unwrap_or(seen.stat);
                    return Ok(seen);
                }
                Err(error)
                    if error.target().index() == Some(SET) && error.is(Reason::BadVersion) => {}
                Err(error) if error.is(Reason::NoNode) => return Err(self.displaced()),
                // It may have been applied, or may still be: the version tells one from the other, as
                // of two writes at one version only one is.
                Err(error) if error.outcome() == Outcome::Unknown && error.is_retryable() => {
                    may_be_done = true;
                }
                Err(error) if error.is_retryable() => pause_if_refused(&error).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.contended(&self.path))
    }

    /// Gives back what the znode `node` held: the record says so, and the znode is gone, in one step.
    /// Goes on until that is so or the session is over. `granted` is the record as the grant left it.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: the znode had gone before, so that somebody else may hold it already. The ACL
    /// does not allow it: the znode stays for as long as the session lives.
    pub(crate) async fn release(
        &self,
        node: &str,
        granted: Seen,
        reason: &StopReason,
    ) -> Result<(), Error> {
        let mut known = Some(granted);
        let name = node.rsplit('/').next().unwrap_or_default();
        // It may be this that has deleted the znode.
        let mut may_be_done = false;
        for _ in 0..ATTEMPTS_MAX {
            let read = match known.take() {
                Some(known) => Ok(Some(known)),
                None => self.read_record().await,
            };
            let seen = match read {
                Ok(Some(seen)) if seen.record.node == name => seen,
                // Somebody else's, or nobody's: there is nothing to say in it.
                Ok(_) => break,
                Err(error) if is_over(&error) => {
                    return self.gone(may_be_done, StopReason::SessionOver);
                }
                Err(error) if is_passing(&error) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(_) => break,
            };
            let mut record = seen.record.clone();
            record.token = Some(seen.token().get());
            record.released = true;
            record.handing_over_to = None;
            record.renew_time = Some(wall_time(&self.client));
            record.reason = Some(reason.to_string());
            let transaction = self.client.transaction().delete(node);
            let transaction = transaction.set(&self.path, record.to_bytes());
            match transaction.if_version(seen.stat.version).await {
                Ok(_) => return Ok(()),
                Err(error) if error.target().index() == Some(CHECK) && error.is(Reason::NoNode) => {
                    return self.gone(may_be_done, StopReason::NodeDeleted);
                }
                Err(error) if error.is(Reason::BadVersion) => {}
                Err(error) => {
                    may_be_done |= error.outcome() == Outcome::Unknown;
                    let error = error.into();
                    if is_over(&error) {
                        return self.gone(may_be_done, StopReason::SessionOver);
                    }
                    if !is_passing(&error) {
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.delete_held(node, may_be_done).await
    }

    /// Gives back what was granted by [`Contenders::grant_shared`]: no record names its holder.
    ///
    /// # Errors
    ///
    /// As [`Contenders::release`].
    pub(crate) async fn release_shared(&self, node: &str, session: SessionId) -> Result<(), Error> {
        let deleted = self.delete_held(node, false).await;
        // If the session has ended meanwhile nobody can tell what the znode went with.
        match deleted.is_ok() && self.client.session() != Some(session) {
            true => self.gone(false, StopReason::SessionOver),
            false => deleted,
        }
    }

    /// `may_be_done`: the znode may have been deleted by us already.
    async fn delete_held(&self, node: &str, mut may_be_done: bool) -> Result<(), Error> {
        match self.client.delete(node).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is(Reason::NoNode) => {
                return self.gone(may_be_done, StopReason::NodeDeleted);
            }
            Err(error) => may_be_done |= error.outcome() == Outcome::Unknown,
        }
        match self.client.delete(node).guaranteed().await {
            Ok(()) => Ok(()),
            Err(error) if error.needs_new_session() => {
                self.gone(may_be_done, StopReason::SessionOver)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The znode is gone.
    fn gone(&self, may_be_done: bool, reason: StopReason) -> Result<(), Error> {
        match may_be_done {
            true => Ok(()),
            false => Err(Error::Lost {
                path: self.path.clone(),
                reason,
            }),
        }
    }
}

/// A server that answers "not now" must not be asked without end; where there is no connection, the
/// next request waits for one.
async fn pause_if_refused(error: &quorate_client::Error) {
    if error.reason().is_some() {
        tokio::time::sleep(PAUSE).await;
    }
}

fn set_stat(committed: &Committed) -> Option<Stat> {
    committed.set(SET).copied()
}

fn is_over(error: &Error) -> bool {
    matches!(error, Error::Client(error) if error.needs_new_session())
}

fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Client(error) if error.is_retryable())
}

fn rounded_up(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
