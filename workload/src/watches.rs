//! Which watches a client believes to have, as ZooKeeper's client libraries keep them: it asks for
//! them again when its connection was lost.

use std::collections::BTreeSet;

use quorate_checker::history::{EventKind, Outcome, Path, Request, WatchList};
use quorate_protocol::ErrorCode;

#[derive(Clone, Debug, Default)]
pub(crate) struct Watches {
    data: BTreeSet<Path>,
    exist: BTreeSet<Path>,
    child: BTreeSet<Path>,
    persistent: BTreeSet<Path>,
    recursive: BTreeSet<Path>,
}

impl Watches {
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        let lists = [
            &self.data,
            &self.exist,
            &self.child,
            &self.persistent,
            &self.recursive,
        ];
        lists.iter().map(|list| list.len()).sum()
    }

    /// A watch is left by an answer, not by the question.
    pub(crate) fn on_answer(&mut self, request: &Request, outcome: &Outcome) {
        let is_done = outcome.is_done();
        let no_node = ErrorCode::NoNode.code();
        let is_missing = matches!(outcome, Outcome::Refused { code, .. } if *code == no_node);
        match request {
            Request::Exists { path, watch: true } if is_missing => {
                self.exist.insert(Path::clone(path));
            }
            Request::GetData { path, watch: true } | Request::Exists { path, watch: true }
                if is_done =>
            {
                self.data.insert(Path::clone(path));
            }
            Request::GetChildren { path, watch: true } if is_done => {
                self.child.insert(Path::clone(path));
            }
            Request::AddWatch { path, recursive } if is_done => {
                let list = match recursive {
                    true => &mut self.recursive,
                    false => &mut self.persistent,
                };
                list.insert(Path::clone(path));
            }
            Request::RemoveWatches { path, which } if is_done => self.remove(path, *which),
            _ => {}
        }
    }

    fn remove(&mut self, path: &Path, which: WatchList) {
        let is = |list| which == list || which == WatchList::Any;
        if is(WatchList::Data) {
            self.data.remove(path);
            self.exist.remove(path);
        }
        if is(WatchList::Children) {
            self.child.remove(path);
        }
        if is(WatchList::Persistent) {
            self.persistent.remove(path);
        }
        if is(WatchList::Recursive) {
            self.recursive.remove(path);
        }
    }

    /// One-time watches are used up.
    pub(crate) fn on_event(&mut self, kind: EventKind, path: &Path) {
        match kind {
            EventKind::Created | EventKind::DataChanged => {
                self.data.remove(path);
                self.exist.remove(path);
            }
            EventKind::ChildrenChanged => {
                self.child.remove(path);
            }
            EventKind::Deleted => {
                self.data.remove(path);
                self.exist.remove(path);
                self.child.remove(path);
            }
        }
    }

    /// What has to be asked for on a new connection, at most so many paths at a time.
    pub(crate) fn to_set_again(&self, since: i64, at_once: usize) -> Vec<Request> {
        let lists = [
            &self.data,
            &self.exist,
            &self.child,
            &self.persistent,
            &self.recursive,
        ];
        let all: Vec<(usize, &Path)> = lists
            .into_iter()
            .enumerate()
            .flat_map(|(list, paths)| paths.iter().map(move |path| (list, path)))
            .collect();
        let of_list = |chunk: &[(usize, &Path)], wanted: usize| {
            let chosen = chunk.iter().filter(|(list, _)| *list == wanted);
            chosen.map(|(_, path)| Path::clone(path)).collect()
        };
        all.chunks(at_once.max(1))
            .map(|chunk| Request::SetWatches {
                since,
                data: of_list(chunk, 0),
                exist: of_list(chunk, 1),
                child: of_list(chunk, 2),
                persistent: of_list(chunk, 3),
                recursive: of_list(chunk, 4),
            })
            .collect()
    }

    /// Some path that is watched, with the list it is in.
    pub(crate) fn nth(&self, index: usize) -> Option<(WatchList, &Path)> {
        let named = |list: WatchList| move |path| (list, path);
        let data = self.data.iter().chain(&self.exist);
        let mut all = data
            .map(named(WatchList::Data))
            .chain(self.child.iter().map(named(WatchList::Children)))
            .chain(self.persistent.iter().map(named(WatchList::Persistent)))
            .chain(self.recursive.iter().map(named(WatchList::Recursive)));
        let count = self.count();
        all.nth(index.checked_rem(count)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(path: &str) -> Request {
        Request::Exists {
            path: path.into(),
            watch: true,
        }
    }

    fn refused(code: ErrorCode) -> Outcome {
        let code = code.code();
        Outcome::Refused { zxid: 1, code }
    }

    #[test]
    fn a_watch_for_a_missing_znode_waits_for_its_creation_and_is_used_up_by_it() {
        let mut watches = Watches::default();
        watches.on_answer(&exists("/a"), &refused(ErrorCode::NoNode));
        let again = watches.to_set_again(7, 10);
        assert!(
            matches!(&again[..], [Request::SetWatches { since: 7, exist, .. }] if **exist == [Path::from("/a")]),
            "{again:?}"
        );
        watches.on_event(EventKind::Created, &"/a".into());
        assert!(watches.is_empty());
    }

    #[test]
    fn an_answer_that_was_refused_leaves_no_watch() {
        let mut watches = Watches::default();
        watches.on_answer(&exists("/a"), &refused(ErrorCode::NoAuth));
        watches.on_answer(&exists("/a"), &Outcome::Unknown);
        assert!(watches.is_empty());
    }

    #[test]
    fn many_watches_are_set_again_in_pieces_and_none_is_forgotten() {
        let mut watches = Watches::default();
        for number in 0..7 {
            let path: Path = format!("/{number}").into();
            watches.data.insert(Path::clone(&path));
            watches.recursive.insert(path);
        }
        let again = watches.to_set_again(0, 4);
        assert_eq!(again.len(), 4);
        let count: usize = again
            .iter()
            .map(|request| match request {
                Request::SetWatches {
                    data, recursive, ..
                } => data.len() + recursive.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(count, 14);
    }
}
