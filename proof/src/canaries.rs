//! Bugs planted in the storage, one at a time, each of which one of the proofs must notice.

use std::time::{Duration, Instant};

use quorate_state::canary::{Canary, plant};

use crate::flips::{self, Sample};
use crate::host;
use crate::points::{self, Outcome, Plan};

/// What became of one.
#[derive(Clone, Debug)]
pub struct Caught {
    pub canary: Canary,
    /// The proof that noticed, and what it said.
    pub by: Option<(&'static str, String)>,
    pub took: Duration,
}

/// Plants each bug there is and runs the proofs until one of them notices. Tells `say` as it goes.
pub fn run(seed: u64, say: impl Fn(&str)) -> Vec<Caught> {
    let caught = Canary::STORAGE.into_iter().map(|canary| {
        let began = Instant::now();
        let by = notice(canary, seed);
        let caught = Caught {
            canary,
            by,
            took: began.elapsed(),
        };
        let seconds = caught.took.as_secs_f64();
        match &caught.by {
            Some((proof, what)) => say(&format!("{canary:?}: {proof} in {seconds:.1} s: {what}")),
            None => say(&format!("{canary:?}: NOT NOTICED in {seconds:.1} s")),
        }
        caught
    });
    caught.collect()
}

/// Which proof notices it, and what it says.
pub fn notice(canary: Canary, seed: u64) -> Option<(&'static str, String)> {
    let plan = Plan {
        seed,
        operations: 300,
        states: 3000,
        failing_syncs: None,
        violations_max: 1,
    };
    let cuts = async move {
        plant(Some(canary));
        points::run(plan).await.violations
    };
    let faults = async move {
        plant(Some(canary));
        let mut outcome = Outcome::new(&plan);
        let plan = Plan {
            operations: 150,
            ..plan
        };
        points::run_faults(plan, &mut outcome).await;
        outcome.violations
    };
    let flips = async move {
        plant(Some(canary));
        let sample = Sample {
            seed,
            operations: 300,
            one_in: 31,
            violations_max: 1,
        };
        flips::run(sample).await.violations
    };
    let first = |violations: Result<Vec<String>, String>| match violations {
        Ok(violations) => violations.into_iter().next(),
        Err(panicked) => Some(panicked),
    };
    let noticed = first(host::run(seed, cuts))
        .map(|what| ("crash-points", what))
        .or_else(|| first(host::run(seed, faults)).map(|what| ("failing syncs", what)))
        .or_else(|| first(host::run(seed, flips)).map(|what| ("bit-flips", what)));
    plant(None);
    noticed
}
