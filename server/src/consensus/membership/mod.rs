//! Who belongs to the ensemble: what clients read of it, and how it changes.
//!
//! The engine's memberships are the truth. A member is a voter, or an observer that was asked for;
//! other servers without a vote are on their way in (they catch up before they vote) or out.

pub mod plan;

use std::fmt::Write as _;

use quorate_state::Configuration;

use super::types::{Membership, PeerNode};

/// Whether clients are to know of this server.
fn is_member(membership: &Membership, id: u64, node: &PeerNode) -> bool {
    let votes = membership
        .get_joint_config()
        .last()
        .is_some_and(|voters| voters.contains(&id));
    votes != node.is_observer
}

/// What clients are to read of a membership. `None` while two memberships are in force: one is on
/// its way out, and the other may yet be taken back.
pub(super) fn configuration(membership: &Membership) -> Option<Configuration> {
    if membership.get_joint_config().len() != 1 {
        return None;
    }
    let mut configuration = Configuration::default();
    for (id, node) in membership.nodes() {
        configuration.changed_ms = configuration.changed_ms.max(node.changed_ms);
        if is_member(membership, *id, node) && !node.line.is_empty() {
            let _ = writeln!(configuration.members, "server.{id}={}", node.line);
        }
    }
    Some(configuration)
}

#[cfg(test)]
mod tests;
