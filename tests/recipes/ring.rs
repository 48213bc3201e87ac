//! The ring election, with its messages in znodes.

use crate::against_both;

#[expect(dead_code, reason = "the example's own main is not called")]
#[path = "../../recipes/examples/ring_election.rs"]
mod example;

use example::{Counts, elect, ids};

#[test]
fn a_ring_elects_the_largest_with_as_many_messages_as_the_formulas_say() {
    against_both("a_ring_elects_the_largest", |scene| async move {
        let client = scene.client().await;
        let n = 6;
        let best = ids(n);
        let worst: Vec<String> = best.iter().rev().cloned().collect();
        for (order, election) in [(best, 2 * n - 1), (worst, n * (n + 1) / 2)] {
            let (leader, counts) = elect(&client, "/ring", &order).await.unwrap();
            assert_eq!(leader, "member-0006");
            let announcement = n;
            let expected = Counts {
                election,
                announcement,
            };
            assert_eq!(counts, expected, "{order:?}");
        }
        let (left, _) = client.children("/ring/mail/member-0001").await.unwrap();
        assert_eq!(left, [""; 0], "all messages were taken");
    });
}
