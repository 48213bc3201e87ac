//! What a member does: looks at the directory, and brings what it has to what it is to have.
//!
//! Each round begins with what the tree shows, which may be behind our own writes: so whatever looks
//! wrong is read again before anything is done about it. An owner's znode that is ours by its mark and
//! session, and that no guard belongs to, is a stray (of a create whose answer was lost, or of a time
//! that was told to be lost): it is deleted, never taken for a grant.
//!
//! Beside the rounds, and not held up by them, [`vouch`] watches over the session, so that a loss is
//! told in time when no server answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_client::tree::Tree;
use quorate_client::watch::WatchStream;
use quorate_client::{AclEntry, Client, Outcome, Reason, SessionId, SessionState, Stat, Zxid};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::guard::{Release, Shared};
use super::{Partitioner, PartitionerState, View};
use crate::follow::join;
use crate::group::Membership;
use crate::patience::Patience;

pub(super) type Assign = dyn Fn(&View<'_>) -> BTreeMap<String, String> + Send + Sync;

/// Requests under way at a time.
const PIPELINED: usize = 256;
/// Members that never stay the same are taken as they are after so many times the hold-off.
const HOLD_OFFS_MAX: u32 = 10;
/// The part of the session's timeout for which it is alive after the loss of a connection is noticed:
/// a client notices silence after two thirds of it, and pings each third. Less, for what it takes to be
/// told.
const VOUCHED_PART: u32 = 4;

/// What an owner's znode says.
#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    recipe: crate::Kind,
    member: String,
    /// One run of one member: a znode with another is not ours.
    run: String,
}

/// An owner's znode, as the tree shows it.
struct Owner {
    member: Option<String>,
    is_of_our_run: bool,
}

pub(super) struct Task {
    client: Client,
    /// The one that the last round was made with.
    session: Option<SessionId>,
    me: String,
    run: String,
    record: Vec<u8>,
    partitions: Vec<String>,
    hold_off: Duration,
    assign: Arc<Assign>,
    acl: Vec<AclEntry>,
    /// The directories.
    path: String,
    members: String,
    owners: String,
    membership: Option<Membership>,
    tree: Tree,
    /// Of the owners' znodes: one that comes and goes at once is no change of the tree.
    events: WatchStream,
    state: watch::Sender<PartitionerState>,
    shared: Arc<Shared>,
    released: mpsc::UnboundedReceiver<Release>,
    stop: CancellationToken,
    /// Guards are gone, znodes are not yet.
    releasing: BTreeMap<String, Zxid>,
    settling: Settling,
    /// Owners' znodes of others' making, which were logged.
    strangers: BTreeSet<String>,
}

/// Which members count.
struct Settling {
    /// Those by which the partitions are divided.
    counted: Vec<String>,
    /// Those that are there.
    seen: Vec<String>,
    /// When they changed first, and last, since the others were counted.
    changed: Option<(Instant, Instant)>,
}

impl Settling {
    fn see(&mut self, members: Vec<String>, now: Instant) {
        if members != self.seen {
            let first = self.changed.map_or(now, |(first, _)| first);
            self.changed = Some((first, now));
            self.seen = members;
        }
    }

    /// When those that are there are counted.
    fn due(&self, hold_off: Duration) -> Option<Instant> {
        let (first, last) = self.changed?;
        Some((last + hold_off).min(first + hold_off * HOLD_OFFS_MAX))
    }

    /// Whether those that are there are those that count.
    fn is_settled(&mut self, hold_off: Duration, now: Instant) -> bool {
        match self.due(hold_off) {
            Some(due) if now < due => false,
            Some(_) => {
                self.changed = None;
                self.counted.clone_from(&self.seen);
                true
            }
            None => true,
        }
    }
}

impl Task {
    #[expect(clippy::too_many_arguments, reason = "all that `join` has made, once")]
    pub(super) fn new(
        options: Partitioner,
        members: String,
        owners: String,
        membership: Membership,
        (tree, events): (Tree, WatchStream),
        state: watch::Sender<PartitionerState>,
        shared: Arc<Shared>,
        released: mpsc::UnboundedReceiver<Release>,
        stop: CancellationToken,
    ) -> Self {
        let run = format!("{:032x}", options.client.randomness().number());
        let record = serde_json::json!({
            "recipe": crate::Kind::Partitioner,
            "member": options.identity,
            "run": run,
        });
        Self {
            path: options.path,
            session: options.client.session(),
            client: options.client,
            me: options.identity,
            run,
            record: record.to_string().into_bytes(),
            partitions: options.partitions.into_iter().collect(),
            hold_off: options.hold_off,
            assign: options.assign,
            acl: options.acl,
            members,
            owners,
            membership: Some(membership),
            tree,
            events,
            state,
            shared,
            released,
            stop,
            releasing: BTreeMap::new(),
            settling: Settling {
                counted: Vec::new(),
                seen: Vec::new(),
                changed: None,
            },
            strangers: BTreeSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let (client, shared) = (self.client.clone(), Arc::clone(&self.shared));
        let end = tokio::select! {
            end = self.take_part() => end,
            never = vouch(&client, &shared) => match never {},
        };
        self.shared.lose_all();
        self.state.send_replace(end);
        self.shared.end();
    }

    async fn take_part(&mut self) -> PartitionerState {
        let stop = self.stop.clone();
        let mut patience = Patience::new(&self.client);
        loop {
            // Asked once: who leaves has to withdraw first.
            let is_leaving = stop.is_cancelled();
            if is_leaving {
                self.withdraw().await;
                if self.shared.held().is_empty() && self.releasing.is_empty() {
                    self.session = self.client.session();
                    match self.sweep().await {
                        Ok(()) => return PartitionerState::Left,
                        // They go with it.
                        Err(error) if error.needs_new_session() => return PartitionerState::Left,
                        Err(error) => {
                            tracing::debug!(%error, "what a partitioner leaves is not cleared yet");
                            if !patience.outlast(&self.client, self.session, &error).await {
                                return PartitionerState::Left;
                            }
                            continue;
                        }
                    }
                }
            }
            self.session = self.client.session();
            match self.round().await {
                Ok(()) => {
                    patience.reset();
                    if is_leaving && self.shared.held().is_empty() {
                        continue;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a round of a partitioner has failed");
                    if !patience.outlast(&self.client, self.session, &error).await {
                        return PartitionerState::Failed;
                    }
                    continue;
                }
            }
            let goes_on = match self.wait().await {
                Ok(goes_on) => goes_on,
                Err(error) => patience.outlast(&self.client, self.session, &error).await,
            };
            if !goes_on {
                return PartitionerState::Failed;
            }
        }
    }

    /// Tells the others to do without us.
    async fn withdraw(&mut self) {
        if let Some(membership) = self.membership.take()
            && let Err(error) = membership.leave().await
        {
            tracing::warn!(%error, "a member of a partitioner stays until its session ends");
        }
        self.shared.revoke(&self.shared.held());
    }

    /// Waits for something to happen. `false`: the session is over. Nothing is lost if it fails.
    async fn wait(&mut self) -> Result<bool, quorate_client::Error> {
        let due = self.settling.due(self.hold_off);
        let is_stopping = self.stop.is_cancelled();
        let hold_off = async {
            match due {
                Some(due) if !is_stopping => tokio::time::sleep_until(due).await,
                _ => std::future::pending().await,
            }
        };
        let stopped = async {
            if is_stopping {
                // It is known already.
                std::future::pending::<()>().await;
            }
            self.stop.cancelled().await;
        };
        tokio::select! {
            () = hold_off => {}
            () = stopped => {}
            () = self.shared.lost.notified() => {}
            Some(release) = self.released.recv() => self.on_release(release),
            event = self.events.next() => if event.is_err() {
                return Ok(false);
            },
            change = self.tree.next() => match change {
                None => return Ok(false),
                Some(change) => drop(change?),
            },
        }
        while self.events.try_next().is_some() {}
        // What comes together is looked at together.
        loop {
            tokio::select! {
                biased;
                change = self.tree.next() => match change {
                    None => return Ok(false),
                    Some(change) => drop(change?),
                },
                () = std::future::ready(()) => return Ok(true),
            }
        }
    }

    fn on_release(&mut self, release: Release) {
        // One that was lost is nothing any more.
        if self.shared.tokens().get(&release.name) == Some(&release.token) {
            self.releasing.insert(release.name, release.token);
        }
    }

    async fn round(&mut self) -> Result<(), quorate_client::Error> {
        while let Ok(release) = self.released.try_recv() {
            self.on_release(release);
        }
        let losses = self.shared.losses();
        self.release().await?;
        let owners = self.owners_seen();
        self.check_held(&owners).await?;
        self.remove_strays(&owners).await?;
        if self.stop.is_cancelled() {
            return Ok(());
        }
        let members = self.members_seen();
        self.settling.see(members, Instant::now());
        let is_settled = self.settling.is_settled(self.hold_off, Instant::now());
        if !is_settled || !self.settling.counted.contains(&self.me) {
            self.publish(PartitionerState::Allocating);
            return Ok(());
        }
        let wanted = self.wanted(&owners);
        let held = self.shared.tokens();
        if held.keys().any(|name| !wanted.contains(name)) {
            // Before anybody is told.
            self.publish(PartitionerState::Release);
        }
        self.shared
            .revoke(held.keys().filter(|name| !wanted.contains(*name)));
        let is_free = |name: &&String| !held.contains_key(*name) && !owners.contains_key(*name);
        let free: Vec<String> = wanted.iter().filter(is_free).cloned().collect();
        self.acquire(&free, losses).await?;
        let held: BTreeSet<String> = self.shared.held().into_iter().collect();
        self.publish(if !held.is_subset(&wanted) {
            PartitionerState::Release
        } else if held == wanted {
            PartitionerState::Acquired
        } else {
            PartitionerState::Allocating
        });
        Ok(())
    }

    fn publish(&self, state: PartitionerState) {
        self.state.send_if_modified(|now| {
            let is_news = *now != state;
            *now = state;
            is_news
        });
    }

    /// Deletes what was given back.
    async fn release(&mut self) -> Result<(), quorate_client::Error> {
        while let Some((name, token)) = self.releasing.first_key_value() {
            let (name, token) = (name.clone(), *token);
            if self.shared.tokens().get(&name) == Some(&token) {
                self.delete_own(&name, Some(token)).await?;
                self.shared.free(&name);
            }
            self.releasing.remove(&name);
        }
        Ok(())
    }

    /// Deletes an owner's znode if it is ours: as it is read now, and no other version of it. (Somebody
    /// would have to delete it, and another member to take the partition, between the two.)
    async fn delete_own(
        &self,
        name: &str,
        token: Option<Zxid>,
    ) -> Result<(), quorate_client::Error> {
        let path = join(&self.owners, name);
        let stat = match self.client.get(&path).await {
            Ok((data, stat)) if self.is_ours(&data, &stat) => stat,
            Ok(_) => return Ok(()),
            Err(error) if error.is(Reason::NoNode) => return Ok(()),
            Err(error) => return Err(error),
        };
        if token.is_some_and(|token| token != stat.czxid) {
            return Ok(());
        }
        match self.client.delete(&path).if_version(stat.version).await {
            Err(error) if error.is(Reason::NoNode) => Ok(()),
            other => other,
        }
    }

    fn is_ours(&self, data: &[u8], stat: &Stat) -> bool {
        let owner = SessionId::new(stat.ephemeral_owner);
        let record: Option<Record> = serde_json::from_slice(data).ok();
        owner.is_some()
            && owner == self.client.session()
            && record.is_some_and(|record| record.run == self.run)
    }

    fn members_seen(&self) -> Vec<String> {
        let members = self.tree.nodes().iter().filter_map(|(path, node)| {
            let name = path.strip_prefix(&self.members)?.strip_prefix('/')?;
            let is_member = !name.contains('/') && node.stat.ephemeral_owner != 0;
            is_member.then(|| name.to_owned())
        });
        members.collect()
    }

    fn owners_seen(&mut self) -> BTreeMap<String, Owner> {
        let mut owners = BTreeMap::new();
        for (path, node) in self.tree.nodes() {
            let name = path.strip_prefix(&self.owners);
            let Some(name) = name.and_then(|name| name.strip_prefix('/')) else {
                continue;
            };
            let record: Option<Record> = serde_json::from_slice(&node.data).ok();
            let is_known = self.partitions.iter().any(|partition| partition == name);
            if !is_known || record.is_none() {
                if self.strangers.len() < PIPELINED && self.strangers.insert(name.to_owned()) {
                    tracing::warn!(path, "no partition that we know: left alone");
                }
                if !is_known {
                    continue;
                }
            }
            let is_of_our_run = record.as_ref().is_some_and(|record| record.run == self.run);
            let member = record.map(|record| record.member);
            let owner = Owner {
                member,
                is_of_our_run,
            };
            owners.insert(name.to_owned(), owner);
        }
        owners
    }

    /// What we hold and the tree does not show may just not be there yet.
    async fn check_held(
        &self,
        owners: &BTreeMap<String, Owner>,
    ) -> Result<(), quorate_client::Error> {
        let mut held = self.shared.tokens();
        held.retain(|name, _| !owners.get(name).is_some_and(|owner| owner.is_of_our_run));
        let reads: Vec<_> = held
            .keys()
            .map(|name| self.client.exists(&join(&self.owners, name)).send())
            .collect();
        for ((name, token), read) in held.into_iter().zip(reads) {
            if read.await?.is_none_or(|stat| stat.czxid != token) {
                tracing::warn!(
                    name,
                    "somebody has deleted the znode of a partition of ours"
                );
                self.shared.lose(&name);
            }
        }
        Ok(())
    }

    async fn remove_strays(
        &self,
        owners: &BTreeMap<String, Owner>,
    ) -> Result<(), quorate_client::Error> {
        let held = self.shared.tokens();
        let strays = owners.iter().filter(|(_, owner)| owner.is_of_our_run);
        for (name, _) in strays.filter(|(name, _)| !held.contains_key(*name)) {
            self.delete_own(name, None).await?;
        }
        Ok(())
    }

    /// Deletes all that is ours when nothing is held any more: what was told to be lost while the
    /// session lived on, and what was created by requests that nobody has heard the answer of. The tree
    /// may not show it yet.
    async fn sweep(&self) -> Result<(), quorate_client::Error> {
        self.client.sync(&self.owners).await?;
        let names = match self.client.children(&self.owners).await {
            Ok((names, _)) => names,
            Err(error) if error.is(Reason::NoNode) => return Ok(()),
            Err(error) => return Err(error),
        };
        let names = names.into_iter();
        let names: Vec<String> = names
            .filter(|name| self.partitions.binary_search(name).is_ok())
            .collect();
        for batch in names.chunks(PIPELINED) {
            let reads: Vec<_> = batch
                .iter()
                .map(|name| self.client.get(&join(&self.owners, name)).send())
                .collect();
            for (name, read) in batch.iter().zip(reads) {
                match read.await {
                    Ok((data, stat)) if self.is_ours(&data, &stat) => {
                        self.delete_own(name, None).await?;
                    }
                    Ok(_) => {}
                    // It may not be read: we have not made it.
                    Err(error) if error.is(Reason::NoNode) || error.is(Reason::NoAuth) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// What we are to have.
    fn wanted(&self, owners: &BTreeMap<String, Owner>) -> BTreeSet<String> {
        let held = self.shared.tokens();
        let owner_of = |name: &String| match held.contains_key(name) {
            true => Some(self.me.clone()),
            false => {
                let owner = owners.get(name)?;
                // One of our run that is not held is about to go.
                let owner = owner.member.clone().filter(|_| !owner.is_of_our_run)?;
                self.settling.counted.contains(&owner).then_some(owner)
            }
        };
        let owners: BTreeMap<String, String> = self
            .partitions
            .iter()
            .filter_map(|name| Some((name.clone(), owner_of(name)?)))
            .collect();
        let assigned = (self.assign)(&View {
            partitions: &self.partitions,
            members: &self.settling.counted,
            owners: &owners,
        });
        let ours = assigned
            .into_iter()
            .filter(|(_, member)| *member == self.me);
        let ours = ours.map(|(name, _)| name);
        ours.filter(|name| self.partitions.binary_search(name).is_ok())
            .collect()
    }

    /// Takes what is free.
    async fn acquire(&self, free: &[String], losses: u64) -> Result<(), quorate_client::Error> {
        for batch in free.chunks(PIPELINED) {
            let creates: Vec<_> = batch
                .iter()
                .map(|name| {
                    let create = self.client.create(&join(&self.owners, name), &self.record);
                    create.ephemeral().acl(self.acl.clone()).send()
                })
                .collect();
            let mut failed = None;
            for (name, create) in batch.iter().zip(creates) {
                match create.await {
                    Ok(created) => {
                        let owner = SessionId::new(created.stat.ephemeral_owner);
                        // Otherwise it is a stray by now; so is one whose answer was lost.
                        if owner == self.client.session() {
                            self.shared.acquire(name, created.stat.czxid, losses);
                        }
                    }
                    // Another member was faster: the tree will tell.
                    Err(error) if error.is(Reason::NodeExists) => {}
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                None => {}
                Some(error) if error.is(Reason::NoNode) => {
                    let create = self.client.create(&self.owners, b"").acl(self.acl.clone());
                    match create.idempotent().await {
                        // It is all gone: there is no member either, until it has joined again.
                        Err(error) if error.is(Reason::NoNode) => {
                            self.client.ensure_path(&self.path).await?;
                        }
                        Err(error) if error.is(Reason::NodeExists) => {}
                        created => drop(created?),
                    }
                    return Err(error);
                }
                Some(error) => {
                    if error.outcome() == Outcome::Unknown {
                        // What the lost server has done is in the tree after this.
                        self.client.sync(&self.owners).await?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Tells all that is held that it is lost, when the session is over or may be.
async fn vouch(client: &Client, shared: &Shared) -> std::convert::Infallible {
    let mut states = client.states();
    let mut session = client.session();
    let mut until: Option<Instant> = None;
    loop {
        match states.current() {
            SessionState::Connected { session: now }
            | SessionState::Reconnected { session: now } => {
                until = None;
                if session.is_some_and(|session| session != now) {
                    shared.lose_all();
                }
                session = Some(now);
            }
            SessionState::Expired | SessionState::AuthFailed | SessionState::Closed => {
                until = None;
                shared.lose_all();
            }
            // A server without a majority proves nothing.
            _ => {
                until.get_or_insert_with(|| Instant::now() + vouched(client));
            }
        }
        let doubtful = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = doubtful => {
                shared.lose_all();
                // Once is enough, until there is a connection again.
                if states.next().await.is_none() {
                    std::future::pending::<()>().await;
                }
            }
            state = states.next() => if state.is_none() {
                shared.lose_all();
                std::future::pending::<()>().await;
            },
        }
    }
}

/// For how long the session lives on for certain.
fn vouched(client: &Client) -> Duration {
    let lease = client
        .lease_deadline()
        .map_or(Duration::ZERO, |deadline| deadline.remaining());
    lease.max(client.session_timeout() / VOUCHED_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD_OFF: Duration = Duration::from_secs(2);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn members_count_when_they_have_stayed_the_same_for_a_while() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut settling = Settling {
            counted: Vec::new(),
            seen: Vec::new(),
            changed: None,
        };
        settling.see(names(&["a"]), at(0));
        assert!(!settling.is_settled(HOLD_OFF, at(1)));
        settling.see(names(&["a", "b"]), at(1));
        assert!(!settling.is_settled(HOLD_OFF, at(2)));
        assert!(settling.is_settled(HOLD_OFF, at(3)));
        assert_eq!(settling.counted, ["a", "b"]);
        // One that flaps is counted as it is in the end.
        for second in 4..23 {
            let now = if second % 2 == 0 {
                &["a"][..]
            } else {
                &["a", "b"]
            };
            settling.see(names(now), at(second));
            assert!(!settling.is_settled(HOLD_OFF, at(second)), "{second}");
        }
        settling.see(names(&["a", "b"]), at(23));
        assert!(!settling.is_settled(HOLD_OFF, at(23)));
        assert!(settling.is_settled(HOLD_OFF, at(24)));
    }
}
