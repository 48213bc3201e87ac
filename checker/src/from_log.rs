//! A committed command of a server, in the words of a history's log.
//!
//! The only file here that knows the server's own types.

use std::sync::Arc;

use quorate_protocol::Zxid;
use quorate_state::{Action, Command, Configuration, Write};

use crate::history::{LogCommand, LogEntry, Origin, Path, Request, Rules};

impl LogEntry {
    /// An entry that holds a command.
    #[must_use]
    pub fn of_command(zxid: Zxid, term: u64, command: Command) -> Self {
        let Command {
            time_ms,
            origin,
            rules,
            action,
        } = command;
        let server = origin.connection.server;
        Self {
            zxid: zxid.0,
            term,
            time_ms,
            origin: Origin {
                server,
                connection: origin.connection.number,
                sequence: origin.sequence,
            },
            command: match action {
                Action::OpenSession {
                    timeout_ms,
                    password,
                } => LogCommand::Open {
                    session: session_id(server, zxid),
                    timeout_ms,
                    password: fingerprint(password.as_bytes()),
                },
                Action::AttachSession {
                    session,
                    password,
                    timeout_ms,
                } => LogCommand::Attach {
                    session: session.get(),
                    timeout_ms,
                    password: fingerprint(&password.0),
                },
                Action::CloseSession { session } => LogCommand::Close {
                    session: session.get(),
                },
                Action::ExpireSession {
                    session,
                    attached_at,
                } => LogCommand::Expire {
                    session: session.get(),
                    attached_at: attached_at.0,
                },
                Action::Write {
                    session,
                    identities,
                    write,
                } => LogCommand::Write {
                    session: session.get(),
                    identities: Arc::clone(&identities),
                    rules: Rules {
                        skip_acl: rules.skip_acl,
                        enforce_quota: rules.enforce_quota,
                        ttl_disabled: rules.ttl_disabled,
                        x509_enabled: rules.x509_enabled,
                    },
                    // Refused whatever the state: flags that mean nothing, a reconfiguration.
                    write: words_for(write).unwrap_or_else(|| Request::Other {
                        name: "refused".to_owned(),
                    }),
                },
                Action::Reap {
                    paths,
                    never_used_ms,
                } => LogCommand::Reap {
                    paths: paths.into_iter().map(Path::from).collect(),
                    never_used_ms,
                },
                Action::Marker { .. } | Action::Admit { .. } => LogCommand::Blank,
            },
        }
    }

    /// An entry that sets the membership.
    #[must_use]
    pub fn of_configuration(zxid: Zxid, term: u64, configuration: &Configuration) -> Self {
        Self {
            command: LogCommand::Configure {
                members: configuration.members.clone(),
                changed_ms: configuration.changed_ms,
            },
            ..Self::blank(zxid, term)
        }
    }

    /// An entry that says nothing.
    #[must_use]
    pub fn blank(zxid: Zxid, term: u64) -> Self {
        Self {
            zxid: zxid.0,
            term,
            time_ms: 0,
            origin: Origin::default(),
            command: LogCommand::Blank,
        }
    }
}

/// Positive, the server's number on top, and below it the zxid that opened it.
fn session_id(server: u64, zxid: Zxid) -> i64 {
    let id = ((server & 0x7f) << 56) | (zxid.0.cast_unsigned() & 0x00ff_ffff_ffff_ffff);
    id.cast_signed()
}

/// FNV-1a: equal passwords have equal ones, and nobody can log in with it.
fn fingerprint(password: &[u8]) -> u64 {
    password.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// `None` for what is refused whatever the state.
fn words_for(write: Write) -> Option<Request> {
    use quorate_protocol::Request as Wire;
    let wire = match write {
        Write::Create(create) => Wire::Create(create),
        Write::Create2(create) => Wire::Create2(create),
        Write::CreateContainer(create) => Wire::CreateContainer(create),
        Write::CreateTtl(create) => Wire::CreateTtl(create),
        Write::Delete(delete) => Wire::Delete(delete),
        Write::SetData(set) => Wire::SetData(set),
        Write::SetAcl(set) => Wire::SetAcl(set),
        Write::Multi(ops) => Wire::Multi(ops),
        Write::Reconfig(_) => return None,
    };
    match Request::of_wire(&wire) {
        Request::Other { .. } => None,
        write => Some(write),
    }
}
