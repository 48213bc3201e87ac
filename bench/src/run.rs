//! One measured run: sessions, driver threads, and what comes of them as text and JSON.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::driver::{Outcome, Plan, Stop, drive};
use crate::error::BenchError;
use crate::process;
use crate::session::Session;
use crate::tree::Tree;
use crate::workload::{Op, Workload};

/// What to measure, on a tree that exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunConfig {
    pub(crate) op: Op,
    /// Of a mixture.
    pub(crate) read_percent: u32,
    pub(crate) clients: usize,
    /// Of each client.
    pub(crate) outstanding: usize,
    pub(crate) threads: usize,
    pub(crate) warmup: Duration,
    pub(crate) stop: Stop,
}

/// The servers that a run's clients are spread over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) servers: &'a [SocketAddr],
    /// The servers' processes, to account for their processor time; none if they are not known.
    pub(crate) pids: &'a [u32],
}

/// A run and its result.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) config: RunConfig,
    pub(crate) data_bytes: usize,
    pub(crate) outcome: Outcome,
    /// The servers', from the start of the warm-up until the last reply.
    pub(crate) server_cpu: Option<Duration>,
}

/// Measures once. Fails if any reply was an error.
pub(crate) fn measure(
    tree: &mut Tree,
    target: Target<'_>,
    config: RunConfig,
) -> Result<Measurement, BenchError> {
    if config.clients == 0 || config.outstanding == 0 {
        return Err(BenchError::Usage("at least one client and one request"));
    }
    let threads = config.threads.clamp(1, config.clients);
    let drivers = u32::try_from(threads).unwrap_or(u32::MAX);
    let mut sessions = Session::open_many(target.servers, config.clients)?;
    let mut parts = Vec::with_capacity(threads);
    for driver in 0..drivers {
        let left = threads - parts.len();
        let share = sessions.split_off(sessions.len() - sessions.len() / left);
        let workload = Workload::new(
            &tree.paths,
            config.op,
            config.read_percent,
            tree.shape,
            tree.created_until,
            (driver, drivers),
        )?;
        parts.push((share, workload));
    }
    let plan = Plan {
        outstanding: config.outstanding,
        warmup: config.warmup,
        stop: match config.stop {
            Stop::Count(count) => Stop::Count(count.div_ceil(u64::from(drivers))),
            after @ Stop::After(_) => after,
        },
    };
    let cpu_from = process::cpu_of(target.pids)?;
    let driven: Vec<_> = thread::scope(|scope| {
        let handles: Vec<_> = parts
            .into_iter()
            .map(|(share, mut workload)| scope.spawn(move || drive(share, &mut workload, plan)))
            .collect();
        handles
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    let server_cpu = process::cpu_of(target.pids)?
        .zip(cpu_from)
        .map(|(to, from)| to - from);
    let mut outcome = Outcome::empty();
    let mut sessions = Vec::with_capacity(config.clients);
    for result in driven {
        let (part, share) = result.expect("a driver returns its errors and does not panic")?;
        outcome.merge(&part);
        sessions.extend(share);
    }
    Session::close_many(sessions)?;
    if config.op == Op::Create {
        tree.created_until = outcome.created_until;
    }
    if !outcome.errors.is_empty() {
        return Err(BenchError::Failed(outcome.errors));
    }
    Ok(Measurement {
        config,
        data_bytes: tree.shape.data_bytes,
        outcome,
        server_cpu,
    })
}

impl Measurement {
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.outcome.latency_us(quantile)
    }

    /// What one operation cost the generator itself.
    pub(crate) fn own_us_per_op(&self) -> f64 {
        self.outcome.cpu.as_secs_f64() * 1e6 / (self.outcome.ops.max(1) as f64)
    }

    /// What one operation cost the servers together.
    pub(crate) fn server_us_per_op(&self) -> Option<f64> {
        let replies = self.outcome.replies.max(1) as f64;
        self.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / replies)
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let config = &self.config;
        let outcome = &self.outcome;
        let mut name = config.op.name().to_owned();
        if config.op == Op::Mixed {
            let _ = write!(name, " {} % reads", config.read_percent);
        }
        format!(
            "{name}, {} B, {} x {}: {:.0} ops/s in {:.2} s; latency us p50 {:.0} p90 {:.0} p99 {:.0} \
             p99.9 {:.0} max {:.0}; generator {:.2} us/op, {:.2} calls/op",
            self.data_bytes,
            config.clients,
            config.outstanding,
            outcome.ops_per_second(),
            outcome.elapsed.as_secs_f64(),
            self.latency_us(0.5),
            self.latency_us(0.9),
            self.latency_us(0.99),
            self.latency_us(0.999),
            outcome.latency.max() as f64 / 1_000.0,
            self.own_us_per_op(),
            outcome.calls as f64 / outcome.ops.max(1) as f64,
        )
    }

    /// For programs: one line.
    pub(crate) fn json(&self) -> String {
        let config = &self.config;
        let outcome = &self.outcome;
        let mut json = format!(
            "{{\"op\":\"{}\",\"read_percent\":{},\"data_bytes\":{},\"clients\":{},\"outstanding\":{},\
             \"ops\":{},\"seconds\":{:.6},\"ops_per_second\":{:.1},\"errors\":0",
            config.op.name(),
            config.read_percent,
            self.data_bytes,
            config.clients,
            config.outstanding,
            outcome.ops,
            outcome.elapsed.as_secs_f64(),
            outcome.ops_per_second(),
        );
        let quantiles = [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p999", 0.999),
            ("max", 1.0),
        ];
        for (name, quantile) in quantiles {
            let latency_us = self.latency_us(quantile);
            if latency_us.is_nan() {
                let _ = write!(json, ",\"{name}_us\":null");
            } else {
                let _ = write!(json, ",\"{name}_us\":{latency_us:.1}");
            }
        }
        let _ = write!(json, ",\"generator_us_per_op\":{:.3}", self.own_us_per_op());
        if let Some(us_per_op) = self.server_us_per_op() {
            let _ = write!(json, ",\"server_us_per_op\":{us_per_op:.3}");
        }
        json.push('}');
        json
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::floor::FloorServer;
    use crate::workload::Shape;

    fn with_floor(test: impl FnOnce(SocketAddr)) {
        let dir = tempfile::tempdir().unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let floor = FloorServer::bind(dir.path(), any_port, 100, 1 << 20).unwrap();
        let address = floor.address();
        // Ends with the test process: a floor serves until then.
        thread::spawn(|| floor.serve());
        test(address);
    }

    fn count(op: Op, threads: usize, count: u64) -> RunConfig {
        RunConfig {
            op,
            read_percent: 50,
            clients: 5,
            outstanding: 7,
            threads,
            warmup: Duration::ZERO,
            stop: Stop::Count(count),
        }
    }

    const SHAPE: Shape = Shape {
        parents: 3,
        keys: 20,
        data_bytes: 100,
    };

    #[test]
    fn a_counted_run_measures_exactly_as_many_operations_over_the_wire() {
        with_floor(|server| {
            let mut tree = Tree::make(&[server], SHAPE, 10).unwrap();
            let target = Target {
                servers: &[server],
                pids: &[std::process::id()],
            };
            for op in [
                Op::Create,
                Op::Set,
                Op::Get,
                Op::Exists,
                Op::Children,
                Op::Mixed,
            ] {
                for threads in [1, 2] {
                    let measurement =
                        measure(&mut tree, target, count(op, threads, 2_000)).unwrap();
                    assert_eq!(measurement.outcome.ops, 2_000, "{op:?}");
                    assert_eq!(measurement.outcome.latency.len(), 2_000, "{op:?}");
                    assert!(measurement.json().contains("\"ops\":2000,"));
                }
            }
            // The second of two drivers is one ahead.
            assert_eq!(tree.created_until, 20 + 4_000 + 1);
            tree.remove().unwrap();
        });
    }

    #[test]
    fn a_server_that_returns_other_data_than_was_set_fails_the_run() {
        with_floor(|server| {
            let shape = Shape {
                data_bytes: 101,
                ..SHAPE
            };
            let mut tree = Tree::make(&[server], shape, 10).unwrap();
            let target = Target {
                servers: &[server],
                pids: &[],
            };
            let error = measure(&mut tree, target, count(Op::Get, 1, 10)).unwrap_err();
            assert!(matches!(error, BenchError::ReplyLength { .. }), "{error}");
        });
    }
}
