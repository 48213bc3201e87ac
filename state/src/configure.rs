//! `/zookeeper/config`: who belongs to the ensemble, as clients read it.
//!
//! The node follows the memberships that the log holds, not a command, so that it can never say
//! anything else. Its data is ZooKeeper's text: a line for each member, then the version, which is
//! the zxid that set it. ZooKeeper leaves the data version at -1, and so is it here.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_protocol::{Stat, Zxid};

use crate::applied::{Change, ChangeKind};
use crate::state::State;
use crate::tree::{CONFIG_PATH, DataTree};

/// The last line of the text begins with it; a number in hexadecimal follows.
const VERSION_KEY: &str = "version=";

/// A membership, as the ensemble agreed on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// A `server.N=...` line for each member, by rising N, each with its line end.
    pub members: String,
    /// When it was asked for, in milliseconds since 1970; 0 for the one an ensemble starts with. An
    /// ensemble that changed nothing but this has confirmed its members, and that is a change too.
    pub changed_ms: i64,
    /// All servers that the log goes to: members, and those on their way in or out.
    pub servers: BTreeSet<u64>,
}

impl State {
    /// Takes note of an entry of the log that sets the membership, and tells `/zookeeper/config` of
    /// it if anything is new. One without members (a server alone, which is no ensemble) leaves the
    /// node as it is.
    pub fn configure(&mut self, zxid: Zxid, configuration: &Configuration) -> Vec<Change> {
        self.last_zxid = zxid;
        // A server that is gone may come back with other data: nothing is expected of it any more.
        self.incarnations
            .retain(|server, _| configuration.servers.contains(server));
        if configuration.members.is_empty() || self.tree.is_configured(configuration) {
            return Vec::new();
        }
        self.tree.configure(zxid, configuration)
    }

    /// The version of the configuration: the zxid that set it. `None` for a server alone.
    pub fn configuration_version(&self) -> Option<i64> {
        let (data, stat) = self.tree.configuration()?;
        (!data.is_empty()).then_some(stat.mzxid.0)
    }

    /// The text and the stat of `/zookeeper/config`, whoever may read it.
    pub fn configuration(&self) -> Option<(&[u8], Stat)> {
        self.tree.configuration()
    }
}

impl DataTree {
    fn configuration(&self) -> Option<(&[u8], Stat)> {
        let found = self.find(CONFIG_PATH)?;
        let znode = self.nodes().znode(found.id);
        let stat = self.nodes().stat_of(found.id, &znode);
        Some((znode.data.unwrap_or_default(), stat))
    }

    fn is_configured(&self, configuration: &Configuration) -> bool {
        self.configuration().is_some_and(|(data, stat)| {
            stat.mtime >= configuration.changed_ms
                && data
                    .strip_prefix(configuration.members.as_bytes())
                    .is_some_and(|rest| rest.starts_with(VERSION_KEY.as_bytes()))
        })
    }

    fn configure(&mut self, zxid: Zxid, configuration: &Configuration) -> Vec<Change> {
        let Some(found) = self.find(CONFIG_PATH) else {
            return Vec::new();
        };
        let text = format!("{}{VERSION_KEY}{:x}", configuration.members, zxid.0);
        let acl = Arc::clone(self.acl(found.id));
        self.set_system_data(found, text.as_bytes(), |znode| {
            znode.mzxid = zxid.0;
            znode.mtime = znode.mtime.max(configuration.changed_ms);
            znode.version = -1;
        });
        vec![Change {
            kind: ChangeKind::DataChanged,
            path: CONFIG_PATH.into(),
            acl: Arc::clone(&acl),
            parent_acl: acl,
        }]
    }
}
