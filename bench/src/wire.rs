//! Requests and replies without allocation.
//!
//! A [`Template`] is a whole frame, encoded once by the protocol crate; sending it again copies it
//! and overwrites the xid and the digits of the path, whose width is fixed. [`next_reply`] reads a
//! reply's header where it lies. So the generator's own cost stays far below a server's.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use quorate_protocol::frame::write_frame;
use quorate_protocol::request::{Create, PathOnly, SetData, Watched};
use quorate_protocol::{AclEntry, Request, RequestHeader, Stat, Xid, jute};

use crate::error::BenchError;

/// Length, xid, operation code and the length of the path stand before the path.
const PATH_AT: usize = 16;
const XID_AT: usize = 4;
/// Length, xid, zxid and error code.
const REPLY_HEADER_BYTES: usize = 4 + 16;
/// More than any reply a run asks for; a longer one is a broken stream.
pub(crate) const REPLY_BYTES_MAX: usize = 16 << 20;
pub(crate) const PARENT_DIGITS: usize = 5;
pub(crate) const CHILD_DIGITS: usize = 9;

/// Where the znodes of a run are: `<root>/p00012/n000000345`, always of the same length.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) root: String,
}

impl Paths {
    /// Below a root that no other run on this machine has.
    pub(crate) fn unique() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let unique = std::process::id().rotate_left(16) ^ since_epoch.subsec_nanos();
        Self {
            root: format!("/quorate-bench-{unique:08x}"),
        }
    }

    pub(crate) fn parent(&self, parent: u32) -> String {
        format!("{}/p{parent:0PARENT_DIGITS$}", self.root)
    }

    pub(crate) fn child(&self, parent: u32, child: u32) -> String {
        format!("{}/n{child:0CHILD_DIGITS$}", self.parent(parent))
    }

    fn parent_digits_at(&self) -> usize {
        PATH_AT + self.root.len() + 2
    }
}

/// What a correct reply looks like, so that a server cannot be fast by answering nonsense.
#[derive(Clone, Copy, Debug)]
enum ReplyBytes {
    Exactly(usize),
    AtLeast(usize),
}

/// One kind of request, ready to be sent any number of times.
#[derive(Debug)]
pub(crate) struct Template {
    name: &'static str,
    frame: Vec<u8>,
    parent_at: usize,
    has_child: bool,
    reply_body: ReplyBytes,
}

impl Template {
    pub(crate) fn create(paths: &Paths, data: &[u8]) -> Result<Self, BenchError> {
        let path = paths.child(0, 0);
        let reply = ReplyBytes::Exactly(4 + path.len());
        let request = Request::Create(create(path, data));
        Self::new("create", paths, &request, true, reply)
    }

    pub(crate) fn set(paths: &Paths, data: &[u8]) -> Result<Self, BenchError> {
        let request = Request::SetData(SetData {
            path: paths.child(0, 0),
            data: Some(data.to_vec().into()),
            version: -1,
        });
        let reply = ReplyBytes::Exactly(Stat::JUTE_BYTES);
        Self::new("set", paths, &request, true, reply)
    }

    pub(crate) fn get(paths: &Paths, data_bytes: usize) -> Result<Self, BenchError> {
        let request = Request::GetData(unwatched(paths.child(0, 0)));
        let reply = ReplyBytes::Exactly(4 + data_bytes + Stat::JUTE_BYTES);
        Self::new("get", paths, &request, true, reply)
    }

    /// Of the parent: what is named does not matter.
    pub(crate) fn sync(paths: &Paths) -> Result<Self, BenchError> {
        let path = paths.parent(0);
        let reply = ReplyBytes::Exactly(4 + path.len());
        let request = Request::Sync(PathOnly { path });
        Self::new("sync", paths, &request, false, reply)
    }

    pub(crate) fn exists(paths: &Paths) -> Result<Self, BenchError> {
        let request = Request::Exists(unwatched(paths.child(0, 0)));
        let reply = ReplyBytes::Exactly(Stat::JUTE_BYTES);
        Self::new("exists", paths, &request, true, reply)
    }

    pub(crate) fn children(paths: &Paths) -> Result<Self, BenchError> {
        let request = Request::GetChildren(unwatched(paths.parent(0)));
        Self::new("children", paths, &request, false, ReplyBytes::AtLeast(4))
    }

    fn new(
        name: &'static str,
        paths: &Paths,
        request: &Request,
        has_child: bool,
        reply_body: ReplyBytes,
    ) -> Result<Self, BenchError> {
        let mut frame = BytesMut::new();
        encode_request(Xid(0), request, &mut frame)?;
        Ok(Self {
            name,
            frame: frame.to_vec(),
            parent_at: paths.parent_digits_at(),
            has_child,
            reply_body,
        })
    }

    /// Appends the request for one znode (for a parent, if that is what the operation is about).
    pub(crate) fn emit(&self, out: &mut Vec<u8>, xid: i32, parent: u32, child: u32) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let frame = &mut out[start..];
        frame[XID_AT..XID_AT + 4].copy_from_slice(&xid.to_be_bytes());
        write_digits(&mut frame[self.parent_at..][..PARENT_DIGITS], parent);
        if self.has_child {
            let child_at = self.parent_at + PARENT_DIGITS + 2;
            write_digits(&mut frame[child_at..][..CHILD_DIGITS], child);
        }
    }

    /// Whether a reply without an error has the length it must have.
    pub(crate) fn check(&self, reply: &Reply) -> Result<(), BenchError> {
        let fits = match self.reply_body {
            ReplyBytes::Exactly(bytes) => reply.body_bytes == bytes,
            ReplyBytes::AtLeast(bytes) => reply.body_bytes >= bytes,
        };
        if fits {
            return Ok(());
        }
        Err(BenchError::ReplyLength {
            op: self.name,
            actual: reply.body_bytes,
        })
    }
}

pub(crate) fn create(path: String, data: &[u8]) -> Create {
    Create {
        path,
        data: Some(data.to_vec().into()),
        acl: vec![AclEntry::open()],
        flags: 0,
    }
}

fn unwatched(path: String) -> Watched {
    Watched { path, watch: false }
}

/// Appends one framed request.
pub(crate) fn encode_request(
    xid: Xid,
    request: &Request,
    out: &mut BytesMut,
) -> Result<(), jute::Error> {
    write_frame(out, |out| {
        let op = request.op().code();
        jute::encode(&RequestHeader { xid, op }, out)?;
        request.encode(out)
    })
}

/// Right-aligned, with leading zeros; what does not fit is cut off at the front.
fn write_digits(out: &mut [u8], mut value: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789"[(value % 10) as usize];
        value /= 10;
    }
}

/// The header of a reply, and how long what follows it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) xid: i32,
    pub(crate) err: i32,
    pub(crate) body_bytes: usize,
}

impl Reply {
    /// Of the whole frame, its length included.
    pub(crate) fn frame_bytes(&self) -> usize {
        REPLY_HEADER_BYTES + self.body_bytes
    }
}

/// Reads the reply at the front of `input`; `None` if it is not there in full.
pub(crate) fn next_reply(input: &[u8]) -> Result<Option<Reply>, BenchError> {
    let Some(header) = input.first_chunk::<REPLY_HEADER_BYTES>() else {
        return Ok(None);
    };
    let announced = int_at(header, 0);
    let bad_length = BenchError::FrameLength {
        announced,
        limit: REPLY_BYTES_MAX,
    };
    let length = match usize::try_from(announced) {
        Ok(length) if (REPLY_HEADER_BYTES - 4..=REPLY_BYTES_MAX).contains(&length) => length,
        _ => return Err(bad_length),
    };
    if input.len() - 4 < length {
        return Ok(None);
    }
    Ok(Some(Reply {
        xid: int_at(header, 4),
        err: int_at(header, 16),
        body_bytes: length + 4 - REPLY_HEADER_BYTES,
    }))
}

fn int_at(header: &[u8; REPLY_HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;
    use quorate_protocol::{ReplyHeader, Zxid};

    use super::*;

    fn reply_frame(xid: i32, err: i32, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        write_frame(&mut out, |out| {
            let header = ReplyHeader {
                xid: Xid(xid),
                zxid: Zxid(7),
                err,
            };
            jute::encode(&header, out)?;
            out.put_slice(body);
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn an_emitted_template_is_the_request_encoded_afresh() {
        let paths = Paths {
            root: "/bench".to_owned(),
        };
        let data = [7u8; 100];
        let mut emitted = Vec::new();
        let create_template = Template::create(&paths, &data).unwrap();
        let children_template = Template::children(&paths).unwrap();
        create_template.emit(&mut emitted, 42, 12_345, 987_654_321);
        children_template.emit(&mut emitted, -3, 9, 0);

        let mut afresh = BytesMut::new();
        let path = "/bench/p12345/n987654321".to_owned();
        let request = Request::Create(create(path, &data));
        encode_request(Xid(42), &request, &mut afresh).unwrap();
        let request = Request::GetChildren(unwatched("/bench/p00009".to_owned()));
        encode_request(Xid(-3), &request, &mut afresh).unwrap();
        assert_eq!(emitted, afresh);
    }

    #[test]
    fn a_reply_of_another_length_than_the_operation_has_is_an_error() {
        let paths = Paths {
            root: "/bench".to_owned(),
        };
        let get = Template::get(&paths, 100).unwrap();
        let reply = |body_bytes| Reply {
            xid: 1,
            err: 0,
            body_bytes,
        };
        assert!(get.check(&reply(4 + 100 + 68)).is_ok());
        assert!(get.check(&reply(4 + 99 + 68)).is_err());
        let children = Template::children(&paths).unwrap();
        assert!(children.check(&reply(4)).is_ok());
        assert!(children.check(&reply(3)).is_err());
    }

    #[test]
    fn lengths_no_reply_can_have_are_errors() {
        for length in [-1, 0, 15, i32::MAX] {
            let mut input = length.to_be_bytes().to_vec();
            input.extend_from_slice(&[0; 40]);
            assert!(next_reply(&input).is_err(), "length {length}");
        }
    }

    proptest! {
        #[test]
        fn a_reply_is_found_exactly_when_it_is_there_in_full(
            xid: i32,
            err: i32,
            body in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0usize..220,
        ) {
            let frame = reply_frame(xid, err, &body);
            let cut = cut.min(frame.len());
            let found = next_reply(&frame[..cut]).unwrap();
            let expected = Reply { xid, err, body_bytes: body.len() };
            prop_assert_eq!(found, (cut == frame.len()).then_some(expected));
            prop_assert_eq!(expected.frame_bytes(), frame.len());
        }
    }
}
