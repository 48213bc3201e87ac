//! Each fault is brought about, and seen from a raw connection to have happened, and nothing else.

mod connections;
mod conversation;
mod ensembles;
mod servers;

use std::time::Duration;

/// Long enough not to matter.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
