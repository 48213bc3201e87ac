//! Servers that have little: few file descriptors, little memory.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_protocol::request::SetData;

use super::host::Host;
use super::probe::{calm, on_all, worst};
use super::swarm::{dial, finish, source};
use super::{Outcome, Stage};
use crate::error::BenchError;
use crate::session::{SILENCE_MAX, Session};
use crate::wire::create;

const CALM: Duration = Duration::from_secs(2);
const DESCRIPTORS: u32 = 256;
const MEMORY_LIMIT_MIB: u64 = 256;

/// Three servers with 256 descriptors each, and 600 strangers on each.
pub(super) fn descriptors(stage: &mut Stage<'_>) -> Result<Outcome, BenchError> {
    const CLIENTS: usize = 20;
    const STRANGERS: usize = 600;
    let limit = format!("ulimit -n {DESCRIPTORS}; exec \"$@\"");
    // Strangers stay for as long as the scene lasts.
    let more = "nio.sessionlessCnxnTimeout=60000\n";
    let mut host = Host::start(stage, 3, more, &["/bin/sh", "-c", &limit, "sh"])?;
    let mut clients = Vec::new();
    for server in host.servers.clone() {
        clients.extend(Session::open_many(&[server], CLIENTS)?);
    }
    // The third server is killed later on.
    let probes = on_all(&host.servers[..2])?;
    calm(&probes, CALM);
    let since = Instant::now();
    let mut strangers = Vec::new();
    for server in host.servers.clone() {
        for number in 0..STRANGERS {
            strangers.push(dial(source(number), server, None)?);
        }
    }
    thread::sleep(CALM);
    let mut outcome = Outcome::new(
        3 * STRANGERS,
        "strangers on three servers with 256 descriptors",
    );
    let refused = host
        .servers
        .iter()
        .filter(|server| Session::open(**server).is_err())
        .count();
    outcome.holds(
        refused == host.servers.len(),
        format!("{refused} of 3 servers refuse new clients (aim: 3)"),
    );
    let mut served = 0;
    for client in &mut clients {
        served += usize::from(matches!(client.call(&Request::Ping), Ok(0)));
    }
    outcome.holds(
        served == clients.len(),
        format!(
            "{served} of {} earlier clients served (aim: all)",
            clients.len()
        ),
    );
    let noticed = worst(&probes, since);
    outcome.at_most("a client's longest", noticed.max_ms, 1_000.0, "ms");
    // From here on every write needs both of the others: they have not lost each other.
    let killed = Instant::now();
    host.kill(2);
    thread::sleep(Duration::from_secs(6));
    let noticed = worst(&probes, killed);
    outcome.holds(
        noticed.answers > 1_000,
        format!(
            "{} answers after one of the three was killed, the longest {:.0} ms (aim: a majority of \
             them goes on)",
            noticed.answers, noticed.max_ms
        ),
    );
    drop(strangers);
    let recovery = Instant::now();
    let mut recovered = None;
    while recovered.is_none() && recovery.elapsed() < Duration::from_secs(10) {
        let both = host.servers[..2].iter().all(|server| {
            Session::start(*server, SILENCE_MAX)
                .and_then(|mut session| session.finish_handshake())
                .is_ok()
        });
        recovered = both.then(|| recovery.elapsed());
    }
    outcome.holds(
        recovered.is_some(),
        format!(
            "new clients again {:.0} ms after the strangers left",
            recovered.unwrap_or_default().as_secs_f64() * 1e3
        ),
    );
    finish(&mut host, probes)?;
    host.stop()?;
    Ok(outcome)
}

/// A control group with a limit of memory, removed when dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new() -> Result<Self, BenchError> {
        let parent = Path::new("/sys/fs/cgroup/memory");
        let group = Self(parent.join(format!("quorate-strain-{}", std::process::id())));
        fs::create_dir(&group.0).map_err(BenchError::io(
            "making a control group (v1, as root) for memory",
        ))?;
        group.set("memory.limit_in_bytes", &format!("{MEMORY_LIMIT_MIB}M"))?;
        Ok(group)
    }

    fn set(&self, file: &str, value: &str) -> Result<(), BenchError> {
        fs::OpenOptions::new()
            .write(true)
            .open(self.0.join(file))
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(BenchError::io("setting a limit of memory"))
    }

    fn number(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It is empty once the server has ended.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// As many large writes as 100 clients can send, into 256 MiB.
pub(super) fn memory(stage: &mut Stage<'_>) -> Result<Outcome, BenchError> {
    const CLIENTS: usize = 100;
    const DATA_BYTES: usize = 500_000;
    const OUTSTANDING: usize = 8;
    let group = MemoryGroup::new()?;
    let join = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.0.display());
    let mut host = Host::start(stage, 1, "", &["/bin/sh", "-c", &join, "sh"])?;
    let probes = on_all(&host.servers)?;
    let mut first = Session::open(host.server())?;
    // 50 MB of data in all.
    for number in 0..CLIENTS {
        let record = create(format!("/storm-{number}"), &vec![7; DATA_BYTES]);
        first.call(&Request::Create(record))?;
    }
    let before = calm(&probes, CALM);
    let span = Duration::from_secs(if stage.divisor == 1 { 20 } else { 2 });
    let since = Instant::now();
    let server = host.server();
    let written: usize = thread::scope(|scope| {
        let storms: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn(move || storm(server, number, DATA_BYTES, OUTSTANDING, since, span))
            })
            .collect();
        let written = storms
            .into_iter()
            .map(|storm| storm.join().unwrap_or(Ok(0)));
        written.sum::<Result<usize, BenchError>>()
    })?;
    host.check_running()?;
    let noticed = worst(&probes, since);
    let peak = group.number("memory.max_usage_in_bytes") >> 20;
    let mut outcome = Outcome::new(written, "writes of 500 KB into 256 MiB");
    outcome.note(format!("{peak} MiB at most, the page cache included"));
    outcome.note(format!(
        "resident {} MiB at most",
        host.memory(0)?.rss_peak_kib >> 10
    ));
    outcome.holds(
        written > 0 && noticed.answers > 0,
        "never killed, every write answered".to_owned(),
    );
    outcome.note(format!(
        "another client's p99 {:.0} ms, its longest {:.0} ms ({:.1} ms before)",
        noticed.p99_ms, noticed.max_ms, before.p99_ms
    ));
    finish(&mut host, probes)?;
    host.stop()?;
    drop(group);
    Ok(outcome)
}

/// Writes as fast as it is let; returns how many writes were acknowledged.
fn storm(
    server: std::net::SocketAddr,
    number: usize,
    data_bytes: usize,
    outstanding: usize,
    since: Instant,
    span: Duration,
) -> Result<usize, BenchError> {
    let mut session = Session::open(server)?;
    let set = Request::SetData(SetData {
        path: format!("/storm-{number}"),
        data: Some(vec![8; data_bytes].into()),
        version: -1,
    });
    let mut written = 0;
    while since.elapsed() < span {
        session.pipeline("a write of the storm", vec![set.clone(); outstanding])?;
        written += outstanding;
    }
    Ok(written)
}
