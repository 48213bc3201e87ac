//! Status for administrators: never a path to the tree.

pub mod four_letter;
mod listings;
mod monitor;
mod status;
