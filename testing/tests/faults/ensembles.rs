//! Ensembles as a whole: their settings, and that they do not meet.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use quorate_testing::{Ensemble, Error, TestServer};

use crate::SESSION_TIMEOUT;
use crate::conversation::Conversation;

#[tokio::test]
async fn ensembles_in_parallel_know_nothing_of_each_other() {
    let starts = (0..3).map(|_| Ensemble::start(3));
    let ensembles = futures_util::future::join_all(starts).await;
    let ensembles: Vec<Ensemble> = ensembles
        .into_iter()
        .map(|ensemble| ensemble.expect("it starts"))
        .collect();
    let mut addresses = BTreeSet::new();
    for (number, ensemble) in ensembles.iter().enumerate() {
        assert_eq!(ensemble.connect_string().split(',').count(), 3);
        addresses.extend(ensemble.servers().map(|server| server.address()));
        Conversation::make(ensemble.server(2).address(), &format!("/{number}")).await;
    }
    assert_eq!(addresses.len(), 3 * ensembles.len());
    for (number, ensemble) in ensembles.iter().enumerate() {
        for other in 0..ensembles.len() {
            let address = ensemble.server(3).address();
            let has = Conversation::look(address, &format!("/{other}")).await;
            assert_eq!(has, other == number);
        }
    }
}

#[tokio::test]
async fn servers_go_on_while_the_thread_of_the_test_is_blocked() {
    let server = TestServer::start().await.expect("it starts");
    let address = server.address();
    let asks = thread::spawn(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SESSION_TIMEOUT))?;
        stream.write_all(b"ruok")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        io::Result::Ok(answer)
    });
    // The only thread of this runtime waits here for all of it.
    let answer = asks.join().expect("no panic").expect("an answer");
    assert_eq!(answer, "imok");
}

/// The least that runs a future.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        thread::park();
    }
}

#[test]
fn no_runtime_is_needed() {
    let server = block_on(TestServer::start()).expect("it starts");
    assert!(server.is_running());
    block_on(server.stop()).expect("it runs");
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    for servers in [0, 10] {
        let error = Ensemble::start(servers).await.expect_err("no such size");
        assert!(matches!(error, Error::Size { .. }), "{error}");
    }
    let error = Ensemble::builder().config("clientPort", "2181").start();
    let error = error.await.expect_err("it has its own");
    assert!(matches!(error, Error::OwnKey { .. }), "{error}");
    let error = Ensemble::builder().config("tikTime", "1").start().await;
    let error = error.expect_err("nobody knows it");
    assert_eq!(
        error.to_string(),
        "no server knows the setting tikTime: correct its name, or remove it"
    );
    let error = Ensemble::builder().config("skipACL", "maybe").start().await;
    let error = error.expect_err("neither yes nor no");
    assert!(matches!(error, Error::Config(_)), "{error}");
}

#[tokio::test]
async fn session_timeouts_are_granted_within_the_bounds_that_were_set() {
    let ensemble = Ensemble::builder()
        .tick(Duration::from_millis(50))
        .min_session_timeout(Duration::from_millis(200))
        .max_session_timeout(Duration::from_millis(400))
        .start()
        .await
        .expect("it starts");
    let address = ensemble.server(1).address();
    let mut client = Conversation::open(address, SESSION_TIMEOUT)
        .await
        .expect("a session");
    // Silent for its timeout, it expires by itself.
    client.assert_cut().await;
    let error = Conversation::resume(address, client.session).await;
    let error = error.expect_err("it has expired");
    assert_eq!(error.to_string(), "the session has expired");
}
