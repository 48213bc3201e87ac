//! Who holds something and who waits for it, for those who look from outside.

use std::time::{Duration, UNIX_EPOCH};

use quorate_client::{Reason, SessionId};

use crate::Error;
use crate::contenders::{Contenders, in_order};
use crate::lease::FencingToken;
use crate::naming::Role;
use crate::revocation;

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
        let mut seen = Vec::with_capacity(candidates.len());
        for batch in candidates.chunks(READS_MAX) {
            let reads: Vec<_> = batch
                .iter()
                .map(|candidate| self.client.get(&self.child(&candidate.name)).send())
                .collect();
            for (candidate, read) in batch.iter().zip(reads) {
                let (data, stat) = match read.await {
                    Ok(read) => read,
                    Err(error) if error.is(Reason::NoNode) => continue,
                    Err(error) => return Err(error.into()),
                };
                let since = Duration::from_millis(stat.ctime.unsigned_abs());
                seen.push(Contender {
                    identity: String::from_utf8_lossy(&data).into_owned(),
                    node: candidate.name.clone(),
                    session: SessionId::new(stat.ephemeral_owner),
                    since: UNIX_EPOCH + since,
                    is_reader: candidate.parsed.role == Role::Shared,
                });
            }
        }
        Ok(seen)
    }

    /// Reads who holds it: the first in line, with what the record says of it.
    pub(crate) async fn holder(&self) -> Result<Option<Holder>, Error> {
        for first in in_order(self.read().await?) {
            let (data, _) = match self.client.get(&self.child(&first.name)).await {
                Ok(read) => read,
                // It has gone since: the next one is first.
                Err(error) if error.is(Reason::NoNode) => continue,
                Err(error) => return Err(error.into()),
            };
            let record = self.read_record().await?;
            let granted = record.filter(|seen| {
                let record = &seen.record;
                record.is_taken() && record.node == first.name
            });
            return Ok(Some(match granted {
                Some(seen) => Holder {
                    token: Some(seen.token()),
                    identity: seen.record.holder_identity,
                    node: first.name,
                },
                None => Holder {
                    token: None,
                    identity: String::from_utf8_lossy(&data).into_owned(),
                    node: first.name,
                },
            }));
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
}
