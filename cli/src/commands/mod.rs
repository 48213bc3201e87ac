//! One verb, one file.

pub(crate) mod serve;
