//! How fast locks go from hand to hand: contenders, each with a session of its own, that queue
//! for a lock, and on getting it release it and queue again. There may be several locks, each with
//! contenders of its own.
//!
//! That two hold one lock at a time fails the run. What is measured is how often locks change
//! hands, and how long from the moment its holder lets go until the next one knows it has it.

pub(crate) mod recipe;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::driver::Outcome;
use crate::error::BenchError;
use crate::etcd::load::join;
use crate::process;
use crate::tally::Tally;

/// How many locks, and how many contend for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) locks: usize,
    pub(crate) contenders: usize,
}

/// For one lock.
#[derive(Debug)]
pub(crate) struct Contest {
    /// Of all locks.
    tally: Rc<RefCell<Tally>>,
    is_held: bool,
    released: Option<Instant>,
}

impl Contest {
    fn new(tally: Rc<RefCell<Tally>>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            tally,
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
            self.tally.borrow_mut().record(released, now);
        }
        Ok(())
    }

    pub(crate) fn release(&mut self) {
        self.is_held = false;
        self.released = Some(Instant::now());
    }

    /// Whether to stay away after letting go. Who waits stays until it has had its turn.
    pub(crate) fn is_over(&self) -> bool {
        self.tally.borrow().is_over()
    }
}

/// Lets each of `contenders` run with the contest for its lock (they stand lock by lock), and
/// returns what was measured once all have gone, and the processor time that the servers used
/// meanwhile.
pub(crate) async fn contend<C, F>(
    contenders: Vec<C>,
    crowd: Crowd,
    pids: &[u32],
    warmup: Duration,
    span: Duration,
    run: impl Fn(C, Rc<RefCell<Contest>>) -> F,
) -> Result<(Outcome, Option<Duration>), BenchError>
where
    F: Future<Output = Result<(), BenchError>> + 'static,
{
    let cpu_from = process::cpu_of(pids)?;
    let tally = Tally::new(warmup, span).shared();
    let contests: Vec<_> = (0..crowd.locks)
        .map(|_| Contest::new(tally.clone()))
        .collect();
    let mut running = JoinSet::new();
    for (index, contender) in contenders.into_iter().enumerate() {
        let contest = contests[index / crowd.contenders].clone();
        running.spawn_local(run(contender, contest));
    }
    join(running).await?;
    let cpu = process::cpu_of(pids)?.zip(cpu_from);
    let outcome = tally.replace(Tally::new(warmup, span)).into_outcome();
    Ok((outcome, cpu.map(|(to, from)| to - from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_two_hold_fails_the_run() {
        let contest = Contest::new(Tally::new(Duration::ZERO, Duration::from_secs(60)).shared());
        let mut contest = contest.borrow_mut();
        contest.acquire().unwrap();
        contest.release();
        contest.acquire().unwrap();
        let twice = contest.acquire();
        assert!(matches!(twice, Err(BenchError::LockHeldTwice)));
    }

    #[test]
    fn a_hand_over_is_from_one_contender_to_the_next() {
        let tally = Tally::new(Duration::ZERO, Duration::from_secs(60)).shared();
        let contest = Contest::new(tally.clone());
        for _ in 0..4 {
            contest.borrow_mut().acquire().unwrap();
            contest.borrow_mut().release();
        }
        // Nobody handed it to the first.
        drop(contest);
        let tally = Rc::into_inner(tally).unwrap().into_inner();
        assert_eq!(tally.into_outcome().replies, 3);
    }
}
