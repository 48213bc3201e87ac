//! What the queue promises, by example and against a list of deadlines.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn session(id: i64) -> SessionId {
    SessionId::new(id).unwrap()
}

#[test]
fn a_session_is_due_after_its_deadline_and_within_one_tick() {
    for (deadline, due_at) in [
        (0, 2000),
        (1, 2000),
        (1999, 2000),
        (2000, 4000),
        (2001, 4000),
    ] {
        let mut queue = ExpiryQueue::new(2000);
        queue.schedule(session(1), deadline);
        assert_eq!(queue.next_deadline(), Some(due_at), "deadline {deadline}");
        assert_eq!(queue.due(due_at - 1), [], "deadline {deadline}");
        assert_eq!(queue.due(due_at), [session(1)], "deadline {deadline}");
        assert!(queue.is_empty());
    }
}

#[test]
fn scheduling_again_replaces_the_deadline_in_both_directions() {
    let mut queue = ExpiryQueue::new(10);
    queue.schedule(session(1), 100);
    queue.schedule(session(1), 500);
    assert_eq!(queue.due(200), []);
    queue.schedule(session(1), 250);
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.due(260), [session(1)]);
    assert_eq!(queue.due(1000), []);
}

#[test]
fn due_sessions_come_in_the_order_of_their_deadlines_and_then_of_their_ids() {
    let mut queue = ExpiryQueue::new(10);
    queue.schedule(session(3), 41);
    queue.schedule(session(2), 49);
    queue.schedule(session(9), 5);
    queue.schedule(session(4), 60);
    assert_eq!(queue.due(60), [session(9), session(2), session(3)]);
    assert_eq!(queue.next_deadline(), Some(70));
}

#[test]
fn a_removed_session_never_comes_due() {
    let mut queue = ExpiryQueue::new(10);
    queue.schedule(session(1), 100);
    assert!(queue.remove(session(1)));
    assert!(!queue.remove(session(1)));
    assert_eq!(queue.next_deadline(), None);
    assert_eq!(queue.due(u64::MAX), []);
}

#[test]
fn nothing_is_due_after_a_clear() {
    let mut queue = ExpiryQueue::new(10);
    queue.schedule(session(1), 100);
    queue.clear();
    assert_eq!(queue.due(u64::MAX), []);
    queue.schedule(session(1), 100);
    assert_eq!(queue.due(u64::MAX), [session(1)]);
}

#[test]
fn extreme_times_and_ticks_neither_panic_nor_lose_a_session() {
    for tick_ms in [0, 1, u64::MAX] {
        for deadline in [0, 1, u64::MAX - 1, u64::MAX] {
            let mut queue = ExpiryQueue::new(tick_ms);
            queue.schedule(session(1), deadline);
            assert!(queue.next_deadline() >= Some(deadline));
            assert_eq!(queue.due(u64::MAX), [session(1)], "{tick_ms} {deadline}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Schedule(i64, u64),
    Remove(i64),
    Due(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..6i64, 0..200u64).prop_map(|(id, deadline)| Step::Schedule(id, deadline)),
        1 => (1..6i64).prop_map(Step::Remove),
        2 => (0..200u64).prop_map(Step::Due),
    ]
}

proptest! {
    #[test]
    fn the_queue_agrees_with_a_list_of_deadlines(
        tick_ms in 1..20u64,
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut queue = ExpiryQueue::new(tick_ms);
        let mut model: BTreeMap<i64, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Schedule(id, deadline) => {
                    queue.schedule(session(id), deadline);
                    model.insert(id, deadline);
                }
                Step::Remove(id) => {
                    prop_assert_eq!(queue.remove(session(id)), model.remove(&id).is_some());
                }
                Step::Due(now) => {
                    // Rounded up to a tick that lies behind the deadline.
                    let due_at = |deadline: u64| {
                        (deadline + 1..).find(|time| time % tick_ms == 0).unwrap()
                    };
                    let mut expected: Vec<(u64, i64)> = model
                        .iter()
                        .map(|(id, deadline)| (due_at(*deadline), *id))
                        .filter(|(due_at, _)| *due_at <= now)
                        .collect();
                    expected.sort_unstable();
                    let expected: Vec<SessionId> =
                        expected.into_iter().map(|(_, id)| session(id)).collect();
                    prop_assert_eq!(queue.due(now), expected.clone());
                    model.retain(|id, _| !expected.contains(&session(*id)));
                }
            }
            prop_assert_eq!(queue.len(), model.len());
        }
    }
}
