//! A client that behaves, beside those that do not: it must not notice them.

use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_tests::client::{Connection, create, get_children, get_data, set_data};

use crate::harness::Node;

/// Between a neighbour's question and its answer, whatever others do meanwhile. A release build on an
/// idle machine needs a tenth of a second at most (`quorate-bench strain` measures that); this is for a
/// debug build beside other tests, and still far from the minutes that a missing bound costs.
const ANSWER_MAX: Duration = Duration::from_secs(5);

const FOLDER: &str = "/neighbour";
const ZNODES: usize = 20;

/// A session with data that nobody else touches.
pub(super) struct Neighbour {
    pub(super) client: Connection,
    version: i32,
    /// The longest that one of its questions took.
    pub(super) slowest: Duration,
}

impl Neighbour {
    pub(super) fn new(node: &Node) -> Self {
        let mut client = node.connect_for(10_000);
        client.call(&create(FOLDER, b"", 0)).unwrap();
        for number in 0..ZNODES {
            let ephemeral = i32::from(number % 2 == 0);
            let made = client.call(&create(&path(number), &data(number), ephemeral));
            assert_eq!(made.unwrap().code(), 0);
        }
        Self {
            client,
            version: 0,
            slowest: Duration::ZERO,
        }
    }

    /// A ping, a write and a read, each answered in time.
    pub(super) fn goes_on(&mut self, after: &str) {
        let set = set_data(FOLDER, b"x", self.version);
        for request in [Request::Ping, set, get_data(FOLDER, false)] {
            let begun = Instant::now();
            let reply = self.client.call(&request);
            let reply = reply.unwrap_or_else(|error| panic!("after {after}: {error}"));
            assert_eq!(reply.code(), 0, "after {after}: {request:?}");
            let took = begun.elapsed();
            assert!(
                took < ANSWER_MAX,
                "after {after}: {request:?} took {took:?}"
            );
            self.slowest = self.slowest.max(took);
            if let (Request::GetData(_), Some(stat)) = (&request, reply.stat()) {
                assert_eq!(stat.version, self.version, "after {after}");
            }
            if matches!(request, Request::SetData(_)) {
                self.version += 1;
            }
        }
    }

    /// All it ever wrote is there, as it wrote it.
    pub(super) fn has_everything(&mut self) {
        let children = self.client.call(&get_children(FOLDER, false)).unwrap();
        assert_eq!(children.children().unwrap().len(), ZNODES);
        for number in 0..ZNODES {
            let read = self.client.call(&get_data(&path(number), false)).unwrap();
            assert_eq!(read.data(), Some(&data(number)[..]), "{}", path(number));
            let stat = read.stat().unwrap();
            assert_eq!((stat.version, stat.aversion), (0, 0), "{}", path(number));
        }
    }
}

fn path(number: usize) -> String {
    format!("{FOLDER}/{number}")
}

fn data(number: usize) -> Vec<u8> {
    format!("data of {number}").into_bytes()
}
