//! `quorate-sim run`: many seeds, one line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_checker::{Figure, Tally, Thresholds};
use quorate_sim::plan::FaultClass;
use quorate_sim::run::{self, Verdict};

/// One run of a seed takes seconds. One that takes longer than this spins at one moment of its virtual
/// time: somebody asks again and again without a pause.
const STUCK: Duration = Duration::from_secs(300);
/// Runs from which on every class of faults, and every rare state, has to have come up.
const SEEDS_FOR_ALL: u64 = 200;

/// Which seeds.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The first and the last seed, as in 1..1000.
    #[arg(long, default_value = "1..20", value_parser = parse_range)]
    seeds: (u64, u64),
    /// How many at a time.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Run every so manieth seed twice, and fail if the traces differ.
    #[arg(long, default_value_t = 50)]
    twice: u64,
    /// Begin no further seed after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Append the figures there, as JSON lines.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Where histories of seeds that failed are kept.
    #[arg(long, default_value = "target/sim")]
    keep: PathBuf,
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text
        .split_once("..")
        .ok_or("expected FIRST..LAST, as in 1..1000")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    let range = (number(first)?, number(last)?);
    match range.0 <= range.1 {
        true => Ok(range),
        false => Err("the first seed comes after the last".to_owned()),
    }
}

/// What all runs add up to.
#[derive(Default)]
struct Sum {
    tally: Tally,
    seeds: u64,
    twice: u64,
    violations: u64,
    faulty: Duration,
    simulated: Duration,
    digests: u64,
    /// Of the seeds that were finished without a gap from the first one on.
    finished: BTreeMap<u64, ()>,
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let (first, last) = arguments.seeds;
    let next = AtomicU64::new(first);
    let sum = Mutex::new(Sum::default());
    let lock = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let is_late = arguments
                        .seconds
                        .is_some_and(|limit| begun.elapsed().as_secs() >= limit);
                    let seed = next.fetch_add(1, Relaxed);
                    if seed > last || is_late {
                        return;
                    }
                    let verdict = watched(seed);
                    let mut violations = verdict.violations.clone();
                    let is_twice = arguments.twice > 0 && seed.is_multiple_of(arguments.twice);
                    if is_twice && watched(seed).hash != verdict.hash {
                        violations.push("two runs of the seed differ".to_owned());
                    }
                    if !violations.is_empty() {
                        report(&arguments.keep, &verdict, &violations);
                    }
                    let mut sum = lock();
                    sum.tally.add(&verdict.report.tally);
                    sum.seeds += 1;
                    sum.twice += u64::from(is_twice);
                    sum.violations += violations.len() as u64;
                    sum.faulty += verdict.faulty;
                    sum.simulated += verdict.simulated;
                    sum.digests += verdict.digests;
                    sum.finished.insert(seed, ());
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    let shortfalls = thresholds(sum.seeds).shortfalls(&sum.tally);
    for shortfall in &shortfalls {
        println!("too little to prove anything: {shortfall}");
    }
    let until = sum.finished.keys().next_back().copied().unwrap_or(first);
    let seconds = begun.elapsed().as_secs_f64();
    let hours = sum.faulty.as_secs_f64() / 3600.0;
    let tally = &sum.tally;
    println!(
        "sim: {} seeds ({first}..{until}), {} twice, {hours:.2} cluster-hours under faults ({:.2} in \
         all), {} operations, {} linearized, {} reads and {} events compared with the log, {} sessions, \
         {} digests compared, {} leader changes, {} faults; violations {}; {seconds:.0} s",
        sum.seeds,
        sum.twice,
        sum.simulated.as_secs_f64() / 3600.0,
        tally.operations,
        tally.linearized,
        tally.reads_checked,
        tally.events_checked,
        tally.sessions_opened,
        sum.digests,
        tally.leader_changes,
        tally.faults.values().sum::<u64>(),
        sum.violations,
    );
    if let Some(path) = &arguments.record {
        #[expect(clippy::cast_precision_loss, reason = "counts of what was done")]
        let figures = [
            ("sim-hours", hours, "cluster-hours"),
            ("sim-seeds", sum.seeds as f64, "seeds"),
            ("sim-twice", sum.twice as f64, "seeds"),
            ("operations", tally.linearized as f64, "operations"),
            ("watch-deliveries", tally.events_checked as f64, "events"),
            ("sessions", tally.sessions_opened as f64, "sessions"),
            ("digests", sum.digests as f64, "comparisons"),
        ];
        for (name, count, unit) in figures {
            let figure = Figure {
                command: format!("quorate-sim run --seeds {first}..{until}"),
                seeds: format!("{first}..{until}"),
                violations: sum.violations,
                seconds,
                ..Figure::new(name, count, unit)
            };
            if let Err(error) = figure.record(path) {
                eprintln!("cannot write {}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    match sum.violations == 0 && shortfalls.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Runs a seed, and ends the process with its number if that does not end.
fn watched(seed: u64) -> Verdict {
    let done = Arc::new(AtomicU64::new(0));
    let watching = Arc::clone(&done);
    let watcher = std::thread::spawn(move || {
        let begun = Instant::now();
        while watching.load(Relaxed) == 0 {
            std::thread::park_timeout(STUCK);
            if watching.load(Relaxed) == 0 && begun.elapsed() >= STUCK {
                eprintln!("seed {seed} does not end: somebody asks without a pause");
                std::process::exit(3);
            }
        }
    });
    let verdict = run::run(seed, false);
    done.store(1, Relaxed);
    watcher.thread().unpark();
    watcher.join().ok();
    verdict
}

fn report(keep: &Path, verdict: &Verdict, violations: &[String]) {
    let seed = verdict.seed;
    for what in violations.iter().take(8) {
        let what: String = what.chars().take(600).collect();
        eprintln!("seed {seed}: {what}");
    }
    let path = keep.join(format!("{seed}.jsonl"));
    let written = fs::create_dir_all(keep)
        .and_then(|()| File::create(&path))
        .and_then(|file| verdict.history.write_to(BufWriter::new(file)));
    match written {
        Ok(()) => eprintln!("seed {seed}: the history is in {}", path.display()),
        Err(error) => eprintln!("cannot write {}: {error}", path.display()),
    }
}

/// What a set of runs has to hold before it proves anything.
fn thresholds(seeds: u64) -> Thresholds {
    let mut thresholds = Thresholds {
        operations: seeds * 200,
        answered: 0.6,
        done_during_faults: 0.4,
        linearized: seeds * 50,
        reads_checked: seeds * 30,
        leader_changes: seeds / 2,
        ..Thresholds::default()
    };
    if seeds >= SEEDS_FOR_ALL {
        thresholds.events_checked = seeds * 5;
        thresholds.sessions_expired = seeds / 10;
        thresholds.sessions_resumed = seeds;
        thresholds.faults = FaultClass::ALL
            .iter()
            .map(|class| (class.name().to_owned(), seeds / 100))
            .collect();
        thresholds.marks = vec!["snapshot installed".to_owned()];
    }
    thresholds
}
