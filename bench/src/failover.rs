//! How long writes pause when the leader is killed, and what clients of the other servers notice.
//!
//! Clients on every server write without a pause, one request at a time each, and note when they were
//! acknowledged. The leader is killed (SIGKILL) again and again; after each kill the longest time that
//! any client of a surviving server went without an acknowledgement is the gap. A client whose
//! connection ends opens another on the same server as soon as that lets it, which flatters servers
//! that drop their clients: real ones wait between attempts. Settings are at their defaults.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use quorate_protocol::Request;
use quorate_protocol::request::SetData;

use crate::compare::child::Child;
use crate::compare::server::{Programs, Subject, write_config};
use crate::error::BenchError;
use crate::ready;
use crate::session::Session;
use crate::wire::create;

const SERVERS: usize = 3;
const DATA_BYTES: usize = 100;
/// To start, to elect a leader, to serve again.
const PATIENCE: Duration = Duration::from_secs(120);
const QUESTION_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts at anything.
const RETRY: Duration = Duration::from_millis(10);
/// How long clients are watched after all of them write again: a second pause would count.
const AFTERMATH: Duration = Duration::from_millis(1_500);
/// How long all is well between a restart and the next kill.
const CALM: Duration = Duration::from_millis(1_000);

/// What the command is told.
#[derive(Args, Debug)]
pub(crate) struct FailoverArgs {
    /// Which server; both, one after the other, by default
    #[arg(long, value_enum)]
    system: Option<System>,
    /// How often the leader is killed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    kills: u32,
    /// Clients on each server
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: u32,
    /// For data folders; on a disk, not in memory
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    Quorate,
    Zookeeper,
}

impl System {
    fn subject(self) -> Subject {
        match self {
            Self::Quorate => Subject::Quorate,
            Self::Zookeeper => Subject::ZooKeeper,
        }
    }
}

/// Measures, and returns a table in Markdown.
pub(crate) fn failover(
    args: &FailoverArgs,
    progress: &mut impl FnMut(&str),
) -> Result<String, BenchError> {
    let programs = Programs {
        java: args.java.clone(),
        zookeeper_classpath: args.zookeeper_classpath.clone(),
        quorate: args.quorate.clone(),
    };
    let systems = match args.system {
        Some(system) => vec![system],
        None => vec![System::Zookeeper, System::Quorate],
    };
    let mut table = format!(
        "Write gap after SIGKILL of the leader, {SERVERS} servers, {} clients on each, milliseconds. \
         Errors are writes that clients of surviving servers were not told the outcome of, or were \
         refused.\n\n\
         | server | kills | p50 | p90 | p99 | longest | errors | connections lost |\n\
         | --- | --: | --: | --: | --: | --: | --: | --: |\n",
        args.clients
    );
    for system in systems {
        let subject = system.subject();
        if !programs.has(subject) {
            progress(&format!("{} is not installed: left out", subject.name()));
            continue;
        }
        let dir = args.dir.join(format!("failover-{}", subject.name()));
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(BenchError::io("emptying the data folder"))?;
        }
        let mut measured = measure(&programs, subject, &dir, args, progress)?;
        let _ = writeln!(table, "{}", measured.row(subject));
        std::fs::remove_dir_all(&dir).map_err(BenchError::io("removing the data folder"))?;
    }
    Ok(table)
}

/// What was seen after all kills of one kind of server.
#[derive(Debug, Default)]
struct Measured {
    /// The longest of each kill.
    gaps: Vec<Duration>,
    errors: usize,
    lost: usize,
}

impl Measured {
    fn row(&mut self, subject: Subject) -> String {
        self.gaps.sort_unstable();
        let ms = |gap: Duration| format!("{:.0}", gap.as_secs_f64() * 1e3);
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            subject.name(),
            self.gaps.len(),
            ms(percentile(&self.gaps, 50)),
            ms(percentile(&self.gaps, 90)),
            ms(percentile(&self.gaps, 99)),
            ms(percentile(&self.gaps, 100)),
            self.errors,
            self.lost
        )
    }
}

/// The smallest of the sorted values that so many percent of them do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn measure(
    programs: &Programs,
    subject: Subject,
    dir: &Path,
    args: &FailoverArgs,
    progress: &mut impl FnMut(&str),
) -> Result<Measured, BenchError> {
    let mut members = Members::start(programs, subject, dir)?;
    let clients = make_clients(&members, args.clients)?;
    let stop = AtomicBool::new(false);
    let mut measured = Measured::default();
    let outcome = thread::scope(|scope| {
        for client in &clients {
            let stop = &stop;
            scope.spawn(move || client.run(stop));
        }
        let mut kill_all = || -> Result<(), BenchError> {
            for kill in 1..=args.kills {
                members.wait_until_ready()?;
                thread::sleep(CALM);
                let (gap, errors, lost) = kill_leader(&mut members, &clients)?;
                progress(&format!(
                    "{}: kill {kill}: {:.0} ms, {errors} errors, {lost} connections lost",
                    subject.name(),
                    gap.as_secs_f64() * 1e3
                ));
                measured.gaps.push(gap);
                measured.errors += errors;
                measured.lost += lost;
            }
            Ok(())
        };
        let outcome = kill_all();
        stop.store(true, Ordering::SeqCst);
        outcome
    });
    outcome?;
    Ok(measured)
}

/// Kills the leader, waits until all clients of the others write again, and starts it again. Returns
/// the longest gap, and what those clients noticed.
fn kill_leader(
    members: &mut Members<'_>,
    clients: &[Client],
) -> Result<(Duration, usize, usize), BenchError> {
    let leader = members.leader()?;
    let survivors: Vec<&Client> = clients
        .iter()
        .filter(|client| client.server != leader)
        .collect();
    for client in &survivors {
        client.seen.lock().clear();
    }
    let before = |what: fn(&Client) -> &AtomicUsize| -> usize {
        let counts = survivors.iter().map(|client| what(client));
        counts.map(|count| count.load(Ordering::SeqCst)).sum()
    };
    let errors_before = before(|client| &client.errors);
    let lost_before = before(|client| &client.lost);
    // So that every client has acknowledgements on both sides of the kill.
    thread::sleep(CALM);
    let killed = Instant::now();
    members.kill(leader);
    let deadline = killed + PATIENCE;
    while !survivors
        .iter()
        .all(|client| client.seen.lock().has_sent_after(killed))
    {
        if Instant::now() > deadline {
            return Err(BenchError::NotReady {
                seconds: PATIENCE.as_secs(),
            });
        }
        thread::sleep(RETRY);
    }
    thread::sleep(AFTERMATH);
    let now = Instant::now();
    let gaps = survivors
        .iter()
        .map(|client| client.seen.lock().longest_gap(killed, now));
    let gap = gaps.max().unwrap_or_default();
    let errors = before(|client| &client.errors) - errors_before;
    let lost = before(|client| &client.lost) - lost_before;
    members.restart(leader)?;
    Ok((gap, errors, lost))
}

/// When writes were sent and acknowledged, in order.
#[derive(Debug, Default)]
struct Acknowledged(Vec<(Instant, Instant)>);

impl Acknowledged {
    fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a write is acknowledged that was sent after `moment`: of one sent before, only the
    /// reply may have been missing.
    fn has_sent_after(&self, moment: Instant) -> bool {
        self.0.last().is_some_and(|(sent, _)| *sent > moment)
    }

    /// The longest time without an acknowledgement that ended after `from`, or has not ended `now`.
    fn longest_gap(&self, from: Instant, now: Instant) -> Duration {
        let moments = self.0.iter().map(|(_, at)| *at);
        let ends = moments.clone().skip(1).chain([now]);
        let gaps = moments.zip(ends).filter(|(_, end)| *end > from);
        gaps.map(|(begin, end)| end - begin)
            .max()
            .unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Guarded(Mutex<Acknowledged>);

impl Guarded {
    fn lock(&self) -> std::sync::MutexGuard<'_, Acknowledged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to a znode of its own, on one server.
#[derive(Debug)]
struct Client {
    server: usize,
    address: SocketAddr,
    request: Request,
    seen: Guarded,
    errors: AtomicUsize,
    lost: AtomicUsize,
}

fn make_clients(members: &Members<'_>, each: u32) -> Result<Vec<Client>, BenchError> {
    let mut clients = Vec::new();
    let mut setup = Session::open(members.addresses[0])?;
    for (server, address) in members.addresses.iter().enumerate() {
        for number in 0..each {
            let path = format!("/failover-{server}-{number}");
            let data = vec![7; DATA_BYTES];
            let request = Request::Create(create(path.clone(), &data));
            setup.pipeline("creating a znode", [request])?;
            let set = SetData {
                path,
                data: Some(data.into()),
                version: -1,
            };
            clients.push(Client {
                server,
                address: *address,
                request: Request::SetData(set),
                seen: Guarded::default(),
                errors: AtomicUsize::new(0),
                lost: AtomicUsize::new(0),
            });
        }
    }
    setup.close()?;
    Ok(clients)
}

impl Client {
    fn run(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            match Session::start(self.address, PATIENCE) {
                Ok(session) => self.write(session, stop),
                Err(_) => thread::sleep(RETRY),
            }
        }
    }

    fn write(&self, mut session: Session, stop: &AtomicBool) {
        if session.finish_handshake().is_err() {
            thread::sleep(RETRY);
            return;
        }
        while !stop.load(Ordering::SeqCst) {
            let sent = Instant::now();
            match session.call(&self.request) {
                Ok(0) => self.seen.lock().0.push((sent, Instant::now())),
                Ok(_) => {
                    self.errors.fetch_add(1, Ordering::SeqCst);
                }
                Err(_) => {
                    self.errors.fetch_add(1, Ordering::SeqCst);
                    self.lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
        // The servers go next.
        let _ = session.close();
    }
}

/// The servers, which can be killed and started again on their data.
#[derive(Debug)]
struct Members<'a> {
    programs: &'a Programs,
    subject: Subject,
    dirs: Vec<PathBuf>,
    addresses: Vec<SocketAddr>,
    children: Vec<Option<Child>>,
}

impl<'a> Members<'a> {
    fn start(programs: &'a Programs, subject: Subject, dir: &Path) -> Result<Self, BenchError> {
        let ports = free_ports(3 * SERVERS)?;
        let (client_ports, peer_ports) = ports.split_at(SERVERS);
        let mut more = "initLimit=10\nsyncLimit=5\n".to_owned();
        for (index, ports) in peer_ports.chunks(2).enumerate() {
            let (peer, election) = (ports[0], ports[1]);
            let _ = writeln!(more, "server.{}=127.0.0.1:{peer}:{election}", index + 1);
        }
        let mut members = Self {
            programs,
            subject,
            dirs: Vec::new(),
            addresses: Vec::new(),
            children: Vec::new(),
        };
        for (index, port) in client_ports.iter().enumerate() {
            let dir = dir.join(format!("{}", index + 1));
            write_config(&dir, *port, &more)?;
            std::fs::write(dir.join("data/myid"), format!("{}\n", index + 1))
                .map_err(BenchError::io("writing a server's id"))?;
            members.dirs.push(dir);
            members.addresses.push(([127, 0, 0, 1], *port).into());
            members.children.push(None);
        }
        for index in 0..SERVERS {
            members.restart(index)?;
        }
        members.wait_until_ready()?;
        Ok(members)
    }

    fn kill(&mut self, index: usize) {
        // Dropping it kills it, and waits until it is gone.
        self.children[index] = None;
    }

    fn restart(&mut self, index: usize) -> Result<(), BenchError> {
        let (dir, address) = (&self.dirs[index], self.addresses[index]);
        let (program, arguments) = self.programs.command(self.subject, dir, address.port())?;
        let child = Child::spawn(self.subject.name(), dir, &program, &arguments)?;
        self.children[index] = Some(child);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<(), BenchError> {
        for address in self.addresses.clone() {
            ready::wait(address, Instant::now(), PATIENCE, || {
                let mut running = self.children.iter_mut().flatten();
                running.try_for_each(Child::check_running)
            })?;
        }
        Ok(())
    }

    /// Waits until one of them says that it leads.
    fn leader(&self) -> Result<usize, BenchError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut addresses = self.addresses.iter();
            if let Some(leader) = addresses.position(|address| leads(*address)) {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(BenchError::Usage(
                    "no server of the ensemble says that it leads",
                ));
            }
            thread::sleep(RETRY);
        }
    }
}

/// `srvr`, which ZooKeeper allows by default.
fn leads(server: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server, QUESTION_PATIENCE)?;
        stream.set_read_timeout(Some(QUESTION_PATIENCE))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.lines().any(|line| line == "Mode: leader"))
}

/// Ports nobody listens on now, all different. Below those that the system gives to outgoing
/// connections: a server that is dead for a moment must find its own free again.
fn free_ports(count: usize) -> Result<Vec<u16>, BenchError> {
    let first = 10_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<u16> = (first..first + 10_000).filter(free).take(count).collect();
    if ports.len() == count {
        return Ok(ports);
    }
    Err(BenchError::Usage("there are not enough free ports"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begun: Instant, ms: u64) -> (Instant, Instant) {
        let sent = begun + Duration::from_millis(ms);
        (sent, sent + Duration::from_millis(1))
    }

    #[test]
    fn the_gap_is_the_longest_one_that_ends_after_the_kill() {
        let begun = Instant::now();
        let seen = Acknowledged([0, 500, 510, 900, 905].map(|ms| at(begun, ms)).to_vec());
        let ms = Duration::from_millis;
        let (killed, now) = (begun + ms(520), begun + ms(910));
        assert_eq!(seen.longest_gap(killed, now), ms(390));
        // It goes on.
        assert_eq!(seen.longest_gap(killed, begun + ms(2_906)), ms(2_000));
        assert!(seen.has_sent_after(killed));
        assert!(!seen.has_sent_after(begun + ms(905)));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let ms = Duration::from_millis;
        let sorted: Vec<Duration> = (1..=200).map(ms).collect();
        assert_eq!(percentile(&sorted, 50), ms(100));
        assert_eq!(percentile(&sorted, 99), ms(198));
        assert_eq!(percentile(&sorted, 100), ms(200));
        assert_eq!(percentile(&[ms(7)], 50), ms(7));
    }
}
