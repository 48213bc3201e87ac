//! Locks and elections: our recipes, Curator's and kazoo's, side by side on the same servers.
//!
//! Each library runs in a process of its own and is commanded line by line; `tests/recipes` has the
//! programs, and the list of the commands.
//!
//! - **Hand-overs.** So many contenders, each with a session of its own, enter and leave at once, again
//!   and again. The rate is how often the lock, or the leadership, changes hands; the latency is from
//!   the moment when the one inside begins to leave until the next is inside. Requests are counted by
//!   the server, with those of connecting and of closing.
//! - **Deaths.** A leader's process is killed while a candidate in another one waits; the figure is how
//!   long after that the candidate leads.

mod ours;
mod program;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub(crate) use self::ours::contend;
use self::program::{Language, Program};
use crate::library::Failure;
use crate::measure::median;

const ROUNDS: usize = 3;
/// Of each figure, each round. A JVM has compiled what is hot after the first.
const WARM_UP: Duration = Duration::from_secs(2);
const SPAN: Duration = Duration::from_secs(5);
/// Of the leaders that are killed. Two ticks by default, and so the shortest that servers grant.
const SESSION: Duration = Duration::from_secs(4);
/// How long both have been there before one is killed. Longer than a client is silent.
const SETTLED: Duration = Duration::from_secs(2);

const LOCKS: [(Language, &str); 3] = [
    (Language::Rust, "quorate-lock"),
    (Language::Java, "curator-mutex"),
    (Language::Python, "kazoo-lock"),
];
const ELECTIONS: [(Language, &str); 4] = [
    (Language::Rust, "quorate-election"),
    (Language::Java, "curator-latch"),
    (Language::Java, "curator-selector"),
    (Language::Python, "kazoo-election"),
];

/// Contenders, and among how many sessions they are spread.
const CROWDS: [(usize, usize); 4] = [(1, 1), (10, 10), (100, 100), (100, 1)];
const CANDIDATES: [(usize, usize); 2] = [(2, 2), (10, 10)];

/// How long, and how often.
struct Plan {
    rounds: usize,
    warm_up: Duration,
    span: Duration,
}

/// A row of the table, without its figures: they are sorted by this.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    what: &'static str,
    contenders: usize,
    sessions: usize,
    server: String,
    recipe: &'static str,
}

/// For each row a list of per second, p50 and p99 in microseconds, and requests for each time that
/// one entered; a run each.
type Runs = BTreeMap<Row, Vec<[f64; 4]>>;
/// Seconds, by server and recipe.
type Deaths = BTreeMap<(String, &'static str), Vec<f64>>;

/// `servers` are `NAME=HOST:PORT`, or just `HOST:PORT`; `--short` before them is for a first look.
pub(crate) fn compare(arguments: &[String]) -> Result<(), Failure> {
    let is_short = arguments.first().is_some_and(|first| first == "--short");
    let servers = &arguments[usize::from(is_short)..];
    if servers.is_empty() {
        return Err("usage: quorate-bench-clients recipes [--short] [NAME=]HOST:PORT...".into());
    }
    let plan = if is_short {
        Plan {
            rounds: 1,
            warm_up: Duration::from_millis(500),
            span: Duration::from_secs(1),
        }
    } else {
        Plan {
            rounds: ROUNDS,
            warm_up: WARM_UP,
            span: SPAN,
        }
    };
    let (mut runs, mut deaths) = (Runs::new(), Deaths::new());
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        for server in servers {
            let (name, address) = server.split_once('=').unwrap_or((server, server));
            for turn in 0..ELECTIONS.len() {
                let lock = (turn < LOCKS.len()).then(|| LOCKS[(round + turn) % LOCKS.len()]);
                if let Some(lock) = lock {
                    hand_overs("lock", lock, &CROWDS, &plan, (name, address), &mut runs)?;
                }
                let election = ELECTIONS[(round + turn) % ELECTIONS.len()];
                hand_overs(
                    "election",
                    election,
                    &CANDIDATES,
                    &plan,
                    (name, address),
                    &mut runs,
                )?;
                let took = death(election, address)?;
                let of_this = deaths.entry((name.to_owned(), election.1)).or_default();
                of_this.push(took.as_secs_f64());
            }
        }
    }
    println!("{}", markdown(&runs, &deaths));
    Ok(())
}

fn hand_overs(
    what: &'static str,
    (language, recipe): (Language, &'static str),
    crowds: &[(usize, usize)],
    plan: &Plan,
    (server, address): (&str, &str),
    runs: &mut Runs,
) -> Result<(), Failure> {
    let mut program = Program::start(language, address)?;
    for (contenders, sessions) in crowds {
        let path = format!("/bench-recipes/{recipe}-{contenders}-{sessions}");
        let (warm_up, span) = (plan.warm_up.as_millis(), plan.span.as_millis());
        let before = received(address)?;
        let answer = program.ask(&format!(
            "all measure {recipe} {path} {contenders} {sessions} {warm_up} {span}"
        ))?;
        let figures: Result<Vec<f64>, _> = answer.split(' ').skip(1).map(str::parse).collect();
        let requests = received(address)? - before;
        let Ok([per_second, p50, p99, entered]) = figures.as_deref() else {
            return Err(format!("{recipe} answers {answer:?}").into());
        };
        let row = Row {
            what,
            contenders: *contenders,
            sessions: *sessions,
            server: server.to_owned(),
            recipe,
        };
        eprintln!("{row:?}: {answer}");
        let of_row = runs.entry(row).or_default();
        of_row.push([*per_second, *p50, *p99, requests / entered]);
    }
    Ok(())
}

/// How many requests the server has had so far, by its own count.
fn received(address: &str) -> Result<f64, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"srvr")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("Received: "));
    Ok(line.ok_or("the server does not answer srvr")?.parse()?)
}

/// How long a candidate waits after the leader's process was killed.
fn death((language, recipe): (Language, &str), address: &str) -> Result<Duration, Failure> {
    let (mut leader, mut candidate) = (
        Program::start(language, address)?,
        Program::start(language, address)?,
    );
    let session_ms = SESSION.as_millis();
    for (program, name) in [(&mut leader, "leader"), (&mut candidate, "candidate")] {
        // Their referees are not asked here: each has a folder to itself.
        let folder = program.folder().join(name);
        std::fs::create_dir(&folder)?;
        let open = format!(
            "{name} open {recipe} /bench-recipes/death-{recipe} {} alone {session_ms}",
            folder.display()
        );
        expect(program.ask(&open)?, "opened")?;
    }
    expect(leader.ask("leader acquire")?, "entered")?;
    candidate.tell("candidate acquire")?;
    std::thread::sleep(SETTLED);
    let killed = Instant::now();
    leader.kill();
    expect(candidate.answer()?, "entered")?;
    let took = killed.elapsed();
    eprintln!("{recipe}: {took:?} after the leader's death");
    expect(candidate.ask("candidate release")?, "left")?;
    Ok(took)
}

fn expect(answer: String, expected: &str) -> Result<(), Failure> {
    if answer == expected {
        Ok(())
    } else {
        Err(format!("{answer:?} instead of {expected:?}").into())
    }
}

fn markdown(runs: &Runs, deaths: &Deaths) -> String {
    let mut text = String::from(
        "| hand-overs | contenders | sessions | server | recipe | per second | p50 ms | p99 ms | requests each |\n\
         |---|---:|---:|---|---|---:|---:|---:|---:|\n",
    );
    for (row, figures) in runs {
        let of = |index: usize| median(figures.iter().map(|run| run[index]).collect());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.1} |",
            row.what,
            row.contenders,
            row.sessions,
            row.server,
            row.recipe,
            of(0),
            of(1) / 1e3,
            of(2) / 1e3,
            of(3)
        );
    }
    let session = SESSION.as_secs();
    let _ = write!(
        text,
        "\n| from a leader's death to the next one's first act, session of {session} s | recipe | median s | longest s |\n\
         |---|---|---:|---:|\n",
    );
    for ((server, recipe), seconds) in deaths {
        let longest = seconds.iter().copied().fold(0.0, f64::max);
        let median = median(seconds.clone());
        let _ = writeln!(text, "| {server} | {recipe} | {median:.2} | {longest:.2} |");
    }
    text
}
