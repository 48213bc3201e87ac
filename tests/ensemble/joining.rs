//! Servers join and leave under load, fault F25, while the leader of the moment is killed now and then.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::Request;
use quorate_protocol::request::{Auth, Reconfig};
use quorate_tests::client::{Connection, get_data};
use quorate_tests::ensemble::PATIENCE;
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::members::{CONFIG, SUPER_DIGEST};
use crate::scene::{Scene, ensemble, faults, play};

const SESSION_MS: i32 = 10_000;

/// Asks whoever answers for a change, until the members are as wanted. Whether an unanswered change
/// was made shows in the members.
fn change(addresses: &[SocketAddr], request: &Request, is_made: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    for address in addresses.iter().cycle() {
        match try_change(*address, request, &is_made) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => last = format!("{address}: {error}"),
        }
        assert!(Instant::now() < deadline, "{request:?} is not made; {last}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn try_change(
    address: SocketAddr,
    request: &Request,
    is_made: impl Fn(&str) -> bool,
) -> std::io::Result<bool> {
    let mut client = Connection::open(address, SESSION_MS)?;
    let auth = Request::Auth(Auth {
        auth_type: 0,
        scheme: Some("digest".to_owned()),
        auth: Some(Bytes::from_static(b"super:secret")),
    });
    client.call(&auth)?;
    let members = client.call(&get_data(CONFIG, false))?;
    if is_made(&String::from_utf8_lossy(members.data().unwrap_or_default())) {
        return Ok(true);
    }
    let reply = client.call(request)?;
    let _ = client.call(&Request::CloseSession);
    match reply.code() {
        0 => Ok(false),
        code => Err(std::io::Error::other(format!("refused: {code}"))),
    }
}

/// Makes a change, and half of the time kills the leader while it is made.
fn change_under_fire(
    scene: &mut Scene<'_>,
    joining: Option<String>,
    leaving: Option<String>,
    is_made: impl Fn(&str) -> bool + Send,
) {
    let request = Request::Reconfig(Reconfig {
        joining,
        leaving,
        new_members: None,
        config_version: -1,
    });
    let awake = scene.ensemble.awake();
    let addresses: Vec<SocketAddr> = awake.iter().map(|id| scene.ensemble.address(*id)).collect();
    let leader = scene.leader();
    let kills = scene.rng.random::<bool>();
    let moment = Duration::from_millis(scene.rng.random_range(0..400));
    if kills {
        // Before the thread: a change may remove a server, and that is noticed as well.
        scene.disturb(&[leader]);
    }
    thread::scope(|scope| {
        let changing = scope.spawn(|| change(&addresses, &request, is_made));
        if kills {
            thread::sleep(moment);
            scene.kill(&[leader]);
            scene.load();
            scene.ensemble.spawn(leader).unwrap();
        }
        changing.join().unwrap();
    });
}

#[test]
fn servers_join_and_leave_under_load_and_nothing_is_lost() {
    let test = "servers_join_and_leave_under_load_and_nothing_is_lost";
    let mut ensemble = ensemble(3, None)
        .with("reconfigEnabled", "true")
        .with("DigestAuthenticationProvider.superDigest", SUPER_DIGEST);
    ensemble.add_stranger(4).unwrap();
    play(test, ensemble, |scene| {
        let mut stranger = 4;
        for _ in 0..faults(1) {
            // Its address is known to clients, and nobody answers there.
            scene.disturb(&[stranger]);
            scene.ensemble.spawn(stranger).unwrap();
            scene.load();
            let line = scene.ensemble.member_line(stranger);
            let name = format!("server.{stranger}=");
            change_under_fire(scene, Some(line), None, |members| members.contains(&name));
            scene.ensemble.set_stranger(stranger, false);
            scene.recover();
            scene.load();

            let ids = scene.ensemble.ids();
            stranger = *ids.choose(&mut scene.rng).unwrap();
            scene.disturb(&[stranger]);
            let name = format!("server.{stranger}=");
            let leaving = Some(stranger.to_string());
            change_under_fire(scene, None, leaving, |members| !members.contains(&name));
            scene.ensemble.kill(stranger);
            scene.ensemble.set_stranger(stranger, true);
            scene.recover();
            scene.load();
        }
    });
}
