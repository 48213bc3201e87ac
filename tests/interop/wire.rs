//! ZooKeeper's client protocol by hand, as a second opinion on the protocol crate.
//!
//! A [`Conversation`] talks raw frames to one server and writes down what it saw, with everything
//! left out that may differ between two correct servers: zxids become names (`z1` is the first write
//! of the conversation) once their order has been checked, sessions become numbers, times become
//! `now`. It shares no code with the server under test, and must not come to.

mod connection;
mod conversation;
mod describe;
mod hello;
mod request;

pub(crate) use connection::{Connection, UNEXPECTED};
pub(crate) use conversation::Conversation;
pub(crate) use hello::{Hello, frame};
pub(crate) use request::*;
