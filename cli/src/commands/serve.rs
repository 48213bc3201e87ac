//! `quorate serve`: one server, until it is told to stop.
//!
//! Settings are strings here: each has a key of `zoo.cfg`, and the server's configuration parses
//! flags, variables and file alike. No secret is taken from an argument: other users of the
//! machine can read them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use quorate_server::config::{Config, Override};
use quorate_server::{Server, StartError};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::{Exit, Failure, logging};

/// A flag, its environment variable, and the key of `zoo.cfg` that both stand for.
struct Setting {
    heading: &'static str,
    flag: &'static str,
    variable: &'static str,
    key: &'static str,
    value: &'static str,
    help: &'static str,
}

/// Not here: what few set, and what belongs to an ensemble as a whole. `zoo.cfg` takes it all.
const SETTINGS: &[Setting] = &[
    Setting {
        heading: "Files",
        flag: "data-dir",
        variable: "QUORATE_DATA_DIR",
        key: "dataDir",
        value: "DIR",
        help: "Snapshots and myid [default: quorate-data]",
    },
    Setting {
        heading: "Files",
        flag: "data-log-dir",
        variable: "QUORATE_DATA_LOG_DIR",
        key: "dataLogDir",
        value: "DIR",
        help: "Write-ahead log [default: the data directory]",
    },
    Setting {
        heading: "Ensemble",
        flag: "server-id",
        variable: "QUORATE_SERVER_ID",
        key: "quorate.serverId",
        value: "N",
        help: "Which of the servers this one is [default: what the file myid says]",
    },
    Setting {
        heading: "Client port",
        flag: "client-address",
        variable: "QUORATE_CLIENT_ADDRESS",
        key: "clientPortAddress",
        value: "HOST",
        help: "Address to listen on [default: 127.0.0.1; all with a ZOO_CFG]",
    },
    Setting {
        heading: "Client port",
        flag: "client-port",
        // Kubernetes sets QUORATE_CLIENT_PORT to a URL wherever a service is called
        // quorate-client, so that name is not ours to use.
        variable: "QUORATE_CLIENT_PORT_NUMBER",
        key: "clientPort",
        value: "PORT",
        help: "0 takes any free port [default: 2181]",
    },
    Setting {
        heading: "Client port",
        flag: "connections-per-address-max",
        variable: "QUORATE_CONNECTIONS_PER_ADDRESS_MAX",
        key: "maxClientCnxns",
        value: "N",
        help: "Connections from one IP address, 0 for any number [default: 60]",
    },
    Setting {
        heading: "Client port",
        flag: "connections-max",
        variable: "QUORATE_CONNECTIONS_MAX",
        key: "maxCnxns",
        value: "N",
        help: "Connections in total, 0 for any number [default: 0]",
    },
    Setting {
        heading: "Client port",
        flag: "four-letter-words",
        variable: "QUORATE_FOUR_LETTER_WORDS",
        key: "4lw.commands.whitelist",
        value: "LIST",
        help: "Words to answer, such as srvr,mntr,ruok, or * for all [default: srvr]",
    },
    Setting {
        heading: "Time",
        flag: "tick-ms",
        variable: "QUORATE_TICK_MS",
        key: "tickTime",
        value: "MS",
        help: "Unit of the session timeouts' defaults [default: 2000; 3000 with a ZOO_CFG]",
    },
    Setting {
        heading: "Time",
        flag: "session-timeout-min-ms",
        variable: "QUORATE_SESSION_TIMEOUT_MIN_MS",
        key: "minSessionTimeout",
        value: "MS",
        help: "Shortest session timeout [default: 2 ticks]",
    },
    Setting {
        heading: "Time",
        flag: "session-timeout-max-ms",
        variable: "QUORATE_SESSION_TIMEOUT_MAX_MS",
        key: "maxSessionTimeout",
        value: "MS",
        help: "Longest session timeout [default: 20 ticks]",
    },
    Setting {
        heading: "Bounds",
        flag: "frame-bytes-max",
        variable: "QUORATE_FRAME_BYTES_MAX",
        key: "jute.maxbuffer",
        value: "BYTES",
        help: "Longest request [default: 1048575]",
    },
    Setting {
        heading: "Bounds",
        flag: "requests-outstanding-max",
        variable: "QUORATE_REQUESTS_OUTSTANDING_MAX",
        key: "globalOutstandingLimit",
        value: "N",
        help: "Requests under way [default: 16384]",
    },
    Setting {
        heading: "Bounds",
        flag: "requests-per-connection-max",
        variable: "QUORATE_REQUESTS_PER_CONNECTION_MAX",
        key: "quorate.requestsPerConnectionMax",
        value: "N",
        help: "Requests under way on one connection [default: a quarter of all]",
    },
    Setting {
        heading: "Bounds",
        flag: "request-bytes-max",
        variable: "QUORATE_REQUEST_BYTES_MAX",
        key: "quorate.requestBytesMax",
        value: "BYTES",
        help: "Size of all requests under way [default: 64 MiB]",
    },
    Setting {
        heading: "Bounds",
        flag: "outbox-bytes-max",
        variable: "QUORATE_OUTBOX_BYTES_MAX",
        key: "quorate.outboxBytesMax",
        value: "BYTES",
        help: "Unsent bytes after which a client that does not read is disconnected \
               [default: 16 MiB]",
    },
    Setting {
        heading: "Log and snapshots",
        flag: "log-segment-bytes",
        variable: "QUORATE_LOG_SEGMENT_BYTES",
        key: "quorate.logSegmentBytes",
        value: "BYTES",
        help: "Size of a log segment [default: 64 MiB]",
    },
    Setting {
        heading: "Log and snapshots",
        flag: "snapshot-entries",
        variable: "QUORATE_SNAPSHOT_ENTRIES",
        key: "snapCount",
        value: "N",
        help: "Log entries between snapshots [default: 1000000]",
    },
    Setting {
        heading: "Log and snapshots",
        flag: "snapshot-log-bytes",
        variable: "QUORATE_SNAPSHOT_LOG_BYTES",
        key: "quorate.snapshotLogBytes",
        value: "BYTES",
        help: "Log bytes between snapshots, 0 for any number [default: 256 MiB]",
    },
    Setting {
        heading: "Log and snapshots",
        flag: "snapshots-kept",
        variable: "QUORATE_SNAPSHOTS_KEPT",
        key: "autopurge.snapRetainCount",
        value: "N",
        help: "Snapshots to keep, at least 3 [default: 3]",
    },
];

const SERVERS: &str = "server";
const SERVERS_VARIABLE: &str = "QUORATE_SERVERS";
const THREADS: &str = "threads";
const REJOIN: &str = "rejoin";
const REJOIN_VARIABLE: &str = "QUORATE_REJOIN";
const SUPER_DIGEST: &str = "DigestAuthenticationProvider.superDigest";
const SUPER_DIGEST_VARIABLE: &str = "QUORATE_SUPER_DIGEST";
const SUPER_DIGEST_FILE: &str = "super-digest-file";
const ZOO_CFG: &str = "ZOO_CFG";
const STOP_WITH_STDIN_ID: &str = "stop-with-stdin";
/// The server stops when its standard input ends: it is to end with whoever holds the other end.
pub(crate) const STOP_WITH_STDIN: &str = "--stop-with-stdin";

pub(crate) fn command() -> Command {
    let mut settings: Vec<Arg> = SETTINGS.iter().map(Setting::arg).collect();
    settings.push(
        Arg::new(SUPER_DIGEST_FILE)
            .long(SUPER_DIGEST_FILE)
            .env("QUORATE_SUPER_DIGEST_FILE")
            .hide_env_values(true)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help_heading("Access")
            .help(
                "Holds user:base64(sha1(user:password)), who passes every ACL. \
                 QUORATE_SUPER_DIGEST may hold the digest itself",
            ),
    );
    settings.push(
        Arg::new(SERVERS)
            .long(SERVERS)
            .env(SERVERS_VARIABLE)
            .hide_env_values(true)
            .action(ArgAction::Append)
            .value_name("N=HOST:PORT:PORT[:ROLE][;CLIENT_PORT]")
            .help_heading("Ensemble")
            .help(
                "One of the servers, like a server.N line; give it once for each. \
                 QUORATE_SERVERS takes them all, with spaces between them",
            ),
    );
    settings.push(
        Arg::new(REJOIN)
            .long(REJOIN)
            .env(REJOIN_VARIABLE)
            .hide_env_values(true)
            .action(ArgAction::SetTrue)
            .value_parser(BoolishValueParser::new())
            .help_heading("Ensemble")
            .help("Be taken in again as a new server after the data is lost"),
    );
    settings.push(
        Arg::new(THREADS)
            .long(THREADS)
            .env("QUORATE_THREADS")
            .hide_env_values(true)
            .value_name("N")
            .value_parser(value_parser!(u16).range(1..=1024))
            .help_heading("Limits")
            .help("Threads that serve, beside those of the log [default: half the processors]"),
    );
    Command::new("serve")
        .about("Run a server")
        .arg(
            Arg::new(ZOO_CFG)
                .value_parser(value_parser!(PathBuf))
                .help("ZooKeeper's configuration file; flags and variables count more"),
        )
        .arg(
            Arg::new(STOP_WITH_STDIN_ID)
                .long(STOP_WITH_STDIN_ID)
                .action(ArgAction::SetTrue)
                // Between `quorate dev` and its servers.
                .hide(true),
        )
        .args(settings)
        .args(logging::args().map(|arg| arg.help_heading("Log lines").hide_env_values(true)))
        .after_help(after_help())
}

impl Setting {
    fn arg(&self) -> Arg {
        Arg::new(self.flag)
            .long(self.flag)
            .env(self.variable)
            // The environment of whoever asks for help is none of the help's business.
            .hide_env_values(true)
            .value_name(self.value)
            .help_heading(self.heading)
            .help(self.help)
            // -1 is a value of ZooKeeper's for "default".
            .allow_negative_numbers(true)
    }
}

fn after_help() -> String {
    let mut text = "Examples:\n  \
         quorate serve --data-dir /var/lib/quorate\n  \
         QUORATE_TICK_MS=500 quorate serve zoo.cfg --client-port 2182\n\n\
         Exit codes:\n"
        .to_owned();
    for (exit, meaning) in Exit::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {}  {meaning}", exit as u8);
    }
    text.truncate(text.trim_end().len());
    text
}

pub(crate) fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let _flush = logging::start(matches)?;
    let file: Option<&PathBuf> = matches.get_one(ZOO_CFG);
    let overrides = overrides(matches)?;
    let (config, warnings) = Config::load(file.map(PathBuf::as_path), &overrides)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(matches))
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Other, format!("no threads to run on: {error}")))?;
    runtime.block_on(serve(config, matches.get_flag(STOP_WITH_STDIN_ID)))
}

/// How many threads serve. Half the processors: the other half is for the log's own threads and the
/// kernel's network, and a request that wakes fewer threads on its way is answered sooner.
fn threads(matches: &ArgMatches) -> usize {
    let asked: Option<&u16> = matches.get_one(THREADS);
    asked.map_or_else(
        || std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2)),
        |asked| usize::from(*asked),
    )
}

/// Takes as many file descriptors as the system lets the process have: a connection is one, and the
/// usual limit of 1024 is meant for programs that put them into fixed tables.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Runs the server until a signal or a failure.
async fn serve(config: Config, stop_with_stdin: bool) -> Result<Exit, Failure> {
    // Before the server is there: a signal during recovery must not kill it half-way.
    let mut stop = Signals::new(stop_with_stdin)?;
    let started = tokio::select! {
        started = Server::start(config) => started,
        // Nothing has been acknowledged yet, so there is nothing to flush.
        signal = stop.next() => {
            tracing::info!(signal, "stopped while starting");
            return Ok(Exit::Graceful);
        }
    };
    let server = started.map_err(refuse_to_start)?;
    tokio::select! {
        () = server.ready() => {
            tracing::info!(address = %server.client_address(), "serving clients");
        }
        signal = stop.next() => {
            tracing::info!(signal, "stopped while waiting for the ensemble");
            return end(server, &mut stop).await;
        }
    }
    let failure = tokio::select! {
        failure = server.failed() => Some(failure),
        signal = stop.next() => {
            tracing::info!(signal, "stopping");
            None
        }
    };
    if let Some(failure) = failure {
        // Whatever can be closed in order is in doubt now; what was acknowledged is on disk.
        return Err(Failure::new(Exit::Storage, failure));
    }
    end(server, &mut stop).await
}

/// Stops in order, or at once on another signal.
async fn end(server: Server, stop: &mut Signals) -> Result<Exit, Failure> {
    tokio::select! {
        closed = server.shutdown() => {
            closed.map_err(|error| Failure::new(Exit::Storage, error))?;
            tracing::info!("stopped");
        }
        signal = stop.next() => tracing::warn!(signal, "stopped at once; the log was not closed"),
    }
    Ok(Exit::Graceful)
}

fn refuse_to_start(error: StartError) -> Failure {
    let exit = match &error {
        StartError::Bind { .. } | StartError::BindPeers { .. } => Exit::Bind,
        StartError::Storage(_) | StartError::Formation(_) => Exit::DataDirectory,
        StartError::Consensus(_) => Exit::Storage,
    };
    Failure::new(exit, error)
}

/// SIGTERM and SIGINT (Ctrl-C), and the end of standard input, where that counts as one.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Until it has been told of.
    input_ended: Option<oneshot::Receiver<()>>,
}

impl Signals {
    pub(crate) fn new(with_stdin: bool) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Other, format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            input_ended: with_stdin.then(watch_stdin).transpose()?,
        })
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = told(&mut self.input_ended) => "end of standard input",
        }
    }
}

/// Reads standard input to its end, on a thread that nobody waits for.
fn watch_stdin() -> Result<oneshot::Receiver<()>, Failure> {
    let (ended, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            // Nobody listens any more once the server has stopped.
            let _ = ended.send(());
        })
        .map_err(|error| Failure::new(Exit::Other, format!("no thread: {error}")))?;
    Ok(receiver)
}

/// Once.
async fn told(ended: &mut Option<oneshot::Receiver<()>>) {
    match ended {
        Some(receiver) => {
            let _ = receiver.await;
            *ended = None;
        }
        None => std::future::pending().await,
    }
}

/// What the command line and the environment say. clap has let flags win already.
fn overrides(matches: &ArgMatches) -> Result<Vec<Override>, Failure> {
    let mut overrides = Vec::new();
    for setting in SETTINGS {
        let value: Option<&String> = matches.get_one(setting.flag);
        if let Some(value) = value {
            overrides.push(Override {
                key: setting.key,
                value: value.clone(),
                name: name(matches, setting.flag, setting.variable),
            });
        }
    }
    let servers = matches.get_many::<String>(SERVERS).into_iter().flatten();
    for server in servers.flat_map(|servers| servers.split_whitespace()) {
        overrides.push(Override {
            key: "quorate.server",
            value: server.to_owned(),
            name: name(matches, SERVERS, SERVERS_VARIABLE),
        });
    }
    if matches.get_flag(REJOIN) {
        overrides.push(Override {
            key: "quorate.rejoin",
            value: true.to_string(),
            name: name(matches, REJOIN, REJOIN_VARIABLE),
        });
    }
    if let Some(digest) = super_digest(matches, std::env::var_os(SUPER_DIGEST_VARIABLE))? {
        overrides.push(digest);
    }
    Ok(overrides)
}

/// What the user knows a value by.
fn name(matches: &ArgMatches, flag: &str, variable: &str) -> String {
    match matches.value_source(flag) {
        Some(ValueSource::EnvVariable) => variable.to_owned(),
        _ => format!("--{flag}"),
    }
}

/// A file, named by flag or variable, counts more than the variable with the digest itself.
fn super_digest(
    matches: &ArgMatches,
    variable: Option<OsString>,
) -> Result<Option<Override>, Failure> {
    let path: Option<&PathBuf> = matches.get_one(SUPER_DIGEST_FILE);
    let (value, name) = match (path, variable) {
        (Some(path), _) => {
            let name = name(matches, SUPER_DIGEST_FILE, "QUORATE_SUPER_DIGEST_FILE");
            let value = first_line(path).map_err(|error| {
                let path = path.display();
                let message = format!("{name}: {path}: {error}: check path and permissions");
                Failure::new(Exit::Usage, message)
            })?;
            (value, name)
        }
        // A digest is ASCII: what is lost in other bytes was no digest, and is refused as such.
        (None, Some(value)) => (
            value.to_string_lossy().into_owned(),
            SUPER_DIGEST_VARIABLE.to_owned(),
        ),
        (None, None) => return Ok(None),
    };
    Ok(Some(Override {
        key: SUPER_DIGEST,
        value,
        name,
    }))
}

fn first_line(path: &Path) -> std::io::Result<String> {
    /// A user's name and 28 letters; a longer file is another one.
    const BYTES_MAX: u64 = 4096;
    let mut text = String::new();
    File::open(path)?
        .take(BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
