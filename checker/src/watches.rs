//! Watches, held against the log: for each connection, which events it had to get, and when.
//!
//! An answer's zxid says exactly when a watch was registered, and each change of the log after that
//! fires it or does not. So the events of a connection are determined, but for the last ones, which
//! it may not have lived to see. An event has to come before any answer whose zxid is not lower than
//! the change's. Where arrivals were not recorded, nothing is judged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_protocol::{Acl, Id, Perms};

use crate::history::{EventKind, Operation, Outcome, Path, Request, WatchEvent, WatchList};
use crate::index::Connection;
use crate::judge::{Judge, describe};
use crate::oracle::{Oracle, Rearmed, may_read, path_of};
use crate::promise::Promise;
use crate::tree::parent_of;

pub(crate) fn judge(judge: &mut Judge<'_>, oracle: &Oracle) {
    let promises = judge.history.header.promises;
    if !promises.replies_name_their_state {
        return;
    }
    let numbers: Vec<u32> = judge.index.connections.keys().copied().collect();
    for number in numbers {
        judge_connection(judge, oracle, number);
    }
}

/// What came in, in order.
#[derive(Clone, Copy)]
enum Arrival<'h> {
    Answer(usize),
    Event(&'h WatchEvent),
}

fn judge_connection(judge: &mut Judge<'_>, oracle: &Oracle, number: u32) {
    let connection = &judge.index.connections[&number];
    let watches = connection.operations.iter().any(|index| {
        let operation = judge.operation(*index);
        operation.arrival != 0 && leaves_watch(operation)
    });
    if !watches && connection.events.is_empty() {
        return;
    }
    let mut arrivals = arrivals_of(judge, connection);
    if arrivals.iter().any(|(arrival, _)| *arrival == 0) {
        return;
    }
    arrivals.sort_by_key(|(arrival, _)| *arrival);
    let place = format!(
        "client {}, connection {number} to server {}",
        connection.client, connection.server
    );
    let mut watcher = Watcher {
        oracle,
        place,
        table: Table::default(),
        next: 0,
        due: VecDeque::new(),
        missed: Vec::new(),
        unplaced: Vec::new(),
        identities: Vec::new(),
        known: 0,
        last_event: i64::MIN,
        started: false,
    };
    for (_, arrival) in arrivals {
        match arrival {
            Arrival::Answer(index) => watcher.on_answer(judge, index),
            Arrival::Event(event) => watcher.on_event(judge, event),
        }
    }
}

fn leaves_watch(operation: &Operation) -> bool {
    matches!(
        operation.request,
        Request::GetData { watch: true, .. }
            | Request::Exists { watch: true, .. }
            | Request::GetChildren { watch: true, .. }
            | Request::AddWatch { .. }
            | Request::SetWatches { .. }
    )
}

fn arrivals_of<'h>(judge: &Judge<'h>, connection: &Connection<'h>) -> Vec<(u32, Arrival<'h>)> {
    let answers = connection.operations.iter().filter_map(|index| {
        let operation = judge.operation(*index);
        operation.outcome.zxid()?;
        Some((operation.arrival, Arrival::Answer(*index)))
    });
    let events = connection.events.iter();
    answers
        .chain(events.map(|event| (event.arrival, Arrival::Event(event))))
        .collect()
}

/// An event that has to come, unless the connection ends first.
#[derive(Clone, Debug)]
struct Due {
    zxid: i64,
    kind: EventKind,
    path: Path,
    /// Whether the client may read what it is about; `None` if that is not known.
    may_read: Option<bool>,
}

/// One connection's watches, as they have to be.
struct Watcher<'o> {
    oracle: &'o Oracle,
    place: String,
    table: Table,
    /// The first change that has not fired yet.
    next: usize,
    due: VecDeque<Due>,
    /// What was due and did not come in time: it may come late.
    missed: Vec<Due>,
    /// Events without a zxid: made up for a watch that is set again, whose answer follows.
    unplaced: Vec<(EventKind, Path)>,
    /// What the client has proved. When the server knew of the last ones is not known before the
    /// next answer, since the answer to a proof has no zxid.
    identities: Vec<Id>,
    /// How many of them the server knew at the last answer.
    known: usize,
    last_event: i64,
    /// A watch has been registered.
    started: bool,
}

impl Watcher<'_> {
    /// Fires all changes up to a zxid.
    fn advance(&mut self, zxid: i64) {
        let changes = &self.oracle.changes;
        if !self.started {
            // Nothing before the first watch matters, and there may be a lot of it.
            self.next = changes
                .partition_point(|(at, _)| *at <= zxid)
                .max(self.next);
            return;
        }
        while let Some((at, change)) = changes.get(self.next)
            && *at <= zxid
        {
            self.next += 1;
            if self.table.is_empty() {
                continue;
            }
            let mut push = |kind, path: &Path, acl: Option<&[Acl]>| {
                self.due.push_back(Due {
                    zxid: *at,
                    kind,
                    path: Path::clone(path),
                    may_read: match acl {
                        None => Some(true),
                        Some(_) => {
                            let before = &self.identities[..self.known];
                            let after = may_read(acl, Perms::READ, &self.identities);
                            after.filter(|after| may_read(acl, Perms::READ, before) == Some(*after))
                        }
                    },
                });
            };
            let path = &change.path;
            if self.table.fire(path, change.kind) {
                push(change.kind, path, change.acl.as_deref());
            }
            if change.kind != EventKind::DataChanged
                && let Some(parent) = parent_of(path)
                && self.table.fire_children(parent)
            {
                push(
                    EventKind::ChildrenChanged,
                    &parent.into(),
                    change.parent_acl.as_deref(),
                );
            }
        }
    }

    fn on_event(&mut self, judge: &mut Judge<'_>, event: &WatchEvent) {
        let Some(zxid) = event.zxid else {
            self.unplaced.push((event.kind, Path::clone(&event.path)));
            return;
        };
        judge.report.tally.events_checked += 1;
        self.advance(zxid);
        if zxid < self.last_event {
            judge.violation(Promise::EventsInOrder, || {
                format!(
                    "{}: after {:#x} came {event:?}",
                    self.place, self.last_event
                )
            });
        }
        self.last_event = self.last_event.max(zxid);
        let is_it =
            |due: &Due| due.zxid == zxid && due.kind == event.kind && due.path == event.path;
        if let Some(at) = self.due.iter().position(is_it) {
            let due = self.due.remove(at);
            if due.is_some_and(|due| due.may_read == Some(false)) {
                judge.violation(Promise::EventsRespectAcls, || {
                    format!("{}: {event:?} about what it may not read", self.place)
                });
            }
            // What is due before it, of an earlier change, did not come in its place.
            let overtaken = self.due.iter().take_while(|due| due.zxid < zxid).count();
            self.miss(judge, overtaken, Promise::WatchesFire, || {
                format!("before {event:?}")
            });
        } else if let Some(at) = self.missed.iter().position(is_it) {
            // Its lateness has been told.
            self.missed.swap_remove(at);
        } else {
            judge.violation(Promise::NoFalseEvents, || {
                format!(
                    "{}: nothing watched and changed makes {event:?}",
                    self.place
                )
            });
        }
    }

    /// The first few that are due have not come, and cannot come in time any more.
    fn miss(
        &mut self,
        judge: &mut Judge<'_>,
        count: usize,
        promise: Promise,
        when: impl Fn() -> String,
    ) {
        for due in self.due.drain(..count) {
            if due.may_read == Some(true) {
                judge.violation(promise, || {
                    format!("{}: {due:?} did not come {}", self.place, when())
                });
            }
            self.missed.push(due);
        }
    }

    fn on_answer(&mut self, judge: &mut Judge<'_>, index: usize) {
        let operation = judge.operation(index);
        let Some(zxid) = operation.outcome.zxid() else {
            return;
        };
        if let (Request::Authenticate { identity }, Outcome::Done { .. }) =
            (&operation.request, &operation.outcome)
        {
            self.identities.push(identity.clone());
        }
        if zxid <= 0 {
            return;
        }
        self.advance(zxid);
        self.known = self.identities.len();
        let late = self.due.len();
        self.miss(judge, late, Promise::EventsComeFirst, || {
            format!("before {}", describe(operation))
        });
        if let Request::SetWatches { since, .. } = &operation.request {
            let rearmed = self.oracle.rearmed.get(&index);
            self.rearm(judge, operation, *since, rearmed.map_or(&[], Vec::as_slice));
        } else if !self.unplaced.is_empty() {
            let events = std::mem::take(&mut self.unplaced);
            judge.violation(Promise::NoFalseEvents, || {
                format!(
                    "{}: {events:?} without a zxid, before {}",
                    self.place,
                    describe(operation)
                )
            });
        }
        self.register(judge, operation);
        self.started |= !self.table.is_empty();
    }

    fn register(&mut self, judge: &mut Judge<'_>, operation: &Operation) {
        let is_done = operation.outcome.is_done();
        match &operation.request {
            Request::Exists { path, watch: true } => {
                // Waits for the znode, too, if there is none.
                let no_node = quorate_protocol::ErrorCode::NoNode.code();
                let waits = match operation.outcome {
                    Outcome::Refused { code, .. } => code == no_node,
                    _ => is_done,
                };
                if waits {
                    self.table.add(path, WatchList::Data);
                }
            }
            Request::GetData { watch: true, .. } if is_done => {
                self.add_of(operation, WatchList::Data);
            }
            Request::GetChildren { watch: true, .. } if is_done => {
                self.add_of(operation, WatchList::Children);
            }
            Request::AddWatch { path, recursive } if is_done => {
                let list = match recursive {
                    true => WatchList::Recursive,
                    false => WatchList::Persistent,
                };
                self.table.add(path, list);
            }
            Request::RemoveWatches { path, which } => {
                let had = self.table.remove(path, *which, is_done);
                if had != is_done && is_answer_about_watches(&operation.outcome) {
                    judge.violation(Promise::WatchesFire, || {
                        format!(
                            "{}: there {} such a watch: {}",
                            self.place,
                            if had { "was" } else { "was no" },
                            describe(operation)
                        )
                    });
                }
            }
            _ => {}
        }
    }

    fn add_of(&mut self, operation: &Operation, list: WatchList) {
        if let Some(path) = path_of(&operation.request) {
            self.table.add(path, list);
        }
    }

    /// Sets watches again, and compares what was made up for what happened meanwhile.
    fn rearm(
        &mut self,
        judge: &mut Judge<'_>,
        operation: &Operation,
        since: i64,
        found: &[Rearmed],
    ) {
        let came = std::mem::take(&mut self.unplaced);
        let (
            Request::SetWatches {
                data,
                exist,
                child,
                persistent,
                recursive,
                ..
            },
            Outcome::Done { .. },
        ) = (&operation.request, &operation.outcome)
        else {
            return;
        };
        let lists = [
            (data, WatchList::Data, false),
            (exist, WatchList::Data, true),
            (child, WatchList::Children, false),
        ];
        let paths = lists.into_iter().flat_map(|(paths, list, is_exist)| {
            paths.iter().map(move |path| (path, list, is_exist))
        });
        let mut expected: Vec<(EventKind, &Path, Option<bool>)> = Vec::new();
        for ((path, list, is_exist), found) in paths.zip(found) {
            let event = match (&found.stat, list, is_exist) {
                (None, _, true) => None,
                (Some(_), _, true) => Some(EventKind::Created),
                (None, _, false) => Some(EventKind::Deleted),
                (Some(stat), WatchList::Data, _) => {
                    (stat.mzxid.0 > since).then_some(EventKind::DataChanged)
                }
                (Some(stat), _, _) => (stat.pzxid.0 > since).then_some(EventKind::ChildrenChanged),
            };
            match event {
                Some(kind) => {
                    let may_read = match found.acl.as_deref() {
                        None => Some(true),
                        acl => may_read(acl, Perms::READ, &self.identities),
                    };
                    expected.push((kind, path, may_read));
                }
                None => self.table.add(path, list),
            }
        }
        for path in persistent {
            self.table.add(path, WatchList::Persistent);
        }
        for path in recursive {
            self.table.add(path, WatchList::Recursive);
        }
        judge.report.tally.events_checked += came.len() as u64;
        // The same path in two lists, or twice in one, need not be told twice.
        let mut told: BTreeSet<(EventKind, Path)> = BTreeSet::new();
        for (kind, path) in came {
            let is_it = |it: &(EventKind, &Path, Option<bool>)| it.0 == kind && *it.1 == path;
            let Some(at) = expected.iter().position(is_it) else {
                judge.violation(Promise::WatchesSurviveReconnects, || {
                    format!(
                        "{}: {kind:?} {path} came although nothing had happened, before {}",
                        self.place,
                        describe(operation)
                    )
                });
                continue;
            };
            let (_, _, may_read) = expected.swap_remove(at);
            told.insert((kind, Path::clone(&path)));
            if may_read == Some(false) {
                judge.violation(Promise::EventsRespectAcls, || {
                    format!("{}: {kind:?} {path}, which it may not read", self.place)
                });
            }
        }
        for (kind, path, may_read) in expected {
            if may_read == Some(true) && told.insert((kind, Path::clone(path))) {
                judge.violation(Promise::WatchesSurviveReconnects, || {
                    format!(
                        "{}: {kind:?} {path} did not come before {}",
                        self.place,
                        describe(operation)
                    )
                });
            }
        }
    }
}

/// Whether an answer to a removal says that there is or is no watch.
fn is_answer_about_watches(outcome: &Outcome) -> bool {
    let no_watcher = quorate_protocol::ErrorCode::NoWatcher.code();
    match outcome {
        Outcome::Refused { code, .. } => *code == no_watcher,
        outcome => outcome.is_done(),
    }
}

/// What a connection waits for.
#[derive(Default)]
struct Table {
    /// Which of the four kinds wait on each path: data, children, persistent, recursive.
    paths: BTreeMap<Path, [bool; 4]>,
    recursive: usize,
}

const DATA: usize = 0;
const CHILDREN: usize = 1;
const PERSISTENT: usize = 2;
const RECURSIVE: usize = 3;

impl Table {
    fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    fn add(&mut self, path: &Path, list: WatchList) {
        let kinds = self.paths.entry(Path::clone(path)).or_default();
        match list {
            WatchList::Data => kinds[DATA] = true,
            WatchList::Children => kinds[CHILDREN] = true,
            WatchList::Persistent => kinds[PERSISTENT] = true,
            WatchList::Recursive => {
                self.recursive += usize::from(!kinds[RECURSIVE]);
                kinds[RECURSIVE] = true;
            }
            WatchList::Any => {}
        }
    }

    /// Whether there is such a watch; it is gone afterwards if it `is_removed`.
    fn remove(&mut self, path: &Path, list: WatchList, is_removed: bool) -> bool {
        let meant: &[usize] = match list {
            WatchList::Data => &[DATA],
            WatchList::Children => &[CHILDREN],
            WatchList::Persistent => &[PERSISTENT],
            WatchList::Recursive => &[RECURSIVE],
            WatchList::Any => &[DATA, CHILDREN, PERSISTENT, RECURSIVE],
        };
        let Some(kinds) = self.paths.get_mut(path) else {
            return false;
        };
        let had = meant.iter().any(|kind| kinds[*kind]);
        if is_removed {
            for kind in meant {
                if *kind == RECURSIVE && kinds[RECURSIVE] {
                    self.recursive -= 1;
                }
                kinds[*kind] = false;
            }
            if *kinds == [false; 4] {
                self.paths.remove(path);
            }
        }
        had
    }

    /// Whether somebody hears that a znode was created, deleted or set. One event for all reasons.
    fn fire(&mut self, path: &Path, kind: EventKind) -> bool {
        let mut hears = self.recursive > 0 && self.is_below_recursive(path);
        let Some(kinds) = self.paths.get_mut(path) else {
            return hears;
        };
        hears |= kinds[DATA] || kinds[PERSISTENT];
        kinds[DATA] = false;
        if kind == EventKind::Deleted {
            hears |= kinds[CHILDREN];
            kinds[CHILDREN] = false;
        }
        if *kinds == [false; 4] {
            self.paths.remove(path);
        }
        hears
    }

    /// Whether somebody hears that children of a znode came or went.
    fn fire_children(&mut self, parent: &str) -> bool {
        let Some(kinds) = self.paths.get_mut(parent) else {
            return false;
        };
        let hears = kinds[CHILDREN] || kinds[PERSISTENT];
        kinds[CHILDREN] = false;
        if *kinds == [false; 4] {
            self.paths.remove(parent);
        }
        hears
    }

    fn is_below_recursive(&self, path: &str) -> bool {
        let mut at = path;
        loop {
            if self.paths.get(at).is_some_and(|kinds| kinds[RECURSIVE]) {
                return true;
            }
            match parent_of(at) {
                Some(parent) if parent != at => at = parent,
                _ => return false,
            }
        }
    }
}
