//! What the counter and the number share: an integer in a znode, in one of several formats.

use quorate_client::Client;

use crate::Error;
use crate::cas::Cell;

/// How an integer is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Decimal digits.
    Text,
    /// 4 bytes, big-endian.
    Bytes4,
    /// 8 bytes, big-endian.
    Bytes8,
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "an integer in digits",
            Self::Bytes4 => "an integer of 4 bytes",
            Self::Bytes8 => "an integer of 8 bytes",
        }
    }

    /// No data is 0, as in the libraries it shares the format with.
    pub(crate) fn decode(self, data: &[u8]) -> Option<i64> {
        if data.is_empty() {
            return Some(0);
        }
        match self {
            Self::Text => std::str::from_utf8(data).ok()?.trim().parse().ok(),
            Self::Bytes4 => Some(i32::from_be_bytes(data.try_into().ok()?).into()),
            Self::Bytes8 => Some(i64::from_be_bytes(data.try_into().ok()?)),
        }
    }

    /// `None`: out of its range.
    pub(crate) fn encode(self, value: i64) -> Option<Vec<u8>> {
        Some(match self {
            Self::Text => value.to_string().into_bytes(),
            Self::Bytes4 => i32::try_from(value).ok()?.to_be_bytes().to_vec(),
            Self::Bytes8 => value.to_be_bytes().to_vec(),
        })
    }
}

/// The integer.
#[derive(Clone, Debug)]
pub(crate) struct Integer {
    pub(crate) cell: Cell,
    pub(crate) layout: Layout,
}

impl Integer {
    pub(crate) fn new(client: &Client, path: &str, layout: Layout) -> Self {
        let cell = Cell::new(client, path);
        Self { cell, layout }
    }

    /// `None` if there is no such znode.
    pub(crate) async fn get(&self) -> Result<Option<i64>, Error> {
        let read = self.cell.read().await?;
        read.map(|(data, _)| self.decode(&data)).transpose()
    }

    pub(crate) fn decode(&self, data: &[u8]) -> Result<i64, Error> {
        self.layout.decode(data).ok_or_else(|| Error::Foreign {
            path: self.cell.path().to_owned(),
            found: format!("{} bytes that are none", data.len()),
            wanted: self.layout.name(),
        })
    }

    pub(crate) fn encode(&self, value: i64) -> Result<Vec<u8>, Error> {
        self.layout.encode(value).ok_or_else(|| Error::Unwritable {
            path: self.cell.path().to_owned(),
            what: format!("{value} is not {}", self.layout.name()),
        })
    }

    pub(crate) async fn set(&self, value: i64) -> Result<(), Error> {
        let data = self.encode(value)?;
        self.cell.put(&data).await.map(drop)
    }

    /// Answers the new value.
    pub(crate) async fn add(&self, change: i64) -> Result<i64, Error> {
        self.change(change, |value| value.checked_add(change)).await
    }

    /// Answers the new value.
    pub(crate) async fn subtract(&self, change: i64) -> Result<i64, Error> {
        // For the error alone: the least number has no counterpart.
        let negated = change.saturating_neg();
        self.change(negated, |value| value.checked_sub(change))
            .await
    }

    async fn change(&self, change: i64, apply: impl Fn(i64) -> Option<i64>) -> Result<i64, Error> {
        let updated = self.cell.update(|data| {
            let value = data.map_or(Ok(0), |data| self.decode(data))?;
            let changed = apply(value).and_then(|changed| {
                let data = self.layout.encode(changed)?;
                Some((Some(data), changed))
            });
            changed.ok_or_else(|| Error::Overflow {
                path: self.cell.path().to_owned(),
                value,
                change,
            })
        });
        Ok(updated.await?.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_survives_each_layout_that_has_room_for_it() {
        for layout in [Layout::Text, Layout::Bytes4, Layout::Bytes8] {
            for value in [0, 1, -1, 7_000, i32::MAX.into(), i32::MIN.into()] {
                let data = layout.encode(value).unwrap();
                assert_eq!(layout.decode(&data), Some(value), "{layout:?}");
            }
            let large = layout.encode(i64::MAX);
            assert_eq!(large.is_none(), layout == Layout::Bytes4);
        }
        assert_eq!(Layout::Text.encode(-12).unwrap(), b"-12");
        assert_eq!(Layout::Bytes4.encode(258).unwrap(), [0, 0, 1, 2]);
        assert_eq!(Layout::Bytes8.encode(-1).unwrap(), [0xff; 8]);
    }

    #[test]
    fn no_data_is_zero_and_other_data_is_none() {
        for layout in [Layout::Text, Layout::Bytes4, Layout::Bytes8] {
            assert_eq!(layout.decode(b""), Some(0));
            assert_eq!(layout.decode(b"1.5"), None);
        }
        assert_eq!(Layout::Text.decode(b"17\n"), Some(17));
        assert_eq!(Layout::Text.decode(b"9223372036854775808"), None);
    }
}
