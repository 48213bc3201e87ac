//! Where everybody writes down what they did and were told.
//!
//! Its clock gives each moment once: what was recorded first has the lower one, even where virtual
//! time stands still, so the order of what happened on one thread is never lost.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_checker::History;
use quorate_checker::history::{Moment, Operation, SessionRecord, WatchEvent};
use tokio::time::Instant;

/// A history in the making. Clones record into the same one.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    now: Box<dyn Fn() -> Moment + Send + Sync>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    history: History,
    last: Moment,
    connections: u32,
    complaints: Vec<String>,
}

/// Complaints beyond these say nothing new.
const COMPLAINTS_MAX: usize = 64;

impl Recorder {
    /// Counts moments from now on, on the runtime's clock: call it inside of the runtime.
    #[must_use]
    pub fn new() -> Self {
        let begun = Instant::now();
        Self::with_clock(move || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(Moment::MAX))
    }

    /// With a clock that never goes back.
    #[must_use]
    pub fn with_clock(now: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            now: Box::new(now),
            book: Mutex::default(),
        }))
    }

    /// Later than any moment that was given out before.
    #[must_use]
    pub fn now(&self) -> Moment {
        let now = (self.0.now)();
        let mut book = self.0.book.lock();
        book.last = now.max(book.last + 1);
        book.last
    }

    /// The number of a new connection.
    pub(crate) fn connection(&self) -> u32 {
        let mut book = self.0.book.lock();
        book.connections += 1;
        book.connections
    }

    /// For what is recorded by others: faults, digests, the header.
    pub fn update<T>(&self, change: impl FnOnce(&mut History) -> T) -> T {
        change(&mut self.0.book.lock().history)
    }

    /// A rare state was reached.
    pub fn mark(&self, name: &str) {
        self.update(|history| history.mark(name));
    }

    pub(crate) fn operation(&self, operation: Operation) {
        self.update(|history| history.operations.push(operation));
    }

    pub(crate) fn event(&self, event: WatchEvent) {
        self.update(|history| history.events.push(event));
    }

    pub(crate) fn session(&self, record: SessionRecord) {
        self.update(|history| history.sessions.push(record));
    }

    /// Something that is wrong for sure, whatever a checker makes of the history.
    pub(crate) fn complain(&self, what: String) {
        let mut book = self.0.book.lock();
        if book.complaints.len() < COMPLAINTS_MAX {
            book.complaints.push(what);
        }
    }

    /// What the clients themselves found to be wrong.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.0.book.lock().complaints.clone()
    }

    /// A copy of what has been recorded up to now; its duration is up to now as well.
    #[must_use]
    pub fn history(&self) -> History {
        let now = self.now();
        self.update(|history| {
            history.header.duration = now;
            history.clone()
        })
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Recorder;

    #[test]
    fn a_clock_that_stands_still_gives_each_moment_once() {
        let recorder = Recorder::with_clock(|| 7);
        let (first, second) = (recorder.now(), recorder.clone().now());
        assert_eq!((first, second), (7, 8));
    }
}
