//! A load generator for any server that speaks ZooKeeper's protocol, and the comparison of Quorate
//! with Apache ZooKeeper that is made with it.
//!
//! `docs/benchmarks.md` says what is measured and how. Whatever goes wrong ends the command with
//! exit code 1: a run with an error in it has no figure.

mod compare;
mod driver;
mod ensemble;
mod error;
mod etcd;
mod failover;
mod fill;
mod floor;
mod lock;
mod machine;
mod process;
mod ready;
mod run;
mod session;
mod strain;
mod tally;
mod tree;
mod wire;
mod workload;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};

use crate::compare::CompareConfig;
use crate::compare::server::Programs;
use crate::driver::Stop;
use crate::ensemble::EnsembleConfig;
use crate::error::BenchError;
use crate::floor::{FloorServer, LOG_BYTES};
use crate::run::{RunConfig, Target, measure};
use crate::tree::{MULTI_OPS, Tree};
use crate::workload::{Op, Shape};

#[derive(Parser)]
#[command(
    name = "quorate-bench",
    version,
    about = "Measures servers that speak ZooKeeper's protocol"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive a server in a closed loop and report throughput and latency
    Run(RunArgs),
    /// Load a tree and report the server's memory
    Fill(FillArgs),
    /// Wait until a server answers a read and report how long that took
    Ready(ReadyArgs),
    /// Serve as the floor: one fsynced log and nothing else. Keeps no data
    FloorServer(FloorArgs),
    /// Compare Quorate with Apache ZooKeeper and the floor, and print the report in Markdown
    Compare(CompareArgs),
    /// Compare three servers each of Quorate, Apache ZooKeeper and etcd
    CompareEnsemble(EnsembleArgs),
    /// Kill the leader again and again, and report how long writes pause
    Failover(failover::FailoverArgs),
    /// Ask far too much of servers, and report what it costs them and what other clients notice
    Strain(strain::StrainArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The servers to spread the clients over, separated by commas
    #[arg(long, default_value = "127.0.0.1:2181", value_delimiter = ',')]
    server: Vec<SocketAddr>,
    #[arg(long, value_enum)]
    op: Op,
    /// Share of gets in --op mixed; the rest are sets
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=100))]
    read_percent: u32,
    #[arg(long, default_value_t = 1024, value_parser = parse_data_bytes)]
    data_bytes: usize,
    /// Connections, each with a session of its own
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Requests each client keeps outstanding
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
    /// Seconds to measure for
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Operations to measure, instead of seconds
    #[arg(long)]
    count: Option<u64>,
    /// Seconds to drive the server before measuring
    #[arg(long, default_value_t = 1.0, value_parser = parse_seconds)]
    warmup: f64,
    /// Znodes that sets and gets are spread over
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    keys: u32,
    /// Parents the znodes are spread over; with creates, keep it above their number / 20,000
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=99_999))]
    parents: u32,
    /// Threads that drive the clients
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The servers' processes, separated by commas, to report their processor time
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Leave the subtree on the server
    #[arg(long)]
    no_clean: bool,
}

#[derive(Args)]
struct FillArgs {
    #[arg(long, default_value = "127.0.0.1:2181")]
    server: SocketAddr,
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=90_000_000))]
    znodes: u32,
    #[arg(long, default_value_t = 100, value_parser = parse_data_bytes)]
    data_bytes: usize,
    /// Creates in one request; 1 for plain creates
    #[arg(long, default_value_t = MULTI_OPS, value_parser = clap::value_parser!(u32).range(1..=500))]
    multi: u32,
    /// The server's process, to report its memory
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Args)]
struct ReadyArgs {
    #[arg(long, default_value = "127.0.0.1:2181")]
    server: SocketAddr,
    /// Seconds to wait at most
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

#[derive(Args)]
struct FloorArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    port: u16,
    /// Length of the data that every get returns
    #[arg(long, default_value_t = 1024, value_parser = parse_data_bytes)]
    data_bytes: usize,
}

#[derive(Args)]
struct CompareArgs {
    /// About one minute instead of a quarter of an hour: fewer cells, fewer znodes
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    common: CommonArgs,
    /// Znodes in the comparison of memory; 0 leaves it out
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=90_000_000))]
    znodes: Option<u32>,
}

/// What both comparisons are told.
#[derive(Args)]
struct CommonArgs {
    /// For data folders; on the disk to measure, not in memory
    #[arg(long, default_value = "target/bench-data")]
    dir: PathBuf,
    #[arg(long, default_value = "target/release/quorate")]
    quorate: PathBuf,
    #[arg(long, default_value = "/usr/bin/java")]
    java: PathBuf,
    /// Apache ZooKeeper, by default where Debian's package has it
    #[arg(
        long,
        default_value = "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar"
    )]
    zookeeper_classpath: String,
    /// How often to start all servers afresh
    #[arg(long)]
    starts: Option<usize>,
    /// How often to go through the matrix after each start
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds to measure per cell and round
    #[arg(long, value_parser = parse_seconds)]
    seconds: Option<f64>,
}

impl CommonArgs {
    fn programs(&self) -> Programs {
        Programs {
            java: self.java.clone(),
            zookeeper_classpath: self.zookeeper_classpath.clone(),
            quorate: self.quorate.clone(),
        }
    }
}

#[derive(Args)]
struct EnsembleArgs {
    /// About three minutes instead of half an hour: fewer cells, shorter runs
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    common: CommonArgs,
    /// etcd's server, by default where Debian's package etcd-server has it
    #[arg(long, default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// Only the operations whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

/// Frames of more than 1 MiB are refused by servers, and a multi carries 100 creates.
const DATA_BYTES_MAX: usize = 8 << 10;

fn parse_data_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes <= DATA_BYTES_MAX => Ok(bytes),
        _ => Err(format!("a number from 0 to {DATA_BYTES_MAX}")),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0 to 86400".to_owned()),
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Fill(args) => fill(&args),
        Command::Ready(args) => ready(&args),
        Command::FloorServer(args) => {
            let address = SocketAddr::from(([127, 0, 0, 1], args.port));
            FloorServer::bind(&args.dir, address, args.data_bytes, LOG_BYTES)
                .and_then(FloorServer::serve)
        }
        Command::Compare(args) => compare(args),
        Command::CompareEnsemble(args) => compare_ensemble(args),
        Command::Strain(args) => strain::strain(&args, &mut print, &mut report_progress),
        Command::Failover(args) => {
            failover::failover(&args, &mut report_progress).and_then(|table| print(&table))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "quorate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &RunArgs) -> Result<(), BenchError> {
    let shape = Shape {
        parents: args.parents,
        keys: args.keys,
        data_bytes: args.data_bytes,
    };
    let mut tree = Tree::make(&args.server, shape, MULTI_OPS)?;
    let config = RunConfig {
        op: args.op,
        read_percent: args.read_percent,
        clients: args.clients,
        outstanding: args.outstanding,
        threads: args.threads,
        warmup: Duration::from_secs_f64(args.warmup),
        stop: match args.count {
            Some(count) => Stop::Count(count),
            None => Stop::After(Duration::from_secs_f64(args.seconds)),
        },
    };
    let target = Target {
        servers: &args.server,
        pids: &args.pid,
    };
    let measured = measure(&mut tree, target, config);
    // Also after a failure, as far as the server still answers.
    let cleaned = if args.no_clean { Ok(()) } else { tree.remove() };
    let measurement = measured?;
    print(&measurement.line())?;
    print(&measurement.json())?;
    cleaned
}

fn fill(args: &FillArgs) -> Result<(), BenchError> {
    let filled = fill::fill(
        args.server,
        args.znodes,
        args.data_bytes,
        args.multi,
        args.pid,
    )?;
    print(&filled.lines())
}

fn ready(args: &ReadyArgs) -> Result<(), BenchError> {
    let patience = Duration::from_secs(args.patience);
    let waited = ready::wait(args.server, Instant::now(), patience, || Ok(()))?;
    print(&format!("{:.1} ms", waited.as_secs_f64() * 1e3))
}

fn compare(args: CompareArgs) -> Result<(), BenchError> {
    let (starts, rounds, seconds, warmup, first_warmup, znodes) = if args.short {
        (1, 2, 0.6, 0.2, 4.0, 100_000)
    } else {
        (2, 2, 1.0, 0.25, 10.0, 1_000_000)
    };
    let common = args.common;
    let config = CompareConfig {
        programs: common.programs(),
        dir: common.dir,
        short: args.short,
        starts: common.starts.unwrap_or(starts),
        rounds: common.rounds.unwrap_or(rounds),
        span: Duration::from_secs_f64(common.seconds.unwrap_or(seconds)),
        warmup: Duration::from_secs_f64(warmup),
        first_warmup: Duration::from_secs_f64(first_warmup),
        znodes: args.znodes.unwrap_or(znodes),
    };
    print(&compare::compare(&config, &mut report_progress)?)
}

fn compare_ensemble(args: EnsembleArgs) -> Result<(), BenchError> {
    let (starts, rounds, seconds, warmup, first_warmup) = if args.short {
        (1, 2, 1.0, 0.3, 10.0)
    } else {
        (2, 3, 2.0, 0.5, 30.0)
    };
    let common = args.common;
    let config = EnsembleConfig {
        programs: common.programs(),
        etcd: args.etcd,
        only: args.only,
        dir: common.dir,
        short: args.short,
        starts: common.starts.unwrap_or(starts),
        rounds: common.rounds.unwrap_or(rounds),
        span: Duration::from_secs_f64(common.seconds.unwrap_or(seconds)),
        warmup: Duration::from_secs_f64(warmup),
        first_warmup: Duration::from_secs_f64(first_warmup),
    };
    print(&ensemble::compare(&config, &mut report_progress)?)
}

fn report_progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn print(text: &str) -> Result<(), BenchError> {
    writeln!(std::io::stdout(), "{text}").map_err(BenchError::io("printing the result"))
}
