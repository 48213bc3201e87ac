//! PEM texts, and where they come from.
//!
//! Any of them may hold a private key, wherever it does not belong. So neither `Debug` nor an
//! error shows a line of them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{PemFault, TlsOptionsError};

/// Several times what all the authorities that browsers trust take.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Marks a key that only a passphrase opens: of PKCS #8, and of the older form (RFC 1421).
const ENCRYPTED_MARKS: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];

/// What a PEM text is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PemRole {
    /// The certificates of the authorities that are trusted.
    Trusted,
    /// The client's certificate.
    Certificate,
    /// The client's private key.
    Key,
}

impl fmt::Display for PemRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trusted => "trusted certificates",
            Self::Certificate => "client certificate",
            Self::Key => "client key",
        })
    }
}

/// Where a PEM text comes from. Its `Debug` does not show the text.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PemSource {
    /// The file with that name.
    File(PathBuf),
    /// The program.
    Text(PemText),
}

/// A PEM text that the program has given. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PemText(Arc<[u8]>);

impl PemSource {
    pub(super) fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::Text(PemText(text.into().into()))
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str("the PEM text given"),
        }
    }
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{path:?}"),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Debug for PemText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PemText(..)")
    }
}

/// All texts as they were read, to see whether they have changed.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) trust: Vec<Arc<[u8]>>,
    pub(super) client: Option<ClientContents>,
}

#[derive(PartialEq, Eq)]
pub(super) struct ClientContents {
    pub(super) certificate: Arc<[u8]>,
    pub(super) key: Arc<[u8]>,
}

/// The whole text.
pub(super) fn read(role: PemRole, source: &PemSource) -> Result<Arc<[u8]>, TlsOptionsError> {
    let path = match source {
        PemSource::Text(text) => return Ok(Arc::clone(&text.0)),
        PemSource::File(path) => path,
    };
    let mut text = Vec::new();
    let outcome = File::open(path).and_then(|file| {
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the file has more than {FILE_BYTES_MAX} bytes"),
            ))
        }
    });
    match outcome {
        Ok(()) => Ok(text.into()),
        Err(reason) => Err(TlsOptionsError::Read {
            role,
            file: path.clone(),
            reason,
        }),
    }
}

/// All certificates of the text; at least one.
pub(super) fn certificates(
    role: PemRole,
    source: &PemSource,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsOptionsError> {
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(role, source, &error))?;
    if found.is_empty() {
        return Err(TlsOptionsError::NoCertificate {
            role,
            file: source.clone(),
        });
    }
    Ok(found)
}

/// The first private key of the text.
pub(super) fn key(
    source: &PemSource,
    text: &[u8],
) -> Result<PrivateKeyDer<'static>, TlsOptionsError> {
    let holds = |mark: &&[u8]| text.windows(mark.len()).any(|window| window == *mark);
    if ENCRYPTED_MARKS.iter().any(holds) {
        return Err(TlsOptionsError::EncryptedKey {
            file: source.clone(),
        });
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsOptionsError::NoKey {
            file: source.clone(),
        },
        error => malformed(PemRole::Key, source, &error),
    })
}

/// Says what is wrong in our own words: the library's repeat the line, which may be a key.
fn malformed(role: PemRole, source: &PemSource, error: &pem::Error) -> TlsOptionsError {
    TlsOptionsError::Malformed {
        role,
        file: source.clone(),
        fault: match error {
            pem::Error::MissingSectionEnd { .. } => PemFault::NoEnd,
            pem::Error::IllegalSectionStart { .. } => PemFault::BadBegin,
            _ => PemFault::NotBase64,
        },
    }
}
