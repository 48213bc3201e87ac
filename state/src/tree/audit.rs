//! The tree's part of an audit: see [`State::audit`](crate::State::audit).
//!
//! It trusts no list to end and no index to lead anywhere sensible: of a tree that is wrong it looks
//! at no more znodes than the tree says it has.

use std::collections::BTreeMap;

use quorate_protocol::{SessionId, Zxid};

use super::nodes::{NodeId, Slot};
use super::znode::Kind;
use super::{DataTree, Due, quota};
use crate::audit::Flaws;
use crate::digest;
use crate::sessions::Sessions;

/// What the walk adds up.
#[derive(Default)]
struct Sums {
    digest: u64,
    znodes: u64,
    ephemerals: u64,
    bytes: u64,
    reapable: usize,
    by_owner: BTreeMap<SessionId, usize>,
}

/// A znode on the way from the root to the current one.
struct Step {
    id: NodeId,
    place: u64,
    /// Length of its path.
    length: usize,
    children: u32,
    /// Those of them that a client created: the tree is born with the others.
    created: u32,
    newest_child: i64,
}

impl DataTree {
    /// Notes what is wrong. Returns the sum of the hashes of all facts.
    pub(crate) fn audit(&self, sessions: &Sessions, last_zxid: Zxid, flaws: &mut Flaws) -> u64 {
        let mut sums = Sums::default();
        let mut path = String::new();
        let mut steps: Vec<Step> = Vec::new();
        for (depth, id) in self.nodes.subtree(NodeId::ROOT) {
            // The root counts twice.
            if sums.znodes >= self.totals.znodes || flaws.is_full() {
                flaws.add("tree", "there are more znodes than the tree counts");
                return sums.digest;
            }
            let depth = depth as usize;
            while steps.len() > depth {
                self.leave(&mut steps, &mut path, flaws);
            }
            self.visit(
                id, &mut steps, &mut path, sessions, last_zxid, &mut sums, flaws,
            );
        }
        while !steps.is_empty() {
            self.leave(&mut steps, &mut path, flaws);
        }
        for (quota_path, quota) in self.quotas.iter() {
            sums.digest = sums.digest.wrapping_add(quota.fingerprint(quota_path));
            flaws.check(
                self.find(&quota::limits_path(quota_path)).is_some(),
                quota_path,
                "a quota is counted that nobody has set",
            );
        }
        self.audit_totals(&sums, flaws);
        sums.digest
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one walk")]
    fn visit(
        &self,
        id: NodeId,
        steps: &mut Vec<Step>,
        path: &mut String,
        sessions: &Sessions,
        last_zxid: Zxid,
        sums: &mut Sums,
        flaws: &mut Flaws,
    ) {
        let name = self.nodes.name(id);
        let znode = self.nodes.znode(id);
        let slot = self.nodes.slot(id);
        let (place, parent) = match steps.last_mut() {
            None => (digest::ROOT_PATH, NodeId::NONE),
            Some(parent) => {
                path.push('/');
                path.push_str(name);
                parent.children += 1;
                parent.created += u32::from(znode.czxid > 0);
                parent.newest_child = parent.newest_child.max(znode.czxid);
                (digest::step(parent.place, name.as_bytes()), parent.id)
            }
        };
        let length = path.len();
        let shown: &str = if length == 0 { "/" } else { path };
        flaws.check(slot.parent == parent, shown, "its parent is another");
        flaws.check(
            name.is_empty() == (id == NodeId::ROOT) && !name.contains(['/', '\0']),
            shown,
            "its name is none",
        );
        let found = self.find(shown).map(|found| found.id);
        flaws.check(found == Some(id), shown, "its path leads elsewhere");
        let latest = znode.czxid.max(znode.mzxid);
        flaws.check(
            znode.czxid <= znode.mzxid && latest <= last_zxid.0,
            shown,
            "it was changed before it was created, or by a command that is yet to come",
        );
        let family = self.nodes.family(id);
        let children = family.map_or(0, |family| family.children);
        if let Kind::Ephemeral(owner) = znode.kind {
            let owner_text = format!(
                "it belongs to session {:#x}, which is not open",
                owner.get()
            );
            flaws.check(sessions.get(owner).is_some(), shown, &owner_text);
            flaws.check(children == 0, shown, "an ephemeral has children");
            let listed = self.ephemerals.get(&owner);
            flaws.check(
                listed.is_some_and(|ids| ids.contains(&id)),
                shown,
                "its session does not list it",
            );
            sums.ephemerals += 1;
            *sums.by_owner.entry(owner).or_default() += 1;
        }
        sums.reapable += usize::from(Due::of(&znode, family).is_some());
        sums.znodes += 1;
        sums.bytes += (shown.len() + znode.data_len()) as u64;
        let fact = znode.fingerprint(place, self.nodes.acls.fingerprint(znode.acl));
        sums.digest = sums.digest.wrapping_add(fact);
        if let Some(family) = family {
            sums.digest = sums.digest.wrapping_add(family.fingerprint(place));
            flaws.check(
                family.pzxid <= last_zxid.0,
                shown,
                "its children were changed by a command that is yet to come",
            );
        }
        steps.push(Step {
            id,
            place,
            length,
            children: 0,
            created: 0,
            newest_child: i64::MIN,
        });
    }

    /// All descendants of the last step have been seen.
    fn leave(&self, steps: &mut Vec<Step>, path: &mut String, flaws: &mut Flaws) {
        let Some(step) = steps.pop() else { return };
        let shown: &str = if step.length == 0 {
            "/"
        } else {
            &path[..step.length]
        };
        let family = self.nodes.family(step.id).copied().unwrap_or_default();
        flaws.check(
            family.children == step.children,
            shown,
            "it counts another number of children than it has",
        );
        flaws.check(
            family.created >= u64::from(step.created),
            shown,
            "it has more children than it has ever seen, so its numbers would repeat",
        );
        flaws.check(
            step.children == 0 || family.pzxid >= step.newest_child,
            shown,
            "a child is newer than the last change of its children",
        );
        let first = self.nodes.slot(step.id).family != Slot::CHILDLESS && family.first.exists();
        flaws.check(
            first == (step.children > 0),
            shown,
            "its list of children does not fit their number",
        );
        path.truncate(steps.last().map_or(0, |parent| parent.length));
    }

    fn audit_totals(&self, sums: &Sums, flaws: &mut Flaws) {
        let totals = &self.totals;
        flaws.check(
            totals.znodes == sums.znodes + 1,
            "tree",
            "there are fewer znodes than the tree counts",
        );
        flaws.check(
            totals.ephemerals == sums.ephemerals,
            "tree",
            "the number of ephemerals is another",
        );
        flaws.check(
            totals.bytes == sums.bytes,
            "tree",
            "paths and data are longer or shorter than the tree counts",
        );
        flaws.check(
            totals.digest == sums.digest,
            "tree",
            "znodes and quotas do not add up to their part of the digest",
        );
        let listed = self
            .ephemerals
            .iter()
            .map(|(owner, ids)| (*owner, ids.len()));
        flaws.check(
            listed.eq(sums.by_owner.iter().map(|(owner, count)| (*owner, *count))),
            "ephemerals",
            "the sessions list others than there are",
        );
        flaws.check(
            self.due.len() == sums.reapable,
            "tree",
            "containers and TTL znodes are listed that are not there, or not listed",
        );
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::{AclEntry, Password};

    use super::*;
    use crate::command::{Action, Command, Connection, Origin, Rules, Write};
    use crate::state::State;

    /// A session with an ephemeral, a container, a quota, and a few znodes.
    fn sound() -> State {
        let mut state = State::new();
        let mut sequence = 0;
        let mut apply = |state: &mut State, action| {
            let connection = Connection {
                server: 1,
                number: 1,
            };
            let command = Command {
                time_ms: 1000,
                origin: Origin {
                    connection,
                    sequence,
                },
                rules: Rules::default(),
                action,
            };
            sequence += 1;
            state.apply(Zxid(state.last_zxid.0 + 1), command);
        };
        let open = Action::OpenSession {
            timeout_ms: 1000,
            password: Password::default(),
        };
        apply(&mut state, open);
        let session = state.sessions().next().expect("it was opened").0;
        for (path, flags) in [
            ("/a", 0),
            ("/a/e", 1),
            ("/a/n", 2),
            ("/c", 4),
            ("/zookeeper/quota/a", 0),
            ("/zookeeper/quota/a/zookeeper_limits", 0),
        ] {
            let create = quorate_protocol::request::Create {
                path: path.to_owned(),
                data: Some("d".into()),
                acl: vec![AclEntry::open()],
                flags,
            };
            let write = match flags {
                4 => Write::CreateContainer(create),
                _ => Write::Create(create),
            };
            let action = Action::Write {
                session,
                identities: std::sync::Arc::new([]),
                write,
            };
            apply(&mut state, action);
        }
        assert_eq!(state.node_count(), 5 + 6);
        state
    }

    fn id(state: &State, path: &str) -> NodeId {
        state.tree.find(path).expect("it was created").id
    }

    #[test]
    fn a_sound_state_has_no_flaw() {
        assert_eq!(State::new().audit(9), []);
        assert_eq!(sound().audit(9), []);
    }

    /// Each of them, and what is said of it.
    #[test]
    fn every_kind_of_contradiction_is_found() {
        type Spoil = fn(&mut State);
        let spoilt: [(&str, Spoil); 11] = [
            ("which is not open", |state| {
                let session = state.sessions().next().expect("it was opened").0;
                state.sessions.remove(session);
            }),
            ("its session does not list it", |state| {
                state.tree.ephemerals.clear();
            }),
            ("the sessions list others", |state| {
                let session = state.sessions().next().expect("it was opened").0;
                let other = id(state, "/c");
                state
                    .tree
                    .ephemerals
                    .entry(session)
                    .or_default()
                    .insert(other);
            }),
            ("its numbers would repeat", |state| {
                let family = state.tree.nodes.slot(id(state, "/a")).family;
                state.tree.nodes.families.get_mut(family).created = 1;
            }),
            ("newer than the last change", |state| {
                let family = state.tree.nodes.slot(id(state, "/a")).family;
                state.tree.nodes.families.get_mut(family).pzxid = 2;
            }),
            ("another number of children", |state| {
                let family = state.tree.nodes.slot(id(state, "/a")).family;
                state.tree.nodes.families.get_mut(family).children += 1;
            }),
            ("its path leads elsewhere", |state| {
                let wrong = id(state, "/c");
                state.tree.index.remove(&state.tree.nodes, wrong);
            }),
            ("yet to come", |state| state.last_zxid = Zxid(3)),
            ("add up to", |state| state.tree.totals.digest ^= 1),
            ("longer or shorter", |state| state.tree.totals.bytes += 1),
            ("containers and TTL znodes", |state| {
                state.tree.due = super::super::DueList::default();
            }),
        ];
        for (what, spoil) in spoilt {
            let mut state = sound();
            spoil(&mut state);
            let flaws = state.audit(99);
            assert!(
                flaws.iter().any(|flaw| flaw.what.contains(what)),
                "{what}: {flaws:?}"
            );
        }
    }

    #[test]
    fn a_quota_that_nobody_has_set_is_found() {
        let mut state = sound();
        state.tree.restore_quota("/c", 1, 1);
        let flaws = state.audit(9);
        assert_eq!(flaws.len(), 1, "{flaws:?}");
        assert_eq!(flaws[0].place, "/c");
    }

    #[test]
    fn no_more_flaws_are_listed_than_asked_for() {
        let mut state = sound();
        state.last_zxid = Zxid(0);
        assert_eq!(state.audit(2).len(), 2);
    }
}
