//! The short form of each proof, for every change; the long forms are commands.

use quorate_proof::flips::{self, Sample};
use quorate_proof::host;
use quorate_proof::points::{self, Plan};

#[test]
fn whenever_the_power_goes_nothing_acknowledged_is_lost() {
    let plan = Plan {
        seed: 1,
        operations: 250,
        states: 2000,
        failing_syncs: None,
        violations_max: 20,
    };
    let outcome = host::run(plan.seed, points::run(plan)).expect("it runs");
    assert_eq!(outcome.violations, [""; 0]);
    assert!(
        outcome.states >= plan.states && outcome.nested > 0,
        "{outcome:?}"
    );
    assert!(outcome.points > 400, "{outcome:?}");
}

#[test]
fn after_a_sync_has_failed_nothing_more_is_acknowledged_and_nothing_is_lost() {
    let plan = Plan {
        seed: 2,
        operations: 100,
        states: 0,
        failing_syncs: Some(12),
        violations_max: 20,
    };
    let mut outcome = points::Outcome::new(&plan);
    let outcome = host::run(plan.seed, async move {
        points::run_faults(plan, &mut outcome).await;
        outcome
    });
    let outcome = outcome.expect("it runs");
    assert_eq!(outcome.violations, [""; 0]);
    assert!(outcome.faults >= 20, "{outcome:?}");
}

#[test]
fn a_flipped_bit_is_named_or_does_no_harm() {
    let sample = Sample {
        seed: 3,
        operations: 250,
        one_in: 401,
        violations_max: 20,
    };
    let outcome = host::run(sample.seed, flips::run(sample)).expect("it runs");
    assert_eq!(outcome.violations, [""; 0]);
    assert!(outcome.flips > 1000 && outcome.refused > 100, "{outcome:?}");
    assert!(outcome.harmless > 10 && outcome.cuts > 100, "{outcome:?}");
}
