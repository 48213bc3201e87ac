//! Faults that can be planted, to see whether the checks find them: a check that finds none of them has
//! measured nothing.
//!
//! In builds with debug assertions only. A release knows [`planted`] as `false`, so that not even the
//! branch is left. Each is a mistake that some server of this kind has once made.

/// What can be planted. The comments name where it was seen, if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Canary {
    // Storage.
    /// Entries are reported durable before the disk was asked to make them so.
    AckBeforeSync,
    /// A new segment's name is not made durable (ClickHouse Keeper #116316).
    NoFolderSyncOnSegment,
    /// A snapshot's name is not made durable (ClickHouse Keeper #111339).
    NoFolderSyncOnSnapshot,
    /// A failed sync is tried again (PostgreSQL, 2018).
    RetryAfterFailedSync,
    /// The log is cut at the first bad checksum.
    TruncateAtBadChecksum,
    /// The log is purged before the snapshot was read back.
    PurgeBeforeReadBack,
    /// A snapshot without contents is taken for one (ClickHouse Keeper #115388).
    EmptySnapshotAccepted,
    /// Votes are not made durable.
    VoteNotSynced,
    /// A vote that was read goes back to an older one.
    VoteRolledBack,
    /// A batch that was found after a restart is not written again.
    FoundBatchNotRewritten,
    /// A snapshot says that it covers one entry more than it does (etcd #13766).
    SnapshotClaimsMore,
    /// A snapshot is taken while entries are applied (ZooKeeper's fuzzy snapshots).
    FuzzySnapshot,
    // Raft.
    /// A vote is granted to whoever asks, however short its log.
    VoteForShorterLog,
    /// A minority counts as a quorum (OpenRaft #1802).
    QuorumOffByOne,
    /// An answer of the last round confirms the next one (etcd #20418).
    ReusedReadIndex,
    /// A leader confirms reads without asking anybody.
    ReadIndexWithoutQuorum,
    /// A conflicting tail is kept, and what is appended does not replace it.
    ConflictNotTruncated,
    /// A snapshot of another server is installed, and the old log kept.
    InstallKeepsLogTail,
    /// A rejoining server votes before it has caught up.
    RejoinedVotesAtOnce,
    // Sessions.
    /// An expiry is valid though another leader has been elected since (etcd #12528).
    ExpiryByOldLeader,
    /// A new leader goes on with the old deadlines.
    NoPardonAfterElection,
    /// What sessions do on a follower does not count (ClickHouse Keeper PR 121361).
    FollowerReadsDoNotTouch,
    /// Whoever comes back too late gets a new session without being told (ClickHouse Keeper #116690).
    SilentNewSession,
    /// A wrong password ends the session.
    WrongPasswordClosesSession,
    /// An ephemeral is created although its session has ended (ZooKeeper 1208).
    EphemeralAfterClose,
    /// A session leaves its last ephemeral behind (ZooKeeper 5010).
    EphemeralLeftBehind,
    /// The sessions' ephemerals are missing from snapshots.
    EphemeralsNotInSnapshot,
    /// Requests of a connection whose session has moved are done.
    MovedSessionMayWrite,
    // The tree.
    /// Sequence numbers come from the number of children.
    SequenceFromChildCount,
    /// A znode's child version is missing from snapshots.
    ChildVersionNotInSnapshot,
    /// A failed multi leaves its first parts done.
    MultiAppliedInPart,
    /// A set with a wrong version is done.
    VersionNotChecked,
    /// What a server applies depends on itself.
    ServerDependentApply,
    // Watches.
    /// The event comes after an answer that shows the change.
    EventAfterData,
    /// Watches are lost when a snapshot is installed, and the connection goes on.
    WatchesLostOnInstall,
    /// A one-time watch fires twice.
    WatchFiredTwice,
    /// What happened while a client was away is not told (ZooKeeper 1412).
    SetWatchesIgnoresPast,
    /// Of many watches that are set again, the last are forgotten (ZooKeeper 706).
    SetWatchesForgetsTail,
    /// An event is sent to whoever may not read (CVE-2024-23944).
    EventWithoutAcl,
    // Reads.
    /// A server takes clients that have seen more than it has.
    BehindServerAccepts,
    /// A server serves before it has applied what it had acknowledged.
    ServesDuringReplay,
    /// A retried write is done twice.
    RetriedWriteDoneTwice,
}

#[cfg(debug_assertions)]
mod planting {
    use std::cell::Cell;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::Canary;

    thread_local! {
        static HERE: Cell<Option<Canary>> = const { Cell::new(None) };
    }
    static ANYWHERE: AtomicBool = AtomicBool::new(false);
    static EVERYWHERE: Mutex<Option<Canary>> = Mutex::new(None);

    /// Whether this mistake is to be made.
    #[must_use]
    pub fn planted(canary: Canary) -> bool {
        HERE.get() == Some(canary)
            || ANYWHERE.load(Relaxed)
                && EVERYWHERE
                    .lock()
                    .is_ok_and(|planted| *planted == Some(canary))
    }

    /// Plants a mistake for all that runs on this thread, or takes it away.
    pub fn plant(canary: Option<Canary>) {
        HERE.set(canary);
    }

    /// Plants a mistake for the whole process, or takes it away.
    pub fn plant_everywhere(canary: Option<Canary>) {
        if let Ok(mut planted) = EVERYWHERE.lock() {
            *planted = canary;
        }
        ANYWHERE.store(canary.is_some(), Relaxed);
    }
}

#[cfg(debug_assertions)]
pub use planting::{plant, plant_everywhere, planted};

/// Whether this mistake is to be made: never in a release.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn planted(_: Canary) -> bool {
    false
}
