//! Snapshots and log once more, as a start would read them, to see whether they add up.
//!
//! The entries between two snapshots must lead from the state of the one to that of the other, and
//! every state on the way must be sound.

use quorate_state::{Command, Configuration, State};

use super::ZxidBase;
use crate::consensus::log_store::to_entry;
use crate::consensus::membership;
use crate::consensus::types::{EntryPayload, Membership};
use crate::storage::log::LogEntry;

/// An entry that no server could apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of the log cannot be applied: {what}; was it written by a later release?")]
pub struct Unreadable {
    /// Its place in the log.
    pub index: u64,
    /// Why not.
    pub what: String,
}

/// What an entry says.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Nothing: a leader's first.
    Blank,
    /// A request, or a decision of the leader.
    Command(Box<Command>),
    /// Who belongs to the ensemble, and who of them votes.
    Membership {
        /// All that the log goes to.
        servers: Vec<u64>,
        /// Those whose majority decides; more than one set while the ensemble changes.
        voters: Vec<Vec<u64>>,
        /// What clients are to read of it; `None` while it changes.
        configuration: Option<Configuration>,
    },
}

/// Reads an entry.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read(entry: &LogEntry) -> Result<Contents, Unreadable> {
    let index = entry.id.index;
    let unreadable = |what: String| Unreadable { index, what };
    match to_entry(entry.clone())
        .map_err(|error| unreadable(error.to_string()))?
        .payload
    {
        EntryPayload::Blank => Ok(Contents::Blank),
        EntryPayload::Normal(proposal) => Command::decode(&proposal.0)
            .map(|command| Contents::Command(Box::new(command)))
            .map_err(|error| unreadable(error.to_string())),
        EntryPayload::Membership(membership) => Ok(Contents::Membership {
            servers: membership.nodes().map(|(id, _)| *id).collect(),
            voters: voters(&membership),
            configuration: membership::configuration(&membership),
        }),
    }
}

/// The sets of servers of each of which a majority is needed.
pub(crate) fn voters(membership: &Membership) -> Vec<Vec<u64>> {
    let joint = membership.get_joint_config().iter();
    joint.map(|set| set.iter().copied().collect()).collect()
}

/// Applies an entry to a state, as a server does.
///
/// # Errors
///
/// [`Unreadable`].
pub fn apply(state: &mut State, zxids: ZxidBase, entry: &LogEntry) -> Result<(), Unreadable> {
    let zxid = zxids.zxid(entry.id.index);
    match read(entry)? {
        Contents::Command(command) => {
            state.apply(zxid, *command);
        }
        Contents::Membership {
            configuration: Some(configuration),
            ..
        } => {
            state.configure(zxid, &configuration);
        }
        Contents::Blank | Contents::Membership { .. } => state.skip(zxid),
    }
    Ok(())
}

/// Applies those of `entries`, which are in order, that come after `from` and up to `upto`.
///
/// # Errors
///
/// [`Unreadable`].
pub fn apply_range(
    state: &mut State,
    zxids: ZxidBase,
    entries: &[LogEntry],
    from: Option<u64>,
    upto: u64,
) -> Result<(), Unreadable> {
    let start = entries.partition_point(|entry| Some(entry.id.index) <= from);
    for entry in &entries[start..] {
        if entry.id.index > upto {
            break;
        }
        apply(state, zxids, entry)?;
    }
    Ok(())
}
