//! Notifications: what a watch sends.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What happened to a znode. The server sends no other types; the rest of ZooKeeper's list is made
/// by client libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum EventType {
    NodeCreated = 1,
    NodeDeleted = 2,
    NodeDataChanged = 3,
    NodeChildrenChanged = 4,
}

impl EventType {
    pub fn code(self) -> i32 {
        self as i32
    }

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
    pub event_type: i32,
    pub state: i32,
    #[serde(borrow)]
    pub path: Cow<'a, str>,
}

impl<'a> WatcherEvent<'a> {
    pub fn new(event_type: EventType, path: &'a str) -> Self {
        Self {
            event_type: event_type.code(),
            state: STATE_SYNC_CONNECTED,
            path: Cow::Borrowed(path),
        }
    }
}
