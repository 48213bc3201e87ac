//! Notifications: what a watch sends.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What happened to a znode. The server sends no other types; the rest of ZooKeeper's list is made
/// by client libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum EventType {
    /// The znode came into being.
    NodeCreated = 1,
    /// The znode is gone.
    NodeDeleted = 2,
    /// The znode's data was set, perhaps to what it was.
    NodeDataChanged = 3,
    /// A child of the znode came or went.
    NodeChildrenChanged = 4,
}

impl EventType {
    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The type with this number, if a server sends it.
    pub fn from_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Self::NodeCreated),
            2 => Some(Self::NodeDeleted),
            3 => Some(Self::NodeDataChanged),
            4 => Some(Self::NodeChildrenChanged),
            _ => None,
        }
    }
}

/// The only state a server ever sends (`KeeperState.SyncConnected`), read-only servers included.
pub const STATE_SYNC_CONNECTED: i32 = 3;

/// The body of a notification, behind a [`crate::ReplyHeader`] with xid -1 and err 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherEvent<'a> {
    /// An [`EventType`], as a number: a client may meet others.
    pub event_type: i32,
    /// Always [`STATE_SYNC_CONNECTED`] from a server.
    pub state: i32,
    /// The znode concerned, as a full path.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
}

impl<'a> WatcherEvent<'a> {
    /// What a server sends.
    pub fn new(event_type: EventType, path: &'a str) -> Self {
        Self {
            event_type: event_type.code(),
            state: STATE_SYNC_CONNECTED,
            path: Cow::Borrowed(path),
        }
    }
}
