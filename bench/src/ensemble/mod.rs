//! Three servers each of Apache ZooKeeper, etcd and Quorate, on this machine, by one command.
//!
//! As in the comparison of single servers: all run at the same time on the same disk, one ensemble
//! is driven at a time, when the others are quiet; turns alternate from cell to cell, their order
//! is turned round in every other round, and each ensemble is driven with every operation before
//! anything is measured.

pub(crate) mod members;
pub(crate) mod table;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::compare::server::Programs;
use crate::compare::table::Sample;
use crate::compare::{QUIET_PATIENCE, QUIET_SPAN, QUIET_TICK, describe_java};
use crate::driver::{Outcome, Stop};
use crate::ensemble::members::{Ensemble, SERVERS, System, dir_of};
use crate::ensemble::table::{At, Cell, Results, Work};
use crate::error::BenchError;
use crate::etcd::load::{KeyOp, Keys};
use crate::lock::{Crowd, recipe};
use crate::run::{RunConfig, Target, measure};
use crate::tree::{MULTI_OPS, Tree};
use crate::workload::{Op, Shape};
use crate::{etcd, machine, process};

/// Of one run, after outages.
const REPETITIONS_MAX: usize = 3;

const SHAPE: Shape = Shape {
    parents: 200,
    keys: 10_000,
    data_bytes: 1024,
};

#[derive(Clone, Debug)]
pub(crate) struct EnsembleConfig {
    pub(crate) programs: Programs,
    pub(crate) etcd: PathBuf,
    /// Data folders are made and removed in here.
    pub(crate) dir: PathBuf,
    pub(crate) short: bool,
    /// What the names of the operations to measure contain.
    pub(crate) only: String,
    /// How often all servers are started afresh.
    pub(crate) starts: usize,
    /// How often the matrix is gone through after each start.
    pub(crate) rounds: usize,
    /// Measured per cell and round.
    pub(crate) span: Duration,
    pub(crate) warmup: Duration,
    /// Before the first cell, in all.
    pub(crate) first_warmup: Duration,
}

/// Runs everything and returns the report, in Markdown. Says on the way where it is.
pub(crate) fn compare(
    config: &EnsembleConfig,
    progress: &mut dyn FnMut(&str),
) -> Result<String, BenchError> {
    fs::create_dir_all(&config.dir).map_err(|source| BenchError::File {
        doing: "creating",
        path: config.dir.clone(),
        source,
    })?;
    let systems: Vec<System> = System::ALL
        .into_iter()
        .filter(|system| system.is_installed(&config.programs, &config.etcd))
        .collect();
    let report = compare_all(config, &systems, progress);
    // Also after a failure: a comparison writes gigabytes.
    for system in systems {
        let _ = fs::remove_dir_all(dir_of(&config.dir, system));
    }
    report
}

fn compare_all(
    config: &EnsembleConfig,
    systems: &[System],
    progress: &mut dyn FnMut(&str),
) -> Result<String, BenchError> {
    let mut report = heading(config, systems)?;
    let mut results = Results::default();
    for start in 0..config.starts {
        progress(&format!("start {} of {}", start + 1, config.starts));
        run_matrix(config, systems, &mut results, progress)?;
    }
    let _ = write!(
        report,
        "{}{}\n{}",
        results.outages(),
        results.aims(),
        results.markdown()
    );
    Ok(report)
}

fn heading(config: &EnsembleConfig, systems: &[System]) -> Result<String, BenchError> {
    let fsync = machine::fsync_latency(&config.dir)?;
    let names: Vec<&str> = systems.iter().map(|system| system.name()).collect();
    let mut heading = format!(
        "{}; 4 KiB write + fdatasync: p50 {} us, p99 {} us\n\
         {SERVERS} servers each of {}; {} fresh starts, each with {} runs of {:.2} s per cell.\n",
        machine::describe(&config.dir),
        fsync.p50_us,
        fsync.p99_us,
        names.join(", "),
        config.starts,
        config.rounds,
        config.span.as_secs_f64()
    );
    if systems.contains(&System::ZooKeeper) {
        let _ = writeln!(heading, "{}", describe_java(&config.programs.java));
    }
    if systems.contains(&System::Etcd) {
        let _ = writeln!(heading, "{}", describe_etcd(&config.etcd));
    }
    heading.push('\n');
    Ok(heading)
}

fn describe_etcd(etcd: &Path) -> String {
    let output = Command::new(etcd).arg("--version").output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    let version = output.lines().next().unwrap_or("etcd, version unknown");
    format!("{version}.")
}

/// An ensemble with what the cells work on.
struct Bed {
    ensemble: Ensemble,
    data: Data,
}

enum Data {
    Tree(Tree),
    Keys(Keys),
}

fn run_matrix(
    config: &EnsembleConfig,
    systems: &[System],
    results: &mut Results,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    let mut beds = Vec::new();
    for system in systems {
        beds.push(Bed::make(config, *system)?);
        progress(&format!("{} runs", system.name()));
    }
    for bed in &mut beds {
        let cells = cells(config, true);
        let count = u32::try_from(cells.len()).unwrap_or(u32::MAX);
        for cell in cells {
            let share = config.first_warmup / count;
            bed.measure_in_the_end(cell, (Duration::ZERO, share), results, progress)?;
        }
    }
    for _ in 0..config.rounds {
        for cell in cells(config, config.short) {
            for turn in 0..beds.len() {
                if !wait_until_quiet(&beds)? {
                    progress("the servers did not become quiet; measuring all the same");
                }
                let bed = &mut beds[turn];
                let system = bed.ensemble.system;
                let times = (config.warmup, config.span);
                let sample = bed.measure_in_the_end(cell, times, results, progress)?;
                progress(&format!(
                    "{}, {}: {} {:.0} ops/s",
                    cell.name(),
                    cell.shape(),
                    system.name(),
                    sample.ops_per_second
                ));
                results.add(cell, system, sample);
            }
        }
        beds.reverse();
    }
    for bed in beds {
        let system = bed.ensemble.system;
        bed.ensemble.stop()?;
        let _ = fs::remove_dir_all(dir_of(&config.dir, system));
    }
    Ok(())
}

fn cells(config: &EnsembleConfig, short: bool) -> Vec<Cell> {
    let mut cells = table::cells(short);
    cells.retain(|cell| cell.name().contains(&config.only));
    cells
}

impl Bed {
    fn make(config: &EnsembleConfig, system: System) -> Result<Self, BenchError> {
        let dir = dir_of(&config.dir, system);
        // What an earlier, interrupted comparison left must not be served.
        let _ = fs::remove_dir_all(&dir);
        let ensemble = Ensemble::start(&config.programs, &config.etcd, system, &dir)?;
        let data = match system {
            System::Etcd => Data::Keys(Keys::make(&ensemble.servers, SHAPE)?),
            System::ZooKeeper | System::Quorate => {
                Data::Tree(Tree::make(&ensemble.servers, SHAPE, MULTI_OPS)?)
            }
        };
        Ok(Self { ensemble, data })
    }

    /// Measures a cell, and once more if the ensemble could not be reached meanwhile; the report
    /// says how often that was.
    fn measure_in_the_end(
        &mut self,
        cell: Cell,
        (warmup, span): (Duration, Duration),
        results: &mut Results,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Sample, BenchError> {
        for _ in 0..REPETITIONS_MAX {
            match self.measure(cell, warmup, span) {
                Err(error) if error.is_outage() => {
                    progress(&format!("{error}; once more"));
                    results.add_outage(self.ensemble.system);
                    self.recover()?;
                }
                measured => return measured,
            }
        }
        self.measure(cell, warmup, span)
    }

    /// Waits until all servers serve, and removes what a run left.
    fn recover(&mut self) -> Result<(), BenchError> {
        self.ensemble.wait_until_ready()?;
        match &mut self.data {
            Data::Tree(tree) => tree.remove_created(),
            Data::Keys(keys) => keys.remove_created(),
        }
    }

    fn measure(
        &mut self,
        cell: Cell,
        warmup: Duration,
        span: Duration,
    ) -> Result<Sample, BenchError> {
        self.try_to_measure(cell, warmup, span)
            .map_err(|source| BenchError::Cell {
                system: self.ensemble.system.name(),
                cell: format!("{}, {}", cell.name(), cell.shape()),
                source: Box::new(source),
            })
    }

    fn try_to_measure(
        &mut self,
        cell: Cell,
        warmup: Duration,
        span: Duration,
    ) -> Result<Sample, BenchError> {
        let mut servers = self.ensemble.leader_first()?;
        match cell.at {
            At::All => {}
            At::Leader => servers.truncate(1),
            At::Follower => {
                servers.remove(0);
                servers.truncate(1);
            }
        }
        let pids = self.ensemble.pids();
        let target = Target {
            servers: &servers,
            pids: &pids,
        };
        if let (Work::Key(op), Data::Tree(tree)) = (cell.work, &mut self.data) {
            let op = in_zookeepers_protocol(op);
            let run = RunConfig {
                op,
                read_percent: 0,
                clients: cell.clients,
                outstanding: cell.outstanding,
                threads: 1,
                warmup,
                stop: Stop::After(span),
            };
            let measurement = measure(tree, target, run)?;
            if op == Op::Create {
                tree.remove_created()?;
            }
            return Ok(Sample::of(&measurement));
        }
        if let (Work::Key(KeyOp::Get | KeyOp::Exists | KeyOp::LinearizableGet), Data::Keys(keys)) =
            (cell.work, &self.data)
        {
            keys.let_go_of_writes()?;
        }
        let crowd = Crowd {
            locks: cell.outstanding,
            contenders: cell.clients,
        };
        let (outcome, server_cpu) = match (cell.work, &mut self.data) {
            (Work::Key(op), Data::Keys(keys)) => {
                let clients = (cell.clients, cell.outstanding);
                keys.drive(target, op, clients, warmup, span)?
            }
            (_, Data::Keys(_)) => etcd::lock::contend(target, crowd, warmup, span)?,
            (_, Data::Tree(_)) => recipe::contend(target, crowd, warmup, span)?,
        };
        if let (Work::Key(KeyOp::Create), Data::Keys(keys)) = (cell.work, &mut self.data) {
            keys.remove_created()?;
        }
        Ok(sample_of(&outcome, server_cpu.unwrap_or_default()))
    }
}

fn in_zookeepers_protocol(op: KeyOp) -> Op {
    match op {
        KeyOp::Create => Op::Create,
        KeyOp::Set => Op::Set,
        KeyOp::Get => Op::Get,
        KeyOp::Exists => Op::Exists,
        KeyOp::LinearizableGet => Op::SyncedGet,
    }
}

fn sample_of(outcome: &Outcome, server_cpu: Duration) -> Sample {
    let us_per = |cpu: Duration, count: u64| cpu.as_secs_f64() * 1e6 / (count.max(1) as f64);
    Sample {
        ops_per_second: outcome.ops_per_second(),
        p50_us: outcome.latency_us(0.5),
        p99_us: outcome.latency_us(0.99),
        server_us_per_op: us_per(server_cpu, outcome.replies),
        generator_us_per_op: us_per(outcome.cpu, outcome.ops),
    }
}

/// As in the comparison of single servers; heartbeats stay below the limit.
fn wait_until_quiet(beds: &[Bed]) -> Result<bool, BenchError> {
    let used = || -> Result<Vec<Duration>, BenchError> {
        let pids = beds.iter().flat_map(|bed| bed.ensemble.pids());
        pids.map(process::cpu).collect()
    };
    let since = Instant::now();
    let mut before = used()?;
    while since.elapsed() < QUIET_PATIENCE {
        thread::sleep(QUIET_SPAN);
        let after = used()?;
        let quiet = |(before, after): (&Duration, &Duration)| *after - *before <= QUIET_TICK;
        if before.iter().zip(&after).all(quiet) {
            return Ok(true);
        }
        before = after;
    }
    Ok(false)
}
