//! Log lines: where they go and which of them.
//!
//! To standard error, so that standard output stays free. What is logged follows, strongest first:
//! `--log-level`, `QUORATE_LOG_LEVEL`, `RUST_LOG`, `info`.

use std::io::IsTerminal;

use clap::{Arg, ArgMatches};
use tracing_subscriber::EnvFilter;

use crate::{Exit, Failure};

/// What is logged unless told otherwise. The Raft engine narrates every step at its own info level.
const FILTER_DEFAULT: &str = "info,openraft=warn";

const LEVEL: &str = "log-level";
const FORMAT: &str = "log-format";

pub(crate) fn args() -> [Arg; 2] {
    [
        Arg::new(LEVEL)
            .long(LEVEL)
            .env("QUORATE_LOG_LEVEL")
            .value_name("FILTER")
            .help("error, warn, info, debug, trace, or a filter as in RUST_LOG [default: info]"),
        Arg::new(FORMAT)
            .long(FORMAT)
            .env("QUORATE_LOG_FORMAT")
            .value_name("FORMAT")
            .value_parser(["text", "json"])
            .default_value("text")
            .help("Lines for people, or one JSON object a line"),
    ]
}

/// To be called once: a process has one place for its log lines.
pub(crate) fn start(matches: &ArgMatches) -> Result<(), Failure> {
    let level: Option<String> = matches.get_one(LEVEL).cloned();
    let level = level
        .or_else(|| std::env::var(EnvFilter::DEFAULT_ENV).ok())
        .unwrap_or_default();
    let filter = if level.trim().is_empty() {
        FILTER_DEFAULT
    } else {
        level.trim()
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        let filter = filter.escape_debug();
        Failure::new(
            Exit::Usage,
            format!("log level \"{filter}\": {error}: use error, warn, info, debug or trace"),
        )
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let json = matches
        .get_one(FORMAT)
        .is_some_and(|format: &String| format == "json");
    let started = if json {
        lines.json().try_init()
    } else {
        lines.try_init()
    };
    started.map_err(|error| Failure::new(Exit::Other, format!("logging: {error}")))
}
