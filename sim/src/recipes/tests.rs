//! Short runs; the campaigns are the command's.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_workload::Recorder;
use tokio::runtime::{Builder, RngSeed};
use tokio::time::Instant;

use super::Recipes;
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

fn run(seed: u64, faulty: Duration) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime");
    runtime.block_on(live(seed, faulty))
}

async fn live(seed: u64, faulty: Duration) -> Outcome {
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
    let servers: Vec<_> = ensemble
        .ids()
        .into_iter()
        .map(Ensemble::client_address)
        .collect();
    let recorder = Recorder::new();
    let recipes = Recipes::start(
        seed,
        SERVICES,
        |number| network.of(FIRST_CLIENT + number),
        &servers,
        recorder.clone(),
        trace.clone(),
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

#[test]
fn services_are_given_what_they_were_promised_while_everything_breaks() {
    let mut marks = BTreeMap::new();
    for seed in 1..=3 {
        let outcome = run(seed, Duration::from_secs(60));
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:#?}",
            outcome.violations
        );
        for (mark, times) in outcome.marks {
            *marks.entry(mark).or_default() += times;
        }
    }
    let reached = |mark: &str| marks.get(mark).copied().unwrap_or(0);
    assert!(reached("granted /recipes/lock") > 20, "{marks:#?}");
    assert!(reached("granted /recipes/election") > 20, "{marks:#?}");
    assert!(reached("recipes counted") > 50, "{marks:#?}");
    assert!(reached("lock lost over the work") > 0, "{marks:#?}");
}

#[test]
fn a_seed_replays_the_whole_run_with_its_services() {
    let hash = |seed| run(seed, Duration::from_secs(20)).hash;
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}
