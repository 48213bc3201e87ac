//! Which containers and TTL znodes may have to go, without a look at the others.
//!
//! Only those without children are listed: they enter when the last child goes and leave when one
//! comes. What is due is decided twice, by the same function: when the leader proposes, and again
//! when the command is applied.

use std::collections::BTreeSet;

use super::nodes::{Family, NodeId};
use super::znode::{Kind, Znode};

/// Why a childless znode may have to go, and from when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A container that had children.
    Emptied,
    /// A container that never had one, set last at this time.
    NeverUsed { mtime: i64 },
    /// A TTL znode: its last moment.
    Expires { at: i64 },
}

/// The candidates, in the order in which they become due.
#[derive(Debug, Default)]
pub(crate) struct DueList(BTreeSet<(Due, NodeId)>);

impl Due {
    pub(crate) fn of(znode: &Znode<'_>, family: Option<&Family>) -> Option<Self> {
        if family.is_some_and(|family| family.children > 0) {
            return None;
        }
        match znode.kind {
            Kind::Persistent | Kind::Ephemeral(_) => None,
            Kind::Container if family.is_some_and(|family| family.created > 0) => {
                Some(Self::Emptied)
            }
            Kind::Container => Some(Self::NeverUsed { mtime: znode.mtime }),
            Kind::Ttl(ttl_ms) => Some(Self::Expires {
                at: znode.mtime.saturating_add(ttl_ms),
            }),
        }
    }

    /// Whether the time has come. With `never_used_ms` 0, containers wait for their first child for
    /// ever.
    pub(crate) fn is_over(self, now_ms: i64, never_used_ms: i64) -> bool {
        match self {
            Self::Emptied => true,
            Self::NeverUsed { mtime } => {
                never_used_ms > 0 && now_ms > mtime.saturating_add(never_used_ms)
            }
            Self::Expires { at } => now_ms > at,
        }
    }
}

impl DueList {
    pub(crate) fn add(&mut self, due: Due, id: NodeId) {
        self.0.insert((due, id));
    }

    pub(crate) fn remove(&mut self, due: Due, id: NodeId) {
        self.0.remove(&(due, id));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those whose time has come: of each sort the longest overdue first.
    pub(crate) fn over(&self, now_ms: i64, never_used_ms: i64) -> impl Iterator<Item = NodeId> {
        let from = |first| {
            self.0
                .range((first, NodeId::ROOT)..)
                .take_while(move |(due, _)| {
                    std::mem::discriminant(due) == std::mem::discriminant(&first)
                        && due.is_over(now_ms, never_used_ms)
                })
                .map(|(_, id)| *id)
        };
        from(Due::Emptied)
            .chain(from(Due::NeverUsed { mtime: i64::MIN }))
            .chain(from(Due::Expires { at: i64::MIN }))
    }
}
