//! Services that bet on the client crate and its recipes, in the simulation: they lock, elect, count,
//! keep znodes and follow a tree while everything breaks, and in the end it is judged whether what they
//! were promised was so.
//!
//! What is judged as it happens: no two are at work under one lock, or lead one election. In the end:
//! each count was made once or its caller was told that nobody knows, every kept znode is there, every
//! follower has the tree that the servers have, everybody can lock again, and after all have gone
//! nothing of theirs is left. Grants and guarded writes go into the history, whose judge looks at tokens.

mod connector;
mod isolation;
mod ledger;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use quorate_client::environment::Clock;
use quorate_client::{Client, OnExpiry, Reason};
use quorate_recipes::{Counter, KeptNode, PersistentNode};
use quorate_workload::Recorder;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::connector::Through;
use self::isolation::Isolation;
use self::ledger::Ledger;
use self::workers::Worker;
use crate::clock::WALL_AT_START_MS;
use crate::ensemble::{Ensemble, node};
use crate::network::{Node, SimNetwork};
use crate::trace::Trace;

const ROOT: &str = "/recipes";
const COUNTER: &str = "/recipes/counter";
const LOCK: &str = "/recipes/lock";
const ELECTION: &str = "/recipes/election";
const NODES: &str = "/recipes/nodes";
const TREE: &str = "/recipes/tree";
/// Set only by who holds the lock.
const FENCED: &str = "/recipes/fenced";

/// The data of all znodes below a path.
type Tree = BTreeMap<String, Bytes>;

/// Several services at work.
pub struct Recipes {
    services: Vec<Service>,
    /// Takes no part, and looks at the result.
    judge: Client,
    ledger: Ledger,
    stop: CancellationToken,
    /// What followers have to arrive at.
    tree: watch::Sender<Option<Arc<Tree>>>,
    workers: Vec<(String, JoinHandle<()>)>,
    followers: Vec<(String, JoinHandle<()>)>,
}

/// One of them: a client, and the znode that it keeps.
struct Service {
    number: u32,
    client: Client,
    node: KeptNode,
}

impl Recipes {
    /// Sets `count` services to work, on nodes from `first` on; the one behind them judges. Now and then
    /// a service is cut off from all servers: no other fault takes a lock from one that lives.
    pub fn start(
        seed: u64,
        count: u32,
        first: Node,
        network: &SimNetwork,
        servers: &[u64],
        recorder: Recorder,
        trace: Trace,
    ) -> Self {
        let ledger = Ledger::new(recorder, trace);
        Self::start_as(seed, first..first + count, network, servers, ledger, false)
    }

    fn start_as(
        seed: u64,
        nodes: Range<Node>,
        network: &SimNetwork,
        servers: &[u64],
        ledger: Ledger,
        is_heedless: bool,
    ) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0xd1b5_4a32_d192_ed03);
        let wall = Duration::from_millis(WALL_AT_START_MS.unsigned_abs());
        let clock = Clock::tokio(UNIX_EPOCH + wall);
        let timeout_ms = [2_000, 4_000, 10_000][random.random_range(0..3)];
        let hosts = servers
            .iter()
            .map(|id| Ensemble::client_address(*id).to_string());
        let hosts: Vec<String> = hosts.collect();
        let mut begin = |node| {
            let builder = Client::builder(&hosts.join(","))
                .connector(Through(network.of(node)))
                .clock(clock)
                .seed(random.random())
                .session_timeout(Duration::from_millis(timeout_ms))
                .on_expiry(OnExpiry::NewSession);
            match builder.start() {
                Ok(client) => client,
                Err(error) => panic!("the simulation's own options are refused: {error}"),
            }
        };
        let clients: Vec<Client> = nodes.clone().map(&mut begin).collect();
        let judge = begin(nodes.end);
        let (stop, (tree, tree_seen)) = (CancellationToken::new(), watch::channel(None));
        let (mut services, mut workers, mut followers) = (Vec::new(), Vec::new(), Vec::new());
        for (number, client) in (0..).zip(clients) {
            let mut spawn = |what: &str, worker: Worker, run: fn(Worker) -> workers::Running| {
                let name = format!("{what} of service {number}");
                workers.push((name, tokio::spawn(run(worker))));
            };
            let mut worker = || Worker {
                number,
                client: client.clone(),
                ledger: ledger.clone(),
                stop: stop.clone(),
                random: SmallRng::seed_from_u64(random.random()),
                is_heedless,
            };
            spawn("the lock", worker(), |worker| Box::pin(worker.lock()));
            spawn("the election", worker(), |worker| Box::pin(worker.lead()));
            spawn("the counter", worker(), |worker| Box::pin(worker.count()));
            if number == 0 {
                spawn("the tree", worker(), |worker| Box::pin(worker.plant()));
            }
            let following = worker().follow(tree_seen.clone());
            let name = format!("the follower of service {number}");
            followers.push((name, tokio::spawn(following)));
            let node = PersistentNode::new(&client, &format!("{NODES}/{number}"));
            let node = node.data(number.to_string()).keep();
            services.push(Service {
                number,
                client,
                node,
            });
        }
        let isolation = Isolation {
            network: network.clone(),
            nodes,
            servers: servers.iter().map(|id| node(*id)).collect(),
            span_max_ms: timeout_ms * 2,
            random: SmallRng::seed_from_u64(random.random()),
            ledger: ledger.clone(),
            stop: stop.clone(),
        };
        workers.push(("isolation".to_owned(), tokio::spawn(isolation.run())));
        Self {
            services,
            judge,
            ledger,
            stop,
            tree,
            workers,
            followers,
        }
    }

    /// To be called when all is well again: has everybody end what is under way, and judges. Each step
    /// may take `within`. The violations.
    pub async fn settle(mut self, within: Duration) -> Vec<String> {
        self.stop.cancel();
        let (workers, followers) = (
            std::mem::take(&mut self.workers),
            std::mem::take(&mut self.followers),
        );
        let ledger = &self.ledger;
        end_all(workers, within, ledger).await;
        judged("the counter", within, ledger, self.judge_counter()).await;
        for service in &self.services {
            let what = format!("service {}", service.number);
            judged(
                &what,
                within,
                ledger,
                judge_service(service, &self.judge, ledger),
            )
            .await;
        }
        judged("the tree", within, ledger, async {
            let tree = workers::read_tree(&self.judge).await?;
            self.tree.send_replace(Some(Arc::new(tree)));
            Ok(())
        })
        .await;
        end_all(followers, within, ledger).await;
        for service in self.services {
            let what = format!("the end of service {}", service.number);
            judged(&what, within, ledger, async {
                drop(service.node);
                service.client.close().await;
                Ok(())
            })
            .await;
        }
        judged(
            "what is left",
            within,
            ledger,
            judge_rest(&self.judge, ledger),
        )
        .await;
        self.ledger.end()
    }
}

impl Recipes {
    async fn judge_counter(&self) -> Result<(), quorate_recipes::Error> {
        self.judge.sync(ROOT).await?;
        let value = Counter::new(&self.judge, COUNTER).get().await?;
        self.ledger.judge_count(value);
        Ok(())
    }
}

/// That it keeps its znode, and can still get the lock.
async fn judge_service(
    service: &Service,
    judge: &Client,
    ledger: &Ledger,
) -> Result<(), quorate_recipes::Error> {
    service.node.present().await?;
    let path = format!("{NODES}/{}", service.number);
    judge.sync(&path).await?;
    let (data, stat) = judge.get(&path).await?;
    let owner = service
        .client
        .session()
        .map_or(0, quorate_client::SessionId::get);
    if data != service.number.to_string() || stat.ephemeral_owner != owner {
        ledger.violation(format!(
            "{path} is {data:?} of session {:#x}, not of {owner:#x} which keeps it",
            stat.ephemeral_owner
        ));
    }
    let mutex = quorate_recipes::Mutex::new(&service.client, LOCK);
    mutex.acquire().await?.release().await
}

/// That nothing ephemeral is left of those who have gone.
async fn judge_rest(judge: &Client, ledger: &Ledger) -> Result<(), quorate_recipes::Error> {
    judge.sync(ROOT).await?;
    for path in [LOCK, ELECTION, NODES, COUNTER] {
        let names = match judge.children(path).await {
            Ok((names, _)) => names,
            Err(error) if error.is(Reason::NoNode) => continue,
            Err(error) => return Err(error.into()),
        };
        if !names.is_empty() {
            ledger.violation(format!("left below {path} when all had gone: {names:?}"));
        }
    }
    Ok(())
}

/// Does something that has to succeed in time, as all is well; errors that may pass are retried.
async fn judged(
    what: &str,
    within: Duration,
    ledger: &Ledger,
    step: impl Future<Output = Result<(), quorate_recipes::Error>>,
) {
    match tokio::time::timeout(within, step).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => ledger.violation(format!("{what}: {error}, though all is well")),
        Err(_) => ledger.violation(format!(
            "{what}: not done in {within:?}, though all is well"
        )),
    }
}

/// Waits for tasks that have to end in time.
async fn end_all(tasks: Vec<(String, JoinHandle<()>)>, within: Duration, ledger: &Ledger) {
    let end = Instant::now() + within;
    for (name, mut task) in tasks {
        match tokio::time::timeout_at(end, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => ledger.violation(format!("{name}: {error}")),
            Err(_) => {
                task.abort();
                ledger.violation(format!(
                    "{name} is stuck, though all is well for {within:?}"
                ));
            }
        }
    }
}
