//! Permits: at most so many hold one at a time.
//!
//! The layout is that of Curator's `InterProcessSemaphoreV2`: below the semaphore, `leases` has a
//! child for each permit, and only the first of the line at `locks` may add one. So nobody but that
//! one watches the permits, and it is fair. What counts for safety is the order of the permits'
//! numbers, not the line: whoever has one of the lowest numbers has a permit, whoever else thinks so.

use quorate_client::{Client, Outcome, Reason};
use serde::{Deserialize, Serialize};

use crate::acquire::Acquire;
use crate::contenders::{Candidate, Contenders, Place, in_order};
use crate::directory::{self, Kind, refuse_strangers};
use crate::naming::Role;
use crate::options::{Options, options};
use crate::view::{Contender, Holder};
use crate::{Error, Lease};

/// How often the record may change under a write before it is given up. It is written once.
const ATTEMPTS_MAX: u32 = 16;

/// At most so many hold a permit at a time, in the order of arrival. Cheap to clone.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, Semaphore};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let downloads = Semaphore::new(&client, "/limits/downloads", 5);
/// downloads.run(|_| download()).await?;
/// # Ok(())
/// # }
/// # async fn download() {}
/// ```
///
/// What it promises of a holder's work, session and token is what [`Mutex`](crate::Mutex) promises. It
/// shares permits with Curator's `InterProcessSemaphoreV2`; that one does not look at the limit
/// which is agreed on here, and has to be given the same.
#[derive(Clone, Debug)]
pub struct Semaphore {
    options: Options,
    permits: Permits,
}

options!(Semaphore);

impl Semaphore {
    /// A semaphore at a path, which need not exist, with so many permits. All who use it have to name
    /// the same number. Nothing is sent.
    pub fn new(client: &Client, path: &str, limit: u32) -> Self {
        Self {
            options: Options::new(client, path, Kind::Semaphore),
            permits: Permits::new(client, path, limit),
        }
    }

    /// Asks for a permit. Resolves to a [`Guard`](crate::Guard).
    ///
    /// Besides the errors of [`Acquire`], [`Error::LimitMismatch`]: others use it with another number
    /// of permits.
    pub fn acquire(&self) -> Acquire {
        let mut acquire = Acquire::new(&self.options, Role::Permit);
        acquire.permits = Some(self.permits.with_acl_of(&self.options));
        acquire
    }

    /// Runs `work` with a permit. See [`Guard::run`](crate::Guard::run).
    ///
    /// # Errors
    ///
    /// As [`Semaphore::acquire`]; [`Error::Lost`] if the work was dropped.
    pub async fn run<F, W, T>(&self, work: F) -> Result<T, Error>
    where
        F: FnOnce(Lease) -> W,
        W: Future<Output = T>,
    {
        self.acquire().run(work).await
    }

    /// Reads who holds a permit, then who waits for one, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of any read.
    pub async fn contenders(&self) -> Result<Vec<Contender>, Error> {
        let mut contenders = self.permits.leases.view().await?;
        contenders.truncate(self.permits.limit());
        contenders.extend(self.permits.locks.view().await?);
        Ok(contenders)
    }

    /// Reads who holds a permit.
    ///
    /// # Errors
    ///
    /// As [`Semaphore::contenders`].
    pub async fn holders(&self) -> Result<Vec<Holder>, Error> {
        let mut held = self.permits.held().await?;
        held.truncate(self.permits.limit());
        self.permits.leases.shared_holders(held).await
    }

    /// Asks one holder to give its permit back ([`StopReason::Revoked`](crate::StopReason::Revoked)):
    /// the one of [`Semaphore::holders`] with this [`Holder::node`]. `false` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Semaphore::contenders`], and those of any write.
    pub async fn revoke(&self, node: &str, reason: &str) -> Result<bool, Error> {
        let held = self.permits.held().await?;
        let mut asked: Vec<_> = held.into_iter().take(self.permits.limit()).collect();
        asked.retain(|holder| holder.name == node);
        if asked.is_empty() {
            return Ok(false);
        }
        self.permits.leases.revoke_all(asked, reason).await
    }
}

/// What the semaphore's znode says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Agreed {
    recipe: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    /// What later versions add is kept.
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// What is read says the same when it is written again.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzing(data: &[u8]) {
    if let Ok(agreed) = serde_json::from_slice::<Agreed>(data) {
        let written = serde_json::to_vec(&agreed).expect("it is plain");
        let again: Agreed = serde_json::from_slice(&written).expect("it was written");
        assert_eq!((again.recipe, again.limit), (agreed.recipe, agreed.limit));
        assert_eq!(again.rest, agreed.rest);
    }
}

/// Where the permits of a semaphore are, and where they are waited for.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    limit: u32,
    pub(crate) locks: Contenders,
    pub(crate) leases: Contenders,
}

impl Permits {
    fn new(client: &Client, path: &str, limit: u32) -> Self {
        let below = |name: &str| {
            let path = format!("{}/{name}", path.trim_end_matches('/'));
            Contenders::new(client, &path, Kind::Semaphore)
        };
        Self {
            limit,
            locks: below("locks"),
            leases: below("leases"),
        }
    }

    fn with_acl_of(&self, options: &Options) -> Self {
        let mut permits = self.clone();
        permits.locks.acl.clone_from(&options.line.acl);
        permits.leases.acl.clone_from(&options.line.acl);
        permits
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.limit == 0 {
            let what = "a semaphore without permits would never be entered";
            return Err(Error::InvalidArgument(what.to_owned()));
        }
        Ok(())
    }

    fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// Makes sure that all have the same limit in mind: whoever is first writes it down.
    ///
    /// # Errors
    ///
    /// [`Error::LimitMismatch`], [`Error::OtherRecipe`], [`Error::Foreign`].
    pub(crate) async fn agree(&self, semaphore: &Contenders) -> Result<(), Error> {
        let (client, path) = (&semaphore.client, &semaphore.path);
        for _ in 0..ATTEMPTS_MAX {
            let (data, stat) = match client.get(path).await {
                Ok(read) => read,
                Err(error) if error.is(Reason::NoNode) => {
                    directory::create(client, path, self.agreed(b""), &semaphore.acl).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            refuse_strangers(path, &data, Kind::Semaphore)?;
            let known: Result<Agreed, _> = serde_json::from_slice(&data);
            match known.ok().and_then(|known| known.limit) {
                Some(theirs) if theirs == self.limit => return Ok(()),
                Some(theirs) => {
                    return Err(Error::LimitMismatch {
                        path: path.clone(),
                        ours: self.limit,
                        theirs,
                    });
                }
                None => {}
            }
            let set = client
                .set(path, self.agreed(&data))
                .if_version(stat.version);
            match set.await {
                Ok(_) => return Ok(()),
                Err(error) if error.is(Reason::BadVersion) || error.is(Reason::NoNode) => {}
                // What became of it is read.
                Err(error) if error.is_retryable() && error.outcome() == Outcome::Unknown => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended {
            path: path.clone(),
            attempts: ATTEMPTS_MAX,
        })
    }

    fn agreed(&self, data: &[u8]) -> Vec<u8> {
        let known: Result<Agreed, _> = serde_json::from_slice(data);
        let agreed = Agreed {
            recipe: Kind::Semaphore,
            limit: Some(self.limit),
            rest: known.map(|known| known.rest).unwrap_or_default(),
        };
        // Keys are strings and values are plain: there is nothing that could not be written.
        serde_json::to_vec(&agreed).unwrap_or_default()
    }

    /// All permits that were asked for, in order: those beyond the limit are held by nobody yet.
    async fn held(&self) -> Result<Vec<Candidate>, Error> {
        Ok(in_order(permits_of(self.leases.read().await?)))
    }

    pub(crate) async fn is_free(&self) -> Result<bool, Error> {
        Ok(self.held().await?.len() < self.limit())
    }

    /// Whether the permit is one of the first.
    ///
    /// A child with a lower number was created before ours, so a server that knows ours knows it too:
    /// a server that lags behind can make us wait longer, never shorter.
    pub(crate) async fn has(&self, place: &Place) -> Result<bool, Error> {
        is_among(&self.held().await?, place.name(), self.limit())
            .ok_or_else(|| self.leases.displaced())
    }

    /// Waits until the permit is one of the first. Cancel safe.
    pub(crate) async fn wait_for(&self, place: &Place) -> Result<(), Error> {
        let leases = &self.leases;
        loop {
            let watched = leases.client.children(&leases.path).watch().await;
            let ((names, _), changed) = match watched {
                Ok(read) => read,
                Err(error) if error.is(Reason::NoNode) => return Err(leases.displaced()),
                Err(error) => return Err(error.into()),
            };
            let held = in_order(permits_of(leases.candidates(&names)?));
            match is_among(&held, place.name(), self.limit()) {
                Some(true) => return Ok(()),
                Some(false) => drop(changed.changed().await),
                None => return Err(leases.displaced()),
            }
        }
    }
}

fn permits_of(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.retain(|candidate| candidate.parsed.role == Role::Permit);
    candidates
}

/// Whether `name` is one of the first; `None` if it is not there.
fn is_among(held: &[Candidate], name: &str, limit: usize) -> Option<bool> {
    let place = held.iter().position(|permit| permit.name == name)?;
    Some(place < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_numbers_have_permits_also_across_the_wrap() {
        let names = ["-2147483648", "2147483647", "2147483646", "-2147483647"];
        let held: Vec<_> = names
            .iter()
            .filter_map(|number| Candidate::of(&format!("_c_x-lease-{number}")))
            .collect();
        let held = in_order(permits_of(held));
        let has = |number: &str| is_among(&held, &format!("_c_x-lease-{number}"), 2);
        assert_eq!(
            names.map(has),
            [Some(false), Some(true), Some(true), Some(false)]
        );
        assert_eq!(has("0000000001"), None);
    }

    #[test]
    fn only_permits_count() {
        let names = ["_c_a-lock-0000000001", "_c_a-lease-0000000002"];
        let held = names
            .iter()
            .filter_map(|name| Candidate::of(name))
            .collect();
        assert_eq!(permits_of(held).len(), 1);
    }
}
