//! Watches without a log: what a client can tell by itself.
//!
//! A one-shot watch was set by an answer that showed a znode at one zxid; an answer that shows it at
//! another one has to come behind the event, on this connection or, once the watch is set again, on
//! the next. A persistent watch has as many events as there were versions.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use quorate_protocol::ErrorCode;

use crate::history::{
    EventKind, History, Operation, Outcome, Path, Request, WatchEvent, WatchList,
};
use crate::judge::{Judge, describe};
use crate::oracle::path_of;
use crate::promise::Promise;

pub(crate) fn judge(judge: &mut Judge<'_>) {
    let guarded = guarded_of(judge.history);
    let sessions: Vec<Vec<u32>> = judge.index.sessions.values().cloned().collect();
    for numbers in sessions {
        // What each one-shot watch on data was set at.
        let mut armed: BTreeMap<Path, Option<i64>> = BTreeMap::new();
        for number in numbers {
            let mut eye = Eye {
                before: std::mem::take(&mut armed),
                guarded: guarded.clone(),
                ..Eye::default()
            };
            for arrival in arrivals_of(judge, number) {
                match arrival {
                    Arrival::Event(event) => eye.on_event(judge, event),
                    Arrival::Answer(index) => eye.on_answer(judge, judge.operation(index)),
                }
            }
            armed = eye.armed;
        }
    }
}

/// Paths that may have an ACL: events about them may be withheld, and the watch is used up.
fn guarded_of(history: &History) -> Rc<BTreeSet<Path>> {
    fn look(request: &Request, guarded: &mut BTreeSet<Path>) {
        match request {
            Request::Create {
                path, acl: Some(_), ..
            }
            | Request::SetAcl { path, .. } => {
                guarded.insert(Path::clone(path));
            }
            Request::Multi(parts) => parts.iter().for_each(|part| look(part, guarded)),
            _ => {}
        }
    }
    let mut guarded = BTreeSet::new();
    for operation in &history.operations {
        look(&operation.request, &mut guarded);
    }
    Rc::new(guarded)
}

enum Arrival<'h> {
    Answer(usize),
    Event(&'h WatchEvent),
}

/// What came in on a connection, in order; nothing if that is not known.
fn arrivals_of<'h>(judge: &Judge<'h>, number: u32) -> Vec<Arrival<'h>> {
    let connection = &judge.index.connections[&number];
    let answers = connection.operations.iter().filter_map(|index| {
        let operation = judge.operation(*index);
        operation.outcome.zxid()?;
        Some((operation.arrival, Arrival::Answer(*index)))
    });
    let events = connection.events.iter();
    let mut arrivals: Vec<(u32, Arrival<'h>)> = answers
        .chain(events.map(|event| (event.arrival, Arrival::Event(event))))
        .collect();
    if arrivals.iter().any(|(arrival, _)| *arrival == 0) {
        return Vec::new();
    }
    arrivals.sort_by_key(|(arrival, _)| *arrival);
    arrivals.into_iter().map(|(_, arrival)| arrival).collect()
}

/// One connection's view.
#[derive(Default)]
struct Eye {
    /// The one-shot watches of the session's connection before, which may be set again.
    before: BTreeMap<Path, Option<i64>>,
    /// `None`: what the znode was when the watch was set is not known.
    armed: BTreeMap<Path, Option<i64>>,
    guarded: Rc<BTreeSet<Path>>,
    /// Of paths watched persistently: what was last shown (creation, version), and how many events
    /// about data came since.
    counted: BTreeMap<Path, Option<(i64, i32, i32)>>,
    recursive: Vec<Path>,
    children: BTreeSet<Path>,
    /// Events before the watches of the connection before are set again.
    early: Vec<(EventKind, Path)>,
}

impl Eye {
    fn on_event(&mut self, judge: &mut Judge<'_>, event: &WatchEvent) {
        let path = &event.path;
        let is_below = |root: &Path| {
            path.strip_prefix(&**root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || &**root == "/")
        };
        let mut is_wanted = match event.kind {
            EventKind::ChildrenChanged => self.children.remove(path),
            kind => {
                let by_children = kind == EventKind::Deleted && self.children.remove(path);
                self.armed.remove(path).is_some() || by_children
            }
        };
        if let Some(counted) = self.counted.get_mut(path) {
            is_wanted = true;
            match (event.kind, counted.as_mut()) {
                (EventKind::DataChanged, Some((_, _, events))) => *events += 1,
                (EventKind::Created | EventKind::Deleted, _) => *counted = None,
                _ => {}
            }
        }
        is_wanted |=
            event.kind != EventKind::ChildrenChanged && self.recursive.iter().any(is_below);
        if is_wanted {
            judge.report.tally.events_checked += 1;
        } else {
            self.early.push((event.kind, Path::clone(path)));
        }
    }

    fn on_answer(&mut self, judge: &mut Judge<'_>, operation: &Operation) {
        if let (
            Request::SetWatches {
                data,
                exist,
                child,
                persistent,
                recursive,
                ..
            },
            true,
        ) = (&operation.request, operation.outcome.is_done())
        {
            let mut came = std::mem::take(&mut self.early);
            let waits = data.iter().map(|path| (path, false));
            for (path, for_creation) in waits.chain(exist.iter().map(|path| (path, true))) {
                let told = came.iter().position(|(kind, at)| {
                    at == path
                        && match kind {
                            EventKind::Created => for_creation,
                            EventKind::Deleted | EventKind::DataChanged => !for_creation,
                            EventKind::ChildrenChanged => false,
                        }
                });
                if let Some(told) = told {
                    came.swap_remove(told);
                    judge.report.tally.events_checked += 1;
                } else {
                    let zxid = self.before.get(path).copied().flatten();
                    self.armed.insert(Path::clone(path), zxid);
                }
            }
            let lists = data.iter().chain(exist).chain(child);
            let told = |(_, at): &(EventKind, Path)| lists.clone().any(|path| path == at);
            judge.report.tally.events_checked +=
                came.iter().filter(|event| told(event)).count() as u64;
            came.retain(|event| !told(event));
            for path in child {
                self.children.insert(Path::clone(path));
            }
            for path in persistent {
                self.counted.entry(Path::clone(path)).or_default();
            }
            self.recursive.extend(recursive.iter().cloned());
            self.early = came;
        }
        for (kind, path) in std::mem::take(&mut self.early) {
            judge.violation(Promise::NoFalseEvents, || {
                format!(
                    "{kind:?} {path} was not waited for, before {}",
                    describe(operation)
                )
            });
        }
        match &operation.request {
            Request::AddWatch { path, recursive } if operation.outcome.is_done() => match recursive
            {
                true => self.recursive.push(Path::clone(path)),
                false => {
                    self.counted.entry(Path::clone(path)).or_default();
                }
            },
            Request::RemoveWatches { path, which } if operation.outcome.is_done() => {
                let is_meant = |list| *which == list || *which == WatchList::Any;
                if is_meant(WatchList::Data) {
                    self.armed.remove(path);
                }
                if is_meant(WatchList::Children) {
                    self.children.remove(path);
                }
                if is_meant(WatchList::Persistent) {
                    self.counted.remove(path);
                }
                if is_meant(WatchList::Recursive) {
                    self.recursive.retain(|root| root != path);
                }
            }
            _ => {}
        }
        self.see(judge, operation);
    }

    fn see(&mut self, judge: &mut Judge<'_>, operation: &Operation) {
        let path = match &operation.request {
            Request::SetData { path, .. } => Some(path),
            request => path_of(request),
        };
        let Some(path) = path else { return };
        let no_node = ErrorCode::NoNode.code();
        let stat = match &operation.outcome {
            Outcome::Done { reply, .. } => match reply.stat() {
                Some(stat) => Some(stat),
                None => return self.watch_children(operation, path),
            },
            Outcome::Refused { code, .. } if *code == no_node => None,
            _ => return,
        };
        // 0: there is none.
        let shown = stat.map_or(0, |stat| stat.mzxid.0);
        if let Some(armed) = self.armed.get(path).copied().flatten()
            && armed != shown
            && !self.guarded.contains(path)
        {
            self.armed.remove(path);
            judge.violation(Promise::EventsComeFirst, || {
                format!(
                    "a watch set at {armed:#x} has not fired, and this shows {shown:#x}: {}",
                    describe(operation)
                )
            });
        }
        if let (Some(counted), Some(stat)) = (self.counted.get_mut(path), stat) {
            if let Some((czxid, version, events)) = *counted
                && czxid == stat.czxid.0
                && stat.version.wrapping_sub(version) != events
                && !self.guarded.contains(path)
            {
                let promise = match stat.version.wrapping_sub(version) > events {
                    true => Promise::WatchesFire,
                    false => Promise::NoFalseEvents,
                };
                judge.violation(promise, || {
                    format!(
                        "{events} events since version {version}, before {}",
                        describe(operation)
                    )
                });
            }
            *counted = Some((stat.czxid.0, stat.version, 0));
        }
        let arms = match operation.request {
            Request::GetData { watch: true, .. } => stat.is_some(),
            Request::Exists { watch: true, .. } => true,
            _ => false,
        };
        if arms {
            self.armed.insert(Path::clone(path), Some(shown));
        }
        self.watch_children(operation, path);
    }

    fn watch_children(&mut self, operation: &Operation, path: &Path) {
        if let (Request::GetChildren { watch: true, .. }, true) =
            (&operation.request, operation.outcome.is_done())
        {
            self.children.insert(Path::clone(path));
        }
    }
}
