//! TLS by rustls, from PEM files or bytes.
//!
//! What is wrong with them is said when the options are made, with the file and the reason. Later
//! the files are read again for each connection: renewed ones are in force from then on, and bad
//! ones change nothing but a line in the log. No private key, and no text of a file that may hold
//! one, is ever shown. Every connection is verified anew: there is no resumption of TLS sessions,
//! which would outlive the certificates that they were agreed on with.

mod error;
mod pem;
#[cfg(test)]
mod tests;
mod verifier;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, InconsistentKeys, RootCertStore};

pub use self::error::{PemFault, TlsOptionsError};
use self::pem::{ClientContents, Contents, read};
pub use self::pem::{PemRole, PemSource, PemText};
use crate::connect_string::Host;
use crate::dial::TlsFault;
use crate::environment::Connection;

/// How to connect by TLS: whom to trust, and who we are.
///
/// ```no_run
/// use quorate_client::TlsOptions;
///
/// let tls = TlsOptions::from_files("/etc/app/ca.pem")
///     .client_files("/etc/app/client.pem", "/etc/app/client.key")
///     .build()?;
/// # Ok::<(), quorate_client::TlsOptionsError>(())
/// ```
///
/// The authorities that the operating system trusts are not trusted by themselves: whoever they
/// vouch for would be taken for a server of the ensemble.
///
/// Files are read again for each new connection. When they have changed and are in order, they
/// are in force from that connection on; when they are not (a certificate without its key, say,
/// because they are just being replaced), the previous ones stay, and a warning is logged.
///
/// Clones share what has been read.
#[derive(Clone)]
pub struct TlsOptions {
    shared: Arc<Shared>,
}

struct Shared {
    recipe: Recipe,
    state: Mutex<State>,
}

/// Where everything comes from.
#[derive(Debug)]
struct Recipe {
    trust: Vec<PemSource>,
    client: Option<ClientSources>,
    /// Instead of the name of the host.
    server_name: Option<ServerName<'static>>,
    any_host_name: bool,
}

#[derive(Debug)]
struct ClientSources {
    certificate: PemSource,
    key: PemSource,
}

/// What is in force.
struct State {
    config: Arc<ClientConfig>,
    /// What `config` was made from.
    contents: Contents,
    /// Why the files last could not be used; so that it is logged once and not at each attempt.
    trouble: Option<String>,
}

/// Collects [`TlsOptions`]; nothing is read before [`Self::build`].
#[derive(Debug)]
#[must_use = "it is nothing before `build`"]
pub struct TlsOptionsBuilder {
    trust: Vec<PemSource>,
    client: Option<ClientSources>,
    server_name: Option<String>,
    any_host_name: bool,
}

impl TlsOptions {
    /// Trusts the certificates in a PEM file: those of the authorities that sign the servers'.
    pub fn from_files(trusted: impl Into<PathBuf>) -> TlsOptionsBuilder {
        TlsOptionsBuilder::empty().trust_file(trusted)
    }

    /// As [`Self::from_files`], with the PEM text itself.
    pub fn from_pem(trusted: impl Into<Vec<u8>>) -> TlsOptionsBuilder {
        TlsOptionsBuilder::empty().trust_pem(trusted)
    }

    /// Agrees on TLS with the server at `host`, over a fresh connection.
    pub(crate) async fn connect<T: Connection>(
        &self,
        host: &Host,
        transport: T,
    ) -> Result<TlsStream<T>, TlsFault> {
        let name = match &self.shared.recipe.server_name {
            Some(name) => name.clone(),
            None => server_name_of(host)?,
        };
        let config = self.current().await;
        let connected = TlsConnector::from(config).connect(name, transport).await;
        connected.map_err(|source| {
            self.fault(&source).unwrap_or_else(|| {
                if crate::dial::is_end(&source) {
                    TlsFault::Closed
                } else {
                    TlsFault::Failed { source }
                }
            })
        })
    }

    /// What TLS has to say about an error of a connection, if it is behind it.
    pub(crate) fn fault(&self, error: &io::Error) -> Option<TlsFault> {
        let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(error::fault(inner, self.shared.recipe.client.is_some()))
    }

    /// What is in force for the next connection.
    async fn current(&self) -> Arc<ClientConfig> {
        if !self.shared.recipe.has_files() {
            return self.shared.in_force();
        }
        let shared = Arc::clone(&self.shared);
        match spawn_blocking(move || shared.reload()).await {
            Ok(config) => config,
            // The runtime ends, and this connection with it.
            Err(_) => self.shared.in_force(),
        }
    }
}

impl TlsOptionsBuilder {
    /// Trusts nobody; so it is not for others to begin with.
    fn empty() -> Self {
        Self {
            trust: Vec::new(),
            client: None,
            server_name: None,
            any_host_name: false,
        }
    }

    /// Trusts the certificates in a PEM file as well.
    pub fn trust_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust.push(PemSource::File(path.into()));
        self
    }

    /// Trusts the certificates in a PEM text as well.
    pub fn trust_pem(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.trust.push(PemSource::text(text));
        self
    }

    /// Shows servers a certificate, and proves by its key that it is ours: x509 authentication.
    ///
    /// The certificate comes first in its file, then those that lead from it to the authority.
    /// Both may be in the same file. An encrypted key is refused.
    pub fn client_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client = Some(ClientSources {
            certificate: PemSource::File(certificate.into()),
            key: PemSource::File(key.into()),
        });
        self
    }

    /// As [`Self::client_files`], with the PEM texts themselves.
    pub fn client_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.client = Some(ClientSources {
            certificate: PemSource::text(certificate),
            key: PemSource::text(key),
        });
        self
    }

    /// Expects servers to have a certificate for this name, whatever name or address they are
    /// connected to by.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Takes any server whose certificate is signed by a trusted authority for the right one, as
    /// ZooKeeper's `ssl.hostnameVerification=false`.
    ///
    /// **Dangerous**: whoever has some certificate of that authority can then stand in for the
    /// servers. Prefer [`Self::server_name`], or certificates with the right names.
    pub fn dangerously_accept_any_host_name(mut self) -> Self {
        self.any_host_name = true;
        self
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    ///
    /// [`TlsOptionsError`]: which file or text is wrong, and why.
    pub fn build(self) -> Result<TlsOptions, TlsOptionsError> {
        let server_name = match self.server_name {
            None => None,
            Some(name) => Some(
                ServerName::try_from(name.clone())
                    .map_err(|_| TlsOptionsError::BadServerName { name })?,
            ),
        };
        let recipe = Recipe {
            trust: self.trust,
            client: self.client,
            server_name,
            any_host_name: self.any_host_name,
        };
        let contents = recipe.read()?;
        let state = State {
            config: Arc::new(recipe.config(&contents)?),
            contents,
            trouble: None,
        };
        Ok(TlsOptions {
            shared: Arc::new(Shared {
                recipe,
                state: Mutex::new(state),
            }),
        })
    }
}

impl Shared {
    fn in_force(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.state.lock().config)
    }

    /// Brings what is in force up to date with the files. Blocks on reading them, and on others
    /// who do: not for a thread of the runtime.
    fn reload(&self) -> Arc<ClientConfig> {
        // Under the lock, so that the contents read last are those in force in the end.
        let mut state = self.state.lock();
        let renewed = self.recipe.read().and_then(|contents| {
            if contents == state.contents {
                return Ok(None);
            }
            let config = Arc::new(self.recipe.config(&contents)?);
            Ok(Some((config, contents)))
        });
        match renewed {
            Ok(None) => state.trouble = None,
            Ok(Some((config, contents))) => {
                tracing::info!(options = ?self.recipe, "the TLS files have changed and are in force");
                *state = State {
                    config,
                    contents,
                    trouble: None,
                };
            }
            Err(error) => {
                let trouble = error.to_string();
                if state.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(
                        error = %trouble,
                        "the TLS files have changed and cannot be used; the previous ones stay in force"
                    );
                    state.trouble = Some(trouble);
                }
            }
        }
        Arc::clone(&state.config)
    }
}

impl Recipe {
    fn has_files(&self) -> bool {
        let client = self
            .client
            .iter()
            .flat_map(|client| [&client.certificate, &client.key]);
        self.trust.iter().chain(client).any(PemSource::is_file)
    }

    fn read(&self) -> Result<Contents, TlsOptionsError> {
        let trust = self
            .trust
            .iter()
            .map(|source| read(PemRole::Trusted, source))
            .collect::<Result<_, _>>()?;
        let client = match &self.client {
            None => None,
            Some(client) => Some(ClientContents {
                certificate: read(PemRole::Certificate, &client.certificate)?,
                key: read(PemRole::Key, &client.key)?,
            }),
        };
        Ok(Contents { trust, client })
    }

    fn config(&self, contents: &Contents) -> Result<ClientConfig, TlsOptionsError> {
        let mut roots = RootCertStore::empty();
        for (source, text) in self.trust.iter().zip(&contents.trust) {
            for certificate in pem::certificates(PemRole::Trusted, source, text)? {
                roots
                    .add(certificate)
                    .map_err(|reason| TlsOptionsError::BadCertificate {
                        role: PemRole::Trusted,
                        file: source.clone(),
                        reason: Box::new(reason),
                    })?;
            }
        }
        // Ours alone, whatever the process has installed for others.
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default protocol versions");
        let builder = if self.any_host_name {
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier::any_host_name(roots, &provider))
        } else {
            builder.with_root_certificates(roots)
        };
        let mut config = match (&self.client, &contents.client) {
            (Some(sources), Some(texts)) => {
                let chain = pem::certificates(
                    PemRole::Certificate,
                    &sources.certificate,
                    &texts.certificate,
                )?;
                let key = pem::key(&sources.key, &texts.key)?;
                check_key(sources, &chain, key.clone_key(), &provider)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|reason| TlsOptionsError::BadCertificate {
                        role: PemRole::Certificate,
                        file: sources.certificate.clone(),
                        reason: Box::new(reason),
                    })?
            }
            _ => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// That the key is of a kind that can be used, and the one of the first certificate.
fn check_key(
    sources: &ClientSources,
    chain: &[rustls::pki_types::CertificateDer<'static>],
    key: rustls::pki_types::PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<(), TlsOptionsError> {
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        TlsOptionsError::UnsupportedKey {
            file: sources.key.clone(),
        }
    })?;
    match rustls::sign::CertifiedKey::new(chain.to_vec(), key).keys_match() {
        // A kind of key that cannot tell; a server will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsOptionsError::KeyMismatch {
            certificate: sources.certificate.clone(),
            key: sources.key.clone(),
        }),
        Err(reason) => Err(TlsOptionsError::BadCertificate {
            role: PemRole::Certificate,
            file: sources.certificate.clone(),
            reason: Box::new(reason),
        }),
    }
}

fn server_name_of(host: &Host) -> Result<ServerName<'static>, TlsFault> {
    // The zone of an address (fe80::1%eth0) is this machine's business.
    let name = host.name().split('%').next().unwrap_or_default();
    ServerName::try_from(name.to_owned()).map_err(|_| TlsFault::BadServerName {
        name: name.to_owned(),
    })
}

/// Where things come from, and nothing of what they are.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recipe = &self.shared.recipe;
        f.debug_struct("TlsOptions")
            .field("trust", &recipe.trust)
            .field("client", &recipe.client)
            .field("server_name", &recipe.server_name)
            .field("any_host_name", &recipe.any_host_name)
            .finish_non_exhaustive()
    }
}
