//! Requests and replies, from the records that cross the client port and back.
//!
//! For recorders that speak the protocol themselves. What a history has no words for becomes
//! [`Request::Other`].

use std::borrow::Cow;

use quorate_protocol::multi::{MultiOp, MultiResult, ReadOp};
use quorate_protocol::{AclEntry, ErrorCode, Id, Request as Wire, Response, Zxid, request};

use crate::history::{CreateKind, Data, PartResult, Path, Reply, Request, WatchList};

/// Which of the operations that create.
#[derive(Clone, Copy, PartialEq)]
enum Create {
    Plain,
    InMulti,
    Container,
}

impl Request {
    #[must_use]
    pub fn of_wire(wire: &Wire) -> Self {
        words_for(wire).unwrap_or_else(|| Self::Other {
            name: format!("{:?}", wire.op()),
        })
    }

    /// The record that asks for this. `None` for proofs of identity, which a history has no secrets
    /// of, and for what it has no words for.
    #[must_use]
    pub fn to_wire(&self) -> Option<Wire> {
        let watched = |path: &Path, watch: bool| request::Watched {
            path: path.as_ref().to_owned(),
            watch,
        };
        let path_only = |path: &Path| request::PathOnly {
            path: path.as_ref().to_owned(),
        };
        Some(match self {
            Self::Create { with_stat, .. } => match (self.to_create()?, with_stat) {
                (MultiOp::Create(create), false) => Wire::Create(create),
                (MultiOp::Create(create), true) => Wire::Create2(create),
                (MultiOp::CreateContainer(create), _) => Wire::CreateContainer(create),
                (MultiOp::CreateTtl(create), _) => Wire::CreateTtl(create),
                _ => return None,
            },
            Self::Delete { path, version } => Wire::Delete(request::Delete {
                path: path.as_ref().to_owned(),
                version: *version,
            }),
            Self::SetData {
                path,
                data,
                version,
            } => Wire::SetData(request::SetData {
                path: path.as_ref().to_owned(),
                data: data.0.clone(),
                version: *version,
            }),
            Self::SetAcl { path, acl, version } => Wire::SetAcl(request::SetAcl {
                path: path.as_ref().to_owned(),
                acl: acl.clone(),
                version: *version,
            }),
            Self::Check { path, version } => Wire::Check(request::Check {
                path: path.as_ref().to_owned(),
                version: *version,
            }),
            Self::Multi(parts) => {
                let ops = parts.iter().map(Self::to_part);
                Wire::Multi(ops.collect::<Option<_>>()?)
            }
            Self::GetData { path, watch } => Wire::GetData(watched(path, *watch)),
            Self::Exists { path, watch } => Wire::Exists(watched(path, *watch)),
            Self::GetChildren { path, watch } => Wire::GetChildren2(watched(path, *watch)),
            Self::GetAcl { path } => Wire::GetAcl(path_only(path)),
            Self::CountDescendants { path } => Wire::GetAllChildrenNumber(path_only(path)),
            Self::GetEphemerals { prefix } => Wire::GetEphemerals(request::GetEphemerals {
                prefix: Some(prefix.as_ref().to_owned()),
            }),
            Self::MultiRead(parts) => {
                let ops = parts.iter().map(|part| match part {
                    Self::GetData { path, .. } => Some(ReadOp::GetData(watched(path, false))),
                    Self::GetChildren { path, .. } => {
                        Some(ReadOp::GetChildren(watched(path, false)))
                    }
                    _ => None,
                });
                Wire::MultiRead(ops.collect::<Option<_>>()?)
            }
            Self::Sync { path } => Wire::Sync(path_only(path)),
            Self::Ping => Wire::Ping,
            Self::AddWatch { path, recursive } => Wire::AddWatch(request::AddWatch {
                path: path.as_ref().to_owned(),
                mode: i32::from(*recursive),
            }),
            Self::RemoveWatches { path, which } => Wire::RemoveWatches(request::WatchesOfType {
                path: path.as_ref().to_owned(),
                watcher_type: which.code(),
            }),
            Self::SetWatches {
                since,
                data,
                exist,
                child,
                persistent,
                recursive,
            } => {
                let list = |paths: &[Path]| paths.iter().map(|path| path.to_string()).collect();
                Wire::SetWatches2(request::SetWatches2 {
                    relative_zxid: Zxid(*since),
                    data: list(data),
                    exist: list(exist),
                    child: list(child),
                    persistent: list(persistent),
                    persistent_recursive: list(recursive),
                })
            }
            Self::CloseSession => Wire::CloseSession,
            Self::Authenticate { .. } | Self::Other { .. } => return None,
        })
    }

    fn to_part(&self) -> Option<MultiOp> {
        Some(match self {
            Self::Create { with_stat, .. } => match (self.to_create()?, with_stat) {
                (MultiOp::Create(create), true) => MultiOp::Create2(create),
                (op, _) => op,
            },
            other => match other.to_wire()? {
                Wire::Delete(delete) => MultiOp::Delete(delete),
                Wire::SetData(set) => MultiOp::SetData(set),
                Wire::Check(check) => MultiOp::Check(check),
                _ => return None,
            },
        })
    }

    /// The kind of create that makes such a znode; whether it is answered with a stat is left open.
    fn to_create(&self) -> Option<MultiOp> {
        let Self::Create {
            path,
            data,
            kind,
            acl,
            ..
        } = self
        else {
            return None;
        };
        let flags = kind.flags();
        let acl = acl.clone().unwrap_or_else(|| vec![AclEntry::open()]);
        let path = path.as_ref().to_owned();
        let data = data.0.clone();
        Some(match *kind {
            CreateKind::Ttl { ms } | CreateKind::TtlSequential { ms } => {
                MultiOp::CreateTtl(request::CreateTtl {
                    path,
                    data,
                    acl,
                    flags,
                    ttl_ms: ms,
                })
            }
            kind => {
                let create = request::Create {
                    path,
                    data,
                    acl,
                    flags,
                };
                match kind {
                    CreateKind::Container => MultiOp::CreateContainer(create),
                    _ => MultiOp::Create(create),
                }
            }
        })
    }
}

impl CreateKind {
    /// The number on the wire.
    #[must_use]
    pub fn flags(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::Ephemeral => 1,
            Self::PersistentSequential => 2,
            Self::EphemeralSequential => 3,
            Self::Container => 4,
            Self::Ttl { .. } => 5,
            Self::TtlSequential { .. } => 6,
        }
    }
}

impl WatchList {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Children => 1,
            Self::Data => 2,
            Self::Any => 3,
            Self::Persistent => 4,
            Self::Recursive => 5,
        }
    }

    fn from_code(code: i32) -> Option<Self> {
        let all = [
            Self::Children,
            Self::Data,
            Self::Any,
            Self::Persistent,
            Self::Recursive,
        ];
        all.into_iter().find(|list| list.code() == code)
    }
}

fn words_for(wire: &Wire) -> Option<Request> {
    Some(match wire {
        // Only inside of a multi does this operation make a container.
        Wire::Create(it) => created(it, Create::Plain, false)?,
        Wire::Create2(it) => created(it, Create::Plain, true)?,
        Wire::CreateContainer(it) => created(it, Create::Container, true)?,
        Wire::CreateTtl(it) => created_with_ttl(it)?,
        Wire::Delete(it) => deleted(it),
        Wire::SetData(it) => data_set(it),
        Wire::SetAcl(it) => Request::SetAcl {
            path: it.path.as_str().into(),
            acl: it.acl.clone(),
            version: it.version,
        },
        Wire::Check(it) => checked(it),
        Wire::Multi(ops) => {
            let parts = ops.iter().map(|op| {
                Some(match op {
                    MultiOp::Create(it) => created(it, Create::InMulti, false)?,
                    MultiOp::Create2(it) => created(it, Create::InMulti, true)?,
                    MultiOp::CreateContainer(it) => created(it, Create::Container, true)?,
                    MultiOp::CreateTtl(it) => created_with_ttl(it)?,
                    MultiOp::Delete(it) => deleted(it),
                    MultiOp::SetData(it) => data_set(it),
                    MultiOp::Check(it) => checked(it),
                })
            });
            Request::Multi(parts.collect::<Option<_>>()?)
        }
        Wire::MultiRead(ops) => Request::MultiRead(
            ops.iter()
                .map(|op| match op {
                    ReadOp::GetData(it) => Request::GetData {
                        path: it.path.as_str().into(),
                        watch: false,
                    },
                    ReadOp::GetChildren(it) => Request::GetChildren {
                        path: it.path.as_str().into(),
                        watch: false,
                    },
                })
                .collect(),
        ),
        Wire::Exists(it) => Request::Exists {
            path: it.path.as_str().into(),
            watch: it.watch,
        },
        Wire::GetData(it) => Request::GetData {
            path: it.path.as_str().into(),
            watch: it.watch,
        },
        Wire::GetChildren(it) | Wire::GetChildren2(it) => Request::GetChildren {
            path: it.path.as_str().into(),
            watch: it.watch,
        },
        Wire::GetAcl(it) => Request::GetAcl {
            path: it.path.as_str().into(),
        },
        Wire::GetAllChildrenNumber(it) => Request::CountDescendants {
            path: it.path.as_str().into(),
        },
        Wire::GetEphemerals(it) => Request::GetEphemerals {
            prefix: it.prefix.as_deref().unwrap_or_default().into(),
        },
        Wire::Sync(it) => Request::Sync {
            path: it.path.as_str().into(),
        },
        Wire::Ping | Wire::PingWithQuestion => Request::Ping,
        Wire::RemoveWatches(it) => Request::RemoveWatches {
            path: it.path.as_str().into(),
            which: WatchList::from_code(it.watcher_type)?,
        },
        Wire::SetWatches(it) => watches_set(&it.clone().into()),
        Wire::SetWatches2(it) => watches_set(it),
        Wire::AddWatch(it) => Request::AddWatch {
            path: it.path.as_str().into(),
            recursive: match it.mode {
                0 => false,
                1 => true,
                _ => return None,
            },
        },
        Wire::Auth(it) => match (it.scheme.as_deref(), &it.auth) {
            (Some("digest"), Some(auth)) => Request::Authenticate {
                identity: Id::digest(auth),
            },
            _ => return None,
        },
        Wire::CloseSession => Request::CloseSession,
        Wire::Reconfig(_) | Wire::CheckWatches(_) | Wire::WhoAmI | Wire::Sasl(_) => return None,
    })
}

fn created(create: &request::Create, how: Create, with_stat: bool) -> Option<Request> {
    let kind = match (how, CreateKind::from_flags(create.flags, None)?) {
        (Create::Plain, CreateKind::Container) => CreateKind::Persistent,
        (Create::Container, CreateKind::Persistent | CreateKind::Container) => {
            CreateKind::Container
        }
        (Create::Container, _) => return None,
        (_, kind) => kind,
    };
    Some(Request::Create {
        path: create.path.as_str().into(),
        data: Data(create.data.clone()),
        kind,
        acl: unless_open(&create.acl),
        // ZooKeeper answers as for create2 when a plain create in a multi makes a container.
        with_stat: with_stat || (how == Create::InMulti && kind == CreateKind::Container),
    })
}

fn created_with_ttl(create: &request::CreateTtl) -> Option<Request> {
    Some(Request::Create {
        path: create.path.as_str().into(),
        data: Data(create.data.clone()),
        kind: CreateKind::from_flags(create.flags, Some(create.ttl_ms))?,
        acl: unless_open(&create.acl),
        with_stat: true,
    })
}

fn deleted(delete: &request::Delete) -> Request {
    Request::Delete {
        path: delete.path.as_str().into(),
        version: delete.version,
    }
}

fn data_set(set: &request::SetData) -> Request {
    Request::SetData {
        path: set.path.as_str().into(),
        data: Data(set.data.clone()),
        version: set.version,
    }
}

fn checked(check: &request::Check) -> Request {
    Request::Check {
        path: check.path.as_str().into(),
        version: check.version,
    }
}

fn watches_set(set: &request::SetWatches2) -> Request {
    let list = |paths: &[String]| paths.iter().map(|path| path.as_str().into()).collect();
    Request::SetWatches {
        since: set.relative_zxid.0,
        data: list(&set.data),
        exist: list(&set.exist),
        child: list(&set.child),
        persistent: list(&set.persistent),
        recursive: list(&set.persistent_recursive),
    }
}

fn unless_open(acl: &[AclEntry]) -> Option<Vec<AclEntry>> {
    (acl != [AclEntry::open()]).then(|| acl.to_vec())
}

impl Reply {
    /// What an answer's body says.
    #[must_use]
    pub fn of_wire(response: Response<'_>) -> Self {
        match response {
            Response::Empty
            | Response::Proof
            | Response::WatchAdded
            | Response::Identities(_)
            | Response::Sasl(_) => Self::Nothing,
            Response::Path(path) => Self::Path(path.into()),
            Response::PathStat { path, stat } => Self::Created {
                path: path.into(),
                stat,
            },
            Response::Stat(stat) => Self::Stat(stat),
            Response::Data { data, stat } => Self::Data {
                data: data_of(data),
                stat,
            },
            Response::Acl { acl, stat } => Self::Acl { acl, stat },
            Response::Strings(names) => Self::Children {
                names: names.into_iter().map(Path::from).collect(),
                stat: None,
            },
            Response::Children { children, stat } => Self::Children {
                names: children.into_iter().map(Path::from).collect(),
                stat: Some(stat),
            },
            Response::Count(count) => Self::Count(count),
            Response::Multi(results) => {
                Self::Results(results.into_iter().map(PartResult::of_wire).collect())
            }
        }
    }
}

impl PartResult {
    fn of_wire(result: MultiResult<'_>) -> Self {
        Self::Done(match result {
            MultiResult::Create { path } => Reply::Path(path.into()),
            MultiResult::Create2 { path, stat } => Reply::Created {
                path: path.into(),
                stat,
            },
            MultiResult::Delete | MultiResult::Check => Reply::Nothing,
            MultiResult::SetData(stat) => Reply::Stat(stat),
            MultiResult::GetData { data, stat } => Reply::Data {
                data: data_of(data),
                stat,
            },
            MultiResult::GetChildren { children } => Reply::Children {
                names: children.into_iter().map(Path::from).collect(),
                stat: None,
            },
            MultiResult::Error(code) => return Self::Failed(code.map_or(0, ErrorCode::code)),
        })
    }
}

fn data_of(data: Option<Cow<'_, [u8]>>) -> Data {
    Data(data.map(|data| data.into_owned().into()))
}
