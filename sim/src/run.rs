//! One run: from a seed to a verdict, on this thread, in virtual time.
//!
//! Two phases. In the first everything may break, and nothing that was promised may be broken. In the
//! second a random majority is healed, and nothing else: there has to be progress. Then all is healed,
//! and all have to agree.

use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use quorate_checker::history::{CreateKind, History, Outcome, Request};
use quorate_checker::{Report, check};
use quorate_server::network::Network;
use quorate_workload::{Connected, Manners, Raw, Recorder, Workload};
use tokio::runtime::{Builder, RngSeed};
use tokio::time::Instant;

use crate::ensemble::Ensemble;
use crate::nemesis::Nemesis;
use crate::network::{FIRST_CLIENT, SimNetwork};
use crate::plan::Plan;
use crate::trace::Trace;

/// How many hosts there are for clients, at most.
const CLIENTS: u32 = 140;
/// The client that asks for progress.
const PROBE: u32 = CLIENTS - 1;
/// How long an ensemble may take to have a leader, from nothing, on a slow network.
const START: Duration = Duration::from_secs(60);
/// How long a healed majority may take to do a write for somebody who knows nobody: several elections,
/// and connections that have to find out that the other side is gone.
const PROGRESS: Duration = Duration::from_secs(30);
/// How long all may take to be well again once all is healed, lost disks included.
const CONVERGENCE: Duration = Duration::from_secs(180);
/// The longest an ensemble may be without a leader after the last fault ended.
const ELECTION: Duration = Duration::from_secs(5);

/// What came of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    pub seed: u64,
    pub violations: Vec<String>,
    /// Equal for equal runs.
    pub hash: u64,
    pub events: u64,
    /// Virtual time under faults.
    pub faulty: Duration,
    pub simulated: Duration,
    pub took: Duration,
    /// Comparisons of replicas, entry by entry.
    pub digests: u64,
    pub report: Report,
    /// Kept if somebody asks for it.
    pub history: History,
}

/// Runs a seed.
pub fn run(seed: u64, prints: bool) -> Verdict {
    run_plan(Plan::draw(seed), prints)
}

/// Runs a plan that may differ from the one its seed stands for.
pub fn run_plan(plan: Plan, prints: bool) -> Verdict {
    let begun = Stopwatch::now();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&plan.seed.to_le_bytes()))
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    let mut verdict = runtime.block_on(live(plan, prints));
    // Everything that is left is dropped here.
    drop(runtime);
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
    let mut nemesis = Nemesis::new(&plan, CLIENTS, trace.clone());
    let mut violations = Vec::new();
    let recorder = {
        let clock = trace.clone();
        Recorder::with_clock(move || clock.now_ns())
    };
    let servers: Vec<_> = ensemble
        .ids()
        .into_iter()
        .map(|id| (id, Ensemble::client_address(id)))
        .collect();
    let of_client = |client: u32| network.of(FIRST_CLIENT + client);

    for id in ensemble.ids() {
        ensemble.start(id);
    }
    let led = |ensemble: &Ensemble| !ensemble.leaders().is_empty();
    if !nemesis.tend(&mut ensemble, START, led).await {
        violations.push("no leader at the beginning".to_owned());
    }
    let workload = Workload::draw(plan.seed, &servers.clone().into());
    let mut running = workload.start(of_client, &recorder);
    if !running.begun(START).await {
        violations.push("the clients could not begin".to_owned());
    }

    let faulty = Duration::from_millis(plan.faulty_ms);
    nemesis.torment(&mut ensemble, faulty).await;

    let core = nemesis.heal_majority(&mut ensemble);
    let healed: Vec<_> = servers
        .iter()
        .filter(|(id, _)| core.contains(id))
        .copied()
        .collect();
    let progress = tokio::select! {
        biased;
        done = makes_progress(of_client(PROBE), healed) => done,
        _ = nemesis.tend(&mut ensemble, PROGRESS, |_| false) => false,
    };
    if !progress {
        violations.push(format!("no progress though {core:?} are well"));
    }

    nemesis.heal(&mut ensemble);
    running.stop_faulty_phase();
    let settled = tokio::select! {
        biased;
        settled = running.settle(CONVERGENCE) => settled,
        _ = nemesis.tend(&mut ensemble, CONVERGENCE * 4, |_| false) => {
            Err("the clients did not settle".to_owned())
        }
    };
    if let Err(what) = settled {
        violations.push(what);
    }
    let agree = |ensemble: &Ensemble| {
        let applied = ensemble.applied();
        let newest = applied.values().max().copied();
        applied.len() == ensemble.ids().len() && applied.values().all(|it| Some(*it) == newest)
    };
    if !nemesis.tend(&mut ensemble, CONVERGENCE, agree).await {
        let applied = ensemble.applied();
        violations.push(format!("the servers do not agree: {applied:?}"));
    }
    running.finish().await;
    delivering.abort();

    violations.extend(ensemble.witnesses.violations());
    violations.extend(nemesis.violations().iter().cloned());
    violations.extend(recorder.complaints());
    let mut history = recorder.history();
    history.header.name = "simulation".to_owned();
    history.header.duration = trace.now_ns();
    history.header.election = nanos(ELECTION);
    history.header.tick = u64::from(plan.settings.tick_ms) * 1_000_000;
    history.faults = nemesis.faults().to_vec();
    history.log = Some(ensemble.witnesses.log());
    let compared = ensemble.witnesses.comparisons();
    history.marks.insert(
        "snapshot installed".to_owned(),
        compared.snapshots_installed,
    );
    let report = check(&history);
    violations.extend(report.violations.iter().map(ToString::to_string));
    violations.extend(report.undecided.iter().cloned());
    let (hash, events) = trace.hash();
    Verdict {
        seed: plan.seed,
        violations,
        hash,
        events,
        faulty,
        simulated: begun.elapsed(),
        took: Duration::ZERO,
        digests: compared.digests,
        report,
        history,
    }
}

/// Gets a write done at one of these servers, however long it takes.
async fn makes_progress(
    network: Arc<dyn Network>,
    servers: Vec<(u64, std::net::SocketAddr)>,
) -> bool {
    let mut raw = Raw::new(
        PROBE,
        network,
        servers.clone().into(),
        // What it sees is not judged.
        Recorder::new(),
        Manners::default(),
    );
    let mut turn = 0;
    loop {
        let (server, _) = servers[turn % servers.len()];
        turn += 1;
        if raw.connect(server).await == Connected::Yes {
            let create = Request::Create {
                path: "/progress-".into(),
                data: quorate_checker::history::Data::default(),
                kind: CreateKind::PersistentSequential,
                acl: None,
                with_stat: false,
            };
            let outcome = raw.call(create, Duration::from_secs(10)).await;
            if let Some(Outcome::Done { .. }) = outcome {
                raw.close(Duration::from_secs(2)).await;
                return true;
            }
            raw.leave();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
