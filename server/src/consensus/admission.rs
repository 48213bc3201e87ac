//! How much may be on its way through the log at once.
//!
//! The engine's queues count messages, not bytes, so a few hundred large writes could fill the
//! memory. Commands are admitted here before they are proposed and released when they are applied.
//! At the bound, connections stop reading until there is room: clients feel a slow server, not an
//! error.

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Counts what is under way.
#[derive(Debug)]
pub struct Admission {
    commands_max: usize,
    bytes_max: usize,
    used: Mutex<Used>,
    freed: Notify,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    commands: usize,
    bytes: usize,
    /// Somebody was turned away since the last release.
    refused: bool,
}

impl Admission {
    pub fn new(commands_max: usize, bytes_max: usize) -> Self {
        Self {
            commands_max,
            bytes_max,
            used: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Takes room for a command of `bytes`, if there is any. A command larger than the bound is let
    /// through when nothing else is under way, or it would wait for ever.
    pub fn try_take(&self, bytes: usize) -> bool {
        let mut used = self.used.lock();
        let fits = used.commands < self.commands_max && used.bytes + bytes <= self.bytes_max;
        if fits || used.commands == 0 {
            used.commands += 1;
            used.bytes += bytes;
            true
        } else {
            used.refused = true;
            false
        }
    }

    /// Gives back the room of `commands` that are applied, of `bytes` together.
    pub fn release(&self, commands: usize, bytes: usize) {
        let mut used = self.used.lock();
        used.commands = used.commands.saturating_sub(commands);
        used.bytes = used.bytes.saturating_sub(bytes);
        if std::mem::take(&mut used.refused) {
            drop(used);
            self.freed.notify_waiters();
        }
    }

    /// Resolves when room has been given back after the future was enabled. Enable it before
    /// [`Self::try_take`], or a release in between goes unnoticed.
    pub fn room(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Commands under way.
    pub fn outstanding(&self) -> usize {
        self.used.lock().commands
    }
}

#[cfg(test)]
mod tests {
    use super::Admission;

    #[test]
    fn commands_are_refused_beyond_either_bound_and_fit_again_after_a_release() {
        let admission = Admission::new(2, 100);
        assert!(admission.try_take(10));
        assert!(!admission.try_take(91), "bytes");
        assert!(admission.try_take(90));
        assert!(!admission.try_take(0), "commands");
        admission.release(1, 90);
        assert!(admission.try_take(5));
        assert_eq!(admission.outstanding(), 2);
    }

    #[test]
    fn a_command_above_the_bound_passes_when_it_is_alone() {
        let admission = Admission::new(2, 100);
        assert!(admission.try_take(1000));
        assert!(!admission.try_take(1));
        admission.release(1, 1000);
        assert!(admission.try_take(1));
    }
}
