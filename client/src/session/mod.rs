//! A session with an ensemble, over however many connections.

pub(crate) mod core;
pub(crate) mod lease;
pub(crate) mod line;
pub(crate) mod state;
pub(crate) mod task;
pub(crate) mod ticket;
