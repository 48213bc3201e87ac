//! Bugs that can be planted, to see that a proof would notice them.
//!
//! A proof that finds nothing has proven something only if it finds what is there to be found. Each
//! [`Canary`] is a bug of one line, at the place where such bugs have been made. In a build without
//! debug assertions, as every release is one, [`planted`] is `false` before anything runs, and what
//! asks for it is not there.
//!
//! One is planted in the thread that asks for it: a simulation is one thread.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
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

/// Never.
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
