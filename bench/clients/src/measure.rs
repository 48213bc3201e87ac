//! Driving a library, and putting figures together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::library::{Failure, Library};

/// Sessions that are opened to see what one costs.
const SESSIONS: usize = 200;

#[derive(Clone, Copy)]
pub(crate) enum Workload {
    Get,
    Set,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
        }
    }
}

/// Of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Figures {
    fn of(mut latencies: Vec<Duration>, elapsed: Duration) -> Result<Self, Failure> {
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            latencies
                .get(index.min(latencies.len().saturating_sub(1)))
                .map(|latency| latency.as_secs_f64() * 1e6)
                .ok_or("nothing was answered")
        };
        Ok(Self {
            per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50_us: at(0.5)?,
            p99_us: at(0.99)?,
        })
    }
}

/// Keeps so many requests outstanding; each answer is followed by a new request.
pub(crate) async fn closed_loop<L: Library>(
    client: &L,
    workload: Workload,
    outstanding: usize,
    span: Duration,
) -> Result<Figures, Failure> {
    let one = || async {
        let begun = Instant::now();
        match workload {
            Workload::Get => client.get().await?,
            Workload::Set => client.set().await?,
        }
        Ok::<_, Failure>(begun.elapsed())
    };
    let mut under_way: FuturesUnordered<_> = (0..outstanding).map(|_| one()).collect();
    // The first answers warm up.
    let warm_up = Instant::now() + span / 5;
    while Instant::now() < warm_up {
        if let Some(done) = under_way.next().await {
            done?;
            under_way.push(one());
        }
    }
    let begun = Instant::now();
    let mut latencies = Vec::new();
    while begun.elapsed() < span {
        if let Some(done) = under_way.next().await {
            latencies.push(done?);
            under_way.push(one());
        }
    }
    let figures = Figures::of(latencies, begun.elapsed())?;
    while let Some(done) = under_way.next().await {
        done?;
    }
    Ok(figures)
}

/// From the moment a write is made until the watch on another session tells of it.
pub(crate) async fn watches<L: Library>(
    watching: &L,
    writing: &L,
    span: Duration,
) -> Result<Figures, Failure> {
    let begun = Instant::now();
    let mut latencies = Vec::new();
    while begun.elapsed() < span {
        let told = watching.watch().await?;
        let set = Instant::now();
        let told = async {
            told.await;
            set.elapsed()
        };
        let (latency, done) = futures_util::future::join(told, writing.set()).await;
        done?;
        latencies.push(latency);
    }
    Figures::of(latencies, begun.elapsed())
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmRSS")?
        .parse()?;
    Ok(kilobytes * 1024.0)
}

pub(crate) async fn memory_per_session<L: Library>(server: &str) -> Result<f64, Failure> {
    let mut sessions = Vec::with_capacity(SESSIONS);
    // What the first few allocate for all does not count.
    for _ in 0..20 {
        sessions.push(L::connect(server).await?);
    }
    let before = resident()?;
    for _ in 0..SESSIONS {
        let session = L::connect(server).await?;
        session.get().await?;
        sessions.push(session);
    }
    let after = resident()?;
    Ok((after - before).max(0.0) / SESSIONS as f64)
}

/// All runs.
#[derive(Default)]
pub(crate) struct Table {
    /// By workload, then by library.
    runs: BTreeMap<String, BTreeMap<&'static str, Vec<Figures>>>,
    memory: BTreeMap<&'static str, Vec<f64>>,
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Table {
    pub(crate) fn add(&mut self, library: &'static str, workload: &str, figures: Figures) {
        let by_library = self.runs.entry(workload.to_owned()).or_default();
        by_library.entry(library).or_default().push(figures);
    }

    pub(crate) fn add_memory(&mut self, library: &'static str, bytes: f64) {
        self.memory.entry(library).or_default().push(bytes);
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| one session | client | requests/s | p50 us | p99 us |\n|---|---|---:|---:|---:|\n",
        );
        for (workload, by_library) in &self.runs {
            for (library, runs) in by_library {
                let of = |pick: fn(&Figures) -> f64| median(runs.iter().map(pick).collect());
                let _ = writeln!(
                    text,
                    "| {workload} | {library} | {:.0} | {:.0} | {:.0} |",
                    of(|figures| figures.per_second),
                    of(|figures| figures.p50_us),
                    of(|figures| figures.p99_us)
                );
            }
        }
        text.push_str("\n| memory of a session | bytes |\n|---|---:|\n");
        for (library, bytes) in &self.memory {
            let _ = writeln!(text, "| {library} | {:.0} |", median(bytes.clone()));
        }
        text
    }
}
