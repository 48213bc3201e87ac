//! Sessions: none ends too early, none lives for ever, none comes back.
//!
//! When an entry was committed nobody here knows. But an answer whose zxid is not lower proves that
//! it had been, and a client that was refused is proof as well: so an end has a latest moment.

use std::collections::BTreeMap;

use crate::history::{History, Moment, Outcome, Request, SessionStep};
use crate::judge::{Judge, describe};
use crate::oracle::Oracle;
use crate::promise::Promise;
use crate::proofs::Proofs;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// What its client knows of one session.
#[derive(Default)]
struct Life {
    /// Handshakes that were granted: when they were sent and answered, and the timeout, in
    /// nanoseconds.
    granted: Vec<(Moment, Moment, u64)>,
    /// Of those, the ones that resumed it.
    resumed: Vec<Moment>,
    opened: u32,
    /// When each acknowledged touch was sent.
    touches: Vec<Moment>,
    /// When a server first said that it has ended.
    refused: Option<Moment>,
    abandoned: Option<Moment>,
    /// The client asked to close it, whatever came of that.
    may_be_closed: bool,
}

pub(crate) fn judge(judge: &mut Judge<'_>, oracle: Option<&Oracle>) {
    let lives = lives_of(judge.history);
    let proofs = Proofs::of(judge.history);
    for (session, life) in &lives {
        let session = *session;
        let end = oracle.and_then(|oracle| oracle.ends.get(&session)).copied();
        judge_ids(judge, oracle, session, life);
        judge_refusal(judge, oracle, session, life);
        // The latest moment at which it may have ended.
        let by_answers = end.and_then(|(zxid, _)| proofs.first_at_or_after(zxid));
        let ended_by = by_answers.into_iter().chain(life.refused).min();
        if let Some(ended_by) = ended_by {
            for resumed in life.resumed.iter().filter(|resumed| **resumed > ended_by) {
                judge.violation(Promise::EndedIsEnded, || {
                    format!(
                        "{session:#x} had ended by {ended_by} ns and was resumed at {resumed} ns"
                    )
                });
            }
            judge_touches_after(judge, session, ended_by);
            let expired = match end {
                Some((_, expired)) => expired,
                None => !life.may_be_closed,
            };
            if expired {
                judge_expiry(judge, session, life, ended_by);
            }
        }
        judge_immortality(judge, oracle, session, life);
    }
}

fn lives_of(history: &History) -> BTreeMap<i64, Life> {
    let mut lives: BTreeMap<i64, Life> = BTreeMap::new();
    for record in &history.sessions {
        if record.session == 0 {
            continue;
        }
        let life = lives.entry(record.session).or_default();
        match record.step {
            SessionStep::Opened { timeout_ms } | SessionStep::Resumed { timeout_ms, .. } => {
                let timeout = u64::from(timeout_ms) * NANOS_PER_MILLI;
                life.granted.push((record.from, record.at, timeout));
                life.touches.push(record.from);
                match record.step {
                    SessionStep::Opened { .. } => life.opened += 1,
                    _ => life.resumed.push(record.from),
                }
            }
            SessionStep::Refused {
                wrong_password: false,
            } => {
                let first = life.refused.unwrap_or(record.at).min(record.at);
                life.refused = Some(first);
            }
            SessionStep::Touched => life.touches.push(record.from),
            SessionStep::Abandoned => life.abandoned = Some(record.at),
            _ => {}
        }
    }
    for operation in &history.operations {
        let Some(life) = lives.get_mut(&operation.session) else {
            continue;
        };
        if operation.request == Request::CloseSession {
            life.may_be_closed |= operation.outcome != Outcome::NotSent;
        } else if is_acknowledged_touch(&operation.request, &operation.outcome) {
            life.touches.push(operation.invoked);
        }
    }
    for life in lives.values_mut() {
        life.granted.sort_unstable();
        life.touches.sort_unstable();
    }
    lives
}

/// Whether an answer means that the leader heard of the session. A read is answered by any server.
fn is_acknowledged_touch(request: &Request, outcome: &Outcome) -> bool {
    match request {
        Request::Ping | Request::Sync { .. } => outcome.is_done(),
        request => request.is_write() && outcome.is_done(),
    }
}

fn judge_ids(judge: &mut Judge<'_>, oracle: Option<&Oracle>, session: i64, life: &Life) {
    if life.opened > 1 {
        judge.violation(Promise::IdsAreUnique, || {
            format!("{session:#x} was opened {} times", life.opened)
        });
    }
    let Some(oracle) = oracle else { return };
    let opened = oracle.opened.get(&session).copied().unwrap_or_default();
    if life.opened > 0 && opened != 1 {
        judge.violation(Promise::IdsAreUnique, || {
            format!("{session:#x} was opened, and the log opens it {opened} times")
        });
    }
    let attached = oracle.attached.get(&session).copied().unwrap_or_default();
    if life.resumed.len() > attached {
        judge.violation(Promise::IdsAreUnique, || {
            format!(
                "{session:#x} was resumed {} times, and the log gives it away {attached} times",
                life.resumed.len()
            )
        });
    }
}

/// A client that was told of an end which the log does not have.
fn judge_refusal(judge: &mut Judge<'_>, oracle: Option<&Oracle>, session: i64, life: &Life) {
    let (Some(oracle), Some(refused)) = (oracle, life.refused) else {
        return;
    };
    if !oracle.ends.contains_key(&session) {
        judge.violation(Promise::NoEarlyExpiry, || {
            format!("{session:#x} was refused at {refused} ns, and in the log it lives")
        });
    }
}

fn judge_touches_after(judge: &mut Judge<'_>, session: i64, ended_by: Moment) {
    let history = judge.history;
    if !history.header.promises.acknowledged_touches_count {
        return;
    }
    let operations: Vec<usize> = judge.index.operations_of(session).collect();
    for index in operations {
        let operation = judge.operation(index);
        if operation.invoked > ended_by
            && is_acknowledged_touch(&operation.request, &operation.outcome)
        {
            judge.violation(Promise::EndedIsEnded, || {
                format!("it had ended by {ended_by} ns: {}", describe(operation))
            });
        }
    }
}

fn judge_expiry(judge: &mut Judge<'_>, session: i64, life: &Life, ended_by: Moment) {
    if !judge.history.header.promises.acknowledged_touches_count {
        return;
    }
    let touched = life
        .touches
        .iter()
        .filter(|touch| **touch <= ended_by)
        .max();
    let Some(touched) = touched.copied() else {
        return;
    };
    // A touch that was sent before a timeout was agreed on may count for the old or the new one.
    let before = life
        .granted
        .iter()
        .rev()
        .find(|(from, ..)| *from <= touched);
    let Some((_, _, timeout)) = before else {
        return;
    };
    if ended_by < touched + timeout {
        judge.violation(Promise::NoEarlyExpiry, || {
            format!(
                "{session:#x}, touched at {touched} ns, had expired by {ended_by} ns; its timeout is \
                 {timeout} ns"
            )
        });
    }
}

/// A session whose client is gone for good.
fn judge_immortality(judge: &mut Judge<'_>, oracle: Option<&Oracle>, session: i64, life: &Life) {
    let history = judge.history;
    let header = &history.header;
    let (Some(abandoned), Some((_, _, timeout))) = (life.abandoned, life.granted.last()) else {
        return;
    };
    if header.election == 0 || header.tick == 0 || life.refused.is_some() {
        return;
    }
    // While faults are on it may take any time, and a new leader begins to count anew.
    let mut calm = abandoned;
    for fault in &history.faults {
        match fault.to {
            Some(to) => calm = calm.max(to + header.election),
            None => return,
        }
    }
    if header.duration < calm + timeout + 2 * header.tick + header.election {
        return;
    }
    let lives_on = match oracle {
        Some(oracle) => !oracle.ends.contains_key(&session),
        None => history.trees.iter().any(|tree| {
            let mut znodes = tree.znodes.values();
            znodes.any(|znode| znode.stat.ephemeral_owner == session)
        }),
    };
    if lives_on {
        judge.violation(Promise::NoImmortals, || {
            format!(
                "{session:#x} has been silent since {abandoned} ns, all was well from {calm} ns on, \
                 its timeout is {timeout} ns, and at {} ns it lives",
                header.duration
            )
        });
    }
}
