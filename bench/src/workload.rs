//! What a run asks for: which operation comes next, and on which znode.

use clap::ValueEnum;

use crate::error::BenchError;
use crate::wire::{Paths, Reply, Template};

/// An operation, or a mixture of get and set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Op {
    Create,
    Set,
    Get,
    Exists,
    Children,
    /// A sync and a get behind it, as one operation: ZooKeeper's way to read the latest.
    SyncedGet,
    /// Gets and sets, in the proportion of --read-percent.
    Mixed,
}

impl Op {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Set => "set",
            Self::Get => "get",
            Self::Exists => "exists",
            Self::Children => "children",
            Self::SyncedGet => "sync and get",
            Self::Mixed => "mixed",
        }
    }
}

/// The shape of the tree a run works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) parents: u32,
    /// Znodes that exist before the run, spread evenly over the parents.
    pub(crate) keys: u32,
    pub(crate) data_bytes: usize,
}

/// Draws requests for one driver; drivers of one run share no znode they create.
#[derive(Debug)]
pub(crate) struct Workload {
    templates: [Template; 6],
    op: Op,
    read_percent: u32,
    /// Whether the request before was the sync of an operation whose get comes next.
    is_synced: bool,
    shape: Shape,
    next_created: u32,
    created_step: u32,
    random: Random,
}

/// The place of an operation's template.
fn slot(op: Op) -> u8 {
    match op {
        Op::Create => 0,
        Op::Set => 1,
        Op::Get | Op::SyncedGet | Op::Mixed => 2,
        Op::Exists => 3,
        Op::Children => 4,
    }
}

const SYNC_SLOT: u8 = 5;

impl Workload {
    /// `driver` of `drivers` (counted from 0): creates the `driver`th, then every `drivers`th znode
    /// from `created_from` on.
    pub(crate) fn new(
        paths: &Paths,
        op: Op,
        read_percent: u32,
        shape: Shape,
        created_from: u32,
        (driver, drivers): (u32, u32),
    ) -> Result<Self, BenchError> {
        let data = vec![b'd'; shape.data_bytes];
        Ok(Self {
            templates: [
                Template::create(paths, &data)?,
                Template::set(paths, &data)?,
                Template::get(paths, shape.data_bytes)?,
                Template::exists(paths)?,
                Template::children(paths)?,
                Template::sync(paths)?,
            ],
            op,
            read_percent,
            is_synced: false,
            shape,
            next_created: created_from + driver,
            created_step: drivers,
            random: Random::new(u64::from(driver) + 1),
        })
    }

    /// How many requests make one operation. They are sent together.
    pub(crate) fn requests_per_op(&self) -> usize {
        if self.op == Op::SyncedGet { 2 } else { 1 }
    }

    /// Appends the next request and says which kind it is.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>, xid: i32) -> u8 {
        let op = match self.op {
            Op::Mixed if self.random.below(100) < self.read_percent => Op::Get,
            Op::Mixed => Op::Set,
            op => op,
        };
        let number = match op {
            Op::Create => {
                let number = self.next_created;
                self.next_created = number.wrapping_add(self.created_step);
                number
            }
            Op::Children => self.random.below(self.shape.parents),
            _ => self.random.below(self.shape.keys),
        };
        let (parent, child) = place(number, self.shape.parents);
        self.is_synced = op == Op::SyncedGet && !self.is_synced;
        let slot = if self.is_synced { SYNC_SLOT } else { slot(op) };
        self.templates[usize::from(slot)].emit(out, xid, parent, child);
        slot
    }

    /// Whether a reply without an error can be right for the kind of request it answers.
    pub(crate) fn check(&self, slot: u8, reply: &Reply) -> Result<(), BenchError> {
        self.templates[usize::from(slot)].check(reply)
    }

    /// The number after the highest znode created or reserved.
    pub(crate) fn created_until(&self) -> u32 {
        self.next_created
    }
}

/// The parent and child number of the znode with this number: round robin over the parents, so that
/// none gets more children than the others.
pub(crate) fn place(number: u32, parents: u32) -> (u32, u32) {
    (number % parents, number)
}

/// xorshift64*: a few instructions, and the same sequence in every run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Evenly distributed below `limit`.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * u64::from(limit)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn workload(op: Op, driver: u32, drivers: u32) -> Workload {
        let paths = Paths {
            root: "/bench".to_owned(),
        };
        let shape = Shape {
            parents: 7,
            keys: 100,
            data_bytes: 10,
        };
        Workload::new(&paths, op, 90, shape, 100, (driver, drivers)).unwrap()
    }

    #[test]
    fn drivers_never_create_the_same_znode_nor_one_that_exists() {
        let mut numbers = BTreeSet::new();
        for driver in 0..3 {
            let mut workload = workload(Op::Create, driver, 3);
            for _ in 0..50 {
                let mut frame = Vec::new();
                workload.next(&mut frame, 1);
                let text = String::from_utf8_lossy(&frame).into_owned();
                let at = text.find("/n").unwrap() + 2;
                let number: u32 = text[at..at + 9].parse().unwrap();
                assert!(number >= 100);
                assert!(numbers.insert(number), "{number} twice");
            }
        }
    }

    #[test]
    fn a_mixture_has_the_proportion_asked_for() {
        let mut workload = workload(Op::Mixed, 0, 1);
        let mut gets = 0;
        for xid in 0..10_000 {
            let mut frame = Vec::new();
            gets += u32::from(workload.next(&mut frame, xid) == slot(Op::Get));
        }
        assert!((8_800..9_200).contains(&gets), "{gets} of 10000");
    }

    #[test]
    fn a_read_of_the_latest_is_a_sync_and_then_a_get() {
        let mut workload = workload(Op::SyncedGet, 0, 1);
        assert_eq!(workload.requests_per_op(), 2);
        let slots: Vec<u8> = (0..4)
            .map(|xid| workload.next(&mut Vec::new(), xid))
            .collect();
        let get = slot(Op::Get);
        assert_eq!(slots, [SYNC_SLOT, get, SYNC_SLOT, get]);
    }

    #[test]
    fn random_numbers_reach_every_value_below_the_limit() {
        let mut random = Random::new(1);
        let seen: BTreeSet<u32> = (0..1_000).map(|_| random.below(10)).collect();
        assert_eq!(seen, (0..10).collect());
    }
}
