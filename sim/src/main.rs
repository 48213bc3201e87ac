//! The simulation's command line.

use clap::Parser;
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
    /// Print every delivery.
    #[arg(long)]
    trace: bool,
}

fn main() {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    for seed in arguments.seed..arguments.seed + arguments.count {
        let verdict = quorate_sim::run::run(seed, arguments.trace);
        eprintln!("{verdict:?}");
    }
}
