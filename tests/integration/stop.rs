//! A server that is told to stop does so soon, exits with 0 and has lost nothing.

use std::time::{Duration, Instant};

use quorate_tests::client::{Message, create, get_data};

use crate::harness::{Node, PATIENCE, seed};
use crate::load::{Progress, Worker, run_all};

/// From the signal to the end of the process. A supervisor's usual patience is 10 seconds.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A restart on little data that was closed in order; mostly a slow machine's own time.
const QUICK_START: Duration = Duration::from_secs(3);

#[test]
fn sigterm_under_load_exits_with_0_and_loses_nothing() {
    stop_under_load("sigterm_under_load_exits_with_0_and_loses_nothing", "TERM");
}

#[test]
fn ctrl_c_under_load_exits_with_0_and_loses_nothing() {
    stop_under_load("ctrl_c_under_load_exits_with_0_and_loses_nothing", "INT");
}

fn stop_under_load(test: &str, signal: &str) {
    let seed = seed(test);
    let mut node = Node::new().with_busy_storage().started();
    let address = node.address();
    let mut workers: Vec<Worker> = (0..3)
        .map(|number| Worker::new(address, number, seed))
        .collect();
    let (progress, reached) = Progress::new();
    for writes in [1, 700, 2_000] {
        progress.set_target(writes);
        let status = run_all(&mut workers, address, &progress, false, || {
            let waited = reached.recv_timeout(PATIENCE);
            node.signal(signal);
            let status = node.wait_exit(STOP_LIMIT);
            waited.unwrap_or_else(|_| panic!("{writes} writes in {PATIENCE:?}"));
            status
        });
        assert_eq!(status.code(), Some(0), "{status}");
        let took = node.start();
        assert!(
            took < QUICK_START,
            "the start after an orderly stop took {took:?}"
        );
        for worker in &mut workers {
            worker.settle(address, &progress);
        }
    }
}

#[test]
fn stopping_while_starting_exits_with_0() {
    let mut node = Node::new().started();
    let mut client = node.connect();
    for number in 0..2_000 {
        client
            .send(&create(&format!("/n{number}"), &[7; 500], 0))
            .unwrap();
    }
    for _ in 0..2_000 {
        assert!(matches!(client.receive().unwrap(), Message::Reply(_)));
    }
    node.kill();
    // Once the log is being read, a signal is heard; before that it ends any program at once.
    for _ in 0..5 {
        node.spawn();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if node.has_ended() {
                break node.wait_exit(STOP_LIMIT);
            }
            assert!(Instant::now() < deadline);
            node.signal("TERM");
        };
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert!(
            status.code() == Some(0) || by_signal == Some(15),
            "{status}"
        );
    }
    node.start();
    let reply = node.connect().call(&get_data("/n1999", false)).unwrap();
    assert_eq!(reply.code(), 0);
}

#[test]
fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    let mut node = Node::new().started();
    let mut client = node.connect();
    client.call(&create("/big", &[7; 900_000], 0)).unwrap();
    let mut deaf = node.connect();
    deaf.send_all(&vec![get_data("/big", false); 40]).unwrap();
    // The server is about to be stuck in sending once another client's later request is answered.
    client.call(&get_data("/big", false)).unwrap();
    let mut silent = node.connect();
    silent.send_raw(&[0, 0]).unwrap();
    node.signal("TERM");
    let status = node.wait_exit(STOP_LIMIT);
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn clients_see_the_connection_end_and_resume_their_sessions_after_a_restart() {
    let mut node = Node::new().started();
    let mut client = node.connect();
    client.call(&create("/mine", b"", 1)).unwrap();
    let session = client.session();
    node.signal("TERM");
    assert!(matches!(client.receive().unwrap(), Message::Closed));
    assert_eq!(node.wait_exit(STOP_LIMIT).code(), Some(0));
    node.start();
    let mut again =
        quorate_tests::client::Connection::resume(node.address(), &session, client.last_zxid)
            .unwrap()
            .expect("the session is alive");
    let stat = again
        .call(&get_data("/mine", false))
        .unwrap()
        .stat()
        .unwrap();
    assert_eq!(stat.ephemeral_owner, session.id.get());
}
