//! The connections that watch one path.
//!
//! Most paths have one watcher, some have one for every client there is: a short list becomes a tree
//! when it grows, so that neither is dear. Both are in the order of connection numbers.

use std::collections::BTreeMap;
use std::mem;

use super::WatchKind;

/// The kinds of watch that one connection has on one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const DATA: Self = Self(1);
    pub(super) const CHILD: Self = Self(2);
    pub(super) const PERSISTENT: Self = Self(4);
    pub(super) const RECURSIVE: Self = Self(8);
    pub(super) const ALL: Self = Self(15);
    /// What ZooKeeper keeps in its table of data watches.
    pub(super) const IN_DATA: Self = Self(1 | 4 | 8);
    /// What ZooKeeper keeps in its table of child watches.
    pub(super) const IN_CHILD: Self = Self(2 | 4);

    pub(super) fn of(kind: WatchKind) -> Self {
        match kind {
            WatchKind::Data => Self::DATA,
            WatchKind::Child => Self::CHILD,
            WatchKind::Persistent => Self::PERSISTENT,
            WatchKind::PersistentRecursive => Self::RECURSIVE,
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn that_fire_once(self) -> Self {
        self.without(Self::PERSISTENT.with(Self::RECURSIVE))
    }
}

/// Connections with at least one kind of watch each.
#[derive(Clone, Debug)]
pub(super) enum Watchers {
    Few(Vec<(u64, Kinds)>),
    Many(BTreeMap<u64, Kinds>),
}

/// Up to here, moving the entries behind a new one costs less than a tree would.
const FEW: usize = 64;

impl Default for Watchers {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Watchers {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(tree) => tree.is_empty(),
        }
    }

    /// What the connection has; empty if it is not here.
    pub(super) fn kinds(&self, connection: u64) -> Kinds {
        match self {
            Self::Few(list) => list
                .binary_search_by_key(&connection, |entry| entry.0)
                .map_or(Kinds::default(), |index| list[index].1),
            Self::Many(tree) => tree.get(&connection).copied().unwrap_or_default(),
        }
    }

    /// Gives the connection exactly these kinds; empty ones remove it.
    pub(super) fn set(&mut self, connection: u64, kinds: Kinds) {
        match self {
            Self::Few(list) => {
                let found = list.binary_search_by_key(&connection, |entry| entry.0);
                match found {
                    Ok(index) if kinds.is_empty() => {
                        list.remove(index);
                    }
                    Ok(index) => list[index].1 = kinds,
                    Err(_) if kinds.is_empty() => {}
                    Err(index) if list.len() < FEW => {
                        // The usual path has one watcher, and there are many such paths.
                        if list.capacity() == 0 {
                            list.reserve_exact(1);
                        }
                        list.insert(index, (connection, kinds));
                    }
                    Err(_) => {
                        let mut tree: BTreeMap<_, _> = mem::take(list).into_iter().collect();
                        tree.insert(connection, kinds);
                        *self = Self::Many(tree);
                    }
                }
            }
            Self::Many(tree) => {
                if kinds.is_empty() {
                    tree.remove(&connection);
                } else {
                    tree.insert(connection, kinds);
                }
            }
        }
    }

    /// Shows `keep` every connection in order, with its kinds to change, and removes those it does
    /// not keep.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64, &mut Kinds) -> bool) {
        match self {
            Self::Few(list) => list.retain_mut(|(connection, kinds)| keep(*connection, kinds)),
            Self::Many(tree) => tree.retain(|connection, kinds| keep(*connection, kinds)),
        }
    }

    /// The connections with any of these kinds, in order.
    pub(super) fn of_kind(&self, wanted: Kinds) -> impl Iterator<Item = u64> {
        let (list, tree) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(tree) => (None, Some(tree)),
        };
        let list = list.into_iter().flatten().copied();
        let tree = tree.into_iter().flatten().map(|(c, kinds)| (*c, *kinds));
        list.chain(tree)
            .filter(move |(_, kinds)| kinds.intersects(wanted))
            .map(|(connection, _)| connection)
    }
}
