//! What can go wrong while measuring. Every variant ends the command: a figure from a run with an
//! error in it is not a figure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use quorate_protocol::{ErrorCode, jute};

#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("cannot connect to {server}: {source}; is a server running there?")]
    Connect {
        server: SocketAddr,
        source: std::io::Error,
    },
    #[error("{doing}: {source}")]
    Io {
        doing: &'static str,
        source: std::io::Error,
    },
    #[error("{doing} {path}: {source}")]
    File {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the server refused to open a session")]
    NoSession,
    #[error("the server closed a connection; its log says why")]
    Closed,
    #[error("no reply for {seconds} s with requests outstanding")]
    Stalled { seconds: u64 },
    #[error("a reply has xid {actual}, the oldest request outstanding has {expected}")]
    UnexpectedXid { expected: i32, actual: i32 },
    #[error("a reply came with no request outstanding (xid {xid})")]
    Unasked { xid: i32 },
    #[error("a reply to {op} has {actual} bytes, which no correct one has")]
    ReplyLength { op: &'static str, actual: usize },
    #[error("a reply announces {announced} bytes; the limit is {limit}")]
    FrameLength { announced: i32, limit: usize },
    #[error(transparent)]
    Jute(#[from] jute::Error),
    #[error("{doing} was refused: {}", code_name(*code))]
    Refused { doing: &'static str, code: i32 },
    #[error("the run had errors: {}", codes(.0))]
    Failed(BTreeMap<i32, u64>),
    #[error("{doing} over HTTP/2: {source}")]
    Http2 {
        doing: &'static str,
        source: h2::Error,
    },
    #[error("etcd refused {doing}: gRPC status {status}, {message}")]
    Grpc {
        doing: &'static str,
        status: String,
        message: String,
    },
    #[error("etcd's reply to {doing} cannot be right: {why}")]
    EtcdReply {
        doing: &'static str,
        why: &'static str,
    },
    #[error("{system}, {cell}: {source}")]
    Cell {
        system: &'static str,
        cell: String,
        source: Box<BenchError>,
    },
    #[error("two contenders held one lock")]
    LockHeldTwice,
    #[error("no server of the ensemble says that it leads; its logs say why")]
    NoLeader,
    #[error("{0}")]
    Usage(&'static str),
    #[error("{server} ended early ({status}); the end of its output: {output}")]
    ServerEnded {
        server: &'static str,
        status: String,
        output: String,
    },
    #[error("no answer within {seconds} s")]
    NotReady { seconds: u64 },
    #[error("{server} does not serve ({source}); the end of its output: {output}")]
    NotServing {
        server: &'static str,
        source: Box<BenchError>,
        output: String,
    },
    #[error("process {pid} does not show {field}; is it running, and ours to look at?")]
    ProcessUnknown { pid: u32, field: &'static str },
}

impl BenchError {
    /// Whether servers that are otherwise correct may cause it, when the machine is too busy for
    /// them to keep in touch: a run may be repeated after it.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Cell { source, .. } => source.is_outage(),
            Self::Connect { .. }
            | Self::Io { .. }
            | Self::NoSession
            | Self::Closed
            | Self::Stalled { .. }
            | Self::Refused { .. }
            | Self::Failed(_)
            | Self::Http2 { .. }
            | Self::Grpc { .. }
            | Self::NoLeader => true,
            _ => false,
        }
    }

    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// An error code as people know it; unknown ones as numbers.
pub(crate) fn code_name(code: i32) -> String {
    ErrorCode::from_code(code).map_or_else(|| code.to_string(), |known| format!("{known:?}"))
}

fn codes(errors: &BTreeMap<i32, u64>) -> String {
    let shown: Vec<String> = errors
        .iter()
        .map(|(code, count)| format!("{count} x {}", code_name(*code)))
        .collect();
    shown.join(", ")
}
