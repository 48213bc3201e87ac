//! What a client does next, from what it has learnt so far.
//!
//! Every value is written once only, so that a read says which write it shows.

use std::collections::{BTreeMap, VecDeque};

use quorate_checker::history::{
    CreateKind, Data, Outcome, PartResult, Path, Reply, Request, WatchList,
};
use quorate_protocol::{AclEntry, ErrorCode, Perms, Stat};

use crate::dice::Dice;
use crate::link::Answer;
use crate::places::{ACLS, NODES, Places, REGISTERS, SECRETS, acl};
use crate::raw::Raw;
use crate::recorder::Recorder;

/// Znodes of its own making that a client remembers, to delete them.
const REMEMBERED_MAX: usize = 64;

/// What there is to do. Each run does some of it, each to its own degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Sets a register to a value, whatever it was.
    Set,
    /// Sets a register if it is as it was last seen.
    CompareAndSet,
    /// Reads a register, with a watch or without.
    Read,
    /// Syncs and reads.
    ReadRecent,
    /// Several reads in one request.
    ReadSeveral,
    /// Creates a znode that comes and goes.
    Create,
    Delete,
    /// Looks whether it is there.
    LookFor,
    /// Creates a numbered znode.
    Number,
    /// Deletes a numbered znode.
    Unnumber,
    /// Creates an ephemeral that others want as well.
    Hold,
    /// Deletes it.
    Release,
    List,
    /// Counts descendants, or asks for its own ephemerals.
    Count,
    /// Several writes in one request, some of which fail.
    Several,
    /// Reads, sets or lists what is not for everybody.
    Secret,
    /// Changes who may.
    Permit,
    /// A persistent watch.
    Follow,
    /// Takes a watch away.
    Unfollow,
    /// A container or a znode with a time to live.
    Perish,
}

impl Deed {
    pub const ALL: [Self; 20] = [
        Self::Set,
        Self::CompareAndSet,
        Self::Read,
        Self::ReadRecent,
        Self::ReadSeveral,
        Self::Create,
        Self::Delete,
        Self::LookFor,
        Self::Number,
        Self::Unnumber,
        Self::Hold,
        Self::Release,
        Self::List,
        Self::Count,
        Self::Several,
        Self::Secret,
        Self::Permit,
        Self::Follow,
        Self::Unfollow,
        Self::Perish,
    ];
}

/// What one client knows and what it makes of that.
#[derive(Debug)]
pub(crate) struct Deeds {
    client: u32,
    /// In the order of [`Deed::ALL`].
    weights: Vec<u64>,
    /// How many reads in a thousand leave a watch.
    watches: u64,
    dice: Dice,
    recorder: Recorder,
    values: u64,
    /// The stat of each path as it was last seen.
    seen: BTreeMap<Path, Stat>,
    numbered: VecDeque<Path>,
    /// By parent: numbered znodes were deleted there.
    has_deleted: BTreeMap<Path, bool>,
}

impl Deeds {
    pub(crate) fn new(
        client: u32,
        weights: Vec<u64>,
        watches: u64,
        dice: Dice,
        recorder: Recorder,
    ) -> Self {
        Self {
            client,
            weights,
            watches,
            dice,
            recorder,
            values: 0,
            seen: BTreeMap::new(),
            numbered: VecDeque::new(),
            has_deleted: BTreeMap::new(),
        }
    }

    /// A value that nobody else ever writes.
    pub(crate) fn value(&mut self) -> Data {
        self.values += 1;
        let padding = match self.dice.below(20) {
            0 => 300,
            1 => 40,
            _ => 0,
        };
        Data::from(format!(
            "c{}-{}{}",
            self.client,
            self.values,
            ".".repeat(padding)
        ))
    }

    /// What to do in a subtree: mostly one request, sometimes several that belong together.
    pub(crate) fn next(&mut self, subtree: u64, raw: &Raw) -> Vec<Request> {
        let deed = self.dice.weighted(&self.weights);
        let deed = deed.and_then(|index| Deed::ALL.get(index));
        self.requests(deed.copied().unwrap_or(Deed::Read), subtree, raw)
    }

    fn requests(&mut self, deed: Deed, subtree: u64, raw: &Raw) -> Vec<Request> {
        let register = Places::register(subtree, self.dice.below(REGISTERS));
        let number = self.dice.below(NODES);
        let node = Places::node(subtree, number);
        vec![match deed {
            Deed::Set => self.set(register, -1),
            Deed::CompareAndSet => {
                let Some(stat) = self.seen.get(&register) else {
                    return vec![self.get(register)];
                };
                let version = stat.version;
                self.set(register, version)
            }
            Deed::Read => self.read(subtree, register),
            Deed::ReadRecent => {
                let sync = Request::Sync {
                    path: Path::clone(&register),
                };
                return match self.dice.below(4) {
                    0 => vec![sync],
                    1 => vec![sync, self.list(Places::numbered(subtree))],
                    _ => vec![sync, self.read(subtree, register)],
                };
            }
            Deed::ReadSeveral => {
                let mut parts: Vec<Request> = (0..REGISTERS)
                    .map(|index| Request::GetData {
                        path: Places::register(subtree, index),
                        watch: false,
                    })
                    .collect();
                parts.push(Request::GetChildren {
                    path: Places::holders(subtree),
                    watch: false,
                });
                parts.push(Request::GetData {
                    path: node,
                    watch: false,
                });
                Request::MultiRead(parts)
            }
            Deed::Create => match self.dice.below(4) {
                0 => self.create(
                    Places::child_of_node(subtree, number),
                    CreateKind::Persistent,
                ),
                _ => self.create(node, CreateKind::Persistent),
            },
            Deed::Delete => {
                let path = match self.dice.below(4) {
                    0 => Places::child_of_node(subtree, number),
                    _ => node,
                };
                let version = self.version_of(&path);
                Request::Delete { path, version }
            }
            Deed::LookFor => {
                let path = match self.dice.below(3) {
                    0 => Places::held(subtree, number),
                    _ => node,
                };
                let watch = self.watches();
                Request::Exists { path, watch }
            }
            Deed::Number => {
                let kind = match self.dice.below(3) {
                    0 => CreateKind::EphemeralSequential,
                    _ => CreateKind::PersistentSequential,
                };
                self.create(format!("/s{subtree}/q/n-").into(), kind)
            }
            Deed::Unnumber => match self.numbered.pop_front() {
                Some(path) => Request::Delete { path, version: -1 },
                None => self.list(Places::numbered(subtree)),
            },
            Deed::Hold => self.create(Places::held(subtree, number), CreateKind::Ephemeral),
            Deed::Release => Request::Delete {
                path: Places::held(subtree, number),
                version: -1,
            },
            Deed::List => match self.dice.below(4) {
                0 => self.list(Places::top(subtree)),
                1 => self.list(Places::holders(subtree)),
                2 => self.list(node),
                _ => self.list(Places::numbered(subtree)),
            },
            Deed::Count => match self.dice.below(2) {
                0 => Request::GetEphemerals {
                    prefix: Places::top(subtree),
                },
                _ => Request::CountDescendants {
                    path: Places::top(subtree),
                },
            },
            Deed::Several => self.several(subtree),
            Deed::Secret => self.secret(subtree),
            Deed::Permit => self.permit(subtree),
            Deed::Follow => {
                let (path, recursive) = match self.dice.below(4) {
                    0 => (Places::top(subtree), true),
                    1 => (Places::holders(subtree), self.dice.permille(500)),
                    2 => (Places::secret(subtree, 0), false),
                    _ => (register, false),
                };
                Request::AddWatch { path, recursive }
            }
            Deed::Unfollow => self.unfollow(node, raw),
            Deed::Perish => self.perish(),
        }]
    }

    fn watches(&mut self) -> bool {
        self.dice.permille(self.watches)
    }

    fn set(&mut self, path: Path, version: i32) -> Request {
        Request::SetData {
            path,
            data: self.value(),
            version,
        }
    }

    fn get(&mut self, path: Path) -> Request {
        let watch = self.watches();
        Request::GetData { path, watch }
    }

    fn list(&mut self, path: Path) -> Request {
        let watch = self.watches();
        Request::GetChildren { path, watch }
    }

    fn read(&mut self, subtree: u64, register: Path) -> Request {
        match self.dice.below(6) {
            0 => {
                let watch = self.watches();
                Request::Exists {
                    path: register,
                    watch,
                }
            }
            1 => self.get(Places::held(subtree, 0)),
            2 => Request::GetAcl { path: register },
            _ => self.get(register),
        }
    }

    fn create(&mut self, path: Path, kind: CreateKind) -> Request {
        let with_stat = self.dice.permille(500)
            || matches!(kind, CreateKind::Container | CreateKind::Ttl { .. });
        Request::Create {
            path,
            data: self.value(),
            kind,
            acl: None,
            with_stat,
        }
    }

    /// Mostly any, sometimes the last one seen.
    fn version_of(&mut self, path: &Path) -> i32 {
        let seen = self.seen.get(path).map_or(-1, |stat| stat.version);
        match self.dice.below(3) {
            0 => seen,
            _ => -1,
        }
    }

    /// All of it or nothing. What makes it fail stands at any place.
    fn several(&mut self, subtree: u64) -> Request {
        let mut parts = Vec::new();
        for index in 0..REGISTERS {
            let path = Places::register(subtree, index);
            match self.dice.below(4) {
                0 => {
                    let version = self.seen.get(&path).map_or(-1, |stat| stat.version);
                    parts.push(Request::Check { path, version });
                }
                1 => {}
                _ => {
                    let version = self.version_of(&path);
                    let set = self.set(path, version);
                    parts.push(set);
                }
            }
        }
        let number = self.dice.below(NODES);
        match self.dice.below(6) {
            0 => {
                let create = self.create(Places::node(subtree, number), CreateKind::Persistent);
                parts.push(create);
            }
            1 => parts.push(Request::Delete {
                path: Places::node(subtree, number),
                version: -1,
            }),
            2 => {
                let prefix = format!("/s{subtree}/q/m-").into();
                let create = self.create(prefix, CreateKind::PersistentSequential);
                parts.push(create);
            }
            3 => {
                let create = self.create(Places::held(subtree, number), CreateKind::Ephemeral);
                parts.push(create);
            }
            _ => {}
        }
        if self.dice.permille(250) {
            let at = self.dice.index(parts.len() + 1);
            // Fails for sure.
            parts.insert(
                at,
                Request::Check {
                    path: Places::top(subtree),
                    version: 1_000_000,
                },
            );
        }
        if parts.is_empty() {
            let set = self.set(Places::register(subtree, 0), -1);
            parts.push(set);
        }
        Request::Multi(parts)
    }

    fn secret(&mut self, subtree: u64) -> Request {
        let path = Places::secret(subtree, self.dice.below(SECRETS));
        match self.dice.below(6) {
            0 | 1 => self.set(path, -1),
            2 => self.list(path),
            3 => {
                let watch = self.watches();
                Request::Exists { path, watch }
            }
            4 => Request::GetAcl { path },
            _ => self.get(path),
        }
    }

    fn permit(&mut self, subtree: u64) -> Request {
        let path = Places::secret(subtree, self.dice.below(SECRETS));
        let version = match self.seen.get(&path) {
            Some(stat) if self.dice.permille(300) => stat.aversion,
            _ => -1,
        };
        let acl = match self.dice.below(ACLS + 1) {
            // Whoever the client has proved to be; refused if that is nobody.
            ACLS => vec![AclEntry::new(Perms::ALL, "auth", "")],
            index => acl(index),
        };
        Request::SetAcl { path, acl, version }
    }

    fn unfollow(&mut self, node: Path, raw: &Raw) -> Request {
        let index = self.dice.index(1 << 16);
        let (which, path) = match raw.watch(index) {
            Some((which, path)) if self.dice.permille(850) => (which, Path::clone(path)),
            _ => (WatchList::Data, node),
        };
        let which = match self.dice.below(5) {
            0 => WatchList::Any,
            _ => which,
        };
        Request::RemoveWatches { path, which }
    }

    fn perish(&mut self) -> Request {
        let number = self.dice.below(3);
        match self.dice.below(5) {
            0 => self.create(Places::reaped(&format!("c{number}")), CreateKind::Container),
            1 => self.create(
                Places::reaped(&format!("c{number}/x")),
                CreateKind::Ephemeral,
            ),
            2 => Request::Delete {
                path: Places::reaped(&format!("c{number}/x")),
                version: -1,
            },
            3 => {
                let ms = self.dice.between(1_000, 20_000);
                let ms = i64::try_from(ms).unwrap_or(1_000);
                self.create(
                    Places::reaped(&format!("t{number}")),
                    CreateKind::Ttl { ms },
                )
            }
            _ => self.list(Places::reaped(&format!("c{number}"))),
        }
    }

    /// Ephemerals are gone with the session, and nobody counts on what was seen before.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }

    pub(crate) fn on_answer(&mut self, answer: &Answer) {
        let Answer {
            request, outcome, ..
        } = answer;
        match outcome {
            Outcome::Done { reply, .. } => self.on_done(request, reply),
            Outcome::Refused { code, .. } => self.on_refused(request, *code),
            Outcome::Unknown | Outcome::NotSent => {}
        }
    }

    fn on_done(&mut self, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::SetData { path, version, .. }, Reply::Stat(stat)) => {
                if *version >= 0 {
                    self.recorder.mark("compare-and-set won");
                }
                self.seen.insert(Path::clone(path), *stat);
            }
            (Request::GetData { path, .. }, Reply::Data { stat, .. })
            | (Request::Exists { path, .. } | Request::SetAcl { path, .. }, Reply::Stat(stat)) => {
                self.seen.insert(Path::clone(path), *stat);
            }
            (
                Request::Create { path, kind, .. },
                Reply::Path(created) | Reply::Created { path: created, .. },
            ) if kind.is_sequential() => {
                let parent: Path = path
                    .rsplit_once('/')
                    .map_or("", |(parent, _)| parent)
                    .into();
                if self.has_deleted.remove(&parent).is_some() {
                    self.recorder.mark("numbered after a deletion");
                }
                self.remember(Path::clone(created));
            }
            (Request::Delete { path, .. }, _) => {
                if let Some((parent, _)) = path.rsplit_once('/')
                    && parent.ends_with("/q")
                {
                    self.has_deleted.insert(parent.into(), true);
                }
                self.seen.remove(path);
            }
            (Request::GetChildren { path, .. }, Reply::Children { names, .. })
                if path.ends_with("/q") =>
            {
                // The oldest of what others have made.
                if let Some(name) = names.iter().min() {
                    self.remember(format!("{path}/{name}").into());
                }
            }
            (Request::Multi(parts), Reply::Results(results)) => self.on_results(parts, results),
            _ => {}
        }
    }

    fn remember(&mut self, path: Path) {
        if self.numbered.len() < REMEMBERED_MAX {
            self.numbered.push_back(path);
        }
    }

    fn on_results(&mut self, parts: &[Request], results: &[PartResult]) {
        let failed = results
            .iter()
            .position(|result| matches!(result, PartResult::Failed(code) if *code != 0));
        match failed {
            Some(0) => self.recorder.mark("multi failed at once"),
            Some(_) => self.recorder.mark("multi failed in the middle"),
            None => self.recorder.mark("multi done"),
        }
        for (part, result) in parts.iter().zip(results) {
            if let (Request::SetData { path, .. }, PartResult::Done(Reply::Stat(stat))) =
                (part, result)
            {
                self.seen.insert(Path::clone(path), *stat);
            }
        }
    }

    fn on_refused(&mut self, request: &Request, code: i32) {
        let mark = match (request, ErrorCode::from_code(code)) {
            (Request::SetData { path, .. }, Some(ErrorCode::BadVersion)) => {
                self.seen.remove(path);
                "compare-and-set lost"
            }
            (_, Some(ErrorCode::NoAuth)) => "refused: no permission",
            (Request::Create { .. }, Some(ErrorCode::NodeExists)) => "refused: exists",
            (_, Some(ErrorCode::NotEmpty)) => "refused: has children",
            (_, Some(ErrorCode::NoChildrenForEphemerals)) => "refused: ephemeral parent",
            (_, Some(ErrorCode::NoWatcher)) => "refused: no such watch",
            (_, Some(ErrorCode::InvalidAcl)) => "refused: invalid ACL",
            _ => return,
        };
        self.recorder.mark(mark);
    }
}
