//! One run: from a seed to a verdict, on this thread, in virtual time.

use std::time::{Duration, Instant as Stopwatch};

use tokio::runtime::{Builder, RngSeed};
use tokio::time::Instant;

use crate::ensemble::Ensemble;
use crate::nemesis::Nemesis;
use crate::network::SimNetwork;
use crate::plan::Plan;
use crate::trace::Trace;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub seed: u64,
    pub violations: Vec<String>,
    /// Equal for equal runs.
    pub hash: u64,
    pub events: u64,
    pub simulated: Duration,
    pub took: Duration,
    pub faults: usize,
    pub digests: u64,
}

/// Runs a seed.
pub fn run(seed: u64, prints: bool) -> Verdict {
    let begun = Stopwatch::now();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    let mut verdict = runtime.block_on(live(Plan::draw(seed), prints));
    verdict.took = begun.elapsed();
    verdict
}

async fn live(plan: Plan, prints: bool) -> Verdict {
    let begun = Instant::now();
    let trace = Trace::new(prints);
    trace.note(&format!("{plan:?}"));
    let network = SimNetwork::new(plan.seed, plan.weather, trace.clone());
    let delivering = tokio::spawn(network.clone().run());
    let mut ensemble = Ensemble::new(
        plan.seed,
        plan.settings.clone(),
        network.clone(),
        trace.clone(),
        begun,
    );
    for id in ensemble.ids() {
        ensemble.start(id);
    }
    let mut nemesis = Nemesis::new(&plan, 0, trace.clone());
    let mut violations = Vec::new();
    let led = |ensemble: &Ensemble| ensemble.leaders().len() == 1;
    if !nemesis
        .tend(&mut ensemble, Duration::from_secs(60), led)
        .await
    {
        violations.push("no leader at the beginning".to_owned());
    }
    nemesis
        .torment(&mut ensemble, Duration::from_millis(plan.faulty_ms))
        .await;
    let core = nemesis.heal_majority(&mut ensemble);
    let led = |ensemble: &Ensemble| ensemble.leaders().iter().any(|id| core.contains(id));
    if !nemesis
        .tend(&mut ensemble, Duration::from_secs(60), led)
        .await
    {
        violations.push(format!("no leader though {core:?} are well"));
    }
    nemesis.heal(&mut ensemble);
    let count = ensemble.ids().len();
    let agreed = |ensemble: &Ensemble| {
        let applied = ensemble.applied();
        let newest = applied.values().max().copied();
        applied.len() == count && applied.values().all(|zxid| Some(*zxid) == newest)
    };
    if !nemesis
        .tend(&mut ensemble, Duration::from_secs(120), agreed)
        .await
    {
        violations.push(format!(
            "the servers do not agree: {:?}",
            ensemble.applied()
        ));
    }
    delivering.abort();
    violations.extend(ensemble.witnesses.violations());
    violations.extend(nemesis.violations().iter().cloned());
    let (hash, events) = trace.hash();
    Verdict {
        seed: plan.seed,
        violations,
        hash,
        events,
        simulated: begun.elapsed(),
        took: Duration::ZERO,
        faults: nemesis.faults().len(),
        digests: ensemble.witnesses.comparisons().digests,
    }
}
