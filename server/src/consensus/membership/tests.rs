//! Plans and texts of memberships.

use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::ErrorCode;

use super::configuration;
use super::plan::{Plan, Refusal, Wish, plan};
use crate::config::Member;
use crate::consensus::types::{Membership, PeerNode, Returning, Standing};

/// `N=line` words, the voters among them as given.
fn membership(voters: &[&[u64]], lines: &[(u8, &str)]) -> Membership {
    let nodes: BTreeMap<u64, PeerNode> = lines
        .iter()
        .map(|(id, line)| {
            let member = Member::parse(*id, line).expect("a server line");
            (u64::from(*id), PeerNode::of(&member))
        })
        .collect();
    let voters = voters
        .iter()
        .map(|voters| voters.iter().copied().collect())
        .collect();
    Membership::new(voters, nodes).expect("voters have nodes")
}

fn three() -> Membership {
    membership(
        &[&[1, 2, 3]],
        &[
            (1, "one:2888:3888;2181"),
            (2, "two:2888:3888;2181"),
            (3, "three:2888:3888;2181"),
            (9, "nine:2888:3888:observer;2181"),
        ],
    )
}

fn incremental(joining: &str, leaving: &str) -> Wish {
    Wish {
        joining: Some(joining.to_owned()),
        leaving: Some(leaving.to_owned()),
        version: -1,
        ..Wish::default()
    }
}

fn full(members: &str) -> Wish {
    Wish {
        new_members: Some(members.to_owned()),
        version: -1,
        ..Wish::default()
    }
}

fn planned(wish: &Wish) -> Result<(Vec<u64>, Vec<u64>), Option<ErrorCode>> {
    plan(&three(), wish, 2)
        .map(|Plan { voters, members }| {
            (
                voters.into_iter().collect(),
                members.into_keys().collect::<Vec<_>>(),
            )
        })
        .map_err(|refusal| refusal.code())
}

#[test]
fn the_text_lists_voters_and_observers_but_nobody_on_the_way_in_or_out() {
    let now = membership(
        &[&[1, 2]],
        &[
            (1, "one:2888:3888;2181"),
            (2, "[::2]:2888:3888;[::]:2181"),
            (3, "three:2888:3888;2181"),
            (4, "four:2888:3888:observer"),
            (5, "five:2888:3888;2181"),
        ],
    );
    let nodes = now.nodes().map(|(id, node)| {
        let standing = match id {
            3 => Standing::Joining,
            5 => Standing::Leaving,
            _ => Standing::Member,
        };
        let node = PeerNode {
            standing,
            ..node.clone()
        };
        (*id, node)
    });
    let nodes: BTreeMap<u64, PeerNode> = nodes.collect();
    let now = Membership::new(vec![BTreeSet::from([1, 2])], nodes).expect("it is valid");
    let configuration = configuration(&now).expect("one set of voters");
    assert_eq!(
        configuration.members,
        "server.1=one:2888:3888:participant;0.0.0.0:2181\n\
         server.2=[::2]:2888:3888:participant;[::]:2181\n\
         server.4=four:2888:3888:observer\n"
    );
    assert_eq!(configuration.changed_ms, 0);
}

#[test]
fn a_server_that_has_lost_its_data_is_a_member_while_it_is_out() {
    let lines = [(1, "one:2888:3888;2181"), (2, "two:2888:3888;2181")];
    let before = membership(&[&[1, 2]], &lines);
    let node = PeerNode {
        changed_ms: 9,
        ..before.get_node(&1).expect("a node").clone()
    };
    let returning = Returning {
        incarnation: 5,
        node: node.clone(),
    };
    let carrier = PeerNode {
        returning: [(1, returning)].into(),
        ..before.get_node(&2).expect("a node").clone()
    };
    let now = |nodes: BTreeMap<u64, PeerNode>| {
        let now = Membership::new(vec![BTreeSet::from([2])], nodes).expect("it is valid");
        configuration(&now).expect("one set of voters")
    };
    let out = now([(2, carrier.clone())].into());
    assert_eq!(out.servers, [1, 2].into());
    assert_eq!(
        out.members,
        configuration(&before).expect("as it was").members
    );
    assert_eq!(out.changed_ms, 9);
    // One that is not out yet, or is back already, is not there twice.
    assert_eq!(now([(1, node), (2, carrier)].into()), out);
}

#[test]
fn a_membership_in_two_parts_is_not_told() {
    let lines = [(1, "one:1:2;3"), (2, "two:1:2;3")];
    assert_eq!(configuration(&membership(&[&[1], &[1, 2]], &lines)), None);
}

#[test]
fn a_server_alone_has_no_text() {
    let nodes = BTreeMap::from([(1, PeerNode::default())]);
    let alone = Membership::new(vec![BTreeSet::from([1])], nodes).expect("a node for the voter");
    let configuration = configuration(&alone).expect("one set of voters");
    assert_eq!(configuration.members, "");
}

#[test]
fn servers_join_leave_and_change_at_once() {
    assert_eq!(
        planned(&incremental("server.4=four:2888:3888;2181", "2")),
        Ok((vec![1, 3, 4], vec![1, 3, 4, 9]))
    );
    assert_eq!(
        planned(&incremental(
            " server.9=nine:2888:3888;2181 , server.2=two:2888:3888:observer;2181",
            ""
        )),
        Ok((vec![1, 3, 9], vec![1, 2, 3, 9]))
    );
}

#[test]
fn nothing_to_do_and_nobody_to_remove_are_no_errors() {
    let same = Ok((vec![1, 2, 3], vec![1, 2, 3, 9]));
    assert_eq!(planned(&incremental("", "")), same);
    assert_eq!(planned(&incremental("", "77")), same);
    assert_eq!(planned(&Wish::default()), same);
}

#[test]
fn a_full_list_replaces_all_members() {
    let text = "server.1=one:2888:3888;2181,server.2=two:2888:3888;2181\n\
                server.5=five:2888:3888:observer\nversion=100000003";
    assert_eq!(planned(&full(text)), Ok((vec![1, 2], vec![1, 2, 5])));
}

#[test]
fn a_member_that_stays_keeps_what_is_known_of_it() {
    let mut now = three();
    let mut nodes: BTreeMap<u64, PeerNode> =
        now.nodes().map(|(id, node)| (*id, node.clone())).collect();
    nodes.entry(1).and_modify(|node| node.changed_ms = 5);
    now = Membership::new(vec![BTreeSet::from([1, 2, 3])], nodes.clone()).expect("it is valid");
    let text = "server.1=one:2888:3888:participant;0.0.0.0:2181,server.2=two:2888:3888;2182";
    let plan = plan(&now, &full(text), 2).expect("a plan");
    assert_eq!(plan.members[&1], nodes[&1]);
    assert_eq!(plan.members[&2].client_address, "0.0.0.0:2182");
}

#[test]
fn what_zookeeper_refuses_is_refused_with_its_codes() {
    let bad = Err(Some(ErrorCode::BadArguments));
    let malformed = Err(Some(ErrorCode::MarshallingError));
    for (joining, expected) in [
        ("server.4", &bad),
        ("server.4=four:2888:3888;2181=", &bad),
        ("server.4=four:2888;2181", &bad),
        ("server.4=four:2888:3888", &bad),
        ("server.4=four:2888:3888:voter;2181", &bad),
        ("server.x=four:2888:3888;2181", &malformed),
        ("server.255=four:2888:3888;2181", &bad),
        ("server.-1=four:2888:3888;2181", &bad),
        ("server.4=one:2888:3999;2181", &bad),
        ("server.4=four:2888:3888;one:3888", &bad),
    ] {
        assert_eq!(&planned(&incremental(joining, "")), expected, "{joining}");
    }
    assert_eq!(planned(&incremental("", "1,x")), malformed);
    assert_eq!(planned(&full("group.1=1:2")), bad);
    assert_eq!(planned(&full("server.1=one:2888:3888;2181\nserver.2")), bad);
}

#[test]
fn every_address_may_be_written_by_several_servers() {
    let joining = "server.4=four:2888:3888;0.0.0.0:2181,server.5=five:2888:3888;0.0.0.0:2181";
    assert!(planned(&incremental(joining, "")).is_ok());
}

#[test]
fn too_few_participants_are_refused() {
    let bad = Err(Some(ErrorCode::BadArguments));
    assert_eq!(planned(&incremental("", "1,2")), bad);
    assert_eq!(planned(&full("")), bad);
    let leave_one = incremental("", "1,2");
    assert!(plan(&three(), &leave_one, 1).is_ok());
    assert!(matches!(
        plan(&three(), &incremental("", "1,2,3"), 1),
        Err(Refusal::BadArguments(_))
    ));
}
