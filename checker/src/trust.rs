//! The page that says how far the proofs have come, made of what they recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::figure::{Figure, Grouped};

/// What a figure is meant to reach.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// The name of the figure; with a `*` at its end, of all figures that begin so.
    pub name: &'static str,
    pub what: &'static str,
    /// 0: only that it exists, and that nothing was violated.
    pub count: f64,
    /// Whether less is better, as for times.
    pub is_limit: bool,
    /// Whether runs with different seeds add up.
    pub adds_up: bool,
}

const fn at_least(name: &'static str, count: f64, what: &'static str) -> Aim {
    Aim {
        name,
        what,
        count,
        is_limit: false,
        adds_up: true,
    }
}

const fn at_most(name: &'static str, count: f64, what: &'static str) -> Aim {
    Aim {
        is_limit: true,
        adds_up: false,
        ..at_least(name, count, what)
    }
}

const fn once(name: &'static str, count: f64, what: &'static str) -> Aim {
    Aim {
        adds_up: false,
        ..at_least(name, count, what)
    }
}

/// In the order of the page.
pub const AIMS: &[Aim] = &[
    at_least(
        "sim-hours",
        1_000.0,
        "simulated hours of ensembles under faults",
    ),
    at_least("sim-seeds", 20_000.0, "simulations, each of its own seed"),
    at_least("sim-twice", 200.0, "seeds run twice with equal traces"),
    once(
        "canaries",
        24.0,
        "defects planted and all caught, each in less than 10 minutes",
    ),
    at_least(
        "operations",
        10_000_000.0,
        "operations checked for linearizability",
    ),
    at_least(
        "watch-deliveries",
        1_000_000.0,
        "watch events compared with the log",
    ),
    at_least(
        "sessions",
        100_000.0,
        "sessions checked for early and late ends",
    ),
    once(
        "porcupine",
        102.0,
        "verdicts equal to Porcupine's on the histories it ships as tests",
    ),
    once(
        "crash-points",
        0.0,
        "every write, sync, rename and unlink of 2,000 operations as a crash point",
    ),
    at_least(
        "crash-states",
        100_000.0,
        "states of a disk after a crash, recovered from",
    ),
    once(
        "bit-flips",
        0.0,
        "every single bit of a sample data directory flipped",
    ),
    at_least("faults", 100.0, "runs of real processes under faults"),
    at_most(
        "connections-seconds",
        2.0,
        "seconds until 10,000 connections are accepted, with p99 of others within twice",
    ),
    at_most(
        "ephemerals-pause-ms",
        200.0,
        "ms, the longest pause while a session with 100,000 ephemerals is closed",
    ),
    at_most(
        "watches-pause-ms",
        200.0,
        "ms, the longest pause while a change fires a million watches",
    ),
    at_least(
        "fuzz-client-*",
        100_000_000.0,
        "executions of each fuzz target of the client port",
    ),
    at_least(
        "fuzz-*",
        20_000_000.0,
        "executions of each other fuzz target",
    ),
];

/// All figures of one name, as one.
struct Reached<'f> {
    count: f64,
    violations: u64,
    seeds: Vec<&'f str>,
    newest: &'f Figure,
}

/// Writes the page: the table, then the track record as it is.
#[must_use]
pub fn page(figures: &[Figure], track_record: &str) -> String {
    let mut page = String::from(
        "# What was proven, and how\n\n\
         This page is made by `cargo run -p quorate-checker --bin trust` from \
         [`trust/figures.jsonl`](trust/figures.jsonl), to which each proof command appends what it \
         found (`--record`), and from [`trust/track-record.md`](trust/track-record.md). What is \
         promised, promise by promise, is in [guarantees](guarantees.md).\n\n\
         ## Figures\n\n\
         | figure | aim | reached | violations | seeds | date | commit | command |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut by_name: BTreeMap<&str, Vec<&Figure>> = BTreeMap::new();
    for figure in figures {
        by_name.entry(&figure.name).or_default().push(figure);
    }
    let mut told = BTreeSet::new();
    for aim in AIMS {
        let names: Vec<&str> = by_name
            .keys()
            .copied()
            .filter(|name| aim.is_of(name) && told.insert((*name).to_owned()))
            .collect();
        if names.is_empty() {
            let aim = aim.in_words();
            let _ = writeln!(page, "| {aim} | not yet | | | | | |");
        }
        for name in names {
            row(&mut page, name, Some(aim), &by_name[name]);
        }
    }
    for (name, figures) in &by_name {
        if !told.contains(*name) {
            row(&mut page, name, None, figures);
        }
    }
    page.push('\n');
    page.push_str(track_record.trim());
    page.push('\n');
    page
}

fn row(page: &mut String, name: &str, aim: Option<&Aim>, figures: &[&Figure]) {
    let Some(reached) = Reached::of(aim, figures) else {
        return;
    };
    let newest = reached.newest;
    let words = match aim {
        Some(aim) if aim.name == name => aim.in_words(),
        Some(aim) => format!("{name}: {}", aim.in_words()),
        None => format!("{name} | "),
    };
    let verdict = match aim {
        Some(aim) if !aim.is_reached(&reached) => ", not there yet",
        _ => "",
    };
    let note = match newest.note.as_str() {
        "" => String::new(),
        note => format!(" ({note})"),
    };
    let cells = [
        format!("{} {}{note}{verdict}", Grouped(reached.count), newest.unit),
        reached.violations.to_string(),
        reached.seeds.join(", "),
        newest.date.clone(),
        newest.commit.clone(),
        format!("`{}`", newest.command),
    ];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    let _ = writeln!(page, "| {words} | {} |", cells.join(" | "));
}

impl Aim {
    fn is_of(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.name,
        }
    }

    /// The first two cells of a row.
    fn in_words(&self) -> String {
        let number = Grouped(self.count);
        let aim = match (self.count == 0.0, self.is_limit) {
            (true, _) => "all".to_owned(),
            (_, true) => format!("< {number}"),
            (_, false) => format!("{number}"),
        };
        format!("{} | {aim}", self.what)
    }

    fn is_reached(&self, reached: &Reached<'_>) -> bool {
        let is_there = match self.is_limit {
            true => reached.count < self.count,
            false => reached.count >= self.count,
        };
        is_there && reached.violations == 0
    }
}

impl<'f> Reached<'f> {
    /// Of runs with the same seeds the newest counts; those with others add up, if they do at all.
    fn of(aim: Option<&Aim>, figures: &[&'f Figure]) -> Option<Self> {
        let newest = *figures.last()?;
        let mut runs: Vec<&Figure> = vec![newest];
        if aim.is_some_and(|aim| aim.adds_up) && !newest.seeds.is_empty() {
            for figure in figures.iter().rev().skip(1) {
                let is_new = runs.iter().all(|run| run.seeds != figure.seeds);
                if is_new && !figure.seeds.is_empty() {
                    runs.push(figure);
                }
            }
        }
        runs.reverse();
        Some(Self {
            count: runs.iter().map(|run| run.count).sum(),
            violations: runs.iter().map(|run| run.violations).sum(),
            seeds: runs.iter().map(|run| run.seeds.as_str()).collect(),
            newest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, count: f64, seeds: &str) -> Figure {
        Figure {
            name: name.to_owned(),
            count,
            seeds: seeds.to_owned(),
            unit: "things".to_owned(),
            ..Figure::default()
        }
    }

    fn line<'p>(page: &'p str, with: &str) -> &'p str {
        page.lines().find(|line| line.contains(with)).unwrap()
    }

    #[test]
    fn runs_of_other_seeds_add_up_and_a_run_of_the_same_seeds_takes_the_place_of_the_old_one() {
        let figures = [
            figure("sim-hours", 400.0, "1..10"),
            figure("sim-hours", 500.0, "1..10"),
            figure("sim-hours", 600.0, "11..20"),
        ];
        let page = page(&figures, "");
        let line = line(&page, "simulated hours");
        assert!(line.contains("| 1,100 things |"), "{line}");
        assert!(line.contains("1..10, 11..20"), "{line}");
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        let mut violated = figure("sim-seeds", 30_000.0, "1..30000");
        violated.violations = 1;
        let slow = figure("connections-seconds", 2.5, "");
        let page = page(&[violated, slow], "");
        assert!(line(&page, "of its own seed").contains("not there yet"));
        assert!(line(&page, "10,000 connections").contains("not there yet"));
        assert!(line(&page, "simulated hours").contains("not yet"));
        let fast = self::page(&[figure("connections-seconds", 1.5, "")], "");
        assert!(!line(&fast, "10,000 connections").contains("not"));
    }

    #[test]
    fn each_figure_is_in_one_row_and_the_track_record_stands_at_the_end() {
        let figures = [
            figure("fuzz-client-frames", 1.0, ""),
            figure("fuzz-log", 2.0, ""),
            figure("unheard-of", 3.0, ""),
        ];
        let page = page(&figures, "\n## Track record\n\nNone.\n");
        for name in ["fuzz-client-frames", "fuzz-log", "unheard-of"] {
            assert_eq!(page.matches(name).count(), 1, "{page}");
        }
        assert!(page.ends_with("\n\n## Track record\n\nNone.\n"), "{page}");
    }
}
