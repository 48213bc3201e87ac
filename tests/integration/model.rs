//! What one client's subtree must look like: a plain map, and the few rules its writes need.
//!
//! A [`Model`] predicts the result of every write and remembers the zxid of those that were
//! answered. Written from the protocol's description, not from the server's code.

use std::collections::BTreeMap;

use quorate_protocol::multi::{MultiOp, MultiResult};
use quorate_protocol::request::Create;
use quorate_protocol::{Response, Stat};
use quorate_tests::client::{EPHEMERAL, Reply, SEQUENTIAL};

pub(crate) const NO_NODE: i32 = -101;
pub(crate) const BAD_VERSION: i32 = -103;
pub(crate) const NODE_EXISTS: i32 = -110;
const NOT_ATTEMPTED: i32 = -2;

/// A znode as it must be. A zxid is `None` while the write that gave it has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) data: Vec<u8>,
    pub(crate) version: i32,
    pub(crate) czxid: Option<i64>,
    pub(crate) mzxid: Option<i64>,
    /// The session it belongs to; 0 for none.
    pub(crate) owner: i64,
}

/// A subtree: folders that stay, and the znodes in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) entries: BTreeMap<String, Entry>,
    folders: BTreeMap<String, Folder>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Folder {
    /// How many children it ever had: the number of the next sequential one.
    created: u32,
    /// How often a child came or went: its `cversion`.
    changes: i32,
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(Vec<Done>),
    /// The operation at this place is refused, with this code, and so nothing happens.
    Refused(usize, i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Created(String),
    Set(Entry),
    Deleted,
    Checked,
}

impl Model {
    /// Notes a folder that had one child so far for each of `children`, which stays.
    pub(crate) fn with_folder(mut self, path: &str, children: u8) -> Self {
        let folder = Folder {
            created: children.into(),
            changes: children.into(),
        };
        self.folders.insert(path.to_owned(), folder);
        self
    }

    pub(crate) fn folders(&self) -> impl Iterator<Item = &String> {
        self.folders.keys()
    }

    fn folder_of(&mut self, path: &str) -> &mut Folder {
        let (folder, _) = path.rsplit_once('/').unwrap();
        self.folders
            .get_mut(folder)
            .expect("the load stays in its folders")
    }

    fn remove(&mut self, path: &str) {
        self.entries.remove(path);
        self.folder_of(path).changes += 1;
    }

    /// Does all of `ops` or nothing.
    pub(crate) fn apply(&mut self, ops: &[MultiOp], session: i64, zxid: Option<i64>) -> Outcome {
        let before = self.clone();
        let mut done = Vec::new();
        for (place, op) in ops.iter().enumerate() {
            match self.apply_one(op, session, zxid) {
                Ok(result) => done.push(result),
                Err(code) => {
                    *self = before;
                    return Outcome::Refused(place, code);
                }
            }
        }
        Outcome::Done(done)
    }

    fn apply_one(&mut self, op: &MultiOp, session: i64, zxid: Option<i64>) -> Result<Done, i32> {
        match op {
            MultiOp::Create(create) => self.create(create, session, zxid),
            MultiOp::SetData(set) => {
                let entry = self.entry(&set.path, set.version)?;
                entry.data = set.data.as_deref().unwrap_or_default().to_vec();
                entry.version += 1;
                entry.mzxid = zxid;
                Ok(Done::Set(entry.clone()))
            }
            MultiOp::Delete(delete) => {
                self.entry(&delete.path, delete.version)?;
                self.remove(&delete.path);
                Ok(Done::Deleted)
            }
            MultiOp::Check(check) => {
                self.entry(&check.path, check.version)?;
                Ok(Done::Checked)
            }
            other => unreachable!("the load has no {other:?}"),
        }
    }

    fn create(&mut self, create: &Create, session: i64, zxid: Option<i64>) -> Result<Done, i32> {
        let path = match create.flags & SEQUENTIAL {
            0 => create.path.clone(),
            _ => format!(
                "{}{:010}",
                create.path,
                self.folder_of(&create.path).created
            ),
        };
        if self.entries.contains_key(&path) {
            return Err(NODE_EXISTS);
        }
        let folder = self.folder_of(&path);
        folder.created += 1;
        folder.changes += 1;
        let entry = Entry {
            data: create.data.as_deref().unwrap_or_default().to_vec(),
            version: 0,
            czxid: zxid,
            mzxid: zxid,
            owner: if create.flags & EPHEMERAL == 0 {
                0
            } else {
                session
            },
        };
        self.entries.insert(path.clone(), entry);
        Ok(Done::Created(path))
    }

    fn entry(&mut self, path: &str, version: i32) -> Result<&mut Entry, i32> {
        let entry = self.entries.get_mut(path).ok_or(NO_NODE)?;
        match version {
            -1 => Ok(entry),
            version if version == entry.version => Ok(entry),
            _ => Err(BAD_VERSION),
        }
    }

    /// Ends a session: its ephemerals go.
    pub(crate) fn end_session(&mut self, session: i64) {
        let owned = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.owner == session);
        let owned: Vec<String> = owned.map(|(path, _)| path.clone()).collect();
        for path in owned {
            self.remove(&path);
        }
    }

    /// Compares with what the server has, which is taken over where nothing was known.
    pub(crate) fn check(&mut self, actual: &Tree) -> Result<(), String> {
        for (path, folder) in &self.folders {
            let found = actual.folders.get(path).map(|stat| stat.cversion);
            if found != Some(folder.changes) {
                return Err(format!(
                    "{path} has cversion {found:?}, changed: {folder:?}"
                ));
            }
        }
        for path in actual.entries.keys() {
            if !self.entries.contains_key(path) {
                return Err(format!("{path} is there and should not be"));
            }
        }
        let mut known = self.entries.clone();
        for (path, entry) in &mut known {
            let Some((data, stat)) = actual.entries.get(path) else {
                return Err(format!("{path} is lost: {}", brief(entry)));
            };
            let found = Entry {
                data: data.clone(),
                version: stat.version,
                czxid: Some(stat.czxid.0),
                mzxid: Some(stat.mzxid.0),
                owner: stat.ephemeral_owner,
            };
            let expected = Entry {
                czxid: entry.czxid.or(found.czxid),
                mzxid: entry.mzxid.or(found.mzxid),
                ..entry.clone()
            };
            if found != expected {
                return Err(format!(
                    "{path} should be {}, is {}",
                    brief(&expected),
                    brief(&found)
                ));
            }
            *entry = expected;
        }
        self.entries = known;
        Ok(())
    }
}

/// What a server has in some folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) entries: BTreeMap<String, (Vec<u8>, Stat)>,
    pub(crate) folders: BTreeMap<String, Stat>,
}

fn brief(entry: &Entry) -> String {
    let data = String::from_utf8_lossy(&entry.data[..entry.data.len().min(24)]).into_owned();
    format!(
        "{data:?} ({} bytes) version {} czxid {:?} mzxid {:?} owner {:#x}",
        entry.data.len(),
        entry.version,
        entry.czxid,
        entry.mzxid,
        entry.owner
    )
}

/// Whether a reply says what the model says.
pub(crate) fn agree(outcome: &Outcome, multi: bool, reply: &Reply) -> Result<(), String> {
    let agrees = match (outcome, multi, &reply.result) {
        (Outcome::Refused(_, code), false, Err(found)) => code == found,
        (Outcome::Done(done), false, Ok(response)) => agree_one(&done[0], response, reply.zxid),
        (Outcome::Done(done), true, Ok(Response::Multi(results))) => {
            done.len() == results.len()
                && done
                    .iter()
                    .zip(results)
                    .all(|(done, result)| agree_multi(done, result, reply.zxid))
        }
        (Outcome::Refused(place, code), true, Ok(Response::Multi(results))) => {
            results.iter().enumerate().all(|(at, result)| {
                let expected = match at.cmp(place) {
                    std::cmp::Ordering::Less => 0,
                    std::cmp::Ordering::Equal => *code,
                    std::cmp::Ordering::Greater => NOT_ATTEMPTED,
                };
                matches!(result, MultiResult::Error(found)
                    if found.map_or(0, |found| found.code()) == expected)
            })
        }
        _ => false,
    };
    if agrees {
        Ok(())
    } else {
        Err(format!("expected {outcome:?}, got {reply:?}"))
    }
}

fn agree_one(done: &Done, response: &Response<'_>, zxid: i64) -> bool {
    match (done, response) {
        (Done::Created(path), Response::Path(found)) => path == found,
        (Done::Set(entry), Response::Stat(stat)) => agree_stat(entry, stat, zxid),
        (Done::Deleted, Response::Empty) => true,
        _ => false,
    }
}

fn agree_multi(done: &Done, result: &MultiResult<'_>, zxid: i64) -> bool {
    match (done, result) {
        (Done::Created(path), MultiResult::Create { path: found }) => path == found,
        (Done::Set(entry), MultiResult::SetData(stat)) => agree_stat(entry, stat, zxid),
        (Done::Deleted, MultiResult::Delete) | (Done::Checked, MultiResult::Check) => true,
        _ => false,
    }
}

fn agree_stat(entry: &Entry, stat: &Stat, zxid: i64) -> bool {
    entry.version == stat.version
        && stat.mzxid.0 == zxid
        && entry.czxid.is_none_or(|czxid| czxid == stat.czxid.0)
        && entry.owner == stat.ephemeral_owner
        && usize::try_from(stat.data_length) == Ok(entry.data.len())
}
