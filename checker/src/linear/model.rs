//! What the search tries: the znodes of one group, as far as answers about them depend on their order.
//!
//! Smaller than [`crate::tree`]: no zxids and no times, since the search is not to trust them, and
//! no ACLs. Existence, data, versions, owners, numbers and names.

use std::collections::BTreeMap;

use quorate_protocol::{ErrorCode, Stat};

use crate::history::{Data, FinalZnode, PartResult, Path, Reply, Request};
use crate::tree::parent_of;

use super::groups::Groups;
use super::search::{Model, Next};

/// An operation, as the search tries it.
pub(super) enum Step<'h> {
    Write {
        session: i64,
        request: &'h Request,
        expected: Expected<'h>,
    },
    Read {
        request: &'h Request,
        expected: Expected<'h>,
    },
    /// A session ends. If that need not be, it does so only where it owns something.
    End { session: i64, must: bool },
    /// What a znode is in the end; `None`: there is none.
    Final {
        path: Path,
        seen: Option<&'h FinalZnode>,
    },
}

/// What came of it.
#[derive(Clone, Copy)]
pub(super) enum Expected<'h> {
    Done(&'h Reply),
    Refused(i32),
    /// It may have been done in any way.
    Anything,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    data: Data,
    version: i32,
    /// 0: none.
    owner: i64,
    /// How many children were created, and how many there are.
    created: u32,
    children: u32,
}

type State = BTreeMap<Path, Node>;

/// The znodes of one group.
pub(super) struct Trees<'g, 'h> {
    groups: &'g Groups<'h>,
    group: usize,
}

impl<'g, 'h> Trees<'g, 'h> {
    pub(super) fn new(groups: &'g Groups<'h>, group: usize) -> Self {
        Self { groups, group }
    }

    fn is_member(&self, path: &str) -> bool {
        match self.groups.of_path(path) {
            Some(group) => group == self.group,
            // Only a number that nobody was told makes a path that no operation names.
            None => true,
        }
    }

    /// Does a write to the state, or says why not.
    fn apply(&self, state: &mut State, session: i64, part: &Request) -> Result<Reply, ErrorCode> {
        match part {
            Request::Create {
                path, data, kind, ..
            } => {
                let parent = parent_of(path).ok_or(ErrorCode::BadArguments)?;
                let has_parent = match self.is_member(parent) {
                    true => state
                        .get(parent)
                        .map(|parent| (parent.created, parent.owner)),
                    false => self.groups.is_settled(parent).then_some((0, 0)),
                };
                let (created, owner) = has_parent.ok_or(ErrorCode::NoNode)?;
                let path: Path = match kind.is_sequential() {
                    true => format!("{path}{created:010}").into(),
                    false => Path::clone(path),
                };
                if state.contains_key(&path) {
                    return Err(ErrorCode::NodeExists);
                }
                if owner != 0 {
                    return Err(ErrorCode::NoChildrenForEphemerals);
                }
                if let Some(parent) = state.get_mut(parent) {
                    parent.created += 1;
                    parent.children += 1;
                }
                let node = Node {
                    data: data.clone(),
                    version: 0,
                    owner: if kind.is_ephemeral() { session } else { 0 },
                    created: 0,
                    children: 0,
                };
                state.insert(Path::clone(&path), node);
                Ok(Reply::Path(path))
            }
            Request::Delete { path, version } => {
                let node = state.get(path).ok_or(ErrorCode::NoNode)?;
                check_version(*version, node.version)?;
                if node.children > 0 {
                    return Err(ErrorCode::NotEmpty);
                }
                remove(state, path);
                Ok(Reply::Nothing)
            }
            Request::SetData {
                path,
                data,
                version,
            } => {
                let node = state.get_mut(path).ok_or(ErrorCode::NoNode)?;
                check_version(*version, node.version)?;
                node.data = data.clone();
                node.version = match node.version.wrapping_add(1) {
                    -1 => 0,
                    next => next,
                };
                Ok(Reply::Stat(Stat {
                    version: node.version,
                    ..Stat::default()
                }))
            }
            Request::Check { path, version } => {
                let node = state.get(path).ok_or(ErrorCode::NoNode)?;
                check_version(*version, node.version)?;
                Ok(Reply::Nothing)
            }
            _ => Err(ErrorCode::MarshallingError),
        }
    }

    fn write(
        &self,
        state: &State,
        session: i64,
        request: &Request,
        expected: Expected<'_>,
    ) -> Next<State> {
        let mut after = state.clone();
        if let Request::Multi(parts) = request {
            return self.multi(after, session, parts, expected);
        }
        match (self.apply(&mut after, session, request), expected) {
            (Ok(_), Expected::Anything) => Next::Changed(after),
            (Ok(result), Expected::Done(reply)) if is_same(&result, reply) => Next::Changed(after),
            (Err(code), Expected::Refused(refused)) if code.code() == refused => Next::Same,
            _ => Next::Impossible,
        }
    }

    fn multi(
        &self,
        mut after: State,
        session: i64,
        parts: &[Request],
        expected: Expected<'_>,
    ) -> Next<State> {
        let results = match expected {
            Expected::Done(Reply::Results(results)) => Some(results),
            Expected::Anything => None,
            _ => return Next::Impossible,
        };
        let failure = results.and_then(|results| {
            let codes = results.iter().enumerate();
            codes.into_iter().find_map(|(index, result)| match result {
                PartResult::Failed(code) if *code != 0 => Some((index, *code)),
                _ => None,
            })
        });
        for (index, part) in parts.iter().enumerate() {
            let result = self.apply(&mut after, session, part);
            match (result, failure) {
                (Err(error), Some((at, code))) if at == index && error.code() == code => {
                    return Next::Same;
                }
                (Err(_), _) => return Next::Impossible,
                (Ok(_), Some((at, _))) if at == index => return Next::Impossible,
                (Ok(result), None) => {
                    let seen = results.map(|results| results.get(index));
                    let is_it = match seen {
                        None => true,
                        Some(Some(PartResult::Done(reply))) => is_same(&result, reply),
                        Some(_) => false,
                    };
                    if !is_it {
                        return Next::Impossible;
                    }
                }
                (Ok(_), Some(_)) => {}
            }
        }
        match failure {
            Some(_) => Next::Impossible,
            None => Next::Changed(after),
        }
    }

    fn read(&self, state: &State, request: &Request, expected: Expected<'_>) -> bool {
        let (Request::GetData { path, .. }
        | Request::Exists { path, .. }
        | Request::GetChildren { path, .. }) = request
        else {
            return true;
        };
        let node = state.get(path);
        match (node, expected) {
            (None, Expected::Refused(code)) => code == ErrorCode::NoNode.code(),
            (Some(node), Expected::Done(reply)) => match reply {
                Reply::Data { data, stat } => *data == node.data && node.is_shown_by(stat),
                Reply::Stat(stat) => node.is_shown_by(stat),
                Reply::Children { names, .. } => self.has_children(state, path, names),
                _ => false,
            },
            _ => false,
        }
    }

    fn has_children(&self, state: &State, parent: &str, names: &[Path]) -> bool {
        let mut expected: Vec<&str> = state
            .keys()
            .filter(|path| parent_of(path) == Some(parent) && &***path != "/")
            .filter_map(|path| path.rsplit('/').next())
            .collect();
        if parent == "/" {
            expected.push("zookeeper");
        }
        expected.sort_unstable();
        let mut names: Vec<&str> = names.iter().map(|name| &**name).collect();
        names.sort_unstable();
        expected == names
    }
}

impl<'h> Model for Trees<'_, 'h> {
    type State = State;
    type Operation = Step<'h>;

    fn initial(&self) -> State {
        let mut state = State::new();
        if self.is_member("/") {
            let root = Node {
                data: Data::from(""),
                version: 0,
                owner: 0,
                created: 0,
                children: 1,
            };
            state.insert("/".into(), root);
        }
        state
    }

    fn step(&self, state: &State, step: &Step<'h>) -> Next<State> {
        let is_so = match step {
            Step::Write {
                session,
                request,
                expected,
            } => return self.write(state, *session, request, *expected),
            Step::End { session, must } => {
                let mut after = state.clone();
                let owned = state.iter().filter(|(_, node)| node.owner == *session);
                let mut owned = owned.map(|(path, _)| path).peekable();
                if owned.peek().is_none() && !must {
                    return Next::Impossible;
                }
                owned.for_each(|path| remove(&mut after, path));
                // A change even if it owned nothing: what it has yet to create cannot come later.
                return Next::Changed(after);
            }
            Step::Read { request, expected } => self.read(state, request, *expected),
            Step::Final { path, seen } => match (state.get(path), seen) {
                (None, None) => true,
                (Some(node), Some(seen)) => node.data == seen.data && node.is_shown_by(&seen.stat),
                _ => false,
            },
        };
        match is_so {
            true => Next::Same,
            false => Next::Impossible,
        }
    }
}

impl Node {
    fn is_shown_by(&self, stat: &Stat) -> bool {
        self.version == stat.version && self.owner == stat.ephemeral_owner
    }
}

fn remove(state: &mut State, path: &Path) {
    state.remove(path);
    if let Some(parent) = parent_of(path).and_then(|parent| state.get_mut(parent)) {
        parent.children = parent.children.saturating_sub(1);
    }
}

fn check_version(expected: i32, actual: i32) -> Result<(), ErrorCode> {
    match expected == -1 || expected == actual {
        true => Ok(()),
        false => Err(ErrorCode::BadVersion),
    }
}

/// Whether an answer says what came of it here.
fn is_same(result: &Reply, reply: &Reply) -> bool {
    match (result, reply) {
        (Reply::Path(path), Reply::Path(seen) | Reply::Created { path: seen, .. }) => path == seen,
        (Reply::Stat(stat), Reply::Stat(seen)) => stat.version == seen.version,
        (Reply::Nothing, Reply::Nothing) => true,
        _ => false,
    }
}
