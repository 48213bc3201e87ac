//! ConnectRequest and ConnectResponse, and the length prefix of a frame.

use super::Body;

/// Longer than any conversation takes.
const SESSION_MS: i32 = 30_000;

/// The answer to a ConnectRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) timeout_ms: i32,
    pub(crate) session: i64,
    pub(crate) password: Vec<u8>,
    pub(crate) length: usize,
    pub(crate) version: i32,
    pub(crate) read_only: Option<u8>,
}

/// A ConnectRequest; the default is what the official clients send for a new session.
#[derive(Clone, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) version: i32,
    pub(crate) last_zxid_seen: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) session: i64,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) read_only: Option<bool>,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Self {
            version: 0,
            last_zxid_seen: 0,
            timeout_ms: SESSION_MS,
            session: 0,
            password: Some(&[0; 16]),
            read_only: Some(false),
        }
    }
}

impl Hello<'_> {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut body = Body::default()
            .int(self.version)
            .long(self.last_zxid_seen)
            .int(self.timeout_ms)
            .long(self.session);
        body = match self.password {
            Some(password) => body.bytes(password),
            None => body.int(-1),
        };
        if let Some(read_only) = self.read_only {
            body = body.bool(read_only);
        }
        frame(&body.0)
    }
}

pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    Body::default().bytes(body).0
}
