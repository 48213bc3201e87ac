//! Plays a script again and again, and breaks the connection of its client, and of no other, at
//! another of its requests each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_client::metrics::Metrics;
use quorate_client::{Client, OnExpiry, Outcome};
use quorate_testing::{Fault, TestServer, Which};

/// More than any script takes.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than any script.
const REQUESTS_MAX: usize = 100;

/// A test that hangs fails.
pub(crate) async fn within(test: impl Future<Output = ()>) {
    let done = tokio::time::timeout(LIMIT, test).await;
    done.expect("it goes on for too long");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server does not see the request.
    Before,
    /// The server does it, and nobody hears of that.
    After,
}

/// Cuts the connection at the request after so many have been answered.
struct CutAfter {
    answered: AtomicUsize,
    at: usize,
    cut: Cut,
    server: Arc<TestServer>,
    fault: parking_lot::Mutex<Option<Fault>>,
}

impl std::fmt::Debug for CutAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} request {}", self.cut, self.at)
    }
}

impl CutAfter {
    fn arm(&self) {
        *self.fault.lock() = Some(match self.cut {
            Cut::Before => self.server.cut_before_next(Which::Any),
            Cut::After => self.server.cut_after_commit(Which::Any),
        });
    }
}

/// For a handle that the test keeps as well.
#[derive(Clone, Debug)]
struct Hook(Arc<CutAfter>);

impl Metrics for Hook {
    fn on_request(&self, _: &'static str, _: Outcome, _: Duration) {
        if self.0.answered.fetch_add(1, Ordering::SeqCst) + 1 == self.0.at {
            self.0.arm();
        }
    }
}

/// Has a client play the script below a path of its own, once for each of its requests and each kind of
/// cut; then, with an observer whose connection nothing happens to, the check. The client is closed in
/// between, unless the script keeps a clone of it.
///
/// Some at a time, each at a server of its own: they mostly wait for a connection to come back.
pub(crate) async fn at_every_request<T>(
    play: impl AsyncFn(Client) -> T,
    check: impl AsyncFn(Client, T, String),
) {
    let lane = async |cut, first| {
        let server = Arc::new(TestServer::start().await.unwrap());
        let observer = Client::connect(&server.connect_string()).await.unwrap();
        for at in (first..).step_by(4) {
            assert!(at < REQUESTS_MAX, "the script goes on for too long");
            if !play_one(&server, &observer, (cut, at), &play, &check).await {
                assert!(at > 3, "{cut:?} request {at}: the script has no requests");
                break;
            }
        }
    };
    tokio::join!(
        lane(Cut::Before, 0),
        lane(Cut::Before, 1),
        lane(Cut::Before, 2),
        lane(Cut::Before, 3),
        lane(Cut::After, 0),
        lane(Cut::After, 1),
        lane(Cut::After, 2),
        lane(Cut::After, 3),
    );
}

/// Whether there was such a request.
async fn play_one<T>(
    server: &Arc<TestServer>,
    observer: &Client,
    (cut, at): (Cut, usize),
    play: &impl AsyncFn(Client) -> T,
    check: &impl AsyncFn(Client, T, String),
) -> bool {
    let context = format!("cut {cut:?} request {at}");
    let root = format!("/{cut:?}{at}");
    observer.create(&root, b"").await.unwrap();
    let hook = Hook(Arc::new(CutAfter {
        answered: AtomicUsize::new(0),
        at,
        cut,
        server: Arc::clone(server),
        fault: parking_lot::Mutex::default(),
    }));
    let builder = Client::builder(&server.connect_string())
        .on_expiry(OnExpiry::NewSession)
        .metrics(Arc::new(hook.clone()));
    let client = builder.connect().await.unwrap();
    let client = client.with_chroot(&root).unwrap();
    if at == 0 {
        hook.0.arm();
    }
    let played = tokio::time::timeout(LIMIT, play(client)).await;
    let played = played.unwrap_or_else(|_| panic!("{context}: it hangs"));
    let fault = hook.0.fault.lock().take();
    let has_happened = fault.as_ref().is_some_and(Fault::has_happened);
    // What was not struck by now must not be the observer's.
    if let Some(fault) = fault {
        fault.disarm();
    }
    server.heal_connections().await;
    let observer = observer.with_chroot(&root).unwrap();
    let checked = check(observer, played, context.clone());
    let checked = tokio::time::timeout(LIMIT, checked).await;
    checked.unwrap_or_else(|_| panic!("{context}: the check hangs"));
    has_happened
}
