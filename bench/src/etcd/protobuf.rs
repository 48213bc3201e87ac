//! Protocol Buffers' wire format, as far as etcd's messages use it.
//!
//! Whatever arrives is bounded by the message it is in; fields that are not known are skipped.

/// A field's value; one of a fixed width (never used by etcd's messages) is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A number; 0, the default, if it is none.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Varint(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    /// Bytes or a message; empty, the default, if it is neither.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Varint(_) => &[],
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// What is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The fields of a message, in the order in which they stand.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).map_err(|_| Malformed)?)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err(Malformed),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Appends a number, unless it is the default.
pub(super) fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    if number != 0 {
        put_varint(out, field << 3);
        put_varint(out, number);
    }
}

/// Appends bytes, unless they are empty.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_message(out, field, bytes);
    }
}

/// Appends a message, which is there also when all in it is at its default.
pub(super) fn put_message(out: &mut Vec<u8>, field: u64, message: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_specifications_examples_are_encoded_as_it_says() {
        // Protocol Buffers' "Encoding" page: 150 as field 1, "testing" as field 2, and a message
        // with the former as field 3.
        let mut inner = Vec::new();
        put_number(&mut inner, 1, 150);
        assert_eq!(inner, [0x08, 0x96, 0x01]);
        let mut out = Vec::new();
        put_bytes(&mut out, 2, b"testing");
        put_message(&mut out, 3, &inner);
        let expected = b"\x12\x07testing\x1a\x03\x08\x96\x01";
        assert_eq!(out, expected);
        let fields: Result<Vec<_>, _> = Fields::of(&out).collect();
        let expected = vec![(2, Value::Bytes(b"testing")), (3, Value::Bytes(&inner))];
        assert_eq!(fields, Ok(expected));
    }

    #[test]
    fn a_message_that_ends_within_a_field_is_refused() {
        for message in [
            &b"\x08"[..],
            b"\x12\x05abc",
            b"\x08\xff\xff",
            b"\x0b\x01",
            &[0x80; 11],
        ] {
            let last = Fields::of(message).last();
            assert_eq!(last, Some(Err(Malformed)), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_put_is_read(field in 1u64..1_000, number in 1u64.., bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_number(&mut out, field, number);
            put_message(&mut out, field, &bytes);
            let fields: Result<Vec<_>, _> = Fields::of(&out).collect();
            let expected = vec![(field, Value::Varint(number)), (field, Value::Bytes(&bytes))];
            prop_assert_eq!(fields, Ok(expected));
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let fields = Fields::of(&bytes).count();
            prop_assert!(fields <= bytes.len());
        }
    }
}
