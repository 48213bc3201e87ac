//! Latest moments: when an entry was committed nobody here knows, but whoever was shown its zxid or a
//! higher one proves that it had been.

use crate::history::{History, Moment};

/// When it was certain that an entry had been committed.
pub(crate) struct Proofs {
    /// Zxids of answers and events, rising, and the earliest moment at which this or a later one
    /// was seen.
    seen: Vec<(i64, Moment)>,
}

impl Proofs {
    pub(crate) fn of(history: &History) -> Self {
        let answers = history
            .operations
            .iter()
            .filter_map(|it| Some((it.outcome.zxid()?, it.returned?)));
        let events = history
            .events
            .iter()
            .filter_map(|event| Some((event.zxid?, event.at)));
        let mut seen: Vec<(i64, Moment)> = answers.chain(events).collect();
        seen.sort_unstable();
        let mut earliest = Moment::MAX;
        for (_, moment) in seen.iter_mut().rev() {
            earliest = earliest.min(*moment);
            *moment = earliest;
        }
        Self { seen }
    }

    /// The latest moment at which that place of the log had been reached.
    pub(crate) fn first_at_or_after(&self, zxid: i64) -> Option<Moment> {
        let at = self.seen.partition_point(|(seen, _)| *seen < zxid);
        self.seen.get(at).map(|(_, moment)| *moment)
    }
}
