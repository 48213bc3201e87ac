//! Who belongs to the ensemble, what clients read of it, and how it changes; how leadership moves.
//!
//! Values are Apache ZooKeeper's (compatibility reference, 7.3 and 7.4); where it takes no part, the
//! test says so.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::request::{Auth, Reconfig};
use quorate_protocol::{ErrorCode, EventType, Request};
use quorate_tests::client::{Connection, Reply, create, get_data, is_closed, set_data};
use quorate_tests::ensemble::{Ensemble, PATIENCE};
use quorate_tests::server::Product;
use rand::Rng;

use crate::scene::{faults, play, product, say, skip};

pub(crate) const CONFIG: &str = "/zookeeper/config";
/// `super:secret`.
pub(crate) const SUPER_DIGEST: &str = "super:lK75jTNcA+U9vtVEw5vB51mj/w4=";
/// Long enough for a third of it to see a server join on a busy machine.
const SESSION_MS: i32 = 60_000;

fn ensemble(servers: u64) -> Ensemble {
    Ensemble::new(product(), servers, None)
        .unwrap()
        .with("reconfigEnabled", "true")
        .with("DigestAuthenticationProvider.superDigest", SUPER_DIGEST)
}

/// A session of the superuser.
fn admin(ensemble: &Ensemble, id: u64) -> Connection {
    let mut client = open(ensemble, id);
    let auth = Request::Auth(Auth {
        auth_type: 0,
        scheme: Some("digest".to_owned()),
        auth: Some(Bytes::from_static(b"super:secret")),
    });
    assert_eq!(client.call(&auth).unwrap().code(), 0);
    client
}

/// A server that has just been started, or has lost its leader, may turn clients away for a moment.
fn open(ensemble: &Ensemble, id: u64) -> Connection {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Connection::open(ensemble.address(id), SESSION_MS) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < deadline, "server {id}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn join_and_leave(joining: &str, leaving: &str, version: i64) -> Request {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Request::Reconfig(Reconfig {
        joining: text(joining),
        leaving: text(leaving),
        new_members: None,
        config_version: version,
    })
}

fn replace(members: &str) -> Request {
    Request::Reconfig(Reconfig {
        joining: None,
        leaving: None,
        new_members: Some(members.to_owned()),
        config_version: -1,
    })
}

fn text(reply: &Reply) -> String {
    assert_eq!(reply.code(), 0, "{reply:?}");
    String::from_utf8(reply.data().unwrap().to_vec()).unwrap()
}

/// The members and the version of a configuration's text.
fn parts(text: &str) -> (Vec<String>, i64) {
    let (members, version) = text.rsplit_once("\nversion=").unwrap_or(("", text));
    (
        members.lines().map(str::to_owned).collect(),
        i64::from_str_radix(version, 16).unwrap(),
    )
}

fn members_of(ensemble: &Ensemble, ids: &[u64]) -> Vec<String> {
    ids.iter().map(|id| ensemble.member_line(*id)).collect()
}

/// Waits until a server tells clients of these members.
fn wait_for_members(ensemble: &Ensemble, id: u64, ids: &[u64]) {
    let expected = members_of(ensemble, ids);
    let deadline = Instant::now() + PATIENCE;
    let mut client = open(ensemble, id);
    loop {
        let found = parts(&text(&client.call(&get_data(CONFIG, false)).unwrap())).0;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "server {id} tells of {found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clients_read_the_members_of_a_new_ensemble() {
    let mut ensemble = ensemble(3);
    ensemble.start().unwrap();
    for id in 1..=3 {
        let reply = open(&ensemble, id).call(&get_data(CONFIG, false)).unwrap();
        let (members, version) = parts(&text(&reply));
        assert_eq!(members, members_of(&ensemble, &[1, 2, 3]));
        let stat = reply.stat().unwrap();
        assert_eq!(
            (stat.mzxid.0, stat.version, stat.aversion),
            (version, -1, -1)
        );
        let conf = ensemble.word(id, "conf").unwrap();
        assert!(conf.contains("\nmembership: \nserver.1="), "{conf}");
        assert!(conf.contains("\nquorumPort=2888\n"), "{conf}");
    }
}

#[test]
fn observers_of_the_configuration_follow_without_a_vote() {
    let mut ensemble = ensemble(3);
    ensemble.add_observer(4).unwrap();
    ensemble.start().unwrap();
    let everybody = [1, 2, 3, 4];
    let mode = |roles: &quorate_tests::ensemble::Roles| {
        (roles[&4].as_deref() == Some("observer")).then_some(())
    };
    ensemble
        .wait_for("server 4 to observe", &[4], mode)
        .unwrap();
    for id in everybody {
        wait_for_members(&ensemble, id, &everybody);
    }
    let leader = ensemble.leader().unwrap();
    let mut client = open(&ensemble, 4);
    assert_eq!(client.call(&create("/by-4", b"", 0)).unwrap().code(), 0);
    let mntr = wait_for_line(&ensemble, leader, "zk_synced_observers\t1");
    assert!(mntr.contains("\nzk_synced_followers\t2\n"), "{mntr}");
    assert!(mntr.contains("\nzk_quorum_size\t3\n"), "{mntr}");
    assert!(mntr.contains("\nzk_learners\t3\n"), "{mntr}");
    // Two of three are still a majority, whatever the observer does.
    let other = (1..=3).find(|id| *id != leader).unwrap();
    ensemble.kill(other);
    ensemble.kill(4);
    let mut client = open(&ensemble, leader);
    assert_eq!(client.call(&create("/by-two", b"", 0)).unwrap().code(), 0);
}

fn wait_for_line(ensemble: &Ensemble, id: u64, line: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mntr = ensemble.word(id, "mntr").unwrap_or_default();
        if mntr.lines().any(|found| found == line) {
            return mntr;
        }
        assert!(Instant::now() < deadline, "{line:?} is not in {mntr}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_server_joins_and_leaves_while_clients_work() {
    let mut ensemble = ensemble(3);
    ensemble.start().unwrap();
    ensemble.add_stranger(4).unwrap();
    let leader = ensemble.leader().unwrap();
    let follower = ensemble.follower().unwrap();
    ensemble.spawn(4).unwrap();

    let mut watcher = open(&ensemble, leader);
    let before = watcher.call(&get_data(CONFIG, true)).unwrap();
    let (_, version) = parts(&text(&before));
    let mut admin = admin(&ensemble, follower);
    for n in 0..50 {
        let path = format!("/before-{n}");
        assert_eq!(admin.call(&create(&path, b"x", 0)).unwrap().code(), 0);
    }
    let joins = join_and_leave(&ensemble.member_line(4), "", version);
    let reply = until_accepted(&mut admin, &joins);
    let (members, joined) = parts(&text(&reply));
    assert_eq!(members, members_of(&ensemble, &[1, 2, 3, 4]));
    let stat = reply.stat().unwrap();
    assert_eq!(stat.mzxid.0, joined, "the version is the zxid");
    assert_eq!(stat.version, -1);
    assert!(stat.mtime > 0);
    assert!(joined > version);
    let event = watcher.next_event().unwrap();
    assert_eq!(
        (event.kind, event.path.as_str()),
        (EventType::NodeDataChanged, CONFIG)
    );

    // It has what was there, takes writes, and counts.
    let mut fourth = open(&ensemble, 4);
    assert_eq!(
        fourth.call(&get_data("/before-49", false)).unwrap().code(),
        0
    );
    assert_eq!(fourth.call(&create("/by-4", b"", 0)).unwrap().code(), 0);
    wait_for_members(&ensemble, 4, &[1, 2, 3, 4]);
    assert!(ensemble.word(4, "srvr").unwrap().contains("Mode: follower"));

    // The old version is not the one any more.
    let stale = admin.call(&join_and_leave("", "4", version)).unwrap();
    assert_eq!(stale.code(), ErrorCode::BadVersion.code());
    let leaves = join_and_leave("", "4", joined);
    let (members, left) = parts(&text(&until_accepted(&mut admin, &leaves)));
    assert_eq!(members, members_of(&ensemble, &[1, 2, 3]));
    assert!(left > joined);
    if product() == Product::Quorate {
        // It says so, and serves nobody.
        let deadline = Instant::now() + PATIENCE;
        while fourth.call(&get_data(CONFIG, false)).is_ok() {
            assert!(Instant::now() < deadline, "the removed server serves on");
        }
        let srvr = ensemble.word(4, "srvr").unwrap();
        assert!(srvr.contains("not currently serving"), "{srvr}");
        assert!(srvr.contains("removed"), "{srvr}");
        assert!(ensemble.log(4).contains("removed from the ensemble"));
        // It comes back with what it has, before it is forgotten or after.
        let joins = join_and_leave(&ensemble.member_line(4), "", -1);
        until_accepted(&mut admin, &joins);
        wait_for_members(&ensemble, 4, &[1, 2, 3, 4]);
        let mut fourth = open(&ensemble, 4);
        assert_eq!(
            fourth.call(&create("/by-4-again", b"", 0)).unwrap().code(),
            0
        );
        // And with nothing, once nobody expects it to have anything.
        let forgotten = || {
            let logs = (1..=3).map(|id| ensemble.log(id)).collect::<String>();
            logs.matches("servers that were removed are forgotten")
                .count()
        };
        let before = forgotten();
        until_accepted(&mut admin, &join_and_leave("", "4", -1));
        while forgotten() == before {
            assert!(Instant::now() < deadline, "the others think of it still");
            std::thread::sleep(Duration::from_millis(50));
        }
        ensemble.kill(4);
        std::fs::remove_dir_all(ensemble.data_dir(4)).unwrap();
        std::fs::create_dir_all(ensemble.data_dir(4)).unwrap();
        std::fs::write(ensemble.data_dir(4).join("myid"), "4\n").unwrap();
        ensemble.spawn(4).unwrap();
        until_accepted(&mut admin, &joins);
        wait_for_members(&ensemble, 4, &[1, 2, 3, 4]);
    }
}

/// ZooKeeper wants the newcomer to have connected before, and the change before to have been told to
/// all.
fn until_accepted(admin: &mut Connection, request: &Request) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = admin.call(request).unwrap();
        let code = ErrorCode::from_code(reply.code());
        match code {
            Some(ErrorCode::NewConfigNoQuorum | ErrorCode::ReconfigInProgress) => {
                assert!(Instant::now() < deadline, "still {code:?}");
                std::thread::sleep(Duration::from_millis(100));
            }
            _ => return reply,
        }
    }
}

#[test]
fn the_leader_can_be_removed_through_itself() {
    let mut ensemble = ensemble(3);
    let leader = ensemble.start().unwrap();
    let mut admin = admin(&ensemble, leader);
    assert_eq!(admin.call(&create("/x", b"", 0)).unwrap().code(), 0);
    let reply = until_accepted(&mut admin, &join_and_leave("", &leader.to_string(), -1));
    let left: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    assert_eq!(parts(&text(&reply)).0, members_of(&ensemble, &left));
    let next = ensemble.wait_for_leader(&left).unwrap();
    assert_ne!(next, leader);
    for id in &left {
        wait_for_members(&ensemble, *id, &left);
        let mut client = open(&ensemble, *id);
        assert_eq!(client.call(&set_data("/x", b"y", -1)).unwrap().code(), 0);
    }
}

#[test]
fn a_dead_server_can_be_removed_and_replaced() {
    let mut ensemble = ensemble(3);
    let leader = ensemble.start().unwrap();
    let dead = ensemble.follower().unwrap();
    ensemble.kill(dead);
    ensemble.add_stranger(4).unwrap();
    ensemble.spawn(4).unwrap();
    let mut admin = admin(&ensemble, leader);
    let request = join_and_leave(&ensemble.member_line(4), &dead.to_string(), -1);
    let reply = until_accepted(&mut admin, &request);
    let now: Vec<u64> = (1..=4).filter(|id| *id != dead).collect();
    assert_eq!(parts(&text(&reply)).0, members_of(&ensemble, &now));
    // Without the newcomer there would be no majority now.
    let other = (1..=3).find(|id| *id != leader && *id != dead).unwrap();
    ensemble.kill(other);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = open(&ensemble, 4);
        match client.call(&create("/by-4", b"", 0)) {
            Ok(reply) => break assert_eq!(reply.code(), 0),
            Err(error) => assert!(is_closed(&error), "{error}"),
        }
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn all_members_are_replaced_by_a_full_list_and_a_voter_becomes_an_observer() {
    let mut ensemble = ensemble(3);
    let leader = ensemble.start().unwrap();
    let other = ensemble.follower().unwrap();
    let mut admin = admin(&ensemble, leader);
    let lines: Vec<String> = (1..=3)
        .map(|id| {
            let line = ensemble.member_line(id);
            match id == other {
                true => line.replace(":participant;", ":observer;"),
                false => line,
            }
        })
        .collect();
    let reply = until_accepted(&mut admin, &replace(&lines.join(",")));
    assert_eq!(parts(&text(&reply)).0, lines);
    let observes = |roles: &quorate_tests::ensemble::Roles| {
        (roles[&other].as_deref() == Some("observer")).then_some(())
    };
    ensemble
        .wait_for("the voter to observe", &[other], observes)
        .unwrap();
    let reply = until_accepted(
        &mut admin,
        &join_and_leave(&ensemble.member_line(other), "", -1),
    );
    assert_eq!(parts(&text(&reply)).0, members_of(&ensemble, &[1, 2, 3]));
    let follows = |roles: &quorate_tests::ensemble::Roles| {
        (roles[&other].as_deref() == Some("follower")).then_some(())
    };
    ensemble
        .wait_for("the observer to follow", &[other], follows)
        .unwrap();
}

#[test]
fn a_change_that_changes_nothing_still_has_a_version() {
    let mut ensemble = ensemble(3);
    let leader = ensemble.start().unwrap();
    let mut admin = admin(&ensemble, leader);
    let reply = until_accepted(&mut admin, &join_and_leave("", "", -1));
    let (members, first) = parts(&text(&reply));
    assert_eq!(members, members_of(&ensemble, &[1, 2, 3]));
    let (_, second) = parts(&text(&until_accepted(
        &mut admin,
        &join_and_leave("", "77", -1),
    )));
    assert!(0 < first && first < second, "{first:x} {second:x}");
}

#[test]
fn a_change_is_refused_with_the_code_of_its_reason() {
    let mut ensemble = ensemble(3);
    ensemble.start().unwrap();
    let follower = ensemble.follower().unwrap();
    ensemble.add_stranger(9).unwrap();
    let nine = ensemble.member_line(9);
    let mut anybody = open(&ensemble, follower);
    let mut admin = admin(&ensemble, follower);
    // On a busy machine the leader may be lost meanwhile: then nobody knows, and asks again.
    let code = |client: &mut Connection, request: &Request| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match client.call(request) {
                Ok(reply) => return reply.code(),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            *client = self::admin(&ensemble, follower);
        }
    };
    let (_, before) = parts(&text(&admin.call(&get_data(CONFIG, false)).unwrap()));
    for (request, expected) in [
        (join_and_leave("", "3", 77), ErrorCode::BadVersion),
        (join_and_leave("", "x", -1), ErrorCode::MarshallingError),
        (
            join_and_leave("server.9=one:2", "", -1),
            ErrorCode::BadArguments,
        ),
        (join_and_leave("", "1,2", -1), ErrorCode::BadArguments),
        (replace("server.1"), ErrorCode::BadArguments),
        // Nobody is there.
        (join_and_leave(&nine, "1", -1), ErrorCode::NewConfigNoQuorum),
    ] {
        // ZooKeeper keeps its majority without the newcomer.
        if product() == Product::Quorate || expected != ErrorCode::NewConfigNoQuorum {
            assert_eq!(code(&mut admin, &request), expected.code(), "{request:?}");
        }
    }
    let request = join_and_leave("", "3", -1);
    let refused = anybody.call(&request).unwrap().code();
    assert_eq!(refused, ErrorCode::NoAuth.code());
    wait_for_members(&ensemble, follower, &[1, 2, 3]);
    let (_, after) = parts(&text(&admin.call(&get_data(CONFIG, false)).unwrap()));
    assert_eq!(before, after, "none of these was a change");
}

#[test]
fn without_reconfig_enabled_nobody_changes_the_members() {
    let mut ensemble = ensemble(3).with("reconfigEnabled", "false");
    let leader = ensemble.start().unwrap();
    let reply = admin(&ensemble, leader).call(&join_and_leave("", "3", -1));
    assert_eq!(reply.unwrap().code(), ErrorCode::ReconfigDisabled.code());
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first() {
    if product() != Product::Quorate {
        return;
    }
    let mut ensemble = ensemble(3);
    let mut leader = ensemble.start().unwrap();
    for round in 0..3 {
        let other = (1..=3).find(|id| *id != leader).unwrap();
        let mut client = open(&ensemble, other);
        let path = format!("/round-{round}");
        assert_eq!(client.call(&create(&path, b"", 0)).unwrap().code(), 0);
        ensemble.signal(leader, "TERM").unwrap();
        // The client of another server notices a pause, if that; an election alone takes longer.
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        while began.elapsed() < Duration::from_secs(2) {
            let asked = Instant::now();
            assert_eq!(client.call(&set_data(&path, b"x", -1)).unwrap().code(), 0);
            longest = longest.max(asked.elapsed());
        }
        say(&format!(
            "stopping leader {leader}: the longest write took {longest:?}"
        ));
        let status = ensemble.wait_exit(leader).unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(ensemble.log(leader).contains("handing leadership over"));
        let rest: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
        let next = ensemble.wait_for_leader(&rest).unwrap();
        ensemble.start().unwrap();
        leader = ensemble.leader().unwrap_or(next);
    }
}

/// Makes every write to a server's disk take long, while it lives.
pub(crate) struct SlowDisk(std::process::Child);

impl SlowDisk {
    /// One that may not trace has ended by then.
    pub(crate) const STARTS_WITHIN: Duration = Duration::from_millis(500);

    /// `None` if that cannot be done on this machine.
    pub(crate) fn of(ensemble: &Ensemble, id: u64, delay: Duration) -> Option<Self> {
        let delay = format!("inject=fdatasync:delay_enter={}", delay.as_micros());
        let process = ensemble.process_id(id).unwrap().to_string();
        let traced = ["-e", "trace=fdatasync", "-e", &delay, "-p", &process];
        let mut tracer = std::process::Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null"])
            .args(traced)
            .stderr(std::process::Stdio::null())
            .spawn()
            .ok()?;
        std::thread::sleep(Self::STARTS_WITHIN);
        match tracer.try_wait() {
            Ok(None) => Some(Self(tracer)),
            _ => None,
        }
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_and_does_not_lead_again_soon() {
    let test = "a_leader_whose_disk_hangs_hands_over_and_does_not_lead_again_soon";
    if product() != Product::Quorate {
        return;
    }
    let mut ensemble = ensemble(3);
    let slow = ensemble.start().unwrap();
    let other = (1..=3).find(|id| *id != slow).unwrap();
    let mut client = open(&ensemble, other);
    assert_eq!(client.call(&create("/x", b"", 0)).unwrap().code(), 0);
    let Some(disk) = SlowDisk::of(&ensemble, slow, Duration::from_secs(5)) else {
        return skip(test, "strace is missing, or may not trace");
    };
    let deadline = Instant::now() + PATIENCE;
    let rest: Vec<u64> = (1..=3).filter(|id| *id != slow).collect();
    let leads = |ensemble: &Ensemble| {
        let roles = ensemble.roles(&rest);
        roles.values().any(|role| role.as_deref() == Some("leader"))
    };
    while !leads(&ensemble) {
        assert!(Instant::now() < deadline, "the slow one leads on");
        assert_eq!(client.call(&set_data("/x", b"y", -1)).unwrap().code(), 0);
    }
    assert!(ensemble.log(slow).contains("disk takes too long"));
    // The others write at their own pace.
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(client.call(&set_data("/x", b"z", -1)).unwrap().code(), 0);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "50 writes in {took:?}");
    drop(disk);
    // It is well again, and stays what it is even if the leader goes.
    ensemble.wait_until_all_serve().unwrap();
    assert!(leads(&ensemble));
    let leader = ensemble.leader().unwrap();
    ensemble.kill(leader);
    let last: Vec<u64> = rest.iter().copied().filter(|id| *id != leader).collect();
    assert_eq!(ensemble.wait_for_leader(&[slow, last[0]]).unwrap(), last[0]);
}

/// Asks one server after the other until the members are these. Whoever is asked may be killed
/// meanwhile.
fn insist(ensemble: &Ensemble, request: &Request, is_done: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    let last_code = std::cell::Cell::new(0);
    for id in (1..=3).cycle() {
        assert!(Instant::now() < deadline, "{request:?}: {last}");
        std::thread::sleep(Duration::from_millis(50));
        if !ensemble.awake().contains(&id) {
            continue;
        }
        let asked = || -> std::io::Result<Vec<String>> {
            let mut client = Connection::open(ensemble.address(id), SESSION_MS)?;
            let auth = Request::Auth(Auth {
                auth_type: 0,
                scheme: Some("digest".to_owned()),
                auth: Some(Bytes::from_static(b"super:secret")),
            });
            client.call(&auth)?;
            let reply = client.call(request)?;
            last_code.set(reply.code());
            client.call(&quorate_tests::client::sync(CONFIG))?;
            let now = client.call(&get_data(CONFIG, false))?;
            client.call(&Request::CloseSession)?;
            Ok(parts(&text(&now)).0)
        };
        match asked() {
            Ok(members) if is_done(&members) => return,
            Ok(members) => last = format!("{}, {members:?}", last_code.get()),
            Err(error) => last = error.to_string(),
        }
    }
}

#[test]
fn members_change_under_load_while_leaders_are_killed() {
    let test = "members_change_under_load_while_leaders_are_killed";
    if product() != Product::Quorate {
        return;
    }
    play(test, ensemble(3), |scene| {
        scene.ensemble.add_stranger(4).unwrap();
        let line = scene.ensemble.member_line(4);
        let joins = join_and_leave(&line, "", -1);
        let leaves = join_and_leave("", "4", -1);
        for _ in 0..faults(2) {
            scene.ensemble.spawn(4).unwrap();
            for (request, is_member) in [(&joins, true), (&leaves, false)] {
                scene.load();
                let leader = scene.leader();
                let follower = (1..=3).find(|id| *id != leader).unwrap();
                let mut client = admin(&scene.ensemble, follower);
                client.send(request).unwrap();
                // Before it has begun, in the midst of it, or after.
                std::thread::sleep(Duration::from_millis(scene.rng.random_range(0..1000)));
                scene.kill(&[leader]);
                insist(&scene.ensemble, request, |members| {
                    members.contains(&line) == is_member
                });
                scene.load();
                if !is_member {
                    scene.ensemble.kill(4);
                }
                scene.recover();
            }
        }
    });
}
