//! The search of Wing and Gong, with Lowe's memory of what has been tried.
//!
//! Operations that change nothing are not branched on: where one can stand, it may as well stand at
//! once. What is left to try are orders of changes that overlap in time.

use std::collections::HashSet;
use std::hash::Hash;

/// Something whose operations can be tried one after the other.
pub trait Model {
    type State: Clone + Eq + Hash;
    type Operation;

    fn initial(&self) -> Self::State;

    /// What becomes of the state if the operation stands here, with the outcome that it had.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Next<Self::State>;
}

/// What an operation does to a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<S> {
    /// It would have another outcome.
    Impossible,
    /// It has this outcome, and changes nothing.
    Same,
    Changed(S),
}

/// From when to when an operation may take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub call: u64,
    /// `None`: at any time after the call, or never.
    pub back: Option<u64>,
}

impl Interval {
    #[must_use]
    pub fn closed(call: u64, back: u64) -> Self {
        Self {
            call,
            back: Some(back.max(call)),
        }
    }

    #[must_use]
    pub fn open(call: u64) -> Self {
        Self { call, back: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// There is no order. `stuck` is the operation at which the longest attempt ended.
    Not {
        stuck: Option<usize>,
    },
    /// The search was given up.
    Undecided,
}

/// The end of a list.
const END: usize = usize::MAX;

/// Calls and returns in the order of time, as a list from which pairs are taken and put back.
struct Timeline {
    /// The operation of each entry, and whether it is the call.
    entries: Vec<(usize, bool)>,
    next: Vec<usize>,
    before: Vec<usize>,
    first: usize,
    /// Of each operation: its return's entry.
    back: Vec<Option<usize>>,
}

impl Timeline {
    fn of(intervals: &[Interval]) -> Self {
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(intervals.len() * 2);
        for (operation, interval) in intervals.iter().enumerate() {
            // At one moment calls come first: what touches may overlap.
            moments.push((interval.call, false, operation));
            if let Some(back) = interval.back {
                moments.push((back, true, operation));
            }
        }
        moments.sort_unstable();
        let mut back = vec![None; intervals.len()];
        let count = moments.len();
        let entries = moments
            .into_iter()
            .enumerate()
            .map(|(entry, (_, is_return, operation))| {
                if is_return {
                    back[operation] = Some(entry);
                }
                (operation, !is_return)
            })
            .collect();
        Self {
            entries,
            next: (0..count)
                .map(|at| if at + 1 < count { at + 1 } else { END })
                .collect(),
            before: (0..count)
                .map(|at| at.checked_sub(1).unwrap_or(END))
                .collect(),
            first: if count == 0 { END } else { 0 },
            back,
        }
    }

    fn unlink(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        match before {
            END => self.first = next,
            before => self.next[before] = next,
        }
        if next != END {
            self.before[next] = before;
        }
    }

    fn link(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        match before {
            END => self.first = at,
            before => self.next[before] = at,
        }
        if next != END {
            self.before[next] = at;
        }
    }

    /// Takes out the operation whose call this is.
    fn lift(&mut self, call: usize) {
        self.unlink(call);
        if let Some(back) = self.back[self.entries[call].0] {
            self.unlink(back);
        }
    }

    /// Puts it back; in the reverse order of lifting.
    fn unlift(&mut self, call: usize) {
        if let Some(back) = self.back[self.entries[call].0] {
            self.link(back);
        }
        self.link(call);
    }
}

/// One step of the attempt.
struct Placed<S> {
    call: usize,
    /// What the state was before; `None`: it did not change, so nothing else need be tried here.
    before: Option<S>,
}

/// Looks for an order. `steps_max` bounds the work.
pub fn search<M: Model>(
    model: &M,
    operations: &[M::Operation],
    intervals: &[Interval],
    steps_max: u64,
) -> Verdict {
    let mut timeline = Timeline::of(intervals);
    let mut left = intervals.iter().filter(|it| it.back.is_some()).count();
    let mut state = model.initial();
    let mut placed: Vec<Placed<M::State>> = Vec::new();
    // Which operations have been placed, as a sum of random words, with the state they made.
    let mut tried: HashSet<(u128, M::State)> = HashSet::new();
    let mut sum: u128 = 0;
    let mut steps = 0;
    let mut longest = (0, None);
    let mut at = timeline.first;
    while left > 0 {
        let (operation, is_call) = match at {
            END => (0, false),
            at => timeline.entries[at],
        };
        if is_call {
            steps += 1;
            if steps > steps_max {
                return Verdict::Undecided;
            }
            let before = match model.step(&state, &operations[operation]) {
                Next::Impossible => {
                    at = timeline.next[at];
                    continue;
                }
                // Without need and without effect: it may as well never be done.
                Next::Same if timeline.back[operation].is_none() => {
                    at = timeline.next[at];
                    continue;
                }
                Next::Same => None,
                Next::Changed(after) => {
                    if !tried.insert((sum ^ word(operation), after.clone())) {
                        at = timeline.next[at];
                        continue;
                    }
                    Some(std::mem::replace(&mut state, after))
                }
            };
            sum ^= word(operation);
            left -= usize::from(timeline.back[operation].is_some());
            timeline.lift(at);
            placed.push(Placed { call: at, before });
            at = timeline.first;
            continue;
        }
        // An operation has returned that has no place yet: something before it was wrong.
        if placed.len() >= longest.0 && at != END {
            longest = (placed.len(), Some(operation));
        }
        loop {
            let Some(Placed { call, before }) = placed.pop() else {
                return Verdict::Not { stuck: longest.1 };
            };
            let (operation, _) = timeline.entries[call];
            timeline.unlift(call);
            left += usize::from(timeline.back[operation].is_some());
            sum ^= word(operation);
            if let Some(before) = before {
                state = before;
                at = timeline.next[call];
                break;
            }
        }
    }
    Verdict::Linearizable
}

/// A random word for each operation (splitmix64, twice).
fn word(operation: usize) -> u128 {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let seed = operation as u64;
    let high = mix(seed.wrapping_mul(2) ^ 0x5851_f42d_4c95_7f2d);
    u128::from(high) << 64 | u128::from(mix(seed))
}

#[cfg(test)]
mod tests;
