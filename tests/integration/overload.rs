//! More than there is room for: bounds hold, and those within them are served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_tests::client::{Connection, Message, add_watch, create, exists, get_data, set_data};

use crate::harness::{Node, PATIENCE, Wrapper, say};

const MIB: u64 = 1 << 20;

fn serves(client: &mut Connection, when: &str) {
    let begun = Instant::now();
    for request in [Request::Ping, exists("/", false), set_data("/", b"", -1)] {
        let reply = client
            .call(&request)
            .unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(reply.code(), 0, "{when}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{when}: {:?}",
        begun.elapsed()
    );
}

/// Waits until a connection that is not read from has been ended by the server. Writing shows it.
fn wait_until_ended(client: &mut Connection, node: &Node) {
    let deadline = Instant::now() + PATIENCE;
    let ping = quorate_tests::client::request_frame(-2, &Request::Ping);
    while client.send_raw(&ping).is_ok() {
        assert!(
            Instant::now() < deadline,
            "still connected:\n{}",
            node.log_tail()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reading stops before the bound: such a client is slowed down, and answered once it reads.
#[test]
fn a_client_that_asks_for_much_and_does_not_read_costs_little_and_is_answered_later() {
    let node = Node::new()
        .with("quorate.outboxBytesMax", "8388608")
        .started();
    let mut neighbour = node.connect();
    neighbour
        .call(&create("/big", &vec![7; 1_000_000], 0))
        .unwrap();
    let before = node.resident_bytes();
    let mut deaf: Vec<Connection> = (0..8).map(|_| node.connect()).collect();
    for client in &mut deaf {
        client
            .send_all(&vec![get_data("/big", false); 200])
            .unwrap();
    }
    for _ in 0..20 {
        serves(&mut neighbour, "while eight do not read");
    }
    let grown = node.resident_bytes().saturating_sub(before);
    say(&format!(
        "eight unread times 200 MB asked for: {} MiB more",
        grown / MIB
    ));
    assert!(grown < 250 * MIB, "{} MiB more", grown / MIB);
    let first = &mut deaf[0];
    for _ in 0..200 {
        match first.receive().unwrap() {
            Message::Reply(reply) => assert_eq!(reply.data().unwrap().len(), 1_000_000),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_that_does_not_read_its_events_is_disconnected_at_the_bound() {
    let node = Node::new()
        .with("quorate.outboxBytesMax", "2097152")
        .started();
    let mut writer = node.connect();
    let name = "n".repeat(1_000);
    writer.call(&create(&format!("/{name}"), b"", 0)).unwrap();
    let mut deaf = node.connect();
    deaf.call(&add_watch("/", true)).unwrap();
    let before = node.resident_bytes();
    let path = format!("/{name}");
    let writes = vec![set_data(&path, b"", -1); 200];
    // What the sockets take, and then the bound: some MiB of events.
    for _ in 0..100 {
        writer.send_all(&writes).unwrap();
        for _ in &writes {
            assert!(matches!(writer.receive().unwrap(), Message::Reply(_)));
        }
    }
    wait_until_ended(&mut deaf, &node);
    let grown = node.resident_bytes().saturating_sub(before);
    say(&format!(
        "20,000 unread events of 1 KB: {} MiB more",
        grown / MIB
    ));
    assert!(grown < 150 * MIB, "{} MiB more", grown / MIB);
    serves(&mut writer, "afterwards");
    // The session is not lost with the connection.
    assert!(
        Connection::resume(node.address(), &deaf.session(), 0)
            .unwrap()
            .is_some()
    );
}

#[test]
fn five_thousand_requests_in_one_burst_are_answered_in_order() {
    let node = Node::new().started();
    let mut neighbour = node.connect();
    let mut client = node.connect();
    client.call(&create("/burst", b"", 0)).unwrap();
    let requests: Vec<Request> = (0..5_000)
        .map(|number| match number % 5 {
            0 => get_data("/burst", false),
            1 => Request::Ping,
            2 => exists("/none", false),
            3 => create("/burst", b"", 0),
            _ => set_data("/burst", b"x", -1),
        })
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..10 {
                serves(&mut neighbour, "beside the burst");
            }
        });
        client.send_all(&requests).unwrap();
        let mut sets = 0;
        for (number, request) in requests.iter().enumerate() {
            // The client checks that xids come in order.
            let Message::Reply(reply) = client.receive().unwrap() else {
                panic!("{number}: no reply");
            };
            match (number % 5, reply.code()) {
                (0, 0) => assert_eq!(reply.stat().unwrap().version, sets, "{number}"),
                (2, -101) | (3, -110) | (1, 0) => {}
                (4, 0) => sets += 1,
                (_, code) => panic!("{number}: {request:?}: {code}"),
            }
        }
        assert_eq!(sets, 1_000);
    });
}

#[test]
fn a_thousand_idle_connections_do_not_disturb_a_client() {
    let node = Node::new().started();
    let mut client = node.connect();
    let before = node.resident_bytes();
    let begun = Instant::now();
    let idle: Vec<Connection> = (0..1_000).map(|_| node.connect()).collect();
    let took = begun.elapsed();
    for _ in 0..50 {
        serves(&mut client, "beside a thousand");
    }
    let grown = node.resident_bytes().saturating_sub(before);
    say(&format!(
        "1,000 idle sessions: opened in {took:.0?}, {} KiB each",
        grown / 1024 / 1_000
    ));
    assert!(grown < 64 * MIB, "{} MiB more", grown / MIB);
    assert!(took < Duration::from_secs(20), "{took:?}");
    for mut connection in idle {
        connection.call(&Request::Ping).unwrap();
    }
}

#[test]
fn opening_and_closing_many_sessions_does_not_disturb_a_client() {
    let node = Node::new().started();
    let mut client = node.connect_for(2_000);
    client.call(&create("/mine", b"", 1)).unwrap();
    let address = node.address();
    let churn = move || {
        for _ in 0..300 {
            let mut session = Connection::open(address, 5_000).unwrap();
            session.send(&create("/e-", b"", 3)).unwrap();
            session.send(&Request::CloseSession).unwrap();
            let answers = session.read_to_close().unwrap();
            assert_eq!(answers.len(), 2);
        }
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(churn), scope.spawn(churn)];
        while threads.iter().any(|thread| !thread.is_finished()) {
            serves(&mut client, "beside the flood");
        }
    });
    let children = client
        .call(&quorate_tests::client::get_children("/", false))
        .unwrap();
    assert!(
        !children
            .children()
            .unwrap()
            .iter()
            .any(|name| name.starts_with("e-"))
    );
}

/// Whether the server closes a connection without giving it a session.
fn is_turned_away(address: SocketAddr) -> bool {
    Connection::open(address, 5_000).is_err()
}

#[test]
fn connections_from_one_address_are_bounded() {
    let node = Node::new().with("maxClientCnxns", "5").started();
    // Those of the start-up's questions are gone, but the server may not know it yet.
    let mut clients = open_all(&node, 5);
    assert!(is_turned_away(node.address()));
    for client in &mut clients {
        serves(client, "at the bound");
    }
    clients.pop().unwrap().call(&Request::CloseSession).unwrap();
    open_all(&node, 1);
}

#[test]
fn connections_in_total_are_bounded() {
    let node = Node::new().with("maxCnxns", "7").started();
    let mut clients = open_all(&node, 7);
    assert!(is_turned_away(node.address()));
    for client in &mut clients {
        serves(client, "at the bound");
    }
}

/// Opens so many sessions, waiting for places to become free where needed.
fn open_all(node: &Node, count: usize) -> Vec<Connection> {
    let deadline = Instant::now() + PATIENCE;
    let mut clients = Vec::new();
    while clients.len() < count {
        match Connection::open(node.address(), 20_000) {
            Ok(client) => clients.push(client),
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", clients.len()),
        }
    }
    clients
}

/// Fault F30.
#[test]
fn out_of_file_descriptors_existing_clients_go_on_and_new_ones_are_served_later() {
    let mut node = Node::new().with_busy_storage();
    node.set_wrapper(Some(Wrapper {
        program: ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"]
            .map(str::to_owned)
            .to_vec(),
        ..Wrapper::default()
    }));
    node.start();
    let mut client = node.connect();
    client.call(&create("/fd", b"", 0)).unwrap();
    let mut others: Vec<Connection> = Vec::new();
    // The system accepts for the server until its queue is full; none of these says a word.
    for _ in 0..120 {
        others.push(Connection::dial(node.address()).unwrap());
    }
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", node.pid())).map_or(0, Iterator::count);
    let deadline = Instant::now() + PATIENCE;
    while descriptors() < 63 {
        assert!(Instant::now() < deadline, "{} descriptors", descriptors());
        std::thread::sleep(Duration::from_millis(5));
    }
    // Snapshots and new segments need descriptors as well: enough writes for several of each.
    for round in 0..3 {
        let writes: Vec<Request> = (0..300)
            .map(|_| set_data("/fd", &vec![b'a'; 4_000], -1))
            .collect();
        client.send_all(&writes).unwrap();
        for _ in &writes {
            let Message::Reply(reply) = client.receive().unwrap() else {
                panic!("round {round}: closed:\n{}", node.log_tail());
            };
            assert_eq!(reply.code(), 0, "round {round}");
        }
        serves(&mut client, "without descriptors");
    }
    drop(others);
    open_all(&node, 1);
    assert!(client.call(&Request::Ping).is_ok());
}
