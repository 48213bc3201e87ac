//! Handing over to a named candidate.
//!
//! The leader asks the candidate, by the data of the candidate's own znode, to stand behind it. The
//! candidate creates a znode with the leader's own number, which no other library takes for anything
//! but the first in line, and deletes its old one, in one step. From then on it waits for the leader's
//! znode to go; everybody else waits for the candidate.

use quorate_client::{Outcome, Reason};

use crate::contenders::{Contenders, Place};
use crate::lease::{Lease, StopReason};
use crate::naming::Parsed;
use crate::{Error, revocation};

impl Contenders {
    /// Resolves when a leader asks this candidate to stand behind it: the name of the leader's znode.
    ///
    /// # Errors
    ///
    /// [`Error::Displaced`]; those of a session that is over.
    pub(crate) async fn asked_to_take_over(&self, own: &str) -> Result<String, Error> {
        loop {
            let read = self.client.get(own).watch().await;
            let ((data, _), changed) = match read {
                Err(error) if error.is(Reason::NoNode) => return Err(self.displaced()),
                read => read?,
            };
            if let Some(leader) = revocation::takes_over_from(&data) {
                return Ok(leader);
            }
            changed.await.ok();
        }
    }

    /// Gives up the place in the line for one right behind the leader.
    pub(crate) async fn stand_behind(&self, leader: &str, place: &mut Place) -> Result<(), Error> {
        let own = Parsed::of(place.name());
        let (Some(own), Some(leaders)) = (own, Parsed::of(leader)) else {
            return Ok(());
        };
        // The same mark, with the leader's number: no two candidates can have the same name.
        let name = own.renumbered(place.name(), leaders.number);
        let path = self.child(&name);
        let identity = place.identity.clone();
        let transaction = self
            .client
            .transaction()
            .check(&self.child(leader))
            .create(&path, &identity)
            .ephemeral()
            .acl(self.acl.clone())
            .delete(place.path());
        match transaction.await {
            Ok(_) => {}
            // The leader has gone, or somebody has deleted our znode. What was asked is void.
            Err(error) if error.is(Reason::NoNode) => {
                self.tell(place.name(), identity).await?;
                return Ok(());
            }
            Err(error) if error.outcome() == Outcome::Unknown => {
                // Of the two znodes there is one: which, a read tells. A request that was lost on its
                // way may still arrive; `sync` is answered after it.
                self.client.sync(&self.path).await?;
                match self.client.exists(&path).await? {
                    Some(stat) if stat.ephemeral_owner == place.session.get() => {}
                    _ => return Ok(()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        place.moved_to(path, leader.to_owned());
        Ok(())
    }
}

/// See [`super::Term::transfer_to`].
pub(super) async fn hand_over(
    line: &Contenders,
    lease: &Lease,
    candidate: &str,
) -> Result<(), Error> {
    let refused = |why| Error::NoSuccessor {
        path: line.path.clone(),
        candidate: candidate.to_owned(),
        why,
    };
    if candidate == lease.identity() {
        return Err(refused("it leads already"));
    }
    let own = lease.node().rsplit('/').next().unwrap_or_default();
    let candidates = line.view().await?;
    let mut found = candidates
        .iter()
        .filter(|other| other.identity == candidate && other.node != own);
    let Some(successor) = found.next() else {
        return Err(refused("nobody of that name stands"));
    };
    if revocation::is_curators(&successor.node) {
        return Err(refused("it uses a library that cannot be asked"));
    }
    let name = own.to_owned();
    let to = candidate.to_owned();
    line.write_record(
        lease.node(),
        |record| record.node == name && record.handing_over_to.as_deref() == Some(&to),
        |record| record.handing_over_to = Some(to.clone()),
    )
    .await?;
    // If it is not there any more, it has gone for good, or was told by an attempt whose answer was
    // lost, and stands behind us already.
    line.tell(&successor.node, revocation::take_over(own))
        .await?;
    // Half a session: one that lives answers within a heartbeat or two.
    let patience = lease.schedule().session_timeout / 2;
    let left = tokio::select! {
        left = tokio::time::timeout(patience, has_gone(line, &successor.node)) => match left {
            Ok(left) => {
                left?;
                true
            }
            Err(_) => false,
        },
        _ = lease.stopping() => return Err(refused("the leader is to stop already")),
    };
    if !left {
        // It does not answer. It must not take over later, when nobody counts on it.
        line.tell(&successor.node, candidate.to_owned()).await?;
    }
    // It may have gone for good, or stand behind us now.
    let number = Parsed::of(own).map(|own| own.number);
    let stands = line
        .read()
        .await?
        .into_iter()
        .any(|other| other.name != own && Some(other.number()) == number);
    if !stands {
        return Err(refused("it does not answer"));
    }
    let to = candidate.to_owned();
    lease.stop(StopReason::Transferred { to });
    Ok(())
}

/// Resolves when there is no such znode.
async fn has_gone(line: &Contenders, name: &str) -> Result<(), Error> {
    loop {
        let (found, changed) = line.client.exists(&line.child(name)).watch().await?;
        if found.is_none() {
            return Ok(());
        }
        changed.await.ok();
    }
}
