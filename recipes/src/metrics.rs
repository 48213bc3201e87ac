//! What a service can count.

use std::time::Duration;

use crate::lease::StopReason;

/// Is told what becomes of locks and elections. Called on the tasks that do the work: it must not
/// block.
pub trait Metrics: Send + Sync {
    /// Something was granted, after so long in line.
    fn on_granted(&self, path: &str, waited: Duration) {
        let _ = (path, waited);
    }

    /// A holder is told to stop.
    fn on_stopping(&self, path: &str, reason: &StopReason) {
        let _ = (path, reason);
    }

    /// A holder holds no more, for this reason, after so long. [`StopReason::is_loss`] tells what was
    /// lost from what was given back.
    fn on_ended(&self, path: &str, reason: &StopReason, held: Duration) {
        let _ = (path, reason, held);
    }
}
