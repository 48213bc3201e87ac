//! From paths to znodes.
//!
//! The table holds ids only: a slot keeps 32 bits of the hash of its path, and the path itself is
//! compared by walking up. It is cut into many small tables, because a growing hash table moves all
//! it has at once, and an apply must not wait for a million moves. Nothing depends on its order.

use hashbrown::HashTable;

use super::nodes::{NodeId, Nodes};
use crate::digest;

/// How many small tables. At ten million znodes one of them grows in about a millisecond.
const SHARDS: usize = 1024;

/// Room for this many costs some 20 MB.
const RESERVE_MAX: u64 = 1 << 22;

/// An odd number without a pattern (the fractional part of the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<HashTable<NodeId>>,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            shards: vec![HashTable::new(); SHARDS],
        }
    }

    /// Makes room for `count` znodes while there are none, within reason: the number is only announced.
    pub(crate) fn reserve(&mut self, count: u64) {
        let count = usize::try_from(count.min(RESERVE_MAX)).unwrap_or(0);
        for shard in &mut self.shards {
            // A shard may get a few more than its share.
            shard.reserve(count / SHARDS + count / SHARDS / 16, |_| {
                unreachable!("an empty table moves nothing")
            });
        }
    }

    /// The znode at `path`, whose hash is `place`. An ill-formed path has none; the empty one is the
    /// root, as in ZooKeeper.
    pub(crate) fn find(&self, nodes: &Nodes, place: u64, path: &str) -> Option<NodeId> {
        if matches!(path, "" | "/") {
            return Some(NodeId::ROOT);
        }
        let key = key(place);
        self.shards[shard(key)]
            .find(spread(key), |id| {
                nodes.slot(*id).key == key && nodes.is_at(*id, path)
            })
            .copied()
    }

    /// The znode's slot has its key already.
    pub(crate) fn insert(&mut self, nodes: &Nodes, id: NodeId) {
        let key = nodes.slot(id).key;
        self.shards[shard(key)].insert_unique(spread(key), id, |id| spread(nodes.slot(*id).key));
    }

    pub(crate) fn remove(&mut self, nodes: &Nodes, id: NodeId) {
        let key = nodes.slot(id).key;
        self.shards[shard(key)]
            .find_entry(spread(key), |other| *other == id)
            .expect("a znode of the tree is in the index")
            .remove();
    }
}

/// The part of a path's hash that a slot keeps.
pub(crate) fn key(place: u64) -> u32 {
    let [a, b, c, d, ..] = place.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn shard(key: u32) -> usize {
    key as usize % SHARDS
}

fn spread(key: u32) -> u64 {
    digest::fold(key.into(), SPREAD)
}
