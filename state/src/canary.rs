//! Faults that can be planted, to see whether the checks find them: a check that finds none of them has
//! measured nothing.
//!
//! In builds with debug assertions only. A release knows [`planted`] as `false`, so that not even the
//! branch is left. Each is a mistake that some server of this kind has once made.

/// What can be planted. The comments name where it was seen, if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Canary {
    // Storage.
    /// The log tells that a batch is durable before it is synced.
    AckBeforeSync,
    /// A vote is told to be durable before it is written.
    VoteBeforeSync,
    /// A failed sync of the log is tried again, and believed.
    SyncRetried,
    /// The name of a new segment is not made durable.
    SegmentNameNotSynced,
    /// The name of a new snapshot is not made durable.
    SnapshotNameNotSynced,
    /// A snapshot gets its name before its contents are durable.
    SnapshotNotSynced,
    /// A snapshot counts, and older ones go, although nobody has read it back.
    SnapshotNotReadBack,
    /// Where the newest snapshot is damaged an older one is used, although the log does not go on from
    /// there.
    OlderSnapshotAnyway,
    /// The name of the identity is not made durable.
    IdentityNameNotSynced,
    /// A damaged batch at the end of the log is taken for one that was never finished.
    DamageCutOff,
    /// A batch's checksum is not looked at.
    ChecksumIgnored,
    /// A start takes the first vote it reads for the last one.
    VoteRolledBack,
    /// A start believes the last batch because it can read it.
    LastBatchNotRewritten,
    /// A start leaves segments behind that hold nothing that counts.
    StaleSegmentsLeft,
    /// Sectors full of zeros are written as they are.
    ZerosNotMasked,
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
    /// A retried write is done twice.
    RetriedWriteDoneTwice,
}

impl Canary {
    /// Those in the log and in the snapshots.
    pub const STORAGE: [Self; 15] = [
        Self::AckBeforeSync,
        Self::VoteBeforeSync,
        Self::SyncRetried,
        Self::SegmentNameNotSynced,
        Self::SnapshotNameNotSynced,
        Self::SnapshotNotSynced,
        Self::SnapshotNotReadBack,
        Self::OlderSnapshotAnyway,
        Self::IdentityNameNotSynced,
        Self::DamageCutOff,
        Self::ChecksumIgnored,
        Self::VoteRolledBack,
        Self::LastBatchNotRewritten,
        Self::StaleSegmentsLeft,
        Self::ZerosNotMasked,
    ];
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Canary>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is to be made.
#[cfg(debug_assertions)]
pub fn planted(canary: Canary) -> bool {
    PLANTED.get() == Some(canary)
}

/// Never: this is a release.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn planted(_canary: Canary) -> bool {
    false
}

/// Plants a bug in this thread in place of the one that was, or none.
#[cfg(debug_assertions)]
pub fn plant(canary: Option<Canary>) {
    PLANTED.set(canary);
}
