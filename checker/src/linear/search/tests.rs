//! The search against all orders there are.

use super::*;

/// A register: what is read, what is written, and what is swapped if it is as expected.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Read(u8),
    Write(u8),
    Swap(u8, u8),
}

struct Register;

impl Model for Register {
    type State = u8;
    type Operation = Ask;

    fn initial(&self) -> u8 {
        0
    }

    fn step(&self, state: &u8, ask: &Ask) -> Next<u8> {
        match *ask {
            Ask::Read(seen) if seen == *state => Next::Same,
            Ask::Swap(from, to) if from == *state => Next::Changed(to),
            Ask::Write(value) => Next::Changed(value),
            _ => Next::Impossible,
        }
    }
}

fn verdict(asks: &[(Ask, Interval)]) -> Verdict {
    let (operations, intervals): (Vec<Ask>, Vec<Interval>) = asks.iter().copied().unzip();
    search(&Register, &operations, &intervals, 1_000_000)
}

/// Tries every order.
fn brute(asks: &[(Ask, Interval)], placed: &mut Vec<bool>, state: u8) -> bool {
    let must = |index: &usize| asks[*index].1.back.is_some();
    let left: Vec<usize> = (0..asks.len()).filter(|index| !placed[*index]).collect();
    if !left.iter().any(must) {
        return true;
    }
    let first_back = left.iter().filter_map(|index| asks[*index].1.back).min();
    left.iter().any(|index| {
        let (ask, interval) = &asks[*index];
        if first_back.is_some_and(|back| interval.call > back) {
            return false;
        }
        let after = match Register.step(&state, ask) {
            Next::Impossible => return false,
            Next::Same => state,
            Next::Changed(after) => after,
        };
        placed[*index] = true;
        let found = brute(asks, placed, after);
        placed[*index] = false;
        found
    })
}

#[test]
fn a_read_of_what_was_overwritten_before_it_began_is_noticed() {
    let asks = [
        (Ask::Write(1), Interval::closed(0, 1)),
        (Ask::Write(2), Interval::closed(2, 3)),
        (Ask::Read(1), Interval::closed(4, 5)),
    ];
    assert_eq!(verdict(&asks), Verdict::Not { stuck: Some(2) });
    let mut overlapping = asks;
    overlapping[2].1.call = 3;
    assert_eq!(verdict(&overlapping), Verdict::Linearizable);
}

#[test]
fn what_nobody_answered_may_come_late_or_never() {
    let mut asks = vec![
        (Ask::Write(1), Interval::open(0)),
        (Ask::Write(2), Interval::closed(1, 2)),
        (Ask::Read(1), Interval::closed(10, 11)),
    ];
    assert_eq!(verdict(&asks), Verdict::Linearizable);
    asks.push((Ask::Read(2), Interval::closed(12, 13)));
    assert!(matches!(verdict(&asks), Verdict::Not { .. }));
    asks.remove(2);
    assert_eq!(verdict(&asks), Verdict::Linearizable);
}

#[test]
fn a_search_that_is_cut_short_decides_nothing() {
    let asks: Vec<(Ask, Interval)> = (0..12)
        .map(|value| (Ask::Write(value), Interval::closed(0, 100)))
        .chain([(Ask::Read(77), Interval::closed(200, 201))])
        .collect();
    let (operations, intervals): (Vec<Ask>, Vec<Interval>) = asks.into_iter().unzip();
    assert_eq!(
        search(&Register, &operations, &intervals, 100),
        Verdict::Undecided
    );
}

#[test]
fn the_search_finds_what_trying_all_orders_finds() {
    let mut seed = 1u64;
    let mut below = |bound: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    let mut verdicts = [0; 2];
    for _ in 0..4_000 {
        let count = 2 + below(5);
        let asks: Vec<(Ask, Interval)> = (0..count)
            .map(|_| {
                let value = u8::try_from(below(3)).unwrap();
                let other = u8::try_from(below(3)).unwrap();
                let ask = match below(5) {
                    0 | 1 => Ask::Read(value),
                    2 => Ask::Swap(value, other),
                    _ => Ask::Write(value),
                };
                let call = below(10);
                let interval = match below(4) {
                    0 => Interval::open(call),
                    _ => Interval::closed(call, call + below(6)),
                };
                (ask, interval)
            })
            .collect();
        let expected = brute(&asks, &mut vec![false; asks.len()], 0);
        let found = verdict(&asks) == Verdict::Linearizable;
        assert_eq!(found, expected, "{asks:?}");
        verdicts[usize::from(found)] += 1;
    }
    assert!(verdicts[0] > 500 && verdicts[1] > 500, "{verdicts:?}");
}
