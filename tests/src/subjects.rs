//! Plays the same test against each product.
//!
//! `QUORATE_CLIENT_SUBJECT=quorate` or `apache` leaves one out.

use crate::server::{Product, Server, Settings};
use crate::skip::{Need, available};

/// Plays a test against Quorate and against Apache ZooKeeper; one that is not installed is skipped,
/// and says so.
///
/// # Panics
/// If a server does not start.
pub fn each_product(test: &'static str, settings: &Settings, play: impl Fn(Server)) {
    let wanted = std::env::var("QUORATE_CLIENT_SUBJECT").ok();
    for (name, product) in [
        ("quorate", Product::Quorate),
        ("apache", Product::ApacheZookeeper),
    ] {
        if wanted.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let needs: &[Need] = match product {
            Product::Quorate => &[],
            Product::ApacheZookeeper => &[Need::Jars(&["zookeeper", "slf4j-simple"])],
        };
        if available(test, needs) {
            eprintln!("--- {test} against {name}");
            play(
                Server::start(product, settings).unwrap_or_else(|error| panic!("{test}: {error}")),
            );
        }
    }
}
