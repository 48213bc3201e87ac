//! From repeated measurements to a table: medians, and ratios of runs that stood side by side.
//!
//! On a machine whose speed varies from minute to minute, the median of the ratios of neighbouring
//! runs says more than the ratio of two medians, so that is what the table shows, with its range.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::compare::server::Subject;
use crate::run::Measurement;
use crate::workload::Op;

/// One line of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) op: Op,
    pub(crate) read_percent: u32,
    pub(crate) data_bytes: usize,
    pub(crate) clients: usize,
    pub(crate) outstanding: usize,
}

/// What the table needs of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) ops_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) server_us_per_op: f64,
    pub(crate) generator_us_per_op: f64,
}

impl Sample {
    pub(crate) fn of(measurement: &Measurement) -> Self {
        Self {
            ops_per_second: measurement.outcome.ops_per_second(),
            p50_us: measurement.latency_us(0.5),
            p99_us: measurement.latency_us(0.99),
            server_us_per_op: measurement.server_us_per_op().unwrap_or(f64::NAN),
            generator_us_per_op: measurement.own_us_per_op(),
        }
    }
}

/// All samples, in the order in which they were taken: the n-th of one server stood beside the n-th
/// of another.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cells: Vec<(Cell, BTreeMap<Subject, Vec<Sample>>)>,
}

impl Results {
    pub(crate) fn add(&mut self, cell: Cell, subject: Subject, sample: Sample) {
        let known = self.cells.iter().position(|(known, _)| *known == cell);
        let index = known.unwrap_or_else(|| {
            self.cells.push((cell, BTreeMap::new()));
            self.cells.len() - 1
        });
        self.cells[index].1.entry(subject).or_default().push(sample);
    }

    /// A table in Markdown, one row per cell.
    pub(crate) fn markdown(&self) -> String {
        let mut table = String::from(
            "| operation | clients x outstanding | ZooKeeper ops/s | Quorate ops/s \
             | Quorate / ZooKeeper (range) | floor ops/s | Quorate / floor \
             | p50, p99 ms ZooKeeper | p50, p99 ms Quorate | p50, p99 ms floor \
             | server CPU us/op ZooKeeper, Quorate, floor | generator CPU us/op |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (cell, samples) in &self.cells {
            let of = |subject| samples.get(&subject).map_or(&[][..], Vec::as_slice);
            let (zookeeper, quorate, floor) = (
                of(Subject::ZooKeeper),
                of(Subject::Quorate),
                of(Subject::Floor),
            );
            let rate = |samples: &[Sample]| show(median_of(samples, |s| s.ops_per_second), 0);
            let latency = |samples: &[Sample]| {
                let p50 = median_of(samples, |s| s.p50_us / 1e3);
                let p99 = median_of(samples, |s| s.p99_us / 1e3);
                format!("{}, {}", show(p50, 2), show(p99, 2))
            };
            let server = |samples: &[Sample]| show(median_of(samples, |s| s.server_us_per_op), 1);
            let generator =
                |samples: &[Sample]| show(median_of(samples, |s| s.generator_us_per_op), 1);
            let _ = writeln!(
                table,
                "| {} | {} x {} | {} | {} | {} | {} | {} | {} | {} | {} | {}, {}, {} | {}, {}, {} |",
                cell.name(),
                cell.clients,
                cell.outstanding,
                rate(zookeeper),
                rate(quorate),
                show_ratio(Ratio::of(quorate, zookeeper)),
                rate(floor),
                show(Ratio::of(quorate, floor).map(|ratio| ratio.median), 2),
                latency(zookeeper),
                latency(quorate),
                latency(floor),
                server(zookeeper),
                server(quorate),
                server(floor),
                generator(zookeeper),
                generator(quorate),
                generator(floor),
            );
        }
        table
    }
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let bytes = match self.data_bytes {
            1024 => "1 KiB".to_owned(),
            bytes => format!("{bytes} B"),
        };
        match self.op {
            Op::Mixed => format!("{} % get, rest set, {bytes}", self.read_percent),
            Op::Exists | Op::Children => self.op.name().to_owned(),
            op => format!("{}, {bytes}", op.name()),
        }
    }
}

/// How one server stood to another in runs side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Ratio {
    /// Of the rates.
    fn of(samples: &[Sample], to: &[Sample]) -> Option<Self> {
        Self::by(samples, to, |sample| sample.ops_per_second)
    }

    pub(crate) fn by(
        samples: &[Sample],
        to: &[Sample],
        value: impl Fn(&Sample) -> f64,
    ) -> Option<Self> {
        let mut ratios: Vec<f64> = samples
            .iter()
            .zip(to)
            .map(|(a, b)| value(a) / value(b))
            .collect();
        let median = median(&mut ratios)?;
        Some(Self {
            median,
            min: *ratios.first()?,
            max: *ratios.last()?,
        })
    }
}

pub(crate) fn median_of(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    median(&mut values)
}

/// Sorts the values; the mean of the middle two if their number is even.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, values[values.len() / 2 - 1]))
}

pub(crate) fn show(value: Option<f64>, decimals: usize) -> String {
    match value {
        Some(value) if !value.is_nan() => format!("{value:.decimals$}"),
        _ => "-".to_owned(),
    }
}

pub(crate) fn show_ratio(ratio: Option<Ratio>) -> String {
    ratio.map_or_else(
        || "-".to_owned(),
        |ratio| {
            format!(
                "**{:.2}** ({:.2} to {:.2})",
                ratio.median, ratio.min, ratio.max
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ops_per_second: f64) -> Sample {
        Sample {
            ops_per_second,
            p50_us: 1_500.0,
            p99_us: 2_500.0,
            server_us_per_op: 3.0,
            generator_us_per_op: 1.0,
        }
    }

    fn samples(rates: &[f64]) -> Vec<Sample> {
        rates.iter().copied().map(sample).collect()
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_middle_two() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn a_ratio_compares_runs_that_stood_side_by_side() {
        // The machine was half as fast in the second repetition; the ratio of medians (250 / 100)
        // would be wrong, that of neighbours is 2 throughout.
        let ratio = Ratio::of(
            &samples(&[400.0, 200.0, 250.0]),
            &samples(&[200.0, 100.0, 100.0]),
        );
        let expected = Ratio {
            median: 2.0,
            min: 2.0,
            max: 2.5,
        };
        assert_eq!(ratio, Some(expected));
    }

    #[test]
    fn a_server_that_was_not_measured_leaves_its_columns_empty() {
        let cell = Cell {
            op: Op::Create,
            read_percent: 0,
            data_bytes: 1024,
            clients: 30,
            outstanding: 10,
        };
        let mut results = Results::default();
        results.add(cell, Subject::ZooKeeper, sample(1_000.0));
        results.add(cell, Subject::Floor, sample(4_000.0));
        let row = results.markdown().lines().nth(2).map(str::to_owned);
        let expected = "| create, 1 KiB | 30 x 10 | 1000 | - | - | 4000 | - | 1.50, 2.50 | -, - \
                        | 1.50, 2.50 | 3.0, -, 3.0 | 1.0, -, 1.0 |";
        assert_eq!(row.as_deref(), Some(expected));
        assert_eq!(results.markdown().lines().count(), 3);
    }

    #[test]
    fn every_row_has_as_many_columns_as_the_heading() {
        let cell = Cell {
            op: Op::Mixed,
            read_percent: 90,
            data_bytes: 1024,
            clients: 1,
            outstanding: 1,
        };
        let mut results = Results::default();
        for subject in [Subject::ZooKeeper, Subject::Quorate, Subject::Floor] {
            results.add(cell, subject, sample(10.0));
        }
        let table = results.markdown();
        let columns: Vec<usize> = table
            .lines()
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(columns, vec![columns[0]; 3]);
    }
}
