//! The table against a list of registrations, treated as ZooKeeper treats its two tables.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::watches::watchers::Watchers;

/// What is registered: connection, path, kind.
#[derive(Clone, Debug, Default)]
struct Model(BTreeSet<(u64, String, WatchKind)>);

fn in_data_table(kind: WatchKind) -> bool {
    kind != Child
}

fn in_child_table(kind: WatchKind) -> bool {
    matches!(kind, Child | Persistent)
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    match root {
        "" => path.is_empty(),
        "/" => true,
        _ => path == root || path.strip_prefix(root).is_some_and(|p| p.starts_with('/')),
    }
}

impl Model {
    /// Who hears of an event by the data table, whose one-shot watches on the path are used up.
    fn fire_data(&mut self, path: &str) -> BTreeSet<u64> {
        let heard = self
            .0
            .iter()
            .filter(|(_, watched, kind)| match kind {
                Data | Persistent => watched == path,
                PersistentRecursive => is_at_or_below(path, watched),
                Child => false,
            })
            .map(|(connection, ..)| *connection)
            .collect();
        self.0
            .retain(|(_, watched, kind)| watched != path || *kind != Data);
        heard
    }

    fn fire_child(&mut self, path: &str) -> BTreeSet<u64> {
        let heard = self
            .0
            .iter()
            .filter(|(_, watched, kind)| watched == path && in_child_table(*kind))
            .map(|(connection, ..)| *connection)
            .collect();
        self.0
            .retain(|(_, watched, kind)| watched != path || *kind != Child);
        heard
    }

    fn trigger(&mut self, kind: ChangeKind, path: &str) -> Vec<Seen> {
        let parent = match path.rfind('/') {
            Some(0) if path.len() > 1 => Some("/"),
            Some(slash) if slash > 0 => Some(&path[..slash]),
            _ => None,
        };
        let mut seen = Vec::new();
        let mut hear = |heard: BTreeSet<u64>, kind, path: &str| {
            seen.extend(heard.into_iter().map(|c| (c, kind, path.to_owned())));
        };
        let data = self.fire_data(path);
        match kind {
            ChangeKind::DataChanged => hear(data, NodeDataChanged, path),
            ChangeKind::Created => hear(data, NodeCreated, path),
            ChangeKind::Deleted => {
                let child = self.fire_child(path);
                hear(data.union(&child).copied().collect(), NodeDeleted, path);
            }
        }
        if let (Some(parent), ChangeKind::Created | ChangeKind::Deleted) = (parent, kind) {
            hear(self.fire_child(parent), NodeChildrenChanged, parent);
        }
        seen
    }

    fn remove(&mut self, connection: u64, path: &str, removed: impl Fn(WatchKind) -> bool) -> bool {
        let before = self.0.len();
        self.0
            .retain(|(c, p, kind)| *c != connection || p != path || !removed(*kind));
        self.0.len() != before
    }

    /// Connection and path of what is in a table: several kinds in one table count once.
    fn table(&self, in_table: fn(WatchKind) -> bool) -> BTreeSet<(u64, &str)> {
        let kinds = self.0.iter().filter(|(.., kind)| in_table(*kind));
        kinds
            .map(|(connection, path, _)| (*connection, path.as_str()))
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64, &'static str, WatchKind),
    Trigger(ChangeKind, &'static str),
    Remove(u64, &'static str, WatcherType),
    RemoveConnection(u64),
}

const PATHS: [&str; 9] = [
    "/", "/a", "/a/b", "/a/b/c", "/ab", "/a/bc", "", "no slash", "/a/",
];
const KINDS: [WatchKind; 4] = [Data, Child, Persistent, PersistentRecursive];
/// Whether a kind of watch is of some sort.
type Is = fn(WatchKind) -> bool;

const TYPES: [(WatcherType, Is); 5] = [
    (WatcherType::Children, |kind| kind == Child),
    (WatcherType::Data, |kind| kind == Data),
    (WatcherType::Any, |_| true),
    (WatcherType::Persistent, |kind| kind == Persistent),
    (WatcherType::PersistentRecursive, |kind| {
        kind == PersistentRecursive
    }),
];

fn step() -> impl Strategy<Value = Step> {
    let connection = 1..5u64;
    let path = || select(PATHS.to_vec());
    let change = prop_oneof![
        Just(ChangeKind::Created),
        Just(ChangeKind::Deleted),
        Just(ChangeKind::DataChanged),
    ];
    prop_oneof![
        8 => (connection.clone(), path(), select(KINDS.to_vec()))
            .prop_map(|(c, path, kind)| Step::Add(c, path, kind)),
        // The last three are no paths of znodes.
        6 => (change, select(PATHS[..6].to_vec()))
            .prop_map(|(kind, path)| Step::Trigger(kind, path)),
        3 => (connection.clone(), path(), select(TYPES.map(|(t, _)| t).to_vec()))
            .prop_map(|(c, path, of)| Step::Remove(c, path, of)),
        1 => connection.prop_map(Step::RemoveConnection),
    ]
}

fn assert_alike(table: &WatchTable, model: &Model) {
    let data = model.table(in_data_table);
    let child = model.table(in_child_table);
    assert_eq!(table.watch_count(), data.len() + child.len());
    let summary = WatchSummary {
        connections: data.iter().map(|row| row.0).collect::<BTreeSet<_>>().len(),
        paths: data.iter().map(|row| row.1).collect::<BTreeSet<_>>().len(),
        total: data.len(),
    };
    assert_eq!(table.data_watch_summary(), summary);

    let mut by_connection: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let mut by_path: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (connection, path) in &data {
        by_connection.entry(*connection).or_default().push(path);
        by_path.entry(path).or_default().push(*connection);
    }
    assert!(table.by_connection().eq(by_connection));
    assert!(table.by_path().eq(by_path));

    for connection in 0..6 {
        let paths: BTreeSet<&str> = model
            .0
            .iter()
            .filter(|row| row.0 == connection)
            .map(|row| row.1.as_str())
            .collect();
        assert_eq!(table.count_of(connection), paths.len());
        for path in PATHS {
            for (watcher_type, is_of) in TYPES {
                let expected = model
                    .0
                    .iter()
                    .any(|(c, p, kind)| *c == connection && p == path && is_of(*kind));
                assert_eq!(table.contains(connection, path, watcher_type), expected);
            }
        }
    }
    let watched: BTreeSet<&str> = model.0.iter().map(|row| row.1.as_str()).collect();
    assert_eq!(
        table.paths.len(),
        watched.len(),
        "an empty path stayed behind"
    );
    let watching: BTreeSet<u64> = model.0.iter().map(|row| row.0).collect();
    assert_eq!(
        table.connections.len(),
        watching.len(),
        "an idle connection stayed behind"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_agrees_with_a_list_of_registrations(
        seed in any::<u64>(),
        steps in vec(step(), 0..40),
    ) {
        let mut table = WatchTable::with_seed(seed);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Add(connection, path, kind) => {
                    table.add(connection, path, kind);
                    model.0.insert((connection, path.to_owned(), kind));
                }
                Step::Trigger(kind, path) => {
                    let seen = events(&mut table, &[change(kind, path)]);
                    prop_assert_eq!(seen, model.trigger(kind, path));
                }
                Step::Remove(connection, path, watcher_type) => {
                    let (_, is_of) = TYPES.into_iter().find(|(t, _)| *t == watcher_type).unwrap();
                    let removed = model.remove(connection, path, is_of);
                    prop_assert_eq!(table.remove(connection, path, watcher_type), removed);
                }
                Step::RemoveConnection(connection) => {
                    table.remove_connection(connection);
                    model.0.retain(|row| row.0 != connection);
                }
            }
            assert_alike(&table, &model);
        }
    }

    #[test]
    fn watchers_few_or_many_agree_with_a_map(
        steps in vec((0..150u64, 0..16usize, prop::bool::weighted(0.01)), 0..400),
    ) {
        let mut watchers = Watchers::default();
        let mut model: BTreeMap<u64, Kinds> = BTreeMap::new();
        for (connection, bits, purge) in steps {
            let kinds = KINDS
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| bits & (1 << bit) != 0)
                .fold(Kinds::default(), |kinds, (_, kind)| kinds.with(Kinds::of(kind)));
            watchers.set(connection, kinds);
            model.insert(connection, kinds);
            model.retain(|_, kinds| !kinds.is_empty());
            if purge {
                watchers.retain(|c, _| c % 3 == 0);
                model.retain(|c, _| c % 3 == 0);
            }
            prop_assert_eq!(watchers.kinds(connection), model.get(&connection).copied().unwrap_or_default());
        }
        prop_assert_eq!(watchers.is_empty(), model.is_empty());
        for kind in KINDS.map(Kinds::of) {
            let expected: Vec<u64> = model
                .iter()
                .filter(|(_, kinds)| kinds.intersects(kind))
                .map(|(connection, _)| *connection)
                .collect();
            prop_assert!(watchers.of_kind(kind).eq(expected));
        }
    }
}
