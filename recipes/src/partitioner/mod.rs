//! A set of partitions, divided among the members of a group.
//!
//! Who has a partition owns the ephemeral znode `owners/<partition>`; that alone decides, so none is
//! owned twice. Each member follows the directory, works out what it is to have ([`balanced`]), gives
//! back what it is not to have, and takes what is free. Its owner is told first, and the znode goes
//! when the owner has let go of the guard; not before that can anybody else take it.

mod assign;
mod guard;
mod task;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::{AclEntry, Client};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::assign::{View, balanced};
pub use self::guard::{Assignment, Partition};
use self::guard::{Shared, Told};
use self::task::{Assign, Task};
use crate::Error;
use crate::directory::{Kind, claim_with_acl, create};
use crate::follow::join;
use crate::group::{Group, check_name};

/// How long the members have to stay the same before anything moves.
const HOLD_OFF: Duration = Duration::from_secs(2);

/// Divides partitions among members: what a member is to say about itself.
///
/// ```no_run
/// # use quorate_client::{Client, OnExpiry};
/// # use quorate_recipes::Partitioner;
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = Client::builder("localhost:2181").on_expiry(OnExpiry::NewSession);
/// // Against Apache ZooKeeper it lets a broken connection cost nothing; see `Partitions`.
/// let client = builder.keep_lease(true).connect().await?;
///
/// let shards = (0..16).map(|number| format!("shard-{number}"));
/// let partitioner = Partitioner::new(&client, "/shards", shards).identity("worker-7");
/// let mut partitions = partitioner.join().await?;
/// while let Some(assignment) = partitions.next().await {
///     for partition in assignment.acquired {
///         // One task for each, which ends when its partition is to be given back.
///         tokio::spawn(async move {
///             tokio::select! {
///                 () = partition.revoked() => {}
///                 () = work_on(partition.name(), partition.token()) => {}
///             }
///             // Nobody else has it before the guard is dropped, here.
///         });
///     }
/// }
/// # Ok(())
/// # }
/// # async fn work_on(_: &str, _: quorate_client::Zxid) {}
/// ```
#[derive(Clone)]
#[must_use = "nothing happens before `.join()`"]
pub struct Partitioner {
    client: Client,
    path: String,
    partitions: BTreeSet<String>,
    identity: String,
    hold_off: Duration,
    assign: Arc<Assign>,
    acl: Vec<AclEntry>,
}

impl fmt::Debug for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitioner")
            .field("path", &self.path)
            .field("identity", &self.identity)
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

impl Partitioner {
    /// The partitioner in this directory, and what it is to divide: the same names for all members.
    pub fn new(
        client: &Client,
        path: &str,
        partitions: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let number = client.randomness().number() >> 64;
        Self {
            client: client.clone(),
            path: path.to_owned(),
            partitions: partitions.into_iter().map(Into::into).collect(),
            identity: format!("member-{number:016x}"),
            hold_off: HOLD_OFF,
            assign: Arc::new(balanced),
            acl: vec![AclEntry::open()],
        }
    }

    /// Our name among the members. A random one by default.
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = identity.into();
        self
    }

    /// For how long the members have to stay the same before partitions move: who is back by then finds
    /// its own as they were. Where they never do, ten times as long is enough. Two seconds by default.
    pub fn hold_off(mut self, hold_off: Duration) -> Self {
        self.hold_off = hold_off;
        self
    }

    /// Who is to have what: a function of nothing but its argument, the same for all members, that
    /// changes nothing any more when all is as it says. What it assigns to nobody, or to who is no
    /// member, nobody has. [`balanced`] by default.
    pub fn assign_with(
        mut self,
        assign: impl Fn(&View<'_>) -> std::collections::BTreeMap<String, String> + Send + Sync + 'static,
    ) -> Self {
        self.assign = Arc::new(assign);
        self
    }

    /// Who may do what with the znodes that are created. Everybody everything, by default.
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.acl = acl.into();
        self
    }

    /// Becomes a member, and takes part until the [`Partitions`] are dropped: also after the session has
    /// expired, if the client begins another one.
    ///
    /// Cancel safe: a future that is dropped leaves no member.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`]: another member has the identity. [`Error::InvalidArgument`] for partitions or
    /// an identity that are no names of znodes; [`Error::OtherRecipe`]; those of any request.
    pub async fn join(self) -> Result<Partitions, Error> {
        for partition in &self.partitions {
            check_name(partition, "a partition")?;
        }
        claim_with_acl(&self.client, &self.path, Kind::Partitioner, &self.acl).await?;
        let owners = join(&self.path, "owners");
        // Who may delete there could take a partition from under its owner.
        create(&self.client, &owners, Vec::new(), &self.acl).await?;
        let members = join(&self.path, "members");
        let group = Group::new(&self.client, &members).acl(self.acl.clone());
        let membership = group.join(&self.identity, "").await?;
        let tree = self.client.tree(&self.path).await?;
        let events = self.client.watch(&owners).recursive().await?;
        let stop = CancellationToken::new();
        let (state, state_seen) = watch::channel(PartitionerState::Allocating);
        let (releases, released) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(releases));
        let task = Task::new(
            self,
            members,
            owners,
            membership,
            (tree, events),
            state,
            Arc::clone(&shared),
            released,
            stop.clone(),
        );
        tokio::spawn(task.run());
        Ok(Partitions {
            shared,
            state: state_seen,
            stop: stop.drop_guard(),
        })
    }
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionerState {
    /// The members have changed, or what it is to have is not free yet.
    Allocating,
    /// It has what it is to have.
    Acquired,
    /// It is to give partitions back, and their guards are still there.
    Release,
    /// The session is over for good. The end.
    Failed,
    /// It has left. The end.
    Left,
}

/// The partitions of one member, as they come and go.
///
/// # What it promises
///
/// No partition has two owners: each [`Partition`] has an ephemeral znode, and it is given back only
/// when its guard has been dropped. A member that can reach no server any more is told that it has
/// *lost* its partitions before its session can have ended: at [`Client::lease_deadline`], or a quarter
/// of the session's timeout after the connection was lost, whichever is later. That rests on a clock
/// and on the member being awake to hear of it; what must never be done twice, in spite of a process
/// that stands still, has to check the [token](Partition::token), which grows with each owner.
///
/// # What it does not
///
/// That a partition has an owner at any moment, or that the division is even while members come and
/// go. Members that are given different partitions, or different ways to assign them, may hold some
/// back from each other for good; never do they share one.
///
/// When this is dropped the member leaves: all its guards are revoked, and each partition is free when
/// its guard is dropped.
pub struct Partitions {
    shared: Arc<Shared>,
    state: watch::Receiver<PartitionerState>,
    stop: DropGuard,
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions")
            .field("state", &self.state())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl Partitions {
    /// What has changed; `None` when the session is over for good, and all is lost. Several changes
    /// may come as one.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Assignment> {
        loop {
            let told = self.shared.told.notified();
            match self.shared.take() {
                Told::Something(assignment) => return Some(assignment),
                Told::End => return None,
                Told::Nothing => told.await,
            }
        }
    }

    /// The partitions it has now, those that are to be given back as well.
    pub fn held(&self) -> Vec<String> {
        self.shared.held()
    }

    /// Where it stands.
    pub fn state(&self) -> PartitionerState {
        *self.state.borrow()
    }

    /// Waits until it has all that it is to have as the members are now, and nothing else.
    ///
    /// Cancel safe. Guards have to be taken from [`Partitions::next`] and dropped meanwhile where they
    /// are revoked.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]: the session is over for good.
    pub async fn settled(&self) -> Result<(), Error> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| {
            *state != PartitionerState::Allocating && *state != PartitionerState::Release
        });
        match settled.await.map(|state| *state) {
            Ok(PartitionerState::Acquired) => Ok(()),
            _ => Err(Error::Closed {
                path: "a member of the partitioner".to_owned(),
            }),
        }
    }

    /// Leaves, and waits until all its partitions are free: until the last guard is dropped, elsewhere.
    ///
    /// Cancel safe: it goes on.
    pub async fn leave(self) {
        let Self {
            shared,
            mut state,
            stop,
        } = self;
        drop(stop);
        // What was not taken yet is not in use.
        drop(shared.take());
        while state.changed().await.is_ok() {}
    }
}
