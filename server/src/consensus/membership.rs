//! Who belongs to the ensemble: what clients read of it, and how it changes.

use std::fmt::Write as _;

use quorate_state::Configuration;

use super::types::Membership;

/// What clients are to read of a membership. `None` while two memberships are in force: one is on
/// its way out, and the other may yet be taken back.
pub(super) fn configuration(membership: &Membership) -> Option<Configuration> {
    let [voters] = &membership.get_joint_config()[..] else {
        return None;
    };
    let mut configuration = Configuration::default();
    for (id, node) in membership.nodes() {
        configuration.changed_ms = configuration.changed_ms.max(node.changed_ms);
        // A server that is to vote one day, or did until now, is no member.
        let is_member = node.is_observer != voters.contains(id);
        if is_member && !node.line.is_empty() {
            let _ = writeln!(configuration.members, "server.{id}={}", node.line);
        }
    }
    Some(configuration)
}
