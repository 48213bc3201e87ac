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

use std::sync::Arc;
use std::time::Duration;

use quorate_client::{Client, ClientBuilder};
use quorate_tests::server::{Server, Settings};
use quorate_tests::subjects::{each_product, each_product_shared};

/// Far more than any of them takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A server, and how to get a client of it.
struct Scene {
    server: Arc<Server>,
    /// What the clients' paths are below.
    root: String,
}

impl Scene {
    fn connect_string(&self) -> String {
        format!("{}{}", self.server.address(), self.root)
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder(&self.connect_string()).create_chroot(true)
    }

    async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }
}

/// Plays a script against each product, on a server that others use as well, in a part of the tree of
/// its own.
fn against_both<F: Future<Output = ()>>(test: &'static str, script: impl Fn(Scene) -> F) {
    each_product_shared(test, |server| {
        let name = test.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        let root = format!("/{name}");
        play(&script, Scene { server, root });
    });
}

/// Plays a script against each product, on a server that nobody else uses.
fn against_both_alone<F: Future<Output = ()>>(test: &'static str, script: impl Fn(Scene) -> F) {
    each_product(test, &Settings::default(), |server| {
        let server = Arc::new(server);
        let root = String::new();
        play(&script, Scene { server, root });
    });
}

fn play<F: Future<Output = ()>>(script: &impl Fn(Scene) -> F, scene: Scene) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let played = tokio::time::timeout(LIMIT, script(scene)).await;
        played.expect("it goes on for too long");
    });
}
