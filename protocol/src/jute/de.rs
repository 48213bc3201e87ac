//! The decoding half of the jute format.

use std::borrow::Cow;

use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};

use super::Error;

/// Reads jute from a slice, front to back.
#[derive(Debug)]
pub struct Deserializer<'de> {
    input: &'de [u8],
}

impl<'de> Deserializer<'de> {
    /// Starts at the front of `input`.
    pub fn new(input: &'de [u8]) -> Self {
        Self { input }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'de [u8] {
        self.input
    }

    fn take(&mut self, length: usize) -> Result<&'de [u8], Error> {
        let Some((head, tail)) = self.input.split_at_checked(length) else {
            return Err(Error::Truncated {
                needed: length,
                left: self.input.len(),
            });
        };
        self.input = tail;
        Ok(head)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some((head, tail)) = self.input.split_first_chunk() else {
            return Err(Error::Truncated {
                needed: N,
                left: self.input.len(),
            });
        };
        self.input = tail;
        Ok(*head)
    }

    fn take_i32(&mut self) -> Result<i32, Error> {
        self.take_array().map(i32::from_be_bytes)
    }

    /// A string or buffer that may not be null.
    fn take_bytes(&mut self) -> Result<&'de [u8], Error> {
        match self.take_i32()? {
            -1 => Err(Error::UnexpectedNull),
            length => {
                let length = usize::try_from(length).map_err(|_| Error::NegativeLength(length))?;
                self.take(length)
            }
        }
    }
}

/// Refuses serde types that no jute record uses.
macro_rules! unsupported {
    ($($method:ident $name:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::Unsupported($name))
        })*
    };
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Error;

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let [byte] = self.take_array()?;
        visitor.visit_bool(byte != 0)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i8(i8::from_be_bytes(self.take_array()?))
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u8(u8::from_be_bytes(self.take_array()?))
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i32(self.take_i32()?)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(i64::from_be_bytes(self.take_array()?))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match String::from_utf8_lossy(self.take_bytes()?) {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.take_bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.input.starts_with(&(-1i32).to_be_bytes()) {
            self.take_i32()?;
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// A vector; any negative count reads as an empty one, as in ZooKeeper.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = usize::try_from(self.take_i32()?).unwrap_or(0);
        visitor.visit_seq(Elements {
            deserializer: self,
            left,
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Elements {
            deserializer: self,
            left: length,
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::Unsupported("enums"))
    }

    unsupported! {
        deserialize_any "values of unknown type";
        deserialize_i16 "i16";
        deserialize_u16 "u16";
        deserialize_u32 "u32";
        deserialize_u64 "u64";
        deserialize_f32 "f32";
        deserialize_f64 "f64";
        deserialize_char "char";
        deserialize_map "maps";
        deserialize_identifier "identifiers";
        deserialize_ignored_any "values of unknown type";
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The fields of a record or the elements of a vector.
struct Elements<'a, 'de> {
    deserializer: &'a mut Deserializer<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.deserializer).map(Some)
    }

    /// An announced count is a stranger's word: it never sizes an allocation beyond the bytes that
    /// are really there.
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.deserializer.input.len()))
    }
}
