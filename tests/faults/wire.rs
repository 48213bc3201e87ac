//! Requests of a history as they are sent, and answers as a history has them.

use bytes::Bytes;
use quorate_checker::history::{CreateKind, Data, PartResult, Reply, Request as Asked};
use quorate_protocol::multi::{MultiOp, MultiResult};
use quorate_protocol::request::{SetWatches, SetWatches2};
use quorate_protocol::{Request, Response, Zxid};
use quorate_tests::client::{
    EPHEMERAL, PERSISTENT, SEQUENTIAL, add_watch, check, create_record, delete, delete_record,
    exists, get_children, get_data, set_data, set_record, sync,
};

/// What is sent for a request; `None` for what these clients never ask for.
pub(crate) fn request(asked: &Asked) -> Option<Request> {
    Some(match asked {
        Asked::Create {
            path,
            data,
            kind,
            with_stat,
            ..
        } => {
            let record = create_record(path, bytes(data), flags(*kind)?);
            match with_stat {
                true => Request::Create2(record),
                false => Request::Create(record),
            }
        }
        Asked::Delete { path, version } => delete(path, *version),
        Asked::SetData {
            path,
            data,
            version,
        } => set_data(path, bytes(data), *version),
        Asked::Multi(parts) => Request::Multi(parts.iter().map(part).collect::<Option<_>>()?),
        Asked::GetData { path, watch } => get_data(path, *watch),
        Asked::Exists { path, watch } => exists(path, *watch),
        Asked::GetChildren { path, watch } => get_children(path, *watch),
        Asked::Sync { path } => sync(path),
        Asked::Ping => Request::Ping,
        Asked::AddWatch { path, recursive } => add_watch(path, *recursive),
        Asked::SetWatches {
            since,
            data,
            exist,
            child,
            persistent,
            recursive,
        } => {
            let plain = SetWatches {
                relative_zxid: Zxid(*since),
                data: texts(data),
                exist: texts(exist),
                child: texts(child),
            };
            match persistent.is_empty() && recursive.is_empty() {
                true => Request::SetWatches(plain),
                false => Request::SetWatches2(SetWatches2 {
                    persistent: texts(persistent),
                    persistent_recursive: texts(recursive),
                    ..plain.into()
                }),
            }
        }
        Asked::CloseSession => Request::CloseSession,
        _ => return None,
    })
}

fn part(asked: &Asked) -> Option<MultiOp> {
    Some(match asked {
        Asked::Create {
            path,
            data,
            kind,
            with_stat,
            ..
        } => {
            let record = create_record(path, bytes(data), flags(*kind)?);
            match with_stat {
                true => MultiOp::Create2(record),
                false => MultiOp::Create(record),
            }
        }
        Asked::Delete { path, version } => MultiOp::Delete(delete_record(path, *version)),
        Asked::SetData {
            path,
            data,
            version,
        } => MultiOp::SetData(set_record(path, bytes(data), *version)),
        Asked::Check { path, version } => check(path, *version),
        _ => return None,
    })
}

fn flags(kind: CreateKind) -> Option<i32> {
    Some(match kind {
        CreateKind::Persistent => PERSISTENT,
        CreateKind::PersistentSequential => SEQUENTIAL,
        CreateKind::Ephemeral => EPHEMERAL,
        CreateKind::EphemeralSequential => EPHEMERAL | SEQUENTIAL,
        _ => return None,
    })
}

fn bytes(data: &Data) -> &[u8] {
    data.0.as_deref().unwrap_or_default()
}

fn texts(paths: &[std::sync::Arc<str>]) -> Vec<String> {
    paths.iter().map(|path| path.to_string()).collect()
}

/// What a successful answer says; `None` if it is an answer to something else.
pub(crate) fn reply(asked: &Asked, response: Response<'_>) -> Option<Reply> {
    Some(match response {
        Response::Empty | Response::Proof | Response::WatchAdded => Reply::Nothing,
        // A sync's path is the one that was sent.
        Response::Path(_) if matches!(asked, Asked::Sync { .. }) => Reply::Nothing,
        Response::Path(path) => Reply::Path(path.as_ref().into()),
        Response::PathStat { path, stat } => Reply::Created {
            path: path.as_ref().into(),
            stat,
        },
        Response::Stat(stat) => Reply::Stat(stat),
        Response::Data { data, stat } => Reply::Data {
            data: owned(data.as_deref()),
            stat,
        },
        Response::Children { children, stat } => Reply::Children {
            names: children.iter().map(|name| name.as_ref().into()).collect(),
            stat: Some(stat),
        },
        Response::Multi(results) => Reply::Results(
            results
                .into_iter()
                .map(part_result)
                .collect::<Option<_>>()?,
        ),
        _ => return None,
    })
}

fn part_result(result: MultiResult<'_>) -> Option<PartResult> {
    Some(PartResult::Done(match result {
        MultiResult::Create { path } => Reply::Path(path.as_ref().into()),
        MultiResult::Create2 { path, stat } => Reply::Created {
            path: path.as_ref().into(),
            stat,
        },
        MultiResult::Delete | MultiResult::Check => Reply::Nothing,
        MultiResult::SetData(stat) => Reply::Stat(stat),
        MultiResult::Error(code) => {
            return Some(PartResult::Failed(code.map_or(0, |code| code.code())));
        }
        MultiResult::GetData { .. } | MultiResult::GetChildren { .. } => return None,
    }))
}

fn owned(data: Option<&[u8]>) -> Data {
    Data(data.map(Bytes::copy_from_slice))
}
