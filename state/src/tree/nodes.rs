//! The tree as it can be read: slots, families and records. A view is a clone of this.
//!
//! A slot says where a znode stands, its record what it is, and its family (if it ever had a child)
//! who its children are. Children form a list in the order of their creation, the same on every
//! replica: a snapshot keeps it.
//!
//! In the list, `next` of the last child is [`NodeId::NONE`] and `prev` of the first one is the last,
//! so that both ends are at hand.

use quorate_protocol::{Stat, Zxid};

use super::acl::Acls;
use super::heap::{Chunks, RecordId};
use super::znode::{self, Kind, Znode};
use crate::digest::{Fact, Fingerprint};
use crate::pages::Pages;

/// The number of a znode on this server. Others number theirs otherwise, so it decides no order
/// that anybody can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) const ROOT: Self = Self(0);
    pub(crate) const NONE: Self = Self(u32::MAX);

    pub(crate) fn exists(self) -> bool {
        self != Self::NONE
    }
}

/// Where a znode stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) parent: NodeId,
    pub(crate) next: NodeId,
    pub(crate) prev: NodeId,
    /// Index of its [`Family`]; [`Slot::CHILDLESS`] if it never had a child.
    pub(crate) family: u32,
    pub(crate) record: RecordId,
    /// Part of the hash of its path: see [`super::index`].
    pub(crate) key: u32,
}

impl Slot {
    pub(crate) const CHILDLESS: u32 = u32::MAX;
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            parent: NodeId::NONE,
            next: NodeId::NONE,
            prev: NodeId::NONE,
            family: Self::CHILDLESS,
            record: RecordId::default(),
            key: 0,
        }
    }
}

/// What is known of the children of one znode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) first: NodeId,
    /// How many there are.
    pub(crate) children: u32,
    /// How many there ever were: what sequential znodes are numbered by. ZooKeeper keeps 32 bits of
    /// it and misbehaves at the end; these never run out.
    pub(crate) created: u64,
    /// The write that last added or removed one.
    pub(crate) pzxid: i64,
}

impl Default for Family {
    fn default() -> Self {
        Self {
            first: NodeId::NONE,
            children: 0,
            created: 0,
            pzxid: 0,
        }
    }
}

impl Family {
    /// This family's part of the digest. Who the children are is their part.
    pub(crate) fn fingerprint(&self, place: u64) -> u64 {
        Fingerprint::of(Fact::Family, place)
            .word(self.created)
            .number(self.pzxid)
            .finish()
    }
}

/// Everything there is to read.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    pub(crate) slots: Pages<Slot>,
    pub(crate) families: Pages<Family>,
    pub(crate) chunks: Chunks,
    pub(crate) acls: Acls,
}

impl Nodes {
    pub(crate) fn slot(&self, id: NodeId) -> &Slot {
        self.slots.get(id.0)
    }

    pub(crate) fn record(&self, id: NodeId) -> &[u8] {
        self.chunks.get(self.slot(id).record)
    }

    pub(crate) fn znode(&self, id: NodeId) -> Znode<'_> {
        Znode::decode(self.record(id))
    }

    pub(crate) fn name(&self, id: NodeId) -> &str {
        std::str::from_utf8(znode::name(self.record(id))).expect("names come from strings")
    }

    pub(crate) fn family(&self, id: NodeId) -> Option<&Family> {
        match self.slot(id).family {
            Slot::CHILDLESS => None,
            index => Some(self.families.get(index)),
        }
    }

    pub(crate) fn child_count(&self, id: NodeId) -> u32 {
        self.family(id).map_or(0, |family| family.children)
    }

    pub(crate) fn stat(&self, id: NodeId) -> Stat {
        self.stat_of(id, &self.znode(id))
    }

    /// As [`Self::stat`], for a znode that is decoded already.
    pub(crate) fn stat_of(&self, id: NodeId, znode: &Znode<'_>) -> Stat {
        let family = self.family(id);
        let children = family.map_or(0, |family| family.children);
        let created = family.map_or(0, |family| family.created);
        Stat {
            czxid: Zxid(znode.czxid),
            mzxid: Zxid(znode.mzxid),
            ctime: znode.ctime,
            mtime: znode.mtime,
            version: znode.version,
            // As ZooKeeper counts: creates plus deletes, but negative at first for a znode that was
            // born with children.
            cversion: wrap(created.wrapping_mul(2).wrapping_sub(children.into())),
            aversion: znode.aversion,
            ephemeral_owner: match znode.kind {
                Kind::Ephemeral(owner) => owner.get(),
                Kind::Persistent | Kind::Container | Kind::Ttl(_) => 0,
            },
            data_length: i32::try_from(znode.data_len()).unwrap_or(i32::MAX),
            num_children: i32::try_from(children).unwrap_or(i32::MAX),
            pzxid: Zxid(family.map_or(znode.czxid, |family| family.pzxid)),
        }
    }

    /// In the order of their creation.
    pub(crate) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let mut next = self.family(id).map_or(NodeId::NONE, |family| family.first);
        std::iter::from_fn(move || {
            let child = next.exists().then_some(next)?;
            next = self.slot(child).next;
            Some(child)
        })
    }

    /// The znode, then its descendants, parents before children and siblings in the order of their
    /// creation, with how far below `top` each is.
    pub(crate) fn subtree(&self, top: NodeId) -> impl Iterator<Item = (u32, NodeId)> {
        let mut current = Some((0, top));
        std::iter::from_fn(move || {
            let (depth, id) = current?;
            current = self.after(top, depth, id);
            Some((depth, id))
        })
    }

    fn after(&self, top: NodeId, mut depth: u32, mut id: NodeId) -> Option<(u32, NodeId)> {
        let first = self.family(id).map_or(NodeId::NONE, |family| family.first);
        if first.exists() {
            return Some((depth + 1, first));
        }
        while id != top {
            let slot = self.slot(id);
            if slot.next.exists() {
                return Some((depth, slot.next));
            }
            depth -= 1;
            id = slot.parent;
        }
        None
    }

    pub(crate) fn path(&self, id: NodeId) -> String {
        if id == NodeId::ROOT {
            return "/".to_owned();
        }
        let mut names = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT {
            names.push(self.name(at));
            at = self.slot(at).parent;
        }
        let mut path = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// Whether `path` leads to `id`, comparing from its end.
    pub(crate) fn is_at(&self, id: NodeId, path: &str) -> bool {
        let mut at = id;
        let mut rest = path.as_bytes();
        while at != NodeId::ROOT {
            let slot = self.slot(at);
            let name = znode::name(self.chunks.get(slot.record));
            match rest
                .strip_suffix(name)
                .and_then(|rest| rest.strip_suffix(b"/"))
            {
                Some(parent) => rest = parent,
                None => return false,
            }
            at = slot.parent;
        }
        rest.is_empty()
    }
}

/// The low 32 bits, as Java's cast to `int` has it.
fn wrap(number: u64) -> i32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}
