//! The `quorate` binary: arguments in, an exit code out.
//!
//! This file is the one place that knows exit codes ([`Exit`]) and prints errors: one line on
//! standard error, `quorate: what is wrong: what to do`. A user's mistake never shows a backtrace.
//! Standard output is for what was asked for, help and version; log lines go to standard error.

mod commands;
mod logging;

use std::fmt;
use std::process::ExitCode;

use clap::error::ErrorKind;

/// Commands are made on one thread and freed on another, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How the process ends. Scripts and supervisors rely on these numbers: do not renumber.
///
/// 1 is left to what has no number of its own; a panic, which is a bug, aborts (SIGABRT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Asked to stop, and everything acknowledged is on disk.
    Graceful = 0,
    /// No other number fits.
    Other = 1,
    /// Bad arguments or configuration. Starting again will not help.
    Usage = 2,
    /// The data directory cannot be used: locked, unreadable, damaged.
    DataDirectory = 3,
    /// The client address cannot be listened on: in use, or not of this machine.
    Bind = 4,
    /// Storage failed while the server was running. Starting again may help.
    Storage = 5,
}

impl Exit {
    /// For the help text, in order of their numbers.
    const ALL: [(Self, &'static str); 6] = [
        (Self::Graceful, "stopped as asked"),
        (Self::Other, "failed for a reason not listed here"),
        (Self::Usage, "bad arguments or configuration"),
        (Self::DataDirectory, "data directory unusable"),
        (Self::Bind, "client address unavailable"),
        (Self::Storage, "storage failed while running"),
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the process ends early: a number for scripts, a line for people.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            logging::print_error(format!("quorate: {}", failure.message));
            failure.exit.into()
        }
    }
}

fn run() -> Result<Exit, Failure> {
    match command().try_get_matches() {
        Ok(matches) => match matches.subcommand() {
            Some(("serve", matches)) => commands::serve::run(matches),
            Some(("dev", matches)) => commands::dev::run(matches),
            Some(("check", matches)) => commands::check::run(matches),
            Some(("log", matches)) => commands::log::run(matches),
            _ => Err(Failure::new(
                Exit::Usage,
                "no command: try 'quorate --help'",
            )),
        },
        Err(error) => answer_or_refuse(&error),
    }
}

fn command() -> clap::Command {
    clap::Command::new("quorate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A coordination service that ZooKeeper clients use as they are")
        .arg_required_else_help(true)
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(commands::serve::command())
        .subcommand(commands::dev::command())
        .subcommand(commands::check::command())
        .subcommand(commands::log::command())
        .after_help(
            "Examples:\n  \
             quorate serve            one server on 127.0.0.1:2181, data in ./quorate-data\n  \
             quorate serve zoo.cfg    with ZooKeeper's configuration file\n  \
             quorate dev              three servers on this machine, until Ctrl-C\n  \
             quorate check DIR        are the files of a stopped server sound?\n\n\
             'quorate serve --help' lists all settings and exit codes.",
        )
}

/// Help and version come out of clap as errors, too.
fn answer_or_refuse(error: &clap::Error) -> Result<Exit, Failure> {
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Graceful,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Exit::Usage,
        _ => return Err(Failure::new(Exit::Usage, one_line(error))),
    };
    // A reader that has gone away (`quorate --help | head -1`) has seen enough.
    let _ = error.print();
    Ok(exit)
}

/// clap's paragraphs, without the usage, in one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let what = paragraphs.first().map_or("", String::as_str);
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let tip = paragraphs.iter().find(|text| text.starts_with("tip: "));
    match tip {
        Some(tip) => format!("{what} ({tip}): try 'quorate serve --help'"),
        None => format!("{what}: try 'quorate serve --help'"),
    }
}
