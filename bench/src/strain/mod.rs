//! Far too much of everything: what it costs a server, and what other clients notice of it.
//!
//! Each scene starts servers of its own, with a probe on each: a client that writes and pings all the
//! time and notes how long every answer took. Then comes the strain. A scene ends in one line: what was
//! measured, beside the aim. An aim that Quorate misses makes the command fail.

mod ephemerals;
mod flood;
mod host;
mod limits;
mod probe;
mod swarm;
mod watches;

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::compare::server::{Programs, Subject};
use crate::error::BenchError;

use self::host::Host;

/// What the command is told.
#[derive(Args, Debug)]
pub(crate) struct StrainArgs {
    /// Which scenes; all of them by default
    #[arg(long, value_enum, value_delimiter = ',')]
    scene: Vec<Scene>,
    /// Which server; Apache ZooKeeper has the scenes only that make sense for it
    #[arg(long, value_enum, default_value = "quorate")]
    system: System,
    /// How often each scene is played
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
    /// Everything in numbers a hundredth as large, to see that it works
    #[arg(long)]
    short: bool,
    /// Append each line to this file as well, as JSON
    #[arg(long)]
    record: Option<PathBuf>,
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
pub(crate) enum System {
    Quorate,
    Zookeeper,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scene {
    /// 10,000 idle sessions from 200 addresses
    Idle,
    /// 1,000 clients that ask for megabytes and do not read
    Unread,
    /// 5,000 handshakes that never end
    HalfOpen,
    /// 256 file descriptors
    Descriptors,
    /// 256 MiB of memory and a storm of writes
    Memory,
    /// A million one-shot watches, fired by one request
    Watches,
    /// As many events of recursive watches
    RecursiveWatches,
    /// The same as `watches` on three servers
    WatchesEnsemble,
    /// A session with 100,000 ephemerals is closed
    EphemeralsClosed,
    /// A session with 100,000 ephemerals expires
    EphemeralsExpired,
    /// Both on three servers
    EphemeralsEnsemble,
    /// 5,000 sessions opened and closed in a second
    Flood,
}

/// What scenes are given.
pub(crate) struct Stage<'a> {
    pub(crate) programs: Programs,
    pub(crate) system: System,
    pub(crate) dir: PathBuf,
    /// 1, or 100 for a short run.
    pub(crate) divisor: usize,
    pub(crate) progress: &'a mut dyn FnMut(&str),
}

impl Stage<'_> {
    pub(crate) fn subject(&self) -> Subject {
        match self.system {
            System::Quorate => Subject::Quorate,
            System::Zookeeper => Subject::ZooKeeper,
        }
    }

    /// A number of the scene's, in proportion to the run.
    pub(crate) fn scaled(&self, count: usize) -> usize {
        count / self.divisor
    }

    pub(crate) fn host(&self) -> Result<Host, BenchError> {
        Host::start(self, 1, "", &[])
    }
}

/// What a scene has measured.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How much of what.
    pub(crate) count: usize,
    pub(crate) unit: &'static str,
    /// What was measured, in words.
    pub(crate) measured: Vec<String>,
    /// Aims that were missed, in words.
    pub(crate) missed: Vec<String>,
}

impl Outcome {
    pub(crate) fn new(count: usize, unit: &'static str) -> Self {
        Self {
            count,
            unit,
            ..Self::default()
        }
    }

    /// Something without an aim.
    pub(crate) fn note(&mut self, text: String) {
        self.measured.push(text);
    }

    /// Something that is to be at most `aim`.
    pub(crate) fn at_most(&mut self, what: &str, value: f64, aim: f64, unit: &str) {
        self.holds(
            value <= aim,
            format!("{what} {value:.1} {unit} (aim: at most {aim:.0})"),
        );
    }

    pub(crate) fn holds(&mut self, holds: bool, text: String) {
        if !holds {
            self.missed.push(text.clone());
        }
        self.measured.push(text);
    }
}

/// Plays the scenes, and prints a line for each.
pub(crate) fn strain(
    args: &StrainArgs,
    print: &mut dyn FnMut(&str) -> Result<(), BenchError>,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    let scenes = match args.scene.is_empty() {
        true => Scene::value_variants(),
        false => &args.scene[..],
    };
    raise_descriptor_limit();
    let mut missed = 0;
    for scene in scenes {
        for _ in 0..args.times {
            let mut stage = Stage {
                programs: Programs {
                    java: args.java.clone(),
                    zookeeper_classpath: args.zookeeper_classpath.clone(),
                    quorate: args.quorate.clone(),
                },
                system: args.system,
                dir: args.dir.join("strain"),
                divisor: if args.short { 100 } else { 1 },
                progress,
            };
            let begun = Instant::now();
            let outcome = play(*scene, &mut stage)?;
            let seconds = begun.elapsed().as_secs_f64();
            missed += outcome.missed.len();
            let name = name_of(*scene, args);
            print(&format!(
                "{name}: {} {}; {}; {} aims missed; {seconds:.0} s",
                outcome.count,
                outcome.unit,
                outcome.measured.join("; "),
                outcome.missed.len(),
            ))?;
            if let Some(path) = &args.record {
                record(path, &name, &outcome, seconds)?;
            }
        }
    }
    match (args.system, missed) {
        (System::Quorate, 1..) => Err(BenchError::Usage("an aim was missed")),
        _ => Ok(()),
    }
}

fn play(scene: Scene, stage: &mut Stage<'_>) -> Result<Outcome, BenchError> {
    match scene {
        Scene::Idle => swarm::idle(stage),
        Scene::Unread => swarm::unread(stage),
        Scene::HalfOpen => swarm::half_open(stage),
        Scene::Descriptors => limits::descriptors(stage),
        Scene::Memory => limits::memory(stage),
        Scene::Watches => watches::watches(stage, watches::Kind::Once, 1),
        Scene::RecursiveWatches => watches::watches(stage, watches::Kind::Recursive, 1),
        Scene::WatchesEnsemble => watches::watches(stage, watches::Kind::Once, 3),
        Scene::EphemeralsClosed => ephemerals::ephemerals(stage, 1, ephemerals::End::Closed),
        Scene::EphemeralsExpired => ephemerals::ephemerals(stage, 1, ephemerals::End::Expired),
        Scene::EphemeralsEnsemble => ephemerals::ephemerals(stage, 3, ephemerals::End::Both),
        Scene::Flood => flood::flood(stage),
    }
}

fn name_of(scene: Scene, args: &StrainArgs) -> String {
    let scene = scene
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned());
    match args.system {
        System::Quorate => format!("strain-{scene}"),
        System::Zookeeper => format!("strain-{scene}-zookeeper"),
    }
}

/// Both sides of a connection are on this machine, and each has a process of its own. What it starts
/// has the same limit.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without it the large scenes fail, and say why.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn record(path: &PathBuf, name: &str, outcome: &Outcome, seconds: f64) -> Result<(), BenchError> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let date = said("date", &["-u", "+%F"]);
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    let note = outcome.measured.join("; ").replace(['"', '\\'], "'");
    let line = format!(
        "{{\"name\":\"{name}\",\"date\":\"{date}\",\"commit\":\"{commit}\",\"command\":\"quorate-bench \
         strain\",\"count\":{}.0,\"unit\":\"{}\",\"seeds\":\"\",\"violations\":{},\"seconds\":{seconds:.1},\
         \"note\":\"{note}\"}}\n",
        outcome.count,
        outcome.unit,
        outcome.missed.len()
    );
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(BenchError::io("writing the record"))
}
