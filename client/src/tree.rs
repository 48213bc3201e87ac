//! A subtree kept in memory: read once, then followed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;

use bytes::Bytes;
use quorate_protocol::Stat;

use crate::client::Client;
use crate::error::{Error, Reason};
use crate::watch::{Item, WatchStream};

/// Reads under way at a time.
const PIPELINED: usize = 256;
/// Znodes that are kept unless told otherwise. Of about a kilobyte each, a hundred megabytes.
const ZNODES_MAX: usize = 100_000;

/// A znode, as it was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its data.
    pub data: Bytes,
    /// Its stat. Between changes of the data the counts of children in it may be old.
    pub stat: Stat,
}

/// What became of a subtree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A znode was created, or its data was set.
    Put {
        /// Which.
        path: String,
        /// As it is now.
        new: Node,
        /// As it was; `None` if it was not there.
        old: Option<Node>,
    },
    /// A znode was deleted.
    Removed {
        /// Which.
        path: String,
        /// As it was.
        old: Node,
    },
    /// All was read again after the connection had been lost, or after more had happened than could
    /// be followed. What has changed since, which may be nothing.
    Resynced(Vec<Change>),
}

/// A subtree, as a client sees it: first a snapshot, then every change of it.
///
/// Changes in quick succession may be seen as one: what counts is that the last is never missed.
/// Znodes that this client may not read are as if they were not there.
///
/// ```no_run
/// # use quorate_client::{Client, Error, tree::Change};
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let mut config = client.tree("/config").await?;
/// for (path, node) in config.nodes() {
///     println!("{path} is {:?}", node.data);
/// }
/// while let Some(change) = config.next().await {
///     match change? {
///         Change::Put { path, new, .. } => println!("{path} is now {:?}", new.data),
///         Change::Removed { path, .. } => println!("{path} is gone"),
///         other => println!("since we last looked: {other:?}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Tree {
    client: Client,
    root: String,
    watch: WatchStream,
    znodes_max: usize,
    nodes: BTreeMap<String, Node>,
    /// To be read again.
    dirty: BTreeSet<String>,
    /// Everything is.
    gap: bool,
    ready: VecDeque<Change>,
    /// The session of the last read is over: the next read is for the session after it, if there is one.
    lost: bool,
}

/// Opens a [`Tree`]. See [`Client::tree`].
#[derive(Clone, Debug)]
#[must_use = "nothing is read before `.await`"]
pub struct OpenTree {
    client: Client,
    root: String,
    znodes_max: usize,
}

impl Client {
    /// Keeps a znode and all below it in memory. The znode need not exist.
    ///
    /// # Errors
    ///
    /// Those of any read; [`Error::InvalidArgument`] if there are more znodes than
    /// [`OpenTree::limit`] allows.
    pub fn tree(&self, root: &str) -> OpenTree {
        OpenTree {
            client: self.clone(),
            root: root.to_owned(),
            znodes_max: ZNODES_MAX,
        }
    }
}

impl OpenTree {
    /// How many znodes are kept at most: 100,000 by default. More are an error.
    pub fn limit(mut self, znodes: usize) -> Self {
        self.znodes_max = znodes;
        self
    }

    async fn open(self) -> Result<Tree, Error> {
        // First of all, so that nothing that happens from now on is missed.
        let watch = self.client.watch(&self.root).recursive().await?;
        let mut tree = Tree {
            client: self.client,
            root: self.root,
            watch,
            znodes_max: self.znodes_max,
            nodes: BTreeMap::new(),
            dirty: BTreeSet::new(),
            gap: false,
            ready: VecDeque::new(),
            lost: false,
        };
        tree.nodes = tree.read_all().await?;
        Ok(tree)
    }
}

impl IntoFuture for OpenTree {
    type Output = Result<Tree, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

impl Tree {
    /// All znodes, in the order of their paths, as the last [`Tree::next`] left them.
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// One znode, as the last [`Tree::next`] left it.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The next change; `None` when the session is over. An error that can be retried is no end:
    /// what could not be read is read again the next time.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Client::tree`].
    pub async fn next(&mut self) -> Option<Result<Change, Error>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                self.apply(&change);
                return Some(Ok(change));
            }
            if self.lost {
                if !has_session(&self.client).await {
                    return None;
                }
                self.lost = false;
                self.gap = true;
            }
            if self.gap {
                return Some(self.resync().await);
            }
            if !self.dirty.is_empty() {
                if let Err(error) = self.refresh().await {
                    self.lost = error.needs_new_session();
                    return Some(Err(error));
                }
                continue;
            }
            match self.watch.next().await {
                Ok(item) => self.note(item),
                Err(_) => return None,
            }
            while let Some(item) = self.watch.try_next() {
                self.note(item);
            }
        }
    }

    fn note(&mut self, item: Item) {
        match item {
            Item::Event(event) => {
                self.dirty.insert(event.path);
            }
            Item::Gap(_) => self.gap = true,
        }
    }

    async fn resync(&mut self) -> Result<Change, Error> {
        match self.read_all().await {
            Ok(nodes) => {
                self.gap = false;
                self.dirty.clear();
                let old = std::mem::replace(&mut self.nodes, nodes);
                Ok(Change::Resynced(difference(old, &self.nodes)))
            }
            Err(error) => {
                self.lost = error.needs_new_session();
                Err(error)
            }
        }
    }

    /// Reads again what has changed.
    async fn refresh(&mut self) -> Result<(), Error> {
        let paths: Vec<String> = self.dirty.iter().cloned().collect();
        for batch in paths.chunks(PIPELINED) {
            let found = self.read(batch).await?;
            for (path, found) in batch.iter().zip(found) {
                self.dirty.remove(path);
                let old = self.nodes.get(path).cloned();
                let path = path.clone();
                let change = match (found, old) {
                    (None, old) => old.map(|old| Change::Removed { path, old }),
                    (Some(new), Some(old)) if old.stat.mzxid == new.stat.mzxid => None,
                    (Some(new), old) => Some(Change::Put { path, new, old }),
                };
                self.ready.extend(change);
            }
        }
        let added = |change: &&Change| matches!(change, Change::Put { old: None, .. });
        if self.nodes.len() + self.ready.iter().filter(added).count() > self.znodes_max {
            // Read again the next time, when there may be fewer.
            self.ready.clear();
            self.gap = true;
            return Err(self.too_many());
        }
        Ok(())
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { path, new, .. } => {
                self.nodes.insert(path.clone(), new.clone());
            }
            Change::Removed { path, .. } => {
                self.nodes.remove(path);
            }
            Change::Resynced(_) => {}
        }
    }

    async fn read_all(&self) -> Result<BTreeMap<String, Node>, Error> {
        let paths = match self.client.list_recursive(&self.root).await {
            Ok(paths) => paths,
            Err(error) if error.is(Reason::NoNode) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
        };
        if paths.len() > self.znodes_max {
            return Err(self.too_many());
        }
        let mut nodes = BTreeMap::new();
        for batch in paths.chunks(PIPELINED) {
            let found = self.read(batch).await?;
            let found = batch.iter().cloned().zip(found);
            nodes.extend(found.filter_map(|(path, node)| Some((path, node?))));
        }
        Ok(nodes)
    }

    async fn read(&self, paths: &[String]) -> Result<Vec<Option<Node>>, Error> {
        let reads: Vec<_> = paths
            .iter()
            .map(|path| self.client.get(path).send())
            .collect();
        let mut found = Vec::with_capacity(reads.len());
        for read in reads {
            found.push(match read.await {
                Ok((data, stat)) => Some(Node { data, stat }),
                Err(error) if error.is(Reason::NoNode) || error.is(Reason::NoAuth) => None,
                Err(error) => return Err(error),
            });
        }
        Ok(found)
    }

    fn too_many(&self) -> Error {
        Error::InvalidArgument {
            target: crate::error::Target::read("tree", &self.root),
            what: "there are more znodes than its limit allows",
        }
    }
}

/// Waits until there is a connection. `false` if the session is over and no other follows.
async fn has_session(client: &Client) -> bool {
    let mut states = client.states();
    while !states.current().is_connected() {
        if states.next().await.is_none() {
            return false;
        }
    }
    true
}

/// What has to be done to `old` to make it `new`.
fn difference(mut old: BTreeMap<String, Node>, new: &BTreeMap<String, Node>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, node) in new {
        let before = old.remove(path);
        if before
            .as_ref()
            .is_none_or(|old| old.stat.mzxid != node.stat.mzxid)
        {
            changes.push(Change::Put {
                path: path.clone(),
                new: node.clone(),
                old: before,
            });
        }
    }
    // Children before their parents, as they were deleted.
    let removed = old.into_iter().rev();
    changes.extend(removed.map(|(path, old)| Change::Removed { path, old }));
    changes
}

#[cfg(test)]
mod tests {
    use quorate_protocol::Zxid;

    use super::*;

    fn nodes(list: &[(&str, i64)]) -> BTreeMap<String, Node> {
        let node = |mzxid| Node {
            data: Bytes::new(),
            stat: Stat {
                mzxid: Zxid(mzxid),
                ..Stat::default()
            },
        };
        list.iter()
            .map(|(path, mzxid)| ((*path).to_owned(), node(*mzxid)))
            .collect()
    }

    #[test]
    fn a_difference_says_what_came_changed_and_went() {
        let old = nodes(&[("/a", 1), ("/b", 2), ("/c", 3), ("/c/d", 4)]);
        let new = nodes(&[("/a", 1), ("/b", 9), ("/e", 8)]);
        let changes = difference(old, &new);
        let told: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Put { path, old, .. } => format!("put {path} {}", old.is_some()),
                Change::Removed { path, .. } => format!("removed {path}"),
                Change::Resynced(_) => "resynced".to_owned(),
            })
            .collect();
        assert_eq!(
            told,
            ["put /b true", "put /e false", "removed /c/d", "removed /c"]
        );
    }
}
