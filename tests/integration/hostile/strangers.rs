//! Who never becomes a client: half a handshake, another protocol, one byte at a time.

use std::time::{Duration, Instant};

use quorate_tests::client::{Connection, connect_frame, create, exists, hello, request_frame};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::neighbour::Neighbour;
use super::spoil::frame;
use crate::harness::{Node, say};

/// The end of a connection has to come within this, on a busy machine.
const ANSWER: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

#[test]
fn strangers_who_do_not_begin_with_a_connect_request_are_closed() {
    let node = Node::new()
        .with("nio.sessionlessCnxnTimeout", "500")
        .started();
    let mut neighbour = Neighbour::new(&node);
    let mut random = vec![0; 300];
    StdRng::seed_from_u64(1).fill(&mut random[..]);
    random[0] = 0x7f;
    let connect = connect_frame(&hello(5_000)).to_vec();
    let request_first = request_frame(1, &create("/stranger", b"", 0)).to_vec();
    for (name, bytes) in [
        ("nothing", Vec::new()),
        ("one byte", vec![0]),
        ("half a length", vec![0, 0]),
        ("half a connect request", connect[..20].to_vec()),
        ("all but one byte", connect[..connect.len() - 2].to_vec()),
        ("a promise of 1 MB", 1_000_000_i32.to_be_bytes().to_vec()),
        ("random bytes", random),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("half a word", b"ru".to_vec()),
        ("an empty connect request", frame(b"").to_vec()),
        ("a short connect request", frame(&[0; 20]).to_vec()),
        ("a request", request_first),
    ] {
        let mut client = Connection::dial(node.address()).unwrap();
        client.set_silence(ANSWER).unwrap();
        let begun = Instant::now();
        client.send_raw(&bytes).unwrap();
        assert_eq!(client.next_frame().unwrap(), None, "{name}");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{name}: {:?}",
            begun.elapsed()
        );
        neighbour.goes_on(name);
    }
    let reply = neighbour.client.call(&exists("/stranger", false)).unwrap();
    assert_eq!(reply.code(), -101);
}

/// Fault F29: what has come so far buys no more time.
#[test]
fn handshakes_of_one_byte_at_a_time_end_when_their_time_is_over() {
    const STRANGERS: usize = 200;
    const TIME: Duration = Duration::from_millis(500);
    let node = Node::new()
        .with("nio.sessionlessCnxnTimeout", "500")
        .started();
    let mut neighbour = Neighbour::new(&node);
    let begun = Instant::now();
    let mut strangers: Vec<Connection> = (0..STRANGERS)
        .map(|_| Connection::dial(node.address()).unwrap())
        .collect();
    let last = Instant::now();
    let hello = connect_frame(&hello(5_000));
    for byte in &hello[..hello.len() - 1] {
        for stranger in &mut strangers {
            // It may have ended already.
            let _ = stranger.send_raw(&[*byte]);
        }
        neighbour.goes_on("one byte more");
        if last.elapsed() > 2 * TIME {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for stranger in &mut strangers {
        stranger.set_silence(ANSWER).unwrap();
        assert_eq!(stranger.next_frame().unwrap(), None);
    }
    let took = begun.elapsed();
    assert!(took < 10 * TIME, "{took:?}");
    neighbour.has_everything();
}

/// A stranger may not have the server keep what only clients need: no first frame is long.
#[test]
fn strangers_who_send_a_long_first_frame_are_closed_before_it_is_kept() {
    const STRANGERS: usize = 100;
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let before = node.resident_bytes();
    let mut first = 1_000_000_i32.to_be_bytes().to_vec();
    first.resize(900_000, 0);
    let mut strangers: Vec<Connection> = (0..STRANGERS)
        .map(|_| {
            let mut stranger = Connection::dial(node.address()).unwrap();
            // The server may close before it has read everything.
            let _ = stranger.send_raw(&first);
            stranger
        })
        .collect();
    neighbour.goes_on("long first frames");
    let grown = node.resident_bytes().saturating_sub(before);
    say(&format!(
        "100 strangers with 900 KB each: {} MiB more",
        grown / MIB
    ));
    for stranger in &mut strangers {
        stranger.set_silence(ANSWER).unwrap();
        assert_eq!(stranger.next_frame().unwrap(), None);
    }
    assert!(grown < 16 * MIB, "{} MiB more", grown / MIB);
}
