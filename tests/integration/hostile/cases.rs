//! One server, one connection after another, every case of every request: each is answered or ends
//! its connection in time, and a client that behaves notices none of them.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use quorate_protocol::{OpCode, Request, Xid};
use quorate_tests::client::{Connection, connect_frame, hello, request_frame};

use super::bytes::every_request;
use super::neighbour::Neighbour;
use super::spoil::{Case, Expected, XID, cases, frame};
use crate::harness::{Node, say};

const MARSHALLING_ERROR: i32 = -5;
const UNIMPLEMENTED: i32 = -6;
/// Between a case and its answer, or the end of its connection.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How many cases there are at least; fewer means that the table has lost some.
const CASES_MIN: usize = 3_000;
/// What the server may have grown by after all of them: it keeps some megabytes of names.
const GROWTH_MAX: u64 = 128 << 20;
/// The neighbour asks once in so many cases.
const NEIGHBOUR_EVERY: usize = 25;

/// What a server did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// A code, and the connection goes on.
    Code(i32),
    /// A code, and the connection is over.
    Finally(i32),
    Closed,
    Silence,
}

/// Sends cases on one connection for as long as it lasts.
struct Provoker<'a> {
    node: &'a Node,
    client: Connection,
    sent: usize,
    slowest: (Duration, String),
    violations: Vec<String>,
}

impl<'a> Provoker<'a> {
    fn new(node: &'a Node) -> Self {
        Self {
            node,
            client: connect(node),
            sent: 0,
            slowest: (Duration::ZERO, String::new()),
            violations: Vec::new(),
        }
    }

    fn run(&mut self, case: &Case) {
        let begun = Instant::now();
        let answer = self.send(case);
        let took = begun.elapsed();
        self.sent += 1;
        if took > self.slowest.0 {
            self.slowest = (took, case.name.clone());
        }
        if !is_allowed(&answer, &case.expected) {
            self.violations.push(format!(
                "{}: {answer:?} after {took:?}, not {:?}",
                case.name, case.expected
            ));
        }
        if !matches!(answer, Answer::Code(_)) {
            self.client = connect(self.node);
        }
    }

    /// A ping follows each case: its answer shows that the connection goes on.
    fn send(&mut self, case: &Case) -> Answer {
        let mut bytes = case.frame.clone();
        bytes.extend_from_slice(&request_frame(78, &Request::Ping));
        // The server may have closed before it has read everything.
        let _ = self.client.send_raw(&bytes);
        // As it stands in the case: the second four bytes.
        let expected = match (case.op, case.frame.get(4..8)) {
            (OpCode::Ping, _) | (_, None) => Xid::PING.0,
            (_, Some(xid)) => i32::from_be_bytes(xid.try_into().unwrap()),
        };
        let mut code = None;
        loop {
            let (xid, err) = match self.client.next_frame() {
                Ok(Some(frame)) => header(&frame),
                Ok(None) => return code.map_or(Answer::Closed, Answer::Finally),
                Err(_) => return Answer::Silence,
            };
            match code {
                _ if xid == Xid::NOTIFICATION.0 => {}
                None if xid == expected => code = Some(err),
                Some(code) if xid == Xid::PING.0 => return Answer::Code(code),
                _ => {
                    self.violations
                        .push(format!("{}: a reply to {xid}", case.name));
                    return Answer::Closed;
                }
            }
        }
    }
}

fn connect(node: &Node) -> Connection {
    let client = node.connect_for(5_000);
    client.set_silence(ANSWER_MAX).unwrap();
    client
}

/// xid and error code of a reply.
fn header(frame: &[u8]) -> (i32, i32) {
    let int = |at: usize| {
        let bytes = frame.get(at..at + 4).expect("a reply has a header");
        i32::from_be_bytes(bytes.try_into().unwrap())
    };
    (int(0), int(12))
}

fn is_allowed(answer: &Answer, expected: &Expected) -> bool {
    match (answer, expected) {
        (Answer::Silence, _) => false,
        (_, Expected::Anything) | (Answer::Closed, Expected::Closed) => true,
        (Answer::Code(code), Expected::Codes(codes)) => codes.contains(code),
        (Answer::Code(code), Expected::Understood) => *code != MARSHALLING_ERROR,
        _ => false,
    }
}

/// Headers that no client sends.
fn header_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, body: &[u8], expected| {
        cases.push(Case {
            name,
            op: OpCode::Check,
            frame: frame(body),
            expected,
        });
    };
    let known: Vec<i32> = OpCode::ALL.iter().map(|op| op.code()).collect();
    let unknown = (-20..130).filter(|code| !known.contains(code));
    for code in unknown.chain([999, i32::MAX, i32::MIN, OpCode::Check.code()]) {
        let mut body = XID.to_be_bytes().to_vec();
        body.extend(code.to_be_bytes());
        body.extend([0, 0, 0, 2, b'/', b'x', 0, 0, 0, 0]);
        let expected = Expected::Codes(vec![UNIMPLEMENTED]);
        add(format!("operation {code}"), &body, expected);
    }
    for length in [i32::MIN, -2, -1, 0x0010_0000, 0x7f00_0000, i32::MAX] {
        cases.push(Case {
            name: format!("a frame of {length} bytes"),
            op: OpCode::Check,
            frame: length.to_be_bytes().to_vec(),
            expected: Expected::Closed,
        });
    }
    for word in ["ruok", "stat", "GET ", "\u{16}\u{3}\u{1}\u{2}"] {
        cases.push(Case {
            name: format!("{word:?} on an open session"),
            op: OpCode::Check,
            frame: word.as_bytes().to_vec(),
            expected: Expected::Closed,
        });
    }
    // Read as xid 0 and operation 0, or the like: refused, or closed.
    cases.push(Case {
        name: "a second connect request".to_owned(),
        op: OpCode::Check,
        frame: connect_frame(&hello(5_000)).to_vec(),
        expected: Expected::Anything,
    });
    cases
}

/// Every xid comes back as it was, whatever it is and however often: ZooKeeper's clients rely on it
/// for those that are reserved.
fn xid_games(node: &Node) -> usize {
    let xids = [
        i32::MIN,
        -2_000_000,
        -9,
        -8,
        -4,
        -2,
        -1,
        0,
        0,
        1,
        1,
        1,
        7,
        3,
        i32::MAX,
        i32::MAX,
    ];
    let mut client = connect(node);
    for xid in xids {
        let request = quorate_tests::client::exists("/neighbour", false);
        client.send_raw(&request_frame(xid, &request)).unwrap();
        let reply = client.next_frame().unwrap().expect("an answer");
        assert_eq!(header(&reply), (xid, 0));
    }
    // All at once, writes and pings among them: in their order all the same.
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for (number, xid) in xids.into_iter().enumerate() {
        let (request, answer) = match number % 3 {
            0 => (Request::Ping, Xid::PING.0),
            1 => (quorate_tests::client::set_data("/none", b"", -1), xid),
            _ => (quorate_tests::client::get_data("/neighbour", false), xid),
        };
        bytes.extend_from_slice(&request_frame(xid, &request));
        expected.push(answer);
    }
    client.send_raw(&bytes).unwrap();
    for xid in expected {
        let reply = client.next_frame().unwrap().expect("an answer");
        assert_eq!(header(&reply).0, xid);
    }
    xids.len() * 2
}

#[test]
fn every_spoilt_field_of_every_request_is_answered_or_ends_its_connection_within_a_second() {
    let begun = Instant::now();
    let node = Node::new().started();
    let mut neighbour = Neighbour::new(&node);
    let before = node.resident_bytes();
    let mut provoker = Provoker::new(&node);
    let mut all: Vec<Case> = every_request().iter().flat_map(cases).collect();
    all.extend(header_cases());
    for (number, case) in all.iter().enumerate() {
        provoker.run(case);
        if number % NEIGHBOUR_EVERY == 0 {
            neighbour.goes_on(&case.name);
        }
    }
    let games = xid_games(&node);
    neighbour.goes_on("everything");
    neighbour.has_everything();
    let grown = node.resident_bytes().saturating_sub(before);
    let count = provoker.sent + games;
    let violations = &provoker.violations;
    let note = format!(
        "slowest {:.0?} ({}); a neighbour's slowest {:.0?}; {} MiB more memory",
        provoker.slowest.0,
        provoker.slowest.1,
        neighbour.slowest,
        grown >> 20
    );
    record("hostile-cases", count, violations.len(), begun, &note);
    assert!(
        violations.is_empty(),
        "{} violations:\n{}",
        violations.len(),
        violations[..violations.len().min(50)].join("\n")
    );
    assert!(count >= CASES_MIN, "{count} cases only");
    assert!(grown < GROWTH_MAX, "{} MiB more", grown >> 20);
}

/// One line for whoever runs it, and the same for the file that `QUORATE_RECORD` names.
fn record(name: &str, count: usize, violations: usize, begun: Instant, note: &str) {
    let seconds = begun.elapsed().as_secs_f64();
    say(&format!(
        "{name}: {count} cases, {violations} violations, {seconds:.1} s; {note}"
    ));
    let Some(path) = std::env::var_os("QUORATE_RECORD") else {
        return;
    };
    let output = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_default()
    };
    let date = output("date", &["-u", "+%F"]);
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let note = note.replace(['"', '\\'], "'");
    let line = format!(
        "{{\"name\":\"{name}\",\"date\":\"{date}\",\"commit\":\"{commit}\",\"command\":\"cargo test \
         -p quorate-tests --test integration hostile::cases\",\"count\":{count}.0,\"unit\":\"cases\",\
         \"seeds\":\"\",\"violations\":{violations},\"seconds\":{seconds:.1},\"note\":\"{note}\"}}\n"
    );
    let file = File::options().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the record is a file that can be written");
}
