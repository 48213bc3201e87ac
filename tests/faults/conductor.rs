//! Makes the faults of a plan begin and end on a running ensemble, two or three at once, and says which
//! servers something is wrong with.
//!
//! A server counts as disturbed from the moment before a fault that hits it to the moment it is known to
//! serve again. If those that are left are no majority, all are disturbed. Everything that a fault
//! needs to be undone is in its [`Undo`], by server, so that some servers can be healed and others not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use quorate_checker::history::Fault;
use quorate_protocol::Request;
use quorate_tests::client::{Connection, hello};
use quorate_tests::ensemble::Ensemble;
use quorate_tests::faults::Weather;
use quorate_tests::loop_disk::LoopDisk;
use quorate_tests::process::Process;
use quorate_tests::shim::WallClock;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::board::Board;
use crate::holders::Holder;
use crate::plan::{Act, DESCRIPTORS, Plan, Planned, Shape, Target};

/// From a server's own end to its next start, where nothing keeps it down.
const RESTART: Duration = Duration::from_millis(300);
/// Between two looks at whether a server serves.
const LOOK: Duration = Duration::from_millis(50);
/// A session that is opened to see whether that works, and how long it may take.
const PROBE_MS: i32 = 1_000;
const OPENS_WITHIN: Duration = Duration::from_millis(300);
/// Of a moment with resets, and of one without.
const RESETS: Duration = Duration::from_millis(60);
/// Storage failed while the server started, or was running, as its exit code says it.
const EXIT_STORAGE: [i32; 2] = [3, 5];
/// Far longer than it takes a server to notice that a sync failed.
const SYNC_FAILS_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct Conductor<'a> {
    pub(crate) ensemble: Ensemble,
    pub(crate) disks: BTreeMap<u64, LoopDisk>,
    pub(crate) clocks: BTreeMap<u64, WallClock>,
    pub(crate) holders: Vec<Holder>,
    /// What was done, for the history.
    pub(crate) faults: Vec<Fault>,
    /// Servers that ended and should not have, and what else is no fault of ours.
    pub(crate) wrong: Vec<String>,
    /// How often something of each kind really happened.
    pub(crate) happened: BTreeMap<&'static str, u64>,
    board: &'a Board,
    plan: &'a Plan,
    rng: StdRng,
    pending: VecDeque<Planned>,
    active: Vec<Active>,
    disturbed: BTreeSet<u64>,
    /// Servers that have been told to end.
    ending: BTreeSet<u64>,
    /// When those are started that ended by themselves.
    restarts: BTreeMap<u64, Instant>,
    /// Servers whose syncs may have failed until then, without our having seen them end.
    may_fail: BTreeMap<u64, Instant>,
    looked: Instant,
}

/// A fault that is under way.
struct Active {
    act: Act,
    name: &'static str,
    /// All that it is done to.
    servers: BTreeSet<u64>,
    /// Those whose clients may notice.
    hit: BTreeSet<u64>,
    until: Instant,
    undo: Undo,
}

/// What there is to undo, by server.
#[derive(Default)]
struct Undo {
    down: BTreeSet<u64>,
    frozen: BTreeMap<u64, u32>,
    /// Processes that hold locks.
    frozen_holders: Vec<u32>,
    weather: Weather,
    full: BTreeSet<u64>,
    tracers: BTreeMap<u64, Process>,
    connections: BTreeMap<u64, Vec<TcpStream>>,
    /// Ahead of the right time by so much, and so much more in each second, since then.
    clocks: BTreeMap<u64, (i64, i64, Instant)>,
    /// Those that are yet to be restarted, of all in turn.
    to_restart: VecDeque<u64>,
    /// When one is started or killed next, how often still, and whether it is the power that goes.
    toggles: Option<(Instant, u32)>,
    /// One whose next sync fails.
    failing: Option<(u64, bool)>,
}

impl<'a> Conductor<'a> {
    pub(crate) fn new(
        ensemble: Ensemble,
        disks: BTreeMap<u64, LoopDisk>,
        clocks: BTreeMap<u64, WallClock>,
        board: &'a Board,
        plan: &'a Plan,
    ) -> Self {
        Self {
            ensemble,
            disks,
            clocks,
            holders: Vec::new(),
            faults: Vec::new(),
            wrong: Vec::new(),
            happened: BTreeMap::new(),
            board,
            plan,
            rng: StdRng::seed_from_u64(plan.seed ^ 0x5eed),
            pending: plan.acts.iter().copied().collect(),
            active: Vec::new(),
            disturbed: BTreeSet::new(),
            ending: BTreeSet::new(),
            restarts: BTreeMap::new(),
            may_fail: BTreeMap::new(),
            looked: Instant::now(),
        }
    }

    /// Plays the plan to the end of its time. Faults may still be under way then.
    ///
    /// # Errors
    /// A fault could not be made, which is nobody's fault but this program's.
    pub(crate) fn play(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < self.plan.faults_last {
            while let Some(next) = self.pending.front().copied()
                && begun.elapsed() >= next.at
            {
                self.pending.pop_front();
                self.begin(next)?;
            }
            self.step()?;
        }
        Ok(())
    }

    /// Heals these servers, and the links between them, and leaves the rest as it is.
    pub(crate) fn heal(&mut self, servers: &BTreeSet<u64>) -> io::Result<()> {
        let all: BTreeSet<u64> = self.ensemble.ids().into_iter().collect();
        // Those that are to be left as they are have no end of their own any more.
        let is_whole = *servers == all;
        let mut active = std::mem::take(&mut self.active);
        for fault in &mut active {
            self.undo(fault, servers)?;
            fault.hit.retain(|id| !servers.contains(id));
            fault.until += Duration::from_secs(3_600);
            fault.undo.to_restart.clear();
            fault.undo.toggles = None;
        }
        if !is_whole {
            self.active = active;
        }
        self.set_weather()
    }

    /// One look at everything.
    pub(crate) fn step(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut active = std::mem::take(&mut self.active);
        for fault in &mut active {
            self.advance(fault, now)?;
        }
        let (over, going_on): (Vec<_>, Vec<_>) =
            active.into_iter().partition(|fault| now >= fault.until);
        self.active = going_on;
        for mut fault in over {
            let servers = fault.servers.clone();
            self.undo(&mut fault, &servers)?;
            self.set_weather()?;
        }
        self.watch_exits()?;
        self.settle();
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    }

    /// Whether nothing is wrong with any server.
    pub(crate) fn is_settled(&self) -> bool {
        self.disturbed.is_empty() && self.active.is_empty()
    }

    fn begin(&mut self, planned: Planned) -> io::Result<()> {
        let Some((name, servers)) = self.choose(planned.act) else {
            return Ok(());
        };
        let hit = match planned.act {
            // Nobody may notice.
            Act::Resets
            | Act::Destroyed
            | Act::ClockJump { .. }
            | Act::ClockDrift { .. }
            | Act::PauseHolder => BTreeSet::new(),
            _ => servers.clone(),
        };
        let from = self.board.clock.now();
        self.disturb(&hit);
        // To the checker, one that names no server concerns them all.
        if !hit.is_empty() {
            self.faults.push(Fault {
                what: name.to_owned(),
                servers: hit.iter().copied().collect(),
                from,
                to: None,
            });
        }
        let mut fault = Active {
            act: planned.act,
            name,
            servers: servers.clone(),
            hit,
            until: Instant::now() + planned.lasts,
            undo: Undo::default(),
        };
        self.make(&mut fault, &servers)?;
        self.active.push(fault);
        self.set_weather()?;
        *self.happened.entry(name).or_default() += 1;
        Ok(())
    }

    /// The name of an act, and whom it hits; `None` if nobody can be hit now.
    fn choose(&mut self, act: Act) -> Option<(&'static str, BTreeSet<u64>)> {
        let free = self.free(act);
        let (name, target) = match act {
            Act::Kill(target) => ("kill", target),
            Act::KillLoop { .. } => ("kill_loop", Target::Follower),
            Act::PowerCut(target) => ("power_cut", target),
            Act::Pause(target) => ("pause", target),
            Act::RollingRestart => ("rolling_restart", Target::All),
            Act::Partition(Shape::Apart(target)) => ("partition", target),
            Act::Partition(Shape::Deaf(target)) => ("deaf", target),
            Act::Partition(Shape::Mute(target)) => ("mute", target),
            Act::Partition(Shape::Bridge) => ("bridge", Target::All),
            Act::Partition(Shape::Ring) => ("ring", Target::All),
            Act::Partition(Shape::Random) => ("random_links", Target::All),
            Act::Resets => ("resets", Target::All),
            Act::Destroyed => ("destroyed_connections", Target::All),
            Act::Loss { .. } => ("loss", Target::All),
            Act::ClientsCut(target) => ("clients_cut", target),
            Act::ClientsLoss { .. } => ("clients_loss", Target::All),
            Act::FullDisk(target) => ("full_disk", target),
            Act::FailingSync { target, .. } => ("failing_sync", target),
            Act::SlowSyncs { target, .. } => ("slow_syncs", target),
            Act::ClockJump { target, .. } => ("clock_jump", target),
            Act::ClockDrift { target, .. } => ("clock_drift", target),
            Act::Descriptors(target) => ("descriptors", target),
            Act::PauseHolder => ("pause_holder", Target::All),
        };
        let all = self.ensemble.ids();
        if matches!(act, Act::RollingRestart) && free.len() < all.len() {
            return None;
        }
        let minority = (all.len() - 1) / 2;
        let mut order: Vec<u64> = free.iter().copied().collect();
        order.shuffle(&mut self.rng);
        let leader = self.leader().filter(|leader| free.contains(leader));
        let chosen: BTreeSet<u64> = match target {
            Target::Leader => leader.or(order.first().copied()).into_iter().collect(),
            Target::Follower => {
                order.retain(|id| Some(*id) != leader);
                order.first().copied().into_iter().collect()
            }
            Target::Minority => order.into_iter().take(minority).collect(),
            Target::Majority => order.into_iter().take(all.len() - minority).collect(),
            Target::All => free,
        };
        (!chosen.is_empty()).then_some((name, chosen))
    }

    /// Servers that an act may hit, beside the faults that are under way.
    fn free(&self, act: Act) -> BTreeSet<u64> {
        let awake: BTreeSet<u64> = self.ensemble.awake().into_iter().collect();
        let takes_process = |act: Act| {
            matches!(
                act,
                Act::Kill(_)
                    | Act::KillLoop { .. }
                    | Act::PowerCut(_)
                    | Act::Pause(_)
                    | Act::RollingRestart
                    | Act::FailingSync { .. }
            )
        };
        let traces = |act: Act| matches!(act, Act::FailingSync { .. } | Act::SlowSyncs { .. });
        let changes_clock =
            |act: Act| matches!(act, Act::ClockJump { .. } | Act::ClockDrift { .. });
        let same = |one: Act, other: Act| {
            takes_process(one) && takes_process(other)
                || traces(one) && traces(other)
                || changes_clock(one) && changes_clock(other)
                || std::mem::discriminant(&one) == std::mem::discriminant(&other)
        };
        let of_links = matches!(
            act,
            Act::Partition(_)
                | Act::Resets
                | Act::Destroyed
                | Act::Loss { .. }
                | Act::ClientsCut(_)
                | Act::ClientsLoss { .. }
                | Act::PauseHolder
        );
        let mut free: BTreeSet<u64> = match of_links {
            true => self.ensemble.ids().into_iter().collect(),
            false => awake,
        };
        if of_links {
            return free;
        }
        for fault in self.active.iter().filter(|fault| same(fault.act, act)) {
            free.retain(|id| !fault.servers.contains(id));
        }
        free
    }

    /// Who says that it leads; of two, one.
    fn leader(&self) -> Option<u64> {
        let roles = self.ensemble.roles(&self.ensemble.awake());
        let mut roles = roles.into_iter();
        roles
            .find(|(_, role)| role.as_deref() == Some("leader"))
            .map(|(id, _)| id)
    }

    fn make(&mut self, fault: &mut Active, servers: &BTreeSet<u64>) -> io::Result<()> {
        let all: Vec<u64> = self.ensemble.ids();
        let now = Instant::now();
        let undo = &mut fault.undo;
        match fault.act {
            Act::Kill(_) => {
                for id in servers {
                    self.ensemble.kill(*id);
                }
                undo.down = servers.clone();
            }
            Act::KillLoop { kills } => {
                for id in servers {
                    self.ensemble.kill(*id);
                }
                undo.down = servers.clone();
                undo.toggles = Some((now, 2 * kills));
            }
            Act::PowerCut(_) => {
                self.cut_power(servers)?;
                undo.down = servers.clone();
            }
            Act::Pause(_) => {
                for id in servers {
                    self.ensemble.freeze(*id)?;
                    undo.frozen.insert(*id, self.ensemble.pid(*id));
                }
            }
            Act::RollingRestart => {
                undo.to_restart = servers.iter().copied().collect();
                undo.to_restart.make_contiguous().shuffle(&mut self.rng);
            }
            Act::Partition(shape) => undo.weather.cut = self.cuts(shape, servers),
            Act::Resets => {
                let pair: Vec<u64> = all.choose_multiple(&mut self.rng, 2).copied().collect();
                undo.weather.reset = [(pair[0], pair[1]), (pair[1], pair[0])].into();
                undo.toggles = Some((now + RESETS, u32::MAX));
            }
            Act::Destroyed => {
                let network = self.ensemble.network.as_ref();
                let network = network.ok_or_else(|| io::Error::other("there is no network"))?;
                for _ in 0..3 {
                    let pair: Vec<u64> = all.choose_multiple(&mut self.rng, 2).copied().collect();
                    network.destroy_connections(pair[0], pair[1])?;
                }
            }
            Act::Loss { percent } => {
                for (from, to) in pairs(&all) {
                    undo.weather.lossy.insert((from, to), percent);
                }
            }
            Act::ClientsCut(_) => undo.weather.without_clients = servers.clone(),
            Act::ClientsLoss { percent } => {
                let lossy = servers.iter().map(|id| (*id, percent));
                undo.weather.lossy_clients = lossy.collect();
            }
            Act::FullDisk(_) => {
                for id in servers {
                    self.disks[id].fill()?;
                }
                undo.full = servers.clone();
            }
            Act::FailingSync { then_power_cut, .. } => {
                for id in servers {
                    let inject = "inject=fdatasync,fsync:error=EIO:when=1";
                    undo.tracers.insert(*id, self.trace(*id, inject)?);
                    undo.failing = Some((*id, then_power_cut));
                }
                fault.until = now + SYNC_FAILS_WITHIN;
            }
            Act::SlowSyncs { delay_ms, .. } => {
                for id in servers {
                    let inject = format!("inject=fdatasync,fsync:delay_enter={}", delay_ms * 1_000);
                    undo.tracers.insert(*id, self.trace(*id, &inject)?);
                }
            }
            Act::ClockJump { ahead_ms, .. } => {
                for id in servers {
                    undo.clocks.insert(*id, (ahead_ms, 0, now));
                }
            }
            Act::ClockDrift { ms_per_s, .. } => {
                for id in servers {
                    undo.clocks.insert(*id, (0, ms_per_s, now));
                }
            }
            Act::PauseHolder => {
                let holder = self.holders.choose(&mut self.rng);
                if let Some(id) = holder.map(Holder::id) {
                    signal(id, "STOP")?;
                    undo.frozen_holders.push(id);
                }
            }
            Act::Descriptors(_) => {
                for id in servers {
                    let address = self.ensemble.client_address(*id);
                    let limit = Duration::from_millis(200);
                    // Some find nobody who accepts them any more, which is the point.
                    let streams = (0..2 * DESCRIPTORS)
                        .map_while(|_| TcpStream::connect_timeout(&address, limit).ok())
                        .collect();
                    undo.connections.insert(*id, streams);
                }
            }
        }
        Ok(())
    }

    /// What goes on while a fault lasts.
    fn advance(&mut self, fault: &mut Active, now: Instant) -> io::Result<()> {
        for (id, (ahead_ms, ms_per_s, since)) in &fault.undo.clocks {
            let gone_ms = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
            let clock = &self.clocks[id];
            clock.set_ahead_ms(ahead_ms + gone_ms * ms_per_s / 1_000)?;
        }
        for id in &fault.undo.full {
            // A snapshot may free some of the log. Without power there is nothing to fill.
            let _ = self.disks[id].fill();
        }
        if let Some((at, left)) = fault.undo.toggles
            && now >= at
            && left > 0
        {
            let next = self.toggle(fault)?;
            fault.undo.toggles = Some((now + next, left - 1));
        }
        if let Some(id) = fault.undo.to_restart.front().copied() {
            self.restart_in_turn(fault, id)?;
        }
        if let Some((id, then_power_cut)) = fault.undo.failing
            && !self.ensemble.runs(id)
        {
            fault.undo.failing = None;
            fault.undo.tracers.clear();
            if then_power_cut {
                self.cut_power(&[id].into())?;
            }
            fault.until = now;
        }
        Ok(())
    }

    /// Starts or kills the one that is killed again and again, or changes the weather to and fro;
    /// returns when it is to go on.
    fn toggle(&mut self, fault: &mut Active) -> io::Result<Duration> {
        if fault.act == Act::Resets {
            let (weather, other) = (&mut fault.undo.weather.reset, fault.servers.clone());
            if weather.is_empty() {
                let all: Vec<u64> = other.into_iter().collect();
                let pair: Vec<u64> = all.choose_multiple(&mut self.rng, 2).copied().collect();
                *weather = [(pair[0], pair[1]), (pair[1], pair[0])].into();
            } else {
                weather.clear();
            }
            // The faults under way are not in `self` while one of them goes on.
            let network = self.ensemble.network.as_mut();
            let network = network.ok_or_else(|| io::Error::other("there is no network"))?;
            let mut now = network.weather().clone();
            now.reset.clone_from(weather);
            network.set_weather(&now)?;
            return Ok(RESETS);
        }
        for id in fault.undo.down.clone() {
            match self.ensemble.runs(id) {
                true => self.ensemble.kill(id),
                false => self.spawn(id)?,
            }
        }
        Ok(Duration::from_millis(self.rng.random_range(0..600)))
    }

    fn restart_in_turn(&mut self, fault: &mut Active, id: u64) -> io::Result<()> {
        match fault.undo.down.contains(&id) {
            // It has ended, or is starting: for a moment its process is still the program that starts it,
            // which SIGTERM would end.
            false if !self.ensemble.runs(id) || self.ensemble.role(id).is_none() => {}
            false => {
                self.ensemble.signal(id, "TERM")?;
                self.ending.insert(id);
                fault.undo.down.insert(id);
            }
            true if !self.ending.contains(&id) && !self.ensemble.runs(id) => self.spawn(id)?,
            true if !self.ending.contains(&id) && self.ensemble.role(id).is_some() => {
                fault.undo.down.remove(&id);
                fault.undo.to_restart.pop_front();
            }
            true => {}
        }
        if fault.undo.to_restart.is_empty() {
            fault.until = Instant::now();
        }
        Ok(())
    }

    fn undo(&mut self, fault: &mut Active, servers: &BTreeSet<u64>) -> io::Result<()> {
        let undo = &mut fault.undo;
        undo.tracers.retain(|id, _| !servers.contains(id));
        if let Some((id, _)) = undo.failing.take_if(|(id, _)| servers.contains(id)) {
            // Nothing was synced all the time, or just now.
            self.may_fail.insert(id, Instant::now() + SYNC_FAILS_WITHIN);
            if let Some(count) = self.happened.get_mut(fault.name) {
                *count -= 1;
            }
        }
        for (id, pid) in undo.frozen.extract_if(.., |id, _| servers.contains(id)) {
            // Another process of the same server was never stopped.
            if self.ensemble.process_id(id) == Some(pid) {
                self.ensemble.thaw(id)?;
            }
        }
        for id in undo.frozen_holders.drain(..) {
            signal(id, "CONT")?;
        }
        undo.connections.retain(|id, _| !servers.contains(id));
        for (id, _) in undo.clocks.extract_if(.., |id, _| servers.contains(id)) {
            self.clocks[&id].set_ahead_ms(0)?;
        }
        for id in undo.full.extract_if(.., |id| servers.contains(id)) {
            self.disks[&id].free()?;
        }
        clear(&mut undo.weather, servers);
        let up: Vec<u64> = undo
            .down
            .extract_if(.., |id| servers.contains(id))
            .collect();
        for id in up {
            if !self.ending.contains(&id) && !self.ensemble.runs(id) {
                self.spawn(id)?;
            }
        }
        Ok(())
    }

    fn spawn(&mut self, id: u64) -> io::Result<()> {
        self.restarts.remove(&id);
        self.ensemble.spawn(id)
    }

    /// All at the same moment; the power is back at once, and the servers are not.
    fn cut_power(&mut self, servers: &BTreeSet<u64>) -> io::Result<()> {
        for id in servers {
            self.disks[id].cut_power()?;
        }
        for id in servers {
            self.ensemble.kill(*id);
        }
        for id in servers {
            self.disks[id].restore_power()?;
        }
        Ok(())
    }

    fn trace(&self, id: u64, inject: &str) -> io::Result<Process> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null"]);
        command.args(["-e", "trace=fdatasync,fsync", "-e", inject]);
        command.args(["-p", &self.ensemble.pid(id).to_string()]);
        let log = self.ensemble.folder(id).join("strace.log");
        Process::start("strace", command, &log)
    }

    fn cuts(&mut self, shape: Shape, servers: &BTreeSet<u64>) -> BTreeSet<(u64, u64)> {
        let all = self.ensemble.ids();
        let mut order = all.clone();
        order.shuffle(&mut self.rng);
        let position = |id: u64| order.iter().position(|other| *other == id).unwrap_or(0);
        let count = order.len();
        let is_cut = |from: u64, to: u64| match shape {
            Shape::Apart(_) => servers.contains(&from) != servers.contains(&to),
            Shape::Deaf(_) => servers.contains(&to),
            Shape::Mute(_) => servers.contains(&from),
            // The one in the middle sees all; nobody else sees the other half.
            Shape::Bridge => {
                let (from, to) = (position(from), position(to));
                let middle = count / 2;
                from != middle && to != middle && (from < middle) != (to < middle)
            }
            Shape::Ring => {
                let apart = position(from).abs_diff(position(to));
                // Of three each has two neighbours whatever is done.
                match count {
                    ..=3 => (position(to) + 1) % count == position(from),
                    _ => apart != 1 && apart != count - 1,
                }
            }
            Shape::Random => false,
        };
        let mut cut: BTreeSet<(u64, u64)> = pairs(&all)
            .filter(|(from, to)| is_cut(*from, *to))
            .collect();
        if shape == Shape::Random {
            cut = pairs(&all).filter(|_| self.rng.random()).collect();
        }
        cut
    }

    /// What all faults that are under way do to the links.
    fn set_weather(&mut self) -> io::Result<()> {
        let mut weather = Weather::default();
        for fault in &self.active {
            let one = &fault.undo.weather;
            weather.cut.extend(&one.cut);
            weather.reset.extend(&one.reset);
            weather.lossy.extend(&one.lossy);
            weather.without_clients.extend(&one.without_clients);
            weather.lossy_clients.extend(&one.lossy_clients);
        }
        match &mut self.ensemble.network {
            Some(network) => network.set_weather(&weather),
            None => Ok(()),
        }
    }

    fn disturb(&mut self, servers: &BTreeSet<u64>) {
        let before = self.disturbed.len();
        self.disturbed.extend(servers);
        let all = self.ensemble.ids();
        let well = all.len() - self.disturbed.len();
        if well <= all.len() / 2 && self.disturbed.len() > before && well > 0 {
            let rest: Vec<u64> = all
                .iter()
                .copied()
                .filter(|id| !self.disturbed.contains(id))
                .collect();
            self.disturbed.extend(&rest);
            self.faults.push(Fault {
                what: "no_majority".to_owned(),
                servers: rest,
                from: self.board.clock.now(),
                to: None,
            });
        }
        self.board.set_disturbed(&self.disturbed);
    }

    /// Says which servers are well again: nothing is done to them, and they say that they serve.
    fn settle(&mut self) {
        if self.disturbed.is_empty() || self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let mut hit: BTreeSet<u64> = BTreeSet::new();
        for fault in &self.active {
            hit.extend(&fault.hit);
        }
        let all = self.ensemble.ids();
        if all.len() - hit.len() <= all.len() / 2 {
            return;
        }
        let before = self.disturbed.len();
        let candidates: Vec<u64> = self.disturbed.difference(&hit).copied().collect();
        for id in candidates {
            if self.ensemble.role(id).is_some() && serves(self.ensemble.address(id)) {
                self.disturbed.remove(&id);
            }
        }
        if self.disturbed.len() < before {
            let now = self.board.clock.now();
            for fault in self.faults.iter_mut().filter(|fault| fault.to.is_none()) {
                let mut servers = fault.servers.iter();
                if !servers.any(|id| self.disturbed.contains(id)) {
                    fault.to = Some(now);
                }
            }
            self.board.set_disturbed(&self.disturbed);
        }
    }

    /// Starts those that have ended, and asks whether they had a reason.
    fn watch_exits(&mut self) -> io::Result<()> {
        for id in self.ensemble.ids() {
            if let Some(status) = self.ensemble.take_exit(id) {
                self.on_exit(id, status);
            }
            let is_held = self
                .active
                .iter()
                .any(|fault| fault.undo.down.contains(&id));
            if self.ensemble.runs(id) || is_held {
                continue;
            }
            let at = self
                .restarts
                .entry(id)
                .or_insert_with(|| Instant::now() + RESTART);
            if Instant::now() >= *at {
                self.spawn(id)?;
            }
        }
        Ok(())
    }

    fn on_exit(&mut self, id: u64, status: ExitStatus) {
        if self.ending.remove(&id) {
            if !status.success() {
                let what = format!("server {id} was asked to stop and ended with {status}");
                self.wrong.push(what);
            }
            return;
        }
        let fails = |fault: &Active| fault.undo.failing.is_some_and(|(one, _)| one == id);
        let late = self.may_fail.remove(&id);
        let is_failing =
            self.active.iter().any(fails) || late.is_some_and(|until| Instant::now() < until);
        let expected = is_failing
            && status
                .code()
                .is_some_and(|code| EXIT_STORAGE.contains(&code));
        self.disturb(&[id].into());
        if !expected {
            self.faults.push(Fault {
                what: "ended".to_owned(),
                servers: vec![id],
                from: self.board.clock.now(),
                to: None,
            });
            let faults: Vec<_> = self.active.iter().map(|fault| fault.act).collect();
            let what = format!("server {id} ended by itself with {status} during {faults:?}");
            self.wrong.push(what);
        }
    }
}

/// Whether a session can be opened, which takes a majority: a server whose links are good again still
/// hears of nobody until the others' next attempts to send, and may give up on its clients until then.
fn serves(address: SocketAddr) -> bool {
    let open = || {
        let mut connection = Connection::dial_within(address, OPENS_WITHIN)?;
        connection.set_silence(OPENS_WITHIN)?;
        let opened = connection.handshake(&hello(PROBE_MS))?;
        connection.send(&Request::CloseSession)?;
        Ok::<_, io::Error>(opened.is_some_and(|welcome| welcome.session_id.is_some()))
    };
    open().unwrap_or(false)
}

fn signal(process: u32, name: &str) -> io::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("kill -{name} {process}")]);
    match command.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("kill -{name} {process} fails"))),
    }
}

/// All ordered pairs.
fn pairs(all: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    let each = all
        .iter()
        .flat_map(|from| all.iter().map(|to| (*from, *to)));
    each.filter(|(from, to)| from != to)
}

/// Links between these servers, and from clients to them, are as they should be.
fn clear(weather: &mut Weather, servers: &BTreeSet<u64>) {
    let is_outside = |(from, to): &(u64, u64)| !servers.contains(from) || !servers.contains(to);
    weather.cut.retain(is_outside);
    weather.reset.retain(is_outside);
    weather.lossy.retain(|pair, _| is_outside(pair));
    weather.without_clients.retain(|id| !servers.contains(id));
    weather.lossy_clients.retain(|id, _| !servers.contains(id));
}
