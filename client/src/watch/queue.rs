//! What happened and was not read yet, of one persistent watch: bounded.
//!
//! A reader that is too slow does not get old events, nor does it hold anybody up: all that waits
//! collapses into one gap, after which events go on.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use quorate_protocol::Zxid;

use super::{End, Event, Gap, Item};

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    bound: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each with the last write known when it came: no event up to that one is still to come.
    items: VecDeque<(Item, Zxid)>,
    /// The same, of the last that was read.
    read: Zxid,
    end: Option<End>,
    reader: Option<Waker>,
}

impl Queue {
    /// The reader knows what was up to `since`.
    pub(crate) fn new(bound: usize, since: Zxid) -> Self {
        Self {
            bound: bound.max(1),
            state: Mutex::new(State {
                read: since,
                ..State::default()
            }),
        }
    }

    pub(crate) fn push(&self, event: Event, known: Zxid) {
        self.add(|state| {
            if state.items.len() < self.bound {
                state.items.push_back((Item::Event(event), known));
                return;
            }
            state.items.clear();
            let gap = Gap { since: state.read };
            state.items.push_back((Item::Gap(gap), known));
        });
    }

    /// Notes that events after `since` may be missing.
    pub(crate) fn push_gap(&self, since: Zxid) {
        self.add(|state| {
            if !matches!(state.items.back(), Some((Item::Gap(_), _))) {
                state.items.push_back((Item::Gap(Gap { since }), since));
            }
        });
    }

    fn add(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        change(&mut state);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Nothing more will come.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<Item, End>> {
        let mut state = self.state.lock();
        if let Some((item, known)) = state.items.pop_front() {
            state.read = state.read.max(known);
            return Poll::Ready(Ok(item));
        }
        if let Some(end) = state.end {
            return Poll::Ready(Err(end));
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use quorate_protocol::EventType;

    use super::*;

    struct Nothing;
    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }

    fn event(zxid: i64) -> Event {
        Event {
            kind: EventType::NodeDataChanged,
            path: "/a".to_owned(),
            zxid: Some(Zxid(zxid)),
        }
    }

    fn all(queue: &Queue) -> Vec<Item> {
        let waker = Waker::from(Arc::new(Nothing));
        let mut context = Context::from_waker(&waker);
        std::iter::from_fn(|| match queue.poll(&mut context) {
            Poll::Ready(Ok(item)) => Some(item),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn a_slow_reader_gets_a_gap_that_begins_with_what_it_has_read() {
        let queue = Queue::new(2, Zxid(3));
        queue.push(event(4), Zxid(4));
        assert_eq!(all(&queue), [Item::Event(event(4))]);
        for zxid in 5..=9 {
            queue.push(event(zxid), Zxid(zxid));
        }
        // Two, then a gap and one more, then a gap for all.
        assert_eq!(all(&queue), [Item::Gap(Gap { since: Zxid(4) })]);
        queue.push(event(10), Zxid(10));
        assert_eq!(all(&queue), [Item::Event(event(10))]);
    }

    #[test]
    fn gaps_in_a_row_are_one() {
        let queue = Queue::new(2, Zxid(0));
        queue.push_gap(Zxid(1));
        queue.push_gap(Zxid(7));
        assert_eq!(all(&queue), [Item::Gap(Gap { since: Zxid(1) })]);
    }

    #[test]
    fn what_came_before_the_end_is_read_before_it() {
        let queue = Queue::new(2, Zxid(0));
        queue.push(event(1), Zxid(1));
        queue.end(End::Closed);
        queue.push(event(2), Zxid(2));
        assert_eq!(all(&queue), [Item::Event(event(1))]);
        let waker = Waker::from(Arc::new(Nothing));
        let ended = queue.poll(&mut Context::from_waker(&waker));
        assert_eq!(ended, Poll::Ready(Err(End::Closed)));
    }
}
