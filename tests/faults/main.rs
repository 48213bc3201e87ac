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
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::faults::{in_own_namespaces, possible};
use quorate_tests::process::run as run_program;
use quorate_tests::server::quorate_binary;

use crate::run::Report;

/// A run takes 15 to 40 seconds; on a busy machine some more.
const RUN_LIMIT: Duration = Duration::from_secs(180);
/// Of the short form.
const SHORT_RUNS: u64 = 1;
/// Before the report of a run, on a line of its own.
const REPORT: &str = "report: ";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = words.split_first()
        && first == "--holder"
    {
        return match holders::hold(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("holder: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    let result = match Options::parse(&words) {
        Err(what) => Err(io::Error::other(what)),
        // The test runner's own questions.
        Ok(_) if words.iter().any(|word| word == "--list") => Ok(true),
        Ok(options) => match &options.inside {
            Some(seed) => inside(*seed, &options),
            None => all(&options),
        },
    };
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
    is_short: bool,
    keep: bool,
    record: Option<PathBuf>,
    folder: PathBuf,
    inside: Option<u64>,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self {
            runs: 1,
            jobs: 1,
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
                "--short" => options.is_short = true,
                "--keep" => options.keep = true,
                "--record" => options.record = Some(value()?.into()),
                "--folder" => options.folder = value()?.into(),
                "--inside" => options.inside = Some(number(value()?)?),
                // What a test runner is told is not for this one.
                _ => {}
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

/// One run, in its namespaces already.
fn inside(seed: u64, options: &Options) -> io::Result<bool> {
    let report = run::run(seed, options.is_short, &options.folder)?;
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
        .arg(&folder);
    if options.is_short {
        command.arg("--short");
    } else {
        command.args(["--runs", "1"]);
    }
    let done = run_program(command, "", RUN_LIMIT)?;
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
            let mut file = File::options().create(true).append(true).open(path)?;
            writeln!(file, "{}", self.figure(first, last, took))?;
        }
        Ok(self.violations == 0 && self.failed == 0 && self.vacuous * 10 <= self.runs)
    }

    fn figure(&self, first: u64, last: u64, took: Duration) -> serde_json::Value {
        serde_json::json!({
            "name": "fault-runs",
            "date": text_of("date", &["--utc", "+%F"]),
            "commit": text_of("git", &["rev-parse", "--short", "HEAD"]),
            "command": format!("just faults --runs {} --seed {first}", self.runs),
            "count": self.runs - self.vacuous - self.failed,
            "unit": "runs",
            "seeds": format!("{first}..{last}"),
            "violations": self.violations,
            "seconds": took.as_secs_f64(),
            "note": format!(
                "{:.1} fault-minutes, {} operations, {} leader changes, slowest recovery {:.1} s",
                self.fault_seconds / 60.0,
                self.operations,
                self.leader_changes,
                self.slowest_recovery
            ),
        })
    }
}

fn text_of(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}
