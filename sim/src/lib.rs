//! Whole ensembles in deterministic simulation: the production server, with simulated time, randomness,
//! network and disks, on one thread, from one seed.
//!
//! [`run::run`] is one run. A seed decides everything: the same one gives the same trace, byte for byte.

pub mod clock;
pub mod disk;
pub mod ensemble;
pub mod nemesis;
pub mod network;
pub mod plan;
pub mod recipes;
pub mod run;
pub mod trace;
pub mod witness;
