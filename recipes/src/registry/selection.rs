//! Which instance of several to ask.
//!
//! Decisions only: time and chance are arguments. An instance that failed too often in a while is
//! passed over for that while, unless all have: then any is better than none.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Instance;

/// How an instance is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// Any, each as likely.
    Random,
    /// One after the other.
    #[default]
    RoundRobin,
    /// The same for as long as it is there.
    Sticky,
    /// Each as likely as the number in its metadata says. One without such a number counts as 1, one
    /// with 0 is chosen only if there is no other.
    Weighted {
        /// The key of the metadata.
        key: String,
    },
    /// The one whose last failure is the longest ago, or that has none; of several, one after the
    /// other.
    LeastRecentlyFailed,
}

/// When an instance is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownPolicy {
    /// So many failures...
    pub failures: u32,
    /// ... within this time.
    pub within: Duration,
}

impl Default for DownPolicy {
    /// Two failures within 30 seconds, as Curator has it.
    fn default() -> Self {
        Self {
            failures: 2,
            within: Duration::from_secs(30),
        }
    }
}

/// Failures that are remembered of one instance. No policy can ask for more.
const FAILURES_MAX: u32 = 1000;

/// What is remembered between choices.
#[derive(Debug)]
pub(super) struct Selection {
    strategy: Strategy,
    down: DownPolicy,
    turn: usize,
    sticky: Option<String>,
    failures: HashMap<String, VecDeque<Instant>>,
}

impl Selection {
    pub(super) fn new(strategy: Strategy, down: DownPolicy) -> Self {
        let failures = down.failures.clamp(1, FAILURES_MAX);
        Self {
            strategy,
            down: DownPolicy { failures, ..down },
            turn: 0,
            sticky: None,
            failures: HashMap::new(),
        }
    }

    /// Forgets the instances that are gone.
    pub(super) fn retain(&mut self, instances: &[Arc<Instance>]) {
        self.failures
            .retain(|id, _| instances.iter().any(|instance| instance.id == *id));
    }

    pub(super) fn note_failure(&mut self, id: &str, now: Instant) {
        let failures = self.failures.entry(id.to_owned()).or_default();
        if failures.len() >= self.down.failures as usize {
            failures.pop_front();
        }
        failures.push_back(now);
    }

    fn is_down(&self, id: &str, now: Instant) -> bool {
        let Some(failures) = self.failures.get(id) else {
            return false;
        };
        failures.len() >= self.down.failures as usize
            && failures
                .front()
                .is_some_and(|&first| now.saturating_duration_since(first) < self.down.within)
    }

    /// `chance` is from 0 up to, and without, 1.
    pub(super) fn choose(
        &mut self,
        instances: &[Arc<Instance>],
        now: Instant,
        chance: f64,
    ) -> Option<Arc<Instance>> {
        let enabled: Vec<&Arc<Instance>> = instances.iter().filter(|one| one.enabled).collect();
        let up = enabled.iter().filter(|one| !self.is_down(&one.id, now));
        let mut candidates: Vec<&Arc<Instance>> = up.copied().collect();
        if candidates.is_empty() {
            candidates = enabled;
        }
        let chosen = match &self.strategy {
            Strategy::Random => weighted(&candidates, |_| 1, chance),
            Strategy::Weighted { key } => weighted(&candidates, |one| weight(one, key), chance),
            Strategy::RoundRobin => self.next(&candidates),
            Strategy::Sticky => {
                let same = self.sticky.as_ref();
                let same = same.and_then(|id| candidates.iter().find(|one| one.id == *id));
                same.copied()
                    .or_else(|| weighted(&candidates, |_| 1, chance))
            }
            Strategy::LeastRecentlyFailed => {
                let last = |one: &Arc<Instance>| self.failures.get(&one.id)?.back().copied();
                let oldest = candidates.iter().map(|one| last(one)).min()?;
                candidates.retain(|one| last(one) == oldest);
                self.next(&candidates)
            }
        };
        let chosen = chosen.cloned();
        self.turn = self.turn.wrapping_add(1);
        self.sticky = chosen.as_ref().map(|chosen| chosen.id.clone());
        chosen
    }

    fn next<'a>(&self, candidates: &[&'a Arc<Instance>]) -> Option<&'a Arc<Instance>> {
        let turn = self.turn.checked_rem(candidates.len())?;
        candidates.get(turn).copied()
    }
}

fn weight(instance: &Instance, key: &str) -> u32 {
    instance
        .metadata
        .get(key)
        .and_then(|weight| weight.parse().ok())
        .unwrap_or(1)
}

fn weighted<'a>(
    candidates: &[&'a Arc<Instance>],
    weight: impl Fn(&Instance) -> u32,
    chance: f64,
) -> Option<&'a Arc<Instance>> {
    let mut weights: Vec<f64> = candidates.iter().map(|one| weight(one).into()).collect();
    if weights.iter().all(|weight| *weight == 0.0) {
        weights.fill(1.0);
    }
    let mut left = chance * weights.iter().sum::<f64>();
    for (one, weight) in candidates.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return Some(one);
        }
    }
    // What is lost in rounding.
    let last = candidates.iter().zip(&weights).rev();
    last.into_iter()
        .find(|(_, weight)| **weight > 0.0)
        .map(|(one, _)| *one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(weights: &[(&str, &str)]) -> Vec<Arc<Instance>> {
        let instance = |&(id, weight): &(&str, &str)| {
            Arc::new(Instance::new("service", id).metadata("weight", weight))
        };
        weights.iter().map(instance).collect()
    }

    const THREE: [(&str, &str); 3] = [("a", "1"), ("b", "0"), ("c", "3")];

    fn choices(selection: &mut Selection, from: &[Arc<Instance>], count: u32) -> String {
        let now = Instant::now();
        (0..count)
            .map(|number| {
                let chance = f64::from(number) / f64::from(count);
                selection.choose(from, now, chance).unwrap().id.clone()
            })
            .collect()
    }

    fn choose_with(strategy: Strategy, count: u32) -> String {
        let mut selection = Selection::new(strategy, DownPolicy::default());
        choices(&mut selection, &instances(&THREE), count)
    }

    #[test]
    fn each_strategy_chooses_as_it_says() {
        assert_eq!(choose_with(Strategy::Random, 6), "aabbcc");
        assert_eq!(choose_with(Strategy::RoundRobin, 6), "abcabc");
        assert_eq!(choose_with(Strategy::Sticky, 6), "aaaaaa");
        let key = "weight".to_owned();
        assert_eq!(choose_with(Strategy::Weighted { key }, 8), "aacccccc");
        let key = "none".to_owned();
        assert_eq!(choose_with(Strategy::Weighted { key }, 6), "aabbcc");
        assert_eq!(choose_with(Strategy::LeastRecentlyFailed, 6), "abcabc");
    }

    #[test]
    fn nobody_is_chosen_from_none_or_from_those_out_of_service() {
        for strategy in [
            Strategy::Random,
            Strategy::RoundRobin,
            Strategy::Sticky,
            Strategy::LeastRecentlyFailed,
        ] {
            let mut selection = Selection::new(strategy, DownPolicy::default());
            let now = Instant::now();
            assert_eq!(selection.choose(&[], now, 0.5), None);
            let out = [Arc::new(Instance::new("service", "a").enabled(false))];
            assert_eq!(selection.choose(&out, now, 0.5), None);
        }
    }

    #[test]
    fn an_instance_that_fails_is_passed_over_for_a_while() {
        let from = instances(&THREE);
        let mut selection = Selection::new(Strategy::RoundRobin, DownPolicy::default());
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        selection.note_failure("a", at(0));
        assert_eq!(choices(&mut selection, &from, 3), "abc");
        selection.note_failure("a", at(1));
        let mut ids = |seconds| -> String {
            let choose = |_| selection.choose(&from, at(seconds), 0.0).unwrap();
            (0..3).map(choose).map(|one| one.id.clone()).collect()
        };
        assert!(!ids(2).contains('a'));
        assert!(!ids(29).contains('a'));
        // The first of its two failures is no longer within the time.
        assert!(ids(30).contains('a'));
    }

    #[test]
    fn when_all_are_down_any_is_chosen() {
        let from = instances(&THREE);
        let mut selection = Selection::new(Strategy::LeastRecentlyFailed, DownPolicy::default());
        let began = Instant::now();
        for (seconds, id) in [(0, "b"), (1, "a"), (2, "c"), (3, "b"), (4, "a"), (5, "c")] {
            selection.note_failure(id, began + Duration::from_secs(seconds));
        }
        let now = began + Duration::from_secs(6);
        assert_eq!(selection.choose(&from, now, 0.0).unwrap().id, "b");
        // One that is back comes without its past.
        selection.retain(&from[..1]);
        assert_ne!(selection.choose(&from, now, 0.0).unwrap().id, "a");
        assert_eq!(selection.failures.len(), 1);
    }

    #[test]
    fn a_choice_sticks_until_its_instance_is_gone_or_down() {
        let from = instances(&THREE);
        let mut selection = Selection::new(Strategy::Sticky, DownPolicy::default());
        let now = Instant::now();
        assert_eq!(selection.choose(&from, now, 0.5).unwrap().id, "b");
        assert_eq!(selection.choose(&from, now, 0.9).unwrap().id, "b");
        selection.note_failure("b", now);
        selection.note_failure("b", now);
        assert_eq!(selection.choose(&from, now, 0.9).unwrap().id, "c");
        assert_eq!(selection.choose(&from[..1], now, 0.9).unwrap().id, "a");
    }
}
