//! Locks, leader election, membership, shared state and queues that hold what they promise, on any
//! server that speaks ZooKeeper's protocol: Quorate, or Apache ZooKeeper 3.6 or later.
//!
//! # A lock
//!
//! ```no_run
//! # use quorate_client::Client;
//! # use quorate_recipes::{Error, Mutex};
//! # async fn nightly(client: &Client, mut pages: Pages) -> Result<(), Error> {
//! let lock = Mutex::new(client, "/locks/nightly-report").identity("machine-7");
//! lock.run(async |lease| {
//!     while let Some(page) = lease.until_stopping(pages.next()).await {
//!         pages.store(page, lease.token().get()).await; // a store that refuses older tokens
//!     }
//! }).await?;
//! # Ok(())
//! # }
//! # struct Pages;
//! # impl Pages {
//! #     async fn next(&mut self) -> u32 { 0 }
//! #     async fn store(&mut self, _: u32, _: u64) {}
//! # }
//! ```
//!
//! The work is told to stop when the session was not confirmed for two thirds of its timeout, and
//! dropped before the session can have ended. The next one comes in when the work has ended. For what
//! was sent before and arrives late, there is the [token](FencingToken), or
//! [`Lease::transaction`] for what is kept in znodes.
//!
//! # An election
//!
//! ```no_run
//! # use quorate_client::Client;
//! # use quorate_recipes::Election;
//! # async fn billing(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
//! let election = Election::new(client, "/election/billing").identity("pod-7");
//! election.run(|term| async move {
//!     let mut db = Db::open_fenced(term.token().get()).await?; // shows the token, then reads
//!     while let Some(job) = term.until_stopping(db.next_job()).await {
//!         db.apply(job).await?;
//!     }
//!     Ok::<_, std::io::Error>(())
//! }).await?;
//! # Ok(())
//! # }
//! # struct Db;
//! # impl Db {
//! #     async fn open_fenced(_: u64) -> Result<Self, std::io::Error> { Ok(Self) }
//! #     async fn next_job(&mut self) -> u64 { 1 }
//! #     async fn apply(&mut self, _: u64) -> Result<(), std::io::Error> { Ok(()) }
//! # }
//! ```
//!
//! It stands again, term after term, until the work ends by itself. The closure is called for each term,
//! and clones what it takes along: `|term| { let db = db.clone(); async move { .. } }`.
//!
//! # All recipes
//!
//! | to | use |
//! | --- | --- |
//! | have one at a time do something | [`Mutex`] |
//! | have one of several do it, always; know who | [`Election`], [`Election::observe`] |
//! | read together, write alone | [`ReadWriteLock`] |
//! | have so many at a time | [`Semaphore`] |
//! | hold several locks, without deadlock | [`MultiLock`] |
//! | know who is there | [`Group`] |
//! | divide shards among the members of a group | [`Partitioner`] |
//! | keep an ephemeral znode, whatever happens | [`PersistentNode`] |
//! | find an instance of a service | [`Registry`] |
//! | share a value, and follow it | [`SharedValue`] |
//! | count | [`Counter`], [`Number`] |
//! | have unique ids | [`IdBlocks`] |
//! | stop all until somebody says go | [`Barrier`] |
//! | begin and end together | [`DoubleBarrier`] |
//! | hand out work | [`Queue`], [`PriorityQueue`], [`DelayQueue`] |
//! | have all of several do it, or none | [`TwoPhaseCommit`] |
//!
//! [`Ring`] is an election to learn from, not to use. A subtree that is kept in memory is [`Client::tree`](quorate_client::Client::tree).
//!
//! The folder `examples` has programs to start from: a nightly job, payments that are made once by a
//! leader that was stopped, a service registry, a rolling configuration, a worker pool. The folder
//! `docs/recipes` of the repository explains fencing and timing, and what is called how in Curator, kazoo,
//! etcd and Kubernetes leases.
//!
//! # What to know
//!
//! - **One client for each process**, cloned to wherever it is used: its session is what holds. Two
//!   clients are two holders.
//! - **End in order**: [`Client::close`](quorate_client::Client::close) before `main` returns gives back
//!   all that is held. A process that just ends leaves it to the session timeout.
//! - **Sessions expire.** Build the client with
//!   [`OnExpiry::NewSession`](quorate_client::OnExpiry::NewSession): who waited stands in line again
//!   (see [`OnSessionLoss`]), who was registered is again, [`Election::run`] goes on. What was held is
//!   lost in any case, and its work was stopped. With the default, `Stay`, everything fails from then
//!   on, and the process should end.
//! - **Identity** is what others see of a holder: a host or pod name. The session's id by default.
//! - **Time.** [`Timing`] says when the work is told and dropped. Work that does not await cannot be
//!   dropped: [`Overrun::Abort`].
//! - **Spawned tasks** belong to the work if they are spawned by [`Lease::spawn`]; others go on.
//! - **Dropping a future** at any point is safe: no place in a line stays behind, no item of a queue is
//!   lost. Dropping a guard gives back what it holds, in the background.
//! - **Paths** need not exist. A recipe marks its znode, and refuses one that is another recipe's or
//!   holds what it has not written ([`Error::OtherRecipe`], [`Error::Foreign`]). Children that are not
//!   known are left alone.
//! - **Other libraries**: [`Naming`] and [`election::Compat`] say which of them exclude us.
//! - **Errors** say whether what was asked took place: [`Error::outcome`].
//!
//! # What it does not promise
//!
//! - That nothing a former holder has sent arrives later. No lock can; that is what tokens are for, and
//!   they help where the store looks at them.
//! - That locks are re-entrant: who asks again waits for itself.
//! - Throughput. Each grant, item and change is a write on the disks of a majority.
//! - Anything while there is no majority of servers: nobody gets a lock then, and who holds one loses
//!   it in time.

#![warn(missing_docs)]

mod acquire;
mod barrier;
mod cas;
mod contenders;
mod counter;
mod delay_queue;
mod directory;
mod double_barrier;
pub mod election;
mod error;
mod follow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grant;
mod group;
mod guard;
mod id_blocks;
mod integer;
mod items;
mod lease;
mod line;
mod mark;
mod metrics;
mod multi_lock;
mod mutex;
mod naming;
mod number;
mod options;
mod partitioner;
mod patience;
mod persistent_node;
mod priority_queue;
mod queue;
mod read_write_lock;
mod record;
mod registry;
mod revocation;
mod ring;
mod semaphore;
mod timing;
mod two_phase_commit;
mod value;
mod view;
mod waiting;

pub use acquire::Acquire;
pub use barrier::Barrier;
pub use cas::Version;
pub use counter::{Counter, CounterFormat};
pub use delay_queue::DelayQueue;
pub use directory::Kind;
pub use double_barrier::{DoubleBarrier, Inside};
pub use election::{Election, Leadership, Term};
pub use error::Error;
pub use group::{Group, GroupChange, GroupChanges, Join, Member, Membership};
pub use guard::Guard;
pub use id_blocks::IdBlocks;
pub use items::{Item, Taken};
pub use lease::{FencingToken, HeldBy, Lease, StopReason};
pub use metrics::Metrics;
pub use multi_lock::{AcquireAll, MultiGuard, MultiLease, MultiLock};
pub use mutex::Mutex;
pub use naming::Naming;
pub use number::Number;
pub use options::{OnSessionLoss, Overrun};
pub use partitioner::{
    Assignment, Partition, Partitioner, PartitionerState, Partitions, View, balanced,
};
pub use persistent_node::{Absent, KeptNode, NodeState, NodeStates, PersistentNode};
pub use priority_queue::PriorityQueue;
pub use queue::{Queue, Take, TakeLocked};
pub use read_write_lock::ReadWriteLock;
pub use registry::{
    DownPolicy, Instance, Registration, Registry, RegistryChange, RegistryChanges, Selector,
    Service, Strategy,
};
pub use ring::{Ring, RingMessage};
pub use semaphore::Semaphore;
pub use timing::{Timing, TimingError};
pub use tokio_util::sync::CancellationToken;
pub use two_phase_commit::{Ballot, Decision, Participant, Proposal, TwoPhaseCommit, Vote};
pub use value::{Format, SharedValue, Values, Versioned};
pub use view::{Contender, Holder};

/// The code in these pages is compiled.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../docs/recipes/README.md")]
    mod start {}
    #[doc = include_str!("../../docs/recipes/fencing.md")]
    mod fencing {}
}
