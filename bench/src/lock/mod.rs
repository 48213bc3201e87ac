//! How fast a lock goes from hand to hand: contenders, each with a session of its own, that queue
//! for one lock, and on getting it release it and queue again.
//!
//! That two of them hold it at a time fails the run. What is measured is how often it changes
//! hands, and how long from the moment its holder lets go until the next one knows it has it.

pub(crate) mod recipe;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::driver::Outcome;
use crate::error::BenchError;
use crate::tally::Tally;

#[derive(Debug)]
pub(crate) struct Contest {
    tally: Tally,
    is_held: bool,
    released: Option<Instant>,
}

impl Contest {
    pub(crate) fn new(warmup: Duration, span: Duration) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            tally: Tally::new(warmup, span),
            is_held: false,
            released: None,
        }))
    }

    /// To be called by a contender that has been told that the lock is its own. It lets go at once:
    /// next it calls [`Self::release`], then it tells the server.
    pub(crate) fn acquire(&mut self) -> Result<(), BenchError> {
        if self.is_held {
            return Err(BenchError::LockHeldTwice);
        }
        self.is_held = true;
        let now = Instant::now();
        if let Some(released) = self.released {
            self.tally.record(released, now);
        }
        Ok(())
    }

    pub(crate) fn release(&mut self) {
        self.is_held = false;
        self.released = Some(Instant::now());
    }

    /// Whether to stay away after letting go. Who waits stays until it has had its turn.
    pub(crate) fn is_over(&self) -> bool {
        self.tally.is_over()
    }

    /// What was measured, once all contenders have gone.
    pub(crate) fn outcome(contest: Rc<RefCell<Self>>) -> Outcome {
        let contest = Rc::into_inner(contest).expect("the contenders have gone");
        contest.into_inner().tally.into_outcome()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_two_hold_fails_the_run() {
        let contest = Contest::new(Duration::ZERO, Duration::from_secs(60));
        let mut contest = contest.borrow_mut();
        contest.acquire().unwrap();
        contest.release();
        contest.acquire().unwrap();
        let twice = contest.acquire();
        assert!(matches!(twice, Err(BenchError::LockHeldTwice)));
    }

    #[test]
    fn a_hand_over_is_from_one_contender_to_the_next() {
        let contest = Contest::new(Duration::ZERO, Duration::from_secs(60));
        for _ in 0..4 {
            contest.borrow_mut().acquire().unwrap();
            contest.borrow_mut().release();
        }
        // Nobody handed it to the first.
        assert_eq!(Contest::outcome(contest).replies, 3);
    }
}
