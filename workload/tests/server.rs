//! The whole workload against a real server on loopback, in little time: what it records has to be
//! what happened, so a checker must find nothing wrong with it, and enough to look at.
//!
//! One server, because an election on a busy machine would be no fault of the workload's; ensembles are
//! the simulation's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_checker::history::SessionStep;
use quorate_checker::{History, check};
use quorate_server::network::{Network, SystemNetwork};
use quorate_testing::TestServer;
use quorate_workload::{Misdeed, Recorder, Servers, Whim, Workload};

const RUN: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);

fn network(_client: u32) -> Arc<dyn Network> {
    Arc::new(SystemNetwork)
}

/// With all that a client can do to its session, and short sessions, so that what is abandoned is gone
/// soon.
fn draw(seed: u64, servers: &Servers) -> Workload {
    let mut workload = Workload::draw(seed, servers).hurried(RUN);
    workload.whims = Whim::ALL.iter().map(|_| 1).collect();
    for client in &mut workload.clients {
        client.whims = 100;
        client.manners.session_timeout = Duration::from_millis(1500);
    }
    workload
}

async fn run(workload: &Workload) -> History {
    let recorder = Recorder::new();
    let mut running = workload.start(network, &recorder);
    assert!(running.begun(PATIENCE).await, "{workload}");
    tokio::time::sleep(workload.duration).await;
    running.stop_faulty_phase();
    let settled = running.settle(PATIENCE).await;
    running.finish().await;
    assert_eq!(settled, Ok(()), "{workload}");
    assert_eq!(recorder.complaints(), Vec::<String>::new(), "{workload}");
    recorder.history()
}

/// Each request is in it once, everything that was open is closed, and nothing is wrong.
fn judge(history: &History, what: &str) {
    let numbers: BTreeSet<_> = history
        .operations
        .iter()
        .map(|it| (it.connection, it.sequence))
        .collect();
    assert_eq!(numbers.len(), history.operations.len(), "{what}");
    let broken = |step: &SessionStep| matches!(step, SessionStep::Broken { .. });
    let nonsense = history.sessions.iter().find(|it| broken(&it.step));
    assert_eq!(nonsense, None, "{what}");
    assert!(history.trees.iter().all(|tree| tree.exact), "{what}");
    assert_eq!(history.trees.len(), 1, "{what}");
    let report = check(history);
    assert!(report.is_clean(), "{report:?} in {what}");
    let tally = &report.tally;
    assert!(
        tally.done > 100 && tally.linearized > 50,
        "{tally:?} in {what}"
    );
    assert!(tally.sessions_resumed > 0, "{tally:?} in {what}");
}

#[tokio::test]
async fn what_is_recorded_of_a_healthy_server_breaks_no_promise() {
    for seed in [1, 4] {
        // A history begins with nothing.
        let server = TestServer::start().await.unwrap();
        let servers: Servers = [(server.id(), server.address())].into();
        let mut workload = draw(seed, &servers);
        workload.strangers = (100..).zip(Misdeed::ALL).collect();
        judge(&run(&workload).await, &workload.to_string());
    }
}
