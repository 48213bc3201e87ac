//! Leader election on a ring, by Chang and Roberts: the decisions of one process, and nothing else.
//!
//! Ernest Chang and Rosemary Roberts, "An improved algorithm for decentralized extrema-finding in
//! circular configurations of processes", Communications of the ACM 22 (5), 1979.
//!
//! It is here because lectures on distributed systems begin with it, and to be compared. It is **not
//! the recommended way** to elect a leader with a coordination service at hand: see [`Ring`].

/// A process on a ring, in which each can send only to the next.
///
/// A process that wants an election sends its id around. Each passes a larger id on, puts its own in
/// the place of a smaller one unless that is under way already, and drops a smaller one if it is. The
/// id that comes back to its process was larger than all: that one is the leader, and says so to all.
///
/// Messages of an election that all of `n` processes begin at once, and then `n` for the announcement:
///
/// | | messages | when |
/// | --- | --- | --- |
/// | best | `2n - 1` | ids grow along the ring: each but the largest is dropped by the next |
/// | average | `n * H(n)`, with `H(n) = 1 + 1/2 + ... + 1/n` | over all orders of the ids |
/// | worst | `n * (n + 1) / 2` | ids shrink along the ring: each comes as far as the largest |
///
/// # Why not to use it
///
/// It elects once, among processes that do not fail. One that dies takes the message along that it was
/// to pass on, and the election never ends; who is on the ring, and who comes next, must be the same
/// for all and must not change; nobody notices that a leader is gone; and a former leader that was only
/// slow has no token that a store could refuse. All this has to be found out by something that already
/// knows who is alive and in which order: the service that the messages here go through. Asked directly
/// it elects with one write for each candidate, watches one znode each, and replaces a leader that dies:
/// that is what the election recipe of this crate does.
///
/// The example `ring_election` sends the messages through znodes, and counts them.
///
/// ```
/// use quorate_recipes::{Ring, RingMessage};
///
/// // Two processes, of which each is the other's next.
/// let (mut one, mut two) = (Ring::new(1), Ring::new(2));
/// let from_one = one.start().expect("it takes part for the first time");
/// // A larger id takes the place of the smaller one...
/// let from_two = two.receive(from_one).expect("its own id");
/// assert_eq!(from_two, RingMessage::Election(2));
/// // ... and comes back to where it is from.
/// let from_one = one.receive(from_two).expect("passed on");
/// let elected = two.receive(from_one).expect("the announcement");
/// assert_eq!(elected, RingMessage::Elected(2));
/// assert_eq!(two.leader(), Some(&2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring<I> {
    id: I,
    /// Whether an id as large as ours, or larger, is on its way from here.
    takes_part: bool,
    leader: Option<I>,
}

/// What a process on a ring sends to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMessage<I> {
    /// A candidate, on its way around.
    Election(I),
    /// The leader, as it announces itself.
    Elected(I),
}

impl<I: Ord + Clone> Ring<I> {
    /// A process with an id that no other has.
    pub fn new(id: I) -> Self {
        Self {
            id,
            takes_part: false,
            leader: None,
        }
    }

    /// Who was elected last, as far as it was told.
    pub fn leader(&self) -> Option<&I> {
        self.leader.as_ref()
    }

    /// Wants an election: what to send to the next. `None` if one is under way.
    #[must_use = "it is to be sent"]
    pub fn start(&mut self) -> Option<RingMessage<I>> {
        if self.takes_part {
            return None;
        }
        self.takes_part = true;
        Some(RingMessage::Election(self.id.clone()))
    }

    /// Takes a message from the one before: what to send to the next, if anything.
    #[must_use = "it is to be sent"]
    pub fn receive(&mut self, message: RingMessage<I>) -> Option<RingMessage<I>> {
        match message {
            RingMessage::Election(id) if id > self.id => {
                self.takes_part = true;
                Some(RingMessage::Election(id))
            }
            RingMessage::Election(id) if id < self.id => self.start(),
            RingMessage::Election(id) => {
                self.takes_part = false;
                self.leader = Some(id.clone());
                Some(RingMessage::Elected(id))
            }
            // It has been all around.
            RingMessage::Elected(id) if id == self.id => None,
            RingMessage::Elected(id) => {
                self.takes_part = false;
                self.leader = Some(id.clone());
                Some(RingMessage::Elected(id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::SmallRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Counts {
        election: usize,
        announcement: usize,
    }

    /// Plays an election on the ring of these ids, begun by these places; whose message arrives next is
    /// a matter of chance, but no message overtakes another on its way.
    fn elect(ids: &[usize], begun_by: &[usize], random: &mut SmallRng) -> Counts {
        let mut ring: Vec<Ring<usize>> = ids.iter().map(|id| Ring::new(*id)).collect();
        let mut inboxes: Vec<VecDeque<RingMessage<usize>>> = vec![VecDeque::new(); ids.len()];
        let mut counts = Counts::default();
        let mut send = |inboxes: &mut Vec<VecDeque<_>>, from: usize, message| {
            match message {
                RingMessage::Election(_) => counts.election += 1,
                RingMessage::Elected(_) => counts.announcement += 1,
            }
            inboxes[(from + 1) % ids.len()].push_back(message);
        };
        for &place in begun_by {
            let message = ring[place].start().unwrap();
            send(&mut inboxes, place, message);
        }
        loop {
            let full: Vec<usize> = (0..ids.len())
                .filter(|at| !inboxes[*at].is_empty())
                .collect();
            if full.is_empty() {
                break;
            }
            let place = full[random.random_range(0..full.len())];
            let message = inboxes[place].pop_front().unwrap();
            if let Some(message) = ring[place].receive(message) {
                send(&mut inboxes, place, message);
            }
        }
        let largest = ids.iter().max();
        for process in &ring {
            assert_eq!(process.leader(), largest, "{ids:?}");
            assert!(!process.takes_part, "another election can begin");
        }
        counts
    }

    fn elect_by_all(ids: &[usize], random: &mut SmallRng) -> Counts {
        let all: Vec<usize> = (0..ids.len()).collect();
        elect(ids, &all, random)
    }

    #[test]
    fn ids_that_grow_along_the_ring_take_the_fewest_messages() {
        let random = &mut SmallRng::seed_from_u64(1);
        for n in 1..=40 {
            let ids: Vec<usize> = (0..n).collect();
            let counts = elect_by_all(&ids, random);
            assert_eq!((counts.election, counts.announcement), (2 * n - 1, n));
        }
    }

    #[test]
    fn ids_that_shrink_along_the_ring_take_the_most_messages() {
        let random = &mut SmallRng::seed_from_u64(2);
        for n in 1..=40 {
            let ids: Vec<usize> = (0..n).rev().collect();
            let counts = elect_by_all(&ids, random);
            assert_eq!((counts.election, counts.announcement), (n * (n + 1) / 2, n));
        }
    }

    /// All orders of these ids.
    fn permutations(ids: &[usize]) -> Vec<Vec<usize>> {
        let Some((first, rest)) = ids.split_first() else {
            return vec![Vec::new()];
        };
        let shorter = permutations(rest);
        let longer = shorter.iter().flat_map(|shorter| {
            (0..=shorter.len()).map(|at| {
                let mut longer = shorter.clone();
                longer.insert(at, *first);
                longer
            })
        });
        longer.collect()
    }

    #[test]
    fn over_all_orders_it_is_n_times_the_harmonic_number() {
        let random = &mut SmallRng::seed_from_u64(3);
        for n in 1..=6_usize {
            let ids: Vec<usize> = (0..n).collect();
            let all = permutations(&ids);
            let sum: usize = all
                .iter()
                .map(|ids| elect_by_all(ids, random).election)
                .sum();
            // H(n) as a fraction of 60, which 1 to 6 divide.
            let harmonic_60: usize = (1..=n).map(|k| 60 / k).sum();
            assert_eq!(sum * 60, all.len() * n * harmonic_60, "n = {n}");
        }
    }

    #[test]
    fn over_random_orders_it_is_near_to_that() {
        const ROUNDS: u32 = 1000;
        const N: u32 = 50;
        let random = &mut SmallRng::seed_from_u64(4);
        let mut sum = 0.0;
        for _ in 0..ROUNDS {
            let mut ids: Vec<usize> = (0..N as usize).collect();
            ids.shuffle(random);
            let counts = elect_by_all(&ids, random);
            assert!(
                (2 * ids.len() - 1..=ids.len() * (ids.len() + 1) / 2).contains(&counts.election)
            );
            sum += f64::from(u32::try_from(counts.election).unwrap());
        }
        let expected = f64::from(N) * (1..=N).map(|k| 1.0 / f64::from(k)).sum::<f64>();
        let mean = sum / f64::from(ROUNDS);
        assert!(
            (mean / expected - 1.0).abs() < 0.02,
            "{mean} is not {expected}"
        );
    }

    #[test]
    fn an_election_that_one_begins_takes_less_than_twice_around() {
        let random = &mut SmallRng::seed_from_u64(5);
        let n = 20;
        let mut ids: Vec<usize> = (0..n).collect();
        for _ in 0..100 {
            ids.shuffle(random);
            let largest = ids.iter().position(|id| *id == n - 1).unwrap();
            for place in 0..n {
                let counts = elect(&ids, &[place], random);
                assert_eq!(counts.announcement, n);
                // To the largest, perhaps with others on the way, and then around from there.
                let distance = (largest + n - place) % n;
                assert_eq!(counts.election, distance + n, "{ids:?} from {place}");
            }
        }
    }
}
