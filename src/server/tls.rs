//! TLS of the join listener: 1.3 only, no resumption, no early data (design, "Proof binding").

use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

use crate::ca::ListenerIdentity;
use crate::proto::provider;

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

/// The listener's TLS.
pub(super) fn server_config(
    certificates: Arc<ListenerCertificates>,
) -> Result<Arc<ServerConfig>, UnusableTls> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| UnusableTls(error.to_string()))?
        .with_no_client_auth()
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
