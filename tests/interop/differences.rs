//! Where Quorate is meant to differ from Apache ZooKeeper 3.8.0, line by line, with the reason.
//!
//! The list is checked in both directions: the reference has to print its line, Quorate its own.

use quorate_tests::transcript::Difference;

const fn differs(
    script: &'static str,
    reference: &'static str,
    quorate: &'static [&'static str],
    reason: &'static str,
) -> Difference {
    Difference {
        script,
        reference,
        quorate,
        reason,
    }
}

const SUCCEEDING_MULTI: &str = "a_multi_that_succeeds_shows_each_state_in_turn";
const WATCH_REMOVAL: &str = "a_watch_can_be_looked_for_and_removed";
const ADDRESSES: &str = "an_address_in_the_list_is_matched_against_the_peer";
const LISTS: &str = "lists_are_completed_and_freed_of_duplicates";
const LENGTHS: &str = "lengths_that_cannot_be_are_a_decoding_error";
const DESCENDANTS: &str = "descendants_and_own_ephemerals_are_found";
const SMALL: &str = "small_operations_answer_what_they_should";
const PATHS: &str = "a_path_is_checked_where_something_is_written";
const MODES: &str = "each_create_takes_the_modes_it_knows";

const IPV6: &str = "3.9 knows addresses of IPv6, 3.8 does not";
const TWICE: &str = "ZooKeeper drops duplicates before it expands `auth`, Quorate after as well";

/// The list of `u:p` alone, and with that of `v:p`, as each server stores it.
macro_rules! stored {
    ($entries:literal, $zxid:literal) => {
        concat!(
            "a as stored: ok [",
            $entries,
            "] [c=",
            $zxid,
            " m=",
            $zxid,
            " p=",
            $zxid,
            " times=now/now v=0,0,1 length=0 children=0]"
        )
    };
}

const CONFIG_MTIME: &str =
    "a server of ZooKeeper notes when it started itself; ours read the same on every server";

/// Those between as many servers of each.
pub(crate) fn listed(servers: u64) -> Vec<Difference> {
    let of_ensembles = if servers == 1 { &[] } else { OF_ENSEMBLES };
    [LISTED, of_ensembles].concat()
}

/// The initial configuration has no write behind it, which could say when it was made.
const OF_ENSEMBLES: &[Difference] = &[
    differs(
        "every_operation_of_the_java_client_has_the_same_outcome",
        "config stat: [c=0 m=0 p=0 v=-1,0,-1 owner=0 length=138 children=0 times=0/now]",
        &["config stat: [c=0 m=0 p=0 v=-1,0,-1 owner=0 length=138 children=0 times=0/0]"],
        CONFIG_MTIME,
    ),
    differs(
        "every_operation_changes_the_stat_fields_it_should_and_no_other",
        "a config: ok [c=0 m=0 p=0 times=0/now v=-1,0,-1 length=138 children=0]",
        &["a config: ok [c=0 m=0 p=0 times=0/0 v=-1,0,-1 length=138 children=0]"],
        CONFIG_MTIME,
    ),
    differs(
        "the_built_in_znodes_cannot_be_deleted_or_created",
        "a get /zookeeper/config: ok 138 bytes [c=0 m=0 p=0 times=0/now v=-1,0,-1 length=138 children=0]",
        &[
            "a get /zookeeper/config: ok 138 bytes [c=0 m=0 p=0 times=0/0 v=-1,0,-1 length=138 children=0]",
        ],
        CONFIG_MTIME,
    ),
    differs(
        "the_built_in_znodes_cannot_be_deleted_or_created",
        "a acl of /zookeeper/config: ok [\"1:world:anyone\"] [c=0 m=0 p=0 times=0/now v=-1,0,-1 length=138 children=0]",
        &[
            "a acl of /zookeeper/config: ok [\"1:world:anyone\"] [c=0 m=0 p=0 times=0/0 v=-1,0,-1 length=138 children=0]",
        ],
        CONFIG_MTIME,
    ),
];

const LISTED: &[Difference] = &[
    differs(
        SUCCEEDING_MULTI,
        "a create2: ok | 1 /m/two",
        &[
            "a create2: ok | 15 /m/two [c=z11 m=z11 p=z11 times=now/now v=0,0,0 length=1 children=0]",
        ],
        "before 3.8.4 the result of a create2 in a multi was that of a create",
    ),
    differs(
        WATCH_REMOVAL,
        "a is not mine: ok",
        &["a is not mine: error -121"],
        "3.8 finds a watch of any connection where 3.9 looks for one of the asking one",
    ),
    differs(
        ADDRESSES,
        "a ::1: create: error -114",
        &["a ::1: create: ok /ip7"],
        IPV6,
    ),
    differs(
        ADDRESSES,
        "a ::1: get: error -101",
        &["a ::1: get: error -102"],
        IPV6,
    ),
    differs(
        ADDRESSES,
        "a ::/0: create: error -114",
        &["a ::/0: create: ok /ip8"],
        IPV6,
    ),
    differs(
        ADDRESSES,
        "a ::/0: get: error -101",
        &["a ::/0: get: error -102"],
        IPV6,
    ),
    differs(
        LISTS,
        stored!(
            "\"31:digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=\", \"31:digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=\"",
            "z52"
        ),
        &[stored!(
            "\"31:digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=\"",
            "z52"
        )],
        TWICE,
    ),
    differs(
        LISTS,
        stored!(
            "\"31:digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=\", \"31:digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=\", \"31:digest:v:RylFHZNG40p+EX2Hf0QUdmqEStY=\"",
            "z79"
        ),
        &[stored!(
            "\"31:digest:u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=\", \"31:digest:v:RylFHZNG40p+EX2Hf0QUdmqEStY=\"",
            "z79"
        )],
        TWICE,
    ),
    differs(
        LENGTHS,
        "a null acl id: error -5",
        &["a null acl id: error -114"],
        "the request can be decoded, and its ACL is invalid; ZooKeeper trips over the null",
    ),
    differs(
        LENGTHS,
        "a watch list count -1: error -5",
        &["a watch list count -1: ok"],
        "a null list is an empty one; ZooKeeper trips over the null",
    ),
    differs(
        DESCENDANTS,
        "a descendants of \"\": ok 10",
        &["a descendants of \"\": ok 9"],
        "under its second name the root is one of its own descendants in ZooKeeper",
    ),
    differs(
        SMALL,
        "a null sync: ok null",
        &["a null sync: error -5"],
        "no path is not a path, here as in every other read",
    ),
    differs(
        PATHS,
        "a sync /\\u{1f600}: ok /\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
        &["a sync /\\u{1f600}: ok /\u{1f600}"],
        "ZooKeeper answers in surrogates, which are no UTF-8",
    ),
    differs(
        MODES,
        "a TTL mode without TTL in a multi: error -5",
        &["a TTL mode without TTL in a multi: ok | -1 error -8 -8"],
        "one operation is wrong, not the encoding of all; alone it is -8 for both",
    ),
];
