//! The writes of this server's own clients, on their way to the log: each gets there exactly once.
//!
//! What a client has asked for stays here until it is applied. One task, the pump, sends it to the
//! leader, this server or another, in the order in which it came. When the leader changes, or the way
//! to it breaks, nobody can tell which of the writes under way are in the log. So a new *epoch*
//! begins: the first thing sent is a marker, a command like any other, and once that is applied here,
//! whatever older epochs have sent and was not applied never will be:
//!
//! - within a term, the leader appends in the order in which it is sent to, and it takes one stream
//!   of a server at a time, so all that came before the marker stands before it in the log or nowhere;
//! - across terms, every write names the term it is meant for, and no leader of another appends it.
//!
//! Then it is sent again, in its order. Clients notice a pause and nothing else. As a second line of
//! defence the state ignores a command that is not the next of its connection.
//!
//! The bound is the admission of commands: see [`super::Admission`]. Room is given back here, when a
//! command is applied.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_state::Origin;
use quorate_state::canary::{Canary, planted};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Admission;

/// Most bytes handed to the pump at once, unless one command is larger.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// What is proposed and not applied.
#[derive(Debug)]
pub struct Proposals {
    admission: Arc<Admission>,
    inner: Mutex<Inner>,
    /// There is something to send, or the epoch has ended.
    work: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// In the order in which they came.
    pending: VecDeque<Pending>,
    /// How many, from the front, this epoch has sent.
    sent: usize,
    /// How many, from the front, an older epoch has sent and may still be applied for.
    doubtful: usize,
    epoch: u64,
    /// Nothing that an older epoch has sent can be applied any more.
    settled: bool,
    /// Something that was sent is lost, though the way seems to be whole.
    broken: bool,
}

#[derive(Debug)]
struct Pending {
    connection: u64,
    sequence: u64,
    command: Bytes,
}

/// What the pump is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send these.
    Send(Vec<Bytes>),
    /// Nothing, until [`Proposals::work`].
    Wait,
    /// Begin another epoch.
    Renew,
}

impl Proposals {
    pub fn new(admission: Arc<Admission>) -> Self {
        Self {
            admission,
            inner: Mutex::default(),
            work: Notify::new(),
        }
    }

    /// Takes a command that has been admitted. Commands of one connection must come in their order.
    pub fn push(&self, connection: u64, sequence: u64, command: Bytes) {
        let mut inner = self.inner.lock();
        inner.pending.push_back(Pending {
            connection,
            sequence,
            command,
        });
        // With others waiting before it, the pump knows already.
        let is_first = inner.pending.len() == inner.sent + 1;
        drop(inner);
        if is_first {
            self.work.notify_one();
        }
    }

    /// Begins an epoch. Returns its number, and whether a marker has to be sent before anything else.
    pub fn begin_epoch(&self) -> (u64, bool) {
        let mut inner = self.inner.lock();
        inner.doubtful = inner.doubtful.max(inner.sent);
        inner.sent = 0;
        inner.epoch += 1;
        inner.broken = false;
        if planted(Canary::RetriedWriteDoneTwice) {
            inner.doubtful = 0;
        }
        inner.settled = inner.doubtful == 0;
        (inner.epoch, !inner.settled)
    }

    /// The marker of an epoch of this run was applied.
    pub fn on_marker(&self, epoch: u64) {
        let mut inner = self.inner.lock();
        if epoch == inner.epoch && !inner.settled {
            inner.settled = true;
            inner.doubtful = 0;
            drop(inner);
            self.work.notify_one();
        }
    }

    /// These commands of this run were applied without effect, because they were not the next of
    /// their connections. Returns the connections that can never go on.
    ///
    /// Where an earlier one of the connection is still to be applied, that was lost on the way, and
    /// both are sent again. In an epoch that is not settled nothing follows: what older epochs have
    /// sent is expected to be like that.
    pub fn on_void(&self, origins: &[Origin]) -> Vec<u64> {
        let mut hopeless = Vec::new();
        let mut inner = self.inner.lock();
        if !inner.settled {
            return hopeless;
        }
        for origin in origins {
            let (connection, sequence) = (origin.connection.number, origin.sequence);
            if hopeless.contains(&connection) {
                continue;
            }
            let first = inner.pending.iter().find(|p| p.connection == connection);
            match first.map(|first| first.sequence) {
                Some(first) if first < sequence => inner.broken = true,
                Some(_) => hopeless.push(connection),
                None => {}
            }
        }
        let given_up = inner.drop_connections(&hopeless);
        let is_broken = inner.broken;
        drop(inner);
        self.release(&given_up);
        if is_broken {
            self.work.notify_one();
        }
        hopeless
    }

    /// These commands of this run were applied.
    pub fn on_applied(&self, origins: &[Origin]) {
        let mut inner = self.inner.lock();
        let mut freed = Freed::default();
        for origin in origins {
            if let Some(pending) = inner.take(origin.connection.number, origin.sequence) {
                freed.add(&pending);
            }
        }
        drop(inner);
        self.release(&freed);
    }

    /// Forgets everything: the state was replaced, and nobody can tell what of it is in there.
    pub fn clear(&self) {
        let mut freed = Freed::default();
        let mut inner = self.inner.lock();
        for pending in inner.pending.drain(..) {
            freed.add(&pending);
        }
        inner.sent = 0;
        inner.doubtful = 0;
        drop(inner);
        self.release(&freed);
        self.work.notify_one();
    }

    fn release(&self, freed: &Freed) {
        if freed.commands > 0 {
            self.admission.release(freed.commands, freed.bytes);
        }
    }

    /// What the pump is to do next in the epoch it has begun.
    pub fn next(&self) -> Next {
        let mut inner = self.inner.lock();
        if inner.broken {
            return Next::Renew;
        }
        if !inner.settled {
            return Next::Wait;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        for pending in inner.pending.range(inner.sent..) {
            bytes += pending.command.len();
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            batch.push(pending.command.clone());
        }
        inner.sent += batch.len();
        if batch.is_empty() {
            Next::Wait
        } else {
            Next::Send(batch)
        }
    }

    /// Whether commands, or the marker before them, are under way: for noticing that nothing happens.
    pub fn front(&self) -> Option<(u64, u64)> {
        let inner = self.inner.lock();
        let waits = inner.sent > 0 || !inner.settled;
        inner
            .pending
            .front()
            .filter(|_| waits)
            .map(|first| (first.connection, first.sequence))
    }

    /// Resolves when there may be something to do. Cancel safe.
    pub fn work(&self) -> Notified<'_> {
        self.work.notified()
    }
}

/// Room to give back.
#[derive(Debug, Default)]
struct Freed {
    commands: usize,
    bytes: usize,
}

impl Freed {
    fn add(&mut self, pending: &Pending) {
        self.commands += 1;
        self.bytes += pending.command.len();
    }
}

impl Inner {
    fn drop_connections(&mut self, connections: &[u64]) -> Freed {
        let mut freed = Freed::default();
        if connections.is_empty() {
            return freed;
        }
        let mut index = 0;
        while let Some(pending) = self.pending.get(index) {
            if connections.contains(&pending.connection) {
                let (connection, sequence) = (pending.connection, pending.sequence);
                if let Some(taken) = self.take(connection, sequence) {
                    freed.add(&taken);
                }
            } else {
                index += 1;
            }
        }
        freed
    }

    fn take(&mut self, connection: u64, sequence: u64) -> Option<Pending> {
        let is = |p: &Pending| (p.connection, p.sequence) == (connection, sequence);
        // Applied in the order sent, but for what was lost on the way.
        let index = self.pending.iter().position(is)?;
        let taken = self.pending.remove(index);
        if index < self.sent {
            self.sent -= 1;
        }
        if index < self.doubtful {
            self.doubtful -= 1;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use quorate_state::{Connection, Origin};

    use super::super::Admission;
    use super::{Next, Proposals};

    fn proposals() -> (Proposals, Arc<Admission>) {
        let admission = Arc::new(Admission::new(100, 10_000));
        (Proposals::new(Arc::clone(&admission)), admission)
    }

    fn push(proposals: &Proposals, admission: &Admission, connection: u64, sequence: u64) {
        assert!(admission.try_take(2));
        proposals.push(connection, sequence, command(connection, sequence));
    }

    fn command(connection: u64, sequence: u64) -> Bytes {
        let byte = |number: u64| u8::try_from(number).expect("small");
        vec![byte(connection), byte(sequence)].into()
    }

    fn origin(connection: u64, sequence: u64) -> Origin {
        Origin {
            connection: Connection {
                server: 1,
                number: connection,
            },
            sequence,
        }
    }

    #[test]
    fn the_first_epoch_needs_no_marker_and_sends_in_order_once() {
        let (proposals, admission) = proposals();
        push(&proposals, &admission, 1, 0);
        assert_eq!(proposals.begin_epoch(), (1, false));
        push(&proposals, &admission, 2, 0);
        let expected = vec![command(1, 0), command(2, 0)];
        assert_eq!(proposals.next(), Next::Send(expected));
        assert_eq!(proposals.next(), Next::Wait);
    }

    #[test]
    fn what_was_sent_before_is_sent_again_only_after_the_marker_and_only_if_not_applied() {
        let (proposals, admission) = proposals();
        for sequence in 0..3 {
            push(&proposals, &admission, 1, sequence);
        }
        proposals.begin_epoch();
        assert!(matches!(proposals.next(), Next::Send(batch) if batch.len() == 3));
        assert_eq!(proposals.begin_epoch(), (2, true));
        assert_eq!(proposals.next(), Next::Wait, "the marker comes first");
        proposals.on_applied(&[origin(1, 0)]);
        proposals.on_marker(1);
        assert_eq!(
            proposals.next(),
            Next::Wait,
            "an older epoch's marker says nothing"
        );
        proposals.on_marker(2);
        let expected = vec![command(1, 1), command(1, 2)];
        assert_eq!(proposals.next(), Next::Send(expected));
        assert_eq!(admission.outstanding(), 2);
    }

    #[test]
    fn what_comes_while_the_marker_is_under_way_waits_behind_what_was_there() {
        let (proposals, admission) = proposals();
        push(&proposals, &admission, 1, 0);
        proposals.begin_epoch();
        proposals.next();
        proposals.begin_epoch();
        push(&proposals, &admission, 2, 0);
        assert_eq!(proposals.next(), Next::Wait);
        proposals.on_marker(2);
        let expected = vec![command(1, 0), command(2, 0)];
        assert_eq!(proposals.next(), Next::Send(expected));
    }

    #[test]
    fn doubt_outlasts_an_epoch_whose_marker_never_came() {
        let (proposals, admission) = proposals();
        push(&proposals, &admission, 1, 0);
        proposals.begin_epoch();
        proposals.next();
        proposals.begin_epoch();
        assert_eq!(proposals.begin_epoch(), (3, true));
        proposals.on_applied(&[origin(1, 0)]);
        assert_eq!(proposals.begin_epoch(), (4, false), "nothing is left");
    }

    #[test]
    fn a_gap_is_noticed_by_what_was_void_behind_it() {
        let (proposals, admission) = proposals();
        push(&proposals, &admission, 1, 0);
        push(&proposals, &admission, 1, 1);
        proposals.begin_epoch();
        proposals.next();
        assert!(proposals.on_void(&[origin(1, 1)]).is_empty());
        assert_eq!(proposals.next(), Next::Renew);
        assert_eq!(proposals.begin_epoch(), (2, true));
        assert!(proposals.on_void(&[origin(1, 1)]).is_empty());
        assert_eq!(
            proposals.next(),
            Next::Wait,
            "expected of what the older epoch has sent"
        );
    }

    #[test]
    fn a_connection_with_nothing_to_fill_its_gap_is_given_up() {
        let (proposals, admission) = proposals();
        push(&proposals, &admission, 1, 5);
        push(&proposals, &admission, 2, 0);
        push(&proposals, &admission, 1, 6);
        proposals.begin_epoch();
        proposals.next();
        assert_eq!(proposals.on_void(&[origin(1, 5), origin(1, 6)]), [1]);
        assert_eq!(admission.outstanding(), 1);
        assert_eq!(proposals.next(), Next::Wait, "the others go on");
    }

    #[test]
    fn room_is_given_back_once_for_each_command() {
        let (proposals, admission) = proposals();
        push(&proposals, &admission, 1, 0);
        push(&proposals, &admission, 1, 1);
        proposals.begin_epoch();
        proposals.next();
        proposals.on_applied(&[origin(1, 0), origin(1, 0), origin(9, 9)]);
        assert_eq!(admission.outstanding(), 1);
        proposals.clear();
        assert_eq!(admission.outstanding(), 0);
        assert_eq!(proposals.begin_epoch(), (2, false));
    }
}
