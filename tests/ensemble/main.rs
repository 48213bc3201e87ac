//! Ensembles of the real binary: what must hold when servers are killed, frozen, stopped and cut off
//! from each other while clients work.
//!
//! Every test records what its clients were told, and has it judged (`quorate_tests::checker`). It
//! makes a few faults, chosen by a seed it prints; `QUORATE_FAULTS=50` makes that many in each test.
//! `QUORATE_ENSEMBLE=zookeeper` has Apache ZooKeeper stand the same tests, as far as it promises the
//! same. What cannot be tested on a machine is skipped where everybody can see it;
//! `QUORATE_INTEGRATION=required` makes that a failure.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod clients;
mod clocks;
mod disks;
mod full_disks;
mod handing_over;
mod joining;
mod kills;
mod members;
mod partitions;
mod pauses;
mod read_only;
mod rejoining;
mod rolling;
mod rounds;
mod scene;
mod seven;
mod snapshots;
