//! `server.N` lines: who belongs to an ensemble, and where.
//!
//! Form: `host:quorumPort:electionPort[:role]`, several such addresses separated by `|`, then
//! optionally `;[clientHost:]clientPort`. An IPv6 address stands in brackets. Names are kept as
//! written: a peer may not be in the DNS yet when this server starts.

use std::fmt;

/// What a server may do in votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Votes.
    #[default]
    Participant,
    /// Follows without a vote.
    Observer,
}

impl Role {
    pub(super) fn parse(text: &str) -> Option<Self> {
        // ZooKeeper compares roles without regard to case.
        if text.eq_ignore_ascii_case("participant") {
            Some(Self::Participant)
        } else if text.eq_ignore_ascii_case("observer") {
            Some(Self::Observer)
        } else {
            None
        }
    }
}

/// One way to reach a member from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    pub host: String,
    pub quorum_port: u16,
    pub election_port: u16,
}

/// Where a member serves clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// None: the line gives a port only, which means every address.
    pub host: Option<String>,
    pub port: u16,
}

/// One `server.N` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u8,
    pub role: Role,
    /// Never empty; more than one with `multiAddress.enabled` only.
    pub addresses: Vec<PeerAddress>,
    pub client: Option<ClientAddress>,
}

const FORM: &str = "expected host:quorumPort:electionPort[:role][;[clientHost:]clientPort], as in \
                    zk1.example.com:2888:3888;2181";

impl Member {
    pub fn parse(id: u8, text: &str) -> Result<Self, String> {
        let (peers, client) = match text.split_once(';') {
            Some((peers, client)) => (peers, Some(ClientAddress::parse(client.trim())?)),
            None => (text, None),
        };
        let mut role = None;
        let mut addresses = Vec::new();
        for address in peers.split('|') {
            let (address, its_role) = PeerAddress::parse(address.trim())?;
            if role.is_some_and(|role| role != its_role) {
                return Err("all addresses of a server have the same role".to_owned());
            }
            role = Some(its_role);
            addresses.push(address);
        }
        Ok(Self {
            id,
            role: role.unwrap_or_default(),
            addresses,
            client,
        })
    }
}

impl PeerAddress {
    fn parse(text: &str) -> Result<(Self, Role), String> {
        let (host, rest) = split_host(text)?;
        let rest = rest.ok_or(FORM)?;
        let mut parts = rest.split(':');
        let (Some(quorum), Some(election)) = (parts.next(), parts.next()) else {
            return Err(FORM.to_owned());
        };
        let role = match parts.next() {
            None => Role::default(),
            Some(role) => {
                Role::parse(role.trim()).ok_or("the role is neither participant nor observer")?
            }
        };
        if parts.next().is_some() {
            return Err(FORM.to_owned());
        }
        let address = Self {
            host,
            quorum_port: port(quorum)?,
            election_port: port(election)?,
        };
        Ok((address, role))
    }
}

impl ClientAddress {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(':') {
            return Ok(Self {
                host: None,
                port: port(text)?,
            });
        }
        let (host, rest) = split_host(text)?;
        Ok(Self {
            host: Some(host),
            port: port(rest.ok_or(FORM)?)?,
        })
    }
}

/// Splits off the host: up to the first colon, or between brackets.
fn split_host(text: &str) -> Result<(String, Option<&str>), String> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed
                .split_once(']')
                .ok_or("a bracket is not closed: [::1]:2888:3888")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("the brackets hold no IPv6 address".to_owned());
            }
            (host, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, rest)) => (host, Some(rest)),
            None => (text, None),
        },
    };
    let host = host.trim();
    // A comma separates members in a reconfig, and no name has either: the line could not be sent back.
    let is_foreign = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '=');
    if host.is_empty() || host.chars().any(is_foreign) {
        return Err(FORM.to_owned());
    }
    Ok((host.to_owned(), rest))
}

fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("{FORM}; a port is a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// As ZooKeeper writes it in `/zookeeper/config` and in the answer to `conf`.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Participant => "participant",
            Role::Observer => "observer",
        };
        write!(f, "server.{}=", self.id)?;
        for (index, address) in self.addresses.iter().enumerate() {
            let separator = if index == 0 { "" } else { "|" };
            let PeerAddress {
                host,
                quorum_port,
                election_port,
            } = address;
            write!(
                f,
                "{separator}{}:{quorum_port}:{election_port}:{role}",
                Bracketed(host)
            )?;
        }
        if let Some(client) = &self.client {
            write!(f, ";{client}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("0.0.0.0");
        write!(f, "{}:{}", Bracketed(host), self.port)
    }
}

/// A host with the brackets that an IPv6 address needs before a port.
struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') {
            write!(f, "[{}]", self.0)
        } else {
            f.write_str(self.0)
        }
    }
}
