//! Why there is no connection to a server.
//!
//! Each text says what was seen, and where something can be done about it, what. None holds a
//! secret: what a stranger said is shown, what we sent is not.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_protocol::jute;

use crate::connect_string::Host;

/// How much of what a stranger said is shown.
const SHOWN_BYTES_MAX: usize = 40;

/// Why an attempt to connect to a server failed.
///
/// Of several addresses of one name, that of the address with which it got furthest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name has no address, or the resolver no answer.
    #[error("{host}: the name cannot be resolved: {source}")]
    Resolve {
        /// Whose name it is.
        host: Host,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody listens, or the network says that there is no way.
    #[error("{address}: cannot connect: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// TLS was not agreed on.
    #[error("{}: TLS failed: {fault}", At(.host, .address))]
    Tls {
        /// Whom we asked for.
        host: Host,
        /// Where.
        address: SocketAddr,
        /// What is wrong.
        fault: TlsFault,
    },
    /// Something else than a ZooKeeper server answers.
    #[error("{address}: {what}")]
    NotZooKeeper {
        /// Where.
        address: SocketAddr,
        /// What it seems to be.
        what: Stranger,
    },
    /// The server closed the connection instead of an answer.
    #[error(
        "{address}: the server closed the connection {}; it does so when it has no quorum, has \
         too many connections (maxClientCnxns), or is behind what this client has seen; a TLS \
         port does so too to a client without",
        Before(*.bytes)
    )]
    Closed {
        /// Where.
        address: SocketAddr,
        /// How many bytes of an answer had come.
        bytes: usize,
    },
    /// The connection failed before the answer was there.
    #[error("{address}: the connection broke: {source}")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Time was up.
    #[error(
        "{host}: no session within {patience:?}, spent on {step}: the server is out of reach or \
         overloaded, or is no ZooKeeper server"
    )]
    Late {
        /// Whom we asked.
        host: Host,
        /// What was still being waited for.
        step: Step,
        /// What the whole attempt had.
        patience: Duration,
    },
    /// A server answers, and does not take the session in.
    #[error("{address}: {what}")]
    NoSession {
        /// Where.
        address: SocketAddr,
        /// What it did instead.
        what: &'static str,
    },
    /// A server is there, and does not say whether it takes writes.
    #[error(
        "{address}: the server does not allow isro: add it to 4lw.commands.whitelist for clients \
         that accept read-only servers"
    )]
    ProbeRefused {
        /// Where.
        address: SocketAddr,
    },
    /// The request cannot be sent: its password is longer than a frame can be.
    #[error("the request to connect cannot be encoded: {0}")]
    Request(#[source] jute::Error),
}

/// A host and its address, which may be the same.
struct At<'a>(&'a Host, &'a SocketAddr);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, address) = (self.0.to_string(), self.1.to_string());
        if host == address {
            f.write_str(&address)
        } else {
            write!(f, "{host} at {address}")
        }
    }
}

/// "before it answered", or how far it came.
struct Before(usize);

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("before it answered"),
            bytes => write!(f, "after {bytes} bytes of its answer"),
        }
    }
}

/// What an attempt to connect is doing, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Asks for the addresses of the name.
    Resolve,
    /// Opens the connection.
    Connect,
    /// Agrees on TLS.
    Tls,
    /// Waits for the server's first frame.
    Answer,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving the name",
            Self::Connect => "connecting",
            Self::Tls => "the TLS handshake",
            Self::Answer => "waiting for the server's answer",
        })
    }
}

/// What answers instead of a ZooKeeper server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stranger {
    /// It begins with `HTTP`.
    #[error("an HTTP server answers, not ZooKeeper: is this the port of the admin server?")]
    Http,
    /// It begins with `SSH-`.
    #[error("an SSH server answers, not ZooKeeper: check the port")]
    Ssh,
    /// It begins like a record of TLS.
    #[error(
        "the server speaks TLS: enable it in this client, or use the plain client port \
         (clientPort, not secureClientPort)"
    )]
    Tls,
    /// Text of another kind.
    #[error("the answer is text and not ZooKeeper's: \"{beginning}\"")]
    Text {
        /// Its first characters, escaped.
        beginning: String,
    },
    /// Anything else.
    #[error("the answer is not ZooKeeper's; it begins with the bytes {beginning}")]
    Bytes {
        /// The first bytes in hexadecimal.
        beginning: String,
    },
    /// A frame, and in it something else than a ConnectResponse.
    #[error("the first frame is no answer of a ZooKeeper server to its client: {source}")]
    OtherFrame {
        /// What does not fit.
        source: jute::Error,
    },
}

impl Stranger {
    /// Told by its first bytes; four are enough for those that have a name.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
        match bytes {
            [b'H', b'T', b'T', b'P', ..] => Self::Http,
            [b'S', b'S', b'H', b'-', ..] => Self::Ssh,
            // An alert or a handshake, of any version since SSL 3 (RFC 8446, section 5.1).
            [0x15 | 0x16, 0x03, ..] => Self::Tls,
            _ if shown
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t')) =>
            {
                Self::Text {
                    beginning: shown.escape_ascii().to_string(),
                }
            }
            _ => Self::Bytes {
                beginning: shown
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<Vec<_>>()
                    .join(" "),
            },
        }
    }
}

/// Why client and server did not agree on TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// What answers is no TLS.
    #[error("the server does not speak TLS on this port: use secureClientPort, or no TLS")]
    NotTls,
    /// The server closed in the midst of the handshake, without a word.
    #[error(
        "the server closed the connection in the handshake: a port without TLS does so, and a \
         server that has no protocol version or cipher in common with us"
    )]
    Closed,
    /// No certificate that we trust has signed the server's.
    #[error(
        "the server's certificate is signed by none of the trusted certificates: trust the \
         certificate of the authority that signed it"
    )]
    UnknownIssuer,
    /// The server shows the certificate of an authority as its own. Often that is its very own
    /// signature, made by `openssl req -x509`.
    #[error(
        "the server shows the certificate of an authority (CA:TRUE) as its own: have that \
         authority sign one for the server, or make it without CA:TRUE"
    )]
    AuthorityAsServer,
    /// The certificate is for others.
    #[error(
        "the server's certificate is not valid for the name {name:?}{}: connect by one of its \
         names, or set the server name to expect",
        Presented(.presented)
    )]
    WrongName {
        /// Whom we expected.
        name: String,
        /// The names in the certificate, as far as they are known.
        presented: Vec<String>,
    },
    /// The certificate was valid once.
    #[error(
        "the server's certificate{} has expired: renew it, or check the clock of this machine",
        Ago(*.ago)
    )]
    Expired {
        /// For how long, where that is known.
        ago: Option<Duration>,
    },
    /// The certificate will be valid.
    #[error("the server's certificate is not valid yet: check the clocks of both machines")]
    NotYetValid,
    /// The host has no name that a certificate can have.
    #[error("{name:?} is no name that a certificate can be for: set the server name to expect")]
    BadServerName {
        /// The name of the host.
        name: String,
    },
    /// The server wants to know who we are, and we have nothing to show.
    #[error(
        "the server asks for a client certificate (ssl.clientAuth=need): give the client a \
         certificate and its key"
    )]
    ClientCertificateRequired,
    /// The server does not like our certificate.
    #[error(
        "the server refuses the client certificate ({alert}): is it signed by an authority that \
         the server trusts, and still valid?"
    )]
    ClientCertificateRefused {
        /// What the server called it.
        alert: String,
    },
    /// The server ended the handshake for another reason.
    #[error("the server ended TLS with the alert {alert}")]
    Alert {
        /// What the server called it.
        alert: String,
    },
    /// Everything else, with the words of the TLS library.
    #[error("{source}")]
    Failed {
        /// What went wrong.
        source: io::Error,
    },
}

/// The names in a certificate, if any are known.
struct Presented<'a>(&'a [String]);

impl fmt::Display for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            names => write!(f, " but for {}", names.join(", ")),
        }
    }
}

struct Ago(Option<Duration>);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(ago) => write!(f, " (valid until {} s ago)", ago.as_secs()),
        }
    }
}

/// Whether the peer ended the connection, by whatever way there is.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_told_by_its_first_bytes() {
        assert_eq!(Stranger::of(b"HTTP/1.1 400 Bad"), Stranger::Http);
        assert_eq!(Stranger::of(b"HTTP"), Stranger::Http);
        assert_eq!(Stranger::of(b"SSH-2.0-OpenSSH"), Stranger::Ssh);
        assert_eq!(Stranger::of(&[0x15, 3, 3, 0, 2, 2, 70]), Stranger::Tls);
        assert_eq!(
            Stranger::of(b"220 mail\r\n"),
            Stranger::Text {
                beginning: "220 mail\\r\\n".to_owned()
            }
        );
        assert_eq!(
            Stranger::of(&[0xff, 0x00, 0x15]),
            Stranger::Bytes {
                beginning: "ff 00 15".to_owned()
            }
        );
    }

    #[test]
    fn a_talkative_stranger_is_not_repeated_at_length() {
        assert!(Stranger::of(&[b'x'; 5000]).to_string().len() < 200);
        assert!(Stranger::of(&[0xff; 5000]).to_string().len() < 200);
    }
}
