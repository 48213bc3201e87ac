//! What takes more commands to reach than a script could hold.

use quorate_protocol::AclEntry;

use super::*;

impl DataTree {
    /// As if so many children had been created.
    fn set_created(&mut self, id: NodeId, created: u64) {
        let family = self.nodes.slot(id).family;
        self.nodes.families.get_mut(family).created = created;
    }
}

fn author<'a>(identities: &'a [Id], decisions: &'a Decisions) -> Author<'a> {
    Author {
        zxid: Zxid(5),
        time_ms: 7,
        session: SessionId::new(1).expect("not zero"),
        identities,
        rules: Rules::default(),
        decisions,
    }
}

fn numbered(tree: &mut DataTree, path: &str) -> String {
    let plan = Plan::of_create(2, Rules::default()).expect("flag 2 is a mode");
    let acl = [AclEntry::open()];
    let created = tree.create(
        &author(&[], &Decisions::default()),
        plan,
        path.to_owned(),
        None,
        &acl,
        &mut vec![],
    );
    created.expect("nothing stands in the way").0
}

#[test]
fn numbers_go_on_past_what_32_bits_and_ten_digits_hold() {
    let mut tree = DataTree::new();
    for (created, names) in [
        (0x7fff_ffff, ["n2147483647", "n2147483648"]),
        (9_999_999_999, ["n9999999999", "n10000000000"]),
    ] {
        tree.set_created(NodeId::ROOT, created);
        for name in names {
            assert_eq!(numbered(&mut tree, "/n"), format!("/{name}"));
        }
    }
}

/// ZooKeeper's `cversion` is an `int` that wraps.
#[test]
fn cversion_wraps_around_32_bits() {
    let mut tree = DataTree::new();
    tree.set_created(NodeId::ROOT, 1 << 30);
    assert_eq!(tree.nodes.stat(NodeId::ROOT).cversion, i32::MAX);
    tree.set_created(NodeId::ROOT, (1 << 30) + 1);
    assert_eq!(tree.nodes.stat(NodeId::ROOT).cversion, i32::MIN + 1);
}

#[test]
fn versions_wrap_around_and_skip_what_matches_any() {
    assert_eq!(next_version(0), 1);
    assert_eq!(next_version(i32::MAX), i32::MIN);
    assert_eq!(next_version(-3), -2);
    assert_eq!(next_version(-2), 0);
    assert_eq!(next_version(-1), 0);
}

#[test]
fn an_acl_is_kept_as_long_as_a_znode_has_it() {
    let mut tree = DataTree::new();
    let me = [Id::digest(b"user:secret")];
    let plan = Plan::of_create(0, Rules::default()).expect("flag 0 is a mode");
    let own = [AclEntry::new(Perms::ALL, "auth", "")];
    let create = |tree: &mut DataTree, path: &str| {
        let created = tree.create(
            &author(&me, &Decisions::default()),
            plan,
            path.to_owned(),
            None,
            &own,
            &mut vec![],
        );
        created.expect("nothing stands in the way");
        tree.nodes
            .znode(tree.find(path).expect("it was created").id)
            .acl
    };
    let first = create(&mut tree, "/a");
    assert_eq!(create(&mut tree, "/b"), first);
    let delete = |tree: &mut DataTree, path: &str| {
        tree.delete(&author(&me, &Decisions::default()), path, -1, &mut vec![])
            .expect("it can be deleted");
    };
    delete(&mut tree, "/a");
    assert_eq!(tree.nodes.acls.get(first).len(), 1);
    delete(&mut tree, "/b");
    assert!(tree.nodes.acls.get(first).is_empty());
    assert_eq!(create(&mut tree, "/c"), first);
}
