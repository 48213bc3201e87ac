//! What every replica has: the tree, the sessions, and the last command they went through.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_protocol::{Acl, SessionId, Stat, Zxid};

use crate::digest::{Fact, Fingerprint};
use crate::sessions::{Session, Sessions};
use crate::snapshot::StateView;
use crate::tree::DataTree;

/// The replicated state. [`State::apply`] is the only way to change it.
#[derive(Debug)]
pub struct State {
    pub(crate) last_zxid: Zxid,
    pub(crate) tree: DataTree,
    pub(crate) sessions: Sessions,
    /// The servers that have been admitted, and with which incarnation of their data.
    pub(crate) incarnations: BTreeMap<u64, u64>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state at birth: no session, and the system znodes alone.
    pub fn new() -> Self {
        Self {
            last_zxid: Zxid::ZERO,
            tree: DataTree::new(),
            sessions: Sessions::new(),
            incarnations: BTreeMap::new(),
        }
    }

    /// The last command applied, refused ones included, or entry skipped.
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// Takes note of an entry of the log that is no command.
    pub fn skip(&mut self, zxid: Zxid) {
        self.last_zxid = zxid;
    }

    /// The ACL of a znode, if it exists. A path that is none leads nowhere.
    pub fn node_acl(&self, path: &str) -> Option<Arc<[Acl]>> {
        let found = self.tree.find(path)?;
        Some(Arc::clone(self.tree.acl(found.id)))
    }

    /// The stat of a znode, if it exists. A path that is none leads nowhere.
    pub fn stat(&self, path: &str) -> Option<Stat> {
        let found = self.tree.find(path)?;
        Some(self.tree.nodes().stat(found.id))
    }

    /// The incarnation of a server's data, if that server was ever admitted. One that comes with
    /// another has lost what it had acknowledged.
    pub fn incarnation_of(&self, server: u64) -> Option<u64> {
        self.incarnations.get(&server).copied()
    }

    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    /// All sessions, in no particular order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|session| (session.id(), session))
    }

    /// The paths of a session's ephemerals, sorted.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = String> + use<> {
        self.tree.ephemerals_of(session).into_iter()
    }

    /// How many ephemerals a session has.
    pub fn ephemeral_count_of(&self, session: SessionId) -> usize {
        self.tree.ephemeral_count_of(session)
    }

    /// Containers and TTL znodes that may be deleted at `now_ms`, `max` at most: for a
    /// [`crate::Action::Reap`]. With `never_used_ms` 0, containers that never had a child are spared.
    pub fn reapable(&self, now_ms: i64, never_used_ms: i64, max: usize) -> Vec<String> {
        self.tree.reapable(now_ms, never_used_ms, max)
    }

    /// The sum of the hashes of all facts that replicas share: znodes, counters, sessions, quotas,
    /// incarnations.
    /// The last zxid is not one of them. Kept up to date by every apply.
    pub fn digest(&self) -> u64 {
        self.tree
            .totals()
            .digest
            .wrapping_add(self.sessions.digest())
            .wrapping_add(digest_of_incarnations(&self.incarnations))
    }

    /// As ZooKeeper counts, with the root twice: 5 at birth.
    pub fn node_count(&self) -> u64 {
        self.tree.totals().znodes
    }

    pub fn ephemeral_count(&self) -> u64 {
        self.tree.totals().ephemerals
    }

    pub fn session_count(&self) -> u64 {
        self.sessions.len() as u64
    }

    /// The bytes of all paths and all data.
    pub fn approximate_data_size(&self) -> u64 {
        self.tree.totals().bytes
    }

    /// How often a soft quota was found exceeded since this state was made or loaded. Replicas may
    /// differ in it.
    pub fn soft_quota_exceeded_count(&self) -> u64 {
        self.tree.quotas().soft_exceeded
    }

    /// An immutable view of the state as it is now. It costs a reference count per page, and the
    /// state may change while it is in use.
    pub fn view(&self) -> StateView {
        StateView::new(self)
    }
}

/// A handful at most: computed anew each time.
pub(crate) fn digest_of_incarnations(incarnations: &BTreeMap<u64, u64>) -> u64 {
    incarnations
        .iter()
        .map(|(server, incarnation)| {
            Fingerprint::of(Fact::Incarnation, *server)
                .word(*incarnation)
                .finish()
        })
        .fold(0, u64::wrapping_add)
}
