//! setData.

use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::{Perms, Stat};

use super::edit::NewData;
use super::znode::Znode;
use super::{Author, CONFIG_PATH, DataTree, Found, check_version, next_version};
use crate::applied::{Change, ChangeKind};
use crate::canary::{Canary, planted};
use crate::error::OpError;

impl DataTree {
    /// Sets the data, even if it is what it was: version and mzxid move on, and watches fire.
    pub(crate) fn set_data(
        &mut self,
        author: &Author<'_>,
        path: &str,
        data: Option<&Bytes>,
        version: i32,
        changes: &mut Vec<Change>,
    ) -> Result<Stat, OpError> {
        let found = self.find_valid(path)?;
        let znode = self.nodes.znode(found.id);
        if !self.lets(author, &znode, Perms::WRITE) {
            return Err(OpError::NoAuth);
        }
        if path == CONFIG_PATH {
            return Err(OpError::BadArguments);
        }
        let data = data.map(|data| &data[..]);
        let growth = growth(znode.data_len(), data.map_or(0, <[u8]>::len));
        if author.rules.enforce_quota {
            self.check_quota(path, 0, growth)?;
        }
        if !planted(Canary::VersionNotChecked) {
            check_version(version, znode.version)?;
        }

        let (zxid, time_ms) = (author.zxid.0, author.time_ms);
        let acl = znode.acl;
        let stat = self.rewrite(found, &NewData::Set(data), |znode| {
            znode.mzxid = zxid;
            znode.mtime = time_ms;
            znode.version = next_version(znode.version);
        });
        let acl = self.nodes.acls.get(acl);
        changes.push(Change {
            kind: ChangeKind::DataChanged,
            path: path.into(),
            acl: Arc::clone(acl),
            parent_acl: Arc::clone(acl),
        });
        self.quota_after_set_data(path, growth);
        Ok(stat)
    }

    /// Sets the data of a system znode, which no quota counts and no client may set.
    pub(crate) fn set_system_data(
        &mut self,
        found: Found,
        data: &[u8],
        change: impl FnOnce(&mut Znode<'_>),
    ) {
        self.rewrite(found, &NewData::Set(Some(data)), change);
    }
}

fn growth(from: usize, to: usize) -> i64 {
    let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    signed(to).saturating_sub(signed(from))
}
