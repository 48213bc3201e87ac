//! Servers that have lost their data come back.
//!
//! The leader has to forget how far such a server's old log went, so it takes it out of the membership
//! and brings it back as one that catches up before it votes. These are several entries of the log,
//! and the leader may be lost between any two. So the entry that takes it out notes who is to come
//! back, and whoever leads goes on from there. To clients it is a member all the time.

use openraft::ChangeMembers;

use super::Members;
use super::plan::Refusal;
use crate::consensus::types::{Membership, PeerNode, Returning};

/// A server that is to come back, and on whose node that is noted.
pub(super) fn returning(membership: &Membership) -> Option<(u64, u64, &Returning)> {
    membership.nodes().find_map(|(carrier, node)| {
        let (server, returning) = node.returning.first_key_value()?;
        Some((*carrier, *server, returning))
    })
}

impl Members {
    /// A server that is to come back, and with which incarnation.
    pub(in crate::consensus) fn returning(&self) -> Option<(u64, u64)> {
        let (_, membership) = self.effective();
        let (_, server, returning) = returning(&membership)?;
        Some((server, returning.incarnation))
    }

    /// Whether a server is in the membership.
    pub(in crate::consensus) fn has(&self, server: u64) -> bool {
        self.effective().1.get_node(&server).is_some()
    }

    /// Takes a server out, if it is not out yet, and notes that it is to come back. Who calls this has
    /// the turn.
    pub(in crate::consensus) async fn take_out(
        &self,
        server: u64,
        incarnation: u64,
    ) -> Result<(), Refusal> {
        let (at, now) = self.settled()?;
        let Some(node) = now.get_node(&server) else {
            return Ok(());
        };
        let mut changes = Vec::new();
        if returning(&now).is_none() {
            let own = now.get_node(&self.server).ok_or(Refusal::NotLeader)?;
            let mut own = own.clone();
            let node = node.clone();
            own.returning
                .insert(server, Returning { incarnation, node });
            changes.push(ChangeMembers::SetNodes([(self.server, own)].into()));
        }
        changes.push(if now.voter_ids().any(|voter| voter == server) {
            ChangeMembers::RemoveVoters([server].into())
        } else {
            ChangeMembers::RemoveNodes([server].into())
        });
        // Not kept as one without a vote: that would keep what the leader knows of its log.
        let change = ChangeMembers::Batch(changes);
        self.change_membership_and(at, change, false).await?;
        Ok(())
    }

    /// Brings a server back that was taken out, without a vote as yet. Who calls this has the turn.
    pub(in crate::consensus) async fn put_back(&self, server: u64) -> Result<(), Refusal> {
        let (at, now) = self.settled()?;
        let Some((carrier, noted, returning)) = returning(&now) else {
            return Ok(());
        };
        let node = now.get_node(&carrier).filter(|_| noted == server);
        let Some(mut carrier_node) = node.cloned() else {
            return Ok(());
        };
        carrier_node.returning.remove(&server);
        let nodes: [(u64, PeerNode); 2] =
            [(server, returning.node.clone()), (carrier, carrier_node)];
        let change = ChangeMembers::SetNodes(nodes.into());
        self.change_membership(at, change).await?;
        Ok(())
    }
}
