//! Which member is to have which partition: a decision that all members come to by themselves.
//!
//! So it may depend on nothing but the view, which is the same for all once all have heard of
//! everything. Until then they may decide differently, and nothing worse comes of it than a detour:
//! who has a partition is settled by its znode.

use std::collections::BTreeMap;

/// What an assignment is made from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// All partitions, in the order of their names.
    pub partitions: &'a [String],
    /// All members, in the order of their names; at least one.
    pub members: &'a [String],
    /// Who has which partition now: those that a member has.
    pub owners: &'a BTreeMap<String, String>,
}

/// Divides the partitions so that no member has two more than another, and moves as few as can be.
///
/// It is the default of a [`Partitioner`](crate::Partitioner). A member of several with as many
/// partitions is the first whose name comes first.
pub fn balanced(view: &View<'_>) -> BTreeMap<String, String> {
    let mut assigned: BTreeMap<String, String> = BTreeMap::new();
    if view.members.is_empty() {
        return assigned;
    }
    let owned = |member: &String| {
        let owner = |partition: &&String| view.owners.get(*partition) == Some(member);
        view.partitions.iter().filter(owner).count()
    };
    let mut ranks: Vec<(usize, &String)> = view.members.iter().map(|m| (owned(m), m)).collect();
    // What cannot be divided evenly stays with those who have most.
    ranks.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let least = view.partitions.len() / view.members.len();
    let more = view.partitions.len() % view.members.len();
    let ranks = ranks.into_iter().enumerate();
    let mut room: BTreeMap<&String, usize> = ranks
        .map(|(rank, (_, member))| (member, least + usize::from(rank < more)))
        .collect();
    let mut free = Vec::new();
    for partition in view.partitions {
        let owner = view.owners.get(partition);
        match owner.and_then(|owner| Some((owner, room.get_mut(owner)?))) {
            Some((owner, room)) if *room > 0 => {
                *room -= 1;
                assigned.insert(partition.clone(), owner.clone());
            }
            _ => free.push(partition),
        }
    }
    let mut takers = room
        .into_iter()
        .flat_map(|(member, room)| std::iter::repeat_n(member, room));
    for partition in free {
        if let Some(member) = takers.next() {
            assigned.insert(partition.clone(), member.clone());
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(prefix: &str, count: usize) -> Vec<String> {
        (0..count)
            .map(|number| format!("{prefix}{number:03}"))
            .collect()
    }

    fn counts(assigned: &BTreeMap<String, String>, members: &[String]) -> Vec<usize> {
        let count = |member| assigned.values().filter(|owner| *owner == member).count();
        members.iter().map(count).collect()
    }

    proptest! {
        #[test]
        fn all_is_assigned_evenly_and_no_more_moves_than_must(
            partitions in 0_usize..40,
            members in 1_usize..9,
            owners in proptest::collection::vec(0_usize..12, 40),
        ) {
            let (partitions, members) = (names("p", partitions), names("m", members));
            let all = names("m", 12);
            // Some of them have left, some partitions nobody has.
            let owners: BTreeMap<String, String> = partitions
                .iter()
                .zip(&owners)
                .filter(|(_, owner)| **owner < 11)
                .map(|(partition, owner)| (partition.clone(), all[*owner].clone()))
                .collect();
            let view = View { partitions: &partitions, members: &members, owners: &owners };
            let assigned = balanced(&view);
            prop_assert_eq!(assigned.len(), partitions.len());
            let counts = counts(&assigned, &members);
            let (least, most) = (counts.iter().min(), counts.iter().max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1);
            // What a member had stays unless it has more than any may have.
            let most_allowed = partitions.len().div_ceil(members.len());
            for member in &members {
                let had: Vec<_> = owners.iter().filter(|(_, owner)| *owner == member).collect();
                let kept = had.iter().filter(|(p, owner)| assigned.get(*p) == Some(owner)).count();
                prop_assert!(kept >= had.len().min(most_allowed.saturating_sub(1)));
            }
            // All of it is there: nothing moves any more.
            let view = View { owners: &assigned, ..view };
            prop_assert_eq!(balanced(&view), assigned);
        }

        /// However the moves are interleaved with new decisions, they come to an end.
        #[test]
        fn members_that_decide_by_what_is_there_come_to_agree(
            partitions in 0_usize..20,
            members in 1_usize..6,
            turns in proptest::collection::vec(0_usize..6, 400),
        ) {
            let (partitions, members) = (names("p", partitions), names("m", members));
            let mut owners: BTreeMap<String, String> = BTreeMap::new();
            let steps = turns.iter().map(|turn| turn % members.len());
            // One move at a time, by whoever's turn it is; all have theirs in the end.
            let rest = (0..members.len() * partitions.len() * 4).map(|turn| turn % members.len());
            for turn in steps.chain(rest) {
                let me = &members[turn];
                let view = View { partitions: &partitions, members: &members, owners: &owners };
                let target = balanced(&view);
                let release = owners.iter().find(|(p, owner)| *owner == me && target[*p] != *me);
                if let Some((partition, _)) = release {
                    let partition = partition.clone();
                    owners.remove(&partition);
                    continue;
                }
                let acquire = target.iter().find(|(p, to)| *to == me && !owners.contains_key(*p));
                if let Some((partition, _)) = acquire {
                    owners.insert(partition.clone(), me.clone());
                }
            }
            let view = View { partitions: &partitions, members: &members, owners: &owners };
            prop_assert_eq!(&balanced(&view), &owners);
        }
    }
}
