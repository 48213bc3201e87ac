//! The rules again, as simply as they can be put: a map from paths to znodes, copied whole before a
//! multi. Slow, and meant to be obviously right. It knows no quotas.

use std::borrow::Cow;
use std::collections::BTreeMap;

use quorate_protocol::multi::{MultiOp, MultiResult};
use quorate_protocol::{
    Acl, AclEntry, ErrorCode, Id, Perms, Response, SessionId, Stat, ZnodePath, Zxid,
};
use quorate_state::{ChangeKind, OpError, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Persistent,
    Ephemeral(SessionId),
    Container,
    Ttl(i64),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) acl: Vec<Acl>,
    pub(crate) kind: Kind,
    pub(crate) stat: Stat,
    /// Names, the oldest first.
    pub(crate) children: Vec<String>,
    created: i64,
}

/// What watchers hear of, with the ACLs that decide who may.
pub(crate) type Event = (ChangeKind, String, Vec<Acl>, Vec<Acl>);

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) events: Vec<Event>,
    pub(crate) zxid: i64,
    pub(crate) now: i64,
}

type Answer = Result<Response<'static>, OpError>;

impl Model {
    pub(crate) fn new() -> Self {
        let mut model = Self {
            nodes: BTreeMap::new(),
            events: Vec::new(),
            zxid: 0,
            now: 0,
        };
        for (path, perms, aversion, children) in [
            ("/", Perms::ALL, 0, vec!["zookeeper"]),
            ("/zookeeper", Perms::ALL, 0, vec!["quota", "config"]),
            ("/zookeeper/quota", Perms::ALL, 0, vec![]),
            ("/zookeeper/config", Perms::READ, -1, vec![]),
        ] {
            let node = Node {
                data: Some(Vec::new()),
                acl: vec![Acl::world(perms)],
                kind: Kind::Persistent,
                stat: Stat {
                    aversion,
                    ..Stat::default()
                },
                children: children.into_iter().map(str::to_owned).collect(),
                created: 0,
            };
            model.nodes.insert(path.to_owned(), node);
        }
        model.nodes.values_mut().for_each(Node::recount);
        model
    }

    pub(crate) fn write(&mut self, session: SessionId, ids: &[Id], write: Write) -> Answer {
        match write {
            Write::Create(r) => {
                let kind = kind(session, r.flags, None, Create::Plain)?;
                let path = self.create(ids, kind, r.flags, &r.path, r.data, &r.acl)?;
                Ok(Response::Path(Cow::Owned(path)))
            }
            Write::Create2(r) => {
                let kind = kind(session, r.flags, None, Create::Plain)?;
                let path = self.create(ids, kind, r.flags, &r.path, r.data, &r.acl)?;
                Ok(self.path_stat(path))
            }
            Write::CreateContainer(r) => {
                let kind = kind(session, r.flags, None, Create::Container)?;
                let path = self.create(ids, kind, r.flags, &r.path, r.data, &r.acl)?;
                Ok(self.path_stat(path))
            }
            Write::CreateTtl(r) => {
                let kind = kind(session, r.flags, Some(r.ttl_ms), Create::Ttl)?;
                let path = self.create(ids, kind, r.flags, &r.path, r.data, &r.acl)?;
                Ok(self.path_stat(path))
            }
            Write::Delete(r) => self
                .delete(ids, &r.path, r.version)
                .map(|()| Response::Empty),
            Write::SetData(r) => self
                .set(ids, &r.path, r.data, r.version)
                .map(Response::Stat),
            Write::SetAcl(r) => {
                check_path(&r.path)?;
                let acl = Acl::resolve(&r.acl, ids).map_err(|_| OpError::InvalidAcl)?;
                let node = self.node(&r.path)?;
                allow(node, Perms::ADMIN, ids)?;
                check_version(r.version, node.stat.aversion)?;
                let node = self.nodes.get_mut(&r.path).expect("it was found");
                node.acl = acl;
                node.stat.aversion += 1;
                Ok(Response::Stat(node.stat))
            }
            Write::Multi(ops) => self.multi(session, ids, ops),
            Write::Reconfig(_) => Err(OpError::ReconfigDisabled),
        }
    }

    fn multi(&mut self, session: SessionId, ids: &[Id], ops: Vec<MultiOp>) -> Answer {
        let before = self.clone();
        let count = ops.len();
        let mut results = Vec::new();
        for op in ops {
            let result = match op {
                MultiOp::Create(r) => {
                    kind(session, r.flags, None, Create::InMulti).and_then(|kind| {
                        let path = self.create(ids, kind, r.flags, &r.path, r.data, &r.acl)?;
                        Ok(match kind {
                            Kind::Persistent | Kind::Ephemeral(_) => MultiResult::Create {
                                path: Cow::Owned(path),
                            },
                            _ => self.create2_result(path),
                        })
                    })
                }
                MultiOp::Create2(r) => {
                    kind(session, r.flags, None, Create::InMulti).and_then(|kind| {
                        let path = self.create(ids, kind, r.flags, &r.path, r.data, &r.acl)?;
                        Ok(self.create2_result(path))
                    })
                }
                MultiOp::CreateContainer(r) => kind(session, r.flags, None, Create::Container)
                    .and_then(|kind| {
                        let path = self.create(ids, kind, r.flags, &r.path, r.data, &r.acl)?;
                        Ok(self.create2_result(path))
                    }),
                MultiOp::CreateTtl(r) => kind(session, r.flags, Some(r.ttl_ms), Create::Ttl)
                    .and_then(|kind| {
                        let path = self.create(ids, kind, r.flags, &r.path, r.data, &r.acl)?;
                        Ok(self.create2_result(path))
                    }),
                MultiOp::Delete(r) => self
                    .delete(ids, &r.path, r.version)
                    .map(|()| MultiResult::Delete),
                MultiOp::SetData(r) => self
                    .set(ids, &r.path, r.data, r.version)
                    .map(MultiResult::SetData),
                MultiOp::Check(r) => self
                    .check(ids, &r.path, r.version)
                    .map(|()| MultiResult::Check),
            };
            match result {
                Ok(result) => results.push(result),
                Err(error) => {
                    *self = before;
                    let mut errors = vec![MultiResult::Error(None); results.len()];
                    errors.push(MultiResult::Error(Some(error.code())));
                    errors.resize(
                        count,
                        MultiResult::Error(Some(ErrorCode::RuntimeInconsistency)),
                    );
                    return Ok(Response::Multi(errors));
                }
            }
        }
        Ok(Response::Multi(results))
    }

    fn create(
        &mut self,
        ids: &[Id],
        kind: Kind,
        flags: i32,
        path: &str,
        data: Option<bytes::Bytes>,
        acl: &[AclEntry],
    ) -> Result<String, OpError> {
        let (parent, _) = path.rsplit_once('/').ok_or(OpError::BadArguments)?;
        let parent = if parent.is_empty() { "/" } else { parent };
        if path.contains('\0') {
            return Err(OpError::BadArguments);
        }
        let acl = Acl::resolve(acl, ids).map_err(|_| OpError::InvalidAcl)?;
        let parent_node = self.node(parent)?;
        allow(parent_node, Perms::CREATE, ids)?;
        let path = match flags {
            2 | 3 | 6 => format!("{path}{:010}", parent_node.created),
            _ => path.to_owned(),
        };
        check_path(&path)?;
        if self.nodes.contains_key(&path) {
            return Err(OpError::NodeExists);
        }
        if let Kind::Ephemeral(_) = parent_node.kind {
            return Err(OpError::NoChildrenForEphemerals);
        }
        let parent_acl = parent_node.acl.clone();

        let parent_node = self.nodes.get_mut(parent).expect("it was found");
        let name = path.rsplit('/').next().expect("a path has a name");
        parent_node.children.push(name.to_owned());
        parent_node.created += 1;
        parent_node.stat.pzxid = Zxid(self.zxid);
        parent_node.recount();
        let mut node = Node {
            data: data.map(Vec::from),
            acl: acl.clone(),
            kind,
            stat: Stat {
                czxid: Zxid(self.zxid),
                mzxid: Zxid(self.zxid),
                pzxid: Zxid(self.zxid),
                ctime: self.now,
                mtime: self.now,
                ephemeral_owner: match kind {
                    Kind::Ephemeral(owner) => owner.get(),
                    _ => 0,
                },
                ..Stat::default()
            },
            children: Vec::new(),
            created: 0,
        };
        node.recount();
        self.nodes.insert(path.clone(), node);
        self.events
            .push((ChangeKind::Created, path.clone(), acl, parent_acl));
        Ok(path)
    }

    fn delete(&mut self, ids: &[Id], path: &str, version: i32) -> Result<(), OpError> {
        let system = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];
        let (parent, _) = path.rsplit_once('/').ok_or(OpError::BadArguments)?;
        if system.contains(&path) {
            return Err(OpError::BadArguments);
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        allow(self.node(parent)?, Perms::DELETE, ids)?;
        let node = self.node(path)?;
        check_version(version, node.stat.version)?;
        if !node.children.is_empty() {
            let children = node.children.len();
            return Err(OpError::NotEmpty { children });
        }
        self.remove(path);
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &str) {
        let node = self.nodes.remove(path).expect("it is there");
        let (parent, name) = path.rsplit_once('/').expect("it is a path");
        let parent = if parent.is_empty() { "/" } else { parent };
        let parent = self
            .nodes
            .get_mut(parent)
            .expect("parents outlive children");
        parent.children.retain(|child| child != name);
        parent.stat.pzxid = Zxid(self.zxid);
        parent.recount();
        self.events.push((
            ChangeKind::Deleted,
            path.to_owned(),
            node.acl,
            parent.acl.clone(),
        ));
    }

    fn set(
        &mut self,
        ids: &[Id],
        path: &str,
        data: Option<bytes::Bytes>,
        version: i32,
    ) -> Result<Stat, OpError> {
        check_path(path)?;
        let node = self.node(path)?;
        allow(node, Perms::WRITE, ids)?;
        check_version(version, node.stat.version)?;
        let (zxid, now) = (self.zxid, self.now);
        let node = self.nodes.get_mut(path).expect("it was found");
        node.data = data.map(Vec::from);
        node.stat.version += 1;
        node.stat.mzxid = Zxid(zxid);
        node.stat.mtime = now;
        node.recount();
        let acl = node.acl.clone();
        let stat = node.stat;
        self.events
            .push((ChangeKind::DataChanged, path.to_owned(), acl, Vec::new()));
        Ok(stat)
    }

    fn check(&self, ids: &[Id], path: &str, version: i32) -> Result<(), OpError> {
        check_path(path)?;
        let node = self.node(path)?;
        allow(node, Perms::READ, ids)?;
        check_version(version, node.stat.version)
    }

    pub(crate) fn end_session(&mut self, session: SessionId) {
        for path in self.ephemerals(session) {
            self.remove(&path);
        }
    }

    pub(crate) fn ephemerals(&self, session: SessionId) -> Vec<String> {
        let owned = |node: &Node| node.kind == Kind::Ephemeral(session);
        let nodes = self.nodes.iter();
        nodes
            .filter(|(_, node)| owned(node))
            .map(|(path, _)| path.clone())
            .collect()
    }

    pub(crate) fn is_due(&self, path: &str, now: i64, never_used_ms: i64) -> bool {
        self.nodes.get(path).is_some_and(|node| {
            let age = now - node.stat.mtime;
            node.children.is_empty()
                && match node.kind {
                    Kind::Persistent | Kind::Ephemeral(_) => false,
                    Kind::Ttl(ttl_ms) => age > ttl_ms,
                    Kind::Container => {
                        node.created > 0 || (never_used_ms > 0 && age > never_used_ms)
                    }
                }
        })
    }

    fn node(&self, path: &str) -> Result<&Node, OpError> {
        self.nodes.get(path).ok_or(OpError::NoNode)
    }

    fn path_stat(&self, path: String) -> Response<'static> {
        Response::PathStat {
            stat: self.nodes[&path].stat,
            path: Cow::Owned(path),
        }
    }

    fn create2_result(&self, path: String) -> MultiResult<'static> {
        MultiResult::Create2 {
            stat: self.nodes[&path].stat,
            path: Cow::Owned(path),
        }
    }
}

impl Node {
    fn recount(&mut self) {
        let children = i32::try_from(self.children.len()).expect("few children");
        self.stat.num_children = children;
        self.stat.cversion = i32::try_from(2 * self.created).expect("few children") - children;
        self.stat.data_length =
            i32::try_from(self.data.as_ref().map_or(0, Vec::len)).expect("little data");
    }
}

/// Which operation asks.
#[derive(PartialEq)]
enum Create {
    Plain,
    InMulti,
    Container,
    Ttl,
}

fn kind(session: SessionId, flags: i32, ttl: Option<i64>, how: Create) -> Result<Kind, OpError> {
    let ttl_ok = ttl.is_some_and(|ttl| (1..1 << 40).contains(&ttl));
    match flags {
        5 | 6 if !ttl_ok => return Err(OpError::BadArguments),
        0..=4 if ttl.is_some_and(|ttl| ttl >= 0) => return Err(OpError::BadArguments),
        0..=6 => {}
        _ => return Err(OpError::BadArguments),
    }
    Ok(match (how, flags) {
        (Create::Container, _) => Kind::Container,
        (Create::InMulti | Create::Ttl, 4) => Kind::Container,
        (_, 1 | 3) => Kind::Ephemeral(session),
        (_, 5 | 6) => Kind::Ttl(ttl.unwrap_or_default()),
        _ => Kind::Persistent,
    })
}

fn check_path(path: &str) -> Result<(), OpError> {
    ZnodePath::check(path).map_err(|_| OpError::BadArguments)
}

fn check_version(expected: i32, actual: i32) -> Result<(), OpError> {
    match expected {
        -1 => Ok(()),
        _ if expected == actual => Ok(()),
        _ => Err(OpError::BadVersion { expected, actual }),
    }
}

fn allow(node: &Node, wanted: Perms, ids: &[Id]) -> Result<(), OpError> {
    let granted = |acl: &Acl| {
        let id = acl.id();
        acl.perms.intersects(wanted) && (id.scheme == "world" || ids.contains(id))
    };
    match node.acl.iter().any(granted) || ids.iter().any(|id| id.scheme == "super") {
        true => Ok(()),
        false => Err(OpError::NoAuth),
    }
}
