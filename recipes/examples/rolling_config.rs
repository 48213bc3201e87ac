//! A new configuration is rolled out to the instances of a service one at a time, and each says when it
//! runs with it. A configuration that the first of them cannot run with gets no further.
//!
//! ```sh
//! cargo run -p quorate-recipes --example rolling_config                    # with a server of its own
//! cargo run -p quorate-recipes --example rolling_config -- localhost:2181  # Quorate or ZooKeeper
//! ```
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_client::tree::Tree;
use quorate_client::{Client, OnExpiry};
use quorate_recipes::{Error, Lease, Mutex, SharedValue};
use quorate_testing::TestServer;
use serde::{Deserialize, Serialize};

const INSTANCES: usize = 4;
const BASE: &str = "/examples/rolling-config";
const CONFIG: &str = "/examples/rolling-config/config";
const LOCK: &str = "/examples/rolling-config/lock";
const STATUS: &str = "/examples/rolling-config/status";
/// What a restart takes.
const RESTART: Duration = Duration::from_millis(30);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    revision: u64,
    threads: i32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without an address: a server in this process, gone when `_server` is.
    let (address, _server) = match std::env::args().nth(1) {
        Some(address) => (address, None),
        None => {
            let server = TestServer::start().await?;
            (server.connect_string(), Some(server))
        }
    };
    let client = connect(&address).await?;
    // What an earlier run has left.
    client.delete_recursive(BASE).await?;
    client.ensure_path(STATUS).await?;

    let down = Arc::new(Down::default());
    let mut instances = Vec::new();
    for number in 1..=INSTANCES {
        let client = connect(&address).await?;
        let name = format!("instance-{number}");
        instances.push(tokio::spawn(serve(client, name, Arc::clone(&down))));
    }

    let config = SharedValue::<Config>::json(&client, CONFIG);
    let mut status = client.tree(STATUS).await?;
    for (revision, threads) in [(1, 8), (2, 16)] {
        config.set(&Config { revision, threads }).await?;
        let ran = wait_for(&mut status, &format!("{revision} runs"), INSTANCES).await?;
        println!("operator: revision {revision} runs on {ran} instances");
    }
    // A mistake.
    config
        .set(&Config {
            revision: 3,
            threads: -1,
        })
        .await?;
    wait_for(&mut status, "3 refused", 1).await?;
    let tried = status
        .nodes()
        .values()
        .filter(|node| node.data.starts_with(b"3 "))
        .count();
    println!("operator: revision 3 was refused; {tried} instance has tried it");
    config
        .set(&Config {
            revision: 4,
            threads: 16,
        })
        .await?;
    let ran = wait_for(&mut status, "4 runs", INSTANCES).await?;
    println!("operator: revision 4 runs on {ran} instances");

    let most = down.most.load(Ordering::SeqCst);
    println!("never more than {most} of {INSTANCES} were down at a time");
    for instance in instances {
        instance.abort();
    }
    client.close().await;
    if tried != 1 || most != 1 {
        return Err("one at a time was promised".into());
    }
    Ok(())
}

/// A session that is followed by another if it expires.
async fn connect(address: &str) -> Result<Client, quorate_client::ConnectError> {
    let builder = Client::builder(address).on_expiry(OnExpiry::NewSession);
    builder.connect().await
}

/// Waits until so many instances say so.
async fn wait_for(status: &mut Tree, says: &str, wanted: usize) -> Result<usize, Error> {
    loop {
        let nodes = status.nodes().values();
        let count = nodes.filter(|node| node.data == says.as_bytes()).count();
        if count >= wanted {
            return Ok(count);
        }
        // Whatever it is that has changed: the nodes are up to date again.
        if let Some(change) = status.next().await {
            change?;
        }
    }
}

/// An instance of the service: restarts with every new configuration, when it is its turn.
async fn serve(client: Client, name: String, down: Arc<Down>) -> Result<(), Error> {
    let config = SharedValue::<Config>::json(&client, CONFIG);
    let lock = Mutex::new(&client, LOCK).identity(&name);
    let mut values = config.watch();
    let mut runs_with = 0;
    while let Some(value) = values.next().await {
        if value?.is_some_and(|new| new.value.revision != runs_with) {
            runs_with = lock
                .run(async |lease| take_turn(&lease, &config, &down).await)
                .await??;
        }
    }
    Ok(())
}

/// Restarts with the configuration as it is by now, and returns its revision.
async fn take_turn(lease: &Lease, config: &SharedValue<Config>, down: &Down) -> Result<u64, Error> {
    // First what there is, then whatever comes.
    let mut values = config.watch();
    while let Some(value) = values.next().await {
        let Some(Config { revision, threads }) = value?.map(|new| new.value) else {
            continue;
        };
        if down.restart(threads).await {
            say(lease, &format!("{revision} runs")).await?;
            return Ok(revision);
        }
        // Nobody else need try it: the turn does not end before there is another.
        say(lease, &format!("{revision} refused")).await?;
    }
    Ok(0)
}

/// Refused by the server if it is no longer our turn, however late it arrives there.
async fn say(lease: &Lease, what: &str) -> Result<(), Error> {
    println!("{}: {what}", lease.identity());
    let znode = format!("{STATUS}/{}", lease.identity());
    match lease.client().exists(&znode).await? {
        Some(_) => lease.transaction().set(&znode, what).await?,
        None => lease.transaction().create(&znode, what).await?,
    };
    Ok(())
}

/// How many instances are down, for a restart: now, and at most.
#[derive(Default)]
struct Down {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Down {
    /// Whether it comes up with so many threads.
    async fn restart(&self, threads: i32) -> bool {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(RESTART).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        threads > 0
    }
}
