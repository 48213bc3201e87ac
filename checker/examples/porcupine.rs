//! Holds the search for linearizability against Porcupine's verdicts.
//!
//! `porcupine DIR [--record FILE]`, where DIR is a checkout of github.com/anishathalye/porcupine. It
//! ships histories that Jepsen recorded of etcd, and tests that say which of them are linearizable.
//! Their licence is not clear enough to ship them here too.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs, io};

use quorate_checker::Figure;
use quorate_checker::linear::search::{Interval, Model, Next, Verdict, search};

/// One key of etcd; `None`: not set.
struct Register;

#[derive(Clone, Copy)]
enum Ask {
    Read(Option<i64>),
    Write(i64),
    /// With whether it was done; `None`: nobody knows.
    Swap(i64, i64, Option<bool>),
}

impl Model for Register {
    type State = Option<i64>;
    type Operation = Ask;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(&self, state: &Self::State, ask: &Ask) -> Next<Self::State> {
        match *ask {
            Ask::Read(seen) if seen == *state => Next::Same,
            Ask::Read(_) => Next::Impossible,
            Ask::Write(value) => Next::Changed(Some(value)),
            Ask::Swap(from, to, done) => match (*state == Some(from), done) {
                (true, Some(true) | None) => Next::Changed(Some(to)),
                (false, Some(false) | None) => Next::Same,
                _ => Next::Impossible,
            },
        }
    }
}

/// Reads a log of Jepsen's: lines `INFO jepsen.util - process :what :function arguments`.
fn parse(text: &str) -> (Vec<Ask>, Vec<Interval>) {
    let mut asks: Vec<Option<Ask>> = Vec::new();
    let mut intervals = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for (moment, line) in (0u64..).zip(text.lines()) {
        let Some((_, rest)) = line.split_once("jepsen.util - ") else {
            continue;
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [process, what, function, arguments @ ..] = &words[..] else {
            continue;
        };
        let numbers: Vec<i64> = arguments
            .iter()
            .filter_map(|word| word.trim_matches(['[', ']']).parse().ok())
            .collect();
        let ask = |done| match (*function, &numbers[..]) {
            (":read", value) => Some(Ask::Read(value.first().copied())),
            (":write", [value]) => Some(Ask::Write(*value)),
            (":cas", [from, to]) => Some(Ask::Swap(*from, *to, done)),
            _ => None,
        };
        if *what == ":invoke" {
            open.insert(process, asks.len());
            asks.push(ask(None).filter(|ask| !matches!(ask, Ask::Read(_))));
            intervals.push(Interval::open(moment));
            continue;
        }
        let is_timed_out = arguments.first() == Some(&":timed-out");
        let Some(index) = open.get(process).copied().filter(|_| *what != ":info") else {
            continue;
        };
        open.remove(process);
        if is_timed_out {
            asks[index] = asks[index].filter(|ask| !matches!(ask, Ask::Read(_)));
            continue;
        }
        asks[index] = ask(Some(*what == ":ok"));
        intervals[index].back = Some(moment);
    }
    let known = asks.into_iter().zip(intervals);
    known
        .filter_map(|(ask, interval)| Some((ask?, interval)))
        .unzip()
}

/// What the tests expect: `checkJepsen(t, 12, true)`.
fn verdicts(tests: &str) -> BTreeMap<usize, bool> {
    tests
        .lines()
        .filter_map(|line| line.trim().strip_prefix("checkJepsen(t, "))
        .filter_map(|rest| {
            let (number, verdict) = rest.trim_end_matches(')').split_once(", ")?;
            Some((number.parse().ok()?, verdict == "true"))
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some(folder) = arguments.first().map(PathBuf::from) else {
        return Err("which folder? Give that of a checkout of porcupine".into());
    };
    let began = Instant::now();
    let expected = verdicts(&fs::read_to_string(folder.join("porcupine_test.go"))?);
    let mut stdout = io::stdout().lock();
    let mut linearizable = 0;
    let mut figure = Figure::new("porcupine", 0.0, "verdicts");
    for (number, expected) in expected {
        let file = folder.join(format!("test_data/jepsen/etcd_{number:03}.log"));
        let (asks, intervals) = parse(&fs::read_to_string(file)?);
        let verdict = search(&Register, &asks, &intervals, 50_000_000);
        figure.count += 1.0;
        linearizable += u32::from(verdict == Verdict::Linearizable);
        if verdict == Verdict::Undecided || (verdict == Verdict::Linearizable) != expected {
            figure.violations += 1;
            writeln!(stdout, "etcd_{number:03}: {verdict:?}, expected {expected}")?;
        }
    }
    figure.seconds = began.elapsed().as_secs_f64();
    figure.note = format!("{linearizable} linearizable");
    figure.command =
        "cargo run --release -p quorate-checker --example porcupine -- PORCUPINE".to_owned();
    writeln!(stdout, "{figure}")?;
    if let [_, flag, file] = &arguments[..]
        && flag == "--record"
    {
        figure.record(file.as_ref())?;
    }
    match figure.violations == 0 && figure.count > 0.0 {
        true => Ok(()),
        false => Err("verdicts differ, or there were none".into()),
    }
}
