//! setACL.

use quorate_protocol::{AclEntry, Perms, Stat};

use super::acl::{AclId, resolve};
use super::edit::NewData;
use super::{Author, DataTree, check_version, next_version};
use crate::error::OpError;

impl DataTree {
    /// Sets the ACL. Nothing but `aversion` moves, and no watch fires.
    pub(crate) fn set_acl(
        &mut self,
        author: &Author<'_>,
        path: &str,
        acl: &[AclEntry],
        version: i32,
    ) -> Result<Stat, OpError> {
        quorate_protocol::ZnodePath::check(path).map_err(|_| OpError::BadArguments)?;
        let acl = resolve(acl, author.identities, author.rules)?;
        let found = self.find_valid(path)?;
        let znode = self.nodes.znode(found.id);
        if !self.lets(author, &znode, Perms::ADMIN) {
            return Err(OpError::NoAuth);
        }
        check_version(version, znode.aversion)?;

        let acl = match acl {
            None => AclId::OPEN,
            Some(acl) => self.number_acl(acl),
        };
        let stat = self.rewrite(found, &NewData::Keep, |znode| {
            znode.acl = acl;
            znode.aversion = next_version(znode.aversion);
        });
        Ok(stat)
    }
}
