//! The recipes against Apache ZooKeeper 3.8 and against Quorate: every test runs against both.
//!
//! With `QUORATE_INTEROP_SERVERS=3` against three servers each, with `QUORATE_INTEROP_KILLS=5` while
//! one of Quorate's others is killed every five seconds. `QUORATE_CLIENT_SUBJECT=quorate` or `apache`
//! leaves one out.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod barriers;
mod beside;
mod elections;
mod group;
mod languages;
mod locks;
mod multi_locks;
mod numbers;
mod partitioner;
mod persistent_node;
mod processes;
mod queues;
mod read_write_locks;
mod registry;
mod ring;
mod semaphores;
mod two_phase_commit;

use std::time::Duration;

use quorate_client::{Client, ClientBuilder};
use quorate_tests::server::{Server, Settings};
use quorate_tests::subjects::each_product;

/// Far more than any of them takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A server, and how to get a client of it.
struct Scene {
    server: Server,
}

impl Scene {
    fn connect_string(&self) -> String {
        self.server.address().to_string()
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder(&self.connect_string())
    }

    async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }
}

/// Plays a script against each product.
fn against_both<F: Future<Output = ()>>(test: &'static str, script: impl Fn(Scene) -> F) {
    each_product(test, &Settings::default(), |server| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let played = tokio::time::timeout(LIMIT, script(Scene { server }));
            played.await.expect("it goes on for too long");
        });
    });
}
