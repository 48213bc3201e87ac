//! One verb, one file.

pub(crate) mod check;
pub(crate) mod dev;
mod files;
pub(crate) mod log;
pub(crate) mod serve;
