//! Who watches what, and whose sessions there are: `wchs`, `wchc`, `wchp` and `dump`.
//!
//! As in ZooKeeper, the watch listings show the watches of data only, `exists` included.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use quorate_protocol::SessionId;

use crate::client_port::listener::ClientPort;
use crate::client_port::outbox::Outbox;
use crate::consensus::Role;

pub(super) fn dump(port: &ClientPort) -> String {
    let mut text = if port.consensus.role() == Role::Leader {
        expiries(port)
    } else {
        timeouts(port)
    };
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

/// The leader's view: when which sessions end unless they are heard of.
fn expiries(port: &ClientPort) -> String {
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
    text
}

/// A follower's view: it knows how long each session lasts, and the leader when it ends.
fn timeouts(port: &ClientPort) -> String {
    port.replica.inspect(|state| {
        let mut text = format!(
            "SessionTracker dump:\nGlobal Sessions({}):\n",
            state.sessions().count()
        );
        for (id, session) in state.sessions() {
            let _ = writeln!(text, "{id}\t{}ms", session.timeout_ms);
        }
        text
    })
}

pub(super) fn wchs(port: &ClientPort) -> String {
    let summary = port
        .replica
        .inspect_watches(quorate_state::WatchTable::data_watch_summary);
    format!(
        "{} connections watching {} paths\nTotal watches:{}\n",
        summary.connections, summary.paths, summary.total
    )
}

/// The session of a connection, as the watch listings name it.
fn session_name(connections: &BTreeMap<u64, Arc<Outbox>>, number: u64) -> String {
    let session = connections
        .get(&number)
        .and_then(|outbox| outbox.lock().session())
        .map_or(0, |session| session.id.get());
    format!("{session:#x}")
}

pub(super) fn wchc(port: &ClientPort) -> String {
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

pub(super) fn wchp(port: &ClientPort) -> String {
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
