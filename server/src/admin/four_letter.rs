//! The four-letter words: a client port's answers to administrators' scripts.
//!
//! Shapes and names are ZooKeeper's, because monitors parse them. Each answer is text; the
//! connection then closes. A word that the whitelist does not name is answered with a line that
//! exporters look for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use quorate_protocol::{OpCode, SessionId};

use crate::client_port::listener::ClientPort;
use crate::client_port::outbox::{Inner, Outbox};
use crate::consensus::Role;
use crate::metrics::LatencyReading;

/// What clients and exporters take this server for: they choose features by it.
pub const ZOOKEEPER_VERSION: &str = "3.9.5";

/// ZooKeeper's default trace mask (decimal 306): it is kept and shown, and traces nothing here.
pub const TRACE_MASK_DEFAULT: i64 = 0o462;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Ruok,
    Srvr,
    Stat,
    Mntr,
    Conf,
    Cons,
    Dump,
    Wchs,
    Wchc,
    Wchp,
    Envi,
    Isro,
    Srst,
    Crst,
    Dirs,
    Hash,
    Gtmk,
    Stmk,
}

impl Word {
    const ALL: [(Self, &'static str); 18] = [
        (Self::Ruok, "ruok"),
        (Self::Srvr, "srvr"),
        (Self::Stat, "stat"),
        (Self::Mntr, "mntr"),
        (Self::Conf, "conf"),
        (Self::Cons, "cons"),
        (Self::Dump, "dump"),
        (Self::Wchs, "wchs"),
        (Self::Wchc, "wchc"),
        (Self::Wchp, "wchp"),
        (Self::Envi, "envi"),
        (Self::Isro, "isro"),
        (Self::Srst, "srst"),
        (Self::Crst, "crst"),
        (Self::Dirs, "dirs"),
        (Self::Hash, "hash"),
        (Self::Gtmk, "gtmk"),
        (Self::Stmk, "stmk"),
    ];

    /// `None` for bytes that are no command, and so may be the length of a frame.
    pub fn parse(bytes: &[u8; 4]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find_map(|(word, name)| (name.as_bytes() == bytes).then_some(word))
    }

    fn name(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find_map(|(word, name)| (word == self).then_some(name))
            .unwrap_or_default()
    }
}

/// The answer to `word`; `None` while more of the command (`stmk`'s mask) is to come.
pub fn answer(port: &ClientPort, word: Word, rest: &[u8]) -> Option<String> {
    if !port.config.four_letter_words.allows(word.name()) {
        let name = word.name();
        return Some(format!(
            "{name} is not executed because it is not in the whitelist.\n"
        ));
    }
    Some(match word {
        Word::Ruok => "imok".to_owned(),
        Word::Isro => "rw".to_owned(),
        Word::Srvr => format!("{}\n{}", version_line(), server_lines(port)),
        Word::Stat => stat(port),
        Word::Mntr => mntr(port),
        Word::Conf => conf(port),
        Word::Cons => cons(port),
        Word::Dump => dump(port),
        Word::Wchs => wchs(port),
        Word::Wchc => wchc(port),
        Word::Wchp => wchp(port),
        Word::Envi => envi(),
        Word::Srst => {
            port.metrics.reset();
            "Server stats reset.\n".to_owned()
        }
        Word::Crst => {
            for outbox in port.replica.connections().values() {
                outbox.lock().reset_stats();
            }
            "Connection stats reset.\n".to_owned()
        }
        Word::Dirs => format!(
            "datadir_size: {}\nlogdir_size: {}\n",
            folder_bytes(&port.config.data_dir),
            folder_bytes(&port.config.log_dir)
        ),
        Word::Hash => port
            .replica
            .inspect(|state| format!("{:x}: {}\n", state.last_zxid().0, state.digest())),
        Word::Gtmk => port.trace_mask.load(Relaxed).to_string(),
        Word::Stmk => {
            let mask = i64::from_be_bytes(*rest.first_chunk()?);
            port.trace_mask.store(mask, Relaxed);
            mask.to_string()
        }
    })
}

fn version() -> String {
    format!(
        "{ZOOKEEPER_VERSION}-quorate-{}, built on 2026-11-21 00:00 UTC",
        env!("CARGO_PKG_VERSION")
    )
}

fn version_line() -> String {
    format!("Zookeeper version: {}", version())
}

fn mode(port: &ClientPort) -> &'static str {
    match port.consensus.role() {
        Role::Leader if port.config.standalone_enabled && port.config.members.len() < 2 => {
            "standalone"
        }
        Role::Leader => "leader",
        Role::Observer => "observer",
        Role::Follower | Role::Candidate | Role::Stopped => "follower",
    }
}

/// What `srvr` and `stat` share.
fn server_lines(port: &ClientPort) -> String {
    let metrics = &port.metrics;
    let latency = metrics.latency.read();
    let (zxid, nodes) = port
        .replica
        .inspect(|state| (state.last_zxid(), state.node_count()));
    format!(
        "Latency min/avg/max: {}/{}/{}\n\
         Received: {}\n\
         Sent: {}\n\
         Connections: {}\n\
         Outstanding: {}\n\
         Zxid: {zxid}\n\
         Mode: {}\n\
         Node count: {nodes}\n",
        latency.min_us / 1000,
        mean(latency),
        latency.max_us / 1000,
        metrics.packets_received.load(Relaxed),
        metrics.packets_sent.load(Relaxed),
        port.replica.connection_count(),
        port.admission.outstanding(),
        mode(port),
    )
}

/// Up to four decimals and at least one, as Java prints a rounded double.
fn mean(latency: LatencyReading) -> String {
    let text = format!("{:.4}", latency.mean_ms());
    let trimmed = text.trim_end_matches('0');
    match trimmed.ends_with('.') {
        true => format!("{trimmed}0"),
        false => trimmed.to_owned(),
    }
}

fn stat(port: &ClientPort) -> String {
    let mut text = format!("{}\nClients:\n", version_line());
    for outbox in port.replica.connections().values() {
        let inner = outbox.lock();
        let _ = writeln!(text, " {}({})", address(outbox, &inner), counts(&inner));
    }
    text.push('\n');
    text.push_str(&server_lines(port));
    text
}

/// The bracketed number is Java's set of interest operations: 1, reading, or 0 before a session.
fn address(outbox: &Outbox, inner: &Inner) -> String {
    let interest = u8::from(inner.session().is_some());
    format!("/{}[{interest}]", outbox.peer())
}

fn counts(inner: &Inner) -> String {
    let stats = inner.stats();
    format!(
        "queued={},recved={},sent={}",
        inner.owed_count(),
        stats.received,
        stats.sent
    )
}

fn cons(port: &ClientPort) -> String {
    let mut text = String::new();
    let now_us = port.clock.monotonic_us();
    let now_ms = port.clock.wall_ms();
    for outbox in port.replica.connections().values() {
        let inner = outbox.lock();
        let _ = write!(text, " {}({}", address(outbox, &inner), counts(&inner));
        if let Some(session) = inner.session() {
            let stats = inner.stats();
            let since_ms = now_us.saturating_sub(stats.last_response_us) / 1000;
            let _ = write!(
                text,
                ",sid={},lop={},est={},to={},lcxid={:#x},lzxid={:#x},lresp={},llat={},minlat={},avglat={},maxlat={}",
                session.id,
                stats.last_op.map_or("NA", OpCode::short_name),
                outbox.established_ms(),
                session.timeout_ms,
                stats.last_xid,
                stats.last_zxid,
                now_ms.saturating_sub_unsigned(since_ms),
                stats.last_latency_us / 1000,
                stats.min_latency_us / 1000,
                stats.sum_latency_us / stats.answered.max(1) / 1000,
                stats.max_latency_us / 1000,
            );
        }
        text.push_str(")\n");
    }
    text.push('\n');
    text
}

fn conf(port: &ClientPort) -> String {
    let config = &port.config;
    let limit = |limit: Option<std::num::NonZeroU32>| limit.map_or(0, Into::<u32>::into);
    let backlog = config
        .client_listen_backlog
        .map_or_else(|| "-1".to_owned(), |backlog| backlog.to_string());
    format!(
        "clientPort={}\n\
         secureClientPort=-1\n\
         dataDir={}\n\
         dataDirSize={}\n\
         dataLogDir={}\n\
         dataLogSize={}\n\
         tickTime={}\n\
         maxClientCnxns={}\n\
         minSessionTimeout={}\n\
         maxSessionTimeout={}\n\
         clientPortListenBacklog={backlog}\n\
         serverId={}\n",
        config.client_address.port(),
        config.data_dir.display(),
        folder_bytes(&config.data_dir),
        config.log_dir.display(),
        folder_bytes(&config.log_dir),
        config.tick_ms,
        limit(config.connections_per_address_max),
        config.session_timeout_min_ms,
        config.session_timeout_max_ms,
        config.server_id,
    )
}

fn dump(port: &ClientPort) -> String {
    let now_ms = port.clock.monotonic_ms();
    let wall_ms = port.clock.wall_ms();
    let mut expiries: BTreeMap<u64, Vec<SessionId>> = BTreeMap::new();
    let mut sessions = 0;
    for (deadline_ms, session) in port.sessions.deadlines() {
        expiries.entry(deadline_ms).or_default().push(session);
        sessions += 1;
    }
    let mut text = format!(
        "SessionTracker dump:\nSession Sets ({})/({sessions}):\n",
        expiries.len()
    );
    for (deadline_ms, sessions) in expiries {
        let at = wall_ms
            .saturating_add_unsigned(deadline_ms)
            .saturating_sub_unsigned(now_ms);
        let _ = writeln!(text, "{} expire at {at} ms since 1970:", sessions.len());
        for session in sessions {
            let _ = writeln!(text, "\t{session}");
        }
    }
    text.push_str("ephemeral nodes dump:\n");
    text.push_str(&port.replica.inspect(|state| {
        let owners: Vec<_> = state
            .sessions()
            .map(|(id, _)| (id, state.ephemerals(id).collect::<Vec<_>>()))
            .filter(|(_, paths)| !paths.is_empty())
            .collect();
        let mut text = format!("Sessions with Ephemerals ({}):\n", owners.len());
        for (session, paths) in owners {
            let _ = writeln!(text, "{session}:");
            for path in paths {
                let _ = writeln!(text, "\t{path}");
            }
        }
        text
    }));
    let connections = port.replica.connections();
    let _ = writeln!(
        text,
        "Connections dump:\nConnections Sets (1)/({}):",
        connections.len()
    );
    for outbox in connections.values() {
        let session = outbox
            .lock()
            .session()
            .map_or(0, |session| session.id.get());
        let _ = writeln!(text, "\tip: /{} sessionId: {session:#x}", outbox.peer());
    }
    text
}

fn wchs(port: &ClientPort) -> String {
    let summary = port
        .replica
        .inspect_watches(quorate_state::WatchTable::data_watch_summary);
    format!(
        "{} connections watching {} paths\nTotal watches:{}\n",
        summary.connections, summary.paths, summary.total
    )
}

/// The session of a connection, as the watch listings name it.
fn session_name(connections: &BTreeMap<u64, std::sync::Arc<Outbox>>, number: u64) -> String {
    let session = connections
        .get(&number)
        .and_then(|outbox| outbox.lock().session())
        .map_or(0, |session| session.id.get());
    format!("{session:#x}")
}

fn wchc(port: &ClientPort) -> String {
    let connections = port.replica.connections();
    let mut text = port.replica.inspect_watches(|watches| {
        let mut text = String::new();
        for (number, paths) in watches.by_connection() {
            let _ = writeln!(text, "{}", session_name(&connections, number));
            for path in paths {
                let _ = writeln!(text, "\t{path}");
            }
        }
        text
    });
    text.push('\n');
    text
}

fn wchp(port: &ClientPort) -> String {
    let connections = port.replica.connections();
    let mut text = port.replica.inspect_watches(|watches| {
        let mut text = String::new();
        for (path, numbers) in watches.by_path() {
            let _ = writeln!(text, "{path}");
            for number in numbers {
                let _ = writeln!(text, "\t{}", session_name(&connections, number));
            }
        }
        text
    });
    text.push('\n');
    text
}

/// Keys of the Java server, as far as they mean anything here: clients read the first.
fn envi() -> String {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let directory = std::env::current_dir().unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "Environment:\n\
         zookeeper.version={}\n\
         host.name={}\n\
         os.name={}\n\
         os.arch={}\n\
         user.name={}\n\
         user.home={}\n\
         user.dir={}\n",
        version(),
        host.trim(),
        std::env::consts::OS,
        std::env::consts::ARCH,
        variable("USER"),
        variable("HOME"),
        directory.display(),
    )
}

fn mntr(port: &ClientPort) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "zk_{name}\t{value}");
    };
    let metrics = &port.metrics;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    let latency = metrics.latency.read();
    let watches = port
        .replica
        .inspect_watches(quorate_state::WatchTable::watch_count);

    line("version", &version());
    line("server_state", &mode(port));
    line("avg_latency", &mean(latency));
    line("max_latency", &(latency.max_us / 1000));
    line("min_latency", &(latency.min_us / 1000));
    line("packets_received", &count(&metrics.packets_received));
    line("packets_sent", &count(&metrics.packets_sent));
    line("num_alive_connections", &port.replica.connection_count());
    line("outstanding_requests", &port.admission.outstanding());
    line("uptime", &port.clock.monotonic_ms());
    port.replica.inspect(|state| {
        line("znode_count", &state.node_count());
        line("watch_count", &watches);
        line("ephemerals_count", &state.ephemeral_count());
        line("approximate_data_size", &state.approximate_data_size());
        line("global_sessions", &state.session_count());
    });
    line("local_sessions", &0);
    if let Some((open, max)) = file_descriptors() {
        line("open_file_descriptor_count", &open);
        line("max_file_descriptor_count", &max);
    }
    let response = |bytes: u64| match bytes {
        0 | u64::MAX => -1,
        bytes => i64::try_from(bytes).unwrap_or(i64::MAX),
    };
    line(
        "last_client_response_size",
        &response(count(&metrics.last_response_bytes)),
    );
    line(
        "max_client_response_size",
        &response(count(&metrics.max_response_bytes)),
    );
    line(
        "min_client_response_size",
        &response(count(&metrics.min_response_bytes)),
    );
    // What this server does not do yet is never the cause of anything.
    line("connection_drop_probability", &"0.0");
    line("outstanding_tls_handshake", &0);
    line("auth_failed_count", &count(&metrics.auth_failed));
    line("commit_count", &count(&metrics.commits));
    line("proposal_count", &count(&metrics.proposals));
    line("snap_count", &count(&metrics.snapshots));
    line(
        "connection_request_count",
        &count(&metrics.connections_accepted),
    );
    line("connection_rejected", &count(&metrics.connections_rejected));
    line(
        "connection_drop_count",
        &count(&metrics.connections_dropped),
    );
    line(
        "sessionless_connections_expired",
        &count(&metrics.sessionless_expired),
    );
    line("stale_sessions_expired", &count(&metrics.sessions_expired));
    line("bytes_received_count", &count(&metrics.bytes_received));
    line("response_bytes", &count(&metrics.bytes_sent));
    for (name, reading) in [
        ("readlatency", metrics.read_latency.read()),
        ("updatelatency", metrics.update_latency.read()),
    ] {
        line(&format!("avg_{name}"), &mean(reading));
        line(&format!("min_{name}"), &(reading.min_us / 1000));
        line(&format!("max_{name}"), &(reading.max_us / 1000));
        line(&format!("cnt_{name}"), &reading.count);
        line(&format!("sum_{name}"), &(reading.sum_us / 1000));
    }
    text
}

/// Open descriptors and the most there may be; `None` where the system does not tell.
fn file_descriptors() -> Option<(usize, String)> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    let max = line.split_whitespace().nth(3)?;
    Some((open, max.to_owned()))
}

/// Bytes of the files in a folder; it has no subfolders worth counting.
fn folder_bytes(folder: &Path) -> u64 {
    std::fs::read_dir(folder).map_or(0, |entries| {
        entries
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .filter(std::fs::Metadata::is_file)
            .map(|metadata| metadata.len())
            .sum()
    })
}
