//! create, in its seven modes.

use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::types::BadFlags;
use quorate_protocol::{AclEntry, CreateMode, Perms, ZnodePath};

use super::acl::{AclId, resolve};
use super::nodes::NodeId;
use super::znode::{Kind, Znode};
use super::{Author, DataTree, parent_of};
use crate::applied::{Change, ChangeKind};
use crate::canary::{Canary, planted};
use crate::command::Rules;
use crate::digest;
use crate::error::OpError;

/// What will be created. What the flags mean depends on the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    sort: Sort,
    is_sequential: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Persistent,
    Ephemeral,
    Container,
    Ttl(i64),
}

impl Plan {
    /// create and create2 on their own. A container's flag makes a plain znode: ZooKeeper has it so,
    /// and clients ask for containers by their own operation.
    pub(crate) fn of_create(flags: i32, rules: Rules) -> Result<Self, OpError> {
        let plan = Self::of_flags(flags, None, rules)?;
        Ok(match plan.sort {
            Sort::Container => Self {
                sort: Sort::Persistent,
                ..plan
            },
            _ => plan,
        })
    }

    /// createContainer: whatever the flags say, the znode is a container.
    pub(crate) fn of_create_container(flags: i32, rules: Rules) -> Result<Self, OpError> {
        let plan = Self::of_flags(flags, None, rules)?;
        Ok(Self {
            sort: Sort::Container,
            ..plan
        })
    }

    /// createTTL.
    pub(crate) fn of_create_ttl(flags: i32, ttl_ms: i64, rules: Rules) -> Result<Self, OpError> {
        Self::of_flags(flags, Some(ttl_ms), rules)
    }

    /// create and create2 inside a multi, where a container's flag does make a container.
    pub(crate) fn of_create_in_multi(flags: i32, rules: Rules) -> Result<Self, OpError> {
        Self::of_flags(flags, None, rules)
    }

    /// Whether a plain create in a multi is answered with the path alone.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self.sort, Sort::Persistent | Sort::Ephemeral)
    }

    fn of_flags(flags: i32, ttl_ms: Option<i64>, rules: Rules) -> Result<Self, OpError> {
        let mode = CreateMode::from_flags(flags, ttl_ms);
        let is_known = !matches!(mode, Err(BadFlags::Unknown(_)));
        if is_known && rules.ttl_disabled && matches!(flags, 5 | 6) {
            return Err(OpError::Unimplemented);
        }
        let mode = mode.map_err(|_| OpError::BadArguments)?;
        Ok(Self {
            sort: match mode {
                CreateMode::Persistent | CreateMode::PersistentSequential => Sort::Persistent,
                CreateMode::Ephemeral | CreateMode::EphemeralSequential => Sort::Ephemeral,
                CreateMode::Container => Sort::Container,
                CreateMode::PersistentWithTtl { ttl_ms }
                | CreateMode::PersistentSequentialWithTtl { ttl_ms } => Sort::Ttl(ttl_ms),
            },
            is_sequential: mode.is_sequential(),
        })
    }

    fn kind(self, author: &Author<'_>) -> Kind {
        match self.sort {
            Sort::Persistent => Kind::Persistent,
            Sort::Ephemeral => Kind::Ephemeral(author.session),
            Sort::Container => Kind::Container,
            Sort::Ttl(ttl_ms) => Kind::Ttl(ttl_ms),
        }
    }
}

impl DataTree {
    /// Creates a znode, and returns its path, which has the number if it is sequential.
    pub(crate) fn create(
        &mut self,
        author: &Author<'_>,
        plan: Plan,
        mut path: String,
        data: Option<&Bytes>,
        acl: &[AclEntry],
        changes: &mut Vec<Change>,
    ) -> Result<(String, NodeId), OpError> {
        if !path.contains('/') || path.contains('\0') {
            return Err(OpError::BadArguments);
        }
        let acl = resolve(acl, author.identities, author.rules)?;
        let parent = self.find(parent_of(&path)).ok_or(OpError::NoNode)?;
        let parent_znode = self.nodes.znode(parent.id);
        if !self.lets(author, &parent_znode, Perms::CREATE) {
            return Err(OpError::NoAuth);
        }
        if plan.is_sequential {
            self.append_number(parent.id, &mut path);
        }
        ZnodePath::check(&path).map_err(|_| OpError::BadArguments)?;
        let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
        let place = digest::step(parent.place, &path.as_bytes()[name_at..]);
        if self.index.find(&self.nodes, place, &path).is_some() {
            return Err(OpError::NodeExists);
        }
        let parent_acl = parent_znode.acl;
        if matches!(parent_znode.kind, Kind::Ephemeral(_)) {
            return Err(OpError::NoChildrenForEphemerals);
        }
        let bytes = data.map_or(0, Bytes::len);
        if author.rules.enforce_quota {
            self.check_quota(&path, 1, signed(bytes))?;
        }

        let acl = match acl {
            None => AclId::OPEN,
            Some(acl) => self.number_acl(acl),
        };
        let name = &path.as_bytes()[name_at..];
        let data = data.map(|data| &data[..]);
        let mut znode = Znode::new(name, data, author.zxid.0, author.time_ms);
        znode.acl = acl;
        znode.kind = plan.kind(author);
        let id = self.insert(parent, &path, &znode);
        changes.push(Change {
            kind: ChangeKind::Created,
            path: path.as_str().into(),
            acl: Arc::clone(self.nodes.acls.get(acl)),
            parent_acl: Arc::clone(self.nodes.acls.get(parent_acl)),
        });
        self.quota_after_create(&path, bytes);
        Ok((path, id))
    }

    /// Ten digits with leading zeros: how many children the parent ever had. Past 9 999 999 999 the
    /// number gets longer, and no longer sorts as text; ZooKeeper stops working at 2^31.
    fn append_number(&self, parent: NodeId, path: &mut String) {
        use std::fmt::Write as _;
        let mut created = self.nodes.family(parent).map_or(0, |family| family.created);
        if planted(Canary::SequenceFromChildCount) {
            created = self.nodes.child_count(parent).into();
        }
        write!(path, "{created:010}").expect("writing to a string does not fail");
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
