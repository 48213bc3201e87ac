//! A tree of znodes as simply as it can be put: a map from paths to znodes.
//!
//! It says what ZooKeeper's rules make of a write ([`Tree::write`]) and what a read shows. It was
//! written from the rules, not from the server's tree, so that the two can be held against each
//! other. It knows no quotas: [`Tree::has_quotas`] says when that matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_protocol::{Acl, AclEntry, ErrorCode, Id, Perms, Stat, ZnodePath, Zxid};

use crate::history::{CreateKind, Data, EventKind, PartResult, Path, Reply, Request, Rules};

const CONFIG: &str = "/zookeeper/config";
const QUOTA: &str = "/zookeeper/quota";
/// What nobody may delete.
const SYSTEM: [&str; 4] = ["/", "/zookeeper", QUOTA, CONFIG];

/// What a znode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Persistent,
    Ephemeral { session: i64 },
    Container,
    Ttl { ms: i64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Znode {
    pub data: Data,
    /// `None`: everybody may do everything.
    pub acl: Option<Arc<[Acl]>>,
    pub kind: Kind,
    pub stat: Stat,
    /// How many children were ever created: the next sequence number.
    pub created: u64,
}

/// What one write did to one znode, as watches see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Never [`EventKind::ChildrenChanged`]: that follows from the others.
    pub kind: EventKind,
    pub path: Path,
    /// Of the znode: the new one for a create, the last one for a delete.
    pub acl: Option<Arc<[Acl]>>,
    pub parent_acl: Option<Arc<[Acl]>>,
}

/// Who writes, when, and by which settings.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    pub zxid: i64,
    pub time_ms: i64,
    pub session: i64,
    pub identities: &'a [Id],
    pub rules: Rules,
}

type Refused = ErrorCode;

#[derive(Clone, Debug)]
pub struct Tree {
    znodes: BTreeMap<Path, Znode>,
    ephemerals: BTreeMap<i64, BTreeSet<Path>>,
    /// What there was before each step of the multi that is under way.
    undo: Option<Vec<(Path, Option<Znode>)>>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// What an ensemble starts with.
    #[must_use]
    pub fn new() -> Self {
        let mut znodes = BTreeMap::new();
        for (path, children) in [("/", 1), ("/zookeeper", 2), (QUOTA, 0), (CONFIG, 0)] {
            let is_config = path == CONFIG;
            let znode = Znode {
                data: Data::from(""),
                acl: is_config.then(|| [Acl::world(Perms::READ)].into()),
                kind: Kind::Persistent,
                stat: Stat {
                    aversion: if is_config { -1 } else { 0 },
                    num_children: children,
                    cversion: -children,
                    ..Stat::default()
                },
                created: 0,
            };
            znodes.insert(path.into(), znode);
        }
        Self {
            znodes,
            ephemerals: BTreeMap::new(),
            undo: None,
        }
    }

    #[must_use]
    pub fn znode(&self, path: &str) -> Option<&Znode> {
        self.znodes.get(path)
    }

    pub fn znodes(&self) -> impl Iterator<Item = (&Path, &Znode)> {
        self.znodes.iter()
    }

    /// All ephemerals, with their session.
    pub fn ephemerals(&self) -> impl Iterator<Item = (i64, &Path)> {
        let sessions = self.ephemerals.iter();
        sessions.flat_map(|(session, paths)| paths.iter().map(|path| (*session, path)))
    }

    #[must_use]
    pub fn ephemerals_of(&self, session: i64) -> Option<&BTreeSet<Path>> {
        self.ephemerals.get(&session)
    }

    /// Whether somebody has set a quota, so that writes may be refused for what is not known here.
    #[must_use]
    pub fn has_quotas(&self) -> bool {
        self.znodes[QUOTA].created > 0
    }

    /// The names of the children, sorted.
    #[must_use]
    pub fn children(&self, path: &str) -> Vec<Path> {
        let prefix = below(path);
        self.descendants(path)
            .map(|(path, _)| &path[prefix.len()..])
            .filter(|name| !name.contains('/'))
            .map(Path::from)
            .collect()
    }

    pub fn descendants(&self, path: &str) -> impl Iterator<Item = (&Path, &Znode)> {
        let prefix = below(path);
        let first: Path = prefix.as_str().into();
        self.znodes
            .range(first..)
            .skip_while(|(path, _)| &***path == "/")
            .take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Does a write, or refuses it and changes nothing. What it did is added to `changes`.
    ///
    /// # Errors
    ///
    /// The code that the client is told.
    pub fn write(
        &mut self,
        author: &Author<'_>,
        write: &Request,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, Refused> {
        match write {
            Request::SetAcl { path, acl, version } => self.set_acl(author, path, acl, *version),
            Request::Multi(parts) => Ok(Reply::Results(self.multi(author, parts, changes))),
            part => self.part(author, part, changes),
        }
    }

    /// A write that may stand in a multi.
    fn part(
        &mut self,
        author: &Author<'_>,
        part: &Request,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, Refused> {
        match part {
            Request::Create {
                path,
                data,
                kind,
                acl,
                with_stat,
            } => {
                let path = self.create(author, path, data, *kind, acl.as_deref(), changes)?;
                Ok(match with_stat {
                    true => Reply::Created {
                        stat: self.znodes[&path].stat,
                        path,
                    },
                    false => Reply::Path(path),
                })
            }
            Request::Delete { path, version } => {
                self.delete(author, path, *version, changes)?;
                Ok(Reply::Nothing)
            }
            Request::SetData {
                path,
                data,
                version,
            } => self.set_data(author, path, data, *version, changes),
            Request::Check { path, version } => {
                check_path(path)?;
                let znode = self.found(path)?;
                allow(author, znode.acl.as_deref(), Perms::READ)?;
                check_version(*version, znode.stat.version)?;
                Ok(Reply::Nothing)
            }
            _ => Err(ErrorCode::MarshallingError),
        }
    }

    /// All, or nothing and the reason.
    fn multi(
        &mut self,
        author: &Author<'_>,
        parts: &[Request],
        changes: &mut Vec<Change>,
    ) -> Vec<PartResult> {
        let before = changes.len();
        self.undo = Some(Vec::new());
        let mut results = Vec::with_capacity(parts.len());
        let mut failed = None;
        for part in parts {
            match self.part(author, part, changes) {
                Ok(reply) => results.push(PartResult::Done(reply)),
                Err(code) => {
                    failed = Some(code);
                    break;
                }
            }
        }
        let undo = self.undo.take().unwrap_or_default();
        let Some(code) = failed else {
            return results;
        };
        changes.truncate(before);
        for (path, znode) in undo.into_iter().rev() {
            self.put(&path, znode);
        }
        let done = results.len();
        (0..parts.len())
            .map(|index| match index.cmp(&done) {
                std::cmp::Ordering::Less => PartResult::Failed(0),
                std::cmp::Ordering::Equal => PartResult::Failed(code.code()),
                std::cmp::Ordering::Greater => {
                    PartResult::Failed(ErrorCode::RuntimeInconsistency.code())
                }
            })
            .collect()
    }

    fn create(
        &mut self,
        author: &Author<'_>,
        path: &Path,
        data: &Data,
        kind: CreateKind,
        acl: Option<&[AclEntry]>,
        changes: &mut Vec<Change>,
    ) -> Result<Path, Refused> {
        let with_ttl = matches!(
            kind,
            CreateKind::Ttl { .. } | CreateKind::TtlSequential { .. }
        );
        if with_ttl && author.rules.ttl_disabled {
            return Err(ErrorCode::Unimplemented);
        }
        let parent_path: Path = parent_of(path).ok_or(ErrorCode::BadArguments)?.into();
        if path.contains('\0') {
            return Err(ErrorCode::BadArguments);
        }
        let acl = resolve(author, acl)?;
        let parent = self.found(&parent_path)?;
        allow(author, parent.acl.as_deref(), Perms::CREATE)?;
        let path: Path = match kind.is_sequential() {
            true => format!("{path}{:010}", parent.created).into(),
            false => Path::clone(path),
        };
        check_path(&path)?;
        if self.znodes.contains_key(&path) {
            return Err(ErrorCode::NodeExists);
        }
        if matches!(parent.kind, Kind::Ephemeral { .. }) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let kind = match kind {
            CreateKind::Persistent | CreateKind::PersistentSequential => Kind::Persistent,
            CreateKind::Ephemeral | CreateKind::EphemeralSequential => Kind::Ephemeral {
                session: author.session,
            },
            CreateKind::Container => Kind::Container,
            CreateKind::Ttl { ms } | CreateKind::TtlSequential { ms } => Kind::Ttl { ms },
        };
        let parent_acl = parent.acl.clone();
        self.change(&parent_path, |parent| {
            parent.created += 1;
            parent.stat.num_children += 1;
            parent.count_children(author.zxid);
        });
        let znode = Znode {
            stat: Stat {
                czxid: Zxid(author.zxid),
                mzxid: Zxid(author.zxid),
                pzxid: Zxid(author.zxid),
                ctime: author.time_ms,
                mtime: author.time_ms,
                ephemeral_owner: match kind {
                    Kind::Ephemeral { session } => session,
                    _ => 0,
                },
                data_length: length(data),
                ..Stat::default()
            },
            data: data.clone(),
            acl: acl.clone(),
            kind,
            created: 0,
        };
        self.put(&path, Some(znode));
        changes.push(Change {
            kind: EventKind::Created,
            path: Path::clone(&path),
            acl,
            parent_acl,
        });
        Ok(path)
    }

    fn delete(
        &mut self,
        author: &Author<'_>,
        path: &Path,
        version: i32,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refused> {
        let parent = parent_of(path).ok_or(ErrorCode::BadArguments)?;
        if path.contains('\0') || SYSTEM.contains(&&**path) {
            return Err(ErrorCode::BadArguments);
        }
        allow(author, self.found(parent)?.acl.as_deref(), Perms::DELETE)?;
        let znode = self.found(path)?;
        check_version(version, znode.stat.version)?;
        if znode.stat.num_children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        self.remove(path, author.zxid, changes);
        Ok(())
    }

    /// Deletes a znode, whoever asks.
    fn remove(&mut self, path: &Path, zxid: i64, changes: &mut Vec<Change>) {
        let acl = self.znodes.get(path).and_then(|znode| znode.acl.clone());
        self.put(path, None);
        let mut parent_acl = None;
        if let Some(parent) = parent_of(path) {
            let parent: Path = parent.into();
            self.change(&parent, |parent| {
                parent.stat.num_children -= 1;
                parent.count_children(zxid);
                parent_acl = parent.acl.clone();
            });
        }
        changes.push(Change {
            kind: EventKind::Deleted,
            path: Path::clone(path),
            acl,
            parent_acl,
        });
    }

    fn set_data(
        &mut self,
        author: &Author<'_>,
        path: &Path,
        data: &Data,
        version: i32,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, Refused> {
        check_path(path)?;
        let znode = self.found(path)?;
        allow(author, znode.acl.as_deref(), Perms::WRITE)?;
        check_version(version, znode.stat.version)?;
        let acl = znode.acl.clone();
        let stat = self.change(path, |znode| {
            znode.data = data.clone();
            znode.stat.data_length = length(data);
            znode.stat.version = next_version(znode.stat.version);
            znode.stat.mzxid = Zxid(author.zxid);
            znode.stat.mtime = author.time_ms;
        });
        changes.push(Change {
            kind: EventKind::DataChanged,
            path: Path::clone(path),
            parent_acl: acl.clone(),
            acl,
        });
        Ok(Reply::Stat(stat))
    }

    fn set_acl(
        &mut self,
        author: &Author<'_>,
        path: &Path,
        acl: &[AclEntry],
        version: i32,
    ) -> Result<Reply, Refused> {
        check_path(path)?;
        let acl = resolve(author, Some(acl))?;
        let znode = self.found(path)?;
        allow(author, znode.acl.as_deref(), Perms::ADMIN)?;
        check_version(version, znode.stat.aversion)?;
        Ok(Reply::Stat(self.change(path, |znode| {
            znode.acl = acl;
            znode.stat.aversion = next_version(znode.stat.aversion);
        })))
    }

    /// Deletes what the session owned.
    pub fn end_session(&mut self, session: i64, zxid: i64, changes: &mut Vec<Change>) {
        for path in self.ephemerals.get(&session).cloned().unwrap_or_default() {
            self.remove(&path, zxid, changes);
        }
    }

    /// Deletes those containers and TTL znodes that are due.
    pub fn reap(
        &mut self,
        (zxid, time_ms): (i64, i64),
        paths: &[Path],
        never_used_ms: i64,
        changes: &mut Vec<Change>,
    ) {
        for path in paths {
            let is_due = self.znodes.get(path).is_some_and(|znode| {
                let age_ms = time_ms.saturating_sub(znode.stat.mtime);
                znode.stat.num_children == 0
                    && match znode.kind {
                        Kind::Container if znode.created > 0 => true,
                        Kind::Container => never_used_ms > 0 && age_ms > never_used_ms,
                        Kind::Ttl { ms } => age_ms > ms,
                        _ => false,
                    }
            });
            if is_due {
                self.remove(path, zxid, changes);
            }
        }
    }

    /// Takes over a membership, if anything in it is new.
    pub fn configure(
        &mut self,
        zxid: i64,
        members: &str,
        changed_ms: i64,
        changes: &mut Vec<Change>,
    ) {
        let znode = &self.znodes[CONFIG];
        let old = znode.data.0.clone().unwrap_or_default();
        let is_same = old
            .strip_prefix(members.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"version="));
        if members.is_empty() || (is_same && znode.stat.mtime >= changed_ms) {
            return;
        }
        let acl = znode.acl.clone();
        let data = Data::from(format!("{members}version={zxid:x}"));
        self.change(&CONFIG.into(), |znode| {
            znode.stat.data_length = length(&data);
            znode.data = data;
            znode.stat.version = -1;
            znode.stat.mzxid = Zxid(zxid);
            znode.stat.mtime = znode.stat.mtime.max(changed_ms);
        });
        changes.push(Change {
            kind: EventKind::DataChanged,
            path: CONFIG.into(),
            parent_acl: acl.clone(),
            acl,
        });
    }

    fn found(&self, path: &str) -> Result<&Znode, Refused> {
        self.znodes.get(path).ok_or(ErrorCode::NoNode)
    }

    /// Changes a znode, if there is one, and says what its stat is then.
    fn change(&mut self, path: &Path, change: impl FnOnce(&mut Znode)) -> Stat {
        let Some(znode) = self.znodes.get_mut(path) else {
            return Stat::default();
        };
        if let Some(undo) = &mut self.undo {
            undo.push((Path::clone(path), Some(znode.clone())));
        }
        change(znode);
        znode.stat
    }

    /// Puts a znode where there is another or none, or takes it away.
    fn put(&mut self, path: &Path, znode: Option<Znode>) {
        if let Some(Znode {
            kind: Kind::Ephemeral { session },
            ..
        }) = &znode
        {
            let owned = self.ephemerals.entry(*session).or_default();
            owned.insert(Path::clone(path));
        }
        let stays_ephemeral = matches!(
            &znode,
            Some(Znode {
                kind: Kind::Ephemeral { .. },
                ..
            })
        );
        let before = match znode {
            Some(znode) => self.znodes.insert(Path::clone(path), znode),
            None => self.znodes.remove(path),
        };
        if let Some(Znode {
            kind: Kind::Ephemeral { session },
            ..
        }) = before
            && !stays_ephemeral
            && let Some(owned) = self.ephemerals.get_mut(&session)
        {
            owned.remove(path);
            if owned.is_empty() {
                self.ephemerals.remove(&session);
            }
        }
        if let Some(undo) = &mut self.undo {
            undo.push((Path::clone(path), before));
        }
    }
}

impl Znode {
    /// A child came or went.
    fn count_children(&mut self, zxid: i64) {
        let children = i64::from(self.stat.num_children);
        let cversion = self
            .created
            .wrapping_mul(2)
            .wrapping_sub(children.cast_unsigned());
        let [a, b, c, d, ..] = cversion.to_le_bytes();
        self.stat.cversion = i32::from_le_bytes([a, b, c, d]);
        self.stat.pzxid = Zxid(zxid);
    }
}

/// Whether one of the identities has one of the permissions.
#[must_use]
pub fn permits(acl: Option<&[Acl]>, wanted: Perms, identities: &[Id]) -> bool {
    let Some(acl) = acl.filter(|acl| !acl.is_empty()) else {
        return true;
    };
    identities.iter().any(Id::is_superuser)
        || acl.iter().any(|entry| entry.grants(wanted, identities))
}

fn allow(author: &Author<'_>, acl: Option<&[Acl]>, wanted: Perms) -> Result<(), Refused> {
    match author.rules.skip_acl || permits(acl, wanted, author.identities) {
        true => Ok(()),
        false => Err(ErrorCode::NoAuth),
    }
}

/// The ACL that a znode gets; `None` stands for the open one.
fn resolve(author: &Author<'_>, acl: Option<&[AclEntry]>) -> Result<Option<Arc<[Acl]>>, Refused> {
    let Some(acl) = acl else {
        return Ok(None);
    };
    let acl = Acl::resolve(acl, author.identities).map_err(|_| ErrorCode::InvalidAcl)?;
    let is_open = acl == [Acl::world(Perms::ALL)];
    Ok((!is_open).then(|| acl.into()))
}

fn check_version(expected: i32, actual: i32) -> Result<(), Refused> {
    match expected == -1 || expected == actual {
        true => Ok(()),
        false => Err(ErrorCode::BadVersion),
    }
}

fn check_path(path: &str) -> Result<(), Refused> {
    ZnodePath::check(path).map_err(|_| ErrorCode::BadArguments)
}

/// Around the end, and past -1, which means "any".
fn next_version(version: i32) -> i32 {
    match version.wrapping_add(1) {
        -1 => 0,
        next => next,
    }
}

fn length(data: &Data) -> i32 {
    i32::try_from(data.len()).unwrap_or(i32::MAX)
}

/// The path of the parent; of the root that is nothing, and of a path without slashes, too.
#[must_use]
pub fn parent_of(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}

/// What all descendants' paths begin with.
fn below(path: &str) -> String {
    match path {
        "/" => "/".to_owned(),
        path => format!("{path}/"),
    }
}
