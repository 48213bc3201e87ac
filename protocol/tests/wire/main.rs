//! The wire format, as seen from outside: every record there and back, cut short and bent, and the
//! bytes that real servers and clients sent.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails fails the test that called it"
)]

mod bytes_of_real_servers;
mod codes;
mod frames;
mod handshakes;
mod malformed;
mod round_trips;
mod strategies;
mod types;

use bytes::BytesMut;
use quorate_protocol::jute;

/// What `encode` appends.
fn encoded<E: std::fmt::Debug>(encode: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(&mut out).unwrap();
    out.to_vec()
}

/// The jute encoding of a record.
fn jute_of<T: serde::Serialize>(record: &T) -> Vec<u8> {
    encoded(|out| jute::encode(record, out))
}
