//! One script, played once for each of its requests and each way of losing that one.

use std::task::Poll;
use std::time::Duration;

use quorate_client::Client;
use quorate_testing::{TestServer, Which};

/// More than one playing takes, with a connection that is lost once.
const LIMIT: Duration = Duration::from_secs(20);
/// More requests than any script makes.
const REQUESTS_MAX: usize = 200;

/// How the connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The request is never seen.
    Before,
    /// Its answer is lost.
    After,
}

/// One playing: the request that is struck is counted from 0.
pub(crate) struct Playing<'a> {
    pub(crate) server: &'a TestServer,
    pub(crate) cut: Cut,
    pub(crate) request: usize,
}

impl std::fmt::Debug for Playing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} request {}", self.cut, self.request)
    }
}

impl Playing<'_> {
    /// A path of its own.
    pub(crate) fn path(&self) -> String {
        format!("/{:?}-{}", self.cut, self.request)
    }

    pub(crate) async fn client(&self) -> Client {
        let builder = Client::builder(&self.server.connect_string());
        builder.connect().await.unwrap()
    }
}

/// Plays the script until it has no request left that was not struck before it came and after its
/// answer was ready. Answers how many there are.
///
/// Some playings at a time, each at a server of its own: they mostly wait for a connection to come back.
pub(crate) async fn at_every_request(script: impl for<'a> AsyncFn(&'a Playing<'a>)) -> usize {
    let lane = async |cut, first| {
        let server = TestServer::start().await.unwrap();
        play_some(&server, &script, cut, first, 4).await
    };
    let lanes = tokio::join!(
        lane(Cut::Before, 0),
        lane(Cut::Before, 1),
        lane(Cut::Before, 2),
        lane(Cut::Before, 3),
        lane(Cut::After, 0),
        lane(Cut::After, 1),
        lane(Cut::After, 2),
        lane(Cut::After, 3),
    );
    // Each ends at the first of its own that never came.
    [lanes.4, lanes.5, lanes.6, lanes.7]
        .into_iter()
        .min()
        .unwrap()
}

/// Strikes one in so many of the requests, from this one on; answers the first that never came.
async fn play_some(
    server: &TestServer,
    script: &impl for<'a> AsyncFn(&'a Playing<'a>),
    cut: Cut,
    first: usize,
    step: usize,
) -> usize {
    for request in (first..REQUESTS_MAX).step_by(step) {
        let passed: Vec<_> = (0..request).map(|_| server.pass_next(Which::Any)).collect();
        let fault = match cut {
            Cut::Before => server.cut_before_next(Which::Any),
            Cut::After => server.cut_after_commit(Which::Any),
        };
        let playing = Playing {
            server,
            cut,
            request,
        };
        let played = tokio::time::timeout(LIMIT, script(&playing)).await;
        assert!(played.is_ok(), "it hangs: {cut:?} request {request}");
        drop(passed);
        let has_happened = fault.has_happened();
        server.heal_connections().await;
        if !has_happened {
            assert!(request > first, "nothing was struck");
            return request;
        }
    }
    panic!("it makes ever more requests");
}

/// Polls a future so often, whenever it asks for it, and drops it; `None` if it has not resolved.
pub(crate) async fn polled<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(context).map(Some);
        if left == 0 && polled.is_pending() {
            return Poll::Ready(None);
        }
        polled
    })
    .await
}
