//! The rules of watches one by one, then the table against a model of ZooKeeper's two tables.

mod model;

use quorate_protocol::{Perms, Zxid};

use super::*;

const ME: u64 = 7;
const YOU: u64 = 8;

/// An event without its ACL: connection, kind, path.
type Seen = (u64, EventType, String);

fn change(kind: ChangeKind, path: &str) -> Change {
    Change {
        kind,
        path: path.into(),
        acl: [Acl::world(Perms::READ)].into(),
        parent_acl: [Acl::world(Perms::ALL)].into(),
    }
}

fn created(path: &str) -> Change {
    change(ChangeKind::Created, path)
}

fn deleted(path: &str) -> Change {
    change(ChangeKind::Deleted, path)
}

fn set(path: &str) -> Change {
    change(ChangeKind::DataChanged, path)
}

fn events(table: &mut WatchTable, changes: &[Change]) -> Vec<Seen> {
    let mut seen = Vec::new();
    table.trigger(changes, &mut |event: Event<'_>| {
        seen.push((event.connection, event.kind, event.path.to_owned()));
    });
    seen
}

fn seen(connection: u64, kind: EventType, path: &str) -> Seen {
    (connection, kind, path.to_owned())
}

/// A table in which [`ME`] has these watches.
fn table_with(watches: &[(&str, WatchKind)]) -> WatchTable {
    let mut table = WatchTable::new();
    for (path, kind) in watches {
        table.add(ME, path, *kind);
    }
    table
}

fn assert_empty(table: &WatchTable) {
    assert!(table.paths.is_empty());
    assert!(table.connections.is_empty());
    assert_eq!(table.watch_count(), 0);
    assert_eq!(table.tally.recursive, 0);
    assert_eq!(table.data_watch_summary(), WatchSummary::default());
}

use EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};
use WatchKind::{Child, Data, Persistent, PersistentRecursive};

#[test]
fn a_data_watch_fires_once_for_create_delete_and_set() {
    for (change, event) in [
        (created("/a"), NodeCreated),
        (deleted("/a"), NodeDeleted),
        (set("/a"), NodeDataChanged),
    ] {
        let mut table = table_with(&[("/a", Data)]);
        let change = [change];
        assert_eq!(events(&mut table, &change), [seen(ME, event, "/a")]);
        assert_eq!(events(&mut table, &change), []);
        assert_empty(&table);
    }
}

#[test]
fn a_child_watch_fires_once_for_children_that_come_or_go_and_for_its_own_deletion() {
    for (change, event) in [
        (created("/a/b"), NodeChildrenChanged),
        (deleted("/a/b"), NodeChildrenChanged),
        (deleted("/a"), NodeDeleted),
    ] {
        let mut table = table_with(&[("/a", Child)]);
        let change = [change];
        assert_eq!(events(&mut table, &change), [seen(ME, event, "/a")]);
        assert_eq!(events(&mut table, &change), []);
        assert_empty(&table);
    }
}

#[test]
fn a_child_watch_does_not_fire_for_data_grandchildren_or_its_own_creation() {
    let mut table = table_with(&[("/a", Child)]);
    let changes = [
        set("/a"),
        created("/a"),
        created("/a/b/c"),
        set("/a/b"),
        created("/ab"),
    ];
    assert_eq!(events(&mut table, &changes), []);
    assert!(table.contains(ME, "/a", WatcherType::Children));
}

#[test]
fn the_roots_child_watch_sees_top_level_znodes() {
    let mut table = table_with(&[("/", Child)]);
    let changes = [created("/a")];
    assert_eq!(
        events(&mut table, &changes),
        [seen(ME, NodeChildrenChanged, "/")]
    );
}

/// Trap: getData and exists on one path by one connection are one watch.
#[test]
fn registering_a_watch_twice_gives_one_event() {
    let mut table = table_with(&[("/a", Data), ("/a", Data)]);
    assert_eq!(table.watch_count(), 1);
    assert_eq!(events(&mut table, &[set("/a"), set("/a")]).len(), 1);
}

/// Trap: who hears of a deletion by a data watch does not hear of it again by a child watch, and
/// both are gone.
#[test]
fn a_deletion_uses_up_data_and_child_watch_with_one_event() {
    let mut table = table_with(&[("/a", Data), ("/a", Child)]);
    assert_eq!(table.watch_count(), 2);
    assert_eq!(
        events(&mut table, &[deleted("/a")]),
        [seen(ME, NodeDeleted, "/a")]
    );
    assert_empty(&table);
}

#[test]
fn a_deletion_seen_by_a_recursive_watch_above_uses_up_the_child_watch_in_silence() {
    let mut table = table_with(&[("/", PersistentRecursive), ("/a", Child)]);
    assert_eq!(
        events(&mut table, &[deleted("/a")]),
        [seen(ME, NodeDeleted, "/a")]
    );
    assert!(!table.contains(ME, "/a", WatcherType::Any));
    assert!(table.contains(ME, "/", WatcherType::PersistentRecursive));
}

#[test]
fn data_and_child_watches_on_one_path_fire_apart_from_each_other() {
    let mut table = table_with(&[("/a", Data), ("/a", Child)]);
    assert_eq!(
        events(&mut table, &[set("/a")]),
        [seen(ME, NodeDataChanged, "/a")]
    );
    assert_eq!(
        events(&mut table, &[created("/a/b")]),
        [seen(ME, NodeChildrenChanged, "/a")]
    );
    assert_empty(&table);
}

#[test]
fn a_deletion_tells_the_znodes_watchers_before_the_parents() {
    let mut table = WatchTable::new();
    table.add(YOU, "/a/b", Data);
    table.add(ME, "/a/b", Child);
    table.add(ME, "/a", Child);
    assert_eq!(
        events(&mut table, &[deleted("/a/b")]),
        [
            seen(ME, NodeDeleted, "/a/b"),
            seen(YOU, NodeDeleted, "/a/b"),
            seen(ME, NodeChildrenChanged, "/a"),
        ]
    );
}

#[test]
fn the_changes_of_a_multi_fire_in_order_and_are_not_merged() {
    let mut table = table_with(&[("/a", PersistentRecursive)]);
    assert_eq!(
        events(&mut table, &[created("/a/b"), set("/a/b"), deleted("/a/b")]),
        [
            seen(ME, NodeCreated, "/a/b"),
            seen(ME, NodeDataChanged, "/a/b"),
            seen(ME, NodeDeleted, "/a/b"),
        ]
    );
}

#[test]
fn a_watch_on_a_missing_znode_sees_its_creation_but_not_the_deletion_that_follows() {
    let mut table = table_with(&[("/a", Data)]);
    assert_eq!(
        events(&mut table, &[created("/a"), deleted("/a")]),
        [seen(ME, NodeCreated, "/a")]
    );
}

#[test]
fn a_persistent_watch_sees_the_znode_and_its_children_again_and_again() {
    let mut table = table_with(&[("/a", Persistent)]);
    for _ in 0..2 {
        assert_eq!(
            events(
                &mut table,
                &[
                    created("/a"),
                    set("/a"),
                    created("/a/b"),
                    set("/a/b"),
                    deleted("/a/b"),
                    deleted("/a")
                ]
            ),
            [
                seen(ME, NodeCreated, "/a"),
                seen(ME, NodeDataChanged, "/a"),
                seen(ME, NodeChildrenChanged, "/a"),
                seen(ME, NodeChildrenChanged, "/a"),
                seen(ME, NodeDeleted, "/a"),
            ]
        );
    }
    assert_eq!(table.watch_count(), 2);
}

/// Trap: the path of the event is the znode that changed, and children are never its subject.
#[test]
fn a_recursive_watch_sees_the_znode_and_every_descendant_by_their_own_paths() {
    for root in ["/", "/a"] {
        let mut table = table_with(&[(root, PersistentRecursive)]);
        for _ in 0..2 {
            assert_eq!(
                events(
                    &mut table,
                    &[created("/a"), created("/a/b/c"), set("/a/b"), deleted("/a")]
                ),
                [
                    seen(ME, NodeCreated, "/a"),
                    seen(ME, NodeCreated, "/a/b/c"),
                    seen(ME, NodeDataChanged, "/a/b"),
                    seen(ME, NodeDeleted, "/a"),
                ],
                "{root}"
            );
        }
        assert_eq!(table.watch_count(), 1);
    }
}

#[test]
fn a_recursive_watch_does_not_see_names_that_merely_start_alike() {
    let mut table = table_with(&[("/a", PersistentRecursive), ("/b/", PersistentRecursive)]);
    assert_eq!(
        events(&mut table, &[created("/ab"), created("/"), created("/b/c")]),
        []
    );
}

#[test]
fn persistent_here_and_recursive_above_give_each_event_once() {
    let mut table = table_with(&[("/p", Persistent), ("/", PersistentRecursive)]);
    assert_eq!(
        events(&mut table, &[created("/p/c"), set("/p")]),
        [
            seen(ME, NodeCreated, "/p/c"),
            seen(ME, NodeChildrenChanged, "/p"),
            seen(ME, NodeDataChanged, "/p"),
        ]
    );
}

#[test]
fn several_recursive_watches_above_give_one_event() {
    let mut table = table_with(&[
        ("/", PersistentRecursive),
        ("/a", PersistentRecursive),
        ("/a/b", PersistentRecursive),
        ("/a/b", Data),
    ]);
    assert_eq!(
        events(&mut table, &[set("/a/b")]),
        [seen(ME, NodeDataChanged, "/a/b")]
    );
}

#[test]
fn a_standard_watch_that_fires_leaves_the_persistent_one_on_its_path() {
    let mut table = table_with(&[("/a", Data), ("/a", Child), ("/a", Persistent)]);
    assert_eq!(events(&mut table, &[set("/a"), set("/a")]).len(), 2);
    assert!(!table.contains(ME, "/a", WatcherType::Data));
    assert!(table.contains(ME, "/a", WatcherType::Children));
    assert!(table.contains(ME, "/a", WatcherType::Persistent));
}

#[test]
fn a_recursive_watch_does_not_keep_a_child_watch_on_its_path_from_firing() {
    let mut table = table_with(&[("/a", Child), ("/a", PersistentRecursive)]);
    assert_eq!(
        events(&mut table, &[created("/a/b"), created("/a/c")]),
        [
            seen(ME, NodeCreated, "/a/b"),
            seen(ME, NodeChildrenChanged, "/a"),
            seen(ME, NodeCreated, "/a/c"),
        ]
    );
}

#[test]
fn the_connections_that_hear_of_a_change_come_in_the_order_of_their_numbers() {
    let mut table = WatchTable::new();
    for connection in [5, 3, 9, 1] {
        table.add(connection, "/a", Data);
    }
    table.add(4, "/", PersistentRecursive);
    let heard: Vec<u64> = events(&mut table, &[set("/a")])
        .iter()
        .map(|e| e.0)
        .collect();
    assert_eq!(heard, [1, 3, 4, 5, 9]);
}

/// The znode's own ACL for events about it, the parent's for the event about its children.
#[test]
fn an_event_carries_the_acl_that_decides_who_may_see_it() {
    let acl = |path| vec![Acl::new(Perms::READ, "digest", path).unwrap()];
    let mut table = table_with(&[("/a/b", Persistent), ("/a", Persistent)]);
    for kind in [
        ChangeKind::Created,
        ChangeKind::Deleted,
        ChangeKind::DataChanged,
    ] {
        let change = Change {
            kind,
            path: "/a/b".into(),
            acl: acl("own:hash").into(),
            parent_acl: acl("parent:hash").into(),
        };
        table.trigger(&[change], &mut |event: Event<'_>| {
            let expected = match event.kind {
                NodeChildrenChanged => acl("parent:hash"),
                _ => acl("own:hash"),
            };
            assert_eq!(event.acl, expected, "{event:?}");
        });
    }
}

#[test]
fn no_changes_and_no_watches_give_no_events() {
    assert_eq!(events(&mut table_with(&[("/a", Data)]), &[]), []);
    assert_eq!(
        events(&mut WatchTable::new(), &[set("/a"), created("/b")]),
        []
    );
}

#[test]
fn watches_are_checked_and_removed_by_their_type_on_exactly_one_path() {
    let all = [
        (WatcherType::Children, Child),
        (WatcherType::Data, Data),
        (WatcherType::Persistent, Persistent),
        (WatcherType::PersistentRecursive, PersistentRecursive),
    ];
    for (watcher_type, kind) in all {
        let mut table = table_with(&[("/a", kind)]);
        for (other, _) in all {
            assert_eq!(table.contains(ME, "/a", other), other == watcher_type);
        }
        assert!(table.contains(ME, "/a", WatcherType::Any));
        assert!(!table.contains(YOU, "/a", WatcherType::Any));
        assert!(!table.contains(ME, "/a/b", WatcherType::Any));
        assert!(!table.contains(ME, "/", WatcherType::Any));

        assert!(!table.remove(YOU, "/a", watcher_type));
        assert!(!table.remove(ME, "/a/b", watcher_type));
        for (other, _) in all {
            assert_eq!(table.clone().remove(ME, "/a", other), other == watcher_type);
        }
        assert!(table.clone().remove(ME, "/a", WatcherType::Any));
        assert!(table.remove(ME, "/a", watcher_type));
        assert!(!table.remove(ME, "/a", watcher_type));
        assert_empty(&table);
    }
}

#[test]
fn removing_any_watch_removes_them_all_from_the_path() {
    let mut table = table_with(&[
        ("/a", Data),
        ("/a", Child),
        ("/a", Persistent),
        ("/a", PersistentRecursive),
        ("/b", Data),
    ]);
    assert!(table.remove(ME, "/a", WatcherType::Any));
    assert!(!table.remove(ME, "/a", WatcherType::Any));
    assert_eq!(table.count_of(ME), 1);
    assert_eq!(table.watch_count(), 1);
}

#[test]
fn watcher_types_and_modes_have_zookeepers_numbers() {
    assert_eq!(WatcherType::from_code(0), None);
    assert_eq!(WatcherType::from_code(1), Some(WatcherType::Children));
    assert_eq!(WatcherType::from_code(2), Some(WatcherType::Data));
    assert_eq!(WatcherType::from_code(3), Some(WatcherType::Any));
    assert_eq!(WatcherType::from_code(4), Some(WatcherType::Persistent));
    assert_eq!(
        WatcherType::from_code(5),
        Some(WatcherType::PersistentRecursive)
    );
    assert_eq!(WatcherType::from_code(6), None);
    assert_eq!(WatchKind::from_add_watch_mode(-1), None);
    assert_eq!(WatchKind::from_add_watch_mode(0), Some(Persistent));
    assert_eq!(WatchKind::from_add_watch_mode(1), Some(PersistentRecursive));
    assert_eq!(WatchKind::from_add_watch_mode(2), None);
}

#[test]
fn a_connection_that_ends_takes_its_watches_with_it_and_no_others() {
    let mut table = table_with(&[("/a", Data), ("/a", PersistentRecursive), ("/b", Child)]);
    table.add(YOU, "/a", Data);
    table.remove_connection(ME);
    table.remove_connection(ME);
    assert_eq!(table.count_of(ME), 0);
    assert_eq!(table.watch_count(), 1);
    assert_eq!(
        events(&mut table, &[set("/a"), created("/b/c"), set("/a/d")]),
        [seen(YOU, NodeDataChanged, "/a")]
    );
    assert_empty(&table);
}

/// Trap: `wchs`, `wchc` and `wchp` show data watches only, `watch_count` has both.
#[test]
fn the_summaries_leave_child_watches_out_and_the_count_does_not() {
    let mut table = table_with(&[("/b", Data), ("/a", Persistent), ("/c", Child)]);
    table.add(2, "/a", PersistentRecursive);
    table.add(2, "/c", Child);
    assert_eq!(table.watch_count(), 6);
    assert_eq!(
        table.data_watch_summary(),
        WatchSummary {
            connections: 2,
            paths: 2,
            total: 3
        }
    );
    assert_eq!(
        table.by_connection().collect::<Vec<_>>(),
        [(2, vec!["/a"]), (ME, vec!["/a", "/b"])]
    );
    assert_eq!(
        table.by_path().collect::<Vec<_>>(),
        [("/a", vec![2, ME]), ("/b", vec![ME])]
    );
    assert_eq!(table.count_of(ME), 3);
}

#[test]
fn many_watchers_of_one_path_all_hear_of_it_in_order_and_once() {
    let mut table = WatchTable::new();
    for connection in (0..1000).rev() {
        table.add(connection, "/hot", Data);
    }
    table.remove_connection(17);
    let heard: Vec<u64> = events(&mut table, &[set("/hot")])
        .iter()
        .map(|e| e.0)
        .collect();
    assert_eq!(heard, (0..1000).filter(|c| *c != 17).collect::<Vec<u64>>());
    assert_empty(&table);
}

#[test]
fn a_table_that_empties_gives_its_memory_back() {
    let mut table = WatchTable::new();
    for number in 0..20_000 {
        table.add(number % 10, &format!("/n{number}"), Data);
    }
    assert!(table.paths.capacity() >= 20_000);
    for connection in 0..10 {
        table.remove_connection(connection);
    }
    assert!(table.paths.capacity() <= 1024);
    assert_empty(&table);
}

#[test]
fn the_ancestors_of_a_path_hash_as_they_do_by_themselves() {
    let seed = Seed(42);
    let ancestors = |path: &str| {
        let mut found = Vec::new();
        PathHasher::for_each_ancestor(seed, path, |hash, ancestor| {
            assert_eq!(
                hash,
                PathHasher::hash(seed, ancestor),
                "{ancestor} of {path}"
            );
            found.push(ancestor.to_owned());
        });
        found
    };
    assert_eq!(ancestors("/"), [""; 0]);
    assert_eq!(ancestors("/a"), ["/"]);
    assert_eq!(ancestors("/aa/b/ccc"), ["/", "/aa", "/aa/b"]);
    assert_ne!(
        PathHasher::hash(seed, "/a"),
        PathHasher::hash(Seed(43), "/a")
    );
}

#[test]
fn paths_have_the_parents_they_should() {
    assert_eq!(parent_of("/"), None);
    assert_eq!(parent_of(""), None);
    assert_eq!(parent_of("/a"), Some("/"));
    assert_eq!(parent_of("/a/b"), Some("/a"));
}

#[test]
fn the_bytes_of_what_a_connection_watches_are_those_of_its_paths_at_any_moment() {
    let mut table = table_with(&[
        ("/a", Data),
        ("/a", Child),
        ("/long/path", Persistent),
        ("/b", PersistentRecursive),
    ]);
    table.add(YOU, "/a", Data);
    assert_eq!(table.path_bytes_of(ME), 2 + 10 + 2);
    table.trigger(&[set("/a")], &mut |_| {});
    assert_eq!(
        table.path_bytes_of(ME),
        2 + 10 + 2,
        "the child watch is left"
    );
    assert_eq!(table.path_bytes_of(YOU), 0);
    assert!(table.remove(ME, "/a", WatcherType::Any));
    assert_eq!(table.path_bytes_of(ME), 10 + 2);
    assert!(table.remove(ME, "/long/path", WatcherType::Any));
    assert!(table.remove(ME, "/b", WatcherType::Any));
    assert_eq!(table.path_bytes_of(ME), 0);
}

#[test]
fn a_connection_that_has_ended_is_forgotten_step_by_step_and_whole() {
    let mut table = WatchTable::new();
    for number in 0..10 {
        table.add(ME, &format!("/{number}"), Data);
        table.add(YOU, &format!("/{number}"), PersistentRecursive);
    }
    assert!(!table.remove_some_of(ME, 4));
    assert_eq!(table.count_of(ME), 6);
    assert_eq!(table.path_bytes_of(ME), 12);
    assert!(!table.remove_some_of(ME, 4));
    assert!(table.remove_some_of(ME, 4));
    assert!(table.remove_some_of(ME, 4), "there is nothing to forget");
    assert_eq!((table.count_of(ME), table.path_bytes_of(ME)), (0, 0));
    assert_eq!(table.count_of(YOU), 10);
    assert_eq!(table.data_watch_summary().connections, 1);
    assert_eq!(events(&mut table, &[set("/3")]).len(), 1);
}

mod rearming {
    use super::*;

    const SEEN: Zxid = Zxid(100);

    fn nothing() -> SetWatches2 {
        SetWatches2 {
            relative_zxid: SEEN,
            data: Vec::new(),
            exist: Vec::new(),
            child: Vec::new(),
            persistent: Vec::new(),
            persistent_recursive: Vec::new(),
        }
    }

    /// A tree that holds only `/a`, last set at `mzxid`, its children last changed at `pzxid`.
    fn rearmed(
        request: &SetWatches2,
        a: Option<(i64, i64)>,
    ) -> (WatchTable, Vec<(EventType, String)>) {
        let mut table = WatchTable::new();
        let mut delivered = Vec::new();
        let lookup = |path: &str| {
            let (mzxid, pzxid) = a.filter(|_| path == "/a")?;
            Some(Stat {
                mzxid: Zxid(mzxid),
                pzxid: Zxid(pzxid),
                ..Stat::default()
            })
        };
        let deliver = |kind, path: &str| delivered.push((kind, path.to_owned()));
        rearm(&mut table, ME, request, lookup, deliver);
        (table, delivered)
    }

    #[track_caller]
    fn assert_registers(request: &SetWatches2, a: Option<(i64, i64)>, registered: WatcherType) {
        let (table, delivered) = rearmed(request, a);
        assert_eq!(delivered, []);
        assert!(table.contains(ME, "/a", registered));
        assert_eq!(table.count_of(ME), 1);
    }

    #[track_caller]
    fn assert_sends(request: &SetWatches2, a: Option<(i64, i64)>, event: EventType) {
        let (table, delivered) = rearmed(request, a);
        assert_eq!(delivered, [(event, "/a".to_owned())]);
        assert_empty(&table);
    }

    fn a() -> Vec<String> {
        vec!["/a".to_owned()]
    }

    #[test]
    fn a_data_watch_catches_up_with_deletion_and_with_data_set_since() {
        let request = SetWatches2 {
            data: a(),
            ..nothing()
        };
        assert_sends(&request, None, NodeDeleted);
        assert_sends(&request, Some((101, 1)), NodeDataChanged);
        assert_registers(&request, Some((100, 1)), WatcherType::Data);
        // Children that changed are no matter of a data watch.
        assert_registers(&request, Some((1, 101)), WatcherType::Data);
    }

    #[test]
    fn an_exists_watch_catches_up_with_creation_whenever_it_was() {
        let request = SetWatches2 {
            exist: a(),
            ..nothing()
        };
        assert_sends(&request, Some((1, 1)), NodeCreated);
        assert_sends(&request, Some((101, 101)), NodeCreated);
        assert_registers(&request, None, WatcherType::Data);
    }

    #[test]
    fn a_child_watch_catches_up_with_deletion_and_with_children_changed_since() {
        let request = SetWatches2 {
            child: a(),
            ..nothing()
        };
        assert_sends(&request, None, NodeDeleted);
        assert_sends(&request, Some((1, 101)), NodeChildrenChanged);
        assert_registers(&request, Some((1, 100)), WatcherType::Children);
        assert_registers(&request, Some((101, 1)), WatcherType::Children);
    }

    #[test]
    fn persistent_watches_are_registered_whatever_happened() {
        for state in [None, Some((1, 1)), Some((101, 101))] {
            let persistent = SetWatches2 {
                persistent: a(),
                ..nothing()
            };
            assert_registers(&persistent, state, WatcherType::Persistent);
            let recursive = SetWatches2 {
                persistent_recursive: a(),
                ..nothing()
            };
            assert_registers(&recursive, state, WatcherType::PersistentRecursive);
        }
    }

    #[test]
    fn the_events_come_in_the_order_of_the_request() {
        let request = SetWatches2 {
            data: vec!["/x".into(), "/a".into()],
            exist: a(),
            child: vec!["/x".into()],
            ..nothing()
        };
        let (table, delivered) = rearmed(&request, Some((101, 1)));
        let expected = [
            (NodeDeleted, "/x"),
            (NodeDataChanged, "/a"),
            (NodeCreated, "/a"),
            (NodeDeleted, "/x"),
        ];
        assert_eq!(
            delivered,
            expected.map(|(kind, path)| (kind, path.to_owned()))
        );
        assert_empty(&table);
    }

    #[test]
    fn a_re_registered_watch_fires_like_any_other() {
        let request = SetWatches2 {
            data: a(),
            ..nothing()
        };
        let (mut table, _) = rearmed(&request, Some((1, 1)));
        assert_eq!(
            events(&mut table, &[set("/a")]),
            [seen(ME, NodeDataChanged, "/a")]
        );
    }
}
