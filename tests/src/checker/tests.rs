//! A good history passes; spoilt in one way, it breaks the rule that way is about.

use quorate_protocol::{Stat, Zxid};

use super::*;
use crate::history::{Disturbance, Tree};

const REGISTER: &str = "/registers/a";
const HELD: [&str; 2] = ["/ephemerals/c0", "/ephemerals/c1"];
const SESSIONS: [i64; 2] = [0x10, 0x11];
const TIMEOUT: Duration = Duration::from_secs(4);

/// One server without faults, and the clients that use it: makes histories that must pass.
struct World {
    history: History,
    zxid: i64,
    now: Moment,
    version: i32,
    value: String,
    mzxid: i64,
    appended: u32,
    tree: Tree,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            history: History::default(),
            zxid: 100,
            now: Moment::ZERO,
            version: 0,
            value: String::new(),
            mzxid: 100,
            appended: 0,
            tree: Tree::default(),
        };
        for (client, session) in SESSIONS.into_iter().enumerate() {
            world.history.clients.push(vec![Entry::Attached {
                session,
                server: u64::try_from(client).unwrap(),
                timeout: TIMEOUT,
            }]);
        }
        world
    }

    fn ask(&mut self, client: usize, request: Ask) {
        let sent = self.now;
        self.now += Duration::from_millis(1);
        if request.is_write() {
            self.zxid += 1;
        }
        let found = self.perform(client, &request);
        let answer = Answer::Done {
            at: self.now,
            zxid: self.zxid,
            found,
        };
        self.now += Duration::from_millis(1);
        let asked = Asked {
            session: SESSIONS[client],
            server: 0,
            connection: 1,
            sent,
            request,
            answer,
        };
        self.history.clients[client].push(Entry::Asked(asked));
    }

    fn perform(&mut self, client: usize, request: &Ask) -> Found {
        let created = Stat {
            czxid: Zxid(self.zxid),
            ..Stat::default()
        };
        match request {
            Ask::Set { value, .. } => {
                self.version += 1;
                self.value.clone_from(value);
                self.mzxid = self.zxid;
                self.register()
            }
            Ask::Read { .. } => self.register(),
            Ask::Append { value } => {
                let path = format!("{LOG}/n-{:010}", self.appended);
                self.appended += 1;
                let znode = (value.clone().into_bytes(), created);
                self.tree.znodes.insert(path.clone(), znode);
                Found::Path(path)
            }
            Ask::Hold { path } => {
                let stat = Stat {
                    ephemeral_owner: SESSIONS[client],
                    ..created
                };
                self.tree.znodes.insert(path.clone(), (Vec::new(), stat));
                Found::Path(path.clone())
            }
            Ask::Look { path } => match self.tree.znodes.get(path) {
                Some((_, stat)) => Found::Present {
                    owner: stat.ephemeral_owner,
                },
                None => Found::Absent,
            },
            Ask::Close => {
                let session = SESSIONS[client];
                self.tree
                    .znodes
                    .retain(|_, (_, stat)| stat.ephemeral_owner != session);
                Found::Nothing
            }
            Ask::Sync | Ask::Ping => Found::Nothing,
        }
    }

    fn register(&self) -> Found {
        Found::Value {
            value: self.value.clone(),
            version: self.version,
            mzxid: self.mzxid,
            // As if every watch were as old as the register.
            events: Some(self.version),
            watch: Watch::SetAt(self.version),
        }
    }

    fn end(mut self) -> History {
        let stat = Stat {
            version: self.version,
            mzxid: Zxid(self.mzxid),
            ..Stat::default()
        };
        let data = self.value.into_bytes();
        self.tree.znodes.insert(REGISTER.to_owned(), (data, stat));
        self.tree.zxid = self.zxid;
        for server in 1..=3 {
            self.history.trees.push(Tree {
                server,
                ..self.tree.clone()
            });
        }
        self.history
    }
}

fn read() -> Ask {
    Ask::Read {
        register: REGISTER.to_owned(),
    }
}

/// Two clients take turns; the second closes its session in the end.
fn good() -> History {
    let mut world = World::new();
    for (client, path) in HELD.into_iter().enumerate() {
        let path = path.to_owned();
        world.ask(client, Ask::Hold { path });
    }
    for round in 0..10 {
        for (client, path) in HELD.into_iter().enumerate() {
            let value = format!("c{client}#{round}");
            world.ask(
                client,
                Ask::Set {
                    register: REGISTER.to_owned(),
                    value: value.clone(),
                },
            );
            world.ask(client, Ask::Append { value });
            world.ask(1 - client, Ask::Sync);
            world.ask(1 - client, read());
            let path = path.to_owned();
            world.ask(1 - client, Ask::Look { path });
            world.ask(client, Ask::Ping);
        }
    }
    world.ask(1, Ask::Close);
    let path = HELD[1].to_owned();
    world.ask(0, Ask::Look { path });
    world.end()
}

fn rules(history: &History, promises: Promises) -> Vec<Rule> {
    let (violations, _) = check(history, promises);
    let rules: BTreeSet<Rule> = violations.iter().map(|violation| violation.rule).collect();
    rules.into_iter().collect()
}

/// Spoils the good history, and sees that the rule is broken, among others perhaps.
fn breaks(rule: Rule, spoil: impl FnOnce(&mut History)) {
    let mut history = good();
    spoil(&mut history);
    let broken = rules(&history, Promises::ALL);
    assert!(broken.contains(&rule), "{rule:?} is not in {broken:?}");
}

/// Spoils the good history in a way that is allowed.
fn passes(spoil: impl FnOnce(&mut History)) {
    let mut history = good();
    spoil(&mut history);
    let (violations, _) = check(&history, Promises::ALL);
    assert!(violations.is_empty(), "{violations:?}");
}

/// The n-th request of a client for which `wanted` holds.
fn nth(
    history: &mut History,
    client: usize,
    number: usize,
    wanted: impl Fn(&Ask) -> bool,
) -> &mut Asked {
    let entries = history.clients[client].iter_mut();
    let mut asked = entries.filter_map(|entry| match entry {
        Entry::Asked(asked) if wanted(&asked.request) => Some(asked),
        _ => None,
    });
    asked.nth(number).expect("there are more of them")
}

fn is_set(ask: &Ask) -> bool {
    matches!(ask, Ask::Set { .. })
}

fn is_append(ask: &Ask) -> bool {
    matches!(ask, Ask::Append { .. })
}

fn is_read(ask: &Ask) -> bool {
    matches!(ask, Ask::Read { .. })
}

fn is_look(ask: &Ask) -> bool {
    matches!(ask, Ask::Look { .. })
}

fn is_sync(ask: &Ask) -> bool {
    *ask == Ask::Sync
}

fn zxid_of(asked: &mut Asked) -> &mut i64 {
    match &mut asked.answer {
        Answer::Done { zxid, .. } | Answer::Refused { zxid, .. } => zxid,
        Answer::Unknown => panic!("it has no zxid"),
    }
}

fn version_of(asked: &mut Asked) -> (&mut i32, &mut i64, &mut Option<i32>) {
    match &mut asked.answer {
        Answer::Done {
            found:
                Found::Value {
                    version,
                    mzxid,
                    events,
                    ..
                },
            ..
        } => (version, mzxid, events),
        other => panic!("{other:?} has no version"),
    }
}

fn log_path(number: u32) -> String {
    format!("{LOG}/n-{number:010}")
}

fn in_all_trees(history: &mut History, spoil: impl Fn(&mut Tree)) {
    history.trees.iter_mut().for_each(spoil);
}

#[test]
fn a_good_history_passes_and_is_counted() {
    let (violations, counts) = check(&good(), Promises::ALL);
    assert!(violations.is_empty(), "{violations:?}");
    assert_eq!((counts.writes, counts.reads, counts.syncs), (43, 20, 20));
    assert_eq!((counts.sessions, counts.unknown, counts.looks), (2, 0, 21));
}

#[test]
fn an_unknown_write_may_be_done_or_not() {
    passes(|history| {
        nth(history, 0, 9, is_append).answer = Answer::Unknown;
        nth(history, 0, 4, is_set).answer = Answer::Unknown;
    });
    passes(|history| {
        nth(history, 1, 9, is_append).answer = Answer::Unknown;
        in_all_trees(history, |tree| drop(tree.znodes.remove(&log_path(19))));
    });
}

#[test]
fn an_acknowledged_create_that_is_gone_is_noticed() {
    breaks(Rule::NothingIsLost, |history| {
        in_all_trees(history, |tree| drop(tree.znodes.remove(&log_path(7))));
    });
}

#[test]
fn acknowledged_sets_that_are_gone_are_noticed() {
    breaks(Rule::NothingIsLost, |history| {
        in_all_trees(history, |tree| {
            let (data, stat) = tree.znodes.get_mut(REGISTER).unwrap();
            *data = b"c1#8".to_vec();
            stat.version = 18;
        });
    });
    // Another write has taken its version.
    breaks(Rule::OneHistory, |history| {
        *version_of(nth(history, 0, 4, is_set)).0 += 1;
    });
}

#[test]
fn a_write_that_is_done_twice_is_noticed() {
    breaks(Rule::NothingIsDoneTwice, |history| {
        in_all_trees(history, |tree| {
            let again = tree.znodes[&log_path(7)].clone();
            tree.znodes.insert(log_path(20), again);
        });
    });
    breaks(Rule::NothingIsDoneTwice, |history| {
        in_all_trees(history, |tree| {
            let (_, stat) = tree.znodes.get_mut(REGISTER).unwrap();
            stat.version += 1;
            stat.mzxid.0 += 1;
        });
    });
}

#[test]
fn a_refused_write_that_is_done_is_noticed() {
    for is_write in [is_append, is_set] {
        breaks(Rule::NothingIsDoneTwice, |history| {
            let asked = nth(history, 0, 4, is_write);
            let (at, zxid) = asked.answered().unwrap();
            asked.answer = Answer::Refused { at, zxid, code: -4 };
        });
    }
}

#[test]
fn a_write_that_nobody_sent_is_noticed() {
    for is_write in [is_append, is_set] {
        breaks(Rule::NothingIsDoneTwice, |history| {
            match &mut nth(history, 0, 4, is_write).request {
                Ask::Set { value, .. } | Ask::Append { value } => "another".clone_into(value),
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn two_answers_that_disagree_about_a_version_are_noticed() {
    breaks(Rule::OneHistory, |history| {
        if let Answer::Done {
            found: Found::Value { value, .. },
            ..
        } = &mut nth(history, 0, 4, is_read).answer
        {
            "c1#0".clone_into(value);
        }
    });
    breaks(Rule::OneHistory, |history| {
        if let Answer::Done { found, .. } = &mut nth(history, 0, 4, is_append).answer {
            *found = Found::Path(log_path(3));
        }
    });
}

#[test]
fn a_write_ordered_before_one_that_was_acknowledged_earlier_is_noticed() {
    breaks(Rule::WritesAreLinearizable, |history| {
        *zxid_of(nth(history, 0, 4, is_append)) -= 20;
    });
    breaks(Rule::WritesAreLinearizable, |history| {
        let before = *zxid_of(nth(history, 0, 4, is_set));
        *zxid_of(nth(history, 0, 4, is_append)) = before;
    });
}

#[test]
fn a_sync_that_misses_an_acknowledged_write_is_noticed() {
    let spoil = |history: &mut History| *zxid_of(nth(history, 1, 4, is_sync)) -= 1;
    breaks(Rule::SyncIsABarrier, spoil);
    let mut history = good();
    spoil(&mut history);
    assert_eq!(rules(&history, Promises::ZOOKEEPER), []);
}

#[test]
fn writes_of_a_session_out_of_order_are_noticed() {
    breaks(Rule::SessionOrder, |history| {
        let one = log_path(6);
        let other = log_path(8);
        in_all_trees(history, |tree| {
            let (first, second) = (tree.znodes[&one].clone(), tree.znodes[&other].clone());
            tree.znodes.insert(one.clone(), second);
            tree.znodes.insert(other.clone(), first);
        });
    });
    breaks(Rule::SessionOrder, |history| {
        *zxid_of(nth(history, 0, 4, is_append)) -= 20;
    });
}

#[test]
fn a_hole_in_what_was_under_way_on_a_lost_connection_is_noticed() {
    breaks(Rule::SessionOrder, |history| {
        for number in 8..10 {
            nth(history, 0, number, is_append).answer = Answer::Unknown;
        }
        in_all_trees(history, |tree| drop(tree.znodes.remove(&log_path(16))));
    });
}

#[test]
fn a_session_that_sees_the_past_is_noticed() {
    breaks(Rule::NoGoingBack, |history| {
        *zxid_of(nth(history, 0, 4, is_read)) -= 5;
    });
    breaks(Rule::NoGoingBack, |history| {
        let old = nth(history, 0, 3, is_read).answer.clone();
        nth(history, 0, 4, is_read).answer = old;
    });
}

#[test]
fn a_reply_that_shows_another_state_than_that_of_its_zxid_is_noticed() {
    // The old value at a new zxid.
    breaks(Rule::RepliesShowTheirZxid, |history| {
        let (_, _, old) = nth(history, 0, 3, is_read).done().unwrap();
        let old = old.clone();
        if let Answer::Done { found, .. } = &mut nth(history, 0, 4, is_read).answer {
            *found = old;
        }
    });
}

#[test]
fn a_missing_event_and_one_too_many_are_noticed() {
    for error in [-1, 1] {
        breaks(Rule::OneEventPerChange, |history| {
            *version_of(nth(history, 0, 4, is_read)).2.as_mut().unwrap() += error;
        });
    }
}

#[test]
fn a_one_time_watch_that_misses_a_change_or_imagines_one_is_noticed() {
    for (earlier, fired, is_good) in [
        (0, false, true),
        (1, false, false),
        (0, true, false),
        (1, true, true),
    ] {
        let spoil = |history: &mut History| {
            if let Answer::Done {
                found: Found::Value { version, watch, .. },
                ..
            } = &mut nth(history, 0, 4, is_read).answer
            {
                *watch = match fired {
                    true => Watch::FiredAfter(*version - earlier),
                    false => Watch::SetAt(*version - earlier),
                };
            }
        };
        match is_good {
            true => passes(spoil),
            false => breaks(Rule::OneEventPerChange, spoil),
        }
    }
}

#[test]
fn an_ephemeral_that_outlives_its_session_is_noticed() {
    breaks(Rule::EphemeralsLiveWithTheirSession, |history| {
        if let Answer::Done { found, .. } = &mut nth(history, 0, 10, is_look).answer {
            *found = Found::Present { owner: SESSIONS[1] };
        }
    });
    breaks(Rule::EphemeralsLiveWithTheirSession, |history| {
        in_all_trees(history, |tree| {
            let (_, mut stat) = tree.znodes[HELD[0]].clone();
            stat.ephemeral_owner = SESSIONS[1];
            tree.znodes.insert(HELD[1].to_owned(), (Vec::new(), stat));
        });
    });
}

#[test]
fn an_ephemeral_that_goes_before_its_session_is_noticed() {
    for number in [4, 9] {
        breaks(Rule::EphemeralsLiveWithTheirSession, |history| {
            if let Answer::Done { found, .. } = &mut nth(history, 0, number, is_look).answer {
                *found = Found::Absent;
            }
        });
    }
    breaks(Rule::EphemeralsLiveWithTheirSession, |history| {
        in_all_trees(history, |tree| drop(tree.znodes.remove(HELD[0])));
    });
    // That the session ended later does not excuse it; that it may have ended then, does.
    passes(|history| {
        in_all_trees(history, |tree| drop(tree.znodes.remove(HELD[0])));
        history.clients[0].push(Entry::Abandoned {
            session: SESSIONS[0],
        });
    });
}

#[test]
fn an_ephemeral_that_comes_back_is_noticed() {
    breaks(Rule::EphemeralsLiveWithTheirSession, |history| {
        history.clients[1].push(Entry::Abandoned {
            session: SESSIONS[1],
        });
        nth(history, 1, 0, |ask| *ask == Ask::Close).answer = Answer::Unknown;
        if let Answer::Done { found, .. } = &mut nth(history, 0, 4, is_look).answer {
            *found = Found::Absent;
        }
    });
}

#[test]
fn a_session_that_expires_too_early_is_noticed() {
    let expired = |after: Duration| {
        move |history: &mut History| {
            let last = nth(history, 0, 9, |ask| *ask == Ask::Ping).sent;
            let at = last + after;
            let session = SESSIONS[0];
            history.clients[0].push(Entry::Expired { session, at });
        }
    };
    breaks(Rule::NoLivingSessionExpires, expired(TIMEOUT / 2));
    passes(expired(TIMEOUT * 2));
}

#[test]
fn replicas_that_differ_are_noticed() {
    breaks(Rule::ReplicasAgree, |history| {
        drop(history.trees[1].znodes.remove(&log_path(3)));
    });
    breaks(Rule::ReplicasAgree, |history| {
        let (_, stat) = history.trees[2].znodes.get_mut(&log_path(3)).unwrap();
        stat.cversion += 1;
    });
    breaks(Rule::ReplicasAgree, |history| history.trees.clear());
}

#[test]
fn a_connection_lost_on_a_server_that_nothing_happened_to_is_noticed() {
    let second = Duration::from_secs(1);
    let lost = move |history: &mut History| {
        history.clients[0].push(Entry::Lost {
            session: SESSIONS[0],
            server: 1,
            since: second * 5,
            at: second * 6,
        });
    };
    breaks(Rule::SurvivorsKeepTheirClients, lost);
    for (server, from, to) in [(2, 4, Some(7)), (1, 2, Some(4)), (1, 7, None)] {
        breaks(Rule::SurvivorsKeepTheirClients, |history| {
            lost(history);
            history.disturbances.push(Disturbance {
                server,
                from: second * from,
                to: to.map(|to| second * to),
            });
        });
    }
    passes(|history| {
        lost(history);
        history.disturbances.push(Disturbance {
            server: 1,
            from: second * 4,
            to: None,
        });
    });
    // Once for each resumption that was given up.
    let session = SESSIONS[0];
    passes(|history| {
        history.clients[0].push(Entry::Attempted { session });
        lost(history);
    });
    breaks(Rule::SurvivorsKeepTheirClients, |history| {
        history.clients[0].push(Entry::Attempted { session });
        lost(history);
        lost(history);
    });
}

#[test]
fn nonsense_and_silence_are_noticed() {
    breaks(Rule::AnswersComeAndMakeSense, |history| {
        let what = "a reply nobody asked for".to_owned();
        history.clients[0].push(Entry::Broken { server: 1, what });
    });
}
