//! The whole workload against real servers on loopback, in little time: what it records has to be
//! what happened, so a checker must find nothing wrong with it, and enough to look at.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_checker::History;
use quorate_checker::history::SessionStep;
use quorate_server::network::{Network, SystemNetwork};
use quorate_testing::Ensemble;
use quorate_workload::{Recorder, Servers, Workload};

const RUN: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(20);

fn servers_of(ensemble: &Ensemble) -> Servers {
    let address = |server: &quorate_testing::Server| -> SocketAddr {
        server.connect_string().parse().unwrap()
    };
    ensemble
        .servers()
        .map(|server| (server.id(), address(server)))
        .collect()
}

fn network(_client: u32) -> Arc<dyn Network> {
    Arc::new(SystemNetwork)
}

/// Short sessions, so that what is abandoned is gone soon.
fn draw(seed: u64, servers: &Servers) -> Workload {
    let mut workload = Workload::draw(seed, servers).hurried(RUN);
    for client in &mut workload.clients {
        client.manners.session_timeout = Duration::from_millis(1500);
    }
    workload
}

async fn run(workload: &Workload, ensemble: &Ensemble) -> History {
    let recorder = Recorder::new();
    let mut running = workload.start(network, &recorder);
    assert!(running.begun(SETTLE).await, "{workload}");
    tokio::time::sleep(workload.duration).await;
    running.stop_faulty_phase();
    let settled = running.settle(SETTLE).await;
    running.finish().await;
    assert_eq!(settled, Ok(()), "{workload}");
    assert_eq!(recorder.complaints(), Vec::<String>::new(), "{workload}");
    assert_eq!(ensemble.servers().count(), workload.servers.len());
    recorder.history()
}

fn mark(history: &History, name: &str) -> u64 {
    history.marks.get(name).copied().unwrap_or(0)
}

/// What needs no checker: nothing is lost where nothing is in the way, and all servers agree.
fn look_over(history: &History, what: &str) {
    for record in &history.sessions {
        let is_wrong = matches!(record.step, SessionStep::Broken { .. } | SessionStep::Lost);
        // A handshake that was broken off takes the session from the connection it has.
        let is_taken =
            record.step == SessionStep::Lost && mark(history, "handshake broken off") > 0;
        assert!(!is_wrong || is_taken, "{record:?} in {what}");
    }
    let numbers: BTreeSet<_> = history
        .operations
        .iter()
        .map(|it| (it.connection, it.sequence))
        .collect();
    assert_eq!(numbers.len(), history.operations.len(), "{what}");
    assert_eq!(history.trees.len(), 3, "{what}");
    for pair in history.trees.windows(2) {
        assert!(pair[0].exact && pair[1].exact, "{what}");
        assert_eq!(pair[0].znodes, pair[1].znodes, "{what}");
    }
    let done = history.operations.iter().filter(|it| it.outcome.is_done());
    assert!(done.count() > 100, "{what}");
}

#[tokio::test]
async fn what_is_recorded_of_healthy_servers_is_in_order() {
    let ensemble = Ensemble::start(3).await.unwrap();
    let servers = servers_of(&ensemble);
    for seed in 1..=2 {
        let workload = draw(seed, &servers);
        let history = run(&workload, &ensemble).await;
        look_over(&history, &workload.to_string());
    }
}
