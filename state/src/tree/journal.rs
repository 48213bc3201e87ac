//! How a multi that fails half-way is taken back, without a copy of the tree.
//!
//! While a journal is open, removed znodes and replaced records keep their memory, so taking back is
//! putting them in again, the last edit first. Committing frees them.

use super::heap::RecordId;
use super::nodes::{Family, NodeId};
use super::{DataTree, Quotas, Totals};

/// The edits of a multi so far.
#[derive(Debug)]
pub(super) struct Journal {
    undo: Vec<Undo>,
    totals: Totals,
    /// A handle, not a copy, unless the multi touches a quota.
    quotas: Quotas,
}

/// What it takes to undo one edit. Sums and digest are restored as a whole.
#[derive(Debug)]
pub(super) enum Undo {
    Inserted {
        id: NodeId,
        /// `None` if the parent had no family before.
        parent_before: Option<Family>,
    },
    Removed {
        id: NodeId,
        was_first: bool,
        parent_before: Family,
    },
    Rewritten {
        id: NodeId,
        record: RecordId,
    },
}

impl DataTree {
    /// From here on, edits can be taken back.
    pub(super) fn begin(&mut self) {
        debug_assert!(self.journal.is_none(), "a multi holds no multi");
        self.journal = Some(Journal {
            undo: Vec::new(),
            totals: self.totals,
            quotas: self.quotas.clone(),
        });
    }

    pub(super) fn note(&mut self, undo: impl FnOnce() -> Undo) {
        if let Some(journal) = &mut self.journal {
            journal.undo.push(undo());
        }
    }

    /// Keeps the edits since [`Self::begin`].
    pub(super) fn commit(&mut self) {
        let journal = self.journal.take().expect("a multi has begun");
        for undo in journal.undo {
            match undo {
                Undo::Inserted { .. } => {}
                Undo::Removed { id, .. } => self.release(id),
                Undo::Rewritten { record, .. } => self.free_record(record),
            }
        }
    }

    /// Takes the edits since [`Self::begin`] back.
    pub(super) fn roll_back(&mut self) {
        let journal = self.journal.take().expect("a multi has begun");
        for undo in journal.undo.into_iter().rev() {
            match undo {
                Undo::Inserted { id, parent_before } => self.undo_insert(id, parent_before),
                Undo::Removed {
                    id,
                    was_first,
                    parent_before,
                } => self.undo_remove(id, was_first, parent_before),
                Undo::Rewritten { id, record } => self.undo_rewrite(id, record),
            }
        }
        self.totals = journal.totals;
        self.quotas = journal.quotas;
    }
}
