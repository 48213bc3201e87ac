//! What real clients put on the wire, kept as fixtures for the protocol crate.
//!
//! A script runs through a recording proxy against Apache ZooKeeper; of each operation one exchange
//! for each outcome is kept. `RECORD=1` writes the files; otherwise the test holds the clients to
//! them: what they send must still be what was recorded.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::PathBuf;

use quorate_tests::proxy::{Direction, Piece, Proxy};
use quorate_tests::server::{Product, Server, Settings};

/// Larger frames teach a decoder nothing more.
const FRAME_BYTES_MAX: usize = 600;

/// One request with what came back, or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exchange {
    title: String,
    lines: Vec<String>,
}

/// Runs a client by way of a proxy for the direct address and one for the connections it breaks.
type Script<'a> = &'a dyn Fn(&Proxy, &Proxy);

/// Runs the scripts, and compares with or writes `file` of the protocol crate's fixtures.
pub(crate) fn record(file: &str, client: &str, scripts: &[Script<'_>]) {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for script in scripts {
        let server = Server::start(Product::ApacheZookeeper, &Settings::default()).unwrap();
        let (direct, steered) = (
            Proxy::start(server.address()).unwrap(),
            Proxy::start(server.address()).unwrap(),
        );
        script(&direct, &steered);
        for proxy in [&direct, &steered] {
            for exchange in exchanges_of(&proxy.recording()) {
                if !exchanges.iter().any(|known| known.title == exchange.title) {
                    exchanges.push(exchange);
                }
            }
        }
    }
    let path: PathBuf = [
        env!("CARGO_MANIFEST_DIR"),
        "..",
        "protocol",
        "tests",
        "recorded",
        file,
    ]
    .iter()
    .collect();
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(&path, text(client, &exchanges)).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    let (kept, now) = (requests_in(&kept), requests_in(&text(client, &exchanges)));
    for (title, request) in &kept {
        assert_eq!(
            now.get(title),
            Some(request),
            "{client} no longer sends what {file} says"
        );
    }
}

fn text(client: &str, exchanges: &[Exchange]) -> String {
    let mut text = format!(
        "# Frames between {client} and Apache ZooKeeper 3.8.0, without their length prefix.\n\
         # `>` is sent by the client, `<` by the server; one frame a line, in hexadecimal.\n"
    );
    for exchange in exchanges {
        let _ = writeln!(text, "\n# {}", exchange.title);
        for line in &exchange.lines {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// The requests of a fixture that are the same in every run, by title, without their xid: how many
/// went before depends on timing.
fn requests_in(text: &str) -> BTreeMap<String, String> {
    let mut requests = BTreeMap::new();
    let mut title = "";
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("# ") {
            title = named;
        } else if let Some(hex) = line.strip_prefix("> ") {
            // A handshake carries a session's password, setWatches a zxid; a ping needs idle time.
            if !["connect", "setWatches", "ping"]
                .iter()
                .any(|kind| title.starts_with(kind))
            {
                requests.insert(title.to_owned(), hex[8..].to_owned());
            }
        }
    }
    requests
}

/// The bytes of one connection.
#[derive(Debug, Default)]
struct Stream {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

fn exchanges_of(pieces: &[Piece]) -> Vec<Exchange> {
    let mut streams: BTreeMap<usize, Stream> = BTreeMap::new();
    for piece in pieces {
        let stream = streams.entry(piece.connection).or_default();
        match piece.direction {
            Direction::ToServer => stream.to_server.extend(&piece.bytes),
            Direction::ToClient => stream.to_client.extend(&piece.bytes),
        }
    }
    streams.values().flat_map(exchanges_of_connection).collect()
}

fn exchanges_of_connection(stream: &Stream) -> Vec<Exchange> {
    let (requests, replies) = (frames(&stream.to_server), frames(&stream.to_client));
    let (Some((hello, requests)), Some((welcome, replies))) =
        (requests.split_first(), replies.split_first())
    else {
        return Vec::new();
    };
    let (known, alive) = (long_at(hello, 16) != 0, int_at(welcome, 4) > 0);
    let title = match (known, alive) {
        (false, _) => "connect: a new session",
        (true, true) => "connect: a session resumed",
        (true, false) => "connect: a session refused",
    };
    let mut found = vec![exchange(title.to_owned(), &[hello, welcome], 1)];
    let mut pending: VecDeque<&Vec<u8>> = requests.iter().collect();
    for reply in replies {
        let xid = int_at(reply, 0);
        if xid == -1 {
            let title = format!("event: type {}", int_at(reply, 16));
            found.push(exchange(title, &[reply], 0));
            continue;
        }
        let Some(place) = pending.iter().position(|request| int_at(request, 0) == xid) else {
            continue;
        };
        let Some(request) = pending.remove(place) else {
            continue;
        };
        let (op, error) = (int_at(request, 4), int_at(reply, 12));
        // A multi that fails says so in its results.
        let failed = op == 14 && int_at(reply, 16) == -1 && reply.get(20) == Some(&0);
        let outcome = match error {
            0 if failed => "failed".to_owned(),
            0 => "ok".to_owned(),
            error => format!("error {error}"),
        };
        found.push(exchange(
            format!("{}: {outcome}", name_of(op)),
            &[request, reply],
            1,
        ));
    }
    found.retain(|exchange| {
        exchange
            .lines
            .iter()
            .all(|line| line.len() < 2 * FRAME_BYTES_MAX)
    });
    found
}

/// The first `sent` frames went to the server, the others came from it.
fn exchange(title: String, frames: &[&[u8]], sent: usize) -> Exchange {
    let lines = frames.iter().enumerate().map(|(at, frame)| {
        let mut line = String::from(if at < sent { "> " } else { "< " });
        for byte in *frame {
            let _ = write!(line, "{byte:02x}");
        }
        line
    });
    Exchange {
        title,
        lines: lines.collect(),
    }
}

/// The whole frames in `bytes`; none if they are no frames (a four-letter word).
fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let Ok(length) = usize::try_from(int_at(bytes, 0)) else {
            break;
        };
        let Some(frame) = bytes.get(4..4 + length) else {
            break;
        };
        found.push(frame.to_vec());
        bytes = &bytes[4 + length..];
    }
    found
}

fn int_at(bytes: &[u8], at: usize) -> i32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |four| i32::from_be_bytes(four.try_into().unwrap()))
}

fn long_at(bytes: &[u8], at: usize) -> i64 {
    bytes
        .get(at..at + 8)
        .map_or(0, |eight| i64::from_be_bytes(eight.try_into().unwrap()))
}

fn name_of(op: i32) -> String {
    let name = match op {
        1 => "create",
        2 => "delete",
        3 => "exists",
        4 => "getData",
        5 => "setData",
        6 => "getACL",
        7 => "setACL",
        8 => "getChildren",
        9 => "sync",
        11 => "ping",
        12 => "getChildren2",
        14 => "multi",
        15 => "create2",
        16 => "reconfig",
        17 => "checkWatches",
        18 => "removeWatches",
        19 => "createContainer",
        21 => "createTTL",
        22 => "multiRead",
        100 => "auth",
        101 => "setWatches",
        103 => "getEphemerals",
        104 => "getAllChildrenNumber",
        105 => "setWatches2",
        106 => "addWatch",
        107 => "whoAmI",
        -11 => "closeSession",
        _ => return format!("op {op}"),
    };
    name.to_owned()
}
