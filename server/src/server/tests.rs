//! Ensembles within one process, where a test can reach what no client can.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use quorate_state::Action;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::Server;
use crate::admin::four_letter;
use crate::config::Config;
use crate::consensus::Role;
use crate::consensus::membership::OutOfService;
use crate::consensus::pump::Leadership;

/// For anything that must come about in the end, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn config(folder: &Path, id: usize, members: &str) -> Config {
    let folder = folder.join(format!("server{id}"));
    let data = folder.join("data");
    std::fs::create_dir_all(&data).expect("a folder");
    std::fs::write(data.join("myid"), format!("{id}\n")).expect("a file");
    let text = format!(
        "dataDir={}\ntickTime=200\ninitLimit=100\nsyncLimit=20\n4lw.commands.whitelist=*\n{members}",
        data.display()
    );
    let file = folder.join("zoo.cfg");
    std::fs::write(&file, text).expect("a file");
    Config::load(Some(&file), &[])
        .expect("a good configuration")
        .0
}

/// Three servers that serve.
async fn three() -> (TempDir, Vec<Server>) {
    let folder = tempfile::tempdir().expect("a folder");
    let members: String = (1..=3)
        .map(|id| {
            let [quorum, election, client] = [free_port(), free_port(), free_port()];
            format!("server.{id}=127.0.0.1:{quorum}:{election};127.0.0.1:{client}\n")
        })
        .collect();
    let starts = (1..=3).map(|id| Server::start(config(folder.path(), id, &members)));
    let servers = futures_util::future::join_all(starts).await;
    let servers: Vec<Server> = servers
        .into_iter()
        .map(|server| server.expect("it starts"))
        .collect();
    for server in &servers {
        server.ready().await;
    }
    (folder, servers)
}

async fn until<T>(what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = reached() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn leader(servers: &[Server]) -> usize {
    let leads = |server: &Server| server.consensus.role() == Role::Leader;
    until("a leader", || servers.iter().position(leads)).await
}

/// An entry of the log that changes nothing.
async fn write(server: &Server) {
    let Leadership::Mine { term } = server.consensus.leadership() else {
        return;
    };
    let action = Action::Reap {
        paths: Vec::new(),
        never_used_ms: 0,
    };
    server
        .consensus
        .propose_own(term, action)
        .await
        .expect("the engine runs");
}

async fn word(address: SocketAddr, word: &[u8; 4]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    assert!(four_letter::Word::parse(word).is_some());
    let mut socket = tokio::net::TcpStream::connect(address)
        .await
        .expect("somebody listens");
    socket.write_all(word).await.expect("it is sent");
    let mut text = String::new();
    socket.read_to_string(&mut text).await.expect("an answer");
    text
}

/// The state of one server is changed behind the log's back: that one stops serving, nobody else.
async fn one_differs(pick: impl Fn(usize) -> usize, many: bool) {
    let (_folder, servers) = three().await;
    let leads = leader(&servers).await;
    let wrong = pick(leads);
    // A comparison finds nothing while nothing is wrong.
    write(&servers[leads]).await;
    sleep(Duration::from_secs(4)).await;
    for server in &servers {
        assert_eq!(server.consensus.members().out_of_service(), None);
    }
    servers[wrong].consensus.members().corrupt();
    // Enough to pass a checkpoint while more are written, or one and then silence.
    let writes = if many { 5000 } else { 1 };
    for _ in 0..writes {
        write(&servers[leads]).await;
    }
    let members = servers[wrong].consensus.members();
    until("the wrong one to stop serving", || {
        (members.out_of_service() == Some(OutOfService::Differs)).then_some(())
    })
    .await;
    for (index, server) in servers.iter().enumerate() {
        let service = server.consensus.members().out_of_service();
        assert_eq!(service.is_some(), index == wrong, "server {}", index + 1);
    }
    let next = until("another leader", || {
        let leads = |server: &Server| server.consensus.role() == Role::Leader;
        servers.iter().position(leads).filter(|at| *at != wrong)
    })
    .await;
    assert_ne!(next, wrong);

    let address = servers[wrong].client_address();
    let srvr = word(address, b"srvr").await;
    assert!(srvr.contains("not currently serving"), "{srvr}");
    assert!(srvr.contains("differs from that of the majority"), "{srvr}");
    let mntr = word(address, b"mntr").await;
    assert!(mntr.contains("zk_digest_mismatches_count\t1\n"), "{mntr}");
    assert!(mntr.contains("zk_server_state\tout-of-service\n"), "{mntr}");
    let mntr = word(servers[next].client_address(), b"mntr").await;
    assert!(mntr.contains("zk_server_state\tleader\n"), "{mntr}");
    assert!(mntr.contains("zk_digest_mismatches_count\t0\n"), "{mntr}");
    for server in servers {
        server.shutdown().await.expect("an orderly end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_state_differs_stops_serving_when_all_is_quiet() {
    one_differs(|leads| (leads + 1) % 3, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_state_differs_stops_serving_at_the_next_checkpoint() {
    one_differs(|leads| (leads + 1) % 3, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_state_differs_stops_serving_and_another_leads() {
    one_differs(|leads| leads, false).await;
}
