//! Which paths can be judged apart from each other.
//!
//! A multi ties its paths together. A parent and its children are tied if the children could see it
//! come or go, if it hands out their numbers, or if its children were listed. A parent that was
//! there before anybody asked for a child, and stays, ties nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{CreateKind, Moment, Outcome, PartResult, Reply, Request};
use crate::oracle::path_of;
use crate::tree::parent_of;

/// One operation, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct Use<'h> {
    pub(super) request: &'h Request,
    pub(super) outcome: &'h Outcome,
    pub(super) call: Moment,
    pub(super) back: Option<Moment>,
}

/// What is done to one path.
#[derive(Default)]
struct Seen {
    /// When it had been created for good, if ever.
    created_by: Option<Moment>,
    may_be_created: bool,
    may_be_deleted: bool,
    is_temporary: bool,
    is_reaped: bool,
    /// The first time that somebody asked for a child.
    children_from: Option<Moment>,
    /// It numbers its children, or they were listed, or were in the way of a delete.
    is_counted: bool,
    /// It may have children with numbers that nobody was told.
    has_unknown_numbers: bool,
}

pub(super) struct Groups<'h> {
    ids: BTreeMap<&'h str, usize>,
    /// By id; the root of each group stands for it.
    group: Vec<usize>,
    settled: Vec<bool>,
    counted: Vec<bool>,
    /// The paths of each group, but for the root.
    members: BTreeMap<usize, Vec<&'h str>>,
    ephemeral: BTreeSet<usize>,
    reaped: BTreeSet<usize>,
}

impl<'h> Groups<'h> {
    pub(super) fn of(uses: impl Iterator<Item = Use<'h>>) -> Self {
        let mut builder = Builder::default();
        builder.id("/");
        let uses: Vec<Use<'h>> = uses.collect();
        for it in &uses {
            builder.see(it);
        }
        let settled: Vec<bool> = builder
            .names
            .iter()
            .zip(&builder.seen)
            .map(|(path, seen)| is_settled(path, seen))
            .collect();
        let mut union = Union::of(builder.names.len());
        for it in &uses {
            if let Request::Multi(parts) = it.request {
                let ids = parts
                    .iter()
                    .filter_map(|part| builder.ids.get(target_of(part)));
                ids.clone()
                    .zip(ids.skip(1))
                    .for_each(|(one, other)| union.tie(*one, *other));
            }
        }
        for (id, path) in builder.names.iter().enumerate() {
            let parent = parent_of(path).and_then(|parent| builder.ids.get(parent));
            let Some(parent) = parent.copied().filter(|parent| *parent != id) else {
                continue;
            };
            let is_tied = !settled[parent] || builder.seen[parent].is_counted;
            let may_be_created =
                builder.seen[id].may_be_created || builder.seen[parent].has_unknown_numbers;
            if may_be_created && is_tied {
                union.tie(id, parent);
            }
        }
        let group: Vec<usize> = (0..builder.names.len()).map(|id| union.root(id)).collect();
        let groups_where = |is_it: fn(&Seen) -> bool| {
            let seen = builder.seen.iter().enumerate();
            seen.filter(|(_, seen)| is_it(seen))
                .map(|(id, _)| group[id])
                .collect()
        };
        let mut members: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (path, id) in builder.ids.iter().filter(|(path, _)| **path != "/") {
            members.entry(group[*id]).or_default().push(path);
        }
        Self {
            members,
            ephemeral: groups_where(|seen| seen.is_temporary),
            reaped: groups_where(|seen| seen.is_reaped),
            counted: builder.seen.iter().map(|seen| seen.is_counted).collect(),
            ids: builder.ids,
            group,
            settled,
        }
    }

    /// The groups that a request concerns.
    pub(super) fn of_request(&self, request: &Request) -> Vec<usize> {
        let path = match request {
            Request::Multi(parts) => match parts.first() {
                Some(part) => target_of(part),
                None => return Vec::new(),
            },
            request => target_of(request),
        };
        self.of_path(path).into_iter().collect()
    }

    pub(super) fn of_path(&self, path: &str) -> Option<usize> {
        self.ids.get(path).map(|id| self.group[*id])
    }

    /// Whether a znode outside of the group was there all along.
    pub(super) fn is_settled(&self, path: &str) -> bool {
        self.ids.get(path).is_some_and(|id| self.settled[*id])
    }

    /// The groups that depend on whether there is a znode at `path`.
    pub(super) fn that_see(&self, path: &str) -> impl Iterator<Item = usize> {
        let parent = parent_of(path).and_then(|parent| self.ids.get(parent));
        let parent = parent.filter(|id| self.counted[**id] || !self.settled[**id]);
        let here = self.ids.get(path);
        here.into_iter().chain(parent).map(|id| self.group[*id])
    }

    pub(super) fn has_ephemerals(&self, group: usize) -> bool {
        self.ephemeral.contains(&group)
    }

    /// Whether the server itself deletes some of it, nobody knows when.
    pub(super) fn is_reaped(&self, group: usize) -> bool {
        self.reaped.contains(&group)
    }

    pub(super) fn paths(&self, group: usize) -> impl Iterator<Item = &'h str> {
        let members = self.members.get(&group);
        members.into_iter().flatten().copied()
    }

    /// For people.
    pub(super) fn name(&self, group: usize) -> String {
        let paths: Vec<&str> = self.paths(group).collect();
        match paths[..] {
            [] => "/".to_owned(),
            [path] => path.to_owned(),
            [first, ..] => format!("{first} and {} other paths", paths.len() - 1),
        }
    }
}

/// The path that decides a request's group: for a numbered create that is the parent's.
fn target_of(request: &Request) -> &str {
    match request {
        Request::Create { path, kind, .. } if kind.is_sequential() => {
            parent_of(path).unwrap_or_default()
        }
        Request::Create { path, .. }
        | Request::Delete { path, .. }
        | Request::SetData { path, .. }
        | Request::Check { path, .. } => path,
        request => path_of(request).map_or("", |path| path),
    }
}

pub(super) fn creates_ephemerals(request: &Request) -> bool {
    match request {
        Request::Create { kind, .. } => kind.is_ephemeral(),
        Request::Multi(parts) => parts.iter().any(creates_ephemerals),
        _ => false,
    }
}

fn is_settled(path: &str, seen: &Seen) -> bool {
    if path == "/" {
        return true;
    }
    let is_early = seen
        .created_by
        .is_some_and(|created| seen.children_from.is_none_or(|children| created < children));
    is_early && !seen.may_be_deleted && !seen.is_temporary && !seen.is_reaped
}

#[derive(Default)]
struct Builder<'h> {
    ids: BTreeMap<&'h str, usize>,
    names: Vec<&'h str>,
    seen: Vec<Seen>,
}

impl<'h> Builder<'h> {
    fn id(&mut self, path: &'h str) -> usize {
        let Self { ids, names, seen } = self;
        *ids.entry(path).or_insert_with(|| {
            names.push(path);
            seen.push(Seen::default());
            names.len() - 1
        })
    }

    fn see(&mut self, it: &Use<'h>) {
        let Request::Multi(parts) = it.request else {
            let reply = match it.outcome {
                Outcome::Done { reply, .. } => Some(reply),
                _ => None,
            };
            let is_refused = matches!(it.outcome, Outcome::Refused { .. });
            return self.see_part(it, it.request, reply, is_refused);
        };
        let results: &[PartResult] = match it.outcome {
            Outcome::Done {
                reply: Reply::Results(results),
                ..
            } => results,
            _ => &[],
        };
        for (index, part) in parts.iter().enumerate() {
            let (reply, is_refused) = match results.get(index) {
                Some(PartResult::Done(reply)) => (Some(reply), false),
                Some(PartResult::Failed(_)) => (None, true),
                None => (None, matches!(it.outcome, Outcome::Refused { .. })),
            };
            self.see_part(it, part, reply, is_refused);
        }
    }

    fn see_part(
        &mut self,
        it: &Use<'h>,
        part: &'h Request,
        reply: Option<&'h Reply>,
        is_refused: bool,
    ) {
        let target = self.id(target_of(part));
        // A delete, refused or not, depends on whether there are children.
        if let Request::GetChildren { .. } | Request::Delete { .. } = part {
            self.seen[target].is_counted = true;
        }
        let mut child = Some(target);
        if let Request::Create { kind, .. } = part {
            if kind.is_sequential() {
                self.seen[target].is_counted = true;
                self.use_child_of(target, it.call);
                child = match reply {
                    Some(Reply::Path(path) | Reply::Created { path, .. }) => Some(self.id(path)),
                    _ => {
                        self.seen[target].has_unknown_numbers |= !is_refused;
                        None
                    }
                };
                let seen = &mut self.seen[target];
                // Of those without an answer nobody knows the path; their parent stands for them.
                seen.is_temporary |= kind.is_ephemeral();
                seen.is_reaped |= matches!(kind, CreateKind::TtlSequential { .. });
            }
            if let Some(child) = child {
                let seen = &mut self.seen[child];
                // Refused ones as well: whether their parent was there mattered to them.
                seen.may_be_created = true;
                if !is_refused {
                    seen.is_temporary |= kind.is_ephemeral();
                    seen.is_reaped |= matches!(
                        kind,
                        CreateKind::Container
                            | CreateKind::Ttl { .. }
                            | CreateKind::TtlSequential { .. }
                    );
                    if let (Some(_), Some(back)) = (reply, it.back) {
                        let earliest = seen.created_by.unwrap_or(back).min(back);
                        seen.created_by = Some(earliest);
                    }
                }
            }
        }
        // Refused ones as well: whether there were children mattered to them.
        if let Request::Delete { .. } = part {
            self.seen[target].may_be_deleted = true;
        }
        // Whoever asks for a path may meet its parent in any state.
        if let Some(child) = child
            && let Some(parent) = parent_of(self.names[child])
        {
            let parent = self.id(parent);
            self.use_child_of(parent, it.call);
        }
    }

    fn use_child_of(&mut self, parent: usize, call: Moment) {
        let from = &mut self.seen[parent].children_from;
        *from = Some(from.unwrap_or(call).min(call));
    }
}

/// Sets that are joined pair by pair.
struct Union(Vec<usize>);

impl Union {
    fn of(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn tie(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other)] = one.min(other);
    }
}
