//! The first frame in each direction, which has no header.
//!
//! The read-only byte at the end was added later: old clients leave it out, and some of them check
//! the length of the answer. So the answer carries the byte exactly when the request did.

use std::fmt;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use crate::jute;
use crate::types::{Password, SessionId, Zxid};

/// Opens a connection, for a new session or to resume one. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// 0. ZooKeeper never looks at it.
    pub protocol_version: i32,
    /// The highest zxid the client has seen; 0 for a new client.
    pub last_zxid_seen: Zxid,
    /// Milliseconds asked for; the server answers with what it grants.
    pub timeout_ms: i32,
    /// The session to resume; `None` (0 on the wire) asks for a new one.
    pub session_id: Option<SessionId>,
    /// As sent: any length, or null. It opens a session only if it is the 16 bytes once handed out.
    pub password: Option<bytes::Bytes>,
    /// Whether a read-only server will do; `None` when the byte was left out.
    pub read_only: Option<bool>,
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("protocol_version", &self.protocol_version)
            .field("last_zxid_seen", &self.last_zxid_seen)
            .field("timeout_ms", &self.timeout_ms)
            .field("session_id", &self.session_id)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct RequestRecord {
    protocol_version: i32,
    last_zxid_seen: Zxid,
    timeout_ms: i32,
    session_id: i64,
    password: Option<bytes::Bytes>,
}

impl ConnectRequest {
    /// Decodes the body of the first frame.
    ///
    /// # Errors
    ///
    /// Any [`jute::Error`]; the connection is then closed without an answer.
    pub fn decode(mut body: &[u8]) -> Result<Self, jute::Error> {
        let record: RequestRecord = jute::decode_next(&mut body)?;
        Ok(Self {
            protocol_version: record.protocol_version,
            last_zxid_seen: record.last_zxid_seen,
            timeout_ms: record.timeout_ms,
            session_id: SessionId::new(record.session_id),
            password: record.password,
            read_only: body.first().map(|byte| *byte != 0),
        })
    }

    /// Appends the body of the first frame.
    ///
    /// # Errors
    ///
    /// [`jute::Error::TooLong`] for a password no frame can carry.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), jute::Error> {
        let record = RequestRecord {
            protocol_version: self.protocol_version,
            last_zxid_seen: self.last_zxid_seen,
            timeout_ms: self.timeout_ms,
            session_id: self.session_id.map_or(0, SessionId::get),
            password: self.password.clone(),
        };
        jute::encode(&record, out)?;
        if let Some(read_only) = self.read_only {
            out.put_u8(u8::from(read_only));
        }
        Ok(())
    }
}

/// Answers a [`ConnectRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// 0, whatever the client sent.
    pub protocol_version: i32,
    /// Milliseconds granted; 0 says that the session is unknown or has expired.
    pub timeout_ms: i32,
    /// The session granted; `None` (0 on the wire) when there is none.
    pub session_id: Option<SessionId>,
    /// What resumes the session on another connection.
    pub password: Password,
    /// `Some` exactly when the request had the byte.
    pub read_only: Option<bool>,
}

#[derive(Serialize, Deserialize)]
struct ResponseRecord {
    protocol_version: i32,
    timeout_ms: i32,
    session_id: i64,
    password: Password,
}

impl ConnectResponse {
    /// What a client is told whose session does not exist (any more), or whose password is wrong.
    /// Each client library looks at another field, so all of them say it.
    pub fn expired(read_only: Option<bool>) -> Self {
        Self {
            protocol_version: 0,
            timeout_ms: 0,
            session_id: None,
            password: Password::default(),
            read_only: read_only.map(|_| false),
        }
    }

    /// Appends the body: 36 bytes, or 37 with the read-only byte.
    ///
    /// # Errors
    ///
    /// None in practice: every field has a fixed length.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), jute::Error> {
        let record = ResponseRecord {
            protocol_version: self.protocol_version,
            timeout_ms: self.timeout_ms,
            session_id: self.session_id.map_or(0, SessionId::get),
            password: self.password,
        };
        jute::encode(&record, out)?;
        if let Some(read_only) = self.read_only {
            out.put_u8(u8::from(read_only));
        }
        Ok(())
    }

    /// Decodes the body of the server's first frame.
    ///
    /// # Errors
    ///
    /// Any [`jute::Error`], among them a password that is not 16 bytes long.
    pub fn decode(mut body: &[u8]) -> Result<Self, jute::Error> {
        let record: ResponseRecord = jute::decode_next(&mut body)?;
        Ok(Self {
            protocol_version: record.protocol_version,
            timeout_ms: record.timeout_ms,
            session_id: SessionId::new(record.session_id),
            password: record.password,
            read_only: body.first().map(|byte| *byte != 0),
        })
    }
}
