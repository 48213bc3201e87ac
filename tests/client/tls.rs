//! TLS and x509, against Apache ZooKeeper: Quorate does not serve TLS yet.

use std::path::Path;

use quorate_client::{AclEntry, Client, ConnectError, Perms, Reason, TlsOptions};
use quorate_tests::server::{Product, Server, Settings, free_port, servers};
use quorate_tests::skip::{Need, available};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(
            folder.join("ca.pem"),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        Self(Issuer::new(params, key))
    }

    /// Writes a certificate and its key into `<name>.pem`.
    fn issue(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        let both = certificate + &key.serialize_pem();
        std::fs::write(folder.join(format!("{name}.pem")), both).unwrap();
    }
}

#[test]
fn a_certificate_proves_who_we_are_to_a_server_of_zookeeper() {
    const TEST: &str = "a_certificate_proves_who_we_are_to_a_server_of_zookeeper";
    if !available(
        TEST,
        &[Need::Jars(&["zookeeper", "slf4j-simple", "netty-codec"])],
    ) {
        return;
    }
    // They would all be told of the same port for TLS. One will do.
    if servers() > 1 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    authority.issue(folder.path(), "server");
    authority.issue(folder.path(), "worker");
    let foreign = tempfile::tempdir().unwrap();
    Authority::new(foreign.path()).issue(foreign.path(), "stranger");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port().unwrap();
    let settings = Settings::default()
        .with("secureClientPort", &port.to_string())
        .with(
            "serverCnxnFactory",
            "org.apache.zookeeper.server.NettyServerCnxnFactory",
        )
        .with("ssl.keyStore.location", &file("server.pem"))
        .with("ssl.keyStore.type", "PEM")
        .with("ssl.trustStore.location", &file("ca.pem"))
        .with("ssl.trustStore.type", "PEM")
        .with(
            "authProvider.x509",
            "org.apache.zookeeper.server.auth.X509AuthenticationProvider",
        );
    let server = Server::start(Product::ApacheZookeeper, &settings).unwrap();
    let address = format!("127.0.0.1:{port}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = TlsOptions::from_files(file("ca.pem"));
        let options = options
            .client_files(file("worker.pem"), file("worker.pem"))
            .build()
            .unwrap();
        let worker = Client::builder(&address)
            .tls(options)
            .connect()
            .await
            .unwrap();
        let who = worker.who_am_i().await.unwrap();
        assert!(
            who.contains(&("x509".to_owned(), "CN=worker".to_owned())),
            "{who:?}"
        );
        let mine = [AclEntry::new(Perms::ALL, "x509", "CN=worker")];
        worker.create("/mine", b"x").acl(mine).await.unwrap();
        let plain = Client::connect(&server.address().to_string())
            .await
            .unwrap();
        assert!(plain.get("/mine").await.unwrap_err().is(Reason::NoAuth));
        assert_eq!(&worker.get("/mine").await.unwrap().0[..], b"x");

        let distrustful = TlsOptions::from_files(foreign.path().join("ca.pem"))
            .build()
            .unwrap();
        let refused = Client::builder(&address)
            .connect_timeout(std::time::Duration::from_secs(2))
            .tls(distrustful)
            .connect()
            .await;
        assert!(
            matches!(refused, Err(ConnectError::NoServer { .. })),
            "{refused:?}"
        );
    });
}
