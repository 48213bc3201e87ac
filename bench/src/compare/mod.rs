//! Quorate against Apache ZooKeeper and the floor, on this machine, by one command.
//!
//! All servers run at the same time on the same disk, but only one is driven at a
//! time, and only once the others have become quiet. Their turns alternate, cell by cell, and the
//! order is turned round in every other round. Every start is with fresh servers and empty folders,
//! and drives each with every operation before anything is measured, because a JVM
//! is slow until it has compiled what it runs.

pub(crate) mod child;
pub(crate) mod server;
pub(crate) mod table;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::compare::server::{Programs, Server, Subject};
use crate::compare::table::{Cell, Results, Sample};
use crate::driver::Stop;
use crate::error::BenchError;
use crate::fill::{self, Filled, bytes_per_znode};
use crate::machine;
use crate::process::{self, Memory};
use crate::run::{RunConfig, Target, measure};
use crate::tree::{MULTI_OPS, Tree};
use crate::workload::{Op, Shape};

/// A server is quiet when it used no more than one tick of processor time (10 ms) in this span.
pub(crate) const QUIET_SPAN: Duration = Duration::from_millis(100);
pub(crate) const QUIET_TICK: Duration = Duration::from_millis(10);
pub(crate) const QUIET_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct CompareConfig {
    pub(crate) programs: Programs,
    /// Data folders are made and removed in here.
    pub(crate) dir: PathBuf,
    pub(crate) short: bool,
    /// How often all servers are started afresh.
    pub(crate) starts: usize,
    /// How often the matrix is gone through after each start.
    pub(crate) rounds: usize,
    /// Measured per cell and round.
    pub(crate) span: Duration,
    pub(crate) warmup: Duration,
    /// Before the first cell, in all.
    pub(crate) first_warmup: Duration,
    /// 0 leaves the comparison of memory out.
    pub(crate) znodes: u32,
}

/// Runs everything and returns the report, in Markdown. Says on the way where it is.
pub(crate) fn compare(
    config: &CompareConfig,
    progress: &mut dyn FnMut(&str),
) -> Result<String, BenchError> {
    fs::create_dir_all(&config.dir).map_err(|source| BenchError::File {
        doing: "creating",
        path: config.dir.clone(),
        source,
    })?;
    let subjects: Vec<Subject> = [Subject::ZooKeeper, Subject::Quorate, Subject::Floor]
        .into_iter()
        .filter(|subject| config.programs.has(*subject))
        .collect();
    let report = compare_all(config, &subjects, progress);
    // Also after a failure: a comparison writes gigabytes.
    for subject in subjects {
        remove_dir(&data_dir(config, subject));
    }
    report
}

fn compare_all(
    config: &CompareConfig,
    subjects: &[Subject],
    progress: &mut dyn FnMut(&str),
) -> Result<String, BenchError> {
    let mut report = heading(config, subjects)?;
    let mut results = Results::default();
    for start in 0..config.starts {
        progress(&format!("start {} of {}", start + 1, config.starts));
        run_matrix(config, subjects, &mut results, progress)?;
    }
    let _ = writeln!(report, "{}", results.markdown());
    if config.znodes > 0 {
        let memory = compare_memory(config, subjects, progress)?;
        let _ = writeln!(report, "{memory}");
    }
    Ok(report)
}

fn heading(config: &CompareConfig, subjects: &[Subject]) -> Result<String, BenchError> {
    let fsync = machine::fsync_latency(&config.dir)?;
    let mut heading = format!(
        "{}; 4 KiB write + fdatasync: p50 {} us, p99 {} us\n",
        machine::describe(&config.dir),
        fsync.p50_us,
        fsync.p99_us
    );
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name()).collect();
    let _ = writeln!(
        heading,
        "Servers: {}; {} fresh starts, each with {} runs of {:.2} s per cell.",
        names.join(", "),
        config.starts,
        config.rounds,
        config.span.as_secs_f64()
    );
    if subjects.contains(&Subject::ZooKeeper) {
        let _ = writeln!(heading, "{}", describe_java(&config.programs.java));
    }
    heading.push('\n');
    Ok(heading)
}

/// The JVM, and the heap it grants itself by default on this machine.
pub(crate) fn describe_java(java: &Path) -> String {
    let output = Command::new(java)
        .args(["-XX:+PrintFlagsFinal", "-version"])
        .output();
    let Ok(output) = output else {
        return "JVM unknown".to_owned();
    };
    let flags = String::from_utf8_lossy(&output.stdout);
    let heap_mib = flags
        .lines()
        .filter_map(|line| line.trim().strip_prefix("size_t MaxHeapSize"))
        .find_map(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |bytes| bytes >> 20);
    let version = String::from_utf8_lossy(&output.stderr);
    let version = version.lines().next().unwrap_or_default();
    format!("JVM: {version}; heap by default at most {heap_mib} MiB.")
}

/// A server with what the cells work on.
struct Bed {
    server: Server,
    trees: Vec<Tree>,
}

fn run_matrix(
    config: &CompareConfig,
    subjects: &[Subject],
    results: &mut Results,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    let mut beds = Vec::new();
    for subject in subjects {
        beds.push(make_bed(config, *subject)?);
    }
    for bed in &mut beds {
        warm_up(bed, config.first_warmup)?;
    }
    for _ in 0..config.rounds {
        for cell in cells(config.short) {
            for turn in 0..beds.len() {
                if !wait_until_quiet(&beds)? {
                    progress("the servers did not become quiet; measuring all the same");
                }
                let bed = &mut beds[turn];
                let subject = bed.server.subject;
                let sample = measure_cell(bed, cell, config)?;
                progress(&format!(
                    "{}, {} x {}: {} {:.0} ops/s",
                    cell.name(),
                    cell.clients,
                    cell.outstanding,
                    subject.name(),
                    sample.ops_per_second
                ));
                results.add(cell, subject, sample);
            }
        }
        beds.reverse();
    }
    for bed in beds {
        let subject = bed.server.subject;
        bed.server.stop()?;
        remove_dir(&data_dir(config, subject));
    }
    Ok(())
}

fn data_dir(config: &CompareConfig, subject: Subject) -> PathBuf {
    config.dir.join(subject.name())
}

/// What an earlier, interrupted comparison left must not be served.
fn remove_dir(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
}

fn make_bed(config: &CompareConfig, subject: Subject) -> Result<Bed, BenchError> {
    let dir = data_dir(config, subject);
    remove_dir(&dir);
    let server = Server::start(&config.programs, subject, &dir)?;
    let mut trees = Vec::new();
    for data_bytes in [1024, 100] {
        let shape = Shape {
            parents: 200,
            keys: 10_000,
            data_bytes,
        };
        trees.push(Tree::make(&[server.address], shape, MULTI_OPS)?);
    }
    Ok(Bed { server, trees })
}

fn run_config(cell: Cell, warmup: Duration, span: Duration) -> RunConfig {
    RunConfig {
        op: cell.op,
        read_percent: cell.read_percent,
        clients: cell.clients,
        outstanding: cell.outstanding,
        threads: 1,
        warmup,
        stop: Stop::After(span),
    }
}

/// Every operation, with many clients: what gets compiled here is what is measured later.
fn warm_up(bed: &mut Bed, span: Duration) -> Result<(), BenchError> {
    let ops = [Op::Create, Op::Set, Op::Get, Op::Exists, Op::Children];
    for op in ops {
        let cell = Cell {
            op,
            read_percent: 0,
            data_bytes: 1024,
            clients: 30,
            outstanding: 10,
        };
        let share = span / 5;
        let config = run_config(cell, Duration::ZERO, share);
        let target = Target {
            servers: &[bed.server.address],
            pids: &[],
        };
        measure(&mut bed.trees[0], target, config)?;
        bed.trees[0].remove_created()?;
    }
    Ok(())
}

fn measure_cell(bed: &mut Bed, cell: Cell, config: &CompareConfig) -> Result<Sample, BenchError> {
    let run = run_config(cell, config.warmup, config.span);
    let target = Target {
        servers: &[bed.server.address],
        pids: &[bed.server.pid()],
    };
    let tree = bed
        .trees
        .iter_mut()
        .find(|tree| tree.shape.data_bytes == cell.data_bytes)
        .ok_or(BenchError::Usage("a cell has a data length without a tree"))?;
    let measurement = measure(tree, target, run)?;
    if cell.op == Op::Create {
        tree.remove_created()?;
    }
    Ok(Sample::of(&measurement))
}

/// Collections of garbage, snapshots and the like of one server must not slow down the next.
fn wait_until_quiet(beds: &[Bed]) -> Result<bool, BenchError> {
    let used = || -> Result<Vec<Duration>, BenchError> {
        beds.iter().map(|bed| bed.server.cpu()).collect()
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

/// The matrix; the durable writes with many clients, which matter most, come first.
fn cells(short: bool) -> Vec<Cell> {
    let kinds: &[(Op, u32, usize)] = if short {
        &[
            (Op::Create, 0, 1024),
            (Op::Set, 0, 1024),
            (Op::Get, 0, 1024),
            (Op::Mixed, 90, 1024),
        ]
    } else {
        &[
            (Op::Create, 0, 1024),
            (Op::Set, 0, 1024),
            (Op::Create, 0, 100),
            (Op::Set, 0, 100),
            (Op::Get, 0, 1024),
            (Op::Exists, 0, 1024),
            (Op::Children, 0, 1024),
            (Op::Mixed, 90, 1024),
            (Op::Mixed, 50, 1024),
        ]
    };
    let shapes: &[(usize, usize)] = &[(30, 10), (200, 10), (1, 1), (1, 100)];
    let mut cells = Vec::new();
    for (op, read_percent, data_bytes) in kinds {
        for (clients, outstanding) in shapes {
            let is_write = matches!(op, Op::Create | Op::Set);
            if short && (*outstanding == 100 || !is_write && *clients != 30) {
                continue;
            }
            cells.push(Cell {
                op: *op,
                read_percent: *read_percent,
                data_bytes: *data_bytes,
                clients: *clients,
                outstanding: *outstanding,
            });
        }
    }
    cells
}

/// What a tree costs, and how long a server needs to serve it again.
struct Footprint {
    subject: Subject,
    filled: Filled,
    /// After the JVM was told to collect its garbage, where it can be told.
    collected: Option<Memory>,
    restart: Duration,
    restarted: Memory,
}

fn compare_memory(
    config: &CompareConfig,
    subjects: &[Subject],
    progress: &mut dyn FnMut(&str),
) -> Result<String, BenchError> {
    let mut footprints = Vec::new();
    for subject in subjects {
        // The floor keeps no tree.
        if *subject == Subject::Floor {
            continue;
        }
        let footprint = measure_footprint(config, *subject)?;
        progress(&format!(
            "{}: {}",
            subject.name(),
            footprint.filled.lines().lines().next().unwrap_or_default()
        ));
        footprints.push(footprint);
    }
    Ok(memory_table(config.znodes, &footprints))
}

fn measure_footprint(config: &CompareConfig, subject: Subject) -> Result<Footprint, BenchError> {
    let dir = data_dir(config, subject);
    remove_dir(&dir);
    let server = Server::start(&config.programs, subject, &dir)?;
    let pid = server.pid();
    let filled = fill::fill(server.address, config.znodes, 100, MULTI_OPS, Some(pid))?;
    let collected = match subject {
        Subject::ZooKeeper => collect_garbage(&config.programs.java, pid)?,
        _ => None,
    };
    server.stop()?;
    let server = Server::start(&config.programs, subject, &dir)?;
    let footprint = Footprint {
        subject,
        filled,
        collected,
        restart: server.ready_after,
        restarted: process::memory(server.pid())?,
    };
    server.stop()?;
    remove_dir(&dir);
    Ok(footprint)
}

/// A JVM keeps what it once took, so what it was given up to is no measure of what it needs: this is
/// the least that an operator could get it to use. Needs `jcmd`, which a JDK has.
fn collect_garbage(java: &Path, pid: u32) -> Result<Option<Memory>, BenchError> {
    let jcmd = java.with_file_name("jcmd");
    let status = Command::new(jcmd)
        .args([&pid.to_string(), "GC.run"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => process::memory(pid).map(Some),
        _ => Ok(None),
    }
}

fn memory_table(znodes: u32, footprints: &[Footprint]) -> String {
    let mut table = format!(
        "| {znodes} znodes of 100 B | loaded in s | resident MiB (peak) | after a forced collection MiB | added B per znode \
         | start until first read ms | resident MiB after restart (peak) |\n\
         |---|---:|---:|---:|---:|---:|---:|\n"
    );
    for footprint in footprints {
        let (before, after) = footprint.filled.memory.unwrap_or_default();
        let restarted = footprint.restarted;
        let _ = writeln!(
            table,
            "| {} | {:.1} | {} ({}) | {} | {} | {:.0} | {} ({}) |",
            footprint.subject.name(),
            footprint.filled.elapsed.as_secs_f64(),
            after.rss_kib >> 10,
            after.rss_peak_kib >> 10,
            footprint.collected.map_or_else(
                || "-".to_owned(),
                |memory| (memory.rss_kib >> 10).to_string()
            ),
            bytes_per_znode(before, after, znodes),
            footprint.restart.as_secs_f64() * 1e3,
            restarted.rss_kib >> 10,
            restarted.rss_peak_kib >> 10,
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_matrix_has_no_cell_twice_and_the_short_one_is_part_of_it() {
        let full = cells(false);
        assert_eq!(full.len(), 36);
        assert_eq!(full.iter().collect::<BTreeSet<_>>().len(), 36);
        let short = cells(true);
        assert!(short.iter().all(|cell| full.contains(cell)));
        assert_eq!(short.len(), 8);
    }
}
