//! For each promise, at least one history that breaks it: good ones, spoilt.
//!
//! [`every_promise_is_here`] sees to it that none is forgotten.

use quorate_protocol::{AclEntry, Id, Perms, Zxid};

use crate::history::{
    CreateKind, Data, DigestAt, EventKind, Fault, Grant, GuardedWrite, History, LogCommand,
    Outcome, PartResult, Reply, Request, SessionRecord, SessionStep, WatchEvent, WatchList,
};
use crate::{Promise, check};

use super::world::{STEP, World};
use super::{
    assert_broken, assert_clean, create, create_kind, get, reply_of, set, sync, watch, zxid_of,
};

type Spoiler = fn(&mut History);

/// A good history with a bit of everything. The comments are indexes of its operations.
fn good() -> History {
    let mut world = World::new();
    let one = world.open(1, 1);
    let two = world.open(2, 2);
    world.ask(one, create("/a")); // 0
    world.ask(one, set("/a", "first")); // 1
    world.ask(two, sync()); // 2
    world.ask(two, watch("/a")); // 3
    world.ask(
        two,
        Request::AddWatch {
            path: "/a".into(),
            recursive: false,
        },
    ); // 4
    world.ask(one, set("/a", "second")); // 5
    world.ask(two, sync()); // 6
    world.ask(two, get("/a")); // 7
    world.ask(one, create_kind("/a/n-", CreateKind::PersistentSequential)); // 8
    world.ask(one, create_kind("/a/n-", CreateKind::PersistentSequential)); // 9
    world.ask(one, create_kind("/mine", CreateKind::Ephemeral)); // 10
    world.ask(two, sync()); // 11
    world.ask(two, get("/mine")); // 12
    world.ask(one, Request::Multi(vec![set("/a", "third"), create("/b")])); // 13
    world.ask(two, sync()); // 14
    world.ask(two, get("/b")); // 15
    world.ask(two, get("/a")); // 16
    world.ask(
        one,
        Request::Delete {
            path: "/b".into(),
            version: 7,
        },
    ); // 17: refused
    world.ask(one, Request::Ping); // 18
    world.ask(one, Request::CloseSession); // 19
    world.ask(two, sync()); // 20
    world.ask(two, get("/mine")); // 21: refused
    world.ask(two, Request::Ping); // 22
    world.finish()
}

/// What breaks which promise, with the log and, where the second is true, without it.
const SPOILERS: &[(Promise, bool, Spoiler)] = &[
    // A write that the log does not have.
    (Promise::AcknowledgedWritesSurvive, false, |history| {
        let zxid = *zxid_of(&mut history.operations[5].outcome);
        let entries = &mut history.log.as_mut().unwrap().entries;
        entries.retain(|entry| entry.zxid != zxid);
    }),
    // A write that is gone in the end.
    (Promise::AcknowledgedWritesSurvive, true, |history| {
        for tree in &mut history.trees {
            tree.znodes.get_mut("/b").unwrap().data = Data::from("old");
        }
    }),
    // Two writes with one entry.
    (Promise::NothingIsDoneTwice, true, |history| {
        let zxid = *zxid_of(&mut history.operations[8].outcome);
        *zxid_of(&mut history.operations[9].outcome) = zxid;
    }),
    // An entry that nobody asked for.
    (Promise::NothingIsDoneTwice, false, |history| {
        history.operations[8].outcome = Outcome::NotSent;
        history.operations[8].returned = None;
    }),
    // A znode that should not be there.
    (Promise::NothingIsDoneTwice, false, |history| {
        for tree in &mut history.trees {
            tree.znodes.insert("/ghost".into(), Default::default());
        }
    }),
    (Promise::OneOrder, false, |history| {
        history.log.as_mut().unwrap().entries.swap(3, 4);
    }),
    (Promise::OneOrder, false, |history| {
        history.log.as_mut().unwrap().entries[4].term = 0;
    }),
    // Half of a multi.
    (Promise::MultiIsAtomic, false, |history| {
        let Reply::Results(results) = reply_of(&mut history.operations[13].outcome) else {
            panic!("no multi");
        };
        results[1] = PartResult::Failed(-110);
    }),
    (Promise::MultiIsAtomic, false, |history| {
        let reply = reply_of(&mut history.operations[7].outcome).clone();
        *reply_of(&mut history.operations[16].outcome) = reply;
    }),
    // A write before what had been answered before it was asked for.
    (Promise::WritesAreLinearizable, true, |history| {
        let last = *zxid_of(&mut history.operations[16].outcome);
        *zxid_of(&mut history.operations[7].outcome) = last + 1;
        history.operations[7].returned = Some(history.operations[7].invoked + 1);
    }),
    // By answers alone: a version that cannot be.
    (Promise::WritesAreLinearizable, true, |history| {
        let Reply::Stat(stat) = reply_of(&mut history.operations[5].outcome) else {
            panic!("no set");
        };
        stat.version = 1;
    }),
    // What is read behind a sync is old.
    (Promise::SyncIsABarrier, true, |history| {
        *zxid_of(&mut history.operations[11].outcome) -= 1;
    }),
    (Promise::SyncIsABarrier, true, |history| {
        let (first, second) = (reply_of(&mut history.operations[3].outcome).clone(), 7);
        *reply_of(&mut history.operations[second].outcome) = first;
    }),
    (Promise::WritesAnswerTruly, false, |history| {
        let Reply::Stat(stat) = reply_of(&mut history.operations[5].outcome) else {
            panic!("no set");
        };
        stat.num_children += 1;
    }),
    // Refused for another reason, and refused though nothing was wrong.
    (Promise::WritesAnswerTruly, false, |history| {
        let Outcome::Refused { code, .. } = &mut history.operations[17].outcome else {
            panic!("not refused");
        };
        *code = -101;
    }),
    (Promise::WritesAnswerTruly, false, |history| {
        let zxid = *zxid_of(&mut history.operations[5].outcome);
        history.operations[5].outcome = Outcome::Refused { zxid, code: -103 };
    }),
    (Promise::ReadsShowTheirZxid, false, |history| {
        let Reply::Data { stat, .. } = reply_of(&mut history.operations[7].outcome) else {
            panic!("no read");
        };
        stat.pzxid = Zxid(stat.pzxid.0 + 1);
    }),
    // A state that was never committed.
    (Promise::ReadsShowTheirZxid, false, |history| {
        *zxid_of(&mut history.operations[21].outcome) += 1_000;
        *zxid_of(&mut history.operations[22].outcome) += 1_000;
    }),
    // Answered out of order, and passed over.
    (Promise::SessionOrder, true, |history| {
        let arrival = history.operations[0].arrival;
        history.operations[0].arrival = history.operations[1].arrival;
        history.operations[1].arrival = arrival;
    }),
    (Promise::SessionOrder, true, |history| {
        history.operations[7].outcome = Outcome::Unknown;
        history.operations[7].returned = None;
    }),
    (Promise::NoGoingBack, true, |history| {
        *zxid_of(&mut history.operations[7].outcome) = 1;
    }),
    (Promise::NumbersNeverRepeat, true, |history| {
        let reply = reply_of(&mut history.operations[8].outcome).clone();
        *reply_of(&mut history.operations[9].outcome) = reply;
    }),
    // An ephemeral that is gone too early, and one that stays.
    (Promise::EphemeralsLiveWithTheirSession, false, |history| {
        let zxid = *zxid_of(&mut history.operations[12].outcome);
        history.operations[12].outcome = Outcome::Refused { zxid, code: -101 };
    }),
    (Promise::EphemeralsLiveWithTheirSession, false, |history| {
        let mut seen = history.operations[12].outcome.clone();
        *zxid_of(&mut seen) = *zxid_of(&mut history.operations[21].outcome);
        history.operations[21].outcome = seen;
    }),
    (Promise::EphemeralsLiveWithTheirSession, false, |history| {
        let Reply::Data { stat, .. } = reply_of(&mut history.operations[12].outcome).clone() else {
            panic!("no read");
        };
        for tree in &mut history.trees {
            tree.znodes.entry("/mine".into()).or_default().stat = stat;
        }
    }),
    (Promise::IdsAreUnique, true, |history| {
        let again = history.sessions[0].clone();
        history.sessions.push(SessionRecord {
            connection: 77,
            ..again
        });
    }),
    // Resumed without an entry.
    (Promise::IdsAreUnique, false, |history| {
        let opened = history.sessions[1].clone();
        history.sessions.push(SessionRecord {
            connection: 77,
            step: SessionStep::Resumed {
                timeout_ms: 4_000,
                seen: 0,
            },
            ..opened
        });
    }),
    // A close that was answered, and then a ping.
    (Promise::EndedIsEnded, false, |history| {
        let mut ping = history.operations[18].clone();
        let last = history.operations[22].clone();
        (ping.invoked, ping.returned) = (last.invoked, last.returned);
        ping.sequence = 1_000;
        ping.arrival = 1_000;
        ping.outcome = last.outcome;
        history.operations.push(ping);
    }),
    (Promise::TokensIncrease, true, |history| {
        let grant = Grant {
            lock: "/lock".to_owned(),
            client: 1,
            session: 1,
            token: 5,
            from: 1,
            to: None,
        };
        let other = Grant {
            client: 2,
            from: 2,
            ..grant.clone()
        };
        history.grants.extend([grant, other]);
    }),
    (Promise::TokensIncrease, true, |history| {
        let grant = Grant {
            lock: "/lock".to_owned(),
            client: 1,
            session: 1,
            token: 5,
            from: 1,
            to: None,
        };
        let other = Grant {
            token: 4,
            from: 2,
            ..grant.clone()
        };
        history.grants.extend([grant, other]);
    }),
    (Promise::OldTokensAreRefused, true, |history| {
        let write = |token, zxid| GuardedWrite {
            lock: "/lock".to_owned(),
            token,
            zxid,
            done: true,
        };
        history.guarded.extend([write(7, 10), write(5, 11)]);
    }),
    // An event of each kind lost.
    (Promise::EventsComeFirst, false, |history| {
        history.events.remove(0);
    }),
    (Promise::EventsComeFirst, true, |history| {
        history.events.clear();
    }),
    // Late, but not lost.
    (Promise::EventsComeFirst, false, |history| {
        let answer = &mut history.operations[6];
        let event = &mut history.events[0];
        std::mem::swap(&mut answer.arrival, &mut event.arrival);
    }),
    (Promise::EventsInOrder, false, |history| {
        let [first, .., last] = &mut history.events[..] else {
            panic!("too few events");
        };
        std::mem::swap(&mut first.arrival, &mut last.arrival);
    }),
    (Promise::NoFalseEvents, true, |history| {
        history.events[0].kind = EventKind::Deleted;
        history.events[0].path = "/elsewhere".into();
    }),
    // Twice.
    (Promise::NoFalseEvents, false, |history| {
        let mut again = history.events[0].clone();
        again.arrival = 1_000;
        history.events.push(again);
    }),
    (Promise::ReplicasAgree, true, |history| {
        history.trees[1].znodes.remove("/b");
    }),
    (Promise::ReplicasAgree, true, |history| {
        let DigestAt { digest, .. } = history.digests.last_mut().unwrap();
        *digest ^= 1;
    }),
    (Promise::ReplicasAgree, true, |history| {
        *history.trees[0].digest.as_mut().unwrap() ^= 1;
    }),
    (Promise::SurvivorsKeepTheirClients, true, |history| {
        let lost = SessionRecord {
            step: SessionStep::Lost,
            ..history.sessions[1].clone()
        };
        history.sessions.push(lost);
        history.faults.push(Fault {
            what: "kill".to_owned(),
            servers: vec![3],
            from: 0,
            to: None,
        });
    }),
    (Promise::AnswersMakeSense, true, |history| {
        let what = "xid 7 was not asked for".to_owned();
        let broken = SessionRecord {
            step: SessionStep::Broken { what },
            ..history.sessions[1].clone()
        };
        history.sessions.push(broken);
    }),
];

/// Promises that need a history of their own: the tests below.
const ELSEWHERE: &[Promise] = &[
    Promise::NoEarlyExpiry,
    Promise::NoImmortals,
    Promise::WatchesFire,
    Promise::EventsRespectAcls,
    Promise::WatchesSurviveReconnects,
];

#[test]
fn every_promise_is_here() {
    for promise in Promise::ALL {
        let is_spoilt = SPOILERS.iter().any(|(spoilt, ..)| spoilt == promise);
        assert!(is_spoilt ^ ELSEWHERE.contains(promise), "{promise}");
    }
}

#[test]
fn the_good_history_is_clean() {
    assert_clean(&good());
    let mut history = good();
    history.log = None;
    assert_clean(&history);
}

#[test]
fn every_spoilt_history_is_noticed() {
    for (index, (promise, without_log, spoil)) in SPOILERS.iter().enumerate() {
        let mut history = good();
        spoil(&mut history);
        for has_log in [true, false] {
            if !has_log {
                history.log = None;
            }
            if has_log || *without_log {
                let report = check(&history);
                assert!(
                    report.broken.contains_key(promise),
                    "spoiler {index}, log: {has_log}: {promise} is not noticed; only:\n{}",
                    super::show(&report)
                );
            }
        }
    }
}

#[test]
fn a_write_done_although_it_was_refused_is_noticed() {
    let mut world = World::new();
    let one = world.open(1, 1);
    let at = world.ask(one, create("/a"));
    let mut history = world.finish();
    let zxid = *zxid_of(&mut history.operations[at].outcome);
    history.operations[at].outcome = Outcome::Refused { zxid, code: -110 };
    assert_broken(&history, Promise::WritesAnswerTruly);
}

#[test]
fn an_unanswered_write_may_be_done_or_not_but_once() {
    for is_done in [true, false] {
        let mut world = World::new();
        let one = world.open(1, 1);
        world.ask(one, create("/a"));
        world.ask_in_vain(one, set("/a", "perhaps"), is_done);
        let one = world.resume(one, 2).unwrap();
        world.ask(one, get("/a"));
        let history = world.finish();
        assert_clean(&history);
        if is_done {
            // The same entry again, as a retry would make it.
            let mut twice = history;
            let log = twice.log.as_mut().unwrap();
            let at = log.entries.iter().position(|entry| {
                matches!(
                    &entry.command,
                    LogCommand::Write {
                        write: Request::SetData { .. },
                        ..
                    }
                )
            });
            let at = at.unwrap();
            for entry in &mut log.entries[at + 1..] {
                entry.zxid += 1;
            }
            let mut entry = log.entries[at].clone();
            entry.origin.sequence += 1;
            entry.zxid += 1;
            log.entries.insert(at + 1, entry);
            assert_broken(&twice, Promise::NothingIsDoneTwice);
        }
    }
}

#[test]
fn a_later_write_done_without_an_earlier_one_is_noticed() {
    let mut world = World::new();
    let one = world.open(1, 1);
    world.ask(one, create("/a"));
    world.ask_in_vain(one, set("/a", "first"), false);
    world.ask_in_vain(one, set("/a", "second"), true);
    world.resume(one, 2).unwrap();
    assert_broken(&world.finish(), Promise::SessionOrder);
}

#[test]
fn an_old_read_on_another_server_is_no_fault_but_going_back_is() {
    let mut world = World::new();
    let one = world.open(1, 1);
    world.ask(one, create("/a"));
    let two = world.open(2, 2);
    world.ask(one, set("/a", "new"));
    let old = world.ask(two, get("/a"));
    let mut history = world.finish();
    assert_clean(&history);
    // The same old state, for a session that had seen the new one.
    let seen = history.operations[old].clone();
    let mut moved = history.operations[1].clone();
    moved.sequence += 1;
    moved.arrival += 1;
    (moved.request, moved.outcome) = (seen.request, seen.outcome);
    (moved.invoked, moved.returned) = (seen.invoked, seen.returned);
    history.operations.push(moved);
    assert_broken(&history, Promise::NoGoingBack);
}

#[test]
fn a_session_that_expires_within_its_timeout_is_noticed() {
    let expired_after = |silence: u64| {
        let mut world = World::new();
        let one = world.open(1, 1);
        let two = world.open(2, 2);
        world.ask(one, create_kind("/mine", CreateKind::Ephemeral));
        world.ask(one, Request::Ping);
        world.now += silence;
        world.expire(one);
        world.ask(two, sync());
        assert_eq!(world.resume(one, 2), None);
        world.finish()
    };
    assert_clean(&expired_after(4_000 * STEP));
    assert_broken(&expired_after(3_000 * STEP), Promise::NoEarlyExpiry);
    let mut without_log = expired_after(3_000 * STEP);
    without_log.log = None;
    assert_broken(&without_log, Promise::NoEarlyExpiry);
    // A client that is refused while its session lives.
    let mut world = World::new();
    let one = world.open(1, 1);
    world.ask(one, create("/a"));
    let mut history = world.finish();
    history.sessions.push(SessionRecord {
        connection: 9,
        at: 100_000 * STEP,
        step: SessionStep::Refused {
            wrong_password: false,
        },
        ..history.sessions[0].clone()
    });
    assert_broken(&history, Promise::NoEarlyExpiry);
}

#[test]
fn a_session_that_lives_for_ever_is_noticed() {
    let abandoned = |expires: bool, quiet: u64| {
        let mut world = World::new();
        let one = world.open(1, 1);
        let two = world.open(2, 2);
        world.ask(one, create_kind("/mine", CreateKind::Ephemeral));
        let record = SessionRecord {
            at: world.now,
            step: SessionStep::Abandoned,
            ..world.history.sessions[0].clone()
        };
        world.history.sessions.push(record);
        world.now += quiet;
        if expires {
            world.expire(one);
        }
        world.ask(two, sync());
        world.finish()
    };
    assert_clean(&abandoned(true, 5_000 * STEP));
    assert_clean(&abandoned(false, 3_000 * STEP));
    assert_broken(&abandoned(false, 5_000 * STEP), Promise::NoImmortals);
    let mut without_log = abandoned(false, 5_000 * STEP);
    without_log.log = None;
    assert_broken(&without_log, Promise::NoImmortals);
    // Nobody is blamed while a fault is on.
    let mut disturbed = abandoned(false, 5_000 * STEP);
    disturbed.faults.push(Fault {
        what: "partition".to_owned(),
        servers: vec![1],
        from: 0,
        to: None,
    });
    assert_clean(&disturbed);
}

#[test]
fn an_event_that_never_comes_is_noticed_by_the_next_one() {
    let mut world = World::new();
    let one = world.open(1, 1);
    world.ask(one, create("/a"));
    world.ask(
        one,
        Request::AddWatch {
            path: "/a".into(),
            recursive: true,
        },
    );
    let two = world.open(2, 1);
    world.ask(two, set("/a", "1"));
    world.ask(two, set("/a", "2"));
    let mut history = world.finish();
    assert_clean(&history);
    history.events.remove(0);
    assert_broken(&history, Promise::WatchesFire);
}

#[test]
fn a_watch_that_was_removed_although_it_was_there_is_told_of() {
    let mut world = World::new();
    let one = world.open(1, 1);
    world.ask(one, create("/a"));
    world.ask(one, watch("/a"));
    let removal = Request::RemoveWatches {
        path: "/a".into(),
        which: WatchList::Any,
    };
    let at = world.ask(one, removal);
    let mut history = world.finish();
    assert_clean(&history);
    let zxid = *zxid_of(&mut history.operations[at].outcome);
    history.operations[at].outcome = Outcome::Refused { zxid, code: -121 };
    assert_broken(&history, Promise::WatchesFire);
}

#[test]
fn an_event_for_somebody_who_may_not_read_is_noticed() {
    let mut world = World::new();
    let one = world.open(1, 1);
    let two = world.open(2, 1);
    world.ask(
        two,
        Request::Exists {
            path: "/secret".into(),
            watch: true,
        },
    );
    let at = world.ask(
        one,
        Request::Create {
            path: "/secret".into(),
            data: Data::from("s"),
            kind: CreateKind::Persistent,
            acl: Some(vec![AclEntry::new(
                Perms::ALL,
                "digest",
                &Id::digest(b"u:p").id,
            )]),
            with_stat: false,
        },
    );
    world.ask(two, Request::Ping);
    let mut history = world.finish();
    assert_clean(&history);
    assert!(history.events.is_empty());
    let zxid = *zxid_of(&mut history.operations[at].outcome);
    let ping = &mut history.operations[2];
    history.events.push(WatchEvent {
        client: 2,
        connection: ping.connection,
        server: 1,
        session: ping.session,
        arrival: ping.arrival,
        at: ping.invoked,
        kind: EventKind::Created,
        path: "/secret".into(),
        zxid: Some(zxid),
    });
    ping.arrival += 1;
    assert_broken(&history, Promise::EventsRespectAcls);
}

#[test]
fn a_watch_that_is_set_again_makes_up_for_what_happened() {
    let mut world = World::new();
    let one = world.open(1, 1);
    let two = world.open(2, 2);
    world.ask(one, create("/a"));
    world.ask(one, watch("/a"));
    let since = world.seen(one);
    world.ask(two, set("/a", "meanwhile"));
    let one = world.resume(one, 2).unwrap();
    let again = |list: &[&str]| Request::SetWatches {
        since,
        data: list.iter().map(|path| (*path).into()).collect(),
        exist: Vec::new(),
        child: Vec::new(),
        persistent: Vec::new(),
        recursive: Vec::new(),
    };
    world.ask(one, again(&["/a", "/none"]));
    world.ask(one, get("/a"));
    let history = world.finish();
    let report = assert_clean(&history);
    assert_eq!(report.tally.events_checked, 2);
    let mut without_log = history.clone();
    without_log.log = None;
    assert_clean(&without_log);
    without_log.events.clear();
    assert_broken(&without_log, Promise::EventsComeFirst);
    let mut lost = history.clone();
    lost.events.remove(0);
    assert_broken(&lost, Promise::WatchesSurviveReconnects);
    let mut false_alarm = history;
    false_alarm.events[0].kind = EventKind::Deleted;
    assert_broken(&false_alarm, Promise::WatchesSurviveReconnects);
}

#[test]
fn a_session_resumed_after_its_end_is_noticed() {
    let mut world = World::new();
    let one = world.open(1, 1);
    let two = world.open(2, 2);
    world.ask(one, Request::CloseSession);
    world.ask(two, sync());
    let mut history = world.finish();
    history.sessions.push(SessionRecord {
        connection: 9,
        from: 100_000 * STEP,
        at: 100_001 * STEP,
        step: SessionStep::Resumed {
            timeout_ms: 4_000,
            seen: 0,
        },
        ..history.sessions[0].clone()
    });
    assert_broken(&history, Promise::EndedIsEnded);
}

#[test]
fn a_log_that_cannot_be_read_is_no_pass() {
    let mut history = good();
    history.log.as_mut().unwrap().entries[3].command = LogCommand::Unknown {
        what: "new".to_owned(),
    };
    let report = check(&history);
    assert!(!report.is_clean());
    assert!(!report.undecided.is_empty());
}

#[test]
fn a_log_that_begins_too_late_is_no_pass() {
    let mut history = good();
    history.log.as_mut().unwrap().entries.remove(0);
    assert!(!check(&history).undecided.is_empty());
}

#[test]
fn what_was_not_recorded_is_no_fault_of_the_recorded() {
    let mut world = World::new();
    let one = world.open(1, 1);
    let two = world.open(2, 2);
    world.ask(one, create("/a"));
    world.ask(two, create("/theirs"));
    world.ask(two, set("/a", "theirs"));
    world.ask(one, create_kind("/mine", CreateKind::Ephemeral));
    world.ask(one, sync());
    world.ask(one, get("/a"));
    let children = Request::GetChildren {
        path: "/".into(),
        watch: false,
    };
    world.ask(one, children);
    let mut history = world.finish();
    assert_clean(&history);
    history.operations.retain(|it| it.client == 1);
    history.sessions.retain(|it| it.client == 1);
    assert_clean(&history);
}

#[test]
fn a_number_that_nobody_was_told_makes_a_znode_all_the_same() {
    let mut world = World::new();
    let one = world.open(1, 1);
    let two = world.open(2, 2);
    world.ask(one, create("/q"));
    let numbered = create_kind("/q/n-", CreateKind::PersistentSequential);
    world.ask_in_vain(one, numbered, true);
    world.ask(two, sync());
    world.ask(two, get("/q/n-0000000000"));
    let mut history = world.finish();
    assert_clean(&history);
    history.log = None;
    assert_clean(&history);
}

#[test]
fn a_delete_refused_for_its_children_is_no_fault_although_nothing_else_ties_them() {
    let mut world = World::new();
    let one = world.open(1, 1);
    world.ask(one, create("/a"));
    world.ask(one, create("/a/x"));
    let delete = Request::Delete {
        path: "/a".into(),
        version: -1,
    };
    world.ask(one, delete);
    let history = world.finish();
    assert_clean(&history);
    let mut lost = history;
    lost.log = None;
    lost.operations.remove(1);
    assert_broken(&lost, Promise::WritesAreLinearizable);
}

#[test]
fn a_refusal_that_never_got_to_the_log_is_no_fault() {
    let mut world = World::new();
    let one = world.open(1, 1);
    world.ask(one, create("/a"));
    let at = world.ask(one, set("/a", "1"));
    world.ask(one, Request::Ping);
    let mut history = world.finish();
    // A server that is read-only by now: the zxid is that of the last write, which was just like it.
    let done = history.operations[at].clone();
    let zxid = done.outcome.zxid().unwrap();
    history.operations[at + 1].request = done.request;
    history.operations[at + 1].outcome = Outcome::Refused { zxid, code: -119 };
    assert_clean(&history);
}

#[test]
fn violations_are_counted_and_only_a_few_are_told() {
    let mut history = good();
    for digest in &mut history.digests {
        digest.digest ^= digest.server;
    }
    let report = check(&history);
    assert!(report.broken[&Promise::ReplicasAgree] > 8);
    assert_eq!(report.violations.len(), 8);
}
