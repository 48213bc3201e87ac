//! In which order hosts are tried.
//!
//! Pure: the random numbers come in from outside, so a seed replays an order. Every host has its
//! turn once in each round, whatever happens; there is no favourite and no memory of failures.

use rand::Rng;
use rand::seq::SliceRandom;

/// Goes round the hosts for ever, by their index, in a new order each round.
///
/// No host is tried twice in a row (with more than one), not even across the end of a round.
#[derive(Debug)]
pub(crate) struct Hosts<R> {
    rng: R,
    /// Every index once.
    order: Vec<usize>,
    /// How many of `order` had their turn in this round.
    tried: usize,
}

impl<R: Rng> Hosts<R> {
    /// Of `count` hosts. Of none there is no order: the iterator then ends at once.
    pub(crate) fn new(count: usize, mut rng: R) -> Self {
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut rng);
        Self {
            rng,
            order,
            tried: 0,
        }
    }

    /// Whether the next host begins a round: all others have failed, and it is time to wait.
    pub(crate) fn round_is_over(&self) -> bool {
        self.tried == self.order.len()
    }

    /// Begins a new round in which `host` has its turn last: it has just been lost, so the others
    /// are the better guess. A host that there is not leaves the order to chance.
    pub(crate) fn leave(&mut self, host: usize) {
        self.order.shuffle(&mut self.rng);
        self.tried = 0;
        let last = self.order.len().saturating_sub(1);
        if let Some(at) = self.order.iter().position(|index| *index == host) {
            self.order.swap(at, last);
        }
    }

    fn begin_round(&mut self) {
        let previous = self.order.last().copied();
        self.order.shuffle(&mut self.rng);
        self.tried = 0;
        let count = self.order.len();
        if count > 1 && self.order.first().copied() == previous {
            let other = self.rng.random_range(1..count);
            self.order.swap(0, other);
        }
    }
}

impl<R: Rng> Iterator for Hosts<R> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.round_is_over() {
            self.begin_round();
        }
        let host = self.order.get(self.tried).copied()?;
        self.tried += 1;
        Some(host)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn hosts(count: usize, seed: u64) -> Hosts<SmallRng> {
        Hosts::new(count, SmallRng::seed_from_u64(seed))
    }

    #[test]
    fn a_single_host_is_tried_again_and_again() {
        let mut one = hosts(1, 7);
        assert_eq!(one.by_ref().take(3).collect::<Vec<_>>(), [0, 0, 0]);
        assert!(one.round_is_over());
        one.leave(0);
        assert_eq!(one.next(), Some(0));
    }

    #[test]
    fn without_hosts_there_is_no_next() {
        assert_eq!(hosts(0, 7).next(), None);
    }

    #[test]
    fn a_seed_replays_the_order() {
        let first: Vec<usize> = hosts(5, 42).take(50).collect();
        assert_eq!(first, hosts(5, 42).take(50).collect::<Vec<_>>());
        assert_ne!(first, hosts(5, 43).take(50).collect::<Vec<_>>());
    }

    /// 3 hosts have 6 orders; the chance that one of them never begins in 200 rounds is nil.
    #[test]
    fn rounds_differ_from_one_another() {
        let all: Vec<usize> = hosts(3, 1).take(600).collect();
        let orders: HashSet<&[usize]> = all.chunks(3).collect();
        assert_eq!(orders.len(), 6);
    }

    /// Else, when one server of three fails, all its clients would go to the same other one.
    #[test]
    fn the_host_after_the_one_left_is_left_to_chance() {
        let next: HashSet<usize> = (0..100)
            .filter_map(|seed| {
                let mut hosts = hosts(3, seed);
                hosts.leave(1);
                hosts.next()
            })
            .collect();
        assert_eq!(next, HashSet::from([0, 2]));
    }

    proptest! {
        #[test]
        fn every_host_has_its_turn_in_every_round(count in 1_usize..8, seed: u64) {
            let mut hosts = hosts(count, seed);
            for _ in 0..5 {
                let round: HashSet<usize> = hosts.by_ref().take(count).collect();
                prop_assert_eq!(round, (0..count).collect::<HashSet<_>>());
                prop_assert!(hosts.round_is_over());
            }
        }

        #[test]
        fn no_host_is_tried_twice_in_a_row(count in 2_usize..8, seed: u64) {
            let order: Vec<usize> = hosts(count, seed).take(40).collect();
            prop_assert!(order.windows(2).all(|pair| pair[0] != pair[1]));
        }

        #[test]
        fn the_host_left_has_its_turn_last(
            count in 1_usize..8,
            seed: u64,
            before in 0_usize..20,
            lost in 0_usize..8,
        ) {
            let lost = lost % count;
            let mut hosts = hosts(count, seed);
            hosts.by_ref().take(before).for_each(drop);
            hosts.leave(lost);
            prop_assert!(!hosts.round_is_over());
            let round: Vec<usize> = hosts.by_ref().take(count).collect();
            prop_assert_eq!(round.last(), Some(&lost));
            prop_assert_eq!(round.iter().collect::<HashSet<_>>().len(), count);
        }
    }
}
