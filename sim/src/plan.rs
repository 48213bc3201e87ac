//! What a run is: drawn from its seed, swarm style. Each class of faults is on or off for a whole run
//! and has a rate of its own; a run with everything on would be average everywhere and extreme nowhere.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::network::Weather;

/// How the servers of a run are set up.
#[derive(Clone, Debug)]
pub struct Settings {
    pub servers: u64,
    pub tick_ms: u32,
    /// A snapshot is due after so many entries: few, so that rare paths are common.
    pub snapshot_entries: u64,
    pub log_segment_bytes: u64,
    pub linearizable_reads: bool,
    /// What a sync takes.
    pub sync_ms: (u64, u64),
}

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultClass {
    /// A process is killed; its machine lives on.
    Kill,
    /// A machine loses its power, and what was not synced.
    PowerCut,
    /// Several, or all, at once.
    PowerCutOfMany,
    /// A process stands still.
    Freeze,
    /// A server is stopped in order and started again.
    Restart,
    /// Servers are parted, one way or both, in some shape.
    Partition,
    /// Connections are torn.
    Reset,
    /// A way is slow.
    Slow,
    /// Packets are lost, so late.
    Loss,
    /// A disk hangs.
    DiskHangs,
    /// A disk is full.
    DiskFull,
    /// A sync fails; the server must stop.
    SyncFails,
    /// A write fails.
    WriteFails,
    /// A bit on a disk flips while its server is down.
    BitFlip,
    /// A disk is lost with all it holds.
    DiskLost,
    /// A wall clock jumps.
    ClockJump,
    /// Clients are cut off from a server that the others reach.
    ClientsCutOff,
}

impl FaultClass {
    pub const ALL: [Self; 17] = [
        Self::Kill,
        Self::PowerCut,
        Self::PowerCutOfMany,
        Self::Freeze,
        Self::Restart,
        Self::Partition,
        Self::Reset,
        Self::Slow,
        Self::Loss,
        Self::DiskHangs,
        Self::DiskFull,
        Self::SyncFails,
        Self::WriteFails,
        Self::BitFlip,
        Self::DiskLost,
        Self::ClockJump,
        Self::ClientsCutOff,
    ];

    /// Its name in a history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerCut => "power_cut",
            Self::PowerCutOfMany => "power_cut_of_many",
            Self::Freeze => "pause",
            Self::Restart => "restart",
            Self::Partition => "partition",
            Self::Reset => "reset",
            Self::Slow => "slow_network",
            Self::Loss => "loss",
            Self::DiskHangs => "disk_hangs",
            Self::DiskFull => "disk_full",
            Self::SyncFails => "sync_fails",
            Self::WriteFails => "write_fails",
            Self::BitFlip => "bit_flip",
            Self::DiskLost => "disk_lost",
            Self::ClockJump => "clock_jump",
            Self::ClientsCutOff => "clients_cut_off",
        }
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub settings: Settings,
    pub weather: Weather,
    /// Classes that are on, each with the mean time between two of them in milliseconds.
    pub faults: Vec<(FaultClass, u64)>,
    /// How long faults are made, in milliseconds.
    pub faulty_ms: u64,
    /// The longest that a fault lasts, in milliseconds.
    pub fault_ms_max: u64,
}

impl Plan {
    /// The run of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let one_of = |random: &mut SmallRng, values: &[u64]| {
            values.choose(random).copied().unwrap_or_default()
        };
        let tick_ms = one_of(&mut random, &[500, 1000, 2000]);
        let settings = Settings {
            servers: if random.random_bool(0.25) { 5 } else { 3 },
            tick_ms: u32::try_from(tick_ms).unwrap_or(2000),
            snapshot_entries: one_of(&mut random, &[20, 50, 100, 200, 1_000_000]),
            log_segment_bytes: one_of(&mut random, &[16 << 10, 32 << 10, 128 << 10]),
            linearizable_reads: random.random_bool(0.1),
            sync_ms: *[(0, 0), (0, 2), (1, 10)]
                .choose(&mut random)
                .unwrap_or(&(0, 0)),
        };
        let weather = Weather {
            latency_ms: *[(0, 0), (0, 1), (0, 3), (1, 20)]
                .choose(&mut random)
                .unwrap_or(&(0, 1)),
            loss: 0.0,
        };
        let mut faults = Vec::new();
        for class in FaultClass::ALL {
            let likelihood = match class {
                FaultClass::BitFlip | FaultClass::DiskLost => 0.12,
                FaultClass::PowerCutOfMany | FaultClass::WriteFails => 0.25,
                _ => 0.35,
            };
            if random.random_bool(likelihood) {
                let mean_ms = random.random_range(4_000..40_000);
                faults.push((class, mean_ms));
            }
        }
        // A run without faults has its worth, but seldom.
        if faults.is_empty() && !random.random_bool(0.05) {
            faults.push((FaultClass::Kill, 15_000));
            faults.push((FaultClass::Partition, 15_000));
        }
        Self {
            seed,
            settings,
            weather,
            faults,
            faulty_ms: random.random_range(60_000..180_000),
            fault_ms_max: one_of(&mut random, &[2_000, 8_000, 25_000]),
        }
    }
}
