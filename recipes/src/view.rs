//! Who holds something and who waits for it, for those who look from outside.

use std::time::{Duration, UNIX_EPOCH};

use quorate_client::{Reason, SessionId, Stat};

use crate::Error;
use crate::contenders::{Candidate, Contenders, in_order};
use crate::grant::Seen;
use crate::lease::FencingToken;
use crate::naming::{Number, Role};
use crate::revocation::{self, is_asked};

/// Contenders whose znodes are read at a time.
const READS_MAX: usize = 64;

/// One who holds something, or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contender {
    /// What it calls itself; of other libraries often an address.
    pub identity: String,
    /// The name of its znode.
    pub node: String,
    /// Its session.
    pub session: Option<SessionId>,
    /// When it joined, by the leader's clock.
    pub since: std::time::SystemTime,
    /// It wants to read only.
    pub is_reader: bool,
}

/// One who holds something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// What it calls itself.
    pub identity: String,
    /// The name of its znode.
    pub node: String,
    /// Its token; `None` for a holder of another library, which has none.
    pub token: Option<FencingToken>,
}

impl Contenders {
    /// Reads who is in the line, first come first.
    pub(crate) async fn view(&self) -> Result<Vec<Contender>, Error> {
        let candidates = in_order(self.read().await?);
        let mut seen: Vec<(Number, i64, Contender)> = Vec::with_capacity(candidates.len());
        self.read_all(&candidates, |candidate, data, stat| {
            let since = Duration::from_millis(stat.ctime.unsigned_abs());
            let contender = Contender {
                identity: String::from_utf8_lossy(data).into_owned(),
                node: candidate.name.clone(),
                session: SessionId::new(stat.ephemeral_owner),
                since: UNIX_EPOCH + since,
                is_reader: candidate.parsed.role == Role::Shared,
            };
            seen.push((candidate.number(), stat.czxid.0, contender));
        })
        .await?;
        // Whoever stands behind a leader has its number, and came later.
        for same in seen.chunk_by_mut(|one, other| one.0 == other.0) {
            same.sort_by_key(|(_, created, _)| *created);
        }
        let mut seen: Vec<_> = seen.into_iter().map(|(_, _, seen)| seen).collect();
        // What is asked of a holder hides what it calls itself; the record still has that.
        if seen.iter().any(|other| is_asked(&other.identity))
            && let Some(Seen { record, .. }) = self.read_record().await?
            && let Some(holder) = seen.iter_mut().find(|other| other.node == record.node)
        {
            holder.identity = record.holder_identity;
        }
        Ok(seen)
    }

    /// Reads who holds it: whom the record names, or else the first in line.
    pub(crate) async fn holder(&self) -> Result<Option<Holder>, Error> {
        let candidates = in_order(self.read().await?);
        let is_there = |seen: &Seen| {
            let record = &seen.record;
            record.is_taken() && candidates.iter().any(|other| other.name == record.node)
        };
        // Not always the first: whoever is to be next may have the same number.
        if let Some(seen) = self.read_record().await?.filter(is_there) {
            return Ok(Some(Holder {
                token: Some(seen.token()),
                identity: seen.record.holder_identity,
                node: seen.record.node,
            }));
        }
        for first in candidates {
            match self.client.get(&self.child(&first.name)).await {
                Ok((data, _)) => {
                    return Ok(Some(Holder {
                        token: None,
                        identity: String::from_utf8_lossy(&data).into_owned(),
                        node: first.name,
                    }));
                }
                // It has gone since: the next one is first.
                Err(error) if error.is(Reason::NoNode) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Asks whoever is first in line to give back what it holds. `false` if there is nobody.
    pub(crate) async fn revoke(&self, reason: &str) -> Result<bool, Error> {
        let Some(first) = in_order(self.read().await?).into_iter().next() else {
            return Ok(false);
        };
        let data = revocation::revoke(&first.name, reason);
        // If it has gone by itself meanwhile, that is what was asked for.
        self.tell(&first.name, data).await?;
        Ok(true)
    }

    /// The readers before the first writer, who hold it together.
    pub(crate) async fn readers_in_front(&self) -> Result<Vec<Candidate>, Error> {
        let mut readers = in_order(self.read().await?);
        let count = readers
            .iter()
            .take_while(|reader| reader.parsed.role == Role::Shared)
            .count();
        readers.truncate(count);
        Ok(readers)
    }

    /// Reads who these are that were granted something by [`Contenders::grant_shared`].
    pub(crate) async fn shared_holders(
        &self,
        holders: Vec<Candidate>,
    ) -> Result<Vec<Holder>, Error> {
        let mut seen = Vec::with_capacity(holders.len());
        self.read_all(&holders, |candidate, data, stat| {
            // Written once: that was the grant. A later write hides its zxid.
            let token = (stat.version == 1).then(|| FencingToken(stat.mzxid.0.unsigned_abs()));
            seen.push(Holder {
                identity: String::from_utf8_lossy(data).into_owned(),
                node: candidate.name.clone(),
                token,
            });
        })
        .await?;
        Ok(seen)
    }

    /// Asks these to give back what they hold. Whether one of them was still there.
    pub(crate) async fn revoke_all(
        &self,
        holders: Vec<Candidate>,
        reason: &str,
    ) -> Result<bool, Error> {
        let mut is_asked = false;
        for holder in holders {
            let data = revocation::revoke(&holder.name, reason);
            is_asked |= self.tell(&holder.name, data).await?;
        }
        Ok(is_asked)
    }

    /// Reads their znodes, some at a time. Those that have gone are left out.
    async fn read_all(
        &self,
        candidates: &[Candidate],
        mut see: impl FnMut(&Candidate, &[u8], &Stat),
    ) -> Result<(), Error> {
        for batch in candidates.chunks(READS_MAX) {
            let reads: Vec<_> = batch
                .iter()
                .map(|candidate| self.client.get(&self.child(&candidate.name)).send())
                .collect();
            for (candidate, read) in batch.iter().zip(reads) {
                match read.await {
                    Ok((data, stat)) => see(candidate, &data, &stat),
                    Err(error) if error.is(Reason::NoNode) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}
