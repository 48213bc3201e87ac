//! Unmodified clients, and raw bytes, against Apache ZooKeeper 3.8 and against Quorate.
//!
//! Every test runs one script against both servers and expects equal transcripts. Where Quorate is
//! meant to differ the line stands in [`differences::listed`], with the reason. A script must not
//! know whom it talks to; what only Quorate promises is asserted apart, in `quorate_only.rs`.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod differences;
mod programs;
mod quorate_only;
mod raw;
mod recording;
mod wire;

use std::thread;

use quorate_tests::server::{Product, Server, Settings, servers};
use quorate_tests::skip::{Need, available};
use quorate_tests::transcript::{expect_equal, expected_of_quorate};

/// What Apache ZooKeeper itself needs.
const REFERENCE: Need = Need::Jars(&["zookeeper", "slf4j-simple"]);

/// With `QUORATE_INTEROP_SUBJECT=apache` a second Apache ZooKeeper stands in for Quorate, which
/// shows whether a script is deterministic at all.
fn subject() -> Product {
    match std::env::var("QUORATE_INTEROP_SUBJECT").as_deref() {
        Ok("apache") => Product::ApacheZookeeper,
        _ => Product::Quorate,
    }
}

/// Runs `script` against both products, each freshly started, and compares what it returns.
fn compare(
    test: &'static str,
    needs: &[Need],
    settings: &Settings,
    script: impl Fn(&mut Server) -> Vec<String> + Sync,
) {
    let needs: Vec<Need> = [REFERENCE].iter().chain(needs).copied().collect();
    if !available(test, &needs) {
        return;
    }
    let subject = subject();
    let run = |product| {
        let mut server = Server::start(product, settings)
            .unwrap_or_else(|error| panic!("{test}: {product:?} does not start: {error}"));
        let lines = script(&mut server);
        server.without_peer_ports(lines)
    };
    let (reference, actual) = thread::scope(|scope| {
        let reference = scope.spawn(|| run(Product::ApacheZookeeper));
        let actual = scope.spawn(|| run(subject));
        (reference.join(), actual.join())
    });
    let reference =
        reference.unwrap_or_else(|_| panic!("{test}: the script fails against Apache ZooKeeper"));
    let actual = actual.unwrap_or_else(|_| panic!("{test}: the script fails against {subject:?}"));
    if std::env::var_os("QUORATE_INTEROP_SHOW").is_some() {
        eprintln!(
            "--- {test} against Apache ZooKeeper\n{}",
            reference.join("\n")
        );
    }
    let expected = match subject {
        Product::ApacheZookeeper => reference,
        Product::Quorate => {
            expected_of_quorate(test, &reference, &differences::listed(servers())).unwrap()
        }
    };
    expect_equal(test, &expected, &actual);
}
