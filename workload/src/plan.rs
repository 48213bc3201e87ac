//! What a run is going to be, drawn from its seed: each seed switches each kind of deed and of
//! misbehaviour on or off and draws how much of it there is. Runs that all did some of everything
//! would all be alike.

use std::fmt;
use std::time::Duration;

use crate::deeds::Deed;
use crate::dice::Dice;
use crate::places::{Places, USERS};
use crate::raw::{Manners, Servers};
use crate::strangers::Misdeed;

/// What a search for an order still takes in a moment, for one subtree.
const OPERATIONS_PER_SUBTREE_MAX: u64 = 300;

/// The numbers of clients, by what they are.
pub(crate) const SETTER_UP: u32 = 0;
const FIRST_CLIENT: u32 = 1;
const FIRST_PROBER: u32 = 50;
const FIRST_STRANGER: u32 = 100;

/// What happens to a session, apart from what is asked for in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whim {
    /// To another server.
    Move,
    /// To another server and back at once.
    ThereAndBack,
    /// Away and back, at once or when the session is about to expire.
    Resume,
    Duplicate,
    Lie,
    BreakOffHandshake,
    Close,
    Abandon,
    /// Neither reads nor sends anything for about as long as its session lasts, as a process that
    /// stands still, and goes on as if nothing had been.
    Doze,
}

impl Whim {
    pub const ALL: [Self; 9] = [
        Self::Move,
        Self::ThereAndBack,
        Self::Resume,
        Self::Duplicate,
        Self::Lie,
        Self::BreakOffHandshake,
        Self::Close,
        Self::Abandon,
        Self::Doze,
    ];
}

/// One client, as it was drawn.
#[derive(Clone, Debug)]
pub struct Habits {
    pub client: u32,
    /// Where it goes first.
    pub home: u64,
    pub manners: Manners,
    /// Requests that may be under way at once.
    pub window: usize,
    /// Between two turns, on average.
    pub think: Duration,
    /// How many turns in a thousand fill the window.
    pub bursts: u64,
    /// How many turns in a thousand are a whim.
    pub whims: u64,
    /// How many reads in a thousand leave a watch.
    pub watches: u64,
}

/// A run, before it begins.
#[derive(Clone, Debug)]
pub struct Workload {
    pub seed: u64,
    pub servers: Servers,
    /// How long it should be left to run before it is stopped.
    pub duration: Duration,
    pub subtrees: u64,
    /// Requests of clients to one subtree, at most.
    pub operations_per_subtree: u64,
    /// In the order of [`Deed::ALL`].
    pub deeds: Vec<u64>,
    /// In the order of [`Whim::ALL`].
    pub whims: Vec<u64>,
    pub clients: Vec<Habits>,
    /// Of writing on one server and reading on another, the clients' numbers.
    pub probers: Vec<[u32; 2]>,
    pub probe_every: Duration,
    pub strangers: Vec<(u32, Misdeed)>,
    pub(crate) dice: Dice,
}

impl Workload {
    /// All of it comes from the seed.
    #[must_use]
    pub fn draw(seed: u64, servers: &Servers) -> Self {
        let mut dice = Dice::new(seed ^ 0x776f_726b_6c6f_6164);
        let duration = dice.millis(60_000, 180_000);
        let operations = dice.between(300, 800);
        let subtrees = dice.between(operations.div_ceil(250), 5);
        let count = dice.between(3, 10);
        // Some requests come in bursts, so a turn is more than one.
        let think = duration * u32::try_from(count * 2).unwrap_or(2)
            / u32::try_from(operations).unwrap_or(1);
        let mut deeds: Vec<u64> = Deed::ALL.iter().map(|_| weight(&mut dice, 8)).collect();
        // Without these there is nothing to read, whatever else there is.
        for always in &mut deeds[..3] {
            *always += 1;
        }
        let whims = Whim::ALL.iter().map(|_| weight(&mut dice, 6)).collect();
        let whims_per_mille = [0, 20, 60, 120][dice.index(4)];
        let watches = [0, 200, 200, 500, 500, 900][dice.index(6)];
        let clients = (FIRST_CLIENT..)
            .take(usize::try_from(count).unwrap_or(1))
            .map(|client| Habits {
                client,
                home: dice.pick(servers).map_or(0, |(server, _)| *server),
                manners: manners(&mut dice),
                window: dice.index(20) + 1,
                think: think * u32::try_from(dice.between(5, 15)).unwrap_or(10) / 10,
                bursts: [0, 50, 200][dice.index(3)],
                whims: whims_per_mille,
                watches,
            })
            .collect();
        let probers = (0..u32::try_from(dice.below(3)).unwrap_or(0))
            .map(|index| [FIRST_PROBER + 2 * index, FIRST_PROBER + 2 * index + 1])
            .collect();
        let strangers: Vec<Misdeed> = Misdeed::ALL
            .into_iter()
            .filter(|_| dice.permille(300))
            .collect();
        Self {
            seed,
            servers: Servers::clone(servers),
            duration,
            subtrees,
            operations_per_subtree: (operations * 13 / 10 / subtrees)
                .min(OPERATIONS_PER_SUBTREE_MAX),
            deeds,
            whims,
            clients,
            probers,
            probe_every: dice.millis(2_000, 10_000),
            strangers: (FIRST_STRANGER..).zip(strangers).collect(),
            dice,
        }
    }

    /// The same in little time: for runs on a real clock.
    #[must_use]
    pub fn hurried(mut self, duration: Duration) -> Self {
        let factor = self.duration.as_millis().max(1) / duration.as_millis().max(1);
        let factor = u32::try_from(factor).unwrap_or(u32::MAX).max(1);
        self.duration = duration;
        self.probe_every /= factor;
        for client in &mut self.clients {
            client.think /= factor;
        }
        self
    }

    pub(crate) fn places(&self) -> Places {
        Places {
            subtrees: self.subtrees,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} clients and {} probers for {:?}, {} subtrees; ",
            self.seed,
            self.clients.len(),
            self.probers.len(),
            self.duration,
            self.subtrees
        )?;
        for (deed, weight) in Deed::ALL.iter().zip(&self.deeds) {
            if *weight > 0 {
                write!(f, "{deed:?} {weight}, ")?;
            }
        }
        for (whim, weight) in Whim::ALL.iter().zip(&self.whims) {
            if *weight > 0 {
                write!(f, "{whim:?} {weight}, ")?;
            }
        }
        write!(f, "strangers: {:?}", self.strangers)
    }
}

/// 0 for a quarter of all kinds.
fn weight(dice: &mut Dice, max: u64) -> u64 {
    match dice.below(4) {
        0 => 0,
        _ => dice.between(1, max),
    }
}

fn manners(dice: &mut Dice) -> Manners {
    let credentials = match dice.below(4) {
        0 => USERS[..1].to_vec(),
        1 => USERS[1..].to_vec(),
        2 => USERS.to_vec(),
        _ => Vec::new(),
    };
    Manners {
        session_timeout: dice.millis(2_000, 10_000),
        credentials: credentials.into_iter().map(str::to_owned).collect(),
        always_pings: dice.permille(500),
        watches_at_once: [1, 2, 5, 64][dice.index(4)],
        is_old: dice.permille(300),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Servers {
        let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        [(1, address(1)), (2, address(2)), (3, address(3))].into()
    }

    #[test]
    fn one_seed_is_one_run_and_another_is_another() {
        let draw = |seed| format!("{:?}", Workload::draw(seed, &servers()));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn what_is_drawn_can_be_searched_and_something_is_written_in_it() {
        for seed in 0..500 {
            let drawn = Workload::draw(seed, &servers());
            assert!((3..=10).contains(&drawn.clients.len()), "{drawn}");
            assert!((1..=5).contains(&drawn.subtrees), "{drawn}");
            assert!(
                drawn.operations_per_subtree <= OPERATIONS_PER_SUBTREE_MAX,
                "{drawn}"
            );
            assert!(drawn.deeds[0] > 0 && drawn.deeds[2] > 0, "{drawn}");
            assert!(
                drawn.clients.iter().all(|client| client.home > 0),
                "{drawn}"
            );
        }
    }

    #[test]
    fn every_kind_of_deed_whim_and_misdeed_is_off_in_some_runs_and_on_in_others() {
        let drawn: Vec<Workload> = (0..100)
            .map(|seed| Workload::draw(seed, &servers()))
            .collect();
        for index in 3..Deed::ALL.len() {
            let on = drawn.iter().filter(|run| run.deeds[index] > 0).count();
            assert!((1..100).contains(&on), "{:?}", Deed::ALL[index]);
        }
        for index in 0..Whim::ALL.len() {
            let on = drawn.iter().filter(|run| run.whims[index] > 0).count();
            assert!((1..100).contains(&on), "{:?}", Whim::ALL[index]);
        }
        for misdeed in Misdeed::ALL {
            let has = |run: &&Workload| run.strangers.iter().any(|(_, it)| *it == misdeed);
            let on = drawn.iter().filter(has).count();
            assert!((1..100).contains(&on), "{misdeed:?}");
        }
    }
}
