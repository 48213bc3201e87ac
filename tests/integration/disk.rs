//! A disk that fails while the server runs: it stops with its own number, or refuses writes while
//! there is no space, and never loses what it acknowledged.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_tests::client::{Connection, create, get_data, set_data};
use quorate_tests::disk::SmallDisk;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::{
    EXIT_STORAGE, Node, PATIENCE, Wrapper, build_shim, say, seed, shimmed, skip, succeeds,
};
use crate::load::{Progress, Worker, run_all};

/// From the failing call to the end of the process.
const FAIL_LIMIT: Duration = Duration::from_secs(5);
/// Small segments, so that making the next one is hit as well; no snapshots.
const SEGMENT: (&str, &str) = ("quorate.logSegmentBytes", "1048576");

/// What the client sees of a server whose disk is full.
const SYSTEM_ERROR: i32 = -1;

/// A wrapper that has a system call of the server fail; `when` as strace has it.
fn injecting(node: &Node, call: &str, fault: &str, when: &str) -> Wrapper {
    let log = node.folder().join("strace.log");
    let program = [
        // The tracer is the grandchild, so the server keeps its place and dies with the test.
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        log.to_str().unwrap(),
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={call}:{fault}:when={when}"),
    ];
    Wrapper {
        program: program.into_iter().map(str::to_owned).collect(),
        variables: Vec::new(),
    }
}

/// Runs a load until the server ends itself, and checks that a good disk then has everything.
fn fails_and_loses_nothing(test: &str, call: &str, error: &str, when: &str, words: &[&str]) {
    if !succeeds("strace", &["-e", "trace=none", "true"]) {
        skip(test, "strace is missing, or may not trace");
        return;
    }
    let seed = seed(test);
    let mut node = Node::new().with(SEGMENT.0, SEGMENT.1).started();
    let address = node.address();
    let mut workers: Vec<Worker> = (0..2)
        .map(|number| Worker::new(address, number, seed))
        .collect();
    let (progress, _reached) = Progress::new();
    node.signal("TERM");
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));
    let wrapper = injecting(&node, call, &format!("error={error}"), when);
    node.set_wrapper(Some(wrapper));
    node.start();
    for worker in &mut workers {
        worker.settle(address, &progress);
    }
    run_all(&mut workers, address, &progress, false, || ());
    // All connections have ended, so the server has noticed.
    let log = node.log_tail();
    let status = node.wait_exit(FAIL_LIMIT);
    let whole = fs::read_to_string(node.folder().join("server.log")).unwrap_or(log);
    assert_eq!(status.code(), Some(EXIT_STORAGE), "{status}\n{whole}");
    let line = whole
        .lines()
        .rfind(|line| line.starts_with("quorate: "))
        .unwrap_or_default();
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}\n{whole}");
    }
    node.set_wrapper(None);
    node.start();
    for worker in &mut workers {
        worker.settle(address, &progress);
    }
    // How many a sync carries is up to the scheduler, so only that something was at stake counts.
    let acknowledged: u64 = workers.iter().map(|w| w.counts.acknowledged).sum();
    assert!(
        acknowledged > 0,
        "nothing was acknowledged before the disk failed"
    );
}

/// Once is enough: after a failed fsync the kernel may call the next one a success and have lost
/// the data (Rebello et al., ATC 2020).
#[test]
fn one_failed_fsync_ends_the_server_and_loses_nothing() {
    let test = "one_failed_fsync_ends_the_server_and_loses_nothing";
    fails_and_loses_nothing(test, "fdatasync", "EIO", "40", &["sync", "check the disk"]);
}

#[test]
fn a_disk_that_fails_every_fsync_ends_the_server_and_loses_nothing() {
    let test = "a_disk_that_fails_every_fsync_ends_the_server_and_loses_nothing";
    fails_and_loses_nothing(test, "fdatasync", "EIO", "25+", &["sync", "check the disk"]);
}

#[test]
fn a_failed_write_ends_the_server_and_loses_nothing() {
    let test = "a_failed_write_ends_the_server_and_loses_nothing";
    fails_and_loses_nothing(test, "pwrite64", "EIO", "50", &["write", "check the disk"]);
}

/// Fault F11: each sync takes a second. Nobody expires, and only writes wait.
#[test]
fn a_slow_disk_delays_writes_and_nothing_else() {
    let test = "a_slow_disk_delays_writes_and_nothing_else";
    if !succeeds("strace", &["-e", "trace=none", "true"]) {
        skip(test, "strace is missing, or may not trace");
        return;
    }
    let mut node = Node::new().with(SEGMENT.0, SEGMENT.1).started();
    node.connect().call(&create("/slow", b"", 0)).unwrap();
    node.signal("TERM");
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));
    let wrapper = injecting(&node, "fdatasync", "delay_enter=1000000", "20+");
    node.set_wrapper(Some(wrapper));
    node.start();
    let mut writer = node.connect();
    let mut idle = node.connect_for(800);
    let begun = Instant::now();
    let lasts = Duration::from_secs(5);
    let (slowest_write, slowest_read) = thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut slowest = Duration::ZERO;
            while begun.elapsed() < lasts {
                let sent = Instant::now();
                let reply = writer.call(&set_data("/slow", b"x", -1)).unwrap();
                assert_eq!(reply.code(), 0);
                slowest = slowest.max(sent.elapsed());
            }
            slowest
        });
        let mut slowest = Duration::ZERO;
        while begun.elapsed() < lasts {
            for request in [Request::Ping, get_data("/slow", false)] {
                let asked = Instant::now();
                assert_eq!(idle.call(&request).unwrap().code(), 0);
                slowest = slowest.max(asked.elapsed());
            }
            thread::sleep(Duration::from_millis(50));
        }
        (writing.join().unwrap(), slowest)
    });
    let slow = Duration::from_millis(900);
    assert!(slowest_write > slow, "the disk was not slow");
    say(&format!(
        "{test}: slowest write {slowest_write:.0?}, slowest read {slowest_read:.0?}"
    ));
    assert!(
        slowest_read < Duration::from_millis(500),
        "{slowest_read:?}"
    );
}

#[test]
fn short_and_interrupted_writes_are_continued() {
    let test = "short_and_interrupted_writes_are_continued";
    let seed = seed(test);
    let mut node = Node::new().with_busy_storage();
    let Some(shim) = build_shim(node.folder()) else {
        skip(test, "there is no C compiler (cc)");
        return;
    };
    node.set_wrapper(Some(shimmed(&shim, "SHIM_SHORT", "1")));
    node.start();
    let address = node.address();
    let mut workers: Vec<Worker> = (0..2)
        .map(|number| Worker::new(address, number, seed))
        .collect();
    let (progress, reached) = Progress::new();
    for _ in 0..2 {
        progress.set_target(1_500);
        run_all(&mut workers, address, &progress, false, || {
            let waited = reached.recv_timeout(PATIENCE);
            node.kill();
            waited.expect("writes go on");
        });
        node.start();
        for worker in &mut workers {
            worker.settle(address, &progress);
        }
    }
}

/// The server dies in the middle of a write: some of its sectors are new, the rest is not.
#[test]
fn a_torn_write_is_cut_off_and_loses_nothing() {
    let test = "a_torn_write_is_cut_off_and_loses_nothing";
    let seed = seed(test);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut node = Node::new().with_busy_storage();
    let Some(shim) = build_shim(node.folder()) else {
        skip(test, "there is no C compiler (cc)");
        return;
    };
    node.start();
    let address = node.address();
    let mut workers: Vec<Worker> = (0..2)
        .map(|number| Worker::new(address, number, seed))
        .collect();
    let (progress, _reached) = Progress::new();
    for _ in 0..8 {
        node.kill();
        // Starting and resuming the sessions take some writes, too, and more on a slow machine, where
        // the log falls idle in between.
        let writes = rng.random_range(60..250);
        node.set_wrapper(Some(shimmed(&shim, "SHIM_TORN", &writes.to_string())));
        node.start();
        for worker in &mut workers {
            worker.settle(address, &progress);
        }
        run_all(&mut workers, address, &progress, false, || ());
        let status = node.wait_exit(FAIL_LIMIT);
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "{status}");
        node.set_wrapper(None);
        node.start();
        for worker in &mut workers {
            worker.settle(address, &progress);
        }
    }
    let unanswered: u64 = workers.iter().map(|worker| worker.counts.unanswered).sum();
    let log = fs::read_to_string(node.folder().join("server.log")).unwrap();
    let torn = log
        .lines()
        .filter(|line| line.contains("cut off a write"))
        .count();
    say(&format!(
        "{test}: {torn} of 8 were torn in the log; {unanswered} unanswered"
    ));
    assert!(torn > 0 && unanswered > 0, "nothing was torn");
}

#[test]
fn a_full_disk_refuses_writes_serves_the_rest_and_recovers_when_space_returns() {
    let test = "a_full_disk_refuses_writes_serves_the_rest_and_recovers_when_space_returns";
    fills_up(test, Node::new().with(SEGMENT.0, SEGMENT.1));
}

#[test]
fn a_full_disk_at_the_time_of_a_snapshot_does_no_more_harm() {
    let test = "a_full_disk_at_the_time_of_a_snapshot_does_no_more_harm";
    fills_up(
        test,
        Node::new().with_busy_storage().with("snapCount", "60"),
    );
}

fn fills_up(test: &str, mut node: Node) {
    let disk = match SmallDisk::mount(16) {
        Ok(disk) => disk,
        Err(reason) => return skip(test, &reason),
    };
    disk.take(6).unwrap();
    node.set_data_dir(&disk.folder().join("data"));
    node.start();
    let mut client = node.connect_for(1_000);
    let mut idle = node.connect_for(1_000);
    client.call(&create("/d", b"", 0)).unwrap();
    idle.call(&create("/idle", b"", 1)).unwrap();

    // A znode for each write, so that snapshots grow as well as the log.
    let mut written = Written::default();
    let deadline = Instant::now() + PATIENCE;
    while written.create_next(&mut client) == 0 {
        assert!(Instant::now() < deadline, "the disk does not fill up");
        idle.call(&Request::Ping).unwrap();
    }
    say(&format!(
        "{test}: full after {} writes",
        written.outcomes.len()
    ));

    // For longer than the session timeout: reads and pings are served, nobody expires. A snapshot
    // may free some of the log, so a write may get through now and then.
    let until = Instant::now() + Duration::from_millis(2_500);
    let mut refused = 0;
    while Instant::now() < until {
        let reply = client.call(&get_data("/d/n0", false)).unwrap();
        assert_eq!(reply.data(), Some(&value(0)[..]));
        if written.create_next(&mut client) == SYSTEM_ERROR {
            refused += 1;
        }
        idle.call(&Request::Ping).unwrap();
        assert_eq!(idle.call(&get_data("/idle", false)).unwrap().code(), 0);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(refused > 0, "the disk was not full");
    assert!(!node.has_ended(), "{}", node.log_tail());

    disk.free().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while written.create_next(&mut client) != 0 {
        assert!(
            Instant::now() < deadline,
            "writes stay refused:\n{}",
            node.log_tail()
        );
        idle.call(&Request::Ping).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        idle.call(&get_data("/idle", false)).unwrap().code(),
        0,
        "the session is alive"
    );
    let session = client.session();
    node.kill();
    node.start();
    let mut client = Connection::resume(node.address(), &session, client.last_zxid)
        .unwrap()
        .expect("the session is alive");
    written.check(&mut client);
    // The disk goes first.
    node.kill();
}

#[test]
fn a_server_with_a_full_disk_stops_in_order_and_starts_again() {
    let test = "a_server_with_a_full_disk_stops_in_order_and_starts_again";
    let mut node = Node::new().with(SEGMENT.0, SEGMENT.1);
    let disk = match SmallDisk::mount(8) {
        Ok(disk) => disk,
        Err(reason) => return skip(test, &reason),
    };
    node.set_data_dir(&disk.folder().join("data"));
    node.start();
    let mut client = node.connect();
    client.call(&create("/d", b"", 0)).unwrap();
    let mut written = Written::default();
    while written.create_next(&mut client) == 0 {}
    disk.fill().unwrap();
    for killed in [false, true, false] {
        let session = client.session();
        if killed {
            node.kill();
        } else {
            node.signal("TERM");
            assert_eq!(node.wait_exit(FAIL_LIMIT).code(), Some(0));
        }
        node.start();
        // Resuming takes an entry of the log, and there is little room for those.
        if let Ok(Some(resumed)) = Connection::resume(node.address(), &session, 0) {
            client = resumed;
        }
        assert!(node.word("srvr").contains("Mode: "));
    }
    disk.free().unwrap();
    node.kill();
    // Room for one more segment: the server has to come by it on its own.
    drop(client);
    assert!(disk.resize(16));
    node.start();
    let deadline = Instant::now() + PATIENCE;
    let mut client = loop {
        match Connection::open(node.address(), 5_000) {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < deadline, "{error}:\n{}", node.log_tail()),
        }
    };
    while written.create_next(&mut client) != 0 {
        assert!(Instant::now() < deadline, "{}", node.log_tail());
    }
    written.check(&mut client);
    // The disk goes first.
    node.kill();
}

/// What was written, by number: its error code.
#[derive(Debug, Default)]
struct Written {
    outcomes: Vec<i32>,
}

impl Written {
    fn create_next(&mut self, client: &mut Connection) -> i32 {
        let number = self.outcomes.len();
        let reply = client
            .call(&create(&format!("/d/n{number}"), &value(number), 0))
            .unwrap_or_else(|error| panic!("write {number}: {error}"));
        let code = reply.code();
        assert!(code == 0 || code == SYSTEM_ERROR, "write {number}: {code}");
        self.outcomes.push(code);
        code
    }

    /// All that was acknowledged is there, and nothing that was refused.
    fn check(&self, client: &mut Connection) {
        for (number, code) in self.outcomes.iter().enumerate() {
            let reply = client
                .call(&get_data(&format!("/d/n{number}"), false))
                .unwrap();
            assert_eq!(reply.code() == 0, *code == 0, "write {number}");
            if *code == 0 {
                assert_eq!(reply.data(), Some(&value(number)[..]), "write {number}");
            }
        }
    }
}

/// 20 KiB that do not compress and differ from write to write.
fn value(number: usize) -> Vec<u8> {
    let mut bytes = vec![0; 20 << 10];
    StdRng::seed_from_u64(number as u64).fill(&mut bytes[..]);
    bytes
}
