//! Plays the same test against each product.
//!
//! `QUORATE_CLIENT_SUBJECT=quorate` or `apache` leaves one out.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::server::{Product, Server, Settings};
use crate::skip::{Need, available};

/// Plays a test against Quorate and against Apache ZooKeeper, each with a server of its own; one that
/// is not installed is skipped, and says so.
///
/// # Panics
/// If a server does not start.
pub fn each_product(test: &'static str, settings: &Settings, play: impl Fn(Server)) {
    each(test, |product| {
        let server = Server::start(product, settings);
        play(server.unwrap_or_else(|error| panic!("{test}: {error}")));
    });
}

/// As [`each_product`], with servers that the tests of this process share: each keeps to a part of the
/// tree. To start a JVM takes longer than most tests.
///
/// # Panics
/// If a server does not start.
pub fn each_product_shared(test: &'static str, play: impl Fn(Arc<Server>)) {
    static QUORATE: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    static APACHE: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    each(test, |product| {
        let shared = match product {
            Product::Quorate => &QUORATE,
            Product::ApacheZookeeper => &APACHE,
        };
        let server = {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            // The last test to use it ends it.
            shared.upgrade().unwrap_or_else(|| {
                let server = Server::start(product, &Settings::default());
                let server = Arc::new(server.unwrap_or_else(|error| panic!("{test}: {error}")));
                *shared = Arc::downgrade(&server);
                server
            })
        };
        play(server);
    });
}

fn each(test: &'static str, play: impl Fn(Product)) {
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
            play(product);
        }
    }
}
