//! Which connections watch what, and whom a change concerns.
//!
//! A [`WatchTable`] belongs to one server and is in no snapshot: a watch lives as long as its
//! connection, and the client registers it again on its next one ([`rearm`]). [`WatchTable::trigger`]
//! turns the changes of one apply into [`Event`]s, in the order of the changes; those of one change
//! in the order of connection numbers. A connection hears of a change at most once per path.
//!
//! Whether a connection may hear of an event is for the caller to decide, by the ACL that comes with
//! it. The watch has fired either way. Nothing here checks paths: a watch may wait on any string.
//!
//! ZooKeeper keeps a table of data watches and one of child watches; standard watches are in one,
//! persistent ones in both, recursive ones in the first. Here a path has one entry per connection,
//! which says in which tables it would be, so an event that concerns both is sent once by
//! construction. Only the counts that operators read still tell the tables apart.

mod watchers;

use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet, HashTable};
use quorate_protocol::request::SetWatches2;
use quorate_protocol::{Acl, EventType, Stat, Zxid};

use crate::applied::{Change, ChangeKind};
use crate::canary::{Canary, planted};

use watchers::{Kinds, Watchers};

/// What a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchKind {
    /// The znode is created, deleted or its data set. Left by getData and exists; fires once.
    Data,
    /// A child comes or goes, or the znode is deleted. Left by getChildren; fires once.
    Child,
    /// Both of the above, again and again (addWatch, mode 0).
    Persistent,
    /// The znode or any descendant is created, deleted or its data set, again and again (addWatch,
    /// mode 1). Never an event about children.
    PersistentRecursive,
}

impl WatchKind {
    /// The kind that the mode of an addWatch request asks for; `None` for modes that do not exist.
    pub fn from_add_watch_mode(mode: i32) -> Option<Self> {
        match mode {
            0 => Some(Self::Persistent),
            1 => Some(Self::PersistentRecursive),
            _ => None,
        }
    }
}

/// Which watches checkWatches and removeWatches are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatcherType {
    Children,
    Data,
    /// Every watch on the path, persistent ones included.
    Any,
    Persistent,
    PersistentRecursive,
}

impl WatcherType {
    /// The type with this number in a request; `None` for numbers that mean nothing.
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Self::Children),
            2 => Some(Self::Data),
            3 => Some(Self::Any),
            4 => Some(Self::Persistent),
            5 => Some(Self::PersistentRecursive),
            _ => None,
        }
    }

    fn kinds(self) -> Kinds {
        match self {
            Self::Children => Kinds::CHILD,
            Self::Data => Kinds::DATA,
            Self::Any => Kinds::ALL,
            Self::Persistent => Kinds::PERSISTENT,
            Self::PersistentRecursive => Kinds::RECURSIVE,
        }
    }
}

/// Something that one connection waited for has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub connection: u64,
    pub kind: EventType,
    /// The znode concerned. For a recursive watch that is the one that changed, not the one watched.
    pub path: &'a str,
    /// The event is for those who may READ by this ACL. Empty allows everyone.
    pub acl: &'a [Acl],
}

/// Data watches in numbers, as the command `wchs` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchSummary {
    pub connections: usize,
    pub paths: usize,
    pub total: usize,
}

/// The watches of one server's connections.
#[derive(Clone, Debug)]
pub struct WatchTable {
    /// Hashed by [`PathHasher`].
    paths: HashTable<WatchedPath>,
    connections: HashMap<u64, WatchingConnection, Seed>,
    tally: Tally,
    seed: Seed,
}

/// A path on which somebody waits.
#[derive(Clone, Debug)]
struct WatchedPath {
    path: Arc<str>,
    watchers: Watchers,
    tally: PathTally,
}

/// A connection that waits for something.
#[derive(Clone, Debug)]
struct WatchingConnection {
    /// Shares its strings with [`WatchTable::paths`].
    paths: HashSet<Arc<str>, Seed>,
    /// On how many of them it waits for more than children.
    data_paths: usize,
    /// How long they are together.
    path_bytes: usize,
}

/// How many connections of one path are in ZooKeeper's data table, and how many watch recursively.
#[derive(Clone, Copy, Debug, Default)]
struct PathTally {
    data: usize,
    recursive: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    data: usize,
    child: usize,
    recursive: usize,
    data_paths: usize,
    data_connections: usize,
}

impl Default for WatchTable {
    fn default() -> Self {
        Self::new()
    }
}

impl WatchTable {
    /// An empty table whose hashes anyone can compute; see [`Self::with_seed`].
    pub fn new() -> Self {
        Self::with_seed(0)
    }

    /// An empty table. Clients choose the paths, so a server picks a `seed` they cannot know: no
    /// list of paths then makes the table slow. Nothing that can be seen depends on it.
    pub fn with_seed(seed: u64) -> Self {
        Self {
            paths: HashTable::new(),
            connections: HashMap::with_hasher(Seed(seed)),
            tally: Tally::default(),
            seed: Seed(seed),
        }
    }

    /// Registers a watch. Registering it again changes nothing; kinds on one path add up.
    pub fn add(&mut self, connection: u64, path: &str, kind: WatchKind) {
        let Self {
            paths,
            connections,
            tally,
            seed,
        } = self;
        let hash = PathHasher::hash(*seed, path);
        let watched = paths
            .entry(
                hash,
                |watched| &*watched.path == path,
                |watched| PathHasher::hash(*seed, &watched.path),
            )
            .or_insert_with(|| WatchedPath::new(path))
            .into_mut();
        let watching = connections
            .entry(connection)
            .or_insert_with(|| WatchingConnection {
                paths: HashSet::with_hasher(*seed),
                data_paths: 0,
                path_bytes: 0,
            });
        let old = watched.watchers.kinds(connection);
        let new = old.with(Kinds::of(kind));
        if new == old {
            return;
        }
        watched.watchers.set(connection, new);
        if old.is_empty() {
            watching.paths.insert(Arc::clone(&watched.path));
            watching.path_bytes += path.len();
        }
        tally.change(&mut watched.tally, watching, old, new);
    }

    /// Fires the watches that `changes` concern, and hands `deliver` an event for each connection
    /// that waited. Watches that fire once are gone afterwards.
    pub fn trigger(&mut self, changes: &[Change], deliver: &mut impl FnMut(Event<'_>)) {
        for change in changes {
            if self.paths.is_empty() {
                return;
            }
            let Change {
                kind,
                path,
                acl,
                parent_acl,
            } = change;
            match kind {
                ChangeKind::Created => {
                    self.fire(path, EventType::NodeCreated, Kinds::IN_DATA, acl, deliver);
                    self.fire_children(path, parent_acl, deliver);
                }
                ChangeKind::Deleted => {
                    // Who hears of it as a data watch has a child watch on the path used up in
                    // silence. One event for either does just that.
                    self.fire(path, EventType::NodeDeleted, Kinds::ALL, acl, deliver);
                    self.fire_children(path, parent_acl, deliver);
                }
                ChangeKind::DataChanged => {
                    let event = EventType::NodeDataChanged;
                    self.fire(path, event, Kinds::IN_DATA, acl, deliver);
                }
            }
        }
    }

    fn fire_children(&mut self, child: &str, acl: &[Acl], deliver: &mut impl FnMut(Event<'_>)) {
        if let Some(parent) = parent_of(child) {
            let event = EventType::NodeChildrenChanged;
            self.fire(parent, event, Kinds::IN_CHILD, acl, deliver);
        }
    }

    /// One event about `path`, for all who wait there for a kind that is `wanted`, and for those who
    /// watch an ancestor recursively if that is.
    fn fire(
        &mut self,
        path: &str,
        kind: EventType,
        wanted: Kinds,
        acl: &[Acl],
        deliver: &mut impl FnMut(Event<'_>),
    ) {
        let mut recipients = Vec::new();
        if wanted.intersects(Kinds::RECURSIVE) && self.tally.recursive > 0 {
            self.recursive_above(path, &mut recipients);
        }
        let above = recipients.len();
        self.fire_here(path, wanted, &mut recipients);
        if above > 0 {
            recipients.sort_unstable();
            recipients.dedup();
        }
        for connection in recipients {
            deliver(Event {
                connection,
                kind,
                path,
                acl,
            });
        }
    }

    /// Adds the connections that watch an ancestor of `path` recursively, in any order.
    fn recursive_above(&self, path: &str, recipients: &mut Vec<u64>) {
        PathHasher::for_each_ancestor(self.seed, path, |hash, ancestor| {
            let found = self
                .paths
                .find(hash, |watched| &*watched.path == ancestor)
                .filter(|watched| watched.tally.recursive > 0);
            if let Some(watched) = found {
                recipients.extend(watched.watchers.of_kind(Kinds::RECURSIVE));
            }
        });
    }

    /// Adds the connections that wait on `path` itself, by number, and uses up what fires once.
    fn fire_here(&mut self, path: &str, wanted: Kinds, recipients: &mut Vec<u64>) {
        let Self {
            paths,
            connections,
            tally,
            seed,
        } = self;
        let hash = PathHasher::hash(*seed, path);
        let Ok(mut entry) = paths.find_entry(hash, |watched| &*watched.path == path) else {
            return;
        };
        let watched = entry.get_mut();
        watched.watchers.retain(|connection, kinds| {
            if !kinds.intersects(wanted) {
                return true;
            }
            recipients.push(connection);
            let left = match planted(Canary::WatchFiredTwice) {
                true => *kinds,
                false => kinds.without(wanted.that_fire_once()),
            };
            if left != *kinds {
                let old = std::mem::replace(kinds, left);
                forget(connections, connection, path, |watching| {
                    tally.change(&mut watched.tally, watching, old, left);
                    left.is_empty()
                });
            }
            !left.is_empty()
        });
        if watched.watchers.is_empty() {
            entry.remove();
            self.give_back_memory();
        }
    }

    /// Whether the connection has such a watch on exactly this path.
    pub fn contains(&self, connection: u64, path: &str, watcher_type: WatcherType) -> bool {
        let hash = PathHasher::hash(self.seed, path);
        self.paths
            .find(hash, |watched| &*watched.path == path)
            .is_some_and(|watched| {
                let kinds = watched.watchers.kinds(connection);
                kinds.intersects(watcher_type.kinds())
            })
    }

    /// Removes such watches of the connection on exactly this path. Returns whether there were any.
    pub fn remove(&mut self, connection: u64, path: &str, watcher_type: WatcherType) -> bool {
        let removed = self.remove_kinds(connection, path, watcher_type.kinds());
        let Some((old, left)) = removed else {
            return false;
        };
        forget(&mut self.connections, connection, path, |_| left.is_empty());
        self.give_back_memory();
        old != left
    }

    /// Takes `kinds` from an entry, and drops what has become empty of the path. The connection's
    /// own list is the caller's. Returns what was there and what is left.
    fn remove_kinds(
        &mut self,
        connection: u64,
        path: &str,
        kinds: Kinds,
    ) -> Option<(Kinds, Kinds)> {
        let hash = PathHasher::hash(self.seed, path);
        let mut entry = self
            .paths
            .find_entry(hash, |watched| &*watched.path == path)
            .ok()?;
        let watching = self.connections.get_mut(&connection)?;
        let watched = entry.get_mut();
        let old = watched.watchers.kinds(connection);
        let left = old.without(kinds);
        if left != old {
            watched.watchers.set(connection, left);
            self.tally.change(&mut watched.tally, watching, old, left);
        }
        if watched.watchers.is_empty() {
            entry.remove();
        }
        Some((old, left))
    }

    /// Forgets all watches of a connection that has ended.
    pub fn remove_connection(&mut self, connection: u64) {
        self.remove_some_of(connection, usize::MAX);
    }

    /// Forgets watches of a connection that has ended, on at most so many paths. Returns whether none
    /// are left.
    pub fn remove_some_of(&mut self, connection: u64, max: usize) -> bool {
        let Some(watching) = self.connections.get_mut(&connection) else {
            return true;
        };
        let is_last = watching.paths.len() <= max;
        let paths: Vec<Arc<str>> = match is_last {
            true => watching.paths.drain().collect(),
            false => watching.paths.iter().take(max).cloned().collect(),
        };
        for path in paths {
            self.remove_kinds(connection, &path, Kinds::ALL);
            forget(&mut self.connections, connection, &path, |_| !is_last);
        }
        if is_last {
            self.connections.remove(&connection);
        }
        self.give_back_memory();
        is_last
    }

    /// All watches, as the metric `watch_count` counts them: a connection counts once per path and
    /// table, so a persistent watch counts twice.
    pub fn watch_count(&self) -> usize {
        self.tally.data + self.tally.child
    }

    /// On how many paths the connection has watches: what a bound per connection is about.
    pub fn count_of(&self, connection: u64) -> usize {
        self.connections
            .get(&connection)
            .map_or(0, |watching| watching.paths.len())
    }

    /// How many bytes the paths are long on which the connection has watches: any string can be
    /// watched, so their number alone bounds nothing.
    pub fn path_bytes_of(&self, connection: u64) -> usize {
        self.connections
            .get(&connection)
            .map_or(0, |watching| watching.path_bytes)
    }

    /// The data table in numbers (`wchs`). Child watches have never been part of it.
    pub fn data_watch_summary(&self) -> WatchSummary {
        WatchSummary {
            connections: self.tally.data_connections,
            paths: self.tally.data_paths,
            total: self.tally.data,
        }
    }

    /// The data table by connection (`wchc`); connections and their paths in order.
    pub fn by_connection(&self) -> impl Iterator<Item = (u64, Vec<&str>)> {
        let mut rows: Vec<(u64, &str)> = self.data_watches().collect();
        rows.sort_unstable();
        grouped(rows)
    }

    /// The data table by path (`wchp`); paths and their connections in order.
    pub fn by_path(&self) -> impl Iterator<Item = (&str, Vec<u64>)> {
        let mut rows: Vec<(&str, u64)> = self.data_watches().map(|(c, path)| (path, c)).collect();
        rows.sort_unstable();
        grouped(rows)
    }

    fn data_watches(&self) -> impl Iterator<Item = (u64, &str)> {
        self.paths.iter().flat_map(|watched| {
            watched
                .watchers
                .of_kind(Kinds::IN_DATA)
                .map(|connection| (connection, &*watched.path))
        })
    }

    /// After a peak: a table that is nearly empty becomes smaller. The factor keeps the cost per
    /// removal constant.
    fn give_back_memory(&mut self) {
        const SMALL: usize = 1024;
        let (length, capacity) = (self.paths.len(), self.paths.capacity());
        if capacity > SMALL && length < capacity / 8 {
            let seed = self.seed;
            self.paths
                .shrink_to(length * 2, |watched| PathHasher::hash(seed, &watched.path));
        }
    }
}

impl WatchedPath {
    fn new(path: &str) -> Self {
        Self {
            path: path.into(),
            watchers: Watchers::default(),
            tally: PathTally::default(),
        }
    }
}

impl Tally {
    /// Accounts for one connection on one path, which had the kinds `old` and now has `new`.
    fn change(
        &mut self,
        path: &mut PathTally,
        connection: &mut WatchingConnection,
        old: Kinds,
        new: Kinds,
    ) {
        let count = |count: &mut usize, kinds: Kinds| match (
            old.intersects(kinds),
            new.intersects(kinds),
        ) {
            (false, true) => *count += 1,
            (true, false) => *count -= 1,
            _ => {}
        };
        count(&mut self.data, Kinds::IN_DATA);
        count(&mut self.child, Kinds::IN_CHILD);
        count(&mut self.recursive, Kinds::RECURSIVE);
        count(&mut path.recursive, Kinds::RECURSIVE);

        let any = |count: usize| usize::from(count > 0);
        let before = (any(path.data), any(connection.data_paths));
        count(&mut path.data, Kinds::IN_DATA);
        count(&mut connection.data_paths, Kinds::IN_DATA);
        self.data_paths = self.data_paths + any(path.data) - before.0;
        self.data_connections = self.data_connections + any(connection.data_paths) - before.1;
    }
}

/// Lets `update` have its way with a connection, and drops `path` from its list, and the connection
/// with its last path, if that says so.
fn forget(
    connections: &mut HashMap<u64, WatchingConnection, Seed>,
    connection: u64,
    path: &str,
    update: impl FnOnce(&mut WatchingConnection) -> bool,
) {
    if let Some(watching) = connections.get_mut(&connection)
        && update(watching)
    {
        if watching.paths.remove(path) {
            watching.path_bytes -= path.len();
        }
        if watching.paths.is_empty() {
            connections.remove(&connection);
        }
    }
}

/// Registers what a client watched on its last connection, or says at once what has happened since
/// the last zxid it saw, which uses up a watch that fires once. `lookup` tells what the tree holds,
/// `deliver` gets the events in the order of the request.
///
/// `SetWatches` requests come here as `SetWatches2`. Persistent watches are registered and never
/// caught up with: clients read again what they cache. ZooKeeper tells of znodes that the client may
/// not read; `deliver` can leave those out.
pub fn rearm(
    table: &mut WatchTable,
    connection: u64,
    request: &SetWatches2,
    mut lookup: impl FnMut(&str) -> Option<Stat>,
    mut deliver: impl FnMut(EventType, &str),
) {
    let seen = match planted(Canary::SetWatchesIgnoresPast) {
        true => Zxid(i64::MAX),
        false => request.relative_zxid,
    };
    let data = match planted(Canary::SetWatchesForgetsTail) {
        true => request.data.len().min(1),
        false => request.data.len(),
    };
    for path in &request.data[..data] {
        match lookup(path) {
            None => deliver(EventType::NodeDeleted, path),
            Some(stat) if stat.mzxid > seen => deliver(EventType::NodeDataChanged, path),
            Some(_) => table.add(connection, path, WatchKind::Data),
        }
    }
    for path in &request.exist {
        match lookup(path) {
            // However old it is: the client watched for it to come into being.
            Some(_) => deliver(EventType::NodeCreated, path),
            None => table.add(connection, path, WatchKind::Data),
        }
    }
    for path in &request.child {
        match lookup(path) {
            None => deliver(EventType::NodeDeleted, path),
            Some(stat) if stat.pzxid > seen => deliver(EventType::NodeChildrenChanged, path),
            Some(_) => table.add(connection, path, WatchKind::Child),
        }
    }
    for path in &request.persistent {
        table.add(connection, path, WatchKind::Persistent);
    }
    for path in &request.persistent_recursive {
        table.add(connection, path, WatchKind::PersistentRecursive);
    }
}

/// `None` for the root.
fn parent_of(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (parent, _) => Some(parent),
    }
}

/// Turns sorted pairs into groups by their first half.
fn grouped<K: PartialEq + Copy, V>(rows: Vec<(K, V)>) -> impl Iterator<Item = (K, Vec<V>)> {
    let mut rows = rows.into_iter().peekable();
    std::iter::from_fn(move || {
        let (key, first) = rows.next()?;
        let mut group = vec![first];
        while let Some((_, value)) = rows.next_if(|(next, _)| *next == key) {
            group.push(value);
        }
        Some((key, group))
    })
}

/// A keyed hash: the key is fed in front of what is hashed.
#[derive(Clone, Copy, Debug)]
struct Seed(u64);

impl BuildHasher for Seed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// Hashes a path one component after another, so that the hashes of all its ancestors come for free:
/// looking each of them up on its own would take time quadratic in the depth of the path.
struct PathHasher(DefaultHasher);

impl PathHasher {
    fn hash(seed: Seed, path: &str) -> u64 {
        let mut hasher = Self(seed.build_hasher());
        let mut start = 0;
        while let Some(end) = next_slash(path, start) {
            hasher.0.write(&path.as_bytes()[start..end]);
            start = end;
        }
        hasher.0.write(&path.as_bytes()[start..]);
        hasher.0.finish()
    }

    /// Calls `visit` with the hash and the path of each ancestor, from the root down.
    fn for_each_ancestor(seed: Seed, path: &str, mut visit: impl FnMut(u64, &str)) {
        const ROOT: &str = "/";
        if path == ROOT {
            return;
        }
        visit(Self::hash(seed, ROOT), ROOT);
        let mut hasher = Self(seed.build_hasher());
        let mut start = 0;
        while let Some(end) = next_slash(path, start) {
            hasher.0.write(&path.as_bytes()[start..end]);
            visit(hasher.0.clone().finish(), &path[..end]);
            start = end;
        }
    }
}

/// Where the component that starts at `start` ends, unless it is the last.
fn next_slash(path: &str, start: usize) -> Option<usize> {
    let after = start + 1;
    let offset = path
        .as_bytes()
        .get(after..)?
        .iter()
        .position(|byte| *byte == b'/')?;
    Some(after + offset)
}

#[cfg(test)]
mod tests;
