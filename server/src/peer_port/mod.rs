//! Placeholder: the transport between servers.
use bytes::Bytes;
use std::time::Duration;
#[derive(Clone, Debug)]
pub struct Peers;
#[derive(Debug, thiserror::Error)]
#[error("no peers")]
pub struct PeerError;
impl PeerError {
    pub fn is_unsent(&self) -> bool {
        true
    }
}
pub struct ForwardStream;
pub enum Question {
    Round {
        touched: Vec<i64>,
    },
    Digests,
    Contradict {
        zxid: i64,
        digest: u64,
    },
    Reconfig {
        joining: Option<String>,
        leaving: Option<String>,
        members: Option<String>,
        version: i64,
        identities: Vec<(String, String)>,
        skip_acl: bool,
        patience_ms: u32,
    },
}
pub enum Answer {
    Confirmed { index: u64 },
    Digests { at: Vec<(i64, u64)> },
    Done,
    Reconfigured { zxid: i64 },
    NotReconfigured { code: i32, reason: String },
    NotLeader,
    Refused { reason: String },
}
impl Peers {
    pub async fn ask(&self, _: u64, _: Question, _: Duration) -> Result<Answer, PeerError> {
        Err(PeerError)
    }
    pub async fn open_forward(
        &self,
        _: u64,
        _: u64,
        _: Duration,
    ) -> Result<ForwardStream, PeerError> {
        Err(PeerError)
    }
}
impl ForwardStream {
    pub async fn send(&mut self, _: &[Bytes]) -> Result<(), PeerError> {
        Err(PeerError)
    }
    pub async fn ended(&mut self) -> PeerError {
        PeerError
    }
}
