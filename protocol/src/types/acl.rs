//! Who may do what to a znode: permissions, identities and the entries that join them.
//!
//! [`AclEntry`] is what a client sends: any numbers, and strings that may be null. [`Acl`] is what a
//! znode has: entries whose scheme is known and whose id that scheme accepts.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

/// A set of permission bits. ZooKeeper stores and returns any value as it came, so this does too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Perms(pub i32);

impl Perms {
    /// Read data, children and ACL.
    pub const READ: Self = Self(1);
    /// Set data.
    pub const WRITE: Self = Self(2);
    /// Create children.
    pub const CREATE: Self = Self(4);
    /// Delete children. What is to be deleted has no say.
    pub const DELETE: Self = Self(8);
    /// Set the ACL.
    pub const ADMIN: Self = Self(16);
    /// All of the above.
    pub const ALL: Self = Self(31);

    /// Whether they share a bit.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Somebody, by a scheme of authentication: what a connection has proved, or what an ACL names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id {
    /// How the identity is known: `world`, `ip`, `digest`, ...
    pub scheme: String,
    /// Who it is, in the scheme's own notation.
    pub id: String,
}

impl Id {
    /// As given; nothing is checked.
    pub fn new(scheme: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            scheme: scheme.into(),
            id: id.into(),
        }
    }

    /// Who connects from `address`.
    pub fn ip(address: IpAddr) -> Self {
        Self::new("ip", address.to_canonical().to_string())
    }

    /// Who presented `credentials`, `user:password`.
    pub fn digest(credentials: &[u8]) -> Self {
        Self::new("digest", digest_id(credentials))
    }

    /// Who may do everything.
    pub fn superuser() -> Self {
        Self::new("super", "")
    }

    /// Whether no ACL applies to this identity.
    pub fn is_superuser(&self) -> bool {
        self.scheme == "super"
    }

    /// Whether the connection proved this, rather than merely having it: what the scheme `auth`
    /// stands for in an ACL.
    pub fn is_authenticated(&self) -> bool {
        matches!(self.scheme.as_str(), "digest" | "sasl" | "x509")
    }
}

/// Shows a digest's user and not its hash: a hash can be attacked off line.
impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme, shown(&self.scheme, &self.id))
    }
}

/// What may be shown of an id.
fn shown<'a>(scheme: &str, id: &'a str) -> &'a str {
    match scheme {
        "digest" => id.split(':').next().unwrap_or_default(),
        _ => id,
    }
}

/// How many entries an ACL may have, as sent and as the znode will have it. ZooKeeper takes what fits a
/// frame, some 45,000. Every check of a permission walks the list on every server, in a multi once for
/// each operation: a list as long as that would stop them all for minutes.
pub const ACL_ENTRIES_MAX: usize = 1_000;

/// An ACL entry as a client sends it. Some clients leave the id null with the scheme `auth`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclEntry {
    /// As sent: any number.
    pub perms: Perms,
    /// `None` is null, which no znode's ACL can have.
    pub scheme: Option<String>,
    /// `None` is null, which the scheme `auth` does not mind.
    pub id: Option<String>,
}

/// As [`Id`] shows it.
impl fmt::Debug for AclEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_deref().unwrap_or("null");
        let id = self.id.as_deref().unwrap_or("null");
        write!(f, "{scheme}:{} {:?}", shown(scheme, id), self.perms)
    }
}

impl AclEntry {
    /// An entry as most clients send it, with nothing null.
    pub fn new(perms: Perms, scheme: &str, id: &str) -> Self {
        Self {
            perms,
            scheme: Some(scheme.to_owned()),
            id: Some(id.to_owned()),
        }
    }

    /// Everything for everyone, which is what most clients send.
    pub fn open() -> Self {
        Self::new(Perms::ALL, "world", "anyone")
    }
}

impl From<Acl> for AclEntry {
    fn from(acl: Acl) -> Self {
        Self {
            perms: acl.perms,
            scheme: Some(acl.id.scheme),
            id: Some(acl.id.id),
        }
    }
}

/// One entry of a znode's ACL: its scheme is known and its id is one the scheme accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Acl {
    /// As sent: any number.
    pub perms: Perms,
    id: Id,
}

impl PartialOrd for Perms {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Perms {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// An ACL that no znode can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAcl {
    /// A znode's ACL has at least one entry.
    #[error("the list is empty")]
    Empty,
    /// More than [`ACL_ENTRIES_MAX`].
    #[error("the list has more than {ACL_ENTRIES_MAX} entries")]
    TooLong,
    /// Not `world`, `ip`, `digest`, `x509` or `auth`, or null.
    #[error("a scheme is unknown")]
    UnknownScheme,
    /// The scheme does not accept the id.
    #[error("an id is not one its scheme accepts")]
    BadId,
    /// `auth` stands for proved identities, and the connection has none.
    #[error("the scheme auth needs a connection that has authenticated")]
    NotAuthenticated,
}

impl Acl {
    /// An entry of a scheme that stands for itself (not `auth`).
    ///
    /// # Errors
    ///
    /// [`InvalidAcl::UnknownScheme`] or [`InvalidAcl::BadId`].
    pub fn new(perms: Perms, scheme: &str, id: &str) -> Result<Self, InvalidAcl> {
        let accepted = match scheme {
            "world" => id == "anyone",
            "digest" => is_digest_id(id),
            "ip" => parse_ip_id(id).is_some(),
            "x509" => is_distinguished_name(id),
            _ => return Err(InvalidAcl::UnknownScheme),
        };
        if !accepted {
            return Err(InvalidAcl::BadId);
        }
        Ok(Self {
            perms,
            id: Id::new(scheme, id),
        })
    }

    /// `perms` for everyone.
    pub fn world(perms: Perms) -> Self {
        Self {
            perms,
            id: Id::new("world", "anyone"),
        }
    }

    /// What a client asked for, as the znode will have it: exact duplicates removed, `auth`
    /// replaced by what the connection has proved, order kept.
    ///
    /// # Errors
    ///
    /// [`InvalidAcl`], which a server answers with `InvalidAcl` whatever the reason.
    pub fn resolve(entries: &[AclEntry], identities: &[Id]) -> Result<Vec<Self>, InvalidAcl> {
        /// Up to here, comparing with each costs less than a tree.
        const FEW: usize = 8;
        if entries.is_empty() {
            return Err(InvalidAcl::Empty);
        }
        if entries.len() > ACL_ENTRIES_MAX {
            return Err(InvalidAcl::TooLong);
        }
        let mut resolved: Vec<Self> = Vec::with_capacity(entries.len());
        let mut known = BTreeSet::new();
        let mut push = |acl: Self| {
            // Most lists have an entry or two, and want no tree.
            let is_new = match resolved.len() {
                0..FEW => !resolved.contains(&acl),
                FEW => {
                    known.extend(resolved.iter().cloned());
                    known.insert(acl.clone())
                }
                _ => known.insert(acl.clone()),
            };
            if is_new && resolved.len() >= ACL_ENTRIES_MAX {
                return Err(InvalidAcl::TooLong);
            }
            if is_new {
                resolved.push(acl);
            }
            Ok(())
        };
        for entry in entries {
            match entry.scheme.as_deref() {
                Some("auth") => {
                    let mut proved = identities
                        .iter()
                        .filter(|id| id.is_authenticated())
                        .peekable();
                    if proved.peek().is_none() {
                        return Err(InvalidAcl::NotAuthenticated);
                    }
                    proved.try_for_each(|id| {
                        push(Self {
                            perms: entry.perms,
                            id: id.clone(),
                        })
                    })?;
                }
                Some(scheme) => {
                    let id = entry.id.as_deref().ok_or(InvalidAcl::BadId)?;
                    push(Self::new(entry.perms, scheme, id)?)?;
                }
                None => return Err(InvalidAcl::UnknownScheme),
            }
        }
        Ok(resolved)
    }

    /// Who has the permissions.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Whether this entry gives somebody with `identities` one of the permissions `wanted`.
    pub fn grants(&self, wanted: Perms, identities: &[Id]) -> bool {
        self.perms.intersects(wanted)
            && match self.id.scheme.as_str() {
                "world" => true,
                "ip" => identities
                    .iter()
                    .any(|id| id.scheme == "ip" && ip_matches(&self.id.id, &id.id)),
                _ => identities.contains(&self.id),
            }
    }
}

/// `user:BASE64(SHA1(credentials))`, where user is what stands before the first colon.
pub fn digest_id(credentials: &[u8]) -> String {
    let user = credentials
        .split(|byte| *byte == b':')
        .next()
        .unwrap_or_default();
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha1::digest(credentials));
    format!("{}:{hash}", String::from_utf8_lossy(user))
}

/// What Java's `split(":")` makes two parts of: text behind the first colon, and no second colon
/// but at the very end.
fn is_digest_id(id: &str) -> bool {
    let mut parts = id.trim_end_matches(':').split(':');
    parts.next().is_some()
        && parts.next().is_some_and(|hash| !hash.is_empty())
        && parts.next().is_none()
}

/// The address and the number of leading bits that count.
fn parse_ip_id(id: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match id.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (id, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= all)?,
        None => all,
    };
    Some((address, bits))
}

/// Whether `address` lies in the network that an ACL id of the scheme `ip` names.
pub fn ip_matches(acl_id: &str, address: &str) -> bool {
    let (Some((network, bits)), Ok(address)) = (parse_ip_id(acl_id), address.parse::<IpAddr>())
    else {
        return false;
    };
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let difference = u32::from(a) ^ u32::from(b);
            difference.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let difference = u128::from(a) ^ u128::from(b);
            difference.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// A loose reading of RFC 2253: comma-separated `attribute=value` pairs. It keeps out what can never
/// match a certificate's subject; equality decides the rest.
fn is_distinguished_name(id: &str) -> bool {
    !id.is_empty()
        && split_unescaped(id).all(|part| {
            part.split_once('=').is_some_and(|(attribute, _)| {
                let attribute = attribute.trim();
                !attribute.is_empty()
                    && attribute
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
            })
        })
}

/// Splits at commas and pluses that no backslash escapes.
fn split_unescaped(name: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    name.split(move |c| {
        let splits = matches!(c, ',' | '+') && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
}
