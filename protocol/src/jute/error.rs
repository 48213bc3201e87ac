//! Why bytes are no jute record, or a value has no jute encoding.

use std::fmt::Display;

/// What went wrong while encoding or decoding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ended inside a record.
    #[error("the record ends early: {needed} more bytes expected, {left} left")]
    Truncated {
        /// The bytes that the next item takes.
        needed: usize,
        /// The bytes that are there.
        left: usize,
    },
    /// A string or buffer length below -1.
    #[error("length {0} is negative")]
    NegativeLength(i32),
    /// A null where the record allows none.
    #[error("null where a value is required")]
    UnexpectedNull,
    /// More elements than an `i32` can count.
    #[error("{0} elements do not fit a jute length")]
    TooLong(usize),
    /// A serde type without a jute encoding.
    #[error("jute has no encoding for {0}")]
    Unsupported(&'static str),
    /// A value that decodes but that its type refuses.
    #[error("{0}")]
    Invalid(String),
}

impl serde::ser::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::Invalid(message.to_string())
    }
}

impl serde::de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::Invalid(message.to_string())
    }
}
