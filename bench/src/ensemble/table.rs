//! What is measured of an ensemble, and the report: ratios of runs side by side, as in
//! [`crate::compare::table`], and what was to be reached.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::compare::table::{Ratio, Sample, median_of, show, show_ratio};
use crate::ensemble::members::System;
use crate::etcd::load::KeyOp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Key(KeyOp),
    /// As many clients contend for each of `outstanding` locks.
    Lock,
}

/// The servers that the clients are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// As many to each.
    All,
    Leader,
    /// One that does not lead.
    Follower,
}

/// One line of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) work: Work,
    pub(crate) at: At,
    pub(crate) clients: usize,
    pub(crate) outstanding: usize,
}

impl Cell {
    pub(crate) fn name(&self) -> &'static str {
        match self.work {
            Work::Key(KeyOp::Create) => "create, 1 KiB (etcd: put of a new key)",
            Work::Key(KeyOp::Set) => "set, 1 KiB (etcd: put)",
            Work::Key(KeyOp::Get) => "get, 1 KiB (etcd: serializable range)",
            Work::Key(KeyOp::Exists) => "exists (etcd: serializable range, keys only)",
            Work::Key(KeyOp::LinearizableGet) => "sync and get, 1 KiB (etcd: linearizable range)",
            Work::Lock => "lock hand-overs",
        }
    }

    pub(crate) fn shape(&self) -> String {
        let Self {
            clients,
            outstanding,
            ..
        } = self;
        match (self.work, self.at) {
            (Work::Lock, _) if *outstanding == 1 => format!("1 lock, {clients} contenders"),
            (Work::Lock, _) => format!("{outstanding} locks, {clients} contenders each"),
            (_, At::All) => format!("{clients} x {outstanding}"),
            (_, At::Leader) => format!("{clients} x {outstanding}, at the leader"),
            (_, At::Follower) => format!("{clients} x {outstanding}, at a follower"),
        }
    }

    fn is_write(&self) -> bool {
        matches!(self.work, Work::Key(KeyOp::Create | KeyOp::Set))
    }

    fn is_read(&self) -> bool {
        matches!(self.work, Work::Key(KeyOp::Get | KeyOp::Exists))
    }
}

/// The matrix.
pub(crate) fn cells(short: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut add = |work, at, clients, outstanding| {
        cells.push(Cell {
            work,
            at,
            clients,
            outstanding,
        });
    };
    for op in [KeyOp::Create, KeyOp::Set] {
        add(Work::Key(op), At::All, 30, 10);
        add(Work::Key(op), At::All, 200, 10);
        add(Work::Key(op), At::Leader, 1, 1);
        add(Work::Key(op), At::Follower, 1, 1);
    }
    for op in [KeyOp::Get, KeyOp::Exists, KeyOp::LinearizableGet] {
        add(Work::Key(op), At::All, 30, 10);
        if !short {
            add(Work::Key(op), At::All, 200, 10);
            add(Work::Key(op), At::Leader, 1, 1);
            add(Work::Key(op), At::Follower, 1, 1);
        }
    }
    for (locks, contenders) in [(1, 3), (1, 30), (100, 3)] {
        add(Work::Lock, At::All, contenders, locks);
    }
    cells
}

/// All samples, in the order in which they were taken: the n-th of one system stood beside the n-th
/// of another.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cells: Vec<(Cell, BTreeMap<System, Vec<Sample>>)>,
    outages: BTreeMap<System, usize>,
}

/// Something that was to be reached.
struct Aim {
    name: &'static str,
    concerns: fn(&Cell) -> bool,
    value: fn(&Sample) -> f64,
    to: System,
    bound: f64,
    /// Whether the bound is a least, and not a most.
    at_least: bool,
}

const AIMS: &[Aim] = &[
    Aim {
        name: "durable writes, 300 and 2,000 outstanding: 3 times ZooKeeper's",
        concerns: |cell| cell.is_write() && cell.at == At::All,
        value: |sample| sample.ops_per_second,
        to: System::ZooKeeper,
        bound: 3.0,
        at_least: true,
    },
    Aim {
        name: "the same: 4 times etcd's",
        concerns: |cell| cell.is_write() && cell.at == At::All,
        value: |sample| sample.ops_per_second,
        to: System::Etcd,
        bound: 4.0,
        at_least: true,
    },
    Aim {
        name: "write latency of one client, p50: at most 0.7 of ZooKeeper's",
        concerns: |cell| cell.is_write() && cell.at != At::All,
        value: |sample| sample.p50_us,
        to: System::ZooKeeper,
        bound: 0.7,
        at_least: false,
    },
    Aim {
        name: "the same, p99",
        concerns: |cell| cell.is_write() && cell.at != At::All,
        value: |sample| sample.p99_us,
        to: System::ZooKeeper,
        bound: 0.7,
        at_least: false,
    },
    Aim {
        name: "write latency of one client, p50: at most 0.7 of etcd's",
        concerns: |cell| cell.is_write() && cell.at != At::All,
        value: |sample| sample.p50_us,
        to: System::Etcd,
        bound: 0.7,
        at_least: false,
    },
    Aim {
        name: "the same, p99",
        concerns: |cell| cell.is_write() && cell.at != At::All,
        value: |sample| sample.p99_us,
        to: System::Etcd,
        bound: 0.7,
        at_least: false,
    },
    Aim {
        name: "reads: 3 times ZooKeeper's",
        concerns: |cell| cell.is_read() && cell.at == At::All,
        value: |sample| sample.ops_per_second,
        to: System::ZooKeeper,
        bound: 3.0,
        at_least: true,
    },
    Aim {
        name: "lock hand-overs: 3 times ZooKeeper's",
        concerns: |cell| cell.work == Work::Lock,
        value: |sample| sample.ops_per_second,
        to: System::ZooKeeper,
        bound: 3.0,
        at_least: true,
    },
    Aim {
        name: "the same: 3 times etcd's",
        concerns: |cell| cell.work == Work::Lock,
        value: |sample| sample.ops_per_second,
        to: System::Etcd,
        bound: 3.0,
        at_least: true,
    },
];

impl Results {
    pub(crate) fn add(&mut self, cell: Cell, system: System, sample: Sample) {
        let known = self.cells.iter().position(|(known, _)| *known == cell);
        let index = known.unwrap_or_else(|| {
            self.cells.push((cell, BTreeMap::new()));
            self.cells.len() - 1
        });
        self.cells[index].1.entry(system).or_default().push(sample);
    }

    /// Notes that a run had to be repeated, because the ensemble did not serve throughout.
    pub(crate) fn add_outage(&mut self, system: System) {
        *self.outages.entry(system).or_default() += 1;
    }

    /// A line that says so, if there was an outage.
    pub(crate) fn outages(&self) -> String {
        if self.outages.is_empty() {
            return String::new();
        }
        let counts = self.outages.iter();
        let counts: Vec<String> = counts
            .map(|(system, count)| format!("{} {count}", system.name()))
            .collect();
        format!(
            "Runs repeated because the ensemble did not serve throughout: {}.\n\n",
            counts.join(", ")
        )
    }

    /// What was to be reached and what was, as a table in Markdown; the values of a row are in the
    /// order of the cells. Without one of the systems, its rows are left out.
    pub(crate) fn aims(&self) -> String {
        let mut table =
            String::from("| Aim, three servers each | Here | Reached |\n|---|---|---|\n");
        for aim in AIMS {
            let ratios: Vec<f64> = self
                .cells
                .iter()
                .filter(|(cell, _)| (aim.concerns)(cell))
                .filter_map(|(_, samples)| {
                    let (own, others) = (samples.get(&System::Quorate)?, samples.get(&aim.to)?);
                    Ratio::by(own, others, aim.value).map(|ratio| ratio.median)
                })
                .collect();
            if ratios.is_empty() {
                continue;
            }
            let reached = |ratio: &&f64| match aim.at_least {
                true => **ratio >= aim.bound,
                false => **ratio <= aim.bound,
            };
            let shown: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
            let verdict = match ratios.iter().filter(reached).count() {
                0 => "**no**".to_owned(),
                all if all == ratios.len() => "yes".to_owned(),
                some => format!("**{some} of {}**", ratios.len()),
            };
            let _ = writeln!(table, "| {} | {} | {verdict} |", aim.name, shown.join(", "));
        }
        table
    }

    /// A table in Markdown, one row per cell.
    pub(crate) fn markdown(&self) -> String {
        let mut table = String::from(
            "| operation | clients x outstanding | ZooKeeper ops/s | etcd ops/s | Quorate ops/s \
             | Quorate / ZooKeeper (range) | Quorate / etcd (range) \
             | p50, p99 ms ZooKeeper | p50, p99 ms etcd | p50, p99 ms Quorate \
             | of ZooKeeper's p50, p99 | of etcd's p50, p99 \
             | CPU us/op of the three servers: ZooKeeper, etcd, Quorate | generator CPU us/op |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (cell, samples) in &self.cells {
            let of = |system| samples.get(&system).map_or(&[][..], Vec::as_slice);
            let all = System::ALL.map(of);
            let [zookeeper, etcd, quorate] = all;
            let rate = |samples: &[Sample]| show(median_of(samples, |s| s.ops_per_second), 0);
            let latency = |samples: &[Sample]| {
                let p50 = median_of(samples, |s| s.p50_us / 1e3);
                let p99 = median_of(samples, |s| s.p99_us / 1e3);
                format!("{}, {}", show(p50, 2), show(p99, 2))
            };
            let latency_ratio = |to: &[Sample]| {
                let p50 = Ratio::by(quorate, to, |s| s.p50_us).map(|ratio| ratio.median);
                let p99 = Ratio::by(quorate, to, |s| s.p99_us).map(|ratio| ratio.median);
                format!("{}, {}", show(p50, 2), show(p99, 2))
            };
            let rate_ratio =
                |to: &[Sample]| show_ratio(Ratio::by(quorate, to, |s| s.ops_per_second));
            let servers = all.map(|samples| show(median_of(samples, |s| s.server_us_per_op), 1));
            let generator =
                all.map(|samples| show(median_of(samples, |s| s.generator_us_per_op), 1));
            let columns = [
                cell.name().to_owned(),
                cell.shape(),
                rate(zookeeper),
                rate(etcd),
                rate(quorate),
                rate_ratio(zookeeper),
                rate_ratio(etcd),
                latency(zookeeper),
                latency(etcd),
                latency(quorate),
                latency_ratio(zookeeper),
                latency_ratio(etcd),
                servers.join(", "),
                generator.join(", "),
            ];
            let _ = writeln!(table, "| {} |", columns.join(" | "));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ops_per_second: f64, ms: f64) -> Sample {
        Sample {
            ops_per_second,
            p50_us: ms * 1e3,
            p99_us: ms * 2e3,
            server_us_per_op: 3.0,
            generator_us_per_op: 1.0,
        }
    }

    fn full(quorate: Sample) -> Results {
        let mut results = Results::default();
        for cell in cells(false) {
            results.add(cell, System::ZooKeeper, sample(1_000.0, 10.0));
            results.add(cell, System::Etcd, sample(1_000.0, 10.0));
            results.add(cell, System::Quorate, quorate);
        }
        results
    }

    #[test]
    fn the_short_matrix_is_part_of_the_full_one() {
        let (short, full) = (cells(true), cells(false));
        assert!(short.iter().all(|cell| full.contains(cell)));
        let twice = |cell| full.iter().filter(|other| *other == cell).count() > 1;
        assert!(!full.iter().any(twice));
    }

    #[test]
    fn every_row_has_as_many_columns_as_the_heading() {
        let mut results = full(sample(3_500.0, 6.0));
        let alone = Cell {
            work: Work::Lock,
            at: At::All,
            clients: 4,
            outstanding: 1,
        };
        results.add(alone, System::Etcd, sample(1.0, 1.0));
        for table in [results.markdown(), results.aims()] {
            let columns: Vec<usize> = table
                .lines()
                .map(|line| line.matches('|').count())
                .collect();
            assert_eq!(columns, vec![columns[0]; columns.len()]);
        }
    }

    #[test]
    fn an_aim_is_reached_when_all_its_ratios_are_on_the_right_side() {
        let verdicts = |results: &Results| -> Vec<bool> {
            let aims = results.aims();
            let rows = aims.lines().skip(2);
            rows.map(|row| row.ends_with("| yes |")).collect()
        };
        // 3.5 times the rate and 0.6 of the latency: only 4 times etcd's rate is missed.
        let expected = [true, false, true, true, true, true, true, true, true];
        assert_eq!(verdicts(&full(sample(3_500.0, 6.0))), expected);
        let slow = verdicts(&full(sample(500.0, 20.0)));
        assert_eq!(slow, [false; 9]);
    }

    #[test]
    fn a_system_that_was_not_measured_has_no_aims() {
        let mut results = Results::default();
        for cell in cells(true) {
            results.add(cell, System::ZooKeeper, sample(1_000.0, 10.0));
            results.add(cell, System::Quorate, sample(4_000.0, 1.0));
        }
        assert!(!results.aims().contains("etcd"));
        assert_eq!(results.aims().lines().count(), 2 + 5);
    }
}
