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

/// A proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    CrashPoints,
    Faults,
    BitFlips,
}

/// Which of them is to notice.
fn proof_for(canary: Canary) -> Proof {
    match canary {
        Canary::SyncRetried | Canary::LastBatchNotRewritten | Canary::SnapshotNotReadBack => {
            Proof::Faults
        }
        Canary::OlderSnapshotAnyway
        | Canary::DamageCutOff
        | Canary::ChecksumIgnored
        | Canary::ZerosNotMasked => Proof::BitFlips,
        // The others in the storage.
        _ => Proof::CrashPoints,
    }
}

/// Which proof notices it, and what it says.
pub fn notice(canary: Canary, seed: u64) -> Option<(&'static str, String)> {
    let plan = Plan {
        seed,
        operations: 300,
        states: 10_000,
        failing_syncs: None,
        violations_max: 1,
    };
    let (name, found) = match proof_for(canary) {
        Proof::CrashPoints => {
            let cuts = async move {
                plant(Some(canary));
                points::run(plan).await.violations
            };
            ("crash-points", host::run(seed, cuts))
        }
        Proof::Faults => {
            let faults = async move {
                plant(Some(canary));
                let mut outcome = Outcome::new(&plan);
                points::run_faults(plan, &mut outcome).await;
                outcome.violations
            };
            ("failing syncs", host::run(seed, faults))
        }
        Proof::BitFlips => {
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
            ("bit-flips", host::run(seed, flips))
        }
    };
    plant(None);
    let what = match found {
        Ok(violations) => violations.into_iter().next(),
        Err(panicked) => Some(panicked),
    };
    what.map(|what| (name, what))
}
