//! Randomness, and the only place that draws any.

use std::fmt::Debug;

use rand::Rng;

/// A source of bytes nobody can guess: session passwords come from it.
pub trait Randomness: Debug + Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's randomness, through a generator that it seeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}
