//! Values together: a [`Draft`] becomes a [`Config`] here, or an error that names both sides.
//!
//! The order of the checks is ZooKeeper's where it shows. This is also the one place that looks
//! beyond the files named to it: at `myid` in the data directory, and at the name service for
//! `clientPortAddress`.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::draft::{Draft, SERVER_ID_MAX};
use super::error::{ConfigError, ConfigWarning, Note, Place, quotable};
use super::member::{Member, Role};
use super::value::At;
use super::words::FourLetterWords;
use super::{Config, DEFAULT_CLIENT_PORT, DEFAULT_DATA_DIR, DEFAULT_FRAME_BYTES_MAX};

/// ZooKeeper's default for a file that does not say.
const TICK_MS_IN_FILE: u32 = 3000;
/// ZooKeeper's sample file, the usual first configuration.
const TICK_MS_ALONE: u32 = 2000;
/// The sample file's; only an ensemble uses them, and it has to say.
const INIT_LIMIT_TICKS: u32 = 10;
const SYNC_LIMIT_TICKS: u32 = 5;
const REQUEST_BYTES: u64 = 64 << 20;
const OUTBOX_BYTES: u64 = 16 << 20;

/// `file` is the `zoo.cfg` the draft came from, if it did: some defaults depend on it.
pub(super) fn check(
    mut draft: Draft,
    file: Option<&Path>,
) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    let data_dir = data_dir(&draft, file)?;
    let server_id = server_id(&mut draft, file, &data_dir)?;
    let client_address = client_address(&draft, file, server_id)?;
    let frame_bytes = draft.frame_bytes_max.take().unwrap_or(At {
        value: DEFAULT_FRAME_BYTES_MAX,
        place: Place::Default {
            key: "jute.maxbuffer",
        },
    });
    let request_bytes = draft.request_bytes_outstanding_max.take();
    let request_bytes_outstanding_max =
        at_least_a_frame(request_bytes, REQUEST_BYTES, &frame_bytes)?;
    let outbox_bytes_max =
        at_least_a_frame(draft.outbox_bytes_max.take(), OUTBOX_BYTES, &frame_bytes)?;
    let tick_ms = draft.tick_ms.unwrap_or(match file {
        Some(_) => TICK_MS_IN_FILE,
        None => TICK_MS_ALONE,
    });
    let (session_timeout_min_ms, session_timeout_max_ms) = session_timeouts(&mut draft, tick_ms)?;

    let config = Config {
        server_id,
        standalone_enabled: draft.standalone_enabled,
        quorum_listen_on_all_ips: draft.quorum_listen_on_all_ips,
        rejoin: draft.rejoin,
        reconfig_enabled: draft.reconfig_enabled,
        log_dir: draft.log_dir.unwrap_or_else(|| data_dir.clone()),
        data_dir,
        client_address,
        client_listen_backlog: draft.client_listen_backlog,
        client_handshake_timeout_ms: draft.client_handshake_timeout_ms,
        connections_per_address_max: draft.connections_per_address_max,
        connections_max: draft.connections_max,
        frame_bytes_max: frame_bytes.value,
        requests_outstanding_max: draft.requests_outstanding_max,
        requests_per_connection_max: draft
            .requests_per_connection_max
            .unwrap_or((draft.requests_outstanding_max / 4).max(1)),
        request_bytes_outstanding_max,
        outbox_bytes_max,
        tick_ms,
        init_limit_ticks: draft.init_limit_ticks.unwrap_or(INIT_LIMIT_TICKS),
        sync_limit_ticks: draft.sync_limit_ticks.unwrap_or(SYNC_LIMIT_TICKS),
        session_timeout_min_ms,
        session_timeout_max_ms,
        log_segment_bytes: draft.log_segment_bytes,
        snapshot_entries: draft.snapshot_entries,
        snapshot_log_bytes: draft.snapshot_log_bytes,
        snapshot_interval_ms: draft.snapshot_interval_ms,
        snapshots_kept: draft.snapshots_purged.then_some(draft.snapshots_kept),
        four_letter_words: draft.four_letter_words.unwrap_or_else(|| {
            let read_only = draft.read_only_mode_enabled;
            FourLetterWords::parse(if read_only { "srvr,isro" } else { "srvr" })
        }),
        super_digest: draft.super_digest,
        skip_acl: draft.skip_acl,
        linearizable_reads: draft.linearizable_reads,
        eager_acl_check: draft.eager_acl_check,
        enforce_quota: draft.enforce_quota,
        read_only_mode_enabled: draft.read_only_mode_enabled,
        ttl_nodes_enabled: draft.ttl_nodes_enabled,
        container_check_interval_ms: draft.container_check_interval_ms,
        container_deletes_per_minute_max: draft.container_deletes_per_minute_max,
        container_never_used_ms: draft.container_never_used_ms,
        members: draft.members.into_values().map(|at| at.value).collect(),
    };
    Ok((config, draft.warnings))
}

fn data_dir(draft: &Draft, file: Option<&Path>) -> Result<PathBuf, ConfigError> {
    match (&draft.data_dir, file) {
        (Some(data_dir), _) => Ok(data_dir.clone()),
        (None, None) => Ok(PathBuf::from(DEFAULT_DATA_DIR)),
        (None, Some(path)) => Err(ConfigError::Missing {
            path: path.to_owned(),
            key: "dataDir",
            remedy: "name the directory for snapshots and myid",
        }),
    }
}

/// Which server this is. An ensemble has to say so in `myid`; a server alone may.
fn server_id(draft: &mut Draft, file: Option<&Path>, data_dir: &Path) -> Result<u8, ConfigError> {
    check_members(draft)?;
    let path = data_dir.join("myid");
    let my_id = match &draft.server_id {
        Some(asked) => Some(asked.value),
        None => read_my_id(&path)?,
    };
    let participants = draft
        .members
        .values()
        .filter(|at| at.value.role == Role::Participant)
        .count();
    let alone = draft.members.len() <= 1 && (participants == 0 || draft.standalone_enabled);
    let id = match (my_id, draft.members.keys().next()) {
        (Some(id), _) => id,
        (None, None) => 1,
        (None, Some(lone)) if alone => *lone,
        (None, Some(_)) => {
            let reason = "is missing: an ensemble's servers each have a file of this name, which \
                          holds the N of their server.N line"
                .to_owned();
            return Err(ConfigError::MyId { path, reason });
        }
    };
    if !draft.members.is_empty() && !draft.members.contains_key(&id) {
        if !alone {
            if let Some(asked) = &draft.server_id {
                return Err(ConfigError::Invalid {
                    place: asked.place.clone(),
                    reason: format!("there is no line server.{id}: change one of them"),
                });
            }
            let reason = format!("says {id}, but there is no line server.{id}: change one of them");
            return Err(ConfigError::MyId { path, reason });
        }
        warn_about_lone_member(draft, id);
    }
    if !alone {
        warn_about_number(draft, participants);
    }
    if let (false, Some(path)) = (alone || draft.members_overridden, file) {
        let limits = [
            ("initLimit", draft.init_limit_ticks),
            ("syncLimit", draft.sync_limit_ticks),
        ];
        if let Some((key, _)) = limits.into_iter().find(|(_, value)| value.is_none()) {
            return Err(ConfigError::Missing {
                path: path.to_owned(),
                key,
                remedy: "an ensemble needs it, in ticks; initLimit=10 and syncLimit=5 are usual",
            });
        }
    }
    warn_about_role(draft, id);
    Ok(id)
}

fn check_members(draft: &Draft) -> Result<(), ConfigError> {
    let mut members = draft.members.values();
    if let Some(several) = members.find(|at| at.value.addresses.len() > 1)
        && !draft.multi_address_enabled
    {
        return Err(ConfigError::Invalid {
            place: several.place.clone(),
            reason: "several addresses need multiAddress.enabled=true".to_owned(),
        });
    }
    let votes = |at: &At<Member>| at.value.role == Role::Participant;
    if let Some(first) = draft.members.values().next()
        && !draft.members.values().any(votes)
    {
        return Err(ConfigError::Invalid {
            place: first.place.clone(),
            reason: "observers without a participant cannot elect a leader: make one of them a \
                     participant"
                .to_owned(),
        });
    }
    Ok(())
}

/// A majority of an even number is as large as of the odd one above it.
fn warn_about_number(draft: &mut Draft, voters: usize) {
    let Some(first) = draft.members.values().next() else {
        return;
    };
    if voters % 2 == 1 && voters > 1 {
        return;
    }
    let survived = voters.saturating_sub(1) / 2;
    let more = if voters == 1 { 3 } else { voters + 1 };
    let note = format!(
        "with {voters} voting servers the ensemble survives the loss of {survived}; with {more} it \
         would survive {}",
        (more - 1) / 2
    );
    draft.warnings.push(ConfigWarning {
        place: first.place.clone(),
        note: Note::Advice(note),
    });
}

/// ZooKeeper leaves a lone server line out of account, whatever its number.
fn warn_about_lone_member(draft: &mut Draft, id: u8) {
    if let Some(lone) = draft.members.values().next() {
        let (place, listed) = (lone.place.clone(), lone.value.id);
        draft.warnings.push(ConfigWarning {
            place,
            note: Note::Disagreement(format!(
                "myid says {id}, not {listed}: running as server {id}, alone"
            )),
        });
    }
}

fn warn_about_role(draft: &mut Draft, id: u8) {
    if let (Some(peer), Some(member)) = (&draft.peer_role, draft.members.get(&id))
        && peer.value != member.value.role
    {
        let note = format!(
            "the server line says otherwise, and counts ({})",
            member.place
        );
        draft.warnings.push(ConfigWarning {
            place: peer.place.clone(),
            note: Note::Disagreement(note),
        });
    }
}

/// The first line of `myid`; None if there is no such file.
fn read_my_id(path: &Path) -> Result<Option<u8>, ConfigError> {
    /// A number and a newline; more is not a `myid`.
    const BYTES_MAX: u64 = 1024;
    let fail = |reason: String| ConfigError::MyId {
        path: path.to_owned(),
        reason,
    };
    let absent = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if absent(error.kind()) => return Ok(None),
        Err(error) => return Err(fail(format!("cannot be read ({error}): check permissions"))),
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default().trim();
    match line.parse::<u8>() {
        Ok(id) if id <= SERVER_ID_MAX => Ok(Some(id)),
        _ => Err(fail(format!(
            "holds \"{}\", not a server id: write a number from 0 to 254",
            quotable(line)
        ))),
    }
}

/// Flags and environment count before the file, `clientPort` before the server line; ZooKeeper
/// refuses the two if they differ, and so do we.
fn client_address(
    draft: &Draft,
    file: Option<&Path>,
    server_id: u8,
) -> Result<SocketAddr, ConfigError> {
    let member = draft.members.get(&server_id);
    let listed = member.and_then(|at| at.value.client.as_ref());
    if let (Some(port), Some(member), Some(listed)) = (&draft.client_port, member, listed)
        && matches!(port.place, Place::Line { .. })
        && port.value != listed.port
    {
        return Err(ConfigError::Invalid {
            place: port.place.clone(),
            reason: format!(
                "port {} differs from port {} at {}: remove one of them",
                port.value, listed.port, member.place
            ),
        });
    }
    let port = match (&draft.client_port, listed, file) {
        (Some(port), _, _) => port.value,
        (None, Some(listed), _) => listed.port,
        (None, None, None) => DEFAULT_CLIENT_PORT,
        (None, None, Some(path)) => {
            return Err(ConfigError::Missing {
                path: path.to_owned(),
                key: "clientPort",
                remedy: "no client could connect; add clientPort=2181",
            });
        }
    };
    let host = match (&draft.client_host, member, listed) {
        (Some(host), _, _) => Some((host.value.as_str(), &host.place)),
        (None, Some(member), Some(listed)) => {
            listed.host.as_deref().map(|host| (host, &member.place))
        }
        _ => None,
    };
    let address = match (host, file) {
        (Some((host, place)), _) => resolve(host, place)?,
        (None, Some(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (None, None) if listed.is_some() => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        // Nobody has asked to be reachable.
        (None, None) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    Ok(SocketAddr::new(address, port))
}

/// The first address of a name, as in ZooKeeper.
fn resolve(host: &str, place: &Place) -> Result<IpAddr, ConfigError> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let fail = |why: String| ConfigError::Invalid {
        place: place.clone(),
        reason: format!(
            "\"{}\" cannot be resolved ({why}): give an IP address of this machine",
            quotable(host)
        ),
    };
    match (host, 0).to_socket_addrs() {
        Ok(mut addresses) => addresses
            .next()
            .map(|address| address.ip())
            .ok_or_else(|| fail("no address".to_owned())),
        Err(error) => Err(fail(error.to_string())),
    }
}

/// The default grows with the frame; what was asked for must hold one.
fn at_least_a_frame(
    asked: Option<At<u64>>,
    default: u64,
    frame: &At<u32>,
) -> Result<u64, ConfigError> {
    let frame_bytes = u64::from(frame.value);
    match asked {
        None => Ok(default.max(frame_bytes * 4)),
        Some(asked) if asked.value >= frame_bytes => Ok(asked.value),
        Some(asked) => Err(ConfigError::BelowFrame {
            place: asked.place,
            bytes: asked.value,
            frame_bytes: frame.value,
            frame_place: frame.place.clone(),
        }),
    }
}

/// The lowest and the highest, in this order.
fn session_timeouts(draft: &mut Draft, tick_ms: u32) -> Result<(u32, u32), ConfigError> {
    let default = |key, ticks| At {
        value: tick_ms * ticks,
        place: Place::Default { key },
    };
    let min = draft.session_timeout_min_ms.take();
    let min = min.unwrap_or_else(|| default("minSessionTimeout", 2));
    let max = draft.session_timeout_max_ms.take();
    let max = max.unwrap_or_else(|| default("maxSessionTimeout", 20));
    if min.value > max.value {
        return Err(ConfigError::SessionTimeouts {
            min_ms: min.value,
            min_place: min.place,
            max_ms: max.value,
            max_place: max.place,
        });
    }
    Ok((min.value, max.value))
}
