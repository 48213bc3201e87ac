//! Three servers in one process: they find each other, agree, and get over the loss of one.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use quorate_state::{Action, State};
use tempfile::TempDir;

use super::formation::FormationError;
use super::types::{Proposal, TypeConfig};
use super::{Consensus, Role};
use crate::config::{Config, Override};
use crate::peer_port::Answer;
use crate::peer_port::wire::Rejoin;
use crate::{Server, StartError};

/// Long enough for anything three servers do.
const PATIENCE: Duration = Duration::from_secs(20);

/// The folders and addresses of an ensemble.
struct Ensemble {
    folder: TempDir,
    lines: Vec<String>,
    more: Vec<(&'static str, String)>,
}

impl Ensemble {
    /// One server for each role.
    fn new(roles: &[&str]) -> Self {
        // All at once, so that they differ.
        let ports: Vec<TcpListener> = roles
            .iter()
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let port = |port: &TcpListener| port.local_addr().unwrap().port();
        let lines = (1..)
            .zip(ports.iter().zip(roles))
            .map(|(id, (listener, role))| format!("{id}=127.0.0.1:{}:1:{role}", port(listener)));
        Self {
            lines: lines.collect(),
            folder: tempfile::tempdir().unwrap(),
            more: Vec::new(),
        }
    }

    fn of_three() -> Self {
        Self::new(&["participant"; 3])
    }

    fn data_dir(&self, id: usize) -> std::path::PathBuf {
        self.folder.path().join(id.to_string())
    }

    fn config(&self, id: usize, more: &[(&'static str, &str)]) -> Config {
        let mut settings = vec![
            ("dataDir", self.data_dir(id).display().to_string()),
            ("quorate.serverId", id.to_string()),
            ("clientPortAddress", "127.0.0.1".to_owned()),
            ("clientPort", "0".to_owned()),
            ("quorate.logSegmentBytes", (1 << 20).to_string()),
        ];
        settings.extend(
            self.lines
                .iter()
                .map(|line| ("quorate.server", line.clone())),
        );
        settings.extend(self.more.iter().cloned());
        settings.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let overrides: Vec<Override> = settings
            .into_iter()
            .map(|(key, value)| Override {
                key,
                value,
                name: key.to_owned(),
            })
            .collect();
        Config::load(None, &overrides).unwrap().0
    }

    async fn start(&self, id: usize) -> Server {
        let starting = Server::start(self.config(id, &[]));
        tokio::time::timeout(PATIENCE, starting)
            .await
            .unwrap()
            .unwrap()
    }

    /// Starts all, and waits until all serve.
    async fn start_all(&self) -> Vec<Server> {
        let starting = (1..=self.lines.len()).map(|id| self.start(id));
        let servers = futures_util::future::join_all(starting).await;
        for server in &servers {
            ready(server).await;
        }
        servers
    }
}

async fn ready(server: &Server) {
    tokio::time::timeout(PATIENCE, server.ready())
        .await
        .unwrap();
}

fn leader_of(servers: &[Server]) -> usize {
    let leads = |server: &Server| server.consensus().role() == Role::Leader;
    servers.iter().position(leads).unwrap()
}

fn last_applied(consensus: &Consensus) -> u64 {
    let metrics = consensus.raft.metrics();
    let applied = metrics.borrow_watched().last_applied;
    applied.map_or(0, |id| id.index)
}

/// Proposes on the leader, and returns the index of the last of it.
async fn propose(leader: &Consensus, count: usize) -> u64 {
    let nothing = Action::Reap {
        paths: Vec::new(),
        never_used_ms: 0,
    };
    let command = leader.command(0, 0, nothing).encode(0).unwrap();
    let mut index = 0;
    for _ in 0..count {
        // One that has only just won refuses, until a majority has answered it.
        let written = async {
            loop {
                match leader.raft.client_write(Proposal(command.clone())).await {
                    Ok(written) => return written.log_id.index,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        index = tokio::time::timeout(PATIENCE, written).await.unwrap();
    }
    index
}

async fn applied(consensus: &Consensus, index: u64) {
    let wait = consensus.raft.wait(Some(PATIENCE));
    wait.applied_index_at_least(Some(index), "test")
        .await
        .unwrap();
}

async fn a_leader_among(servers: &[Server]) -> &Arc<Consensus> {
    let found = async {
        loop {
            let mut all = servers.iter().map(Server::consensus);
            if let Some(leader) = all.find(|one| one.role() == Role::Leader) {
                return leader;
            }
            let mut roles = servers[0].consensus().raft.server_metrics();
            tokio::time::timeout(Duration::from_millis(20), roles.changed())
                .await
                .ok();
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_agree_and_survive_the_loss_of_their_leader() {
    let ensemble = Ensemble::of_three();
    let mut servers = ensemble.start_all().await;
    let leader = leader_of(&servers);
    let index = propose(servers[leader].consensus(), 50).await;
    for server in &servers {
        applied(server.consensus(), index).await;
    }

    servers.remove(leader).shutdown().await.unwrap();
    let next = a_leader_among(&servers).await;
    let index = propose(next, 50).await;
    for server in &servers {
        applied(server.consensus(), index).await;
    }

    // The lost one comes back, and catches up before it serves.
    let returned = ensemble.start(leader + 1).await;
    ready(&returned).await;
    assert!(last_applied(returned.consensus()) >= index);
    servers.push(returned);
    for server in servers {
        server.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_far_behind_gets_a_snapshot() {
    let mut ensemble = Ensemble::of_three();
    ensemble.more.push(("snapCount", "50".to_owned()));
    let mut servers = ensemble.start_all().await;
    let behind = (leader_of(&servers) + 1) % 3;
    servers.remove(behind).shutdown().await.unwrap();
    let leader = a_leader_among(&servers).await;
    // The log goes with the fourth snapshot, and with it what the lost server needs.
    let mut index = 0;
    while leader.raft.metrics().borrow_watched().purged.is_none() {
        index = propose(leader, 60).await;
    }
    let returned = ensemble.start(behind + 1).await;
    ready(&returned).await;
    applied(returned.consensus(), index).await;
    let metrics = returned.consensus().raft.metrics();
    assert!(metrics.borrow_watched().snapshot.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_taken_when_it_is_time_and_something_was_written() {
    let mut ensemble = Ensemble::of_three();
    let interval = ("quorate.snapshotIntervalMs", "50".to_owned());
    ensemble.more.push(interval);
    let servers = ensemble.start_all().await;
    let index = propose(a_leader_among(&servers).await, 1).await;
    for server in &servers {
        let covered = server.consensus().raft.wait(Some(PATIENCE));
        let covers = |id: Option<super::types::LogId>| id.is_some_and(|id| id.index >= index);
        covered
            .metrics(|metrics| covers(metrics.snapshot), "a snapshot")
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_lost_its_data_is_refused_until_it_asks_to_rejoin() {
    let ensemble = Ensemble::of_three();
    let mut servers = ensemble.start_all().await;
    let lost = (leader_of(&servers) + 1) % 3;
    let id = lost + 1;
    servers.remove(lost).shutdown().await.unwrap();
    std::fs::remove_dir_all(ensemble.data_dir(id)).unwrap();

    let refused = Server::start(ensemble.config(id, &[])).await.err().unwrap();
    assert!(
        matches!(
            &refused,
            StartError::Formation(FormationError::DataLost { .. })
        ),
        "{refused}"
    );
    assert!(!has_identity(&ensemble.data_dir(id)));

    let returned = rejoin(&ensemble, id).await;
    let leader = a_leader_among(&servers).await;
    let index = propose(leader, 10).await;
    applied(returned.consensus(), index).await;

    // Its new data is as good as any: no flag is needed from now on.
    returned.shutdown().await.unwrap();
    let returned = ensemble.start(id).await;
    ready(&returned).await;
}

/// Starts a server that has lost its data, and waits until it votes.
async fn rejoin(ensemble: &Ensemble, id: usize) -> Server {
    let config = ensemble.config(id, &[("quorate.rejoin", "true")]);
    let returned = Server::start(config).await.unwrap();
    ready(&returned).await;
    let server = id as u64;
    let votes = |now: &openraft::RaftMetrics<TypeConfig>| {
        let mut voters = now.membership_config.voter_ids();
        voters.any(|voter| voter == server)
    };
    let wait = returned.consensus().raft.wait(Some(PATIENCE));
    wait.metrics(votes, "a vote").await.unwrap();
    returned
}

/// Taking it out, writing down its incarnation and bringing it back are entries of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_a_lost_leader_was_taking_in_again_is_taken_in_by_the_next() {
    for is_written_down in [false, true] {
        let ensemble = Ensemble::new(&["participant"; 5]);
        let mut servers = ensemble.start_all().await;
        let leader = Arc::clone(servers[leader_of(&servers)].consensus());
        let lost = (leader_of(&servers) + 1) % 5;
        let server = lost as u64 + 1;
        let known = until(&leader, |leader| leader.known_incarnation(server)).await;
        servers.remove(lost).shutdown().await.unwrap();
        std::fs::remove_dir_all(ensemble.data_dir(lost + 1)).unwrap();
        let told = |one: &Consensus| one.replica.inspect(State::configuration_version);
        let before = told(&leader);

        let turn = leader.members.take_turn().await;
        leader.members.take_out(server, known + 1).await.unwrap();
        assert!(!leader.members.has(server));
        if is_written_down {
            assert!(leader.admit_incarnation(server, known + 1).await);
        }
        let index = last_applied(&leader);
        let led = leader_of(&servers);
        servers.remove(led).shutdown().await.unwrap();
        drop(turn);

        let next = a_leader_among(&servers).await;
        applied(next, index).await;
        let is_back = |one: &Consensus| {
            let is_back = one.members.has(server) && one.members.returning().is_none();
            is_back.then(|| one.known_incarnation(server))
        };
        assert_eq!(until(next, is_back).await, Some(known + 1));
        // To clients it was a member all the time.
        assert_eq!(told(next), before);
        let returned = rejoin(&ensemble, lost + 1).await;
        assert!(until(next, |one| one.known_incarnation(server)).await > known + 1);
        returned.shutdown().await.unwrap();
    }
}

/// It asks again until it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_twice_to_be_taken_in_again_is_taken_in_once() {
    let ensemble = Ensemble::of_three();
    let mut servers = ensemble.start_all().await;
    let lost = (leader_of(&servers) + 1) % 3;
    let server = lost as u64 + 1;
    servers.remove(lost).shutdown().await.unwrap();
    let leader = a_leader_among(&servers).await;
    let known = until(leader, |leader| leader.known_incarnation(server)).await;
    let asks = |incarnation| Rejoin {
        cluster: leader.cluster,
        server,
        incarnation,
    };
    assert_eq!(leader.take_in_again(asks(known + 1)).await, Answer::Done);
    let (at, _) = leader.members.settled().unwrap();
    assert_eq!(leader.take_in_again(asks(known + 1)).await, Answer::Done);
    assert_eq!(leader.members.settled().unwrap().0, at);
    let refused = leader.take_in_again(asks(known)).await;
    assert!(matches!(refused, Answer::Refused { .. }), "{refused:?}");
}

/// Looks until there is something.
async fn until<T>(consensus: &Consensus, look: impl Fn(&Consensus) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look(consensus) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap()
}

/// Whom it hands over to has just gone, and nobody else is there either. The engine takes no writes from
/// then on, so it must not go on as the leader when they are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_relieves_is_silent_until_somebody_does() {
    let ensemble = Ensemble::of_three();
    let mut servers = ensemble.start_all().await;
    let led = leader_of(&servers);
    let old = servers.remove(led);
    let leader = Arc::clone(old.consensus());
    let index = propose(&leader, 10).await;
    let term = |one: &Consensus| one.raft.metrics().borrow_watched().current_term;
    let led_in = term(&leader);
    for server in servers.drain(..) {
        server.shutdown().await.unwrap();
    }
    let begun = std::time::Instant::now();
    // It has heard of them a moment ago, so it tries them first.
    assert!(!leader.members.hand_over(Duration::from_secs(2)).await);
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(2), "it was not silent: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(leader.role(), Role::Leader);
    assert_eq!(term(&leader), led_in);

    // Alone the two that come back are a majority, and it may be one of them.
    let others = (1..=3).filter(|id| *id != led + 1);
    let starting = others.map(|id| ensemble.start(id));
    servers = futures_util::future::join_all(starting).await;
    servers.push(old);
    for server in &servers {
        ready(server).await;
    }
    until(&leader, |leader| (term(leader) > led_in).then_some(())).await;
    let next = a_leader_among(&servers).await;
    let index = index.max(propose(next, 10).await);
    for server in &servers {
        applied(server.consensus(), index).await;
    }
}

/// Else it would turn its clients away though its way back is open, if that opens late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_finds_another_leader_hears_of_a_majority_at_once() {
    const INTERVAL: Duration = Duration::from_secs(60);
    let mut ensemble = Ensemble::of_three();
    // Four rounds in 240 s: none of them comes by itself while a test waits.
    ensemble.more.push(("tickTime", "2000".to_owned()));
    ensemble.more.push(("syncLimit", "120".to_owned()));
    let servers = ensemble.start_all().await;
    let old = leader_of(&servers);
    let leader = servers[old].consensus();
    assert_eq!(leader.isolation_limit, INTERVAL * 4);
    let heard = |one: &Consensus| one.majority_heard_ms.load(Ordering::Relaxed);
    let before: Vec<u64> = servers
        .iter()
        .map(|server| heard(server.consensus()))
        .collect();
    assert!(leader.members.hand_over(Duration::from_secs(5)).await);
    for (server, before) in servers.iter().zip(before) {
        let follows = |one: &Consensus| one.role() == Role::Follower;
        if follows(server.consensus()) {
            until(server.consensus(), |one| {
                (heard(one) > before).then_some(())
            })
            .await;
        }
    }
}

fn has_identity(folder: &Path) -> bool {
    folder.join("identity").exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_follows_without_a_vote() {
    let ensemble = Ensemble::new(&["participant", "participant", "participant", "observer"]);
    let servers = ensemble.start_all().await;
    let index = propose(a_leader_among(&servers).await, 5).await;
    let observer = servers[3].consensus();
    applied(observer, index).await;
    assert_eq!(observer.role(), Role::Observer);
    assert_eq!(observer.raft.voter_ids().count(), 3);
}

/// Applied before it was on this disk, shown to a client, and then gone: reads must not go back, so
/// a server alone, cut off from a majority, does not serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_serves_nothing_before_it_has_heard_from_a_majority() {
    let ensemble = Ensemble::of_three();
    let servers = ensemble.start_all().await;
    for server in servers {
        server.shutdown().await.unwrap();
    }
    let alone = ensemble.start(1).await;
    let some_time = Duration::from_secs(1);
    tokio::time::timeout(some_time, alone.ready())
        .await
        .expect_err("it is alone");
    let second = ensemble.start(2).await;
    ready(&alone).await;
    ready(&second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_an_ensemble_is_not_served_by_a_server_alone() {
    let ensemble = Ensemble::of_three();
    for server in ensemble.start_all().await {
        server.shutdown().await.unwrap();
    }
    let alone = Ensemble {
        lines: Vec::new(),
        ..ensemble
    };
    let refused = Server::start(alone.config(1, &[])).await.err().unwrap();
    let members = 3;
    assert!(
        matches!(
            &refused,
            StartError::Formation(FormationError::NotListed { members: found, .. })
                if *found == members
        ),
        "{refused}"
    );
}
