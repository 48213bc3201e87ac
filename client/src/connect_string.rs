//! Connection strings: `zk1:2181,zk2,[::1]:2182/app/x`.
//!
//! The form is that of ZooKeeper's own clients. What those would guess at (an IPv6 address without
//! brackets, a name left out between two commas) is refused here, with the part and the reason,
//! before anything is resolved. Whether a name exists is not known here.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use quorate_protocol::types::PathError;

use crate::chroot::Chroot;

/// ZooKeeper's registered client port.
const DEFAULT_PORT: u16 = 2181;

/// What the domain name system allows for a whole name (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 255;

/// Where an ensemble is, and which part of its tree to see.
///
/// ```
/// use quorate_client::ConnectString;
///
/// let servers: ConnectString = "zk1:2181, zk2, [::1]:2182/app/x".parse()?;
/// assert_eq!(servers.hosts().len(), 3);
/// assert_eq!(servers.hosts()[1].port(), 2181);
/// assert_eq!(servers.chroot().as_str(), "/app/x");
/// assert_eq!(servers.to_string(), "zk1:2181,zk2:2181,[::1]:2182/app/x");
///
/// let error = "zk1:2181,zk2:port".parse::<ConnectString>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "host 2, \"zk2\", has \"port\" as its port: it must be a number from 1 to 65535"
/// );
/// # Ok::<(), quorate_client::ConnectStringError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectString {
    /// At least one; none twice.
    hosts: Vec<Host>,
    chroot: Chroot,
}

/// A server to connect to, by name or address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// In small letters; an IPv6 address stands here without its brackets.
    name: String,
    /// Never 0.
    port: u16,
}

/// Which part of a connection string is wrong, and why.
///
/// Hosts are counted from 1. No text shows what may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectStringError {
    /// There is nothing in front of the chroot.
    #[error("no host is given: write at least one, as in zk1:2181,zk2:2181/app")]
    NoHosts,
    /// It begins like a URL.
    #[error("\"{scheme}://\" is not part of a connection string: begin with the first host")]
    Scheme {
        /// What stood in front of `://`.
        scheme: String,
    },
    /// A host has something and an `@` in front.
    #[error(
        "host {position} has user information in front of an @: leave it out of the connection \
         string and authenticate the client instead"
    )]
    UserInfo {
        /// Which of the hosts.
        position: usize,
    },
    /// Nothing stands between two commas, or in front of a port.
    #[error("host {position} is empty: give it a name, or remove the comma or colon too many")]
    EmptyHost {
        /// Which of the hosts.
        position: usize,
    },
    /// The port is no number, 0, or above 65535.
    #[error(
        "host {position}, {host:?}, has {port:?} as its port: it must be a number from 1 to 65535"
    )]
    Port {
        /// Which of the hosts.
        position: usize,
        /// Its name or address.
        host: String,
        /// What stood for the port.
        port: String,
    },
    /// One of `[` and `]` is missing, or something else than a port follows the address.
    #[error(
        "host {position}, {text:?}, has unbalanced or misplaced brackets: write an IPv6 address \
         as in [::1]:2181"
    )]
    Brackets {
        /// Which of the hosts.
        position: usize,
        /// The whole host.
        text: String,
    },
    /// There is something else than an IPv6 address in brackets.
    #[error("host {position} has {text:?} in its brackets, which is no IPv6 address")]
    Ipv6 {
        /// Which of the hosts.
        position: usize,
        /// What stands in the brackets.
        text: String,
    },
    /// Several colons and no brackets: where the address ends and the port begins is a guess.
    #[error(
        "host {position}, {text:?}, has several colons: put an IPv6 address in brackets, as in \
         [::1]:2181"
    )]
    BareIpv6 {
        /// Which of the hosts.
        position: usize,
        /// The whole host.
        text: String,
    },
    /// Something other than a comma seems to separate two hosts.
    #[error("host {position}, {text:?}, has {separator:?} in it: separate hosts by commas")]
    Separator {
        /// Which of the hosts.
        position: usize,
        /// The whole host.
        text: String,
        /// The white space or semicolon.
        separator: char,
    },
    /// No name of a host has such a character.
    #[error(
        "host {position}, {host:?}, has the character {character:?} in its name: letters of ASCII, \
         digits, '-', '_' and '.' may be there (write other scripts as xn--...)"
    )]
    Character {
        /// Which of the hosts.
        position: usize,
        /// Its name.
        host: String,
        /// The first one that may not be there.
        character: char,
    },
    /// A name without a letter or digit, such as `.`.
    #[error("host {position}, {host:?}, is no name: it has neither a letter nor a digit")]
    NotAName {
        /// Which of the hosts.
        position: usize,
        /// What stood for its name.
        host: String,
    },
    /// No name of a host is that long.
    #[error("the name of host {position} is {length} bytes long: no name has more than 255")]
    LongName {
        /// Which of the hosts.
        position: usize,
        /// Its bytes.
        length: usize,
    },
    /// What follows the hosts is no path.
    #[error("the chroot {chroot:?} is no valid path: {source}")]
    Chroot {
        /// From the first slash on.
        chroot: String,
        /// The rule that is broken.
        source: PathError,
    },
}

impl ConnectString {
    /// The servers, in the order given; at least one, and none twice.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// What part of the tree to see.
    pub fn chroot(&self) -> &Chroot {
        &self.chroot
    }

    /// The same servers, and another part of their tree.
    #[must_use]
    pub fn with_chroot(mut self, chroot: Chroot) -> Self {
        self.chroot = chroot;
        self
    }
}

impl FromStr for ConnectString {
    type Err = ConnectStringError;

    fn from_str(text: &str) -> Result<Self, ConnectStringError> {
        // At the end only of the hosts: a path may end with a space.
        let text = text.trim_start();
        if let Some((scheme, _)) = text.split_once("://")
            && !scheme.contains(['/', ',', '@'])
        {
            return Err(ConnectStringError::Scheme {
                scheme: scheme.to_owned(),
            });
        }
        let (listed, chroot) = text.split_at(text.find('/').unwrap_or(text.len()));
        if listed.trim().is_empty() {
            return Err(ConnectStringError::NoHosts);
        }
        let mut hosts: Vec<Host> = Vec::new();
        for (index, host) in listed.split(',').enumerate() {
            let host = Host::parse(host.trim(), index + 1)?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        let chroot = Chroot::parse(chroot).map_err(|source| ConnectStringError::Chroot {
            chroot: chroot.to_owned(),
            source,
        })?;
        Ok(Self { hosts, chroot })
    }
}

impl fmt::Display for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.hosts.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{host}")?;
        }
        write!(f, "{}", self.chroot)
    }
}

impl Host {
    /// The name to resolve, or an address; an IPv6 address without brackets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port of the server, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn parse(text: &str, position: usize) -> Result<Self, ConnectStringError> {
        if text.contains('@') {
            return Err(ConnectStringError::UserInfo { position });
        }
        if let Some(separator) = text.chars().find(|c| c.is_whitespace() || *c == ';') {
            return Err(ConnectStringError::Separator {
                position,
                text: text.to_owned(),
                separator,
            });
        }
        let (name, port) = if text.contains(['[', ']']) {
            let (address, port) = split_brackets(text, position)?;
            (parse_ipv6(address, position)?, port)
        } else {
            let (name, port) = split_name(text, position)?;
            (parse_name(name, position)?, port)
        };
        let port = match port {
            Some(port) => parse_port(port, &name, position)?,
            None => DEFAULT_PORT,
        };
        Ok(Self { name, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// What is in the brackets, and the port behind them.
fn split_brackets(text: &str, position: usize) -> Result<(&str, Option<&str>), ConnectStringError> {
    let split = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .and_then(|(address, behind)| match behind {
            "" => Some((address, None)),
            _ => Some((address, Some(behind.strip_prefix(':')?))),
        });
    match split {
        Some((address, port))
            if !address.contains('[') && !port.unwrap_or("").contains(['[', ']']) =>
        {
            Ok((address, port))
        }
        _ => Err(ConnectStringError::Brackets {
            position,
            text: text.to_owned(),
        }),
    }
}

fn split_name(text: &str, position: usize) -> Result<(&str, Option<&str>), ConnectStringError> {
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err(ConnectStringError::BareIpv6 {
            position,
            text: text.to_owned(),
        }),
        Some((name, port)) => Ok((name, Some(port))),
        None => Ok((text, None)),
    }
}

/// In the one form that an address is written in, so that the same one is recognised.
fn parse_ipv6(text: &str, position: usize) -> Result<String, ConnectStringError> {
    let no_address = || ConnectStringError::Ipv6 {
        position,
        text: text.to_owned(),
    };
    // A link-local address needs the interface it is on: fe80::1%eth0 (RFC 4007, section 11).
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| no_address())?;
    match zone {
        None => Ok(address.to_string()),
        Some(zone)
            if !zone.is_empty()
                && zone
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) =>
        {
            Ok(format!("{address}%{zone}"))
        }
        Some(_) => Err(no_address()),
    }
}

/// In small letters: names differ in nothing else.
fn parse_name(name: &str, position: usize) -> Result<String, ConnectStringError> {
    if name.is_empty() {
        return Err(ConnectStringError::EmptyHost { position });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(ConnectStringError::LongName {
            position,
            length: name.len(),
        });
    }
    let host = name.to_ascii_lowercase();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(character) = host.chars().find(|c| !is_allowed(*c)) {
        return Err(ConnectStringError::Character {
            position,
            host,
            character,
        });
    }
    if !host.contains(|c: char| c.is_ascii_alphanumeric()) {
        return Err(ConnectStringError::NotAName { position, host });
    }
    Ok(host)
}

fn parse_port(text: &str, host: &str, position: usize) -> Result<u16, ConnectStringError> {
    // `parse` alone would take "+2181" as well.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(ConnectStringError::Port {
            position,
            host: host.to_owned(),
            port: text.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> ConnectString {
        text.parse()
            .unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn refused(text: &str) -> ConnectStringError {
        match text.parse::<ConnectString>() {
            Ok(parsed) => panic!("{text:?} was taken for {parsed:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn hosts_ports_and_the_chroot_are_told_apart() {
        let parsed = parse("zk1:2181,zk2,[::1]:2182,[fe80::1%eth0],10.0.0.1:1/app/x");
        let hosts: Vec<(&str, u16)> = parsed
            .hosts()
            .iter()
            .map(|host| (host.name(), host.port()))
            .collect();
        assert_eq!(
            hosts,
            [
                ("zk1", 2181),
                ("zk2", 2181),
                ("::1", 2182),
                ("fe80::1%eth0", 2181),
                ("10.0.0.1", 1)
            ]
        );
        assert_eq!(parsed.chroot().as_str(), "/app/x");
    }

    #[test]
    fn spaces_around_commas_and_ends_are_no_part_of_a_host() {
        assert_eq!(parse(" zk1:1 ,\tzk2:2 /app"), parse("zk1:1,zk2:2/app"));
        assert_eq!(parse("zk1\n"), parse("zk1"));
        assert_eq!(parse("zk1/app ").chroot().as_str(), "/app ");
    }

    /// ZooKeeper's own parser takes a lone slash for no chroot.
    #[test]
    fn a_lone_slash_is_no_chroot() {
        assert_eq!(parse("zk1/"), parse("zk1"));
        assert!(parse("zk1/").chroot().is_root());
    }

    #[test]
    fn a_host_given_twice_is_one() {
        let parsed = parse("zk1,ZK1:2181,zk2,zk1:2182,[0:0::1],[::1]:2181");
        assert_eq!(parsed.to_string(), "zk1:2181,zk2:2181,zk1:2182,[::1]:2181");
    }

    #[test]
    fn an_empty_list_is_refused() {
        for text in ["", "   ", "/app", " /"] {
            assert_eq!(refused(text), ConnectStringError::NoHosts);
        }
    }

    #[test]
    fn an_empty_host_is_refused_by_its_position() {
        for (text, position) in [(",", 1), ("zk1,", 2), ("zk1,,zk2", 2), ("zk1, :2181", 2)] {
            assert_eq!(refused(text), ConnectStringError::EmptyHost { position });
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused_with_what_stood_there() {
        for port in ["0", "65536", "-1", "+1", "x", "", "21.81", "٢"] {
            assert_eq!(
                refused(&format!("zk1,zk2:{port}/app")),
                ConnectStringError::Port {
                    position: 2,
                    host: "zk2".to_owned(),
                    port: port.to_owned(),
                }
            );
        }
        assert!(matches!(
            refused("[::1]:0"),
            ConnectStringError::Port { position: 1, .. }
        ));
    }

    #[test]
    fn brackets_out_of_place_are_refused() {
        for text in [
            "[::1",
            "::1]",
            "[::1]2181",
            "[[::1]]",
            "x[::1]:1",
            "[::1]:[2]",
            "a]",
        ] {
            assert!(
                matches!(refused(text), ConnectStringError::Brackets { .. }),
                "{text}"
            );
        }
        for text in [
            "[]",
            "[zk1]:2181",
            "[10.0.0.1]",
            "[fe80::1%]",
            "[fe80::1%a%b]",
        ] {
            assert!(
                matches!(refused(text), ConnectStringError::Ipv6 { .. }),
                "{text}"
            );
        }
    }

    #[test]
    fn an_ipv6_address_without_brackets_is_not_guessed_at() {
        assert!(matches!(
            refused("zk1,::1"),
            ConnectStringError::BareIpv6 { position: 2, .. }
        ));
    }

    #[test]
    fn a_wrong_separator_is_named() {
        for (text, separator) in [("zk1:2181;zk2:2181", ';'), ("zk1:2181 zk2:2181", ' ')] {
            assert_eq!(
                refused(text),
                ConnectStringError::Separator {
                    position: 1,
                    text: text.to_owned(),
                    separator,
                }
            );
        }
    }

    #[test]
    fn characters_that_no_name_has_are_refused() {
        assert!(matches!(
            refused("zk1,zk*"),
            ConnectStringError::Character {
                position: 2,
                character: '*',
                ..
            }
        ));
        assert!(matches!(
            refused("zürich"),
            ConnectStringError::Character {
                character: 'ü', ..
            }
        ));
        assert!(matches!(
            refused("zk1,."),
            ConnectStringError::NotAName { .. }
        ));
        assert_eq!(
            refused(&"a".repeat(256)),
            ConnectStringError::LongName {
                position: 1,
                length: 256
            }
        );
    }

    #[test]
    fn a_url_is_refused_with_a_hint() {
        assert_eq!(
            refused("zookeeper://zk1:2181/app"),
            ConnectStringError::Scheme {
                scheme: "zookeeper".to_owned()
            }
        );
    }

    #[test]
    fn user_information_is_refused_and_not_repeated() {
        for text in ["zk1,user:secret@zk2:2181", "zk://user:secret@zk2"] {
            let error = refused(text);
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        assert_eq!(
            refused("zk1,user:secret@zk2:2181"),
            ConnectStringError::UserInfo { position: 2 }
        );
        // In a chroot it is a character like any other.
        assert_eq!(parse("zk1/a@b").chroot().as_str(), "/a@b");
    }

    #[test]
    fn an_invalid_chroot_is_refused_with_the_rule_that_it_breaks() {
        for (chroot, source) in [
            // As ZooKeeper's own client does.
            ("/app/", PathError::TrailingSlash),
            ("//app", PathError::EmptyComponent),
            ("/app/..", PathError::RelativeComponent),
            ("/a\u{1}", PathError::Character('\u{1}')),
        ] {
            assert_eq!(
                refused(&format!("zk1{chroot}")),
                ConnectStringError::Chroot {
                    chroot: chroot.to_owned(),
                    source
                }
            );
        }
    }

    fn any_host() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}",
            any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
            any::<Ipv6Addr>().prop_map(|address| format!("[{address}]")),
            any::<Ipv6Addr>().prop_map(|address| format!("[{address}%eth0]")),
        ];
        (name, proptest::option::of(1_u16..)).prop_map(|(name, port)| match port {
            Some(port) => format!("{name}:{port}"),
            None => name,
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(
            hosts in proptest::collection::vec(any_host(), 1..6),
            chroot in "(/[a-z@:,\\[ äé.-]{1,3}[x ]){0,3}",
        ) {
            let parsed = parse(&format!("{}{chroot}", hosts.join(", ")));
            prop_assert_eq!(parse(&parsed.to_string()), parsed);
        }

        #[test]
        fn no_text_at_all_causes_a_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<ConnectString>();
        }

        /// The characters that mean something, in any order.
        #[test]
        fn what_is_taken_is_read_again_as_the_same(text in "[a1:\\[\\],/@%. ]{0,12}") {
            if let Ok(parsed) = text.parse::<ConnectString>() {
                prop_assert!(!parsed.hosts().is_empty());
                prop_assert!(parsed.hosts().iter().all(|host| host.port() != 0));
                prop_assert_eq!(parse(&parsed.to_string()), parsed);
            }
        }
    }
}
