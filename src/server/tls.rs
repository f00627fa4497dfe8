//! TLS of the join listener: 1.3 only, no resumption, no early data (design, "Proof binding"). A node
//! that renews shows its certificate; one that joins has none.

use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    version,
};

use crate::ca::{ListenerIdentity, TrustAnchors};
use crate::clock::Clock;
use crate::domain::Serial;
use crate::proto::provider;
use crate::registry::PresentedCertificate;

/// TLS that cannot be set up, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableTls(pub String);

/// The listener's certificates; they can be exchanged while it runs.
#[derive(Debug)]
pub(super) struct ListenerCertificates {
    /// Shown to nodes that pin the join root; they send no server name.
    own: RwLock<Arc<CertifiedKey>>,
    /// Shown to nodes that verify by public roots; they do.
    public: Option<Arc<CertifiedKey>>,
}

impl ListenerCertificates {
    /// Begins with these.
    pub(super) fn new(
        own: ListenerIdentity,
        public: Option<(&Path, &Path)>,
    ) -> Result<Self, UnusableTls> {
        let public = public.map(|(chain, key)| read_public(chain, key)).transpose()?;
        Ok(Self { own: RwLock::new(certified(own.chain, own.key)?), public })
    }

    /// Exchanges the join root's certificate.
    pub(super) fn renew(&self, own: ListenerIdentity) -> Result<(), UnusableTls> {
        let renewed = certified(own.chain, own.key)?;
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }
}

impl ResolvesServerCert for ListenerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match (&self.public, hello.server_name()) {
            (Some(public), Some(_)) => Some(Arc::clone(public)),
            _ => Some(Arc::clone(&self.own.read().unwrap_or_else(PoisonError::into_inner))),
        }
    }
}

/// Takes certificates of the node CA, or none. What a certificate still opens is for the registry to
/// say, at every renewal: here it is only a good one (T27, T29, T41).
#[derive(Debug)]
pub(super) struct NodeCertificates {
    verifier: Arc<dyn ClientCertVerifier>,
    clock: Clock,
}

impl NodeCertificates {
    /// Certificates that lead to these anchors.
    pub(super) fn new(anchors: &TrustAnchors, clock: Clock) -> Result<Self, UnusableTls> {
        let unusable = |error: &dyn std::fmt::Display| UnusableTls(format!("node CA: {error}"));
        let mut roots = RootCertStore::empty();
        for anchor in &anchors.0 {
            roots.add(anchor.clone()).map_err(|error| unusable(&error))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()))
                .allow_unauthenticated()
                .build()
                .map_err(|error| unusable(&error))?;
        Ok(Self { verifier, clock })
    }
}

impl ClientCertVerifier for NodeCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    /// By the server's one clock, not by the library's.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let seconds = u64::try_from(self.clock.now().unix_seconds()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// What is on record of a certificate that was verified; none if its serial is not of our form, so
/// it is not on record.
pub(super) fn presented(leaf: &CertificateDer<'_>) -> Option<PresentedCertificate> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let serial: Serial = hex::encode_upper(parsed.raw_serial()).parse().ok()?;
    Some(PresentedCertificate { serial, fingerprint: hex::encode(digest(&SHA256, leaf)) })
}

/// The listener's TLS.
pub(super) fn server_config(
    certificates: Arc<ListenerCertificates>,
    nodes: NodeCertificates,
) -> Result<Arc<ServerConfig>, UnusableTls> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| UnusableTls(error.to_string()))?
        .with_client_cert_verifier(Arc::new(nodes))
        .with_cert_resolver(certificates);
    // A resumed session would skip what a full handshake checks (T9), and both would let two
    // connections share key material.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, UnusableTls> {
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(|error| UnusableTls(error.to_string()))
}

fn read_public(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, UnusableTls> {
    let unusable = |path: &Path, what: String| UnusableTls(format!("{}: {what}", path.display()));
    let text = fs::read(chain).map_err(|error| unusable(chain, error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(chain, error.to_string()))?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error.to_string()))?;
    certified(certificates, key_der)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::domain::{Lifetime, Timestamp};

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    fn params(is_ca: IsCa, end: Timestamp) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        params.not_before = now().minus(Lifetime::from_hours(1)).to_date_time();
        params.not_after = end.to_date_time();
        params
    }

    // T27, T41, and the clock: what a good chain to the node CA is, and what only looks like one.
    #[test]
    fn only_a_leaf_of_the_node_ca_that_has_not_ended_is_a_client() {
        let in_an_hour = now().plus(Lifetime::from_hours(1));
        let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let root = params(authority(), in_an_hour);
        let anchor = root.self_signed(&ca_key).unwrap().der().clone();
        let ca = Issuer::new(root, ca_key);
        let clock = Clock::fixed(now());
        let nodes = NodeCertificates::new(&TrustAnchors(vec![anchor]), clock.clone()).unwrap();
        let accepts = |chain: &[CertificateDer<'_>]| {
            let (leaf, intermediates) = chain.split_first().unwrap();
            // The library's own time is a century off, and is not asked.
            let library = UnixTime::since_unix_epoch(Duration::from_secs(1));
            nodes.verify_client_cert(leaf, intermediates, library).is_ok()
        };
        let key = KeyPair::generate().unwrap();
        let issue = |params: &CertificateParams| params.signed_by(&key, &ca).unwrap().der().clone();

        let leaf = issue(&params(IsCa::ExplicitNoCa, in_an_hour));
        assert!(accepts(std::slice::from_ref(&leaf)));
        assert!(!accepts(&[issue(&params(authority(), in_an_hour))]), "an authority as a client");
        let of_a_leaf = Issuer::from_ca_cert_der(&leaf, &key).unwrap();
        let other_key = KeyPair::generate().unwrap();
        let wrapped = params(IsCa::ExplicitNoCa, in_an_hour).signed_by(&other_key, &of_a_leaf);
        assert!(!accepts(&[wrapped.unwrap().der().clone(), leaf.clone()]), "signed by a leaf");
        let ended = issue(&params(IsCa::ExplicitNoCa, now().minus(Lifetime::from_seconds(1))));
        assert!(!accepts(&[ended]));
        clock.advance(Lifetime::from_hours(2));
        assert!(!accepts(&[leaf]), "by the server's clock it has ended");
    }
}
