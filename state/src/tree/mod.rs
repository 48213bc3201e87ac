//! The tree of znodes: who is where, and the rules of every write.
//!
//! `nodes` is the tree itself, and all a view or a read needs. The rest finds things in it, and
//! knows what is free. [`edit`] changes it, one znode at a time; the operations of clients
//! ([`create`], [`delete`], [`set_data`], [`set_acl`], [`multi`]) check everything first and edit
//! then, so that a refusal leaves no trace. A multi edits as it goes, and the journal takes back
//! what came before a refusal.
//!
//! Ids, positions in memory and hash tables differ from replica to replica. Whatever can be seen
//! from outside (replies, the order of children and deletions, the digest, a snapshot) depends on
//! paths and on the order of commands alone.

pub(crate) mod acl;
mod audit;
mod create;
mod delete;
mod due;
mod edit;
mod heap;
mod index;
mod journal;
mod multi;
pub(crate) mod nodes;
mod quota;
mod set_acl;
mod set_data;
pub(crate) mod znode;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_protocol::{Acl, Id, Perms, SessionId, Zxid};

use crate::applied::{Change, ChangeKind};
use crate::canary::{Canary, planted};
use crate::command::Rules;
use crate::digest;
use crate::error::OpError;
use crate::pages::{Indexes, Pages};

use acl::{AclId, AclUses, permits};
use due::{Due, DueList};
use heap::{Chunks, Heap};
use index::Index;
use journal::Journal;
use nodes::{NodeId, Nodes};
use znode::Znode;

pub(crate) use create::Plan;
pub(crate) use multi::check_flags;
pub(crate) use quota::Quotas;

/// Znodes that cannot be deleted.
const SYSTEM_PATHS: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", CONFIG_PATH];

/// Written by the server alone.
pub(crate) const CONFIG_PATH: &str = "/zookeeper/config";

/// Who writes, when, and by which rules.
#[derive(Clone, Copy)]
pub(crate) struct Author<'a> {
    pub(crate) zxid: Zxid,
    pub(crate) time_ms: i64,
    pub(crate) session: SessionId,
    pub(crate) identities: &'a [Id],
    pub(crate) rules: Rules,
    pub(crate) decisions: &'a Decisions,
}

/// What long ACLs have been found to give the author, each asked once per command: a multi may ask
/// sixty thousand times. While a command is applied no ACL's number is given to another.
#[derive(Debug, Default)]
pub(crate) struct Decisions(RefCell<BTreeMap<(u32, i32), bool>>);

/// The tree, and what helps to change it.
#[derive(Debug)]
pub(crate) struct DataTree {
    nodes: Nodes,
    heap: Heap,
    acl_uses: AclUses,
    ids: Indexes,
    family_ids: Indexes,
    index: Index,
    ephemerals: BTreeMap<SessionId, BTreeSet<NodeId>>,
    due: DueList,
    quotas: Quotas,
    totals: Totals,
    /// Present while a multi runs.
    journal: Option<Journal>,
    /// Spares an allocation per write.
    scratch: Vec<u8>,
}

/// Sums over all znodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) znodes: u64,
    pub(crate) ephemerals: u64,
    /// Paths and data.
    pub(crate) bytes: u64,
    /// The sum of all facts' hashes, quotas included.
    pub(crate) digest: u64,
}

/// A znode and the hash of its path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) id: NodeId,
    place: u64,
}

impl DataTree {
    /// The tree at birth: the root and the three system znodes, of which nothing was ever created by
    /// a client.
    pub(crate) fn new() -> Self {
        let mut tree = Self::empty();
        tree.plant_root(&Znode::new(b"", Some(b""), 0, 0));
        let zookeeper = tree.plant_system(NodeId::ROOT, "/zookeeper", &[]);
        tree.plant_system(zookeeper, "/zookeeper/quota", &[]);
        tree.plant_system(zookeeper, CONFIG_PATH, &[AclId::READ_ONLY]);
        tree
    }

    /// A tree that wants a root before anything else.
    pub(crate) fn empty() -> Self {
        let (acls, acl_uses) = AclUses::new();
        Self {
            nodes: Nodes {
                slots: Pages::new(),
                families: Pages::new(),
                chunks: Chunks::new(),
                acls,
            },
            heap: Heap::new(),
            acl_uses,
            ids: Indexes::default(),
            family_ids: Indexes::default(),
            index: Index::new(),
            ephemerals: BTreeMap::new(),
            due: DueList::default(),
            quotas: Quotas::default(),
            totals: Totals::default(),
            journal: None,
            scratch: Vec::new(),
        }
    }

    /// `/zookeeper/config` starts with `aversion` -1, as in ZooKeeper.
    fn plant_system(&mut self, parent: NodeId, path: &str, acl: &[AclId]) -> NodeId {
        let name = path.rsplit('/').next().unwrap_or_default();
        let mut znode = Znode::new(name.as_bytes(), Some(b""), 0, 0);
        if let [acl] = acl {
            znode.acl = *acl;
            znode.aversion = -1;
        }
        self.found_family(parent, digest::path(parent_of(path)), 0, 0);
        self.plant(parent, digest::path(path), path.len(), &znode)
    }

    /// Prepares for so many znodes.
    pub(crate) fn expect_znodes(&mut self, count: u64) {
        self.index.reserve(count);
    }

    pub(crate) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// No check of the path: one that is ill-formed leads nowhere, and the empty one to the root.
    pub(crate) fn find(&self, path: &str) -> Option<Found> {
        let place = digest::path(path);
        let id = self.index.find(&self.nodes, place, path)?;
        Some(Found { id, place })
    }

    /// The number of an ACL. It lasts as long as a znode has that ACL.
    pub(crate) fn number_acl(&mut self, entries: Vec<Acl>) -> AclId {
        self.acl_uses.number(&mut self.nodes.acls, entries)
    }

    pub(crate) fn acl(&self, id: NodeId) -> &Arc<[Acl]> {
        self.nodes.acls.get(self.nodes.znode(id).acl)
    }

    /// Whether the ACL of `znode` gives one of the permissions `wanted`.
    pub(crate) fn allows(
        &self,
        znode: &Znode<'_>,
        wanted: Perms,
        identities: &[Id],
        skip_acl: bool,
    ) -> bool {
        skip_acl
            || znode.acl == AclId::OPEN
            || permits(self.nodes.acls.get(znode.acl), wanted, identities)
    }

    /// As [`Self::allows`], for the author of a write.
    fn lets(&self, author: &Author<'_>, znode: &Znode<'_>, wanted: Perms) -> bool {
        /// Up to here, asking again costs less than remembering.
        const SHORT: usize = 16;
        let ask = || self.allows(znode, wanted, author.identities, author.rules.skip_acl);
        if self.nodes.acls.get(znode.acl).len() <= SHORT {
            return ask();
        }
        let mut decisions = author.decisions.0.borrow_mut();
        *decisions.entry((znode.acl.0, wanted.0)).or_insert_with(ask)
    }

    /// The ephemerals of a session, by path.
    pub(crate) fn ephemerals_of(&self, session: SessionId) -> Vec<String> {
        let ids = self.ephemerals.get(&session).into_iter().flatten();
        let mut paths: Vec<String> = ids.map(|id| self.nodes.path(*id)).collect();
        paths.sort_unstable();
        paths
    }

    pub(crate) fn ephemeral_count_of(&self, session: SessionId) -> usize {
        self.ephemerals.get(&session).map_or(0, BTreeSet::len)
    }

    /// Containers and TTL znodes whose time has come, `max` at most.
    pub(crate) fn reapable(&self, now_ms: i64, never_used_ms: i64, max: usize) -> Vec<String> {
        self.due
            .over(now_ms, never_used_ms)
            .take(max)
            .map(|id| self.nodes.path(id))
            .collect()
    }

    /// Deletes the znode if its time has come, whoever may think otherwise by its ACL.
    pub(crate) fn reap(
        &mut self,
        path: &str,
        zxid: Zxid,
        now_ms: i64,
        never_used_ms: i64,
        changes: &mut Vec<Change>,
    ) {
        let Some(found) = self.find(path) else { return };
        let due = Due::of(&self.nodes.znode(found.id), self.nodes.family(found.id));
        if due.is_some_and(|due| due.is_over(now_ms, never_used_ms)) {
            self.delete_found(path, found, zxid, changes);
        }
    }

    /// Deletes all that a session leaves behind, in the order of the paths.
    pub(crate) fn end_session(
        &mut self,
        session: SessionId,
        zxid: Zxid,
        changes: &mut Vec<Change>,
    ) {
        let mut left_behind = self.ephemerals_of(session);
        if planted(Canary::EphemeralLeftBehind) {
            left_behind.pop();
        }
        for path in left_behind {
            let found = self.find(&path).expect("a listed ephemeral is in the tree");
            self.delete_found(&path, found, zxid, changes);
        }
    }

    /// Deletes a znode that has no children.
    fn delete_found(&mut self, path: &str, found: Found, zxid: Zxid, changes: &mut Vec<Change>) {
        let parent = self.nodes.slot(found.id).parent;
        let znode = self.nodes.znode(found.id);
        let bytes = znode.data_len();
        changes.push(Change {
            kind: ChangeKind::Deleted,
            path: path.into(),
            acl: Arc::clone(self.nodes.acls.get(znode.acl)),
            parent_acl: Arc::clone(self.acl(parent)),
        });
        self.remove(found, path, zxid);
        self.quota_after_delete(path, bytes);
    }

    /// The znode at a path that has to be well-formed.
    fn find_valid(&self, path: &str) -> Result<Found, OpError> {
        quorate_protocol::ZnodePath::check(path).map_err(|_| OpError::BadArguments)?;
        self.find(path).ok_or(OpError::NoNode)
    }
}

/// What stands before the last slash; the empty string is the root. A path without a slash has no
/// parent, and the same is said of it.
fn parent_of(path: &str) -> &str {
    &path[..path.rfind('/').unwrap_or(0)]
}

/// -1 matches any version; every other number means itself.
fn check_version(expected: i32, actual: i32) -> Result<(), OpError> {
    if expected == -1 || expected == actual {
        Ok(())
    } else {
        Err(OpError::BadVersion { expected, actual })
    }
}

/// Counts up, around the end, and past -1: no request could name that.
fn next_version(version: i32) -> i32 {
    match version.wrapping_add(1) {
        -1 => 0,
        next => next,
    }
}

#[cfg(test)]
mod tests;
