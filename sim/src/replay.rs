//! `quorate-sim replay`: one seed again, to look at.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use quorate_sim::run;

/// Which seed, and what of it to show. `RUST_LOG=nemesis=info` shows what was done to the ensemble, and
/// `RUST_LOG=quorate_server=info` what the servers say.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    seed: u64,
    /// Show every delivery, with the hash so far: to find where two runs part.
    #[arg(long)]
    trace: bool,
    /// Run it so many times, one after the other: to see whether the traces are the same.
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// Write what the clients saw there, as JSON lines.
    #[arg(long)]
    history: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    for _ in 1..arguments.times {
        let (hash, events) = {
            let verdict = run::run(arguments.seed, arguments.trace);
            (verdict.hash, verdict.events)
        };
        println!("trace {hash:016x} of {events} events");
    }
    let verdict = run::run(arguments.seed, arguments.trace);
    if let Some(path) = &arguments.history {
        let written = File::create(path).map(BufWriter::new);
        if let Err(error) = written.and_then(|file| verdict.history.write_to(file)) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    for what in &verdict.violations {
        println!("{what}");
    }
    println!(
        "seed {}: trace {:016x} of {} events, {} operations, {:.1} s simulated in {:.2} s, {} violations",
        verdict.seed,
        verdict.hash,
        verdict.events,
        verdict.report.tally.operations,
        verdict.simulated.as_secs_f64(),
        verdict.took.as_secs_f64(),
        verdict.violations.len()
    );
    match verdict.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
