//! `quorate check`: whether a server's files are sound, and what a start would make of them.
//!
//! Reads only, and keeps servers out while it does. What is found goes to standard output; whether
//! all is well is the exit code.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};
use quorate_server::offline::check::{At, LogSummary, Report, Start, StateSummary, check};

use super::files;
use crate::{Exit, Failure};

const DIR: &str = "DIR";

pub(crate) fn command() -> Command {
    Command::new("check")
        .about("Check the files of a server that does not run")
        .arg(
            Arg::new(DIR)
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The data directory, or the zoo.cfg that names it"),
        )
        .arg(files::log_dir())
        .arg(files::format())
        .after_help(
            "Examples:\n  \
             quorate check /var/lib/quorate\n  \
             quorate check zoo.cfg --format json\n\n\
             It looks at every checksum, loads every snapshot, and has the log lead from each to the \
             next. Nothing is changed. A server that was cut off in the middle of a write is sound: it \
             starts without that write, which nobody was told of.\n\n\
             Exit codes:\n  \
             0  all is sound\n  \
             2  bad arguments or configuration\n  \
             3  something is wrong, or a server uses the folder",
        )
}

pub(crate) fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let place: &PathBuf = matches.get_one(DIR).expect("the argument is required");
    let folders = files::lock(place, matches)?;
    let report = check(&folders).map_err(files::unusable)?;
    files::print(|out| {
        if files::is_json(matches) {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)
        } else {
            print(&report, out)
        }
    })?;
    Ok(if report.is_sound() {
        Exit::Graceful
    } else {
        Exit::DataDirectory
    })
}

fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    match &report.identity {
        Some(owner) => writeln!(
            out,
            "server {} of ensemble {:016x}, with data since {:016x}",
            owner.server, owner.cluster, owner.incarnation
        )?,
        None => writeln!(
            out,
            "{} belongs to no server yet",
            report.data_dir.display()
        )?,
    }
    if let Some(log) = &report.log {
        print_log(log, out)?;
    }
    for segment in &report.segments {
        let entries = match (segment.first, segment.last) {
            (Some(first), Some(last)) => format!(", entries {first} to {last}"),
            _ => String::new(),
        };
        writeln!(
            out,
            "  {}: {} bytes, {} batches{entries}",
            segment.path.display(),
            segment.bytes,
            segment.batches
        )?;
    }
    if report.identity.is_some() {
        writeln!(out, "snapshots: {}", report.snapshots.len())?;
    }
    for snapshot in &report.snapshots {
        write!(
            out,
            "  {}: {} bytes",
            snapshot.path.display(),
            snapshot.bytes
        )?;
        if let Some(last) = snapshot.last {
            write!(out, ", up to entry {}", Place(last))?;
        }
        match &snapshot.state {
            Some(state) => writeln!(out, ", {}", State(state))?,
            None => writeln!(out, ", unreadable")?,
        }
    }
    if let Some(state) = &report.state {
        writeln!(out, "committed: {}", State(state))?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    for problem in &report.problems {
        let path = problem.path.display();
        match problem.offset {
            Some(offset) => writeln!(out, "PROBLEM: {path} at byte {offset}: {}", problem.what)?,
            None => writeln!(out, "PROBLEM: {path}: {}", problem.what)?,
        }
    }
    print_start(report, out)
}

fn print_log(log: &LogSummary, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "log: {} entries", log.entries)?;
    for (what, at) in [
        ("purged up to", log.purged),
        ("committed up to", log.committed),
        ("last", log.last),
    ] {
        if let Some(at) = at {
            write!(out, ", {what} {}", Place(at))?;
        }
    }
    if let Some(vote) = log.vote {
        let elected = if vote.elected { ", who leads" } else { "" };
        write!(
            out,
            ", vote for server {} in term {}{elected}",
            vote.server, vote.term
        )?;
    }
    writeln!(out, "{}", if log.sealed { ", sealed" } else { "" })
}

fn print_start(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    match &report.start {
        Start::New => writeln!(out, "a server would start with nothing")?,
        Start::Starts => writeln!(out, "a server would start with all of it")?,
        Start::CutsOff {
            path,
            offset,
            bytes,
        } => writeln!(
            out,
            "a server would start, and cut off {bytes} bytes at byte {offset} of {}: a write that never \
             finished, of which nobody was told",
            path.display()
        )?,
        Start::Refuses { why } => {
            writeln!(out, "a server would refuse to start: {why}")?;
            writeln!(
                out,
                "repair: keep a copy of the files. If this is one of several servers and the others are \
                 well, move {} away, but for myid, and start it with --rejoin; if it is alone, restore \
                 a backup",
                report.data_dir.display()
            )?;
        }
    }
    if !report.problems.is_empty() && !matches!(report.start, Start::Refuses { .. }) {
        writeln!(
            out,
            "repair: what is wrong is in nothing that a start needs; move those files away once newer \
             snapshots are there"
        )?;
    }
    Ok(())
}

/// An entry's index and term.
struct Place(At);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {})", self.0.index, self.0.term)
    }
}

struct State<'a>(&'a StateSummary);

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0;
        write!(
            f,
            "zxid {:#x}, digest {:#018x}, {} znodes ({} ephemeral), {} sessions, {} bytes",
            state.zxid,
            state.digest,
            state.znodes,
            state.ephemerals,
            state.sessions,
            state.data_bytes
        )
    }
}
