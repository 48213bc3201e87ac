//! What a reconfig asks for, judged before anything is done.
//!
//! Forms, order of checks and error codes are those of ZooKeeper's `PrepRequestProcessor`. Knows
//! memberships and text; decides nothing that depends on who is alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_protocol::{ErrorCode, Id, request};

use super::change::Asker;
use super::is_member;
use crate::config::Member;
use crate::consensus::types::{Membership, PeerNode};
use crate::peer_port::wire;

/// ZooKeeper's limit: 255 is taken by the owner ids of TTL znodes.
const SERVER_ID_MAX: i64 = 254;

/// A client's wish, as it came in: see [`quorate_protocol::request::Reconfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub joining: Option<String>,
    pub leaving: Option<String>,
    pub new_members: Option<String>,
    /// The configuration it is meant for; -1 for any.
    pub version: i64,
}

impl From<request::Reconfig> for Wish {
    fn from(request: request::Reconfig) -> Self {
        Self {
            joining: request.joining,
            leaving: request.leaving,
            new_members: request.new_members,
            version: request.config_version,
        }
    }
}

impl Wish {
    /// A wish that came from another server, whose it is, and how long it may take.
    pub fn from_wire(asked: wire::Reconfig) -> (Self, Asker, Duration) {
        let wish = Self {
            joining: asked.joining,
            leaving: asked.leaving,
            new_members: asked.members,
            version: asked.version,
        };
        let identities = asked.identities.into_iter();
        let asker = Asker {
            identities: identities.map(|(scheme, id)| Id { scheme, id }).collect(),
            skip_acl: asked.skip_acl,
        };
        (wish, asker, Duration::from_millis(asked.patience_ms.into()))
    }

    /// The same, to be sent to the leader.
    pub fn to_wire(&self, asker: &Asker, patience: Duration) -> wire::Reconfig {
        let pair = |id: &Id| (id.scheme.clone(), id.id.clone());
        wire::Reconfig {
            joining: self.joining.clone(),
            leaving: self.leaving.clone(),
            members: self.new_members.clone(),
            version: self.version,
            identities: asker.identities.iter().map(pair).collect(),
            skip_acl: asker.skip_acl,
            patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

/// The ensemble as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub voters: BTreeSet<u64>,
    /// All members, observers among them.
    pub members: BTreeMap<u64, PeerNode>,
}

/// Why the members stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("reconfigEnabled is not set")]
    Disabled,
    #[error("this server is no ensemble: it has no server.N lines, or one and standaloneEnabled")]
    Standalone,
    #[error("another change of the members is under way: ask again when it has ended")]
    InProgress,
    #[error("the configuration has version {actual:x}, not {expected:x}: read it again")]
    BadVersion { expected: i64, actual: i64 },
    #[error("{0}")]
    BadArguments(String),
    /// ZooKeeper fails to decode these.
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    NoQuorum(String),
    #[error("no permission to write /zookeeper/config: only the superuser has it by default")]
    NoAuth,
    /// What the leader said to another server.
    #[error("{reason}")]
    ByLeader { code: i32, reason: String },
    /// Nothing was done, and another server may be able to.
    #[error("this server does not lead")]
    NotLeader,
    /// It may come about or not.
    #[error("the leader was lost, or a majority, while the members were being changed")]
    Unknown,
}

impl Refusal {
    /// What the client is told. `None`: nobody can say what became of it, so the connection ends.
    pub fn code(&self) -> Option<ErrorCode> {
        Some(match self {
            Self::Disabled => ErrorCode::ReconfigDisabled,
            Self::Standalone => ErrorCode::Unimplemented,
            Self::InProgress => ErrorCode::ReconfigInProgress,
            Self::BadVersion { .. } => ErrorCode::BadVersion,
            Self::BadArguments(_) => ErrorCode::BadArguments,
            Self::Malformed(_) => ErrorCode::MarshallingError,
            Self::NoQuorum(_) => ErrorCode::NewConfigNoQuorum,
            Self::NoAuth => ErrorCode::NoAuth,
            Self::ByLeader { code, .. } => return ErrorCode::from_code(*code),
            Self::NotLeader | Self::Unknown => return None,
        })
    }
}

/// The ensemble that `wish` makes of the one there is.
///
/// # Errors
///
/// [`Refusal::BadArguments`] and [`Refusal::Malformed`].
pub fn plan(now: &Membership, wish: &Wish, voters_min: usize) -> Result<Plan, Refusal> {
    let listed: BTreeMap<u64, PeerNode> = now
        .nodes()
        .filter(|(_, node)| is_member(node))
        .map(|(id, node)| (*id, node.clone()))
        .collect();
    let asked = match &wish.new_members {
        Some(text) => replace(text)?,
        None => increment(&listed, wish)?,
    };
    let members: BTreeMap<u64, PeerNode> = asked
        .into_iter()
        .map(|(id, asked)| match listed.get(&id) {
            // It stays what it is, to the letter: nothing is to be changed about it.
            Some(known) if known.line == asked.line => (id, known.clone()),
            _ => (id, asked),
        })
        .collect();
    let voters: BTreeSet<u64> = members
        .iter()
        .filter(|(_, node)| !node.observer)
        .map(|(id, _)| *id)
        .collect();
    if voters.len() < voters_min {
        return Err(Refusal::BadArguments(format!(
            "{} participants would be left, and {voters_min} are the least",
            voters.len()
        )));
    }
    Ok(Plan { voters, members })
}

/// All members there are to be.
fn replace(text: &str) -> Result<BTreeMap<u64, PeerNode>, Refusal> {
    let mut members = BTreeMap::new();
    let lines = text.split([',', '\n', '\r']).map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        match key.trim().strip_prefix("server.") {
            Some(id) => add(&mut members, parse_id(id)?, value)?,
            // The text of /zookeeper/config ends with its version; a new one gets its own.
            None if key.trim() == "version" => {}
            None => {
                return Err(Refusal::BadArguments(format!(
                    "\"{key}\" is no server.N: groups and weights are not served"
                )));
            }
        }
    }
    Ok(members)
}

/// The members there are, some removed and some added or changed.
fn increment(
    listed: &BTreeMap<u64, PeerNode>,
    wish: &Wish,
) -> Result<BTreeMap<u64, PeerNode>, Refusal> {
    let mut members = listed.clone();
    for leaving in items(wish.leaving.as_deref()) {
        members.remove(&parse_id(leaving)?);
    }
    for joining in items(wish.joining.as_deref()) {
        let (key, line) = joining
            .split_once('=')
            .filter(|(_, line)| !line.contains('='))
            .ok_or_else(|| {
                Refusal::BadArguments(format!("\"{joining}\" is not server.N=address"))
            })?;
        // ZooKeeper takes what follows the last dot.
        let id = parse_id(key.rsplit('.').next().unwrap_or(key))?;
        if !line.contains(';') {
            return Err(Refusal::BadArguments(format!(
                "server.{id} has no client port: add ;2181"
            )));
        }
        add(&mut members, id, line)?;
    }
    Ok(members)
}

fn items(text: Option<&str>) -> impl Iterator<Item = &str> {
    let items = text.unwrap_or_default().split(',').map(str::trim);
    items.filter(|item| !item.is_empty())
}

/// Java fails to read a number before anybody looks at the request, and answers as to bytes that do
/// not decode.
fn parse_id(text: &str) -> Result<u64, Refusal> {
    let id: i64 = text
        .trim()
        .parse()
        .map_err(|_| Refusal::Malformed(format!("\"{}\" is no server id", text.trim())))?;
    match u64::try_from(id) {
        Ok(number) if id <= SERVER_ID_MAX => Ok(number),
        _ => Err(Refusal::BadArguments(format!(
            "server id {id} is not from 0 to {SERVER_ID_MAX}"
        ))),
    }
}

/// Adds a server, or changes one, unless another has one of its addresses.
fn add(members: &mut BTreeMap<u64, PeerNode>, id: u64, line: &str) -> Result<(), Refusal> {
    let number = u8::try_from(id).map_err(|error| Refusal::BadArguments(error.to_string()))?;
    let parse = |id: u8, line: &str| {
        Member::parse(id, line.trim())
            .map_err(|reason| Refusal::BadArguments(format!("server.{id}: {reason}")))
    };
    let member = parse(number, line)?;
    let own = endpoints(&member);
    for (other_id, other) in members.iter().filter(|(other_id, _)| **other_id != id) {
        let other = parse(u8::try_from(*other_id).unwrap_or_default(), &other.line)?;
        if let Some((host, port)) = endpoints(&other).iter().find(|taken| own.contains(taken)) {
            return Err(Refusal::BadArguments(format!(
                "server.{id} and server.{other_id} both have {host}:{port}"
            )));
        }
    }
    members.insert(id, PeerNode::of(&member));
    Ok(())
}

/// All it listens on, but for what means every address.
fn endpoints(member: &Member) -> Vec<(String, u16)> {
    let peers = member.addresses.iter().flat_map(|peer| {
        [peer.quorum_port, peer.election_port].map(|port| (peer.host.clone(), port))
    });
    let client = member.client.iter().filter_map(|client| {
        let host = client.host.as_deref()?;
        Some((host.to_owned(), client.port))
    });
    peers
        .chain(client)
        .filter(|(host, _)| !matches!(host.as_str(), "0.0.0.0" | "::"))
        .collect()
}
