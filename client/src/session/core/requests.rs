//! Requests, as bytes.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_protocol::frame::write_frame;
use quorate_protocol::request::Auth;
use quorate_protocol::{OpCode, Request, RequestHeader, Xid, jute};

pub(super) fn put_request(out: &mut BytesMut, xid: Xid, op: OpCode, body: &[u8]) {
    // Its length was checked when it was made.
    let length = i32::try_from(8 + body.len()).unwrap_or(i32::MAX);
    out.reserve(12 + body.len());
    out.put_i32(length);
    out.put_i32(xid.0);
    out.put_i32(op.code());
    out.put_slice(body);
}

pub(super) fn write_request(
    out: &mut BytesMut,
    xid: Xid,
    request: &Request,
) -> Result<(), jute::Error> {
    write_frame(out, |out| {
        let op = request.op().code();
        jute::encode(&RequestHeader { xid, op }, out)?;
        request.encode(out)
    })
}

pub(super) fn write_auth(
    out: &mut BytesMut,
    scheme: &str,
    proof: &Bytes,
) -> Result<(), jute::Error> {
    let auth = Auth {
        auth_type: 0,
        scheme: Some(scheme.to_owned()),
        auth: Some(proof.clone()),
    };
    write_request(out, Xid::AUTH, &Request::Auth(auth))
}

pub(super) fn write_ping(out: &mut BytesMut) -> Result<(), jute::Error> {
    write_request(out, Xid::PING, &Request::PingWithQuestion)
}
