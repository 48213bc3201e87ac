//! Values one by one: each entry is parsed and bounded here, whatever it came from.
//!
//! A [`Draft`] holds what was said so far; later entries win. What needs more than one value to be
//! judged is left to `check`. Keys that ask for protection we do not have yet are refused rather
//! than ignored: a server must not be more open than its configuration says.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigWarning, Note, Place};
use super::member::{Member, Role};
use super::properties::{self, Entry};
use super::secret::Secret;
use super::value::{At, BYTES_MAX, I32_MAX};
use super::words::FourLetterWords;
use super::{Override, inert};

/// A day: twenty of them, the default for the longest session, still fit the protocol's 31 bits.
const TICK_MS_MAX: i64 = 86_400_000;
const KIB: u64 = 1024;
/// Below it, allocating segments would be most of the work.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 4 << 30;

/// Everything said so far. Where None is possible, nothing was said.
pub(super) struct Draft {
    pub(super) warnings: Vec<ConfigWarning>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) log_dir: Option<PathBuf>,
    pub(super) client_host: Option<At<String>>,
    pub(super) client_port: Option<At<u16>>,
    pub(super) client_listen_backlog: Option<NonZeroU32>,
    pub(super) client_handshake_timeout_ms: u32,
    pub(super) connections_per_address_max: Option<NonZeroU32>,
    pub(super) connections_max: Option<NonZeroU32>,
    pub(super) frame_bytes_max: Option<At<u32>>,
    pub(super) requests_outstanding_max: u32,
    pub(super) requests_per_connection_max: Option<u32>,
    pub(super) request_bytes_outstanding_max: Option<At<u64>>,
    pub(super) outbox_bytes_max: Option<At<u64>>,
    pub(super) tick_ms: Option<u32>,
    pub(super) init_limit_ticks: Option<u32>,
    pub(super) sync_limit_ticks: Option<u32>,
    pub(super) session_timeout_min_ms: Option<At<u32>>,
    pub(super) session_timeout_max_ms: Option<At<u32>>,
    pub(super) log_segment_bytes: u64,
    pub(super) snapshot_entries: u64,
    pub(super) snapshot_log_bytes: Option<u64>,
    pub(super) snapshot_interval_ms: Option<u64>,
    pub(super) snapshots_kept: NonZeroU32,
    pub(super) snapshots_purged: bool,
    pub(super) four_letter_words: Option<FourLetterWords>,
    pub(super) super_digest: Option<Secret>,
    pub(super) skip_acl: bool,
    pub(super) linearizable_reads: bool,
    pub(super) eager_acl_check: bool,
    pub(super) enforce_quota: bool,
    pub(super) read_only_mode_enabled: bool,
    pub(super) ttl_nodes_enabled: bool,
    pub(super) container_check_interval_ms: u32,
    pub(super) container_deletes_per_minute_max: u32,
    pub(super) container_never_used_ms: Option<NonZeroU32>,
    pub(super) standalone_enabled: bool,
    pub(super) quorum_listen_on_all_ips: bool,
    pub(super) rejoin: bool,
    pub(super) reconfig_enabled: bool,
    pub(super) multi_address_enabled: bool,
    pub(super) peer_role: Option<At<Role>>,
    pub(super) members: BTreeMap<u8, At<Member>>,
    /// The members are those of flags or environment, not of the file.
    pub(super) members_overridden: bool,
    pub(super) server_id: Option<At<u8>>,
    dynamic_file: Option<PathBuf>,
}

/// `autopurge.snapRetainCount`: ZooKeeper keeps at least so many.
const SNAPSHOTS_KEPT_MIN: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");

/// ZooKeeper's defaults, except where a field of `Config` says otherwise.
impl Default for Draft {
    fn default() -> Self {
        Self {
            warnings: Vec::new(),
            data_dir: None,
            log_dir: None,
            client_host: None,
            client_port: None,
            client_listen_backlog: None,
            client_handshake_timeout_ms: 10_000,
            connections_per_address_max: NonZeroU32::new(60),
            connections_max: None,
            frame_bytes_max: None,
            requests_outstanding_max: 16_384,
            requests_per_connection_max: None,
            request_bytes_outstanding_max: None,
            outbox_bytes_max: None,
            tick_ms: None,
            init_limit_ticks: None,
            sync_limit_ticks: None,
            session_timeout_min_ms: None,
            session_timeout_max_ms: None,
            log_segment_bytes: 64 << 20,
            snapshot_entries: 1_000_000,
            snapshot_log_bytes: Some(256 << 20),
            snapshot_interval_ms: Some(24 * 60 * 60 * 1000),
            snapshots_kept: SNAPSHOTS_KEPT_MIN,
            snapshots_purged: true,
            four_letter_words: None,
            super_digest: None,
            skip_acl: false,
            linearizable_reads: false,
            eager_acl_check: false,
            enforce_quota: false,
            read_only_mode_enabled: false,
            ttl_nodes_enabled: true,
            container_check_interval_ms: 60_000,
            container_deletes_per_minute_max: 10_000,
            container_never_used_ms: None,
            standalone_enabled: true,
            quorum_listen_on_all_ips: false,
            rejoin: false,
            reconfig_enabled: false,
            multi_address_enabled: false,
            peer_role: None,
            members: BTreeMap::new(),
            members_overridden: false,
            server_id: None,
            dynamic_file: None,
        }
    }
}

impl Draft {
    /// Takes over a `zoo.cfg` and the dynamic file it may point to.
    pub(super) fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let entries = self.without_duplicates(properties::read(path)?);
        let has_dynamic_file = entries.iter().any(|e| plain(&e.key) == "dynamicConfigFile");
        for entry in &entries {
            if has_dynamic_file && is_membership(plain(&entry.key)) {
                return Err(
                    entry.invalid("dynamicConfigFile is set, so this line belongs in that file")
                );
            }
            self.set(entry)?;
        }
        if let Some(dynamic) = self.dynamic_file.take() {
            for entry in &self.without_duplicates(properties::read(&dynamic)?) {
                if !is_membership(&entry.key) && entry.key != "version" {
                    return Err(entry.invalid(
                        "a dynamicConfigFile holds server.N, group.N, weight.N and version only: \
                         move the line to the main file",
                    ));
                }
                if entry.key != "version" {
                    self.set(entry)?;
                }
            }
        }
        Ok(())
    }

    /// Takes over one flag or environment variable.
    pub(super) fn set_override(&mut self, setting: &Override) -> Result<(), ConfigError> {
        self.set(&Entry {
            place: Place::Setting {
                name: setting.name.clone(),
            },
            line: 0,
            key: setting.key.to_owned(),
            value: setting.value.trim().to_owned(),
        })
    }

    /// Drops what a later line sets again, and says so. ZooKeeper, too, uses the last.
    fn without_duplicates(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let last: HashMap<String, usize> = entries
            .iter()
            .map(|entry| (plain(&entry.key).to_owned(), entry.line))
            .collect();
        let mut kept = Vec::with_capacity(last.len());
        for entry in entries {
            match last.get(plain(&entry.key)) {
                Some(&later_line) if later_line != entry.line => {
                    self.warn(&entry, Note::Duplicate { later_line });
                }
                _ => kept.push(entry),
            }
        }
        kept
    }

    fn warn(&mut self, entry: &Entry, note: Note) {
        self.warnings.push(ConfigWarning {
            place: entry.place.clone(),
            note,
        });
    }

    /// One entry. Long, but flat: one key, one arm.
    fn set(&mut self, entry: &Entry) -> Result<(), ConfigError> {
        let key = plain(&entry.key);
        match key {
            "dataDir" => self.data_dir = Some(entry.path()?),
            "dataLogDir" => self.log_dir = Some(entry.path()?),
            "dynamicConfigFile" => self.dynamic_file = Some(entry.path()?),

            "clientPort" => self.client_port = Some(entry.client_port()?),
            "clientPortAddress" => self.client_host = Some(entry.host()?),
            "clientPortListenBacklog" => self.client_listen_backlog = entry.bound()?,
            "nio.sessionlessCnxnTimeout" => {
                self.client_handshake_timeout_ms = entry.integer(1..=I32_MAX)?;
            }
            "maxClientCnxns" => self.connections_per_address_max = entry.bound()?,
            "maxCnxns" => self.connections_max = entry.bound()?,
            "jute.maxbuffer" => self.frame_bytes_max = Some(entry.at(entry.frame_bytes()?)),

            "globalOutstandingLimit" => {
                self.requests_outstanding_max = entry.integer(1..=I32_MAX)?;
            }
            "quorate.requestsPerConnectionMax" => {
                self.requests_per_connection_max = Some(entry.integer(1..=I32_MAX)?);
            }
            "quorate.requestBytesMax" => {
                self.request_bytes_outstanding_max = Some(entry.at(entry.integer(1..=BYTES_MAX)?));
            }
            "quorate.outboxBytesMax" => {
                self.outbox_bytes_max = Some(entry.at(entry.integer(1..=BYTES_MAX)?));
            }

            "tickTime" => self.tick_ms = Some(entry.integer(1..=TICK_MS_MAX)?),
            "initLimit" => self.init_limit_ticks = Some(entry.integer(1..=I32_MAX)?),
            "syncLimit" => self.sync_limit_ticks = Some(entry.integer(1..=I32_MAX)?),
            "minSessionTimeout" => self.session_timeout_min_ms = entry.session_timeout()?,
            "maxSessionTimeout" => self.session_timeout_max_ms = entry.session_timeout()?,

            "preAllocSize" => {
                let kib: u64 = entry.integer(0..=I32_MAX)?;
                self.set_log_segment_bytes(entry, kib.saturating_mul(KIB));
            }
            "quorate.logSegmentBytes" => {
                let bytes = entry.integer(0..=BYTES_MAX)?;
                self.set_log_segment_bytes(entry, bytes);
            }
            "snapCount" => self.set_snapshot_entries(entry)?,
            "snapSizeLimitInKb" => {
                let kib = entry.positive()?;
                self.snapshot_log_bytes = kib.map(|kib| kib.saturating_mul(KIB));
            }
            "quorate.snapshotLogBytes" => self.snapshot_log_bytes = entry.positive()?,
            "quorate.snapshotIntervalMs" => self.snapshot_interval_ms = entry.positive()?,
            "autopurge.snapRetainCount" => self.set_snapshots_kept(entry)?,
            "autopurge.purgeInterval" => self.snapshots_purged = entry.interval()? > 0,

            "4lw.commands.whitelist" => {
                self.four_letter_words = Some(FourLetterWords::parse(&entry.value));
            }
            "DigestAuthenticationProvider.superDigest" => {
                self.super_digest = Some(entry.super_digest()?);
            }
            "skipACL" => self.skip_acl = entry.yes_or_no()?,
            "quorate.linearizableReads" => self.linearizable_reads = entry.boolean()?,
            "enableEagerACLCheck" => self.eager_acl_check = entry.boolean()?,
            "enforceQuota" => self.enforce_quota = entry.boolean()?,
            "readonlymode.enabled" => self.read_only_mode_enabled = entry.boolean()?,

            "extendedTypesEnabled" => self.ttl_nodes_enabled = entry.boolean()?,
            "znode.container.checkIntervalMs" => {
                self.container_check_interval_ms = entry.integer(1..=I32_MAX)?;
            }
            "znode.container.maxPerMinute" => {
                self.container_deletes_per_minute_max = entry.integer(1..=I32_MAX)?;
            }
            "znode.container.maxNeverUsedIntervalMs" => {
                self.container_never_used_ms = entry.bound()?;
            }

            "standaloneEnabled" => self.standalone_enabled = entry.boolean()?,
            "quorumListenOnAllIPs" => self.quorum_listen_on_all_ips = entry.boolean()?,
            "quorate.server" => self.override_member(entry)?,
            "quorate.serverId" => {
                let id = parse_server_id(&entry.value)
                    .ok_or_else(|| entry.invalid(SERVER_ID_EXPECTED))?;
                self.server_id = Some(entry.at(id));
            }
            "quorate.rejoin" => self.rejoin = entry.boolean()?,
            "reconfigEnabled" => self.reconfig_enabled = entry.boolean()?,
            "multiAddress.enabled" => self.multi_address_enabled = entry.boolean()?,
            "peerType" => {
                let role = Role::parse(&entry.value)
                    .ok_or_else(|| entry.invalid("neither participant nor observer"))?;
                self.peer_role = Some(entry.at(role));
            }
            "electionAlg" if entry.value != "3" => {
                return Err(entry.invalid("there is only algorithm 3: remove the line"));
            }
            "electionAlg" => {}
            _ if is_membership(key) => self.set_membership(entry, key)?,
            _ => return self.refuse_or_warn(entry, key),
        }
        Ok(())
    }

    fn set_log_segment_bytes(&mut self, entry: &Entry, bytes: u64) {
        let within = bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        if within != bytes {
            let why = "bytes: log segments have 1 MiB to 4 GiB";
            self.warn(entry, Note::Adjusted { to: within, why });
        }
        self.log_segment_bytes = within;
    }

    /// ZooKeeper raises it to 2, too.
    fn set_snapshot_entries(&mut self, entry: &Entry) -> Result<(), ConfigError> {
        const MIN: u64 = 2;
        let entries: u64 = entry.integer(0..=I32_MAX)?;
        if entries < MIN {
            let why = "the lowest number of entries between snapshots";
            self.warn(entry, Note::Adjusted { to: MIN, why });
        }
        self.snapshot_entries = entries.max(MIN);
        Ok(())
    }

    /// ZooKeeper raises it to 3, too.
    fn set_snapshots_kept(&mut self, entry: &Entry) -> Result<(), ConfigError> {
        let asked: i64 = entry.integer(i64::from(i32::MIN)..=I32_MAX)?;
        if asked < i64::from(SNAPSHOTS_KEPT_MIN.get()) {
            let to = u64::from(SNAPSHOTS_KEPT_MIN.get());
            let why = "the lowest number of snapshots to keep";
            self.warn(entry, Note::Adjusted { to, why });
        }
        let kept = entry.bound()?.unwrap_or(SNAPSHOTS_KEPT_MIN);
        self.snapshots_kept = kept.max(SNAPSHOTS_KEPT_MIN);
        Ok(())
    }

    /// A server line from outside the file: `1=host:2888:3888`, with or without `server.` before it.
    /// The first one replaces all that the file has.
    fn override_member(&mut self, entry: &Entry) -> Result<(), ConfigError> {
        let (key, value) = entry
            .value
            .split_once('=')
            .ok_or_else(|| entry.invalid("expected 1=host:2888:3888;2181"))?;
        let key = key.trim();
        if !std::mem::replace(&mut self.members_overridden, true) {
            self.members.clear();
        }
        let id = key.strip_prefix("server.").unwrap_or(key);
        let entry = Entry {
            value: value.trim().to_owned(),
            ..entry.clone()
        };
        self.set_membership(&entry, &format!("server.{id}"))
    }

    fn set_membership(&mut self, entry: &Entry, key: &str) -> Result<(), ConfigError> {
        let (kind, id) = key.split_once('.').unwrap_or((key, ""));
        match kind {
            "server" => {
                let id = parse_server_id(id).ok_or_else(|| entry.invalid(SERVER_ID_EXPECTED))?;
                let member =
                    Member::parse(id, &entry.value).map_err(|reason| entry.invalid(reason))?;
                if let Some(earlier) = self.members.insert(id, entry.at(member)) {
                    return Err(entry.invalid(format!(
                        "server {id} is already defined at {}: remove one of them",
                        earlier.place
                    )));
                }
            }
            "group" => {
                let ids = entry.value.split(':');
                if !ids.into_iter().all(|id| id.trim().parse::<u8>().is_ok()) {
                    return Err(entry.invalid("expected server ids separated by colons: 1:2:3"));
                }
                self.warn(entry, Note::NoEffect(NO_GROUPS));
            }
            _ => {
                let _weight: u32 = entry.integer(0..=I32_MAX)?;
                self.warn(entry, Note::NoEffect(NO_GROUPS));
            }
        }
        Ok(())
    }

    /// The keys without a setting of ours: refused where ignoring them would be unsafe.
    fn refuse_or_warn(&mut self, entry: &Entry, key: &str) -> Result<(), ConfigError> {
        let refuse = |what, remedy| {
            Err(ConfigError::NotSupported {
                place: entry.place.clone(),
                what,
                remedy,
            })
        };
        match key {
            "forceSync" => {
                // ZooKeeper takes anything but "no" for a yes; a "false" is meant as a no.
                return match entry.value.to_ascii_lowercase().as_str() {
                    "yes" | "true" => Ok(()),
                    "no" | "false" => Err(ConfigError::UnsafeSync {
                        place: entry.place.clone(),
                    }),
                    _ => Err(entry.invalid("expected yes (no is refused)")),
                };
            }
            "secureClientPort" | "secureClientPortAddress" => {
                return refuse("a client port with TLS is", NO_TLS);
            }
            "client.portUnification" if entry.boolean()? => {
                return refuse("TLS on the client port is", NO_TLS);
            }
            "client.portUnification" => return Ok(()),
            "sslQuorum" if entry.boolean()? => {
                return refuse("TLS between servers is", "remove the line");
            }
            "sslQuorum" => return Ok(()),
            "sessionRequireClientSASLAuth"
            | "enforce.auth.enabled"
            | "quorum.auth.enableSasl"
            | "quorum.auth.learnerRequireSasl"
            | "quorum.auth.serverRequireSasl" => {
                if entry.boolean()? {
                    return refuse(
                        "required authentication is",
                        "remove the line only if whoever reaches the port may connect; ACLs with \
                         digest and ip work",
                    );
                }
                return Ok(());
            }
            "DigestAuthenticationProvider.enabled" => {
                if !entry.boolean()? {
                    return refuse("turning digest authentication off is", "remove the line");
                }
                return Ok(());
            }
            "DigestAuthenticationProvider.digestAlg" => {
                if !entry.value.eq_ignore_ascii_case("SHA1") {
                    return refuse(
                        "another digest than SHA1 is",
                        "remove the line; clients keep their ACLs only with the digest that made them",
                    );
                }
                return Ok(());
            }
            "admin.enableServer" if !entry.boolean()? => return Ok(()),
            _ => {}
        }
        let note = inert::reason(key).map_or(Note::UnknownKey, Note::NoEffect);
        self.warn(entry, note);
        Ok(())
    }
}

/// 255 in the top byte of an owner id marks a TTL node.
pub(super) const SERVER_ID_MAX: u8 = 254;

const SERVER_ID_EXPECTED: &str = "server ids are numbers from 0 to 254";

fn parse_server_id(text: &str) -> Option<u8> {
    let id = text.trim().parse().ok()?;
    (id <= SERVER_ID_MAX).then_some(id)
}

const NO_GROUPS: &str = "majorities are counted by servers, without groups and weights";
const NO_TLS: &str =
    "remove the line, and keep clientPort on a trusted network or behind a TLS proxy";

/// The key without ZooKeeper's prefix for system properties.
fn plain(key: &str) -> &str {
    key.strip_prefix("zookeeper.").unwrap_or(key)
}

fn is_membership(key: &str) -> bool {
    ["server.", "group.", "weight."]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}
