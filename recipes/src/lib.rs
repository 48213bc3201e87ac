//! Locks, leader election and shared state, on any server that speaks ZooKeeper's protocol.

#![warn(missing_docs)]

mod directory;
mod error;
mod follow;
mod group;
mod partitioner;
mod patience;
mod persistent_node;
mod registry;
mod ring;

pub use directory::Kind;
pub use error::Error;
pub use group::{Group, GroupChange, GroupChanges, Join, Member, Membership};
pub use partitioner::{
    Assignment, Partition, Partitioner, PartitionerState, Partitions, View, balanced,
};
pub use persistent_node::{Absent, KeptNode, NodeState, NodeStates, PersistentNode};
pub use registry::{
    DownPolicy, Instance, Registration, Registry, RegistryChange, RegistryChanges, Selector,
    Service, Strategy,
};
pub use ring::{Ring, RingMessage};
