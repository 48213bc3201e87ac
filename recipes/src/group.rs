//! Who is there: a group of members, each an ephemeral znode in the group's directory.
//!
//! The znode's name is the member's id, its data is the member's, to the byte: so members in other
//! languages need no more than an ephemeral znode. Of two that want the same id the first has it.
//! Children that are not ephemeral are nobody's member: they are left alone, and logged once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::{AclEntry, Client, SessionId, Stat, Zxid};

use crate::Error;
use crate::directory::{Kind, claim_with_acl};
use crate::follow::{Entry, Follow, Step, join, read};
use crate::persistent_node::{KeptNode, NodeState, NodeStates, PersistentNode};

/// A group: processes that know of each other.
///
/// ```no_run
/// # use quorate_client::{Client, OnExpiry};
/// # use quorate_recipes::{Group, GroupChange};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // With another policy a member whose session expires is gone for good.
/// let builder = Client::builder("localhost:2181").on_expiry(OnExpiry::NewSession);
/// let client = builder.connect().await?;
/// let group = Group::new(&client, "/workers");
///
/// let membership = group.join("worker-7", "10.0.0.7:8080").await?;
/// for member in group.members().await? {
///     println!("{} since {}", member.id, member.joined);
/// }
/// let mut changes = group.changes().await?;
/// while let Some(change) = changes.next().await {
///     match change? {
///         GroupChange::Joined(member) => println!("{} is new", member.id),
///         GroupChange::Left(member) => println!("{} has left", member.id),
///         other => println!("{other:?}"),
///     }
/// }
/// membership.leave().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    path: String,
    acl: Vec<AclEntry>,
    kind: Kind,
}

/// A member, as it was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, which no other member has.
    pub id: String,
    /// What it says of itself.
    pub data: Bytes,
    /// Its session.
    pub session: SessionId,
    /// The write by which it joined: in the order of joining, and another one when it joins again.
    pub joined: Zxid,
    /// The write that last changed its data, or that of joining.
    pub changed: Zxid,
}

impl Entry for Member {
    fn read(name: &str, data: &Bytes, stat: &Stat) -> Option<Self> {
        Some(Self {
            id: name.to_owned(),
            data: data.clone(),
            session: SessionId::new(stat.ephemeral_owner)?,
            joined: stat.czxid,
            changed: stat.mzxid,
        })
    }

    fn created(&self) -> Zxid {
        self.joined
    }
}

impl Group {
    /// The group with this directory. It is created when the first member joins.
    pub fn new(client: &Client, path: &str) -> Self {
        Self::of_kind(client, path, Kind::Group)
    }

    /// As a part of another recipe, whose mark the directory has.
    pub(crate) fn of_kind(client: &Client, path: &str, kind: Kind) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            acl: vec![AclEntry::open()],
            kind,
        }
    }

    /// Who may do what with the znodes of members that join through this handle, and with the directory
    /// if this creates it: who may create and delete there decides who is a member. Everybody
    /// everything, by default.
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.acl = acl.into();
        self
    }

    /// The directory.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Joins, under a name that no other member has, and stays until the [`Membership`] is dropped:
    /// also after the session has expired, if the client begins another one.
    ///
    /// Cancel safe: a future that is dropped leaves no member.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`]: another member has the id, or one from a former run of this process whose
    /// session has not ended yet; see [`Join::former_session`] and [`Join::wait_at_most`].
    /// [`Error::OtherRecipe`]; [`Error::InvalidArgument`] for an id that is no name of a znode; those
    /// of any request.
    pub fn join(&self, id: &str, data: impl AsRef<[u8]>) -> Join {
        Join {
            group: self.clone(),
            id: id.to_owned(),
            data: Bytes::copy_from_slice(data.as_ref()),
            former: Vec::new(),
            limit: None,
        }
    }

    /// Reads who is there, in the order of joining. Not of one moment: who comes or goes meanwhile may be
    /// in it or not. No directory has no members.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of any request.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        read(&self.client, &self.path, self.kind).await
    }

    /// Follows who is there: [`GroupChanges::members`] at first, and then every change of it.
    ///
    /// # Errors
    ///
    /// As [`Group::members`].
    pub async fn changes(&self) -> Result<GroupChanges, Error> {
        Ok(GroupChanges {
            follow: Follow::open(&self.client, &self.path, self.kind).await?,
        })
    }
}

/// Joins a group. See [`Group::join`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.await`"]
pub struct Join {
    group: Group,
    id: String,
    data: Bytes,
    former: Vec<SessionId>,
    limit: Option<Duration>,
}

impl Join {
    /// A session of a former run of this process: a member of it is replaced. Of the sessions of this
    /// client that is known without it.
    pub fn former_session(mut self, session: SessionId) -> Self {
        self.former.push(session);
        self
    }

    /// Waits for the id to be free, instead of failing at once; then fails with [`Error::Taken`], or
    /// [`Error::TimedOut`] if it is something else that takes so long.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    async fn join(self) -> Result<Membership, Error> {
        let Some(limit) = self.limit else {
            let node = self.begin().await?;
            node.present().await?;
            return Ok(Membership { id: self.id, node });
        };
        // Dropped with the future, and the znode with it.
        let mut last = None;
        let joined = tokio::time::timeout(limit, async {
            let node = self.begin().await?;
            let mut states = node.states();
            loop {
                match node.present().await {
                    Ok(_) => return Ok(node),
                    Err(error @ Error::Taken { .. }) => last = Some(error),
                    Err(error) => return Err(error),
                }
                if states.next().await.is_none() {
                    node.present().await?;
                }
            }
        })
        .await;
        match joined {
            Ok(node) => node.map(|node| Membership { id: self.id, node }),
            Err(_) => Err(last.unwrap_or(Error::TimedOut { waited: limit })),
        }
    }

    async fn begin(&self) -> Result<KeptNode, Error> {
        check_name(&self.id, "the id of a member")?;
        let group = &self.group;
        claim_with_acl(&group.client, &group.path, group.kind, &group.acl).await?;
        let path = join(&group.path, &self.id);
        let mut node = PersistentNode::new(&group.client, &path)
            .data(&self.data)
            .acl(group.acl.clone());
        for session in &self.former {
            node = node.former_session(*session);
        }
        Ok(node.keep())
    }
}

impl IntoFuture for Join {
    type Output = Result<Membership, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.join())
    }
}

/// What is to be the name of one znode: no path, and nothing that means another one.
pub(crate) fn check_name(name: &str, what: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(Error::InvalidArgument(format!(
            "{name:?} cannot be {what}: it is to be the name of a znode"
        )));
    }
    Ok(())
}

/// A membership of a group: ends, in the background, when its last clone is dropped.
#[derive(Clone, Debug)]
pub struct Membership {
    id: String,
    node: KeptNode,
}

impl Membership {
    /// The name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the others see us.
    pub fn state(&self) -> NodeState {
        self.node.state()
    }

    /// What becomes of it. [`Absent::Taken`](crate::Absent::Taken): our session had expired, and another member has joined
    /// with our id before we could again; when that one leaves, we are back.
    pub fn states(&self) -> NodeStates {
        self.node.states()
    }

    /// Waits until the others see us.
    ///
    /// # Errors
    ///
    /// As [`KeptNode::present`].
    pub async fn present(&self) -> Result<Zxid, Error> {
        self.node.present().await
    }

    /// Says something else to the others. As [`KeptNode::set`].
    ///
    /// # Errors
    ///
    /// As [`KeptNode::set`].
    pub async fn set(&self, data: impl AsRef<[u8]>) -> Result<(), Error> {
        self.node.set(data).await
    }

    /// Leaves, and waits until the others see that. As [`KeptNode::close`].
    ///
    /// # Errors
    ///
    /// As [`KeptNode::close`].
    pub async fn leave(self) -> Result<(), Error> {
        self.node.close().await
    }
}

/// What became of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupChange {
    /// A member has joined. One that had left meanwhile and joined again has first [`Left`].
    ///
    /// [`Left`]: GroupChange::Left
    Joined(Member),
    /// A member has left, or its session has ended.
    Left(Member),
    /// A member says something else.
    Updated {
        /// As it is now.
        new: Member,
        /// As it was.
        old: Member,
    },
    /// All was read again after the connection had been lost: what has changed since, which may be
    /// nothing.
    Resynced(Vec<GroupChange>),
}

/// Who is in a group, and how that changes. See [`Group::changes`].
///
/// Changes in quick succession may be seen as one; the last is never missed.
#[derive(Debug)]
pub struct GroupChanges {
    follow: Follow<Member>,
}

impl GroupChanges {
    /// Who is there, by id, as the last [`GroupChanges::next`] left it.
    pub fn members(&self) -> &BTreeMap<String, Member> {
        self.follow.entries()
    }

    /// The next change; `None` when the session is over. After an error that can be retried it goes on.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Group::members`].
    pub async fn next(&mut self) -> Option<Result<GroupChange, Error>> {
        let step = self.follow.next().await?;
        Some(step.map(GroupChange::from).map_err(Error::from))
    }
}

impl From<Step<Member>> for GroupChange {
    fn from(step: Step<Member>) -> Self {
        match step {
            Step::Came(member) => Self::Joined(member),
            Step::Went(member) => Self::Left(member),
            Step::Changed { new, old } => Self::Updated { new, old },
            Step::Resynced(steps) => Self::Resynced(steps.into_iter().map(Self::from).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_znode_below_its_directory() {
        for name in ["", "a/b", "/", ".", ".."] {
            assert!(check_name(name, "a name").is_err(), "{name:?}");
        }
        for name in ["a", "10.0.0.7:80", "..."] {
            check_name(name, "a name").unwrap();
        }
    }
}
