//! Reads: straight from the tree, without a copy where the answer can borrow.
//!
//! A path is not checked: one that is ill-formed leads nowhere, and the empty one to the root, as in
//! ZooKeeper. Existence is judged before permission.

use std::borrow::Cow;

use quorate_protocol::multi::{MultiResult, ReadOp};
use quorate_protocol::{Id, Perms, Response, SessionId};

use crate::error::OpError;
use crate::state::State;
use crate::tree::acl::masked;
use crate::tree::nodes::NodeId;
use crate::tree::znode::Znode;

/// How large the answer to a multiRead may become, about: a frame of 1 MB can name 60,000 reads of 1 MB
/// each. As much as may wait for a client by default; Java's clients refuse answers above 1 MB anyway.
const MULTI_READ_BYTES_MAX: usize = 16 << 20;

/// A read as the client asked for it. The paths are as it sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Exists {
        path: String,
    },
    GetData {
        path: String,
    },
    GetAcl {
        path: String,
    },
    GetChildren {
        path: String,
    },
    GetChildren2 {
        path: String,
    },
    /// How many descendants there are. Counting takes time in proportion.
    GetAllChildrenNumber {
        path: String,
    },
    GetEphemerals {
        /// Null, blank and `/` mean all.
        prefix: Option<String>,
    },
    MultiRead(Vec<ReadOp>),
}

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub identities: &'a [Id],
    pub session: SessionId,
    pub skip_acl: bool,
}

impl State {
    /// Answers a query from the state as it is.
    ///
    /// # Errors
    ///
    /// [`OpError::NoNode`], [`OpError::NoAuth`], [`OpError::BadArguments`] for an exists whose path
    /// holds a NUL, and [`OpError::AnswerTooLarge`] for a multiRead.
    pub fn read(&self, query: &Query, reader: &Reader<'_>) -> Result<Response<'_>, OpError> {
        let nodes = self.tree.nodes();
        match query {
            Query::Exists { path } if path.contains('\0') => Err(OpError::BadArguments),
            Query::Exists { path } => {
                let (id, znode) = self.readable(path, reader)?;
                Ok(Response::Stat(nodes.stat_of(id, &znode)))
            }
            Query::GetData { path } => {
                let (id, znode) = self.readable(path, reader)?;
                Ok(Response::Data {
                    data: znode.data.map(Cow::Borrowed),
                    stat: nodes.stat_of(id, &znode),
                })
            }
            Query::GetAcl { path } => self.read_acl(path, reader),
            Query::GetChildren { path } => {
                let (id, _) = self.readable(path, reader)?;
                Ok(Response::Strings(self.children(id)))
            }
            Query::GetChildren2 { path } => {
                let (id, znode) = self.readable(path, reader)?;
                Ok(Response::Children {
                    children: self.children(id),
                    stat: nodes.stat_of(id, &znode),
                })
            }
            Query::GetAllChildrenNumber { path } => {
                let (id, _) = self.readable(path, reader)?;
                let count = match id {
                    // The root itself counts twice.
                    NodeId::ROOT => self.tree.totals().znodes - 2,
                    id => nodes.subtree(id).skip(1).count() as u64,
                };
                Ok(Response::Count(i32::try_from(count).unwrap_or(i32::MAX)))
            }
            Query::GetEphemerals { prefix } => {
                let prefix = prefix.as_deref().filter(|prefix| !prefix.trim().is_empty());
                let paths = self.tree.ephemerals_of(reader.session).into_iter();
                Ok(Response::Strings(
                    paths
                        .filter(|path| prefix.is_none_or(|prefix| path.starts_with(prefix)))
                        .map(Cow::Owned)
                        .collect(),
                ))
            }
            Query::MultiRead(ops) => self.read_all(ops, reader),
        }
    }

    fn read_all(&self, ops: &[ReadOp], reader: &Reader<'_>) -> Result<Response<'_>, OpError> {
        let mut results = Vec::new();
        let mut bytes = 0;
        for op in ops {
            let result = self.read_one(op, reader);
            bytes += bytes_of(&result);
            if bytes > MULTI_READ_BYTES_MAX {
                return Err(OpError::AnswerTooLarge);
            }
            results.push(result);
        }
        Ok(Response::Multi(results))
    }

    /// Each operation of a multiRead succeeds or fails for itself.
    fn read_one(&self, op: &ReadOp, reader: &Reader<'_>) -> MultiResult<'_> {
        let result = match op {
            ReadOp::GetData(r) => {
                self.readable(&r.path, reader)
                    .map(|(id, znode)| MultiResult::GetData {
                        data: znode.data.map(Cow::Borrowed),
                        stat: self.tree.nodes().stat_of(id, &znode),
                    })
            }
            ReadOp::GetChildren(r) => {
                self.readable(&r.path, reader)
                    .map(|(id, _)| MultiResult::GetChildren {
                        children: self.children(id),
                    })
            }
        };
        result.unwrap_or_else(|error| MultiResult::Error(Some(error.code())))
    }

    /// Digests are shown in full to those only who may change the ACL.
    fn read_acl(&self, path: &str, reader: &Reader<'_>) -> Result<Response<'_>, OpError> {
        let (id, znode) = self.allowed(path, Perms::READ.union(Perms::ADMIN), reader)?;
        let acl = self.tree.acl(id);
        let is_admin = self
            .tree
            .allows(&znode, Perms::ADMIN, reader.identities, reader.skip_acl);
        Ok(Response::Acl {
            acl: match is_admin {
                true => acl.iter().cloned().map(Into::into).collect(),
                false => masked(acl),
            },
            stat: self.tree.nodes().stat_of(id, &znode),
        })
    }

    fn readable(&self, path: &str, reader: &Reader<'_>) -> Result<(NodeId, Znode<'_>), OpError> {
        self.allowed(path, Perms::READ, reader)
    }

    fn allowed(
        &self,
        path: &str,
        wanted: Perms,
        reader: &Reader<'_>,
    ) -> Result<(NodeId, Znode<'_>), OpError> {
        let found = self.tree.find(path).ok_or(OpError::NoNode)?;
        let znode = self.tree.nodes().znode(found.id);
        if !self
            .tree
            .allows(&znode, wanted, reader.identities, reader.skip_acl)
        {
            return Err(OpError::NoAuth);
        }
        Ok((found.id, znode))
    }

    fn children(&self, id: NodeId) -> Vec<Cow<'_, str>> {
        let nodes = self.tree.nodes();
        let mut children = Vec::with_capacity(nodes.child_count(id) as usize);
        children.extend(nodes.children(id).map(|id| Cow::Borrowed(nodes.name(id))));
        children
    }
}

/// About how many bytes a result takes, in memory or in the answer.
fn bytes_of(result: &MultiResult<'_>) -> usize {
    /// A header and a stat; what a name costs until it is sent.
    const FIXED: usize = 80;
    const NAME: usize = 24;
    FIXED
        + match result {
            MultiResult::GetData { data, .. } => data.as_ref().map_or(0, |data| data.len()),
            MultiResult::GetChildren { children } => {
                children.iter().map(|name| NAME + name.len()).sum()
            }
            _ => 0,
        }
}
