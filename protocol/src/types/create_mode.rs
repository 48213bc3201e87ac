//! The seven kinds of create.

/// The longest time to live, in milliseconds: 2^40 - 1, what ZooKeeper's storage format has room for.
pub const TTL_MAX_MS: i64 = (1 << 40) - 1;

/// How a znode is created: what it is, and whether the server numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CreateMode {
    /// Stays until it is deleted.
    Persistent,
    /// As `Persistent`, numbered.
    PersistentSequential,
    /// Goes with the session that created it.
    Ephemeral,
    /// As `Ephemeral`, numbered.
    EphemeralSequential,
    /// Deleted by the server some time after its last child went.
    Container,
    /// Deleted by the server when it was not set for this long and has no children.
    PersistentWithTtl {
        /// How long it may go without being set, in milliseconds.
        ttl_ms: i64,
    },
    /// As `PersistentWithTtl`, numbered.
    PersistentSequentialWithTtl {
        /// How long it may go without being set, in milliseconds.
        ttl_ms: i64,
    },
}

/// Flags and TTL that make no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFlags {
    /// No mode has these flags.
    #[error("create flags {0} are unknown (0 to 6 are known)")]
    Unknown(i32),
    /// Zero, negative, or above [`TTL_MAX_MS`].
    #[error("a TTL of {0} ms is out of range (1 to {TTL_MAX_MS})")]
    TtlOutOfRange(i64),
    /// The mode has no time to live, and one was given.
    #[error("a TTL was given for a mode that has none")]
    UnexpectedTtl,
    /// The mode has a time to live, and the request has no room for one.
    #[error("a TTL mode needs a TTL")]
    MissingTtl,
}

impl CreateMode {
    /// The mode that `flags` and, from a createTTL request, `ttl_ms` stand for.
    ///
    /// A negative TTL counts as none for the modes without one, as in ZooKeeper.
    ///
    /// # Errors
    ///
    /// [`BadFlags`], which a server answers with `BadArguments`.
    pub fn from_flags(flags: i32, ttl_ms: Option<i64>) -> Result<Self, BadFlags> {
        let plain = |mode| match ttl_ms {
            Some(0..) => Err(BadFlags::UnexpectedTtl),
            _ => Ok(mode),
        };
        let ttl = || match ttl_ms {
            None => Err(BadFlags::MissingTtl),
            Some(ttl_ms @ 1..=TTL_MAX_MS) => Ok(ttl_ms),
            Some(ttl_ms) => Err(BadFlags::TtlOutOfRange(ttl_ms)),
        };
        match flags {
            0 => plain(Self::Persistent),
            1 => plain(Self::Ephemeral),
            2 => plain(Self::PersistentSequential),
            3 => plain(Self::EphemeralSequential),
            4 => plain(Self::Container),
            5 => ttl().map(|ttl_ms| Self::PersistentWithTtl { ttl_ms }),
            6 => ttl().map(|ttl_ms| Self::PersistentSequentialWithTtl { ttl_ms }),
            _ => Err(BadFlags::Unknown(flags)),
        }
    }

    /// The number on the wire.
    pub fn flags(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::Ephemeral => 1,
            Self::PersistentSequential => 2,
            Self::EphemeralSequential => 3,
            Self::Container => 4,
            Self::PersistentWithTtl { .. } => 5,
            Self::PersistentSequentialWithTtl { .. } => 6,
        }
    }

    /// Whether the server appends a number to the path.
    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential
                | Self::EphemeralSequential
                | Self::PersistentSequentialWithTtl { .. }
        )
    }

    /// Whether the znode goes with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// The time to live, of the modes that have one.
    pub fn ttl_ms(self) -> Option<i64> {
        match self {
            Self::PersistentWithTtl { ttl_ms } | Self::PersistentSequentialWithTtl { ttl_ms } => {
                Some(ttl_ms)
            }
            _ => None,
        }
    }
}
