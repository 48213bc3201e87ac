//! multi and multiRead: several operations in one request.
//!
//! Each operation is a header (type, done, err) and its ordinary record; a header with `done` set
//! ends the list. A failed multi is a reply without an error, whose results are all errors: 0 for
//! what came before the failure, then the error, then `RuntimeInconsistency`.

use std::borrow::Cow;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::error_code::ErrorCode;
use crate::jute;
use crate::op::OpCode;
use crate::request::{Check, Create, CreateTtl, Delete, SetData, Watched};
use crate::types::Stat;

#[derive(Clone, Copy, Serialize, Deserialize)]
struct MultiHeader {
    op: i32,
    done: bool,
    err: i32,
}

impl MultiHeader {
    const END: Self = Self {
        op: -1,
        done: true,
        err: -1,
    };

    fn request(op: OpCode) -> Self {
        Self {
            op: op.code(),
            done: false,
            err: -1,
        }
    }

    fn result(op: OpCode) -> Self {
        Self {
            op: op.code(),
            done: false,
            err: 0,
        }
    }
}

/// A write or a condition inside a multi.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MultiOp {
    /// Answered with the path only.
    Create(Create),
    /// Answered with path and stat.
    Create2(Create),
    /// Answered with path and stat.
    CreateContainer(Create),
    /// Answered with path and stat.
    CreateTtl(CreateTtl),
    /// Answered without a body.
    Delete(Delete),
    /// Answered with the stat.
    SetData(SetData),
    /// Answered without a body.
    Check(Check),
}

/// A read inside a multiRead. Its watch flag means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOp {
    /// Answered with data and stat.
    GetData(Watched),
    /// Answered with the names.
    GetChildren(Watched),
}

/// The result of one operation in a multi or multiRead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiResult<'a> {
    /// Of a plain create: some clients know no other result type.
    Create {
        /// The path created, sequence number included.
        path: Cow<'a, str>,
    },
    /// Of create2, createContainer and createTTL.
    Create2 {
        /// The path created, sequence number included.
        path: Cow<'a, str>,
        /// The znode as it was created.
        stat: Stat,
    },
    /// The znode is gone.
    Delete,
    /// The znode as this operation left it, not as later ones did.
    SetData(Stat),
    /// The condition held.
    Check,
    /// Of getData in a multiRead.
    GetData {
        /// `None` is null, which is not the same as empty.
        data: Option<Cow<'a, [u8]>>,
        /// The znode's stat.
        stat: Stat,
    },
    /// Of getChildren in a multiRead.
    GetChildren {
        /// Names without the parent's path.
        children: Vec<Cow<'a, str>>,
    },
    /// `None` stands for 0: undone, because a later operation failed.
    Error(Option<ErrorCode>),
}

/// An operation that may not stand where it stands.
fn not_allowed(op: i32) -> jute::Error {
    jute::Error::Invalid(format!("operation {op} is not allowed inside a multi"))
}

/// Walks a list of operations, and hands each to `decode_op` with its code.
fn decode_ops<'de, T>(
    mut body: &'de [u8],
    decode_op: impl Fn(i32, &mut &'de [u8]) -> Result<T, jute::Error>,
) -> Result<Vec<T>, jute::Error> {
    let mut ops = Vec::new();
    loop {
        let header: MultiHeader = jute::decode_next(&mut body)?;
        if header.done {
            return Ok(ops);
        }
        ops.push(decode_op(header.op, &mut body)?);
    }
}

pub(crate) fn decode_writes(body: &[u8]) -> Result<Vec<MultiOp>, jute::Error> {
    decode_ops(body, |op, body| {
        Ok(match OpCode::from_code(op) {
            Some(OpCode::Create) => MultiOp::Create(jute::decode_next(body)?),
            Some(OpCode::Create2) => MultiOp::Create2(jute::decode_next(body)?),
            Some(OpCode::CreateContainer) => MultiOp::CreateContainer(jute::decode_next(body)?),
            Some(OpCode::CreateTtl) => MultiOp::CreateTtl(jute::decode_next(body)?),
            Some(OpCode::Delete) => MultiOp::Delete(jute::decode_next(body)?),
            Some(OpCode::SetData) => MultiOp::SetData(jute::decode_next(body)?),
            Some(OpCode::Check) => MultiOp::Check(jute::decode_next(body)?),
            _ => return Err(not_allowed(op)),
        })
    })
}

pub(crate) fn decode_reads(body: &[u8]) -> Result<Vec<ReadOp>, jute::Error> {
    decode_ops(body, |op, body| {
        Ok(match OpCode::from_code(op) {
            Some(OpCode::GetData) => ReadOp::GetData(jute::decode_next(body)?),
            Some(OpCode::GetChildren) => ReadOp::GetChildren(jute::decode_next(body)?),
            _ => return Err(not_allowed(op)),
        })
    })
}

pub(crate) fn encode_writes(ops: &[MultiOp], out: &mut BytesMut) -> Result<(), jute::Error> {
    for op in ops {
        match op {
            MultiOp::Create(r) => encode_op(OpCode::Create, r, out)?,
            MultiOp::Create2(r) => encode_op(OpCode::Create2, r, out)?,
            MultiOp::CreateContainer(r) => encode_op(OpCode::CreateContainer, r, out)?,
            MultiOp::CreateTtl(r) => encode_op(OpCode::CreateTtl, r, out)?,
            MultiOp::Delete(r) => encode_op(OpCode::Delete, r, out)?,
            MultiOp::SetData(r) => encode_op(OpCode::SetData, r, out)?,
            MultiOp::Check(r) => encode_op(OpCode::Check, r, out)?,
        }
    }
    jute::encode(&MultiHeader::END, out)
}

pub(crate) fn encode_reads(ops: &[ReadOp], out: &mut BytesMut) -> Result<(), jute::Error> {
    for op in ops {
        match op {
            ReadOp::GetData(r) => encode_op(OpCode::GetData, r, out)?,
            ReadOp::GetChildren(r) => encode_op(OpCode::GetChildren, r, out)?,
        }
    }
    jute::encode(&MultiHeader::END, out)
}

fn encode_op<T: Serialize>(op: OpCode, record: &T, out: &mut BytesMut) -> Result<(), jute::Error> {
    jute::encode(&MultiHeader::request(op), out)?;
    jute::encode(record, out)
}

pub(crate) fn encode_results(
    results: &[MultiResult<'_>],
    out: &mut BytesMut,
) -> Result<(), jute::Error> {
    for result in results {
        let header = |op, out: &mut BytesMut| jute::encode(&MultiHeader::result(op), out);
        match result {
            MultiResult::Create { path } => {
                header(OpCode::Create, out)?;
                jute::encode(path, out)?;
            }
            MultiResult::Create2 { path, stat } => {
                header(OpCode::Create2, out)?;
                jute::encode(&(path, stat), out)?;
            }
            MultiResult::Delete => header(OpCode::Delete, out)?,
            MultiResult::SetData(stat) => {
                header(OpCode::SetData, out)?;
                jute::encode(stat, out)?;
            }
            MultiResult::Check => header(OpCode::Check, out)?,
            MultiResult::GetData { data, stat } => {
                header(OpCode::GetData, out)?;
                jute::encode(&(Buffer(data.as_deref()), stat), out)?;
            }
            MultiResult::GetChildren { children } => {
                header(OpCode::GetChildren, out)?;
                jute::encode(children, out)?;
            }
            MultiResult::Error(error) => {
                let err = error.map_or(0, ErrorCode::code);
                let header = MultiHeader {
                    op: -1,
                    done: false,
                    err,
                };
                jute::encode(&(header, err), out)?;
            }
        }
    }
    jute::encode(&MultiHeader::END, out)
}

pub(crate) fn decode_results(mut body: &[u8]) -> Result<Vec<MultiResult<'static>>, jute::Error> {
    let mut results = Vec::new();
    loop {
        let header: MultiHeader = jute::decode_next(&mut body)?;
        if header.done {
            return Ok(results);
        }
        results.push(decode_result(header.op, &mut body)?);
    }
}

fn decode_result(op: i32, body: &mut &[u8]) -> Result<MultiResult<'static>, jute::Error> {
    Ok(match OpCode::from_code(op) {
        _ if op == -1 => {
            let err: i32 = jute::decode_next(body)?;
            let unknown = || jute::Error::Invalid(format!("error code {err} is unknown"));
            match err {
                0 => MultiResult::Error(None),
                err => MultiResult::Error(Some(ErrorCode::from_code(err).ok_or_else(unknown)?)),
            }
        }
        Some(OpCode::Create) => MultiResult::Create {
            path: Cow::Owned(jute::decode_next(body)?),
        },
        Some(OpCode::Create2) => {
            let (path, stat): (String, Stat) = jute::decode_next(body)?;
            MultiResult::Create2 {
                path: Cow::Owned(path),
                stat,
            }
        }
        Some(OpCode::Delete) => MultiResult::Delete,
        Some(OpCode::SetData) => MultiResult::SetData(jute::decode_next(body)?),
        Some(OpCode::Check) => MultiResult::Check,
        Some(OpCode::GetData) => {
            let (data, stat): (Option<bytes::Bytes>, Stat) = jute::decode_next(body)?;
            MultiResult::GetData {
                data: data.map(|data| Cow::Owned(data.to_vec())),
                stat,
            }
        }
        Some(OpCode::GetChildren) => {
            let children: Vec<String> = jute::decode_next(body)?;
            MultiResult::GetChildren {
                children: children.into_iter().map(Cow::Owned).collect(),
            }
        }
        _ => return Err(not_allowed(op)),
    })
}

/// A borrowed buffer that may be null.
pub(crate) struct Buffer<'a>(pub(crate) Option<&'a [u8]>);

impl Serialize for Buffer<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(bytes) => serializer.serialize_bytes(bytes),
            None => serializer.serialize_none(),
        }
    }
}
