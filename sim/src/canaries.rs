//! `quorate-sim canaries`: plants one mistake after the other and says how soon it was noticed.
//!
//! A mistake counts as caught if a run breaks a promise with it and the very same run breaks none
//! without it. A run may be made rougher where a mistake shows under certain faults only, with the
//! faults that every run may have; the workload and the checks are those of all runs. One that nobody
//! notices is a hole in the checks, and fails the command.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use quorate_checker::{Figure, Promise};
use quorate_sim::plan::{FaultClass, Plan};
use quorate_sim::run::run_plan;
use quorate_state::canary::Canary;

/// One run of a seed takes seconds. One that takes longer than this spins at one moment of its virtual
/// time.
const STUCK: Duration = Duration::from_secs(240);
/// As much of a violation as fits on a line.
const SHOWN_CHARS: usize = 300;

/// Which mistakes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Their names, as in `QuorumOffByOne`; all, if none is given.
    names: Vec<String>,
    /// How many at a time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Give one up after so many seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Give one up after so many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// Append the figure there, as a JSON line.
    #[arg(long)]
    record: Option<PathBuf>,
}

/// How rough the runs are in which a mistake is looked for.
#[derive(Clone, Copy, Debug)]
enum Weather {
    /// As drawn.
    Drawn,
    /// Leaders are parted from the others, again and again.
    Partitions,
    /// Power fails, of one server and of all.
    PowerCuts,
    /// As before, and processes end, so that what was read back is doubted as well.
    KillsAndPowerCuts,
    /// As before, and votes are cast often.
    ElectionsAndPowerCuts,
    /// Snapshots are taken all the time, and servers start from them.
    Snapshots,
    /// As before, and the power fails.
    SnapshotsAndPowerCuts,
    /// As before, and servers lag so far behind that they are sent one.
    SnapshotsAndPartitions,
    /// Syncs fail, and then the power.
    FailingSyncs,
    /// Answers from one server take long.
    Slow,
    /// The servers are far apart.
    Far,
    /// Everybody changes servers.
    CutOffClients,
}

impl Weather {
    fn roughen(self, plan: &mut Plan) {
        use FaultClass as F;
        let faults: &[(F, u64)] = match self {
            Self::Drawn | Self::Far => &[],
            Self::Partitions => &[(F::Partition, 8_000), (F::Kill, 20_000)],
            Self::PowerCuts => &[(F::PowerCut, 10_000), (F::PowerCutOfMany, 12_000)],
            Self::KillsAndPowerCuts => &[(F::Kill, 5_000), (F::PowerCutOfMany, 8_000)],
            Self::ElectionsAndPowerCuts => &[
                (F::Partition, 8_000),
                (F::PowerCut, 6_000),
                (F::PowerCutOfMany, 10_000),
            ],
            Self::Snapshots => &[(F::Kill, 8_000), (F::Restart, 10_000)],
            Self::SnapshotsAndPowerCuts => &[(F::PowerCut, 6_000), (F::PowerCutOfMany, 10_000)],
            Self::SnapshotsAndPartitions => &[(F::Partition, 8_000), (F::Slow, 10_000)],
            Self::FailingSyncs => &[(F::SyncFails, 4_000), (F::PowerCutOfMany, 8_000)],
            Self::Slow => &[(F::Slow, 5_000), (F::Partition, 20_000)],
            Self::CutOffClients => &[(F::ClientsCutOff, 4_000), (F::Slow, 10_000)],
        };
        for (class, mean_ms) in faults {
            plan.faults.retain(|(drawn, _)| drawn != class);
            plan.faults.push((*class, *mean_ms));
        }
        if matches!(self, Self::Far) {
            plan.weather.latency_ms = (1, 20);
        }
        let is_about_snapshots = matches!(
            self,
            Self::Snapshots | Self::SnapshotsAndPowerCuts | Self::SnapshotsAndPartitions
        );
        if is_about_snapshots {
            plan.settings.snapshot_entries = 20;
        }
        let is_about_syncs = matches!(
            self,
            Self::PowerCuts | Self::KillsAndPowerCuts | Self::ElectionsAndPowerCuts
        );
        if is_about_syncs {
            plan.settings.snapshot_entries = 1_000_000;
        }
    }
}

/// Those that a run can show, with the weather in which each does. Others in the storage are for the
/// proofs that stop a disk at every one of its steps.
const PLANTED: &[(Canary, Weather)] = &[
    (Canary::AckBeforeSync, Weather::PowerCuts),
    (Canary::SegmentNameNotSynced, Weather::PowerCuts),
    (
        Canary::SnapshotNameNotSynced,
        Weather::SnapshotsAndPowerCuts,
    ),
    (Canary::SnapshotNotSynced, Weather::SnapshotsAndPowerCuts),
    (Canary::SyncRetried, Weather::FailingSyncs),
    (Canary::VoteRolledBack, Weather::ElectionsAndPowerCuts),
    (Canary::LastBatchNotRewritten, Weather::KillsAndPowerCuts),
    (Canary::SnapshotClaimsMore, Weather::Snapshots),
    (Canary::FuzzySnapshot, Weather::Snapshots),
    (Canary::VoteForShorterLog, Weather::Partitions),
    (Canary::QuorumOffByOne, Weather::Partitions),
    (Canary::ReusedReadIndex, Weather::Far),
    (Canary::ReadIndexWithoutQuorum, Weather::Partitions),
    (Canary::ConflictNotTruncated, Weather::Partitions),
    (Canary::ExpiryByOldLeader, Weather::Slow),
    (Canary::NoPardonAfterElection, Weather::Partitions),
    (Canary::FollowerReadsDoNotTouch, Weather::Drawn),
    (Canary::SilentNewSession, Weather::CutOffClients),
    (Canary::WrongPasswordClosesSession, Weather::Drawn),
    (Canary::EphemeralAfterClose, Weather::Slow),
    (Canary::EphemeralLeftBehind, Weather::Drawn),
    (Canary::EphemeralsNotInSnapshot, Weather::Snapshots),
    (Canary::MovedSessionMayWrite, Weather::CutOffClients),
    (Canary::SequenceFromChildCount, Weather::Drawn),
    (Canary::ChildVersionNotInSnapshot, Weather::Snapshots),
    (Canary::MultiAppliedInPart, Weather::Drawn),
    (Canary::VersionNotChecked, Weather::Drawn),
    (Canary::ServerDependentApply, Weather::Drawn),
    (Canary::EventAfterData, Weather::Drawn),
    (
        Canary::WatchesLostOnInstall,
        Weather::SnapshotsAndPartitions,
    ),
    (Canary::WatchFiredTwice, Weather::Drawn),
    (Canary::SetWatchesIgnoresPast, Weather::CutOffClients),
    (Canary::SetWatchesForgetsTail, Weather::CutOffClients),
    (Canary::EventWithoutAcl, Weather::Drawn),
    (Canary::RetriedWriteDoneTwice, Weather::Partitions),
];

/// What became of one.
enum Outcome {
    Caught { seed: u64, what: String },
    Missed,
}

/// See the module.
#[expect(clippy::print_stdout, reason = "what was asked for")]
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let chosen: Vec<(Canary, Weather)> = PLANTED
        .iter()
        .filter(|(canary, _)| {
            arguments.names.is_empty() || arguments.names.contains(&format!("{canary:?}"))
        })
        .copied()
        .collect();
    if chosen.is_empty() || chosen.len() < arguments.names.len() {
        let all: Vec<String> = PLANTED.iter().map(|(it, _)| format!("{it:?}")).collect();
        eprintln!("unknown names; there are {}", all.join(", "));
        return ExitCode::FAILURE;
    }
    // What a mistake makes of the servers is not of interest, only that it is noticed.
    panic::set_hook(Box::new(|_| {}));
    if !is_plantable() {
        eprintln!("nothing can be planted in this build: use --profile proof");
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    // By number in the list, with the seconds it took.
    let caught = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                while let Some((canary, weather)) = chosen.get(next.fetch_add(1, Relaxed)) {
                    let begun = Instant::now();
                    let (outcome, seeds) = look_for(*canary, *weather, arguments);
                    let seconds = begun.elapsed().as_secs_f64();
                    match outcome {
                        Outcome::Caught { seed, what } => {
                            println!(
                                "{canary:?}: caught after {seeds} seeds and {seconds:.0} s, by seed \
                                 {seed}: {what}"
                            );
                            let mut caught = caught.lock().unwrap_or_else(PoisonError::into_inner);
                            caught.insert(*canary, seconds);
                        }
                        Outcome::Missed => {
                            println!("{canary:?}: MISSED in {seeds} seeds and {seconds:.0} s");
                        }
                    }
                }
            });
        }
    });
    let caught = caught.into_inner().unwrap_or_else(PoisonError::into_inner);
    let slowest = caught.values().copied().fold(0.0, f64::max);
    println!(
        "canaries: {} planted, {} caught, slowest {slowest:.0} s",
        chosen.len(),
        caught.len()
    );
    let missed = chosen.len() - caught.len();
    if let Some(path) = &arguments.record {
        #[expect(clippy::cast_precision_loss, reason = "there are a few dozens")]
        let count = caught.len() as f64;
        let figure = Figure {
            command: "quorate-sim canaries".to_owned(),
            violations: missed as u64,
            seconds: begun.elapsed().as_secs_f64(),
            note: format!(
                "of {} planted; the slowest took {slowest:.0} s",
                chosen.len()
            ),
            ..Figure::new("canaries", count, "planted mistakes caught")
        };
        if let Err(error) = figure.record(path) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs seeds until one shows the mistake. Also returns how many there were.
fn look_for(canary: Canary, weather: Weather, arguments: &Arguments) -> (Outcome, u64) {
    let begun = Instant::now();
    for seed in 1..=arguments.seeds {
        if begun.elapsed().as_secs() >= arguments.seconds {
            return (Outcome::Missed, seed - 1);
        }
        let mut plan = Plan::draw(seed);
        weather.roughen(&mut plan);
        let Some(what) = first_violation(plan.clone(), Some(canary)) else {
            continue;
        };
        // What fails anyway proves nothing of the mistake.
        if let Some(otherwise) = first_violation(plan, None) {
            eprintln!("seed {seed} fails without {canary:?} as well: {otherwise}");
            continue;
        }
        return (Outcome::Caught { seed, what }, seed);
    }
    (Outcome::Missed, arguments.seeds)
}

/// Runs on a thread of its own, on which the mistake is planted.
fn first_violation(plan: Plan, canary: Option<Canary>) -> Option<String> {
    let (done, outcome) = sync_channel(1);
    let running = thread::Builder::new().spawn(move || {
        plant_here(canary);
        let violations = panic::catch_unwind(|| run_plan(plan, false).violations);
        // Whoever waited may have given up.
        done.send(violations).ok();
    });
    if let Err(error) = running {
        eprintln!("a run was not begun: {error}");
        return None;
    }
    let first = match outcome.recv_timeout(STUCK) {
        Ok(Ok(violations)) => violations
            .into_iter()
            .filter(|what| is_telling(what))
            .min_by_key(|what| vagueness(what))?,
        Ok(Err(panicked)) => format!("a panic: {}", message(&*panicked)),
        // The thread is left to itself: it ends with the process.
        Err(RecvTimeoutError::Timeout) => "the run does not end".to_owned(),
        Err(RecvTimeoutError::Disconnected) => "the run ended without a verdict".to_owned(),
    };
    Some(first.chars().take(SHOWN_CHARS).collect())
}

/// A connection that is lost proves nothing of a mistake: a rough run loses one now and then, and every
/// mistake makes another run of a seed.
fn is_telling(what: &str) -> bool {
    !what.starts_with(Promise::SurvivorsKeepTheirClients.name())
}

/// Of many violations the one is shown that says most: that something did not get done says least.
fn vagueness(what: &str) -> u8 {
    let names_promise = Promise::ALL
        .iter()
        .any(|promise| what.starts_with(promise.name()));
    let compares_replicas = ["is one thing", "differ after", "does not start"];
    match compares_replicas.iter().any(|it| what.contains(it)) {
        _ if names_promise => 1,
        true => 0,
        false => 2,
    }
}

fn message(panicked: &(dyn Any + Send)) -> &str {
    let text = panicked.downcast_ref::<&str>().copied();
    text.or_else(|| panicked.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a word")
}

#[cfg(debug_assertions)]
fn plant_here(canary: Option<Canary>) {
    quorate_state::canary::plant(canary);
}

#[cfg(not(debug_assertions))]
fn plant_here(_: Option<Canary>) {}

const fn is_plantable() -> bool {
    cfg!(debug_assertions)
}
