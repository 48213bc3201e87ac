//! Cases derived from a request's layout: each of its fields, spoilt in every way its kind allows.

use bytes::BytesMut;
use quorate_protocol::{OpCode, Request};
use quorate_tests::client::request_frame;

use super::layout::{Field, HEADER_BYTES, Kind, end, has_fields, layout};

/// The xid of every case.
pub(super) const XID: i32 = 77;

const MARSHALLING_ERROR: i32 = -5;
const BAD_ARGUMENTS: i32 = -8;
const NO_NODE: i32 = -101;

/// What a server may do with a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// One of these codes, and the connection goes on.
    Codes(Vec<i32>),
    /// Any answer but a complaint about bytes, and the connection goes on.
    Understood,
    /// The connection ends, without an answer.
    Closed,
    /// An answer or the end.
    Anything,
}

/// Bytes to send on an open session.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) op: OpCode,
    pub(super) frame: Vec<u8>,
    pub(super) expected: Expected,
}

/// All cases of one request.
pub(super) fn cases(request: &Request) -> Vec<Case> {
    let whole = request_frame(XID, request)[4..].to_vec();
    let fields = layout(request);
    // The question is no record: servers that do not know it see a ping with bytes behind its end.
    let question = match request {
        Request::PingWithQuestion => 4,
        _ => 0,
    };
    assert_eq!(
        end(&fields) + question,
        whole.len(),
        "the layout of {request:?} is that of its bytes"
    );
    assert_eq!(!fields.is_empty(), has_fields(request.op()));
    let mut spoiler = Spoiler {
        op: request.op(),
        whole,
        cases: Vec::new(),
    };
    spoiler.cut();
    spoiler.prolong();
    for field in &fields {
        spoiler.spoil(field);
    }
    spoiler.cases
}

struct Spoiler {
    op: OpCode,
    /// Header and body, as they should be.
    whole: Vec<u8>,
    cases: Vec<Case>,
}

impl Spoiler {
    fn add(&mut self, how: &str, body: &[u8], expected: Expected) {
        self.cases.push(Case {
            name: format!("{:?}, {how}", self.op),
            op: self.op,
            frame: frame(body),
            expected,
        });
    }

    /// What cannot be decoded: the request is refused, but for those that say who somebody is.
    fn malformed(&self) -> Expected {
        match self.op {
            OpCode::Auth | OpCode::Sasl => Expected::Closed,
            OpCode::Ping => Expected::Understood,
            _ => Expected::Codes(vec![MARSHALLING_ERROR]),
        }
    }

    fn understood(&self) -> Expected {
        match self.op {
            // Nobody can be told by a token, and a session ends only once.
            OpCode::Sasl | OpCode::CloseSession => Expected::Anything,
            _ => Expected::Understood,
        }
    }

    fn cut(&mut self) {
        for length in 0..self.whole.len() {
            let expected = match length {
                0..HEADER_BYTES => Expected::Closed,
                _ => self.malformed(),
            };
            let body = self.whole[..length].to_vec();
            self.add(&format!("cut to {length} bytes"), &body, expected);
        }
    }

    fn prolong(&mut self) {
        for bytes in [1, 4, 1_000, 100_000] {
            let mut body = self.whole.clone();
            body.resize(body.len() + bytes, 0xff);
            let expected = self.understood();
            self.add(&format!("{bytes} bytes behind its end"), &body, expected);
        }
    }

    fn spoil(&mut self, field: &Field) {
        match field.kind {
            Kind::Bool => self.spoil_bool(field),
            Kind::Int => self.spoil_int(field),
            Kind::Long => self.spoil_long(field),
            Kind::Text { bytes, nullable } => {
                self.spoil_length(field, bytes, nullable);
                self.spoil_text(field, bytes);
            }
            Kind::Buffer { bytes, nullable } => {
                self.spoil_length(field, bytes, nullable);
                self.spoil_buffer(field, bytes);
            }
            Kind::Null => self.spoil_length(field, 0, true),
            Kind::Count(count) => self.spoil_count(field, count),
        }
    }

    fn spoil_bool(&mut self, field: &Field) {
        for byte in [2, 0x80, 0xff] {
            let mut body = self.whole.clone();
            body[field.at] = byte;
            // In a multi it may end the list too early, or not at all.
            let expected = match field.name.as_str() {
                "done" => Expected::Anything,
                _ => self.understood(),
            };
            self.add(&format!("{} {byte}", field.name), &body, expected);
        }
    }

    fn spoil_int(&mut self, field: &Field) {
        for number in [
            i32::MIN,
            i32::MIN + 1,
            -113,
            -2,
            -1,
            0,
            1,
            2,
            3,
            6,
            7,
            13,
            14,
            127,
            255,
            0x0100_0000,
            i32::MAX - 1,
            i32::MAX,
        ] {
            let expected = match field.name.as_str() {
                "flags" if !(0..=6).contains(&number) => match self.op {
                    // ZooKeeper fails to decode it.
                    OpCode::Multi => Expected::Codes(vec![MARSHALLING_ERROR]),
                    _ => Expected::Codes(vec![BAD_ARGUMENTS]),
                },
                "mode" if !(0..=1).contains(&number) => self.malformed(),
                "watcher_type" if !(1..=5).contains(&number) => self.malformed(),
                "type" | "err" => Expected::Anything,
                _ => self.understood(),
            };
            self.put(field, &number.to_be_bytes(), &number, expected);
        }
    }

    fn spoil_long(&mut self, field: &Field) {
        for number in [
            i64::MIN,
            i64::MIN + 1,
            -2,
            -1,
            0,
            1,
            (1 << 31) - 1,
            1 << 31,
            (1 << 40) - 1,
            1 << 40,
            i64::MAX - 1,
            i64::MAX,
        ] {
            let expected = match field.name.as_str() {
                // What is wrong with one operation of a multi is in its results.
                "ttl_ms" if self.op != OpCode::Multi && !(1..1 << 40).contains(&number) => {
                    Expected::Codes(vec![BAD_ARGUMENTS])
                }
                _ => self.understood(),
            };
            self.put(field, &number.to_be_bytes(), &number, expected);
        }
    }

    fn put(
        &mut self,
        field: &Field,
        bytes: &[u8],
        shown: &dyn std::fmt::Display,
        expected: Expected,
    ) {
        let mut body = self.whole.clone();
        body[field.at..field.at + bytes.len()].copy_from_slice(bytes);
        self.add(&format!("{} {shown}", field.name), &body, expected);
    }

    /// The length in front of a text or a buffer.
    fn spoil_length(&mut self, field: &Field, bytes: usize, nullable: bool) {
        let left = self.whole.len() - field.at - 4;
        let beyond = i32::try_from(left + 1).unwrap();
        for length in [
            i32::MIN,
            i32::MIN + 1,
            -2,
            beyond,
            0x000f_ffff,
            0x00ff_ffff,
            0x7fff_ff00,
            i32::MAX,
        ] {
            let expected = self.malformed();
            self.put(
                field,
                &length.to_be_bytes(),
                &format!("of {length} bytes"),
                expected,
            );
        }
        if !nullable {
            let expected = self.malformed();
            self.put(field, &(-1_i32).to_be_bytes(), &"null", expected);
        }
        // One off: what follows is read at the wrong place, or is cut off.
        let bytes = i32::try_from(bytes).unwrap();
        for length in [bytes - 1, bytes + 1, -1] {
            self.put(
                field,
                &length.to_be_bytes(),
                &format!("of {length} bytes, one off or null"),
                Expected::Anything,
            );
        }
    }

    fn spoil_count(&mut self, field: &Field, count: usize) {
        let left = self.whole.len() - field.at - 4;
        let beyond = i32::try_from(left + 1).unwrap();
        for count in [beyond, 0x000f_ffff, 0x00ff_ffff, i32::MAX] {
            let expected = self.malformed();
            let shown = format!("of {count} elements");
            self.put(field, &count.to_be_bytes(), &shown, expected);
        }
        let count = i32::try_from(count).unwrap();
        for count in [i32::MIN, -2, -1, 0, count - 1, count + 1] {
            let shown = format!("of {count} elements, or as if");
            self.put(field, &count.to_be_bytes(), &shown, Expected::Anything);
        }
    }

    fn spoil_buffer(&mut self, field: &Field, bytes: usize) {
        for (name, contents) in [
            ("empty", Vec::new()),
            ("of zeros", vec![0; 64]),
            ("of colons", vec![b':'; 64]),
            ("without a colon", b"nobody".to_vec()),
            ("no UTF-8", vec![0xff, 0xfe, b':', 0xc0, 0x80]),
            ("large", vec![b'a'; 300_000]),
        ] {
            let expected = Expected::Anything;
            self.replace(field, bytes, name, &contents, expected);
        }
    }

    fn spoil_text(&mut self, field: &Field, bytes: usize) {
        let is_path = field.name == "path" || field.name.ends_with(".path");
        for (name, contents) in no_utf8() {
            self.replace(field, bytes, name, &contents, Expected::Anything);
        }
        for (name, text) in texts() {
            self.replace(field, bytes, name, text.as_bytes(), Expected::Anything);
        }
        // Once is enough for what takes long.
        if is_path && matches!(self.op, OpCode::Create | OpCode::GetData | OpCode::AddWatch) {
            let expected = Expected::Understood;
            let long = format!("/{}", "a".repeat(900_000));
            self.replace(field, bytes, "of 900,000 bytes", long.as_bytes(), expected);
            let deep = "/x".repeat(200_000);
            let expected = self.for_no_path(&deep);
            let how = "of 200,000 components";
            self.replace(field, bytes, how, deep.as_bytes(), expected);
        }
        if is_path {
            for (name, path) in paths() {
                let expected = self.for_no_path(&path);
                self.replace(field, bytes, name, path.as_bytes(), expected);
            }
        }
    }

    /// What is said to a path that breaks a rule.
    fn for_no_path(&self, path: &str) -> Expected {
        match self.op {
            OpCode::Create
            | OpCode::Create2
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::Delete
            | OpCode::SetData
            | OpCode::SetAcl => Expected::Codes(vec![BAD_ARGUMENTS, NO_NODE]),
            // Reads look no further than whether it is there, and the empty path is the root.
            OpCode::Exists
            | OpCode::GetData
            | OpCode::GetChildren
            | OpCode::GetChildren2
            | OpCode::GetAcl
            | OpCode::GetAllChildrenNumber => match path {
                "" => Expected::Codes(vec![0]),
                _ => Expected::Codes(vec![BAD_ARGUMENTS, NO_NODE]),
            },
            // One operation's refusal is a result, and any string can be watched or synced.
            _ => self.understood(),
        }
    }

    fn replace(
        &mut self,
        field: &Field,
        bytes: usize,
        how: &str,
        contents: &[u8],
        expected: Expected,
    ) {
        let mut body = self.whole[..field.at].to_vec();
        body.extend(i32::try_from(contents.len()).unwrap().to_be_bytes());
        body.extend(contents);
        body.extend(&self.whole[field.at + 4 + bytes..]);
        self.add(&format!("{} {how}", field.name), &body, expected);
    }
}

pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&i32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes.to_vec()
}

fn no_utf8() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("with a byte that is none", b"/\xff".to_vec()),
        ("with an overlong slash", b"/\xc0\xaf".to_vec()),
        ("with an overlong NUL", b"/\xc0\x80".to_vec()),
        ("with a lone high surrogate", b"/\xed\xa0\x80".to_vec()),
        ("with a lone low surrogate", b"/\xed\xb0\x80".to_vec()),
        (
            "with a pair of surrogates, as Java writes",
            b"/\xed\xa0\xbd\xed\xb8\x80".to_vec(),
        ),
        ("with a code above the last", b"/\xf4\x90\x80\x80".to_vec()),
        ("with half a character", b"/\xe2\x82".to_vec()),
        ("with a lone continuation", b"/\x80\x80".to_vec()),
        ("with five bytes for one", b"/\xf8\x88\x80\x80\x80".to_vec()),
    ]
}

fn texts() -> Vec<(&'static str, String)> {
    vec![
        ("with a NUL", "/a\0b".to_owned()),
        ("NUL alone", "\0".to_owned()),
        ("of line ends", "\r\n\r\n".to_owned()),
        ("with an emoji", "/\u{1f600}".to_owned()),
        ("with a byte order mark", "\u{feff}/x".to_owned()),
        (
            "with text that runs from right to left",
            "/\u{202e}x".to_owned(),
        ),
        ("of format marks", "{}%s%n${jndi:ldap://x}".to_owned()),
        ("of 64 KiB", "a".repeat(65_536)),
    ]
}

/// One path for each rule that it breaks.
fn paths() -> Vec<(&'static str, String)> {
    let with = |c: char| format!("/hostile{c}x");
    vec![
        ("empty", String::new()),
        ("relative", "x".to_owned()),
        ("of two slashes", "//".to_owned()),
        ("of a thousand slashes", "/".repeat(1_000)),
        ("with a slash at its end", "/hostile/".to_owned()),
        ("with an empty component", "/hostile//x".to_owned()),
        ("with a dot", "/./hostile".to_owned()),
        ("ending in a dot", "/hostile/.".to_owned()),
        ("with two dots", "/../hostile".to_owned()),
        ("ending in two dots", "/hostile/..".to_owned()),
        ("with NUL", with('\0')),
        ("with U+0001", with('\u{1}')),
        ("with a tab", with('\t')),
        ("with U+001F", with('\u{1f}')),
        ("with U+007F", with('\u{7f}')),
        ("with U+0085", with('\u{85}')),
        ("with U+009F", with('\u{9f}')),
        ("with U+E000", with('\u{e000}')),
        ("with U+F8FF", with('\u{f8ff}')),
        ("with U+FFF0", with('\u{fff0}')),
        ("with U+FFFD", with('\u{fffd}')),
        ("with U+FFFF", with('\u{ffff}')),
        ("with U+10FFFF", with('\u{10ffff}')),
    ]
}
