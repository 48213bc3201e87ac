//! A queue of jobs, and workers that take them. One dies over its job, without a word; another gets
//! that job when the session of the dead one has ended. No job is lost.
//!
//! ```sh
//! cargo run -p quorate-recipes --example worker_pool                    # with a server of its own
//! cargo run -p quorate-recipes --example worker_pool -- localhost:2181  # Quorate or ZooKeeper
//! ```
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::{Client, OnExpiry};
use quorate_recipes::{Error, Queue};
use quorate_testing::TestServer;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

const WORKERS: usize = 3;
const JOBS: usize = 12;
const QUEUE: &str = "/examples/worker-pool";
/// Short, so that nobody waits long for the job of the dead. A server may grant more.
const SESSION: Duration = Duration::from_millis(1500);
/// What a job takes.
const JOB: Duration = Duration::from_millis(30);
/// For any next word of a worker.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a worker says.
enum Word {
    /// It has begun a job, and is told to go on.
    Begun {
        worker: usize,
        job: String,
        go_on: oneshot::Sender<()>,
    },
    /// It has done it, and this is what came out.
    Done {
        worker: usize,
        job: String,
        square: u64,
    },
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
    let client = Client::connect(&address).await?;
    // What an earlier run has left.
    client.delete_recursive(QUEUE).await?;
    let queue = Queue::new(&client, QUEUE);
    queue
        .put_all((1..=JOBS).map(|number| number.to_string()))
        .await?;

    let (tell, mut words) = mpsc::channel(JOBS);
    let mut machines = BTreeMap::new();
    for worker in 1..=WORKERS {
        machines.insert(worker, machine(worker, address.clone(), tell.clone())?);
    }

    // By job, so that one that is done twice is seen to be the same.
    let mut results: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    let mut orphan = None;
    while results.len() < JOBS {
        let word = tokio::time::timeout(PATIENCE, words.recv()).await?;
        match word.ok_or("all workers have gone")? {
            // After a few results, the first that begins another job dies over it: no power.
            Word::Begun { worker, job, go_on } if orphan.is_none() && results.len() >= WORKERS => {
                println!("worker {worker} dies over {job}");
                if let Some(machine) = machines.remove(&worker) {
                    machine.shutdown_background();
                }
                orphan = Some((worker, job, go_on));
            }
            Word::Begun { worker, job, go_on } => {
                println!("worker {worker} has begun {job}");
                go_on.send(()).ok();
            }
            Word::Done {
                worker,
                job,
                square,
            } => {
                println!("worker {worker} has done {job}: {square}");
                results.insert(job, (worker, square));
            }
        }
    }
    for machine in machines.into_values() {
        machine.shutdown_background();
    }

    let (dead, job, _) = orphan.ok_or("nobody has died")?;
    let (heir, _) = results[&job];
    println!("{job}, over which worker {dead} died, was done by worker {heir}");
    let mut squares: Vec<u64> = results.values().map(|(_, square)| *square).collect();
    squares.sort_unstable();
    let wanted: Vec<u64> = (1..=JOBS as u64).map(|number| number * number).collect();
    if heir == dead || squares != wanted {
        return Err("every job was promised to be done".into());
    }
    println!("all {JOBS} jobs are done");
    client.close().await;
    Ok(())
}

/// A machine of its own for each worker: threads that can be stopped as by a power failure, without a
/// word to the server.
fn machine(
    worker: usize,
    address: String,
    tell: mpsc::Sender<Word>,
) -> Result<Runtime, std::io::Error> {
    let machine = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    machine.spawn(async move {
        if let Err(error) = work(worker, &address, &tell).await {
            println!("worker {worker} gives up: {error}");
        }
    });
    Ok(machine)
}

async fn work(
    worker: usize,
    address: &str,
    tell: &mpsc::Sender<Word>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let builder = Client::builder(address).session_timeout(SESSION);
    // If its session ends while it lives, it goes on in another.
    let client = builder.on_expiry(OnExpiry::NewSession).connect().await?;
    let queue = Queue::new(&client, QUEUE).identity(&format!("worker-{worker}"));
    loop {
        // It stays on the queue until it is done; meanwhile nobody else gets it.
        let item = queue.take().locked().await?;
        let job = item.path().to_owned();
        let (go_on, may_go_on) = oneshot::channel();
        let begun = Word::Begun {
            worker,
            job: job.clone(),
            go_on,
        };
        tell.send(begun).await?;
        may_go_on.await?;
        let number: u64 = std::str::from_utf8(item.data())?.parse()?;
        tokio::time::sleep(JOB).await;
        match item.done().await {
            Ok(()) => {
                let square = number * number;
                tell.send(Word::Done {
                    worker,
                    job,
                    square,
                })
                .await?;
            }
            // Our session has ended over it, and somebody else has it.
            Err(Error::ItemLost { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
