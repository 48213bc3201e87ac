//! One run, from the first start to the verdict, in a network of its own.
//!
//! First everything may happen at once (safety). Then a random majority is healed and nobody else, and
//! must make progress: a server that is frozen, cut off or half dead must not be able to prevent that.
//! Then all are healed, and must become alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use quorate_checker::history::{
    CreateKind, Data, Header, Operation, Outcome, Promises, Request as Asked, SessionRecord,
    SessionStep,
};
use quorate_checker::{History, Tally};
use quorate_tests::client::Connection;
use quorate_tests::ensemble::Ensemble;
use quorate_tests::faults::Network;
use quorate_tests::loop_disk::{FileSystem, LoopDisk, PowerCutter};
use quorate_tests::server::Product;
use quorate_tests::shim::{self, WallClock};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::board::{Board, Clock};
use crate::clients::{Client, FOLDERS, FOLLOWED, Follows, Habits, PAIR, REGISTERS, Recording};
use crate::conductor::Conductor;
use crate::holders::{HOLDERS, Holder};
use crate::plan::{Class, DESCRIPTORS, Plan};
use crate::{judge, offline, trees, wire};

/// Of clients that stay with what they have; longer than any fault lasts.
const STEADY_MS: i32 = 40_000;
/// Of clients that move, and leave sessions to expire: what they leave has to be waited for.
const RESTLESS_MS: [i32; 3] = [800, 1_500, 3_000];
const CLIENTS: u32 = 8;
/// Acknowledged before the first fault, or the machine is too busy for the run to say anything.
const WRITES_BEFORE: u64 = 50;
/// What counts as progress.
const PROGRESS: u64 = 30;
/// An election takes 0.15 to 0.3 s, and the servers that were killed start first; a majority must make
/// progress within this, on a machine that has other things to do.
const PROGRESS_WITHIN: Duration = Duration::from_secs(20);
/// For anything that must come about in the end.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK_MS: u64 = 200;
const SETUP_MS: i32 = 60_000;

/// What came of a run, for whoever started it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) servers: u64,
    pub(crate) operations: usize,
    /// Of these, writes that were acknowledged.
    pub(crate) writes: u64,
    pub(crate) leader_changes: u64,
    /// From the first fault to the end of the last.
    pub(crate) fault_seconds: f64,
    /// From the moment a majority was healed to its progress.
    pub(crate) recovery_seconds: f64,
    pub(crate) happened: BTreeMap<String, u64>,
    pub(crate) violations: Vec<String>,
    /// What the checker could not decide.
    pub(crate) undecided: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) note: String,
    /// Why the run says nothing, if it does.
    pub(crate) vacuous: Option<String>,
}

/// Ends the clients, also when the run fails in between.
struct Ending<'a>(&'a Board);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end_load();
        self.0.release();
    }
}

/// Plays the plan of `seed`; what is worth keeping is in `folder` afterwards.
///
/// # Errors
/// Something that is no server failed.
pub(crate) fn run(seed: u64, is_short: bool, patience: u32, folder: &Path) -> io::Result<Report> {
    let entered = Instant::now();
    let plan = Plan::draw(seed, is_short, FileSystem::Xfs.is_there());
    fs::create_dir_all(folder)?;
    fs::write(folder.join("plan.txt"), plan.to_string())?;
    let stage = Stage::new(&plan, folder)?;
    let mut ensemble = stage.ensemble;
    ensemble.start()?;
    let started = entered.elapsed();
    let clock = Clock::start();
    let ids = ensemble.ids();
    let addresses = ids.iter().map(|id| (*id, ensemble.client_address(*id)));
    let board = Board::new(clock, addresses.collect());
    let mut history = History::default();
    add(&mut history, set_up(&mut ensemble, &board)?);
    let mut conductor = Conductor::new(ensemble, stage.disks, stage.clocks, &board, &plan);
    for number in 0..HOLDERS {
        let holder = Holder::start(number, &conductor.ensemble, clock, folder)?;
        conductor.holders.push(holder);
    }
    let mut report = Report {
        seed,
        servers: plan.servers,
        ..Report::default()
    };
    let played = thread::scope(|scope| {
        let ending = Ending(&board);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let habits = habits(number, &ids, &plan);
                let client = Client::new(number, seed, &board, habits);
                scope.spawn(move || client.run())
            })
            .collect();
        let played = play(&mut conductor, &board, patience, &mut report, &mut history);
        drop(ending);
        for client in clients {
            let recording = client.join();
            let recording = recording.map_err(|_| io::Error::other("a client panicked"))?;
            add(&mut history, recording);
        }
        played
    });
    keep_logs(&conductor.ensemble, folder)?;
    played?;
    history.faults = std::mem::take(&mut conductor.faults);
    report.violations.append(&mut conductor.wrong);
    for (name, count) in &conductor.happened {
        report.happened.insert((*name).to_owned(), *count);
    }
    history.header = Header {
        seed: Some(seed),
        name: "faults".to_owned(),
        servers: ids.clone(),
        promises: Promises::ALL,
        duration: clock.now(),
        election: 0,
        tick: TICK_MS * 1_000_000,
    };
    report.operations = history.operations.len();
    report.writes = board.writes();
    report.leader_changes = judge::leader_changes(&conductor.ensemble);
    report.violations.extend(judge::logs(&conductor.ensemble));
    let stopped = Instant::now();
    let offline = offline::read(&mut conductor.ensemble, plan.keeps_log);
    history.log = offline.log;
    report.violations.extend(offline.violations);
    let offline_took = stopped.elapsed();
    history.write_to(io::BufWriter::new(fs::File::create(
        folder.join("history.jsonl"),
    )?))?;
    let judged = Instant::now();
    let verdict = judge::history(&history);
    report.violations.extend(verdict.violations);
    report.undecided = verdict.undecided;
    report.tally = verdict.tally;
    report.note = format!(
        "{:.0} s, of these {:.1} for start, {:.1} with faults, {:.1} offline, {:.1} for judgement",
        entered.elapsed().as_secs_f64(),
        started.as_secs_f64(),
        report.fault_seconds,
        offline_took.as_secs_f64(),
        judged.elapsed().as_secs_f64()
    );
    report.vacuous = judge::vacuous(&report, &plan);
    if !report.violations.is_empty() {
        keep_data(&mut conductor.ensemble, folder)?;
    }
    Ok(report)
}

/// What a run takes place on.
struct Stage {
    ensemble: Ensemble,
    disks: BTreeMap<u64, LoopDisk>,
    clocks: BTreeMap<u64, WallClock>,
}

impl Stage {
    fn new(plan: &Plan, folder: &Path) -> io::Result<Self> {
        let network = Network::new(plan.servers)?;
        let mut ensemble = Ensemble::new(Product::Quorate, plan.servers, Some(network))?;
        for (key, value) in &plan.settings {
            ensemble.set(key, value);
        }
        let cutter = PowerCutter::build(&ensemble.folder(1))?;
        let mut disks = BTreeMap::new();
        for id in ensemble.ids() {
            let mount_point = folder.join(format!("disk{id}"));
            let disk = LoopDisk::mount(plan.file_system, plan.disk_mib, &mount_point, &cutter)?;
            ensemble.set_data_dir(id, &disk.folder().join("data"))?;
            disk.sync()?;
            disks.insert(id, disk);
        }
        let mut clocks = BTreeMap::new();
        if plan.has(Class::Clocks) {
            let library = shim::build(&ensemble.folder(1))?;
            let library = library.ok_or_else(|| io::Error::other("there is no C compiler"))?;
            for id in ensemble.ids() {
                let clock = WallClock::new(&ensemble.folder(id).join("clock"))?;
                ensemble.set_variables(id, clock.variables(&library));
                clocks.insert(id, clock);
            }
        }
        if plan.has(Class::Descriptors) {
            for id in ensemble.ids() {
                let limit = format!("--nofile={DESCRIPTORS}");
                ensemble.set_wrapper(id, vec!["prlimit".to_owned(), limit]);
            }
        }
        Ok(Self {
            ensemble,
            disks,
            clocks,
        })
    }
}

fn habits(number: u32, ids: &[u64], plan: &Plan) -> Habits {
    let place = usize::try_from(number).unwrap_or_default();
    let is_restless = number >= CLIENTS / 2;
    Habits {
        home: ids[place % ids.len()],
        timeout_ms: match is_restless {
            true => RESTLESS_MS[place % RESTLESS_MS.len()],
            false => STEADY_MS,
        },
        is_restless,
        follows: match number % 3 {
            0 => Follows::Registers,
            1 => Follows::Tree,
            _ => Follows::Nothing,
        },
        pause_ms_max: if plan.keeps_log { 120 } else { 400 },
    }
}

fn play(
    conductor: &mut Conductor<'_>,
    board: &Board,
    patience: u32,
    report: &mut Report,
    history: &mut History,
) -> io::Result<()> {
    let (within, patience) = (PROGRESS_WITHIN * patience, PATIENCE * patience);
    if wait(conductor, patience, || board.writes() >= WRITES_BEFORE)?.is_none() {
        report.vacuous = Some("hardly anything was written before the first fault".to_owned());
        return Ok(());
    }
    let begun = Instant::now();
    conductor.play()?;
    let all = conductor.ensemble.ids();
    let mut rng = StdRng::seed_from_u64(report.seed ^ 0xc07e);
    let majority = all.len() / 2 + 1;
    let core: BTreeSet<u64> = all.choose_multiple(&mut rng, majority).copied().collect();
    conductor.heal(&core)?;
    let enough = board.writes() + PROGRESS;
    match wait(conductor, within, || board.writes() >= enough)? {
        Some(took) => report.recovery_seconds = took.as_secs_f64(),
        None => report.violations.push(format!(
            "liveness.majority-makes-progress: {core:?} were healed and {PROGRESS} writes were not \
             acknowledged within {within:?}; roles: {:?}",
            conductor.ensemble.roles(&conductor.ensemble.awake())
        )),
    }
    conductor.heal(&all.iter().copied().collect())?;
    report.fault_seconds = begun.elapsed().as_secs_f64();
    let deadline = Instant::now() + patience;
    while !conductor.is_settled() && Instant::now() < deadline {
        conductor.step()?;
    }
    let enough = board.writes() + PROGRESS + rng.random_range(0..PROGRESS);
    let served = wait(conductor, patience, || board.writes() >= enough)?;
    if served.is_none() || !conductor.is_settled() {
        report.violations.push(format!(
            "liveness.all-recover: after {patience:?} without any fault, roles: {:?}",
            conductor.ensemble.roles(&conductor.ensemble.awake())
        ));
    }
    board.end_load();
    for holder in std::mem::take(&mut conductor.holders) {
        holder.end(history)?;
    }
    match trees::read_all(&conductor.ensemble, board, patience) {
        Ok((trees, digests)) => (history.trees, history.digests) = (trees, digests),
        Err(error) => report.violations.push(format!(
            "liveness.all-recover: not all servers can be read from: {error}"
        )),
    }
    Ok(())
}

/// Goes on until something is so, for so long; returns how long it took.
fn wait(
    conductor: &mut Conductor<'_>,
    limit: Duration,
    is_so: impl Fn() -> bool,
) -> io::Result<Option<Duration>> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > limit {
            return Ok(None);
        }
        conductor.step()?;
    }
    Ok(Some(begun.elapsed()))
}

fn add(history: &mut History, mut recording: Recording) {
    history.operations.append(&mut recording.operations);
    history.events.append(&mut recording.events);
    history.sessions.append(&mut recording.sessions);
}

/// Makes what the clients work on, as one more client: a history begins with an empty tree.
fn set_up(ensemble: &mut Ensemble, board: &Board) -> io::Result<Recording> {
    let server = ensemble.leader()?;
    let deadline = Instant::now() + PATIENCE;
    let number = board.next_connection();
    let from = board.clock.now();
    let mut connection = loop {
        match Connection::open(ensemble.address(server), SETUP_MS) {
            // A server may close a connection while it finds its place.
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            opened => break opened?,
        }
    };
    let session = connection.session();
    let mut recording = Recording::default();
    recording.sessions.push(SessionRecord {
        client: CLIENTS,
        connection: number,
        server,
        session: session.id.get(),
        from,
        at: board.clock.now(),
        step: SessionStep::Opened {
            timeout_ms: session.timeout_ms.unsigned_abs(),
        },
    });
    let registers = REGISTERS.iter().chain(&FOLLOWED).chain(&PAIR);
    let creates = FOLDERS.iter().chain(registers).map(|path| Asked::Create {
        path: (*path).into(),
        data: Data::from(""),
        kind: CreateKind::Persistent,
        acl: None,
        with_stat: false,
    });
    for (sequence, request) in (1..).zip(creates.chain([Asked::CloseSession])) {
        let invoked = board.clock.now();
        let sent = wire::request(&request).ok_or_else(|| io::Error::other("it cannot be sent"))?;
        let reply = connection.call(&sent)?;
        let done = reply
            .result
            .ok()
            .and_then(|body| wire::reply(&request, body));
        let zxid = reply.zxid;
        let done = done.ok_or_else(|| io::Error::other(format!("{request:?} was refused")))?;
        recording.operations.push(Operation {
            client: CLIENTS,
            connection: number,
            server,
            session: session.id.get(),
            sequence,
            invoked,
            returned: Some(board.clock.now()),
            arrival: sequence,
            request,
            outcome: Outcome::Done { zxid, reply: done },
        });
    }
    Ok(recording)
}

fn keep_logs(ensemble: &Ensemble, folder: &Path) -> io::Result<()> {
    for id in ensemble.ids() {
        fs::write(folder.join(format!("server{id}.log")), ensemble.log(id))?;
        let config = ensemble.folder(id).join("zoo.cfg");
        fs::copy(config, folder.join(format!("server{id}.cfg")))?;
    }
    Ok(())
}

fn keep_data(ensemble: &mut Ensemble, folder: &Path) -> io::Result<()> {
    for id in ensemble.ids() {
        ensemble.kill(id);
        let to = folder.join(format!("data{id}"));
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(ensemble.data_dir(id))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}
