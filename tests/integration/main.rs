//! The real binary as a child process: what must hold when it is killed, when its disk fails, when
//! its clients are hostile and when the clock jumps.
//!
//! Every test has its own server on its own loopback address. What cannot be tested on a machine is
//! skipped where everybody can see it; `QUORATE_INTEGRATION=required` makes that a failure.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod clock;
mod disk;
mod durability;
mod harness;
mod hostile;
mod load;
mod model;
mod overload;
mod sessions;
mod start;
mod stop;
