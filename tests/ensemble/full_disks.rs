//! One server's disk is full, fault F10: it says so, refuses the writes of its own clients and holds
//! nobody else up. A leader hands over at once. With space it takes part again, by itself or when it
//! is started again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::client::{Connection, PERSISTENT, create, set_data};
use quorate_tests::disk::SmallDisk;
use quorate_tests::ensemble::{Ensemble, PATIENCE, Roles};
use quorate_tests::server::Product;
use rand::Rng;

use crate::scene::{RESTLESS, Scene, ensemble, faults, play, product, say, skip};

/// Of each server: more than a test writes between two snapshots.
const DISK_MIB: u32 = 160;
/// Small segments: the one in use and the next one are filled soon.
const SEGMENT: (&str, &str) = ("quorate.logSegmentBytes", "1048576");
/// Many snapshots, or the others' disks would be full as well some day.
const SNAPSHOT: (&str, &str) = ("quorate.snapshotLogBytes", "8388608");
/// What a server says whose disk is full. A follower that has fallen behind may be sent a snapshot, and
/// finds that there is no room for that.
const SAYS_SO: &str = "No space left on device";
/// What its log says. Its snapshots may need the space earlier than that.
const LOG_SAYS_SO: &str = "no space for the next log segment";
/// From the moment the disk of the leader is full until another leads.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);
const FILLER: &str = "/filler";
const FILLER_BYTES: usize = 500 << 10;
/// What the others go on to write: more than a server takes into memory that it cannot put on disk.
const FILLERS: u32 = 80;

/// Every server has a small disk, so that it does not matter who leads.
fn on_small_disks() -> Result<(Ensemble, BTreeMap<u64, SmallDisk>), String> {
    let mut ensemble = ensemble(3, None)
        .with(SEGMENT.0, SEGMENT.1)
        .with(SNAPSHOT.0, SNAPSHOT.1);
    let mut disks = BTreeMap::new();
    for id in ensemble.ids() {
        let disk = SmallDisk::mount(DISK_MIB)?;
        ensemble
            .set_data_dir(id, &disk.folder().join("data"))
            .unwrap();
        disks.insert(id, disk);
    }
    Ok((ensemble, disks))
}

/// Writes through any of `through` until `is_enough`, which is asked before each write.
fn fill_log(scene: &Scene<'_>, through: &[u64], is_enough: impl Fn(&Scene<'_>) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut client = None;
    for server in through.iter().cycle() {
        if is_enough(scene) {
            return;
        }
        assert!(Instant::now() < deadline, "the disk does not fill up");
        let address = scene.ensemble.address(*server);
        let Some(open) = client.as_mut() else {
            client = Connection::open(address, 10_000).ok();
            if let Some(client) = &mut client {
                // There already, the second time.
                let _ = client.call(&create(FILLER, b"", PERSISTENT));
            }
            continue;
        };
        let written = open.call(&set_data(FILLER, &[b'x'; FILLER_BYTES], -1));
        if written.is_err() {
            client = None;
        }
    }
}

fn fill_up(test: &str, choose: impl Fn(&mut Scene<'_>) -> u64) {
    if product() != Product::Quorate {
        return;
    }
    let (ensemble, disks) = match on_small_disks() {
        Ok(made) => made,
        Err(reason) => return skip(test, &reason),
    };
    play(test, ensemble, |scene| {
        for _ in 0..faults(1) {
            scene.load();
            let full = choose(scene);
            let led = scene.leader() == full;
            let words = if led { LOG_SAYS_SO } else { SAYS_SO };
            let said = |scene: &Scene<'_>| scene.ensemble.log(full).matches(words).count();
            let said_before = said(scene);
            scene.disturb(&[full]);
            // Again and again: a snapshot may free some of the log.
            let fill = || disks[&full].fill().unwrap();
            let mut others = scene.ensemble.ids();
            others.retain(|id| *id != full);
            fill_log(scene, &others, |scene| {
                fill();
                said(scene) > said_before
            });
            let begun = Instant::now();
            if led {
                let leads = |roles: &Roles| {
                    fill();
                    let mut roles = roles.iter();
                    let leader = roles.find(|(_, role)| role.as_deref() == Some("leader"))?;
                    Some(*leader.0)
                };
                let next = scene.ensemble.wait_for("another leader", &others, leads);
                let next = next.unwrap();
                let took = begun.elapsed();
                say(&format!("{test}: after {took:.1?} server {next} leads"));
                assert!(took < HAND_OVER_MAX, "{took:?}");
                let log = scene.ensemble.log(full);
                assert!(
                    log.contains("disk is full: handing leadership over"),
                    "{log}"
                );
            }
            scene.load();
            let written = Cell::new(0);
            fill_log(scene, &others, |_| {
                fill();
                written.replace(written.get() + 1) > FILLERS
            });
            scene.load();
            disks[&full].free().unwrap();
            if scene.rng.random() {
                scene.kill(&[full]);
            }
            scene.recover();
        }
    });
}

#[test]
fn a_full_disk_of_a_follower_holds_nobody_up() {
    fill_up("a_full_disk_of_a_follower_holds_nobody_up", |scene| {
        scene.follower()
    });
}

#[test]
fn a_full_disk_of_the_leader_has_another_lead() {
    fill_up("a_full_disk_of_the_leader_has_another_lead", |scene| {
        scene.leader()
    });
}

/// Writes and new sessions are refused, nobody expires, and all goes on by itself.
#[test]
fn full_disks_everywhere_lose_nothing_and_nobody() {
    let test = "full_disks_everywhere_lose_nothing_and_nobody";
    if product() != Product::Quorate {
        return;
    }
    let (ensemble, disks) = match on_small_disks() {
        Ok(made) => made,
        Err(reason) => return skip(test, &reason),
    };
    play(test, ensemble, |scene| {
        for _ in 0..faults(1) {
            scene.load();
            let all = scene.ensemble.ids();
            let said = |scene: &Scene<'_>, id: u64| scene.ensemble.log(id).matches(SAYS_SO).count();
            let said_before: Vec<usize> = all.iter().map(|id| said(scene, *id)).collect();
            scene.disturb(&all);
            // Without a majority the last one may never get so far.
            fill_log(scene, &all, |scene| {
                // A snapshot may free some of the log.
                for disk in disks.values() {
                    disk.fill().unwrap();
                }
                let before = all.iter().zip(&said_before);
                before
                    .filter(|(id, before)| said(scene, **id) > **before)
                    .count()
                    >= 2
            });
            // It is the fault itself that has to last: longer than the sessions of some.
            thread::sleep(RESTLESS + Duration::from_millis(500));
            for disk in disks.values() {
                disk.free().unwrap();
            }
            scene.recover();
        }
    });
}
