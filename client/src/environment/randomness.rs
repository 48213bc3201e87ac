//! Chance, and the only place that draws it.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Where a client, and the recipes on it, draw what must not be the same for all: the order of hosts,
/// the length of pauses, the marks in names. See [`ClientBuilder::seed`](crate::ClientBuilder::seed).
///
/// Clones share one sequence. Nothing secret is drawn: session passwords are the servers'.
#[derive(Clone, Debug, Default)]
pub struct Randomness(Option<Arc<Mutex<SmallRng>>>);

impl Randomness {
    /// The machine's.
    pub fn system() -> Self {
        Self::default()
    }

    /// The same sequence for the same seed. Of two clients with one seed, both would believe each
    /// other's marks to be their own.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed)))))
    }

    /// Any number, each as likely.
    pub fn number(&self) -> u128 {
        match &self.0 {
            None => rand::random(),
            Some(seeded) => seeded.lock().random(),
        }
    }

    /// From 0 up to, and without, 1.
    pub fn fraction(&self) -> f64 {
        match &self.0 {
            None => rand::random(),
            Some(seeded) => seeded.lock().random(),
        }
    }

    /// A span less up to a half at random: those who failed together come back apart.
    pub fn shorten(&self, span: std::time::Duration) -> std::time::Duration {
        span.mul_f64(0.5 + self.fraction() / 2.0)
    }

    /// A sequence of its own for a part of the client.
    pub(crate) fn generator(&self) -> SmallRng {
        match &self.0 {
            None => SmallRng::from_rng(&mut rand::rng()),
            Some(seeded) => SmallRng::from_rng(&mut *seeded.lock()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_what_is_drawn_and_another_does_not() {
        let draw = |randomness: Randomness| {
            let part = randomness.generator().random::<u64>();
            (randomness.number(), randomness.fraction(), part)
        };
        assert_eq!(draw(Randomness::seeded(1)), draw(Randomness::seeded(1)));
        assert_ne!(draw(Randomness::seeded(1)), draw(Randomness::seeded(2)));
        assert_ne!(draw(Randomness::system()), draw(Randomness::system()));
    }

    #[test]
    fn a_shortened_span_is_at_least_half_of_it() {
        let span = std::time::Duration::from_secs(2);
        let randomness = Randomness::seeded(3);
        for _ in 0..1000 {
            let shortened = randomness.shorten(span);
            assert!(shortened >= span / 2 && shortened < span, "{shortened:?}");
        }
    }
}
