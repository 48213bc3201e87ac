//! Connections: whose were lost for no reason, and answers that made no sense.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Outcome, Request, SessionRecord, SessionStep};
use crate::judge::Judge;
use crate::promise::Promise;

pub(crate) fn judge(judge: &mut Judge<'_>) {
    let history = judge.history;
    let mut records: Vec<&SessionRecord> = history.sessions.iter().collect();
    records.sort_by_key(|record| (record.at, record.connection));
    // Of these the server ends the connection itself.
    let mut ended: BTreeSet<i64> = records
        .iter()
        .filter(|record| matches!(record.step, SessionStep::Refused { .. }))
        .map(|record| record.session)
        .collect();
    ended.extend(
        history
            .operations
            .iter()
            .filter(|it| it.request == Request::CloseSession && it.outcome != Outcome::NotSent)
            .map(|it| it.session),
    );
    // Resumptions without an answer, by session: each may take one connection away.
    let mut attempts: BTreeMap<i64, u32> = BTreeMap::new();
    for record in records {
        let session = record.session;
        match &record.step {
            SessionStep::Broken { what } => judge.violation(Promise::AnswersMakeSense, || {
                format!(
                    "client {}, session {session:#x}, server {}: {what}",
                    record.client, record.server
                )
            }),
            SessionStep::Unanswered { resuming: true } => {
                *attempts.entry(session).or_default() += 1;
            }
            SessionStep::Lost if history.header.promises.survivors_keep_their_clients => {
                if is_disturbed(judge, record) || ended.contains(&session) {
                    continue;
                }
                let attempts = attempts.entry(session).or_default();
                if *attempts > 0 {
                    *attempts -= 1;
                    continue;
                }
                judge.violation(Promise::SurvivorsKeepTheirClients, || {
                    format!(
                        "client {} ({session:#x}) lost server {} between {} ns and {} ns",
                        record.client, record.server, record.from, record.at
                    )
                });
            }
            _ => {}
        }
    }
}

/// Whether something had happened to the server of a connection that was lost, or to so many that
/// no majority was left to serve with.
fn is_disturbed(judge: &Judge<'_>, lost: &SessionRecord) -> bool {
    let history = judge.history;
    // What a fault did is noticed later, and not made good before somebody leads again.
    let settled = history.header.election;
    let then = history.faults.iter().filter(|fault| {
        fault.from <= lost.at
            && fault
                .to
                .is_none_or(|to| to.saturating_add(settled) >= lost.from)
    });
    let mut disturbed: BTreeSet<u64> = BTreeSet::new();
    for fault in then {
        // One that names no server concerns them all.
        if fault.servers.is_empty() {
            return true;
        }
        disturbed.extend(&fault.servers);
    }
    let servers = history.header.servers.len();
    disturbed.contains(&lost.server) || (servers > 0 && disturbed.len() * 2 >= servers)
}
