//! A power cut at every change that a life makes to the disk, and a start from what is left.
//!
//! The life is lived once and kept as a tape. At each place of the tape, `wreck` makes disks as a power
//! cut there may leave them; each is started from, with the code of a server's start, and judged. Some
//! of these starts are taped in their turn, with what a server does first, and cut at some place, too.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use quorate_server::storage::StorageError;
use quorate_server::storage::log::{EntryId, LogEntry, SavedVote};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use crate::oracle::{Moment, Oracle, Window, link};
use crate::start::{judge, start};
use crate::tape::{Faults, Image, Note, Op, TapeDisk};
use crate::workload::{Life, Tally, Violation, live};
use crate::wreck::{Damage, Wreck};

/// One start in so many is taped and cut in its turn.
const NESTED_ONE_IN: u32 = 8;
/// So many cuts are made of a taped start.
const NESTED_CUTS: usize = 3;
/// How deep cuts are made into starts after cuts.
const DEPTH_MAX: u32 = 2;
/// At a place where nothing that matters is unsynced, more ways add nothing.
const DULL_STATES_MAX: usize = 3;
/// Rounds over the tape after which no more states are looked for.
const ROUNDS_MAX: usize = 10_000;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub operations: u64,
    /// Disks to start from, at least; every change of the life is cut at whatever this says.
    pub states: u64,
    /// How many lives with a failing sync, of a file and of a folder, and with a wrong write to a
    /// snapshot; `None` is one for every one there is.
    pub failing_syncs: Option<u64>,
    /// So many violations are told before it gives up; a bug has many faces.
    pub violations_max: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Changes of the life, all of them cut at.
    pub points: u64,
    /// Disks started from, starts within starts included.
    pub states: u64,
    /// Of these, after a cut during or after a start.
    pub nested: u64,
    /// Starts refused on disks that are worse than a start promises to cope with.
    pub refused_beyond: u64,
    /// Lives with a failing sync, or with a snapshot that was written wrong.
    pub faults: u64,
    pub violations: Vec<Violation>,
    pub tally: Tally,
    violations_max: usize,
}

impl Outcome {
    /// Nothing yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            violations_max: plan.violations_max,
            ..Self::default()
        }
    }

    fn violation(&mut self, what: Violation) {
        if self.violations.len() < self.violations_max {
            self.violations.push(what);
        }
    }

    pub fn is_hopeless(&self) -> bool {
        self.violations.len() >= self.violations_max
    }
}

/// Lives, and cuts. Must run on a simulated host.
pub async fn run(plan: Plan) -> Outcome {
    let mut outcome = Outcome::new(&plan);
    let life = match live(plan.seed, plan.operations, Faults::default()).await {
        Ok(life) => life,
        Err(what) => {
            outcome.violation(format!("seed {}: {what}", plan.seed));
            return outcome;
        }
    };
    outcome.tally = life.tally;
    let missing = life.tally.missing();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        outcome.violation(format!("seed {}: this life had no {missing}", plan.seed));
    }
    outcome.points = life.ops.iter().filter(|op| op.is_change()).count() as u64;
    let mut cutter = Cutter {
        seed: plan.seed,
        random: SmallRng::seed_from_u64(plan.seed ^ 0xc075),
        outcome,
    };
    let mut seen: Vec<HashSet<u64>> = Vec::new();
    for round in 0..ROUNDS_MAX {
        let before = cutter.outcome.states;
        cutter
            .cut_everywhere(&life, round, &mut seen, plan.states)
            .await;
        let is_enough = round > 0 && cutter.outcome.states >= plan.states;
        if is_enough || cutter.outcome.is_hopeless() || cutter.outcome.states == before {
            break;
        }
    }
    let mut outcome = cutter.outcome;
    if outcome.states < plan.states && !outcome.is_hopeless() {
        let (states, wanted) = (outcome.states, plan.states);
        outcome.violation(format!(
            "there are {states} states, not {wanted}: ask for fewer"
        ));
    }
    outcome
}

struct Cutter {
    seed: u64,
    random: SmallRng,
    outcome: Outcome,
}

/// Where a cut was made, for whoever looks into a violation.
#[derive(Clone, Debug)]
struct Trail(String);

impl Cutter {
    /// One round over the tape. The first tries at each place what is sure to be telling: nothing
    /// unsynced left, everything left, and one way in between.
    async fn cut_everywhere(
        &mut self,
        life: &Life,
        round: usize,
        seen: &mut Vec<HashSet<u64>>,
        wanted: u64,
    ) {
        let mut wreck = Wreck::default();
        let mut window = Window::default();
        let mut place = 0;
        for op in &life.ops {
            if op.is_change() {
                if seen.len() <= place {
                    seen.push(HashSet::new());
                }
                let ways = if round == 0 {
                    0..3
                } else {
                    round + 2..round + 3
                };
                let is_dull = wreck.loose_ends() == 0 && seen[place].len() >= DULL_STATES_MAX;
                let is_done = round > 0 && self.outcome.states >= wanted;
                if !(wreck.is_clean() && round > 0 || is_dull || is_done) {
                    for way in ways {
                        let (image, cut, damage) = wreck.cut(way, &mut self.random);
                        if seen[place].insert(hash(&cut)) {
                            let trail = Trail(format!(
                                "seed {}, before change {place} ({}), way {way} of round {round}",
                                self.seed,
                                name(op)
                            ));
                            self.try_start(&image, &life.oracle, window, damage, trail, 0)
                                .await;
                        }
                    }
                }
                place += 1;
            }
            if let Op::Note(note) = op {
                window.note(*note);
            }
            wreck.apply(op);
            if self.outcome.is_hopeless() {
                return;
            }
        }
    }

    async fn try_start(
        &mut self,
        image: &Image,
        oracle: &Oracle,
        window: Window,
        damage: Damage,
        trail: Trail,
        depth: u32,
    ) {
        self.outcome.states += 1;
        self.outcome.nested += u64::from(depth > 0);
        let is_taped = depth < DEPTH_MAX && self.random.random_range(0..NESTED_ONE_IN) == 0;
        let disk = TapeDisk::new(image, window, is_taped);
        let mut started = match start(Arc::new(disk.clone())) {
            Ok(started) => started,
            Err(StorageError::Damaged { .. }) if damage == Damage::Beyond => {
                self.outcome.refused_beyond += 1;
                return;
            }
            Err(error) => {
                self.outcome
                    .violation(format!("{}: no start: {error}", trail.0));
                return;
            }
        };
        let moment = match judge(oracle, &window, &mut started) {
            Ok(moment) => moment,
            Err(what) => {
                self.outcome.violation(format!("{}: {what}", trail.0));
                return;
            }
        };
        if !is_taped {
            return;
        }
        let mut oracle = oracle.clone();
        if let Err(what) = go_on(&disk, &mut oracle, moment, started).await {
            self.outcome
                .violation(format!("{}: after the start: {what}", trail.0));
            return;
        }
        self.cut_start(image, &disk.take_ops(), &oracle, window, &trail, depth)
            .await;
    }

    /// Cuts a start that was taped, at a few places.
    async fn cut_start(
        &mut self,
        image: &Image,
        ops: &[Op],
        oracle: &Oracle,
        window: Window,
        trail: &Trail,
        depth: u32,
    ) {
        let changes = ops.iter().filter(|op| op.is_change()).count();
        for _ in 0..NESTED_CUTS {
            // The last place is after everything.
            let at = self.random.random_range(0..=changes);
            let (mut wreck, mut window) = (Wreck::of(image), window);
            let mut place = 0;
            let mut next = "the end";
            for op in ops {
                if op.is_change() {
                    if place == at {
                        next = name(op);
                        break;
                    }
                    place += 1;
                }
                if let Op::Note(note) = op {
                    window.note(*note);
                }
                wreck.apply(op);
            }
            let way = self.random.random_range(0..5);
            let (image, _, damage) = wreck.cut(way, &mut self.random);
            let trail = Trail(format!(
                "{}; then before change {at} ({next}), way {way}",
                trail.0
            ));
            Box::pin(self.try_start(&image, oracle, window, damage, trail, depth + 1)).await;
        }
    }
}

/// A vote and some entries, as they come to a server that has started; then it stops, in order or not.
async fn go_on(
    disk: &TapeDisk,
    oracle: &mut Oracle,
    moment: usize,
    started: crate::start::Started,
) -> Result<(), Violation> {
    let log = &started.log;
    let mut now = oracle.moments[moment];
    oracle.moments.push(now);
    disk.note(Note::Initialized);
    disk.note(Note::Found(oracle.moments.len() - 1));
    let ask = |oracle: &mut Oracle, now: Moment| {
        oracle.moments.push(now);
        disk.note(Note::Asked(oracle.moments.len() - 1));
    };
    if let Some(last) = started.overruled {
        // `start` has asked for it.
        now.last = last;
        let kept = started.entries.iter();
        let kept = kept.take_while(|entry| Some(entry.id) <= last);
        now.chain = kept.fold(now.chain_purged, link);
        ask(oracle, now);
    }
    if let Some(applied) = started.applied
        && now.last.is_none_or(|last| last.index < applied.index)
    {
        // The engine starts where the snapshot ends. What the entries before it were is unknown here,
        // and does not matter: they are gone.
        now.purged = Some(applied);
        now.last = Some(applied);
        now.chain_purged = applied.index;
        now.chain = applied.index;
        ask(oracle, now);
        log.purge(applied).map_err(|error| error.to_string())?;
    }
    let voted = now.vote.map_or(0, |vote| vote.term);
    let term = 1 + voted.max(now.last.map_or(0, |last| last.term));
    let vote = SavedVote {
        term,
        server: 2,
        committed: true,
    };
    now.vote = Some(vote);
    ask(oracle, now);
    let (done, durable) = completion(disk, oracle);
    log.save_vote(vote, done)
        .map_err(|error| error.to_string())?;
    wait(durable).await?;
    for length in [10, 3000] {
        let index = now.last.map_or(0, |last| last.index + 1);
        let entry = LogEntry {
            id: EntryId { term, index },
            kind: 0,
            payload: Bytes::from(vec![0; length]),
        };
        now.last = Some(entry.id);
        now.chain = link(now.chain, &entry);
        ask(oracle, now);
        let (done, durable) = completion(disk, oracle);
        log.append([entry], done)
            .map_err(|error| error.to_string())?;
        wait(durable).await?;
    }
    Arc::clone(log)
        .finish()
        .await
        .map_err(|error| error.to_string())
}

type Durable = oneshot::Receiver<Result<(), StorageError>>;

fn completion(
    disk: &TapeDisk,
    oracle: &Oracle,
) -> (Box<dyn quorate_server::storage::log::Completion>, Durable) {
    let number = oracle.moments.len() - 1;
    let disk = disk.clone();
    let (done, durable) = oneshot::channel();
    let complete = move |outcome: Result<(), StorageError>| {
        if outcome.is_ok() {
            disk.note(Note::Durable(number));
        }
        // Whoever waited may have gone.
        let _ = done.send(outcome);
    };
    (Box::new(complete), durable)
}

async fn wait(durable: Durable) -> Result<(), Violation> {
    match durable.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("a completion was never called".to_owned()),
    }
}

/// A life in which a sync fails, or a snapshot is written wrong, up to the failure; then a start with
/// what the page cache shows, and a power cut after that.
pub async fn run_faults(plan: Plan, outcome: &mut Outcome) {
    let counts = match live(plan.seed, plan.operations, Faults::default()).await {
        Ok(life) => life.counts,
        Err(what) => return outcome.violation(format!("seed {}: {what}", plan.seed)),
    };
    let sync = |number| Faults {
        failing_sync: Some(number),
        ..Faults::default()
    };
    let folder_sync = |number| Faults {
        failing_folder_sync: Some(number),
        ..Faults::default()
    };
    let write = |number| Faults {
        corrupt_snapshot_write: Some(number),
        ..Faults::default()
    };
    type Make<'a> = &'a (dyn Fn(u64) -> Faults + Sync);
    let kinds: [(&str, u64, Make<'_>); 3] = [
        ("failing sync", counts.syncs, &sync),
        (
            "failing sync of a folder",
            counts.folder_syncs,
            &folder_sync,
        ),
        ("wrong write to a snapshot", counts.snapshot_writes, &write),
    ];
    for (what, count, faults) in kinds {
        let step = plan.failing_syncs.map_or(1, |wanted| count / wanted.max(1));
        let step = usize::try_from(step.max(1)).unwrap_or(1);
        for number in (1..=count).step_by(step) {
            run_fault(plan, faults(number), &format!("{what} {number}"), outcome).await;
        }
    }
}

async fn run_fault(plan: Plan, faults: Faults, what: &str, outcome: &mut Outcome) {
    if outcome.is_hopeless() {
        return;
    }
    outcome.faults += 1;
    let trail = format!("seed {}, {what}", plan.seed);
    let life = match live(plan.seed, plan.operations, faults).await {
        Ok(life) => life,
        Err(what) => return outcome.violation(format!("{trail}: {what}")),
    };
    if life.failure.is_none() {
        return outcome.violation(format!("{trail}: nobody noticed"));
    }
    let mut cutter = Cutter {
        seed: plan.seed,
        random: SmallRng::seed_from_u64(plan.seed ^ 0xfa17),
        outcome: std::mem::take(outcome),
    };
    let mut wreck = Wreck::default();
    for op in &life.ops {
        wreck.apply(op);
    }
    // The power goes, before anybody has started anything.
    let (image, _, damage) = wreck.cut(0, &mut cutter.random);
    let dark = Trail(format!("{trail}; then the power goes"));
    cutter
        .try_start(&image, &life.oracle, life.window, damage, dark, 0)
        .await;
    // Or the server is started again, on what the cache shows, and the power goes after that.
    cutter.restart_in_doubt(&life, wreck, &trail).await;
    *outcome = cutter.outcome;
}

impl Cutter {
    async fn restart_in_doubt(&mut self, life: &Life, mut wreck: Wreck, trail: &str) {
        self.outcome.states += 1;
        let disk = TapeDisk::resumed(wreck.cached(), wreck.fresh_inode(), life.window);
        let started = start(Arc::new(disk.clone()));
        let judged = started.map_err(|error| format!("no start: {error}"));
        let judged = judged.and_then(|mut started| {
            let moment = judge(&life.oracle, &life.window, &mut started)?;
            Ok((started, moment))
        });
        let (started, moment) = match judged {
            Ok(judged) => judged,
            Err(what) => {
                let what = format!("{trail}; then started again: {what}");
                return self.outcome.violation(what);
            }
        };
        let mut oracle = life.oracle.clone();
        if let Err(what) = go_on(&disk, &mut oracle, moment, started).await {
            let what = format!("{trail}; then started again: {what}");
            return self.outcome.violation(what);
        }
        let ops = disk.take_ops();
        let changes = ops.iter().filter(|op| op.is_change()).count();
        let at = self.random.random_range(0..=changes);
        let mut window = life.window;
        let mut place = 0;
        for op in &ops {
            if op.is_change() {
                if place == at {
                    break;
                }
                place += 1;
            }
            if let Op::Note(note) = op {
                window.note(*note);
            }
            wreck.apply(op);
        }
        let (image, _, damage) = wreck.cut(0, &mut self.random);
        let trail = Trail(format!(
            "{trail}; then started again, and the power goes before change {at}"
        ));
        self.try_start(&image, &oracle, window, damage, trail, DEPTH_MAX)
            .await;
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn name(op: &Op) -> &'static str {
    match op {
        Op::Create { .. } => "create",
        Op::Write { .. } => "write",
        Op::SetLength { .. } => "allocate",
        Op::Sync { .. } => "sync",
        Op::Rename { .. } => "rename",
        Op::Remove { .. } => "remove",
        Op::SyncFolder { .. } => "sync of the folder",
        Op::Note(_) => "note",
    }
}
