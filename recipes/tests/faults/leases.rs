//! Work ends before what guards it can be another's: when the network is cut, when the server is gone,
//! and when it is given back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex as Cell;
use quorate_client::{Client, Reason};
use quorate_recipes::{Error, FencingToken, Lease, Mutex, ReadWriteLock, StopReason};
use quorate_testing::{Ensemble, TestServer};

const SOON: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_millis(1200);
/// What a busy machine may take for what takes no time.
const SLACK: Duration = Duration::from_millis(300);

async fn soon<T>(what: &str, something: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(SOON, something.into_future())
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// What the work has done, and when.
#[derive(Debug, Default)]
struct Log {
    lease: Option<Lease>,
    told: Option<(Instant, StopReason)>,
    steps: Vec<Instant>,
}

type Logged = Arc<Cell<Log>>;

/// Work that notes each of its steps, and that it was told to stop, and goes on.
async fn stubborn(lease: Lease, log: Logged) {
    log.lock().lease = Some(lease.clone());
    loop {
        {
            let mut log = log.lock();
            let now = Instant::now();
            log.steps.push(now);
            if let (None, Some(reason)) = (&log.told, lease.stop_reason()) {
                log.told = Some((now, reason));
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn client_of(connect_string: &str, timeout: Duration) -> Client {
    let builder = Client::builder(connect_string);
    builder.session_timeout(timeout).connect().await.unwrap()
}

async fn contenders(lock: &Mutex, count: usize) {
    let wait = async {
        while lock.contenders().await.unwrap().len() != count {
            tokio::task::yield_now().await;
        }
    };
    soon("the line", wait).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_cut_off_is_told_then_dropped_and_only_then_is_another_let_in() {
    let builder = Ensemble::builder().servers(3);
    let tick = Duration::from_millis(500);
    let ensemble = builder.tick(tick).start().await.unwrap();
    ensemble.wait_for_leader().await.unwrap();
    let cut_off = client_of(&ensemble.server(1).connect_string(), TIMEOUT).await;
    let other = client_of(
        &ensemble.server(2).connect_string(),
        Duration::from_secs(20),
    )
    .await;
    let log = Logged::default();
    let (first, second) = (Mutex::new(&cut_off, "/lock"), Mutex::new(&other, "/lock"));
    let running = tokio::spawn({
        let log = Arc::clone(&log);
        async move { first.run(|lease| stubborn(lease, log)).await }
    });
    contenders(&second, 1).await;
    let waiting = tokio::spawn(second.acquire().into_future());
    contenders(&second, 2).await;
    while log.lock().steps.is_empty() {
        tokio::task::yield_now().await;
    }

    let since = Instant::now();
    ensemble.server(1).hang(true);
    let guard = soon("the next holder", waiting).await.unwrap().unwrap();
    let let_in = Instant::now();
    let lost = soon("the loss", running).await.unwrap();
    assert!(matches!(
        lost,
        Err(Error::Lost {
            reason: StopReason::SessionOver,
            ..
        })
    ));
    let lease = {
        let log = log.lock();
        let (told, reason) = log.told.clone().unwrap();
        let last = *log.steps.last().unwrap();
        assert_eq!(reason, StopReason::Unproven);
        assert!(
            told - since <= TIMEOUT / 3 * 2 + SLACK,
            "{:?}",
            told - since
        );
        assert!(
            last - since <= TIMEOUT / 12 * 11 + SLACK,
            "{:?}",
            last - since
        );
        assert!(last > told, "it got its time");
        assert!(last < let_in, "two at once");
        let limit = TIMEOUT + tick * 2 + SLACK;
        assert!(let_in - since <= limit, "{:?}", let_in - since);
        log.lease.clone().unwrap()
    };
    assert!(guard.token() > lease.token());
    let mut store = Store::default();
    assert!(store.write(guard.token(), "new"));
    ensemble.server(1).hang(false);
    // What was on its way arrives now.
    let late = lease.transaction().set("/lock", b"late").await;
    assert!(late.is_err());
    assert!(!store.write(lease.token(), "late"));
    assert_eq!(store.value, "new");
    let held = guard.transaction().check("/lock").await;
    held.unwrap();
}

/// As any store that refuses old tokens.
#[derive(Debug, Default)]
struct Store {
    newest: u64,
    value: &'static str,
}

impl Store {
    fn write(&mut self, token: FencingToken, value: &'static str) -> bool {
        if token.get() < self.newest {
            return false;
        }
        (self.newest, self.value) = (token.get(), value);
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_ends_when_the_server_is_gone_and_goes_on_when_it_is_back_in_time() {
    let server = TestServer::start().await.unwrap();
    let client = client_of(&server.connect_string(), TIMEOUT).await;
    let log = Logged::default();
    let lock = Mutex::new(&client, "/lock");
    let running = tokio::spawn({
        let (log, lock) = (Arc::clone(&log), lock.clone());
        async move { lock.run(|lease| stubborn(lease, log)).await }
    });
    while log.lock().steps.is_empty() {
        tokio::task::yield_now().await;
    }
    // Back at once: nobody is told anything.
    server.kill().await.unwrap();
    server.start().await.unwrap();
    contenders(&lock, 1).await;
    let lease = log.lock().lease.clone().unwrap();
    assert_eq!(lease.stop_reason(), None);
    // A proof that came after the start.
    let deadline = lease.deadline();
    let proven = async {
        while lease.deadline() <= deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a proof", proven).await;

    let since = Instant::now();
    server.stop().await.unwrap();
    let lost = soon("the loss", running).await.unwrap();
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
    let (told, last) = {
        let log = log.lock();
        (log.told.clone().unwrap().0, *log.steps.last().unwrap())
    };
    assert!(told < last);
    assert!(
        last - since <= TIMEOUT / 12 * 11 + SLACK,
        "{:?}",
        last - since
    );
    server.start().await.unwrap();
    let other = client_of(&server.connect_string(), TIMEOUT).await;
    let next = soon("the next", Mutex::new(&other, "/lock").acquire()).await;
    assert!(next.unwrap().token() > lease.token());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spawned_has_ended_before_the_znode_is_deleted() {
    let server = TestServer::start().await.unwrap();
    let client = client_of(&server.connect_string(), SOON).await;
    let observer = client_of(&server.connect_string(), SOON).await;
    let lock = Mutex::new(&client, "/lock");
    let guard = lock.acquire().await.unwrap();
    let lease = guard.lease().clone();
    let part = lease.spawn({
        let lease = lease.clone();
        async move {
            let reason = lease.stopping().await;
            // Many steps of its own, and the last one still finds the lock held.
            for _ in 0..20 {
                observer.sync("/").await.unwrap();
            }
            let stat = observer.exists(lease.node()).await.unwrap();
            (reason, stat.is_some())
        }
    });
    guard.release().await.unwrap();
    let (reason, was_there) = part.await.unwrap().unwrap();
    assert_eq!(reason, StopReason::Released);
    assert!(was_there, "the znode went before the work");
    assert!(client.exists(lease.node()).await.unwrap().is_none());
    // What is spawned afterwards does nothing.
    let late = lease.spawn(async { unreachable!("it is given back") });
    let late: Option<()> = late.await.unwrap();
    assert_eq!(late, None);
    let late = lease.transaction().set("/lock", b"late").await;
    assert!(late.unwrap_err().is(Reason::NoNode));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_is_told_while_no_server_can_be_reached() {
    let server = TestServer::start().await.unwrap();
    let client = client_of(&server.connect_string(), TIMEOUT).await;
    let lock = Mutex::new(&client, "/lock");
    let guard = lock.acquire().await.unwrap();
    let lease = guard.lease().clone();
    server.refuse_connections(true).await;
    server.cut_connections();
    let done = tokio::time::timeout(TIMEOUT * 3, guard.run(async |_| 7)).await;
    assert!(matches!(done, Ok(Ok(7))), "{done:?}");
    assert!(!lease.is_held());
    server.refuse_connections(false).await;
    let other = client_of(&server.connect_string(), TIMEOUT).await;
    contenders(&Mutex::new(&other, "/lock"), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_work_begins_with_a_guard_that_is_lost() {
    let server = TestServer::start().await.unwrap();
    let client = client_of(&server.connect_string(), TIMEOUT).await;
    let guard = Mutex::new(&client, "/lock").acquire().await.unwrap();
    client.delete(guard.lease().node()).await.unwrap();
    soon("the loss", guard.lost()).await;
    let mut has_begun = false;
    let lost = guard.run(|_| {
        has_begun = true;
        std::future::ready(())
    });
    assert!(matches!(lost.await, Err(Error::Lost { .. })));
    assert!(!has_begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_between_two_sessions_is_called_by_the_next() {
    let server = TestServer::start().await.unwrap();
    let builder = Client::builder(&server.connect_string());
    let builder = builder.on_expiry(quorate_client::OnExpiry::NewSession);
    let client = builder.connect().await.unwrap();
    let first = client.session().unwrap();
    let lock = Mutex::new(&client, "/lock");
    let mut states = client.states();
    server.expire(first.get()).await.unwrap();
    while states.next().await.unwrap() != quorate_client::SessionState::Expired {}
    let guard = soon("the lock", lock.acquire()).await.unwrap();
    let session = client.session().unwrap();
    assert_ne!(session, first);
    assert_eq!(guard.lease().identity(), session.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_who_counts_does_not_keep_what_was_held() {
    #[derive(Debug)]
    struct Faulty;
    impl quorate_recipes::Metrics for Faulty {
        fn on_ended(&self, _: &str, _: &StopReason, _: Duration) {
            panic!("a fault in a metric");
        }
    }
    let server = TestServer::start().await.unwrap();
    let client = client_of(&server.connect_string(), TIMEOUT).await;
    let lock = Mutex::new(&client, "/lock");
    let counted = lock.clone().metrics(Arc::new(Faulty));
    let guard = counted.acquire().await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(lock.contenders().await.unwrap(), []);
}

/// Counts requests by what they ask for.
#[derive(Debug, Default)]
struct Requests(Cell<BTreeMap<&'static str, usize>>);

impl quorate_client::metrics::Metrics for Requests {
    fn on_request(&self, operation: &'static str, _: quorate_client::Outcome, _: Duration) {
        *self.0.lock().entry(operation).or_default() += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_for_that_is_not_needed() {
    let server = TestServer::start().await.unwrap();
    let requests = Arc::new(Requests::default());
    let builder = Client::builder(&server.connect_string());
    let client = builder.metrics(requests.clone()).connect().await.unwrap();
    let lock = ReadWriteLock::new(&client, "/lock");
    // The first makes sure of the directory, and reads it twice for that.
    for gets in [4, 2] {
        requests.0.lock().clear();
        let guard = lock.read().await.unwrap();
        // The last is the first look at its own znode.
        while requests.0.lock().get("get") < Some(&gets) {
            tokio::task::yield_now().await;
        }
        guard.release().await.unwrap();
        // Heartbeats come at any time.
        requests.0.lock().remove("sync");
    }
    let expected = [
        ("children", 1),
        ("create", 1),
        ("delete", 1),
        ("get", 2),
        ("set", 1),
    ];
    assert_eq!(*requests.0.lock(), BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_is_called_by_its_name_while_something_is_asked_of_it() {
    let server = TestServer::start().await.unwrap();
    let client = client_of(&server.connect_string(), TIMEOUT).await;
    let lock = Mutex::new(&client, "/lock").identity("a");
    let guard = lock.acquire().await.unwrap();
    assert!(lock.revoke("maintenance").await.unwrap());
    assert_eq!(lock.contenders().await.unwrap()[0].identity, "a");
    let refused = lock.acquire().try_now().await.unwrap_err();
    assert!(matches!(refused, Error::WouldBlock { holder, .. } if holder == "a"));
    guard.release().await.unwrap();
}
