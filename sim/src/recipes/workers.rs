//! What a service does, over and over.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::{Client, Error as ClientError, Outcome, Reason, Transaction};
use quorate_recipes::{Counter, Election, Error, FencingToken, Mutex};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::{COUNTER, ELECTION, FENCED, LOCK, TREE, Tree};

/// For a lock that others hold.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
/// Znodes that come and go: so many, with so many below each.
const TREE_WIDTH: u32 = 8;

pub(super) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One of the things that a service does at once.
pub(super) struct Worker {
    pub(super) number: u32,
    pub(super) client: Client,
    pub(super) ledger: Ledger,
    pub(super) stop: CancellationToken,
    pub(super) random: SmallRng,
    /// Goes on whatever becomes of the lock: a mistake that has to be noticed.
    pub(super) is_heedless: bool,
}

impl Worker {
    fn goes_on(&self) -> bool {
        !self.stop.is_cancelled()
    }

    /// Waits, but not when it is to end.
    async fn pause(&mut self, low_ms: u64, high_ms: u64) {
        let ms = self.random.random_range(low_ms..=high_ms);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(ms)) => {}
        }
    }

    fn session(&self) -> i64 {
        let session = self.client.session();
        session.map_or(0, quorate_client::SessionId::get)
    }

    /// Takes the lock and writes under it.
    pub(super) async fn lock(mut self) {
        let mutex = Mutex::new(&self.client, LOCK).identity(format!("service-{}", self.number));
        while self.goes_on() && self.client.ensure_path(FENCED).await.is_err() {
            self.pause(100, 1000).await;
        }
        while self.goes_on() {
            match mutex.acquire().wait_at_most(LOCK_PATIENCE).await {
                Ok(guard) if self.is_heedless => {
                    let (session, token) = (self.session(), number_of(guard.token()));
                    let _at_work = self.ledger.enter(LOCK, self.number, session, token);
                    for _ in 0..8 {
                        let unguarded = self.client.transaction().check("/");
                        write(unguarded, token, &self.ledger).await;
                        self.nap().await;
                    }
                }
                Ok(guard) => {
                    let (session, token) = (self.session(), number_of(guard.token()));
                    let writes = self.random.random_range(0..4);
                    let pause = Duration::from_millis(self.random.random_range(1..400));
                    let (ledger, number) = (self.ledger.clone(), self.number);
                    let worked = guard.run(|lease| async move {
                        let _at_work = ledger.enter(LOCK, number, session, token);
                        for _ in 0..writes {
                            write(lease.transaction(), token, &ledger).await;
                            tokio::time::sleep(pause).await;
                        }
                    });
                    if let Err(Error::Lost { .. }) = worked.await {
                        self.ledger.mark("lock lost over the work");
                    }
                }
                Err(Error::HeldByAnother { .. }) => self.ledger.mark("lock waited for in vain"),
                Err(_) => self.pause(100, 1000).await,
            }
            self.pause(1, 3000).await;
        }
    }

    /// Leads for a while whenever it can.
    pub(super) async fn lead(mut self) {
        let election = Election::new(&self.client, ELECTION)
            .identity(format!("service-{}", self.number))
            .shutdown(self.stop.clone());
        while self.goes_on() {
            let span = Duration::from_millis(self.random.random_range(10..5000));
            let (ledger, number, client) = (self.ledger.clone(), self.number, self.client.clone());
            let led = election.run_once(|term| async move {
                let session = client.session().map_or(0, quorate_client::SessionId::get);
                let at_work = ledger.enter(ELECTION, number, session, number_of(term.token()));
                term.until_stopping(tokio::time::sleep(span)).await;
                drop(at_work);
                Ok::<(), Error>(())
            });
            if led.await.is_err() {
                self.ledger.mark("leadership not won, or lost");
                self.pause(100, 1000).await;
            }
            self.pause(1, 3000).await;
        }
    }

    pub(super) async fn count(mut self) {
        let counter = Counter::new(&self.client, COUNTER);
        while self.goes_on() {
            self.ledger.asked_to_count();
            let outcome = match counter.add(1).await {
                Ok(_) => Outcome::Applied,
                Err(error) => {
                    self.pause(100, 1000).await;
                    error.outcome()
                }
            };
            if outcome == Outcome::Unknown {
                self.ledger.mark("count of which nobody knows");
            }
            self.ledger.counted(outcome);
            self.pause(1, 1500).await;
        }
    }

    /// Has znodes come, change and go.
    pub(super) async fn plant(mut self) {
        let mut changes = 0_u64;
        while self.goes_on() {
            changes += 1;
            let (at, below) = (
                self.random.random_range(0..TREE_WIDTH),
                self.random.random_range(0..TREE_WIDTH),
            );
            let path = match self.random.random_bool(0.4) {
                true => format!("{TREE}/{at}"),
                false => format!("{TREE}/{at}/{below}"),
            };
            let client = &self.client;
            let changed = match self.random.random_range(0..6) {
                0 => client.delete_recursive(&path).await,
                1 => client.delete(&path).await,
                2 | 3 => client.set(&path, changes.to_string()).await.map(drop),
                _ => client.ensure_path(&path).await,
            };
            match changed {
                Ok(()) => {}
                Err(error) if error.is(Reason::NoNode) || error.is(Reason::NotEmpty) => {}
                Err(_) => self.pause(100, 1000).await,
            }
            // Often many at once.
            if self.random.random_bool(0.3) {
                self.pause(1, 2000).await;
            }
        }
    }

    /// Keeps the tree in memory until it is as it has to be in the end.
    pub(super) async fn follow(mut self, mut expected: watch::Receiver<Option<Arc<Tree>>>) {
        let mut tree = loop {
            match self.client.tree(TREE).await {
                Ok(tree) => break tree,
                Err(_) => self.nap().await,
            }
        };
        loop {
            let is_done = expected
                .borrow_and_update()
                .as_ref()
                .is_some_and(|expected| {
                    let nodes = tree.nodes().iter();
                    nodes
                        .map(|(path, node)| (path, &node.data))
                        .eq(expected.iter())
                });
            if is_done {
                return;
            }
            let change = tokio::select! {
                change = tree.next() => change,
                changed = expected.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            match change {
                Some(Ok(_)) => {}
                Some(Err(_)) => self.nap().await,
                None => {
                    let number = self.number;
                    let what = "ended, though sessions go on";
                    return self
                        .ledger
                        .violation(format!("the tree of service {number} {what}"));
                }
            }
        }
    }

    /// Before another attempt, also when all others end.
    async fn nap(&mut self) {
        let ms = self.random.random_range(50..500);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// A write that a server refuses once the lock is another's.
async fn write(transaction: Transaction, token: i64, ledger: &Ledger) {
    let written = transaction.set(FENCED, token.to_string()).await;
    match written {
        Ok(committed) => {
            if let Some(stat) = committed.set(1) {
                ledger.guarded(LOCK, token, stat.mzxid.0);
            }
        }
        Err(error) => {
            // Of the first step, which asks for the holder's znode.
            if error.is(Reason::NoNode) && error.target().index() == Some(0) {
                ledger.mark("write refused under the lock");
            }
        }
    }
}

fn number_of(token: FencingToken) -> i64 {
    i64::try_from(token.get()).unwrap_or(i64::MAX)
}

/// The tree as the servers have it.
pub(super) async fn read_tree(client: &Client) -> Result<Tree, ClientError> {
    client.sync(TREE).await?;
    let mut tree = Tree::new();
    let paths = match client.list_recursive(TREE).await {
        Err(error) if error.is(Reason::NoNode) => return Ok(tree),
        paths => paths?,
    };
    for path in paths {
        let (data, _) = client.get(&path).await?;
        tree.insert(path, data);
    }
    Ok(tree)
}
