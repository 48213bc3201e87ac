//! The children of a directory as entries of a recipe: read once, or followed.
//!
//! What is no entry is left alone, and logged once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_client::tree::{Change, Node, Tree};
use quorate_client::{Client, Reason, Stat, Zxid};

use crate::Error;
use crate::directory::{Kind, refuse_others};

/// Reads under way at a time.
const PIPELINED: usize = 256;
/// Children that are no entries, of which the log hears.
const STRANGERS_MAX: usize = 64;

/// What a recipe makes of a child.
pub(crate) trait Entry: Clone + Eq {
    /// `None`: it is not the recipe's.
    fn read(name: &str, data: &Bytes, stat: &Stat) -> Option<Self>;

    /// The write that created it: another one is another entry.
    fn created(&self) -> Zxid;
}

/// Reads all entries, in the order of their creation. Not of one moment. No directory has none.
pub(crate) async fn read<E: Entry>(
    client: &Client,
    directory: &str,
    kind: Kind,
) -> Result<Vec<E>, Error> {
    let names = match client.get(directory).await {
        Ok((data, _)) => {
            refuse_others(directory, &data, kind)?;
            client.children(directory).await
        }
        Err(error) => Err(error),
    };
    let names = match names {
        Ok((names, _)) => names,
        Err(error) if error.is(Reason::NoNode) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut entries: Vec<E> = Vec::with_capacity(names.len());
    for batch in names.chunks(PIPELINED) {
        let reads: Vec<_> = batch
            .iter()
            .map(|name| client.get(&join(directory, name)).send())
            .collect();
        for (name, read) in batch.iter().zip(reads) {
            match read.await {
                Ok((data, stat)) => entries.extend(E::read(name, &data, &stat)),
                Err(error) if error.is(Reason::NoNode) || error.is(Reason::NoAuth) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    entries.sort_by_key(Entry::created);
    Ok(entries)
}

/// The path of a child.
pub(crate) fn join(directory: &str, name: &str) -> String {
    let directory = directory.strip_suffix('/').unwrap_or(directory);
    format!("{directory}/{name}")
}

/// What became of the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<E> {
    Came(E),
    Went(E),
    Changed { new: E, old: E },
    Resynced(Vec<Step<E>>),
}

/// The entries, and how they change.
#[derive(Debug)]
pub(crate) struct Follow<E> {
    directory: String,
    tree: Tree,
    entries: BTreeMap<String, E>,
    ready: VecDeque<(String, Step<E>)>,
    /// What was logged.
    strangers: BTreeSet<String>,
}

impl<E: Entry> Follow<E> {
    pub(crate) async fn open(client: &Client, directory: &str, kind: Kind) -> Result<Self, Error> {
        let tree = client.tree(directory).await?;
        if let Some(node) = tree.get(directory) {
            refuse_others(directory, &node.data, kind)?;
        }
        let mut follow = Self {
            directory: directory.to_owned(),
            tree,
            entries: BTreeMap::new(),
            ready: VecDeque::new(),
            strangers: BTreeSet::new(),
        };
        follow.entries = follow.read();
        Ok(follow)
    }

    /// By name, as the last `next` left them.
    pub(crate) fn entries(&self) -> &BTreeMap<String, E> {
        &self.entries
    }

    /// As [`Tree::next`], but that the end of a session is no error where another follows. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Step<E>, quorate_client::Error>> {
        loop {
            if let Some((name, step)) = self.ready.pop_front() {
                match &step {
                    Step::Came(new) | Step::Changed { new, .. } => {
                        self.entries.insert(name, new.clone());
                    }
                    Step::Went(_) => drop(self.entries.remove(&name)),
                    Step::Resynced(_) => {}
                }
                return Some(Ok(step));
            }
            // It ends when there will be no other session.
            let change = self.tree.next().await?;
            match change {
                // The next session will show what is so.
                Err(error) if error.needs_new_session() => {}
                Err(error) => return Some(Err(error)),
                Ok(Change::Resynced(_)) => return Some(Ok(self.resynced())),
                Ok(Change::Put { path, new, .. }) => {
                    if let Some(name) = self.name_of(&path) {
                        let new = self.entry(&name, &new);
                        self.note(&name, new);
                    }
                }
                Ok(Change::Removed { path, .. }) => {
                    if let Some(name) = self.name_of(&path) {
                        self.note(&name, None);
                    }
                }
                // Whatever else a tree may tell one day.
                Ok(_) => {}
            }
        }
    }

    fn resynced(&mut self) -> Step<E> {
        let entries = self.read();
        let old = std::mem::replace(&mut self.entries, entries);
        Step::Resynced(difference(&old, &self.entries))
    }

    fn note(&mut self, name: &str, new: Option<E>) {
        let old = self.entries.get(name).cloned();
        let steps = step(old, new).into_iter();
        self.ready.extend(steps.map(|step| (name.to_owned(), step)));
    }

    /// The name of a child of the directory.
    fn name_of(&self, path: &str) -> Option<String> {
        let directory = self.directory.strip_suffix('/').unwrap_or(&self.directory);
        let name = path.strip_prefix(directory)?.strip_prefix('/')?;
        (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
    }

    fn entry(&mut self, name: &str, node: &Node) -> Option<E> {
        let entry = E::read(name, &node.data, &node.stat);
        if entry.is_none()
            && self.strangers.len() < STRANGERS_MAX
            && self.strangers.insert(name.to_owned())
        {
            let directory = &self.directory;
            tracing::warn!(
                directory,
                name,
                "a child that is not the recipe's: left alone"
            );
        }
        entry
    }

    fn read(&mut self) -> BTreeMap<String, E> {
        let nodes: Vec<_> = self
            .tree
            .nodes()
            .iter()
            .filter_map(|(path, node)| Some((self.name_of(path)?, node.clone())))
            .collect();
        nodes
            .into_iter()
            .filter_map(|(name, node)| {
                let entry = self.entry(&name, &node)?;
                Some((name, entry))
            })
            .collect()
    }
}

/// What the change of one znode means.
fn step<E: Entry>(old: Option<E>, new: Option<E>) -> Vec<Step<E>> {
    match (old, new) {
        (None, None) => Vec::new(),
        (None, Some(new)) => vec![Step::Came(new)],
        (Some(old), None) => vec![Step::Went(old)],
        (Some(old), Some(new)) if old.created() != new.created() => {
            vec![Step::Went(old), Step::Came(new)]
        }
        (Some(old), Some(new)) if old == new => Vec::new(),
        (Some(old), Some(new)) => vec![Step::Changed { new, old }],
    }
}

/// What has to happen to `old` to become `new`. What went comes first.
fn difference<E: Entry>(old: &BTreeMap<String, E>, new: &BTreeMap<String, E>) -> Vec<Step<E>> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut steps: Vec<Step<E>> = names
        .into_iter()
        .flat_map(|name| step(old.get(name).cloned(), new.get(name).cloned()))
        .collect();
    steps.sort_by_key(|step| !matches!(step, Step::Went(_)));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writes that created and changed it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Pair(&'static str, i64, i64);

    impl Entry for Pair {
        fn read(_: &str, _: &Bytes, _: &Stat) -> Option<Self> {
            None
        }

        fn created(&self) -> Zxid {
            Zxid(self.1)
        }
    }

    fn entries(list: &[Pair]) -> BTreeMap<String, Pair> {
        list.iter()
            .map(|pair| (pair.0.to_owned(), pair.clone()))
            .collect()
    }

    #[test]
    fn a_difference_says_what_went_came_came_back_and_changed() {
        let old = entries(&[
            Pair("a", 1, 1),
            Pair("b", 2, 2),
            Pair("c", 3, 3),
            Pair("d", 4, 4),
        ]);
        let new = entries(&[
            Pair("a", 1, 1),
            Pair("b", 2, 9),
            Pair("c", 8, 8),
            Pair("e", 7, 7),
        ]);
        assert_eq!(
            difference(&old, &new),
            [
                Step::Went(Pair("c", 3, 3)),
                Step::Went(Pair("d", 4, 4)),
                Step::Changed {
                    new: Pair("b", 2, 9),
                    old: Pair("b", 2, 2),
                },
                Step::Came(Pair("c", 8, 8)),
                Step::Came(Pair("e", 7, 7)),
            ]
        );
    }
}
