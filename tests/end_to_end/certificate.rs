//! What a node gets, judged by others than muster: openssl, rustls-webpki, and a TLS server that
//! knows nothing but the bundle.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::harness::{Site, WORKER, certificates, is_missing, provider};

#[test]
fn openssl_and_webpki_accept_a_node_certificate() {
    let site = Site::new();
    site.join(WORKER, "node").yes();
    let current = site.path("node/current");

    if !is_missing("openssl") {
        let verified = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
            .arg(current.join("bundle.pem"))
            .arg("-untrusted")
            .args([current.join("certificate.pem"), current.join("certificate.pem")])
            .output()
            .unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }

    let chain = certificates(&current.join("certificate.pem"));
    let bundle = certificates(&current.join("bundle.pem"));
    let anchors: Vec<_> = bundle.iter().map(|der| anchor_from_trusted_cert(der).unwrap()).collect();
    EndEntityCert::try_from(&chain[0])
        .unwrap()
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &chain[1..],
            UnixTime::now(),
            KeyUsage::client_auth(),
            None,
            None,
        )
        .unwrap();
}

#[tokio::test]
async fn a_server_that_knows_only_the_bundle_accepts_the_node() {
    let site = Site::new();
    site.join(WORKER, "node").yes();
    let current = site.path("node/current");

    let peer = mutual_tls(&current).await;

    assert_eq!(peer, certificates(&current.join("certificate.pem")));
}

/// What a relying party's server sees of a client with the files in `current`.
async fn mutual_tls(current: &Path) -> Vec<CertificateDer<'static>> {
    let server_key = rcgen::KeyPair::generate().unwrap();
    let server_certificate = rcgen::CertificateParams::new(vec!["relying.example".to_owned()])
        .unwrap()
        .self_signed(&server_key)
        .unwrap();
    let mut nodes = RootCertStore::empty();
    for anchor in certificates(&current.join("bundle.pem")) {
        nodes.add(anchor).unwrap();
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(nodes), provider()).build().unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![server_certificate.der().clone()],
            PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let mut relying = RootCertStore::empty();
    relying.add(server_certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(relying)
        .with_client_auth_cert(
            certificates(&current.join("certificate.pem")),
            PrivateKeyDer::from_pem_file(current.join("key.pem")).unwrap(),
        )
        .unwrap();

    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("relying.example").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (near, far) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    near.write_all(b"hello").await.unwrap();
    near.flush().await.unwrap();
    let mut heard = [0; 5];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    far.get_ref().1.peer_certificates().unwrap().to_vec()
}

#[test]
fn only_the_owner_reads_the_key_and_a_second_join_keeps_it() {
    let site = Site::new();
    let first = site.join(WORKER, "node");
    let state = site.path("node");
    let current = state.join("current");
    assert!(fs::symlink_metadata(&current).unwrap().is_symlink());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&fs::canonicalize(&current).unwrap()), 0o700);
    assert_eq!(mode(&current.join("key.pem")), 0o600);
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(current.join("node.json")).unwrap()).unwrap();
    assert_eq!(first.yes(), &kept, "the command prints what node.json says");
    let key = fs::read(current.join("key.pem")).unwrap();

    let second = site.join(WORKER, "node");

    assert_eq!(second.yes()["serial"], first.yes()["serial"]);
    assert_eq!(fs::read(current.join("key.pem")).unwrap(), key);
    assert_eq!(
        fs::read_dir(&state).unwrap().filter(is_identity).count(),
        1,
        "nothing is left over"
    );
}

fn is_identity(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("identity-")
}
