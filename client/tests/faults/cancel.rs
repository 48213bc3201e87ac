//! Callers that go: the future of every operation is dropped at each of its awaits, while the answer
//! is on its way and when it is there. Nothing may be left of it: no place in the line, no watch on
//! the server, no session, no znode that was to go.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use quorate_client::{Client, Limits, SessionState};
use quorate_testing::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);
/// Sessions that nobody could end are over soon.
const TIMEOUT: Duration = Duration::from_secs(1);
/// More awaits than any operation has.
const AWAITS_MAX: usize = 100;

type Operation = Pin<Box<dyn Future<Output = ()> + Send>>;
type Named = (&'static str, fn(Client) -> Operation);

/// When the future is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// As soon as it waits.
    Waiting,
    /// When what it waits for is there, and before it sees that.
    Woken,
}

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Polls a future so many times, each time when it has been woken, and drops it. Whether it was done.
async fn poll_times(mut operation: Operation, times: usize, when: When) -> bool {
    poll_on(&mut operation, times, when).await
}

async fn poll_on(operation: &mut Operation, times: usize, when: When) -> bool {
    let woken = Arc::new(Woken(Notify::new()));
    let waker = Waker::from(Arc::clone(&woken));
    for number in 1..=times {
        let poll = std::future::poll_fn(|_| {
            // Inside of the runtime, but with a waker of its own.
            Poll::Ready(operation.as_mut().poll(&mut Context::from_waker(&waker)))
        });
        if poll.await.is_ready() {
            return true;
        }
        if number < times || when == When::Woken {
            within(woken.0.notified()).await;
        }
    }
    false
}

async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    let done = timeout(LIMIT, future.into_future()).await;
    done.expect("the client hangs")
}

/// What a server says to a word of four letters.
async fn ask(server: &TestServer, word: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(word.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A number of `mntr`.
async fn count(server: &TestServer, key: &str) -> usize {
    let answer = ask(server, "mntr").await;
    let line = answer.lines().find_map(|line| line.strip_prefix(key));
    let line = line.unwrap_or_else(|| panic!("no {key} in {answer}"));
    line.trim().parse().unwrap()
}

async fn until(server: &TestServer, key: &str, expected: usize, context: &str) {
    let reached = async {
        while count(server, key).await != expected {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(LIMIT, reached).await.is_err() {
        panic!("{context}: {key} is {}", count(server, key).await);
    }
}

fn builder(server: &TestServer, limits: Limits) -> quorate_client::ClientBuilder {
    Client::builder(&server.connect_string())
        .session_timeout(TIMEOUT)
        .limits(limits)
}

/// The one connection on which `mntr` is asked.
const THE_ASKING: usize = 1;

const ONE: Limits = Limits {
    requests: 1,
    bytes: 1 << 20,
};

/// Every operation, on the znode `/op/node` that exists and has a child.
fn operations() -> Vec<Named> {
    vec![
        ("get", |c| {
            Box::pin(async move { drop(c.get("/op/node").await) })
        }),
        ("exists", |c| {
            Box::pin(async move { drop(c.exists("/op/none").await) })
        }),
        ("set", |c| {
            Box::pin(async move { drop(c.set("/op/node", b"x").await) })
        }),
        ("create", |c| {
            Box::pin(async move { drop(c.create("/op/new", b"x").await) })
        }),
        ("create retried", |c| {
            Box::pin(async move {
                let create = c.create("/op/new", b"x").idempotent();
                drop(
                    create
                        .retry(quorate_client::operation::Retry::default())
                        .await,
                );
            })
        }),
        ("create protected", |c| {
            Box::pin(async move {
                let create = c.create("/op/lock-", b"x").ephemeral().sequential();
                drop(create.protected().await);
            })
        }),
        ("delete", |c| {
            Box::pin(async move { drop(c.delete("/op/node/child").await) })
        }),
        ("delete guaranteed", |c| {
            Box::pin(async move { drop(c.delete("/op/node/child").guaranteed().await) })
        }),
        ("transaction", |c| {
            Box::pin(async move {
                let transaction = c.transaction().check("/op/node").create("/op/new", b"");
                drop(transaction.await);
            })
        }),
        ("read many", |c| {
            Box::pin(async move { drop(c.read_many().get("/op/node").await) })
        }),
        ("authenticate", |c| {
            Box::pin(async move { drop(c.authenticate("digest", b"a:b").await) })
        }),
        ("watch", |c| {
            Box::pin(async move { drop(c.watch("/op/node").await) })
        }),
        ("watch recursive", |c| {
            Box::pin(async move { drop(c.watch("/op/node").recursive().await) })
        }),
        ("watch and next", |c| {
            Box::pin(async move {
                let mut stream = c.watch("/op/node").await.unwrap();
                let set = c.set("/op/node", b"y").send();
                drop(stream.next().await);
                drop(set.await);
            })
        }),
        ("watched get", |c| {
            Box::pin(async move { drop(c.get("/op/node").watch().await) })
        }),
        ("watched children", |c| {
            Box::pin(async move { drop(c.children("/op/node").watch().await) })
        }),
        ("watched exists, absent", |c| {
            Box::pin(async move { drop(c.exists("/op/none").watch().await) })
        }),
        ("watched get, and the event", |c| {
            Box::pin(async move {
                let (_, watcher) = c.get("/op/node").watch().await.unwrap();
                let set = c.set("/op/node", b"y").send();
                drop(watcher.await);
                drop(set.await);
            })
        }),
        ("two watched reads", |c| {
            Box::pin(async move {
                let first = c.get("/op/node").watch().send();
                let second = c.children("/op/node").watch().send();
                drop(first.await);
                drop(second.await);
            })
        }),
        ("tree", |c| {
            Box::pin(async move { drop(c.tree("/op").await) })
        }),
        ("tree and next", |c| {
            Box::pin(async move {
                let mut tree = c.tree("/op").await.unwrap();
                let set = c.set("/op/node", b"y").send();
                drop(tree.next().await);
                drop(set.await);
            })
        }),
        ("ensure path", |c| {
            Box::pin(async move { drop(c.ensure_path("/op/a/b/c").await) })
        }),
        ("list recursive", |c| {
            Box::pin(async move { drop(c.list_recursive("/op").await) })
        }),
        ("delete recursive", |c| {
            Box::pin(async move { drop(c.delete_recursive("/op/node").await) })
        }),
        ("sync", |c| Box::pin(async move { drop(c.sync("/").await) })),
    ]
}

async fn prepare(client: &Client) {
    within(client.delete_recursive("/op")).await.unwrap();
    within(client.ensure_path("/op/node/child")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_is_dropped_at_any_await_leaves_nothing_behind() {
    let server = TestServer::start().await.unwrap();
    let mut dropped = 0;
    for limits in [Limits::default(), ONE] {
        let client = builder(&server, limits).connect().await.unwrap();
        for (name, operation) in operations() {
            for when in [When::Waiting, When::Woken] {
                let mut is_done = false;
                for times in 0..AWAITS_MAX {
                    prepare(&client).await;
                    is_done = poll_times(operation(client.clone()), times, when).await;
                    let context = format!("{name}, {when:?} after {times}, {limits:?}");
                    check(&server, &client, &context).await;
                    if is_done {
                        break;
                    }
                    dropped += 1;
                }
                assert!(is_done, "{name} has more awaits");
            }
        }
        // What was protected and not awaited stays, and goes with the session.
        prepare(&client).await;
        within(client.close()).await;
        until(&server, "zk_num_alive_connections", THE_ASKING, "closed").await;
    }
    assert!(dropped >= operations().len() * 4, "{dropped}");
}

/// The client works, and the server watches nothing for it.
async fn check(server: &TestServer, client: &Client, context: &str) {
    // The first comes after the answer to what was dropped, the second after what that made
    // necessary.
    for _ in 0..2 {
        let alive = timeout(LIMIT, client.sync("/").into_future()).await;
        alive
            .unwrap_or_else(|_| panic!("{context}: stuck"))
            .unwrap();
    }
    until(server, "zk_watch_count", 0, context).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_it_when_the_connection_is_lost_as_well() {
    let server = TestServer::start().await.unwrap();
    let client = builder(&server, ONE).connect().await.unwrap();
    for (name, operation) in operations() {
        for times in 0..AWAITS_MAX {
            prepare(&client).await;
            let mut dropped = operation(client.clone());
            let mut is_done = poll_on(&mut dropped, times, When::Woken).await;
            if !is_done {
                // What it asks now is on its way when the connection is lost.
                server.hang(true);
                is_done = poll_on(&mut dropped, 1, When::Waiting).await;
            }
            drop(dropped);
            server.cut_connections();
            server.hang(false);
            check(&server, &client, &format!("{name}, after {times}")).await;
            if is_done {
                break;
            }
        }
    }
    prepare(&client).await;
    within(client.close()).await;
    until(&server, "zk_num_alive_connections", THE_ASKING, "closed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_is_dropped_at_any_await_is_undone_where_that_was_asked_for() {
    let server = TestServer::start().await.unwrap();
    for limits in [Limits::default(), ONE] {
        let client = builder(&server, limits).connect().await.unwrap();
        within(client.ensure_path("/locks")).await.unwrap();
        for when in [When::Waiting, When::Woken] {
            for times in 0..AWAITS_MAX {
                let create = client.create("/locks/lock-", b"").sequential();
                let operation = Box::pin(async move {
                    let created = create.delete_if_dropped().await;
                    assert!(created.is_ok());
                });
                let is_done = poll_times(operation, times, when).await;
                if is_done {
                    assert!(times > 0);
                    within(client.delete_recursive("/locks")).await.unwrap();
                    within(client.ensure_path("/locks")).await.unwrap();
                    break;
                }
                let gone = async {
                    // It may come after the first look: it is done once it was seen to be asked.
                    within(client.sync("/locks")).await.unwrap();
                    let mut watch = client.watch("/locks").recursive().await.unwrap();
                    while !client.children("/locks").await.unwrap().0.is_empty() {
                        watch.next().await.unwrap();
                    }
                };
                let gone = timeout(LIMIT, gone).await;
                assert!(gone.is_ok(), "{when:?} after {times}, {limits:?}");
            }
        }
        within(client.close()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_beginning_or_end_is_not_waited_for_ends_all_the_same() {
    let server = TestServer::start().await.unwrap();
    let kinds: [Named; 2] = [
        ("close", |client| Box::pin(client.close())),
        ("detach", |client| {
            Box::pin(async move { client.detach().await.map_or((), |_| ()) })
        }),
    ];
    for when in [When::Waiting, When::Woken] {
        for times in 0..AWAITS_MAX {
            let builder = builder(&server, ONE).authenticate("digest", b"a:b");
            let connect = Box::pin(async move { drop(builder.connect().await) });
            let is_done = poll_times(connect, times, when).await;
            let context = format!("connect, {when:?} after {times}");
            until(&server, "zk_num_alive_connections", THE_ASKING, &context).await;
            if is_done {
                break;
            }
        }
        for (name, end) in kinds {
            for times in 0..AWAITS_MAX {
                let client = builder(&server, ONE).connect().await.unwrap();
                let mut states = client.states();
                within(client.create("/mine", b"").ephemeral())
                    .await
                    .unwrap();
                let is_done = poll_times(end(client), times, when).await;
                let context = format!("{name}, {when:?} after {times}");
                while within(states.next()).await.is_some() {}
                assert_eq!(states.current(), SessionState::Closed, "{context}");
                until(&server, "zk_num_alive_connections", THE_ASKING, &context).await;
                // At the latest when a detached session has timed out.
                until(&server, "zk_ephemerals_count", 0, &context).await;
                if is_done {
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_limit_are_done_in_order() {
    const CALLS: usize = 5000;
    let server = TestServer::start().await.unwrap();
    let limits = Limits {
        requests: 4,
        ..Limits::default()
    };
    let client = builder(&server, limits).connect().await.unwrap();
    within(client.create("/counter", b"")).await.unwrap();
    let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = Vec::new();
    for number in 0..CALLS {
        let set = client.set("/counter", number.to_string()).send();
        let done = done.clone();
        waiting.push(tokio::spawn(async move {
            let stat = set.await.unwrap();
            done.send((number, stat.version)).unwrap();
        }));
    }
    drop(done);
    let mut versions = vec![0; CALLS];
    while let Some((number, version)) = within(order.recv()).await {
        versions[number] = version;
    }
    let expected: Vec<i32> = (1..).take(CALLS).collect();
    assert_eq!(versions, expected);
    within(client.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_nobody_polls_hold_nobody_up_and_those_dropped_give_their_place_away() {
    const CALLS: usize = 5000;
    let server = TestServer::start().await.unwrap();
    let limits = Limits {
        requests: 4,
        bytes: 3 << 20,
    };
    let client = builder(&server, limits).connect().await.unwrap();
    within(client.create("/counter", b"")).await.unwrap();
    let unpolled: Vec<_> = (0..CALLS)
        .map(|_| client.set("/counter", b"x").send())
        .collect();
    let stat = within(client.exists("/counter")).await.unwrap().unwrap();
    assert_eq!(
        usize::try_from(stat.version).unwrap(),
        CALLS,
        "all are done"
    );
    for set in unpolled {
        within(set).await.unwrap();
    }

    // Nothing goes through: all but the first are parked, and then dropped.
    server.hang(true);
    let first: Vec<_> = (0..4).map(|_| client.exists("/counter").send()).collect();
    for _ in 0..CALLS {
        drop(client.set("/counter", b"dropped").send());
    }
    let last = client.set("/counter", b"last").send();
    server.hang(false);
    for exists in first {
        within(exists).await.unwrap();
    }
    let stat = within(last).await.unwrap();
    assert_eq!(usize::try_from(stat.version).unwrap(), CALLS + 1);

    // Values of which the limit has room for three.
    let large = vec![b'x'; 900 << 10];
    let sets: Vec<_> = (0..20)
        .map(|_| client.set("/counter", &large).send())
        .collect();
    for (number, set) in sets.into_iter().enumerate() {
        let stat = within(set).await.unwrap();
        assert_eq!(usize::try_from(stat.version).unwrap(), CALLS + 2 + number);
    }
    within(client.close()).await;
}

#[cfg(feature = "blocking")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocking_client_ends_its_session_wherever_it_is_dropped() {
    let server = TestServer::start().await.unwrap();
    for place in ["a thread", "a blocking task", "asynchronous code"] {
        // It does not end by its timeout while this waits.
        let builder = builder(&server, ONE).session_timeout(LIMIT * 2);
        let made = move || {
            let client = quorate_client::blocking::Client::build(builder).unwrap();
            let create = client.wait(|client| client.create("/mine", b"").ephemeral());
            create.unwrap();
            client
        };
        match place {
            "a thread" => {
                let thread = std::thread::spawn(move || drop(made()));
                tokio::task::spawn_blocking(|| thread.join().unwrap())
                    .await
                    .unwrap();
            }
            "a blocking task" => {
                let dropped = tokio::task::spawn_blocking(move || drop(made()));
                dropped.await.unwrap();
            }
            _ => drop(tokio::task::spawn_blocking(made).await.unwrap()),
        }
        until(&server, "zk_ephemerals_count", 0, place).await;
        until(&server, "zk_num_alive_connections", THE_ASKING, place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_that_have_one_session_do_not_chase_each_other_without_end() {
    let server = TestServer::start().await.unwrap();
    let first = builder(&server, ONE).connect().await.unwrap();
    within(first.create("/mine", b"").ephemeral())
        .await
        .unwrap();
    let mut states = first.states();
    let counting = tokio::spawn(async move {
        let mut moves = 0;
        while states.next().await.is_some() {
            moves += 1;
        }
        moves
    });
    let second = builder(&server, ONE).ticket(first.ticket().unwrap());
    let second = second.connect().await.unwrap();
    assert_eq!(first.session(), second.session());
    sleep(Duration::from_secs(2)).await;
    for client in [&first, &second] {
        // Between the moves it does what it is asked.
        let exists = client.exists("/mine").wait_for_reconnect(LIMIT);
        assert!(within(exists).await.unwrap().is_some());
    }
    within(first.close()).await;
    let mut states = second.states();
    while !second.state().is_over() {
        within(states.next()).await;
    }
    assert_eq!(second.state(), SessionState::Expired);
    // Two for each loss, and pauses of 80 ms and more.
    let moves = within(counting).await.unwrap();
    assert!((2..100).contains(&moves), "{moves}");
}
