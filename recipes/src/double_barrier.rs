//! A double barrier: work that so many begin together, and end together.
//!
//! The names are those of Curator's `DistributedDoubleBarrier` and kazoo's `DoubleBarrier`: one
//! ephemeral child for each member, with a UUID or its 32 digits for a name, and `ready`, which is
//! there while they work. `ready` has in its data who was there when it was made, and making it makes a
//! new version of the directory: so one that was left behind by members that died is told, and deleted
//! on condition that no other was made meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_client::watch::Watcher;
use quorate_client::{
    AclEntry, Client, Error as ClientError, EventType, Outcome, Read, Reason, SessionId,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::Error;
use crate::directory::{Kind, claim_with_acl};
use crate::patience::Patience;
use crate::waiting::{self, Deadline};

/// The child that lets all in.
const READY: &str = "ready";
/// How long is tried to find out, after a timeout, whether it was in time.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// The data of [`READY`].
#[derive(Debug, Serialize, Deserialize)]
struct Roll {
    members: Vec<String>,
}

/// A double barrier: work that so many begin together, and end together.
///
/// [`DoubleBarrier::enter`] returns when so many members are there; [`Inside::leave`] when all have left
/// or died. Nobody passes because of a wake-up: the znodes are read again after each.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{DoubleBarrier, Error};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let barrier = DoubleBarrier::new(client, "/barriers/bulk-load", 3);
/// let inside = barrier.enter().await?;
/// // All three are here.
/// inside.leave().await?;
/// // All three have done their part.
/// # Ok(())
/// # }
/// ```
///
/// # What it does not promise
///
/// - That the others stay: one that dies over the work counts as having left.
/// - That there are no more than so many: whoever comes while the others work joins them.
/// - To a member that waits together with those of kazoo or Curator: what those libraries do wrong they
///   still do. Curator's may be let in by any wake-up (its issue 1290).
#[derive(Clone, Debug)]
pub struct DoubleBarrier {
    client: Client,
    path: String,
    members: usize,
    identity: String,
    acl: Vec<AclEntry>,
    has_warned: Arc<AtomicBool>,
}

/// The barrier at one moment.
#[derive(Debug)]
struct View {
    data: Bytes,
    version: i32,
    /// In their order.
    members: Vec<String>,
    /// The data of `ready`.
    ready: Option<Bytes>,
}

/// What `ready` says to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Enter,
    /// All are there: it is to be made.
    Complete,
    /// Those who made it are gone.
    Stale,
    /// The member itself is not there.
    Missing,
}

impl View {
    fn verdict(&self, own: &str, wanted: usize) -> Verdict {
        if !self.members.iter().any(|member| member == own) {
            return Verdict::Missing;
        }
        let Some(ready) = &self.ready else {
            return if self.members.len() >= wanted {
                Verdict::Complete
            } else {
                Verdict::Wait
            };
        };
        let is_current = match serde_json::from_slice::<Roll>(ready) {
            Ok(roll) => roll.members.iter().any(|was| self.members.contains(was)),
            // Another library's, which does not say who was there: whoever is, beside ourselves.
            Err(_) => wanted <= 1 || self.members.len() > 1,
        };
        if is_current {
            Verdict::Enter
        } else {
            Verdict::Stale
        }
    }
}

/// A UUID, with or without hyphens.
fn is_member(name: &str) -> bool {
    let digits = name.bytes().filter(|byte| *byte != b'-');
    let is_hex = name
        .bytes()
        .all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    is_hex && digits.count() == 32
}

impl DoubleBarrier {
    /// For so many members, at least 1. Nothing is created before the first enters.
    pub fn new(client: &Client, path: &str, members: usize) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            members,
            identity: String::new(),
            acl: vec![AclEntry::open()],
            has_warned: Arc::default(),
        }
    }

    /// Who this is, for others to see. Empty by default.
    #[must_use]
    pub fn identity(mut self, identity: &str) -> Self {
        identity.clone_into(&mut self.identity);
        self
    }

    /// Who may do what with the znodes. Everybody everything by default; members need all permissions
    /// but those of ACLs.
    #[must_use]
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.acl = acl.into();
        self
    }

    /// Who is there, by identity, in the order of their names.
    ///
    /// # Errors
    ///
    /// Those of a read.
    pub async fn present(&self) -> Result<Vec<String>, Error> {
        let names = match self.client.children(&self.path).await {
            Ok((names, _)) => members_of(names, &self.has_warned),
            Err(error) if error.is(Reason::NoNode) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut reads = self.client.read_many();
        for name in &names {
            reads = reads.get(&format!("{}/{name}", self.path));
        }
        let identities = reads.await?.into_iter().filter_map(|read| match read {
            Read::Data(data, _) => Some(String::from_utf8_lossy(&data).into_owned()),
            _ => None,
        });
        Ok(identities.collect())
    }

    /// Waits until all members are there. Lost connections are waited out; after an expired session the
    /// member enters again, if the client begins a new one.
    ///
    /// Cancel safe: the member is gone, though it may have been counted.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]: no members. [`Error::OtherRecipe`]; those of reads and writes, when
    /// the session is over or they are not permitted.
    pub async fn enter(&self) -> Result<Inside, Error> {
        let member = self.member()?;
        self.wait_for_all(&member).await?;
        Ok(Inside { member })
    }

    /// As [`DoubleBarrier::enter`], for so long at most.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the others were not let in either, unless the connection is lost at that
    /// very moment, or another library's member lets them in.
    pub async fn enter_at_most(&self, limit: Duration) -> Result<Inside, Error> {
        let member = self.member()?;
        let entered = Deadline::new(Some(limit)).bound(self.wait_for_all(&member));
        match entered.await {
            Ok(()) => Ok(Inside { member }),
            Err(error @ Error::TimedOut { .. }) => {
                // Who is counted by the others is in, however late it hears of it.
                let withdrawn = tokio::time::timeout(WITHDRAWAL, self.withdraw(&member)).await;
                match withdrawn {
                    Ok(Ok(false)) => Ok(Inside { member }),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Enters, works, and leaves; the work's result, when all have left.
    ///
    /// Cancel safe, as [`DoubleBarrier::enter`].
    ///
    /// # Errors
    ///
    /// As [`DoubleBarrier::enter`] and [`Inside::leave`].
    pub async fn run<T>(&self, work: impl AsyncFnOnce() -> T) -> Result<T, Error> {
        let inside = self.enter().await?;
        let result = work().await;
        inside.leave().await?;
        Ok(result)
    }

    fn member(&self) -> Result<Member, Error> {
        if self.members == 0 {
            let what = "a double barrier has at least one member";
            return Err(Error::InvalidArgument(what.to_owned()));
        }
        let name = format!("{:032x}", self.client.randomness().number());
        Ok(Member {
            client: self.client.clone(),
            directory: self.path.clone(),
            path: format!("{}/{name}", self.path),
            name,
            runtime: Handle::current(),
            has_warned: Arc::clone(&self.has_warned),
            is_there: true,
        })
    }

    /// Makes the member's znode.
    async fn join(&self, member: &Member) -> Result<(), Error> {
        let mut patience = Patience::new(&self.client);
        loop {
            claim_with_acl(&self.client, &self.path, Kind::DoubleBarrier, &self.acl).await?;
            let session = self.client.session();
            let create = self.client.create(&member.path, &self.identity);
            let create = create.ephemeral().acl(&self.acl[..]).idempotent();
            match create.await {
                Ok(_) => return Ok(()),
                // Nobody else has this name. Of a session that has ended it will be found missing.
                Err(error) if error.is(Reason::NodeExists) => return Ok(()),
                // The directory has been taken away.
                Err(error) if error.is(Reason::NoNode) => {}
                Err(error) if error.is_retryable() => {
                    if !patience.outlast(&self.client, session, &error).await {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn view(&self) -> Result<Option<View>, ClientError> {
        let ready_path = format!("{}/{READY}", self.path);
        let reads = || {
            let reads = self.client.read_many().get(&self.path);
            reads.children(&self.path).get(&ready_path)
        };
        loop {
            let mut reads = waiting::read(&self.client, reads).await?.into_iter();
            let (directory, children, ready) = (reads.next(), reads.next(), reads.next());
            let ready = match ready {
                Some(Read::Data(data, _)) => Some(data),
                Some(Read::Failed(Reason::NoNode)) => None,
                // Not permitted, say: that is not to be taken for absent, again and again.
                _ => match waiting::read(&self.client, || self.client.get(&ready_path)).await {
                    Err(error) if !error.is(Reason::NoNode) => return Err(error),
                    _ => continue,
                },
            };
            let (Some(Read::Data(data, stat)), Some(Read::Children(names))) = (directory, children)
            else {
                return Ok(None);
            };
            return Ok(Some(View {
                data,
                version: stat.version,
                members: members_of(names, &self.has_warned),
                ready,
            }));
        }
    }

    async fn wait_for_all(&self, member: &Member) -> Result<(), Error> {
        let ready = format!("{}/{READY}", self.path);
        // Its own data tells of a session that was lost meanwhile: the znode is missing.
        self.join(member).await?;
        let mut watcher: Option<Watcher> = None;
        loop {
            // Before the look, so that nothing falls in between.
            if watcher.is_none() {
                let (_, watching) =
                    waiting::read(&self.client, || self.client.exists(&ready).watch()).await?;
                watcher = Some(watching);
            }
            let view = self.view().await?;
            let verdict = view.as_ref().map_or(Verdict::Missing, |view| {
                view.verdict(&member.name, self.members)
            });
            match (verdict, view) {
                (Verdict::Enter, _) => return Ok(()),
                (Verdict::Complete, Some(view)) => self.complete(&ready, view).await?,
                (Verdict::Stale, Some(view)) => self.clear(&ready, &view).await?,
                (Verdict::Missing, _) => self.join(member).await?,
                _ => {
                    if let Some(watching) = watcher.take()
                        && let Ok(event) = watching.changed().await
                        && event.kind == EventType::NodeCreated
                        && !self.is_kept(member, &ready).await?
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// After `ready` was created: whether the look at it decides. kazoo's members delete it as soon as
    /// the first of them leaves: then it was there, and we with it, and that has to do.
    async fn is_kept(&self, member: &Member, ready: &str) -> Result<bool, Error> {
        let reads = || self.client.read_many().get(ready).get(&member.path);
        let reads = waiting::read(&self.client, reads).await?;
        let is_there = |at: usize| matches!(reads.get(at), Some(Read::Data(..)));
        Ok(is_there(0) || !is_there(1))
    }

    /// Lets all in. If somebody else did, or it is not known, the next look tells.
    async fn complete(&self, ready: &str, view: View) -> Result<(), Error> {
        let roll = Roll {
            members: view.members,
        };
        let roll = serde_json::json!(roll).to_string();
        let steps = self.client.transaction();
        let steps = steps.set(&self.path, &view.data).if_version(view.version);
        passed(steps.create(ready, roll).acl(&self.acl[..]).await)
    }

    /// Deletes what is left of members that died, unless a new one was made.
    async fn clear(&self, ready: &str, view: &View) -> Result<(), Error> {
        let steps = self.client.transaction();
        let steps = steps.check(&self.path).if_version(view.version);
        passed(steps.delete(ready).await)
    }

    /// Gives up; `false` if the member has been counted, and is in.
    async fn withdraw(&self, member: &Member) -> Result<bool, Error> {
        loop {
            let Some(view) = self.view().await? else {
                return Ok(true);
            };
            match view.verdict(&member.name, self.members) {
                Verdict::Enter => return Ok(false),
                Verdict::Missing => return Ok(true),
                Verdict::Complete | Verdict::Wait | Verdict::Stale => {}
            }
            let steps = self.client.transaction();
            let steps = steps.check(&self.path).if_version(view.version);
            match steps.delete(&member.path).await {
                Ok(_) => return Ok(true),
                error => passed(error)?,
            }
        }
    }
}

/// What others have changed meanwhile, or what nobody has heard the answer of, is looked at again.
fn passed<T>(result: Result<T, ClientError>) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.reason(),
                Some(Reason::BadVersion | Reason::NodeExists | Reason::NoNode)
            ) =>
        {
            Ok(())
        }
        Err(error) if error.is_retryable() => Ok(()),
        Err(error) if error.outcome() == Outcome::Unknown && !error.needs_new_session() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn members_of(names: Vec<String>, has_warned: &AtomicBool) -> Vec<String> {
    let mut members = Vec::with_capacity(names.len());
    for name in names {
        if is_member(&name) {
            members.push(name);
        } else if name != READY && !has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(name, "a child of a double barrier is no member: ignored");
        }
    }
    members.sort();
    members
}

/// A member's znode: deleted if this is dropped.
#[derive(Debug)]
struct Member {
    client: Client,
    directory: String,
    path: String,
    name: String,
    runtime: Handle,
    has_warned: Arc<AtomicBool>,
    /// Or may be.
    is_there: bool,
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.is_there {
            // Whoever drops it may be outside of the runtime.
            let _runtime = self.runtime.enter();
            drop(self.client.delete(&self.path).guaranteed().send());
        }
    }
}

/// A member that is at work, with all others. Dropping it leaves without waiting for them.
#[derive(Debug)]
#[must_use = "dropping it leaves"]
pub struct Inside {
    member: Member,
}

impl Inside {
    /// The session whose end takes the member away.
    pub fn session(&self) -> Option<SessionId> {
        self.member.client.session()
    }

    /// Leaves, and waits until all have left or died. Lost connections are waited out; a session that
    /// has expired meanwhile counts as having left, and the others are still waited for.
    ///
    /// Cancel safe: the member has left.
    ///
    /// # Errors
    ///
    /// Those of reads and writes, when the session is over.
    pub async fn leave(mut self) -> Result<(), Error> {
        self.member.leave().await
    }

    /// As [`Inside::leave`], for so long at most.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: this one has left, others have not.
    pub async fn leave_at_most(mut self, limit: Duration) -> Result<(), Error> {
        let left = Deadline::new(Some(limit)).bound(self.member.leave());
        left.await
    }
}

impl Member {
    async fn leave(&mut self) -> Result<(), Error> {
        // Those of the next round may be there before this one has seen the end of its own.
        let mut round: Option<Vec<String>> = None;
        loop {
            let read = waiting::read(&self.client, || self.client.children(&self.directory)).await;
            let all = match read {
                Ok((names, _)) => members_of(names, &self.has_warned),
                Err(error) if error.is(Reason::NoNode) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let round = round.get_or_insert_with(|| all.clone());
            round.retain(|member| all.contains(member));
            let is_there = round.contains(&self.name);
            // The first goes last, and with it `ready`.
            let awaited = match (&round[..], is_there) {
                ([], _) => {
                    self.is_there = false;
                    return Ok(());
                }
                ([_], true) => {
                    self.be_the_last(all.len() == 1).await?;
                    continue;
                }
                ([first, .., last], true) if *first == self.name => last,
                ([first, ..], _) => first,
            };
            let awaited = format!("{}/{awaited}", self.directory);
            let watch = || self.client.exists(&awaited).watch();
            let (stat, watcher) = waiting::read(&self.client, watch).await?;
            if is_there && round.first() != Some(&self.name) {
                self.client.delete(&self.path).guaranteed().await?;
                self.is_there = false;
            }
            if stat.is_some() {
                // Whatever has happened: the list is read again.
                watcher.changed().await.ok();
            }
        }
    }

    /// Deletes `ready` with the last member: nobody else does, so a new round keeps its own. Where
    /// others have come meanwhile it stays: they find out whether it is theirs.
    async fn be_the_last(&mut self, is_alone: bool) -> Result<(), Error> {
        if !is_alone {
            return Ok(self.client.delete(&self.path).guaranteed().await?);
        }
        let ready = format!("{}/{READY}", self.directory);
        let steps = self.client.transaction().delete(&ready);
        match steps.delete(&self.path).await {
            Ok(_) => {}
            // Another library's member has deleted it before.
            Err(error) if error.is(Reason::NoNode) && error.target().index() == Some(0) => {
                self.client.delete(&self.path).guaranteed().await?;
            }
            error => passed(error)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(members: &[&str], ready: Option<&str>) -> View {
        View {
            data: Bytes::new(),
            version: 0,
            members: members.iter().map(|&name| name.to_owned()).collect(),
            ready: ready.map(|data| Bytes::copy_from_slice(data.as_bytes())),
        }
    }

    #[test]
    fn only_all_members_or_a_ready_that_is_current_let_one_in() {
        let roll = Some(r#"{"members":["a","b"]}"#);
        for (members, ready, expected) in [
            (&["a"][..], None, Verdict::Wait),
            (&["a", "b"], None, Verdict::Complete),
            (&["a", "b", "c"], None, Verdict::Complete),
            (&["b", "c"], None, Verdict::Missing),
            (&["a", "b"], roll, Verdict::Enter),
            // The other has left, or died, before this one has looked.
            (&["a"], roll, Verdict::Enter),
            (&["b"], roll, Verdict::Missing),
            // Left behind by those who died.
            (&["a"], Some(r#"{"members":["x","y"]}"#), Verdict::Stale),
            // One more, while the others work.
            (
                &["a", "x"],
                Some(r#"{"members":["x","y"]}"#),
                Verdict::Enter,
            ),
            // Another library's.
            (&["a", "x"], Some("10.0.0.7"), Verdict::Enter),
            (&["a"], Some(""), Verdict::Stale),
        ] {
            assert_eq!(
                view(members, ready).verdict("a", 2),
                expected,
                "{members:?} {ready:?}"
            );
        }
    }

    #[test]
    fn members_are_named_by_uuids() {
        assert!(is_member("0123456789abcdef0123456789ABCDEF"));
        assert!(is_member("01234567-89ab-cdef-0123-456789abcdef"));
        for name in [
            "ready",
            "",
            "lock-0000000001",
            "0123456789abcdef0123456789abcdeg",
        ] {
            assert!(!is_member(name), "{name}");
        }
    }
}
