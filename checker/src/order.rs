//! The order of answers, by their zxids: within a session, and across all clients by the clock.
//!
//! It needs no log. A reply's zxid is that of the state it shows, so it never goes back within a
//! session; a write's own is higher than whatever was answered to anyone before the write was asked
//! for; a sync's is not lower.

use crate::history::{Moment, Outcome, Request, SessionStep};
use crate::judge::{Judge, describe};
use crate::promise::Promise;

pub(crate) fn judge(judge: &mut Judge<'_>) {
    judge_sessions(judge);
    judge_by_the_clock(judge);
}

/// Whether the zxid in the answer is that of a state. Proofs of identity are answered with 0, and
/// what the server does not offer with -1.
fn is_state(zxid: i64) -> bool {
    zxid > 0
}

fn judge_sessions(judge: &mut Judge<'_>) {
    let sessions: Vec<i64> = judge.index.sessions.keys().copied().collect();
    for session in sessions {
        let numbers = judge.index.sessions[&session].clone();
        let mut answered: Vec<(Moment, i64)> = Vec::new();
        for number in numbers {
            let connection = &judge.index.connections[&number];
            let operations = connection.operations.clone();
            let events: Vec<(u32, Option<i64>)> = connection
                .events
                .iter()
                .map(|event| (event.arrival, event.zxid))
                .collect();
            // The connection before may have gone on for a while, unseen by this one.
            let mut seen = answered
                .iter()
                .filter(|(returned, _)| *returned < connection.from)
                .map(|(_, zxid)| *zxid)
                .max()
                .unwrap_or(i64::MIN);
            if let Some(record) = connection.handshake
                && let SessionStep::Resumed { seen: named, .. } = record.step
            {
                seen = seen.max(named);
            }
            let mut events = events.into_iter().peekable();
            let mut unanswered = None;
            let mut arrival = 0;
            let mut last_write = i64::MIN;
            for index in operations {
                let operation = judge.operation(index);
                let Some(zxid) = operation.outcome.zxid() else {
                    if operation.outcome == Outcome::Unknown {
                        unanswered.get_or_insert(index);
                    }
                    continue;
                };
                if let Some(earlier) = unanswered.take() {
                    let earlier = judge.operation(earlier);
                    judge.violation(Promise::SessionOrder, || {
                        format!(
                            "{} was answered, and before it this was not: {}",
                            describe(operation),
                            describe(earlier)
                        )
                    });
                }
                if operation.arrival != 0 {
                    if operation.arrival <= arrival {
                        judge.violation(Promise::SessionOrder, || {
                            format!("answered out of order: {}", describe(operation))
                        });
                    }
                    arrival = operation.arrival;
                }
                let is_before = |(event, _): &(u32, Option<i64>)| *event < operation.arrival;
                while let Some((_, zxid)) = events.next_if(is_before) {
                    // Those made up for a watch that is set again have none.
                    let Some(zxid) = zxid.filter(|zxid| is_state(*zxid)) else {
                        continue;
                    };
                    if zxid < seen {
                        judge.violation(Promise::NoGoingBack, || {
                            format!(
                                "an event at {zxid:#x} after {seen:#x}, before {}",
                                describe(operation)
                            )
                        });
                    }
                    seen = seen.max(zxid);
                }
                if !is_state(zxid) {
                    continue;
                }
                if zxid < seen {
                    judge.violation(Promise::NoGoingBack, || {
                        format!("after {seen:#x} had been seen, {}", describe(operation))
                    });
                }
                seen = seen.max(zxid);
                answered.extend(operation.returned.map(|returned| (returned, zxid)));
                if operation.request.is_write() && operation.outcome.is_done() {
                    if zxid <= last_write {
                        judge.violation(Promise::SessionOrder, || {
                            format!("a write at {last_write:#x}, then {}", describe(operation))
                        });
                    }
                    last_write = zxid;
                }
            }
        }
    }
}

fn judge_by_the_clock(judge: &mut Judge<'_>) {
    let history = judge.history;
    // Answers by when they came; questions by when they were sent.
    let mut answers: Vec<(Moment, i64)> = Vec::new();
    let mut questions: Vec<(Moment, usize)> = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let Some(zxid) = operation.outcome.zxid().filter(|zxid| is_state(*zxid)) else {
            continue;
        };
        // What servers that name other zxids in read replies say about them counts for nothing.
        let is_named = history.header.promises.replies_name_their_state;
        let is_write = operation.request.is_write() && operation.outcome.is_done();
        if let Some(returned) = operation.returned
            && (is_named || is_write)
        {
            answers.push((returned, zxid));
        }
        let is_sync = matches!(operation.request, Request::Sync { .. });
        if is_write
            || (is_sync && operation.outcome.is_done() && history.header.promises.sync_is_a_barrier)
        {
            questions.push((operation.invoked, index));
        }
    }
    answers.sort_unstable();
    questions.sort_unstable();
    let mut answers = answers.into_iter().peekable();
    let mut highest = 0;
    let mut highest_write_of = std::collections::BTreeMap::new();
    for (invoked, index) in questions {
        while let Some((_, zxid)) = answers.next_if(|(returned, _)| *returned < invoked) {
            highest = highest.max(zxid);
        }
        let operation = judge.operation(index);
        let zxid = operation.outcome.zxid().unwrap_or_default();
        if operation.request.is_write() {
            if zxid <= highest {
                judge.violation(Promise::WritesAreLinearizable, || {
                    format!(
                        "{highest:#x} had been answered before it was sent: {}",
                        describe(operation)
                    )
                });
            }
            if let Some(other) = highest_write_of.insert(zxid, index) {
                let other = judge.operation(other);
                judge.violation(Promise::NothingIsDoneTwice, || {
                    format!(
                        "one zxid for two writes: {}; {}",
                        describe(operation),
                        describe(other)
                    )
                });
            }
        } else if zxid < highest {
            judge.violation(Promise::SyncIsABarrier, || {
                format!(
                    "{highest:#x} had been answered before it was sent: {}",
                    describe(operation)
                )
            });
        }
    }
}
