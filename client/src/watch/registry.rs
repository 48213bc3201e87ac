//! Who watches what on this session: pure bookkeeping, the client's side of the server's tables.
//!
//! Paths are absolute, as on the wire. The server keeps at most one watch of a kind on a path for a
//! connection; here are all those who share it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use quorate_protocol::request::SetWatches2;
use quorate_protocol::{EventType, Zxid};
use tokio::sync::oneshot;

use super::queue::Queue;
use super::{End, Event};

/// Bytes of paths in one request that brings watches back. Well below the smallest limit in use.
const SET_WATCHES_BYTES: usize = 128 << 10;

/// What a watch tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// The data of a znode that exists. Once.
    Data,
    /// A znode that does not exist yet. Once.
    Exist,
    /// The children of a znode. Once.
    Children,
    /// A znode, until it is taken away.
    Persistent,
    /// A znode and all below it, until it is taken away.
    Recursive,
}

/// One watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatcherId {
    pub(crate) kind: Kind,
    pub(crate) path: Arc<str>,
    pub(crate) number: u64,
}

/// Where events go.
#[derive(Debug)]
pub(crate) enum Sink {
    Once(oneshot::Sender<Result<Event, End>>),
    Stream(Arc<Queue>),
}

/// What a call is to have watched if it succeeds.
#[derive(Debug)]
pub(crate) struct Interest {
    pub(crate) watcher: WatcherId,
    pub(crate) sink: Sink,
    /// Whoever wanted it has gone before the answer: what the server watches has to be taken away.
    pub(crate) is_cancelled: bool,
}

#[derive(Debug)]
struct Watcher {
    number: u64,
    sink: Sink,
}

/// In the order of the paths: it decides what is sent, and who is woken first.
type ByPath = BTreeMap<Arc<str>, Vec<Watcher>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    data: ByPath,
    exist: ByPath,
    children: ByPath,
    persistent: ByPath,
    recursive: ByPath,
}

impl Registry {
    fn table(&mut self, kind: Kind) -> &mut ByPath {
        match kind {
            Kind::Data => &mut self.data,
            Kind::Exist => &mut self.exist,
            Kind::Children => &mut self.children,
            Kind::Persistent => &mut self.persistent,
            Kind::Recursive => &mut self.recursive,
        }
    }

    pub(crate) fn add(&mut self, interest: Interest) {
        let Interest { watcher, sink, .. } = interest;
        let entry = self.table(watcher.kind).entry(watcher.path).or_default();
        entry.push(Watcher {
            number: watcher.number,
            sink,
        });
    }

    /// Takes one watcher away. Whether it was the last of its kind on its path: the server need not
    /// watch any more. An `exists` may have been registered as either of two kinds.
    pub(crate) fn remove(&mut self, watcher: &WatcherId) -> bool {
        let kinds: &[Kind] = match watcher.kind {
            Kind::Data | Kind::Exist => &[Kind::Data, Kind::Exist],
            Kind::Children => &[Kind::Children],
            Kind::Persistent => &[Kind::Persistent],
            Kind::Recursive => &[Kind::Recursive],
        };
        let mut last = false;
        for &kind in kinds {
            let Entry::Occupied(mut entry) = self.table(kind).entry(Arc::clone(&watcher.path))
            else {
                continue;
            };
            let before = entry.get().len();
            entry.get_mut().retain(|w| w.number != watcher.number);
            last |= entry.get().len() < before && entry.get().is_empty();
            if entry.get().is_empty() {
                entry.remove();
            }
        }
        last
    }

    /// Whether anybody watches exactly this path, in any way.
    pub(crate) fn watches(&self, path: &str) -> bool {
        [
            &self.data,
            &self.exist,
            &self.children,
            &self.persistent,
            &self.recursive,
        ]
        .iter()
        .any(|table| table.contains_key(path))
    }

    /// Whether anybody watches exactly this path in this way.
    pub(crate) fn watches_as(&self, kind: Kind, path: &str) -> bool {
        match kind {
            Kind::Data | Kind::Exist => {
                self.data.contains_key(path) || self.exist.contains_key(path)
            }
            Kind::Children => self.children.contains_key(path),
            Kind::Persistent => self.persistent.contains_key(path),
            Kind::Recursive => self.recursive.contains_key(path),
        }
    }

    /// Tells everybody whom it concerns.
    pub(crate) fn fire(&mut self, event: &Event, last_zxid: Zxid) {
        let once: &[Kind] = match event.kind {
            EventType::NodeCreated | EventType::NodeDataChanged => &[Kind::Data, Kind::Exist],
            EventType::NodeDeleted => &[Kind::Data, Kind::Exist, Kind::Children],
            EventType::NodeChildrenChanged => &[Kind::Children],
        };
        for &kind in once {
            let watchers = self.table(kind).remove(event.path.as_str());
            for watcher in watchers.into_iter().flatten() {
                watcher.sink.tell_once(event);
            }
        }
        for watcher in self
            .persistent
            .get(event.path.as_str())
            .into_iter()
            .flatten()
        {
            watcher.sink.tell(event, last_zxid);
        }
        // A recursive watch sees the children themselves.
        if event.kind == EventType::NodeChildrenChanged || self.recursive.is_empty() {
            return;
        }
        for path in with_ancestors(&event.path) {
            for watcher in self.recursive.get(path).into_iter().flatten() {
                watcher.sink.tell(event, last_zxid);
            }
        }
    }

    /// The connection was lost: whoever watches for good may miss something.
    pub(crate) fn note_gap(&self, since: Zxid) {
        let streams = self.persistent.values().chain(self.recursive.values());
        for watcher in streams.flatten() {
            if let Sink::Stream(queue) = &watcher.sink {
                queue.push_gap(since);
            }
        }
    }

    /// The session is over: one-shot watches with it. Streams stay, if there is to be another one.
    pub(crate) fn end(&mut self, end: End, streams_stay: bool) {
        let once = [&mut self.data, &mut self.exist, &mut self.children];
        for table in once {
            for (_, watchers) in std::mem::take(table) {
                watchers.into_iter().for_each(|w| w.sink.end(end));
            }
        }
        if streams_stay {
            return;
        }
        for table in [&mut self.persistent, &mut self.recursive] {
            for (_, watchers) in std::mem::take(table) {
                watchers.into_iter().for_each(|w| w.sink.end(end));
            }
        }
    }

    /// The requests that bring all watches back on a new connection, of about `bytes_max` each.
    pub(crate) fn requests(&self, relative_zxid: Zxid, bytes_max: usize) -> Vec<SetWatches2> {
        let bytes_max = bytes_max.min(SET_WATCHES_BYTES);
        let empty = || SetWatches2 {
            relative_zxid,
            data: Vec::new(),
            exist: Vec::new(),
            child: Vec::new(),
            persistent: Vec::new(),
            persistent_recursive: Vec::new(),
        };
        let mut requests = Vec::new();
        let mut current = empty();
        let mut bytes = 0;
        let tables = [
            (Kind::Data, &self.data),
            (Kind::Exist, &self.exist),
            (Kind::Children, &self.children),
            (Kind::Persistent, &self.persistent),
            (Kind::Recursive, &self.recursive),
        ];
        for (kind, table) in tables {
            for path in table.keys() {
                if bytes > 0 && bytes + path.len() > bytes_max {
                    requests.push(std::mem::replace(&mut current, empty()));
                    bytes = 0;
                }
                bytes += path.len() + 4;
                let list = match kind {
                    Kind::Data => &mut current.data,
                    Kind::Exist => &mut current.exist,
                    Kind::Children => &mut current.child,
                    Kind::Persistent => &mut current.persistent,
                    Kind::Recursive => &mut current.persistent_recursive,
                };
                list.push(path.to_string());
            }
        }
        if bytes > 0 {
            requests.push(current);
        }
        requests
    }
}

impl Sink {
    fn tell(&self, event: &Event, last_zxid: Zxid) {
        if let Self::Stream(queue) = self {
            queue.push(event.clone(), last_zxid);
        }
    }

    fn tell_once(self, event: &Event) {
        if let Self::Once(sender) = self {
            // Whoever waited may have gone.
            sender.send(Ok(event.clone())).ok();
        }
    }

    pub(crate) fn end(self, end: End) {
        match self {
            // Whoever waited may have gone.
            Self::Once(sender) => drop(sender.send(Err(end))),
            Self::Stream(queue) => queue.end(end),
        }
    }
}

/// The path, its parent, and so on to the root.
fn with_ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rfind('/') {
        _ if *path == "/" => None,
        Some(0) => Some("/"),
        Some(at) => Some(&path[..at]),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventType, path: &str) -> Event {
        Event {
            kind,
            path: path.to_owned(),
            zxid: None,
        }
    }

    fn id(kind: Kind, path: &str, number: u64) -> WatcherId {
        WatcherId {
            kind,
            path: path.into(),
            number,
        }
    }

    fn once(
        registry: &mut Registry,
        kind: Kind,
        path: &str,
        number: u64,
    ) -> oneshot::Receiver<Result<Event, End>> {
        let (sender, receiver) = oneshot::channel();
        registry.add(Interest {
            watcher: id(kind, path, number),
            sink: Sink::Once(sender),
            is_cancelled: false,
        });
        receiver
    }

    /// Which kinds of one-shot watches an event ends.
    fn fired(kind: EventType) -> Vec<Kind> {
        let mut registry = Registry::default();
        let kinds = [Kind::Data, Kind::Exist, Kind::Children];
        let mut receivers: Vec<_> = kinds
            .iter()
            .map(|&kind| (kind, once(&mut registry, kind, "/a", 0)))
            .collect();
        registry.fire(&event(kind, "/a"), Zxid(1));
        receivers.retain_mut(|(_, receiver)| receiver.try_recv().is_ok());
        receivers.into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn an_event_ends_the_watches_it_concerns_and_no_others() {
        assert_eq!(fired(EventType::NodeCreated), [Kind::Data, Kind::Exist]);
        assert_eq!(fired(EventType::NodeDataChanged), [Kind::Data, Kind::Exist]);
        assert_eq!(
            fired(EventType::NodeDeleted),
            [Kind::Data, Kind::Exist, Kind::Children]
        );
        assert_eq!(fired(EventType::NodeChildrenChanged), [Kind::Children]);
    }

    #[test]
    fn ancestors_end_at_the_root() {
        assert_eq!(
            with_ancestors("/a/b").collect::<Vec<_>>(),
            ["/a/b", "/a", "/"]
        );
        assert_eq!(with_ancestors("/").collect::<Vec<_>>(), ["/"]);
    }

    #[test]
    fn the_last_watcher_of_a_path_is_known_as_such() {
        let mut registry = Registry::default();
        let _first = once(&mut registry, Kind::Data, "/a", 1);
        let _second = once(&mut registry, Kind::Data, "/a", 2);
        assert!(!registry.remove(&id(Kind::Data, "/a", 1)));
        assert!(!registry.remove(&id(Kind::Data, "/a", 1)), "it was gone");
        assert!(registry.watches("/a"));
        assert!(registry.remove(&id(Kind::Exist, "/a", 2)));
        assert!(!registry.watches("/a"));
    }

    #[test]
    fn watches_come_back_in_requests_of_a_bounded_size() {
        let mut registry = Registry::default();
        let long = "x".repeat(1000);
        let receivers: Vec<_> = (0..500)
            .map(|number| {
                once(
                    &mut registry,
                    Kind::Data,
                    &format!("/{number}{long}"),
                    number,
                )
            })
            .collect();
        let requests = registry.requests(Zxid(9), usize::MAX);
        let paths: usize = requests.iter().map(|request| request.data.len()).sum();
        assert_eq!(paths, receivers.len());
        assert_eq!(requests.len(), 4);
        for request in requests {
            let bytes: usize = request.data.iter().map(String::len).sum();
            assert!(bytes <= SET_WATCHES_BYTES);
            assert_eq!(request.relative_zxid, Zxid(9));
        }
    }
}
