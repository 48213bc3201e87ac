//! Log lines: where they go and which of them.
//!
//! A thread of its own writes them: whoever reads standard error may stop doing so (a full pipe, a
//! stopped collector), and the server must go on. Lines that find no room are left out and counted.
//!
//! To standard error, so that standard output stays free. What is logged follows, strongest first:
//! `--log-level`, `QUORATE_LOG_LEVEL`, `RUST_LOG`, `info`.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::{Arg, ArgMatches};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::{Exit, Failure};

/// What is logged unless told otherwise. The Raft engine narrates every step at its own info level, and
/// at its warn level every attempt to reach a server that is down.
const FILTER_DEFAULT: &str = "info,openraft=error";

const LEVEL: &str = "log-level";
const FORMAT: &str = "log-format";

/// Lines that may wait to be written: about a megabyte.
const WAITING_MAX: usize = 4096;
/// How long the end of the process waits for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// To be called once: a process has one place for its log lines. They are all written, if somebody
/// reads them, before the result is dropped.
pub(crate) fn start(matches: &ArgMatches) -> Result<Flush, Failure> {
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
    let (queue, waiting) = sync_channel(WAITING_MAX);
    let sink = Sink {
        queue: queue.clone(),
        left_out: Arc::default(),
    };
    let left_out = Arc::clone(&sink.left_out);
    thread::Builder::new()
        .name("log-lines".to_owned())
        .spawn(move || write_all(&waiting, &left_out))
        .map_err(|error| Failure::new(Exit::Other, format!("logging: no thread: {error}")))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(sink)
        .with_ansi(io::stderr().is_terminal());
    let json = matches
        .get_one(FORMAT)
        .is_some_and(|format: &String| format == "json");
    let started = if json {
        lines.json().try_init()
    } else {
        lines.try_init()
    };
    match started {
        Ok(()) => Ok(Flush(queue)),
        Err(error) => Err(Failure::new(Exit::Other, format!("logging: {error}"))),
    }
}

/// Writes one line to standard error, and does not wait for ever for somebody to read it.
pub(crate) fn print_error(line: String) {
    let (done, is_done) = sync_channel(1);
    let printing = thread::Builder::new().spawn(move || {
        // There is nobody to tell that nothing can be told.
        let _ = writeln!(io::stderr(), "{line}");
        let _ = done.send(());
    });
    if printing.is_ok() {
        let _ = is_done.recv_timeout(PATIENCE);
    }
}

enum Entry {
    Line(Vec<u8>),
    /// All lines before it have been written.
    Mark(SyncSender<()>),
}

/// Waits, when dropped, until the lines so far are written; not for ever.
pub(crate) struct Flush(SyncSender<Entry>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, is_done) = sync_channel(1);
        if self.0.try_send(Entry::Mark(done)).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

/// Puts lines on their way to [`write_all`].
struct Sink {
    queue: SyncSender<Entry>,
    left_out: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Sink {
    /// Called once a line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Entry::Line(line.to_vec())).is_err() {
            self.left_out.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(queue: &Receiver<Entry>, left_out: &AtomicU64) {
    for entry in queue {
        match entry {
            Entry::Line(line) => {
                // There is nobody to tell that nothing can be told.
                let _ = io::stderr().write_all(&line);
            }
            Entry::Mark(done) => {
                let _ = done.send(());
            }
        }
        let left_out = left_out.swap(0, Relaxed);
        if left_out > 0 {
            let _ = writeln!(
                io::stderr(),
                "{left_out} log lines were left out: nobody read them"
            );
        }
    }
}
