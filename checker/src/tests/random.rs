//! Random work on an ensemble that keeps its promises: nothing is to be noticed.

use quorate_protocol::{AclEntry, Id, Perms};

use crate::history::{CreateKind, Data, Path, Request, WatchList};

use super::world::{STEP, World};
use super::{assert_clean, set, sync};

/// splitmix64: the same seed makes the same history.
struct Dice(u64, bool);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()].clone()
    }
}

const PATHS: [&str; 12] = [
    "/a",
    "/b",
    "/a/x",
    "/a/y",
    "/a/x/deep",
    "/b/z",
    "/r0",
    "/r1",
    "/r2",
    "/r3",
    "/queue",
    "/r0/no",
];

/// Containers and TTLs keep what they are among out of the search, so only some worlds have them.
fn kind(dice: &mut Dice) -> CreateKind {
    match dice.below(if dice.1 { 12 } else { 5 }) {
        0 => CreateKind::Ephemeral,
        1 => CreateKind::EphemeralSequential,
        2 => CreateKind::PersistentSequential,
        5 => CreateKind::Container,
        6 => CreateKind::Ttl { ms: 1_000 },
        _ => CreateKind::Persistent,
    }
}

fn version(dice: &mut Dice) -> i32 {
    match dice.below(4) {
        0 => i32::try_from(dice.below(3)).unwrap(),
        _ => -1,
    }
}

fn acl(dice: &mut Dice) -> Option<Vec<AclEntry>> {
    let secret = AclEntry::new(Perms::ALL, "digest", &Id::digest(b"u:p").id);
    match dice.below(12) {
        0 => Some(vec![secret]),
        1 => Some(vec![
            AclEntry::new(Perms::READ, "world", "anyone"),
            AclEntry::new(Perms::ALL, "auth", ""),
        ]),
        _ => None,
    }
}

fn write(dice: &mut Dice, count: &mut u32) -> Request {
    let path: Path = dice.pick(&PATHS).into();
    *count += 1;
    let data = match dice.below(10) {
        0 => Data::NULL,
        _ => Data::from(format!("value {count}")),
    };
    match dice.below(10) {
        0..=3 => Request::Create {
            path,
            data,
            kind: kind(dice),
            acl: acl(dice),
            with_stat: dice.below(2) == 0,
        },
        4..=5 => Request::Delete {
            path,
            version: version(dice),
        },
        _ => Request::SetData {
            path,
            data,
            version: version(dice),
        },
    }
}

fn read(dice: &mut Dice) -> Request {
    let path: Path = dice.pick(&PATHS).into();
    let watch = dice.below(2) == 0;
    match dice.below(12) {
        0..=3 => Request::GetData { path, watch },
        4..=5 => Request::Exists { path, watch },
        6..=7 => Request::GetChildren { path, watch },
        8 => Request::GetAcl { path },
        9 => Request::CountDescendants { path: "/a".into() },
        10 => Request::GetEphemerals { prefix: "/".into() },
        _ => Request::MultiRead(vec![
            Request::GetData { path, watch: false },
            Request::GetChildren {
                path: "/".into(),
                watch: false,
            },
        ]),
    }
}

fn request(dice: &mut Dice, count: &mut u32) -> Request {
    let path: Path = dice.pick(&PATHS).into();
    match dice.below(30) {
        0..=11 => write(dice, count),
        12..=22 => read(dice),
        23 => Request::Multi((0..dice.below(4)).map(|_| write(dice, count)).collect()),
        24 => Request::Multi(vec![
            Request::Check { path, version: 0 },
            write(dice, count),
        ]),
        25 => sync(),
        26 => Request::Ping,
        27 => Request::AddWatch {
            path,
            recursive: dice.below(2) == 0,
        },
        28 => Request::RemoveWatches {
            path,
            which: dice.pick(&[
                WatchList::Any,
                WatchList::Data,
                WatchList::Children,
                WatchList::Persistent,
                WatchList::Recursive,
            ]),
        },
        _ => Request::SetAcl {
            path,
            acl: acl(dice).unwrap_or_else(|| vec![AclEntry::open()]),
            version: version(dice),
        },
    }
}

fn set_watches(dice: &mut Dice, since: i64) -> Request {
    let mut list = || {
        (0..dice.below(3))
            .map(|_| dice.pick(&PATHS).into())
            .collect()
    };
    Request::SetWatches {
        since,
        data: list(),
        exist: list(),
        child: list(),
        persistent: list(),
        recursive: list(),
    }
}

pub(super) fn world_of(seed: u64, steps: u32) -> World {
    let mut dice = Dice(seed, seed.is_multiple_of(4));
    let mut world = World::new();
    let mut count = 0;
    let mut open: Vec<u32> = (1..=4)
        .map(|client| world.open(client, u64::from(client % 3 + 1)))
        .collect();
    for _ in 0..steps {
        let index = usize::try_from(dice.below(open.len() as u64)).unwrap();
        let connection = open[index];
        world.spread = (dice.below(5) * STEP, dice.below(5) * STEP);
        if dice.below(8) == 0 {
            let server = dice.below(3) + 1;
            world.catch_up(server);
        }
        match dice.below(60) {
            0 => {
                let in_vain = request(&mut dice, &mut count);
                let is_done = dice.below(2) == 0;
                world.ask_in_vain(connection, in_vain, is_done);
            }
            1 => {}
            2 => {
                world.expire(connection);
            }
            3 => {
                world.ask(connection, Request::CloseSession);
            }
            4 => {
                let identity = Id::digest(b"u:p");
                world.ask(connection, Request::Authenticate { identity });
                continue;
            }
            _ => {
                let request = request(&mut dice, &mut count);
                world.ask(connection, request);
                continue;
            }
        }
        // However it came: the client goes on, with the session if that lives, or a new one.
        let since = world.seen(connection);
        world.now += 20 * STEP;
        world.now += 5_000 * STEP * u64::from(dice.below(4) == 0);
        open[index] = match world.resume(connection, dice.below(3) + 1) {
            Some(connection) => {
                let request = set_watches(&mut dice, since);
                world.ask(connection, request);
                connection
            }
            None => world.open(u32::try_from(index).unwrap() + 1, dice.below(3) + 1),
        };
    }
    world
}

#[test]
fn nothing_is_noticed_where_all_promises_are_kept() {
    let mut tally = crate::Tally::default();
    for seed in 0..60 {
        let mut history = world_of(seed, 250).finish();
        // Here sessions end at any time.
        history.header.promises.acknowledged_touches_count = false;
        let report = crate::check(&history);
        assert!(report.is_clean(), "seed {seed}:\n{}", super::show(&report));
        tally.add(&report.tally);
    }
    assert!(tally.reads_checked > 4_000, "{tally:?}");
    assert!(tally.events_checked > 800, "{tally:?}");
    assert!(tally.linearized > 2_000, "{tally:?}");
    assert!(tally.sessions_expired > 50, "{tally:?}");
}

#[test]
fn nothing_is_noticed_without_a_log_either() {
    let mut tally = crate::Tally::default();
    for seed in 0..60 {
        let mut history = world_of(seed, 120).finish();
        history.header.promises.acknowledged_touches_count = false;
        history.log = None;
        let report = crate::check(&history);
        assert!(report.is_clean(), "seed {seed}:\n{}", super::show(&report));
        tally.add(&report.tally);
    }
    assert!(tally.linearized > 500, "{tally:?}");
    assert!(tally.events_checked > 150, "{tally:?}");
}

#[test]
fn a_history_is_judged_alike_after_it_was_written_and_read() {
    let history = world_of(7, 100).finish();
    let mut lines = Vec::new();
    history.write_to(&mut lines).unwrap();
    let read = crate::History::read_from(&lines[..]).unwrap();
    assert_eq!(read, history);
}

#[test]
fn a_quiet_history_is_clean() {
    let mut world = World::new();
    let connection = world.open(1, 1);
    world.ask(connection, super::create("/a"));
    world.ask(connection, set("/a", "1"));
    world.ask(connection, super::get("/a"));
    assert_clean(&world.finish());
}

/// The simulation makes some ten million operations to judge; this is what it can spare for each.
const NANOS_PER_OPERATION_MAX: u128 = 20_000;

#[test]
#[ignore = "a measurement: cargo test --profile proof -p quorate-checker fast_enough -- --ignored"]
fn judging_is_fast_enough() {
    let histories: Vec<crate::History> = (0..40).map(|seed| world_of(seed, 500).finish()).collect();
    let operations: usize = histories.iter().map(|it| it.operations.len()).sum();
    let began = std::time::Instant::now();
    let mut tally = crate::Tally::default();
    for history in &histories {
        tally.add(&crate::check(history).tally);
    }
    let each = began.elapsed().as_nanos() / operations as u128;
    println!("{each} ns for each of {operations} operations; {tally:?}");
    assert!(each < NANOS_PER_OPERATION_MAX);
}
