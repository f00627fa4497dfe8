//! What a node makes of a server that does not take its certificate, or is of another trust domain.

use std::sync::Arc;

use muster::client::{
    Attester, Challenged, ClientIdentity, Connection, Contact, Endpoint, JoinError, Request,
    ServerTrust,
};
use muster::domain::{Code, PublicKey, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, version};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::provider;

/// A CA, as root and as issuer.
struct Ca {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, uri: &str) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key)
    }
}

/// A server that demands client certificates of this CA, and hears out whoever has one.
async fn strict_server(join_root: &Ca, client_ca: &Ca) -> Endpoint {
    let (leaf, key) = join_root.issue("spiffe://prod.example.org/muster/server");
    let mut roots = RootCertStore::empty();
    roots.add(client_ca.root.clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![leaf, join_root.root.clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // One that was accepted is closed at once: an outage, not a refusal.
            let _ended = acceptor.accept(stream).await;
        }
    });
    address.parse().unwrap()
}

/// Nobody asks it anything here.
struct Silent;

impl Attester for Silent {
    fn evidence(&self, _: &Challenged<'_>) -> Result<Vec<u8>, JoinError> {
        Ok(Vec::new())
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, JoinError> {
        Ok(Vec::new())
    }
}

async fn renew(
    endpoint: &Endpoint,
    join_root: &Ca,
    (leaf, key): (CertificateDer<'static>, KeyPair),
) -> JoinError {
    let public_key = PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap();
    let identity = ClientIdentity::new(vec![leaf], key.serialize_der().into());
    assert_eq!(format!("{identity:?}"), "ClientIdentity");
    let trust = ServerTrust::Roots(vec![join_root.root.clone()]);
    let contact = Contact {
        endpoint,
        trust: &trust,
        trust_domain: None,
        identity: Some(&identity),
        source: None,
    };
    let connection = match Connection::to(&contact).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let request = Request { policy: "web", method: "ec2", public_key: &public_key, facts: "" };
    connection.renew(&request, &Silent).await.map(|_| ()).unwrap_err()
}

// In TLS 1.3 the client is done before the server looks: the refusal comes in place of an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_certificate_is_no_outage() {
    let (join_root, node_ca) = (Ca::new("join root"), Ca::new("node CA"));
    let (other_ca, rekeyed_ca) = (Ca::new("other CA"), Ca::new("node CA"));
    let endpoint = strict_server(&join_root, &node_ca).await;
    let id = "spiffe://prod.example.org/node/ec2/web";
    // Many times: what the client writes must not race with alert and close.
    for _ in 0..20 {
        for unknown in [&other_ca, &rekeyed_ca] {
            let refused = renew(&endpoint, &join_root, unknown.issue(id)).await;
            assert_eq!(refused.code, Code::CertificateRequired, "{refused:?}");
        }
    }
    let cut_off = renew(&endpoint, &join_root, node_ca.issue(id)).await;
    assert_eq!(cut_off.code, Code::ServerUnreachable, "{cut_off:?}");
}

#[tokio::test]
async fn a_server_of_another_trust_domain_is_not_believed_though_its_root_is() {
    let (join_root, node_ca) = (Ca::new("join root"), Ca::new("node CA"));
    let endpoint = strict_server(&join_root, &node_ca).await;
    let trust = ServerTrust::Roots(vec![join_root.root.clone()]);
    let known: TrustDomain = "test.example.org".parse().unwrap();
    let contact = Contact {
        endpoint: &endpoint,
        trust: &trust,
        trust_domain: Some(&known),
        identity: None,
        source: None,
    };
    let error = Connection::to(&contact).await.unwrap_err();
    assert_eq!(error.code, Code::ServerUntrusted);
    assert!(error.message.contains("test.example.org"), "{error}");
}
