//! The short form of what `quorate-sim run` does at length.

use quorate_sim::run::run;

/// Seeds that have found something once. Plans change with the program, so that a seed need not find
/// the same again; what it found has a test of its own, where one was possible.
const REGRESSIONS: [u64; 2] = [
    // An engine that had ended was asked again and again without a pause.
    5,
    // A seal that was only in memory after a restart was followed by durable batches: a hole in the log
    // after the next power cut.
    52,
];

#[test]
fn a_seed_that_found_something_finds_nothing_any_more() {
    for seed in REGRESSIONS {
        let verdict = run(seed, false);
        assert_eq!(verdict.violations, Vec::<String>::new(), "seed {seed}");
        assert!(
            verdict.report.tally.operations > 50,
            "seed {seed} did hardly anything"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (once, again) = (run(18, false), run(18, false));
    assert!(once.events > 1000, "too little happened");
    assert_eq!((once.hash, once.events), (again.hash, again.events));
    assert_eq!(once.history, again.history);
    assert_ne!(once.hash, run(25, false).hash, "another seed");
}
