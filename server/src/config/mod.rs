//! The configuration of one server: checked once, then trusted.
//!
//! [`Config::load`] builds it from, weakest first: defaults, ZooKeeper's `zoo.cfg`, environment
//! variables, flags. The last two arrive as [`Override`]s, already in that order, under the same
//! keys as in the file, so that there is one place where a value is checked. Units are part of the
//! names. Keys nobody knows are named in a [`ConfigWarning`]; a bad value is a [`ConfigError`] that
//! says where it stands. Nothing here opens a socket or creates a file.
//!
//! Source of keys, defaults and checks: ZooKeeper's administrator's guide, "Configuration
//! Parameters"; where we differ, the field says so.

mod check;
mod draft;
mod error;
mod inert;
mod member;
mod properties;
mod secret;
#[cfg(test)]
mod tests;
mod value;
mod words;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

pub use self::error::{ConfigError, ConfigWarning, Note, Place};
pub use self::member::{ClientAddress, Member, PeerAddress, Role};
pub use self::secret::Secret;
pub use self::words::FourLetterWords;

use self::draft::Draft;

/// Where a server without a `zoo.cfg` keeps its data, relative to the working directory.
pub const DEFAULT_DATA_DIR: &str = "quorate-data";

/// ZooKeeper's conventional client port.
pub const DEFAULT_CLIENT_PORT: u16 = 2181;

/// ZooKeeper's `jute.maxbuffer`, 0xfffff.
pub const DEFAULT_FRAME_BYTES_MAX: u32 = 1_048_575;

/// Everything a server has to be told. Keys in the comments are those of `zoo.cfg`; flags and
/// environment variables set the same keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    // Identity and members.
    /// This server's number, 0 to 254. From the file `myid` in [`Config::data_dir`]; else from a
    /// lone `server.N` line; else 1. ZooKeeper's limit: 255 is taken by TTL nodes' owner ids.
    pub server_id: u8,
    /// The `server.N` lines (of `zoo.cfg` or its `dynamicConfigFile`), by rising id. Empty on a
    /// server that was told of no ensemble.
    pub members: Vec<Member>,
    /// `standaloneEnabled`, default true: one server alone counts as standalone, not as an
    /// ensemble of one.
    pub standalone_enabled: bool,
    /// `quorumListenOnAllIPs`, default false: listen for the other servers on all addresses, not only
    /// on the one of this server's own line.
    pub quorum_listen_on_all_ips: bool,
    /// `quorate.rejoin`, from a flag or the environment: a server whose data is gone is taken in
    /// again. Without effect on one that has data, or that the ensemble does not know.
    pub rejoin: bool,
    /// `reconfigEnabled`, default false: whether clients may change the members.
    pub reconfig_enabled: bool,

    // Files.
    /// `dataDir`: snapshots and `myid`. Required in a file; `quorate-data` without one. A relative
    /// path is relative to the working directory, as in ZooKeeper.
    pub data_dir: PathBuf,
    /// `dataLogDir`: the write-ahead log. Default: [`Config::data_dir`].
    pub log_dir: PathBuf,

    // The client port.
    /// `clientPortAddress` (a host name is resolved once, at start) and `clientPort`. A file that
    /// names no address means all IPv4 addresses; without a file it is 127.0.0.1:2181. Port 0, from a
    /// flag or the environment only, takes any free port.
    pub client_address: SocketAddr,
    /// `clientPortListenBacklog`: connections that wait to be accepted. None (-1 in the file, the
    /// default) leaves it to the server.
    pub client_listen_backlog: Option<NonZeroU32>,
    /// `nio.sessionlessCnxnTimeout`, milliseconds, default 10000: how long a connection may take to
    /// send its connect request.
    pub client_handshake_timeout_ms: u32,
    /// `maxClientCnxns`, default 60: connections from one IP address. None (0 in the file): no bound.
    pub connections_per_address_max: Option<NonZeroU32>,
    /// `maxCnxns`, default none (0 in the file): connections in total.
    pub connections_max: Option<NonZeroU32>,
    /// `jute.maxbuffer`, bytes, default 1048575: the longest frame a client may send. ZooKeeper
    /// takes it as a system property only; here the file works as well.
    pub frame_bytes_max: u32,

    // Bounds on what is under way. At each of them the server stops reading from the connection,
    // except for the outbox, where it closes it.
    /// `globalOutstandingLimit`, default 16384 (ZooKeeper: 1000, at which its throughput is bounded by
    /// the disk round trips of a thousand requests): requests under way on this server.
    pub requests_outstanding_max: u32,
    /// `quorate.requestsPerConnectionMax`: requests under way on one connection. Default: a quarter
    /// of [`Config::requests_outstanding_max`], so that one client cannot use it up alone.
    pub requests_per_connection_max: u32,
    /// `quorate.requestBytesMax`, bytes: size of all requests under way on this server, at least
    /// one frame. Default: 64 MiB, or four of the largest frames if that is more.
    pub request_bytes_outstanding_max: u64,
    /// `quorate.outboxBytesMax`, bytes: what may wait to be sent on one connection, at least one
    /// frame; a client that lets more pile up is disconnected. Default: 16 MiB, or four of the
    /// largest frames if that is more.
    pub outbox_bytes_max: u64,

    // Time.
    /// `tickTime`, milliseconds: ZooKeeper's unit of time. 3000 in a file that does not say, 2000
    /// without a file.
    pub tick_ms: u32,
    /// `initLimit`, ticks, default 10 (but an ensemble must say): how long a server may take to
    /// connect to its leader and catch up.
    pub init_limit_ticks: u32,
    /// `syncLimit`, ticks, default 5 (but an ensemble must say): how far a server may fall behind.
    pub sync_limit_ticks: u32,
    /// `minSessionTimeout`, milliseconds, default (and -1) two ticks.
    pub session_timeout_min_ms: u32,
    /// `maxSessionTimeout`, milliseconds, default (and -1) twenty ticks. Never below
    /// [`Config::session_timeout_min_ms`].
    pub session_timeout_max_ms: u32,

    // Log and snapshots.
    /// `preAllocSize` (KiB in the file) or `quorate.logSegmentBytes` (bytes), kept in bytes, default
    /// 64 MiB, at least 1 MiB: the size at which a log segment is allocated and the next one begun.
    pub log_segment_bytes: u64,
    /// `snapCount`, log entries, default 1000000 (ZooKeeper: 100000; reading a log back costs about a
    /// microsecond an entry here, writing a snapshot much more), at least 2: a snapshot is due after so many.
    pub snapshot_entries: u64,
    /// `snapSizeLimitInKb` (KiB in the file) or `quorate.snapshotLogBytes` (bytes), kept in bytes,
    /// default 256 MiB (ZooKeeper: 4 GiB): a snapshot is due after so many bytes of log. None (0 or less in the file):
    /// only [`Config::snapshot_entries`] counts.
    pub snapshot_log_bytes: Option<u64>,
    /// `quorate.snapshotIntervalMs`, milliseconds, default a day: a snapshot is due after so long, if
    /// anything was written since the last one. None (0 or less in the file): time does not count.
    pub snapshot_interval_ms: Option<u64>,
    /// `autopurge.snapRetainCount`, default and minimum 3: snapshots kept, with the log since the
    /// oldest of them; older ones go as soon as a new one is on disk. None keeps all of them, and
    /// has to be asked for: `autopurge.purgeInterval=0`. (ZooKeeper keeps all by default.)
    pub snapshots_kept: Option<NonZeroU32>,

    // Who may do what.
    /// `4lw.commands.whitelist`, default `srvr` (and `isro` in read-only mode).
    pub four_letter_words: FourLetterWords,
    /// `DigestAuthenticationProvider.superDigest`, `user:base64(sha1(user:password))`, default
    /// none: who passes every ACL. A secret: from the file or the environment, never from argv.
    pub super_digest: Option<Secret>,
    /// `skipACL=yes`, default no: ACLs are kept but not enforced.
    pub skip_acl: bool,
    /// `quorate.linearizableReads`, default false: every read waits until a majority has confirmed that
    /// it misses nothing. Without it a server answers from what it has applied, as in ZooKeeper.
    pub linearizable_reads: bool,
    /// `enableEagerACLCheck`, default false: a server refuses what an ACL forbids before proposing it.
    pub eager_acl_check: bool,
    /// `enforceQuota`, default false: hard quota limits refuse requests.
    pub enforce_quota: bool,
    /// `readonlymode.enabled`, default false: serve reads without a quorum to clients that agree.
    pub read_only_mode_enabled: bool,

    // Kinds of znode.
    /// `extendedTypesEnabled`: TTL nodes. Default true (ZooKeeper: false, a guard for upgrades from
    /// 3.5.3 and before); an explicit false turns them off.
    pub ttl_nodes_enabled: bool,
    /// `znode.container.checkIntervalMs`, milliseconds, default 60000: how often empty container
    /// and TTL nodes are looked for.
    pub container_check_interval_ms: u32,
    /// `znode.container.maxPerMinute`, default 10000: how many of them are deleted in a minute.
    pub container_deletes_per_minute_max: u32,
    /// `znode.container.maxNeverUsedIntervalMs`, milliseconds, default none (0 in the file): a
    /// container that never had a child is deleted after so long.
    pub container_never_used_ms: Option<NonZeroU32>,
}

/// One setting from outside the file: a flag or an environment variable.
pub struct Override {
    /// The key as it would stand in `zoo.cfg`.
    pub key: &'static str,
    /// The value, to be parsed like one in the file.
    pub value: String,
    /// What the user knows it by, for messages: `--tick-ms`, `QUORATE_TICK_MS`.
    pub name: String,
}

/// The value may be a secret, so it is left out.
impl std::fmt::Debug for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Override")
            .field("key", &self.key)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads and checks everything, `file` being a `zoo.cfg`. Of two `overrides` with one key the
    /// later wins. The warnings are for the log: one line each, in the order of the file.
    pub fn load(
        file: Option<&Path>,
        overrides: &[Override],
    ) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let mut draft = Draft::default();
        if let Some(path) = file {
            draft.read_file(path)?;
        }
        for setting in overrides {
            draft.set_override(setting)?;
        }
        check::check(draft, file)
    }

    /// Whether this server is to be one of several, or at least ready to become one.
    pub fn is_ensemble(&self) -> bool {
        self.members.len() > 1 || (self.members.len() == 1 && !self.standalone_enabled)
    }

    /// This server among [`Config::members`].
    pub fn this_member(&self) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.id == self.server_id)
    }
}
