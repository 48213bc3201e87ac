//! multi: all or nothing, each operation on top of the ones before it.

use std::borrow::Cow;

use quorate_protocol::multi::{MultiOp, MultiResult};
use quorate_protocol::request::Check;
use quorate_protocol::{CreateMode, ErrorCode, Perms, types::BadFlags};

use super::{Author, DataTree, Plan, check_version};
use crate::applied::Change;
use crate::canary::{Canary, planted};
use crate::error::OpError;

/// Whether ZooKeeper could decode the operations: create flags it does not know end the whole
/// request, wherever they stand.
pub(crate) fn check_flags(ops: &[MultiOp]) -> Result<(), OpError> {
    let all_known = ops.iter().all(|op| match op {
        MultiOp::Create(r) | MultiOp::Create2(r) | MultiOp::CreateContainer(r) => known(r.flags),
        MultiOp::CreateTtl(r) => known(r.flags),
        MultiOp::Delete(_) | MultiOp::SetData(_) | MultiOp::Check(_) => true,
    });
    all_known.then_some(()).ok_or(OpError::Malformed)
}

fn known(flags: i32) -> bool {
    !matches!(
        CreateMode::from_flags(flags, None),
        Err(BadFlags::Unknown(_))
    )
}

impl DataTree {
    /// The results, one per operation. If one is refused, all of them are errors, and neither the
    /// tree nor `changes` has changed.
    pub(crate) fn multi(
        &mut self,
        author: &Author<'_>,
        ops: Vec<MultiOp>,
        changes: &mut Vec<Change>,
    ) -> Vec<MultiResult<'static>> {
        let count = ops.len();
        let mut results = Vec::with_capacity(count);
        self.begin();
        for op in ops {
            match self.multi_op(author, op, changes) {
                Ok(result) => results.push(result),
                Err(error) => {
                    if planted(Canary::MultiAppliedInPart) {
                        self.commit();
                        return failure(count, results.len(), error);
                    }
                    self.roll_back();
                    changes.clear();
                    return failure(count, results.len(), error);
                }
            }
        }
        self.commit();
        results
    }

    fn multi_op(
        &mut self,
        author: &Author<'_>,
        op: MultiOp,
        changes: &mut Vec<Change>,
    ) -> Result<MultiResult<'static>, OpError> {
        let rules = author.rules;
        match op {
            MultiOp::Create(r) => {
                let plan = Plan::of_create_in_multi(r.flags, rules)?;
                let (path, id) =
                    self.create(author, plan, r.path, r.data.as_ref(), &r.acl, changes)?;
                let path = Cow::Owned(path);
                if plan.is_plain() {
                    return Ok(MultiResult::Create { path });
                }
                let stat = self.nodes.stat(id);
                Ok(MultiResult::Create2 { path, stat })
            }
            MultiOp::Create2(r) => {
                let plan = Plan::of_create_in_multi(r.flags, rules)?;
                let created =
                    self.create(author, plan, r.path, r.data.as_ref(), &r.acl, changes)?;
                Ok(self.create2_result(created))
            }
            MultiOp::CreateContainer(r) => {
                let plan = Plan::of_create_container(r.flags, rules)?;
                let created =
                    self.create(author, plan, r.path, r.data.as_ref(), &r.acl, changes)?;
                Ok(self.create2_result(created))
            }
            MultiOp::CreateTtl(r) => {
                let plan = Plan::of_create_ttl(r.flags, r.ttl_ms, rules)?;
                let created =
                    self.create(author, plan, r.path, r.data.as_ref(), &r.acl, changes)?;
                Ok(self.create2_result(created))
            }
            MultiOp::Delete(r) => {
                self.delete(author, &r.path, r.version, changes)?;
                Ok(MultiResult::Delete)
            }
            MultiOp::SetData(r) => self
                .set_data(author, &r.path, r.data.as_ref(), r.version, changes)
                .map(MultiResult::SetData),
            MultiOp::Check(r) => {
                self.check(author, &r)?;
                Ok(MultiResult::Check)
            }
        }
    }

    fn create2_result(&self, (path, id): (String, super::NodeId)) -> MultiResult<'static> {
        MultiResult::Create2 {
            path: Cow::Owned(path),
            stat: self.nodes.stat(id),
        }
    }

    fn check(&self, author: &Author<'_>, check: &Check) -> Result<(), OpError> {
        let found = self.find_valid(&check.path)?;
        let znode = self.nodes.znode(found.id);
        if !self.lets(author, &znode, Perms::READ) {
            return Err(OpError::NoAuth);
        }
        check_version(check.version, znode.version)
    }
}

/// As ZooKeeper reports it: no error for what came before, then the error, then "not attempted".
fn failure(count: usize, failed: usize, error: OpError) -> Vec<MultiResult<'static>> {
    (0..count)
        .map(|i| {
            MultiResult::Error(match i.cmp(&failed) {
                std::cmp::Ordering::Less => None,
                std::cmp::Ordering::Equal => Some(error.code()),
                std::cmp::Ordering::Greater => Some(ErrorCode::RuntimeInconsistency),
            })
        })
        .collect()
}
