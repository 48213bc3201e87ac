//! What all queues share: items in a directory that are put, locked, and taken.
//!
//! An item is a child of the directory. Whoever is at work on it keeps two ephemeral children in it:
//! `taken`, which there is only one of, and one of a name of its own, which says whose it is. An item
//! that has children cannot be deleted, so nobody takes it away from under its owner, not even a
//! library that knows nothing of this; and when the owner's session ends, it is free again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quorate_client::operation::Sent;
use quorate_client::watch::{Item as WatchItem, WatchStream};
use quorate_client::{
    AclEntry, Client, Error as ClientError, EventType, Outcome, Read, Reason, SessionId,
};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot};

use crate::Error;
use crate::directory::{Kind, claim_with_acl};
use crate::line::{Entry, Style, order};
use crate::mark::{Mark, is_mark, new_name};
use crate::patience::Patience;
use crate::waiting::{self, Backoff};

/// The child of an item that somebody works on.
const TAKEN: &str = "taken";
/// How often a step is made again whose answer was lost.
const ATTEMPTS: u32 = 16;
/// How many items are looked at in one request.
const BATCH: usize = 64;
/// Between attempts of what goes on in the background.
const PAUSE: Duration = Duration::from_millis(50);

/// What time it is, on the clock that all machines are to share.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The directory, as one handle sees it.
#[derive(Clone)]
pub(crate) struct Items {
    pub(crate) client: Client,
    pub(crate) path: String,
    kind: Kind,
    style: Style,
    pub(crate) identity: Arc<str>,
    pub(crate) acl: Vec<AclEntry>,
    pub(crate) bound: Option<usize>,
    pub(crate) clock: Clock,
    is_claimed: Arc<AtomicBool>,
    has_warned: Arc<AtomicBool>,
    mark: Arc<Mutex<Mark>>,
}

impl std::fmt::Debug for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What a look at the directory has found.
enum Look {
    Locked(Item),
    /// Nothing that is free, but at this time something will be due.
    Nothing(Option<Duration>),
}

impl Items {
    pub(crate) fn new(client: &Client, path: &str, kind: Kind, style: Style) -> Self {
        let clock = client.clock();
        Self {
            client: client.clone(),
            path: path.to_owned(),
            kind,
            style,
            identity: "".into(),
            acl: vec![AclEntry::open()],
            bound: None,
            clock: Arc::new(move || clock.wall()),
            is_claimed: Arc::default(),
            has_warned: Arc::default(),
            mark: Arc::new(Mutex::new(Mark::new(client, path))),
        }
    }

    async fn claim(&self) -> Result<(), Error> {
        if !self.is_claimed.load(Ordering::Relaxed) {
            claim_with_acl(&self.client, &self.path, self.kind, &self.acl).await?;
            self.is_claimed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The items in their order; empty if there is no directory.
    async fn entries(&self) -> Result<Vec<Entry>, Error> {
        let names = match waiting::read(&self.client, || self.client.children(&self.path)).await {
            Ok((names, _)) => names,
            Err(error) if error.is(Reason::NoNode) => {
                self.is_claimed.store(false, Ordering::Relaxed);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            match self.style.parse(&name) {
                Some(entry) => entries.push(entry),
                None if is_mark(&name) => {}
                None => {
                    if !self.has_warned.swap(true, Ordering::Relaxed) {
                        tracing::warn!(path = self.path, name, "a child is no item: ignored");
                    }
                }
            }
        }
        order(&mut entries);
        Ok(entries)
    }

    pub(crate) async fn count(&self) -> Result<usize, Error> {
        self.claim().await?;
        Ok(self.entries().await?.len())
    }

    /// Puts items, all of one rank, all or none; `false` if there is no room for them.
    pub(crate) async fn put(&self, rank: u64, items: &[Bytes]) -> Result<bool, Error> {
        self.put_as(&self.style.prefix(rank), items).await
    }

    async fn put_as(&self, prefix: &str, items: &[Bytes]) -> Result<bool, Error> {
        if items.is_empty() {
            return Ok(true);
        }
        let mut mark = self.mark.lock().await;
        let mut backoff = Backoff::new(&self.client);
        for _ in 0..ATTEMPTS {
            self.claim().await?;
            let session = self.client.session();
            mark.next(session);
            let mut steps = self.client.transaction();
            // With a bound, each change of the count by a put is a change of the directory's version.
            if let Some(bound) = self.bound {
                let (data, stat) = match self.client.get(&self.path).await {
                    Err(error) if error.is(Reason::NoNode) => {
                        self.is_claimed.store(false, Ordering::Relaxed);
                        continue;
                    }
                    read => read?,
                };
                if self.entries().await?.len() + items.len() > bound {
                    return Ok(false);
                }
                steps = steps.set(&self.path, data).if_version(stat.version);
            }
            for item in items {
                let path = format!("{}/{prefix}", self.path);
                steps = steps.create(&path, item).sequential().acl(&self.acl[..]);
            }
            let at = items.len() + usize::from(self.bound.is_some());
            let Err(error) = mark.add_to(steps, false, &self.acl).await else {
                mark.exists = true;
                return Ok(true);
            };
            if error.outcome() == Outcome::NotApplied {
                if error.target().index() == Some(at) && mark.learn(&error) {
                    continue;
                }
                if error.is(Reason::NoNode) {
                    self.is_claimed.store(false, Ordering::Relaxed);
                    mark.exists = false;
                    continue;
                }
                if error.is(Reason::BadVersion) {
                    // Those that put at the same time come one after the other.
                    backoff.wait().await;
                    continue;
                }
                return Err(error.into());
            }
            match self.was_put(&mark, session).await {
                Ok(Some(true)) => {
                    mark.exists = true;
                    return Ok(true);
                }
                Ok(Some(false)) => {}
                Ok(None) | Err(_) => return Err(error.into()),
            }
        }
        Err(Error::Contended {
            path: self.path.clone(),
            attempts: ATTEMPTS,
        })
    }

    /// Puts back what is nowhere else: goes on where it is refused for now, in the next session as well.
    async fn put_again(&self, prefix: &str, item: Bytes) -> Result<(), Error> {
        let mut patience = Patience::new(&self.client);
        let items = [item];
        loop {
            let session = self.client.session();
            match self.put_as(prefix, &items).await {
                Ok(_) => return Ok(()),
                Err(Error::Client(error)) if error.outcome() == Outcome::NotApplied => {
                    if !patience.outlast(&self.client, session, &error).await {
                        return Err(error.into());
                    }
                }
                Err(Error::Contended { .. }) => patience.pause().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the last put was applied; `None` if nobody can tell.
    async fn was_put(
        &self,
        mark: &Mark,
        session: Option<SessionId>,
    ) -> Result<Option<bool>, ClientError> {
        waiting::read(&self.client, || self.client.sync(&self.path)).await?;
        let read = waiting::read(&self.client, || self.client.get(&mark.path)).await;
        let is_same_session = session.is_some() && self.client.session() == session;
        match read {
            Ok((data, _)) => Ok(Some(mark.is_of_last_write(&data))),
            // The mark would be there: it goes with its session, or with the directory and all items.
            Err(error) if error.is(Reason::NoNode) => Ok(is_same_session.then_some(false)),
            Err(error) => Err(error),
        }
    }

    /// Waits for room.
    pub(crate) async fn put_when_there_is_room(
        &self,
        rank: u64,
        items: &[Bytes],
    ) -> Result<(), Error> {
        if self.bound.is_some_and(|bound| items.len() > bound) {
            let what = "more items at once than the queue has room for";
            return Err(Error::InvalidArgument(what.to_owned()));
        }
        loop {
            if self.put(rank, items).await? {
                return Ok(());
            }
            let read =
                waiting::read(&self.client, || self.client.children(&self.path).watch()).await;
            let ((names, _), watcher) = match read {
                // It is made again by the next attempt.
                Err(error) if error.is(Reason::NoNode) => continue,
                read => read?,
            };
            let count = names.iter().filter(|name| self.style.parse(name).is_some());
            if count.count() + items.len() > self.bound.unwrap_or(usize::MAX) {
                // Whatever has happened: it is counted again.
                watcher.changed().await.ok();
            }
        }
    }

    /// The first item that is free, locked; `None` if there is none.
    pub(crate) async fn try_lock(&self) -> Result<Option<Item>, Error> {
        Ok(match self.look().await? {
            Look::Locked(item) => Some(item),
            Look::Nothing(_) => None,
        })
    }

    /// Waits for an item that is free, and locks it.
    pub(crate) async fn lock(&self) -> Result<Item, Error> {
        // Most often there is one, and no watch is needed.
        if let Look::Locked(item) = self.look().await? {
            return Ok(item);
        }
        loop {
            // From here on whatever comes is told of.
            let mut events =
                waiting::read(&self.client, || self.client.watch(&self.path).recursive()).await?;
            loop {
                let due = match self.look().await? {
                    Look::Locked(item) => return Ok(item),
                    Look::Nothing(due) => due,
                };
                let is_over = tokio::select! {
                    told = self.told(&mut events) => told.is_err(),
                    () = sleep(due) => false,
                };
                // In the next session, or not at all: the next request tells.
                if is_over {
                    break;
                }
                // What comes together is looked at together.
                while events.try_next().is_some() {}
            }
        }
    }

    /// Waits until something may have become free.
    async fn told(&self, events: &mut WatchStream) -> Result<(), quorate_client::watch::End> {
        loop {
            match events.next().await? {
                WatchItem::Event(event) => {
                    let below = event.path.strip_prefix(&self.path);
                    let below = below.and_then(|below| below.strip_prefix('/'));
                    let is_relevant = match below {
                        Some(name) if !name.contains('/') => {
                            event.kind == EventType::NodeCreated && self.style.parse(name).is_some()
                        }
                        Some(name) => {
                            event.kind == EventType::NodeDeleted && name.ends_with("/taken")
                        }
                        None => false,
                    };
                    if is_relevant {
                        return Ok(());
                    }
                }
                // Something was missed.
                _ => return Ok(()),
            }
        }
    }

    async fn look(&self) -> Result<Look, Error> {
        self.claim().await?;
        let mut entries = self.entries().await?;
        let mut due_in = None;
        if self.style == Style::Time {
            let now = millis((self.clock)());
            let due = entries.partition_point(|entry| entry.rank <= now);
            let next = entries.get(due);
            due_in = next.map(|entry| Duration::from_millis(entry.rank - now));
            entries.truncate(due);
        }
        let mut entries = &entries[..];
        // Most often the first is free.
        if let Some((first, rest)) = entries.split_first() {
            if let Some(item) = self.lock_one(&first.name).await? {
                return Ok(Look::Locked(item));
            }
            entries = rest;
        }
        for batch in entries.chunks(BATCH) {
            let reads = || {
                let mut reads = self.client.read_many();
                for entry in batch {
                    reads = reads.children(&format!("{}/{}", self.path, entry.name));
                }
                reads
            };
            let reads = waiting::read(&self.client, reads).await?;
            for (entry, read) in batch.iter().zip(reads) {
                let is_free = matches!(read, Read::Children(names) if names.is_empty());
                if is_free && let Some(item) = self.lock_one(&entry.name).await? {
                    return Ok(Look::Locked(item));
                }
            }
        }
        Ok(Look::Nothing(due_in))
    }

    /// `None` if it is another's, or gone.
    async fn lock_one(&self, name: &str) -> Result<Option<Item>, Error> {
        let path = format!("{}/{name}", self.path);
        for _ in 0..ATTEMPTS {
            let mut held = Held {
                client: self.client.clone(),
                taken: format!("{path}/{TAKEN}"),
                own: format!("{path}/{}", new_name(&self.client)),
                session: self.client.session(),
                runtime: Handle::current(),
                is_armed: true,
            };
            let steps = self.client.transaction();
            let steps = steps.create(&held.taken, self.identity.as_bytes());
            let steps = steps.ephemeral().acl(&self.acl[..]);
            let steps = steps.create(&held.own, b"").ephemeral();
            let locking = steps.acl(&self.acl[..]).send();
            let reading = self.client.get(&path).send();
            let Err(error) = locking.await else {
                return self.locked(path, held, Some(reading)).await;
            };
            if error.outcome() == Outcome::NotApplied {
                held.is_armed = false;
                return match error.reason() {
                    Some(Reason::NodeExists | Reason::NoNode | Reason::NoChildrenForEphemerals) => {
                        Ok(None)
                    }
                    _ => Err(error.into()),
                };
            }
            waiting::read(&self.client, || self.client.sync(&path)).await?;
            if waiting::read(&self.client, || self.client.exists(&held.own))
                .await?
                .is_some()
            {
                return self.locked(path, held, None).await;
            }
            // It was not made, or went with its session.
            held.is_armed = false;
        }
        Err(Error::Contended {
            path,
            attempts: ATTEMPTS,
        })
    }

    async fn locked(
        &self,
        path: String,
        held: Held,
        reading: Option<Sent<(Bytes, quorate_client::Stat)>>,
    ) -> Result<Option<Item>, Error> {
        let read = match reading {
            Some(reading) => reading.await,
            None => waiting::read(&self.client, || self.client.get(&path)).await,
        };
        let data = match read {
            Ok((data, _)) => data,
            Err(error) if error.is_retryable() => {
                match waiting::read(&self.client, || self.client.get(&path)).await {
                    Ok((data, _)) => data,
                    Err(error) => return Err(error.into()),
                }
            }
            // Somebody has deleted it with all that is in it.
            Err(error) if error.is(Reason::NoNode) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Item { path, data, held }))
    }

    /// Locks an item, and takes it off the queue: it is the caller's, or still there.
    pub(crate) async fn take(&self) -> Result<Bytes, Error> {
        loop {
            let item = self.lock().await?;
            if let Some(data) = self.finish(item).await? {
                return Ok(data);
            }
        }
    }

    /// As `take`; `None` if there is none that is free.
    pub(crate) async fn try_take(&self) -> Result<Option<Bytes>, Error> {
        while let Some(item) = self.try_lock().await? {
            if let Some(data) = self.finish(item).await? {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Carried to its end by a task of its own: if nobody waits for the answer, the item is put back,
    /// behind the others. `None`: the session has ended, and the item is free again.
    async fn finish(&self, item: Item) -> Result<Option<Bytes>, Error> {
        let (sender, receiver) = oneshot::channel();
        let items = self.clone();
        tokio::spawn(async move {
            let data = item.data.clone();
            let prefix = prefix_of(&item.path).to_owned();
            let result = item.done().await;
            let answer = result.map(|()| Unclaimed {
                claim: Some((items, prefix, data)),
                runtime: Handle::current(),
            });
            // If nobody waits any more, what comes back is dropped here.
            sender.send(answer).ok();
        });
        match receiver.await {
            Ok(Ok(unclaimed)) => Ok(unclaimed.claim()),
            Ok(Err(Error::ItemLost { .. })) | Err(_) => Ok(None),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Who is at work on what: names of items, with the identities.
    pub(crate) async fn taken(&self) -> Result<Vec<Taken>, Error> {
        self.claim().await?;
        let entries = self.entries().await?;
        let mut taken = Vec::new();
        for batch in entries.chunks(BATCH) {
            let reads = || {
                let mut reads = self.client.read_many();
                for entry in batch {
                    reads = reads.get(&format!("{}/{}/{TAKEN}", self.path, entry.name));
                }
                reads
            };
            for (entry, read) in batch.iter().zip(waiting::read(&self.client, reads).await?) {
                if let Read::Data(identity, _) = read {
                    taken.push(Taken {
                        name: entry.name.clone(),
                        by: String::from_utf8_lossy(&identity).into_owned(),
                    });
                }
            }
        }
        Ok(taken)
    }
}

async fn sleep(span: Option<Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => std::future::pending().await,
    }
}

/// Milliseconds since 1970; 0 before.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An item that somebody is at work on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// The item's name in the directory.
    pub name: String,
    /// The identity of whoever is at work on it.
    pub by: String,
}

/// An item that was taken off the queue: put back if this is dropped before it was claimed.
struct Unclaimed {
    claim: Option<(Items, String, Bytes)>,
    runtime: Handle,
}

impl Unclaimed {
    fn claim(mut self) -> Option<Bytes> {
        self.claim.take().map(|(_, _, data)| data)
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some((mut items, prefix, data)) = self.claim.take() {
            // It had its place before.
            items.bound = None;
            self.runtime.spawn(async move {
                if let Err(error) = items.put_again(&prefix, data).await {
                    tracing::warn!(path = items.path, %error, "an item could not be put back");
                }
            });
        }
    }
}

/// An item of a queue, while its owner is at work on it.
///
/// Nobody else gets it. When the owner's session ends, or this is dropped, it is where it was before,
/// and another gets it.
#[derive(Debug)]
#[must_use = "dropping it puts the item back"]
pub struct Item {
    path: String,
    data: Bytes,
    held: Held,
}

impl Item {
    /// What was put.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The item's path. It is the same for everybody who gets it: with it, work that is done twice can
    /// be told.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The work is done: takes the item off the queue.
    ///
    /// Cancel safe: dropped before it has resolved, the item is off the queue or put back.
    ///
    /// # Errors
    ///
    /// [`Error::ItemLost`]: the session has ended meanwhile, and somebody else gets the item. Those of
    /// a transaction; the outcome is unknown only if the session ended just then.
    pub async fn done(mut self) -> Result<(), Error> {
        let held = &self.held;
        for _ in 0..ATTEMPTS {
            let steps = held.client.transaction().delete(&held.own);
            let steps = steps.delete(&held.taken).delete(&self.path);
            let Err(error) = steps.await else {
                self.held.is_armed = false;
                return Ok(());
            };
            if error.outcome() == Outcome::NotApplied {
                // With the session went the lock.
                if error.is(Reason::NoNode) || matches!(error, ClientError::SessionExpired { .. }) {
                    let path = self.path.clone();
                    return Err(Error::ItemLost { path });
                }
                return Err(error.into());
            }
            let client = &held.client;
            let read = async {
                waiting::read(client, || client.sync(&self.path)).await?;
                waiting::read(client, || client.read_many().get(&self.path).get(&held.own)).await
            };
            // The first error says what is not known.
            let Ok(read) = read.await else {
                return Err(error.into());
            };
            let is_there = |at: usize| matches!(read.get(at), Some(Read::Data(..)));
            match (is_there(0), is_there(1)) {
                // As before: once more.
                (true, true) => {}
                (true, false) => {
                    let path = self.path.clone();
                    return Err(Error::ItemLost { path });
                }
                // Only its owner can have deleted it, while the session lives.
                (false, _) if client.session() == held.session => {
                    self.held.is_armed = false;
                    return Ok(());
                }
                (false, _) => return Err(error.into()),
            }
        }
        Err(Error::Contended {
            path: self.path.clone(),
            attempts: ATTEMPTS,
        })
    }

    /// Puts the item back where it was, and waits until it is. Dropping it does the same in the
    /// background.
    ///
    /// Cancel safe: it goes on.
    ///
    /// # Errors
    ///
    /// Those of a transaction. It is put back at the latest when the session ends.
    pub async fn put_back(mut self) -> Result<(), Error> {
        self.held.is_armed = false;
        let releasing = tokio::spawn(self.held.release());
        match releasing.await {
            Ok(result) => Ok(result?),
            Err(_) => Ok(()),
        }
    }
}

/// What the server's number was appended to, from an item's path.
fn prefix_of(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let head = name.trim_end_matches(|c: char| c.is_ascii_digit());
    // A number that has wrapped has a hyphen of its own.
    match head.strip_suffix("--") {
        Some(_) => &head[..head.len() - 1],
        None => head,
    }
}

/// The children of an item that say whose it is: deleted if this is dropped.
#[derive(Debug)]
struct Held {
    client: Client,
    taken: String,
    own: String,
    /// At the time of locking.
    session: Option<SessionId>,
    runtime: Handle,
    is_armed: bool,
}

impl Held {
    /// Goes on until they are gone, or the session is over.
    fn release(&self) -> impl Future<Output = Result<(), ClientError>> + Send + use<> {
        let (client, own, taken) = (self.client.clone(), self.own.clone(), self.taken.clone());
        let send = move || client.transaction().delete(&own).delete(&taken).send();
        // Its place among the requests is taken now.
        let mut sent = send();
        async move {
            loop {
                match sent.await {
                    Ok(_) => return Ok(()),
                    // It was not made, or is gone with its session.
                    Err(error) if error.is(Reason::NoNode) => return Ok(()),
                    Err(error)
                        if !error.needs_new_session()
                            && (error.is_retryable() || error.outcome() == Outcome::Unknown) => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(PAUSE).await;
                sent = send();
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_armed {
            // Whoever drops it may be outside of the runtime.
            let _runtime = self.runtime.enter();
            let releasing = self.release();
            self.runtime.spawn(async move {
                releasing.await.ok();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_put_back_under_the_name_it_had() {
        for style in [Style::Plain, Style::Priority, Style::Time] {
            let prefix = style.prefix(100);
            for number in ["0000000000", "2147483648", "-000000005", "-2147483648"] {
                let path = format!("/a-1/queue/{prefix}{number}");
                assert_eq!(prefix_of(&path), prefix, "{path}");
            }
        }
    }
}
