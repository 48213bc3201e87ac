//! The simulation's command line.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;
use quorate_sim::run::{Verdict, run};
use tracing_subscriber::EnvFilter;

/// Runs ensembles in simulation.
#[derive(Debug, Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, from there on.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Write the history of the last seed there, as JSON lines.
    #[arg(long)]
    history: Option<std::path::PathBuf>,
    /// Print every delivery.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off")),
        )
        .with_writer(std::io::stderr)
        .without_time()
        .with_ansi(false)
        .init();
    let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let (mut simulated, mut took, mut operations) = (0.0, 0.0, 0);
    for seed in arguments.seed..arguments.seed + arguments.count {
        let Verdict {
            violations,
            hash,
            took: t,
            simulated: s,
            report,
            events,
            history,
            ..
        } = run(seed, arguments.trace);
        if let Some(path) = &arguments.history {
            let written = std::fs::File::create(path)
                .and_then(|file| history.write_to(std::io::BufWriter::new(file)));
            if let Err(error) = written {
                eprintln!("{error}");
            }
        }
        simulated += s.as_secs_f64();
        took += t.as_secs_f64();
        operations += report.tally.operations;
        eprintln!(
            "seed {seed} hash {hash:016x} events {events} operations {} simulated {:.0} s in {:.2} s; {} violations",
            report.tally.operations,
            s.as_secs_f64(),
            t.as_secs_f64(),
            violations.len()
        );
        for what in violations.iter().take(6) {
            eprintln!("    {}", &what.chars().take(300).collect::<String>());
            let kind: String = what
                .chars()
                .filter(|c| c.is_alphabetic() || *c == ' ' || *c == '-')
                .take(40)
                .collect();
            let entry = kinds.entry(kind).or_insert((0, seed));
            entry.0 += 1;
        }
    }
    eprintln!("{simulated:.0} s in {took:.1} s, {operations} operations");
    for (kind, (count, seed)) in kinds {
        eprintln!("{count:6} {kind} (seed {seed})");
    }
    ExitCode::SUCCESS
}
