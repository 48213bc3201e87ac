//! What the leader decides by the clock: that a session is overdue, that a znode has had its time.
//!
//! Both are only proposed here. Applying the entry decides, by what the state then says.

use std::sync::Arc;
use std::time::Duration;

use quorate_state::Action;
use quorate_state::canary::{Canary, planted};
use tokio_util::sync::CancellationToken;

use crate::client_port::Disconnect;
use crate::clock::Clock;
use crate::config::Config;
use crate::consensus::Consensus;
use crate::consensus::pump::Leadership;
use crate::replica::Replica;
use crate::session_tracker::SessionTracker;

/// Paths in one clean-up entry: a few times this many bytes stay far below what a log entry may
/// have.
const REAPED_PER_ENTRY: usize = 1000;

/// Proposes the end of sessions that are overdue, until `stop`.
pub(crate) async fn expire_sessions(
    sessions: Arc<SessionTracker>,
    consensus: Arc<Consensus>,
    clock: Arc<dyn Clock>,
    tick: Duration,
    stop: CancellationToken,
) {
    let tick_ms = u64::try_from(tick.as_millis()).unwrap_or(u64::MAX);
    let mut led = None;
    let mut looked_ms = clock.monotonic_ms();
    loop {
        // Deadlines are multiples of a tick and none is nearer than the shortest timeout, so looking
        // once in half a tick adds at most that to the time a session may be silent.
        tokio::select! {
            () = tokio::time::sleep(tick / 2) => {}
            () = stop.cancelled() => return,
        }
        let now_ms = clock.monotonic_ms();
        let blind_ms = now_ms.saturating_sub(looked_ms).saturating_sub(tick_ms / 2);
        looked_ms = now_ms;
        if blind_ms > tick_ms {
            tracing::warn!(
                blind_ms,
                "this server stood still; no session expires for that"
            );
            sessions.pardon(now_ms);
        }
        let Leadership::Mine { term } = consensus.leadership() else {
            led = None;
            continue;
        };
        if led != Some(term) {
            // What sessions told the leader before, this server does not know.
            if !planted(Canary::NoPardonAfterElection) {
                sessions.pardon(now_ms);
            }
            led = Some(term);
        }
        if !consensus.has_space() {
            continue;
        }
        for overdue in sessions.overdue(now_ms) {
            tracing::info!(session = %overdue.session, "session expired");
            let action = Action::ExpireSession {
                session: overdue.session,
                attached_at: overdue.attached_at,
            };
            if consensus.propose_own(term, action).await.is_err() {
                return;
            }
        }
    }
}

/// Proposes the clean-up of empty containers and TTL znodes that are due, until `stop`.
pub(crate) async fn reap(
    replica: Arc<Replica>,
    consensus: Arc<Consensus>,
    clock: Arc<dyn Clock>,
    config: Config,
    stop: CancellationToken,
) {
    let interval = Duration::from_millis(config.container_check_interval_ms.into());
    let never_used_ms = config
        .container_never_used_ms
        .map_or(0, |ms| i64::from(u32::from(ms)));
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.cancelled() => return,
        }
        let Leadership::Mine { term } = consensus.leadership() else {
            continue;
        };
        if !consensus.has_space() {
            continue;
        }
        let max = per_pass(&config);
        let now_ms = clock.wall_ms();
        let due = replica.inspect(|state| state.reapable(now_ms, never_used_ms, max));
        for paths in due.chunks(REAPED_PER_ENTRY) {
            let action = Action::Reap {
                paths: paths.to_vec(),
                never_used_ms,
            };
            if consensus.propose_own(term, action).await.is_err() {
                return;
            }
        }
    }
}

/// Ends client connections when this server has heard of no majority for too long, until `stop`: what
/// it would answer may be out of date by any measure. Clients go elsewhere; with their sessions, if
/// they still live.
pub(crate) async fn leave_when_isolated(
    replica: Arc<Replica>,
    consensus: Arc<Consensus>,
    tick: Duration,
    has_read_only_mode: bool,
    stop: CancellationToken,
) {
    let mut was_isolated = false;
    // Until then no client gets in, but those that read without a majority.
    tokio::select! {
        () = consensus.settled() => {}
        () = stop.cancelled() => return,
    }
    loop {
        let is_isolated = !consensus.may_serve();
        if is_isolated && !was_isolated {
            tracing::warn!("no majority was heard for too long; clients are turned away");
        } else if was_isolated && !is_isolated {
            tracing::info!("a majority is heard again; clients are served");
        }
        was_isolated = is_isolated;
        if is_isolated {
            replica.cut_sessions(false, Disconnect::NoQuorum);
        } else if has_read_only_mode {
            replica.cut_sessions(true, Disconnect::QuorumBack);
        }
        tokio::select! {
            () = tokio::time::sleep(tick / 2) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Ends client connections when this server goes out of service, until `stop`.
pub(crate) async fn leave_when_out_of_service(
    replica: Arc<Replica>,
    consensus: Arc<Consensus>,
    stop: CancellationToken,
) {
    let mut service = consensus.members().service();
    loop {
        let why = *service.borrow_and_update();
        if let Some(why) = why {
            tracing::error!(reason = %why, "clients are turned away");
            replica.cut_all(Disconnect::OutOfService(why));
        }
        tokio::select! {
            changed = service.changed() => if changed.is_err() {
                return;
            },
            () = stop.cancelled() => return,
        }
    }
}

/// How many znodes one pass may delete, for `znode.container.maxPerMinute` to hold; at least one.
fn per_pass(config: &Config) -> usize {
    let per_minute = u64::from(config.container_deletes_per_minute_max);
    let interval_ms = u64::from(config.container_check_interval_ms);
    let per_pass = (per_minute * interval_ms / 60_000).max(1);
    usize::try_from(per_pass).unwrap_or(usize::MAX)
}
