//! Operation codes, as in ZooKeeper's `ZooDefs.OpCode`.

/// What a request asks for. Only codes that a client may send are here; the internal ones
/// (0 notification, -10 createSession, 20 deleteContainer) are unknown on purpose: ZooKeeper lets
/// any client reach its internal handlers through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum OpCode {
    /// Makes a znode; answered with its path.
    Create = 1,
    /// Removes a znode that has no children.
    Delete = 2,
    /// A znode's stat, or a watch on its creation.
    Exists = 3,
    /// A znode's data and stat.
    GetData = 4,
    /// Replaces a znode's data.
    SetData = 5,
    /// A znode's ACL and stat.
    GetAcl = 6,
    /// Replaces a znode's ACL.
    SetAcl = 7,
    /// The names of a znode's children.
    GetChildren = 8,
    /// Waits until the server has caught up with the leader.
    Sync = 9,
    /// Keeps the session alive.
    Ping = 11,
    /// The names of a znode's children, and its stat.
    GetChildren2 = 12,
    /// A condition on a version; inside a multi only.
    Check = 13,
    /// Several writes, all or none.
    Multi = 14,
    /// Makes a znode; answered with its path and stat.
    Create2 = 15,
    /// Changes the members of the ensemble.
    Reconfig = 16,
    /// Whether the connection has a watch.
    CheckWatches = 17,
    /// Takes watches of the connection away.
    RemoveWatches = 18,
    /// Makes a znode that goes some time after its last child.
    CreateContainer = 19,
    /// Makes a znode that goes when it was not set for some time.
    CreateTtl = 21,
    /// Several reads, each with its own result.
    MultiRead = 22,
    /// Adds an identity to the connection.
    Auth = 100,
    /// Brings back the watches of the last connection.
    SetWatches = 101,
    /// One round of a SASL exchange.
    Sasl = 102,
    /// The session's ephemeral znodes.
    GetEphemerals = 103,
    /// How many descendants a znode has.
    GetAllChildrenNumber = 104,
    /// As `SetWatches`, with persistent watches.
    SetWatches2 = 105,
    /// Adds a persistent watch.
    AddWatch = 106,
    /// The connection's identities.
    WhoAmI = 107,
    /// Ends the session.
    CloseSession = -11,
}

impl OpCode {
    /// Every operation a client may ask for.
    pub const ALL: [Self; 29] = [
        Self::Create,
        Self::Delete,
        Self::Exists,
        Self::GetData,
        Self::SetData,
        Self::GetAcl,
        Self::SetAcl,
        Self::GetChildren,
        Self::Sync,
        Self::Ping,
        Self::GetChildren2,
        Self::Check,
        Self::Multi,
        Self::Create2,
        Self::Reconfig,
        Self::CheckWatches,
        Self::RemoveWatches,
        Self::CreateContainer,
        Self::CreateTtl,
        Self::MultiRead,
        Self::Auth,
        Self::SetWatches,
        Self::Sasl,
        Self::GetEphemerals,
        Self::GetAllChildrenNumber,
        Self::SetWatches2,
        Self::AddWatch,
        Self::WhoAmI,
        Self::CloseSession,
    ];

    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The operation with this number; `None` for unknown and for internal ones.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.code() == code)
    }

    /// The four letters (or so) by which the `cons` command names the last operation.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Create | Self::Create2 | Self::CreateContainer | Self::CreateTtl => "CREA",
            Self::Delete => "DELE",
            Self::Exists => "EXIS",
            Self::GetData => "GETD",
            Self::SetData => "SETD",
            Self::GetAcl => "GETA",
            Self::SetAcl => "SETA",
            Self::GetChildren | Self::GetChildren2 => "GETC",
            Self::Sync => "SYNC",
            Self::Ping => "PING",
            Self::Check => "CHEC",
            Self::Multi => "MULT",
            Self::MultiRead => "MLTR",
            Self::Reconfig => "RECO",
            Self::CheckWatches => "CHKW",
            Self::RemoveWatches => "REMW",
            Self::Auth => "AUTH",
            Self::Sasl => "SASL",
            Self::SetWatches => "SETW",
            Self::SetWatches2 => "STW2",
            Self::AddWatch => "ADDW",
            Self::GetEphemerals => "GETE",
            Self::GetAllChildrenNumber => "GETACN",
            Self::WhoAmI => "HOMI",
            Self::CloseSession => "CLOS",
        }
    }
}
