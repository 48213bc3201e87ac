//! Jute, ZooKeeper's record encoding, as a serde format.
//!
//! Integers are big-endian; a record is its fields one after another, without names, tags or
//! padding. Strings, buffers and vectors start with an `i32` length, where -1 means null: `Option`
//! of such a type maps to it, and a vector that cannot be null reads any negative count as empty,
//! as ZooKeeper does. `bool` is one byte, any non-zero value is true.
//!
//! Strings that are not UTF-8 decode with U+FFFD in place of what is malformed, exactly as they do
//! in ZooKeeper, whose path rules then refuse that character. Bytes after the end of a record are
//! not an error: newer clients append fields.

mod de;
mod error;
mod ser;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

pub use de::Deserializer;
pub use error::Error;
pub use ser::Serializer;

/// Appends the encoding of `value` to `out`.
///
/// # Errors
///
/// [`Error::TooLong`] when a string, buffer or vector has more than `i32::MAX` elements, and
/// [`Error::Unsupported`] for serde types jute has no encoding for (maps, floats, enums). `out` may
/// then hold a partial encoding.
///
/// ```
/// use bytes::BytesMut;
/// let mut out = BytesMut::new();
/// quorate_protocol::jute::encode(&("/a", -1i32), &mut out).unwrap();
/// assert_eq!(&out[..], b"\0\0\0\x02/a\xff\xff\xff\xff");
/// ```
pub fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), Error> {
    value.serialize(&mut Serializer::new(out))
}

/// Decodes one record from the front of `input` and ignores what follows it.
///
/// # Errors
///
/// Any [`Error`]: the input ends early, or a length in it is impossible.
pub fn decode<'de, T: Deserialize<'de>>(input: &'de [u8]) -> Result<T, Error> {
    T::deserialize(&mut Deserializer::new(input))
}

/// Decodes one record from the front of `input`, and moves `input` past it.
///
/// # Errors
///
/// As [`decode`]; `input` is then left where it was.
pub fn decode_next<'de, T: Deserialize<'de>>(input: &mut &'de [u8]) -> Result<T, Error> {
    let mut deserializer = Deserializer::new(input);
    let value = T::deserialize(&mut deserializer)?;
    *input = deserializer.rest();
    Ok(value)
}
