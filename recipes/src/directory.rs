//! The znode that a recipe owns, and how recipes tell theirs from others'.
//!
//! A recipe that keeps its own record in the znode's data marks it with its name (the key `recipe` of
//! a JSON object). Recipes whose data is the user's have no mark, and only refuse those of others.

use std::fmt;

use quorate_client::{AclEntry, Client, Reason};

use crate::Error;

/// A recipe, as it marks the znodes that are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A lock.
    Lock,
    /// A lock for readers and writers.
    ReadWriteLock,
    /// A semaphore.
    Semaphore,
    /// A leader election.
    Election,
    /// A group.
    Group,
    /// A registry of services.
    Registry,
    /// A set partitioner.
    Partitioner,
    /// A barrier.
    Barrier,
    /// A double barrier.
    DoubleBarrier,
    /// A queue.
    Queue,
    /// A priority queue.
    PriorityQueue,
    /// A delay queue.
    DelayQueue,
    /// A two-phase commit.
    TwoPhaseCommit,
    /// Blocks of unique ids.
    IdBlocks,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "a lock",
            Self::ReadWriteLock => "a read/write lock",
            Self::Semaphore => "a semaphore",
            Self::Election => "an election",
            Self::Group => "a group",
            Self::Registry => "a registry of services",
            Self::Partitioner => "a set partitioner",
            Self::Barrier => "a barrier",
            Self::DoubleBarrier => "a double barrier",
            Self::Queue => "a queue",
            Self::PriorityQueue => "a priority queue",
            Self::DelayQueue => "a delay queue",
            Self::TwoPhaseCommit => "a two-phase commit",
            Self::IdBlocks => "blocks of unique ids",
        })
    }
}

/// The mark alone, whatever else the object has.
#[derive(serde::Deserialize)]
struct Mark {
    recipe: Kind,
}

/// Whose znode this is, if a recipe has marked it.
pub(crate) fn owner(data: &[u8]) -> Option<Kind> {
    let mark: Result<Mark, _> = serde_json::from_slice(data);
    mark.ok().map(|mark| mark.recipe)
}

/// Fails if another recipe has marked the znode whose data this is.
pub(crate) fn refuse_others(path: &str, data: &[u8], wanted: Kind) -> Result<(), Error> {
    match owner(data) {
        Some(found) if found != wanted => Err(Error::OtherRecipe {
            path: path.to_owned(),
            wanted,
            found,
        }),
        _ => Ok(()),
    }
}

/// Fails if the data is not the recipe's: another's, or something that would be lost if the recipe
/// wrote its own. No data is nobody's, as other libraries leave their directories.
pub(crate) fn refuse_strangers(path: &str, data: &[u8], wanted: Kind) -> Result<(), Error> {
    refuse_others(path, data, wanted)?;
    if owner(data).is_none() && !data.is_empty() {
        return Err(Error::Foreign {
            path: path.to_owned(),
            found: format!("{} bytes of something else", data.len()),
            wanted: "a recipe's record, or nothing",
        });
    }
    Ok(())
}

/// Makes sure that the znode exists, and is not another's. One that is created is marked.
///
/// Cancel safe, and safe to repeat.
///
/// # Errors
///
/// [`Error::OtherRecipe`], [`Error::Foreign`]; [`Reason::NoNode`]: the client's chroot does not exist;
/// those of any request.
pub(crate) async fn claim(client: &Client, path: &str, kind: Kind) -> Result<(), Error> {
    claim_with_acl(client, path, kind, &[AclEntry::open()]).await
}

/// As [`claim`]; a directory that is created gets this ACL. Whoever may delete a child is said by the
/// directory's, not by the child's.
pub(crate) async fn claim_with_acl(
    client: &Client,
    path: &str,
    kind: Kind,
    acl: &[AclEntry],
) -> Result<(), Error> {
    loop {
        match client.get(path).await {
            Ok((data, _)) => return refuse_strangers(path, &data, kind),
            Err(error) if error.is(Reason::NoNode) => {}
            Err(error) => return Err(error.into()),
        }
        create(client, path, mark(kind), acl).await?;
    }
}

fn mark(kind: Kind) -> Vec<u8> {
    serde_json::json!({ "recipe": kind })
        .to_string()
        .into_bytes()
}

/// Creates a directory, and what is above it, if it is not there. Somebody else may be faster, or take
/// the parent away: whoever asks has to look.
///
/// Cancel safe, and safe to repeat.
pub(crate) async fn create(
    client: &Client,
    path: &str,
    data: Vec<u8>,
    acl: &[AclEntry],
) -> Result<(), Error> {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    if !parent.is_empty() {
        client.ensure_path(parent).await?;
    }
    match client.create(path, data).acl(acl).idempotent().await {
        Err(error) if error.is(Reason::NodeExists) => Ok(()),
        // Taken away again. Not so the root, which is missing only if it is a chroot's.
        Err(error) if error.is(Reason::NoNode) && !parent.is_empty() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_told_from_any_other_data() {
        assert_eq!(owner(br#"{"recipe":"lock","token":5}"#), Some(Kind::Lock));
        for other in [&b""[..], b"10.0.0.7", b"{}", br#"{"recipe":"x"}"#, b"5"] {
            assert_eq!(owner(other), None);
        }
    }
}
