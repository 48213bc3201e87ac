//! What a seed draws for one run: how many servers on which disks with which settings, which classes of
//! faults there are, and when each fault begins.
//!
//! Swarm testing (Groce et al., ISSTA 2012): most classes are off in most runs, or everything averages
//! out. Times and kinds are fixed here, before anything runs; who leads at the time, and so who is hit,
//! is for the run to see.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use quorate_tests::loop_disk::FileSystem;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// How long faults begin in a run.
const FAULTS_MS: std::ops::Range<u64> = 7_000..12_000;
/// And in one of the short form.
const SHORT_FAULTS_MS: u64 = 4_000;
/// From one fault to the next; most last longer.
const GAP_MS: std::ops::Range<u64> = 100..2_500;
/// Small, so that it is filled soon; two or three segments and snapshots fit.
const DISK_MIB: u64 = 64;
/// Far more than a server with a few connections needs, and far fewer than a test can take.
pub(crate) const DESCRIPTORS: u32 = 160;

/// A class of faults, which is on or off in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Kills,
    KillLoops,
    PowerCuts,
    Pauses,
    Restarts,
    Partitions,
    Resets,
    Loss,
    Clients,
    FullDisks,
    FailingSyncs,
    SlowSyncs,
    Clocks,
    Descriptors,
    Holders,
}

impl Class {
    const ALL: [Self; 15] = [
        Self::Kills,
        Self::KillLoops,
        Self::PowerCuts,
        Self::Pauses,
        Self::Restarts,
        Self::Partitions,
        Self::Resets,
        Self::Loss,
        Self::Clients,
        Self::FullDisks,
        Self::FailingSyncs,
        Self::SlowSyncs,
        Self::Clocks,
        Self::Descriptors,
        Self::Holders,
    ];
    /// Those that a run of seconds has time for, on any machine.
    const SHORT: [Self; 5] = [
        Self::Kills,
        Self::PowerCuts,
        Self::Pauses,
        Self::Partitions,
        Self::Resets,
    ];
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Leader,
    Follower,
    Minority,
    Majority,
    All,
}

/// Which links are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A minority, or the leader alone, is on the other side.
    Apart(Target),
    /// It hears nobody.
    Deaf(Target),
    /// Nobody hears it.
    Mute(Target),
    /// Two halves share one server.
    Bridge,
    /// Everybody sees two neighbours, and of these one in one direction only where there are three.
    Ring,
    /// Each direction of each link is cut or not.
    Random,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Kill(Target),
    /// Killed again while it starts, so many times.
    KillLoop {
        kills: u32,
    },
    PowerCut(Target),
    Pause(Target),
    /// All in turn, with SIGTERM.
    RollingRestart,
    Partition(Shape),
    /// Connections are reset in both directions of one link, for a moment, again and again.
    Resets,
    /// Connections are destroyed on one side.
    Destroyed,
    Loss {
        percent: u8,
    },
    /// No client reaches them; they reach each other.
    ClientsCut(Target),
    ClientsLoss {
        percent: u8,
    },
    FullDisk(Target),
    /// One sync fails; then the power is cut as well, or not.
    FailingSync {
        target: Target,
        then_power_cut: bool,
    },
    SlowSyncs {
        target: Target,
        delay_ms: u64,
    },
    ClockJump {
        target: Target,
        ahead_ms: i64,
    },
    /// It gains or loses so many milliseconds in each second.
    ClockDrift {
        target: Target,
        ms_per_s: i64,
    },
    Descriptors(Target),
    /// A process that holds a lock, or waits for it, stands still.
    PauseHolder,
}

/// An [`Act`], and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    /// Since the faults of the run began.
    pub(crate) at: Duration,
    pub(crate) act: Act,
    /// How long it lasts; some end earlier by themselves.
    pub(crate) lasts: Duration,
}

/// All that a seed decides beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) servers: u64,
    pub(crate) file_system: FileSystem,
    pub(crate) disk_mib: u64,
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Whether the servers' logs say all that was ever done. If not, servers that were away for too long
    /// are sent snapshots.
    pub(crate) keeps_log: bool,
    pub(crate) classes: BTreeSet<Class>,
    pub(crate) acts: Vec<Planned>,
    pub(crate) faults_last: Duration,
}

impl Plan {
    pub(crate) fn draw(seed: u64, is_short: bool, has_xfs: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let classes = match is_short {
            true => draw_classes(&mut rng, &Class::SHORT),
            false => draw_classes(&mut rng, &Class::ALL),
        };
        let faults_ms = match is_short {
            true => SHORT_FAULTS_MS,
            false => rng.random_range(FAULTS_MS),
        };
        let servers = if !is_short && rng.random_ratio(2, 5) {
            5
        } else {
            3
        };
        let file_system = match has_xfs && rng.random_ratio(1, 3) {
            true => FileSystem::Xfs,
            false => FileSystem::Ext4,
        };
        let mut settings = draw_settings(&mut rng);
        // Without the log the order of all that was done has to be searched for, which takes its time.
        let keeps_log = rng.random_ratio(9, 10);
        if keeps_log {
            settings.push(("autopurge.purgeInterval", "0".to_owned()));
        }
        let mut acts = Vec::new();
        let mut at_ms = 0;
        let from: Vec<Class> = classes.iter().copied().collect();
        // How dense they are is a choice of the seed, too.
        let gap_max = rng.random_range(GAP_MS.start * 5..GAP_MS.end);
        while at_ms < faults_ms {
            let class = *from.choose(&mut rng).expect("some classes are on");
            let lasts_ms = draw_duration(&mut rng, class).min(faults_ms);
            acts.push(Planned {
                at: Duration::from_millis(at_ms),
                act: draw_act(&mut rng, class),
                lasts: Duration::from_millis(lasts_ms),
            });
            at_ms += rng.random_range(GAP_MS.start..gap_max);
        }
        Self {
            seed,
            servers,
            file_system,
            disk_mib: DISK_MIB,
            settings,
            keeps_log,
            classes,
            acts,
            faults_last: Duration::from_millis(faults_ms),
        }
    }

    pub(crate) fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} servers on {:?}, {:?}, faults of {:?} for {:?}",
            self.seed,
            self.servers,
            self.file_system,
            self.settings,
            self.classes,
            self.faults_last
        )?;
        for planned in &self.acts {
            writeln!(
                f,
                "  at {:?} for {:?}: {:?}",
                planned.at, planned.lasts, planned.act
            )?;
        }
        Ok(())
    }
}

fn draw_classes(rng: &mut StdRng, all: &[Class]) -> BTreeSet<Class> {
    loop {
        let drawn: BTreeSet<Class> = all
            .iter()
            .copied()
            .filter(|_| rng.random_ratio(3, 10))
            .collect();
        // One alone shows less than two, and most bugs need no more than three.
        if drawn.len() >= 2 {
            return drawn;
        }
    }
}

/// So small that snapshots, new segments and servers that are too far behind for the log are common.
fn draw_settings(rng: &mut StdRng) -> Vec<(&'static str, String)> {
    let mut settings = vec![("quorate.logSegmentBytes", (1 << 20).to_string())];
    if rng.random_ratio(3, 4) {
        let entries = *[50, 200, 1_000].choose(rng).expect("there are some");
        settings.push(("snapCount", entries.to_string()));
    }
    if rng.random_ratio(1, 8) {
        settings.push(("quorate.linearizableReads", "true".to_owned()));
    }
    settings
}

fn draw_duration(rng: &mut StdRng, class: Class) -> u64 {
    match class {
        // Down until then.
        Class::Kills | Class::PowerCuts => rng.random_range(10..3_000),
        // Below and above an election and the shorter sessions.
        Class::Pauses | Class::Holders => *[150, 400, 1_000, 4_000].choose(rng).expect("some"),
        Class::Restarts | Class::KillLoops => rng.random_range(3_000..6_000),
        Class::Resets => rng.random_range(200..1_500),
        _ => rng.random_range(500..4_500),
    }
}

fn draw_act(rng: &mut StdRng, class: Class) -> Act {
    match class {
        Class::Kills => Act::Kill(any_of(rng)),
        Class::KillLoops => Act::KillLoop {
            kills: rng.random_range(2..8),
        },
        Class::PowerCuts => Act::PowerCut(any_of(rng)),
        Class::Pauses => Act::Pause(any_of(rng)),
        Class::Restarts => Act::RollingRestart,
        Class::Partitions => Act::Partition(match rng.random_range(0..7) {
            0 => Shape::Apart(Target::Minority),
            1 => Shape::Apart(Target::Leader),
            2 => Shape::Deaf(one_of(rng)),
            3 => Shape::Mute(one_of(rng)),
            4 => Shape::Bridge,
            5 => Shape::Ring,
            _ => Shape::Random,
        }),
        Class::Resets => match rng.random() {
            true => Act::Resets,
            false => Act::Destroyed,
        },
        Class::Loss => Act::Loss {
            percent: rng.random_range(1..=30),
        },
        Class::Clients => match rng.random() {
            true => Act::ClientsCut(any_of(rng)),
            false => Act::ClientsLoss {
                percent: rng.random_range(1..=30),
            },
        },
        Class::FullDisks => Act::FullDisk(any_of(rng)),
        Class::FailingSyncs => Act::FailingSync {
            target: one_of(rng),
            then_power_cut: rng.random(),
        },
        Class::SlowSyncs => Act::SlowSyncs {
            target: any_of(rng),
            delay_ms: *[20, 200, 2_000].choose(rng).expect("some"),
        },
        Class::Clocks => match rng.random_ratio(2, 3) {
            true => Act::ClockJump {
                target: any_of(rng),
                ahead_ms: *JUMPS_MS.choose(rng).expect("some"),
            },
            false => Act::ClockDrift {
                target: any_of(rng),
                ms_per_s: *[-900, -100, 200, 9_000].choose(rng).expect("some"),
            },
        },
        Class::Descriptors => Act::Descriptors(any_of(rng)),
        Class::Holders => Act::PauseHolder,
    }
}

/// Within a session's timeout, an hour, a day, a year; to either side.
const JUMPS_MS: [i64; 8] = [
    -365 * 86_400_000,
    -86_400_000,
    -3_600_000,
    -1_500,
    1_500,
    3_600_000,
    86_400_000,
    365 * 86_400_000,
];

fn one_of(rng: &mut StdRng) -> Target {
    match rng.random() {
        true => Target::Leader,
        false => Target::Follower,
    }
}

fn any_of(rng: &mut StdRng) -> Target {
    match rng.random_range(0..10) {
        0..4 => Target::Leader,
        4..6 => Target::Follower,
        6..7 => Target::Minority,
        7..8 => Target::Majority,
        _ => Target::All,
    }
}
