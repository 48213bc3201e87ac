//! The short form of each proof, for every change; the long forms are commands.

use std::sync::Arc;

use quorate_proof::flips::{self, Sample};
use quorate_proof::host;
use quorate_proof::points::{self, Plan};
use quorate_proof::start::{judge, start};
use quorate_proof::tape::{Faults, Op, TapeDisk};
use quorate_proof::workload::live;
use quorate_proof::wreck::Wreck;
use rand::SeedableRng;
use rand::rngs::SmallRng;

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

/// The last write of a life ends at any byte, and so does each write of the start that cuts it off.
#[test]
fn a_torn_write_may_be_cut_off_in_any_number_of_attempts() {
    let proof = async {
        let life = live(4, 40, Faults::default())
            .await
            .expect("a life without faults");
        let mut random = SmallRng::seed_from_u64(4);
        let last = life
            .ops
            .iter()
            .rposition(|op| matches!(op, Op::Write { .. }));
        let last = last.expect("something is written");
        let mut wreck = Wreck::default();
        for op in &life.ops[..last] {
            wreck.apply(op);
        }
        let mut starts = 0;
        for torn in every_end(&wreck, &life.ops[last], 111) {
            let (image, _, _) = torn.cut(1, &mut random);
            let disk = TapeDisk::new(&image, life.window, true);
            let mut started = start(Arc::new(disk.clone())).expect("a torn write is cut off");
            // What was acknowledged after it is not there to be lost.
            let mut window = life.window;
            window.first = 0;
            judge(&life.oracle, &window, &mut started).expect("it is as it was");
            drop(started);
            let mut again = Wreck::of(&image);
            for op in disk.take_ops() {
                for torn in every_end(&again, &op, 3) {
                    let (image, _, _) = torn.cut(1, &mut random);
                    let disk = TapeDisk::new(&image, life.window, false);
                    let mut started = start(Arc::new(disk)).expect("it is cut off again");
                    judge(&life.oracle, &window, &mut started).expect("it is as it was");
                    starts += 1;
                }
                again.apply(&op);
            }
            tokio::task::yield_now().await;
        }
        starts
    };
    let starts = host::run(4, proof).expect("it runs");
    assert!(starts > 20, "{starts} starts");
}

/// The disk with so much of a write done, for one byte in so many.
fn every_end(wreck: &Wreck, op: &Op, one_in: usize) -> Vec<Wreck> {
    let Op::Write {
        inode,
        offset,
        bytes,
    } = op
    else {
        return Vec::new();
    };
    (1..bytes.len())
        .step_by(one_in)
        .map(|end| {
            let mut wreck = wreck.clone();
            wreck.apply(&Op::Write {
                inode: *inode,
                offset: *offset,
                bytes: bytes.slice(..end),
            });
            wreck
        })
        .collect()
}
