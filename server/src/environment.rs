//! What a server takes from outside: time, randomness, network and disk.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::network::{Network, SystemNetwork};
use crate::random::{Randomness, SystemRandomness};
use crate::storage::file::Disk;

/// The world around one server.
#[derive(Clone, Debug)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub randomness: Arc<dyn Randomness>,
    pub network: Arc<dyn Network>,
    /// `None`: the operating system's, with a lock on the folders that keeps other processes out.
    pub disk: Option<Arc<dyn Disk>>,
}

impl Environment {
    /// The machine's.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            randomness: Arc::new(SystemRandomness),
            network: Arc::new(SystemNetwork),
            disk: None,
        }
    }
}
