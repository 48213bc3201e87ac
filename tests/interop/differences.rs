//! Where Quorate is meant to differ from Apache ZooKeeper 3.8.0, line by line, with the reason.
//!
//! The list is checked in both directions: the reference has to print its line, Quorate its own.

use quorate_tests::transcript::Difference;

pub(crate) const LISTED: &[Difference] = &[
    Difference {
        script: "a_multi_that_succeeds_shows_each_state_in_turn",
        reference: "a create2: ok | 1 /m/two",
        quorate: &[
            "a create2: ok | 15 /m/two [c=z11 m=z11 p=z11 times=now/now v=0,0,0 length=1 children=0]",
        ],
        reason: "before 3.8.4 the result of a create2 in a multi was that of a create",
    },
    Difference {
        script: "a_watch_can_be_looked_for_and_removed",
        reference: "a is not mine: ok",
        quorate: &["a is not mine: error -121"],
        reason: "3.8 finds a watch of any connection where 3.9 looks for one of the asking one",
    },
];
