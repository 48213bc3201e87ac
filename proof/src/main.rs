//! `quorate-proof`: one proof a command, one line a proof, and an exit code that says whether it
//! holds.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use quorate_checker::Figure;
use quorate_proof::points::{self, Plan};
use quorate_proof::{flips, host};

/// A bug has many faces.
const VIOLATIONS_MAX: usize = 20;

#[derive(Parser)]
#[command(
    name = "quorate-proof",
    version,
    about = "Proves that storage loses nothing: power cuts at every change, every bit flipped"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Append the result to this file, as a line of JSON
    #[arg(long, global = true, value_name = "FILE")]
    record: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Cut the power at every change that a workload makes to the disk, and start from what is left
    CrashPoints(CrashPoints),
    /// Flip every bit of a sample data directory, one at a time, and start from it
    BitFlips(BitFlips),
    /// Plant bugs, one at a time, and see that they are noticed
    Canaries(Canaries),
}

#[derive(Args)]
struct CrashPoints {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many operations the workload has
    #[arg(long, default_value_t = 2000)]
    operations: u64,
    /// How many disks to start from
    #[arg(long, default_value_t = 100_000)]
    states: u64,
    /// How long the workloads are of which every sync fails once
    #[arg(long, default_value_t = 300)]
    fault_operations: u64,
}

#[derive(Args)]
struct BitFlips {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many operations have made the sample
    #[arg(long, default_value_t = 400)]
    operations: u64,
    /// Try one bit in so many
    #[arg(long, default_value_t = 1)]
    one_in: usize,
}

#[derive(Args)]
struct Canaries {
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let began = Instant::now();
    let proven = match cli.command {
        Command::CrashPoints(args) => crash_points(&args),
        Command::BitFlips(args) => bit_flips(&args),
        Command::Canaries(args) => canaries(args.seed),
    };
    let (mut figure, violations) = match proven {
        Ok(proven) => proven,
        Err(error) => {
            complain(&error);
            return ExitCode::FAILURE;
        }
    };
    figure.seconds = began.elapsed().as_secs_f64();
    for violation in &violations {
        complain(violation);
    }
    // Nobody to tell if nobody reads.
    let _ = writeln!(std::io::stdout(), "{figure}");
    if let Some(file) = cli.record
        && let Err(error) = figure.record(&file)
    {
        complain(&format!("{}: {error}", file.display()));
        return ExitCode::FAILURE;
    }
    if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

type Proven = (Figure, Vec<String>);

fn crash_points(args: &CrashPoints) -> Result<Proven, String> {
    let CrashPoints {
        seed,
        operations,
        states,
        fault_operations,
    } = *args;
    let plan = Plan {
        seed,
        operations,
        states,
        failing_syncs: None,
        violations_max: VIOLATIONS_MAX,
    };
    let outcome = host::run(seed, async move {
        let mut outcome = points::run(plan).await;
        let plan = Plan {
            operations: fault_operations,
            ..plan
        };
        points::run_faults(plan, &mut outcome).await;
        outcome
    })?;
    let figure = Figure {
        command: format!(
            "quorate-proof crash-points --seed {seed} --operations {operations} --states {states} \
             --fault-operations {fault_operations}"
        ),
        seeds: seed.to_string(),
        violations: outcome.violations.len() as u64,
        note: format!(
            "all {} changes of {operations} operations cut at; {} states after a cut in a start; {} \
             refused with a sector torn, never wrong; {} failing syncs and wrong writes; {:?}",
            outcome.points, outcome.nested, outcome.refused_beyond, outcome.faults, outcome.tally
        ),
        ..Figure::new(
            "storage-crash-points",
            number(outcome.states),
            "post-crash disk states",
        )
    };
    Ok((figure, outcome.violations))
}

fn bit_flips(args: &BitFlips) -> Result<Proven, String> {
    let BitFlips {
        seed,
        operations,
        one_in,
    } = *args;
    let sample = flips::Sample {
        seed,
        operations,
        one_in: one_in.max(1),
        violations_max: VIOLATIONS_MAX,
    };
    let outcome = host::run(seed, flips::run(sample))?;
    let figure = Figure {
        command: format!(
            "quorate-proof bit-flips --seed {seed} --operations {operations} --one-in {one_in}"
        ),
        seeds: seed.to_string(),
        violations: outcome.violations.len() as u64,
        note: format!(
            "{} files of {} bytes; {} cuts and {} lost sectors, too; {} starts refused with the file's \
             name, {} found all as it was, {} without the last batch after a lost sector of it",
            outcome.files,
            outcome.bytes,
            outcome.cuts,
            outcome.lost_sectors,
            outcome.refused,
            outcome.harmless,
            outcome.without_last_batch
        ),
        ..Figure::new("storage-bit-flips", number(outcome.flips), "flipped bits")
    };
    Ok((figure, outcome.violations))
}

#[cfg(debug_assertions)]
fn canaries(seed: u64) -> Result<Proven, String> {
    let caught = quorate_proof::canaries::run(seed, complain);
    let missed: Vec<String> = caught
        .iter()
        .filter(|caught| caught.by.is_none())
        .map(|caught| format!("{:?} was planted, and nobody noticed", caught.canary))
        .collect();
    let slowest = caught
        .iter()
        .map(|caught| caught.took)
        .max()
        .unwrap_or_default();
    let figure = Figure {
        command: format!("quorate-proof canaries --seed {seed}"),
        seeds: seed.to_string(),
        violations: missed.len() as u64,
        note: format!(
            "of {} planted in the storage; the slowest took {:.0} s",
            caught.len(),
            slowest.as_secs_f64()
        ),
        ..Figure::new(
            "storage-canaries",
            number((caught.len() - missed.len()) as u64),
            "planted bugs caught",
        )
    };
    Ok((figure, missed))
}

#[cfg(not(debug_assertions))]
fn canaries(_seed: u64) -> Result<Proven, String> {
    Err("no bug can be planted in a release: build with --profile proof".to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
