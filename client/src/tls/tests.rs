//! TLS servers of every kind, good and bad, with certificates made on the spot.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use quorate_protocol::frame::write_frame;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::types::Zxid;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion, version};

use super::*;
use crate::connect_string::ConnectString;
use crate::dial::{DialError, Dialer, Dialled, Step, Stranger, Stream};

/// More than any test takes that does not wait for it.
const PATIENT: Duration = Duration::from_secs(20);
/// For tests that wait until it is over.
const IMPATIENT: Duration = Duration::from_millis(400);

/// Signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Identity {
    certificate: String,
    key: String,
}

/// When a certificate is valid, by years.
#[derive(Clone, Copy)]
enum Valid {
    Now,
    Once,
    Later,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, name: &str, valid: Valid) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (from, to) = match valid {
            Valid::Now => (2000, 4000),
            Valid::Once => (2000, 2001),
            Valid::Later => (4000, 4001),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// For the address that all servers here have.
    fn server(&self) -> Identity {
        self.issue("127.0.0.1", Valid::Now)
    }
}

fn server_config(
    identity: &Identity,
    clients: Option<&Authority>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("known versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let trusted = source(&authority.pem);
            for certificate in certificates_of(&trusted, &authority.pem) {
                roots.add(certificate).expect("a certificate");
            }
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .expect("a verifier"),
            )
        }
    };
    let chain = certificates_of(&source(&identity.certificate), &identity.certificate);
    let key = pem::key(&source(&identity.key), identity.key.as_bytes()).expect("a key");
    Arc::new(builder.with_single_cert(chain, key).expect("a pair"))
}

fn source(text: &str) -> PemSource {
    PemSource::text(text)
}

fn certificates_of(
    source: &PemSource,
    text: &str,
) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    pem::certificates(PemRole::Trusted, source, text.as_bytes()).expect("certificates")
}

/// A server that speaks TLS and answers every connection: `isro` and a ConnectRequest. In the
/// session's timeout it says how many certificates the client has shown.
async fn serve(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(Arc::clone(&config));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut asked = [0; 4];
                if stream.read_exact(&mut asked).await.is_err() {
                    return;
                }
                let shown = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
                let mut answer = BytesMut::new();
                if asked == *b"isro" {
                    answer.extend_from_slice(b"rw");
                } else {
                    let response = ConnectResponse {
                        timeout_ms: i32::try_from(shown).expect("a few"),
                        ..ConnectResponse::expired(None)
                    };
                    write_frame(&mut answer, |out| response.encode(out)).expect("a response");
                }
                let _ = stream.write_all(&answer).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

async fn serve_simply(identity: &Identity) -> SocketAddr {
    serve(server_config(identity, None, rustls::ALL_VERSIONS)).await
}

/// A server that only says something, or nothing, and closes if asked to.
async fn serve_plain(words: &'static [u8], closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a connection");
        tcp.write_all(words).await.expect("an open connection");
        if closes {
            let _ = tcp.read(&mut [0; 4096]).await;
        } else {
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        }
    });
    address
}

fn dialer(address: SocketAddr) -> Dialer {
    let parsed: ConnectString = address.to_string().parse().expect("a host");
    Dialer::new(parsed.hosts().to_vec(), &mut SmallRng::seed_from_u64(1))
}

fn request() -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::default(),
        timeout_ms: 10_000,
        session_id: None,
        password: None,
        read_only: Some(false),
    }
}

async fn dial_within(
    address: SocketAddr,
    tls: &TlsOptions,
    patience: Duration,
) -> Result<Dialled, DialError> {
    let dialer = dialer(address).with_tls(tls.clone());
    dialer.dial(&dialer.hosts()[0], &request(), patience).await
}

/// How many certificates the server has seen.
async fn dial(address: SocketAddr, tls: &TlsOptions) -> Result<i32, DialError> {
    let dialled = dial_within(address, tls, PATIENT).await?;
    Ok(dialled.response.timeout_ms)
}

async fn fault(address: SocketAddr, tls: &TlsOptions) -> TlsFault {
    match dial(address, tls).await {
        Err(DialError::Tls {
            address: at, fault, ..
        }) => {
            assert_eq!(at, address);
            fault
        }
        other => panic!("{other:?}"),
    }
}

fn trusting(authority: &Authority) -> TlsOptions {
    TlsOptions::from_pem(authority.pem.as_str())
        .build()
        .expect("options")
}

fn showing(authority: &Authority, identity: &Identity) -> TlsOptions {
    TlsOptions::from_pem(authority.pem.as_str())
        .client_pem(identity.certificate.as_str(), identity.key.as_str())
        .build()
        .expect("options")
}

#[tokio::test]
async fn a_server_whose_authority_is_trusted_is_connected_to() {
    let authority = Authority::new("A");
    for versions in [[&version::TLS12], [&version::TLS13]] {
        let address = serve(server_config(&authority.server(), None, &versions)).await;
        assert_eq!(dial(address, &trusting(&authority)).await.ok(), Some(0));
    }
}

/// A session of TLS that is resumed is one whose certificates nobody looks at again.
#[tokio::test]
async fn every_connection_is_verified_anew() {
    let authority = Authority::new("A");
    let options = trusting(&authority);
    for versions in [[&version::TLS12], [&version::TLS13]] {
        let address = serve(server_config(&authority.server(), None, &versions)).await;
        for _ in 0..3 {
            let dialled = dial_within(address, &options, PATIENT).await;
            match dialled.expect("a connection").stream {
                Stream::Tls(stream) => {
                    let kind = stream.get_ref().1.handshake_kind();
                    assert_eq!(kind, Some(HandshakeKind::Full));
                }
                other => panic!("{other:?} is no TLS"),
            }
        }
    }
}

#[tokio::test]
async fn a_probe_goes_through_tls() {
    let authority = Authority::new("A");
    let address = serve_simply(&authority.server()).await;
    let dialer = dialer(address).with_tls(trusting(&authority));
    let answer = dialer.is_read_write(&dialer.hosts()[0], PATIENT).await;
    assert!(answer.expect("an answer"));
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_refused() {
    let address = serve_simply(&Authority::new("A").server()).await;
    assert!(matches!(
        fault(address, &trusting(&Authority::new("B"))).await,
        TlsFault::UnknownIssuer
    ));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_by_its_names() {
    let authority = Authority::new("A");
    let address = serve_simply(&authority.issue("zk.test", Valid::Now)).await;
    match fault(address, &trusting(&authority)).await {
        TlsFault::WrongName { name, presented } => {
            assert_eq!(name, "127.0.0.1");
            assert_eq!(presented, ["zk.test"]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_name_to_expect_can_be_another_than_that_of_the_host() {
    let authority = Authority::new("A");
    let address = serve_simply(&authority.issue("zk.test", Valid::Now)).await;
    let named = |name: &str| {
        TlsOptions::from_pem(authority.pem.as_str())
            .server_name(name)
            .build()
            .expect("options")
    };
    assert!(dial(address, &named("zk.test")).await.is_ok());
    assert!(matches!(
        fault(address, &named("zk2.test")).await,
        TlsFault::WrongName { name, .. } if name == "zk2.test"
    ));
}

#[tokio::test]
async fn without_host_names_everything_else_is_still_verified() {
    let authority = Authority::new("A");
    let any_name = TlsOptions::from_pem(authority.pem.as_str())
        .dangerously_accept_any_host_name()
        .build()
        .expect("options");
    for versions in [[&version::TLS12], [&version::TLS13]] {
        let other_name = authority.issue("zk.test", Valid::Now);
        let address = serve(server_config(&other_name, None, &versions)).await;
        assert!(dial(address, &any_name).await.is_ok());
    }
    let foreign = serve_simply(&Authority::new("B").server()).await;
    assert!(matches!(
        fault(foreign, &any_name).await,
        TlsFault::UnknownIssuer
    ));
    let expired = serve_simply(&authority.issue("127.0.0.1", Valid::Once)).await;
    assert!(matches!(
        fault(expired, &any_name).await,
        TlsFault::Expired { .. }
    ));
}

/// What `openssl req -x509` makes, and Java's clients take.
#[tokio::test]
async fn an_authority_that_is_its_own_server_is_refused_by_name() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).expect("a certificate").pem();
    let identity = Identity {
        certificate: own.clone(),
        key: key.serialize_pem(),
    };
    let options = TlsOptions::from_pem(own).build().expect("options");
    assert!(matches!(
        fault(serve_simply(&identity).await, &options).await,
        TlsFault::AuthorityAsServer
    ));
}

/// What Java's `keytool -genkeypair` makes.
#[tokio::test]
async fn a_server_that_has_signed_itself_can_be_trusted() {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let own = params.self_signed(&key).expect("a certificate").pem();
    let identity = Identity {
        certificate: own.clone(),
        key: key.serialize_pem(),
    };
    let options = TlsOptions::from_pem(own).build().expect("options");
    let address = serve_simply(&identity).await;
    assert!(dial(address, &options).await.is_ok());
}

#[tokio::test]
async fn a_certificate_is_refused_outside_its_time() {
    let authority = Authority::new("A");
    let expired = serve_simply(&authority.issue("127.0.0.1", Valid::Once)).await;
    match fault(expired, &trusting(&authority)).await {
        TlsFault::Expired { ago: Some(ago) } => assert!(ago > Duration::from_secs(86_400)),
        other => panic!("{other:?}"),
    }
    let later = serve_simply(&authority.issue("127.0.0.1", Valid::Later)).await;
    assert!(matches!(
        fault(later, &trusting(&authority)).await,
        TlsFault::NotYetValid
    ));
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let authority = Authority::new("A");
    let client = authority.issue("client.test", Valid::Now);
    for versions in [[&version::TLS12], [&version::TLS13]] {
        let config = server_config(&authority.server(), Some(&authority), &versions);
        let address = serve(config).await;
        assert_eq!(
            dial(address, &showing(&authority, &client)).await.ok(),
            Some(1)
        );
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_missing_is_asked_for() {
    let authority = Authority::new("A");
    for versions in [[&version::TLS12], [&version::TLS13]] {
        let config = server_config(&authority.server(), Some(&authority), &versions);
        let address = serve(config).await;
        assert!(matches!(
            fault(address, &trusting(&authority)).await,
            TlsFault::ClientCertificateRequired
        ));
    }
}

#[tokio::test]
async fn a_client_certificate_that_the_server_refuses_is_said_to_be_refused() {
    let authority = Authority::new("A");
    let foreign = Authority::new("B").issue("client.test", Valid::Now);
    let expired = authority.issue("client.test", Valid::Once);
    for versions in [[&version::TLS12], [&version::TLS13]] {
        let config = server_config(&authority.server(), Some(&authority), &versions);
        let address = serve(config).await;
        for client in [&foreign, &expired] {
            assert!(matches!(
                fault(address, &showing(&authority, client)).await,
                TlsFault::ClientCertificateRefused { .. }
            ));
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_by_what_it_does() {
    let options = trusting(&Authority::new("A"));
    let speaks = serve_plain(b"SSH-2.0-OpenSSH_9.2\r\n", false).await;
    assert!(matches!(fault(speaks, &options).await, TlsFault::NotTls));
    let closes = serve_plain(b"", true).await;
    assert!(matches!(fault(closes, &options).await, TlsFault::Closed));
    let silent = serve_plain(b"", false).await;
    assert!(matches!(
        dial_within(silent, &options, IMPATIENT).await,
        Err(DialError::Late {
            step: Step::Tls,
            ..
        })
    ));
}

#[tokio::test]
async fn a_server_with_tls_is_told_by_a_client_without() {
    let address = serve_simply(&Authority::new("A").server()).await;
    let dialer = dialer(address);
    let dialled = dialer.dial(&dialer.hosts()[0], &request(), PATIENT).await;
    assert!(
        matches!(
            dialled,
            Err(DialError::NotZooKeeper {
                what: Stranger::Tls,
                ..
            })
        ),
        "{dialled:?}"
    );
}

#[test]
fn the_zone_of_an_address_is_no_part_of_the_name_to_expect() {
    let parsed: ConnectString = "[fe80::1%eth0]".parse().expect("a host");
    let name = server_name_of(&parsed.hosts()[0]).expect("a name");
    assert_eq!(name.to_str(), "fe80::1");
}

/// As containers are named that are no good host names.
#[test]
fn a_host_name_with_an_underscore_can_be_expected() {
    let parsed: ConnectString = "zk_1.ensemble.".parse().expect("a host");
    assert!(server_name_of(&parsed.hosts()[0]).is_ok());
}

/// The files of a client, in a folder of their own.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(authority: &Authority, identity: &Identity) -> Self {
        let files = Self {
            folder: TempDir::new().expect("a folder"),
        };
        files.write("ca.pem", &authority.pem);
        files.write("client.pem", &identity.certificate);
        files.write("client.key", &identity.key);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn options(&self) -> Result<TlsOptions, TlsOptionsError> {
        TlsOptions::from_files(self.path("ca.pem"))
            .client_files(self.path("client.pem"), self.path("client.key"))
            .build()
    }
}

fn trouble(options: &TlsOptions) -> Option<String> {
    options.shared.state.lock().trouble.clone()
}

#[tokio::test]
async fn renewed_files_are_in_force_from_the_next_connection_on() {
    let old = Authority::new("old");
    let new = Authority::new("new");
    let files = Files::new(&old, &old.issue("client.test", Valid::Now));
    let options = files.options().expect("options");
    let both = rustls::ALL_VERSIONS;
    let before = serve(server_config(&old.server(), Some(&old), both)).await;
    let after = serve(server_config(&new.server(), Some(&new), both)).await;
    assert_eq!(dial(before, &options).await.ok(), Some(1));
    assert!(matches!(
        fault(after, &options).await,
        TlsFault::UnknownIssuer
    ));

    let renewed = new.issue("client.test", Valid::Now);
    files.write("ca.pem", &new.pem);
    files.write("client.pem", &renewed.certificate);
    // Not yet its key: what was in force stays so, the authority included.
    assert_eq!(dial(before, &options).await.ok(), Some(1));
    let text = trouble(&options).expect("it is noticed");
    assert!(text.contains("client.key"), "{text}");

    files.write("client.key", &renewed.key);
    assert_eq!(dial(after, &options).await.ok(), Some(1));
    assert_eq!(trouble(&options), None);
    assert!(matches!(
        fault(before, &options).await,
        TlsFault::UnknownIssuer
    ));
}

#[tokio::test]
async fn files_that_turn_bad_leave_the_previous_ones_in_force() {
    let authority = Authority::new("A");
    let files = Files::new(&authority, &authority.issue("client.test", Valid::Now));
    let options = files.options().expect("options");
    let address = serve_simply(&authority.server()).await;
    for bad in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nMII"] {
        files.write("ca.pem", bad);
        assert!(dial(address, &options).await.is_ok());
        assert!(trouble(&options).is_some_and(|text| text.contains("ca.pem")));
    }
    fs::remove_file(files.path("ca.pem")).expect("a file");
    assert!(dial(address, &options).await.is_ok());
    assert!(trouble(&options).is_some_and(|text| text.contains("cannot read")));
    files.write("ca.pem", &authority.pem);
    assert!(dial(address, &options).await.is_ok());
    assert_eq!(trouble(&options), None);
}

#[test]
fn files_that_have_not_changed_are_not_parsed_again() {
    let authority = Authority::new("A");
    let files = Files::new(&authority, &authority.issue("client.test", Valid::Now));
    let options = files.options().expect("options");
    let before = options.shared.in_force();
    files.write("ca.pem", &authority.pem);
    assert!(Arc::ptr_eq(&before, &options.shared.reload()));
    files.write("ca.pem", &Authority::new("B").pem);
    assert!(!Arc::ptr_eq(&before, &options.shared.reload()));
}

#[test]
fn what_is_wrong_is_said_with_the_file_when_the_options_are_made() {
    let authority = Authority::new("A");
    let identity = authority.issue("client.test", Valid::Now);
    let other = authority.issue("client.test", Valid::Now);
    // The key on one line, as from a badly quoted environment variable.
    let one_line = identity.key.replace('\n', " ");
    let cut_off = &identity.key[..identity.key.len() / 2];
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted_of_old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
        DEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_base64 = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    let cases: [(&str, &str, &str); 15] = [
        ("ca.pem", "", "holds no certificate"),
        ("ca.pem", "hello", "holds no certificate"),
        ("ca.pem", &identity.key, "holds no certificate"),
        ("ca.pem", no_certificate, "cannot be used"),
        ("ca.pem", no_base64, "not base64"),
        ("client.pem", "", "holds no certificate"),
        ("client.pem", no_certificate, "cannot be used"),
        ("client.pem", &other.certificate, "is not the key of"),
        ("client.key", "", "holds no private key"),
        ("client.key", &identity.certificate, "holds no private key"),
        ("client.key", &other.key, "is not the key of"),
        ("client.key", encrypted, "is encrypted"),
        ("client.key", encrypted_of_old, "is encrypted"),
        ("client.key", cut_off, "cut off"),
        ("client.key", no_key, "not supported"),
    ];
    for (name, text, expected) in cases {
        let files = Files::new(&authority, &identity);
        files.write(name, text);
        let error = files.options().expect_err(expected).to_string();
        let path = files.path(name);
        assert!(error.contains(expected), "{name}, {text:?}: {error}");
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
    }
    for name in ["ca.pem", "client.pem", "client.key"] {
        let files = Files::new(&authority, &identity);
        fs::remove_file(files.path(name)).expect("a file");
        match files.options() {
            Err(TlsOptionsError::Read { file, .. }) => assert_eq!(file, files.path(name)),
            other => panic!("{other:?}"),
        }
    }
    let files = Files::new(&authority, &identity);
    files.write("client.key", &one_line);
    let error = files.options().expect_err("no line breaks");
    let secret = identity.key.lines().nth(1).expect("a line of the key");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(secret), "{shown}");
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let endless = Path::new("/dev/zero");
    if endless.exists() {
        match TlsOptions::from_files(endless).build() {
            Err(TlsOptionsError::Read { reason, .. }) => {
                assert_eq!(reason.kind(), io::ErrorKind::FileTooLarge);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_name_that_no_certificate_can_have_is_refused() {
    let authority = Authority::new("A");
    let refused = TlsOptions::from_pem(authority.pem.as_str())
        .server_name("zk 1")
        .build();
    assert!(matches!(
        refused,
        Err(TlsOptionsError::BadServerName { name }) if name == "zk 1"
    ));
}

#[test]
fn certificate_and_key_may_be_in_one_file() {
    let authority = Authority::new("A");
    let identity = authority.issue("client.test", Valid::Now);
    let both = format!("{}{}", identity.key, identity.certificate);
    let built = TlsOptions::from_pem(authority.pem.as_str())
        .client_pem(both.as_str(), both.as_str())
        .build();
    assert!(built.is_ok(), "{built:?}");
}

#[test]
fn debug_shows_where_secrets_are_and_not_what_they_are() {
    let authority = Authority::new("A");
    let identity = authority.issue("client.test", Valid::Now);
    let secret = identity.key.lines().nth(1).expect("a line of the key");
    let builder = TlsOptions::from_files("/no/such/file")
        .client_pem(identity.certificate.as_str(), identity.key.as_str());
    let shown = format!("{builder:?}");
    assert!(shown.contains("/no/such/file"), "{shown}");
    assert!(!shown.contains(secret), "{shown}");
    let shown = format!("{:?}", showing(&authority, &identity));
    assert!(!shown.contains(secret), "{shown}");
    // Nor as numbers, which is how bytes are usually shown.
    assert!(!shown.contains("45, 45"), "{shown}");
}
