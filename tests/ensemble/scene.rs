//! One ensemble, its clients and what is done to them, from the first start to the verdict.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::checker::{LOG, Promises, check};
use quorate_tests::client::{
    Connection, Message, PERSISTENT, create, get_children, get_data, sync,
};
use quorate_tests::ensemble::{Ensemble, PATIENCE};
use quorate_tests::faults::Network;
use quorate_tests::history::{History, Tree};
use quorate_tests::server::Product;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::clients::{Board, Client, EPHEMERALS, Habits, REGISTERS};

/// Of clients that stay with what they have; longer than any fault lasts.
const STEADY_MS: i32 = 40_000;
/// Of clients that move, and leave sessions to expire: what they leave has to be waited for.
const RESTLESS_MS: i32 = 3_000;
pub(crate) const RESTLESS: Duration = Duration::from_millis(3_000);
/// Writes acknowledged between two faults, to have something at stake.
const WRITES: u64 = 150;
const SETUP_MS: i32 = 60_000;

/// Who is tested.
pub(crate) fn product() -> Product {
    match std::env::var("QUORATE_ENSEMBLE") {
        Ok(name) if name == "zookeeper" => Product::ApacheZookeeper,
        Ok(name) => panic!("QUORATE_ENSEMBLE={name}: only zookeeper is another product"),
        Err(_) => Product::Quorate,
    }
}

/// How many faults a test makes: a few, or as many as `QUORATE_FAULTS` says.
pub(crate) fn faults(few: u32) -> u32 {
    std::env::var("QUORATE_FAULTS").map_or(few, |text| {
        text.parse().expect("QUORATE_FAULTS is a number")
    })
}

/// A line for whoever runs the tests; the runner would hide what a passing test prints.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Records that `test` cannot run here.
pub(crate) fn skip(test: &str, reason: &str) {
    say(&format!("skipped: {test}: {reason}"));
    let required = std::env::var("QUORATE_INTEGRATION").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "skipped: {test}: {reason}, but QUORATE_INTEGRATION=required"
    );
}

/// What the one who makes the faults has at hand.
pub(crate) struct Scene<'a> {
    pub(crate) ensemble: Ensemble,
    pub(crate) rng: StdRng,
    board: &'a Board,
    reached: Receiver<()>,
}

impl Scene<'_> {
    /// Waits until so many more writes are acknowledged.
    pub(crate) fn writes(&mut self, more: u64) {
        self.board.set_target(more);
        if self.reached.recv_timeout(PATIENCE).is_err() {
            let roles = self.ensemble.roles(&self.ensemble.ids());
            let running = self.ensemble.check_running();
            panic!("{more} writes in {PATIENCE:?}; roles: {roles:?}, running: {running:?}");
        }
    }

    /// Some writes, and then a moment that has nothing to do with them.
    pub(crate) fn load(&mut self) {
        let more = self.rng.random_range(1..2 * WRITES);
        self.writes(more);
        thread::sleep(Duration::from_micros(self.rng.random_range(0..20_000)));
    }

    /// Something is about to happen to these servers: their clients may notice.
    pub(crate) fn disturb(&self, servers: &[u64]) {
        self.board.disturb(servers);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, servers: &[u64]) {
        self.disturb(servers);
        for server in servers {
            self.ensemble.kill(*server);
        }
    }

    pub(crate) fn leader(&mut self) -> u64 {
        self.ensemble.leader().unwrap()
    }

    /// A server that does not lead, any of them.
    pub(crate) fn follower(&mut self) -> u64 {
        let leader = self.leader();
        let mut others = self.ensemble.awake();
        others.retain(|id| *id != leader);
        *others.choose(&mut self.rng).unwrap()
    }

    /// So many servers, the leader among them or not.
    pub(crate) fn some(&mut self, count: usize) -> Vec<u64> {
        let ids = self.ensemble.ids();
        ids.choose_multiple(&mut self.rng, count).copied().collect()
    }

    /// All links and all servers are well again, and clients are served.
    pub(crate) fn recover(&mut self) {
        if let Some(network) = &mut self.ensemble.network {
            network.heal().unwrap();
        }
        for id in self.ensemble.ids() {
            if !self.ensemble.awake().contains(&id) && self.ensemble.runs(id) {
                self.ensemble.thaw(id).unwrap();
            }
        }
        self.ensemble.start().unwrap();
        self.writes(WRITES / 3);
        self.board.settle();
    }
}

/// Ends the clients, also when the test fails in between.
struct Ending<'a>(&'a Board);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end_load();
        self.0.release();
    }
}

/// Starts the ensemble, has clients work on it while `faults` happen, and judges what they saw.
pub(crate) fn play(test: &str, mut ensemble: Ensemble, faults: impl FnOnce(&mut Scene<'_>)) {
    let begun = Instant::now();
    let seed = match std::env::var("QUORATE_SEED") {
        Ok(text) => text.parse().expect("QUORATE_SEED is a number"),
        Err(_) => rand::random(),
    };
    say(&format!("{test}: QUORATE_SEED={seed}"));
    ensemble.start().unwrap();
    set_up(&mut ensemble);
    let (board, reached) = Board::new(ensemble.addresses());
    let ids = ensemble.ids();
    let mut scene = Scene {
        ensemble,
        rng: StdRng::seed_from_u64(seed),
        board: &board,
        reached,
    };
    let mut history = History::default();
    thread::scope(|scope| {
        let ending = Ending(&board);
        let steady = ids.iter().map(|id| (*id, STEADY_MS, false));
        let restless = ids.iter().take(2).map(|id| (*id, RESTLESS_MS, true));
        let clients: Vec<_> = (0..)
            .zip(steady.chain(restless))
            .map(|(number, (home, timeout_ms, is_restless))| {
                let habits = Habits {
                    home,
                    timeout_ms,
                    is_restless,
                };
                let client = Client::new(number, seed, &board, habits);
                scope.spawn(move || client.run())
            })
            .collect();
        scene.writes(WRITES);
        faults(&mut scene);
        scene.recover();
        scene.load();
        board.end_load();
        history.trees = final_trees(&scene);
        drop(ending);
        for client in clients {
            history.clients.push(client.join().unwrap());
        }
    });
    history.disturbances = board.disturbances();
    let promises = match scene.ensemble.product() {
        Product::Quorate => Promises::ALL,
        Product::ApacheZookeeper => Promises::ZOOKEEPER,
    };
    let (violations, counts) = check(&history, promises);
    say(&format!(
        "{test}: {counts}; {} faults; {:.1?}",
        history.disturbances.len(),
        begun.elapsed()
    ));
    if !violations.is_empty() {
        let shown: Vec<String> = violations
            .iter()
            .take(20)
            .map(ToString::to_string)
            .collect();
        panic!(
            "{} violations; QUORATE_SEED={seed}\n{}",
            violations.len(),
            shown.join("\n")
        );
    }
    // A history in which little happened proves little.
    assert!(
        counts.writes > 300 && counts.reads > 100 && counts.syncs > 10 && counts.looks > 10,
        "too little happened: {counts}"
    );
}

fn set_up(ensemble: &mut Ensemble) {
    let leader = ensemble.leader().unwrap();
    let mut connection = connect(ensemble.address(leader)).unwrap();
    for path in ["/registers", LOG, EPHEMERALS].into_iter().chain(REGISTERS) {
        let reply = connection.call(&create(path, b"", PERSISTENT)).unwrap();
        assert_eq!(reply.code(), 0, "{path}: {reply:?}");
    }
    let closed = connection.call(&quorate_protocol::Request::CloseSession);
    assert_eq!(closed.unwrap().code(), 0);
}

/// A server may close a connection while it finds its place, so another is tried.
fn connect(address: SocketAddr) -> io::Result<Connection> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Connection::open(address, SETUP_MS) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            opened => return opened,
        }
    }
}

/// What every server has, once what dead sessions held is gone.
fn final_trees(scene: &Scene<'_>) -> Vec<Tree> {
    let deadline = Instant::now() + PATIENCE;
    let ids = scene.ensemble.awake();
    loop {
        let trees: Vec<Tree> = ids
            .iter()
            .map(|id| read_tree(&scene.ensemble, *id).unwrap())
            .collect();
        let sessions = scene.board.sessions();
        let is_quiet = trees.iter().all(|tree| {
            let mut stats = tree.znodes.values().map(|(_, stat)| stat.ephemeral_owner);
            stats.all(|owner| owner == 0 || sessions.contains(&owner))
        });
        let alike = trees.windows(2).all(|two| two[0].znodes == two[1].znodes);
        // What is not alike by then never will be: the checker says what it is.
        if is_quiet && alike || Instant::now() >= deadline {
            return trees;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Reads everything below the root but ZooKeeper's own.
fn read_tree(ensemble: &Ensemble, id: u64) -> io::Result<Tree> {
    let mut connection = connect(ensemble.address(id))?;
    let zxid = connection.call(&sync("/"))?.zxid;
    let mut znodes = BTreeMap::new();
    let mut folders = vec!["/".to_owned()];
    while let Some(folder) = folders.pop() {
        let reply = connection.call(&get_children(&folder, false))?;
        let prefix = folder.trim_end_matches('/');
        let paths: Vec<String> = reply
            .children()
            .unwrap_or_default()
            .iter()
            .map(|name| format!("{prefix}/{name}"))
            .filter(|path| path != "/zookeeper")
            .collect();
        for some in paths.chunks(200) {
            let reads: Vec<_> = some.iter().map(|path| get_data(path, false)).collect();
            connection.send_all(&reads)?;
            for path in some {
                let Message::Reply(reply) = connection.receive()? else {
                    return Err(io::Error::other(format!("{path}: no reply")));
                };
                // What went away in between was an ephemeral.
                if let Some(stat) = reply.stat() {
                    let data = reply.data().unwrap_or_default().to_vec();
                    if stat.num_children > 0 {
                        folders.push(path.clone());
                    }
                    znodes.insert(path.clone(), (data, stat));
                }
            }
        }
    }
    connection.call(&quorate_protocol::Request::CloseSession)?;
    Ok(Tree {
        server: id,
        zxid,
        znodes,
    })
}

/// An ensemble with the settings of these tests.
pub(crate) fn ensemble(servers: u64, network: Option<Network>) -> Ensemble {
    Ensemble::new(product(), servers, network).unwrap()
}
