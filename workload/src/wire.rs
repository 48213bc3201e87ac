//! The words of a history as the protocol's records, and replies back into them.

use std::sync::Arc;

use quorate_checker::history::{CreateKind, Data, PartResult, Path, Reply, Request, WatchList};
use quorate_protocol::multi::{MultiOp, MultiResult, ReadOp};
use quorate_protocol::{
    AclEntry, CreateMode, ErrorCode, OpCode, Request as Wire, Response, Stat, Zxid, jute, request,
};

/// What a request is on the wire. Of some there are an older and a newer form.
///
/// `None` for what has no record of its own: proofs of identity, whose proof a history does not
/// have, and [`Request::Other`].
pub(crate) fn to_wire(request: &Request, is_old: bool) -> Option<Wire> {
    let watched = |path: &Path, watch: bool| request::Watched {
        path: path.to_string(),
        watch,
    };
    let path_only = |path: &Path| request::PathOnly {
        path: path.to_string(),
    };
    Some(match request {
        Request::Create { .. } => match part(request)? {
            MultiOp::Create(it) => Wire::Create(it),
            MultiOp::Create2(it) => Wire::Create2(it),
            MultiOp::CreateContainer(it) => Wire::CreateContainer(it),
            MultiOp::CreateTtl(it) => Wire::CreateTtl(it),
            _ => return None,
        },
        Request::Delete { path, version } => Wire::Delete(request::Delete {
            path: path.to_string(),
            version: *version,
        }),
        Request::SetData {
            path,
            data,
            version,
        } => Wire::SetData(request::SetData {
            path: path.to_string(),
            data: data.0.clone(),
            version: *version,
        }),
        Request::SetAcl { path, acl, version } => Wire::SetAcl(request::SetAcl {
            path: path.to_string(),
            acl: acl.clone(),
            version: *version,
        }),
        Request::Check { path, version } => Wire::Check(request::Check {
            path: path.to_string(),
            version: *version,
        }),
        Request::Multi(parts) => Wire::Multi(parts.iter().map(part).collect::<Option<_>>()?),
        Request::GetData { path, watch } => Wire::GetData(watched(path, *watch)),
        Request::Exists { path, watch } => Wire::Exists(watched(path, *watch)),
        Request::GetChildren { path, watch } if is_old => Wire::GetChildren(watched(path, *watch)),
        Request::GetChildren { path, watch } => Wire::GetChildren2(watched(path, *watch)),
        Request::GetAcl { path } => Wire::GetAcl(path_only(path)),
        Request::CountDescendants { path } => Wire::GetAllChildrenNumber(path_only(path)),
        Request::GetEphemerals { prefix } => Wire::GetEphemerals(request::GetEphemerals {
            prefix: Some(prefix.to_string()),
        }),
        Request::MultiRead(parts) => {
            let read = |part: &Request| match part {
                Request::GetData { path, watch } => Some(ReadOp::GetData(watched(path, *watch))),
                Request::GetChildren { path, watch } => {
                    Some(ReadOp::GetChildren(watched(path, *watch)))
                }
                _ => None,
            };
            Wire::MultiRead(parts.iter().map(read).collect::<Option<_>>()?)
        }
        Request::Sync { path } => Wire::Sync(path_only(path)),
        Request::Ping if is_old => Wire::Ping,
        Request::Ping => Wire::PingWithQuestion,
        Request::AddWatch { path, recursive } => Wire::AddWatch(request::AddWatch {
            path: path.to_string(),
            mode: i32::from(*recursive),
        }),
        Request::RemoveWatches { path, which } => Wire::RemoveWatches(request::WatchesOfType {
            path: path.to_string(),
            watcher_type: match which {
                WatchList::Children => 1,
                WatchList::Data => 2,
                WatchList::Any => 3,
                WatchList::Persistent => 4,
                WatchList::Recursive => 5,
            },
        }),
        Request::SetWatches {
            since,
            data,
            exist,
            child,
            persistent,
            recursive,
        } => {
            let strings = |paths: &[Path]| paths.iter().map(ToString::to_string).collect();
            let relative_zxid = Zxid(*since);
            let (data, exist, child) = (strings(data), strings(exist), strings(child));
            match is_old && persistent.is_empty() && recursive.is_empty() {
                true => Wire::SetWatches(request::SetWatches {
                    relative_zxid,
                    data,
                    exist,
                    child,
                }),
                false => Wire::SetWatches2(request::SetWatches2 {
                    relative_zxid,
                    data,
                    exist,
                    child,
                    persistent: strings(persistent),
                    persistent_recursive: strings(recursive),
                }),
            }
        }
        Request::CloseSession => Wire::CloseSession,
        Request::Authenticate { .. } | Request::Other { .. } => return None,
    })
}

/// One part of a multi, or a create of any kind.
fn part(request: &Request) -> Option<MultiOp> {
    Some(match request {
        Request::Create {
            path,
            data,
            kind,
            acl,
            with_stat,
        } => {
            let mode = mode_of(*kind);
            let path = path.to_string();
            let data = data.0.clone();
            let acl = acl.clone().unwrap_or_else(|| vec![AclEntry::open()]);
            let flags = mode.flags();
            if let Some(ttl_ms) = mode.ttl_ms() {
                return Some(MultiOp::CreateTtl(request::CreateTtl {
                    path,
                    data,
                    acl,
                    flags,
                    ttl_ms,
                }));
            }
            let create = request::Create {
                path,
                data,
                acl,
                flags,
            };
            match (kind, with_stat) {
                (CreateKind::Container, _) => MultiOp::CreateContainer(create),
                (_, true) => MultiOp::Create2(create),
                (_, false) => MultiOp::Create(create),
            }
        }
        Request::Delete { .. } | Request::SetData { .. } | Request::Check { .. } => {
            match to_wire(request, false)? {
                Wire::Delete(it) => MultiOp::Delete(it),
                Wire::SetData(it) => MultiOp::SetData(it),
                Wire::Check(it) => MultiOp::Check(it),
                _ => return None,
            }
        }
        _ => return None,
    })
}

fn mode_of(kind: CreateKind) -> CreateMode {
    match kind {
        CreateKind::Persistent => CreateMode::Persistent,
        CreateKind::PersistentSequential => CreateMode::PersistentSequential,
        CreateKind::Ephemeral => CreateMode::Ephemeral,
        CreateKind::EphemeralSequential => CreateMode::EphemeralSequential,
        CreateKind::Container => CreateMode::Container,
        CreateKind::Ttl { ms } => CreateMode::PersistentWithTtl { ttl_ms: ms },
        CreateKind::TtlSequential { ms } => CreateMode::PersistentSequentialWithTtl { ttl_ms: ms },
    }
}

/// What the body of a reply without an error says.
///
/// # Errors
///
/// It does not decode.
pub(crate) fn reply_of(op: OpCode, body: &[u8]) -> Result<Reply, jute::Error> {
    Ok(match Response::decode(op, body)? {
        Response::Path(_) if op == OpCode::Sync => Reply::Nothing,
        Response::Path(path) => Reply::Path(Arc::from(&*path)),
        Response::PathStat { path, stat } => created(&path, stat),
        Response::Stat(stat) => Reply::Stat(stat),
        Response::Data { data, stat } => data_of(data.as_deref(), stat),
        Response::Acl { acl, stat } => Reply::Acl { acl, stat },
        Response::Strings(names) => children(&names, None),
        Response::Children {
            children: names,
            stat,
        } => children(&names, Some(stat)),
        Response::Count(count) => Reply::Count(count),
        Response::Multi(results) => Reply::Results(results.into_iter().map(part_result).collect()),
        Response::Empty
        | Response::Proof
        | Response::WatchAdded
        | Response::Identities(_)
        | Response::Sasl(_) => Reply::Nothing,
    })
}

fn created(path: &str, stat: Stat) -> Reply {
    Reply::Created {
        path: path.into(),
        stat,
    }
}

fn data_of(data: Option<&[u8]>, stat: Stat) -> Reply {
    Reply::Data {
        data: Data(data.map(bytes::Bytes::copy_from_slice)),
        stat,
    }
}

fn children<T: AsRef<str>>(names: &[T], stat: Option<Stat>) -> Reply {
    Reply::Children {
        names: names.iter().map(|name| Path::from(name.as_ref())).collect(),
        stat,
    }
}

fn part_result(result: MultiResult<'_>) -> PartResult {
    PartResult::Done(match result {
        MultiResult::Create { path } => Reply::Path(Arc::from(&*path)),
        MultiResult::Create2 { path, stat } => created(&path, stat),
        MultiResult::Delete | MultiResult::Check => Reply::Nothing,
        MultiResult::SetData(stat) => Reply::Stat(stat),
        MultiResult::GetData { data, stat } => data_of(data.as_deref(), stat),
        MultiResult::GetChildren { children: names } => children(&names, None),
        MultiResult::Error(error) => {
            return PartResult::Failed(error.map_or(0, ErrorCode::code));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    /// What is recorded as asked for has to be what is sent.
    #[test]
    fn every_request_with_a_record_decodes_to_what_was_meant() {
        let path = || Path::from("/a/b");
        let create = |kind, with_stat| Request::Create {
            path: path(),
            data: Data::from("x"),
            kind,
            acl: None,
            with_stat,
        };
        let asked = [
            (create(CreateKind::Persistent, false), OpCode::Create),
            (
                create(CreateKind::EphemeralSequential, true),
                OpCode::Create2,
            ),
            (create(CreateKind::Container, true), OpCode::CreateContainer),
            (create(CreateKind::Ttl { ms: 5 }, true), OpCode::CreateTtl),
            (
                Request::Multi(vec![
                    create(CreateKind::Persistent, true),
                    Request::Check {
                        path: path(),
                        version: 3,
                    },
                ]),
                OpCode::Multi,
            ),
            (
                Request::MultiRead(vec![Request::GetData {
                    path: path(),
                    watch: false,
                }]),
                OpCode::MultiRead,
            ),
            (Request::Ping, OpCode::Ping),
            (Request::CloseSession, OpCode::CloseSession),
        ];
        for (request, op) in asked {
            let wire = to_wire(&request, false).unwrap();
            let mut body = BytesMut::new();
            wire.encode(&mut body).unwrap();
            assert_eq!(wire.op(), op);
            assert_eq!(Wire::decode(op, &body).unwrap(), wire);
        }
    }

    #[test]
    fn a_multi_of_what_no_multi_can_hold_is_not_sent() {
        assert_eq!(to_wire(&Request::Multi(vec![Request::Ping]), false), None);
    }

    #[test]
    fn the_results_of_a_failed_multi_keep_their_codes() {
        let response = Response::Multi(vec![
            MultiResult::Error(None),
            MultiResult::Error(Some(ErrorCode::BadVersion)),
        ]);
        let mut body = BytesMut::new();
        response.encode(&mut body).unwrap();
        let failed = vec![PartResult::Failed(0), PartResult::Failed(-103)];
        assert_eq!(
            reply_of(OpCode::Multi, &body).unwrap(),
            Reply::Results(failed)
        );
    }
}
