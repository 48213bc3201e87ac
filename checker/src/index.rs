//! A history in the orders in which it is judged: by connection, by session, by moment.

use std::collections::BTreeMap;

use quorate_protocol::AclEntry;

use crate::history::{History, Moment, Request, SessionRecord, SessionStep, WatchEvent};

/// All of one connection.
#[derive(Debug, Default)]
pub(crate) struct Connection<'h> {
    pub(crate) client: u32,
    pub(crate) number: u32,
    pub(crate) server: u64,
    pub(crate) session: i64,
    /// When its handshake was sent, or else its first request.
    pub(crate) from: Moment,
    /// What its handshake came to, if that was recorded.
    pub(crate) handshake: Option<&'h SessionRecord>,
    /// Whether it sent a proof of identity.
    pub(crate) proves_anything: bool,
    /// In the order in which they were sent: indexes into the history's operations.
    pub(crate) operations: Vec<usize>,
    /// In the order in which they arrived.
    pub(crate) events: Vec<&'h WatchEvent>,
}

pub(crate) struct Index<'h> {
    pub(crate) connections: BTreeMap<u32, Connection<'h>>,
    /// Numbers of the connections of each session, in the order of their handshakes.
    pub(crate) sessions: BTreeMap<i64, Vec<u32>>,
}

impl<'h> Index<'h> {
    pub(crate) fn of(history: &'h History) -> Self {
        let mut connections: BTreeMap<u32, Connection<'h>> = BTreeMap::new();
        let mut entry = |client, number, server, session, at: Moment| {
            let connection = connections.entry(number).or_insert_with(|| Connection {
                client,
                number,
                server,
                session,
                from: at,
                ..Connection::default()
            });
            connection.from = connection.from.min(at);
            if connection.session == 0 {
                connection.session = session;
            }
            number
        };
        for record in &history.sessions {
            let Some(is_granted) = record.step.opens_connection() else {
                continue;
            };
            let session = if is_granted { record.session } else { 0 };
            entry(
                record.client,
                record.connection,
                record.server,
                session,
                record.from,
            );
        }
        for it in &history.operations {
            entry(it.client, it.connection, it.server, it.session, it.invoked);
        }
        for it in &history.events {
            entry(it.client, it.connection, it.server, it.session, it.at);
        }
        for record in &history.sessions {
            if record.step.opens_connection().is_some()
                && let Some(connection) = connections.get_mut(&record.connection)
            {
                connection.handshake = Some(record);
            }
        }
        for (index, operation) in history.operations.iter().enumerate() {
            if let Some(connection) = connections.get_mut(&operation.connection) {
                connection.operations.push(index);
                connection.proves_anything |=
                    matches!(operation.request, Request::Authenticate { .. });
            }
        }
        for event in &history.events {
            if let Some(connection) = connections.get_mut(&event.connection) {
                connection.events.push(event);
            }
        }
        let mut sessions: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for connection in connections.values_mut() {
            let sequence = |index: &usize| history.operations[*index].sequence;
            connection.operations.sort_by_key(sequence);
            connection.events.sort_by_key(|event| event.arrival);
            if connection.session != 0 {
                sessions
                    .entry(connection.session)
                    .or_default()
                    .push(connection.number);
            }
        }
        for numbers in sessions.values_mut() {
            numbers.sort_by_key(|number| (connections[number].from, *number));
        }
        Self {
            connections,
            sessions,
        }
    }

    /// The operations of a session in the order in which they were sent.
    pub(crate) fn operations_of(&self, session: i64) -> impl Iterator<Item = usize> {
        let numbers = self.sessions.get(&session).into_iter().flatten();
        numbers.flat_map(|number| self.connections[number].operations.iter().copied())
    }
}

impl SessionStep {
    /// Whether the record is a handshake, and then whether it brought a session.
    fn opens_connection(&self) -> Option<bool> {
        match self {
            Self::Opened { .. } | Self::Resumed { .. } => Some(true),
            Self::Refused { .. } | Self::Unanswered { .. } => Some(false),
            _ => None,
        }
    }
}

/// Whether a log entry holds what was asked for.
pub(crate) fn is_same_write(asked: &Request, logged: &Request) -> bool {
    match (asked, logged) {
        (
            Request::Create {
                path,
                data,
                kind,
                acl,
                ..
            },
            Request::Create {
                path: logged_path,
                data: logged_data,
                kind: logged_kind,
                acl: logged_acl,
                ..
            },
        ) => {
            path == logged_path
                && kind == logged_kind
                && data == logged_data
                && is_same_acl(acl.as_deref(), logged_acl.as_deref())
        }
        (Request::Multi(asked), Request::Multi(logged)) => {
            asked.len() == logged.len()
                && asked
                    .iter()
                    .zip(logged)
                    .all(|(asked, logged)| is_same_write(asked, logged))
        }
        (asked, logged) => asked == logged,
    }
}

/// The open ACL may be spelt out or not.
fn is_same_acl(one: Option<&[AclEntry]>, other: Option<&[AclEntry]>) -> bool {
    if one.is_none() && other.is_none() {
        return true;
    }
    let open = [AclEntry::open()];
    one.unwrap_or(&open) == other.unwrap_or(&open)
}
