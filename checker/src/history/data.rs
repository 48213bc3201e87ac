//! The data of a znode: bytes, or null, which is something else.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// Written as JSON's null, as text where it is some, and else as `{"hex": "..."}`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Data(pub Option<Bytes>);

impl Data {
    pub const NULL: Self = Self(None);

    /// As `Stat::data_length` counts: null has no bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Bytes::len)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Into<Bytes>> From<T> for Data {
    fn from(bytes: T) -> Self {
        Self(Some(bytes.into()))
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("null"),
            Some(bytes) => write!(f, "{bytes:?}"),
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { hex: String },
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = self
            .0
            .as_ref()
            .map(|bytes| match std::str::from_utf8(bytes) {
                Ok(text) => Written::Text(text.to_owned()),
                Err(_) => Written::Bytes {
                    hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                },
            });
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Option::<Written>::deserialize(deserializer)? {
            None => None,
            Some(Written::Text(text)) => Some(Bytes::from(text)),
            Some(Written::Bytes { hex }) => {
                Some(from_hex(&hex).ok_or_else(|| D::Error::custom("odd or no hex digits"))?)
            }
        }))
    }
}

fn from_hex(hex: &str) -> Option<Bytes> {
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let digits = digits?;
    if digits.len() % 2 != 0 {
        return None;
    }
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}
