//! Short runs; the campaigns are the command's.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_workload::Recorder;
use tokio::runtime::{Builder, RngSeed};
use tokio::time::Instant;

use super::Recipes;
use super::ledger::Ledger;
use crate::ensemble::Ensemble;
use crate::nemesis::Nemesis;
use crate::network::{FIRST_CLIENT, SimNetwork};
use crate::plan::{FaultClass, Plan};
use crate::trace::Trace;

const SERVICES: u32 = 3;

struct Outcome {
    hash: (u64, u64),
    violations: Vec<String>,
    marks: BTreeMap<String, u64>,
}

fn run(seed: u64, faulty: Duration, is_heedless: bool) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime");
    runtime.block_on(live(seed, faulty, is_heedless))
}

async fn live(seed: u64, faulty: Duration, is_heedless: bool) -> Outcome {
    let begun = Instant::now();
    let mut plan = Plan::draw(seed);
    plan.fault_ms_max = 12_000;
    plan.faults = [
        FaultClass::Kill,
        FaultClass::Freeze,
        FaultClass::Partition,
        FaultClass::Reset,
        FaultClass::ClientsCutOff,
    ]
    .map(|class| (class, 6_000))
    .to_vec();
    let trace = Trace::new(std::env::var_os("QUORATE_TRACE").is_some());
    let network = SimNetwork::new(seed, plan.weather, trace.clone());
    let delivering = tokio::spawn(network.clone().run());
    let settings = plan.settings.clone();
    let mut ensemble = Ensemble::new(seed, settings, network.clone(), trace.clone(), begun);
    for id in ensemble.ids() {
        ensemble.start(id);
    }
    let recorder = Recorder::new();
    let recipes = Recipes::start_as(
        seed,
        FIRST_CLIENT..FIRST_CLIENT + SERVICES,
        &network,
        &ensemble.ids(),
        Ledger::new(recorder.clone(), trace.clone()),
        is_heedless,
    );
    let mut nemesis = Nemesis::new(&plan, SERVICES + 1, trace.clone());
    nemesis.torment(&mut ensemble, faulty).await;
    nemesis.heal(&mut ensemble);
    let led = |ensemble: &Ensemble| ensemble.leaders().len() == 1;
    let is_led = nemesis
        .tend(&mut ensemble, Duration::from_secs(60), led)
        .await;
    assert!(is_led, "no leader, though all is well");
    let mut violations = recipes.settle(Duration::from_secs(120)).await;
    delivering.abort();
    violations.extend(ensemble.witnesses.violations());
    let history = recorder.update(std::mem::take);
    let report = quorate_checker::check(&history);
    violations.extend(
        report
            .violations
            .iter()
            .map(|violation| format!("{violation:?}")),
    );
    Outcome {
        hash: trace.hash(),
        violations,
        marks: history.marks,
    }
}

/// `QUORATE_SEEDS=1000` for more.
fn seeds() -> u64 {
    let seeds = std::env::var("QUORATE_SEEDS").ok();
    seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(1)
}

#[test]
fn services_are_given_what_they_were_promised_while_everything_breaks() {
    let mut marks = BTreeMap::new();
    for seed in 1..=seeds() {
        let outcome = run(seed, Duration::from_secs(45), false);
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:#?}",
            outcome.violations
        );
        for (mark, times) in outcome.marks {
            *marks.entry(mark).or_default() += times;
        }
    }
    eprintln!("{} seeds: {marks:#?}", seeds());
    let reached = |mark: &str| marks.get(mark).copied().unwrap_or(0);
    assert!(reached("granted /recipes/lock") > 5, "{marks:#?}");
    assert!(reached("granted /recipes/election") > 2, "{marks:#?}");
    assert!(reached("recipes counted") > 20, "{marks:#?}");
    assert!(reached("service cut off") > 0, "{marks:#?}");
    assert!(reached("lock lost over the work") > 0, "{marks:#?}");
}

/// A judge that notices nothing proves nothing.
#[test]
#[ignore = "up to twenty runs: minutes without optimisation"]
fn services_that_go_on_without_their_locks_are_noticed() {
    let noticed = (1..=20).any(|seed| {
        let outcome = run(seed, Duration::from_secs(30), true);
        let mut violations = outcome.violations.iter();
        violations.any(|violation| violation.contains("works under /recipes/lock"))
    });
    assert!(noticed, "20 seeds, and nobody has noticed");
}

#[test]
fn a_seed_replays_the_whole_run_with_its_services() {
    let hash = |seed| run(seed, Duration::from_secs(8), false).hash;
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}
