//! A log entry in one line for people: who asked for what, and how large it was.
//!
//! Data and passwords are not shown. Neither are the hashes in ACLs.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use quorate_protocol::multi::MultiOp;
use quorate_protocol::{CreateMode, request};
use quorate_server::offline::ZxidBase;
use quorate_server::offline::replay::{self, Contents};
use quorate_server::storage::log::LogEntry;
use quorate_state::{Action, Command, Write};

/// The line without its end.
pub(super) fn line(entry: &LogEntry, zxids: Option<ZxidBase>) -> String {
    let mut line = format!("{:>8}", entry.id.index);
    match zxids {
        Some(zxids) => push(
            &mut line,
            format_args!("  {:#x}", zxids.zxid(entry.id.index).0),
        ),
        None => line.push_str("  -"),
    }
    push(&mut line, format_args!("  term {}", entry.id.term));
    match replay::read(entry) {
        Ok(Contents::Blank) => line.push_str("  a new leader's first entry"),
        Ok(Contents::Membership {
            servers, voters, ..
        }) => {
            push(
                &mut line,
                format_args!("  members {servers:?}, of whom {voters:?} vote"),
            );
        }
        Ok(Contents::Command(command)) => {
            push(&mut line, format_args!("  {}  ", time(command.time_ms)));
            describe(&command, &mut line);
        }
        Err(error) => push(&mut line, format_args!("  unreadable: {error}")),
    }
    push(&mut line, format_args!("  [{} bytes]", entry.payload.len()));
    line
}

fn push(line: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = line.write_fmt(words);
}

/// A leader's clock may have said anything.
fn time(ms: i64) -> String {
    let at = u64::try_from(ms)
        .ok()
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    match at {
        Some(at) if ms < 253_402_300_800_000 => humantime::format_rfc3339_millis(at).to_string(),
        _ => format!("{ms} ms"),
    }
}

fn describe(command: &Command, line: &mut String) {
    let from = command.origin.connection;
    match &command.action {
        Action::OpenSession { timeout_ms, .. } => push(
            line,
            format_args!(
                "open a session at server {} (timeout {timeout_ms} ms)",
                from.server
            ),
        ),
        Action::AttachSession {
            session,
            timeout_ms,
            ..
        } => push(
            line,
            format_args!(
                "attach session {:#x} at server {} (timeout {timeout_ms} ms)",
                session.get(),
                from.server
            ),
        ),
        Action::CloseSession { session } => {
            push(line, format_args!("close session {:#x}", session.get()));
        }
        Action::ExpireSession {
            session,
            attached_at,
        } => push(
            line,
            format_args!(
                "expire session {:#x}, silent since it was attached at {:#x}",
                session.get(),
                attached_at.0
            ),
        ),
        Action::Write { session, write, .. } => {
            push(line, format_args!("session {:#x}: ", session.get()));
            describe_write(write, line);
        }
        Action::Reap { paths, .. } => {
            push(
                line,
                format_args!("delete if still due: {}", paths.join(" ")),
            );
        }
        Action::Marker { .. } => push(
            line,
            format_args!("server {} asks where the log is", from.server),
        ),
        Action::Admit {
            server,
            incarnation,
        } => push(
            line,
            format_args!("admit server {server} with data since {incarnation:016x}"),
        ),
    }
}

fn describe_write(write: &Write, line: &mut String) {
    match write {
        Write::Create(create) | Write::Create2(create) => describe_create(create, line),
        Write::CreateContainer(create) => describe_container(create, line),
        Write::CreateTtl(create) => describe_ttl(create, line),
        Write::Delete(delete) => describe_delete(delete, line),
        Write::SetData(set) => describe_set(set, line),
        Write::SetAcl(set) => {
            let (path, entries) = (set.path.escape_debug(), set.acl.len());
            push(
                line,
                format_args!("set the ACL of {path} ({entries} entries)"),
            );
            describe_version(set.version, line);
        }
        Write::Multi(ops) => {
            push(line, format_args!("multi of {}:", ops.len()));
            for (number, op) in ops.iter().enumerate() {
                line.push_str(if number == 0 { " " } else { "; " });
                describe_op(op, line);
            }
        }
        Write::Reconfig(_) => line.push_str("reconfigure"),
    }
}

fn describe_op(op: &MultiOp, line: &mut String) {
    match op {
        MultiOp::Create(create) | MultiOp::Create2(create) => describe_create(create, line),
        MultiOp::CreateContainer(create) => describe_container(create, line),
        MultiOp::CreateTtl(create) => describe_ttl(create, line),
        MultiOp::Delete(delete) => describe_delete(delete, line),
        MultiOp::SetData(set) => describe_set(set, line),
        MultiOp::Check(check) => {
            push(line, format_args!("check {}", check.path.escape_debug()));
            describe_version(check.version, line);
        }
    }
}

fn describe_create(create: &request::Create, line: &mut String) {
    let path = create.path.escape_debug();
    push(line, format_args!("create {path}"));
    match CreateMode::from_flags(create.flags, None) {
        Ok(CreateMode::Persistent) => {}
        Ok(mode) => {
            let (ephemeral, sequential, container) = (
                matches!(
                    mode,
                    CreateMode::Ephemeral | CreateMode::EphemeralSequential
                ),
                mode.is_sequential(),
                mode == CreateMode::Container,
            );
            for (is, word) in [
                (ephemeral, " ephemeral"),
                (sequential, " sequential"),
                (container, " container"),
            ] {
                if is {
                    line.push_str(word);
                }
            }
        }
        Err(_) => push(line, format_args!(" with flags {}", create.flags)),
    }
    describe_data(create.data.as_deref(), line);
}

fn describe_container(create: &request::Create, line: &mut String) {
    push(
        line,
        format_args!("create {} container", create.path.escape_debug()),
    );
    describe_data(create.data.as_deref(), line);
}

fn describe_ttl(create: &request::CreateTtl, line: &mut String) {
    let path = create.path.escape_debug();
    push(
        line,
        format_args!("create {path} with a TTL of {} ms", create.ttl_ms),
    );
    describe_data(create.data.as_deref(), line);
}

fn describe_delete(delete: &request::Delete, line: &mut String) {
    push(line, format_args!("delete {}", delete.path.escape_debug()));
    describe_version(delete.version, line);
}

fn describe_set(set: &request::SetData, line: &mut String) {
    push(line, format_args!("set {}", set.path.escape_debug()));
    describe_version(set.version, line);
    describe_data(set.data.as_deref(), line);
}

fn describe_version(version: i32, line: &mut String) {
    if version != -1 {
        push(line, format_args!(" at version {version}"));
    }
}

fn describe_data(data: Option<&[u8]>, line: &mut String) {
    match data {
        Some(data) => push(line, format_args!(", {} bytes", data.len())),
        None => line.push_str(", no data"),
    }
}
