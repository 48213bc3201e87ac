//! What a member holds, and what its owner is yet to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use parking_lot::Mutex;
use quorate_client::Zxid;
use tokio::sync::{Notify, mpsc, watch};

/// A change of what a member has. A partition may be both lost and acquired anew: what is lost, or to be
/// given back, is of guards that came before those acquired here, and is to be seen to first.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Assignment {
    /// It has these now.
    pub acquired: Vec<Partition>,
    /// It is to give these back: by dropping their guards, when the work on them has ended.
    pub revoked: Vec<String>,
    /// It does not have these any more, or cannot know: all work on them has to end now. Their guards
    /// are of no use.
    pub lost: Vec<String>,
}

/// How a partition is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Held,
    Revoked,
    Lost,
    /// It is free.
    Released,
}

/// A partition that is ours, until this is dropped.
///
/// Dropping it gives the partition back in the background; [`Partition::release`] waits for that. One
/// that is given back without having been revoked is assigned anew, most often to the same member.
pub struct Partition {
    name: String,
    token: Zxid,
    hold: watch::Receiver<Hold>,
    releases: mpsc::UnboundedSender<Release>,
}

/// Which guard was dropped.
#[derive(Clone, Debug)]
pub(super) struct Release {
    pub(super) name: String,
    pub(super) token: Zxid,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("name", &self.name)
            .field("token", &self.token)
            .field("hold", &*self.hold.borrow())
            .finish_non_exhaustive()
    }
}

impl Partition {
    /// Which.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The zxid of the write that made it ours: larger than that of any owner before. A store that has
    /// seen a larger one is to refuse what comes with this.
    pub fn token(&self) -> Zxid {
        self.token
    }

    /// Whether it is to be given back, or is lost.
    pub fn is_revoked(&self) -> bool {
        *self.hold.borrow() != Hold::Held
    }

    /// Whether somebody else may have it.
    pub fn is_lost(&self) -> bool {
        // A task that is gone has told nobody.
        matches!(*self.hold.borrow(), Hold::Lost | Hold::Released)
            || self.hold.has_changed().is_err()
    }

    /// Waits until it is to be given back, or is lost. Cancel safe.
    pub async fn revoked(&self) {
        let mut hold = self.hold.clone();
        hold.wait_for(|hold| *hold != Hold::Held).await.ok();
    }

    /// Gives it back, and waits until others may have it.
    ///
    /// Cancel safe: it goes on.
    pub async fn release(self) {
        let mut hold = self.hold.clone();
        drop(self);
        let over = |hold: &Hold| matches!(hold, Hold::Lost | Hold::Released);
        hold.wait_for(over).await.ok();
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let release = Release {
            name: self.name.clone(),
            token: self.token,
        };
        // The task has ended: so has the session.
        self.releases.send(release).ok();
    }
}

/// Between the task and the owner.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// There is something to tell.
    pub(super) told: Notify,
    /// All was lost: the task has to look at it.
    pub(super) lost: Notify,
    /// One message for each guard: as many as there are partitions, and no more.
    releases: mpsc::UnboundedSender<Release>,
}

#[derive(Default)]
struct Inner {
    held: BTreeMap<String, Held>,
    acquired: Vec<Partition>,
    revoked: BTreeSet<String>,
    lost: BTreeSet<String>,
    /// Counts how often all was lost.
    losses: u64,
    is_over: bool,
}

struct Held {
    token: Zxid,
    hold: watch::Sender<Hold>,
}

pub(super) enum Told {
    Something(Assignment),
    Nothing,
    End,
}

impl Shared {
    pub(super) fn new(releases: mpsc::UnboundedSender<Release>) -> Self {
        Self {
            inner: Mutex::default(),
            told: Notify::new(),
            lost: Notify::new(),
            releases,
        }
    }

    pub(super) fn take(&self) -> Told {
        let mut inner = self.inner.lock();
        if inner.acquired.is_empty() && inner.revoked.is_empty() && inner.lost.is_empty() {
            return if inner.is_over {
                Told::End
            } else {
                Told::Nothing
            };
        }
        Told::Something(Assignment {
            acquired: std::mem::take(&mut inner.acquired),
            revoked: std::mem::take(&mut inner.revoked).into_iter().collect(),
            lost: std::mem::take(&mut inner.lost).into_iter().collect(),
        })
    }

    pub(super) fn held(&self) -> Vec<String> {
        self.inner.lock().held.keys().cloned().collect()
    }

    pub(super) fn tokens(&self) -> BTreeMap<String, Zxid> {
        let inner = self.inner.lock();
        let held = inner.held.iter();
        held.map(|(name, held)| (name.clone(), held.token))
            .collect()
    }

    pub(super) fn losses(&self) -> u64 {
        self.inner.lock().losses
    }

    /// `false`: all was lost since `losses`, and this with it.
    pub(super) fn acquire(&self, name: &str, token: Zxid, losses: u64) -> bool {
        let mut inner = self.inner.lock();
        if inner.losses != losses {
            return false;
        }
        let (hold, seen) = watch::channel(Hold::Held);
        inner.held.insert(name.to_owned(), Held { token, hold });
        inner.acquired.push(Partition {
            name: name.to_owned(),
            token,
            hold: seen,
            releases: self.releases.clone(),
        });
        drop(inner);
        self.told.notify_one();
        true
    }

    /// Asks for them back, once.
    pub(super) fn revoke<'a>(&self, names: impl IntoIterator<Item = &'a String>) {
        let mut inner = self.inner.lock();
        let mut unseen = Vec::new();
        for name in names {
            let Some(held) = inner.held.get(name) else {
                continue;
            };
            if held.hold.send_replace(Hold::Revoked) == Hold::Revoked {
                continue;
            }
            // One that nobody has seen goes at once.
            match withdraw(&mut inner, name) {
                Some(guard) => unseen.push(guard),
                None => drop(inner.revoked.insert(name.clone())),
            }
        }
        drop(inner);
        drop(unseen);
        self.told.notify_one();
    }

    /// It is not ours any more.
    pub(super) fn lose(&self, name: &str) {
        let mut inner = self.inner.lock();
        let unseen = lose(&mut inner, name);
        drop(inner);
        drop(unseen);
        self.told.notify_one();
    }

    pub(super) fn lose_all(&self) {
        let mut inner = self.inner.lock();
        inner.losses += 1;
        let names: Vec<String> = inner.held.keys().cloned().collect();
        let unseen: Vec<_> = names.iter().map(|name| lose(&mut inner, name)).collect();
        drop(inner);
        drop(unseen);
        self.told.notify_one();
        self.lost.notify_one();
    }

    /// Others may have it. The guard, if it is this one's, is gone.
    pub(super) fn free(&self, name: &str) {
        let mut inner = self.inner.lock();
        if let Some(held) = inner.held.remove(name) {
            held.hold.send_replace(Hold::Released);
        }
        inner.revoked.remove(name);
    }

    pub(super) fn end(&self) {
        self.lose_all();
        self.inner.lock().is_over = true;
        self.told.notify_one();
    }
}

/// The guard that nobody has taken yet. It is to be dropped without the lock.
fn withdraw(inner: &mut Inner, name: &str) -> Option<Partition> {
    let at = inner.acquired.iter().position(|one| one.name == name)?;
    Some(inner.acquired.swap_remove(at))
}

fn lose(inner: &mut Inner, name: &str) -> Option<Partition> {
    let held = inner.held.remove(name)?;
    held.hold.send_replace(Hold::Lost);
    inner.revoked.remove(name);
    let unseen = withdraw(inner, name);
    if unseen.is_none() {
        inner.lost.insert(name.to_owned());
    }
    unseen
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn something(shared: &Shared) -> Assignment {
        match shared.take() {
            Told::Something(assignment) => assignment,
            Told::Nothing | Told::End => panic!("nothing is told"),
        }
    }

    #[test]
    fn what_comes_and_goes_unseen_is_not_told() {
        let (releases, mut released) = mpsc::unbounded_channel();
        let shared = Shared::new(releases);
        assert!(shared.acquire("a", Zxid(1), 0));
        assert!(shared.acquire("b", Zxid(2), 0));
        assert!(shared.acquire("c", Zxid(3), 0));
        shared.revoke(&["a".to_owned()]);
        shared.lose("b");
        let told = something(&shared);
        assert_eq!(told.acquired.len(), 1);
        assert!(told.revoked.is_empty() && told.lost.is_empty());
        let mut names = Vec::new();
        while let Ok(release) = released.try_recv() {
            names.push(release.name);
        }
        assert_eq!(names, ["a", "b"], "their guards are gone");
    }

    #[test]
    fn a_loss_of_all_reaches_guards_and_what_is_just_being_acquired() {
        let (releases, _released) = mpsc::unbounded_channel();
        let shared = Shared::new(releases);
        let losses = shared.losses();
        assert!(shared.acquire("a", Zxid(1), losses));
        let mut told = something(&shared);
        let guard = told.acquired.remove(0);
        assert!(!guard.is_lost() && !guard.is_revoked());
        shared.revoke(&["a".to_owned()]);
        assert!(guard.is_revoked() && !guard.is_lost());
        shared.lose_all();
        assert!(guard.is_lost());
        assert!(!shared.acquire("b", Zxid(2), losses));
        let told = something(&shared);
        assert_eq!(told.lost, ["a"]);
        assert!(told.revoked.is_empty() && shared.held().is_empty());
        shared.end();
        assert!(matches!(shared.take(), Told::End));
    }
}
