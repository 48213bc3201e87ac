//! The three edits that everything is made of: insert, remove, rewrite.
//!
//! Each keeps the index, the lists of ephemerals and candidates for reaping, the sums and the digest
//! in step. They check no rule of the protocol: their callers have.

use std::mem;

use quorate_protocol::{Stat, Zxid};

use super::due::Due;
use super::heap::RecordId;
use super::index;
use super::journal::Undo;
use super::nodes::{Family, NodeId, Slot};
use super::znode::{self, Kind, Znode};
use super::{DataTree, Found, parent_of};
use crate::canary::{Canary, planted};
use crate::digest;

/// What a rewrite does to the data.
pub(super) enum NewData<'a> {
    Keep,
    Set(Option<&'a [u8]>),
}

impl DataTree {
    /// Adds a znode as its parent's youngest child, by the write that its czxid names.
    pub(super) fn insert(&mut self, parent: Found, path: &str, znode: &Znode<'_>) -> NodeId {
        self.drop_due(parent.id);
        let before = self.change_family(parent.id, parent.place, |family| {
            family.created += 1;
            family.pzxid = znode.czxid;
        });
        let place = digest::step(parent.place, znode.name);
        let id = self.plant(parent.id, place, path.len(), znode);
        self.note(|| Undo::Inserted {
            id,
            parent_before: before,
        });
        id
    }

    /// Takes a znode without children away.
    pub(super) fn remove(&mut self, found: Found, path: &str, zxid: Zxid) {
        let Found { id, place } = found;
        let slot = *self.nodes.slot(id);
        let znode = self.nodes.znode(id);
        let bytes = path.len() + znode.data_len();
        let fact = znode.fingerprint(place, self.nodes.acls.fingerprint(znode.acl));
        let is_ephemeral = matches!(znode.kind, Kind::Ephemeral(_));
        let family = self
            .nodes
            .family(id)
            .map(|family| family.fingerprint(place));
        self.totals.digest = self
            .totals
            .digest
            .wrapping_sub(fact)
            .wrapping_sub(family.unwrap_or(0));
        self.totals.znodes -= 1;
        self.totals.ephemerals -= u64::from(is_ephemeral);
        self.totals.bytes -= bytes as u64;

        let parent_place = digest::path(parent_of(path));
        let before = self.change_family(slot.parent, parent_place, |family| {
            family.pzxid = zxid.0;
        });
        self.delist(id);
        self.index.remove(&self.nodes, id);
        let was_first = self.unlink(id);
        if self.journal.is_some() {
            self.note(|| Undo::Removed {
                id,
                was_first,
                parent_before: before.expect("a parent has a family"),
            });
        } else {
            self.release(id);
        }
    }

    /// Changes what a znode is, all but its name and its kind, and returns its new stat.
    pub(super) fn rewrite(
        &mut self,
        found: Found,
        data: &NewData<'_>,
        change: impl FnOnce(&mut Znode<'_>),
    ) -> Stat {
        let Found { id, place } = found;
        let mut head = mem::take(&mut self.scratch);
        let old = self.nodes.znode(id);
        let mut new = old;
        let kept;
        let data = match data {
            NewData::Set(data) => {
                new.data = *data;
                *data
            }
            NewData::Keep => {
                kept = old.data.map(<[u8]>::to_vec);
                kept.as_deref()
            }
        };
        change(&mut new);
        new.encode_head(&mut head);
        let acls = &self.nodes.acls;
        self.totals.digest = self
            .totals
            .digest
            .wrapping_sub(old.fingerprint(place, acls.fingerprint(old.acl)))
            .wrapping_add(new.fingerprint(place, acls.fingerprint(new.acl)));
        self.totals.bytes = self.totals.bytes - old.data_len() as u64 + new.data_len() as u64;
        let (old_acl, new_acl) = (old.acl, new.acl);
        let stat = self.nodes.stat_of(id, &new);

        self.drop_due(id);
        self.acl_uses.keep(new_acl);
        let record = self.nodes.slot(id).record;
        let data = data.unwrap_or_default();
        let now = if self.journal.is_some() {
            self.note(|| Undo::Rewritten { id, record });
            self.heap.store(&mut self.nodes.chunks, &head, data)
        } else {
            self.acl_uses.release(&mut self.nodes.acls, old_acl);
            self.heap
                .replace(&mut self.nodes.chunks, record, &head, data)
        };
        if now != record {
            self.nodes.slots.get_mut(id.0).record = now;
        }
        self.add_due(id);
        self.scratch = head;
        stat
    }

    /// Puts a znode into its place without telling its parent's counters. The parent has a family.
    pub(crate) fn plant(
        &mut self,
        parent: NodeId,
        place: u64,
        path_len: usize,
        znode: &Znode<'_>,
    ) -> NodeId {
        let id = self.new_slot(parent, place, znode);
        self.drop_due(parent);
        self.link_last(id);
        self.index.insert(&self.nodes, id);
        self.count_new(place, path_len, znode);
        if !planted(Canary::EphemeralsNotInSnapshot) {
            self.enlist(id, znode);
        }
        id
    }

    /// The root has neither a name nor a parent, and is not in the index. As in ZooKeeper it counts
    /// twice, as `/` and as the empty path.
    pub(crate) fn plant_root(&mut self, znode: &Znode<'_>) {
        let id = self.new_slot(NodeId::NONE, digest::ROOT_PATH, znode);
        debug_assert_eq!(id, NodeId::ROOT);
        self.count_new(digest::ROOT_PATH, "/".len(), znode);
        self.totals.znodes += 1;
    }

    /// Gives a znode a family, unless it has one: it is about to have children, or had some once.
    pub(crate) fn found_family(&mut self, id: NodeId, place: u64, created: u64, pzxid: i64) {
        if self.nodes.family(id).is_none() {
            self.drop_due(id);
            self.change_family(id, place, |family| {
                family.created = created;
                family.pzxid = pzxid;
            });
            self.add_due(id);
        }
    }

    fn new_slot(&mut self, parent: NodeId, place: u64, znode: &Znode<'_>) -> NodeId {
        let record = self.store(znode);
        let id = NodeId(self.ids.take());
        assert!(id.exists(), "znodes are fewer than 2^32 - 1");
        self.nodes.slots.set(
            id.0,
            Slot {
                parent,
                record,
                key: index::key(place),
                ..Slot::default()
            },
        );
        id
    }

    fn store(&mut self, znode: &Znode<'_>) -> RecordId {
        let mut head = mem::take(&mut self.scratch);
        znode.encode_head(&mut head);
        self.acl_uses.keep(znode.acl);
        let data = znode.data.unwrap_or_default();
        let record = self.heap.store(&mut self.nodes.chunks, &head, data);
        self.scratch = head;
        record
    }

    fn count_new(&mut self, place: u64, path_len: usize, znode: &Znode<'_>) {
        let fact = znode.fingerprint(place, self.nodes.acls.fingerprint(znode.acl));
        self.totals.digest = self.totals.digest.wrapping_add(fact);
        self.totals.znodes += 1;
        self.totals.bytes += (path_len + znode.data_len()) as u64;
        if matches!(znode.kind, Kind::Ephemeral(_)) {
            self.totals.ephemerals += 1;
        }
    }

    /// Changes a family's counters, and says what they were; `None` if there was no family. One that
    /// was none begins as if no child had ever come.
    fn change_family(
        &mut self,
        id: NodeId,
        place: u64,
        change: impl FnOnce(&mut Family),
    ) -> Option<Family> {
        let before = self.nodes.family(id).copied();
        let mut family = before.unwrap_or_default();
        change(&mut family);
        let old = before.map_or(0, |before| before.fingerprint(place));
        self.totals.digest = self
            .totals
            .digest
            .wrapping_sub(old)
            .wrapping_add(family.fingerprint(place));
        self.set_family(id, family);
        before
    }

    fn set_family(&mut self, id: NodeId, family: Family) {
        let mut index = self.nodes.slot(id).family;
        if index == Slot::CHILDLESS {
            index = self.family_ids.take();
            self.nodes.slots.get_mut(id.0).family = index;
        }
        self.nodes.families.set(index, family);
    }

    fn drop_family(&mut self, id: NodeId) {
        let index = mem::replace(&mut self.nodes.slots.get_mut(id.0).family, Slot::CHILDLESS);
        if index != Slot::CHILDLESS {
            self.family_ids.give_back(index);
        }
    }

    /// Frees what an unlinked znode occupied.
    pub(super) fn release(&mut self, id: NodeId) {
        self.drop_family(id);
        self.free_record(self.nodes.slot(id).record);
        self.ids.give_back(id.0);
    }

    pub(super) fn free_record(&mut self, record: RecordId) {
        let acl = Znode::decode(self.nodes.chunks.get(record)).acl;
        self.acl_uses.release(&mut self.nodes.acls, acl);
        self.heap.free(&mut self.nodes.chunks, record);
    }

    /// Lists the znode with its session's ephemerals, or as a candidate for reaping.
    fn enlist(&mut self, id: NodeId, znode: &Znode<'_>) {
        match znode.kind {
            Kind::Persistent => {}
            Kind::Ephemeral(owner) => {
                self.ephemerals.entry(owner).or_default().insert(id);
            }
            Kind::Container | Kind::Ttl(_) => self.add_due(id),
        }
    }

    fn delist(&mut self, id: NodeId) {
        let record = self.nodes.record(id);
        if znode::is_ephemeral(record) {
            let Kind::Ephemeral(owner) = Znode::decode(record).kind else {
                unreachable!("the flags of a record say what it holds");
            };
            let ids = self
                .ephemerals
                .get_mut(&owner)
                .expect("an ephemeral is listed with its session");
            ids.remove(&id);
            if ids.is_empty() {
                self.ephemerals.remove(&owner);
            }
        }
        self.drop_due(id);
    }

    fn add_due(&mut self, id: NodeId) {
        if let Some(due) = self.due_of(id) {
            self.due.add(due, id);
        }
    }

    fn drop_due(&mut self, id: NodeId) {
        if let Some(due) = self.due_of(id) {
            self.due.remove(due, id);
        }
    }

    fn due_of(&self, id: NodeId) -> Option<Due> {
        let record = self.nodes.record(id);
        znode::may_be_reaped(record)
            .then(|| Due::of(&Znode::decode(record), self.nodes.family(id)))
            .flatten()
    }

    /// Makes the znode the last child of its parent.
    fn link_last(&mut self, id: NodeId) {
        let parent = self.nodes.slot(id).parent;
        let family = self.nodes.slot(parent).family;
        let first = self.nodes.families.get(family).first;
        let last = if first.exists() {
            mem::replace(&mut self.nodes.slots.get_mut(first.0).prev, id)
        } else {
            self.nodes.families.get_mut(family).first = id;
            id
        };
        if last != id {
            self.nodes.slots.get_mut(last.0).next = id;
        }
        let slot = self.nodes.slots.get_mut(id.0);
        slot.prev = last;
        slot.next = NodeId::NONE;
        self.nodes.families.get_mut(family).children += 1;
    }

    /// Takes the znode out of the list of its parent's children, and says whether it was the first.
    /// Its own links stay, for [`Self::relink`].
    fn unlink(&mut self, id: NodeId) -> bool {
        let Slot {
            parent, next, prev, ..
        } = *self.nodes.slot(id);
        let family = self.nodes.slot(parent).family;
        let family = self.nodes.families.get_mut(family);
        family.children -= 1;
        let is_empty = family.children == 0;
        let was_first = family.first == id;
        if was_first {
            family.first = next;
        }
        let first = family.first;
        if !was_first {
            self.nodes.slots.get_mut(prev.0).next = next;
        }
        // The first one points back to the last.
        let successor = if next.exists() { next } else { first };
        if successor.exists() {
            self.nodes.slots.get_mut(successor.0).prev = prev;
        }
        if is_empty {
            self.add_due(parent);
        }
        was_first
    }

    /// Puts the znode back where it was. Every later edit has been taken back already.
    fn relink(&mut self, id: NodeId, was_first: bool) {
        let Slot {
            parent, next, prev, ..
        } = *self.nodes.slot(id);
        self.drop_due(parent);
        let family = self.nodes.slot(parent).family;
        let family = self.nodes.families.get_mut(family);
        family.children += 1;
        let first = family.first;
        if was_first {
            family.first = id;
        } else {
            self.nodes.slots.get_mut(prev.0).next = id;
        }
        let successor = if next.exists() { next } else { first };
        if successor.exists() {
            self.nodes.slots.get_mut(successor.0).prev = id;
        }
    }

    /// Takes an insertion back.
    pub(super) fn undo_insert(&mut self, id: NodeId, parent_before: Option<Family>) {
        let parent = self.nodes.slot(id).parent;
        self.delist(id);
        self.index.remove(&self.nodes, id);
        self.unlink(id);
        self.release(id);
        self.drop_due(parent);
        match parent_before {
            Some(before) => self.restore_counters(parent, before),
            None => self.drop_family(parent),
        }
        self.add_due(parent);
    }

    /// Takes a removal back.
    pub(super) fn undo_remove(&mut self, id: NodeId, was_first: bool, parent_before: Family) {
        let parent = self.nodes.slot(id).parent;
        self.relink(id, was_first);
        self.index.insert(&self.nodes, id);
        self.restore_counters(parent, parent_before);
        if let Kind::Ephemeral(owner) = self.nodes.znode(id).kind {
            self.ephemerals.entry(owner).or_default().insert(id);
        }
        self.add_due(id);
    }

    /// Takes a rewrite back.
    pub(super) fn undo_rewrite(&mut self, id: NodeId, record: RecordId) {
        self.drop_due(id);
        let new = mem::replace(&mut self.nodes.slots.get_mut(id.0).record, record);
        self.free_record(new);
        self.add_due(id);
    }

    fn restore_counters(&mut self, id: NodeId, before: Family) {
        let family = self.nodes.slot(id).family;
        let family = self.nodes.families.get_mut(family);
        family.created = before.created;
        family.pzxid = before.pzxid;
    }
}
