//! Five payment workers, each a process, elect one that charges the customers. It is stopped in the
//! middle of a charge, long enough for another to take over, and then goes on where it was.
//!
//! Every customer is charged exactly once, because the store refuses old tokens in the same
//! transaction as the charge ([`store`]). `--without-fencing` leaves that out, and a customer pays twice.
//!
//! ```sh
//! cargo run -p quorate-recipes --example payments
//! cargo run -p quorate-recipes --example payments -- --without-fencing
//! cargo run -p quorate-recipes --example payments -- localhost:2181  # Quorate or ZooKeeper
//! ```
#![expect(clippy::print_stdout, reason = "it shows what happens")]

mod director;
mod store;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_client::{Client, OnExpiry};
use quorate_recipes::{Election, Term};
use quorate_testing::TestServer;
use rustix::process::{Signal, getpid, kill_process};

use self::store::Store;

type Failure = Box<dyn Error + Send + Sync>;

const CUSTOMERS: i64 = 6;
/// At whose charge the leader is stopped.
const UNLUCKY: i64 = 3;
/// Short, so that nobody watches the others wait. A server may grant more.
const SESSION: Duration = Duration::from_millis(1500);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let is_fenced = !args.iter().any(|arg| arg == "--without-fencing");
    args.retain(|arg| arg != "--without-fencing");
    match args.as_slice() {
        // The program starts itself, once for each worker.
        [worker, name, address, folder] if worker == "--worker" => {
            work(name, address, Path::new(folder), is_fenced).await
        }
        [address] => director::direct(address, is_fenced),
        _ => {
            let server = TestServer::start().await?;
            director::direct(&server.connect_string(), is_fenced)
        }
    }
}

/// A worker: leads whenever it can, until all customers have been charged.
async fn work(name: &str, address: &str, folder: &Path, is_fenced: bool) -> Result<(), Failure> {
    let client = Client::builder(address)
        .session_timeout(SESSION)
        .on_expiry(OnExpiry::NewSession)
        .connect()
        .await?;
    // The folder is another one in each run.
    let run = folder.file_name().unwrap_or_default().to_string_lossy();
    let election = Election::new(&client, &format!("/election/payments-{run}")).identity(name);
    let folder = folder.to_owned();
    election
        .run(|term| charge_all(term, folder.clone(), is_fenced))
        .await?;
    client.close().await;
    Ok(())
}

async fn charge_all(term: Term, folder: PathBuf, is_fenced: bool) -> Result<(), Failure> {
    println!("leads, token {}", term.token());
    // First the token, then a look at what is left: from here on, no earlier leader changes it.
    let mut store = Store::open(&folder, term.token(), is_fenced)?;
    while let Some(customer) = store.next_customer()? {
        if !term.is_held() {
            break;
        }
        // It is our turn: we have just looked. A pause at this very line is what no check helps against:
        // a machine that is suspended, or swaps; a packet that is late.
        if customer == UNLUCKY {
            stand_still_once(&folder);
        }
        if store.charge(customer)? {
            println!("has charged customer {customer}");
        } else {
            println!("was refused: a later leader has been here");
            break;
        }
        // `None`: we have to stop. What was under way is dropped.
        if term.until_stopping(other_work()).await.is_none() {
            break;
        }
    }
    if store.next_customer()?.is_some() {
        // Somebody else leads, or will: `run` stands for election again.
        term.stopping().await;
    }
    Ok(())
}

async fn other_work() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// As `kill -STOP` does it; by ourselves, so that it happens where it hurts, and only once. The signal
/// finds the main thread, which is this one, on its way out of the call.
fn stand_still_once(folder: &Path) {
    if std::fs::remove_file(folder.join("stop")).is_ok() {
        println!("is stopped");
        kill_process(getpid(), Signal::STOP).ok();
        println!("goes on");
    }
}
