//! delete.

use quorate_protocol::Perms;

use super::{Author, DataTree, SYSTEM_PATHS, check_version, parent_of};
use crate::applied::Change;
use crate::error::OpError;

impl DataTree {
    /// Deletes a znode on behalf of a client. The permission is the parent's to give, and without it
    /// nobody learns whether the znode exists.
    pub(crate) fn delete(
        &mut self,
        author: &Author<'_>,
        path: &str,
        version: i32,
        changes: &mut Vec<Change>,
    ) -> Result<(), OpError> {
        if !path.contains('/') || path.contains('\0') || SYSTEM_PATHS.contains(&path) {
            return Err(OpError::BadArguments);
        }
        let parent = self.find(parent_of(path)).ok_or(OpError::NoNode)?;
        let parent = self.nodes.znode(parent.id);
        if !self.lets(author, &parent, Perms::DELETE) {
            return Err(OpError::NoAuth);
        }
        let found = self.find(path).ok_or(OpError::NoNode)?;
        check_version(version, self.nodes.znode(found.id).version)?;
        match self.nodes.child_count(found.id) {
            0 => {}
            children => {
                let children = children as usize;
                return Err(OpError::NotEmpty { children });
            }
        }
        self.delete_found(path, found, author.zxid, changes);
        Ok(())
    }
}
