//! The line in which requests wait for the session's task, in the order in which they were made.
//!
//! A request takes its place when it is made, not when its future is first polled. The line is
//! bounded, in requests and in bytes, counted from joining until the answer. What is made beyond the
//! bound keeps its place but not its bytes: those stay with the caller's future ("parked") until
//! there is room, so that a caller who awaits is held up, and dropping the future frees them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quorate_protocol::OpCode;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::error::{Error, Target};
use crate::watch::registry::{Interest, WatcherId};

/// What a call costs in the line beside its body, in bytes: about what its records take.
const CALL_OVERHEAD: usize = 256;

/// How much may be asked and not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub requests: usize,
    /// Bytes of requests, with 256 for each beside its own.
    pub bytes: usize,
}

impl Default for Limits {
    /// 4,096 requests, 16 MiB.
    fn default() -> Self {
        Self {
            requests: 4096,
            bytes: 16 << 20,
        }
    }
}

/// A request on its way, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) op: OpCode,
    /// Without the header.
    pub(crate) body: Bytes,
    /// How long it waits for a connection, from when it was made or its connection was lost. `None`:
    /// it fails as soon as there is none.
    pub(crate) patience: Option<Duration>,
    /// When it fails unless it could be sent before, while there is no connection.
    pub(crate) send_by: Option<Instant>,
    /// Whether it was sent on an earlier connection.
    pub(crate) was_sent: bool,
    /// Whether it may be sent again when it is not known whether it was applied.
    pub(crate) may_repeat: bool,
    /// What is to be watched if it succeeds.
    pub(crate) interest: Option<Interest>,
    /// `None` if nobody waits for the answer.
    pub(crate) reply: Option<oneshot::Sender<Result<Answer, Error>>>,
}

impl Call {
    pub(crate) fn cost(&self) -> usize {
        CALL_OVERHEAD + self.body.len()
    }

    /// Whether whoever made it has lost interest.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    /// Whether it was to be sent by now.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.send_by.is_none_or(|send_by| send_by <= now)
    }

    pub(crate) fn answer(self, answer: Result<Answer, Error>) {
        if let Some(reply) = self.reply {
            // The caller may have lost interest.
            reply.send(answer).ok();
        }
    }
}

/// What came back behind a header with the error code 0.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    /// The request had been sent on an earlier connection too.
    pub(crate) repeated: bool,
}

/// What the session's task is given to do.
#[derive(Debug)]
pub(crate) enum Work {
    Call(Call),
    /// Somebody has stopped to watch.
    Unwatch(WatcherId),
    /// Proves who we are, now and on every later connection.
    Authenticate {
        scheme: String,
        proof: Bytes,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Ends the task.
    Close(Closing),
}

/// How the task is to end. Of two the greater counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closing {
    /// Without the session: somebody else will go on with it.
    Task,
    /// With the session.
    Session,
}

/// Calls that hold no room in the line any more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Released {
    requests: usize,
    bytes: usize,
}

impl Released {
    pub(crate) fn add(&mut self, call: &Call) {
        self.requests += 1;
        self.bytes += call.cost();
    }
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Expired,
    AuthFailed,
    Closed,
}

impl Over {
    pub(crate) fn error(self, target: Target, sent: bool) -> Error {
        match self {
            Self::Expired => Error::SessionExpired { target, sent },
            Self::AuthFailed => Error::AuthFailed { target, sent },
            Self::Closed => Error::Closed { target, sent },
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    limits: Limits,
    state: Mutex<State>,
    /// There is work.
    work: Notify,
    /// How many want the lease kept as far ahead as can be.
    lease_keepers: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    work: VecDeque<Work>,
    /// Of calls in the line, or taken and not answered yet.
    requests: usize,
    bytes: usize,
    /// In the order of their places; those whose caller has gone are empty.
    parked: VecDeque<Arc<Parked>>,
    /// How many of them are known to be empty.
    empty: usize,
    over: Option<Over>,
    /// Somebody has asked for the end: what is there is done, and nothing joins any more.
    closing: bool,
}

/// A call that is not in the line yet.
#[derive(Debug)]
pub(crate) struct Parked(Mutex<Option<Call>>);

impl Line {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            work: Notify::new(),
            lease_keepers: AtomicUsize::new(0),
        }
    }

    /// See [`crate::Client::keep_lease`]. The task is woken: its next heartbeat is due earlier.
    pub(crate) fn keep_lease(&self) {
        self.lease_keepers.fetch_add(1, Ordering::Relaxed);
        self.work.notify_one();
    }

    /// Undoes one [`Line::keep_lease`].
    pub(crate) fn let_lease_go(&self) {
        self.lease_keepers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn is_lease_kept(&self) -> bool {
        self.lease_keepers.load(Ordering::Relaxed) > 0
    }

    /// Gives a call its place. `Some` while it is parked: it must be handed to [`Line::forget`] if
    /// its caller goes away.
    pub(crate) fn join(&self, call: Call) -> Option<Arc<Parked>> {
        let mut state = self.state.lock();
        let closing = state.closing.then_some(Over::Closed);
        if let Some(over) = state.over.or(closing) {
            drop(state);
            let error = over.error(call.target.clone(), false);
            call.answer(Err(error));
            return None;
        }
        if !state.parked.is_empty() || !state.has_room(&self.limits, &call) {
            let parked = Arc::new(Parked(Mutex::new(Some(call))));
            state.parked.push_back(Arc::clone(&parked));
            return Some(parked);
        }
        state.admit(call);
        drop(state);
        self.work.notify_one();
        None
    }

    /// Adds work that is no call. It counts for nothing: there is at most one of it for each thing
    /// that somebody holds.
    pub(crate) fn add(&self, work: Work) {
        let mut state = self.state.lock();
        if let Some(over) = state.over {
            drop(state);
            if let Work::Authenticate { reply, .. } = work {
                let target = Target::write("authenticate", "");
                reply.send(Err(over.error(target, false))).ok();
            }
            return;
        }
        state.closing |= matches!(work, Work::Close(_));
        state.work.push_back(work);
        drop(state);
        self.work.notify_one();
    }

    /// Frees what a parked call holds. Its place is given up.
    pub(crate) fn forget(&self, parked: &Parked) {
        let call = parked.0.lock().take();
        if call.is_none() {
            return;
        }
        let mut state = self.state.lock();
        state.empty += 1;
        // Each removal is paid for by as many that came before.
        if state.empty > state.parked.len() / 2 {
            state.parked.retain(|parked| parked.0.lock().is_some());
            state.empty = 0;
        }
        // It may have been the one that was too large for what room there is.
        self.admit_parked(state);
    }

    /// Resolves when there is work. Cancel safe.
    pub(crate) async fn wait(&self) {
        self.work.notified().await;
    }

    /// Takes all work there is.
    pub(crate) fn take(&self, into: &mut VecDeque<Work>) {
        let mut state = self.state.lock();
        if into.is_empty() {
            std::mem::swap(into, &mut state.work);
        } else {
            into.append(&mut state.work);
        }
    }

    /// Makes room: so many calls were answered.
    pub(crate) fn release(&self, released: Released) {
        if released.requests == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.requests -= released.requests;
        state.bytes -= released.bytes;
        self.admit_parked(state);
    }

    /// Lets those in for which there is room.
    fn admit_parked(&self, mut state: MutexGuard<'_, State>) {
        let mut admitted = false;
        while let Some(first) = state.parked.front() {
            let mut slot = first.0.lock();
            let Some(call) = slot.take() else {
                drop(slot);
                state.parked.pop_front();
                state.empty = state.empty.saturating_sub(1);
                continue;
            };
            if !state.has_room(&self.limits, &call) {
                *slot = Some(call);
                break;
            }
            drop(slot);
            state.parked.pop_front();
            state.admit(call);
            admitted = true;
        }
        drop(state);
        if admitted {
            self.work.notify_one();
        }
    }

    /// Counts a call that did not come through the line.
    pub(crate) fn count(&self, call: &Call) {
        let mut state = self.state.lock();
        state.requests += 1;
        state.bytes += call.cost();
    }

    /// Takes the parked calls out that were to be sent by now.
    pub(crate) fn take_late(&self, now: Instant, late: &mut Vec<Call>) {
        let mut state = self.state.lock();
        state.parked.retain(|parked| {
            let mut slot = parked.0.lock();
            if slot.as_ref().is_some_and(|call| call.is_late(now)) {
                late.extend(slot.take());
            }
            slot.is_some()
        });
        state.empty = 0;
        self.admit_parked(state);
    }

    /// The connection was lost: the time of the parked calls begins anew.
    pub(crate) fn wait_from(&self, now: Instant) {
        let state = self.state.lock();
        for parked in &state.parked {
            if let Some(call) = parked.0.lock().as_mut() {
                call.wait_from(now);
            }
        }
    }

    /// When the next parked call has to be sent.
    pub(crate) fn next_late(&self) -> Option<Instant> {
        let state = self.state.lock();
        let parked = state.parked.iter();
        parked
            .filter_map(|parked| parked.0.lock().as_ref()?.send_by)
            .min()
    }

    /// Whether nothing holds any room.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.requests == 0 && state.bytes == 0 && state.parked.is_empty()
    }

    /// Ends the line: everything in it is returned, to be answered, and nothing joins any more.
    pub(crate) fn end(&self, over: Over) -> Vec<Work> {
        let mut state = self.state.lock();
        state.over.get_or_insert(over);
        self.drain(&mut state)
    }

    /// Empties the line.
    pub(crate) fn clear(&self) -> Vec<Work> {
        self.drain(&mut self.state.lock())
    }

    fn drain(&self, state: &mut State) -> Vec<Work> {
        let mut rest: Vec<Work> = state.work.drain(..).collect();
        for work in &rest {
            if let Work::Call(call) = work {
                state.requests -= 1;
                state.bytes -= call.cost();
            }
        }
        let parked = state
            .parked
            .drain(..)
            .filter_map(|parked| parked.0.lock().take());
        rest.extend(parked.map(Work::Call));
        state.empty = 0;
        rest
    }
}

impl State {
    /// A call that is larger than the bound is let in when it is alone.
    fn has_room(&self, limits: &Limits, call: &Call) -> bool {
        self.requests == 0
            || (self.requests < limits.requests && self.bytes + call.cost() <= limits.bytes)
    }

    fn admit(&mut self, call: Call) {
        self.requests += 1;
        self.bytes += call.cost();
        self.work.push_back(Work::Call(call));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(length: usize) -> (Call, oneshot::Receiver<Result<Answer, Error>>) {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            target: Target::write("set", "/a"),
            op: OpCode::SetData,
            body: Bytes::from(vec![0; length]),
            patience: None,
            send_by: None,
            was_sent: false,
            may_repeat: false,
            interest: None,
            reply: Some(reply),
        };
        (call, answer)
    }

    fn lengths(line: &Line) -> Vec<usize> {
        let mut work = VecDeque::new();
        line.take(&mut work);
        work.iter()
            .map(|work| match work {
                Work::Call(call) => call.body.len(),
                other => panic!("not a call: {other:?}"),
            })
            .collect()
    }

    fn line(requests: usize) -> Line {
        Line::new(Limits {
            requests,
            bytes: 1 << 20,
        })
    }

    #[test]
    fn calls_beyond_the_bound_keep_their_places() {
        let line = line(2);
        let mut parked = Vec::new();
        let mut answers = Vec::new();
        for length in 1..=5 {
            let (call, answer) = call(length);
            parked.push(line.join(call));
            answers.push(answer);
        }
        assert_eq!(lengths(&line), [1, 2]);
        assert_eq!(parked.iter().flatten().count(), 3);
        line.release(Released {
            requests: 1,
            bytes: CALL_OVERHEAD + 1,
        });
        assert_eq!(lengths(&line), [3]);
        line.release(Released {
            requests: 2,
            bytes: 2 * CALL_OVERHEAD + 5,
        });
        assert_eq!(lengths(&line), [4, 5]);
    }

    #[test]
    fn a_small_call_does_not_overtake_a_large_one_that_waits_for_room() {
        let line = Line::new(Limits {
            requests: 10,
            bytes: 2000,
        });
        let (first, _a) = call(1000);
        let (large, _b) = call(1500);
        let (small, _c) = call(1);
        assert!(line.join(first).is_none());
        assert!(line.join(large).is_some());
        assert!(line.join(small).is_some());
        assert_eq!(lengths(&line), [1000]);
        line.release(Released {
            requests: 1,
            bytes: CALL_OVERHEAD + 1000,
        });
        assert_eq!(lengths(&line), [1500]);
    }

    #[test]
    fn a_call_larger_than_the_bound_goes_alone() {
        let line = Line::new(Limits {
            requests: 10,
            bytes: 100,
        });
        let (large, _answer) = call(5000);
        assert!(line.join(large).is_none());
        assert_eq!(lengths(&line), [5000]);
    }

    #[test]
    fn a_parked_call_whose_caller_goes_away_leaves_nothing() {
        let line = line(1);
        let (first, _answer) = call(1);
        assert!(line.join(first).is_none());
        for _ in 0..1000 {
            let (next, _) = call(100);
            let parked = line.join(next).expect("the line is full");
            line.forget(&parked);
            line.forget(&parked);
        }
        assert!(line.state.lock().parked.len() < 3);
        let (last, _answer) = call(7);
        line.join(last);
        lengths(&line);
        line.release(Released {
            requests: 1,
            bytes: CALL_OVERHEAD + 1,
        });
        assert_eq!(lengths(&line), [7]);
    }

    #[test]
    fn parked_calls_whose_time_is_up_leave_nothing_and_make_way() {
        let line = Line::new(Limits {
            requests: 10,
            bytes: 2000,
        });
        let now = Instant::now();
        let (first, _a) = call(1000);
        line.join(Call {
            send_by: Some(now + Duration::from_secs(9)),
            ..first
        });
        for _ in 0..100 {
            // It is to fail at once.
            let (large, _b) = call(1500);
            assert!(line.join(large).is_some());
            let (small, _c) = call(1);
            line.join(Call {
                send_by: Some(now + Duration::from_secs(9)),
                ..small
            });
            let mut late = Vec::new();
            line.take_late(now, &mut late);
            assert_eq!(late.len(), 1);
            assert!(line.state.lock().parked.is_empty());
            assert_eq!(lengths(&line).last(), Some(&1), "there is room for it");
            line.release(Released {
                requests: 1,
                bytes: CALL_OVERHEAD + 1,
            });
        }
    }

    #[test]
    fn an_ended_line_gives_back_all_and_takes_no_more() {
        let line = line(1);
        let (first, _a) = call(1);
        let (second, _b) = call(2);
        line.join(first);
        line.join(second);
        assert_eq!(line.end(Over::Expired).len(), 2);
        let (third, mut answer) = call(3);
        assert!(line.join(third).is_none());
        let error = answer
            .try_recv()
            .expect("it is answered")
            .expect_err("it fails");
        assert!(matches!(error, Error::SessionExpired { sent: false, .. }));
    }
}
