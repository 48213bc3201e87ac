//! One verb, one file.

pub(crate) mod dev;
pub(crate) mod serve;
