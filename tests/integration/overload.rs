//! More than there is room for: bounds hold, and those within them are served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_tests::client::{Connection, Message, add_watch, create, exists, get_data, set_data};

use crate::harness::{Node, PATIENCE, Wrapper, say, skip, succeeds};

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

/// What is asked for in one burst may be more than the bound: it is sent as it is read.
#[test]
fn a_burst_of_large_reads_is_answered_in_full_with_writes_in_between() {
    let node = Node::new()
        .with("quorate.outboxBytesMax", "8388608")
        .started();
    let mut client = node.connect();
    client
        .call(&create("/big", &vec![7; 1_000_000], 0))
        .unwrap();
    client.call(&create("/small", b"", 0)).unwrap();
    let mut requests = vec![get_data("/big", false); 60];
    requests.push(set_data("/small", b"x", 0));
    requests.push(get_data("/small", false));
    requests.extend(vec![get_data("/big", false); 4]);
    requests.push(set_data("/big", &vec![8; 1_000_000], 0));
    requests.extend(vec![get_data("/big", false); 60]);
    client.send_all(&requests).unwrap();
    for (number, request) in requests.iter().enumerate() {
        let Message::Reply(reply) = client.receive().unwrap() else {
            panic!("{number}: closed:\n{}", node.log_tail());
        };
        assert_eq!(reply.code(), 0, "{number}");
        // A read never shows a write that was sent after it.
        let version = i32::from(number == 61 || number > 66);
        if let Some(stat) = reply
            .stat()
            .filter(|_| matches!(request, Request::GetData(_)))
        {
            assert_eq!(stat.version, version, "{number}");
        }
    }
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

/// Fault F30: strangers take what descriptors there are for them, and no more.
#[test]
fn file_descriptors_that_strangers_use_up_are_not_those_of_the_log() {
    let mut node = Node::new().with_busy_storage();
    node.set_wrapper(Some(Wrapper {
        program: ["sh", "-c", "ulimit -n 96; exec \"$@\"", "sh"]
            .map(str::to_owned)
            .to_vec(),
        ..Wrapper::default()
    }));
    node.start();
    let mut client = node.connect();
    client.call(&create("/fd", b"", 0)).unwrap();
    // None of these says a word.
    let strangers: Vec<Connection> = (0..150)
        .map(|_| Connection::dial(node.address()).unwrap())
        .collect();
    assert!(
        is_turned_away(node.address()),
        "150 connections of 96 descriptors"
    );
    write_much(&mut client, &node);
    drop(strangers);
    open_all(&node, 1);
    write_much(&mut client, &node);
}

/// The limit comes down while the server runs, below what it has open: nothing can be opened.
#[test]
fn out_of_file_descriptors_the_server_goes_on_and_recovers() {
    let test = "out_of_file_descriptors_the_server_goes_on_and_recovers";
    let node = Node::new()
        .with("quorate.logSegmentBytes", "1048576")
        .started();
    let mut client = node.connect();
    client.call(&create("/fd", b"", 0)).unwrap();
    let pid = format!("--pid={}", node.pid());
    if !succeeds("prlimit", &[&pid, "--nofile=5:20000"]) {
        skip(test, "there is no prlimit");
        return;
    }
    // Writes are taken as long as the log has room, and refused then; nothing ends.
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(
            Instant::now() < deadline,
            "the log finds room without descriptors"
        );
        let reply = client.call(&set_data("/fd", &[b'a'; 20_000], -1));
        match reply
            .unwrap_or_else(|error| panic!("{error}:\n{}", node.log_tail()))
            .code()
        {
            0 => {}
            code => {
                assert_eq!(code, -1);
                break;
            }
        }
    }
    assert_eq!(client.call(&get_data("/fd", false)).unwrap().code(), 0);
    assert_eq!(client.call(&Request::Ping).unwrap().code(), 0);
    assert!(succeeds("prlimit", &[&pid, "--nofile=20000:20000"]));
    let deadline = Instant::now() + PATIENCE;
    while client.call(&set_data("/fd", b"again", -1)).unwrap().code() != 0 {
        assert!(
            Instant::now() < deadline,
            "writes stay refused:\n{}",
            node.log_tail()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    write_much(&mut client, &node);
    open_all(&node, 1);
}

/// Enough for several snapshots and segments, each of which takes a descriptor.
fn write_much(client: &mut Connection, node: &Node) {
    let writes: Vec<Request> = (0..900)
        .map(|_| set_data("/fd", &[b'a'; 4_000], -1))
        .collect();
    client.send_all(&writes).unwrap();
    for number in 0..writes.len() {
        let Message::Reply(reply) = client.receive().unwrap() else {
            panic!("write {number}: closed:\n{}", node.log_tail());
        };
        assert_eq!(reply.code(), 0, "write {number}");
    }
}

/// Fault F33: whoever was to read the log lines does not. The service goes on.
#[test]
fn a_log_that_nobody_reads_does_not_stop_the_server() {
    let test = "a_log_that_nobody_reads_does_not_stop_the_server";
    let mut node = Node::new();
    let pipe = node.folder().join("log-pipe");
    if !succeeds("mkfifo", &[pipe.to_str().unwrap()]) {
        skip(test, "there is no mkfifo");
        return;
    }
    // Open at both ends, so that nobody waits for the other side, and never read.
    let unread = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let script = format!("exec \"$@\" 2>'{}'", pipe.display());
    node.set_wrapper(Some(Wrapper {
        program: ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec(),
        variables: vec![("QUORATE_LOG_LEVEL".to_owned(), "debug".to_owned())],
    }));
    node.start();
    let mut client = node.connect();
    // Each of these is worth some log lines; a pipe takes 64 KiB.
    for _ in 0..1_500 {
        drop(node.connect());
    }
    for _ in 0..20 {
        serves(&mut client, "with an unread log");
    }
    node.signal("TERM");
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));
    drop(unread);
}

/// ZOOKEEPER-4306: what a session's end deletes does not have to fit anywhere.
#[test]
fn closing_a_session_with_many_ephemerals_disturbs_nobody() {
    const EPHEMERALS: usize = 20_000;
    let node = Node::new().started();
    let mut neighbour = node.connect();
    let mut owner = node.connect();
    let folder = format!("/{}", "long-name".repeat(20));
    owner.call(&create(&folder, b"", 0)).unwrap();
    let path = format!("{folder}/{}-", "ephemeral".repeat(20));
    let creates = vec![create(&path, b"", 3); 1_000];
    for _ in 0..EPHEMERALS / creates.len() {
        owner.send_all(&creates).unwrap();
        for _ in &creates {
            assert!(matches!(owner.receive().unwrap(), Message::Reply(_)));
        }
    }
    let mut watcher = node.connect();
    watcher.call(&add_watch(&folder, true)).unwrap();
    owner.send(&Request::CloseSession).unwrap();
    for _ in 0..10 {
        serves(&mut neighbour, "while the session ends");
    }
    let answers = owner.read_to_close().unwrap();
    assert!(matches!(&answers[..], [Message::Reply(reply)] if reply.code() == 0));
    let mut zxids = std::collections::BTreeSet::new();
    for _ in 0..EPHEMERALS {
        zxids.insert(watcher.next_event().unwrap().zxid);
    }
    assert_eq!(zxids.len(), 1, "all at one zxid");
    let left = neighbour.call(&exists(&folder, false)).unwrap();
    assert_eq!(left.stat().unwrap().num_children, 0);
}
