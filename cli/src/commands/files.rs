//! What the commands have in common that look at a server's files: how the folders are named, and
//! how lines get to standard output.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, value_parser};
use quorate_server::config::Config;
use quorate_server::offline::Folders;
use quorate_server::storage::StorageError;

use crate::{Exit, Failure};

const LOG_DIR: &str = "log-dir";
const FORMAT: &str = "format";

pub(crate) fn log_dir() -> Arg {
    Arg::new(LOG_DIR)
        .long(LOG_DIR)
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("Where the log is, if not with the snapshots")
}

pub(crate) fn format() -> Arg {
    Arg::new(FORMAT)
        .long(FORMAT)
        .value_name("FORMAT")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("Lines for people, or JSON")
}

pub(crate) fn is_json(matches: &ArgMatches) -> bool {
    let format: Option<&String> = matches.get_one(FORMAT);
    format.is_some_and(|format| format == "json")
}

/// Takes the folders of one server: `place` is the data directory, or a `zoo.cfg` that names it.
pub(crate) fn lock(place: &Path, matches: &ArgMatches) -> Result<Folders, Failure> {
    // Only where one server is looked at.
    let log_dir: Option<&PathBuf> = matches.try_get_one(LOG_DIR).ok().flatten();
    let (data, log) = if place.is_file() {
        let (config, _) =
            Config::load(Some(place), &[]).map_err(|error| Failure::new(Exit::Usage, error))?;
        (config.data_dir, config.log_dir)
    } else {
        (place.to_owned(), place.to_owned())
    };
    let log = log_dir.cloned().unwrap_or(log);
    Folders::lock(&data, &log).map_err(unusable)
}

/// The folders cannot be looked at, or do not hold what they must.
pub(crate) fn unusable(error: StorageError) -> Failure {
    Failure::new(Exit::DataDirectory, error)
}

/// Writes to standard output. A reader that has gone away has seen enough.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("standard output: {error}");
            Err(Failure::new(Exit::Other, message))
        }
        _ => Ok(()),
    }
}
