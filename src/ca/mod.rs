//! Certificate authorities: a recorded order in, a certificate out.
//!
//! What a backend returns is compared with the order before anybody sees it (I7). Three CAs, never
//! mixed: the join root signs the listener only, the node CA nodes, the user CA operators.

mod authority;
mod builtin;
mod bundle;
mod conformance;
mod key_file;
mod listener;
mod pkcs11;
mod profile;
mod revocation;

use rustls::pki_types::CertificateDer;

use crate::domain::KeyDigest;
use crate::registry::Recorded;

pub use authority::{Authorities, Authority, node_ca_certificate_path, node_ca_key_path};
pub use builtin::BuiltinCa;
pub use bundle::UnusableAnchor;
pub use conformance::{Certificate, Nonconforming, check};
pub use key_file::{
    KeyFileError, Passphrase, create as create_key_file, read as read_key_file, write_new_file,
};
pub use listener::{LISTENER_LIFETIME, ListenerIdentity};
pub use pkcs11::{Pkcs11Ca, Pkcs11Settings, TokenError, TokenName};
pub use revocation::{
    NonconformingList, RevocationList, RevokedCertificate, check_revocation_list,
};

/// Signs what was decided and recorded.
#[async_trait::async_trait]
pub trait CertificateAuthority: Send + Sync {
    /// What it is called in the configuration.
    fn name(&self) -> &'static str;

    /// Issues the order: a function of it, for backends that choose nothing themselves.
    async fn issue(&self, recorded: &Recorded) -> Result<IssuedCertificate, IssueError>;

    /// Signs a list of revoked certificates: a DER CRL of version 2. Like a certificate it must be
    /// compared with what was asked for before anybody sees it: `check_revocation_list`.
    async fn sign_revocation_list(&self, list: &RevocationList) -> Result<Vec<u8>, IssueError>;

    /// What relying parties verify nodes with.
    async fn trust_anchors(&self) -> Result<TrustAnchors, IssueError>;

    /// Which key signs new orders: it is part of the order.
    fn issuer(&self) -> KeyDigest;

    /// What the backend can and cannot do.
    fn capabilities(&self) -> Capabilities;

    /// A health check that really signs.
    async fn check(&self) -> Result<(), IssueError>;
}

/// What a backend returned; nothing about it is trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The leaf, then intermediates, DER.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The node CA's anchors, DER certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchors(pub Vec<CertificateDer<'static>>);

/// Why a backend did not issue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Too many requests; try again after so many seconds.
    #[error("the CA backend is throttled for {0} s")]
    Throttled(u32),
    /// It did not answer.
    #[error("the CA backend is unavailable: {0}")]
    Unavailable(String),
    /// It will not sign this order.
    #[error("the CA backend refused: {0}")]
    Refused(String),
}

/// What a backend can and cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// It needs a PKCS#10 request signed by the node's key.
    pub needs_csr: bool,
    /// Issuing the same order twice gives the same certificate but for signature bytes.
    pub is_idempotent: bool,
}
