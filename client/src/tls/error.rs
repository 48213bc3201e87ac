//! What can be wrong with TLS, said in terms of files and certificates.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError, InvalidMessage};

use super::pem::{PemRole, PemSource};
use crate::dial::TlsFault;

/// Why there are no TLS options: which file or text is wrong, and what about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsOptionsError {
    /// The file is missing, unreadable or far too large.
    #[error("{role}: cannot read {}: {reason}", .file.display())]
    Read {
        /// What it is there for.
        role: PemRole,
        /// Its name.
        file: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// There is no certificate where one belongs.
    #[error(
        "{role}: {file} holds no certificate: it must be PEM, with a line \
         -----BEGIN CERTIFICATE-----"
    )]
    NoCertificate {
        /// What it is there for.
        role: PemRole,
        /// Which it is.
        file: PemSource,
    },
    /// There is no private key where one belongs.
    #[error(
        "client key: {file} holds no private key: it must be PEM, with a line \
         -----BEGIN PRIVATE KEY-----"
    )]
    NoKey {
        /// Which it is.
        file: PemSource,
    },
    /// The key is encrypted.
    #[error(
        "client key: {file} is encrypted, which is not supported: decrypt it (openssl pkey -in \
         ... -out ...) and let nobody else read the result"
    )]
    EncryptedKey {
        /// Which it is.
        file: PemSource,
    },
    /// The text is damaged.
    #[error("{role}: {file} is no valid PEM: {fault}")]
    Malformed {
        /// What it is there for.
        role: PemRole,
        /// Which it is.
        file: PemSource,
        /// What is damaged.
        fault: PemFault,
    },
    /// There is a certificate that cannot be used.
    #[error("{role}: {file} has a certificate that cannot be used: {reason}")]
    BadCertificate {
        /// What it is there for.
        role: PemRole,
        /// Which it is.
        file: PemSource,
        /// What the TLS library said.
        reason: Box<dyn Error + Send + Sync>,
    },
    /// A kind of key that cannot be used.
    #[error(
        "client key: {file} has a key that is damaged or of a kind that is not supported: RSA of \
         2048 bits and more, ECDSA on P-256 or P-384, and Ed25519 are"
    )]
    UnsupportedKey {
        /// Which it is.
        file: PemSource,
    },
    /// Certificate and key are not of one another.
    #[error("client key: {key} is not the key of the first certificate of {certificate}")]
    KeyMismatch {
        /// Where the certificate is.
        certificate: PemSource,
        /// Where the key is.
        key: PemSource,
    },
    /// No certificate can be for such a name.
    #[error("{name:?} is neither a host name nor an address that a certificate can be for")]
    BadServerName {
        /// What was given.
        name: String,
    },
}

/// How a PEM text is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemFault {
    /// The file may have been cut off.
    #[error("a section has no END line; was the text cut off?")]
    NoEnd,
    /// The line breaks may have been lost.
    #[error("a BEGIN line is damaged; were the line breaks lost?")]
    BadBegin,
    /// Something else than base64 within a section.
    #[error("a section is not base64")]
    NotBase64,
}

/// What an error of the library means to someone who configures a client. `shown` says whether we
/// have a certificate to show.
pub(super) fn fault(error: &rustls::Error, shown: bool) -> TlsFault {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_fault(error),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => TlsFault::NotTls,
        rustls::Error::AlertReceived(alert) => alert_fault(*alert, shown),
        other => failed(other),
    }
}

fn certificate_fault(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
        CertificateError::Expired => TlsFault::Expired { ago: None },
        CertificateError::ExpiredContext { time, not_after } => TlsFault::Expired {
            ago: Some(Duration::from_secs(
                time.as_secs().saturating_sub(not_after.as_secs()),
            )),
        },
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsFault::NotYetValid
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => TlsFault::WrongName {
            name: expected.to_str().into_owned(),
            presented: presented.iter().map(|name| plain_name(name)).collect(),
        },
        // The library has this error, and a name for it only here.
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            TlsFault::AuthorityAsServer
        }
        other => failed(&rustls::Error::InvalidCertificate(other.clone())),
    }
}

/// `zk1.test` for `DnsName("zk1.test")`, which is what the library makes of it.
fn plain_name(presented: &str) -> String {
    presented
        .split_once('(')
        .and_then(|(_, name)| name.strip_suffix(')'))
        .map_or(presented, |name| name.trim_matches('"'))
        .to_owned()
}

fn alert_fault(alert: AlertDescription, shown: bool) -> TlsFault {
    use AlertDescription as Alert;

    let name = || format!("{alert:?}");
    match alert {
        Alert::CertificateRequired => TlsFault::ClientCertificateRequired,
        // What Java's servers say in TLS 1.2. Others say handshake_failure, which may be anything.
        Alert::BadCertificate if !shown => TlsFault::ClientCertificateRequired,
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
            if shown =>
        {
            TlsFault::ClientCertificateRefused { alert: name() }
        }
        _ => TlsFault::Alert { alert: name() },
    }
}

fn failed(error: &rustls::Error) -> TlsFault {
    TlsFault::Failed {
        source: io::Error::new(io::ErrorKind::InvalidData, error.clone()),
    }
}
