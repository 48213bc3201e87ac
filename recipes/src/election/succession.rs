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
use crate::record::Record;
use crate::view::Contender;
use crate::{Error, revocation};

/// What a leader has asked of a candidate.
pub(crate) struct Asked {
    /// The name of the leader's znode.
    leader: String,
    /// Of the candidate's znode: a leader that takes back what it asked changes it.
    version: i32,
}

impl Contenders {
    /// Resolves when a leader asks this candidate to stand behind it.
    ///
    /// # Errors
    ///
    /// [`Error::Displaced`]; those of a session that is over.
    pub(crate) async fn asked_to_take_over(&self, own: &str) -> Result<Asked, Error> {
        loop {
            let read = self.client.get(own).watch().await;
            let ((data, stat), changed) = match read {
                Err(error) if error.is(Reason::NoNode) => return Err(self.displaced()),
                read => read?,
            };
            if let Some(leader) = revocation::takes_over_from(&data) {
                let version = stat.version;
                return Ok(Asked { leader, version });
            }
            changed.await.ok();
        }
    }

    /// Gives up the place in the line for one right behind the leader.
    ///
    /// Cancel safe: the place, if it is dropped, takes away whichever of its znodes there is.
    pub(crate) async fn stand_behind(&self, asked: &Asked, place: &mut Place) -> Result<(), Error> {
        let leader = asked.leader.as_str();
        let own = Parsed::of(place.name());
        let (Some(own), Some(leaders)) = (own, Parsed::of(leader)) else {
            return Ok(());
        };
        // The same mark, with the leader's number: no two candidates can have the same name.
        let name = own.renumbered(place.name(), leaders.number);
        let path = self.child(&name);
        let identity = place.identity.clone();
        if name == place.name() {
            // It stands there already, and is asked again.
            self.tell(&name, identity).await?;
            place.moved_to(path, leader.to_owned());
            return Ok(());
        }
        place.may_move_to(&path);
        let transaction = self
            .client
            .transaction()
            .check(&self.child(leader))
            .create(&path, &identity)
            .ephemeral()
            .acl(self.acl.clone())
            .delete(place.path())
            .if_version(asked.version);
        match transaction.await {
            Ok(_) => {}
            // It is asked something else now, or nothing.
            Err(error) if error.is(Reason::BadVersion) => return Ok(()),
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
    // One at a time: of two who are asked only one can be next.
    let _handing_over = lease.handing_over().await;
    if lease.stop_reason().is_some() {
        return Err(refused("the leader is to stop already"));
    }
    if candidate == lease.identity() {
        return Err(refused("it leads already"));
    }
    let own = lease.node().rsplit('/').next().unwrap_or_default();
    let candidates = line.view().await?;
    let place = Parsed::of(own).map(|own| own.number);
    let has_our_place = |name: &str| {
        let number = Parsed::of(name).map(|other| other.number);
        name != own && number == place
    };
    // It was asked by an attempt that nobody saw the end of.
    let next = candidates.iter().find(|other| has_our_place(&other.node));
    if next.is_some_and(|next| next.identity != candidate) {
        return Err(refused("another stands behind the leader already"));
    }
    let mut found = candidates
        .iter()
        .filter(|other| other.identity == candidate && other.node != own);
    let Some(successor) = next.or_else(|| found.next()) else {
        return Err(refused("nobody of that name stands"));
    };
    if revocation::is_curators(&successor.node) {
        return Err(refused("it uses a library that cannot be asked"));
    }
    let note = async |to: Option<&str>| {
        let is_noted = |record: &Record| record.handing_over_to.as_deref() == to;
        let note = |record: &mut Record| record.handing_over_to = to.map(str::to_owned);
        line.write_record(lease.node(), is_noted, note).await
    };
    note(Some(candidate)).await?;
    let asked = match next {
        Some(_) => Ok(true),
        None => ask(line, lease, own, successor).await,
    };
    let why = match asked {
        Ok(true) => {
            let to = candidate.to_owned();
            lease.stop(StopReason::Transferred { to });
            return Ok(());
        }
        Ok(false) if lease.stop_reason().is_some() => Ok("the leader is to stop already"),
        Ok(false) => Ok("it does not answer"),
        Err(error) => Err(error),
    };
    // The leader goes on, and nobody should think otherwise.
    if let Err(error) = note(None).await {
        tracing::info!(path = %line.path, %error, "still on record as handing over");
    }
    Err(refused(why?))
}

/// Asks a candidate to stand behind the leader; whether it does.
async fn ask(
    line: &Contenders,
    lease: &Lease,
    own: &str,
    successor: &Contender,
) -> Result<bool, Error> {
    // If it is not there any more, it has gone for good, or was told by an attempt whose answer was
    // lost, and stands behind us already.
    line.tell(&successor.node, revocation::take_over(own))
        .await?;
    // Half a session: one that lives answers within a heartbeat or two.
    let patience = lease.schedule().session_timeout / 2;
    let has_gone = tokio::select! {
        has_gone = tokio::time::timeout(patience, has_gone(line, &successor.node)) => has_gone,
        _ = lease.stopping() => return Ok(false),
    };
    match has_gone {
        Ok(has_gone) => has_gone?,
        // It does not answer. It must not take over later, when nobody counts on it.
        Err(_) => {
            line.tell(&successor.node, successor.identity.clone())
                .await?;
        }
    }
    // It may have gone for good, or stand behind us now.
    let (Some(place), Some(theirs)) = (Parsed::of(own), Parsed::of(&successor.node)) else {
        return Ok(false);
    };
    let behind = theirs.renumbered(&successor.node, place.number);
    let candidates = line.read().await?;
    Ok(candidates.iter().any(|other| other.name == behind))
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
