//! Compares the replicas entry by entry, as they apply: what is committed never changes, no server
//! skips an entry, and all have the same state after the same one, through restarts and snapshots.
//!
//! What the servers have applied is also the oracle for the checks of the clients' history.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_checker::history::{self, LogEntry};
use quorate_protocol::Zxid;
use quorate_server::replica::Witness;
use quorate_state::{Command, Configuration, State};

use crate::trace::Trace;

/// More than that of one run are not worth printing.
const VIOLATIONS_MAX: usize = 20;

/// What all servers have applied. Clones share it.
#[derive(Clone)]
pub struct Witnesses {
    seen: Arc<Mutex<Seen>>,
    trace: Trace,
}

#[derive(Default)]
struct Seen {
    entries: BTreeMap<i64, Seal>,
    log: BTreeMap<i64, LogEntry>,
    /// What each server's running program has applied last.
    applied: BTreeMap<u64, Zxid>,
    violations: Vec<String>,
    comparisons: u64,
    replacements: u64,
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seal {
    term: u64,
    /// Of the command.
    fingerprint: u64,
    /// Of the state after it.
    digest: u64,
    server: u64,
}

/// What there was to compare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparisons {
    pub digests: u64,
    pub snapshots_installed: u64,
}

impl Witnesses {
    pub fn new(trace: Trace) -> Self {
        Self {
            seen: Arc::default(),
            trace,
        }
    }

    /// The witness of one server.
    pub fn of(&self, server: u64) -> Arc<dyn Witness> {
        Arc::new(ServersWitness {
            server,
            all: self.clone(),
        })
    }

    /// A server's program has ended: the next one begins anew.
    pub fn on_end(&self, server: u64) {
        self.seen.lock().applied.remove(&server);
    }

    /// A server has lost all it had.
    pub fn on_new_disk(&self, server: u64) {
        self.on_end(server);
    }

    /// What was applied, for the checks of the history.
    pub fn log(&self) -> history::Log {
        history::Log {
            entries: self.seen.lock().log.values().cloned().collect(),
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.seen.lock().violations.clone()
    }

    pub fn comparisons(&self) -> Comparisons {
        let seen = self.seen.lock();
        Comparisons {
            digests: seen.comparisons,
            snapshots_installed: seen.replacements,
        }
    }
}

impl Seen {
    fn violation(&mut self, trace: &Trace, what: String) {
        trace.note(&what);
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }
}

struct ServersWitness {
    server: u64,
    all: Witnesses,
}

impl fmt::Debug for ServersWitness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServersWitness({})", self.server)
    }
}

impl Witness for ServersWitness {
    fn on_apply(
        &self,
        zxid: Zxid,
        term: u64,
        command: Option<Command>,
        configuration: Option<&Configuration>,
        after: &State,
    ) {
        let server = self.server;
        let trace = &self.all.trace;
        let seal = Seal {
            term,
            fingerprint: fingerprint(command.as_ref(), configuration),
            digest: after.digest(),
            server,
        };
        let mut seen = self.all.seen.lock();
        let before = seen.applied.insert(server, zxid);
        if let Some(before) = before
            && zxid.0 != before.0 + 1
        {
            seen.violation(
                trace,
                format!("server {server} applied {} after {}", zxid.0, before.0),
            );
        }
        match seen.entries.get(&zxid.0).copied() {
            None => {
                seen.entries.insert(zxid.0, seal);
                let entry = match (command, configuration) {
                    (Some(command), _) => LogEntry::of_command(zxid, term, command),
                    (None, Some(configuration)) => {
                        LogEntry::of_configuration(zxid, term, configuration)
                    }
                    (None, None) => LogEntry::blank(zxid, term),
                };
                seen.log.insert(zxid.0, entry);
            }
            Some(known) => {
                seen.comparisons += 1;
                if (known.term, known.fingerprint) != (seal.term, seal.fingerprint) {
                    seen.violation(
                        trace,
                        format!(
                            "entry {} is one thing on server {} (term {}) and another on server \
                             {server} (term {term})",
                            zxid.0, known.server, known.term
                        ),
                    );
                } else if known.digest != seal.digest {
                    seen.violation(
                        trace,
                        format!(
                            "servers {} and {server} differ after entry {}",
                            known.server, zxid.0
                        ),
                    );
                }
            }
        }
    }

    fn on_replace(&self, state: &State) {
        let server = self.server;
        let zxid = state.last_zxid();
        let digest = state.digest();
        let mut seen = self.all.seen.lock();
        seen.replacements += 1;
        let before = seen.applied.insert(server, zxid);
        if before.is_some_and(|before| before > zxid) {
            seen.violation(
                &self.all.trace,
                format!("server {server} went back to {} by a snapshot", zxid.0),
            );
        }
        if let Some(known) = seen.entries.get(&zxid.0).copied() {
            seen.comparisons += 1;
            if known.digest != digest {
                seen.violation(
                    &self.all.trace,
                    format!(
                        "server {server} got a snapshot at {} that differs from server {}'s state",
                        zxid.0, known.server
                    ),
                );
            }
        }
    }
}

fn fingerprint(command: Option<&Command>, configuration: Option<&Configuration>) -> u64 {
    let text = match (command, configuration) {
        (Some(command), _) => match command.encode(0) {
            Ok(bytes) => bytes.to_vec(),
            Err(error) => error.to_string().into_bytes(),
        },
        (None, Some(configuration)) => format!("{configuration:?}").into_bytes(),
        (None, None) => Vec::new(),
    };
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
