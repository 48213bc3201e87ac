//! A nightly job that runs on several machines, so that one always does it, and under a lock, so that
//! only one does.
//!
//! ```sh
//! cargo run -p quorate-recipes --example nightly_job                    # with a server of its own
//! cargo run -p quorate-recipes --example nightly_job -- localhost:2181  # Quorate or ZooKeeper
//! ```
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::error::Error as StdError;
use std::sync::{Arc, Mutex as Cell, PoisonError};
use std::time::Duration;

use quorate_client::{Client, OnExpiry};
use quorate_recipes::{Error, Lease, Mutex};
use quorate_testing::TestServer;
use tokio::sync::oneshot;

const PARTS: u32 = 5;
/// What one part of the report takes.
const PART: Duration = Duration::from_millis(40);

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    // Without an address: a server in this process, gone when `_server` is.
    let (address, _server) = match std::env::args().nth(1) {
        Some(address) => (address, None),
        None => {
            let server = TestServer::start().await?;
            (server.connect_string(), Some(server))
        }
    };
    // Two machines: each has one client, for all that it does.
    let (one, two) = (connect(&address).await?, connect(&address).await?);
    let store = Store::default();

    // 03:00 on both. The first begins; it says when it has the lock, so that we know who is first.
    let (begun, has_begun) = oneshot::channel();
    let first = tokio::spawn({
        let (lock, store) = (nightly_lock(&one, "machine-1"), store.clone());
        async move {
            lock.run(|lease| async move {
                begun.send(()).ok();
                write_report(&lease, &store).await
            })
            .await
        }
    });
    has_begun.await?;

    // The second does not wait: if somebody is at it, there is nothing to do.
    let lock = nightly_lock(&two, "machine-2");
    let tried = lock
        .acquire()
        .try_now()
        .run(async |lease| write_report(&lease, &store).await)
        .await;
    match tried {
        Err(Error::WouldBlock { holder, .. }) => {
            println!("machine-2: {holder} is at it; see you tomorrow");
        }
        other => return Err(format!("machine-2 should have been told to go: {other:?}").into()),
    }
    let parts = first.await???;
    if parts != PARTS {
        return Err(format!("the first report has {parts} parts of {PARTS}").into());
    }

    // The next night the second is there first; the first waits, but not for long.
    let guard = lock.acquire().await?;
    let next = nightly_lock(&one, "machine-1");
    let waited = next
        .acquire()
        .wait_at_most(Duration::from_millis(100))
        .await;
    match waited {
        Err(Error::HeldByAnother { holder, waited, .. }) => {
            println!("machine-1: {holder} still has it after {waited:?}");
        }
        other => return Err(format!("machine-1 should have given up: {other:?}").into()),
    }
    // Somebody at a console wants the lock back. Who holds it hears of it, and ends in order.
    let work = tokio::spawn({
        let store = store.clone();
        guard.run(async move |lease| write_report(&lease, &store).await)
    });
    next.revoke("maintenance at 03:15").await?;
    let parts = work.await???;
    if parts == PARTS {
        return Err("the second report should have been interrupted".into());
    }
    one.close().await;
    two.close().await;
    Ok(())
}

/// A session that is followed by another if it expires: the machine was asleep, say.
async fn connect(address: &str) -> Result<Client, Box<dyn StdError>> {
    let builder = Client::builder(address).on_expiry(OnExpiry::NewSession);
    Ok(builder.connect().await?)
}

/// The identity is what others see of the holder.
fn nightly_lock(client: &Client, identity: &str) -> Mutex {
    Mutex::new(client, "/locks/nightly-report").identity(identity)
}

/// The job: returns how many parts it has written. It ends early when it is told to.
async fn write_report(lease: &Lease, store: &Store) -> Result<u32, Stale> {
    let (who, token) = (lease.identity(), lease.token());
    println!("{who}: has the lock, token {token}");
    for part in 1..=PARTS {
        // `None`: we have to stop. What was under way is dropped.
        if lease.until_stopping(make_part()).await.is_none() {
            println!("{who}: stops at part {part}: {}", lease.stopping().await);
            return Ok(part - 1);
        }
        store.write(token.get(), part)?;
    }
    println!("{who}: the report is complete");
    Ok(PARTS)
}

async fn make_part() {
    tokio::time::sleep(PART).await;
}

/// Where the reports go. It remembers the highest token it has seen, and refuses lower ones: a runner
/// that was stopped for an hour may wake up and write, and must not. For a real one see `payments.rs`.
#[derive(Clone, Default)]
struct Store(Arc<Cell<Report>>);

#[derive(Default)]
struct Report {
    token: u64,
    parts: Vec<u32>,
}

#[derive(Debug, thiserror::Error)]
#[error("token {0} is old: somebody else has had the lock since")]
struct Stale(u64);

impl Store {
    fn write(&self, token: u64, part: u32) -> Result<(), Stale> {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if token < report.token {
            return Err(Stale(token));
        }
        if token > report.token {
            *report = Report {
                token,
                parts: Vec::new(),
            };
        }
        report.parts.push(part);
        Ok(())
    }
}
