//! What a server says of itself: `srvr`, `stat`, `cons`, `conf`, `dirs` and `envi`.
//!
//! Line by line as ZooKeeper prints them, because monitors parse them so.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use quorate_protocol::OpCode;

use crate::client_port::listener::ClientPort;
use crate::client_port::outbox::{Inner, Outbox};
use crate::config::Role as MemberRole;
use crate::consensus::Role;
use crate::metrics::LatencyReading;

/// What clients and exporters take this server for: they choose features by it.
const ZOOKEEPER_VERSION: &str = "3.9.5";

pub(super) fn version() -> String {
    format!(
        "{ZOOKEEPER_VERSION}-quorate-{}, built on 2026-11-21 00:00 UTC",
        env!("CARGO_PKG_VERSION")
    )
}

fn first_lines(port: &ClientPort) -> String {
    let mode = match port.is_read_only() {
        true => "\nREAD-ONLY mode; serving only read-only clients",
        false => "",
    };
    format!("Zookeeper version: {}{mode}", version())
}

pub(super) fn mode(port: &ClientPort) -> &'static str {
    if port.consensus.members().out_of_service().is_some() {
        return "out-of-service";
    }
    if port.is_read_only() {
        return "read-only";
    }
    match port.consensus.role() {
        Role::Leader if !port.config.is_ensemble() => "standalone",
        Role::Leader => "leader",
        Role::Observer => "observer",
        Role::Follower | Role::Candidate | Role::Stopped => "follower",
    }
}

/// What is told instead of most things while this server does not serve: ZooKeeper's sentence, which
/// probes know, and why. `None` while it does.
pub(super) fn not_serving(port: &ClientPort) -> Option<String> {
    let why = match port.consensus.members().out_of_service() {
        Some(why) => why.to_string(),
        None if port.consensus.may_serve() || port.is_read_only() => return None,
        None => "no majority of the ensemble is heard".to_owned(),
    };
    Some(format!(
        "This ZooKeeper instance is not currently serving requests\n{why}\n"
    ))
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
         Node count: {nodes}\n\
         {}",
        latency.min_us / 1000,
        mean(latency),
        latency.max_us / 1000,
        metrics.packets_received.load(Relaxed),
        metrics.packets_sent.load(Relaxed),
        port.replica.connection_count(),
        port.admission.outstanding(),
        mode(port),
        proposal_sizes(port),
    )
}

/// A leader's line.
fn proposal_sizes(port: &ClientPort) -> String {
    if mode(port) != "leader" {
        return String::new();
    }
    let metrics = &port.metrics;
    format!(
        "Proposal sizes last/min/max: {}/{}/{}\n",
        size(metrics.last_proposal_bytes.load(Relaxed)),
        size(metrics.min_proposal_bytes.load(Relaxed)),
        size(metrics.max_proposal_bytes.load(Relaxed)),
    )
}

/// A size in bytes; -1 where there is none yet.
pub(super) fn size(bytes: u64) -> i64 {
    match bytes {
        0 | u64::MAX => -1,
        bytes => i64::try_from(bytes).unwrap_or(i64::MAX),
    }
}

/// Up to four decimals and at least one, as Java prints a rounded double.
pub(super) fn mean(latency: LatencyReading) -> String {
    let text = format!("{:.4}", latency.mean_ms());
    let trimmed = text.trim_end_matches('0');
    match trimmed.ends_with('.') {
        true => format!("{trimmed}0"),
        false => trimmed.to_owned(),
    }
}

pub(super) fn stat(port: &ClientPort) -> String {
    let mut text = format!("{}\nClients:\n", first_lines(port));
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

pub(super) fn cons(port: &ClientPort) -> String {
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

pub(super) fn conf(port: &ClientPort) -> String {
    let config = &port.config;
    let limit = |limit: Option<std::num::NonZeroU32>| limit.map_or(0, Into::<u32>::into);
    let backlog = config
        .client_listen_backlog
        .map_or_else(|| "-1".to_owned(), |backlog| backlog.to_string());
    let mut text = format!(
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
    );
    if config.is_ensemble() {
        text.push_str(&ensemble_conf(port));
    }
    text
}

fn ensemble_conf(port: &ClientPort) -> String {
    let config = &port.config;
    let own = config
        .members
        .iter()
        .find(|member| member.id == config.server_id);
    let address = own.and_then(|member| member.addresses.first());
    let members = port.replica.inspect(|state| {
        let text = state.configuration().map(|(text, _)| text.to_vec());
        String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
    });
    format!(
        "initLimit={}\n\
         syncLimit={}\n\
         electionAlg=3\n\
         electionPort={}\n\
         quorumPort={}\n\
         peerType={}\n\
         membership: \n\
         {members}",
        config.init_limit_ticks,
        config.sync_limit_ticks,
        address.map_or(0, |address| address.election_port),
        address.map_or(0, |address| address.quorum_port),
        u8::from(own.is_some_and(|member| member.role == MemberRole::Observer)),
    )
}

pub(super) fn srvr(port: &ClientPort) -> String {
    format!("{}\n{}", first_lines(port), server_lines(port))
}

pub(super) fn dirs(port: &ClientPort) -> String {
    format!(
        "datadir_size: {}\nlogdir_size: {}\n",
        folder_bytes(&port.config.data_dir),
        folder_bytes(&port.config.log_dir)
    )
}

/// Keys of the Java server, as far as they mean anything here: clients read the first.
pub(super) fn envi() -> String {
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
