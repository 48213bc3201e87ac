//! `mntr`: names and values for exporters and dashboards.
//!
//! One `zk_name`, a tab and one value a line, and no other shape: some readers stop at the first line
//! they do not know.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use super::status::{mean, mode, size, version};
use crate::client_port::listener::ClientPort;
use crate::consensus::Role;

pub(super) fn mntr(port: &ClientPort) -> String {
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
    if port.config.is_ensemble() {
        line("peer_state", &peer_state(port));
    }
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
    line(
        "last_client_response_size",
        &size(count(&metrics.last_response_bytes)),
    );
    line(
        "max_client_response_size",
        &size(count(&metrics.max_response_bytes)),
    );
    line(
        "min_client_response_size",
        &size(count(&metrics.min_response_bytes)),
    );
    // What this server does not do yet is never the cause of anything.
    line("connection_drop_probability", &"0.0");
    line("outstanding_tls_handshake", &0);
    line("auth_failed_count", &count(&metrics.auth_failed));
    line(
        "digest_mismatches_count",
        &count(&metrics.digest_mismatches),
    );
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
    if port.config.is_ensemble() {
        let members = port.consensus.members();
        line("quorum_size", &members.quorum_size());
        if let Some(followers) = members.followers() {
            line("learners", &followers.connected);
            line("synced_followers", &followers.synced_voters);
            line("synced_non_voting_followers", &followers.synced_others);
            line("synced_observers", &followers.synced_observers);
            line("pending_syncs", &0);
            line("leader_uptime", &followers.leader_uptime_ms);
            for (name, bytes) in [
                ("last_proposal_size", &metrics.last_proposal_bytes),
                ("max_proposal_size", &metrics.max_proposal_bytes),
                ("min_proposal_size", &metrics.min_proposal_bytes),
            ] {
                line(name, &size(count(bytes)));
            }
        }
    }
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

/// As ZooKeeper says it. There is one phase here: whoever follows or leads does it in full.
fn peer_state(port: &ClientPort) -> &'static str {
    match port.consensus.role() {
        Role::Leader => "leading - broadcast",
        Role::Follower => "following - broadcast",
        Role::Observer => "observing - broadcast",
        Role::Candidate | Role::Stopped => "looking - election",
    }
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
