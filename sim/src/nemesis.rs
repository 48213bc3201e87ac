//! Makes faults, and undoes them.
//!
//! It may do anything that must be survived, and nothing that cannot be: data is destroyed on so few
//! servers at a time that a majority of the others has it all. Every fault that really happened is
//! counted: a run in which none did proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_checker::history::{Fault, Moment};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::ensemble::{Ensemble, node};
use crate::network::{FIRST_CLIENT, Node};
use crate::plan::{FaultClass, Plan};
use crate::trace::Trace;

/// How often the nemesis looks at what has to be done.
const LOOK: Duration = Duration::from_millis(50);
/// How long an operator takes to see that a server refuses its disk, and to give it a new one.
const OPERATOR: Duration = Duration::from_secs(3);
/// How long a supervisor waits before it starts again a server that has ended by itself.
const SUPERVISOR: Duration = Duration::from_millis(500);

/// See the module.
pub struct Nemesis {
    random: SmallRng,
    trace: Trace,
    plan: Plan,
    clients: u32,
    next: BTreeMap<FaultClass, Instant>,
    undo: Vec<(Instant, Undo)>,
    faults: Vec<Fault>,
    /// Servers whose data was destroyed, and that have not caught up since; with the zxid they have to
    /// reach, once they are on their way.
    damaged: BTreeMap<u64, Option<i64>>,
    /// Servers that may refuse to start, as their disks were tampered with.
    flipped: BTreeSet<u64>,
    /// Faults that are over when their server has been started again.
    until_restart: Vec<(u64, usize)>,
    violations: Vec<String>,
}

#[derive(Clone, Debug)]
enum Undo {
    Start(u64, usize),
    Thaw(u64, usize),
    Unblock(Vec<(Node, Node)>, usize),
    SpeedUp(Vec<(Node, Node)>, usize),
    StopLosing(usize),
    FreeSpace(u64, usize),
    DiskGoesOn(u64, usize),
    ClockRight(u64, usize),
    NewDisk(u64, usize),
    Restart(u64),
}

impl Nemesis {
    pub fn new(plan: &Plan, clients: u32, trace: Trace) -> Self {
        let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x5851_f42d_4c95_7f2d);
        let now = Instant::now();
        let next = plan
            .faults
            .iter()
            .map(|(class, mean_ms)| (*class, now + pause(&mut random, *mean_ms)))
            .collect();
        Self {
            random,
            trace,
            plan: plan.clone(),
            clients,
            next,
            undo: Vec::new(),
            faults: Vec::new(),
            damaged: BTreeMap::new(),
            flipped: BTreeSet::new(),
            until_restart: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Makes and undoes faults for so long.
    pub async fn torment(&mut self, ensemble: &mut Ensemble, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            tokio::time::sleep(LOOK).await;
            self.undo_due(ensemble);
            self.look_after(ensemble);
            let now = Instant::now();
            for (class, mean_ms) in self.plan.faults.clone() {
                let is_due = self.next.get(&class).is_some_and(|next| *next <= now);
                if is_due {
                    self.next
                        .insert(class, now + pause(&mut self.random, mean_ms));
                    self.make(ensemble, class);
                }
            }
        }
    }

    /// Looks after the servers while no faults are made, for so long or until `done`.
    pub async fn tend(
        &mut self,
        ensemble: &mut Ensemble,
        span: Duration,
        mut done: impl FnMut(&Ensemble) -> bool,
    ) -> bool {
        let end = Instant::now() + span;
        loop {
            self.undo_due(ensemble);
            self.look_after(ensemble);
            if self.damaged.is_empty() && self.undo.is_empty() && done(ensemble) {
                return true;
            }
            if Instant::now() >= end {
                return done(ensemble);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Makes a random majority well, and leaves the others as they are. Returns who was healed.
    pub fn heal_majority(&mut self, ensemble: &mut Ensemble) -> Vec<u64> {
        let mut sound: Vec<u64> = ensemble
            .ids()
            .into_iter()
            .filter(|id| !self.damaged.contains_key(id) && !self.flipped.contains(id))
            .collect();
        sound.shuffle(&mut self.random);
        sound.truncate(ensemble.ids().len() / 2 + 1);
        let core: BTreeSet<u64> = sound.iter().copied().collect();
        self.trace.note(&format!("heal {core:?}"));
        self.next.clear();
        let nodes: BTreeSet<Node> = core
            .iter()
            .map(|id| node(*id))
            .chain(self.client_nodes())
            .collect();
        let undo = std::mem::take(&mut self.undo);
        for (at, what) in undo {
            match what {
                Undo::Start(id, _)
                | Undo::Thaw(id, _)
                | Undo::FreeSpace(id, _)
                | Undo::DiskGoesOn(id, _)
                | Undo::ClockRight(id, _)
                | Undo::NewDisk(id, _)
                | Undo::Restart(id)
                    if !core.contains(&id) =>
                {
                    self.undo.push((at, what));
                }
                Undo::Unblock(ways, fault) => {
                    let (ours, theirs): (Vec<_>, Vec<_>) = ways
                        .into_iter()
                        .partition(|(from, to)| nodes.contains(from) && nodes.contains(to));
                    for (from, to) in ours {
                        ensemble.network.unblock(from, to);
                    }
                    self.undo.push((at, Undo::Unblock(theirs, fault)));
                }
                what => self.undo_one(ensemble, what),
            }
        }
        // What is broken stays so.
        let far = Instant::now() + Duration::from_secs(1_000_000);
        for (at, _) in &mut self.undo {
            *at = far;
        }
        for id in &core {
            if !ensemble.is_running(*id) {
                ensemble.start(*id);
            }
        }
        core.into_iter().collect()
    }

    /// Makes everything well.
    pub fn heal(&mut self, ensemble: &mut Ensemble) {
        self.trace.note("heal all");
        self.next.clear();
        for (_, what) in std::mem::take(&mut self.undo) {
            self.undo_one(ensemble, what);
        }
        ensemble.network.set_loss(0.0);
        for id in ensemble.ids() {
            if !ensemble.is_running(id) && !self.damaged.contains_key(&id) {
                ensemble.start(id);
            }
        }
    }

    /// All that was done, with the moments it began and ended.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    fn client_nodes(&self) -> impl Iterator<Item = Node> + use<> {
        FIRST_CLIENT..FIRST_CLIENT + self.clients
    }

    fn undo_due(&mut self, ensemble: &mut Ensemble) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.undo = rest;
        let due: Vec<(Instant, Undo)> = due;
        for (_, what) in due {
            self.undo_one(ensemble, what);
        }
    }

    fn undo_one(&mut self, ensemble: &mut Ensemble, what: Undo) {
        let over = match what {
            Undo::Start(id, fault) => {
                ensemble.start(id);
                fault
            }
            Undo::Thaw(id, fault) => {
                ensemble.thaw(id);
                fault
            }
            Undo::Unblock(ways, fault) => {
                for (from, to) in ways {
                    ensemble.network.unblock(from, to);
                }
                fault
            }
            Undo::SpeedUp(ways, fault) => {
                for (from, to) in ways {
                    ensemble.network.slow_down(from, to, None);
                }
                fault
            }
            Undo::StopLosing(fault) => {
                ensemble.network.set_loss(0.0);
                fault
            }
            Undo::FreeSpace(id, fault) => {
                if let Some(disk) = ensemble.disk(id) {
                    disk.memory().set_capacity(None);
                }
                fault
            }
            Undo::DiskGoesOn(id, fault) => {
                if let Some(disk) = ensemble.disk(id) {
                    disk.go_on();
                }
                fault
            }
            Undo::ClockRight(id, fault) => {
                if let Some(clock) = ensemble.clock(id) {
                    clock.set_wrong_by(0);
                }
                fault
            }
            Undo::NewDisk(id, fault) => {
                ensemble.kill(id);
                ensemble.replace_disk(id);
                self.flipped.remove(&id);
                let newest = ensemble.applied().values().map(|zxid| zxid.0).max();
                self.damaged.insert(id, Some(newest.unwrap_or(0)));
                ensemble.start(id);
                fault
            }
            Undo::Restart(id) => {
                ensemble.start(id);
                let now = self.now();
                for (_, fault) in self
                    .until_restart
                    .extract_if(.., |(server, _)| *server == id)
                {
                    self.faults[fault].to = Some(now);
                }
                return;
            }
        };
        if let Some(fault) = self.faults.get_mut(over) {
            fault.to = Some(self.trace.now_ns());
        }
    }

    /// What supervisors and operators do: servers that have ended are started again, broken disks are
    /// replaced.
    fn look_after(&mut self, ensemble: &mut Ensemble) {
        let now = Instant::now();
        for (id, why) in ensemble.bury() {
            match why {
                Ok(()) => {
                    self.undo.push((now + SUPERVISOR, Undo::Restart(id)));
                }
                Err(why) if self.flipped.contains(&id) && is_refusal(&why) => {
                    // Found out: the operator takes it from here.
                    self.damaged.entry(id).or_insert(None);
                    let fault = self.begin(FaultClass::DiskLost, vec![id]);
                    self.undo.push((now + OPERATOR, Undo::NewDisk(id, fault)));
                }
                Err(why) => {
                    if is_refusal(&why) {
                        self.violations
                            .push(format!("server {id} does not start: {why}"));
                    }
                    self.undo.push((now + SUPERVISOR, Undo::Restart(id)));
                }
            }
        }
        let applied = ensemble.applied();
        let caught_up = |id: &u64, goal: i64| {
            applied.get(id).is_some_and(|zxid| zxid.0 > goal) && ensemble.is_whole()
        };
        self.damaged
            .retain(|id, goal| goal.is_none_or(|goal| !caught_up(id, goal)));
        self.flipped.retain(|id| !ensemble.is_up(*id));
    }

    fn begin(&mut self, class: FaultClass, servers: Vec<u64>) -> usize {
        self.faults.push(Fault {
            what: class.name().to_owned(),
            servers,
            from: self.now(),
            to: None,
        });
        self.faults.len() - 1
    }

    fn now(&self) -> Moment {
        self.trace.now_ns()
    }

    /// When a fault that begins now is over.
    fn later(&mut self) -> Instant {
        let ms = self.random.random_range(100..=self.plan.fault_ms_max);
        Instant::now() + Duration::from_millis(ms)
    }

    /// A server that runs: often the leader.
    fn victim(&mut self, ensemble: &Ensemble) -> Option<u64> {
        let leaders = ensemble.leaders();
        if !leaders.is_empty() && self.random.random_bool(0.4) {
            return leaders.choose(&mut self.random).copied();
        }
        let running: Vec<u64> = ensemble
            .ids()
            .into_iter()
            .filter(|id| ensemble.is_running(*id))
            .collect();
        running.choose(&mut self.random).copied()
    }

    /// Whether a server may lose its data: no other has, so whatever a majority had, one of the others
    /// has.
    fn may_destroy(&self) -> bool {
        self.damaged.is_empty() && self.flipped.is_empty()
    }

    fn make(&mut self, ensemble: &mut Ensemble, class: FaultClass) {
        let Some(victim) = self.victim(ensemble) else {
            return;
        };
        let until = self.later();
        match class {
            FaultClass::Kill => {
                let many = self.random.random_bool(0.25);
                let victims = self.some(ensemble, victim, many);
                let fault = self.begin(class, victims.clone());
                for id in victims {
                    ensemble.kill(id);
                    let at = if many { self.later() } else { until };
                    self.undo.push((at, Undo::Start(id, fault)));
                }
            }
            FaultClass::PowerCut | FaultClass::PowerCutOfMany => {
                let many = class == FaultClass::PowerCutOfMany;
                let victims = self.some(ensemble, victim, many);
                let fault = self.begin(class, victims.clone());
                for id in victims {
                    ensemble.cut_power(id);
                    let at = if many { self.later() } else { until };
                    self.undo.push((at, Undo::Start(id, fault)));
                }
            }
            FaultClass::Freeze => {
                if !ensemble.is_frozen(victim) {
                    let fault = self.begin(class, vec![victim]);
                    ensemble.freeze(victim);
                    self.undo.push((until, Undo::Thaw(victim, fault)));
                }
            }
            FaultClass::Restart => {
                let fault = self.begin(class, vec![victim]);
                ensemble.stop(victim);
                // Found ended, and started again, by those who look after it.
                self.until_restart.push((victim, fault));
            }
            FaultClass::Partition => self.part(ensemble, victim, until),
            FaultClass::Reset => {
                let others: Vec<Node> = ensemble
                    .ids()
                    .into_iter()
                    .map(node)
                    .chain(self.client_nodes())
                    .collect();
                let fault = self.begin(class, vec![victim]);
                for other in others {
                    if self.random.random_bool(0.5) {
                        ensemble.network.reset(node(victim), other);
                    }
                }
                self.faults[fault].to = Some(self.now());
            }
            FaultClass::Slow => {
                let by = Duration::from_millis(self.random.random_range(20..800));
                let ways = self.ways_of(ensemble, victim);
                // A leader that is slow is so for all.
                let fault = self.begin(class, Vec::new());
                for (from, to) in &ways {
                    ensemble.network.slow_down(*from, *to, Some(by));
                }
                self.undo.push((until, Undo::SpeedUp(ways, fault)));
            }
            FaultClass::Loss => {
                let fault = self.begin(class, Vec::new());
                let loss = self.random.random_range(0.01..0.4);
                ensemble.network.set_loss(loss);
                self.undo.push((until, Undo::StopLosing(fault)));
            }
            FaultClass::DiskHangs => {
                let fault = self.begin(class, vec![victim]);
                if let Some(disk) = ensemble.disk(victim) {
                    disk.hang(until - Instant::now());
                }
                self.undo.push((until, Undo::DiskGoesOn(victim, fault)));
            }
            FaultClass::DiskFull => {
                let fault = self.begin(class, vec![victim]);
                if let Some(disk) = ensemble.disk(victim) {
                    let free = self.random.random_range(0..64 << 10);
                    disk.memory()
                        .set_capacity(Some(disk.memory().used() + free));
                }
                self.undo.push((until, Undo::FreeSpace(victim, fault)));
            }
            FaultClass::SyncFails => {
                let fault = self.begin(class, vec![victim]);
                if let Some(disk) = ensemble.disk(victim) {
                    disk.memory().fail_sync(self.random.random_range(1..4));
                }
                self.until_restart.push((victim, fault));
            }
            FaultClass::WriteFails => {
                let fault = self.begin(class, vec![victim]);
                if let Some(disk) = ensemble.disk(victim) {
                    let nth = self.random.random_range(1..4);
                    disk.memory().fail_write(nth, std::io::ErrorKind::Other);
                }
                self.until_restart.push((victim, fault));
            }
            FaultClass::BitFlip => {
                if self.may_destroy() {
                    let fault = self.begin(class, vec![victim]);
                    ensemble.kill(victim);
                    self.flipped.insert(victim);
                    self.flip_a_bit(ensemble, victim);
                    self.undo.push((until, Undo::Start(victim, fault)));
                }
            }
            FaultClass::DiskLost => {
                if self.may_destroy() {
                    let fault = self.begin(class, vec![victim]);
                    ensemble.kill(victim);
                    self.damaged.insert(victim, None);
                    self.undo.push((until, Undo::NewDisk(victim, fault)));
                }
            }
            FaultClass::ClockJump => {
                let fault = self.begin(class, vec![victim]);
                let day = 24 * 3600 * 1000;
                let by = *[-day, -3_600_000, -5_000, 5_000, 3_600_000, day]
                    .choose(&mut self.random)
                    .unwrap_or(&day);
                if let Some(clock) = ensemble.clock(victim) {
                    clock.set_wrong_by(by);
                    self.trace
                        .note(&format!("clock of {victim} jumps by {by} ms"));
                }
                self.undo.push((until, Undo::ClockRight(victim, fault)));
            }
            FaultClass::ClientsCutOff => {
                let ways: Vec<(Node, Node)> = self
                    .client_nodes()
                    .flat_map(|client| [(client, node(victim)), (node(victim), client)])
                    .collect();
                self.block(ensemble, class, vec![victim], ways, until);
            }
        }
    }

    /// One server, or several of those that run, or all.
    fn some(&mut self, ensemble: &Ensemble, victim: u64, many: bool) -> Vec<u64> {
        if !many {
            return vec![victim];
        }
        let mut running: Vec<u64> = ensemble
            .ids()
            .into_iter()
            .filter(|id| ensemble.is_running(*id))
            .collect();
        running.shuffle(&mut self.random);
        let count = if self.random.random_bool(0.5) {
            running.len()
        } else {
            self.random.random_range(1..=running.len())
        };
        running.truncate(count);
        running
    }

    /// All ways from and to a server, of those to other servers.
    fn ways_of(&self, ensemble: &Ensemble, id: u64) -> Vec<(Node, Node)> {
        let others = ensemble.ids().into_iter().filter(|other| *other != id);
        others
            .flat_map(|other| [(node(id), node(other)), (node(other), node(id))])
            .collect()
    }

    fn part(&mut self, ensemble: &mut Ensemble, victim: u64, until: Instant) {
        let ids = ensemble.ids();
        let mut order: Vec<u64> = ids.clone();
        order.shuffle(&mut self.random);
        let both = |one: u64, other: u64| [(node(one), node(other)), (node(other), node(one))];
        let ways: Vec<(Node, Node)> = match self.random.random_range(0..7) {
            // One alone, often the leader.
            0 | 1 => self.ways_of(ensemble, victim),
            // It hears nobody.
            2 => ids
                .iter()
                .filter(|id| **id != victim)
                .map(|id| (node(*id), node(victim)))
                .collect(),
            // Nobody hears it.
            3 => ids
                .iter()
                .filter(|id| **id != victim)
                .map(|id| (node(victim), node(*id)))
                .collect(),
            // Two groups.
            4 => {
                let (one, other) = order.split_at(order.len() / 2);
                one.iter()
                    .flat_map(|one| other.iter().flat_map(move |other| both(*one, *other)))
                    .collect()
            }
            // Two groups, and one who reaches both.
            5 => {
                let rest: Vec<u64> = order.iter().copied().filter(|id| *id != victim).collect();
                let (one, other) = rest.split_at(rest.len() / 2);
                one.iter()
                    .flat_map(|one| other.iter().flat_map(move |other| both(*one, *other)))
                    .collect()
            }
            // A chain, or with one way only.
            _ => {
                let mut ways = Vec::new();
                for (at, one) in order.iter().enumerate() {
                    for other in order.iter().skip(at + 2) {
                        ways.extend(both(*one, *other));
                    }
                }
                if self.random.random_bool(0.3) {
                    ways.retain(|_| self.random.random_bool(0.5));
                }
                ways
            }
        };
        let mut hit: Vec<u64> = ids;
        hit.retain(|id| {
            ways.iter()
                .any(|(from, to)| *from == node(*id) || *to == node(*id))
        });
        self.block(ensemble, FaultClass::Partition, hit, ways, until);
    }

    fn block(
        &mut self,
        ensemble: &mut Ensemble,
        class: FaultClass,
        servers: Vec<u64>,
        ways: Vec<(Node, Node)>,
        until: Instant,
    ) {
        if ways.is_empty() {
            return;
        }
        self.trace.note(&format!("{} {ways:?}", class.name()));
        let fault = self.begin(class, servers);
        for (from, to) in &ways {
            ensemble.network.block(*from, *to);
        }
        self.undo.push((until, Undo::Unblock(ways, fault)));
    }

    fn flip_a_bit(&mut self, ensemble: &Ensemble, id: u64) {
        let Some(disk) = ensemble.disk(id) else {
            return;
        };
        let image = disk.memory().image();
        let files: Vec<_> = image
            .iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .collect();
        let Some((path, contents)) = files.choose(&mut self.random) else {
            return;
        };
        let at = self.random.random_range(0..contents.len());
        let bit = self.random.random_range(0..8);
        self.trace.note(&format!(
            "bit {bit} of byte {at} of {} flips",
            path.display()
        ));
        let mut contents = (*contents).clone();
        contents[at] ^= 1 << bit;
        disk.memory().plant(path, &contents);
    }
}

/// Whether a server ended because it does not trust its disk, rather than because a disk failed.
fn is_refusal(why: &str) -> bool {
    let a_disk_failed = [
        "injected",
        "the power went out",
        "other error",
        "no storage space",
    ];
    !a_disk_failed.iter().any(|text| why.contains(text))
}

/// Time between two faults.
fn pause(random: &mut SmallRng, mean_ms: u64) -> Duration {
    let share: f64 = random.random_range(0.05..1.0);
    #[expect(clippy::cast_precision_loss, reason = "it is a random span")]
    let ms = mean_ms as f64 * -share.ln();
    Duration::from_secs_f64((ms / 1000.0).clamp(0.05, 600.0))
}
