//! Histories as the checker of the ensemble tests takes them, until the general one judges these.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_checker::history::{
    self as new, History, Outcome, PartResult, Reply, Request, SessionStep,
};
use quorate_tests::history as old;
use quorate_tests::history::{Answer, Ask, Asked, Disturbance, Entry, Found, Watch};

use crate::clients::{EPHEMERALS, FOLLOWED, LOG, REGISTERS};

const NO_NODE: i32 = -101;

pub(crate) fn convert(history: &History) -> old::History {
    // By client; of one connection first the handshake, then what was asked, then how it ended.
    let mut entries: BTreeMap<u32, Vec<((u32, u8, u32), Entry)>> = BTreeMap::new();
    for operation in &history.operations {
        if let Some(asked) = asked(operation) {
            let place = (operation.connection, 1, operation.sequence);
            let entry = Entry::Asked(asked);
            entries
                .entry(operation.client)
                .or_default()
                .push((place, entry));
        }
    }
    for record in &history.sessions {
        if let Some((phase, entry)) = step(record) {
            let place = (record.connection, phase, 0);
            entries
                .entry(record.client)
                .or_default()
                .push((place, entry));
        }
    }
    let clients = entries.into_values().map(|mut entries| {
        entries.sort_by_key(|(place, _)| *place);
        entries.into_iter().map(|(_, entry)| entry).collect()
    });
    let disturbances = history.faults.iter().flat_map(|fault| {
        fault.servers.iter().map(|server| Disturbance {
            server: *server,
            from: Duration::from_nanos(fault.from),
            to: fault.to.map(Duration::from_nanos),
        })
    });
    old::History {
        clients: clients.collect(),
        disturbances: disturbances.collect(),
        trees: history.trees.iter().map(tree).collect(),
    }
}

fn is_register(path: &str) -> bool {
    REGISTERS.contains(&path) || FOLLOWED.contains(&path)
}

fn tree(tree: &new::FinalTree) -> old::Tree {
    let known = tree.znodes.iter().filter(|(path, _)| {
        is_register(path) || path.starts_with(LOG) || path.starts_with(&format!("{EPHEMERALS}/"))
    });
    old::Tree {
        server: tree.server,
        zxid: tree.zxid,
        znodes: known
            .map(|(path, znode)| {
                let data = znode.data.0.as_deref().unwrap_or_default().to_vec();
                (path.to_string(), (data, znode.stat))
            })
            .collect(),
    }
}

fn step(record: &new::SessionRecord) -> Option<(u8, Entry)> {
    let session = record.session;
    let at = Duration::from_nanos(record.at);
    Some(match &record.step {
        SessionStep::Opened { timeout_ms } | SessionStep::Resumed { timeout_ms, .. } => {
            let timeout = Duration::from_millis(u64::from(*timeout_ms));
            let server = record.server;
            (
                0,
                Entry::Attached {
                    session,
                    server,
                    timeout,
                },
            )
        }
        SessionStep::Refused {
            wrong_password: false,
        } => (0, Entry::Expired { session, at }),
        SessionStep::Unanswered { resuming: true } => (0, Entry::Attempted { session }),
        SessionStep::Lost => {
            let since = Duration::from_nanos(record.from);
            let server = record.server;
            (
                2,
                Entry::Lost {
                    session,
                    server,
                    since,
                    at,
                },
            )
        }
        SessionStep::Abandoned => (2, Entry::Abandoned { session }),
        SessionStep::Broken { what } => {
            let (server, what) = (record.server, what.clone());
            (2, Entry::Broken { server, what })
        }
        _ => return None,
    })
}

fn text(data: &new::Data) -> String {
    String::from_utf8_lossy(data.0.as_deref().unwrap_or_default()).into_owned()
}

/// Of a multi, what it appends.
fn appended(request: &Request) -> Option<&new::Data> {
    match request {
        Request::Create { path, data, .. } if path.starts_with(LOG) => Some(data),
        Request::Multi(parts) => parts.iter().find_map(appended),
        _ => None,
    }
}

fn ask(request: &Request) -> Option<Ask> {
    if let Some(data) = appended(request) {
        return Some(Ask::Append { value: text(data) });
    }
    Some(match request {
        Request::SetData { path, data, .. } if is_register(path) => Ask::Set {
            register: path.to_string(),
            value: text(data),
        },
        Request::GetData { path, .. } if is_register(path) => Ask::Read {
            register: path.to_string(),
        },
        Request::Create { path, .. } if path.starts_with(EPHEMERALS) => Ask::Hold {
            path: path.to_string(),
        },
        Request::Exists { path, .. } if path.starts_with(EPHEMERALS) => Ask::Look {
            path: path.to_string(),
        },
        Request::Sync { .. } => Ask::Sync,
        Request::Ping => Ask::Ping,
        Request::CloseSession => Ask::Close,
        _ => return None,
    })
}

fn found(ask: &Ask, reply: &Reply) -> Found {
    match (ask, reply) {
        (Ask::Set { value, .. }, Reply::Stat(stat)) => Found::Value {
            value: value.clone(),
            version: stat.version,
            mzxid: stat.mzxid.0,
            events: None,
            watch: Watch::Never,
        },
        (Ask::Read { .. }, Reply::Data { data, stat }) => Found::Value {
            value: text(data),
            version: stat.version,
            mzxid: stat.mzxid.0,
            events: None,
            watch: Watch::Never,
        },
        (Ask::Look { .. }, Reply::Stat(stat)) => Found::Present {
            owner: stat.ephemeral_owner,
        },
        (_, Reply::Path(path) | Reply::Created { path, .. }) => Found::Path(path.to_string()),
        (Ask::Append { .. }, Reply::Results(results)) => {
            let paths = results.iter().find_map(|part| match part {
                PartResult::Done(Reply::Path(path) | Reply::Created { path, .. }) => Some(path),
                _ => None,
            });
            paths.map_or(Found::Nothing, |path| Found::Path(path.to_string()))
        }
        _ => Found::Nothing,
    }
}

fn asked(operation: &new::Operation) -> Option<Asked> {
    let request = ask(&operation.request)?;
    let at = Duration::from_nanos(operation.returned.unwrap_or_default());
    let answer = match &operation.outcome {
        Outcome::Done { zxid, reply } => {
            let failed = match reply {
                Reply::Results(results) => results.iter().find_map(|part| match part {
                    PartResult::Failed(code) if *code != 0 => Some(*code),
                    _ => None,
                }),
                _ => None,
            };
            match failed {
                Some(code) => Answer::Refused {
                    at,
                    zxid: *zxid,
                    code,
                },
                None => Answer::Done {
                    at,
                    zxid: *zxid,
                    found: found(&request, reply),
                },
            }
        }
        Outcome::Refused {
            zxid,
            code: NO_NODE,
        } if matches!(request, Ask::Look { .. }) => Answer::Done {
            at,
            zxid: *zxid,
            found: Found::Absent,
        },
        Outcome::Refused { zxid, code } => Answer::Refused {
            at,
            zxid: *zxid,
            code: *code,
        },
        Outcome::Unknown | Outcome::NotSent => Answer::Unknown,
    };
    Some(Asked {
        session: operation.session,
        server: operation.server,
        connection: operation.connection,
        sent: Duration::from_nanos(operation.invoked),
        request,
        answer,
    })
}
