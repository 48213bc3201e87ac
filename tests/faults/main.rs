//! Real processes under faults: whole runs drawn from seeds, each in a network of its own with disks of
//! its own, recorded and judged.
//!
//! `just faults --runs 100` for a long form with the release binary; without arguments, as one of the
//! tests, a run or two of the debug binary. The last line is a figure, and the exit code is not 0 if
//! anything was violated or a run said nothing. What failed is kept: `target/faults/<seed>` has the
//! plan, the history, and the servers' logs and data.

mod board;
mod clients;
mod conductor;
mod holders;
mod judge;
mod offline;
mod plan;
mod run;
mod trees;
mod wire;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_checker::{Figure, History, Tally};
use quorate_tests::faults::{in_own_namespaces, possible};
use quorate_tests::loop_disk::{FileSystem, LoopDisk, PowerCutter};
use quorate_tests::process::run as run_program;
use quorate_tests::server::quorate_binary;

use crate::run::Report;

/// A run takes 15 to 40 seconds; on a busy machine a multiple of that.
const RUN_LIMIT: Duration = Duration::from_secs(180);
/// Of the short form.
const SHORT_RUNS: u64 = 1;
/// Enough for a file system with a journal.
const PROBE_MIB: u64 = 16;
/// As a test runner has it.
const NAME: &str = "runs_under_faults";
/// Before the report of a run, on a line of its own.
const REPORT: &str = "report: ";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // What it starts itself as, beside whole runs.
    let part = match words.split_first() {
        Some((first, rest)) if first == "--holder" => Some(holders::hold(rest)),
        Some((first, rest)) if first == "--probe" => Some(match rest {
            [folder] => probe(Path::new(folder)),
            _ => Err(io::Error::other("a folder is wanted")),
        }),
        _ => None,
    };
    if let Some(done) = part {
        return end(done.map(|()| true));
    }
    end(match Options::parse(&words) {
        Err(what) => Err(io::Error::other(what)),
        // The test runner's own questions.
        Ok(options) if options.is_unwanted => Ok(true),
        Ok(options) => match (&options.inside, &options.judge) {
            (Some(seed), _) => inside(*seed, &options),
            (None, Some(file)) => judge_again(file),
            (None, None) => all(&options),
        },
    })
}

fn end(result: io::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("faults: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Options {
    runs: u64,
    first: Option<u64>,
    jobs: u64,
    /// By what all limits of time are multiplied: for machines that have other things to do.
    patience: u32,
    is_short: bool,
    keep: bool,
    record: Option<PathBuf>,
    folder: PathBuf,
    inside: Option<u64>,
    judge: Option<PathBuf>,
    /// A test runner asks for other tests, or which there are.
    is_unwanted: bool,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self {
            runs: 1,
            jobs: 1,
            patience: 1,
            is_short: true,
            folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/faults"),
            ..Self::default()
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next();
                value.ok_or_else(|| format!("{word} wants a value"))
            };
            let number = |text: &String| {
                let number = text.parse::<u64>();
                number.map_err(|_| format!("{text} is no number"))
            };
            match word.as_str() {
                "--runs" => {
                    options.runs = number(value()?)?;
                    options.is_short = false;
                }
                "--seed" => {
                    options.first = Some(number(value()?)?);
                    options.is_short = false;
                }
                "--jobs" => options.jobs = number(value()?)?,
                "--patience" => {
                    let factor = u32::try_from(number(value()?)?);
                    options.patience = factor.map_err(|_| "so much patience is none".to_owned())?;
                }
                "--short" => options.is_short = true,
                "--keep" => options.keep = true,
                "--record" => options.record = Some(value()?.into()),
                "--folder" => options.folder = value()?.into(),
                "--judge" => options.judge = Some(value()?.into()),
                "--inside" => options.inside = Some(number(value()?)?),
                "--list" => options.is_unwanted = true,
                "--skip" | "--test-threads" | "--format" | "--color" => drop(value()?),
                // What else a test runner is told is not for this one, but for which tests are wanted.
                other if other.starts_with('-') => {}
                filter => options.is_unwanted |= !NAME.contains(filter),
            }
        }
        if options.is_short && options.inside.is_none() {
            options.runs = SHORT_RUNS;
        }
        Ok(options)
    }
}

/// A line for whoever runs this.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A history that was kept, judged once more.
fn judge_again(file: &Path) -> io::Result<bool> {
    let history = History::read_from(BufReader::new(File::open(file)?));
    let verdict = judge::history(&history.map_err(io::Error::other)?);
    for what in verdict.violations.iter().chain(&verdict.undecided) {
        say(what);
    }
    say(&format!("{:?}", verdict.tally));
    Ok(verdict.violations.is_empty() && verdict.undecided.is_empty())
}

/// One run, in its namespaces already.
fn inside(seed: u64, options: &Options) -> io::Result<bool> {
    let report = run::run(seed, options.is_short, options.patience, &options.folder)?;
    let text = serde_json::to_string(&report)?;
    writeln!(io::stdout(), "{REPORT}{text}")?;
    Ok(report.violations.is_empty())
}

/// All runs, so many at a time.
fn all(options: &Options) -> io::Result<bool> {
    if let Err(reason) = possible() {
        say(&format!("skipped: faults: {reason}"));
        let required = std::env::var("QUORATE_INTEGRATION").is_ok_and(|value| value == "required");
        return Ok(!required);
    }
    if let Err(error) = loop_disks_possible(&options.folder) {
        // Containers have no loop devices, whatever else they are allowed.
        say(&format!(
            "skipped: faults: no disks whose power can be cut: {error}"
        ));
        return Ok(options.is_short);
    }
    let binary = quorate_binary()?;
    let begun = Instant::now();
    let first = options
        .first
        .unwrap_or_else(|| rand::random::<u32>().into());
    let (next, is_over) = (AtomicU64::new(first), AtomicBool::new(false));
    let total = Mutex::new(Total::default());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + options.runs {
                        return;
                    }
                    let result = one(seed, options, &binary);
                    let mut total = total
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    total.add(seed, result);
                }
            });
        }
    });
    let total = total
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    total.finish(options, first, begun.elapsed())
}

/// Makes a disk, and cuts its power.
fn loop_disks_possible(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let folder = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(folder)?;
    let mut command = in_own_namespaces();
    command
        .arg(std::env::current_exe()?)
        .arg("--probe")
        .arg(folder.path());
    let done = run_program(command, "", RUN_LIMIT)?;
    match done.success {
        true => Ok(()),
        false => Err(io::Error::other(done.stderr.trim().to_owned())),
    }
}

/// What [`loop_disks_possible`] does inside of its namespaces.
fn probe(folder: &Path) -> io::Result<()> {
    let cutter = PowerCutter::build(folder)?;
    let disk = LoopDisk::mount(FileSystem::Ext4, PROBE_MIB, &folder.join("disk"), &cutter)?;
    disk.cut_power()?;
    disk.restore_power()
}

/// Starts this program again in namespaces of its own, for one run.
fn one(seed: u64, options: &Options, binary: &Path) -> io::Result<Report> {
    let folder = options.folder.join(seed.to_string());
    // What is left of an earlier run of the same seed.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut command: Command = in_own_namespaces();
    command
        .env("QUORATE_BIN", binary)
        .arg(std::env::current_exe()?)
        .args(["--inside", &seed.to_string(), "--folder"])
        .arg(&folder)
        .args(["--patience", &options.patience.to_string()]);
    if options.is_short {
        command.arg("--short");
    } else {
        command.args(["--runs", "1"]);
    }
    let done = run_program(command, "", RUN_LIMIT * options.patience)?;
    fs::write(
        folder.join("output.txt"),
        done.stdout.clone() + &done.stderr,
    )?;
    let line = done
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix(REPORT));
    let line = line
        .ok_or_else(|| io::Error::other(format!("it did not come to its end:\n{}", done.stderr)))?;
    let report: Report = serde_json::from_str(line)?;
    fs::write(folder.join("report.json"), line)?;
    if report.violations.is_empty() && report.vacuous.is_none() && !options.keep {
        fs::remove_dir_all(&folder)?;
    }
    Ok(report)
}

/// All runs so far.
#[derive(Default)]
struct Total {
    runs: u64,
    operations: usize,
    writes: u64,
    leader_changes: u64,
    fault_seconds: f64,
    slowest_recovery: f64,
    happened: BTreeMap<String, u64>,
    tally: Tally,
    violations: usize,
    undecided: usize,
    vacuous: u64,
    failed: u64,
}

impl Total {
    fn add(&mut self, seed: u64, result: io::Result<Report>) {
        self.runs += 1;
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                self.failed += 1;
                say(&format!("seed {seed}: FAILED: {error}"));
                return;
            }
        };
        self.tally.add(&report.tally);
        self.operations += report.operations;
        self.writes += report.writes;
        self.leader_changes += report.leader_changes;
        self.fault_seconds += report.fault_seconds;
        self.slowest_recovery = self.slowest_recovery.max(report.recovery_seconds);
        self.violations += report.violations.len();
        for (name, count) in &report.happened {
            *self.happened.entry(name.clone()).or_default() += count;
        }
        say(&format!(
            "seed {seed}: {} servers, {} operations, {} writes, {} leader changes, recovered in {:.1} s, \
             {} violations, {} undecided; {:?}; {}",
            report.servers,
            report.operations,
            report.writes,
            report.leader_changes,
            report.recovery_seconds,
            report.violations.len(),
            report.undecided.len(),
            report.happened,
            report.note
        ));
        self.undecided += report.undecided.len();
        for what in &report.undecided {
            say(&format!("seed {seed}: undecided: {what}"));
        }
        if let Some(reason) = &report.vacuous {
            self.vacuous += 1;
            say(&format!("seed {seed}: says nothing: {reason}"));
        }
        for violation in report.violations.iter().take(20) {
            say(&format!("seed {seed}: VIOLATION: {violation}"));
        }
    }

    fn finish(&self, options: &Options, first: u64, took: Duration) -> io::Result<bool> {
        let last = first + self.runs.saturating_sub(1);
        let minutes = self.fault_seconds / 60.0;
        say(&format!(
            "faults: {} runs, seeds {first}..{last}, {minutes:.1} fault-minutes, {} operations, {} leader \
             changes, slowest recovery {:.1} s, violations {}, undecided {}, vacuous {}, failed {}; {:?}; {:.0} s",
            self.runs,
            self.operations,
            self.leader_changes,
            self.slowest_recovery,
            self.violations,
            self.undecided,
            self.vacuous,
            self.failed,
            self.happened,
            took.as_secs_f64()
        ));
        if let Some(path) = &options.record {
            self.figure(first, last, took).record(path)?;
        }
        Ok(self.violations == 0 && self.failed == 0 && self.vacuous * 10 <= self.runs)
    }

    fn figure(&self, first: u64, last: u64, took: Duration) -> Figure {
        let counted = self.runs - self.vacuous - self.failed;
        Figure {
            command: format!("just faults --runs {} --seed {first}", self.runs),
            seeds: format!("{first}..{last}"),
            violations: u64::try_from(self.violations).unwrap_or(u64::MAX),
            seconds: took.as_secs_f64(),
            note: format!(
                "{:.1} fault-minutes, {} operations, {} reads and {} events compared with the log, {} \
                 leader changes, {} grants of locks, {} sessions expired, slowest recovery of a \
                 majority {:.1} s",
                self.fault_seconds / 60.0,
                self.operations,
                self.tally.reads_checked,
                self.tally.events_checked,
                self.leader_changes,
                self.tally.grants,
                self.tally.sessions_expired,
                self.slowest_recovery
            ),
            ..Figure::new("fault-runs", count(counted), "runs")
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are no 2^52 runs")]
fn count(runs: u64) -> f64 {
    runs as f64
}
