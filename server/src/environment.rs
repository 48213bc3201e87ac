//! What a server takes from outside: time, randomness, network and disk.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::network::{Network, SystemNetwork};
use crate::random::{Randomness, SystemRandomness};
use crate::replica::Witness;
use crate::storage::file::Disk;

/// The world around one server.
#[derive(Clone, Debug)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub randomness: Arc<dyn Randomness>,
    pub network: Arc<dyn Network>,
    /// `None`: the operating system's, with a lock on the folders that keeps other processes out.
    pub disk: Option<Arc<dyn Disk>>,
    /// Who is told of all that is applied, if anybody.
    pub witness: Option<Arc<dyn Witness>>,
}

impl Environment {
    /// The machine's.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            randomness: Arc::new(SystemRandomness),
            network: Arc::new(SystemNetwork),
            disk: None,
            witness: None,
        }
    }
}
