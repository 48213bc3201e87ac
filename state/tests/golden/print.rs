//! Replies, changes and events as text.

use quorate_protocol::multi::MultiResult;
use quorate_protocol::{Acl, AclEntry, Perms, Response, Stat};
use quorate_state::{Applied, Change, ChangeKind, Connection, OpError, Reply, SessionEvent};

pub(crate) fn applied(applied: &Applied) -> Vec<String> {
    let mut lines = match &applied.reply {
        Reply::Session(None) => vec!["no session".to_owned()],
        Reply::Session(Some(grant)) => {
            vec![format!(
                "session {} timeout {}",
                grant.session, grant.timeout_ms
            )]
        }
        Reply::Write(result) => self::result(result),
        Reply::Nobody => Vec::new(),
        Reply::Void => vec!["void".to_owned()],
    };
    lines.extend(applied.changes.iter().map(change));
    lines.extend(applied.session.as_ref().map(session));
    lines
}

pub(crate) fn result(result: &Result<Response<'_>, OpError>) -> Vec<String> {
    match result {
        Ok(response) => self::response(response),
        Err(error) => vec![format!("{} {error:?}", error.code().code())],
    }
}

fn response(response: &Response<'_>) -> Vec<String> {
    match response {
        Response::Empty => vec!["ok".to_owned()],
        Response::Path(path) => vec![format!("ok {}", escape(path))],
        Response::PathStat { path, stat } => vec![format!("ok {}", escape(path)), self::stat(stat)],
        Response::Stat(stat) => vec![self::stat(stat)],
        Response::Data { data, stat } => vec![self::data(data.as_deref()), self::stat(stat)],
        Response::Acl { acl, stat } => acl
            .iter()
            .map(acl_entry)
            .chain([self::stat(stat)])
            .collect(),
        Response::Strings(strings) => vec![names(strings)],
        Response::Children { children, stat } => vec![names(children), self::stat(stat)],
        Response::Count(count) => vec![count.to_string()],
        Response::Multi(results) => results.iter().map(multi_result).collect(),
        Response::Proof | Response::WatchAdded | Response::Identities(_) | Response::Sasl(_) => {
            panic!("the state never answers {response:?}")
        }
    }
}

fn multi_result(result: &MultiResult<'_>) -> String {
    match result {
        MultiResult::Create { path } => format!("create {path}"),
        MultiResult::Create2 { path, stat } => format!("create2 {path} {}", self::stat(stat)),
        MultiResult::Delete => "delete".to_owned(),
        MultiResult::SetData(stat) => format!("set {}", self::stat(stat)),
        MultiResult::Check => "check".to_owned(),
        MultiResult::GetData { data, stat } => {
            format!("get {} {}", self::data(data.as_deref()), self::stat(stat))
        }
        MultiResult::GetChildren { children } => format!("ls {}", names(children)),
        MultiResult::Error(None) => "0".to_owned(),
        MultiResult::Error(Some(error)) => format!("{} {error:?}", error.code()),
    }
}

/// Every field, the usual ones by their place.
pub(crate) fn stat(stat: &Stat) -> String {
    let Stat {
        czxid,
        mzxid,
        ctime,
        mtime,
        version,
        cversion,
        aversion,
        ephemeral_owner,
        data_length,
        num_children,
        pzxid,
    } = stat;
    format!(
        "stat c{} m{} p{} ctime {ctime} mtime {mtime} version {version} cversion {cversion} \
         aversion {aversion} owner {ephemeral_owner:#x} length {data_length} children {num_children}",
        czxid.0, mzxid.0, pzxid.0
    )
}

fn data(data: Option<&[u8]>) -> String {
    match data {
        None => "null".to_owned(),
        Some(data) => format!("{:?}", String::from_utf8_lossy(data)),
    }
}

fn names(names: &[impl AsRef<str>]) -> String {
    let names: Vec<String> = names.iter().map(|name| escape(name.as_ref())).collect();
    format!("[{}]", names.join(" "))
}

pub(crate) fn change(change: &Change) -> String {
    let kind = match change.kind {
        ChangeKind::Created => "created",
        ChangeKind::Deleted => "deleted",
        ChangeKind::DataChanged => "data of",
    };
    format!(
        "{kind} {}{}{}",
        escape(&change.path),
        unless_open("acl", &change.acl),
        unless_open("parent", &change.parent_acl)
    )
}

fn unless_open(what: &str, acl: &[Acl]) -> String {
    if acl == [Acl::world(Perms::ALL)] {
        return String::new();
    }
    let entries: Vec<String> = acl
        .iter()
        .map(|entry| acl_entry(&entry.clone().into()))
        .collect();
    format!(" {what} {}", entries.join("|"))
}

fn acl_entry(entry: &AclEntry) -> String {
    let or_null = |text: &Option<String>| text.clone().unwrap_or("null".to_owned());
    format!(
        "{}:{}:{}",
        or_null(&entry.scheme),
        or_null(&entry.id),
        entry.perms.0
    )
}

fn session(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Attached {
            session,
            connection,
            timeout_ms,
            attached_at,
            from,
        } => {
            let from = from.map_or(String::new(), |from| {
                format!(" from {}", self::connection(from))
            });
            format!(
                "{session} attached to {} at {} timeout {timeout_ms}{from}",
                self::connection(*connection),
                attached_at.0
            )
        }
        SessionEvent::Ended {
            session,
            connection,
            expired,
        } => format!(
            "{session} {} on {}",
            if *expired { "expired" } else { "closed" },
            self::connection(*connection)
        ),
    }
}

fn connection(connection: Connection) -> String {
    format!("{}/{}", connection.server, connection.number)
}

fn escape(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    text.chars()
        .map(|c| match c {
            ' ' => "\\s".to_owned(),
            '!'..='~' => c.to_string(),
            _ => c.escape_unicode().to_string(),
        })
        .collect()
}
