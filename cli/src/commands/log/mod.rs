//! `quorate log`: what is in the logs of servers that do not run.
//!
//! `dump` shows one log, entry by entry; `merge` finds out what several servers agree on. Both only
//! read, and keep servers out while they do.

mod json;
mod words;

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use quorate_server::offline::merge::{MergeError, Merged, Source, merge};
use quorate_server::offline::{Folders, ZxidBase};
use quorate_server::storage::StorageError;
use quorate_server::storage::log::inspect::{Batch, Item};
use quorate_server::storage::log::{EntryId, LogState, SavedVote};
use serde::Serialize;

use super::files;
use crate::{Exit, Failure};

const DIR: &str = "DIR";
const FROM: &str = "from";
const TO: &str = "to";
const ALL: &str = "all";

pub(crate) fn command() -> Command {
    Command::new("log")
        .about("Look at the logs of servers that do not run")
        .arg_required_else_help(true)
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(dump_command())
        .subcommand(merge_command())
}

fn dump_command() -> Command {
    Command::new("dump")
        .about("Print a server's log, one line for each entry")
        .arg(
            Arg::new(DIR)
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The data directory, or the zoo.cfg that names it"),
        )
        .arg(files::log_dir())
        .arg(files::format())
        .arg(index(FROM, "The first index to print"))
        .arg(index(TO, "The last index to print"))
        .arg(
            Arg::new(ALL)
                .long(ALL)
                .action(ArgAction::SetTrue)
                .help("All that was written: votes, truncations, entries that were dropped"),
        )
        .after_help(
            "A line has index, zxid, term, the leader's time, the session and what it asked for. \
             Data is not shown, but for --format json, which has everything.\n\n\
             --all goes past damage and prints whatever is whole.\n\n\
             Exit codes:\n  \
             0  printed\n  \
             2  bad arguments or configuration\n  \
             3  the log is damaged, or a server uses the folder",
        )
}

fn merge_command() -> Command {
    Command::new("merge")
        .about("Print what several servers agree on, and where they contradict each other")
        .arg(
            Arg::new(DIR)
                .required(true)
                .action(ArgAction::Append)
                .num_args(1..)
                .value_parser(value_parser!(PathBuf))
                .help("The data directories, or zoo.cfg files, of servers of one ensemble"),
        )
        .arg(files::format())
        .arg(
            Arg::new(ALL)
                .long(ALL)
                .action(ArgAction::SetTrue)
                .help("Also what may be committed, and may not"),
        )
        .after_help(
            "What is certain is what one of the servers knew to be committed, or a majority has and \
             nobody can overrule. --format json prints it as the log of a checker's history.\n\n\
             Exit codes:\n  \
             0  they agree\n  \
             1  they contradict each other, which must never happen\n  \
             2  bad arguments or configuration\n  \
             3  a log is damaged, or a server uses its folder",
        )
}

fn index(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("INDEX")
        .value_parser(value_parser!(u64))
        .help(help)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    match matches.subcommand() {
        Some(("dump", matches)) => dump(matches),
        Some(("merge", matches)) => run_merge(matches),
        _ => Err(Failure::new(
            Exit::Usage,
            "no command: try 'quorate log --help'",
        )),
    }
}

fn dump(matches: &ArgMatches) -> Result<Exit, Failure> {
    let place: &PathBuf = matches.get_one(DIR).expect("the argument is required");
    let folders = files::lock(place, matches)?;
    let from = matches.get_one(FROM).copied().unwrap_or(0);
    let range = from..=matches.get_one(TO).copied().unwrap_or(u64::MAX);
    if matches.get_flag(ALL) {
        return dump_all(&folders, &range, files::is_json(matches));
    }
    let outlook = folders.whole_log().map_err(files::unusable)?;
    let zxids = folders.zxids(&outlook.state).map_err(files::unusable)?;
    let wanted = outlook.entries.iter();
    let wanted = wanted.filter(|entry| range.contains(&entry.id.index));
    if files::is_json(matches) {
        let zxids = known(zxids)?;
        files::print(|out| {
            json::begin(out)?;
            wanted
                .into_iter()
                .try_for_each(|entry| json::entry(entry, zxids, out))
        })?;
    } else {
        files::print(|out| {
            wanted
                .into_iter()
                .try_for_each(|entry| writeln!(out, "{}", words::line(entry, zxids)))
        })?;
    }
    Ok(Exit::Graceful)
}

/// JSON has zxids, not indexes.
fn known(zxids: Option<ZxidBase>) -> Result<ZxidBase, Failure> {
    zxids.ok_or_else(|| {
        let message = "the log begins after its beginning and there is no snapshot, so zxids are \
                       unknown: use --format text, or add the snapshots";
        Failure::new(Exit::DataDirectory, message)
    })
}

/// Everything but entries, as JSON has it.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Batch {
        segment: PathBuf,
        offset: u64,
        number: u64,
        bytes: u64,
        seal: bool,
    },
    Vote {
        term: u64,
        server: u64,
        elected: bool,
    },
    Committed(Option<Id>),
    TruncatedAfter(Option<Id>),
    PurgedUpto(Option<Id>),
    Damaged {
        what: String,
    },
}

#[derive(Serialize)]
struct Id {
    term: u64,
    index: u64,
}

impl Id {
    fn of(id: EntryId) -> Option<Self> {
        Some(Self {
            term: id.term,
            index: id.index,
        })
    }
}

fn dump_all(
    folders: &Folders,
    range: &RangeInclusive<u64>,
    as_json: bool,
) -> Result<Exit, Failure> {
    // Where the log begins, a start would have to find out; so much is not asked for here.
    let purged = EntryId::default();
    let state = LogState {
        purged: Some(purged),
        ..LogState::default()
    };
    let zxids = match folders.outlook() {
        Ok(Some(outlook)) => folders.zxids(&outlook.state),
        _ => folders.zxids(&state),
    };
    let zxids = zxids.map_err(files::unusable)?;
    let mut scanned = Ok(Vec::new());
    files::print(|out| {
        let mut printed = Ok(());
        scanned = folders.scan(|batch| {
            if printed.is_ok() {
                printed = if as_json {
                    json_batch(batch, range, zxids, out)
                } else {
                    text_batch(batch, range, zxids, out)
                };
            }
        });
        printed
    })?;
    let scanned = scanned.map_err(files::unusable)?;
    let damage: Vec<&StorageError> = scanned.iter().flat_map(|segment| &segment.damage).collect();
    files::print(|out| {
        damage.iter().try_for_each(|error| {
            if as_json {
                let what = error.to_string();
                json::record(&Record::Damaged { what }, out)
            } else {
                writeln!(out, "DAMAGED: {error}")
            }
        })
    })?;
    Ok(if damage.is_empty() {
        Exit::Graceful
    } else {
        Exit::DataDirectory
    })
}

fn text_batch(
    batch: &Batch,
    range: &RangeInclusive<u64>,
    zxids: Option<ZxidBase>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(
        out,
        "batch {} at byte {} of {}: {} bytes{}",
        batch.sequence,
        batch.offset,
        batch.path.display(),
        batch.length,
        if batch.is_seal { ", a seal" } else { "" }
    )?;
    let id = |id: &EntryId| format!("entry {} (term {})", id.index, id.term);
    let known = |known: Option<EntryId>| known.map_or("nothing".to_owned(), |known| id(&known));
    for item in &batch.items {
        match item {
            Item::Entry(entry) if range.contains(&entry.id.index) => {
                writeln!(out, "{}", words::line(entry, zxids))?;
            }
            Item::Entry(_) => {}
            Item::Vote(vote) => writeln!(out, "          {}", vote_words(*vote))?,
            Item::Committed(upto) => writeln!(out, "          committed up to {}", id(upto))?,
            Item::Truncated(last) => {
                writeln!(out, "          dropped all after {}", known(*last))?;
            }
            Item::Purged(upto) => writeln!(out, "          purged up to {}", id(upto))?,
            Item::Repeated(state) => writeln!(
                out,
                "          so far: purged up to {}, committed up to {}, last {}, {}",
                known(state.purged),
                known(state.committed),
                known(state.last),
                state.vote.map_or("no vote".to_owned(), vote_words)
            )?,
        }
    }
    Ok(())
}

fn vote_words(vote: SavedVote) -> String {
    let elected = if vote.committed { ", who leads" } else { "" };
    format!(
        "vote for server {} in term {}{elected}",
        vote.server, vote.term
    )
}

fn json_batch(
    batch: &Batch,
    range: &RangeInclusive<u64>,
    zxids: Option<ZxidBase>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let record = Record::Batch {
        segment: batch.path.clone(),
        offset: batch.offset,
        number: batch.sequence,
        bytes: batch.length,
        seal: batch.is_seal,
    };
    json::record(&record, out)?;
    for item in &batch.items {
        let record = match item {
            Item::Entry(entry) => {
                if let Some(zxids) = zxids.filter(|_| range.contains(&entry.id.index)) {
                    json::entry(entry, zxids, out)?;
                }
                continue;
            }
            Item::Repeated(_) => continue,
            Item::Vote(vote) => Record::Vote {
                term: vote.term,
                server: vote.server,
                elected: vote.committed,
            },
            Item::Committed(upto) => Record::Committed(Id::of(*upto)),
            Item::Truncated(last) => Record::TruncatedAfter(last.and_then(Id::of)),
            Item::Purged(upto) => Record::PurgedUpto(Id::of(*upto)),
        };
        json::record(&record, out)?;
    }
    Ok(())
}

fn run_merge(matches: &ArgMatches) -> Result<Exit, Failure> {
    let places: Vec<&PathBuf> = matches.get_many(DIR).into_iter().flatten().collect();
    // One after the other: the locks are held until all have been read.
    let mut locked = Vec::new();
    let mut sources = Vec::new();
    for place in places {
        let folders = files::lock(place, matches)?;
        sources.push(Source::read(&folders).map_err(cannot_merge)?);
        locked.push(folders);
    }
    let merged = merge(&sources).map_err(cannot_merge)?;
    let with_uncertain = matches.get_flag(ALL);
    if files::is_json(matches) {
        print_json(&merged, with_uncertain)?;
    } else {
        files::print(|out| print_text(&sources, &merged, with_uncertain, out))?;
    }
    match merged.differences.first() {
        None => Ok(Exit::Graceful),
        Some(first) => {
            let more = match merged.differences.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let message = format!(
                "the logs contradict each other: {first}{more}: stop these servers, keep their files, \
                 and report this bug"
            );
            Err(Failure::new(Exit::Other, message))
        }
    }
}

fn cannot_merge(error: MergeError) -> Failure {
    let exit = match &error {
        MergeError::Storage(_) => Exit::DataDirectory,
        MergeError::Nobodys { .. } | MergeError::Twice { .. } | MergeError::Foreign { .. } => {
            Exit::Usage
        }
    };
    Failure::new(exit, error)
}

fn print_json(merged: &Merged, with_uncertain: bool) -> Result<(), Failure> {
    let zxids = known(merged.zxids)?;
    files::print(|out| {
        json::begin(out)?;
        let entries = merged.entries.iter();
        entries
            .filter(|merged| merged.is_certain || with_uncertain)
            .try_for_each(|merged| json::entry(&merged.entry, zxids, out))
    })
}

fn print_text(
    sources: &[Source],
    merged: &Merged,
    with_uncertain: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    for merged_entry in &merged.entries {
        if merged_entry.is_certain {
            writeln!(out, "{}", words::line(&merged_entry.entry, merged.zxids))?;
        } else if with_uncertain {
            writeln!(out, "{}  ?", words::line(&merged_entry.entry, merged.zxids))?;
        }
    }
    for source in sources {
        let known = |id: Option<EntryId>| match id {
            Some(id) => format!("{} (term {})", id.index, id.term),
            None => "nothing".to_owned(),
        };
        writeln!(
            out,
            "server {}: last entry {}, knew of {} committed",
            source.server,
            known(source.log.last),
            known(source.committed)
        )?;
    }
    for (first, last) in &merged.missing {
        writeln!(
            out,
            "entries {first} to {last} are committed, and in none of these logs any more"
        )?;
    }
    for (server, first, last) in &merged.overruled {
        writeln!(
            out,
            "server {server} holds entries {first} to {last} that were overruled, or will be"
        )?;
    }
    let uncertain = merged
        .entries
        .iter()
        .filter(|entry| !entry.is_certain)
        .count();
    if uncertain > 0 {
        writeln!(out, "{uncertain} more entries may be committed")?;
    }
    for difference in &merged.differences {
        writeln!(out, "CONTRADICTION: {difference}")?;
    }
    match merged.certain_upto {
        Some(upto) => writeln!(out, "committed for certain up to entry {upto}"),
        None => writeln!(out, "nothing is committed for certain"),
    }
}
