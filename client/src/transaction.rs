//! Several writes and conditions, all or none.

use std::time::Duration;

use bytes::Bytes;
use quorate_protocol::multi::{MultiOp, MultiResult};
use quorate_protocol::request::{Check, Delete, SetData};
use quorate_protocol::{AclEntry, ErrorCode, OpCode, Request, Response, Stat};

use crate::client::Client;
use crate::error::{Error, Reason, Target};
use crate::operation::{
    Created, Plan, Policy, Prepare, Prepared, absolute, operation, seen_created,
};
use crate::session::line::Answer;

/// A transaction, as it is put together. See [`Client::transaction`].
///
/// What follows an operation (`ephemeral`, `if_version`, ...) is about that operation.
///
/// ```
/// # use quorate_client::{Client, Error};
/// # async fn example(client: &Client, epoch: i32) -> Result<(), Error> {
/// let done = client
///     .transaction()
///     .check("/config/epoch").if_version(epoch)
///     .create("/jobs/job-", b"body").sequential()
///     .set("/config/count", b"5").if_version(4)
///     .delete("/jobs/old")
///     .await?;
/// println!("{}", done.created(1).map_or("", |job| &job.path));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Transaction {
    client: Client,
    steps: Vec<Step>,
    misused: Option<&'static str>,
    policy: Policy,
}

#[derive(Clone, Debug)]
struct Step {
    path: String,
    version: i32,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Check,
    Create { data: Bytes, plan: Plan },
    Set { data: Bytes },
    Delete,
}

impl What {
    fn word(&self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Create { .. } => "create",
            Self::Set { .. } => "set",
            Self::Delete => "delete",
        }
    }
}

/// The results of a transaction, by the place of the operation, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    results: Vec<Done>,
}

/// What one operation of a transaction has done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Done {
    /// The condition held.
    Checked,
    /// The znode was created.
    Created(Created),
    /// The znode was set; its stat right after that.
    Set(Stat),
    /// The znode was deleted.
    Deleted,
}

impl Committed {
    /// All of them.
    pub fn results(&self) -> &[Done] {
        &self.results
    }

    /// What the create in this place made; `None` if none is there.
    pub fn created(&self, index: usize) -> Option<&Created> {
        match self.results.get(index)? {
            Done::Created(created) => Some(created),
            _ => None,
        }
    }

    /// The stat that the set in this place left; `None` if none is there.
    pub fn set(&self, index: usize) -> Option<&Stat> {
        match self.results.get(index)? {
            Done::Set(stat) => Some(stat),
            _ => None,
        }
    }
}

impl Transaction {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            steps: Vec::new(),
            misused: None,
            policy: Policy::default(),
        }
    }

    fn step(mut self, path: &str, what: What) -> Self {
        self.steps.push(Step {
            path: path.to_owned(),
            version: -1,
            what,
        });
        self
    }

    /// On condition that the znode exists; see [`Transaction::if_version`].
    pub fn check(self, path: &str) -> Self {
        self.step(path, What::Check)
    }

    /// Creates a znode.
    pub fn create(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        let data = Bytes::copy_from_slice(data.as_ref());
        let plan = Plan::default();
        self.step(path, What::Create { data, plan })
    }

    /// Replaces a znode's data.
    pub fn set(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        let data = Bytes::copy_from_slice(data.as_ref());
        self.step(path, What::Set { data })
    }

    /// Deletes a znode.
    pub fn delete(self, path: &str) -> Self {
        self.step(path, What::Delete)
    }

    /// Of a check, set or delete: only if the znode has this version.
    pub fn if_version(mut self, version: i32) -> Self {
        match self.steps.last_mut() {
            Some(step) if !matches!(step.what, What::Create { .. }) => step.version = version,
            _ => self.misused = Some("if_version follows a check, a set or a delete"),
        }
        self
    }

    fn plan(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        match self.steps.last_mut().map(|step| &mut step.what) {
            Some(What::Create { plan, .. }) => change(plan),
            _ => self.misused = Some("a kind of znode or an ACL follows a create"),
        }
        self
    }

    /// Of a create: it goes when the session ends.
    pub fn ephemeral(self) -> Self {
        self.plan(Plan::set_ephemeral)
    }

    /// Of a create: the server appends a number.
    pub fn sequential(self) -> Self {
        self.plan(Plan::set_sequential)
    }

    /// Of a create: the server deletes it when its last child has gone.
    pub fn container(self) -> Self {
        self.plan(Plan::set_container)
    }

    /// Of a create: the server deletes it when it was not set for so long.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.plan(|plan| plan.set_ttl(ttl))
    }

    /// Of a create: who may do what with it.
    pub fn acl(self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.plan(|plan| plan.set_acl(acl.into()))
    }

    fn multi_op(&self, client: &Client, index: usize, step: &Step) -> Result<MultiOp, Error> {
        let target = Target::write(step.what.word(), &step.path).at(index);
        let version = step.version;
        Ok(match &step.what {
            What::Check => MultiOp::Check(Check {
                path: absolute(client, &target, &step.path)?,
                version,
            }),
            What::Set { data } => MultiOp::SetData(SetData {
                path: absolute(client, &target, &step.path)?,
                data: Some(data.clone()),
                version,
            }),
            What::Delete => MultiOp::Delete(Delete {
                path: absolute(client, &target, &step.path)?,
                version,
            }),
            What::Create { data, plan } => {
                let path = plan.absolute(client, &target, &step.path)?;
                match plan.request(&target, path, data.clone())? {
                    Request::CreateContainer(create) => MultiOp::CreateContainer(create),
                    Request::CreateTtl(create) => MultiOp::CreateTtl(create),
                    // Servers before 3.8.4 answer a create2 in a multi without its stat.
                    Request::Create2(create) => MultiOp::Create2(create),
                    _ => {
                        return Err(Error::InvalidArgument {
                            target,
                            what: "a create is no create: report this bug",
                        });
                    }
                }
            }
        })
    }

    /// Takes its place among the client's requests, now. Cancel safe, as
    /// [`Get::send`](crate::operation::Get::send).
    fn send_any(self) -> crate::operation::Sent<Committed> {
        let names: Vec<(&'static str, String)> = self
            .steps
            .iter()
            .map(|step| (step.what.word(), step.path.clone()))
            .collect();
        let sent = crate::operation::send(&self, &self.client, self.policy);
        crate::operation::Sent::driven(async move {
            match sent.await? {
                Ok(committed) => Ok(committed),
                Err(Failed {
                    index,
                    reason,
                    repeated,
                }) => {
                    let (word, path) = names
                        .get(index)
                        .map_or(("commit", ""), |(word, path)| (word, path.as_str()));
                    Err(Error::Refused {
                        target: Target::write(word, path).at(index),
                        reason,
                        repeated,
                    })
                }
            }
        })
    }
}

/// Committed, or which operation failed and why.
type Outcome = Result<Committed, Failed>;

/// See [`Error::Refused`].
#[derive(Debug)]
pub(crate) struct Failed {
    index: usize,
    reason: Reason,
    repeated: bool,
}

impl Prepare for Transaction {
    type Output = Outcome;

    fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
        let target = Target::write("commit", "");
        if let Some(what) = self.misused {
            return Err(Error::InvalidArgument { target, what });
        }
        let ops = self.steps.iter().enumerate();
        let ops = ops.map(|(index, step)| self.multi_op(client, index, step));
        Ok(Prepared {
            request: Request::Multi(ops.collect::<Result<_, _>>()?),
            target,
            interest: None,
        })
    }

    fn decode(answer: Answer, client: &Client) -> Result<Outcome, String> {
        let response = Response::decode(OpCode::Multi, &answer.body);
        let Response::Multi(results) = response.map_err(|error| error.to_string())? else {
            return Err("it is no list of results".to_owned());
        };
        let failed = results.iter().position(|result| {
            // 0 and RuntimeInconsistency stand for "because of another one".
            matches!(result, MultiResult::Error(Some(code)) if *code != ErrorCode::RuntimeInconsistency)
        });
        if let Some(index) = failed
            && let MultiResult::Error(Some(code)) = &results[index]
        {
            return Ok(Err(Failed {
                index,
                reason: Reason::from_code(code.code()),
                repeated: answer.repeated,
            }));
        }
        let results = results.into_iter().map(|result| {
            Ok(match result {
                MultiResult::Create { path } => {
                    Done::Created(seen_created(client, &path, Stat::default())?)
                }
                MultiResult::Create2 { path, stat } => {
                    Done::Created(seen_created(client, &path, stat)?)
                }
                MultiResult::Delete => Done::Deleted,
                MultiResult::SetData(stat) => Done::Set(stat),
                MultiResult::Check => Done::Checked,
                other => return Err(format!("{other:?} in a transaction")),
            })
        });
        Ok(Ok(Committed {
            results: results.collect::<Result<_, String>>()?,
        }))
    }
}

operation!(Transaction, send_any, Committed);
