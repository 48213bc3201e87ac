//! Where Quorate is meant to differ from Apache ZooKeeper 3.8.0, line by line, with the reason.
//!
//! The list is checked in both directions: the reference has to print its line, Quorate its own.

use quorate_tests::transcript::Difference;

pub(crate) const LISTED: &[Difference] = &[];
