//! What a client can be asked to count.

use std::fmt::Debug;
use std::time::Duration;

use crate::error::Outcome;
use crate::session::state::SessionState;

/// Is told what happens. Called from the session's task and from callers' tasks: it must not wait.
///
/// Every method does nothing unless it is written.
pub trait Metrics: Debug + Send + Sync + 'static {
    /// A request has ended: `outcome` is `Applied` for one that succeeded. `took` is from the
    /// moment it was made.
    fn on_request(&self, operation: &'static str, outcome: Outcome, took: Duration) {
        let _ = (operation, outcome, took);
    }

    /// The session's state has changed.
    fn on_state(&self, state: SessionState) {
        let _ = state;
    }

    /// An attempt to connect to one host has failed.
    fn on_connect_failure(&self) {}
}
