//! The simulation's command line.

mod canaries;
mod replay;
mod seeds;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Runs whole ensembles in deterministic simulation.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs many seeds and prints one line; fails if a promise was broken or nothing was proved.
    Run(seeds::Arguments),
    /// Runs one seed again and prints the hash of its trace.
    Replay(replay::Arguments),
    /// Plants one mistake after the other; fails if one of them goes unnoticed.
    Canaries(canaries::Arguments),
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_ansi(false)
        .init();
    match Arguments::parse().command {
        Command::Run(arguments) => seeds::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Canaries(arguments) => canaries::run(&arguments),
    }
}
