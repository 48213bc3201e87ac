//! Randomness from a seed, the same on every machine and in every version: a seed that found
//! something has to find it again.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
//! 2014). Nobody's secrets come from it.

use std::time::Duration;

/// A stream of drawn numbers.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for somebody: what one draws does not change what another draws.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `count`; 0 if that is 0.
    pub fn below(&mut self, count: u64) -> u64 {
        // The bias is far below what anybody could notice in a run.
        self.draw().checked_rem(count).unwrap_or(0)
    }

    /// Both ends are possible.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    /// `None` of nothing.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let index = self.index(from.len());
        from.get(index)
    }

    /// An index, each as often as its weight says; `None` if all are 0.
    pub fn weighted(&mut self, weights: &[u64]) -> Option<usize> {
        let sum: u64 = weights.iter().sum();
        let mut at = self.below(sum);
        weights.iter().position(|weight| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        })
    }

    /// A pause of that length on average: mostly up to twice as long, sometimes none, sometimes much
    /// longer.
    pub fn pause(&mut self, mean: Duration) -> Duration {
        let permille = match self.below(20) {
            0 => 0,
            1 => self.between(2_000, 5_000),
            _ => self.between(0, 1_800),
        };
        mean * u32::try_from(permille).unwrap_or(1000) / 1000
    }

    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    /// From the reference implementation's first outputs for the seed 1234567.
    #[test]
    fn a_seed_means_the_same_numbers_for_ever() {
        let mut dice = Dice::new(1_234_567);
        assert_eq!(dice.draw(), 6_457_827_717_110_365_317);
        assert_eq!(dice.draw(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn weights_of_zero_are_never_drawn_and_the_others_are() {
        let mut dice = Dice::new(1);
        let mut drawn = [0; 3];
        for _ in 0..1000 {
            drawn[dice.weighted(&[1, 0, 3]).unwrap()] += 1;
        }
        assert_eq!(drawn[1], 0);
        assert!(drawn[0] > 100 && drawn[2] > 2 * drawn[0], "{drawn:?}");
        assert_eq!(dice.weighted(&[0, 0]), None);
    }
}
